//! The page of the APIs: whether they answer, what they are asked, and what holds polls back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};

use super::health::failure_text;
use super::html::{Escaped, Time, count_of};
use super::layout::{Icon, Layout, SiteInfo, View};
use super::toggle_rows::write_text;
use crate::board::{AgentRow, ToggleRows};
use crate::cekura::{Api, KeySource, how_to_give_key};
use crate::config::{Config, format_duration};
use crate::exposition::ApiLoad;
use crate::http::api::overview::{ApiHealth, ApiProblem, Overview};
use crate::intake::{DiscoveryReport, SourceReport};
use crate::toggle::{ApiName, Standing, Timestamp};

/// What the page of the APIs is made from.
pub(in crate::http) struct ApisPage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    pub(in crate::http) config: &'a Config,
    pub(in crate::http) overview: &'a Overview,
    pub(in crate::http) loads: &'a [ApiLoad],
    pub(in crate::http) sources: &'a SourceReport,
    pub(in crate::http) rows: &'a ToggleRows,
    pub(in crate::http) agents: &'a [AgentRow],
    /// How many replicas share the budgets.
    pub(in crate::http) replicas: usize,
}

/// What is known of an API from its toggles and agents.
#[derive(Debug, Default, PartialEq, Eq)]
struct ApiUse {
    /// How many toggles have each standing that any has.
    standings: BTreeMap<Standing, usize>,
    /// When it last gave a valid answer, and where that is shown.
    last_answer: Option<(Timestamp, String)>,
    /// The earliest failure of those polls that fail now.
    failing_since: Option<Timestamp>,
}

/// Everything about one API.
struct ApiView<'a> {
    api: &'a Api,
    health: &'a ApiHealth,
    load: Option<&'a ApiLoad>,
    discovery: Option<&'a DiscoveryReport>,
    used: ApiUse,
    replicas: usize,
}

// === impl ApisPage ===

impl ApisPage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let (count, down) = (self.overview.apis.len(), self.overview.apis.iter().filter(|api| is_down(api)).count());
        let icon = if down == 0 { Icon::Well } else { Icon::Trouble };
        let title = if down == 0 { "APIs".to_owned() } else { format!("APIs: {down} down") };
        let layout = Layout {
            site: self.site,
            title: &title,
            view: View::Apis,
            depth: 0,
            style: Some("views.css"),
            icon,
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            let class = if down == 0 { "good" } else { "bad" };
            write!(page, "<div id=\"summary\" role=\"status\"><h1 class=\"banner {class}\">")?;
            let total = count_of(count as u64, "API");
            match down {
                0 => writeln!(page, "{total}, none down.</h1></div>")?,
                down => writeln!(page, "{total}, {down} down.</h1></div>")?,
            }
            page.push_str("<div class=\"grid\">\n");
            let mut all_uses = self.uses();
            let apis = || self.config.apis.iter().zip(&self.overview.apis);
            let (down, others) = (apis().filter(|(_, api)| is_down(api)), apis().filter(|(_, api)| !is_down(api)));
            for (api, health) in down.chain(others) {
                let load = self.loads.iter().find(|load| load.name == api.name);
                let discovery = self.sources.discoveries.get(&api.name);
                let used = all_uses.remove(&api.name).unwrap_or_default();
                ApiView { api, health, load, discovery, used, replicas: self.replicas }.write(page)?;
            }
            page.push_str("</div>\n");
            Ok(())
        })
    }

    /// What is known of each API from its toggles and agents.
    fn uses(&self) -> HashMap<ApiName, ApiUse> {
        let mut uses: HashMap<ApiName, ApiUse> = HashMap::new();
        for row in self.rows.iter() {
            let (watch, run) = (&row.toggle.watch, &row.toggle.run);
            let of_api = uses.entry(watch.api.clone()).or_default();
            *of_api.standings.entry(Standing::of(&row.toggle, self.site.now)).or_default() += 1;
            of_api.observe(run.last_success, run.failing.as_deref().map(|failing| failing.since), || {
                format!("<a href=\"toggles/{0}\">toggle {0}</a>", Escaped(watch.name.as_str()))
            });
        }
        for agent in self.agents {
            if let Some(asked) = &agent.asked {
                let of_api = uses.entry(agent.api.clone()).or_default();
                let since = asked.live.failing.as_deref().map(|failing| failing.since);
                of_api.observe(asked.live.last_success, since, || {
                    format!("<a href=\"agents/{}/{1}\">agent {1}</a>", Escaped(agent.api.as_str()), agent.id)
                });
            }
        }
        uses
    }
}

fn is_down(api: &ApiHealth) -> bool {
    api.problem().is_some_and(ApiProblem::is_outage)
}

// === impl ApiUse ===

