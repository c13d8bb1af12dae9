//! The exporter as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::{Authority, Client, Exposition, FAR, KEY, Pair, Upstream, eventually, tool};

/// The program, with none of the environment's variables: no proxy, no key, no CEKURA variable.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cekura-exporter"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// The program, started through another one, which gets its path and arguments at the end.
fn program_through(through: &[String]) -> Command {
    let inner = program();
    let [outer, args @ ..] = through else { return inner };
    let mut command = Command::new(outer);
    command.env_clear().args(args).arg(inner.get_program()).stdin(Stdio::null());
    command
}

/// What hands sockets of these kinds over to a program as systemd does.
fn handing_over(kinds: &[&str]) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/harness/hand-over.pl");
    let perl = tool("perl").display().to_string();
    [&[perl.as_str(), script], kinds, &["--"]].concat().into_iter().map(str::to_owned).collect()
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    run_through(&[], args, environment)
}

/// As [`run`], with sockets of these kinds handed over as systemd does.
pub(crate) fn run_with_sockets(kinds: &[&str], args: &[&str]) -> Output {
    run_through(&handing_over(kinds), args, &[])
}

/// As [`run`], started through another program, which gets its path and arguments at the end.
pub(crate) fn run_through(through: &[String], args: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = program_through(through).args(args).envs(environment.iter().copied()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{args:?}: {errors}");
    output
}

/// A running exporter. Dropping it kills it.
pub(crate) struct Exporter {
    child: Child,
    logs: Arc<Mutex<Vec<Value>>>,
    errors: Arc<Mutex<String>>,
    /// Where it serves, in the order of its listen addresses.
    pub(crate) urls: Vec<String>,
    http: reqwest::Client,
    folder: TempDir,
    /// Those who read what it writes, to its end.
    reading: Vec<JoinHandle<()>>,
}

/// How many listeners an argument asks for.
fn listeners_of(arg: &str) -> usize {
    match arg.strip_prefix("--web.listen-address") {
        Some(address) if address.starts_with("=localhost:") && has_ipv6() => 2,
        Some(_) => 1,
        None => 0,
    }
}

/// Whether this machine has the loopback address of IPv6.
pub(crate) fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}

/// The block of a web configuration that has it speak TLS with the certificate that [`Start::server`]
/// gives it.
pub(crate) const TLS: &str = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";

/// How an exporter is started.
pub(crate) struct Start {
    config: String,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    through: Vec<String>,
    /// Kinds of sockets that are handed over.
    sockets: Vec<String>,
    files: Vec<(String, String)>,
    client: Client,
}

impl Start {
    /// Puts a file beside the configuration.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Puts a web configuration beside the configuration, as `web.yaml`.
    pub(crate) fn web(self, text: &str) -> Self {
        self.file("web.yaml", text).arg("--web.config.file=web.yaml")
    }

    /// Puts a server's certificate and key beside the configuration, as `server.pem` and `server.key`.
    pub(crate) fn server(self, pair: &Pair) -> Self {
        self.file("server.pem", &pair.certificate).file("server.key", &pair.key)
    }

    /// Gives it a certificate of this authority, and these lines more under `tls_server_config`. Who
    /// asks it trusts the authority.
    pub(crate) fn tls(self, authority: &Authority, more: &[&str]) -> Self {
        let lines = [&["tls_server_config:", "cert_file: server.pem", "key_file: server.key"], more].concat();
        let start = self.web(&lines.join("\n  ")).server(&authority.server(FAR));
        start.client(&Client::trusting(authority))
    }

