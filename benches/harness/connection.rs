//! A connection that is kept alive, with little more than the socket.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Failure;

/// How much is read at a time at most.
const BUFFER: usize = 256 * 1024;

/// Where programs are scraped.
const METRICS: &str = "/metrics";

/// It finds where an answer ends, and looks at nothing else of it.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer was taken.
    taken: usize,
}

/// How long an answer took from the request to the last byte, and how long it is.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) seconds: f64,
    pub(crate) bytes: usize,
}

/// How an answer's body ends.
enum Framing {
    Length(u64),
    Chunked,
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(BUFFER), taken: 0 })
    }

    /// Gets this, with these header lines, each with its line end; the answer's status. Its body is
    /// handed over piece by piece.
    pub(crate) async fn get(
        &mut self,
        target: &str,
        headers: &str,
        mut body: impl FnMut(&[u8]),
    ) -> Result<u16, Failure> {
        let whole = |piece: &[u8]| {
            body(piece);
            true
        };
        self.get_while(target, headers, whole).await
    }

    /// The same for as long as `body` says so. If it does not, the connection is of no more use.
    async fn get_while(
        &mut self,
        target: &str,
        headers: &str,
        mut body: impl FnMut(&[u8]) -> bool,
    ) -> Result<u16, Failure> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let (length, status, framing) = loop {
            match head(&self.buffer[self.taken..])? {
                Some(found) => break found,
                None => self.read().await?,
            }
        };
        self.taken += length;
        match framing {
            Framing::Length(length) => self.take(length, &mut body).await?,
            Framing::Chunked => self.chunks(&mut body).await?,
        };
        Ok(status)
    }

    /// Scrapes with these header lines, and looks at nothing.
    pub(crate) async fn scrape(&mut self, headers: &str) -> Result<Took, Failure> {
        let started = Instant::now();
        let mut bytes = 0;
        let status = self.get(METRICS, headers, |piece| bytes += piece.len()).await?;
        let seconds = started.elapsed().as_secs_f64();
        require_ok(status)?;
        Ok(Took { seconds, bytes })
    }

    /// A scrape up to the line that begins so. What is behind it is not waited for.
    pub(crate) async fn scrape_until(mut self, line: &str) -> Result<String, Failure> {
        let (mut text, line) = (Vec::new(), format!("\n{line}"));
        let mut seen = 0;
        let is_before = |piece: &[u8]| {
            text.extend_from_slice(piece);
            let found = text[seen..].windows(line.len()).any(|window| window == line.as_bytes());
            seen = text.len().saturating_sub(line.len());
            !found
        };
        require_ok(self.get_while(METRICS, "", is_before).await?)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether `body` wanted all of them.
    async fn chunks(&mut self, body: &mut impl FnMut(&[u8]) -> bool) -> Result<bool, Failure> {
        loop {
            let size = self.chunk_size().await?;
            // Behind it is the end of a line.
            if !self.take(size, body).await? || !self.take(2, &mut |_: &[u8]| true).await? {
                return Ok(false);
            }
            if size == 0 {
                return Ok(true);
            }
        }
    }

    async fn chunk_size(&mut self) -> Result<u64, Failure> {
        loop {
            let size = httparse::parse_chunk_size(&self.buffer[self.taken..]);
            match size.map_err(|_| "An answer has a chunk without a size.")? {
                httparse::Status::Complete((length, size)) => {
                    self.taken += length;
                    return Ok(size);
                }
                httparse::Status::Partial => self.read().await?,
            }
        }
    }

    /// Whether `body` wanted all of it.
    async fn take(&mut self, mut left: u64, body: &mut impl FnMut(&[u8]) -> bool) -> Result<bool, Failure> {
        while left > 0 {
            if self.taken == self.buffer.len() {
                self.read().await?;
            }
            let there = &self.buffer[self.taken..];
            let piece = &there[..there.len().min(usize::try_from(left)?)];
            let wanted = body(piece);
            left -= u64::try_from(piece.len())?;
            self.taken += piece.len();
            if !wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read(&mut self) -> Result<(), Failure> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("A connection was closed amid an answer.".into()),
            _ => Ok(()),
        }
    }
}

fn require_ok(status: u16) -> Result<(), Failure> {
    if status == 200 { Ok(()) } else { Err(format!("A scrape was answered with {status}.").into()) }
}

/// The length of the head of the answer that begins here, its status, and how its body ends; `None`
/// if the head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, u16, Framing)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = answer.parse(bytes)? else { return Ok(None) };
    let value = |name: &str| answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let framing = match value("content-length") {
        Some(length) => Framing::Length(str::from_utf8(length.value)?.parse()?),
        None if value("transfer-encoding").is_some() => Framing::Chunked,
        None => return Err("An answer has no length.".into()),
    };
    Ok(Some((length, answer.code.unwrap_or_default(), framing)))
}
