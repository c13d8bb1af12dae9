//! The exporter as a process that can be ended and started again at the same address.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::harness::{Failure, PROGRAM_FILE};
use super::plan::Ending;

/// How long starting, stopping or a request may take before it counts as failed.
const LIMIT: Duration = Duration::from_mins(1);

/// How often a condition is checked.
const LOOK: Duration = Duration::from_millis(20);

/// The running exporter. Its address stays the same over restarts. Dropping it kills the process.
pub(crate) struct Exporter {
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    child: Child,
    http: reqwest::Client,
}

// === impl Exporter ===

impl Exporter {
    /// Starts it with the `config.yaml` in this folder, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, http: reqwest::Client) -> Result<Self, Failure> {
        // The port was free a moment ago. It must be the same after each restart, so it cannot be 0.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = spawn(folder, address)?;
        let mut exporter = Self { folder: folder.to_owned(), address, child, http };
        exporter.ready().await?;
        Ok(exporter)
    }

    /// Ends it.
    pub(crate) async fn end(&mut self, how: Ending) -> Result<(), Failure> {
        match how {
            Ending::Killed => self.child.kill()?,
            Ending::Stopped => kill_process(Pid::from_child(&self.child), Signal::TERM)?,
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.child.try_wait()? {
                Some(status) if how == Ending::Killed || status.success() => return Ok(()),
                Some(status) => return Err(format!("The exporter stopped with {status}.").into()),
                None if Instant::now() > deadline => return Err("The exporter did not end.".into()),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Starts it again after it was ended.
    pub(crate) async fn start_again(&mut self) -> Result<(), Failure> {
        self.child = spawn(&self.folder, self.address)?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = self.folder.join("exporter.log");
                return Err(format!("The exporter ended with {status}; {} says why.", log.display()).into());
            }
            let ready = self.http.get(format!("http://{}/-/ready", self.address)).send().await;
            match ready {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if Instant::now() > deadline => return Err("The exporter was not ready in time.".into()),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, address: SocketAddr) -> Result<Child, Failure> {
    let log = OpenOptions::new().create(true).append(true).open(folder.join("exporter.log"))?;
    let errors = log.try_clone()?;
    let mut command = Command::new(PROGRAM_FILE);
    command.arg(format!("--web.listen-address={address}")).env_clear().current_dir(folder);
    Ok(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn()?)
}
