//! The state file: an embedded database that keeps registrations, and what is known of every
//! watch, over restarts.
//!
//! What is in it and what the program uses are two types; `record` leads from one to the other.
//! All of it is read once, when it is opened, and from then on only written.

mod backend;
mod error;
mod open;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, TableDefinition, WriteTransaction};

use self::backend::Disk;
pub use self::error::StoreError;
use self::error::StoreFault;
use crate::toggle::{
    AgentId, AgentMock, ApiName, ClockJump, Event, ProgressId, Run, Tally, Timestamp, Toggle, Watch, WatchName,
};

/// The state file, open and locked. All methods block until the disk has done its part.
#[derive(Debug)]
pub struct Store {
    /// `None` after a transaction failed: redb then refuses everything until it is opened anew.
    database: Mutex<Option<Database>>,
    disk: Disk,
    session: Session,
}

/// One process that has the file open, by what tells it from those before and after it.
///
/// What an earlier process had counted was scraped before it was saved. If that process did not end well,
/// its counters would come back lower than they were, and Prometheus would take all of the count for new. So
/// they count from zero then, and what is counted is marked with the number of the process, so that nothing
/// that was saved before comes back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Session {
    /// The number of the process.
    number: u64,
    /// Counters that were saved by processes with a lower number start from zero.
    counting_since: u64,
}

/// A watch that was handed over by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// What is watched; its source is [`Source::Http`](crate::toggle::Source::Http).
    pub watch: Arc<Watch>,
    /// When its run was first watched.
    pub started: Timestamp,
    /// When it was last registered anew.
    pub registered: Timestamp,
}

/// What was known of a watch's run, and what the watch had counted, when it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedToggle {
    /// The API of the run.
    pub api: ApiName,
    /// The agent of the run.
    pub agent_id: AgentId,
    /// The task of the run.
    pub progress_id: ProgressId,
    /// What was known of the run.
    pub run: Run,
    /// What the watch had counted over all of its runs.
    pub tally: Tally,
    /// The watch's place in the watch list.
    pub place: u64,
    /// What had happened to the watch lately, the newest first.
    pub events: Vec<Event>,
}

/// Everything that is in the state file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The registrations, sorted by name.
    pub registrations: Vec<Registration>,
    /// What was known of each watch, whatever its source: of the run that was watched, and then of
    /// those that another source's watch had been put in the place of, the newest first.
    pub toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
    /// What was known of each agent.
    pub agents: Vec<((ApiName, AgentId), AgentMock)>,
}

/// What a request changes of the registrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationChange {
    /// Registers, or registers anew.
    Put(Registration),
    /// Forgets the registration; nothing if there is none.
    Remove(WatchName),
}

/// What is now known of a watch, as [`Saved`] has it; empty to forget it.
pub type ToggleChange = (WatchName, Vec<SavedToggle>);

/// What is now known of an agent; `None` to forget it.
pub type AgentChange = ((ApiName, AgentId), Option<AgentMock>);

/// The version of what is stored; a file with a higher one is left alone.
const VERSION: u64 = 1;

// The keys of META beside the version: the number of the process that has the file open or had it last, of
// the last that ended well, and of the first whose counters are good.
const SESSION: &str = "session";
const ENDED: &str = "ended";
const COUNTING_SINCE: &str = "counting_since";

// What is in the file: by name, the JSON of the types in `record`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REGISTRATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registrations");
const TOGGLES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("toggles");
const AGENTS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("agents");

// === impl Store ===

impl Store {
    /// Opens the file, and returns all that is in it. If there is none, or an empty one, it is
    /// made. Everything is read and verified before a byte of the file is changed.
    ///
    /// # Errors
    /// If the file cannot be opened or made, is in use, is damaged, is none of ours, or was
    /// written by a newer version. It is then as it was.
    pub fn open(path: &Path) -> Result<(Self, Saved), StoreError> {
        let (disk, saved, session) = open::open(path)?;
        let database = open::database(&disk).map_err(unwritten)?;
        let store = Self { database: Mutex::new(Some(database)), disk, session };
        // If that fails, it is done with what is first saved.
        let _ = store.transact(|_| Ok(()));
        Ok((store, saved))
    }

    /// Notes that all that was known is saved: what was counted goes on in the next process. Nothing may be
    /// saved after this.
    ///
    /// # Errors
    /// As for [`Store::register`].
    pub fn end(&self) -> Result<(), StoreError> {
        self.transact(|transaction| {
            transaction.open_table(META)?.insert(ENDED, self.session.number)?;
            Ok(())
        })
    }

