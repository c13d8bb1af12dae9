//! A loop that polls and does nothing else: what the same client costs alone.

use std::io::{self, BufRead as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::harness::{Cpu, Failure};

/// With this and a URL this program is the loop.
pub(crate) const ARGUMENT: &str = "bare-loop";

/// Requests at a time.
const IN_FLIGHT: usize = 64;

/// The loop, as a process of its own.
pub(crate) struct BareLoop {
    process: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// The answer, with all that the exporter takes of it.
#[derive(Deserialize)]
#[allow(dead_code, reason = "to parse it is what costs")]
struct Progress {
    status: String,
    mock_enabled: Option<bool>,
    mcp_endpoints: Vec<Endpoint>,
    message: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "to parse it is what costs")]
struct Endpoint {
    url: String,
    tool_names: Vec<String>,
}

// === impl BareLoop ===

impl BareLoop {
    pub(crate) fn start(url: &str) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--bench", ARGUMENT, url])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let questions = process.stdin.take().ok_or("The bare loop has no standard input.")?;
        let answers = process.stdout.take().ok_or("The bare loop has no standard output.")?;
        Ok(Self { process, questions, answers: BufReader::new(answers).lines() })
    }

    /// How often it has polled so far. It ends at the first poll that fails.
    pub(crate) async fn polls(&mut self) -> Result<u64, Failure> {
        self.questions.write_all(b"\n").await?;
        let answer = self.answers.next_line().await?;
        Ok(answer.ok_or("The bare loop ended.")?.parse()?)
    }

    pub(crate) fn cpu(&self) -> Result<Cpu, Failure> {
        Cpu::of(self.process.id().ok_or("The bare loop ended.")?)
    }
}

/// Polls until the standard input ends. Each line there is answered with the number of polls.
pub(crate) async fn run(url: &str) -> Result<(), Failure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build()?;
    let url = Url::parse(url)?;
    let polls = Arc::new(AtomicU64::new(0));
    let mut loops = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        loops.spawn(poll_on(client.clone(), url.clone(), polls.clone()));
    }
    let over = answer(polls);
    tokio::select! {
        // Only a poll that failed ends a loop.
        Some(ended) = loops.join_next() => ended?,
        _ = over => Ok(()),
    }
}

async fn poll_on(client: Client, url: Url, polls: Arc<AtomicU64>) -> Result<(), Failure> {
    loop {
        let response = client.get(url.clone()).send().await?;
        if response.status() != StatusCode::OK {
            return Err(format!("A bare poll was answered with {}.", response.status()).into());
        }
        let progress: Progress = serde_json::from_slice(&response.bytes().await?)?;
        std::hint::black_box(progress);
        polls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers lines until there are no more, which is told.
fn answer(polls: Arc<AtomicU64>) -> oneshot::Receiver<()> {
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        for _ in io::stdin().lock().lines().map_while(Result::ok) {
            if writeln!(io::stdout(), "{}", polls.load(Ordering::Relaxed)).is_err() {
                break;
            }
        }
        // Whoever waits for it may be gone.
        let _ = end.send(());
    });
    ended
}
