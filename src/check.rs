//! Checking the files that a configuration names, without using them, and its APIs, by one poll each.

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

/// What a configuration comes to. As text, how much of everything that is.
#[derive(Debug)]
pub struct CheckResult {
    apis: Vec<Api>,
    /// Those that hold: of the configuration and of its watch files.
    watches: Vec<Arc<Watch>>,
    /// How many watch files there are; `None` if none are configured.
    files: Option<usize>,
}

/// What one poll of an API brought. As text, a line that says so.
#[derive(Debug)]
pub struct PollCheck {
    /// Whether the API answered validly, or as it answers where there is nothing to ask for.
    pub is_good: bool,
    api: ApiName,
    what: String,
}

/// Reads the watch files and the state file of a configuration, as far as it could be read. Blocks.
///
/// A folder of watch files that is missing is a warning: it may come, as a key file may. What is
/// wrong in a watch file is a problem. A watch whose name belongs to another source is a warning.
pub fn files(config: Option<Config>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Option<CheckResult> {
    let config = config?;
    check_state_file(&config, problems);
    if problems.iter().any(|problem| problem.path.starts_with("apis")) {
        // It is not known which APIs a watch may name.
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
    let edited = merged(config, scan);
    warnings.extend(refused(&edited));
    let watches = edited.changes.into_iter().filter_map(|change| change.now).map(|definition| definition.watch);
    Some(CheckResult { apis, watches: watches.collect(), files })
}

/// Polls every API of a good configuration once, all at a time: with one of its watches, or else for a task that
/// cannot exist. Reads the key files at once, which blocks; what it returns needs a runtime, and takes no longer
/// than the longest timeout of an API.
///
/// # Errors
/// If TLS cannot be set up.
pub fn polls(found: CheckResult, proxies: Proxies) -> Result<impl Future<Output = Vec<PollCheck>>, Box<dyn Error>> {
    let nothing = ProgressId::parse("cekura-exporter-config-check")?;
    let clients = Clients::new(proxies).of(found.apis)?;
    let polls = clients.0.into_iter().map(|(api, client)| {
        let watch = found.watches.iter().find(|watch| watch.api == api.name).cloned();
        (api.name, client, watch, nothing.clone())
    });
    let polls: Vec<_> = polls.collect();
    Ok(async move {
        let mut under_way = JoinSet::new();
        for (api, client, watch, nothing) in polls {
            under_way.spawn(async move { poll(api, &client, watch.as_deref(), &nothing).await });
        }
        let mut checks = under_way.join_all().await;
        checks.sort_by(|one, other| one.api.cmp(&other.api));
        checks
    })
}

async fn poll(api: ApiName, client: &Client, watch: Option<&Watch>, nothing: &ProgressId) -> PollCheck {
    let (agent_id, id) = watch.map_or((AgentId::FIRST, nothing), |watch| (watch.agent_id, &watch.progress_id));
    match client.poll(agent_id, id).await.outcome {
        Ok(answer) => {
            let status = match answer.status {
                ReportedStatus::InProgress => "in_progress".to_owned(),
                ReportedStatus::Completed => "completed".to_owned(),
                ReportedStatus::Failed => "failed".to_owned(),
                other => other.raw().map(|raw| raw.to_string()).unwrap_or_default(),
            };
            PollCheck { is_good: true, api, what: format!("{}: {status}", client.request_line(agent_id)) }
        }
        Err(failure) => {
            let is_good = watch.is_none() && matches!(failure.reason, Reason::BadRequest | Reason::NotFound);
            let detail = failure.detail.map_or_else(|| client.request_line(agent_id), |detail| detail.to_string());
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

/// What holds of the watches of the configuration and its files, and what does not.
fn merged(config: Config, scan: FileScan) -> EditResult {
    let mut list = WatchList::default();
    let mut edit = list.edit();
    edit.set_apis(config.apis.into_iter().map(|api| api.name).collect());
    edit.replace(&Origin::Config, config.watches.into_iter().map(Into::into));
    for (path, watches) in scan.files {
        edit.replace(&Origin::File(path), watches.iter().cloned().map(Into::into));
    }
    edit.finish(|_| false)
}

/// The watches of files whose names belong to others.
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