    /// Says what [`Store::open`] would find wrong with the file, and leaves it as it is. A missing
    /// file is fine if its folder is there, and so is one that another process has open.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn check(path: &Path) -> Result<(), StoreError> {
        Ok(open::check(path)?)
    }

    /// Changes registrations, one after the other, in one transaction. When this returns `Ok`, all
    /// of it outlives a kill and a power loss.
    ///
    /// # Errors
    /// If it cannot be written. Then either all or nothing of it may have reached the disk. The
    /// next call tries the disk anew.
    pub fn register(&self, changes: &[RegistrationChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.transact(|transaction| {
            let mut table = transaction.open_table(REGISTRATIONS)?;
            for change in changes {
                match change {
                    RegistrationChange::Put(registration) => {
                        let record = record::write_registration(registration)?;
                        table.insert(registration.watch.name.as_str(), record.as_slice())?;
                    }
                    RegistrationChange::Remove(name) => {
                        table.remove(name.as_str())?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Saves what is known of watches and agents, in one transaction that lasts as one of
    /// [`Store::register`] does.
    ///
    /// # Errors
    /// As for [`Store::register`].
    pub fn save(&self, toggles: &[ToggleChange], agents: &[AgentChange]) -> Result<(), StoreError> {
        if toggles.is_empty() && agents.is_empty() {
            return Ok(());
        }
        self.transact(|transaction| {
            let mut table = transaction.open_table(TOGGLES)?;
            for (name, runs) in toggles {
                match runs.as_slice() {
                    [newest, displaced @ ..] => {
                        let record = record::write_toggle(newest, displaced, self.session.number)?;
                        table.insert(name.as_str(), record.as_slice())?
                    }
                    [] => table.remove(name.as_str())?,
                };
            }
            let mut table = transaction.open_table(AGENTS)?;
            for ((api, id), agent) in agents {
                let key = (api.as_str(), id.get());
                match agent {
                    Some(agent) => table.insert(key, record::write_agent(agent)?.as_slice())?,
                    None => table.remove(key)?,
                };
            }
            Ok(())
        })
    }

    fn transact(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let mut open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match open.take() {
            Some(database) => database,
            None => open::database(&self.disk).map_err(unwritten)?,
        };
        let begin_and_work = |transaction: &WriteTransaction| {
            let mut table = transaction.open_table(META)?;
            table.insert(SESSION, self.session.number)?;
            table.insert(COUNTING_SINCE, self.session.counting_since)?;
            drop(table);
            work(transaction)
        };
        open::transact(&database, begin_and_work).map_err(unwritten)?;
        *open = Some(database);
        Ok(())
    }
}

fn unwritten(error: redb::Error) -> StoreError {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let full = matches!(&error, redb::Error::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge));
    let what = match error {
        redb::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    StoreFault::Unwritten { what, full }.into()
}

// === impl Registration ===

impl Registration {
    /// Changes every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.started = map(self.started);
        self.registered = map(self.registered);
    }
}

// === impl Saved ===

impl Saved {
    /// Moves every time by as much as the newest is later than `now`: a clock that was ahead, or is behind now,
    /// must not keep what comes from being newer. All times keep their order.
    pub fn no_later_than(&mut self, now: Timestamp) {
        let mut newest = Timestamp::from_millis(0);
        self.map_times(&mut |time| {
            newest = newest.max(time);
            time
        });
        let ahead = newest.as_millis().saturating_sub(now.as_millis());
        if ahead > 0 {
            let jump = ClockJump::from_millis(i64::try_from(ahead).unwrap_or(i64::MAX).saturating_neg());
            self.map_times(&mut |time| time.moved(jump));
        }
    }

    fn map_times(&mut self, map: &mut impl FnMut(Timestamp) -> Timestamp) {
        let map = std::cell::RefCell::new(map);
        let map = |time| (map.borrow_mut())(time);
        self.registrations.iter_mut().for_each(|registration| registration.map_times(map));
        self.toggles.values_mut().flatten().for_each(|toggle| toggle.map_times(map));
        self.agents.iter_mut().for_each(|(_, mock)| mock.map_times(map));
    }
}

// === impl RegistrationChange ===

impl RegistrationChange {
    /// The name whose registration changes.
    pub fn name(&self) -> &WatchName {
        match self {
            Self::Put(registration) => &registration.watch.name,
            Self::Remove(name) => name,
        }
    }
}

// === impl SavedToggle ===

impl SavedToggle {
    /// What is known of the toggle now.
    pub fn of(toggle: &Toggle, place: u64) -> Self {
        let Toggle { watch, run, tally } = toggle;
        Self {
            api: watch.api.clone(),
            agent_id: watch.agent_id,
            progress_id: watch.progress_id.clone(),
            run: run.clone(),
            tally: tally.clone(),
            place,
            events: Vec::new(),
        }
    }

    /// Changes every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.run.map_times(&map);
        self.tally.map_times(&map);
        for event in &mut self.events {
            event.at = map(event.at);
        }
    }

    /// Whether the run is the one that is in this watch now.
    pub fn is_run_of(&self, watch: &Watch) -> bool {
        self.api == watch.api && self.agent_id == watch.agent_id && self.progress_id == watch.progress_id
    }
}
