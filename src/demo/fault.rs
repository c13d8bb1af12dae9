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
        match self {
            Self::Silence => Reply::Silence,
            Self::Drip => Reply::Endless {
                head: head("content-length: 1000"),
                piece: b" ".to_vec(),
                pause: Duration::from_millis(50),
            },
            Self::Reset => Reply::Reset(Vec::new()),
            Self::ResetInBody => Reply::Reset([head("content-length: 100"), b"{".to_vec()].concat()),
            Self::HangUp => Reply::Raw(Vec::new()),
            Self::CutHeader => Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
            Self::CutBody => Reply::Raw([head("content-length: 100"), b"{".to_vec()].concat()),
            Self::CutChunk => Reply::Raw([head("transfer-encoding: chunked"), b"5\r\n{\"st".to_vec()].concat()),
            Self::BadChunk => Reply::Raw([head("transfer-encoding: chunked"), b"zz\r\n{}\r\n".to_vec()].concat()),
            Self::NotHttp => Reply::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()),
            Self::Redirect => Reply::with_header(307, "location", "http://127.0.0.1:1/elsewhere", ""),
            Self::NotModified => Reply::new(304, ""),
            Self::BadRequest => Reply::detail(400, "Invalid or expired progress_id."),
            Self::Unauthorized => Reply::detail(401, "Invalid API key."),
            Self::Forbidden => Reply::detail(403, "This key belongs to another project."),
            Self::NotFound => Reply::detail(404, "Not found."),
            Self::Teapot => Reply::detail(418, "I am a teapot."),
            Self::Throttled => Reply::detail(429, "Request was throttled."),
            Self::ThrottledForASecond => throttled(429, "1"),
            Self::ServerError => Reply::new(500, "<html><body>Internal Server Error</body></html>"),
            Self::UnavailableForASecond => throttled(503, "1"),
            Self::BadGateway => Reply::new(502, ""),
            Self::NoContent => Reply::new(204, ""),
            Self::Accepted => Reply::task_with_status(202, "in_progress", None),
            Self::Html => Reply::new(200, "<html><body>Please sign in.</body></html>"),
            Self::Empty => Reply::new(200, ""),
            Self::WrongType => Reply::new(200, r#"{"status":7,"mock_enabled":"yes"}"#),
            Self::NoStatus => Reply::new(200, r#"{"mock_enabled":true,"message":null,"error":null}"#),
            Self::NotUtf8 => Reply::Raw([head("content-length: 14"), b"{\"status\":\"\xff\"}".to_vec()].concat()),
            Self::Nested => Reply::new(200, format!("{{\"status\":\"failed\",\"message\":{}", "[".repeat(100_000))),
            Self::HalfJson => Reply::new(200, r#"{"status":"compl"#),
            Self::TooLarge => Reply::new(200, " ".repeat(1024 * 1024 + 1)),
            Self::Endless => Reply::Endless {
                head: head("transfer-encoding: chunked"),
                piece: format!("10000\r\n{}\r\n", " ".repeat(0x10000)).into_bytes(),
                pause: Duration::ZERO,
            },
        }
    }

    /// The reason that the exporter must show for this fault.
    pub fn reason(self) -> Reason {
        match self {
            Self::Silence | Self::Drip => Reason::Timeout,
            Self::Reset
            | Self::ResetInBody
            | Self::HangUp
            | Self::CutHeader
            | Self::CutBody
            | Self::CutChunk
            | Self::BadChunk
            | Self::NotHttp => Reason::Aborted,
            Self::Redirect | Self::NotModified => Reason::Redirect,
            Self::BadRequest => Reason::BadRequest,
            Self::Unauthorized => Reason::Unauthorized,
            Self::Forbidden => Reason::Forbidden,
            Self::NotFound => Reason::NotFound,
            Self::Teapot => Reason::ClientError,
            Self::Throttled | Self::ThrottledForASecond => Reason::RateLimited,
            Self::ServerError | Self::UnavailableForASecond | Self::BadGateway => Reason::ServerError,
            Self::NoContent | Self::Accepted => Reason::UnexpectedStatus,
            Self::Html
            | Self::Empty
            | Self::WrongType
            | Self::NoStatus
            | Self::NotUtf8
            | Self::Nested
            | Self::HalfJson => Reason::Decode,
            Self::TooLarge | Self::Endless => Reason::TooLarge,
        }
    }
}

/// An answer with this Retry-After, which is in seconds or a date.
pub fn throttled(status: u16, retry_after: &str) -> Reply {
    Reply::with_header(status, "retry-after", retry_after, r#"{"detail":"Request was throttled."}"#)
}

fn head(header: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n").into_bytes()
}
