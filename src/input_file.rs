//! Reads the files that users name: configurations, keys, certificates, watch files.
//!
//! Whatever a path leads to, reading it ends: only regular files are read, up to a size that the caller
//! gives. Opening waits for nobody. A volume that hangs still hangs the reader, so whoever must not wait
//! for that reads in a thread of its own.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The content of a file. It may hold a secret, so it is wiped from memory after its use.
pub(crate) type Content = Zeroizing<Vec<u8>>;

/// A regular file that is open for reading.
pub(crate) struct InputFile {
    file: File,
    metadata: Metadata,
}

/// Why a file is not read. As text, what completes a sentence that begins with the path.
#[derive(Debug)]
pub(crate) enum InputError {
    /// The system refused.
    Io(io::Error),
    /// A folder, a pipe, a socket or a device. Nothing was read.
    NotRegular,
    /// It has more bytes than this.
    TooLarge(u64),
}

/// Reads a whole file of up to `most` bytes. Blocks.
///
/// # Errors
/// See [`InputError`].
pub(crate) fn read(path: &Path, most: u64) -> Result<Content, InputError> {
    InputFile::open(path)?.content(most)
}

/// The path, unless a shell would have to expand it first.
///
/// # Errors
/// That it begins with `~`, as a sentence for the user.
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
        // Without NONBLOCK, opening a pipe would wait for its other end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok(Self { file, metadata }) } else { Err(InputError::NotRegular) }
    }

    /// What the system said of it when it was opened.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads all of it, if it has no more than `most` bytes. Blocks.
    ///
    /// # Errors
    /// [`InputError::Io`] and [`InputError::TooLarge`].
    pub(crate) fn content(self, most: u64) -> Result<Content, InputError> {
        if self.metadata.len() > most {
            return Err(InputError::TooLarge(most));
        }
        // Room for all of it at once: a buffer that grows would leave copies of a secret behind.
        let room = usize::try_from(self.metadata.len()).unwrap_or_default() + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(room));
        // It may grow while it is read.
        self.file.take(most + 1).read_to_end(&mut content)?;
        if content.len() as u64 > most { Err(InputError::TooLarge(most)) } else { Ok(content) }
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
            Self::TooLarge(most) if *most < 1024 * 1024 => write!(f, "is larger than {} KiB", most / 1024),
            Self::TooLarge(most) => write!(f, "is larger than {} MiB", most / 1024 / 1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_regular_file_is_read_whole_up_to_the_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(**read(&path, 10).unwrap(), *b"0123456789");
        assert!(matches!(read(&path, 9), Err(InputError::TooLarge(9))));
        std::fs::write(&path, "").unwrap();
        assert_eq!(**read(&path, 10).unwrap(), *b"");
    }

    #[test]
    fn what_is_no_regular_file_is_not_read_and_nobody_waits_for_it() {
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
    fn a_file_that_has_more_than_its_size_says_is_read_up_to_the_most() {
        // Its size is said to be 0.
        assert!(matches!(read(Path::new("/proc/self/status"), 16), Err(InputError::TooLarge(16))));
    }

    #[test]
    fn a_path_that_begins_with_somebodys_home_is_refused_and_a_name_with_a_tilde_is_not() {
        for home in ["~", "~/x", "~me/x"] {
            assert!(plain_path(home).is_err(), "{home}");
        }
        for plain in ["~x", "x/~/y", "./~/x", "/~/x", "x~", ""] {
            assert_eq!(plain_path(plain), Ok(plain));
        }
    }

    #[test]
    fn what_is_not_there_says_so() {
        let error = read(Path::new("/nowhere/file"), 10).unwrap_err();
        assert_eq!(error.to_string(), "cannot be read: No such file or directory (os error 2)");
    }
}
