//! Log lines about sources, registrations and reloads.

use tracing::{error, info, warn};

use crate::config::Config;
use crate::document::{Problem, Problems};
use crate::intake::RegistrationError;
use crate::sources::{AgentOrigin, FileEvent, Origin, RefusedAgent, RefusedDefinition};
use crate::toggle::{AgentSource, ApiName, Failure, Text, Watch, WatchName};

/// A check of the configuration file panicked, which is a bug.
pub(super) fn config_file_no_longer_followed() {
    error!("reading the configuration file panicked: it is no longer followed, and can still be reloaded");
}

/// A definition of a watch was refused.
pub(super) fn refused(refused: &RefusedDefinition) {
    let (toggle, source) = (refused.watch.name.as_str(), refused.origin.source().as_str());
    let path = path(&refused.origin);
    match &refused.by {
        Some(by) => {
            let (by_source, by_path) = (by.source().as_str(), self::path(by));
            warn!(toggle, source, path, by_source, by_path, "watch refused: its name belongs to another source");
        }
        None => {
            warn!(toggle, source, path, api = refused.watch.api.as_str(), "watch refused: its api is not configured");
        }
    }
}

/// The definition of an agent was refused.
pub(super) fn agent_refused(refused: &RefusedAgent) {
    let (api, agent_id) = (refused.definition.api.as_str(), refused.definition.agent_id.get());
    let (source, path) = agent_origin(&refused.origin);
    if let Some(by) = &refused.by {
        let (by_source, by_path) = agent_origin(by);
        warn!(api, agent_id, source, path, by_source, by_path, "agent refused: another source defines it");
    } else {
        warn!(api, agent_id, source, path, "agent refused: its api is not configured");
    }
}

/// The source of an agent, and its path if it is a file.
fn agent_origin(origin: &AgentOrigin) -> (&'static str, Option<String>) {
    match origin {
        AgentOrigin::Config => (AgentSource::Config.as_str(), None),
        AgentOrigin::File(path) => (AgentSource::File.as_str(), Some(path.display().to_string())),
        AgentOrigin::Discovered(_) => (AgentSource::Discovered.as_str(), None),
    }
}

/// The agents of an API could not be listed.
pub(super) fn listing_failed(api: &ApiName, failure: &Failure) {
    let (reason, detail) = (failure.reason.as_str(), failure.detail.as_ref().map(Text::as_str));
    warn!(api = api.as_str(), reason, detail, "agents could not be listed: the last list stays");
}

/// The agents of an API are listed again.
pub(super) fn listing_recovered(api: &ApiName) {
    info!(api = api.as_str(), "agents are listed again");
}

fn path(origin: &Origin) -> Option<String> {
    match origin {
        Origin::File(path) => Some(path.display().to_string()),
        Origin::Config | Origin::Http => None,
    }
}

/// A scan of the watch files found something else than the one before.
pub(super) fn watch_files(event: &FileEvent) {
    match event {
        FileEvent::FileFailed { path, problems } => {
            for problem in problems {
                warn!(path, %problem, "watch file refused: its last good entries stay");
            }
        }
        FileEvent::GlobFailed { glob, problems } => {
            for problem in problems {
                warn!(glob, %problem, "watch files not found: their last entries stay");
            }
        }
        FileEvent::GlobRecovered { glob } => info!(glob, "watch files are found again"),
        FileEvent::FileRecovered { path } => info!(path, "watch file is valid again"),
        FileEvent::FileChanged { path, watches, agents } => info!(path, watches, agents, "watch file changed"),
        FileEvent::FileRemoved { path } => info!(path, "watch file removed"),
    }
}

/// The saved state of this many watches was dropped.
pub(super) fn forgotten(watches: usize) {
    if watches > 0 {
        info!(watches, "state of watches that no source lists was dropped");
    }
}

/// A reload ended; with the problems if it failed.
pub(super) fn reloaded(problems: Option<&Problems>) {
    let Some(Problems(problems)) = problems else {
        info!("configuration reloaded");
        return;
    };
    for problem in problems {
        error!(%problem, "configuration not reloaded: the one in force stays");
    }
}

/// Something in the configuration is valid, but probably a mistake.
pub fn configuration_warning(warning: &Problem) {
    warn!(%warning, "configuration warning");
}

/// Anybody on the network can register watches.
pub(super) fn registrations_exposed() {
    warn!(
        "registrations are enabled without authentication on an address that is not loopback: anybody there can register watches"
    );
}

/// A watch was registered, or its registration was replaced.
pub(super) fn registered(watch: &Watch) {
    info!(
        toggle = watch.name.as_str(),
        api = watch.api.as_str(),
        agent_id = watch.agent_id.get(),
        progress_id = watch.progress_id.as_str(),
        "toggle registered"
    );
}

/// A registration was removed by a request.
pub(super) fn deregistered(name: &WatchName) {
    info!(toggle = name.as_str(), "toggle deregistered");
}

/// A registration reached the end of its retention.
pub(super) fn expired(name: &WatchName) {
    info!(toggle = name.as_str(), "registration expired");
}

/// Changes of registrations could not be written to the state file.
pub(super) fn not_stored(error: &RegistrationError) {
    if let RegistrationError::NotStored(problem) | RegistrationError::DiskFull(problem) = error {
        error!(problem, "registrations could not be written");
    }
}

/// Changes of registrations can be written again.
pub(super) fn stored_again() {
    info!("registrations are written again");
}

/// There are very many watches.
pub(super) fn many_watches(watches: usize) {
    warn!(watches, series = watches * Config::SERIES_PER_WATCH, "very many watches");
}
