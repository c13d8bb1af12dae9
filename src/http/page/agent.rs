//! The page of one agent: whether its mocks are on, whether they should be, and who says so.

use std::fmt::{self, Write as _};

use super::agent_rows::{on_or_off, write_endpoints, write_live, write_should_be};
use super::agents::AgentStanding;
use super::html::{Badge, Escaped, Time, count_of, write_labels};
use super::layout::{Icon, Layout, SiteInfo, Up, View};
use super::problems::{agent_sentence, toggle_sentence};
use super::toggle_rows::{begin_cell, poll_failure, write_text};
use crate::board::{AgentRow, AskedAgent, ToggleRow};
use crate::http::api::overview::ApiProblem;
use crate::toggle::{Expect, Provider, Standing, ToldBy};

/// In how many folders the page is.
const DEPTH: usize = 2;

/// How many toggles the page lists.
const MAX_TOGGLES: usize = 200;

/// How many of its toggles that ended badly are named first.
const MAX_BAD_TOGGLES: usize = 3;

/// What the page of one agent is made from.
pub(in crate::http) struct AgentPage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    pub(in crate::http) agent: &'a AgentRow,
    /// Its toggles, sorted by name.
    pub(in crate::http) toggles: &'a [ToggleRow],
    /// The replica that asks for it, if there are replicas.
    pub(in crate::http) replica: Option<&'a str>,
    /// What is wrong with its API as a whole.
    pub(in crate::http) api_problem: Option<ApiProblem>,
}

// === impl AgentPage ===

