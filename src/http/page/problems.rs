//! What is wrong, the worst first: what, whose, since when, and what to do.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::agents::AgentStanding;
use super::health::{ExporterHealth, ExporterProblem};
use super::html::{Badge, Escaped, Time, count_of, write_labels};
use super::layout::Icon;
use super::toggle_rows::{is_from_earlier_run, poll_failure, runbook_section};
use crate::board::{AgentRow, AskedAgent, ToggleRow, ToggleRows};
use crate::http::api::overview::{ApiHealth, ApiProblem, Overview};
use crate::toggle::{AgentId, Expect, FailureStreak, Labels, Standing, Text, Timestamp, Toggle};

/// How many problems are shown. Who is woken by more needs to know what they have in common, not each one.
const SHOWN: usize = 20;

/// All problems of an exporter.
pub(super) struct ProblemList<'a> {
    /// The worst, in order.
    worst: Vec<ListedProblem<'a>>,
    /// How many there are.
    count: usize,
    has_bad: bool,
}

/// Something that somebody has to look at.
struct ListedProblem<'a> {
    severity: Severity,
    since: Option<Timestamp>,
    subject: Subject<'a>,
}

/// How bad a problem is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// An API with all its toggles and agents, or the exporter itself.
    Api,
    /// Tests may reach the real systems, or real callers talk to mocks.
    Bad,
    /// What is so is not known, or may become bad.
    Warning,
}

