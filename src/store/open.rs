//! Finding the state file, or making it; and reading all of it before anything is written to it.
//!
//! redb writes as soon as it opens a file: at least that it is open, and all that a repair needs.
//! So a file is first opened as a [`Scratch`] copy, verified page by page and read. The file is
//! locked before that, and stays locked as long as the store lives, so what was verified is what is
//! then opened.

use std::collections::BTreeMap;
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
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError, WriteTransaction,
};
use rustix::fs::Access;

use super::backend::{Disk, InPlace, Scratch};
use super::error::StoreFault;
use super::{
    AGENTS, COUNTING_SINCE, ENDED, META, REGISTRATIONS, Registration, SESSION, Saved, SavedToggle, Session, TOGGLES,
    VERSION, record,
};
use crate::toggle::{AgentId, AgentMock, ApiName, WatchName};

/// What is known of an agent.
type AgentState = ((ApiName, AgentId), AgentMock);

/// What redb may keep in memory. Everything is read once, and then only written.
const CACHE_BYTES: usize = 8 << 20;

/// What a redb file begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The key of the version in [`META`].
const VERSION_KEY: &str = "version";

/// The file at `path`, made if there is none, and what is in it.
pub(super) fn open(path: &Path) -> Result<(Disk, Saved, Session), StoreFault> {
    let path = &followed(path);
    let file = match claim(path)? {
        Some(file) if is_empty(&file)? => create(path, Placing::Replace, Some(file))?,
        Some(file) => file,
        None => create(path, Placing::New, None)?,
    };
    let disk = disk(file)?;
    let (saved, session) = verify(&disk)?;
    Ok((disk, saved, session))
}

/// What [`open`] would say, but for a file that there is not yet, or that is in use.
pub(super) fn check(path: &Path) -> Result<(), StoreFault> {
    let path = &followed(path);
    match claim(path) {
        Ok(Some(file)) if is_empty(&file)? => Ok(()),
        Ok(Some(file)) => verify(&disk(file)?).map(drop),
        Ok(None) => {
            let folder = folder_of(path)?;
            let access = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK);
            access.map_err(|error| StoreFault::Io { to_be: "created", error: error.into() })
        }
        Err(StoreFault::InUse) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// The database on the disk, for reading and writing.
pub(super) fn database(disk: &Disk) -> Result<Database, redb::Error> {
    Ok(builder().create_with_backend(InPlace(disk.clone()))?)
}

/// Does all of `work`, or nothing. What is done when this returns is on the disk.
pub(super) fn transact(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // With one phase, what the last transaction wrote could be damaged and look as if that one had
    // never been committed. So damage is noticed also where the process was killed.
    transaction.set_two_phase_commit(true);
    work(&transaction)?;
    Ok(transaction.commit()?)
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn disk(file: File) -> Result<Disk, StoreFault> {
    Ok(Arc::new(FileBackend::new(file).map_err(StoreFault::of_reading)?))
}

// === The file ===

/// How a new file comes to its path.
#[derive(Clone, Copy)]
enum Placing {
    /// There must be none.
    New,
    /// There is an empty one.
    Replace,
}

/// The path that links lead to, be it that nothing is there.
fn followed(path: &Path) -> PathBuf {
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// The file, locked; `None` if there is none.
fn claim(path: &Path) -> Result<Option<File>, StoreFault> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreFault::Io { to_be: "opened", error }),
        Ok(found) if !found.is_file() => return Err(StoreFault::NotAFile),
        Ok(_) => {}
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(StoreFault::io("opened"))?;
    lock(&file)?;
    let (locked, there) = (file.metadata(), fs::metadata(path));
    let (locked, there) = (locked.map_err(StoreFault::io("opened"))?, there.map_err(StoreFault::io("opened"))?);
    if (locked.dev(), locked.ino()) != (there.dev(), there.ino()) {
        // Somebody put another one there before the lock was ours.
        return Err(StoreFault::InUse);
    }
    Ok(Some(file))
}

/// Locks the file until it is closed.
fn lock(file: &File) -> Result<(), StoreFault> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreFault::InUse),
        // Some network volumes have no locks, and that is no reason not to run there.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(StoreFault::Io { to_be: "locked", error }),
    }
}

