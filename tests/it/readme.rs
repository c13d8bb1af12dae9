//! Runs the commands of the README that install the program and watch an agent and a toggle, with a simulated API
//! instead of the public one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use cekura_exporter::demo::simulator::Reply;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::{ReservedPort, Upstream, eventually, markdown, tool};

/// The code blocks of shell commands that install the program and watch an agent and a toggle, in order.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let sections = ["## Install", "## Watch your first agent"].map(|heading| markdown::section(&readme, heading));
    let blocks = sections.into_iter().flat_map(|section| section.split("\n```sh\n").skip(1));
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

/// The text between these two.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {rest}")).0
}

/// A person who follows the README in a new folder.
struct Reader {
    folder: TempDir,
    /// The port of the program, instead of its default port.
    port: ReservedPort,
    upstream: Upstream,
}

impl Reader {
    /// A reader with a fake `cargo` in the folder `bin`.
    async fn new() -> Self {
        let reader =
            Self { folder: tempfile::tempdir().unwrap(), port: ReservedPort::new(), upstream: Upstream::start().await };
        let build = "[ \"$*\" = 'build --locked --release' ] && mkdir -p target/release && mv program target/release/";
        fs::create_dir(reader.folder.path().join("bin")).unwrap();
        reader.write("bin/cargo", &format!("#!/bin/sh\n{build}cekura-exporter\n"));
        reader
    }

    fn write(&self, path: &str, text: &str) {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o755).open(self.folder.path().join(path));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Writes the program, which listens on the reserved port, and the reference configuration.
    fn put_program(&self, path: &str, config: &str) {
        let program = env!("CARGO_BIN_EXE_cekura-exporter");
        self.write(path, &format!("#!/bin/sh\nexec {program} \"$@\" --web.listen-address={}\n", self.port.address));
        self.write(config, REFERENCE);
    }

    /// A shell that runs these commands, and stops at the first that fails.
    fn shell(&self, commands: &str) -> Command {
        let mut folders = vec![self.folder.path().join("bin"), tool("curl").parent().unwrap().to_owned()];
        folders.extend(["/usr/bin", "/bin"].map(Into::into));
        let mut command = Command::new("/bin/sh");
        command.args(["-e", "-c", commands]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::join_paths(folders).unwrap());
        command.env("CEKURA_EXPORTER__APIS__DEFAULT__BASE_URL", self.upstream.url());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The output of the commands for another terminal in this folder, with the port of this reader.
    async fn elsewhere(&self, folder: &str, commands: &str) -> Output {
        assert!(commands.contains("http://localhost:10058/"), "{commands}");
        let commands = commands.replace("localhost:10058", &self.port.address.to_string());
        self.shell(&format!("cd ./{folder}\n{commands}")).output().await.unwrap()
    }
}

/// A shell and the programs that it runs. Dropping it ends them.
struct Session(Child);

impl Session {
    fn start(mut shell: Command) -> Self {
        Self(shell.process_group(0).spawn().unwrap())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The flag with which the README starts the program.
const LISTENING: &str = " --web.listen-address localhost:10058";

/// The content of `config.yaml` in the checkout and in the archive.
const REFERENCE: &str = "watches: []\n";

/// Follows the README: gets the program, starts it in this folder, waits until the agent is shown, and then watches a
/// toggle.
async fn follow(reader: &Reader, get: &str, folder: &str, [given, look, watch]: [&str; 3]) {
    // The program listens on the reserved port instead.
    let start = given.replace(LISTENING, "");
    assert_ne!(start, given);
    let agent = between(&start, "agent_id: ", ",");
    let key = between(&start, "\nexport CEKURA_API_KEY=", "\n");
    reader.upstream.mock_status(agent.parse().unwrap(), [Reply::mock_status(true, "vapi")]);
    let mut session = Session::start(reader.shell(&format!("{get}{start}")));
    let shown = eventually("the agent is shown with its mocks on", async || {
        if session.0.try_wait().unwrap().is_some() {
            let mut said = String::new();
            tokio::io::AsyncReadExt::read_to_string(session.0.stderr.as_mut().unwrap(), &mut said).await.unwrap();
            panic!("it ended: {said}");
        }
        let output = reader.elsewhere(folder, look).await;
        let shown = serde_json::from_slice::<Value>(&output.stdout).ok()?;
        (shown["mocks_live"] == true).then_some(shown)
    });
    let shown = shown.await;
    assert_eq!((shown["agent_id"].to_string(), &shown["mocks_drift"]), (agent.to_owned(), &json!(true)));
    let (name, id) = (between(watch, "name: ", ","), between(watch, "progress_id: ", ","));
    reader.upstream.script(id, [Reply::task("completed", Some(true))]);
    let added = reader.elsewhere(folder, watch).await;
    assert!(added.status.success(), "{added:?}");
    let (_, look) = watch.split_once("/-/reload\n").unwrap();
    let shown = eventually("the toggle is shown completed", async || {
        let output = reader.elsewhere(folder, look).await;
        let shown = serde_json::from_slice::<Value>(&output.stdout).ok()?;
        (shown["status"] == "completed").then_some(shown)
    });
    let shown = shown.await;
    assert_eq!((&shown["name"], &shown["progress_id"], &shown["mismatch"]), (&json!(name), &json!(id), &json!(false)));
    let requests = reader.upstream.requests();
    assert!(requests.iter().all(|(_, request)| request.header("x-cekura-api-key") == Some(key)), "{requests:?}");
}

#[tokio::test]
async fn the_commands_of_the_readme_show_an_agent_and_a_toggle_from_a_checkout() {
    let [checkout, _, start, look, watch] = &commands()[..] else { panic!("{:#?}", commands()) };
    let reader = Reader::new().await;
    reader.put_program("program", "config.yaml");
    follow(&reader, checkout, "", [start, look, watch]).await;
    assert_eq!(fs::read_to_string(reader.folder.path().join("config.yaml")).unwrap(), REFERENCE);
}

#[tokio::test]
async fn the_commands_of_the_readme_show_an_agent_and_a_toggle_from_a_release_archive() {
    let [_, archive, start, look, watch] = &commands()[..] else { panic!("{:#?}", commands()) };
    let reader = Reader::new().await;
    // As .ci/archive packs it.
    let name = concat!("cekura-exporter-", env!("CARGO_PKG_VERSION"), "-x86_64-unknown-linux-gnu");
    fs::create_dir(reader.folder.path().join(name)).unwrap();
    reader.put_program(&format!("{name}/cekura-exporter"), &format!("{name}/config.yaml"));
    let packed = reader.shell(&format!("tar -czf {name}.tar.gz {name}; rm -r {name}")).output().await.unwrap();
    assert!(packed.status.success(), "{packed:?}");
    follow(&reader, archive, name, [start, look, watch]).await;
    assert_eq!(fs::read_to_string(reader.folder.path().join(name).join("config.yaml")).unwrap(), REFERENCE);
}

#[test]
fn git_ignores_the_configuration_that_the_commands_of_the_readme_write() {
    let commands = commands().concat();
    let written: Vec<_> = commands.split(" > ").skip(1).map(|rest| rest.split_whitespace().next().unwrap()).collect();
    assert!(!written.is_empty(), "{commands}");
    for file in written {
        let mut git = std::process::Command::new("git");
        let ignored = git.args(["check-ignore", "--quiet", file]).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(ignored.unwrap().success(), "git does not ignore {file}");
    }
}