impl ApiUse {
    /// Takes note of when polls of something were last answered, and since when they fail.
    fn observe(
        &mut self,
        last_success: Option<Timestamp>,
        failing_since: Option<Timestamp>,
        link: impl FnOnce() -> String,
    ) {
        if let Some(last) = last_success
            && self.last_answer.as_ref().is_none_or(|(known, _)| last > *known)
        {
            self.last_answer = Some((last, link()));
        }
        if let Some(since) = failing_since {
            self.failing_since = Some(self.failing_since.map_or(since, |known| known.min(since)));
        }
    }
}

// === impl ApiView ===

impl ApiView<'_> {
    fn write(&self, page: &mut String) -> fmt::Result {
        let name = Escaped(self.api.name.as_str());
        writeln!(
            page,
            "<section class=\"card\" id=\"{name}\" data-key=\"api/{name}\" aria-labelledby=\"{name}-title\">"
        )?;
        let (class, shape, word) = match self.health.up {
            Some(false) => ("down", "✖", "down"),
            Some(true) => ("up", "✔", "up"),
            None => ("unknown", "?", "not polled yet"),
        };
        writeln!(
            page,
            "<h2 id=\"{name}-title\"><span class=\"badge {class}\"><span aria-hidden=\"true\">{shape}</span> {word}</span> {name}</h2>"
        )?;
        if let Some(problem) = self.health.problem() {
            let section = problem.section();
            write!(page, "<p class=\"sentence\">{}", problem.sentence())?;
            if let Some(since) = self.used.failing_since.filter(|_| problem.is_outage()) {
                write!(page, " Polls have failed since {}.", Time(since))?;
            }
            writeln!(page, "</p>\n<p><a class=\"button\" href=\"runbooks?api={name}#{section}\">What to do</a></p>")?;
        }
        page.push_str("<dl class=\"facts\">\n");
        self.write_answers(page)?;
        self.write_polled(page)?;
        self.write_budget(page)?;
        self.write_connection(page)?;
        page.push_str("</dl>\n</section>\n");
        Ok(())
    }

    fn write_answers(&self, page: &mut String) -> fmt::Result {
        page.push_str("<dt>Last answer</dt><dd>");
        match &self.used.last_answer {
            Some((at, what)) => write!(page, "{}, of {what}", Time(*at))?,
            None => page.push_str("none yet"),
        }
        page.push_str("</dd>\n");
        Ok(())
    }

    /// Writes how many toggles and agents are polled, and why the last polls of some failed.
    fn write_polled(&self, page: &mut String) -> fmt::Result {
        let (name, health) = (Escaped(self.api.name.as_str()), self.health);
        let watched: usize = self.used.standings.values().sum();
        write!(page, "<dt>Toggles</dt><dd>{watched} watched, {} polled", health.polled)?;
        write_failing(page, &health.failing)?;
        if watched > 0 {
            write!(page, "<span class=\"more\">")?;
            for (standing, count) in &self.used.standings {
                let (word, standing) = (super::html::Badge::of(*standing).word, standing.as_str());
                write!(page, "<a href=\"./?q={name}&amp;standing={standing}\">{count} {word}</a> ")?;
            }
            page.push_str("</span>");
        }
        write!(page, "</dd>\n<dt>Agents</dt><dd>{} asked", health.agents.asked)?;
        write_failing(page, &health.agents.failing)?;
        if health.agents.asked > 0 {
            write!(page, "<span class=\"more\"><a href=\"agents?q={name}\">agents of {name}</a></span>")?;
        }
        page.push_str("</dd>\n<dt>List of agents</dt><dd>");
        match (self.api.discover_agents, self.discovery) {
            (false, _) => page.push_str("not asked for"),
            (true, None) => page.push_str("not answered yet"),
            (true, Some(DiscoveryReport { failure: None, agents, since, .. })) => {
                write!(page, "answered since {}, {}", Time(since.shown()), count_of(*agents as u64, "agent"))?;
            }
            (true, Some(DiscoveryReport { failure: Some(failure), since, .. })) => {
                write!(page, "not answered since {}", Time(since.shown()))?;
                write_text(page, &failure_text(failure))?;
            }
        }
        page.push_str("</dd>\n");
        Ok(())
    }

    fn write_budget(&self, page: &mut String) -> fmt::Result {
        let ApiHealth { requests_per_second, max_in_flight, in_flight, waiting, .. } = self.health;
        write!(page, "<dt>Budget</dt><dd>{requests_per_second} requests per second")?;
        if self.replicas > 1 {
            write!(page, ", shared by {} replicas", self.replicas)?;
        }
        writeln!(
            page,
            ", at most {max_in_flight} at a time</dd>\n<dt>Now</dt><dd>{}, {} waiting</dd>",
            count_of(*in_flight, "request"),
            count_of(*waiting, "poll")
        )?;
        if let Some(load) = self.load {
            write!(page, "<dt>So far</dt><dd>{} answered", load.answered)?;
            for (reason, count) in &load.failed {
                write!(page, ", {count} {}", reason.as_str().replace('_', " "))?;
            }
            page.push_str("</dd>\n");
        }
        page.push_str("<dt>Pause</dt><dd>");
        match self.load.and_then(|load| load.paused_until) {
            Some(until) => writeln!(page, "no polls before {}</dd>", Time(until)),
            None => writeln!(page, "none</dd>"),
        }
    }

    /// Writes how the API is reached. The URL and the source of the key are no secrets: `/config` shows them, too.
    fn write_connection(&self, page: &mut String) -> fmt::Result {
        let api = self.api;
        writeln!(page, "<dt>Base URL</dt><dd><code>{}</code></dd>", Escaped(api.base_url.as_str()))?;
        page.push_str("<dt>Key</dt><dd>");
        match &api.key {
            KeySource::Given(_) => page.push_str("given by the configuration or the environment"),
            KeySource::File(file) => write!(page, "from the file <code>{}</code>", Escaped(file.path().display()))?,
            KeySource::Unusable(why) => write!(page, "not usable: it {}", Escaped(why))?,
            KeySource::None => write!(page, "none: {}", Escaped(how_to_give_key(&api.name)))?,
        }
        page.push_str("</dd>\n");
        if let Some(ca) = &api.ca {
            writeln!(page, "<dt>Authorities</dt><dd><code>{}</code></dd>", Escaped(ca.path().display()))?;
        }
        writeln!(page, "<dt>Timeout</dt><dd>{}</dd>", format_duration(api.timeout))
    }
}

