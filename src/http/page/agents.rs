//! The agents on the status page: whether their mocks are on, and what they should be. `status.js` writes the same
//! HTML, and a test compares the two.

use std::fmt::{self, Write as _};

use super::html::Escaped;
use super::row::{Badge, Time, begin_cell, count_of, write_labels, write_poll_failure, write_polls};
use super::{AGENT_COLUMNS, MAX_ROWS, write_table_head};
use crate::board::{AgentRow, AskedAgent};
use crate::http::selection::{self, Selection};
use crate::toggle::{Expect, LiveMocks, Provider, ShardOwners, Text, should_be};

/// How an agent stands, the worst first. `status.js` decides it in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AgentStanding {
    /// Its mocks are not as they should be.
    Drifted,
    /// Its mocks are on, and nothing says that they should be.
    On,
    /// The last poll failed.
    Failing,
    /// Its mocks are as they should be.
    Well,
    /// Nothing is judged.
    Unjudged,
}

/// The agents of the status page.
pub(super) struct AgentSection<'a> {
    /// All agents of which something is known.
    rows: Vec<&'a AgentRow>,
    owners: Option<&'a ShardOwners>,
    selection: &'a Selection,
}

// === impl AgentStanding ===

impl AgentStanding {
    const ALL: [Self; 5] = [Self::Drifted, Self::On, Self::Failing, Self::Well, Self::Unjudged];

    fn of(agent: &AgentRow) -> Self {
        let Some(asked) = &agent.asked else { return Self::Unjudged };
        let should_be = should_be(&agent.told, asked.definition.expect);
        // A custom provider reports mocks as on in any case.
        let says_what_is = asked.provider() != Some(Provider::Custom);
        match asked.drift.map(|drift| drift.drifted) {
            Some(true) => Self::Drifted,
            _ if asked.live.enabled == Some(true) && should_be != Some(Expect::Enabled) && says_what_is => Self::On,
            _ if asked.live.failing.is_some() => Self::Failing,
            Some(false) => Self::Well,
            None => Self::Unjudged,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Drifted => "drifted",
            Self::On => "on",
            Self::Failing => "failing",
            Self::Well => "well",
            Self::Unjudged => "unjudged",
        }
    }

    fn badge(self) -> Badge {
        let (shape, word) = match self {
            Self::Drifted => ("≠", "drifted"),
            Self::On => ("●", "on"),
            Self::Failing => ("△", "polls fail"),
            Self::Well => ("✔", "as expected"),
            Self::Unjudged => ("?", "not judged"),
        };
        Badge { shape, word }
    }

    /// The order of the table: agents without a problem are not told apart.
    fn rank(self) -> u8 {
        match self {
            Self::Drifted => 0,
            Self::On => 1,
            Self::Failing => 2,
            Self::Well | Self::Unjudged => 3,
        }
    }

    /// How many agents have this standing, in words; `None` if that is no problem.
    fn summary(self, count: usize) -> Option<String> {
        match self {
            Self::Drifted => Some(format!("{count} drifted")),
            Self::On => Some(format!("{count} on without being expected")),
            Self::Failing => Some(format!("{count} not answering")),
            Self::Well | Self::Unjudged => None,
        }
    }
}

// === impl AgentSection ===

impl<'a> AgentSection<'a> {
    /// `agents` are sorted by API and id.
    pub(super) fn new(agents: &'a [AgentRow], owners: Option<&'a ShardOwners>, selection: &'a Selection) -> Self {
        let rows = agents.iter().filter(|agent| agent.asked.is_some() || agent.told.enabled().is_some()).collect();
        Self { rows, owners, selection }
    }

