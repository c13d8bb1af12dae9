//! What can be wrong with the state file.

use std::error::Error;
use std::fmt;
use std::io;

/// What is wrong with the state file, and what would be right: a sentence whose subject, the path,
/// is left to the caller.
#[derive(Debug)]
pub struct StoreError(StoreFault);

#[derive(Debug)]
pub(super) enum StoreFault {
    /// There is no folder for it.
    NoFolder,
    /// A folder, a device, a socket.
    NotAFile,
    /// It cannot be opened, created, locked or read.
    Io { to_be: &'static str, error: io::Error },
    /// Somebody else has it open.
    InUse,
    /// No database, or one of another program.
    Foreign,
    /// The version of a format that is to come.
    Newer(u64),
    /// What was found instead of what was written.
    Damaged(String),
    /// A transaction failed; and whether that is for want of room.
    Unwritten { what: String, full: bool },
}

// === impl StoreFault ===

impl StoreFault {
    /// For [`Result::map_err`]: the file could not be `to_be`.
    pub(super) fn io(to_be: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { to_be, error }
    }

    /// What an error means that came up while the file was read and verified. What is not where it
    /// should be is damage; only the disk's own errors are not.
    pub(super) fn of_reading(error: impl Into<redb::Error>) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.into() {
            redb::Error::Io(error) if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
                Self::Io { to_be: "read", error }
            }
            error => Self::Damaged(error.to_string()),
        }
    }
}

// === impl StoreError ===

impl StoreError {
    /// Whether the disk has no room left.
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self.0, StoreFault::Unwritten { full: true, .. })
    }
}

impl From<StoreFault> for StoreError {
    fn from(fault: StoreFault) -> Self {
        Self(fault)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            StoreFault::NoFolder => f.write_str("has no folder to be in: create the folder, or name another file"),
            StoreFault::NotAFile => f.write_str("is not a regular file: name a file, which is made if there is none"),
            StoreFault::Io { to_be, error } => write!(f, "cannot be {to_be}: {error}"),
            StoreFault::InUse => f.write_str("is in use by another process: stop that one, or name another file"),
            StoreFault::Foreign => f.write_str(
                "is not a state file of cekura-exporter: name another file, or move this one away to begin anew",
            ),
            StoreFault::Newer(version) => write!(
                f,
                "was written by a newer version of cekura-exporter (its format is {version}, the newest known here is \
                 {}): run that version, or name another file",
                super::VERSION
            ),
            StoreFault::Damaged(detail) => {
                write!(f, "is damaged ({detail}): put a good copy in its place, or move it away to begin anew")
            }
            StoreFault::Unwritten { what, .. } => {
                write!(f, "cannot be written ({what}): make sure that its disk works and has room")
            }
        }
    }
}

impl Error for StoreError {}
