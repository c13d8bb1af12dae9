//! The page of one toggle: how it stands and what to do, what happened to it, and all that is known of it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::debug_poll::write_form;
use super::html::{Badge, Escaped, Time, count_of, write_labels};
use super::layout::{Icon, Layout, SiteInfo, View};
use super::problems::{toggle_sentence, toggle_since};
use super::runbooks::Runbooks;
use super::timeline::Timeline;
use super::toggle_rows::{failure_words, is_from_earlier_run, runbook_section};
use crate::board::ToggleRow;
use crate::config::format_duration;
use crate::http::api::overview::ApiProblem;
use crate::intake::WatchOrigin;
use crate::sources::Origin;
use crate::toggle::{Event, EventKind, Expect, ProgressId, Source, Standing, Status, Text, Timestamp, Toggle};

/// The page of a toggle.
pub(in crate::http) struct TogglePage<'a> {
    row: &'a ToggleRow,
    events: &'a [Event],
    origin: Option<&'a WatchOrigin>,
    /// The replica that polls it, if there are replicas.
    replica: Option<&'a str>,
    standing: Standing,
    /// The section of the runbooks for its standing.
    section: Option<&'static str>,
    /// That section, as HTML with the values of the toggle.
    commands: Option<String>,
    /// What is wrong with its API as a whole, if that is why its polls fail.
    api_problem: Option<ApiProblem>,
    now: Timestamp,
}

/// The page in the place of that of a toggle that is not known.
pub(in crate::http) struct MissingTogglePage<'a> {
    /// The name in the address.
    pub(in crate::http) name: &'a str,
    /// Why the other replicas, which may know it, could not be asked.
    pub(in crate::http) unasked: Option<&'a str>,
}

/// In how many folders the page is.
const DEPTH: usize = 1;

// === impl TogglePage ===

impl<'a> TogglePage<'a> {
    /// The page of the toggle of a row with its events, the newest first. The runbooks are those of this toggle.
    pub(in crate::http) fn new(
        row: &'a ToggleRow,
        events: &'a [Event],
        origin: Option<&'a WatchOrigin>,
        replica: Option<&'a str>,
        api_problem: Option<ApiProblem>,
        runbooks: &Runbooks,
        now: Timestamp,
    ) -> Self {
        let standing = Standing::of(&row.toggle, now);
        let api_problem = api_problem.filter(|problem| {
            matches!(standing, Standing::Silent | Standing::Failing) && *problem != ApiProblem::NoMockStatusEndpoint
        });
        let section = api_problem.map(ApiProblem::section).or_else(|| runbook_section(standing, &row.toggle));
        let commands = section.and_then(|section| runbooks.section(section, DEPTH));
        Self { row, events, origin, replica, standing, section, commands, api_problem, now }
    }

