//! `--config.check`: checks the files that a configuration names, and polls its APIs once.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::cekura::{Api, BadProxy, Client, Clients, Proxies};
use crate::config::Config;
use crate::document::{Problem, Problems};
use crate::sources::{EditResult, FileEvent, FileScan, Origin, WatchFiles, WatchList};
use crate::store::Store;
use crate::toggle::{AgentId, ApiName, ProgressId, Reason, ReportedStatus, Watch};
use crate::web::WebFile;

/// What a configuration contains. As text, the number of watches, APIs and watch files.
#[derive(Debug)]
pub struct CheckResult {
    apis: Vec<Api>,
    /// The watches of the configuration and its watch files that take effect.
    watches: Vec<Arc<Watch>>,
    /// How many watch files there are; `None` if none are configured.
    files: Option<usize>,
}

/// The result of polling an API once. As text, one line.
#[derive(Debug)]
pub struct PollCheck {
    /// Whether the answer is valid, or that of an API without watches to a task that does not exist.
    pub is_good: bool,
    api: ApiName,
    what: String,
}

/// Checks the watch files and the state file of a configuration. Blocks.
///
/// A missing folder of watch files is a warning, because it may be created later, as a key file may. A watch whose
/// name is taken by another source is a warning, too. Everything else that is wrong in a watch file is a problem.
pub fn files(config: Option<Config>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Option<CheckResult> {
    let config = config?;
    check_state_file(&config, problems);
    if problems.iter().any(|problem| problem.path.starts_with("apis")) {
        // The APIs that a watch may name are not known.
        return None;
    }
    let apis = config.apis.iter().map(|api| api.name.clone()).collect();
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
    let edited = merged_watches(config, scan);
    warnings.extend(refused(&edited));
    let watches = edited.changes.into_iter().filter_map(|change| change.definition).map(|definition| definition.watch);
    Some(CheckResult { apis, watches: watches.collect(), files })
}

/// Polls every API of a good configuration once, all at the same time: the run of one of its watches, or a task that
/// does not exist. Reads the key files first, which blocks. The returned future needs a runtime, and takes no longer
/// than the longest timeout of an API.
///
/// # Errors
/// If TLS cannot be set up.
pub fn polls(found: CheckResult, proxies: Proxies) -> Result<impl Future<Output = Vec<PollCheck>>, Box<dyn Error>> {
    let no_task = ProgressId::parse("cekura-exporter-config-check")?;
    let clients = Clients::new(proxies).of(found.apis)?;
    let polls = clients.0.into_iter().map(|(api, client)| {
        let watch = found.watches.iter().find(|watch| watch.api == api.name).cloned();
        (api.name, client, watch, no_task.clone())
    });
    let polls: Vec<_> = polls.collect();
    Ok(async move {
        let mut under_way = JoinSet::new();
        for (api, client, watch, no_task) in polls {
            under_way.spawn(async move { poll(api, &client, watch.as_deref(), &no_task).await });
        }
        let mut checks = under_way.join_all().await;
        checks.sort_by(|one, other| one.api.cmp(&other.api));
        checks
    })
}

async fn poll(api: ApiName, client: &Client, watch: Option<&Watch>, no_task: &ProgressId) -> PollCheck {
    let (agent_id, id) = watch.map_or((AgentId::FIRST, no_task), |watch| (watch.agent_id, &watch.progress_id));
    match client.poll(agent_id, id).await.outcome {
        Ok(answer) => {
            let status = match answer.status {
                ReportedStatus::InProgress => "in_progress".to_owned(),
                ReportedStatus::Completed => "completed".to_owned(),
                ReportedStatus::Failed => "failed".to_owned(),
                other => other.raw().map(|raw| raw.to_string()).unwrap_or_default(),
            };
            PollCheck { is_good: true, api, what: format!("{}: {status}", client.progress_request_line(agent_id)) }
        }
        Err(failure) => {
            let is_good = watch.is_none() && matches!(failure.reason, Reason::BadRequest | Reason::NotFound);
            let detail =
                failure.detail.map_or_else(|| client.progress_request_line(agent_id), |detail| detail.to_string());
            let meaning = match failure.reason {
                reason if !is_good => reason.as_str(),
                Reason::NotFound => "reached; either there is no such agent, or the path of base_url is wrong",
                _ => "reached, and the key is accepted",
            };
            PollCheck { is_good, api, what: format!("{detail} ({meaning})") }
        }
    }
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
        && let Err(error) = Store::check(&file.path)
    {
        let origin = file.path.display().to_string();
        problems.push(Problem::new(origin, "", error.to_string()));
    }
}

/// The watches of the configuration and its files, merged.
fn merged_watches(config: Config, scan: FileScan) -> EditResult {
    let mut list = WatchList::default();
    let mut edit = list.edit();
    edit.set_apis(config.apis.into_iter().map(|api| api.name).collect());
    edit.replace(&Origin::Config, config.watches.into_iter().map(Into::into));
    for (path, read) in scan.files {
        edit.replace(&Origin::File(path), read.watches.iter().cloned().map(Into::into));
    }
    edit.finish(|_| false)
}

/// A warning for each watch of a file whose name is taken by another source.
fn refused(edited: &EditResult) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for refused in &edited.refused {
        if let (Origin::File(path), Some(by)) = (&refused.origin, &refused.by) {
            let by = match by {
                Origin::File(path) => path.display().to_string(),
                Origin::Config | Origin::Http => "the configuration".to_owned(),
            };
            let what = format!("the name `{}` is taken by {by}: this watch is refused", refused.watch.name);
            warnings.push(Problem::new(path.display().to_string(), "", what));
        }
    }
    warnings
}

// === impl CheckResult ===

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (watches, apis) = (self.watches.len(), self.apis.len());
        write!(f, "{watches} {}", if watches == 1 { "watch" } else { "watches" })?;
        write!(f, ", {apis} {}", if apis == 1 { "API" } else { "APIs" })?;
        match self.files {
            Some(1) => f.write_str(", 1 watch file"),
            Some(files) => write!(f, ", {files} watch files"),
            None => Ok(()),
        }
    }
}

// === impl PollCheck ===

impl fmt::Display for PollCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.api.as_str(), self.what)
    }
}