    /// Who asks it, where nothing else is said; else a client without TLS and login.
    pub(crate) fn client(mut self, client: &Client) -> Self {
        self.client = client.clone();
        self
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program through another one, which gets its path and arguments at the end and
    /// lives until the program ends. It has no more of the environment than the program has.
    pub(crate) fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Hands sockets of these kinds over as systemd does, and has the exporter take them.
    pub(crate) fn handing_over(mut self, kinds: &[&str]) -> Self {
        self.sockets = kinds.iter().map(ToString::to_string).collect();
        self.through(&handing_over(kinds).iter().map(String::as_str).collect::<Vec<_>>()).arg("--web.systemd-socket")
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self) -> Exporter {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, &self.config).unwrap();
        for (name, text) in &self.files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut command = self.command(&config, folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let logs = Arc::new(Mutex::new(Vec::new()));
        let errors = Arc::new(Mutex::new(String::new()));
        let reading = vec![
            keep_logs(child.stdout.take().unwrap(), logs.clone()),
            keep_text(child.stderr.take().unwrap(), errors.clone()),
        ];
        let http = self.client.http();
        let mut exporter = Exporter { child, logs, errors, urls: Vec::new(), http, folder, reading };
        let addresses: usize = self.args.iter().map(|arg| listeners_of(arg)).sum();
        let listeners = if self.sockets.is_empty() { addresses.max(1) } else { self.sockets.len() };
        exporter.urls = eventually("the exporter listens", async || {
            assert_eq!(exporter.child.try_wait().unwrap(), None, "it ended before it listened");
            exporter.listening(listeners)
        })
        .await;
        exporter.urls.iter_mut().for_each(|address| *address = self.client.url(address));
        exporter
    }

    fn command(&self, config: &Path, folder: &Path) -> Command {
        let mut command = program_through(&self.through);
        if !self.args.iter().any(|arg| arg == "--demo") {
            command.arg("--config.file").arg(config);
        }
        if self.sockets.is_empty() && !self.args.iter().any(|arg| arg.starts_with("--web.listen-address")) {
            command.arg("--web.listen-address=127.0.0.1:0");
        }
        command.args(&self.args).envs(self.environment.iter().cloned()).current_dir(folder);
        command
    }
}

impl Exporter {
    /// An exporter with this configuration.
    pub(crate) fn with(config: impl Into<String>) -> Start {
        Start {
            config: config.into(),
            args: Vec::new(),
            environment: Vec::new(),
            through: Vec::new(),
            sockets: Vec::new(),
            files: Vec::new(),
            client: Client::default(),
        }
    }

    /// The configuration of an exporter that polls `upstream` quickly, with more configuration text.
    pub(crate) fn quick(upstream: &Upstream, more: &str) -> String {
        format!(
            "apis:\n  default: {{base_url: {}, api_key: {KEY}, timeout: 20s}}\n\
             polling: {{agent_interval: 100ms, min_interval: 50ms, max_interval: 100ms, backoff_max: 200ms}}\n{more}",
            upstream.url()
        )
    }

    /// As [`Exporter::quick`], and takes registrations, which it keeps in the file `state`.
    pub(crate) fn registering(upstream: &Upstream, state: &Path) -> String {
        Self::quick(upstream, &format!("state_file: {}\nregistrations: {{enabled: true}}\n", state.display()))
    }

    /// An exporter that polls `upstream` quickly, with these watches and more configuration text.
    pub(crate) fn polling(upstream: &Upstream, watches: &str) -> Start {
        Self::with(Self::quick(upstream, &format!("watches:\n{watches}")))
    }

    /// The addresses that it listens on, once there are so many.
    fn listening(&self, listeners: usize) -> Option<Vec<String>> {
        let addresses: Vec<_> = self
            .logs()
            .iter()
            .filter(|line| line["message"] == "listening")
            .map(|line| line["address"].as_str().unwrap().to_owned())
            .collect();
        (addresses.len() == listeners).then_some(addresses)
    }

    /// The log lines so far.
    pub(crate) fn logs(&self) -> Vec<Value> {
        self.logs.lock().unwrap().clone()
    }

