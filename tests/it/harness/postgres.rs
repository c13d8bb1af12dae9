//! A real PostgreSQL.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::exporter::{children, keep_text};
use super::{Pair, Proxy, ReservedPort, eventually, tool};

/// How clusters are made.
const INITDB: [&str; 4] = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"];

/// Small segments of the write-ahead log make the template of clusters small.
const SMALL_SEGMENTS: &str = "--wal-segsize=1";

/// What every server is started with: it takes little memory, leaves nothing in `/dev/shm` even when it is
/// killed, and a standby keeps up with a primary that is restarted.
const SETTINGS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "max_connections=50",
    "shared_buffers=8MB",
    "dynamic_shared_memory_type=mmap",
    "wal_keep_size=256MB",
    "wal_retrieve_retry_interval=100ms",
];

/// How many bytes must be free in memory for clusters to be there. A small cluster takes 30 MB, and ten tests run
/// at a time.
const ROOM: u64 = 1 << 30;

/// Where clusters are otherwise. The path of a socket must be short.
const DISK: &str = "/tmp";

/// The user and the group `nobody`: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

/// A running cluster with the superuser `postgres` and the database `postgres`. Dropping it ends it.
pub(crate) struct Postgres {
    server: Child,
    log: Arc<Mutex<String>>,
    settings: Vec<String>,
    port: Arc<ReservedPort>,
    folder: TempDir,
}

/// What a durable server is started with besides: as much memory as a small one of users has, and room for sixteen
/// clients of a benchmark.
const DURABLE: [&str; 3] = ["fsync=on", "max_connections=100", "shared_buffers=128MB"];

/// How a cluster is started.
#[derive(Default)]
pub(crate) struct PostgresStart {
    is_durable: bool,
    settings: Vec<String>,
    password: Option<String>,
    tls: Option<Pair>,
}

// === impl PostgresStart ===

impl PostgresStart {
    /// Changes a setting of the server: `name=value`.
    pub(crate) fn setting(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Has it on disk, synchronised at each commit, as users have it. For benchmarks.
    pub(crate) fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    /// Has `postgres` log in with this password over TCP, by SCRAM; else anybody is trusted.
    pub(crate) fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Has the server speak TLS with this certificate to those who ask for it.
    pub(crate) fn tls(mut self, pair: &Pair) -> Self {
        self.tls = Some(pair.clone());
        self
    }

    /// Starts the cluster and waits until it answers.
    pub(crate) async fn start(mut self) -> Postgres {
        let folder = if self.is_durable { private_folder_in(DISK.as_ref()) } else { private_folder() };
        let data = folder.path().join("data");
        if self.is_durable {
            // The segments have the usual size: small ones would be created all the time.
            succeed(server_program("initdb").args(INITDB).arg("--pgdata").arg(&data));
            self.settings.extend(DURABLE.map(str::to_owned));
        } else {
            succeed(Command::new("cp").arg("--archive").arg(template()).arg(&data));
        }
        if self.password.is_some() {
            let logins = "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
            fs::write(data.join("pg_hba.conf"), logins).unwrap();
        }
        if let Some(pair) = &self.tls {
            write_private(&data.join("server.crt"), &pair.certificate);
            write_private(&data.join("server.key"), &pair.key);
            self.settings.push("ssl=on".to_owned());
        }
        let settings = SETTINGS.iter().map(ToString::to_string).chain(self.settings).collect();
        let postgres = Postgres::run(folder, settings, Arc::new(ReservedPort::new())).await;
        if let Some(password) = &self.password {
            postgres.query(&format!("ALTER ROLE postgres PASSWORD '{password}'")).await;
        }
        postgres
    }
}

// === impl Postgres ===

impl Postgres {
    /// An empty cluster that anybody may log in to.
    pub(crate) async fn start() -> Self {
        Self::with().start().await
    }

    /// A cluster that is started in another way.
    pub(crate) fn with() -> PostgresStart {
        PostgresStart::default()
    }

    /// Runs the cluster in the folder `data` of this folder.
    async fn run(folder: TempDir, settings: Vec<String>, port: Arc<ReservedPort>) -> Self {
        let log = Arc::new(Mutex::new(String::new()));
        let server = spawn(folder.path(), &settings, port.address, &log);
        let mut postgres = Self { server, log, settings, port, folder };
        postgres.answers().await;
        postgres
    }

