//! Reading the files of a web configuration, and seeing whether they are still what they were.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The content of a file. It may be a key, so it is wiped from memory after its use.
pub(crate) type Content = Zeroizing<Vec<u8>>;

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
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    // Without NONBLOCK, opening a pipe would wait for its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let room = usize::try_from(metadata.len().min(MAX_BYTES)).unwrap_or_default() + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("is larger than {} MiB", MAX_BYTES / 1024 / 1024));
    }
    Ok(content)
}