    /// The log lines with this message so far.
    pub(crate) fn logs_of(&self, message: &str) -> Vec<Value> {
        self.logs().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// The log lines with this message, once there are so many: what has been done may not be logged yet.
    pub(crate) async fn logged(&self, message: &str, count: usize) -> Vec<Value> {
        let what = format!("{message:?} is logged {count} times");
        eventually(&what, async || Some(self.logs_of(message)).filter(|lines| lines.len() >= count)).await
    }

    /// What was written to standard error so far.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// The first address that it listens on.
    pub(crate) fn address(&self) -> &str {
        self.urls[0].split_once("://").unwrap().1
    }

    /// What it answers to this client; `None` if the client is refused before.
    pub(crate) async fn answer_to(&self, client: &Client, path: &str) -> Option<reqwest::Response> {
        let answer = client.http().get(client.url(self.address()) + path).send().await;
        assert!(!answer.as_ref().is_err_and(reqwest::Error::is_timeout), "{path} is neither answered nor refused");
        answer.ok()
    }

    /// The status of what it answers to this client, if it does.
    pub(crate) async fn status_for(&self, client: &Client, path: &str) -> Option<u16> {
        self.answer_to(client, path).await.map(|answer| answer.status().as_u16())
    }

    pub(crate) async fn request(&self, method: reqwest::Method, path: &str) -> reqwest::Response {
        self.http.request(method, format!("{}{path}", self.urls[0])).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.request(reqwest::Method::GET, path).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// As [`Exporter::get`], in the background.
    pub(crate) fn get_later(&self, path: &str) -> tokio::task::JoinHandle<(u16, String)> {
        let request = self.http.get(format!("{}{path}", self.urls[0])).send();
        tokio::spawn(async {
            let response = request.await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    pub(crate) async fn scrape(&self) -> Exposition {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Exposition::parse(text)
    }

    /// Scrapes until `holds`, and returns that scrape.
    pub(crate) async fn scrape_until(&self, what: &str, holds: impl Fn(&Exposition) -> bool) -> Exposition {
        eventually(what, async || Some(self.scrape().await).filter(|exposition| holds(exposition))).await
    }

    /// A toggle as the JSON API shows it.
    pub(crate) async fn toggle(&self, name: &str) -> Value {
        let (status, text) = self.get(&format!("/api/v1/toggles/{name}")).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Registers a toggle; the answer's status and JSON.
    pub(crate) async fn put(&self, name: &str, body: &Value) -> (u16, Value) {
        self.put_text(name, "application/json", body.to_string()).await
    }

    /// As [`Exporter::put`], with any body declared as anything.
    pub(crate) async fn put_text(
        &self,
        name: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, Value) {
        let request = self.http.put(format!("{}/api/v1/toggles/{name}", self.urls[0]));
        let response = request.header("content-type", content_type).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    /// Removes a registration; the answer's status.
    pub(crate) async fn delete(&self, name: &str) -> u16 {
        self.request(reqwest::Method::DELETE, &format!("/api/v1/toggles/{name}")).await.status().as_u16()
    }

    /// Reads the configuration again; the answer's status and text.
    pub(crate) async fn reload(&self) -> (u16, String) {
        let response = self.request(reqwest::Method::POST, "/-/reload").await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Writes another configuration.
    pub(crate) fn reconfigure(&self, config: impl AsRef<str>) {
        std::fs::write(self.folder().join("config.yaml"), config.as_ref()).unwrap();
    }

    /// Puts a file beside the configuration, in the place of the one that is there, all at once.
    pub(crate) fn place(&self, name: &str, text: &str) {
        let next = self.folder().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, self.folder().join(name)).unwrap();
    }

    /// A client for requests of other kinds.
    pub(crate) fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }

    /// Ends it as an orchestrator does, and expects that it ends well.
    pub(crate) async fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.ended().await.code(), Some(0));
    }

    /// As [`Exporter::stop`]. Returns all that it logged, to its last line, and what it wrote to
    /// standard error.
    pub(crate) async fn last_words(mut self) -> (Vec<Value>, String) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.ended().await.code(), Some(0));
        (self.logs(), self.errors())
    }

    /// What the system knows of its process: a file of its folder in `/proc`.
    pub(crate) fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Tells it to stop until it has ended: it was told before, and for a while another signal is the same.
    pub(crate) async fn told_again(&mut self) -> ExitStatus {
        eventually("another signal stops it", async || {
            self.signal(rustix::process::Signal::TERM);
            self.child.try_wait().unwrap()
        })
        .await;
        self.ended().await
    }

    /// Waits until it has ended by itself and all that it wrote has been read.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = eventually("the exporter ended", async || self.child.try_wait().unwrap()).await;
        let read = || self.reading.iter().all(JoinHandle::is_finished);
        eventually("all that it wrote is read", async || read().then_some(())).await;
        self.reading.drain(..).for_each(|reading| reading.join().unwrap());
        status
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let started = children(&self.child);
        if started.is_empty() {
            let _ = self.child.kill();
        }
        // Then the child is what the program was started through: it tidies up, and ends by itself.
        for program in started {
            let _ = rustix::process::kill_process(program, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
        // A clock of its own leaves these behind when it is killed, and a later process with the same id that is to have
        // one would not start.
        for shared in ["faketime_shm", "sem.faketime_sem"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{shared}_{}", self.child.id()));
        }
        if std::thread::panicking() {
            eprintln!("standard error:\n{}log:", self.errors());
            self.logs().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// What a running child has started itself.
pub(super) fn children(child: &Child) -> Vec<rustix::process::Pid> {
    let pid = child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter_map(rustix::process::Pid::from_raw).collect()
}

fn keep_logs(stdout: impl Read + Send + 'static, logs: Arc<Mutex<Vec<Value>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let parsed = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a JSON log line: {line}"));
            logs.lock().unwrap().push(parsed);
        }
    })
}

/// Collects what a child writes to standard error.
pub(super) fn keep_text(stderr: impl Read + Send + 'static, text: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut text = text.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    })
}
