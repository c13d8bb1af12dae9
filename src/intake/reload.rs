//! Putting a configuration in force: the first one and each that is read later, on one path.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::{InForce, Intake, keep_covered, lay_files, problem};
use crate::cekura::{self, Api, Client, Keyring};
use crate::clock;
use crate::config::{Checked, Config, Problems};
use crate::intake::events;
use crate::poller::Settings;
use crate::sources::{Origin, Scan, share_equal};
use crate::toggle::{ApiName, Source};

type Clients = Vec<(Api, Arc<Client>)>;

/// The clients of these APIs: those that there are, where how the API is reached is the same.
pub(super) async fn clients(
    before: &[(Api, Arc<Client>)],
    apis: Vec<Api>,
    proxies: bool,
    keyring: &Keyring,
) -> Result<Clients, Box<dyn Error + Send + Sync>> {
    let (before, keyring) = (before.to_vec(), keyring.clone());
    // A new client reads its key file.
    let building = tokio::task::spawn_blocking(move || {
        let client = |api: Api| {
            let kept = before.iter().find(|(old, _)| old.is_asked_like(&api)).map(|(_, client)| client.clone());
            let client = kept.map_or_else(|| Client::new(&api, proxies, keyring.clone()).map(Arc::new), Ok)?;
            Ok((api, client))
        };
        apis.into_iter().map(client).collect()
    });
    building.await?
}

/// The names of the APIs.
pub(super) fn names(apis: &[(Api, Arc<Client>)]) -> BTreeSet<ApiName> {
    apis.iter().map(|(api, _)| api.name.clone()).collect()
}

impl Intake {
    /// Puts a configuration in force that was read again, and reads the watch files again.
    pub(super) async fn reload(&mut self, read: Result<Box<Checked>, Problems>) -> Result<(), Problems> {
        let done = match read {
            Ok(checked) => self.try_reload(*checked).await,
            Err(problems) => Err(problems),
        };
        self.means.metrics.reloaded(done.is_ok(), clock::now());
        events::reloaded(done.as_ref().err());
        done
    }

    /// Up to where everything is known to be good, nothing is changed.
    async fn try_reload(&mut self, checked: Checked) -> Result<(), Problems> {
        let Checked { config, warnings } = checked;
        warnings.iter().for_each(events::configuration_warning);
        self.refuse_what_needs_a_restart(&config)?;
        let apis = clients(&self.apis, config.apis.clone(), self.means.proxies, &self.keyring).await;
        let apis = apis.map_err(|error| problem("apis", format!("cannot be set up: {error}")))?;
        let scan = self.files.rescan(config.watch_files.clone(), names(&apis)).await;
        self.put_in_force(config, apis, scan).await;
        Ok(())
    }

    fn refuse_what_needs_a_restart(&self, config: &Config) -> Result<(), Problems> {
        let path = |config: &Config| config.state_file.as_ref().map(|file| file.path.clone());
        if path(config) == path(&self.config) {
            return Ok(());
        }
        let what = "cannot change while the exporter runs: restart it, or set the old one again";
        Err(problem("state_file", what.to_owned()))
    }

    /// Puts a configuration in force, all at once. Nothing in this can fail.
    pub(super) async fn put_in_force(&mut self, mut config: Config, apis: Clients, scan: Option<Scan>) {
        // Else those that stay would be in memory twice: the list keeps what it has.
        share_equal(&mut config.watches, &self.config.watches);
        // Of those of the configuration alone it was warned when it was read.
        self.warned_of_many |= config.watches.len() > Config::MANY_WATCHES;
        self.registry.set_retention(config.registrations.retention.clone());
        let mut edit = self.list.edit();
        edit.set_apis(names(&apis));
        edit.replace(&Origin::Config, config.watches.iter().cloned().map(Into::into));
        if config.registrations.enabled != self.config.registrations.enabled {
            let registered = if config.registrations.enabled { self.registry.definitions() } else { Vec::new() };
            edit.replace(&Origin::Http, registered);
        }
        match &scan {
            Some(scan) => _ = lay_files(&mut edit, &mut self.laid, scan),
            None => keep_covered(&mut edit, &mut self.laid, &config.watch_files),
        }
        let edited = edit.finish(|old| self.registry.has_run_of(old));
        self.follow_keys(&apis);
        let settings = Settings { polling: config.polling.clone(), apis: apis.clone() };
        self.publish(edited, Some(settings)).await;
        match &scan {
            Some(scan) => self.note_scan(scan),
            None => self.note_no_scan(&config),
        }
        self.forget_all_remembered();
        if config.registrations.enabled && !self.config.registrations.enabled {
            self.warn_if_exposed();
        }
        let config = Arc::new(config);
        self.in_force.send_replace(InForce { config: config.clone(), apis: Arc::new(names(&apis)) });
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

    /// Keeps up with the key files of these APIs, and of no others.
    fn follow_keys(&mut self, apis: &[(Api, Arc<Client>)]) {
        let same =
            |old: &(Api, Arc<Client>)| apis.iter().any(|new| old.0.name == new.0.name && Arc::ptr_eq(&old.1, &new.1));
        for (api, _) in self.apis.iter().filter(|old| !same(old)) {
            self.key_follower_of.remove(&api.name).inspect(AbortHandle::abort);
        }
        for (api, client) in apis {
            if client.key_is_in_a_file() && !self.key_follower_of.contains_key(&api.name) {
                let changes = self.means.key_changes.clone();
                let following = cekura::follow_key(api.name.clone(), client.clone(), changes);
                self.key_follower_of.insert(api.name.clone(), self.key_followers.spawn(following));
            }
        }
    }
}
