//! `--config.check`: checks the files that a configuration names, its database, and what its APIs answer.

mod online;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use online::{RequestCheck, requests};

use crate::cekura::{Api, BadProxy, Proxies};
use crate::collections::inserted;
use crate::config::Config;
use crate::database::{Connector, DatabaseSettings};
use crate::document::{Problem, Problems};
use crate::sources::{
    AgentEdit, AgentList, AgentOrigin, EditResult, FileEvent, FileScan, Origin, WatchFiles, WatchList,
};
use crate::store::FileStore;
use crate::toggle::{AgentDefinition, Watch};
use crate::web::WebFile;

/// What a configuration contains. As text, the number of watches, agents, APIs and watch files.
#[derive(Debug)]
pub struct CheckResult {
    apis: Vec<Api>,
    /// The watches of the configuration and its watch files that take effect.
    watches: Vec<Arc<Watch>>,
    /// The agents of the configuration and its watch files that take effect, sorted by API and id.
    agents: Vec<Arc<AgentDefinition>>,
    database: Option<DatabaseSettings>,
    /// How many watch files there are; `None` if none are configured.
    files: Option<usize>,
}

/// The configuration, as the origin of a definition.
const CONFIGURATION: &str = "the configuration";

/// Checks the watch files and the state file of a configuration. Blocks.
///
/// A missing folder of watch files is a warning, because it may be created later, as a key file may. A watch whose
/// name is taken by another source is a warning, too, and so is an agent that another source defines. Everything else
/// that is wrong in a watch file is a problem.
pub fn files(config: Option<Config>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Option<CheckResult> {
    let config = config?;
    check_state_file(&config, problems);
    if problems.iter().any(|problem| problem.path.starts_with("apis")) {
        // The APIs that a watch may name are not known.
        return None;
    }
    let apis = inserted(config.apis.iter().map(|api| api.name.clone()));
    let mut scan = WatchFiles::new(config.watch_files.clone(), apis).scan();
    for event in std::mem::take(&mut scan.events) {
        match event {
            FileEvent::GlobFailed { problems: of_glob, .. } => warnings.extend(of_glob),
            FileEvent::FileFailed { problems: of_file, .. } => problems.extend(of_file),
            FileEvent::FileChanged { .. }
            | FileEvent::GlobRecovered { .. }
            | FileEvent::FileRecovered { .. }
            | FileEvent::FileRemoved { .. } => {}
        }
    }
    let (apis, files) = (config.apis.clone(), (!config.watch_files.is_empty()).then_some(scan.files.len()));
    let database = config.database.clone();
    let (watches, agents) = merged(config, scan);
    warnings.extend(refused_watches(&watches));
    warnings.extend(refused_agents(&agents));
    let watches = watches.changes.into_iter().filter_map(|change| change.definition).map(|definition| definition.watch);
    let agents = agents.changes.into_iter().filter_map(|change| change.definition);
    Some(CheckResult { apis, watches: watches.collect(), agents: agents.collect(), database, files })
}

/// The proxies that these variables name.
///
/// # Errors
/// The variables that cannot be used.
pub fn proxies(variable: impl Fn(&str) -> Option<OsString>) -> Result<Proxies, Problems> {
    Proxies::from_env(variable).map_err(|bad| {
        let problem = |BadProxy { variable, what }| Problem::new(variable.to_owned(), String::new(), what);
        Problems(bad.into_iter().map(problem).collect())
    })
}

/// Reads the web configuration, if there is one, and the files that it names. Blocks.
pub fn web(path: Option<&Path>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    match path.map(WebFile::open) {
        Some(Ok((_, of_web))) => warnings.extend(of_web),
        Some(Err(of_web)) => problems.extend(of_web.0),
        None => {}
    }
}

fn check_state_file(config: &Config, problems: &mut Vec<Problem>) {
    if let Some(file) = &config.state_file
        && let Err(error) = FileStore::check(&file.path)
    {
        let origin = file.path.display().to_string();
        problems.push(Problem::new(origin, "", error.to_string()));
    }
}

/// The watches and the agents of the configuration and its files, merged.
fn merged(config: Config, scan: FileScan) -> (EditResult, AgentEdit) {
    let (mut watches, mut agents) = (WatchList::default(), AgentList::default());
    let mut edit = watches.edit();
    let apis: BTreeSet<_> = inserted(config.apis.into_iter().map(|api| api.name));
    edit.set_apis(apis.clone());
    agents.set_apis(apis);
    edit.replace(&Origin::Config, config.watches.into_iter().map(Into::into));
    agents.replace(AgentOrigin::Config, config.agents);
    for (path, read) in scan.files {
        edit.replace(&Origin::File(path.clone()), read.watches.iter().cloned().map(Into::into));
        agents.replace(AgentOrigin::File(path), read.agents.clone());
    }
    (edit.finish(&|_| false), agents.finish_edit())
}

/// A warning for each watch of a file whose name is taken by another source.
fn refused_watches(edited: &EditResult) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for refused in &edited.refused {
        if let (Origin::File(path), Some(by)) = (&refused.origin, &refused.by) {
            let by = match by {
                Origin::File(path) => path.display().to_string(),
                Origin::Config | Origin::Http => CONFIGURATION.to_owned(),
            };
            let what = format!("the name `{}` is taken by {by}: this watch is refused", refused.watch.name);
            warnings.push(Problem::new(path.display().to_string(), "", what));
        }
    }
    warnings
}

/// A warning for each agent of a file that another source defines, too.
fn refused_agents(edited: &AgentEdit) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for refused in &edited.refused {
        if let (AgentOrigin::File(path), Some(by)) = (&refused.origin, &refused.by) {
            let by = match by {
                AgentOrigin::File(path) => path.display().to_string(),
                AgentOrigin::Config | AgentOrigin::Discovered(_) => CONFIGURATION.to_owned(),
            };
            let (api, agent_id) = (refused.definition.api.as_str(), refused.definition.agent_id);
            let what = format!("agent {agent_id} of the API `{api}` is defined by {by}: this definition is refused");
            warnings.push(Problem::new(path.display().to_string(), "", what));
        }
    }
    warnings
}

// === impl CheckResult ===

impl CheckResult {
    /// Connects to the database of the configuration, if it has one.
    pub fn connector(&self) -> Option<Connector> {
        self.database.clone().map(Connector::new)
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (watches, agents, apis) = (self.watches.len(), self.agents.len(), self.apis.len());
        write!(f, "{watches} {}", if watches == 1 { "watch" } else { "watches" })?;
        write!(f, ", {agents} {}", if agents == 1 { "agent" } else { "agents" })?;
        write!(f, ", {apis} {}", if apis == 1 { "API" } else { "APIs" })?;
        match self.files {
            Some(1) => f.write_str(", 1 watch file"),
            Some(files) => write!(f, ", {files} watch files"),
            None => Ok(()),
        }
    }
}
