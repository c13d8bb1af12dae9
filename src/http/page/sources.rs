//! The page of the sources: where watches and agents come from, and why some are not watched.

use std::fmt::{self, Write as _};

use super::health::failure_text;
use super::html::{Escaped, Time, count_of};
use super::layout::{Icon, Layout, SiteInfo, View};
use super::toggle_rows::write_text;
use crate::config::Config;
use crate::document::Problem;
use crate::intake::{DiscoveryReport, GlobReport, SourceReport};
use crate::sources::{AgentOrigin, Origin};
use crate::toggle::{AgentSource, Source};

/// How many problems of one source are shown.
const MAX_PROBLEMS: usize = 20;

/// What the page of the sources is made from.
pub(in crate::http) struct SourcesPage<'a> {
    pub(in crate::http) site: SiteInfo<'a>,
    pub(in crate::http) config: &'a Config,
    /// The path of the configuration; `None` if it is in no file.
    pub(in crate::http) file: Option<&'a str>,
    pub(in crate::http) sources: &'a SourceReport,
}

/// How a source is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceStanding {
    Up,
    Down,
    /// Nothing is read from it.
    Unused,
}

// === impl SourceStanding ===

impl SourceStanding {
    fn of(up: bool) -> Self {
        if up { Self::Up } else { Self::Down }
    }

    fn write(self, page: &mut String, word: &str) -> fmt::Result {
        let (class, shape) = match self {
            Self::Up => ("up", "✔"),
            Self::Down => ("down", "✖"),
            Self::Unused => ("unjudged", "–"),
        };
        write!(page, "<span class=\"badge {class}\"><span aria-hidden=\"true\">{shape}</span> {word}</span>")
    }
}

// === impl SourcesPage ===

