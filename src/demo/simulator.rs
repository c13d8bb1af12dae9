//! An HTTP/1.1 server on loopback that answers each request as a script says.
//!
//! It works on raw connections, so that it can do what no HTTP library would: stop in the middle of an answer, never
//! answer, or answer something that is not HTTP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::tasks;

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// How long to wait before a reset, so that the client reads what was sent before it.
const RESET_DELAY: Duration = Duration::from_millis(20);

/// A running server. Dropping it closes it and its connections.
pub struct Simulator {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// The parts of a request that scripts need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, as it was sent.
    pub query: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; empty without a Content-Length.
    pub body: String,
    /// The number of the connection, from 1.
    pub connection: usize,
}

/// How to reply to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A complete answer on a connection that is kept alive.
    Answer {
        /// The status code.
        status: u16,
        /// More headers than Content-Type and Content-Length.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// These bytes, and then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, and then the connection is reset.
    Reset(Vec<u8>),
    /// These bytes, and then more of them until the client leaves.
    Endless {
        /// What is sent first.
        head: Vec<u8>,
        /// What is sent again and again.
        piece: Vec<u8>,
        /// How long to wait before each piece.
        pause: Duration,
    },
    /// Nothing, on a connection that stays open until the client leaves.
    Silence,
    /// Another reply, later.
    After(Duration, Box<Reply>),
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

// === impl Simulator ===

impl Simulator {
    /// Listens on a free loopback port and answers each request as `script` says.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tasks::spawn(accept(listener, Arc::new(script)));
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    count += 1;
                    connections.spawn(tasks::boxed(serve(stream, script.clone(), count)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            // It is an error whenever the client just leaves, so errors are ignored.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, connection: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, connection).await? {
        let mut reply = script(&request);
        while let Reply::After(delay, later) = reply {
            tokio::time::sleep(delay).await;
            reply = *later;
        }
        if !send(&mut stream, reply).await? {
            break;
        }
    }
    stream.shutdown().await
}

/// Sends the reply. Returns whether the connection stays open.
async fn send(stream: &mut TcpStream, reply: Reply) -> io::Result<bool> {
    match reply {
        Reply::Answer { status, headers, body } => {
            stream.write_all(&encode(status, &headers, &body)).await?;
            Ok(true)
        }
        Reply::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            Ok(false)
        }
        Reply::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            // With a linger of zero, closing resets the connection.
            tokio::time::sleep(RESET_DELAY).await;
            SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Reply::Endless { head, piece, pause } => {
            stream.write_all(&head).await?;
            loop {
                tokio::time::sleep(pause).await;
                stream.write_all(&piece).await?;
            }
        }
        Reply::Silence => {
            let mut rest = [0; 64];
            while stream.read(&mut rest).await? > 0 {}
            Ok(false)
        }
        Reply::After(..) => Ok(true),
    }
}

fn encode(status: u16, headers: &[(&'static str, String)], body: &str) -> Vec<u8> {
    let mut lines = vec![format!("HTTP/1.1 {status} Simulated")];
    if headers.iter().all(|(name, _)| *name != "content-type") {
        lines.push("content-type: application/json".to_owned());
    }
    // These statuses have no body and no length.
    if status != 204 && status != 304 {
        lines.push(format!("content-length: {}", body.len()));
    }
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

/// The next request; `None` if the client closes the connection or the head is too large.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>, connection: usize) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, length)) = parse(buffer, connection)? {
            buffer.drain(..length);
            return Ok(Some(request));
        }
        if buffer.len() > MAX_HEAD || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The first request in the buffer and its length; `None` if it is not complete. Chunked bodies are not supported.
fn parse(buffer: &[u8], connection: usize) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(head) = status else { return Ok(None) };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |header: &httparse::Header<'_>| {
        (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed.headers.iter().map(header).collect(),
        body: String::new(),
        connection,
    };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let Some(body) = buffer[head..].get(..length) else { return Ok(None) };
    request.body = String::from_utf8_lossy(body).into_owned();
    Ok(Some((request, head + length)))
}

// === impl Request ===

impl Request {
    /// The value of a header. `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The progress id in the query, decoded.
    pub fn progress_id(&self) -> Option<String> {
        let pair = self.query.split('&').find_map(|pair| pair.strip_prefix("progress_id="))?;
        Some(percent_decode_str(pair).decode_utf8_lossy().into_owned())
    }

    /// The agent id in the path; `None` if that is not the path of the progress endpoint.
    pub fn agent_id(&self) -> Option<u64> {
        let rest = self.path.split_once("/test_framework/v2/aiagents/")?.1;
        rest.strip_suffix("/toggle-mock-tools-progress/")?.parse().ok()
    }

    /// The agent id in the path; `None` if that is not the path of a mock status.
    pub fn mock_status_of(&self) -> Option<u64> {
        let rest = self.path.split_once("/test_framework/v1/aiagents/")?.1;
        rest.strip_suffix("/tools/mock-status/")?.parse().ok()
    }

    /// The number of the page; `None` if this does not ask for a page of the list of agents.
    pub fn page_of_agents(&self) -> Option<usize> {
        let is_list = self.path.ends_with("/test_framework/v2/aiagents/");
        let page = self.query.split('&').find_map(|pair| pair.strip_prefix("page=")).unwrap_or("1");
        is_list.then(|| page.parse().ok()).flatten()
    }
}

// === impl Reply ===

impl Reply {
    /// An answer with this status and body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }

    /// An answer with this status, body and one more header.
    pub fn with_header(status: u16, name: &'static str, value: impl Into<String>, body: impl Into<String>) -> Self {
        Self::Answer { status, headers: vec![(name, value.into())], body: body.into() }
    }

    /// The documented answer of a task.
    pub fn task(status: &str, mock_enabled: Option<bool>) -> Self {
        Self::task_with_status(200, status, mock_enabled)
    }

    /// The documented answer of a task under another HTTP status.
    pub fn task_with_status(http_status: u16, status: &str, mock_enabled: Option<bool>) -> Self {
        let body = serde_json::json!({
            "status": status, "mock_enabled": mock_enabled, "mcp_endpoints": [], "message": null, "error": null,
        });
        Self::new(http_status, body.to_string())
    }

    /// The documented answer of a mock status.
    pub fn mock_status(enabled: bool, provider: &str) -> Self {
        let endpoints: Vec<_> = (0..u32::from(enabled))
            .map(|i| serde_json::json!({"mock_index": i, "url": "https://mock.invalid/mcp/7", "tool_names": ["book"]}))
            .collect();
        let body = serde_json::json!({
            "mock_enabled": enabled, "provider": provider, "assistant_id": "assistant", "mcp_endpoints": endpoints,
            "tool_endpoints": [],
        });
        Self::new(200, body.to_string())
    }

    /// An error as the API documents it.
    pub fn detail(status: u16, detail: &str) -> Self {
        Self::new(status, serde_json::json!({ "detail": detail }).to_string())
    }
}
