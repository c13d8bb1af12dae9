//! Opening or creating the state file, and reading all of it before anything is written to it.
//!
//! redb writes to a file as soon as it opens it: a mark that it is open, and the result of any repair. So the file is
//! first opened through an [`Overlay`] that keeps the writes in memory, verified page by page and read. It is locked
//! before that and stays locked as long as the store lives, so what was verified is what is opened then.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, ScopedJoinHandle};

use redb::backends::FileBackend;
use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError, WriteTransaction,
};
use rustix::fs::Access;

use super::backend::{Disk, KeptOpen, Overlay};
use super::{AGENTS, COUNTING_SINCE, ENDED, META, REGISTRATIONS, SESSION, Session, TOGGLES, VERSION};
use crate::store::error::StoreFault;
use crate::store::{Saved, record};
use crate::toggle::{ApiName, WatchName};

/// The most memory for redb's cache, in bytes. Everything is read once and then only written, so it may be small.
const CACHE_BYTES: usize = 8 << 20;

/// The most records that memory is reserved for, because the length in a damaged table may be anything.
const MAX_RESERVED: u64 = 1_000_000;

/// The first bytes of a redb file.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The key of the version in [`META`].
const VERSION_KEY: &str = "version";

/// Opens the file at `path`, or creates it, and reads everything in it.
pub(super) fn open(path: &Path) -> Result<(Disk, Saved, Session), StoreFault> {
    let path = &resolve_links(path);
    let file = match open_locked(path)? {
        Some(file) if !is_empty(&file)? => file,
        old => create(path, old)?,
    };
    let disk = open_disk(file)?;
    let (saved, session) = verify(&disk)?;
    Ok((disk, saved, session))
}

/// Finds the problems that [`open`] would find. A file that is missing or in use is fine.
pub(super) fn check(path: &Path) -> Result<(), StoreFault> {
    let path = &resolve_links(path);
    match open_locked(path) {
        Ok(Some(file)) if is_empty(&file)? => Ok(()),
        Ok(Some(file)) => verify(&open_disk(file)?).map(drop),
        Ok(None) => {
            let folder = existing_folder(path)?;
            let access = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK);
            access.map_err(|error| StoreFault::Io { attempt: "created", error: error.into() })
        }
        Err(StoreFault::InUse) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Opens the database for reading and writing.
pub(super) fn open_database(disk: &Disk) -> Result<Database, redb::Error> {
    Ok(builder().create_with_backend(KeptOpen(disk.clone()))?)
}

/// Does all of `work` or nothing. When this returns `Ok`, it is on the disk.
pub(super) fn transact(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // With one phase, damage to the last transaction could look as if it had never been committed. With two, such
    // damage is noticed even after a kill.
    transaction.set_two_phase_commit(true);
    work(&transaction)?;
    Ok(transaction.commit()?)
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_disk(file: File) -> Result<Disk, StoreFault> {
    Ok(Arc::new(FileBackend::new(file).map_err(StoreFault::of_reading)?))
}

// === The file ===

/// The path that symbolic links lead to, even if nothing is there.
fn resolve_links(path: &Path) -> PathBuf {
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// Opens and locks the file; `None` if there is none.
fn open_locked(path: &Path) -> Result<Option<File>, StoreFault> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreFault::Io { attempt: "opened", error }),
        Ok(found) if !found.is_file() => return Err(StoreFault::NotAFile),
        Ok(_) => {}
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(StoreFault::io("opened"))?;
    try_lock(&file)?;
    let (locked, there) = (file.metadata(), fs::metadata(path));
    let (locked, there) = (locked.map_err(StoreFault::io("opened"))?, there.map_err(StoreFault::io("opened"))?);
    if (locked.dev(), locked.ino()) != (there.dev(), there.ino()) {
        // Another process put a new file there before this one had the lock.
        return Err(StoreFault::InUse);
    }
    Ok(Some(file))
}

/// Locks the file until it is closed. Does not wait for the lock.
fn try_lock(file: &File) -> Result<(), StoreFault> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreFault::InUse),
        // Some network volumes have no locks. The exporter runs there all the same.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(StoreFault::Io { attempt: "locked", error }),
    }
}

fn is_empty(file: &File) -> Result<bool, StoreFault> {
    Ok(file.metadata().map_err(StoreFault::io("read"))?.len() == 0)
}

/// The folder of the file, which must exist.
fn existing_folder(path: &Path) -> Result<PathBuf, StoreFault> {
    let folder = path.parent().filter(|folder| *folder != OsStr::new("")).unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(folder.to_owned()) } else { Err(StoreFault::NoFolder) }
}

/// Makes a database and moves it to `path` when it is complete, so that `path` never has half of one. A crash may leave
/// an incomplete file, whose name is not used again.
///
/// `old` is the empty file that is there now, if any. It stays locked until it is replaced.
fn create(path: &Path, old: Option<File>) -> Result<File, StoreFault> {
    let folder = existing_folder(path)?;
    let temporary = folder.join(format!(".cekura-exporter-{:016x}.new", fastrand::u64(..)));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&temporary).map_err(StoreFault::io("created"))?;
    let created = fill(&file).and_then(|()| move_to(&temporary, path, old.is_some()));
    // Does nothing if it was moved.
    let _ = fs::remove_file(&temporary);
    created?;
    drop(old);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(StoreFault::io("created"))?;
    Ok(file)
}