impl SourcesPage<'_> {
    /// Renders the whole page as HTML.
    pub(in crate::http) fn render(&self) -> String {
        let summary = self.summary();
        let icon = if summary.is_none() { Icon::Well } else { Icon::Trouble };
        let layout = Layout {
            site: self.site,
            title: &summary
                .as_deref()
                .map_or("Sources".to_owned(), |summary| format!("Sources: {}", summary.trim_end_matches('.'))),
            view: View::Sources,
            depth: 0,
            style: Some("views.css"),
            icon,
            is_kept_up_to_date: true,
        };
        layout.page(|page| {
            let class = if summary.is_none() { "good" } else { "warn" };
            let sentence = summary.as_deref().unwrap_or("All sources can be read.");
            writeln!(page, "<div id=\"summary\" role=\"status\"><h1 class=\"banner {class}\">{sentence}</h1></div>")?;
            page.push_str("<div class=\"grid\">\n");
            self.write_configuration(page)?;
            self.write_files(page)?;
            self.write_refused(page)?;
            self.write_registrations(page)?;
            self.write_discovery(page)?;
            page.push_str("</div>\n");
            Ok(())
        })
    }

    /// What is wrong, in one sentence; `None` if nothing is.
    fn summary(&self) -> Option<String> {
        let sources = self.sources;
        let configuration = usize::from(!sources.last_reload.problems.is_empty());
        let files = sources.globs.iter().filter(|glob| !glob.up).count();
        let discoveries = sources.discoveries.values().filter(|discovery| discovery.failure.is_some()).count();
        let down = configuration + files + discoveries;
        let mut problems = Vec::new();
        if down > 0 {
            problems.push(format!("{} cannot be read", count_of(down as u64, "source")));
        }
        if sources.rejected() > 0 {
            problems.push(format!("{} refused", count_of(sources.rejected() as u64, "definition")));
        }
        (!problems.is_empty()).then(|| format!("{}.", problems.join(", ")))
    }

    fn write_configuration(&self, page: &mut String) -> fmt::Result {
        let reload = &self.sources.last_reload;
        let is_good = reload.problems.is_empty();
        begin_card(page, "configuration", "Configuration", |page| {
            SourceStanding::of(is_good).write(page, if is_good { "in force" } else { "refused" })
        })?;
        if !is_good {
            writeln!(
                page,
                "<p class=\"sentence\">The last reload failed {}, so the configuration from before stays in force. \
                 Fix it before the next restart.</p>",
                Time(reload.at.shown())
            )?;
            write_problems(page, reload.problems.iter())?;
            write_button(page, "cekuraconfigreloadfailed")?;
        }
        page.push_str("<dl class=\"facts\">\n");
        if let Some(file) = self.file {
            writeln!(page, "<dt>File</dt><dd><code>{}</code></dd>", Escaped(file))?;
        }
        writeln!(page, "<dt>Loaded</dt><dd>{}</dd>", Time(reload.last_success.shown()))?;
        self.write_counts(page, Source::Config, Some(AgentSource::Config))?;
        page.push_str("<dt>In force</dt><dd><a href=\"runtime#in-force\">as YAML</a></dd>\n</dl>\n</section>\n");
        Ok(())
    }

    fn write_files(&self, page: &mut String) -> fmt::Result {
        let globs = &self.sources.globs;
        let standing = if globs.is_empty() {
            SourceStanding::Unused
        } else {
            SourceStanding::of(globs.iter().all(|glob| glob.up))
        };
        begin_card(page, "files", "Watch files", |page| {
            standing.write(
                page,
                match standing {
                    SourceStanding::Up => "up",
                    SourceStanding::Down => "down",
                    SourceStanding::Unused => "none configured",
                },
            )
        })?;
        if standing == SourceStanding::Down {
            let is_any_defined = globs.iter().any(|glob| !glob.defined.is_zero());
            let sentence = if is_any_defined {
                "What these files last defined is still watched. What is new in them is not."
            } else {
                "Nothing of these files is watched."
            };
            writeln!(page, "<p class=\"sentence\">{sentence}</p>")?;
            write_button(page, "cekurasourcebroken")?;
        }
        if !globs.is_empty() {
            page.push_str("<dl class=\"facts\">\n");
            self.write_counts(page, Source::File, Some(AgentSource::File))?;
            page.push_str("</dl>\n");
        }
        globs.iter().try_for_each(|glob| self.write_glob(page, glob))?;
        page.push_str("</section>\n");
        Ok(())
    }

    fn write_glob(&self, page: &mut String, report: &GlobReport) -> fmt::Result {
        let configured = Escaped(report.glob.configured());
        write!(page, "<section class=\"source\" data-key=\"{configured}\" aria-label=\"{configured}\">\n<h3>")?;
        SourceStanding::of(report.up).write(page, if report.up { "up" } else { "down" })?;
        writeln!(page, " <code>{configured}</code></h3>")?;
        if report.is_late {
            page.push_str("<p>Reading these files takes long. They are applied when that is done.</p>\n");
        }
        write_problems(page, self.sources.problems_of(&report.glob))?;
        let since = if report.up { "Up since" } else { "Down since" };
        let (watches, agents) = (report.defined.watches as u64, report.defined.agents as u64);
        let (files, watches, agents) =
            (count_of(report.files as u64, "file"), count_of(watches, "toggle"), count_of(agents, "agent"));
        writeln!(
            page,
            "<dl class=\"facts\">\n<dt>{since}</dt><dd>{}</dd>\n<dt>Read</dt><dd>{files} with {watches} and {agents}</dd>\n</dl>",
            Time(report.since.shown())
        )?;
        if !report.first_files.is_empty() {
            writeln!(page, "<details data-key=\"files\"><summary>Files</summary>\n<ul class=\"files\">")?;
            for (path, defined) in &report.first_files {
                let (watches, agents) =
                    (count_of(defined.watches as u64, "toggle"), count_of(defined.agents as u64, "agent"));
                writeln!(page, "<li><code>{}</code> {watches}, {agents}</li>", Escaped(path.display()))?;
            }
            page.push_str("</ul>\n");
            if let more @ 1.. = report.files - report.first_files.len() {
                writeln!(page, "<p>And {}.</p>", count_of(more as u64, "more file"))?;
            }
            page.push_str("</details>\n");
        }
        page.push_str("</section>\n");
        Ok(())
    }

    fn write_registrations(&self, page: &mut String) -> fmt::Result {
        let enabled = self.config.registrations.enabled;
        begin_card(page, "registrations", "Registrations", |page| {
            let standing = if enabled { SourceStanding::Up } else { SourceStanding::Unused };
            standing.write(page, if enabled { "enabled" } else { "not enabled" })
        })?;
        if enabled {
            page.push_str("<dl class=\"facts\">\n");
            self.write_counts(page, Source::Http, None)?;
            page.push_str("</dl>\n");
        } else {
            page.push_str("<p>Nobody can register toggles over HTTP.</p>\n");
        }
        page.push_str("</section>\n");
        Ok(())
    }

    fn write_discovery(&self, page: &mut String) -> fmt::Result {
        let discovering: Vec<_> = self.config.apis.iter().filter(|api| api.discover_agents).collect();
        let fails = |discovery: &DiscoveryReport| discovery.failure.is_some();
        let is_down = self.sources.discoveries.values().any(fails);
        begin_card(page, "discovery", "Lists of agents", |page| match (discovering.is_empty(), is_down) {
            (true, _) => SourceStanding::Unused.write(page, "no API is asked"),
            (false, true) => SourceStanding::Down.write(page, "down"),
            (false, false) => SourceStanding::Up.write(page, "up"),
        })?;
        if is_down {
            let is_any_asked = self.sources.discoveries.values().any(|discovery| discovery.agents > 0);
            let sentence = if is_any_asked {
                "The agents of the last list are still asked. New ones are not."
            } else {
                "No agent is asked because of these lists."
            };
            writeln!(page, "<p class=\"sentence\">{sentence}</p>")?;
            write_button(page, "cekurasourcebroken")?;
        }
        for api in discovering {
            let name = Escaped(api.name.as_str());
            writeln!(page, "<section class=\"source\" data-key=\"{name}\" aria-label=\"{name}\">")?;
            let Some(discovery) = self.sources.discoveries.get(&api.name) else {
                writeln!(page, "<h3><a href=\"apis#{name}\">{name}</a></h3>\n<p>No list yet.</p>\n</section>")?;
                continue;
            };
            let up = discovery.failure.is_none();
            page.push_str("<h3>");
            SourceStanding::of(up).write(page, if up { "up" } else { "down" })?;
            writeln!(page, " <a href=\"apis#{name}\">{name}</a></h3>")?;
            if let Some(failure) = &discovery.failure {
                write_text(page, &failure_text(failure))?;
            }
            let since = if up { "Up since" } else { "Down since" };
            writeln!(page, "<dl class=\"facts\">\n<dt>{since}</dt><dd>{}</dd>", Time(discovery.since.shown()))?;
            if let Some(last) = discovery.last_success {
                writeln!(page, "<dt>Last list</dt><dd>{}</dd>", Time(last.shown()))?;
            }
            let agents = count_of(discovery.agents as u64, "agent");
            writeln!(page, "<dt>Lists</dt><dd>{agents}</dd>\n</dl>\n</section>")?;
        }
        page.push_str("</section>\n");
        Ok(())
    }

    /// Writes each definition that is refused, and why.
    fn write_refused(&self, page: &mut String) -> fmt::Result {
        let (watches, agents) = (&self.sources.refused_watches, &self.sources.refused_agents);
        if watches.is_empty() && agents.is_empty() {
            return Ok(());
        }
        begin_card(page, "refused", "Refused definitions", |page| {
            SourceStanding::Down.write(page, &self.sources.rejected().to_string())
        })?;
        page.push_str(
            "<p class=\"sentence\">These are listed, but not watched. If they fail, nobody is told.</p>\n<ul class=\"files\">\n",
        );
        for refused in &**watches {
            let (name, place) = (Escaped(refused.watch.name.as_str()), place(&refused.origin));
            let why = match &refused.by {
                Some(by) => format!("{} has a toggle of this name, too, and goes before", self::place(by)),
                None => format!("API {} is not configured", refused.watch.api.as_str()),
            };
            writeln!(page, "<li>Toggle <b>{name}</b> of {}: {}.</li>", Escaped(place), Escaped(why))?;
        }
        for refused in &**agents {
            let (id, place) = (refused.definition.agent_id, agent_place(&refused.origin));
            let why = match &refused.by {
                Some(by) => format!("{} has this agent, too, and goes before", agent_place(by)),
                None => format!("API {} is not configured", refused.definition.api.as_str()),
            };
            writeln!(page, "<li>Agent <b>{id}</b> of {}: {}.</li>", Escaped(place), Escaped(why))?;
        }
        page.push_str("</ul>\n");
        if let more @ 1.. = self.sources.rejected().saturating_sub(watches.len() + agents.len()) {
            writeln!(page, "<p>And {more} more.</p>")?;
        }
        write_button(page, "cekurawatchesrejected")?;
        page.push_str("</section>\n");
        Ok(())
    }

    /// Writes how many toggles and agents of a source are watched, and how many are refused.
    fn write_counts(&self, page: &mut String, source: Source, agents: Option<AgentSource>) -> fmt::Result {
        let watches = self.sources.watches.iter().find(|(of, _)| *of == source);
        if let Some((_, counts)) = watches {
            write!(page, "<dt>Toggles</dt><dd>{} watched", counts.watches)?;
            write_refusals(page, counts.rejected)?;
        }
        if let Some((_, counts)) = self.sources.agents.iter().find(|(of, _)| Some(*of) == agents) {
            write!(page, "<dt>Agents</dt><dd>{} asked", counts.agents)?;
            write_refusals(page, counts.rejected)?;
        }
        Ok(())
    }
}

