//! Metrics as a gzip stream, of which only what changed since the last one is compressed.
//!
//! A stream is made of parts, each compressed by itself, up to a border of bytes. They stand in one
//! gzip stream with the checksum of the whole, as pigz does it: of several streams behind one
//! another, which gzip allows too, some clients read no more than the first.
//!
//! What was compressed is kept until the next stream, by what the text of the part is and by nothing
//! else; so there is nothing that must be noticed when something changes.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use tokio::time::{Instant, sleep_until};

use crate::exposition::{Encoder, Format, Snapshot};

/// How much of a format is kept, in bytes: that of about a hundred thousand watches.
const MOST_KEPT: usize = 16 * 1024 * 1024;

/// What it costs to keep a part beside its compressed bytes, in bytes.
const OVERHEAD: usize = 256;

/// For how long parts are kept that no stream was made of.
const UNUSED: Duration = Duration::from_mins(5);

/// What a stream begins with: deflate, no name and no time, compressed fast, on an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// An empty block of deflate that says that it is the last.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Makes streams, and keeps what the last one of each format is made of.
pub(crate) struct Streams {
    key: RandomState,
    state: Mutex<StreamsState>,
}

#[derive(Default)]
struct StreamsState {
    kept: HashMap<Format, FormatCache>,
    /// Whether somebody looks after what is kept.
    tended: bool,
}

/// What is kept of a format.
struct FormatCache {
    parts: Arc<PartCache>,
    used: Instant,
}

/// What tells a text from others: its length and its `SipHash` under a key of the process, which nobody
/// knows, so nobody can choose labels by it.
///
/// That two texts have the same one by chance, so that the old part is sent for the new text, has odds
/// of 2^-64 for each two that are compared. A hundred thousand watches have some 5,000 parts; if all of
/// them changed with each scrape, four times a minute, that is once in 300,000 years. A cryptographic
/// hash would take half as long as compressing anew.
type Fingerprint = (usize, u64);

/// Parts by their texts, within a bound.
#[derive(Default)]
struct PartCache {
    parts: HashMap<Fingerprint, Arc<StreamPart>>,
    bytes: usize,
}

/// A part of a stream.
struct StreamPart {
    deflated: Bytes,
    /// The checksum and the length of the text.
    crc: Crc,
}

/// Compresses parts.
struct Deflate(DeflateEncoder<Vec<u8>>);

// === impl Streams ===

impl Streams {
    pub(crate) fn new() -> Self {
        Self { key: RandomState::new(), state: Mutex::default() }
    }

    /// The text of a snapshot as a stream, in pieces. Blocks.
    pub(crate) fn pieces(self: &Arc<Self>, snapshot: &Snapshot, format: Format) -> Vec<Bytes> {
        let last = self.state().kept.get(&format).map(|kept| kept.parts.clone()).unwrap_or_default();
        let (mut encoder, mut deflate) = (Encoder::in_parts(snapshot, format), Deflate::new());
        let texts = std::iter::from_fn(|| encoder.next_chunk(snapshot));
        let (pieces, parts) = stream(texts, &self.key, &last, |text| deflate.part(text));
        self.keep(format, parts);
        pieces
    }

    fn keep(self: &Arc<Self>, format: Format, parts: PartCache) {
        let mut state = self.state();
        let before = state.kept.insert(format, FormatCache { parts: Arc::new(parts), used: Instant::now() });
        if !std::mem::replace(&mut state.tended, true) {
            tokio::spawn(tend(Arc::downgrade(self)));
        }
        drop(state);
        drop(before);
    }

    /// Drops what no stream was made of for [`UNUSED`], and says when to look again, if anything is left.
    fn forget_unused(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.kept.retain(|_, kept| kept.used + UNUSED > now);
        let next = state.kept.values().map(|kept| kept.used + UNUSED).min();
        state.tended = next.is_some();
        next
    }