/// Makes a database of the empty file.
fn fill(file: &File) -> Result<(), StoreFault> {
    try_lock(file)?;
    let failed = |error: redb::Error| match error {
        redb::Error::Io(error) => StoreFault::Io { attempt: "created", error },
        error => StoreFault::Io { attempt: "created", error: io::Error::other(error) },
    };
    let disk = open_disk(file.try_clone().map_err(StoreFault::io("created"))?)?;
    let database = open_database(&disk).map_err(failed)?;
    transact(&database, |transaction| {
        transaction.open_table(META)?.insert(VERSION_KEY, VERSION)?;
        transaction.open_table(REGISTRATIONS)?;
        transaction.open_table(TOGGLES)?;
        transaction.open_table(AGENTS)?;
        Ok(())
    })
    .map_err(failed)?;
    database.close().map_err(|error| failed(error.into()))?;
    file.sync_all().map_err(StoreFault::io("created"))
}

/// Moves the new file to `path`. `replace` says whether an empty file is there, which is replaced.
fn move_to(temporary: &Path, path: &Path, replace: bool) -> Result<(), StoreFault> {
    if !replace {
        // A rename would replace a file that another process has just created there. A link does not.
        match fs::hard_link(temporary, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(StoreFault::InUse),
            // Some volumes have no links.
            Err(_) => {}
        }
    }
    fs::rename(temporary, path).map_err(StoreFault::io("created"))
}

// === The content ===

/// Verifies and reads everything. The disk stays as it is.
fn verify(disk: &Disk) -> Result<(Saved, Session), StoreFault> {
    let mut magic = [0; MAGIC.len()];
    match disk.read(0, &mut magic) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(StoreFault::Io { attempt: "read", error });
        }
        Ok(()) if magic == MAGIC => {}
        _ => return Err(StoreFault::Foreign),
    }
    let overlay = Overlay::of(disk.clone()).map_err(StoreFault::io("read"))?;
    let verified = catch_unwind(AssertUnwindSafe(|| {
        let database = builder().set_check_integrity_on_open(true).create_with_backend(overlay);
        read_tables(&database.map_err(StoreFault::of_reading)?)
    }));
    // redb reports damage as an error. It may still panic where it overlooks some.
    verified.unwrap_or_else(|_| Err(StoreFault::Damaged("it cannot be decoded".into())))
}

/// Reads all tables, the two large ones at the same time.
fn read_tables(database: &Database) -> Result<(Saved, Session), StoreFault> {
    let transaction = database.begin_read().map_err(StoreFault::of_reading)?;
    let session = read_meta(&transaction)?;
    let read_toggles = || {
        read_records(&transaction, TOGGLES, "toggle", |name, json| {
            Ok((WatchName::parse(name)?, record::read_toggle(json, session.counting_since)?))
        })
    };
    let (registrations, toggles) = std::thread::scope(|scope| {
        let toggles = Builder::new().spawn_scoped(scope, read_toggles);
        let registrations = read_records(&transaction, REGISTRATIONS, "registration", |name, json| {
            record::read_registration(WatchName::parse(name)?, json)
        });
        // If no thread can be started, the toggles are read after the registrations.
        let toggles = toggles.map_or_else(|_| Ok(read_toggles()), ScopedJoinHandle::join);
        (registrations, toggles)
    });
    let toggles = toggles.map_err(|_| StoreFault::Damaged("it cannot be decoded".into()))?;
    let agents = read_records(&transaction, AGENTS, "agent", |(api, id), json| {
        Ok(((ApiName::parse(api)?, record::agent_id(id)?), record::read_agent(json, session.counting_since)?))
    });
    let saved = Saved { registrations: registrations?, toggles: toggles?.into_iter().collect(), agents: agents? };
    Ok((saved, session))
}

/// Reads all records of a table. A record that `parse` refuses is damage of that `kind` of record.
fn read_records<K: Key + 'static, T>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    kind: &str,
    parse: impl Fn(K::SelfType<'_>, &[u8]) -> Result<T, String>,
) -> Result<Vec<T>, StoreFault> {
    let table = transaction.open_table(table).map_err(StoreFault::of_reading)?;
    let length = table.len().map_err(StoreFault::of_reading)?;
    let mut records = Vec::with_capacity(usize::try_from(length.min(MAX_RESERVED)).unwrap_or_default());
    for entry in table.iter().map_err(StoreFault::of_reading)? {
        let (key, value) = entry.map_err(StoreFault::of_reading)?;
        let record = parse(key.value(), value.value());
        let damage = |problem| StoreFault::Damaged(format!("{kind} {:?}: {problem}", key.value()));
        records.push(record.map_err(damage)?);
    }
    Ok(records)
}

/// Checks the version, and returns the session that begins now.
fn read_meta(transaction: &ReadTransaction) -> Result<Session, StoreFault> {
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::Storage(error)) => return Err(StoreFault::of_reading(error)),
        Err(_) => return Err(StoreFault::Foreign),
    };
    let number_at = |key| Ok(table.get(key).map_err(StoreFault::of_reading)?.map(|value| value.value()));
    match number_at(VERSION_KEY)? {
        Some(VERSION) => {}
        Some(version) if version > VERSION => return Err(StoreFault::Newer(version)),
        _ => return Err(StoreFault::Foreign),
    }
    let last = number_at(SESSION)?.unwrap_or_default();
    let number = last.saturating_add(1);
    let ended_well = number_at(ENDED)? == Some(last);
    let counting_since = if ended_well { number_at(COUNTING_SINCE)?.unwrap_or(number) } else { number };
    Ok(Session { number, counting_since })
}