#[derive(Clone, Copy)]
enum Subject<'a> {
    Api(&'a ApiHealth, ApiProblem),
    Toggle(&'a ToggleRow, Standing),
    Agent(&'a AgentRow, AgentStanding),
    Exporter(&'a ExporterProblem),
}

// === impl ProblemList ===

impl<'a> ProblemList<'a> {
    /// Finds all problems. What only cannot be polled because its whole API cannot is a part of the API's problem.
    pub(super) fn of(
        overview: &'a Overview,
        rows: &'a ToggleRows,
        agents: &'a [AgentRow],
        health: &'a ExporterHealth,
        now: Timestamp,
    ) -> Self {
        let troubled: Vec<_> = overview.apis.iter().filter_map(|api| Some((api, api.problem()?))).collect();
        let problem_of = |name: &str| troubled.iter().find(|(api, _)| api.name == name).map(|(_, problem)| *problem);
        let is_down = |name: &str| problem_of(name).is_some_and(ApiProblem::is_outage);
        let toggles = rows.iter().filter_map(|row| {
            let standing = Standing::of(&row.toggle, now);
            let explains = |problem| problem != ApiProblem::NoMockStatusEndpoint;
            let is_explained = matches!(standing, Standing::Silent | Standing::Failing)
                && problem_of(row.toggle.watch.api.as_str()).is_some_and(explains);
            (!is_explained).then(|| ListedProblem::of_toggle(row, standing)).flatten()
        });
        let of_agents = agents.iter().filter_map(|agent| {
            let standing = AgentStanding::of(agent);
            let explains = |problem| problem != ApiProblem::NoToggleEndpoint;
            let is_explained =
                standing == AgentStanding::Failing && problem_of(agent.api.as_str()).is_some_and(explains);
            (!is_explained).then(|| ListedProblem::of_agent(agent, standing)).flatten()
        });
        let apis = troubled.iter().map(|(api, problem)| {
            let is_outage = problem.is_outage();
            let severity = if is_outage { Severity::Api } else { Severity::Warning };
            let since = is_outage.then(|| down_since(&api.name, rows, agents).or_else(|| health.since(&api.name)));
            ListedProblem { severity, since: since.flatten(), subject: Subject::Api(api, *problem) }
        });
        let exporter =
            health.problems.iter().filter(|problem| !problem.api.as_ref().is_some_and(|api| is_down(api.as_str())));
        let exporter = exporter.map(ListedProblem::of_exporter);
        let mut worst: Vec<_> = apis.chain(toggles).chain(of_agents).chain(exporter).collect();
        let (count, has_bad) = (worst.len(), worst.iter().any(|problem| problem.severity != Severity::Warning));
        // The alert that woke somebody is most likely about the latest.
        worst.sort_by_key(|problem| (problem.severity, Reverse(problem.since)));
        worst.truncate(SHOWN);
        Self { worst, count, has_bad }
    }

    /// What the title of the window says.
    pub(super) fn title(&self) -> String {
        if self.count == 0 { "All well".to_owned() } else { count_of(self.count as u64, "problem") }
    }

    pub(super) fn icon(&self) -> Icon {
        if self.count == 0 { Icon::Well } else { Icon::Trouble }
    }

    /// Writes how all is, and each problem.
    pub(super) fn write(&self, page: &mut String, watched: usize, agents: usize) -> fmt::Result {
        let class = if watched + agents + self.count == 0 {
            "plain"
        } else if self.count == 0 {
            "good"
        } else if self.has_bad {
            "bad"
        } else {
            "warn"
        };
        write!(page, "<div id=\"banner\" role=\"status\"><h1 class=\"banner {class}\">")?;
        let what = match (watched, agents) {
            (0, 0) if self.count == 0 => return writeln!(page, "Nothing is watched.</h1></div>"),
            (0, 0) => "Nothing".to_owned(),
            (toggles, 0) => count_of(toggles as u64, "toggle"),
            (0, agents) => count_of(agents as u64, "agent"),
            (toggles, agents) => {
                format!("{} and {}", count_of(toggles as u64, "toggle"), count_of(agents as u64, "agent"))
            }
        };
        match self.count {
            0 => writeln!(page, "All well: {what}, no problem.</h1></div>")?,
            count => {
                let are = if watched + agents > 1 { "are" } else { "is" };
                writeln!(page, "{}. {what} {are} watched.</h1></div>", count_of(count as u64, "problem"))?;
            }
        }
        if self.worst.is_empty() {
            return Ok(());
        }
        page.push_str("<section id=\"problems\" aria-label=\"Problems\">\n");
        self.worst.iter().try_for_each(|problem| problem.write(page))?;
        if self.count > self.worst.len() {
            writeln!(
                page,
                "<p>{} more: see the tables of toggles below and of <a href=\"agents\">agents</a>.</p>",
                self.count - self.worst.len()
            )?;
        }
        page.push_str("</section>\n");
        Ok(())
    }
}

// === impl Severity ===

impl Severity {
    /// The tone of the card.
    fn tone(self) -> &'static str {
        match self {
            Self::Api | Self::Bad => "bad",
            Self::Warning => "warn",
        }
    }
}

// === impl ListedProblem ===

impl<'a> ListedProblem<'a> {
    fn of_toggle(row: &'a ToggleRow, standing: Standing) -> Option<Self> {
        let severity = match standing {
            Standing::Failed | Standing::Mismatched => Severity::Bad,
            Standing::Stuck | Standing::Silent | Standing::Failing => Severity::Warning,
            Standing::Unknown | Standing::InProgress | Standing::Completed => return None,
        };
        let since = toggle_since(&row.toggle, standing);
        Some(Self { severity, since, subject: Subject::Toggle(row, standing) })
    }

    fn of_agent(agent: &'a AgentRow, standing: AgentStanding) -> Option<Self> {
        let severity = match standing {
            AgentStanding::Drifted => Severity::Bad,
            AgentStanding::On | AgentStanding::Failing => Severity::Warning,
            AgentStanding::Well | AgentStanding::Unjudged => return None,
        };
        let since = standing.since(agent);
        Some(Self { severity, since, subject: Subject::Agent(agent, standing) })
    }

    fn of_exporter(problem: &'a ExporterProblem) -> Self {
        let severity = if problem.is_bad { Severity::Api } else { Severity::Warning };
        Self { severity, since: problem.since, subject: Subject::Exporter(problem) }
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        match self.subject {
            Subject::Exporter(problem) => problem.write(page),
            Subject::Api(api, problem) => self.write_api(page, api, problem),
            Subject::Toggle(row, standing) => self.write_toggle(page, row, standing),
            Subject::Agent(agent, standing) => self.write_agent(page, agent, standing),
        }
    }

    fn write_toggle(&self, page: &mut String, row: &ToggleRow, standing: Standing) -> fmt::Result {
        let (watch, run) = (&row.toggle.watch, &row.toggle.run);
        let name = Escaped(watch.name.as_str());
        write!(page, "<article class=\"problem {}\" data-key=\"toggle/{name}\">\n<h2>", self.severity.tone())?;
        Badge::of(standing).write(page, standing.as_str())?;
        writeln!(
            page,
            " <a href=\"toggles/{name}\">{name}</a></h2>\n<p class=\"sentence\">{}</p>",
            toggle_sentence(row, standing)
        )?;
        let polls = run.failing.as_deref().map(poll_failure);
        let said = [&run.last_answer.error, &run.last_answer.message].into_iter().flatten().map(Text::as_str);
        let said = if standing == Standing::Failed { said.into_iter().find(|said| !said.is_empty()) } else { None };
        if let Some(text) = polls.as_deref().or(said) {
            writeln!(page, "<p class=\"text\">{}</p>", Escaped(text))?;
        }
        self.write_whose(page, Some(watch.agent_id), watch.api.as_str(), Some(&watch.labels))?;
        match runbook_section(standing, &row.toggle) {
            Some(section) => write_button(page, &format!("toggle={}", watch.name.as_str()), section),
            None => Ok(()),
        }
    }

    fn write_agent(&self, page: &mut String, agent: &AgentRow, standing: AgentStanding) -> fmt::Result {
        let (api, id) = (agent.api.as_str(), agent.id);
        let key = Escaped(format!("{api}/{id}"));
        write!(page, "<article class=\"problem {}\" data-key=\"agent/{key}\">\n<h2>", self.severity.tone())?;
        standing.badge().write(page, standing.as_str())?;
        writeln!(
            page,
            " <a href=\"agents/{key}\">Agent {id}</a></h2>\n<p class=\"sentence\">{}</p>",
            agent_sentence(agent, standing)
        )?;
        let live = agent.asked.as_ref().map(|asked| &asked.live);
        if let Some(failing) = live.and_then(|live| live.failing.as_deref()) {
            writeln!(page, "<p class=\"text\">{}</p>", Escaped(poll_failure(failing)))?;
        }
        self.write_whose(page, None, api, agent.labels())?;
        let section = standing.runbook_section().unwrap_or_default();
        write_button(page, &format!("agent={api}/{id}"), section)
    }

    fn write_api(&self, page: &mut String, api: &ApiHealth, problem: ApiProblem) -> fmt::Result {
        let (name, tone) = (Escaped(&api.name), self.severity.tone());
        let (class, shape, word, unknown) = if problem.is_outage() {
            ("down", "✖", "API down", " What happens to its toggles and agents is not known.")
        } else {
            ("failing", "△", "API", "")
        };
        writeln!(
            page,
            "<article class=\"problem {tone}\" data-key=\"api/{name}\">\n\
             <h2><span class=\"badge {class}\"><span aria-hidden=\"true\">{shape}</span> {word}</span> <a href=\"apis#{name}\">{name}</a></h2>\n\
             <p class=\"sentence\">{}{unknown}</p>",
            problem.sentence()
        )?;
        if let Some(since) = self.since {
            writeln!(page, "<p class=\"whose\">Since {}.</p>", Time(since))?;
        }
        for (failing, count, noun) in
            [(&api.failing, api.failures(), "toggle"), (&api.agents.failing, api.agents.failures(), "agent")]
        {
            if count > 0 {
                let are = if count == 1 { "is" } else { "are" };
                let count = count_of(count as u64, noun);
                writeln!(page, "<p class=\"whose\">{count} {are} not answered: {}.</p>", reasons(failing))?;
            }
        }
        write_button(page, &format!("api={}", api.name), problem.section())
    }

    /// Writes whose problem it is, and since when. The agent is left out where it is the title.
    fn write_whose(
        &self,
        page: &mut String,
        agent: Option<AgentId>,
        api: &str,
        labels: Option<&Labels>,
    ) -> fmt::Result {
        write!(page, "<p class=\"whose\">")?;
        if let Some(since) = self.since {
            write!(page, "Since {}. ", Time(since))?;
        }
        if let Some(agent) = agent {
            write!(page, "Agent {agent}, ")?;
        }
        write!(page, "API {}.", Escaped(api))?;
        if let Some(labels) = labels.filter(|labels| labels.iter().next().is_some()) {
            page.push(' ');
            write_labels(page, labels)?;
        }
        page.push_str("</p>\n");
        Ok(())
    }
}

/// Why polls failed, and how many for each reason if there are several.
fn reasons(failing: &BTreeMap<&'static str, usize>) -> String {
    let words = |reason: &str| reason.replace('_', " ");
    match failing.iter().next() {
        Some((reason, _)) if failing.len() == 1 => words(reason),
        _ => failing.iter().map(|(reason, count)| format!("{count} {}", words(reason))).collect::<Vec<_>>().join(", "),
    }
}

/// Since when no poll of an API has got a valid answer: the first failure after the last one that did.
fn down_since(api: &str, rows: &ToggleRows, agents: &[AgentRow]) -> Option<Timestamp> {
    let of_toggles = rows.iter().filter(|row| row.toggle.watch.api.as_str() == api).map(|row| {
        let run = &row.toggle.run;
        (run.last_success, run.failing.as_deref())
    });
    let of_agents = agents.iter().filter(|agent| agent.api.as_str() == api).filter_map(|agent| {
        let live = &agent.asked.as_ref()?.live;
        Some((live.last_success, live.failing.as_deref()))
    });
    let (mut first_failure, mut last_success) = (None::<Timestamp>, None);
    for (success, failing) in of_toggles.chain(of_agents) {
        last_success = last_success.max(success);
        if let Some(FailureStreak { since, .. }) = failing {
            first_failure = Some(first_failure.map_or(*since, |first| first.min(*since)));
        }
    }
    first_failure.max(last_success)
}

/// Ends a problem with the way to its runbook. Names need no percent-encoding in a query.
fn write_button(page: &mut String, subject: &str, section: &str) -> fmt::Result {
    writeln!(
        page,
        "<p><a class=\"button\" href=\"runbooks?{}#{section}\">What to do</a></p>\n</article>",
        Escaped(subject)
    )
}

/// Since when a toggle has stood like this, if that is known.
pub(super) fn toggle_since(toggle: &Toggle, standing: Standing) -> Option<Timestamp> {
    let (run, tally) = (&toggle.run, &toggle.tally);
    match standing {
        Standing::Failed => tally.last_failed,
        Standing::Mismatched => tally.last_mismatched,
        Standing::Silent | Standing::Failing => {
            run.failing.as_ref().map(|failing| failing.since).or(run.last_success).or(Some(run.started))
        }
        Standing::Completed => run.finished.map(|finish| finish.at),
        Standing::Stuck | Standing::Unknown | Standing::InProgress => Some(run.started),
    }
}

/// What it means that a toggle stands like this, in one sentence or two.
pub(super) fn toggle_sentence(row: &ToggleRow, standing: Standing) -> String {
    let run = &row.toggle.run;
    // A problem may be that of an earlier run, which may have had another direction.
    let expect = row.toggle.tally.problem.map_or(row.toggle.watch.expect, |problem| problem.expect);
    let danger = match expect {
        Some(Expect::Enabled) => " Tests may reach the real systems.",
        Some(Expect::Disabled) => " Real callers may talk to mocks.",
        None => " Mocks may be in the wrong state.",
    };
    let turning = match expect {
        Some(Expect::Enabled) => "Turning mocks on",
        Some(Expect::Disabled) => "Turning mocks off",
        None => "The toggle",
    };
    match (standing, run.last_answer.mock_enabled) {
        (Standing::Failed, _) => format!("{turning} failed.{danger}"),
        (Standing::Mismatched, _) if is_from_earlier_run(standing, run.last_answer.status) => {
            format!("The task completed, but mocks were not as they should be.{danger}")
        }
        (Standing::Mismatched, Some(enabled)) => {
            let (is, should) = if enabled { ("on", "off") } else { ("off", "on") };
            format!("The task completed, but mocks are {is} and should be {should}.{danger}")
        }
        (Standing::Mismatched, None) => format!("The task completed without saying whether mocks are on.{danger}"),
        (Standing::Stuck, _) => {
            format!(
                "{turning} has not finished after more than {} minutes.{danger}",
                Standing::STUCK_AFTER.as_secs() / 60
            )
        }
        (Standing::Silent, _) => format!(
            "There has been no valid answer for more than {} minutes, so nobody knows whether mocks are on.",
            Standing::SILENT_AFTER.as_secs() / 60
        ),
        (Standing::Failing, _) => "Polls get no valid answer.".to_owned(),
        (Standing::Unknown, _) if run.raw_status().is_some() => {
            "The task has a status that is not documented, so nobody knows how it stands.".to_owned()
        }
        (Standing::Unknown, _) => "No answer has told a status yet.".to_owned(),
        (Standing::InProgress, _) => "The task is in progress.".to_owned(),
        (Standing::Completed, enabled) => match enabled {
            Some(true) => "The task completed: mocks are on.".to_owned(),
            Some(false) => "The task completed: mocks are off.".to_owned(),
            None => "The task completed.".to_owned(),
        },
    }
}

/// What it means that an agent stands like this.
pub(super) fn agent_sentence(agent: &AgentRow, standing: AgentStanding) -> &'static str {
    let enabled = agent.asked.as_ref().and_then(|AskedAgent { live, .. }| live.enabled);
    match (standing, enabled) {
        (AgentStanding::Drifted, Some(true)) => "Mocks are on and should be off. Real callers may talk to mocks.",
        (AgentStanding::Drifted, _) => "Mocks are off and should be on. Tests may reach the real systems.",
        (AgentStanding::On, _) => "Mocks are on, and nothing says that they should be. Real callers may talk to mocks.",
        _ => "Polls get no valid answer.",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::api::overview::AgentHealth;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{Failure, Outcome, Reason, ReportedStatus, Toggle, Watch};

    const HOUR: u64 = 3600;

    /// A toggle after these outcomes, each at a second.
    fn row(name: &str, expect: Option<Expect>, outcomes: Vec<(u64, Outcome)>) -> ToggleRow {
        let mut toggle = Toggle::new(Arc::new(Watch { expect, ..watch(name, "p") }), at(0));
        for (second, outcome) in outcomes {
            toggle.apply(outcome, at(second));
        }
        ToggleRow::new(toggle)
    }

    #[allow(clippy::unnecessary_wraps, reason = "rows are made from outcomes")]
    fn says(status: ReportedStatus, mock_enabled: Option<bool>) -> Outcome {
        Ok(answer(status, mock_enabled))
    }

    fn api(up: bool) -> ApiHealth {
        ApiHealth {
            name: "default".into(),
            requests_per_second: 10.0,
            max_in_flight: 1,
            in_flight: 0,
            waiting: 0,
            paused_until: None,
            up: Some(up),
            polled: 0,
            failing: BTreeMap::new(),
            agents: AgentHealth::default(),
            unfinished: 0,
            listed: None,
        }
    }

    /// The problems of these toggles at a second, as HTML.
    fn written(rows: Vec<ToggleRow>, up: bool, now: u64) -> String {
        let rows: ToggleRows = rows.into_iter().collect();
        let overview = Overview::of(&rows, &[], vec![api(up)], at(0), at(now));
        let mut page = String::new();
        let health = ExporterHealth::default();
        ProblemList::of(&overview, &rows, &[], &health, at(now)).write(&mut page, rows.len(), 0).unwrap();
        page
    }

    fn keys(page: &str) -> Vec<&str> {
        page.split("data-key=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn the_worst_comes_first_and_of_equals_the_latest() {
        let timeout = || Err(Failure::new(Reason::Timeout));
        let rows = vec![
            row("a-well", None, vec![(1, says(ReportedStatus::Completed, Some(true)))]),
            row("b-stuck", None, vec![(HOUR, says(ReportedStatus::InProgress, None))]),
            row("c-failed", None, vec![(1, says(ReportedStatus::Failed, None))]),
            row("d-off", Some(Expect::Enabled), vec![(9, says(ReportedStatus::Completed, Some(false)))]),
            row("e-silent", None, vec![(1, timeout())]),
            row("f-busy", None, vec![]),
        ];
        let page = written(rows, true, HOUR);
        assert_eq!(
            keys(&page)[..4],
            ["toggle/d-off", "toggle/c-failed", "toggle/e-silent", "toggle/b-stuck"],
            "{page}"
        );
        assert!(page.contains(">5 problems. 6 toggles are watched.</h1>"), "{page}");
        assert!(page.contains("class=\"banner bad\""), "{page}");
    }

    #[test]
    fn every_problem_has_its_sentence_and_its_runbook() {
        let failed = || says(ReportedStatus::Failed, None);
        let completed = |enabled| says(ReportedStatus::Completed, enabled);
        let fails = |reason| Err(Failure::new(reason));
        let (on, off) = (Some(Expect::Enabled), Some(Expect::Disabled));
        for (expect, outcomes, sentence, section) in [
            (
                on,
                vec![(1, failed())],
                "Turning mocks on failed. Tests may reach the real systems.",
                "cekuratogglefailed",
            ),
            (
                off,
                vec![(1, failed())],
                "Turning mocks off failed. Real callers may talk to mocks.",
                "cekuratogglefailed",
            ),
            (None, vec![(1, failed())], "The toggle failed. Mocks may be in the wrong state.", "cekuratogglefailed"),
            (
                on,
                vec![(1, completed(Some(false)))],
                "The task completed, but mocks are off and should be on. Tests may reach the real systems.",
                "cekuratogglemocksnoton",
            ),
            (
                off,
                vec![(1, completed(None))],
                "The task completed without saying whether mocks are on. Real callers may talk to mocks.",
                "cekuratogglemocksnotoff",
            ),
            (
                off,
                vec![(1, says(ReportedStatus::InProgress, None))],
                "Turning mocks off has not finished after more than 30 minutes. Real callers may talk to mocks.",
                "cekuratogglestuck",
            ),
            (
                None,
                vec![(1, fails(Reason::Timeout))],
                "There has been no valid answer for more than 15 minutes, so nobody knows whether mocks are on.",
                "cekuratogglenotanswering",
            ),
            (
                None,
                vec![(1, fails(Reason::NotFound))],
                "There has been no valid answer for more than 15 minutes, so nobody knows whether mocks are on.",
                "cekuratoggleexpiredid",
            ),
            (
                None,
                vec![(1, completed(None)), (2, fails(Reason::Forbidden))],
                "Polls get no valid answer.",
                "cekuratoggleforbidden",
            ),
        ] {
            let page = written(vec![row("w", expect, outcomes)], true, HOUR);
            assert!(page.contains(&format!("<p class=\"sentence\">{sentence}</p>")), "{sentence}: {page}");
            assert!(page.contains(&format!("href=\"runbooks?toggle=w#{section}\"")), "{sentence}: {page}");
        }
    }

    #[test]
    fn what_an_api_explains_is_no_problem_of_its_own() {
        let timeout = || Err(Failure::new(Reason::Timeout));
        let rows = || {
            vec![row("a", None, vec![(1, timeout())]), row("b", None, vec![(1, says(ReportedStatus::Failed, None))])]
        };
        let page = written(rows(), false, HOUR);
        assert_eq!(keys(&page), ["api/default", "toggle/b"], "{page}");
        assert!(page.contains("<p class=\"whose\">1 toggle is not answered: timeout.</p>"), "{page}");
        assert_eq!(keys(&written(rows(), true, HOUR)), ["toggle/b", "toggle/a"]);
    }

    #[test]
    fn an_api_is_down_since_the_first_failure_after_its_last_answer() {
        let answered = |second| (second, says(ReportedStatus::InProgress, None));
        let fails = |second| (second, Err(Failure::new(Reason::Timeout)));
        for (outcomes, since) in [
            (vec![vec![answered(1), fails(5)], vec![fails(7)]], 5),
            (vec![vec![fails(5)], vec![answered(9), fails(12)]], 9),
        ] {
            let rows = outcomes.into_iter().zip(["a", "b"]).map(|(outcomes, name)| row(name, None, outcomes)).collect();
            let page = written(rows, false, 20);
            assert!(page.contains(&format!("<p class=\"whose\">Since {}.</p>", Time(at(since)))), "{since}: {page}");
        }
    }

    #[test]
    fn of_many_problems_some_are_shown_and_all_are_counted() {
        let failed = |number: u32| row(&format!("w{number}"), None, vec![(1, says(ReportedStatus::Failed, None))]);
        let page = written((0..50).map(failed).collect(), true, 2);
        assert_eq!(keys(&page).len(), SHOWN);
        assert!(page.contains(">50 problems. 50 toggles are watched.</h1>") && page.contains("<p>30 more: "), "{page}");
    }

    #[test]
    fn without_problems_all_is_well() {
        let page = written(vec![row("w", None, vec![])], true, 1);
        assert_eq!(
            page,
            "<div id=\"banner\" role=\"status\"><h1 class=\"banner good\">All well: 1 toggle, no problem.</h1></div>\n"
        );
        assert!(written(vec![], true, 1).contains(">Nothing is watched.</h1>"));
    }
}
