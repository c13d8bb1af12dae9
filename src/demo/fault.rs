//! Wrong answers: each fault with the reply that has it and the reason that the exporter must show for it.

use std::time::Duration;

use super::simulator::Reply;
use crate::toggle::Reason;

/// One way in which an upstream goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection stays open and silent.
    Silence,
    /// The body comes byte by byte and never ends.
    Drip,
    /// The connection is reset before an answer.
    Reset,
    /// The connection is reset in the body.
    ResetInBody,
    /// The connection is closed before an answer.
    HangUp,
    /// The connection is closed in the header.
    CutHeader,
    /// The connection is closed in a body of known length.
    CutBody,
    /// The connection is closed in a chunked body.
    CutChunk,
    /// A chunk's length is no number.
    BadChunk,
    /// Another protocol answers.
    NotHttp,
    /// 307 with a Location.
    Redirect,
    /// 304, which has no Location.
    NotModified,
    /// 400, as for an unknown id.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 418, for any other 4xx.
    Teapot,
    /// 429 without Retry-After.
    Throttled,
    /// 429 with Retry-After: 1.
    ThrottledForASecond,
    /// 500 with HTML.
    ServerError,
    /// 503 with Retry-After: 1.
    UnavailableForASecond,
    /// 502.
    BadGateway,
    /// 204.
    NoContent,
    /// 202.
    Accepted,
    /// 200 with HTML.
    Html,
    /// 200 without a body.
    Empty,
    /// 200 with JSON of other types.
    WrongType,
    /// 200 without a status.
    NoStatus,
    /// 200 with bytes that are not UTF-8.
    NotUtf8,
    /// 200 with a field that nests without end.
    Nested,
    /// 200 with half of the JSON.
    HalfJson,
    /// 200 with a body over the limit.
    TooLarge,
    /// 200 with a body without end.
    Endless,
}

// === impl Fault ===

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 33] = [
        Self::Silence,
        Self::Drip,
        Self::Reset,
        Self::ResetInBody,
        Self::HangUp,
        Self::CutHeader,
        Self::CutBody,
        Self::CutChunk,
        Self::BadChunk,
        Self::NotHttp,
        Self::Redirect,
        Self::NotModified,
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Teapot,
        Self::Throttled,
        Self::ThrottledForASecond,
        Self::ServerError,
        Self::UnavailableForASecond,
        Self::BadGateway,
        Self::NoContent,
        Self::Accepted,
        Self::Html,
        Self::Empty,
        Self::WrongType,
        Self::NoStatus,
        Self::NotUtf8,
        Self::Nested,
        Self::HalfJson,
        Self::TooLarge,
        Self::Endless,
    ];

    /// The reply that has this fault.
    pub fn reply(self) -> Reply {
        self.reason_and_reply().1
    }

    /// The reason that the exporter must show for this fault.
    pub fn reason(self) -> Reason {
        self.reason_and_reply().0
    }

    fn reason_and_reply(self) -> (Reason, Reply) {
        match self {
            Self::Silence => (Reason::Timeout, Reply::Silence),
            Self::Drip => (Reason::Timeout, endless("content-length: 1000", b" ", Duration::from_millis(50))),
            Self::Reset => (Reason::Aborted, Reply::Reset(Vec::new())),
            Self::ResetInBody => (Reason::Aborted, Reply::Reset(ok("content-length: 100", b"{"))),
            Self::HangUp => (Reason::Aborted, Reply::Raw(Vec::new())),
            Self::CutHeader => (Reason::Aborted, Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec())),
            Self::CutBody => (Reason::Aborted, Reply::Raw(ok("content-length: 100", b"{"))),
            Self::CutChunk => (Reason::Aborted, Reply::Raw(ok("transfer-encoding: chunked", b"5\r\n{\"st"))),
            Self::BadChunk => (Reason::Aborted, Reply::Raw(ok("transfer-encoding: chunked", b"zz\r\n{}\r\n"))),
            Self::NotHttp => (Reason::Aborted, Reply::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())),
            Self::Redirect => {
                (Reason::Redirect, Reply::with_header(307, "location", "http://127.0.0.1:1/elsewhere", ""))
            }
            Self::NotModified => (Reason::Redirect, Reply::new(304, "")),
            Self::BadRequest => (Reason::BadRequest, Reply::detail(400, "Invalid or expired progress_id.")),
            Self::Unauthorized => (Reason::Unauthorized, Reply::detail(401, "Invalid API key.")),
            Self::Forbidden => (Reason::Forbidden, Reply::detail(403, "This key belongs to another project.")),
            Self::NotFound => (Reason::NotFound, Reply::detail(404, "Not found.")),
            Self::Teapot => (Reason::ClientError, Reply::detail(418, "I am a teapot.")),
            Self::Throttled => (Reason::RateLimited, Reply::detail(429, "Request was throttled.")),
            Self::ThrottledForASecond => (Reason::RateLimited, throttled(429, "1")),
            Self::ServerError => {
                (Reason::ServerError, Reply::new(500, "<html><body>Internal Server Error</body></html>"))
            }
            Self::UnavailableForASecond => (Reason::ServerError, throttled(503, "1")),
            Self::BadGateway => (Reason::ServerError, Reply::new(502, "")),
            Self::NoContent => (Reason::UnexpectedStatus, Reply::new(204, "")),
            Self::Accepted => (Reason::UnexpectedStatus, Reply::task_with_status(202, "in_progress", None)),
            Self::Html => (Reason::Decode, Reply::new(200, "<html><body>Please sign in.</body></html>")),
            Self::Empty => (Reason::Decode, Reply::new(200, "")),
            Self::WrongType => (Reason::Decode, Reply::new(200, r#"{"status":7,"mock_enabled":"yes"}"#)),
            Self::NoStatus => (Reason::Decode, Reply::new(200, r#"{"mock_enabled":true,"message":null,"error":null}"#)),
            Self::NotUtf8 => (Reason::Decode, Reply::Raw(ok("content-length: 14", b"{\"status\":\"\xff\"}"))),
            Self::Nested => {
                let body = format!("{{\"status\":\"failed\",\"message\":{}", "[".repeat(100_000));
                (Reason::Decode, Reply::new(200, body))
            }
            Self::HalfJson => (Reason::Decode, Reply::new(200, r#"{"status":"compl"#)),
            Self::TooLarge => (Reason::TooLarge, Reply::new(200, " ".repeat(1024 * 1024 + 1))),
            Self::Endless => {
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                (Reason::TooLarge, endless("transfer-encoding: chunked", chunk.as_bytes(), Duration::ZERO))
            }
        }
    }
}

/// An answer with this Retry-After, which is in seconds or a date.
pub fn throttled(status: u16, retry_after: &str) -> Reply {
    Reply::with_header(status, "retry-after", retry_after, r#"{"detail":"Request was throttled."}"#)
}

/// An answer that sends the piece again and again.
fn endless(header: &str, piece: &[u8], pause: Duration) -> Reply {
    Reply::Endless { head: ok(header, b""), piece: piece.to_vec(), pause }
}

/// The bytes of an answer with 200, this header and this body.
fn ok(header: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n").as_bytes(), body].concat()
}
