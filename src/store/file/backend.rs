//! The storage that redb reads and writes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The open state file.
pub(super) type Disk = Arc<dyn StorageBackend>;

/// Storage on the disk that leaves the file open, and so locked, when redb closes the database. The next database uses
/// the same file.
#[derive(Debug)]
pub(super) struct KeptOpen(pub(super) Disk);

/// Storage that reads the disk and keeps all writes in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    disk: Disk,
    state: Mutex<OverlayState>,
}

#[derive(Debug)]
struct OverlayState {
    len: u64,
    /// How many bytes of the disk still count. Beyond them are zeros.
    disk_len: u64,
    /// The pages that were written, by offset.
    pages: BTreeMap<u64, Box<[u8]>>,
}

// === impl KeptOpen ===

// The lock methods do nothing, because the file is locked before redb gets it.
impl StorageBackend for KeptOpen {
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

// === impl Overlay ===

impl Overlay {
    const PAGE: usize = 4096;

    pub(super) fn of(disk: Disk) -> io::Result<Self> {
        let len = disk.len()?;
        Ok(Self { disk, state: Mutex::new(OverlayState { len, disk_len: len, pages: BTreeMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, OverlayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the disk, without the pages in memory.
    fn read_disk(&self, disk_len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (there, beyond) = out.split_at_mut(index(disk_len.saturating_sub(offset)).min(out.len()));
        beyond.fill(0);
        if there.is_empty() { Ok(()) } else { self.disk.read(offset, there) }
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let end = offset.saturating_add(out.len() as u64);
        if end > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_disk(state.disk_len, offset, out)?;
        for (start, page) in state.pages.range(page_of(offset)..end) {
            let (within_page, within_out) = overlap(*start, offset, out.len());
            out[within_out].copy_from_slice(&page[within_page]);
        }
        Ok(())
    }

    // redb sets lengths of whole pages, so no page is cut.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.len = len;
        state.disk_len = state.disk_len.min(len);
        state.pages.split_off(&len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let disk_len = state.disk_len;
        for start in (page_of(offset)..offset.saturating_add(data.len() as u64)).step_by(Self::PAGE) {
            let page = match state.pages.entry(start) {
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

/// The offset of the page that contains `offset`.
fn page_of(offset: u64) -> u64 {
    offset - offset % Overlay::PAGE as u64
}

/// The bytes that the page at `page` and the `len` bytes at `offset` share: as a range of the page, and as a range of
/// the bytes.
fn overlap(page: u64, offset: u64, len: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let (from, to) = (page.max(offset), (page + Overlay::PAGE as u64).min(offset + len as u64));
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
        fn an_overlay_reads_what_was_written_and_the_disk_does_not_change(
            pages in 0..4u64,
            steps in proptest::collection::vec((0..5u64, 0..20_000u64, 1..9000usize, any::<u8>()), 0..12),
        ) {
            let (disk, expected) = (InMemoryBackend::new(), InMemoryBackend::new());
            for backend in [&disk, &expected] {
                backend.set_len(pages * 4096).unwrap();
                backend.write(0, &vec![7; index(pages * 4096)]).unwrap();
            }
            let disk: Disk = Arc::new(disk);
            let overlay = Overlay::of(disk.clone()).unwrap();
            for (pages, offset, len, byte) in steps {
                if byte < 64 {
                    overlay.set_len(pages * 4096).unwrap();
                    expected.set_len(pages * 4096).unwrap();
                } else if expected.write(offset, &vec![byte; len]).is_ok() {
                    overlay.write(offset, &vec![byte; len]).unwrap();
                }
                prop_assert_eq!(bytes(&overlay), bytes(&expected));
            }
            prop_assert_eq!(bytes(&KeptOpen(disk)), vec![7; index(pages * 4096)]);
        }
    }
}
