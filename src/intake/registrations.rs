//! Registering, deregistering and expiring watches: first on the disk, then on the board, then answered.

use std::collections::HashSet;
use std::sync::Arc;

use super::table::RegistrationTable;
use super::{Intake, IntakeCommand, Registered, RegistrationError, Responder, events, reply};
use crate::clock;
use crate::sources::Origin;
use crate::store::{Registration, RegistrationChange, Store, StoreError};
use crate::toggle::{Source, Watch, WatchName};

/// The most registrations that share a commit.
const BATCH: usize = 256;

/// Answers a client with the result of the commit.
type CommitReply = Box<dyn FnOnce(Result<(), RegistrationError>) + Send>;

/// Changes that are committed together, of one name each.
#[derive(Default)]
struct RegistrationBatch {
    names: HashSet<WatchName>,
    changes: Vec<RegistrationChange>,
    replies: Vec<CommitReply>,
    /// How many of the changes register a new name.
    created: usize,
}

/// What a valid registration changes.
enum CheckedRegistration {
    /// Nothing: it equals the stored one.
    Unchanged,
    /// This registration is to be committed.
    Commit(Registration, Registered),
}

// === impl RegistrationBatch ===

impl RegistrationBatch {
    /// Whether the command changes a registration that the batch does not change yet.
    fn accepts(&self, command: &IntakeCommand) -> bool {
        let name = match command {
            IntakeCommand::Register(watch, _) => &watch.name,
            IntakeCommand::Deregister(name, _) => name,
            _ => return false,
        };
        !self.names.contains(name)
    }

    /// Adds a change, and what replies to its client when it is committed.
    fn add(&mut self, change: RegistrationChange, reply: CommitReply) {
        self.names.insert(change.name().clone());
        self.changes.push(change);
        self.replies.push(reply);
    }
}

// === impl Intake ===

impl Intake {
    /// Carries out this command together with those behind it in the queue, as long as they change
    /// registrations, too, and of other names. Returns the first command that does not.
    pub(super) async fn change_registrations(&mut self, first: IntakeCommand) -> Option<IntakeCommand> {
        if let Err(error) = self.catch_up().await {
            refuse(first, &RegistrationError::of_store(&error));
            return None;
        }
        let mut batch = RegistrationBatch::default();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(command) = next.take_if(|command| batch.accepts(command)) {
            match command {
                IntakeCommand::Register(watch, responder) => self.add_registration(watch, responder, &mut batch),
                IntakeCommand::Deregister(name, responder) => self.add_removal(name, responder, &mut batch),
                // The batch accepts no others.
                _ => {}
            }
            taken += 1;
            // After a full batch, the other work of the intake gets a turn.
            next = if taken < BATCH { self.commands.try_recv().ok() } else { None };
        }
        let RegistrationBatch { changes, replies, .. } = batch;
        let committed = self.commit(changes, events::deregistered).await;
        for reply in replies {
            reply(committed.clone());
        }
        next
    }

    /// Adds a registration to the batch, or answers at once if there is nothing to commit.
    fn add_registration(
        &self,
        watch: Watch,
        responder: Responder<Result<Registered, RegistrationError>>,
        batch: &mut RegistrationBatch,
    ) {
        match self.check_registration(watch, batch.created) {
            Ok(CheckedRegistration::Commit(registration, registered)) => {
                batch.created += usize::from(registered == Registered::Created);
                let reply = move |committed: Result<(), _>| reply(responder, committed.map(|()| registered));
                batch.add(RegistrationChange::Put(registration), Box::new(reply));
            }
            Ok(CheckedRegistration::Unchanged) => reply(responder, Ok(Registered::Replaced)),
            Err(error) => reply(responder, Err(error)),
        }
    }

    /// Checks a registration. `created` is how many new names the batch has already.
    fn check_registration(&self, watch: Watch, created: usize) -> Result<CheckedRegistration, RegistrationError> {
        self.check_name(&watch.name)?;
        if !self.apis.contains(&watch.api) {
            return Err(RegistrationError::UnknownApi);
        }
        let now = self.registrations.now();
        match self.registrations.get(&watch.name) {
            // Whether the state file has an uncertain one is not known.
            Some(old) if *old.watch == watch && self.uncertain.contains(&watch.name) => {
                Ok(CheckedRegistration::Commit(old.clone(), Registered::Replaced))
            }
            Some(old) if *old.watch == watch => Ok(CheckedRegistration::Unchanged),
            Some(old) => {
                let started = if old.watch.same_run(&watch) { old.started } else { now };
                let watch = Arc::new(watch);
                let registration = Registration { watch, started, registered: now };
                Ok(CheckedRegistration::Commit(registration, Registered::Replaced))
            }
            None if self.most_stored() + created >= self.max_registrations() => {
                Err(RegistrationError::Full(self.config.registrations.max))
            }
            None => {
                let registration = Registration { watch: Arc::new(watch), started: now, registered: now };
                Ok(CheckedRegistration::Commit(registration, Registered::Created))
            }
        }
    }

