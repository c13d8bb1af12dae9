//! What redb reads from and writes to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The state file itself.
pub(super) type Disk = Arc<dyn StorageBackend>;

/// The disk for one database on it. When that is closed, the disk stays open, and with it the lock
/// on the file, for the next one.
#[derive(Debug)]
pub(super) struct InPlace(pub(super) Disk);

/// A copy of the disk to try things on: what is written stays in memory.
#[derive(Debug)]
pub(super) struct Scratch {
    disk: Disk,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    len: u64,
    /// How much of the disk still counts; beyond it are zeros.
    disk_len: u64,
    /// What was written, by the offset of the page.
    pages: BTreeMap<u64, Box<[u8]>>,
}

// === impl InPlace ===

// The lock methods are left out: the file is locked before redb sees it.
impl StorageBackend for InPlace {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

// === impl Scratch ===

impl Scratch {
    const PAGE: usize = 4096;

    pub(super) fn of(disk: Disk) -> io::Result<Self> {
        let len = disk.len()?;
        Ok(Self { disk, changes: Mutex::new(Changes { len, disk_len: len, pages: BTreeMap::new() }) })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is on the disk, whatever was written meanwhile.
    fn read_disk(&self, disk_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (there, beyond) = out.split_at_mut(index(disk_len.saturating_sub(offset)).min(out.len()));
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { self.disk.read(offset, there) }
    }
}

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        let end = offset.saturating_add(out.len() as u64);
        if end > changes.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_disk(changes.disk_len, offset, out)?;
        for (start, page) in changes.pages.range(page_of(offset)..end) {
            let (within_page, within_out) = overlap(*start, offset, out.len());
            out[within_out].copy_from_slice(&page[within_page]);
        }
        Ok(())
    }

    // redb sets no length but in whole pages, so no page is cut in two.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes();
        changes.len = len;
        changes.disk_len = changes.disk_len.min(len);
        changes.pages.split_off(&len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        let disk_len = changes.disk_len;
        for start in (page_of(offset)..offset.saturating_add(data.len() as u64)).step_by(Self::PAGE) {
            let page = match changes.pages.entry(start) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let mut page = vec![0; Self::PAGE].into_boxed_slice();
                    self.read_disk(disk_len, start, &mut page)?;
                    place.insert(page)
                }
            };
            let (within_page, within_data) = overlap(start, offset, data.len());
            page[within_page].copy_from_slice(&data[within_data]);
        }
        Ok(())
    }
}

/// Where the page that `offset` is in begins.
fn page_of(offset: u64) -> u64 {
    offset - offset % Scratch::PAGE as u64
}

/// What the page at `page` and the `len` bytes at `offset` share: as a part of the page, and as a
/// part of the bytes.
fn overlap(page: u64, offset: u64, len: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let (from, to) = (page.max(offset), (page + Scratch::PAGE as u64).min(offset + len as u64));
    (index(from - page)..index(to - page), index(from - offset)..index(to - offset))
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn bytes(backend: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; index(backend.len().unwrap())];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn a_scratch_copy_reads_as_it_was_written_and_the_disk_stays_as_it_was(
            pages in 0..4u64,
            steps in proptest::collection::vec((0..5u64, 0..20_000u64, 1..9000usize, any::<u8>()), 0..12),
        ) {
            let (disk, expected) = (InMemoryBackend::new(), InMemoryBackend::new());
            for backend in [&disk, &expected] {
                backend.set_len(pages * 4096).unwrap();
                backend.write(0, &vec![7; index(pages * 4096)]).unwrap();
            }
            let disk: Disk = Arc::new(disk);
            let scratch = Scratch::of(disk.clone()).unwrap();
            for (pages, offset, len, byte) in steps {
                if byte < 64 {
                    scratch.set_len(pages * 4096).unwrap();
                    expected.set_len(pages * 4096).unwrap();
                } else if expected.write(offset, &vec![byte; len]).is_ok() {
                    scratch.write(offset, &vec![byte; len]).unwrap();
                }
                prop_assert_eq!(bytes(&scratch), bytes(&expected));
            }
            prop_assert_eq!(bytes(&InPlace(disk)), vec![7; index(pages * 4096)]);
        }
    }
}