impl AgentPage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let standing = match AgentStanding::of(self.agent) {
            // What a toggle told last counts as what should be. After a bad end, that is not all well.
            AgentStanding::Well if self.bad_toggles().next().is_some() => AgentStanding::Unjudged,
            standing => standing,
        };
        let title = format!("Agent {}: {}", self.agent.id, standing.badge().word);
        let icon = if standing.runbook_section().is_some() { Icon::Trouble } else { Icon::Well };
        let (site, style) = (self.site, Some("agents.css"));
        let layout =
            Layout { site, title: &title, view: View::Agents, depth: DEPTH, style, icon, is_kept_up_to_date: true };
        layout.page(|page| {
            self.write_answer(page, standing)?;
            self.write_mocks(page)?;
            if let Some(asked) = &self.agent.asked {
                self.write_polls(page, asked)?;
            }
            self.write_definition(page)?;
            self.write_toggles(page)
        })
    }

    /// Its toggles that failed, or completed otherwise than expected.
    fn bad_toggles(&self) -> impl Iterator<Item = (&ToggleRow, Standing)> {
        let standings = self.toggles.iter().map(|row| (row, Standing::of(&row.toggle, self.site.now)));
        standings.filter(|(_, standing)| matches!(standing, Standing::Failed | Standing::Mismatched))
    }

    /// Writes how the agent stands, whose it is, and what to do.
    fn write_answer(&self, page: &mut String, standing: AgentStanding) -> fmt::Result {
        let (agent, up) = (self.agent, Up(DEPTH));
        let (api, id) = (Escaped(agent.api.as_str()), agent.id);
        page.push_str("<h1 class=\"standing\" id=\"name\">");
        standing.badge().write(page, standing.as_str())?;
        writeln!(
            page,
            " <span>Agent {id}</span></h1>\n<section class=\"answer {}\" aria-labelledby=\"name\">\n\
             <p class=\"sentence\" id=\"sentence\">{}</p>",
            standing.tone(),
            sentence(agent, standing)
        )?;
        if let Some(problem) = self.api_problem.filter(|_| standing == AgentStanding::Failing) {
            writeln!(page, "<p>{}</p>", problem.sentence())?;
        }
        for (row, standing) in self.bad_toggles().take(MAX_BAD_TOGGLES) {
            let name = Escaped(row.toggle.watch.name.as_str());
            writeln!(
                page,
                "<p>Toggle <a href=\"{up}toggles/{name}\">{name}</a>: {}</p>",
                toggle_sentence(row, standing)
            )?;
        }
        let asked = agent.asked.as_ref();
        if let Some(failing) = asked.and_then(|asked| asked.live.failing.as_deref()) {
            write_text(page, &poll_failure(failing))?;
        }
        write!(page, "<p class=\"whose\">")?;
        if let Some(since) = standing.since(agent) {
            write!(page, "Since {}. ", Time(since))?;
        }
        write!(page, "API <a href=\"{up}apis#{api}\">{api}</a>. ")?;
        if let Some(labels) = agent.labels() {
            write_labels(page, labels)?;
        }
        page.push_str("</p>\n");
        if let Some(section) = standing.runbook_section() {
            writeln!(
                page,
                "<div class=\"actions\"><a class=\"button\" href=\"{up}runbooks?agent={api}/{id}#{section}\">What to do</a></div>"
            )?;
        }
        page.push_str("</section>\n");
        Ok(())
    }

    /// Writes what is, what should be, and who says so.
    fn write_mocks(&self, page: &mut String) -> fmt::Result {
        page.push_str("<h2>Mocks</h2>\n<dl class=\"facts\">\n<dt>Mocks are</dt><dd>");
        write_live(page, self.agent)?;
        page.push_str("</dd>\n<dt>Should be</dt><dd>");
        write_should_be(page, self.agent, Up(DEPTH))?;
        page.push_str("</dd>\n");
        let asked = self.agent.asked.as_ref();
        let configured = asked.and_then(|asked| asked.definition.expect);
        // Otherwise that is what they should be.
        if let (Some(expect), Some(_)) = (configured, self.agent.told.told_at()) {
            writeln!(page, "<dt>Configured</dt><dd>{}</dd>", on_or_off(expect == Expect::Enabled))?;
        }
        if let Some(since) = self.agent.told.enabled_since {
            writeln!(page, "<dt>Toggled on</dt><dd>{}</dd>", Time(since))?;
        }
        if let Some(ToldBy { labels, .. }) = self.agent.told.told_by.as_ref().filter(|teller| !teller.labels.is_empty())
        {
            page.push_str("<dt>Labels of it</dt><dd>");
            write_labels(page, labels)?;
            page.push_str("</dd>\n");
        }
        if let Some(finished) = asked.and_then(|asked| asked.live.run_finished) {
            writeln!(page, "<dt>Last run</dt><dd>finished {}</dd>", Time(finished))?;
        }
        page.push_str("</dl>\n");
        Ok(())
    }

    fn write_polls(&self, page: &mut String, asked: &AskedAgent) -> fmt::Result {
        let live = &asked.live;
        page.push_str("<h2>Polls of the mock status</h2>\n<dl class=\"facts\">\n<dt>Last answer</dt><dd>");
        match live.last_success {
            Some(last) => write!(page, "{}", Time(last))?,
            None => page.push_str("none yet"),
        }
        page.push_str("</dd>\n");
        if let Some(failing) = &live.failing {
            let polls = count_of(failing.polls, "poll");
            writeln!(page, "<dt>Failing since</dt><dd>{}, {polls} in a row</dd>", Time(failing.since))?;
        }
        if let Some(next) = asked.next_poll {
            writeln!(page, "<dt>Next poll</dt><dd>{}</dd>", Time(next))?;
        }
        if let Some(replica) = self.replica {
            writeln!(page, "<dt>Polled by</dt><dd>{}</dd>", Escaped(replica))?;
        }
        writeln!(page, "<dt>Polls</dt><dd>{}, {} failed</dd>\n</dl>", live.polls, live.failures)
    }

    /// Writes where the agent is defined, and what it has.
    fn write_definition(&self, page: &mut String) -> fmt::Result {
        let (agent, up) = (self.agent, Up(DEPTH));
        page.push_str("<h2>Definition</h2>\n<dl class=\"facts\">\n<dt>Source</dt><dd>");
        match &agent.asked {
            Some(asked) => {
                let source = asked.definition.source.as_str();
                writeln!(page, "<a href=\"{up}sources\">{source}</a></dd>")?;
                if let Some(provider) = asked.provider() {
                    writeln!(page, "<dt>Provider</dt><dd>{}</dd>", provider.as_str())?;
                }
                if asked.live.mcp_endpoints.or(asked.live.tool_endpoints).is_some() {
                    page.push_str("<dt>Mock endpoints</dt><dd>");
                    write_endpoints(page, &asked.live)?;
                    page.push_str("</dd>\n");
                }
            }
            None => page.push_str("none: it is known from its toggles only</dd>\n"),
        }
        let (api, id) = (Escaped(agent.api.as_str()), agent.id);
        writeln!(
            page,
            "<dt>For programs</dt><dd><a href=\"{up}api/v1/agents/{api}/{id}?pretty\">as JSON</a></dd>\n</dl>"
        )
    }

    fn write_toggles(&self, page: &mut String) -> fmt::Result {
        page.push_str("<h2 id=\"toggles-title\">Toggles</h2>\n");
        if self.toggles.is_empty() {
            page.push_str("<p>None of the toggles that are watched is of this agent.</p>\n");
            return Ok(());
        }
        page.push_str(
            "<table id=\"toggles\" class=\"cards\" role=\"table\" aria-labelledby=\"toggles-title\">\n\
             <thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\" scope=\"col\">Status</th>\
             <th role=\"columnheader\" scope=\"col\">Toggle</th><th role=\"columnheader\" scope=\"col\">Expected</th>\
             <th role=\"columnheader\" scope=\"col\">Run</th></tr></thead>\n<tbody role=\"rowgroup\">\n",
        );
        self.toggles.iter().take(MAX_TOGGLES).try_for_each(|row| self.write_toggle(page, row))?;
        page.push_str("</tbody>\n</table>\n");
        match self.toggles.len().saturating_sub(MAX_TOGGLES) {
            0 => Ok(()),
            more => writeln!(page, "<p>And {}.</p>", count_of(more as u64, "more toggle")),
        }
    }

    fn write_toggle(&self, page: &mut String, row: &ToggleRow) -> fmt::Result {
        let (watch, run, up) = (&row.toggle.watch, &row.toggle.run, Up(DEPTH));
        let (name, standing) = (Escaped(watch.name.as_str()), Standing::of(&row.toggle, self.site.now));
        write!(page, "<tr role=\"row\" data-key=\"{name}\">")?;
        begin_cell(page, "Status")?;
        Badge::of(standing).write(page, standing.as_str())?;
        write!(
            page,
            "</td><th role=\"rowheader\" scope=\"row\" data-of=\"Toggle\"><a href=\"{up}toggles/{name}\">{name}</a>"
        )?;
        write_labels(page, &watch.labels)?;
        page.push_str("</th>");
        begin_cell(page, "Expected")?;
        page.push_str(watch.expect.map_or("", |expect| on_or_off(expect == Expect::Enabled)));
        page.push_str("</td>");
        begin_cell(page, "Run")?;
        write!(page, "watched {}", Time(run.started))?;
        if let Some(finish) = run.finished {
            write!(page, "<span class=\"more\">finished {}</span>", Time(finish.at))?;
        }
        page.push_str("</td></tr>\n");
        Ok(())
    }
}

