//! Reading a watch file, if it may have changed.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::WatchFiles;
use super::walk::is_absence;
use crate::input_file::{Content, FileStamp, InputError, InputFile};

/// What reading a file brought.
pub(super) enum FileReading {
    /// It is not there, or is a folder.
    Gone,
    /// It has not changed since it was read last.
    Unchanged,
    /// Its content, and the stamp from before the read, if any later change will show in the stamp.
    Content(Content, Option<FileStamp>),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// Reads the file at `path` if it may have changed since it was read last, when its stamp was `before`.
pub(super) fn read_if_changed(path: &Path, before: Option<&FileStamp>, now: SystemTime) -> FileReading {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => FileReading::Gone,
        Ok(metadata) if !metadata.is_file() => FileReading::Unreadable(InputError::NotRegular.to_string()),
        Ok(metadata) if before == Some(&FileStamp::of(&metadata)) => FileReading::Unchanged,
        Ok(_) => read(path, now).unwrap_or_else(|error| FileReading::failed(path, &error)),
        Err(error) => FileReading::failed(path, &error.into()),
    }
}

pub(super) fn read(path: &Path, now: SystemTime) -> Result<FileReading, InputError> {
    let file = InputFile::open(path)?;
    let stamp = Some(FileStamp::of(file.metadata())).filter(|stamp| stamp.is_settled(now));
    Ok(FileReading::Content(file.content(WatchFiles::MAX_FILE_BYTES)?, stamp))
}

// === impl FileReading ===

impl FileReading {
    pub(super) fn failed(path: &Path, error: &InputError) -> Self {
        let is_there = || fs::symlink_metadata(path).is_ok();
        match error {
            InputError::Io(error) if is_absence(error) && is_there() => Self::Unreadable("is a link to nothing".into()),
            InputError::Io(error) if is_absence(error) => Self::Gone,
            error => Self::Unreadable(error.to_string()),
        }
    }
}
