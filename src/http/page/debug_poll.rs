//! The page of a debug poll: what was answered or where it failed, and how long each phase took.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::html::{Escaped, Time, count_of};
use super::layout::{Icon, Layout, SiteInfo, Up, View};
use crate::cekura::{ConnectPhase, RequestPhase, ResolvePhase, ResolvedHost, TlsPhase};
use crate::http::api::debug_poll::{DebugPoll, seconds};
use crate::tls::AuthorityKind;
use crate::toggle::{Answer, Failure, Status, Text};

/// In how many folders the page is.
const DEPTH: usize = 2;

/// What the page shows.
pub(crate) enum DebugPollPage<'a> {
    /// A poll that was made.
    Polled(&'a DebugPoll<'a>),
    /// Why there was none.
    Refused(&'a str),
}

// === impl DebugPollPage ===

impl DebugPollPage<'_> {
    /// The whole page. It is true of one moment, so it is not kept up to date.
    pub(crate) fn render(&self, site: SiteInfo<'_>) -> String {
        let layout = Layout {
            site,
            title: "Polled once",
            view: View::Status,
            depth: DEPTH,
            style: None,
            icon: Icon::Well,
            is_kept_up_to_date: false,
        };
        layout.page(|page| match self {
            Self::Polled(poll) => write_poll(page, poll),
            Self::Refused(why) => write!(page, "<h1>Not polled</h1>\n<p role=\"alert\">{}.</p>\n", Escaped(why)),
        })
    }
}

fn write_poll(page: &mut String, poll: &DebugPoll<'_>) -> fmt::Result {
    let DebugPoll { watch, replica, started, polled, .. } = poll;
    let name = Escaped(watch.name.as_str());
    let up = Up(DEPTH);
    writeln!(page, "<h1><a href=\"{up}toggles/{name}\">{name}</a>, polled once</h1>")?;
    match &polled.outcome {
        Ok(answer) => write_answer(page, answer)?,
        Err(failure) => write_failure(page, failure, polled.phases.failed_in)?,
    }
    write_phases(page, poll)?;
    write!(page, "<p>Agent {}, API {}, {}", watch.agent_id, Escaped(watch.api.as_str()), Time(*started))?;
    if let Some(replica) = replica {
        write!(page, ", from replica {}", Escaped(replica))?;
    }
    writeln!(page, ". This poll changed nothing that is known of the toggle.</p>")?;
    write_form(page, DEPTH, watch.name.as_str(), "Poll once more")
}

/// Writes a button that polls a toggle once, on a page that is in this number of folders.
pub(super) fn write_form(page: &mut String, depth: usize, toggle: &str, label: &str) -> fmt::Result {
    let (toggle, up) = (Escaped(toggle), Up(depth));
    writeln!(page, "<form method=\"post\" action=\"{up}-/debug/poll?toggle={toggle}\"><button>{label}</button></form>")
}

fn write_answer(page: &mut String, answer: &Answer) -> fmt::Result {
    let mocks = match answer.mock_enabled {
        Some(true) => "mocks on",
        Some(false) => "mocks off",
        None => "nothing said of mocks",
    };
    let status = Status::of(&answer.status).as_str();
    write!(page, "<p role=\"status\"><strong>The API answered:</strong> {}", status.replace('_', " "))?;
    if let Some(raw) = answer.status.raw() {
        write!(page, " ({})", Escaped(raw))?;
    }
    write!(page, ", {mocks}")?;
    if let Some((endpoints, tools)) = answer.mcp_endpoints.zip(answer.mcp_tools) {
        write!(page, ", {} with {}", count_of(endpoints, "MCP endpoint"), count_of(tools, "tool"))?;
    }
    page.push_str(".</p>\n");
    for (what, text) in [("Message", &answer.message), ("Error", &answer.error)] {
        if let Some(text) = text {
            writeln!(page, "<p>{what}: {}</p>", Escaped(text))?;
        }
    }
    if !answer.malformed.is_empty() {
        writeln!(page, "<p>Malformed, and counted as absent: {}.</p>", answer.malformed.join(", "))?;
    }
    Ok(())
}

