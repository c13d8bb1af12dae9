//! Reporting what the sources define and what is wrong with them, for people who look for the reason why something is
//! not watched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::Intake;
use super::watch_files::DefinitionsByFile;
use crate::clock::ProcessTime;
use crate::document::{Problem, Problems};
use crate::sources::{
    AgentCounts, Definitions, DiscoveredAgents, FileScan, RefusedAgent, RefusedDefinition, WatchCounts, WatchGlob,
};
use crate::toggle::{AgentSource, ApiName, Failure, Reason, Source};

/// How many files of each glob, and how many refused definitions, are reported one by one.
const MAX_LISTED: usize = 100;

/// What the sources define, and what is wrong with them.
#[derive(Debug, Clone)]
pub struct SourceReport {
    /// Another one after each change.
    pub(crate) revision: u64,
    /// The number of watches of each source.
    pub(crate) watches: [(Source, WatchCounts); Source::ALL.len()],
    /// The number of agents of each source.
    pub(crate) agents: [(AgentSource, AgentCounts); AgentSource::ALL.len()],
    /// The first watches that are refused.
    pub(crate) refused_watches: Arc<[RefusedDefinition]>,
    /// The first agents that are refused.
    pub(crate) refused_agents: Arc<[RefusedAgent]>,
    /// The watch files, in the order of their globs.
    pub(crate) globs: Arc<[GlobReport]>,
    /// The first problems of each glob, by the glob as configured, and of each file, by its path, that have any.
    pub(crate) file_problems: Arc<BTreeMap<String, Vec<Problem>>>,
    /// The APIs whose agents were to be listed at least once.
    pub(crate) discoveries: BTreeMap<ApiName, DiscoveryReport>,
    /// The last time that the configuration was loaded.
    pub(crate) last_reload: ReloadReport,
}

/// The watch files of one glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobReport {
    pub(crate) glob: WatchGlob,
    /// Whether it could be followed and all of its files could be read.
    pub(crate) up: bool,
    /// Since when it has been up, or has not been.
    pub(crate) since: ProcessTime,
    /// Whether the files take so long to read that they are not known yet.
    pub(crate) is_late: bool,
    /// How many files it matches that could ever be read.
    pub(crate) files: usize,
    /// How many watches and agents these define.
    pub(crate) defined: DefinedCounts,
    /// The first of these files, and how much each defines.
    pub(crate) first_files: Vec<(Arc<Path>, DefinedCounts)>,
}

/// How many watches and agents are defined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DefinedCounts {
    pub(crate) watches: usize,
    pub(crate) agents: usize,
}

impl DefinedCounts {
    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// The list of agents of an API.
#[derive(Debug, Clone)]
pub struct DiscoveryReport {
    /// Why the last listing failed; `None` if it succeeded.
    pub(crate) failure: Option<Failure>,
    /// Since when listings have failed, or have succeeded.
    pub(crate) since: ProcessTime,
    /// When agents were last listed successfully by this process.
    pub(crate) last_success: Option<ProcessTime>,
    /// How many agents are asked because the API listed them.
    pub(crate) agents: usize,
}

// === impl DiscoveryReport ===

impl DiscoveryReport {
    /// How the last listing ended.
    pub(crate) fn outcome(&self) -> Result<(), Reason> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.reason))
    }
}

/// A time when the configuration was loaded.
#[derive(Debug, Clone)]
pub struct ReloadReport {
    /// When.
    pub(crate) at: ProcessTime,
    /// Why it was refused; empty if it was put in force.
    pub(crate) problems: Arc<[Problem]>,
    /// When a configuration was last put in force.
    pub(crate) last_success: ProcessTime,
}

// === impl Intake ===

impl Intake {
    /// Reports how many definitions of each source take effect, and which do not.
    pub(super) fn report_lists(&self) {
        let (mut watches, mut agents) = (self.list.counts(), self.agents.counts());
        update(&self.report, |report| {
            report.watches = Source::ALL.map(|source| watches.next().unwrap_or((source, WatchCounts::default())));
            report.agents = AgentSource::ALL.map(|source| agents.next().unwrap_or((source, AgentCounts::default())));
            report.refused_watches = self.list.rejected(MAX_LISTED).into();
            report.refused_agents = self.agents.rejected(MAX_LISTED).into();
        });
    }

    /// Reports what a scan with these globs found.
    pub(super) fn report_files(&self, globs: &[WatchGlob], scan: &FileScan) {
        let (known, definitions) = (self.report.borrow().clone(), &self.definitions_by_file);
        let reports = globs.iter().zip(&scan.glob_up).map(|(glob, (_, up))| known.glob(glob, *up, definitions));
        let reports = reports.collect();
        update(&self.report, |report| {
            (report.globs, report.file_problems) = (reports, Arc::new(scan.problems.clone()));
        });
    }

