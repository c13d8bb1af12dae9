//! Putting a configuration in force: the first one and each that is read later, on one path.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::follow::Rescan;
use super::reloader::PreparedReload;
use super::{ConfigSnapshot, Intake, keep_covered, lay_files};
use crate::cekura::{self, Api, ApiClients, Client};
use crate::clock;
use crate::config::{Config, LoadedConfig};
use crate::document::Problems;
use crate::intake::events;
use crate::poller::PollerSettings;
use crate::sources::{Origin, share_equal};
use crate::toggle::Source;

impl Intake {
    /// Puts a configuration in force that was read again.
    pub(super) async fn reload(&mut self, ready: Result<Box<PreparedReload>, Problems>) -> Result<(), Problems> {
        let done = match ready {
            Ok(ready) => {
                let PreparedReload { checked: LoadedConfig { config, warnings }, clients, scan } = *ready;
                warnings.iter().for_each(events::configuration_warning);
                self.put_in_force(config, clients, scan).await;
                Ok(())
            }
            Err(problems) => Err(problems),
        };
        self.means.metrics.reloaded(done.is_ok(), clock::now());
        events::reloaded(done.as_ref().err());
        done
    }

    /// Puts a configuration in force, all at once. Nothing in this can fail.
    pub(super) async fn put_in_force(&mut self, mut config: Config, clients: ApiClients, scan: Rescan) {
        let apis = clients.names();
        // Else those that stay would be in memory twice: the list keeps what it has.
        share_equal(&mut config.watches, &self.config.watches);
        // Of those of the configuration alone it was warned when it was read.
        self.warned_of_many |= config.watches.len() > Config::MANY_WATCHES;
        self.registry.set_retention(config.registrations.retention.clone());
        let mut edit = self.list.edit();
        edit.set_apis(apis.clone());
        edit.replace(&Origin::Config, config.watches.iter().cloned().map(Into::into));
        if config.registrations.enabled != self.config.registrations.enabled {
            let registered = if config.registrations.enabled { self.registry.definitions() } else { Vec::new() };
            edit.replace(&Origin::Http, registered);
        }
        self.scans = scan.number;
        match &scan.scan {
            Some(scan) => _ = lay_files(&mut edit, &mut self.laid, scan),
            None => keep_covered(&mut edit, &mut self.laid, &config.watch_files),
        }
        let edited = edit.finish(|old| self.registry.has_run_of(old));
        self.follow_files(&clients);
        let settings = PollerSettings { polling: config.polling.clone(), apis: clients.0.clone() };
        self.publish(edited, Some(settings)).await;
        match &scan.scan {
            Some(scan) => self.note_scan(scan),
            None => self.note_no_scan(&config),
        }
        self.forget_all_remembered();
        if config.registrations.enabled && !self.config.registrations.enabled {
            self.warn_if_exposed();
        }
        self.means.metrics.set_agents(&config.agents);
        self.means.metrics.set_external_url(config.external_url.clone());
        let config = Arc::new(config);
        self.in_force.send_replace(ConfigSnapshot { config: config.clone(), apis: Arc::new(apis.clone()) });
        self.means.clients.put_in_force(&clients);
        (self.config, self.apis) = (config, apis);
    }

    /// Another web configuration is in force.
    pub(super) fn note_web(&mut self) {
        let authenticates = self.means.web.borrow_and_update().authenticates();
        let did = std::mem::replace(&mut self.authenticates, authenticates);
        if did && self.config.registrations.enabled {
            self.warn_if_exposed();
        }
    }

    /// Says that anybody can register, if it is so.
    fn warn_if_exposed(&self) {
        if self.means.exposed && !self.authenticates {
            events::registrations_exposed();
        }
    }

    /// The watch files could not be looked at in time. Nothing is known to be up.
    fn note_no_scan(&mut self, config: &Config) {
        let globs = config.watch_files.iter().map(|glob| (Source::File, glob.configured(), false));
        self.means.metrics.set_sources(globs);
        self.all_up = false;
    }

    /// Keeps up with the files of these APIs, and of no others.
    fn follow_files(&mut self, ApiClients(apis): &ApiClients) {
        let same =
            |old: &(Api, Arc<Client>)| apis.iter().any(|new| old.0.name == new.0.name && Arc::ptr_eq(&old.1, &new.1));
        for (api, _) in self.means.clients.current().0.iter().filter(|old| !same(old)) {
            self.follower_of.remove(&api.name).inspect(AbortHandle::abort);
        }
        for (api, client) in apis {
            if client.reads_files() && !self.follower_of.contains_key(&api.name) {
                let changes = self.means.renewals.clone();
                let following = cekura::follow_files(api.name.clone(), client.clone(), changes);
                self.follower_of.insert(api.name.clone(), self.followers.spawn(following));
            }
        }
    }
}