/// Ends the count of definitions of a source.
fn write_refusals(page: &mut String, rejected: usize) -> fmt::Result {
    match rejected {
        0 => writeln!(page, "</dd>"),
        rejected => writeln!(page, ", <a href=\"#refused\">{rejected} refused</a></dd>"),
    }
}

fn begin_card(page: &mut String, id: &str, title: &str, badge: impl FnOnce(&mut String) -> fmt::Result) -> fmt::Result {
    write!(page, "<section class=\"card\" id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">")?;
    badge(page)?;
    writeln!(page, " {title}</h2>")
}

/// Writes the first problems, and how many more there are.
fn write_problems<'a>(page: &mut String, mut problems: impl Iterator<Item = &'a Problem>) -> fmt::Result {
    let first: Vec<_> = problems.by_ref().take(MAX_PROBLEMS).collect();
    if first.is_empty() {
        return Ok(());
    }
    page.push_str("<ul class=\"lines\">\n");
    first.iter().try_for_each(|problem| writeln!(page, "<li>{}</li>", Escaped(problem)))?;
    page.push_str("</ul>\n");
    match problems.count() {
        0 => Ok(()),
        more => writeln!(page, "<p>And {}.</p>", count_of(more as u64, "more problem")),
    }
}

fn write_button(page: &mut String, section: &str) -> fmt::Result {
    writeln!(page, "<p><a class=\"button\" href=\"runbooks#{section}\">What to do</a></p>")
}

