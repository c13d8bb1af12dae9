//! A debug poll as JSON.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use crate::cekura::{ConnectPhase, RequestPhase, ResolvePhase, ResolvedHost, TlsPhase, TracedPoll};
use crate::http::query::parse_query;
use crate::poller::DebugPollRefusal;
use crate::tls::AuthorityKind;
use crate::toggle::{Answer, Status, Text, Timestamp, Watch};

/// A debug poll that was made, whatever it showed.
pub(crate) struct DebugPoll<'a> {
    pub(crate) watch: &'a Watch,
    /// The replica that polled, if there can be several.
    pub(crate) replica: Option<&'a str>,
    /// When the request started.
    pub(crate) started: Timestamp,
    /// How long it waited for the budget before that.
    pub(crate) waited: Duration,
    pub(crate) polled: &'a TracedPoll,
}

/// Why there was no debug poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DebugPollProblem {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
    /// When it may be tried again, in seconds.
    pub(crate) retry_after: Option<u64>,
}

/// What a debug poll did and what was answered. Fields that do not apply are null.
#[derive(Serialize)]
pub(crate) struct DebugPollJson<'a> {
    toggle: &'a str,
    api: &'a str,
    agent_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<&'a str>,
    started_at: String,
    /// From connecting to the last byte.
    seconds: Option<f64>,
    phases: PhasesJson<'a>,
    http_status: Option<u16>,
    answer: Option<AnswerJson<'a>>,
    failure: Option<FailureJson<'a>>,
}

#[derive(Serialize)]
struct PhasesJson<'a> {
    wait: SecondsJson,
    resolve: Option<ResolveJson<'a>>,
    connect: Option<ConnectJson<'a>>,
    tls: Option<TlsJson<'a>>,
    processing: Option<SecondsJson>,
    transfer: Option<SecondsJson>,
}

#[derive(Serialize)]
struct SecondsJson {
    seconds: f64,
}

#[derive(Serialize)]
struct ResolveJson<'a> {
    seconds: f64,
    lookups: Vec<LookupJson<'a>>,
}

#[derive(Serialize)]
struct LookupJson<'a> {
    host: &'a str,
    addresses: Vec<String>,
}

#[derive(Serialize)]
struct ConnectJson<'a> {
    seconds: f64,
    address: Option<String>,
    proxy: Option<&'a str>,
}

#[derive(Serialize)]
struct TlsJson<'a> {
    seconds: f64,
    version: Option<&'static str>,
    server_name: &'a str,
    certificate: Option<CertificateJson<'a>>,
    verified_by: Option<&'static str>,
}

#[derive(Serialize)]
struct CertificateJson<'a> {
    subject: &'a str,
    names: Vec<&'a str>,
    issuer: &'a str,
    not_before: String,
    not_after: String,
}

/// The answer, with the fields that a toggle has, too.
#[derive(Serialize)]
struct AnswerJson<'a> {
    status: &'static str,
    raw_status: Option<String>,
    mock_enabled: Option<bool>,
    mcp_endpoints: Option<u32>,
    mcp_tools: Option<u32>,
    message: Option<&'a str>,
    error: Option<&'a str>,
    malformed: &'a [&'static str],
}

#[derive(Serialize)]
struct FailureJson<'a> {
    phase: Option<&'static str>,
    reason: &'static str,
    detail: Option<&'a str>,
}

/// The name of the toggle in the query of the path.
///
/// # Errors
/// If the query is not valid: what is wrong with it.
pub(crate) fn toggle_of_query(query: Option<&str>) -> Result<String, String> {
    let mut toggle = None;
    parse_query(query, |name, value| match name {
        "toggle" => {
            toggle = Some(value.into_owned());
            Ok(())
        }
        _ => Err(format!("{name}: is not a query parameter here: toggle and pretty are")),
    })?;
    toggle
        .filter(|name| !name.is_empty())
        .ok_or_else(|| "toggle: is missing: name the toggle to poll, as in ?toggle=bookings-enable".to_owned())
}

/// A duration in seconds, to the microsecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)).as_secs_f64()
}

// === impl DebugPollProblem ===

impl DebugPollProblem {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), retry_after: None }
    }

    /// A problem that may be gone when the client tries again after so many seconds.
    pub(crate) fn try_again(status: StatusCode, error: impl Into<String>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(status, error) }
    }

    /// The problem of a client that is told to try again in a while.
    pub(crate) fn unavailable(error: impl Into<String>) -> Self {
        const SOON: u64 = 5;
        Self::try_again(StatusCode::SERVICE_UNAVAILABLE, error, SOON)
    }
}