    /// Writes how many agents have a problem, with a link to the table.
    pub(super) fn write_summary(&self, page: &mut String) -> fmt::Result {
        let total = count_of(self.rows.len() as u64, "agent");
        let hidden = if self.rows.is_empty() { " hidden" } else { "" };
        write!(page, "<p id=\"agent-summary\"{hidden}><a href=\"#agents\">{total}</a>")?;
        let mut counts = [0; AgentStanding::ALL.len()];
        self.rows.iter().for_each(|agent| counts[AgentStanding::of(agent) as usize] += 1);
        let problems = AgentStanding::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        let problems = problems.filter_map(|(standing, count)| standing.summary(count));
        for (index, problem) in problems.enumerate() {
            write!(page, "{} {problem}", if index == 0 { ":" } else { "," })?;
        }
        page.push_str(".</p>\n");
        Ok(())
    }

    /// Writes the table. Without agents it is hidden: the script shows it when there are any.
    pub(super) fn write(&self, page: &mut String) -> fmt::Result {
        let (rows, selected) = self.worst_first();
        let hidden = if self.rows.is_empty() { " hidden" } else { "" };
        write!(
            page,
            "<section aria-labelledby=\"agents-title\" id=\"agent-section\"{hidden}>\n\
             <h2 id=\"agents-title\">Agents</h2>\n<p id=\"shown-agents\" role=\"status\">{}</p>\n\
             <table id=\"agents\" class=\"cards\" role=\"table\" tabindex=\"-1\">\n\
             <caption>Agents, the worst first</caption>\n",
            count_sentence(rows.len(), selected)
        )?;
        write_table_head(page, AGENT_COLUMNS)?;
        for row in rows {
            write_row(page, row, self.owners)?;
        }
        page.push_str(
            "</tbody>\n</table>\n<p><button id=\"more-agents\" type=\"button\" hidden>Show more agents</button></p>\n</section>\n",
        );
        Ok(())
    }

    /// The first [`MAX_ROWS`] selected agents, the worst standing first and then by API and id; and how many are
    /// selected.
    fn worst_first(&self) -> (Vec<&'a AgentRow>, usize) {
        let is_selected = |agent: &&&AgentRow| self.selection.words().all(|word| contains(agent, word));
        let mut selected: Vec<_> = self.rows.iter().filter(is_selected).copied().collect();
        let count = selected.len();
        selected.sort_by_key(|agent| AgentStanding::of(agent).rank());
        selected.truncate(MAX_ROWS);
        (selected, count)
    }
}

fn count_sentence(shown: usize, selected: usize) -> String {
    match selected {
        0 => "No agent is like that.".to_owned(),
        1 => "1 agent.".to_owned(),
        _ if shown < selected => format!("The first {shown} of {selected} agents."),
        _ => format!("{selected} agents."),
    }
}

/// Whether a text that is shown of an agent, or its standing, contains the word. `status.js` has the same texts.
fn contains(agent: &AgentRow, word: &str) -> bool {
    let live = agent.asked.as_ref().map(|asked| &asked.live);
    let failing = live.and_then(|live| live.failing.as_deref());
    let id = agent.id.to_string();
    let texts = [
        Some(agent.api.as_str()),
        Some(&id),
        Some(AgentStanding::of(agent).as_str()),
        agent.asked.as_ref().map(|asked| asked.definition.source.as_str()),
        agent.asked.as_ref().and_then(AskedAgent::provider).map(Provider::as_str),
        agent.told.told_by.as_ref().map(|teller| teller.toggle.as_str()),
        failing.map(|failing| failing.reason.as_str()),
        failing.and_then(|failing| failing.detail.as_ref()).map(Text::as_str),
    ];
    texts.into_iter().flatten().any(|text| selection::contains(text, word))
        || agent
            .labels()
            .into_iter()
            .flatten()
            .any(|(name, value)| selection::label_contains(name.as_str(), value, word))
}