    /// Adds a removal to the batch, or answers at once if there is nothing to remove.
    fn add_removal(
        &self,
        name: WatchName,
        responder: Responder<Result<(), RegistrationError>>,
        batch: &mut RegistrationBatch,
    ) {
        let is_known = self.registrations.get(&name).is_some() || self.uncertain.contains(&name);
        let known = is_known.then_some(()).ok_or(RegistrationError::NotRegistered);
        match self.check_name(&name).and(known) {
            Ok(()) => {
                let reply = move |committed| reply(responder, committed);
                batch.add(RegistrationChange::Remove(name), Box::new(reply));
            }
            Err(error) => reply(responder, Err(error)),
        }
    }

    /// Whether this name can be registered and removed over HTTP.
    fn check_name(&self, name: &WatchName) -> Result<(), RegistrationError> {
        if !self.config.registrations.enabled {
            return Err(RegistrationError::Disabled);
        }
        match self.list.origin_of(name).map(Origin::source) {
            Some(source @ (Source::Config | Source::File)) => Err(RegistrationError::NameTaken(source)),
            Some(Source::Http) | None => Ok(()),
        }
    }

    /// How many registrations are kept. There may be more, if the limit was higher before.
    fn max_registrations(&self) -> usize {
        usize::try_from(self.config.registrations.max.get()).unwrap_or(usize::MAX)
    }

    /// The most registrations that the state file may have: those in the table, and those whose removal
    /// failed or whose registration failed half way.
    fn most_stored(&self) -> usize {
        let unknown = self.uncertain.iter().filter(|name| self.registrations.get(name).is_none()).count();
        self.registrations.len() + unknown
    }

    /// Removes a batch of expired registrations. Returns whether there may be more.
    pub(super) async fn expire(&mut self) -> bool {
        self.registrations.apply_jumps();
        if !self.uncertain.is_empty() && self.rewrite_uncertain().await.is_err() {
            return false;
        }
        let (expired, more) = self.registrations.expired(&self.context.board, clock::now(), BATCH);
        let changes = expired.iter().map(|name| RegistrationChange::Remove(name.clone())).collect();
        if self.commit(changes, events::expired).await.is_err() {
            self.registrations.check_again(expired);
            return false;
        }
        more
    }

    /// Writes the registrations of a batch of uncertain names to the state file again.
    async fn rewrite_uncertain(&mut self) -> Result<(), RegistrationError> {
        let current = |name: &WatchName| match self.registrations.get(name) {
            Some(registration) => RegistrationChange::Put(registration.clone()),
            None => RegistrationChange::Remove(name.clone()),
        };
        let changes: Vec<_> = self.uncertain.iter().take(BATCH).map(current).collect();
        self.write(&changes).await
    }

    /// Writes changes to the state file and then applies them. `removed` logs each removal.
    async fn commit(
        &mut self,
        changes: Vec<RegistrationChange>,
        removed: fn(&WatchName),
    ) -> Result<(), RegistrationError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(&changes).await?;
        let names: Vec<_> = changes.iter().map(|change| change.name().clone()).collect();
        let mut edit = self.list.edit();
        for change in changes {
            match change {
                RegistrationChange::Put(registration) => {
                    events::registered(&registration.watch);
                    edit.define(&Origin::Http, RegistrationTable::definition(&registration));
                    self.registrations.insert(registration);
                }
                RegistrationChange::Remove(name) => {
                    edit.remove(&Origin::Http, &name);
                    self.registrations.remove(&name);
                    removed(&name);
                }
            }
        }
        let edited = edit.finish(&|old| self.registrations.has_run_of(old));
        self.publish(edited, None).await;
        self.forget_inactive(&names);
        Ok(())
    }

    /// Writes changes to the state file. If that fails, their names are uncertain until they are written
    /// again. Logs each new error once, and when writing works again.
    async fn write(&mut self, changes: &[RegistrationChange]) -> Result<(), RegistrationError> {
        let written = match &self.context.store {
            Some(store) => store.register(changes.to_vec()).await.map_err(|error| RegistrationError::of_store(&error)),
            None => Err(RegistrationError::NotStored("there is no state file and no database".to_owned())),
        };
        let names = changes.iter().map(RegistrationChange::name);
        match &written {
            Ok(()) => {
                names.for_each(|name| _ = self.uncertain.remove(name));
                if self.write_error.take().is_some() {
                    events::stored_again();
                }
            }
            Err(error) => {
                // Whether a database has them is seen at the next catch-up.
                if let Some(Store::File(_)) = &self.context.store {
                    self.uncertain.extend(names.cloned());
                }
                if self.write_error.as_ref() != Some(error) {
                    events::not_stored(error);
                    self.write_error = Some(error.clone());
                }
            }
        }
        written
    }
}

/// Refuses a command that changes a registration.
fn refuse(command: IntakeCommand, error: &RegistrationError) {
    match command {
        IntakeCommand::Register(_, responder) => reply(responder, Err(error.clone())),
        IntakeCommand::Deregister(_, responder) => reply(responder, Err(error.clone())),
        _ => {}
    }
}

// === impl RegistrationError ===

impl RegistrationError {
    fn of_store(error: &StoreError) -> Self {
        let problem = format!("{} {error}", error.subject());
        if error.is_disk_full() { Self::DiskFull(problem) } else { Self::NotStored(problem) }
    }
}