    async fn answers(&mut self) {
        eventually("PostgreSQL answers", async || {
            assert_eq!(self.server.try_wait().unwrap(), None, "it ended before it answered");
            // A server that was killed leaves this file behind, so it may be of an earlier one.
            let status = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
            let mut lines = status.lines();
            let is_ours = lines.next() == Some(&self.server.id().to_string());
            (is_ours && lines.nth(6).is_some_and(|line| line.trim() == "ready")).then_some(())
        })
        .await;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it listens; the same after [`Postgres::start_again`].
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Its URL, without password and parameters.
    pub(crate) fn url(&self) -> String {
        url_at(self.address())
    }

    /// As [`Postgres::url`], through a proxy.
    pub(crate) fn url_through(proxy: &Proxy) -> String {
        url_at(proxy.address())
    }

    /// The rows that a statement yields. It needs neither a password nor TCP.
    pub(crate) async fn query(&self, sql: &str) -> Vec<Vec<String>> {
        psql(&self.local_url(), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Its URL at the socket in its folder.
    fn local_url(&self) -> String {
        let (folder, port) = (self.folder.path().display(), self.address().port());
        format!("postgresql:///postgres?host={folder}&port={port}&user=postgres")
    }

    /// Stops it at once, without a checkpoint.
    pub(crate) fn stop(&mut self) {
        // A paused server would not see the signal.
        self.resume();
        // The server ends all of its processes, each of which is in a session of its own.
        self.signal(Signal::QUIT);
        self.server.wait().unwrap();
    }

    /// Starts it again after [`Postgres::stop`], at the same address with the same data.
    pub(crate) async fn start_again(&mut self) {
        self.server = spawn(self.folder.path(), &self.settings, self.address(), &self.log);
        self.answers().await;
    }

    /// Has all of its processes stand still, as on a machine that hangs: connections stay open, and new ones
    /// are not answered.
    pub(crate) async fn pause(&self) {
        // The server itself comes first, so that it starts no more processes.
        self.signal(Signal::STOP);
        stands_still(Pid::from_child(&self.server)).await;
        for process in children(&self.server) {
            let _ = kill_process(process, Signal::STOP);
            stands_still(process).await;
        }
    }

    /// Has them go on.
    pub(crate) fn resume(&self) {
        for process in children(&self.server) {
            let _ = kill_process(process, Signal::CONT);
        }
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).unwrap();
    }

    /// Where its data is, and where its processes work.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A standby, which follows it and may be a little behind.
    pub(crate) async fn standby(&self) -> Self {
        self.standby_at(Arc::new(ReservedPort::new())).await
    }

    async fn standby_at(&self, port: Arc<ReservedPort>) -> Self {
        let parent = self.folder.path().parent().unwrap();
        let folder = private_folder_in(parent);
        let mut backup = server_program("pg_basebackup");
        backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--pgdata"]);
        backup.arg(folder.path().join("data")).arg("--dbname").arg(self.local_url());
        succeed(&mut backup);
        // It does not wait for the standbys of its primary when it is promoted. The last line counts.
        let mut own = File::options().append(true).open(folder.path().join("data/postgresql.auto.conf")).unwrap();
        own.write_all(b"synchronous_standby_names = ''\n").unwrap();
        let standby = Self::run(folder, self.settings.clone(), port).await;
        self.follows(&standby, "async").await;
        standby
    }

    /// A standby that has everything that is committed from now on: commits wait for it.
    pub(crate) async fn synchronous_standby(&self) -> Self {
        let standby = self.standby().await;
        self.wait_for(&standby).await;
        standby
    }

    /// Starts it again after [`Postgres::stop`], at the same address, as a synchronous standby of another cluster,
    /// whose data takes the place of its own.
    pub(crate) async fn start_again_as_standby_of(&mut self, primary: &Self) {
        *self = primary.standby_at(self.port.clone()).await;
        primary.wait_for(self).await;
    }

    /// Has commits wait for a standby.
    async fn wait_for(&self, standby: &Self) {
        let name = name(standby.address());
        self.query(&format!("ALTER SYSTEM SET synchronous_standby_names TO '{name}'")).await;
        self.query("SELECT pg_reload_conf()").await;
        self.follows(standby, "sync").await;
    }

    /// Waits until a standby follows it in this way.
    async fn follows(&self, standby: &Self, way: &str) {
        let name = name(standby.address());
        let sql = format!(
            "SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
        );
        eventually("the standby follows", async || (self.query(&sql).await == [[way]]).then_some(())).await;
    }

    /// Makes a standby the primary.
    pub(crate) async fn promote(&self) {
        assert_eq!(self.query("SELECT pg_promote()").await, [["t"]]);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            self.stop();
        }
        if std::thread::panicking() {
            eprintln!("PostgreSQL at {}:\n{}", self.address(), self.log.lock().unwrap());
        }
    }
}

/// The rows that a statement yields to a client with this URL, or what the client says is wrong.
pub(crate) async fn psql(url: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let (column, row) = ('\x1f', '\x1e');
    let mut command = tokio::process::Command::new(postgres_programs().join("psql"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
    command.arg(format!("--field-separator={column}")).arg(format!("--record-separator={row}"));
    let output = command.arg("--command").arg(sql).arg(url).output().await.unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.strip_suffix('\n').into_iter().flat_map(|text| text.split(row));
    Ok(rows.map(|row| row.split(column).map(str::to_owned).collect()).collect())
}

fn url_at(address: SocketAddr) -> String {
    format!("postgresql://postgres@{address}/postgres")
}

/// The name of the cluster at this address, by which a primary knows its standbys.
fn name(address: SocketAddr) -> String {
    format!("cluster_{}", address.port())
}

/// The folder of the programs of the newest PostgreSQL, which Debian keeps outside `PATH`.
pub(crate) fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().map(|entry| entry.unwrap().path());
    let complete = versions.filter(|folder| folder.join("bin/initdb").is_file());
    let newest = complete.max_by_key(|folder| version_of(folder).parse::<u32>().ok());
    newest.unwrap_or_else(|| panic!("there is no PostgreSQL on this machine: tests/run installs it")).join("bin")
}

/// The version of which this is the folder.
fn version_of(folder: &Path) -> &str {
    folder.file_name().unwrap().to_str().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that may not run as root, as another user where this is root. It sees none of the environment's
/// variables, and is stopped when the thread that started it ends, so that it does not outlive a killed test.
fn server_program(name: &str) -> Command {
    let mut command = Command::new(tool("setpriv"));
    command.env_clear().stdin(Stdio::null()).args(["--pdeathsig", "QUIT"]);
    if is_root() {
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    }
    command.arg("--").arg(postgres_programs().join(name));
    command
}

/// Starts the server of a cluster.
fn spawn(folder: &Path, settings: &[String], address: SocketAddr, log: &Arc<Mutex<String>>) -> Child {
    let mut command = server_program("postgres");
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).current_dir(folder);
    command.args(["-p".to_owned(), address.port().to_string(), "-c".to_owned()]);
    command.arg(format!("cluster_name={}", name(address)));
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    // What ends the tests of a terminal does not end the server before the test has dropped it.
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    keep_text(server.stderr.take().unwrap(), log.clone());
    server
}

/// Runs a program to its end.
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder of the user who runs the server. The path of a socket in it is short enough.
fn private_folder() -> TempDir {
    // A cluster has a thousand files. Some filesystems take a second to create so many after others were removed,
    // so they are created in memory where there is room. A container may have little of it.
    let memory = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory).is_ok_and(|memory| memory.f_bavail * memory.f_frsize >= ROOM);
    private_folder_in(if has_room { memory } else { DISK.as_ref() })
}

fn private_folder_in(parent: &Path) -> TempDir {
    let folder = tempfile::Builder::new().prefix("postgres-").tempdir_in(parent).unwrap();
    hand_over(folder.path());
    folder
}

/// Writes a file that only the user who runs the server may read.
fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    hand_over(path);
}

fn hand_over(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A folder as `initdb` leaves it. Making it takes far longer than copying it, so it is made once for all
/// tests, each of which may be a process of its own, and kept for the next run.
fn template() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let version = version_of(postgres_programs().parent().unwrap()).to_owned();
    let template = kept.join(format!("postgresql-{version}{}{SMALL_SEGMENTS}", INITDB.concat()));
    let lock = File::create(kept.join("postgresql.lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let folder = private_folder();
        let made = folder.path().join("data");
        succeed(server_program("initdb").args(INITDB).args([SMALL_SEGMENTS, "--no-sync"]).arg("--pgdata").arg(&made));
        let whole = tempfile::tempdir_in(kept).unwrap();
        succeed(Command::new("cp").arg("--archive").arg(&made).arg(whole.path()));
        fs::rename(whole.path().join("data"), &template).unwrap();
    }
    template
}

/// Waits until a process stands still, or has ended.
async fn stands_still(process: Pid) {
    let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
    eventually("the process stands still", async || {
        let Ok(stat) = fs::read_to_string(&stat) else { return Some(()) };
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        after_name.starts_with(['T', 'Z']).then_some(())
    })
    .await;
}