/// Writes a row of the table.
fn write_row(page: &mut String, agent: &AgentRow, owners: Option<&ShardOwners>) -> fmt::Result {
    let (api, id) = (Escaped(agent.api.as_str()), agent.id);
    write!(page, "<tr role=\"row\" data-name=\"{api}/{id}\">")?;
    write_standing(page, agent)?;
    write!(
        page,
        "<th role=\"rowheader\" scope=\"row\" data-of=\"Agent\"><a href=\"api/v1/agents/{api}/{id}\">{id}</a>"
    )?;
    write!(page, "<span class=\"more\">{api}</span>")?;
    if let Some(labels) = agent.labels() {
        write_labels(page, labels)?;
    }
    page.push_str("</th>");
    write_live(page, agent)?;
    write_should_be(page, agent)?;
    write_agent_polls(page, agent, owners)?;
    begin_cell(page, "Endpoints")?;
    if let Some(asked) = &agent.asked {
        write_endpoints(page, &asked.live)?;
    }
    page.push_str("</td>");
    begin_cell(page, "Source")?;
    if let Some(asked) = &agent.asked {
        page.push_str(asked.definition.source.as_str());
        if let Some(provider) = asked.provider() {
            write!(page, "<span class=\"more\">{}</span>", provider.as_str())?;
        }
    }
    page.push_str("</td></tr>\n");
    Ok(())
}

fn write_standing(page: &mut String, agent: &AgentRow) -> fmt::Result {
    let standing = AgentStanding::of(agent);
    begin_cell(page, "Status")?;
    standing.badge().write(page, standing.as_str())?;
    if standing == AgentStanding::Drifted {
        write_what_to_do(page, agent, "cekuraagentmocksdrifted")?;
    }
    page.push_str("</td>");
    Ok(())
}

/// Writes whether mocks are on, and since when.
fn write_live(page: &mut String, agent: &AgentRow) -> fmt::Result {
    begin_cell(page, "Mocks are")?;
    match &agent.asked {
        None => page.push_str("not asked"),
        Some(AskedAgent { live, drift, .. }) => {
            page.push_str(live.enabled.map_or("not known", on_or_off));
            if let Some(since) = live.enabled_since {
                write!(page, "<span class=\"more\">since {}</span>", Time(since))?;
            }
            if drift.is_some_and(|drift| drift.drifted) {
                let meaning = if live.enabled == Some(true) {
                    "Real callers may talk to mocks."
                } else {
                    "Tests may reach the real systems."
                };
                write!(page, "<strong>{meaning}</strong>")?;
            }
        }
    }
    page.push_str("</td>");
    Ok(())
}

/// Writes what the mocks should be, and who said so.
fn write_should_be(page: &mut String, agent: &AgentRow) -> fmt::Result {
    begin_cell(page, "Should be")?;
    let expect = agent.asked.as_ref().and_then(|asked| asked.definition.expect);
    page.push_str(should_be(&agent.told, expect).map_or("not known", |expect| on_or_off(expect == Expect::Enabled)));
    if let Some(told_at) = agent.told.told_at() {
        page.push_str("<span class=\"more\">told by ");
        match &agent.told.told_by {
            Some(teller) => {
                let name = Escaped(teller.toggle.as_str());
                write!(page, "<a href=\"api/v1/toggles/{name}\" data-toggle=\"{name}\">{name}</a>")?;
            }
            None => page.push_str("a toggle"),
        }
        write!(page, ", {}</span>", Time(told_at))?;
    } else if expect.is_some() {
        page.push_str("<span class=\"more\">as configured</span>");
    }
    page.push_str("</td>");
    Ok(())
}

fn write_agent_polls(page: &mut String, agent: &AgentRow, owners: Option<&ShardOwners>) -> fmt::Result {
    begin_cell(page, "Polls")?;
    if let Some(AskedAgent { live, next_poll, .. }) = &agent.asked {
        let replica = owners.and_then(|owners| owners.of(&agent.api, agent.id));
        write_polls(page, live.last_success, *next_poll, [live.polls, live.failures], replica)?;
        if let Some(failing) = &live.failing {
            write_poll_failure(page, failing)?;
            write_what_to_do(page, agent, "cekuraagentnotanswering")?;
        }
    }
    page.push_str("</td>");
    Ok(())
}

fn write_endpoints(page: &mut String, live: &LiveMocks) -> fmt::Result {
    if let Some(count) = live.mcp_endpoints {
        write!(page, "{count} MCP")?;
    }
    if let Some(count) = live.tool_endpoints {
        write!(page, "<span class=\"more\">{}</span>", count_of(count, "tool"))?;
    }
    Ok(())
}