impl From<DebugPollRefusal> for DebugPollProblem {
    fn from(refusal: DebugPollRefusal) -> Self {
        match refusal {
            DebugPollRefusal::Busy => {
                let what = "another debug poll of this API waits or runs: an API has one at a time";
                Self::try_again(StatusCode::TOO_MANY_REQUESTS, what, 1)
            }
            DebugPollRefusal::Paused(pause) => {
                let seconds = pause.as_secs() + 1;
                let what = format!("the API asked for a pause of all requests, which lasts {seconds} s longer");
                Self::try_again(StatusCode::SERVICE_UNAVAILABLE, what, seconds)
            }
            DebugPollRefusal::OverBudget => Self::unavailable(
                "the request budget of the API (requests_per_second, max_in_flight) allowed no request",
            ),
            DebugPollRefusal::NoSuchApi => {
                Self::new(StatusCode::NOT_FOUND, "nothing to poll: the API of this toggle is not configured any more")
            }
            DebugPollRefusal::Stopping => Self::unavailable("the exporter stops"),
        }
    }
}

// === impl DebugPollJson ===

impl<'a> DebugPollJson<'a> {
    pub(crate) fn of(poll: &DebugPoll<'a>) -> Self {
        let DebugPoll { watch, replica, started, waited, polled } = *poll;
        let failure = polled.outcome.as_ref().err();
        Self {
            toggle: watch.name.as_str(),
            api: watch.api.as_str(),
            agent_id: watch.agent_id.get(),
            replica,
            started_at: started.to_string(),
            seconds: polled.took.map(seconds),
            phases: PhasesJson {
                wait: SecondsJson::of(waited),
                resolve: polled.phases.resolve.as_ref().map(ResolveJson::of),
                connect: polled.phases.connect.as_ref().map(|connect| ConnectJson::of(connect, polled)),
                tls: polled.phases.tls.as_ref().map(TlsJson::of),
                processing: polled.phases.processing.map(SecondsJson::of),
                transfer: polled.phases.transfer.map(SecondsJson::of),
            },
            http_status: polled.phases.http_status,
            answer: polled.outcome.as_ref().ok().map(AnswerJson::of),
            failure: failure.map(|failure| FailureJson {
                phase: polled.phases.failed_in.map(RequestPhase::as_str),
                reason: failure.reason.as_str(),
                detail: failure.detail.as_ref().map(Text::as_str),
            }),
        }
    }
}

impl SecondsJson {
    fn of(duration: Duration) -> Self {
        Self { seconds: seconds(duration) }
    }
}

impl<'a> ResolveJson<'a> {
    fn of(ResolvePhase { took, lookups }: &'a ResolvePhase) -> Self {
        let lookup = |ResolvedHost { host, addresses }: &'a ResolvedHost| LookupJson {
            host,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        Self { seconds: seconds(*took), lookups: lookups.iter().map(lookup).collect() }
    }
}

impl<'a> ConnectJson<'a> {
    fn of(ConnectPhase { took, address }: &ConnectPhase, polled: &'a TracedPoll) -> Self {
        let address = address.map(|address| address.to_string());
        Self { seconds: seconds(*took), address, proxy: polled.proxy.as_deref() }
    }
}

impl<'a> TlsJson<'a> {
    fn of(tls: &'a TlsPhase) -> Self {
        let TlsPhase { took, version, server_name, certificate, verified_by } = tls;
        Self {
            seconds: seconds(*took),
            version: *version,
            server_name,
            certificate: certificate.as_ref().map(|certificate| CertificateJson {
                subject: certificate.subject.as_str(),
                names: certificate.names.iter().map(Text::as_str).collect(),
                issuer: certificate.issuer.as_str(),
                not_before: certificate.not_before.to_string(),
                not_after: certificate.not_after.to_string(),
            }),
            verified_by: verified_by.map(|authorities| match authorities {
                AuthorityKind::Machine => "machine",
                AuthorityKind::CaFile => "ca_file",
            }),
        }
    }
}

impl<'a> AnswerJson<'a> {
    fn of(answer: &'a Answer) -> Self {
        Self {
            status: Status::of(&answer.status).as_str(),
            raw_status: answer.status.raw().map(|status| status.to_string()),
            mock_enabled: answer.mock_enabled,
            mcp_endpoints: answer.mcp_endpoints,
            mcp_tools: answer.mcp_tools,
            message: answer.message.as_ref().map(Text::as_str),
            error: answer.error.as_ref().map(Text::as_str),
            malformed: &answer.malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_toggle() {
        assert_eq!(toggle_of_query(Some("toggle=a.b")), Ok("a.b".to_owned()));
        for query in [None, Some(""), Some("toggle=a&toggle=b"), Some("toggle=a&x=1"), Some("name=a")] {
            assert!(toggle_of_query(query).is_err(), "{query:?}");
        }
    }
}
