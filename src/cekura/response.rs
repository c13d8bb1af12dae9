//! Reading responses, within bounds of size and time.

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use tokio::time::timeout_at;

use super::encoding::Encoding;
use super::{answer, failure};
use crate::clock;
use crate::toggle::{Failure, Reason, Redactions, Text};

/// The largest part of an error response that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The longest wait for the body of an error response.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause that a Retry-After can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Reads a body of up to `limit` bytes.
///
/// # Errors
/// [`Reason::TooLarge`] if it is larger, or why it is incomplete.
pub(super) async fn body(mut response: Response, limit: usize, hidden: &Redactions) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure::of(&error, hidden))? {
        if body.len() + chunk.len() > limit {
            let detail = Text::own(&format!("the body is over {limit} bytes"));
            return Err(Failure::new(Reason::TooLarge).with_detail(detail));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The failure of an error response. Its status alone decides the reason. The body is read for the detail,
/// and left out if it takes long.
pub(super) async fn error(response: Response, reason: Reason, hidden: &Redactions, deadline: Instant) -> Failure {
    let status = response.status();
    let retry_after = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let header = response.headers().get(RETRY_AFTER);
            header.and_then(|value| retry_after(value.as_bytes(), clock::now().into()))
        }
        _ => None,
    };
    let until = deadline.min(Instant::now() + ERROR_BODY_TIMEOUT);
    let encoding = Encoding::of(response.headers());
    let body = timeout_at(until.into(), body(response, MAX_ERROR_BODY, hidden)).await;
    let body = body.ok().and_then(Result::ok).and_then(|body| encoding.ok()?.decoded(body, MAX_ERROR_BODY).ok());
    let said = body.and_then(|body| answer::error_detail(&body, hidden));
    let status = format!("HTTP {}", status.as_u16());
    let detail = said.map_or_else(|| status.clone(), |said| format!("{status}: {said}"));
    Failure { reason, detail: Some(Text::own(&detail)), retry_after }
}

/// The pause that a Retry-After asks for, in seconds or as an HTTP date, at most an hour. `None` if it is
/// zero, in the past or invalid.
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?.trim();
    let pause = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number that overflows is longer than an hour, too.
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    (!pause.is_zero()).then(|| pause.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded_to_an_hour() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let asked = |text: &str| retry_after(text.as_bytes(), now).map(|d| d.as_secs());
        assert_eq!(asked("5"), Some(5));
        assert_eq!(asked("86400"), Some(3600));
        assert_eq!(asked("99999999999999999999999"), Some(3600));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        for nothing in ["0", "", "-1", "soon", "1.5", "Sun, 06 Nov 1994 08:49:27 GMT"] {
            assert_eq!(asked(nothing), None, "{nothing}");
        }
    }
}