/// Where a watch is defined.
fn place(origin: &Origin) -> String {
    match origin {
        Origin::Config => "the configuration".to_owned(),
        Origin::File(path) => path.display().to_string(),
        Origin::Http => "a registration".to_owned(),
    }
}

/// Where an agent is defined.
fn agent_place(origin: &AgentOrigin) -> String {
    match origin {
        AgentOrigin::Config => "the configuration".to_owned(),
        AgentOrigin::File(path) => path.display().to_string(),
        AgentOrigin::Discovered(api) => format!("the list of API {}", api.as_str()),
    }
}

#[cfg(test)]
#[allow(clippy::default_trait_access, reason = "the type is private to the reports")]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock::ProcessTime;
    use crate::intake::{DefinedCounts, ReloadReport};
    use crate::sources::{RefusedDefinition, WatchCounts, WatchGlob};
    use crate::toggle::sample::{at, watch};
    use crate::toggle::{ApiName, Failure, Reason, Text};

    fn config(text: &str) -> Config {
        crate::config::parse(text).unwrap()
    }

    fn rendered(config: &Config, sources: &SourceReport) -> String {
        let site = SiteInfo { telemetry_path: "/metrics", has_replicas: false, started_at: at(0), now: at(9) };
        SourcesPage { site, config, file: Some("/etc/<c>.yaml"), sources }.render()
    }

    #[test]
    fn an_exporter_whose_sources_can_be_read_says_so_and_what_is_not_used() {
        let page = rendered(&config("apis: {default: {base_url: 'http://h', api_key: k}}"), &SourceReport::new());
        for text in
            ["All sources can be read.", "/etc/&lt;c&gt;.yaml", "none configured", "not enabled", "no API is asked"]
        {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(!page.contains("id=\"refused\"") && !page.contains("What to do"), "{page}");
    }

    #[test]
    fn each_source_that_cannot_be_read_says_why() {
        let (now, mut sources) = (ProcessTime::now(), SourceReport::new());
        let problems: Vec<_> = (0..25).map(|i| Problem::new("c.yaml", format!("a[{i}]"), "is <odd>")).collect();
        sources.last_reload = ReloadReport { at: now, problems: problems.into(), last_success: now };
        let report = |glob: &str, up| GlobReport {
            glob: WatchGlob::parse(glob, None).unwrap(),
            up,
            since: now,
            is_late: false,
            files: 102,
            defined: DefinedCounts::default(),
            first_files: vec![(Path::new("/w/first.yaml").into(), DefinedCounts::default())],
        };
        sources.globs = [report("/w/*.yaml", false), report("/x/*.yaml", true)].into();
        let problem = vec![Problem::new("/w/a.yaml", "", "is not YAML")];
        sources.file_problems = Arc::new([("/w/a.yaml".to_owned(), problem)].into());
        let failure = Failure::new(Reason::Forbidden).with_detail(Text::own("not for this key"));
        let (failure, last_success) = (Some(failure), Some(now));
        let discovery = DiscoveryReport { failure, since: now, last_success, agents: 7 };
        sources.discoveries.insert(ApiName::default_api(), discovery);
        let page =
            rendered(&config("apis: {default: {base_url: 'http://h', api_key: k, discover_agents: true}}"), &sources);
        for text in [
            "3 sources cannot be read.",
            "<li>c.yaml: a[0]: is &lt;odd&gt;</li>",
            "And 5 more problems.",
            "<li>/w/a.yaml: is not YAML</li>",
            "And 101 more files.",
            "forbidden: not for this key",
            "runbooks#cekuraconfigreloadfailed",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert_eq!(page.matches("runbooks#cekurasourcebroken").count(), 2, "{page}");
        assert_eq!(page.matches("is not YAML").count(), 1, "it is of one glob: {page}");
    }

    #[test]
    fn definitions_that_are_refused_are_listed_with_the_reason() {
        let mut sources = SourceReport::new();
        let refused = |name: &str, by| RefusedDefinition {
            watch: Arc::new(watch(name, "p")),
            origin: Origin::File(Path::new("/w/<a>.yaml").into()),
            by,
        };
        sources.refused_watches = [refused("taken", Some(Origin::Config)), refused("elsewhere", None)].into();
        sources.watches = Source::ALL.map(|source| (source, WatchCounts { watches: 1, rejected: 1 }));
        let page = rendered(&config("apis: {default: {base_url: 'http://h', api_key: k}}"), &sources);
        for text in [
            "3 definitions refused.",
            "Toggle <b>taken</b> of /w/&lt;a&gt;.yaml: the configuration has a toggle of this name, too",
            "Toggle <b>elsewhere</b> of /w/&lt;a&gt;.yaml: API default is not configured.",
            "And 1 more.",
            "<a href=\"#refused\">1 refused</a>",
            "runbooks#cekurawatchesrejected",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }
}