    /// The commands of the runbook, which depend on more than the board.
    pub(in crate::http) fn commands(&self) -> Option<&str> {
        self.commands.as_deref()
    }

    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self, site: SiteInfo<'_>) -> String {
        let badge = Badge::of(self.standing);
        let layout = Layout {
            site,
            title: &format!("{}: {}", self.row.toggle.watch.name.as_str(), badge.word),
            view: View::Status,
            depth: DEPTH,
            style: Some("toggle.css"),
            icon: if self.section.is_some() { Icon::Trouble } else { Icon::Well },
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            self.write_answer(page)?;
            self.write_commands(page)?;
            page.push_str("<div class=\"columns\" id=\"columns\">\n<div>\n<section aria-labelledby=\"timeline\">\n<h2 id=\"timeline\">Timeline</h2>\n");
            let toggle = &self.row.toggle;
            let is_done = toggle.run.finished.is_some() && self.row.next_poll.is_none() && self.replica.is_none();
            Timeline::of(toggle, self.events, is_done, self.now).write(page)?;
            page.push_str("</section>\n");
            self.write_events(page)?;
            page.push_str("</div>\n<div>\n");
            self.write_definition(page)?;
            self.write_run(page)?;
            self.write_polls(page)?;
            page.push_str("</div>\n</div>\n");
            let name = Escaped(toggle.watch.name.as_str());
            writeln!(
                page,
                "<p class=\"more\">As JSON: <a href=\"../api/v1/toggles/{name}?pretty\">this toggle</a>, \
                 <a href=\"../api/v1/toggles/{name}/events?pretty\">its events</a></p>"
            )
        })
    }

    /// Writes how the toggle stands, what that means, since when, what to do, and what was said of it.
    fn write_answer(&self, page: &mut String) -> fmt::Result {
        let Toggle { watch, run, .. } = &self.row.toggle;
        let (name, api, id) = (Escaped(watch.name.as_str()), Escaped(watch.api.as_str()), watch.agent_id);
        page.push_str("<h1 class=\"standing\" id=\"name\">");
        Badge::of(self.standing).write(page, self.standing.as_str())?;
        writeln!(
            page,
            " <span>{name}</span></h1>\n<section class=\"answer {}\" id=\"answer\" aria-labelledby=\"name\">\n\
             <p class=\"sentence\">{}</p>",
            tone(self.standing),
            toggle_sentence(self.row, self.standing)
        )?;
        if let Some(problem) = self.api_problem {
            writeln!(page, "<p>{}</p>", problem.sentence())?;
        }
        if is_from_earlier_run(self.standing, run.last_answer.status) {
            let status =
                if run.last_answer.status == Status::Unknown { "has told no status yet" } else { "is in progress" };
            writeln!(page, "<p>That was an earlier run. The one that is watched now {status}.</p>")?;
        }
        page.push_str("<p class=\"whose\">");
        if let Some(since) = toggle_since(&self.row.toggle, self.standing) {
            write!(page, "Since {}. ", Time(since))?;
        }
        write!(page, "Agent <a href=\"../agents/{api}/{id}\">{id}</a>, API <a href=\"../apis#{api}\">{api}</a>. ")?;
        write_labels(page, &watch.labels)?;
        page.push_str("</p>\n<div class=\"actions\">\n");
        if let Some(section) = self.section {
            writeln!(page, "<a class=\"button\" href=\"../runbooks?toggle={name}#{section}\">What to do</a>")?;
        }
        write_form(page, DEPTH, watch.name.as_str(), "Poll once now")?;
        page.push_str("</div>\n");
        self.write_said(page)?;
        page.push_str("</section>\n");
        Ok(())
    }

    /// Writes why polls fail, and what the task said.
    fn write_said(&self, page: &mut String) -> fmt::Result {
        let run = &self.row.toggle.run;
        let failing = run.failing.as_deref().map(|failing| ("Last poll", failure_words(failing)));
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().to_owned());
        let error = text(&run.last_answer.error).map(|error| ("Error", error));
        let message = text(&run.last_answer.message).map(|message| ("Message", message));
        let said: Vec<_> =
            [failing, error, message].into_iter().flatten().filter(|(_, text)| !text.is_empty()).collect();
        if said.is_empty() {
            return Ok(());
        }
        page.push_str("<dl class=\"facts said\">\n");
        for (who, text) in said {
            fact(page, who, format_args!("<span class=\"text\">{}</span>", Escaped(text)))?;
        }
        page.push_str("</dl>\n");
        Ok(())
    }

    /// Writes the section of the runbooks, folded: its first commands are on the page of the button.
    fn write_commands(&self, page: &mut String) -> fmt::Result {
        let Some(commands) = &self.commands else { return Ok(()) };
        write!(
            page,
            "<details class=\"commands\" id=\"commands\">\n<summary><h2>Commands of the runbook for this toggle</h2></summary>\n{commands}</details>\n"
        )
    }

    /// Writes what happened, the newest first.
    fn write_events(&self, page: &mut String) -> fmt::Result {
        page.push_str("<section aria-labelledby=\"events\">\n<h2 id=\"events\">What happened</h2>\n");
        if self.events.is_empty() {
            page.push_str("<p>No change has been seen yet.</p>\n</section>\n");
            return Ok(());
        }
        page.push_str("<ol class=\"events\">\n");
        for Event { at, kind } in self.events {
            let (what, text) = event_words(kind);
            write!(page, "<li>{} <span>{what}", Time(*at))?;
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                write!(page, ": <span class=\"text\">{}</span>", Escaped(text))?;
            }
            page.push_str("</span></li>\n");
        }
        page.push_str("</ol>\n</section>\n");
        Ok(())
    }

    /// Writes what the user defined.
    fn write_definition(&self, page: &mut String) -> fmt::Result {
        let watch = &self.row.toggle.watch;
        let (api, id) = (Escaped(watch.api.as_str()), watch.agent_id);
        begin_facts(page, "Definition")?;
        let expect = match watch.expect {
            Some(Expect::Enabled) => "on",
            Some(Expect::Disabled) => "off",
            None => "on or off, nothing is expected",
        };
        fact(page, "Mocks should be", expect)?;
        fact(page, "Agent", format_args!("<a href=\"../agents/{api}/{id}\">{id}</a>"))?;
        fact(page, "API", format_args!("<a href=\"../apis#{api}\">{api}</a>"))?;
        let mut labels = String::new();
        write_labels(&mut labels, &watch.labels)?;
        fact(page, "Labels", if labels.is_empty() { "none" } else { labels.as_str() })?;
        fact(page, "Task", format_args!("<code>{}</code>", Escaped(watch.progress_id.as_str())))?;
        self.write_source(page)?;
        end_facts(page);
        Ok(())
    }

    /// Writes where the definition comes from.
    fn write_source(&self, page: &mut String) -> fmt::Result {
        let word = match self.row.toggle.watch.source {
            Source::Config => "configuration",
            Source::File => "watch file",
            Source::Http => "registered over HTTP",
        };
        let mut more = String::new();
        match self.origin {
            Some(WatchOrigin { origin: Origin::File(path), .. }) => {
                write!(more, " <code>{}</code>", Escaped(path.display()))?;
            }
            Some(WatchOrigin { registered: Some(at), .. }) => write!(more, " {}", Time(*at))?,
            _ => {}
        }
        fact(page, "Source", format_args!("<a href=\"../sources\">{word}</a>{more}"))
    }

    /// Writes what is known of the run, and how many there were.
    fn write_run(&self, page: &mut String) -> fmt::Result {
        let Toggle { run, tally, .. } = &self.row.toggle;
        let answer = &run.last_answer;
        begin_facts(page, "Run")?;
        let raw = run.raw_status().map(|raw| format!(", sent as <code>{}</code>", Escaped(raw.as_str())));
        let status = answer.status.as_str().replace('_', " ");
        fact(page, "Status", format_args!("{status}{}", raw.unwrap_or_default()))?;
        let mocks = match answer.mock_enabled {
            Some(true) => "on",
            Some(false) => "off",
            None => "not said",
        };
        fact(page, "Mocks, as answered", mocks)?;
        if let Some(endpoints) = answer.mcp_endpoints {
            let tools = answer.mcp_tools.map(|tools| format!(" with {}", count_of(tools, "tool")));
            fact(page, "MCP endpoints", format_args!("{endpoints}{}", tools.unwrap_or_default()))?;
        }
        fact(page, "First watched", Time(run.started))?;
        match run.finished {
            None => fact(page, "Finished", "not yet")?,
            Some(finish) if finish.at_first_answer => {
                fact(page, "Finished", format_args!("before {}", Time(finish.at)))?;
            }
            Some(finish) => {
                fact(page, "Finished", Time(finish.at))?;
                fact(page, "Took", whole_seconds(finish.at.since(run.started)))?;
            }
        }
        fact(page, "Runs so far", format_args!("{} completed, {} failed", tally.completed, tally.failed))?;
        for (what, at) in [("Last completed", tally.last_completed), ("Last failed", tally.last_failed)] {
            if let Some(at) = at.filter(|at| run.finished.is_none_or(|finish| finish.at != *at)) {
                fact(page, what, Time(at))?;
            }
        }
        end_facts(page);
        Ok(())
    }

    /// Writes how polls went.
    fn write_polls(&self, page: &mut String) -> fmt::Result {
        let Toggle { run, tally, .. } = &self.row.toggle;
        begin_facts(page, "Polls")?;
        match run.last_success {
            Some(at) => fact(page, "Last valid answer", Time(at))?,
            None => fact(page, "Last valid answer", "none yet")?,
        }
        match (self.row.next_poll, self.replica) {
            (Some(at), _) => fact(page, "Next poll", Time(at))?,
            (None, _) if run.finished.is_some() => fact(page, "Next poll", "none, because the run is finished")?,
            // When another replica polls next, this one does not know.
            (None, Some(_)) => {}
            (None, None) => fact(page, "Next poll", "none is planned")?,
        }
        fact(page, "Polls", format_args!("{}, {} of them failed", tally.polls, tally.failures))?;
        if let Some(failing) = &run.failing {
            let times =
                if failing.polls == 1 { "once".to_owned() } else { format!("{} times in a row", failing.polls) };
            fact(page, "Failing", format_args!("{times}, since {}", Time(failing.since)))?;
        }
        if let Some(replica) = self.replica {
            fact(page, "Polled by", format_args!("<a href=\"../replicas\">{}</a>", Escaped(replica)))?;
        }
        end_facts(page);
        Ok(())
    }
}

