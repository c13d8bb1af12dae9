//! An exporter as a process that can be ended and started again at the same address.

use std::collections::HashSet;
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

/// An exporter. Its address stays the same over restarts. Dropping it kills the process.
pub(crate) struct Exporter {
    folder: PathBuf,
    /// The name of the file in the folder that its log is in.
    log: String,
    pub(crate) address: SocketAddr,
    child: Child,
    is_running: bool,
    http: reqwest::Client,
}

// === impl Exporter ===

impl Exporter {
    /// Starts it with the `config.yaml` in this folder and its log in this file there, and waits until it is ready.
    pub(crate) async fn start(folder: &Path, log: &str, http: reqwest::Client) -> Result<Self, Failure> {
        // The port was free a moment ago. It must be the same after each restart, so it cannot be 0.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = spawn(folder, log, address)?;
        let (folder, log) = (folder.to_owned(), log.to_owned());
        let mut exporter = Self { folder, log, address, child, is_running: true, http };
        exporter.ready().await?;
        Ok(exporter)
    }

    /// Whether it was not ended, or was started again.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running
    }

    /// Ends it.
    pub(crate) async fn end(&mut self, how: Ending) -> Result<(), Failure> {
        match how {
            Ending::Killed => self.child.kill()?,
            Ending::Stopped => kill_process(Pid::from_child(&self.child), Signal::TERM)?,
        }
        let deadline = Instant::now() + LIMIT;
        self.is_running = false;
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
        self.child = spawn(&self.folder, &self.log, self.address)?;
        self.is_running = true;
        self.ready().await
    }

    /// Has it read its configuration again. Whether it accepted that.
    pub(crate) async fn reload(&self) -> bool {
        let answer = self.http.post(self.url("/-/reload")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// What it exposes.
    pub(crate) async fn scrape(&self) -> Result<String, Failure> {
        Ok(self.http.get(self.url("/metrics")).send().await?.error_for_status()?.text().await?)
    }

    /// The ids of the agents of which it exposes anything.
    pub(crate) async fn agents(&self) -> Result<HashSet<u32>, Failure> {
        let text = self.scrape().await?;
        let id = |line: &str| line.split_once("agent_id=\"")?.1.split_once('"')?.0.parse().ok();
        Ok(text.lines().filter_map(id).collect())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let log = self.folder.join(&self.log);
                return Err(format!("The exporter ended with {status}; {} says why.", log.display()).into());
            }
            let ready = self.http.get(self.url("/-/ready")).send().await;
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

fn spawn(folder: &Path, log: &str, address: SocketAddr) -> Result<Child, Failure> {
    let log = OpenOptions::new().create(true).append(true).open(folder.join(log))?;
    let errors = log.try_clone()?;
    let mut command = Command::new(PROGRAM_FILE);
    command.arg(format!("--web.listen-address={address}")).env_clear().current_dir(folder);
    Ok(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn()?)
}
