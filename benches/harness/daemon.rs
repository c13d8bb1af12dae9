//! Programs that are not ours, each as a process of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Connection, Failure};

/// How long starting may take before it counts as failed.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How often another port is tried. Somebody may take one between its choice and its use.
const PORTS: u32 = 5;

/// Where Debian has programs that need not be in the path of who is not root.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A program that is needed, and the Debian package that has it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// What is answered with 200 once it serves.
    pub(crate) ready: &'static str,
}

/// A running program. Dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

// === impl Program ===

impl Program {
    /// Where it is.
    pub(crate) fn find(&self) -> Result<PathBuf, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
        let found = folders.map(|folder| folder.join(self.name)).find(|file| file.is_file());
        let missing = || format!("There is no {}. On Debian, apt-get install {} brings it.", self.name, self.package);
        found.ok_or_else(|| missing().into())
    }

    /// Starts it on a free port with the arguments that `prepare` makes of its address and of a
    /// folder of its own, and waits until it serves.
    pub(crate) async fn start(
        &self,
        prepare: impl Fn(SocketAddr, &Path) -> Result<Vec<String>, Failure>,
    ) -> Result<Daemon, Failure> {
        let program = self.find()?;
        let mut said = String::new();
        for _ in 0..PORTS {
            let folder = tempfile::tempdir()?;
            let address = free_address()?;
            let errors = folder.path().join("errors");
            let child = Command::new(&program)
                .args(prepare(address, folder.path())?)
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&errors)?)
                .spawn()?;
            let mut daemon = Daemon { child, address, _folder: folder };
            if daemon.serves(self.ready).await? {
                return Ok(daemon);
            }
            said = fs::read_to_string(&errors)?;
        }
        let said = said.lines().last().unwrap_or("nothing");
        Err(format!("{} did not start. It said: {said}", self.name).into())
    }
}

/// An address that was free just now.
fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

// === impl Daemon ===

impl Daemon {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it serves; whether it does.
    async fn serves(&mut self, ready: &str) -> Result<bool, Failure> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // Whoever else has the port may answer too, but then this one has ended or will.
            let answers = answers(self.address, ready).await;
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            if answers {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

async fn answers(address: SocketAddr, target: &str) -> bool {
    let answer = async { Connection::open(address).await?.get(target, "", |_| {}).await };
    matches!(tokio::time::timeout(START_LIMIT, answer).await, Ok(Ok(200)))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
