//! Errors of keeping state.

use std::error::Error;
use std::fmt;
use std::io;

use super::database::DatabaseFault;
use crate::threads::ThreadError;

/// What is wrong with the store and how to repair it: a sentence without its subject, which is
/// [`StoreError::subject`], or the path of the state file.
#[derive(Debug)]
pub struct StoreError(StoreFault);

/// What is wrong with the state file or the database.
#[derive(Debug)]
pub(super) enum StoreFault {
    /// Its folder does not exist.
    NoFolder,
    /// It is a folder, a device or a socket.
    NotAFile,
    /// It cannot be opened, created, locked or read; `attempt` says which.
    Io { attempt: &'static str, error: io::Error },
    /// Another process has it open.
    InUse,
    /// It is no database, or one of another program.
    Foreign,
    /// It has this version of the format, which is newer than ours.
    Newer(u64),
    /// Its content is not what was written.
    Damaged(String),
    /// A transaction failed; `full` if the disk is full.
    Unwritten { what: String, full: bool },
    /// There was no thread to write it on.
    Lost(ThreadError),
    /// It is a fault of the database.
    Database(DatabaseFault),
}

// === impl StoreFault ===

impl StoreFault {
    /// For [`Result::map_err`]: the file could not be `attempt`.
    pub(super) fn io(attempt: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { attempt, error }
    }

    /// The meaning of an error while the file is read and verified. All of them are damage, except for errors of the disk.
    pub(super) fn of_reading(error: impl Into<redb::Error>) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.into() {
            redb::Error::Io(error) if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
                Self::Io { attempt: "read", error }
            }
            error => Self::Damaged(error.to_string()),
        }
    }
}

// === impl StoreError ===

impl StoreError {
    /// What the error is about.
    pub fn subject(&self) -> &'static str {
        match self.0 {
            StoreFault::Database(_) => "the database",
            _ => "the state file",
        }
    }

    /// Whether this program can never use the database.
    pub fn is_final(&self) -> bool {
        matches!(&self.0, StoreFault::Database(fault) if fault.is_final())
    }

    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.0, StoreFault::Unwritten { full: true, .. })
    }
}

impl From<StoreFault> for StoreError {
    fn from(fault: StoreFault) -> Self {
        Self(fault)
    }
}

impl From<DatabaseFault> for StoreError {
    fn from(fault: DatabaseFault) -> Self {
        Self(StoreFault::Database(fault))
    }
}

impl From<ThreadError> for StoreError {
    fn from(lost: ThreadError) -> Self {
        Self(StoreFault::Lost(lost))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            StoreFault::NoFolder => f.write_str("has no folder to be in: create the folder, or name another file"),
            StoreFault::NotAFile => f.write_str("is not a regular file: name a file, which is made if there is none"),
            StoreFault::Io { attempt, error } => write!(f, "cannot be {attempt}: {error}"),
            StoreFault::InUse => f.write_str("is in use by another process: stop that one, or name another file"),
            StoreFault::Foreign => f.write_str(
                "is not a state file of cekura-exporter: name another file, or move this one away to begin anew",
            ),
            StoreFault::Newer(version) => write!(
                f,
                "was written by a newer version of cekura-exporter (its format is {version}, the newest known here is \
                 {}): run that version, or name another file",
                super::file::VERSION
            ),
            StoreFault::Damaged(detail) => {
                write!(f, "is damaged ({detail}): put a good copy in its place, or move it away to begin anew")
            }
            StoreFault::Unwritten { what, .. } => {
                write!(f, "cannot be written ({what}): make sure that its disk works and has room")
            }
            StoreFault::Lost(lost) => write!(f, "cannot be written: {lost}"),
            StoreFault::Database(fault) => fault.fmt(f),
        }
    }
}

impl Error for StoreError {}
