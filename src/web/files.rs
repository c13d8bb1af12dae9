//! Reading the files of a web configuration, and seeing whether they are still what they were.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::input_file;
pub(crate) use crate::input_file::Content;
use ring::digest::{SHA256, digest};

/// The most that is read of a file, in bytes: 1 MiB.
const MAX_BYTES: u64 = 1024 * 1024;

/// Files, and what they were when they were read. Of their content no more is kept than a digest.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<PathBuf, Result<Box<[u8]>, String>>);

// === impl Seen ===

impl Seen {
    /// Reads a file. What is seen first of it stays. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence for the user.
    pub(super) fn read(&mut self, path: &Path) -> Result<Content, String> {
        let content = read(path);
        self.0.entry(path.to_owned()).or_insert_with(|| mark(&content));
        content
    }

    /// Whether all files still are what they were. Blocks.
    pub(super) fn is_current(&self) -> bool {
        self.0.iter().all(|(path, seen)| mark(&read(path)) == *seen)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// By what it shows that a file is another.
fn mark(content: &Result<Content, String>) -> Result<Box<[u8]>, String> {
    content.as_ref().map(|content| digest(&SHA256, content).as_ref().into()).map_err(Clone::clone)
}

fn read(path: &Path) -> Result<Content, String> {
    input_file::read(path, MAX_BYTES).map_err(|error| error.to_string())
}
