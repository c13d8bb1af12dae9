//! The page of all agents: whether their mocks are on, and what they should be.

use std::fmt::{self, Write as _};

use url::form_urlencoded;

use super::agent_rows::write_row;
use super::html::{Badge, Escaped, count_of};
use super::layout::{Icon, Layout, SiteInfo, View};
use crate::board::{AgentRow, AskedAgent};
use crate::http::selection::{self, MAX_TEXT, Selection};
use crate::toggle::{Expect, Provider, ShardOwners, Text, Timestamp, should_be};

/// How an agent stands, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum AgentStanding {
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

/// How many agents the page shows, unless its query asks for more.
const ROWS: usize = 500;

/// The titles of the columns.
const COLUMNS: [&str; 7] = ["Status", "Agent", "Mocks are", "Should be", "Polls", "Endpoints", "Source"];

/// The query of the page of agents. It keeps what it understands and ignores the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(in crate::http) struct AgentsQuery {
    /// Only agents with its words.
    selection: Selection,
    /// Only agents with this standing.
    standing: Option<AgentStanding>,
    /// How many more times [`ROWS`] to show.
    more: usize,
}

/// What the page of the agents is made from.
pub(in crate::http) struct AgentsPage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    /// All agents of which something is known, sorted by API and id.
    pub(in crate::http) agents: &'a [AgentRow],
    /// Which replica polls what, if there are replicas.
    pub(in crate::http) owners: Option<&'a ShardOwners>,
    pub(in crate::http) query: &'a AgentsQuery,
}

/// How many agents have each standing.
struct StandingCounts([usize; AgentStanding::ALL.len()]);

// === impl AgentStanding ===

impl AgentStanding {
    const ALL: [Self; 5] = [Self::Drifted, Self::On, Self::Failing, Self::Well, Self::Unjudged];

    pub(super) fn of(agent: &AgentRow) -> Self {
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

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Drifted => "drifted",
            Self::On => "on",
            Self::Failing => "failing",
            Self::Well => "well",
            Self::Unjudged => "unjudged",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.as_str() == name)
    }

    pub(super) fn badge(self) -> Badge {
        let (shape, word) = match self {
            Self::Drifted => ("≠", "drifted"),
            Self::On => ("●", "left on"),
            Self::Failing => ("△", "poll errors"),
            Self::Well => ("✔", "as expected"),
            Self::Unjudged => ("?", "not judged"),
        };
        Badge { shape, word }
    }

    /// The tone of the answer on its page.
    pub(super) fn tone(self) -> &'static str {
        match self {
            Self::Drifted => "bad",
            Self::On | Self::Failing => "warn",
            Self::Well => "good",
            Self::Unjudged => "plain",
        }
    }

    /// The section of the runbooks for an agent with this standing; `None` if nothing needs to be done.
    pub(super) fn runbook_section(self) -> Option<&'static str> {
        match self {
            Self::Drifted => Some("cekuraagentmocksdrifted"),
            Self::On => Some("cekuraagentleftenabled"),
            Self::Failing => Some("cekuraagentnotanswering"),
            Self::Well | Self::Unjudged => None,
        }
    }

    /// Since when the agent has stood like this, if that is known.
    pub(super) fn since(self, agent: &AgentRow) -> Option<Timestamp> {
        let live = &agent.asked.as_ref()?.live;
        match self {
            // Mocks that are off have no such time. They should be on since the toggle said so.
            Self::Drifted => live.enabled_since.or(agent.told.told_at()),
            Self::On => live.enabled_since,
            Self::Failing => live.failing.as_ref().map(|failing| failing.since),
            Self::Well | Self::Unjudged => None,
        }
    }

    /// How many ranks there are.
    const RANKS: usize = 4;

    /// The order of the table: agents without a problem are not told apart.
    fn rank(self) -> usize {
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
            Self::On => Some(format!("{count} left on")),
            Self::Failing => Some(format!("{count} not answering")),
            Self::Well | Self::Unjudged => None,
        }
    }
}

// === impl AgentsQuery ===

impl AgentsQuery {
    /// What a query asks for: the first of each parameter.
    pub(in crate::http) fn parse(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default().as_bytes();
        let first =
            |wanted: &str| form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value);
        let text = first("q").unwrap_or_default().chars().take(MAX_TEXT).collect();
        Self {
            selection: Selection { text, ..Selection::default() },
            standing: first("standing").and_then(|standing| AgentStanding::parse(&standing)),
            more: first("more").and_then(|more| more.parse().ok()).unwrap_or_default(),
        }
    }

    /// How many agents to show.
    fn rows(&self) -> usize {
        self.more.saturating_add(1).saturating_mul(ROWS)
    }

    /// The address of the page with this query, from the root of the site.
    fn address(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.selection.text.is_empty() {
            query.append_pair("q", &self.selection.text);
        }
        if let Some(standing) = self.standing {
            query.append_pair("standing", standing.as_str());
        }
        if self.more > 0 {
            query.append_pair("more", &self.more.to_string());
        }
        let query = query.finish();
        if query.is_empty() { "agents".to_owned() } else { format!("agents?{query}") }
    }
}

