//! The state file: an embedded database. Everything is read when the file is opened, and from then on only written.

mod backend;
mod open;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Database, TableDefinition, WriteTransaction};

use self::backend::Disk;
use super::error::StoreFault;
use super::{RegistrationChange, Saved, SavedAgentChange, StoreError, ToggleChange, record};

/// The state file, open and locked. All methods block until the disk is done.
#[derive(Debug)]
pub struct FileStore {
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

/// The version of the format. A file with a higher one is refused.
pub(super) const VERSION: u64 = 1;

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

// === impl FileStore ===

impl FileStore {
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
    /// As for [`FileStore::register`].
    pub fn end(&self) -> Result<(), StoreError> {
        self.transact(|transaction| {
            transaction.open_table(META)?.insert(ENDED, self.session.number)?;
            Ok(())
        })
    }

    /// Finds what [`FileStore::open`] would find wrong with the file, and does not change it. A missing file is fine if its
    /// folder exists, and so is a file that another process has open.
    ///
    /// # Errors
    /// As for [`FileStore::open`].
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

    /// Saves the state of watches and agents in one transaction, which is as durable as that of [`FileStore::register`].
    ///
    /// # Errors
    /// As for [`FileStore::register`].
    pub fn save(&self, toggles: &[ToggleChange], agents: &[SavedAgentChange]) -> Result<(), StoreError> {
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
                    Some(agent) => table.insert(key, record::write_agent(agent, self.session.number)?.as_slice())?,
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
