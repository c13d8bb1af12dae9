//! What is wrong with the exporter itself: its sources, its configuration, its database and its poller.

use std::fmt::{self, Write as _};

use super::html::{Escaped, Time, count_of};
use super::toggle_rows::write_text;
use crate::document::Problem;
use crate::intake::SourceReport;
use crate::replicas::ReplicaReport;
use crate::toggle::{ApiName, Failure, Timestamp};

/// What is wrong with the exporter itself, the worst first.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::http) struct ExporterHealth {
    pub(super) problems: Vec<ExporterProblem>,
}

/// Something of the exporter that somebody has to look at.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExporterProblem {
    /// Whether what is wrong in the meantime may not be noticed at all.
    pub(super) is_bad: bool,
    pub(super) since: Option<Timestamp>,
    /// The API that this is about. If it is down, that is the problem.
    pub(super) api: Option<ApiName>,
    badge: &'static str,
    /// What has the problem.
    name: String,
    /// The page about it, from the root of the site.
    href: String,
    sentence: String,
    /// What the log says of it.
    detail: Option<String>,
    /// The section of the runbooks; `None` if there is none.
    section: Option<&'static str>,
}

/// What the health of the exporter is found from.
pub(in crate::http) struct HealthSources<'a> {
    pub(in crate::http) sources: &'a SourceReport,
    /// What is known of the database and the other replicas, if there can be any.
    pub(in crate::http) replicas: Option<&'a ReplicaReport>,
    /// Why the exporter should be restarted.
    pub(in crate::http) unhealthy: Option<&'static str>,
    /// Whether the last web configuration was refused.
    pub(in crate::http) web_refused: bool,
}

// === impl ExporterHealth ===

impl ExporterHealth {
    /// Finds all problems.
    pub(in crate::http) fn of(of: &HealthSources<'_>) -> Self {
        let problems = of.poller().into_iter().chain(of.database()).chain(of.configurations()).chain(of.files());
        Self { problems: problems.chain(of.discoveries()).chain(of.rejected()).collect() }
    }

    /// Since when an API has not listed its agents.
    pub(super) fn since(&self, api: &str) -> Option<Timestamp> {
        let is_of_api = |problem: &&ExporterProblem| problem.api.as_ref().is_some_and(|of| of.as_str() == api);
        self.problems.iter().find(is_of_api)?.since
    }
}

// === impl HealthSources ===

