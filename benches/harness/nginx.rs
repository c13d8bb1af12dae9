//! nginx as a stand-in of the API, faster than what polls it.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Program};
use super::{Connection, Failure, watch_list};

/// The program.
pub(crate) const NGINX: Program = Program { name: "nginx", package: "nginx-light", ready: "/ready" };

/// How long the first poll of every watch may take.
const FIRST_ROUND: Duration = Duration::from_mins(1);

/// What it says of a task that is being worked on.
const IN_PROGRESS: &str = r#"{"status":"in_progress","mock_enabled":null,"mcp_endpoints":[{"url":"https://mcp.example/v1/agents/4321","tool_names":["check_availability","create_booking","cancel_booking"]}],"message":"Mock tools of the agent, as they are","error":null}"#;

/// What it says of one that is finished.
const COMPLETED: &str = r#"{"status":"completed","mock_enabled":true,"mcp_endpoints":[{"url":"https://mcp.example/v1/agents/4321","tool_names":["check_availability","create_booking","cancel_booking"]}],"message":"Mock tools of the agent, as they are","error":null}"#;

/// The message of both answers. The exporter keeps it.
pub(crate) const MESSAGE: &str = "Mock tools of the agent, as they are";

/// nginx, whose every task is in progress, or completed, as the path says.
pub(crate) struct Nginx {
    daemon: Daemon,
    asked: AtomicU64,
}

/// What every task is.
#[derive(Clone, Copy)]
pub(crate) enum Tasks {
    InProgress,
    Completed,
}

// === impl Nginx ===

impl Nginx {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let daemon = NGINX.start(|address, folder| {
            let file = folder.join("nginx.conf");
            fs::write(&file, configuration(address, folder))?;
            Ok(vec!["-p".into(), text(folder), "-c".into(), text(&file)])
        });
        Ok(Self { daemon: daemon.await?, asked: AtomicU64::new(0) })
    }

    /// Where all tasks are like that.
    pub(crate) fn url(&self, tasks: Tasks) -> String {
        format!("http://{}/{}", self.daemon.address, tasks.path())
    }

    /// A configuration of the exporter that has so many tasks watched, with a budget that holds
    /// nothing back.
    pub(crate) fn watching(&self, tasks: Tasks, polling: &str, watches: u32) -> String {
        format!("{}watches:\n{}", self.polled(tasks, polling, "1000000"), watch_list::entries(watches))
    }

    /// The part of it that says what is polled, and how often.
    pub(crate) fn polled(&self, tasks: Tasks, polling: &str, requests_per_second: &str) -> String {
        let url = self.url(tasks);
        format!(
            "apis:\n  default: {{base_url: '{url}', api_key: load, max_in_flight: 64, \
             requests_per_second: {requests_per_second}}}\npolling: {{{polling}}}\n"
        )
    }

    /// How many requests it was sent so far. Those that ask for this are not among them.
    pub(crate) async fn requests(&self) -> Result<u64, Failure> {
        let mut text = Vec::new();
        let mut connection = Connection::open(self.daemon.address).await?;
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        connection.get("/status", "", |piece| text.extend_from_slice(piece)).await?;
        // The third line: connections accepted, connections handled, requests.
        let requests = str::from_utf8(&text)?.lines().nth(2).and_then(|line| line.split_whitespace().nth(2));
        Ok(requests.ok_or("nginx tells no number of requests.")?.parse::<u64>()? - asked)
    }

    /// Waits until it was sent so many requests.
    pub(crate) async fn reaches(&self, requests: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + FIRST_ROUND;
        while self.requests().await? < requests {
            if Instant::now() > deadline {
                return Err(format!("Not all watches were polled within {FIRST_ROUND:?}.").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The last answers are on their way.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }
}

// === impl Tasks ===

impl Tasks {
    fn path(self) -> &'static str {
        match self {
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
        }
    }
}

/// One process that writes into its folder only, and lets connections live as long as they like.
fn configuration(address: SocketAddr, folder: &Path) -> String {
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        // Writing into a string cannot fail.
        let _ = writeln!(temporary, "  {kind}_temp_path {}/{kind};", folder.display());
    }
    let (in_progress, completed) = (Tasks::InProgress.path(), Tasks::Completed.path());
    format!(
        "daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
{temporary}  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  default_type application/json;
  server {{
    listen {address} backlog=4096;
    location /{in_progress}/ {{ return 200 '{IN_PROGRESS}'; }}
    location /{completed}/ {{ return 200 '{COMPLETED}'; }}
    location /ready {{ return 200 'ready'; }}
    location /status {{ stub_status; }}
  }}
}}
",
        folder = folder.display()
    )
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