// === impl StandingCounts ===

impl StandingCounts {
    fn of(agents: &[AgentRow]) -> Self {
        let mut counts = [0; AgentStanding::ALL.len()];
        for agent in agents {
            counts[AgentStanding::of(agent) as usize] += 1;
        }
        Self(counts)
    }

    /// How many agents have each standing that any has.
    fn iter(&self) -> impl Iterator<Item = (AgentStanding, usize)> {
        AgentStanding::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// How many agents have a problem, in words; empty if none has.
    fn problems(&self) -> String {
        let problems: Vec<_> = self.iter().filter_map(|(standing, count)| standing.summary(count)).collect();
        problems.join(", ")
    }

    /// The class of the banner.
    fn class(&self) -> &'static str {
        match self.iter().next() {
            Some((AgentStanding::Drifted, _)) => "bad",
            Some((AgentStanding::On | AgentStanding::Failing, _)) => "warn",
            _ => "good",
        }
    }
}

// === impl AgentsPage ===

impl<'a> AgentsPage<'a> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let counts = StandingCounts::of(self.agents);
        let problems = counts.problems();
        let (title, icon) = if problems.is_empty() {
            ("Agents".to_owned(), Icon::Well)
        } else {
            (format!("Agents: {problems}"), Icon::Trouble)
        };
        let (site, style) = (self.site, Some("agents.css"));
        let layout =
            Layout { site, title: &title, view: View::Agents, depth: 0, style, icon, is_kept_up_to_date: true };
        layout.page(|page| {
            let total = count_of(self.agents.len() as u64, "agent");
            write!(page, "<div id=\"summary\" role=\"status\"><h1 class=\"banner {}\">", counts.class())?;
            match problems.as_str() {
                "" if self.agents.is_empty() => page.push_str("Nothing is known of any agent."),
                "" => write!(page, "{total}, no problem.")?,
                problems => write!(page, "{total}: {problems}.")?,
            }
            page.push_str("</h1></div>\n");
            self.write_chips(page, &counts)?;
            self.write_search(page)?;
            self.write_table(page)
        })
    }

    /// Writes how many agents have each standing, each a link to those.
    fn write_chips(&self, page: &mut String, counts: &StandingCounts) -> fmt::Result {
        page.push_str("<ul class=\"chips\" id=\"chips\">\n");
        let without = AgentsQuery { standing: None, more: 0, ..self.query.clone() };
        self.write_chip(page, &without, self.agents.len())?;
        for standing in AgentStanding::ALL {
            let count = counts.0[standing as usize];
            if count > 0 || self.query.standing == Some(standing) {
                self.write_chip(page, &AgentsQuery { standing: Some(standing), ..without.clone() }, count)?;
            }
        }
        page.push_str("</ul>\n");
        Ok(())
    }

    fn write_chip(&self, page: &mut String, query: &AgentsQuery, count: usize) -> fmt::Result {
        let key = query.standing.map_or("all", AgentStanding::as_str);
        let current = if self.query.standing == query.standing { " aria-current=\"true\"" } else { "" };
        write!(page, "<li data-key=\"{key}\"><a class=\"chip {key}\" href=\"{}\"{current}>", Escaped(query.address()))?;
        if let Some(Badge { shape, word }) = query.standing.map(AgentStanding::badge) {
            writeln!(page, "<span aria-hidden=\"true\">{shape}</span> <b>{count}</b> {word}</a></li>")
        } else {
            writeln!(page, "<b>{count}</b> in all</a></li>")
        }
    }

    /// Writes the search, a form that works without the script.
    fn write_search(&self, page: &mut String) -> fmt::Result {
        write!(
            page,
            "<form role=\"search\" method=\"get\" action=\"agents\" id=\"filter\">\n\
             <label>With these words <input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"{MAX_TEXT}\" autocomplete=\"off\"></label>\n",
            Escaped(&self.query.selection.text)
        )?;
        if let Some(standing) = self.query.standing {
            writeln!(page, "<input type=\"hidden\" name=\"standing\" value=\"{}\">", standing.as_str())?;
        }
        page.push_str("<button>Search</button>\n</form>\n");
        Ok(())
    }

    fn write_table(&self, page: &mut String) -> fmt::Result {
        let (rows, selected) = self.worst_first();
        let any = !self.agents.is_empty();
        write!(page, "<p id=\"shown\" role=\"status\">{}", count_sentence(rows.len(), selected, any))?;
        if self.query.standing.is_some() || !self.query.selection.text.is_empty() {
            page.push_str(" <a href=\"agents\">Show all</a>");
        }
        page.push_str(
            "</p>\n<table id=\"agents\" class=\"cards\" role=\"table\" tabindex=\"-1\">\n\
             <caption>Agents, the worst first</caption>\n<thead role=\"rowgroup\"><tr role=\"row\">",
        );
        for title in COLUMNS {
            write!(page, "<th role=\"columnheader\" scope=\"col\">{title}</th>")?;
        }
        page.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
        let more = rows.len() < selected;
        for row in rows {
            write_row(page, row, self.owners)?;
        }
        page.push_str("</tbody>\n</table>\n");
        if more {
            let query = AgentsQuery { more: self.query.more.saturating_add(1), ..self.query.clone() };
            let address = Escaped(query.address());
            writeln!(page, "<p><a class=\"button\" id=\"more\" href=\"{address}\">Show more</a></p>")?;
        }
        Ok(())
    }

    /// The first selected agents, the worst standing first and then by API and id; and how many are selected.
    fn worst_first(&self) -> (Vec<&'a AgentRow>, usize) {
        let is_selected = |agent: &&AgentRow| {
            self.query.standing.is_none_or(|wanted| wanted == AgentStanding::of(agent))
                && self.query.selection.words().all(|word| contains(agent, word))
        };
        let mut selected = [const { Vec::new() }; AgentStanding::RANKS];
        for agent in self.agents.iter().filter(is_selected) {
            selected[AgentStanding::of(agent).rank()].push(agent);
        }
        let count = selected.iter().map(Vec::len).sum();
        (selected.into_iter().flatten().take(self.query.rows()).collect(), count)
    }
}