impl HealthSources<'_> {
    fn poller(&self) -> Option<ExporterProblem> {
        let why = self.unhealthy?;
        Some(ExporterProblem {
            is_bad: true,
            since: None,
            api: None,
            badge: "stuck",
            name: "Exporter".to_owned(),
            href: "runtime".to_owned(),
            sentence: format!("It has to be restarted: {why}. What is shown here may be old."),
            detail: None,
            section: None,
        })
    }

    fn database(&self) -> Option<ExporterProblem> {
        let report = self.replicas?;
        let (why, since) = report.problem.as_ref()?;
        let sentence = if report.was_reached {
            "This replica goes on with what it knows, but refuses registrations, and sees none of the other replicas."
        } else {
            "It has not been reached since the start: this replica polls what is configured, and refuses registrations."
        };
        Some(ExporterProblem {
            // While there are others, they may reach it.
            is_bad: report.members.len() < 2,
            since: Some(since.shown()),
            api: None,
            badge: "down",
            name: "Database".to_owned(),
            href: "replicas".to_owned(),
            sentence: sentence.to_owned(),
            detail: Some(why.clone()),
            section: Some("cekuradatabasedown"),
        })
    }

    fn configurations(&self) -> impl Iterator<Item = ExporterProblem> {
        let reload = &self.sources.last_reload;
        let configuration = (!reload.problems.is_empty()).then(|| ExporterProblem {
            is_bad: false,
            since: Some(reload.at.shown()),
            api: None,
            badge: "refused",
            name: "Configuration".to_owned(),
            href: "sources#configuration".to_owned(),
            sentence: "The last reload failed, so the one before stays in force. Fix it before the next restart."
                .to_owned(),
            detail: first_of(&*reload.problems),
            section: Some("cekuraconfigreloadfailed"),
        });
        let web = self.web_refused.then(|| ExporterProblem {
            is_bad: false,
            since: None,
            api: None,
            badge: "refused",
            name: "Web configuration".to_owned(),
            href: "runtime".to_owned(),
            sentence: "The TLS settings and logins from before stay in force. The log says what is wrong.".to_owned(),
            detail: None,
            section: Some("cekurawebconfigreloadfailed"),
        });
        configuration.into_iter().chain(web)
    }

    fn files(&self) -> impl Iterator<Item = ExporterProblem> {
        let down = self.sources.globs.iter().filter(|glob| !glob.up);
        down.map(|report| ExporterProblem {
            is_bad: false,
            since: Some(report.since.shown()),
            api: None,
            badge: "down",
            name: format!("Watch files {}", report.glob.configured()),
            href: "sources#files".to_owned(),
            sentence: if report.defined.is_zero() {
                "Nothing of them is watched.".to_owned()
            } else {
                "What they last defined is still watched. What is new in them is not.".to_owned()
            },
            detail: first_of(self.sources.problems_of(&report.glob)),
            section: Some("cekurasourcebroken"),
        })
    }

    fn discoveries(&self) -> impl Iterator<Item = ExporterProblem> {
        let failing = self.sources.discoveries.iter().filter_map(|(api, of)| Some((api, of, of.failure.as_ref()?)));
        failing.map(|(api, discovery, failure)| ExporterProblem {
            is_bad: false,
            since: Some(discovery.since.shown()),
            api: Some(api.clone()),
            badge: "down",
            name: format!("List of agents of {}", api.as_str()),
            href: "sources#discovery".to_owned(),
            sentence: if discovery.agents == 0 {
                "No agent is asked because of this list.".to_owned()
            } else {
                "The agents of the last list are still asked. New ones are not.".to_owned()
            },
            detail: Some(failure_text(failure)),
            section: Some("cekurasourcebroken"),
        })
    }

    fn rejected(&self) -> Option<ExporterProblem> {
        let count = self.sources.rejected();
        (count > 0).then(|| ExporterProblem {
            is_bad: false,
            since: None,
            api: None,
            badge: "refused",
            name: count_of(count as u64, "definition"),
            href: "sources#refused".to_owned(),
            sentence: "Another source defines the same, or the API is not configured. If these fail, nobody is told."
                .to_owned(),
            detail: None,
            section: Some("cekurawatchesrejected"),
        })
    }
}

/// Why a request failed.
pub(super) fn failure_text(failure: &Failure) -> String {
    let reason = failure.reason.as_str().replace('_', " ");
    failure.detail.as_ref().map_or_else(|| reason.clone(), |detail| format!("{reason}: {}", detail.as_str()))
}

/// The first problem, and how many more there are.
fn first_of<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Option<String> {
    let mut problems = problems.into_iter();
    let first = problems.next()?;
    Some(match problems.count() {
        0 => first.to_string(),
        more => format!("{first} (and {more} more)"),
    })
}

// === impl ExporterProblem ===

