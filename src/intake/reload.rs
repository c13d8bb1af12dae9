//! Putting a configuration in force: the first one and every later one, in the same way.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::follow::Rescan;
use super::reloader::PreparedReload;
use super::watch_files::{remove_uncovered_files, replace_files};
use super::{ConfigSnapshot, Intake, events};
use crate::cekura::{self, Api, ApiClients, Client};
use crate::clock;
use crate::config::{Config, LoadedConfig};
use crate::document::Problems;
use crate::poller::PollerSettings;
use crate::sources::{AgentOrigin, EditResult, Origin, share_equal};
use crate::tasks::boxed;

impl Intake {
    /// Ends a reload: puts what was read in force, or reports the problems.
    pub(super) async fn reload(&mut self, loaded: Result<Box<PreparedReload>, Problems>) -> Result<(), Problems> {
        let done = match loaded {
            Ok(loaded) => {
                let PreparedReload { checked: LoadedConfig { config, warnings }, clients, scan } = *loaded;
                warnings.iter().for_each(events::configuration_warning);
                self.put_in_force(config, clients, scan).await;
                Ok(())
            }
            Err(problems) => Err(problems),
        };
        self.context.metrics.reloaded(done.is_ok(), clock::now());
        events::reloaded(done.as_ref().err());
        self.report_reload(done.as_ref().err());
        done
    }

    /// Puts a configuration in force as a whole. Nothing in this can fail.
    pub(super) async fn put_in_force(&mut self, mut config: Config, clients: ApiClients, scan: Rescan) {
        // Watches that are the same would otherwise be in memory twice: the list keeps the old ones.
        share_equal(&mut config.watches, &self.config.watches);
        // Reading the configuration has already warned of its watches.
        self.warned_of_many |= config.watches.len() > Config::MANY_WATCHES;
        self.registrations.set_retention(config.registrations.retention.clone());
        let edited = self.edit_list(&config, &clients, &scan);
        self.forget_discoveries(&config.apis);
        self.follow_files(&clients);
        let settings = PollerSettings { polling: config.polling.clone(), apis: clients.0.clone() };
        self.publish(edited, Some(settings)).await;
        match &scan.scan {
            Some(scan) => {
                self.note_scan(scan);
                self.report_files(&config.watch_files, scan);
            }
            None => self.note_late_scan(&config.watch_files),
        }
        self.rescan = scan.number;
        self.forget_all_inactive();
        if config.registrations.enabled && !self.config.registrations.enabled {
            self.warn_if_exposed();
        }
        self.context.metrics.set_external_url(config.external_url.clone());
        (self.config, self.apis) = (Arc::new(config), clients.names());
        let snapshot = ConfigSnapshot { config: self.config.clone(), apis: Arc::new(self.apis.clone()) };
        self.snapshots.send_replace(snapshot);
        self.context.clients.put_in_force(&clients);
    }

    /// Updates the lists from the configuration, the registrations and the watch files.
    fn edit_list(&mut self, config: &Config, clients: &ApiClients, scan: &Rescan) -> EditResult {
        let mut edit = self.list.edit();
        edit.set_apis(clients.names());
        self.agents.set_apis(clients.names());
        self.agents.replace(AgentOrigin::Config, config.agents.clone());
        edit.replace(&Origin::Config, config.watches.iter().cloned().map(Into::into));
        let enabled = config.registrations.enabled;
        if enabled != self.config.registrations.enabled {
            let registered = if enabled { self.registrations.definitions() } else { Vec::new() };
            edit.replace(&Origin::Http, registered);
        }
        match &scan.scan {
            Some(scan) => _ = replace_files(&mut edit, &mut self.agents, &mut self.definitions_by_file, scan),
            None => {
                remove_uncovered_files(&mut edit, &mut self.agents, &mut self.definitions_by_file, &config.watch_files);
            }
        }
        edit.finish(&|old| self.registrations.has_run_of(old))
    }

    /// Takes note of another web configuration, and warns if it no longer authenticates.
    pub(super) fn web_changed(&mut self) {
        let authenticates = self.context.web.borrow_and_update().authenticates();
        let did = std::mem::replace(&mut self.authenticates, authenticates);
        if did && self.config.registrations.enabled {
            self.warn_if_exposed();
        }
    }

    /// Warns if anybody on the network can register watches.
    fn warn_if_exposed(&self) {
        if self.context.exposed && !self.authenticates {
            events::registrations_exposed();
        }
    }

    /// Follows the key files and authorities of these APIs, and of no others.
    fn follow_files(&mut self, ApiClients(apis): &ApiClients) {
        let is_kept =
            |old: &(Api, Arc<Client>)| apis.iter().any(|new| old.0.name == new.0.name && Arc::ptr_eq(&old.1, &new.1));
        for (api, _) in self.context.clients.current().0.iter().filter(|old| !is_kept(old)) {
            self.follower_of.remove(&api.name).inspect(AbortHandle::abort);
        }
        for (api, client) in apis {
            if client.reads_files() && !self.follower_of.contains_key(&api.name) {
                let renewals = self.context.renewals.clone();
                let following = cekura::follow_files(api.name.clone(), client.clone(), renewals);
                self.follower_of.insert(api.name.clone(), self.followers.spawn(boxed(following)));
            }
        }
    }
}
