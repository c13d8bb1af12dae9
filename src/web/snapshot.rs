//! The files of a web configuration as they were read, to see whether they have changed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use crate::input_file::{self, Content};

/// The most that is read of a file, in bytes: 1 MiB.
const MAX_BYTES: u64 = 1024 * 1024;

/// The files that were read, each with the digest of its content or the error. The content is not kept.
#[derive(Default)]
pub(super) struct FileSnapshot(BTreeMap<PathBuf, FileDigest>);

/// The SHA-256 digest of a file, or why it could not be read.
type FileDigest = Result<Box<[u8]>, String>;

// === impl FileSnapshot ===

impl FileSnapshot {
    /// Reads a file. If it was read before, the snapshot keeps the state from then. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence for the user.
    pub(super) fn read(&mut self, path: &Path) -> Result<Content, String> {
        let content = read(path);
        self.0.entry(path.to_owned()).or_insert_with(|| state(&content));
        content
    }

    /// Whether all files still are as they were read. Blocks.
    pub(super) fn is_current(&self) -> bool {
        self.0.iter().all(|(path, known)| state(&read(path)) == *known)
    }
}

impl fmt::Debug for FileSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn state(content: &Result<Content, String>) -> FileDigest {
    content.as_ref().map(|content| digest(&SHA256, content).as_ref().into()).map_err(Clone::clone)
}

fn read(path: &Path) -> Result<Content, String> {
    input_file::read(path, MAX_BYTES).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample::Folder;

    #[test]
    fn a_snapshot_is_current_until_a_file_changes() {
        let folder = Folder::new();
        let path = folder.path("a");
        let mut files = FileSnapshot::default();
        assert!(files.read(&path).is_err());
        assert!(files.is_current());
        folder.write("a", "1");
        assert!(!files.is_current());
        // The file had another state when it was first read.
        assert_eq!(**files.read(&path).unwrap(), *b"1");
        assert!(!files.is_current());
    }
}