fn is_empty(file: &File) -> Result<bool, StoreFault> {
    Ok(file.metadata().map_err(StoreFault::io("read"))?.len() == 0)
}

/// The folder that the file is to be in.
fn folder_of(path: &Path) -> Result<PathBuf, StoreFault> {
    let folder = path.parent().filter(|folder| *folder != OsStr::new("")).unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(folder.to_owned()) } else { Err(StoreFault::NoFolder) }
}

/// Makes a database and puts it at `path` when it is complete, so that nobody ever finds half of
/// one there. What a crash leaves behind has a name that is not used again.
///
/// `claimed` is the file that is there now; it stays locked until it is replaced.
fn create(path: &Path, placing: Placing, claimed: Option<File>) -> Result<File, StoreFault> {
    let folder = folder_of(path)?;
    let making = folder.join(format!(".cekura-exporter-{:016x}.new", fastrand::u64(..)));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&making).map_err(StoreFault::io("created"))?;
    let made = fill(&file).and_then(|()| place(&making, path, placing));
    // Unless it was moved, in which case it is no longer there.
    let _ = fs::remove_file(&making);
    made?;
    drop(claimed);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(StoreFault::io("created"))?;
    Ok(file)
}

/// Makes a database of the empty file.
fn fill(file: &File) -> Result<(), StoreFault> {
    lock(file)?;
    let failed = |error: redb::Error| match error {
        redb::Error::Io(error) => StoreFault::Io { to_be: "created", error },
        error => StoreFault::Io { to_be: "created", error: io::Error::other(error) },
    };
    let disk = disk(file.try_clone().map_err(StoreFault::io("created"))?)?;
    let database = database(&disk).map_err(failed)?;
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

fn place(made: &Path, path: &Path, placing: Placing) -> Result<(), StoreFault> {
    if let Placing::New = placing {
        // A rename would replace what another process made there just now; a link does not.
        match fs::hard_link(made, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(StoreFault::InUse),
            // Not every volume has links.
            Err(_) => {}
        }
    }
    fs::rename(made, path).map_err(StoreFault::io("created"))
}

// === What is in it ===

/// Reads everything, and verifies it. The disk stays as it is.
fn verify(disk: &Disk) -> Result<(Saved, Session), StoreFault> {
    let mut magic = [0; MAGIC.len()];
    match disk.read(0, &mut magic) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            return Err(StoreFault::Io { to_be: "read", error });
        }
        Ok(()) if magic == MAGIC => {}
        _ => return Err(StoreFault::Foreign),
    }
    let scratch = Scratch::of(disk.clone()).map_err(StoreFault::io("read"))?;
    let verified = catch_unwind(AssertUnwindSafe(|| {
        let database = builder().set_check_integrity_on_open(true).create_with_backend(scratch);
        read(&database.map_err(StoreFault::of_reading)?)
    }));
    // redb means to say what it finds damaged rather than to panic; this is for what it overlooks.
    verified.unwrap_or_else(|_| Err(StoreFault::Damaged("it cannot be decoded".into())))
}

/// Reads all tables, the two large ones at the same time.
fn read(database: &Database) -> Result<(Saved, Session), StoreFault> {
    let transaction = database.begin_read().map_err(StoreFault::of_reading)?;
    let session = read_meta(&transaction)?;
    let (registrations, toggles) = std::thread::scope(|scope| {
        let toggles = Builder::new().spawn_scoped(scope, || read_toggles(&transaction, session));
        let registrations = read_registrations(&transaction);
        // Where the machine gives no thread, one comes after the other.
        let toggles = toggles.map_or_else(|_| Ok(read_toggles(&transaction, session)), ScopedJoinHandle::join);
        (registrations, toggles)
    });
    let toggles = toggles.map_err(|_| StoreFault::Damaged("it cannot be decoded".into()))?;
    let saved = Saved { registrations: registrations?, toggles: toggles?, agents: read_agents(&transaction)? };
    Ok((saved, session))
}