    fn state(&self) -> MutexGuard<'_, StreamsState> {
        // Nothing that is done under the lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after what is kept for as long as there is something.
async fn tend(streams: Weak<Streams>) {
    while let Some(next) = streams.upgrade().and_then(|streams| streams.forget_unused(Instant::now())) {
        sleep_until(next).await;
    }
}

/// A stream of parts with these texts, in pieces, and the parts to keep. `deflate` makes those that are
/// not among the last.
fn stream(
    texts: impl Iterator<Item = Vec<u8>>,
    key: &RandomState,
    last: &PartCache,
    mut deflate: impl FnMut(&[u8]) -> StreamPart,
) -> (Vec<Bytes>, PartCache) {
    let (mut pieces, mut parts, mut crc) = (vec![Bytes::from_static(&HEADER)], PartCache::default(), Crc::new());
    for text in texts {
        let fingerprint = fingerprint(key, &text);
        let part = last.parts.get(&fingerprint).map_or_else(|| Arc::new(deflate(&text)), Arc::clone);
        pieces.push(part.deflated.clone());
        crc.combine(&part.crc);
        parts.keep(fingerprint, part);
    }
    let end = [&LAST_BLOCK[..], &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()];
    pieces.push(Bytes::from(end.concat()));
    (pieces, parts)
}

fn fingerprint(key: &RandomState, text: &[u8]) -> Fingerprint {
    let mut hasher = key.build_hasher();
    hasher.write(text);
    (text.len(), hasher.finish())
}

// === impl PartCache ===

impl PartCache {
    /// Keeps a part if there is room.
    fn keep(&mut self, fingerprint: Fingerprint, part: Arc<StreamPart>) {
        let bytes = self.bytes + part.deflated.len() + OVERHEAD;
        if bytes <= MOST_KEPT {
            self.bytes = bytes;
            self.parts.insert(fingerprint, part);
        }
    }
}

// === impl Deflate ===

impl Deflate {
    fn new() -> Self {
        Self(DeflateEncoder::new(Vec::new(), Compression::fast()))
    }