fn write_failure(page: &mut String, failure: &Failure, failed_in: Option<RequestPhase>) -> fmt::Result {
    let sentence = match failed_in {
        Some(RequestPhase::Credentials) => "The poll failed before anything was sent",
        Some(RequestPhase::Resolve) => "The poll failed while the name was looked up",
        Some(RequestPhase::Connect) => "The poll failed while connecting",
        Some(RequestPhase::Tls) => "The poll failed in the TLS handshake",
        Some(RequestPhase::Processing) => "The poll failed before the API answered",
        Some(RequestPhase::Transfer) => "The poll failed while the body was read",
        Some(RequestPhase::Answer) => "The answer is no valid one",
        None => "The poll failed before it began",
    };
    let reason = failure.reason.as_str().replace('_', " ");
    writeln!(page, "<p role=\"alert\"><strong>{sentence}:</strong> {reason}</p>")?;
    if let Some(detail) = &failure.detail {
        writeln!(page, "<p>{}</p>", Escaped(detail))?;
    }
    Ok(())
}

fn write_phases(page: &mut String, poll: &DebugPoll<'_>) -> fmt::Result {
    let phases = &poll.polled.phases;
    page.push_str(
        "<table class=\"phases\">\n<caption>Phases of the request</caption>\n<thead><tr><th scope=\"col\">Phase</th>\
         <th scope=\"col\">Seconds</th><th scope=\"col\">What happened</th></tr></thead>\n<tbody>\n",
    );
    write_row(page, "Wait for the request budget", poll.waited, "")?;
    let mut write_phase = |phase, title, took, what: &str| {
        let failed = if phases.failed_in == Some(phase) { "<strong>✖ failed here</strong>" } else { "" };
        write_row(page, title, took, &format!("{failed}{}", Escaped(what)))
    };
    if let Some(ResolvePhase { took, lookups }) = &phases.resolve {
        write_phase(RequestPhase::Resolve, "Name lookup", *took, &found(lookups))?;
    }
    if let Some(ConnectPhase { took, address }) = &phases.connect {
        let address = address.map_or_else(|| "address not known".to_owned(), |address| address.to_string());
        let proxy = poll.polled.proxy.as_ref().map(|proxy| format!(", through the proxy {proxy}")).unwrap_or_default();
        write_phase(RequestPhase::Connect, "Connect", *took, &format!("{address}{proxy}"))?;
    }
    if let Some(tls) = &phases.tls {
        write_phase(RequestPhase::Tls, "TLS handshake", tls.took, &tls_sentences(tls)?)?;
    }
    if let Some(processing) = phases.processing {
        let status = phases.http_status.map(|status| format!("HTTP {status}")).unwrap_or_default();
        write_phase(RequestPhase::Processing, "Response", processing, &status)?;
    }
    if let Some(transfer) = phases.transfer {
        write_phase(RequestPhase::Transfer, "Body", transfer, "")?;
    }
    if let Some(took) = poll.polled.took {
        write_row(page, "Whole request", took, "without the wait for the budget")?;
    }
    page.push_str("</tbody>\n</table>\n");
    Ok(())
}

/// Writes a row of the table. `what` is HTML.
fn write_row(page: &mut String, title: &str, took: Duration, what: &str) -> fmt::Result {
    writeln!(page, "<tr><th scope=\"row\">{title}</th><td>{:.6}</td><td>{what}</td></tr>", seconds(took))
}

/// The names that were looked up, and their addresses.
fn found(lookups: &[ResolvedHost]) -> String {
    let lookup = |ResolvedHost { host, addresses }: &ResolvedHost| {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
        format!("{host}: {addresses}")
    };
    lookups.iter().map(lookup).collect::<Vec<_>>().join("; ")
}

/// Whose certificate the server showed, and whether it is trusted.
fn tls_sentences(tls: &TlsPhase) -> Result<String, fmt::Error> {
    let mut text = String::new();
    if let Some(version) = tls.version {
        write!(text, "{version}. ")?;
    }
    let Some(certificate) = &tls.certificate else {
        write!(text, "{} showed no certificate.", tls.server_name)?;
        return Ok(text);
    };
    let names: Vec<_> = certificate.names.iter().map(Text::as_str).collect();
    write!(text, "Certificate of “{}” for {}", certificate.subject, names.join(", "))?;
    write!(text, ", issued by “{}”, valid until {}. ", certificate.issuer, certificate.not_after)?;
    text.push_str(match tls.verified_by {
        Some(AuthorityKind::Machine) => "Verified by the root certificates of the machine.",
        Some(AuthorityKind::CaFile) => "Verified by ca_file.",
        None => "Not trusted.",
    });
    Ok(text)
}
