//! The state file: an embedded database that keeps registrations and the state of watches and agents over restarts.
//!
//! What is in it and what the program uses are different types; `record` converts between them. Everything is read when
//! the file is opened, and from then on only written.

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
    AgentId, ApiName, ClockJump, Event, LiveMocks, ProgressId, Run, Tally, Timestamp, Toggle, ToldMocks, Watch,
    WatchName,
};

/// The state file, open and locked. All methods block until the disk is done.
#[derive(Debug)]
pub struct Store {
    /// `None` after a transaction failed, because redb then refuses everything until it is opened again.
    database: Mutex<Option<Database>>,
    disk: Disk,
    session: Session,
}

/// The time in which one process has the file open.
///
/// Counters are scraped before they are saved. If a process did not end cleanly, its saved counters may be lower than
/// those scraped, and Prometheus would take the whole count for new. So they start from zero then. Saved counters are
/// marked with the number of the session, so that older ones do not come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Session {
    /// The number of the session; it grows with each.
    number: u64,
    /// Counters that were saved in sessions with a lower number start from zero.
    counting_since: u64,
}

/// A watch that was registered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The watch; its source is [`Source::Http`](crate::toggle::Source::Http).
    pub watch: Arc<Watch>,
    /// When its run was first watched.
    pub started: Timestamp,
    /// When it was last registered or replaced.
    pub registered: Timestamp,
}

/// The saved state of a run, with what its watch has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedToggle {
    /// The API of the run.
    pub api: ApiName,
    /// The agent of the run.
    pub agent_id: AgentId,
    /// The task of the run.
    pub progress_id: ProgressId,
    /// The state of the run.
    pub run: Run,
    /// What the watch has counted over all of its runs.
    pub tally: Tally,
    /// The watch's place in the watch list.
    pub place: u64,
    /// The recent events of the watch, the newest first.
    pub events: Vec<Event>,
}

/// The saved state of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedAgent {
    /// What its toggle tasks told of its mocks.
    pub told: ToldMocks,
    /// What its mock status said. Its counters are not saved.
    pub live: LiveMocks,
}

/// Everything that is in the state file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The registrations, sorted by name.
    pub registrations: Vec<Registration>,
    /// The state of each watch of any source: of its run, and then of the runs that a watch of another source displaced,
    /// the newest first.
    pub toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
    /// The state of each agent.
    pub agents: Vec<((ApiName, AgentId), SavedAgent)>,
}

/// A change of one registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationChange {
    /// Adds the registration or replaces it.
    Put(Registration),
    /// Removes the registration, if there is one.
    Remove(WatchName),
}

/// The new state of a watch, as in [`Saved`]; empty to remove it.
pub type ToggleChange = (WatchName, Vec<SavedToggle>);

/// The new state of an agent; `None` to remove it.
pub type AgentChange = ((ApiName, AgentId), Option<SavedAgent>);

/// The version of the format. A file with a higher one is refused.
const VERSION: u64 = 1;

// The keys of META beside the version: the number of the newest session, of the last one that ended cleanly, and of the
// first one whose counters are valid.
const SESSION: &str = "session";
const ENDED: &str = "ended";
const COUNTING_SINCE: &str = "counting_since";

// The tables: by name, the JSON of the types in `record`.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REGISTRATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registrations");
const TOGGLES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("toggles");
const AGENTS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("agents");

// === impl Store ===

impl Store {
    /// Opens the file and reads everything in it. A file that is missing or empty is created. Everything is verified before
    /// a byte of the file is changed.
    ///
    /// # Errors
    /// If the file cannot be opened or created, is in use, is damaged, is of another program, or was written by a newer
    /// version. It is not changed then.
    pub fn open(path: &Path) -> Result<(Self, Saved), StoreError> {
        let (disk, saved, session) = open::open(path)?;
        let database = open::open_database(&disk).map_err(unwritten)?;
        let store = Self { database: Mutex::new(Some(database)), disk, session };
        // It stores the session. If that fails, the first save does it.
        let _ = store.transact(|_| Ok(()));
        Ok((store, saved))
    }

    /// Records that everything is saved, so that counters go on in the next session. Nothing may be saved after this.
    ///
    /// # Errors
    /// As for [`Store::register`].
    pub fn end(&self) -> Result<(), StoreError> {
        self.transact(|transaction| {
            transaction.open_table(META)?.insert(ENDED, self.session.number)?;
            Ok(())
        })
    }

    /// Finds what [`Store::open`] would find wrong with the file, and does not change it. A missing file is fine if its
    /// folder exists, and so is a file that another process has open.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn check(path: &Path) -> Result<(), StoreError> {
        Ok(open::check(path)?)
    }

    /// Changes registrations, one after the other, in one transaction. When this returns `Ok`, all of them survive a kill
    /// and a power loss.
    ///
    /// # Errors
    /// If they cannot be written. Then either all or none of them are on the disk. The next call opens the database again.
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

    /// Saves the state of watches and agents in one transaction, which is as durable as that of [`Store::register`].
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
            None => open::open_database(&self.disk).map_err(unwritten)?,
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
    /// Replaces every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.started = map(self.started);
        self.registered = map(self.registered);
    }
}

// === impl Saved ===

impl Saved {
    /// If any time is later than `now`, moves all times back so that the newest is `now`. Otherwise, after a clock was ahead,
    /// new times would count as older than saved ones. All times keep their order.
    pub fn no_later_than(&mut self, now: Timestamp) {
        let mut newest = Timestamp::from_millis(0);
        self.map_times(&mut |time| {
            newest = newest.max(time);
            time
        });
        let ahead = newest.as_millis().saturating_sub(now.as_millis());
        if ahead > 0 {
            let jump = ClockJump::from_millis(i64::try_from(ahead).unwrap_or(i64::MAX).saturating_neg());
            self.map_times(&mut |time| time.shifted(jump));
        }
    }

    fn map_times(&mut self, map: &mut impl FnMut(Timestamp) -> Timestamp) {
        let map = std::cell::RefCell::new(map);
        let map = |time| (map.borrow_mut())(time);
        self.registrations.iter_mut().for_each(|registration| registration.map_times(map));
        self.toggles.values_mut().flatten().for_each(|toggle| toggle.map_times(map));
        self.agents.iter_mut().for_each(|(_, agent)| agent.map_times(map));
    }
}

// === impl SavedAgent ===

impl SavedAgent {
    /// Applies `map` to every time.
    fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.told.map_times(&map);
        self.live.map_times(&map);
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
    /// The state of the toggle, without its events.
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

    /// Replaces every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.run.map_times(&map);
        self.tally.map_times(&map);
        for event in &mut self.events {
            event.at = map(event.at);
        }
    }

    /// Whether this is the run of the watch.
    pub fn is_run_of(&self, watch: &Watch) -> bool {
        self.api == watch.api && self.agent_id == watch.agent_id && self.progress_id == watch.progress_id
    }
}