/// Writes how many polls failed last, by reason, the most frequent first.
fn write_failing(page: &mut String, failing: &BTreeMap<&'static str, usize>) -> fmt::Result {
    let mut reasons: Vec<_> = failing.iter().collect();
    reasons.sort_unstable_by_key(|(reason, count)| (Reverse(**count), **reason));
    let failures: usize = failing.values().sum();
    let words = |reason: &str| reason.replace('_', " ");
    let reasons = match *reasons {
        [] => return Ok(()),
        [(reason, _)] => words(reason),
        _ => reasons.iter().map(|(reason, count)| format!("{count} {}", words(reason))).collect::<Vec<_>>().join(", "),
    };
    write!(page, ", <strong>{failures} not answered</strong><span class=\"more\">{reasons}</span>")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::board::ToggleRow;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{Failure, Reason, ReportedStatus, Toggle};

    #[test]
    fn the_latest_answer_and_the_earliest_failure_that_lasts_are_found() {
        let mut used = ApiUse::default();
        used.observe(Some(at(5)), Some(at(8)), || "a".to_owned());
        used.observe(Some(at(7)), Some(at(6)), || "b".to_owned());
        used.observe(Some(at(2)), None, || "c".to_owned());
        assert_eq!(used.last_answer, Some((at(7), "b".to_owned())));
        assert_eq!(used.failing_since, Some(at(6)));
    }

    #[test]
    fn an_api_is_shown_with_what_it_is_asked_and_without_its_key() {
        let text = "apis: {eu: {base_url: 'https://eu.example/x', api_key: very-secret}}";
        let config = crate::config::parse(text).unwrap();
        let mut failing =
            Toggle::new(Arc::new(crate::toggle::Watch { api: config.apis[0].name.clone(), ..watch("w", "p") }), at(0));
        failing.apply(Ok(answer(ReportedStatus::InProgress, None)), at(1));
        failing.apply(Err(Failure::new(Reason::Connect)), at(2));
        let rows: ToggleRows = [ToggleRow::new(failing)].into_iter().collect();
        let load = ApiLoad {
            name: config.apis[0].name.clone(),
            in_flight: 1,
            waiting: 2,
            paused_until: Some(at(60)),
            answered: 3,
            failed: vec![(Reason::Connect, 2)],
            up: Some(false),
        };
        let loads = [load];
        let sources = SourceReport::new();
        let overview = Overview::of(&rows, &[], ApiHealth::of_all_apis(&config, &loads, &sources), at(0), at(3));
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: false, started_at: at(0), now: at(3) };
        let page = ApisPage {
            site,
            config: &config,
            overview: &overview,
            loads: &loads,
            sources: &sources,
            rows: &rows,
            agents: &[],
            replicas: 2,
        }
        .render();
        for text in [
            "1 API, 1 down.",
            "id=\"eu\"",
            "runbooks?api=eu#cekuraapidown",
            "of <a href=\"toggles/w\">toggle w</a>",
            "1 watched, 1 polled, <strong>1 not answered</strong>",
            "<code>https://eu.example/x</code>",
            "no polls before",
            "10 requests per second, shared by 2 replicas, at most",
            "3 answered, 2 connect",
            "href=\"./?q=eu&amp;standing=failing\"",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(!page.contains("very-secret"));
    }
}