/// The colour of the answer.
fn tone(standing: Standing) -> &'static str {
    match standing {
        Standing::Failed | Standing::Mismatched => "bad",
        Standing::Stuck | Standing::Silent | Standing::Failing => "warn",
        Standing::Unknown | Standing::InProgress => "busy",
        Standing::Completed => "good",
    }
}

fn begin_facts(page: &mut String, title: &str) -> fmt::Result {
    let id = title.to_lowercase();
    writeln!(page, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n<dl class=\"facts\">")
}

fn end_facts(page: &mut String) {
    page.push_str("</dl>\n</section>\n");
}

/// Writes a name and a value, which is HTML.
fn fact(page: &mut String, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(page, "<dt>{name}</dt><dd>{value}</dd>")
}

fn whole_seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0 => "less than 1s".to_owned(),
        seconds => format_duration(Duration::from_secs(seconds)),
    }
}

/// What happened, in words, and what the API said, which is any text.
fn event_words(kind: &EventKind) -> (String, Option<&str>) {
    match kind {
        EventKind::RunStarted { progress_id } => {
            ("Another run is watched, task".to_owned(), Some(ProgressId::as_str(progress_id)))
        }
        EventKind::StatusChanged { from, to, duration, mismatch, text } => {
            let [from, to] = [from, to].map(|status| status.as_str().replace('_', " "));
            let mismatch = if *mismatch { ", not as expected" } else { "" };
            let after = duration.map(|duration| format!(", after {}", whole_seconds(duration))).unwrap_or_default();
            (format!("From {from} to {to}{mismatch}{after}"), text.as_ref().map(Text::as_str))
        }
        EventKind::UnrecognisedStatus { status } => {
            ("A status that is not documented".to_owned(), Some(status.as_str()))
        }
        EventKind::PollFailed { reason, detail } => {
            let reason = reason.as_str().replace('_', " ");
            (format!("Poll failed, {reason}"), detail.as_ref().map(Text::as_str))
        }
        EventKind::Recovered { reason, lasted } => {
            let (lasted, reason) = (whole_seconds(*lasted), reason.as_str().replace('_', " "));
            (format!("Polls are answered again. They had failed for {lasted}, {reason} at last"), None)
        }
    }
}