/// What it means that the agent stands like this, in one sentence or two.
fn sentence(agent: &AgentRow, standing: AgentStanding) -> String {
    let Some(asked) = &agent.asked else {
        return "The exporter does not ask the API about this agent, because no source lists it.".to_owned();
    };
    match (standing, asked.live.enabled) {
        (AgentStanding::Well, enabled) => {
            format!("Mocks are {}, as they should be.", on_or_off(enabled == Some(true)))
        }
        (AgentStanding::Unjudged, None) => "The API has not said yet whether mocks are on.".to_owned(),
        (AgentStanding::Unjudged, Some(_)) if asked.provider() == Some(Provider::Custom) => {
            "The provider is the customer's own, for which the API always says that mocks are on. So nothing is judged."
                .to_owned()
        }
        (AgentStanding::Unjudged, Some(enabled)) if AgentStanding::of(agent) == AgentStanding::Well => {
            format!("Mocks are {}, but a toggle of this agent ended badly.", on_or_off(enabled))
        }
        (AgentStanding::Unjudged, Some(enabled)) => {
            let why = if crate::toggle::should_be(&agent.told, asked.definition.expect).is_none() {
                "nothing says what they should be"
            } else {
                "what they should be is not judged until its toggle has ended and the API was asked again"
            };
            format!("Mocks are {}, and {why}.", on_or_off(enabled))
        }
        (AgentStanding::Drifted | AgentStanding::On | AgentStanding::Failing, _) => {
            agent_sentence(agent, standing).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{agent, answer, at, mock_status, watch};
    use crate::toggle::{
        AgentDefinition, AgentView, Failure, LabelName, Labels, LiveMocks, Reason, ReportedStatus, Toggle, ToldMocks,
        Watch,
    };

    fn row(definition: AgentDefinition, live: LiveMocks) -> AgentRow {
        let told = ToldMocks::default();
        let drift = AgentView { definition: &definition, told: &told, live: &live, in_progress: false }.drift();
        let (api, id) = definition.key();
        let asked = AskedAgent { definition: Arc::new(definition), labels: "".into(), live, next_poll: None, drift };
        AgentRow { api, id, told, asked: Some(asked) }
    }

    fn live(enabled: bool) -> LiveMocks {
        let mut live = LiveMocks::default();
        live.apply(Ok(mock_status(enabled)), at(1), at(1));
        live
    }

    fn rendered(agent: &AgentRow, toggles: &[ToggleRow]) -> String {
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: true, started_at: at(0), now: at(9) };
        AgentPage { site, agent, toggles, replica: Some("a<b"), api_problem: Some(ApiProblem::Unanswered) }.render()
    }

    #[test]
    fn the_page_says_first_what_is_wrong_and_what_to_do() {
        let page = rendered(&row(AgentDefinition { expect: Some(Expect::Disabled), ..agent("7") }, live(true)), &[]);
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
        assert!(page.contains("<title>Agent 7: drifted – cekura-exporter</title>"));
        let sentence = at("Mocks are on and should be off. Real callers may talk to mocks.");
        let button = at("href=\"../../runbooks?agent=default/7#cekuraagentmocksdrifted\"");
        assert!(sentence < button && button < at("<h2>Mocks</h2>"));
        assert!(page.contains("<dt>Polled by</dt><dd>a&lt;b</dd>"));
        assert!(page.contains("href=\"../../api/v1/agents/default/7?pretty\""));
    }

    #[test]
    fn each_standing_has_its_sentence() {
        let told = |definition, live| {
            let row = row(definition, live);
            sentence(&row, AgentStanding::of(&row))
        };
        let expects = |expect| AgentDefinition { expect: Some(expect), ..agent("7") };
        assert_eq!(told(expects(Expect::Enabled), live(true)), "Mocks are on, as they should be.");
        assert_eq!(told(agent("7"), live(false)), "Mocks are off, and nothing says what they should be.");
        assert_eq!(told(agent("7"), LiveMocks::default()), "The API has not said yet whether mocks are on.");
        let custom = LiveMocks { provider: Some(Provider::Custom), ..live(true) };
        assert!(told(agent("7"), custom).contains("nothing is judged"));
        let waits = LiveMocks { run_finished: Some(at(5)), ..live(true) };
        assert!(told(expects(Expect::Enabled), waits).contains("until its toggle has ended"));
        let unlisted = AgentRow { asked: None, ..row(agent("7"), live(true)) };
        assert!(sentence(&unlisted, AgentStanding::of(&unlisted)).contains("no source lists it"));
    }

    #[test]
    fn an_agent_is_not_called_well_while_one_of_its_toggles_ended_badly() {
        let well = row(AgentDefinition { expect: Some(Expect::Enabled), ..agent("7") }, live(true));
        let toggle = |mock_enabled| {
            let watch = Watch { expect: Some(Expect::Disabled), ..watch("claims-disable", "p") };
            let mut toggle = Toggle::new(Arc::new(watch), at(0));
            toggle.apply(Ok(answer(ReportedStatus::Completed, Some(mock_enabled))), at(1));
            ToggleRow::new(toggle)
        };
        let page = rendered(&well, &[toggle(false)]);
        assert!(page.contains("<title>Agent 7: as expected – cekura-exporter</title>"), "{page}");
        let page = rendered(&well, &[toggle(true)]);
        assert!(page.contains("<title>Agent 7: not judged – cekura-exporter</title>"), "{page}");
        assert!(page.contains("Mocks are on, but a toggle of this agent ended badly."), "{page}");
        assert!(page.contains("<p>Toggle <a href=\"../../toggles/claims-disable\">claims-disable</a>: The task completed, but mocks are on and should be off."), "{page}");
    }

    #[test]
    fn what_is_wrong_with_the_whole_api_is_told_if_polls_of_the_agent_fail() {
        let mut failing = live(false);
        failing.apply(Err(Failure::new(Reason::Timeout)), at(2), at(2));
        let sentence = "<p>This API is down: nothing is answered.</p>";
        assert!(rendered(&row(agent("7"), failing), &[]).contains(sentence));
        assert!(!rendered(&row(agent("7"), live(false)), &[]).contains(sentence));
    }

    #[test]
    fn its_toggles_are_listed_with_their_labels_escaped() {
        let labels = Labels::from([(LabelName::parse("team").unwrap(), "<i>".into())]);
        let watch = Watch { labels, expect: Some(Expect::Enabled), ..watch("bookings", "p") };
        let page = rendered(&row(agent("1"), live(true)), &[ToggleRow::new(Toggle::new(Arc::new(watch), at(0)))]);
        assert!(page.contains("<a href=\"../../toggles/bookings\">bookings</a>"), "{page}");
        assert!(page.contains("team=&lt;i&gt;"), "{page}");
        assert!(!page.contains("<i>"));
    }
}
