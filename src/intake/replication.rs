//! Following what other replicas did: their registrations and what they saved, and which shards this one owns.

use std::collections::BTreeSet;

use super::table::RegistrationTable;
use super::{Intake, IntakeCommand, Responder, reply};
use crate::poller::{Replication, Share};
use crate::sources::{EditResult, Origin};
use crate::store::{NewRegistrations, RegistrationChange, Store, StoreError};
use crate::toggle::{ShardSet, WatchName};

impl Intake {
    /// Reads what other replicas registered, and answers this client and those behind it in the queue that wait for the
    /// same. Returns the first command that does not.
    pub(super) async fn catch_up_for(&mut self, first: Responder<Result<(), String>>) -> Option<IntakeCommand> {
        let (mut responders, mut next) = (vec![first], None);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                IntakeCommand::CatchUp(responder) => responders.push(responder),
                other => {
                    next = Some(other);
                    break;
                }
            }
        }
        let caught_up = self.catch_up().await.map_err(|error| format!("{} {error}", error.subject()));
        for responder in responders {
            reply(responder, caught_up.clone());
        }
        next
    }

    /// Reads what other replicas registered. When this returns `Ok`, everything that was acknowledged before it was called
    /// is on the board. Does nothing if there are no other replicas.
    pub(super) async fn catch_up(&mut self) -> Result<(), StoreError> {
        if let Some(store @ Store::Database(_)) = &self.context.store {
            let new = store.new_registrations().await?;
            let names = names(&new);
            let edited = self.edit_registrations(new);
            self.publish(edited, None).await;
            self.forget_inactive(&names);
        }
        Ok(())
    }

    /// Takes over what other replicas did. Returns whether what they registered could be read.
    pub(super) async fn replicate(&mut self, replication: Replication) -> bool {
        let given = replication.share.map_or(ShardSet::NONE, |Share { given, .. }| given);
        let is_shared_anew = replication.share.is_some();
        let new = match &self.context.store {
            Some(store) => store.new_registrations().await,
            None => Ok(NewRegistrations::default()),
        };
        let caught_up = new.is_ok();
        let edited = self.edit_registrations(new.unwrap_or_default());
        self.publish_with(edited, None, replication).await;
        if is_shared_anew {
            self.restore_discoveries_of_others().await;
        }
        if given.is_empty() {
            return caught_up;
        }
        // Whoever owned them before may have expired none for a while, and may have left what nobody lists.
        self.registrations.check_all();
        if caught_up {
            self.forget_all_inactive();
        }
        caught_up
    }

    /// Lists the agents that other replicas discovered, while their API does not list them here. This replica may own them.
    async fn restore_discoveries_of_others(&mut self) {
        let config = self.config.clone();
        if config.apis.iter().any(|api| api.discover_agents && !self.has_listed(&api.name)) {
            self.restore_discoveries(&config.apis, self.context.board.agents_asked_before());
            self.publish(EditResult::default(), None).await;
        }
    }

    /// Applies what other replicas registered to the table and the list.
    fn edit_registrations(&mut self, new: NewRegistrations) -> EditResult {
        let enabled = self.config.registrations.enabled;
        let gone = if new.is_complete { self.registrations.names_without(&names(&new)) } else { Vec::new() };
        let mut edit = self.list.edit();
        for change in new.changes.into_iter().chain(gone.into_iter().map(RegistrationChange::Remove)) {
            match change {
                RegistrationChange::Put(registration) => {
                    if self.registrations.get(&registration.watch.name) == Some(&registration) {
                        continue;
                    }
                    if enabled {
                        edit.define(&Origin::Http, RegistrationTable::definition(&registration));
                    }
                    self.registrations.insert(registration);
                }
                RegistrationChange::Remove(name) => {
                    edit.remove(&Origin::Http, &name);
                    self.registrations.remove(&name);
                }
            }
        }
        edit.finish(&|old| self.registrations.has_run_of(old))
    }
}

fn names(new: &NewRegistrations) -> BTreeSet<WatchName> {
    new.changes.iter().map(|change| change.name().clone()).collect()
}