fn write_what_to_do(page: &mut String, agent: &AgentRow, section: &str) -> fmt::Result {
    // The name of an API needs no percent-encoding in a query.
    let (api, id) = (Escaped(agent.api.as_str()), agent.id);
    write!(page, "<a class=\"more\" href=\"runbooks?agent={api}/{id}#{section}\">what to do</a>")
}

fn on_or_off(enabled: bool) -> &'static str {
    if enabled { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{agent, at, mock_status, watch};
    use crate::toggle::{AgentDefinition, AgentView, Failure, Reason, ToldBy, ToldMocks};

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

    fn expects(id: &str, expect: Option<Expect>) -> AgentDefinition {
        AgentDefinition { expect, ..agent(id) }
    }

    fn rendered(agents: &[AgentRow], words: &str) -> String {
        let selection = Selection { text: words.to_owned(), ..Selection::default() };
        let (section, mut page) = (AgentSection::new(agents, None, &selection), String::new());
        section.write_summary(&mut page).unwrap();
        section.write(&mut page).unwrap();
        page
    }

    #[test]
    fn an_agent_whose_mocks_are_on_is_a_problem_unless_they_should_be_or_its_provider_is_custom() {
        let standing = |expect, live| AgentStanding::of(&row(expects("7", expect), live));
        assert_eq!(standing(Some(Expect::Disabled), live(true)), AgentStanding::Drifted);
        assert_eq!(standing(Some(Expect::Enabled), live(true)), AgentStanding::Well);
        assert_eq!(standing(None, live(true)), AgentStanding::On);
        assert_eq!(standing(None, live(false)), AgentStanding::Unjudged);
        let custom = LiveMocks { provider: Some(Provider::Custom), ..live(true) };
        assert_eq!(standing(None, custom), AgentStanding::Unjudged);
        let mut failing = live(false);
        failing.apply(Err(Failure::new(Reason::Timeout)), at(2), at(2));
        assert_eq!(standing(Some(Expect::Disabled), failing.clone()), AgentStanding::Failing);
        assert_eq!(standing(Some(Expect::Enabled), failing), AgentStanding::Drifted, "the worse of the two");
    }

    #[test]
    fn problems_come_first_and_the_rest_by_id() {
        let agents = [
            row(expects("1", None), live(false)),
            row(expects("2", Some(Expect::Disabled)), live(false)),
            row(expects("3", None), live(true)),
            row(expects("4", Some(Expect::Enabled)), live(false)),
        ];
        let page = rendered(&agents, "");
        let names: Vec<_> = page.split("data-name=\"default/").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(names, ["4", "3", "1", "2"]);
        assert!(page.contains(">4 agents</a>: 1 drifted, 1 on without being expected.</p>"), "{page}");
        let page = rendered(&agents, "DRIFTED");
        assert!(page.contains("<p id=\"shown-agents\" role=\"status\">1 agent.</p>"), "{page}");
        assert!(page.contains(">4 agents</a>"), "the summary is of all agents: {page}");
    }

    #[test]
    fn an_agent_of_which_nothing_is_known_is_not_shown() {
        let unknown = AgentRow { asked: None, ..row(agent("7"), LiveMocks::default()) };
        let page = rendered(std::slice::from_ref(&unknown), "");
        assert!(page.contains("id=\"agent-section\" hidden>") && !page.contains("data-name"), "{page}");
        let told_by = ToldBy { toggle: watch("enable", "p").name, labels: watch("enable", "p").labels };
        let told = ToldMocks {
            newest: Some((at(1), 0)),
            enabled_since: Some(at(1)),
            told_by: Some(told_by),
            ..ToldMocks::default()
        };
        let page = rendered(&[AgentRow { told, ..unknown }], "");
        assert!(page.contains("<td role=\"cell\" data-of=\"Mocks are\">not asked</td>"), "{page}");
        assert!(page.contains("data-toggle=\"enable\">enable</a>"), "{page}");
    }
}
