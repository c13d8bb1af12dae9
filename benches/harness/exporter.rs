//! The program.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Connection, Failure, mebibytes};

/// How long starting may take before it counts as failed.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The program as a file.
pub(crate) const PROGRAM_FILE: &str = env!("CARGO_BIN_EXE_cekura-exporter");

/// The running program. Dropping it kills it.
pub(crate) struct Exporter {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
    /// From starting the process to its listening.
    pub(crate) listening: Duration,
}

// === impl Exporter ===

impl Exporter {
    /// Starts the program in this folder with nothing in its environment, and waits until it
    /// listens.
    pub(crate) async fn start(folder: &Path, arguments: &[&str]) -> Result<Self, Failure> {
        let started = Instant::now();
        let mut child = Command::new(PROGRAM_FILE)
            .arg("--web.listen-address=127.0.0.1:0")
            .args(arguments)
            .env_clear()
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        let mut exporter = Self { child, address: ([0, 0, 0, 0], 0).into(), started, listening: Duration::ZERO };
        let listening = listening(stdout.ok_or("The exporter has no standard output.")?);
        let address = tokio::time::timeout(START_LIMIT, listening).await;
        let address = address.map_err(|_| "The exporter did not listen in time.")?;
        exporter.address = address.map_err(|_| "The exporter ended before it listened.")?.parse()?;
        exporter.listening = started.elapsed();
        Ok(exporter)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks again and again until it is ready; how long that is after starting the process.
    pub(crate) async fn ready(&self) -> Result<Duration, Failure> {
        let mut connection = Connection::open(self.address).await?;
        while connection.get("/-/ready", "", |_| {}).await? != 200 {
            if self.started.elapsed() > START_LIMIT {
                return Err("The exporter was not ready in time.".into());
            }
        }
        Ok(self.started.elapsed())
    }

    /// Stops it where it is, or has it go on.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// What is resident and what ever was, for people.
    pub(crate) fn memory(&self) -> Result<String, Failure> {
        let (now, most) = (mebibytes(self.resident()?), mebibytes(self.peak()?));
        Ok(format!("{now:.1} MiB (VmHWM {most:.1} MiB)"))
    }

    /// The memory that is resident, in bytes.
    pub(crate) fn resident(&self) -> Result<u64, Failure> {
        self.status("VmRSS:")
    }

    /// The most memory that was ever resident, or was since it was forgotten, in bytes.
    pub(crate) fn peak(&self) -> Result<u64, Failure> {
        self.status("VmHWM:")
    }

    /// Has the kernel forget how much memory was ever resident.
    pub(crate) fn forget_peak(&self) -> Result<(), Failure> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?)
    }

    /// What the kernel says of the process' memory under this key, in bytes.
    pub(crate) fn status(&self, key: &str) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let line = line.ok_or_else(|| format!("The kernel tells no {key}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address from the log line that tells it. The log is read on to its end, as the program
/// would lose what nobody reads.
fn listening(stdout: ChildStdout) -> oneshot::Receiver<String> {
    let (found, address) = oneshot::channel();
    std::thread::spawn(move || {
        let mut log = BufReader::new(stdout);
        if let Some(address) = log.by_ref().lines().map_while(Result::ok).find_map(|line| address_in(&line)) {
            // Whoever waited for it may be gone.
            let _ = found.send(address);
        }
        let _ = io::copy(&mut log, &mut io::sink());
    });
    address
}

fn address_in(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["address"].as_str().map(str::to_owned))?
}