impl ExporterProblem {
    /// Writes the problem as a card of the status page.
    pub(super) fn write(&self, page: &mut String) -> fmt::Result {
        let (name, href) = (Escaped(&self.name), Escaped(&self.href));
        let (class, tone) = if self.is_bad { ("down", "bad") } else { ("failing", "warn") };
        writeln!(
            page,
            "<article class=\"problem {tone}\" data-key=\"exporter/{name}\">\n\
             <h2><span class=\"badge {class}\"><span aria-hidden=\"true\">✖</span> {}</span> <a href=\"{href}\">{name}</a></h2>\n\
             <p class=\"sentence\">{}</p>",
            self.badge,
            Escaped(&self.sentence)
        )?;
        if let Some(detail) = &self.detail {
            write_text(page, detail)?;
        }
        if let Some(since) = self.since {
            writeln!(page, "<p class=\"whose\">Since {}.</p>", Time(since))?;
        }
        match self.section {
            Some(section) => {
                writeln!(page, "<p><a class=\"button\" href=\"runbooks#{section}\">What to do</a></p>\n</article>")
            }
            None => writeln!(page, "</article>"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::default_trait_access, reason = "the type is private to the reports")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ProcessTime;
    use crate::intake::{DefinedCounts, DiscoveryReport, GlobReport, ReloadReport};
    use crate::sources::WatchGlob;
    use crate::toggle::{Reason, Source};

    fn health(sources: &SourceReport, replicas: Option<&ReplicaReport>) -> Vec<ExporterProblem> {
        ExporterHealth::of(&HealthSources { sources, replicas, unhealthy: None, web_refused: false }).problems
    }

    fn card(problem: &ExporterProblem) -> String {
        let mut page = String::new();
        problem.write(&mut page).unwrap();
        page
    }

    #[test]
    fn an_exporter_without_a_problem_is_healthy() {
        assert_eq!(health(&SourceReport::new(), Some(&ReplicaReport::default())), []);
    }

    #[test]
    fn each_part_that_does_not_work_is_a_problem_with_its_runbook() {
        let at = ProcessTime::now();
        let mut sources = SourceReport::new();
        let problems = [Problem::new("c.yaml", "apis", "is <b>"), Problem::new("c.yaml", "", "x")];
        sources.last_reload = ReloadReport { at, problems: Arc::new(problems), last_success: at };
        let glob = WatchGlob::parse("/w/*.yaml", None).unwrap();
        let (up, defined, first_files) = (false, DefinedCounts::default(), Vec::new());
        let report = GlobReport { glob, up, since: at, is_late: false, files: 0, defined, first_files };
        sources.globs = [report].into();
        let of_file = vec![Problem::new("/w/a.yaml", "[0]", "is odd")];
        sources.file_problems = Arc::new([("/w/a.yaml".to_owned(), of_file)].into());
        let failure = Some(Failure::new(Reason::Timeout));
        let discovery = DiscoveryReport { failure, since: at, last_success: None, agents: 0 };
        sources.discoveries.insert(ApiName::default_api(), discovery);
        sources.watches = Source::ALL.map(|source| (source, crate::sources::WatchCounts { watches: 1, rejected: 1 }));
        let problem = Some(("the database is away".to_owned(), at));
        let replicas = ReplicaReport { problem, was_reached: true, ..ReplicaReport::default() };
        let problems = health(&sources, Some(&replicas));
        let cards: Vec<_> = problems.iter().map(card).collect();
        for (card, expected) in cards.iter().zip([
            ["database is away", "runbooks#cekuradatabasedown"],
            ["c.yaml: apis: is &lt;b&gt; (and 1 more)", "runbooks#cekuraconfigreloadfailed"],
            ["/w/a.yaml: [0]: is odd", "runbooks#cekurasourcebroken"],
            ["timeout", "runbooks#cekurasourcebroken"],
            ["3 definitions", "runbooks#cekurawatchesrejected"],
        ]) {
            for text in expected {
                assert!(card.contains(text), "{text}: {card}");
            }
        }
        assert_eq!(cards.len(), 5);
        assert!(problems[0].is_bad && problems[1..].iter().all(|problem| !problem.is_bad));
        assert_eq!(problems[3].api, Some(ApiName::default_api()), "it is explained if the API is down");
    }

    #[test]
    fn the_database_is_a_warning_while_other_replicas_may_reach_it() {
        let problem = Some(("it is away".to_owned(), ProcessTime::now()));
        let members = vec!["a".to_owned(), "b".to_owned()];
        let replicas = ReplicaReport { problem, members, was_reached: true, takeovers: 0 };
        let problems = health(&SourceReport::new(), Some(&replicas));
        assert!(!problems[0].is_bad);
    }
}