// === impl MissingTogglePage ===

impl MissingTogglePage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self, site: SiteInfo<'_>) -> String {
        let title = if self.unasked.is_some() { "Not known yet" } else { "No such toggle" };
        let layout = Layout {
            site,
            title,
            view: View::Status,
            depth: DEPTH,
            style: None,
            icon: Icon::Trouble,
            is_kept_up_to_date: true,
        };
        let name = Escaped(self.name);
        layout.page(|page| {
            writeln!(page, "<h1>{title}</h1>")?;
            match self.unasked {
                None => {
                    writeln!(
                        page,
                        "<p>There is no toggle <b>{name}</b> now. It was removed, or its registration expired, or it never \
                         existed. An alert about it ends within 15 minutes, but the mocks of its agent may still be in the wrong \
                         state: see <a href=\"../agents\">all agents</a> and <a href=\"../\">all toggles</a>.</p>"
                    )
                }
                Some(why) => writeln!(
                    page,
                    "<p>This replica does not know a toggle <b>{name}</b>, but another one may have registered it: {}. \
                     See <a href=\"../\">all toggles</a>.</p>",
                    Escaped(why)
                ),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{Answer, Failure, LabelName, Labels, Outcome, Reason, ReportedStatus, Watch};

    /// The page of a toggle that is expected to turn mocks on, after these outcomes of polls, each at a second.
    fn page(
        outcomes: impl IntoIterator<Item = (u64, Outcome)>,
        events: &[Event],
        origin: Option<&WatchOrigin>,
    ) -> String {
        let labels = Labels::from([(LabelName::parse("team").unwrap(), "<b>".into())]);
        let mut toggle =
            Toggle::new(Arc::new(Watch { expect: Some(Expect::Enabled), labels, ..watch("a", "id&1") }), at(0));
        for (second, outcome) in outcomes {
            toggle.apply(outcome, at(second));
        }
        rendered(&ToggleRow::new(toggle), events, origin)
    }

    fn rendered(row: &ToggleRow, events: &[Event], origin: Option<&WatchOrigin>) -> String {
        rendered_with(row, events, origin, None)
    }

    fn rendered_with(
        row: &ToggleRow,
        events: &[Event],
        origin: Option<&WatchOrigin>,
        api_problem: Option<ApiProblem>,
    ) -> String {
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: false, started_at: at(0), now: at(90) };
        TogglePage::new(row, events, origin, None, api_problem, &Runbooks::default(), at(90)).render(site)
    }

    /// The value of a fact, as HTML.
    fn fact_of<'p>(page: &'p str, name: &str) -> Option<&'p str> {
        page.split_once(&format!("<dt>{name}</dt><dd>"))?.1.split_once("</dd>").map(|(value, _)| value)
    }

    #[test]
    fn all_that_is_known_is_told() {
        let said = |status, mock_enabled| Answer {
            mcp_endpoints: Some(2),
            mcp_tools: Some(1),
            message: Some(Text::own("no <room>")),
            ..answer(status, mock_enabled)
        };
        let failure = Failure::new(Reason::ServerError).with_detail(Text::own("HTTP 500"));
        let outcomes =
            [(5, Ok(said(ReportedStatus::Completed, Some(false)))), (60, Err(failure.clone())), (61, Err(failure))];
        let origin = WatchOrigin { origin: Origin::File(std::path::Path::new("/w/<a>.yaml").into()), registered: None };
        let page = page(outcomes, &[], Some(&origin));
        for (name, value) in [
            ("Mocks should be", "on"),
            ("Agent", "<a href=\"../agents/default/4321\">4321</a>"),
            ("API", "<a href=\"../apis#default\">default</a>"),
            ("Labels", "<span class=\"label\">team=&lt;b&gt;</span>"),
            ("Task", "<code>id&amp;1</code>"),
            ("Source", "<a href=\"../sources\">configuration</a> <code>/w/&lt;a&gt;.yaml</code>"),
            ("Status", "completed"),
            ("Mocks, as answered", "off"),
            ("MCP endpoints", "2 with 1 tool"),
            ("Last poll", "<span class=\"text\">server error: HTTP 500</span>"),
            ("Message", "<span class=\"text\">no &lt;room&gt;</span>"),
            ("Runs so far", "1 completed, 0 failed"),
            ("Polls", "3, 2 of them failed"),
            ("Next poll", "none, because the run is finished"),
        ] {
            assert_eq!(fact_of(&page, name), Some(value), "{name}: {page}");
        }
        assert!(fact_of(&page, "Finished").unwrap().starts_with("before <time"), "{page}");
        assert!(fact_of(&page, "Failing").unwrap().starts_with("2 times in a row, since <time"), "{page}");
        assert!(page.contains("<title>a: mismatch – cekura-exporter</title>"), "{page}");
        assert!(page.contains("href=\"../runbooks?toggle=a#cekuratogglemocksnoton\""), "{page}");
    }

    #[test]
    fn what_is_wrong_with_the_whole_api_is_told_where_it_is_the_cause() {
        let page = |outcome, problem| {
            let mut toggle = Toggle::new(Arc::new(watch("a", "1")), at(0));
            toggle.apply(outcome, at(1));
            rendered_with(&ToggleRow::new(toggle), &[], None, Some(problem))
        };
        let not_found = || Err(Failure::new(Reason::NotFound));
        let down = page(not_found(), ApiProblem::Unanswered);
        assert!(down.contains("<p>This API is down: nothing is answered.</p>"), "{down}");
        assert!(down.contains("href=\"../runbooks?toggle=a#cekuraapidown\""), "{down}");
        let other = page(not_found(), ApiProblem::NoMockStatusEndpoint);
        assert!(other.contains("#cekuratoggleexpiredid\"") && !other.contains("This API"), "{other}");
        let failed = page(Ok(answer(ReportedStatus::Failed, None)), ApiProblem::Unanswered);
        assert!(failed.contains("#cekuratogglefailed\"") && !failed.contains("This API"), "{failed}");
    }

    #[test]
    fn a_bad_end_is_told_to_be_that_of_an_earlier_run() {
        let mut toggle = Toggle::new(Arc::new(Watch { expect: Some(Expect::Disabled), ..watch("a", "1") }), at(0));
        toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(1));
        toggle.redefine(Arc::new(Watch { expect: Some(Expect::Enabled), ..watch("a", "2") }), at(2));
        let page = rendered(&ToggleRow::new(toggle), &[], None);
        let sentence = "The task completed, but mocks were not as they should be. Real callers may talk to mocks.";
        assert!(page.contains(sentence), "{page}");
        assert!(
            page.contains("That was an earlier run. The one that is watched now has told no status yet."),
            "{page}"
        );
    }

    #[test]
    fn what_happened_is_told_in_words() {
        let status_changed = |duration, mismatch, text: Option<&str>| EventKind::StatusChanged {
            from: Status::InProgress,
            to: Status::Completed,
            duration,
            mismatch,
            text: text.map(Text::own),
        };
        let minute = Duration::from_secs(61);
        for (kind, expected) in [
            (
                EventKind::RunStarted { progress_id: ProgressId::restore("<p>").unwrap() },
                "Another run is watched, task: <span class=\"text\">&lt;p&gt;</span>",
            ),
            (status_changed(None, false, None), "From in progress to completed"),
            (status_changed(None, false, Some("")), "From in progress to completed"),
            (
                status_changed(Some(minute), true, Some("off")),
                "From in progress to completed, not as expected, after 1m1s: <span class=\"text\">off</span>",
            ),
            (
                EventKind::UnrecognisedStatus { status: Text::own("odd") },
                "A status that is not documented: <span class=\"text\">odd</span>",
            ),
            (EventKind::PollFailed { reason: Reason::BadRequest, detail: None }, "Poll failed, bad request"),
            (
                EventKind::PollFailed { reason: Reason::Dns, detail: Some(Text::own("why")) },
                "Poll failed, dns: <span class=\"text\">why</span>",
            ),
            (
                EventKind::Recovered { reason: Reason::Dns, lasted: minute },
                "Polls are answered again. They had failed for 1m1s, dns at last",
            ),
        ] {
            let page = page([], &[Event { at: at(1), kind }], None);
            assert!(page.contains(&format!("</time> <span>{expected}</span></li>")), "{expected}: {page}");
        }
        assert!(page([], &[], None).contains("No change has been seen yet."));
    }
}