    /// This text by itself: it refers to nothing before it, and ends with whole bytes.
    fn part(&mut self, text: &[u8]) -> StreamPart {
        // Writing to a Vec cannot fail.
        let _ = self.0.write_all(text);
        let _ = self.0.flush();
        let mut deflated = take(self.0.get_mut());
        let mut part = StreamPart { deflated: Bytes::copy_from_slice(&deflated), crc: Crc::new() };
        part.crc.update(text);
        deflated.clear();
        // What ends the stream so far is not used.
        let _ = self.0.reset(deflated);
        part
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;
    use crate::board::{ToggleRow, ToggleRows};
    use crate::exposition::Metrics;
    use crate::toggle::sample::{answer, watch};
    use crate::toggle::{LabelName, ReportedStatus, Timestamp, Toggle, Watch};

    const FORMATS: [Format; 2] = [Format::Text, Format::OpenMetrics];

    /// The rows of watches, by their names.
    type Watches = BTreeMap<String, ToggleRow>;

    type Change = fn(&mut Watches);

    /// Scrapes one format, and counts what was compressed for the last stream.
    struct Scraper {
        key: RandomState,
        last: PartCache,
        compressed: usize,
    }

    // === impl Scraper ===

    impl Scraper {
        fn new() -> Self {
            Self { key: RandomState::new(), last: PartCache::default(), compressed: 0 }
        }

        fn scrape(&mut self, texts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
            self.compressed = 0;
            let mut deflate = Deflate::new();
            let (pieces, parts) = stream(texts.into_iter(), &self.key, &self.last, |text| {
                self.compressed += 1;
                deflate.part(text)
            });
            self.last = parts;
            pieces.concat()
        }

        /// Scrapes, and what it reads must be what is read where nothing is compressed.
        fn must_read(&mut self, snapshot: &Snapshot, format: Format) {
            let mut encoder = Encoder::in_parts(snapshot, format);
            let body = self.scrape(std::iter::from_fn(|| encoder.next_chunk(snapshot)));
            assert!(plain(&body) == text(snapshot, format));
        }
    }

    /// What is in the first member, which must be all that there is.
    fn plain(body: &[u8]) -> Vec<u8> {
        let (mut gzip, mut plain) = (GzDecoder::new(body), Vec::new());
        gzip.read_to_end(&mut plain).unwrap();
        assert!(gzip.into_inner().is_empty(), "there is more than one member");
        plain
    }

    fn text(snapshot: &Snapshot, format: Format) -> Vec<u8> {
        let mut encoder = Encoder::new(snapshot, format);
        std::iter::from_fn(|| encoder.next_chunk(snapshot)).collect::<Vec<_>>().concat()
    }

    fn relabel(row: &mut ToggleRow, value: &str) {
        let labels = [(LabelName::parse("l").unwrap(), value.into())].into_iter().collect();
        row.toggle.watch = Arc::new(Watch { labels, ..(*row.toggle.watch).clone() });
    }

    fn waiting(name: &str) -> ToggleRow {
        ToggleRow::new(Toggle::new(Arc::new(watch(name, "p")), Timestamp::from_millis(1)))
    }

    fn watches(count: usize) -> Watches {
        let names = (0..count).map(|i| format!("w{i:04}"));
        names.map(|name| (name.clone(), waiting(&name))).collect()
    }

    fn snapshot(watches: &Watches) -> Snapshot {
        Snapshot::new(
            watches.values().cloned().collect::<ToggleRows>(),
            vec![],
            crate::exposition::ConfiguredSeries::default(),
            vec![],
        )
    }

    fn finish(row: &mut ToggleRow, millis: u64) {
        let reported = if millis.is_multiple_of(2) { ReportedStatus::Completed } else { ReportedStatus::Failed };
        row.toggle.apply(Ok(answer(reported, Some(true))), Timestamp::from_millis(millis));
    }

    #[test]
    fn what_has_not_changed_is_not_compressed_again() {
        for format in FORMATS {
            let (mut scraper, mut watches) = (Scraper::new(), watches(1500));
            scraper.must_read(&snapshot(&watches), format);
            let all = scraper.compressed;
            assert!(all > 40, "{all}");
            scraper.must_read(&snapshot(&watches), format);
            assert_eq!(scraper.compressed, 0);
            let changes: [(&str, Change); 4] = [
                ("a run finished", |watches| finish(watches.get_mut("w0700").unwrap(), 2)),
                ("a watch in front", |watches| drop(watches.insert("a".to_owned(), waiting("a")))),
                ("other labels", |watches| relabel(watches.get_mut("w0007").unwrap(), "v")),
                ("one is gone", |watches| drop(watches.remove("w0001"))),
            ];
            for (what, change) in changes {
                change(&mut watches);
                scraper.must_read(&snapshot(&watches), format);
                assert!((1..all / 2).contains(&scraper.compressed), "{what}: {} of {all}", scraper.compressed);
            }
        }
    }

    #[test]
    fn what_went_and_came_back_is_compressed_again_as_only_the_last_stream_is_kept() {
        let mut scraper = Scraper::new();
        for (scraped, compressed) in
            [(&["a", "b"][..], 2), (&["b", "a"], 0), (&["a"], 0), (&["c", "a", "b"], 2), (&[], 0), (&["a"], 1)]
        {
            let body = scraper.scrape(scraped.iter().map(|text| text.as_bytes().to_vec()));
            assert_eq!(plain(&body), scraped.concat().as_bytes());
            assert_eq!((scraper.compressed, scraper.last.parts.len()), (compressed, scraped.len()), "{scraped:?}");
        }
    }

    #[test]
    fn what_cannot_be_made_smaller_is_read_as_it_was() {
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(300_000).collect();
        let texts = [&random[..70_000], b"", &random[..1], &random[70_000..]];
        assert!(plain(&Scraper::new().scrape(texts.map(<[u8]>::to_vec))) == texts.concat());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_what_is_kept_is_used() {
        let (key, mut last) = (RandomState::new(), PartCache::default());
        let megabyte = Bytes::from(vec![0; 1024 * 1024]);
        for expected in [24, 24 - 15] {
            let mut compressed = 0;
            let (pieces, parts) = stream((0..24_u8).map(|text| vec![text]), &key, &last, |_| {
                compressed += 1;
                StreamPart { deflated: megabyte.clone(), crc: Crc::new() }
            });
            assert_eq!((compressed, pieces.len()), (expected, 26));
            assert!(parts.bytes <= MOST_KEPT && parts.parts.len() == 15, "{}", parts.bytes);
            last = parts;
        }
    }

    #[tokio::test]
    async fn each_format_is_kept_for_itself_until_it_was_not_used_for_some_minutes() {
        let (streams, watches) = (Arc::new(Streams::new()), watches(300));
        let scrape = |format| streams.pieces(&snapshot(&watches), format);
        let begun = Instant::now();
        let first = FORMATS.map(scrape);
        let between = Instant::now();
        for (format, first) in FORMATS.into_iter().zip(first) {
            // But for the checksum they are the same ones, and not only alike.
            let again = scrape(format);
            assert!(again.len() == first.len() && first.len() > 10);
            let mut pairs = first.iter().zip(&again).take(first.len() - 1);
            assert!(pairs.all(|(first, again)| first.as_ptr() == again.as_ptr()));
        }
        assert!(streams.state().tended);
        assert!(streams.forget_unused(begun + UNUSED).unwrap() >= between + UNUSED);
        assert_eq!(streams.state().kept.len(), 2);
        assert_eq!(streams.forget_unused(Instant::now() + UNUSED), None);
        assert!(streams.state().kept.is_empty() && !streams.state().tended);
    }

    #[derive(Debug, Clone)]
    enum Edit {
        Poll(u64),
        Add(String),
        Remove,
        Relabel(String),
    }

    fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, Edit)>> {
        let edit = prop_oneof![
            (0..10_000_u64).prop_map(Edit::Poll),
            "[a-z][a-z0-9]{0,8}".prop_map(Edit::Add),
            Just(Edit::Remove),
            "\\PC{0,300}".prop_map(Edit::Relabel),
        ];
        prop::collection::vec((any::<prop::sample::Index>(), edit), 1..6)
    }

    fn apply(edit: Edit, place: prop::sample::Index, watches: &mut Watches) {
        if let Edit::Add(name) = edit {
            watches.insert(name.clone(), waiting(&name));
            return;
        }
        let Some(place) = watches.len().checked_sub(1).map(|last| place.index(last + 1)) else { return };
        let name = watches.keys().nth(place).unwrap().clone();
        let row = watches.get_mut(&name).unwrap();
        match edit {
            Edit::Poll(millis) => finish(row, millis),
            Edit::Relabel(to) => relabel(row, &to),
            Edit::Remove | Edit::Add(_) => drop(watches.remove(&name)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn after_any_edits_a_scrape_reads_what_there_is(
            count in 0..500_usize, scrapes in prop::collection::vec(edits(), 1..5)
        ) {
            let (mut watches, metrics) = (watches(count), Metrics::new().unwrap());
            let mut scrapers = FORMATS.map(|format| (Scraper::new(), format));
            for edits in scrapes {
                for (place, edit) in edits {
                    apply(edit, place, &mut watches);
                }
                metrics.count_http("/metrics", 200);
                let gathered = metrics.gather(std::time::Instant::now());
                let snapshot = Snapshot::new(watches.values().cloned().collect(), vec![], crate::exposition::ConfiguredSeries::default(), gathered);
                for (scraper, format) in &mut scrapers {
                    scraper.must_read(&snapshot, *format);
                }
            }
        }
    }
}