/// How many of the selected agents are shown. `any_known` is false if there are no agents at all.
fn count_sentence(shown: usize, selected: usize, any_known: bool) -> String {
    match selected {
        0 if !any_known => "List agents in the configuration, or toggle one.".to_owned(),
        0 => "No agent is like that.".to_owned(),
        _ if shown < selected => format!("The first {shown} of {selected} agents."),
        _ => format!("{}.", count_of(selected as u64, "agent")),
    }
}

/// Whether a text that is shown of an agent, or its standing, contains the word.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{agent, at, mock_status};
    use crate::toggle::{AgentDefinition, AgentView, Failure, LiveMocks, Reason, ToldMocks};

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

    fn rendered(agents: &[AgentRow], query: &str) -> String {
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: false, started_at: at(0), now: at(9) };
        AgentsPage { site, agents, owners: None, query: &AgentsQuery::parse(Some(query)) }.render()
    }

    /// The ids of the agents in the table.
    fn ids(page: &str) -> Vec<&str> {
        page.split("data-key=\"default/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }

    fn mixed() -> [AgentRow; 4] {
        [
            row(expects("1", None), live(false)),
            row(expects("2", Some(Expect::Disabled)), live(false)),
            row(expects("3", None), live(true)),
            row(expects("4", Some(Expect::Enabled)), live(false)),
        ]
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
        let page = rendered(&mixed(), "");
        assert_eq!(ids(&page), ["4", "3", "1", "2"]);
        assert!(page.contains("\">4 agents: 1 drifted, 1 left on.</h1>"), "{page}");
        assert!(page.contains("<title>Agents: 1 drifted, 1 left on – cekura-exporter</title>"), "{page}");
    }

    #[test]
    fn words_and_a_standing_select_agents_but_the_summary_is_of_all() {
        for (query, expected) in [
            ("q=DRIFTED", &["4"][..]),
            ("standing=on", &["3"]),
            ("standing=well", &["2"]),
            ("standing=unjudged&q=default", &["1"]),
            ("standing=unjudged&q=nothing", &[]),
            ("standing=unheard-of", &["4", "3", "1", "2"]),
        ] {
            let page = rendered(&mixed(), query);
            assert_eq!(ids(&page), expected, "{query}");
            assert!(page.contains("\">4 agents: 1 drifted, 1 left on.</h1>"), "{query}: {page}");
        }
        assert!(rendered(&mixed(), "standing=failing").contains("No agent is like that."));
        assert!(rendered(&[], "").contains("List agents in the configuration, or toggle one."));
    }

    #[test]
    fn an_address_leads_to_the_same_query() {
        for address in ["agents", "agents?q=a+b%26&standing=drifted&more=3", "agents?standing=on"] {
            assert_eq!(AgentsQuery::parse(address.strip_prefix("agents?")).address(), address);
        }
        for ignored in ["standing=x", "more=-1", "toggle=a", "%ff=%ff"] {
            assert_eq!(AgentsQuery::parse(Some(ignored)), AgentsQuery::default(), "{ignored}");
        }
    }
}
