//! Reading the files that users name: configurations, keys, certificates and watch files.
//!
//! Only regular files are read, up to a maximum size, and opening never waits for a writer. A read can still
//! block for as long as a network volume hangs, so callers that must not wait read on another thread.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The content of a file. It may be a secret, so it is wiped from memory when dropped.
pub(crate) type Content = Zeroizing<Vec<u8>>;

/// A regular file that is open for reading.
pub(crate) struct InputFile {
    file: File,
    metadata: Metadata,
}

/// The values of stat that change when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file cannot be read. Its text continues a sentence that begins with the path.
#[derive(Debug)]
pub(crate) enum InputError {
    /// The system returned an error.
    Io(io::Error),
    /// It is a folder, a pipe, a socket or a device.
    NotRegular,
    /// It has more than this number of bytes.
    TooLarge(u64),
}

/// Reads a file of up to `max` bytes. Blocks.
///
/// # Errors
/// See [`InputError`].
pub(crate) fn read(path: &Path, max: u64) -> Result<Content, InputError> {
    InputFile::open(path)?.content(max)
}

/// Refuses a path that a shell would have to expand.
///
/// # Errors
/// If it begins with `~`, as a sentence for the user.
pub(crate) fn plain_path(path: &str) -> Result<&str, &'static str> {
    let expands = path == "~" || path.starts_with('~') && path.contains('/');
    if expands { Err("begins with `~`, which is not expanded: write the whole path") } else { Ok(path) }
}

// === impl InputFile ===

impl InputFile {
    /// Opens a file. Blocks.
    ///
    /// # Errors
    /// [`InputError::Io`] and [`InputError::NotRegular`].
    pub(crate) fn open(path: &Path) -> Result<Self, InputError> {
        // Without NONBLOCK, opening a pipe would wait for a writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok(Self { file, metadata }) } else { Err(InputError::NotRegular) }
    }

    /// The metadata at the time of opening.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads the whole file, if it has no more than `max` bytes. Blocks.
    ///
    /// # Errors
    /// [`InputError::Io`] and [`InputError::TooLarge`].
    pub(crate) fn content(self, max: u64) -> Result<Content, InputError> {
        if self.metadata.len() > max {
            return Err(InputError::TooLarge(max));
        }
        // The buffer must not grow, because that would leave copies of a secret in memory.
        let capacity = usize::try_from(self.metadata.len()).unwrap_or_default() + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(capacity));
        // The file may grow while it is read.
        self.file.take(max + 1).read_to_end(&mut content)?;
        if content.len() as u64 > max { Err(InputError::TooLarge(max)) } else { Ok(content) }
    }
}

// === impl FileStamp ===

impl FileStamp {
    /// How old a change must be, in seconds, so that the next change is certain to have another time: file systems
    /// have coarse clocks, and those of network volumes may be late.
    const SETTLED_AFTER: i64 = 10;

    /// The stamp in a file's metadata.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether any change from `now` on will show in the stamp.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
        let latest = self.modified.0.max(self.changed.0);
        // Whole seconds: times that differ by more than ten are at least ten seconds apart.
        now.is_some_and(|now| now.saturating_sub(latest) > Self::SETTLED_AFTER)
    }
}

// === impl InputError ===

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::NotRegular => f.write_str("is not a regular file"),
            Self::TooLarge(max) if *max < 1024 * 1024 => write!(f, "is larger than {} KiB", max / 1024),
            Self::TooLarge(max) => write!(f, "is larger than {} MiB", max / 1024 / 1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_regular_file_is_read_up_to_the_maximum_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(**read(&path, 10).unwrap(), *b"0123456789");
        assert!(matches!(read(&path, 9), Err(InputError::TooLarge(9))));
        std::fs::write(&path, "").unwrap();
        assert_eq!(**read(&path, 10).unwrap(), *b"");
    }

    #[test]
    fn pipes_folders_and_devices_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [&pipe, folder.path(), Path::new("/dev/zero"), Path::new("/dev/tty")] {
            let error = read(path, 10).unwrap_err();
            // There may be no terminal.
            assert!(matches!(error, InputError::NotRegular) || path == Path::new("/dev/tty"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_larger_than_its_metadata_says_is_refused() {
        // Its metadata has the size 0.
        assert!(matches!(read(Path::new("/proc/self/status"), 16), Err(InputError::TooLarge(16))));
    }

    #[test]
    fn a_path_that_begins_with_a_home_folder_is_refused() {
        for home in ["~", "~/x", "~me/x"] {
            assert!(plain_path(home).is_err(), "{home}");
        }
        for plain in ["~x", "x/~/y", "./~/x", "/~/x", "x~", ""] {
            assert_eq!(plain_path(plain), Ok(plain));
        }
    }

    #[test]
    fn a_missing_file_is_an_error_of_the_system() {
        let error = read(Path::new("/nowhere/file"), 10).unwrap_err();
        assert_eq!(error.to_string(), "cannot be read: No such file or directory (os error 2)");
    }
}