fn read_registrations(transaction: &ReadTransaction) -> Result<Vec<Registration>, StoreFault> {
    let table = transaction.open_table(REGISTRATIONS).map_err(StoreFault::of_reading)?;
    let mut registrations = Vec::with_capacity(length(&table)?);
    for entry in table.iter().map_err(StoreFault::of_reading)? {
        let (key, value) = entry.map_err(StoreFault::of_reading)?;
        let registration = watch_name(key.value()).and_then(|name| record::read_registration(name, value.value()));
        registrations.push(registration.map_err(bad_record("registration", key.value()))?);
    }
    Ok(registrations)
}

fn read_toggles(
    transaction: &ReadTransaction,
    session: Session,
) -> Result<BTreeMap<WatchName, Vec<SavedToggle>>, StoreFault> {
    let table = transaction.open_table(TOGGLES).map_err(StoreFault::of_reading)?;
    let mut toggles = BTreeMap::new();
    for entry in table.iter().map_err(StoreFault::of_reading)? {
        let (key, value) = entry.map_err(StoreFault::of_reading)?;
        let toggle = watch_name(key.value())
            .and_then(|name| Ok((name, record::read_toggle(value.value(), session.counting_since)?)));
        toggles.extend([toggle.map_err(bad_record("toggle", key.value()))?]);
    }
    Ok(toggles)
}

fn read_agents(transaction: &ReadTransaction) -> Result<Vec<AgentState>, StoreFault> {
    let table = transaction.open_table(AGENTS).map_err(StoreFault::of_reading)?;
    let mut agents = Vec::with_capacity(length(&table)?);
    for entry in table.iter().map_err(StoreFault::of_reading)? {
        let (key, value) = entry.map_err(StoreFault::of_reading)?;
        let (api, id) = key.value();
        let agent = ApiName::parse(api).and_then(|name| Ok((name, record::agent_id(id)?)));
        let agent = agent.and_then(|key| Ok((key, record::read_agent(value.value())?)));
        agents.push(agent.map_err(bad_record("agent", api))?);
    }
    Ok(agents)
}

/// How many records a table says that it has, but for what no table of ours has.
fn length(table: &impl ReadableTableMetadata) -> Result<usize, StoreFault> {
    const MOST: u64 = 1_000_000;
    let length = table.len().map_err(StoreFault::of_reading)?;
    Ok(usize::try_from(length.min(MOST)).unwrap_or_default())
}

/// Checks the version, and says what the process is that opens the file now.
fn read_meta(transaction: &ReadTransaction) -> Result<Session, StoreFault> {
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::Storage(error)) => return Err(StoreFault::of_reading(error)),
        Err(_) => return Err(StoreFault::Foreign),
    };
    let read = |key| Ok(table.get(key).map_err(StoreFault::of_reading)?.map(|value| value.value()));
    match read(VERSION_KEY)? {
        Some(VERSION) => {}
        Some(version) if version > VERSION => return Err(StoreFault::Newer(version)),
        _ => return Err(StoreFault::Foreign),
    }
    let last = read(SESSION)?.unwrap_or_default();
    let number = last.saturating_add(1);
    let ended_well = read(ENDED)? == Some(last);
    let counting_since = if ended_well { read(COUNTING_SINCE)?.unwrap_or(number) } else { number };
    Ok(Session { number, counting_since })
}

fn watch_name(name: &str) -> Result<WatchName, String> {
    WatchName::parse(name)
}

fn bad_record<'r>(kind: &'r str, key: &'r str) -> impl FnOnce(String) -> StoreFault + use<'r> {
    move |problem| StoreFault::Damaged(format!("{kind} {key:?}: {problem}"))
}