    /// Whether what a scan found is reported, if it changed no definition.
    pub(super) fn is_reported(&self, scan: &FileScan) -> bool {
        let known = self.report.borrow();
        let is_known = |(glob, (_, up)): (&GlobReport, &(_, bool))| glob.up == *up && !glob.is_late;
        known.globs.iter().zip(&scan.glob_up).all(is_known) && *known.file_problems == scan.problems
    }

    /// Reports that a scan with these globs takes long.
    pub(super) fn report_late_files(&self, globs: &[WatchGlob]) {
        let known = self.report.borrow().clone();
        let late =
            globs.iter().map(|glob| GlobReport { is_late: true, ..known.glob(glob, false, &self.definitions_by_file) });
        let late = late.collect();
        update(&self.report, |report| (report.globs, report.file_problems) = (late, Arc::default()));
    }

    /// Reports a listing of the agents of an API that ended; with the failure if it failed.
    pub(super) fn report_listing(&self, api: &ApiName, failure: Option<&Failure>) {
        let now = ProcessTime::now();
        let agents = self.discovered.get(api).map_or(0, DiscoveredAgents::count);
        update(&self.report, |report| {
            let before = report.discoveries.get(api);
            let same = before.filter(|before| before.failure.is_some() == failure.is_some());
            let last_success =
                if failure.is_none() { Some(now) } else { before.and_then(|before| before.last_success) };
            let since = same.map_or(now, |same| same.since);
            let failure = failure.cloned();
            report.discoveries.insert(api.clone(), DiscoveryReport { failure, since, last_success, agents });
        });
    }

    /// Reports that the agents of an API are not listed any more.
    pub(super) fn report_no_listing(&self, api: &ApiName) {
        update(&self.report, |report| _ = report.discoveries.remove(api));
    }

    /// Reports that the configuration was loaded; with the problems if it was refused.
    pub(super) fn report_reload(&self, problems: Option<&Problems>) {
        let at = ProcessTime::now();
        update(&self.report, |report| {
            let last_success = if problems.is_none() { at } else { report.last_reload.last_success };
            let problems = problems.map(|problems| problems.0.iter().take(MAX_LISTED).cloned().collect());
            report.last_reload = ReloadReport { at, problems: problems.unwrap_or_default(), last_success };
        });
    }
}

/// Changes the report.
fn update(report: &watch::Sender<SourceReport>, change: impl FnOnce(&mut SourceReport)) {
    report.send_modify(|report| {
        change(report);
        report.revision += 1;
    });
}

// === impl SourceReport ===

impl SourceReport {
    /// The report of a process that has just loaded its configuration.
    pub(crate) fn new() -> Self {
        let at = ProcessTime::now();
        Self {
            revision: 0,
            watches: Source::ALL.map(|source| (source, WatchCounts::default())),
            agents: AgentSource::ALL.map(|source| (source, AgentCounts::default())),
            refused_watches: Arc::default(),
            refused_agents: Arc::default(),
            globs: Arc::default(),
            file_problems: Arc::default(),
            discoveries: BTreeMap::new(),
            last_reload: ReloadReport { at, problems: Arc::default(), last_success: at },
        }
    }

    /// How many watches and agents are refused.
    pub(crate) fn rejected(&self) -> usize {
        let watches: usize = self.watches.iter().map(|(_, counts)| counts.rejected).sum();
        let agents: usize = self.agents.iter().map(|(_, counts)| counts.rejected).sum();
        watches + agents
    }

    /// The problems of a glob and of its files.
    pub(crate) fn problems_of<'a>(&'a self, glob: &'a WatchGlob) -> impl Iterator<Item = &'a Problem> {
        let is_of_glob = |origin: &str| origin == glob.configured() || glob.covers(Path::new(origin));
        let concerned = self.file_problems.iter().filter(move |(origin, _)| is_of_glob(origin));
        concerned.flat_map(|(_, problems)| problems)
    }

    /// The report of a glob. If it was as up as it is now, it has been so since then.
    fn glob(&self, glob: &WatchGlob, up: bool, definitions: &DefinitionsByFile) -> GlobReport {
        let known = self.globs.iter().find(|known| known.glob == *glob);
        let since = known.filter(|known| known.up == up).map_or_else(ProcessTime::now, |known| known.since);
        let (mut files, mut defined, mut first_files) = (0, DefinedCounts::default(), Vec::new());
        for (path, definitions) in definitions.iter().filter(|(path, _)| glob.covers(path)) {
            let counts = DefinedCounts::of(definitions);
            files += 1;
            defined.watches += counts.watches;
            defined.agents += counts.agents;
            if first_files.len() < MAX_LISTED {
                first_files.push((path.clone(), counts));
            }
        }
        GlobReport { glob: glob.clone(), up, since, is_late: false, files, defined, first_files }
    }
}

// === impl DefinedCounts ===

impl DefinedCounts {
    fn of(definitions: &Definitions) -> Self {
        Self { watches: definitions.watches.len(), agents: definitions.agents.len() }
    }
}
