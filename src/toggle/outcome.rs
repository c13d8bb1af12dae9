//! The outcome of a poll: a valid answer, or a failure with its reason.

use std::time::Duration;

use super::named::named_enum;
use super::text::Text;

/// The outcome of a poll.
pub type Outcome = Result<Answer, Failure>;

/// A valid answer of the progress endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status of the task.
    pub status: ReportedStatus,
    /// Whether mocks are on; `None` if the field is null or absent.
    pub mock_enabled: Option<bool>,
    /// The number of registered MCP mock endpoints; `None` if the field is absent.
    pub mcp_endpoints: Option<u32>,
    /// The number of tool names over all of these endpoints; `None` if the field is absent.
    pub mcp_tools: Option<u32>,
    /// The message of the task.
    pub message: Option<Text>,
    /// The error of the task.
    pub error: Option<Text>,
    /// The names of malformed fields, which count as absent.
    pub malformed: Vec<&'static str>,
}

/// The status in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportedStatus {
    /// The task is running.
    InProgress,
    /// The task has not started yet. No specification has this status, but clients of the vendor know it.
    Queued,
    /// The task succeeded.
    Completed,
    /// The task failed.
    Failed,
    /// An undocumented status, as sent.
    Unrecognised(Text),
}

/// A poll that brought no valid answer. It says nothing about the toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why it failed.
    pub reason: Reason,
    /// Details for logs and the JSON API; never a label.
    pub detail: Option<Text>,
    /// How long the upstream asked clients to wait.
    pub retry_after: Option<Duration>,
}

named_enum! {
    /// Why a poll failed: a closed set.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Reason {
        /// No complete answer in time, connecting included.
        Timeout = "timeout",
        /// The host name could not be resolved.
        Dns = "dns",
        /// The connection was refused, or the host or the proxy cannot be reached.
        Connect = "connect",
        /// The TLS handshake or the verification of the certificate failed.
        Tls = "tls",
        /// 3xx; never followed.
        Redirect = "redirect",
        /// 400; most likely the id has expired or never existed.
        BadRequest = "bad_request",
        /// 401; the key is wrong.
        Unauthorized = "unauthorized",
        /// 403; the key belongs to another project.
        Forbidden = "forbidden",
        /// 404; the agent or the endpoint does not exist.
        NotFound = "not_found",
        /// 429.
        RateLimited = "rate_limited",
        /// Any other 4xx.
        ClientError = "client_error",
        /// 5xx.
        ServerError = "server_error",
        /// Any other status that is not 200.
        UnexpectedStatus = "unexpected_status",
        /// The body is not the documented JSON.
        Decode = "decode",
        /// The body is over the limit.
        TooLarge = "too_large",
        /// The connection was lost before or during the answer, or the answer is not HTTP.
        Aborted = "aborted",
        /// There is no usable key; nothing was sent.
        Credentials = "credentials",
    }
}

// === impl ReportedStatus ===

impl ReportedStatus {
    /// The status as sent, if it is none of the documented three.
    pub fn raw(&self) -> Option<Text> {
        match self {
            Self::InProgress | Self::Completed | Self::Failed => None,
            Self::Queued => Some(Text::own("queued")),
            Self::Unrecognised(status) => Some(status.clone()),
        }
    }
}

// === impl Failure ===

impl Failure {
    /// A failure without details.
    pub fn new(reason: Reason) -> Self {
        Self { reason, detail: None, retry_after: None }
    }

    /// The same failure with details.
    #[must_use]
    pub fn with_detail(self, detail: Text) -> Self {
        Self { detail: Some(detail), ..self }
    }
}

// === impl Reason ===

impl Reason {
    /// Whether the key was missing or refused, so that another key may help.
    pub fn may_need_another_key(self) -> bool {
        matches!(self, Self::Credentials | Self::Unauthorized | Self::Forbidden)
    }

    /// The reason for an answer with this HTTP status; `None` for 200.
    pub fn of_http_status(status: u16) -> Option<Self> {
        Some(match status {
            200 => return None,
            300..=399 => Self::Redirect,
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            429 => Self::RateLimited,
            402..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::UnexpectedStatus,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_http_status_has_its_reason() {
        let cases = [
            (200, None),
            (204, Some(Reason::UnexpectedStatus)),
            (302, Some(Reason::Redirect)),
            (304, Some(Reason::Redirect)),
            (400, Some(Reason::BadRequest)),
            (401, Some(Reason::Unauthorized)),
            (402, Some(Reason::ClientError)),
            (403, Some(Reason::Forbidden)),
            (404, Some(Reason::NotFound)),
            (418, Some(Reason::ClientError)),
            (429, Some(Reason::RateLimited)),
            (500, Some(Reason::ServerError)),
            (599, Some(Reason::ServerError)),
            (600, Some(Reason::UnexpectedStatus)),
            (101, Some(Reason::UnexpectedStatus)),
        ];
        for (status, reason) in cases {
            assert_eq!(Reason::of_http_status(status), reason, "{status}");
        }
    }
}
