//! Large bodies, shared by those who ask at the same time, and bounded in number.
//!
//! A scrape of many watches is tens of megabytes. Three bounds keep any number of scrapes, and
//! readers that never read, from taking the machine's memory and time:
//!
//! - Two scrapes are made at a time, and one other body: what a query asks for may take long, and must not
//!   keep a scrape waiting. Who waits for a turn shares what is made then with all who ask for the
//!   same; so everybody gets what was true after he asked.
//! - A body is kept compressed, in pieces, or as the rows that its text is encoded from while it is
//!   sent, for each reader as it reads: that takes some ten microseconds a piece. The pieces of metrics
//!   are those that are kept for the next scrape.
//! - Few are alive at a time. When there are several, those are cut for newer ones whose readers stand
//!   still; when there are many, even one whose readers move. What it holds is free at once, and its
//!   readers' connections end when they want the next piece.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::gzip::Streams;
use super::layout::Layout;
use crate::exposition::{Encoder, Format, Snapshot};
use crate::http::events::Lines;
use crate::http::select::Selection;
use crate::threads::{Panicked, Worker};

/// How many scrapes are made at a time.
const TURNS: usize = 2;

/// When so many are alive, those make room whose readers have stood still for [`STILL`].
const SEVERAL: usize = 8;

/// How many are alive at a time.
const MOST_ALIVE: usize = 24;

/// How long readers may stand still when others need the room.
const STILL: Duration = Duration::from_secs(1);

/// How long a newcomer waits for a place among [`MOST_ALIVE`] before one is cut whose readers move.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of a compressed body is kept in one piece, in bytes.
const PIECE: usize = 64 * 1024;

/// The longest that a body may take until it is sent. One that takes longer is given up by those who wait,
/// and the exporter is not healthy.
const LONGEST: Duration = Duration::from_secs(30);

/// Makes large bodies.
pub(crate) struct Renderings {
    /// Who makes them: it is there from the start, so that no scrape depends on a thread that the machine may
    /// not give.
    maker: Worker,
    /// The longest that somebody waits for one.
    patience: Duration,
    turns: Arc<Semaphore>,
    /// Of all but scrapes.
    other_turns: Arc<Semaphore>,
    room: Arc<Notify>,
    state: Arc<Mutex<RenderingsState>>,
    cuts: Mutex<Lines>,
    lates: Mutex<Lines>,
    streams: Arc<Streams>,
}

#[derive(Default)]
struct RenderingsState {
    /// What is waited for, by kind; once it is begun, it is no longer here.
    awaited: HashMap<RenderingKey, PendingRendering>,
    /// When those were begun that are being made, by a number of their own.
    making: BTreeMap<u64, Instant>,
    /// Begun so far.
    begun: u64,
    alive: Vec<Weak<Rendering>>,
}

/// A body that is not begun.
#[derive(Default)]
struct PendingRendering {
    body: Arc<OnceCell<Arc<Rendering>>>,
    askers: usize,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RenderingKey {
    /// Of what.
    pub(crate) subject: Subject,
    /// Whether it is compressed.
    pub(crate) gzip: bool,
}

/// What large bodies are of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// The metrics.
    Metrics(Format),
    /// Toggles as JSON.
    Toggles(Selection, Layout),
    /// The status page.
    Page(Selection),
    /// How all is.
    Overview(Layout),
    /// The agents as JSON.
    Agents(Layout),
    /// The configuration in force.
    Config,
}

/// What a body is made from.
pub(crate) enum RenderingSource {
    /// Metrics, which are encoded while they are sent or compressed.
    Metrics(Snapshot, Format),
    /// Text.
    Text(Vec<u8>),
}

/// A body, for as many readers as want it.
pub(crate) struct Rendering {
    /// `None` once it was cut.
    content: RwLock<Option<RenderingContent>>,
    made: Instant,
    /// When a reader last took something, in milliseconds since it was made.
    moved: AtomicU64,
    /// Told when it is gone.
    room: Arc<Notify>,
}

enum RenderingContent {
    Metrics(Snapshot, Format),
    Pieces(Vec<Bytes>),
}

/// Somebody who waits for a body. It may give up at any time, and the last one leaves nothing behind: what
/// is asked for can be long, and another each time.
struct Asker<'a> {
    renderings: &'a Renderings,
    kind: &'a RenderingKey,
    body: Arc<OnceCell<Arc<Rendering>>>,
}

/// Somebody who reads a body.
pub(crate) struct SharedReader {
    rendering: Arc<Rendering>,
    place: ReadPosition,
    /// The bytes that are left; `None` where they are not counted beforehand.
    left: Option<u64>,
}

/// Where a reader is.
enum ReadPosition {
    Encoding(Box<Encoder>),
    /// The next piece.
    Piece(usize),
}

/// The body was cut: its readers took long, and others needed the room.
#[derive(Debug)]
pub(crate) struct Cut;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotMade {
    /// Making it panicked.
    Panicked,
    /// It took too long.
    Late,
}

/// Being made. Counts for as long as it lives.
struct Making {
    state: Arc<Mutex<RenderingsState>>,
    number: u64,
}

// === impl Renderings ===

impl Renderings {
    pub(crate) fn new(maker: Worker) -> Self {
        Self {
            maker,
            patience: LONGEST,
            turns: Arc::new(Semaphore::new(TURNS)),
            other_turns: Arc::new(Semaphore::new(1)),
            room: Arc::default(),
            state: Arc::default(),
            cuts: Mutex::default(),
            lates: Mutex::default(),
            streams: Arc::new(Streams::new()),
        }
    }

    /// Whether one has been made for longer than any may take.
    pub(crate) fn are_stuck(&self, now: Instant) -> bool {
        let begun = self.state().making.values().next().copied();
        begun.is_some_and(|begun| now.saturating_duration_since(begun) > LONGEST)
    }

    /// A body of this kind that `make`, which blocks, begins to make after this call.
    ///
    /// # Errors
    /// If making it panics, or takes too long. It goes on then, and its turn with it.
    pub(crate) async fn body<F>(&self, kind: RenderingKey, make: F) -> Result<SharedReader, NotMade>
    where
        F: FnOnce() -> RenderingSource + Send + 'static,
    {
        timeout(self.patience, self.made(kind, make)).await.unwrap_or_else(|_| {
            let unsaid = self.lates.lock().unwrap_or_else(PoisonError::into_inner).next(std::time::Instant::now());
            if let Some(unsaid) = unsaid {
                let patience_seconds = self.patience.as_secs_f64();
                tracing::error!(patience_seconds, unsaid, "answer given up: it was not made in time");
            }
            Err(NotMade::Late)
        })
    }

    async fn made<F>(&self, kind: RenderingKey, make: F) -> Result<SharedReader, NotMade>
    where
        F: FnOnce() -> RenderingSource + Send + 'static,
    {
        let asker = self.asker(&kind);
        let rendered = asker.body.get_or_try_init(async || {
            let turns = if matches!(kind.subject, Subject::Metrics(_)) { &self.turns } else { &self.other_turns };
            let turn = turns.clone().acquire_owned().await;
            self.make_room().await;
            self.state().stop_awaiting(&kind, &asker.body);
            let streams = self.streams.clone();
            let (making, runtime) = (self.begin(), Handle::current());
            let content = self.maker.run(move || {
                // Streams that are kept are looked after on it.
                let _entered = runtime.enter();
                // What was begun is made to its end, and has its turn for as long, whoever left.
                let _made = (turn, making);
                RenderingContent::of(make(), kind.gzip, &streams)
            });
            Ok(self.keep(content.await.map_err(|Panicked| NotMade::Panicked)?))
        });
        rendered.await.map(|rendering| SharedReader::of(rendering.clone()))
    }

    fn asker<'a>(&'a self, kind: &'a RenderingKey) -> Asker<'a> {
        let mut state = self.state();
        let awaited = state.awaited.entry(kind.clone()).or_default();
        awaited.askers += 1;
        Asker { renderings: self, kind, body: awaited.body.clone() }
    }

    fn begin(&self) -> Making {
        let mut state = self.state();
        state.begun += 1;
        let number = state.begun;
        state.making.insert(number, Instant::now());
        Making { state: self.state.clone(), number }
    }

    async fn make_room(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Made before looking, so that no end after the look is missed.
            let ended = self.room.notified();
            let alive = self.state().count_alive();
            if alive < SEVERAL {
                return;
            }
            let patient = alive < MOST_ALIVE || Instant::now() < deadline;
            let stillest = self.state().stillest(if patient { STILL } else { Duration::ZERO });
            match stillest {
                Some(stillest) => self.cut(&stillest),
                None if alive < MOST_ALIVE => return,
                // Then it is asked again, and without patience.
                None => drop(timeout_at(deadline.min(Instant::now() + STILL), ended).await),
            }
        }
    }

    fn cut(&self, rendering: &Rendering) {
        let content = rendering.cut();
        // It may be very many rows.
        drop(self.maker.run(move || drop(content)));
        let unsaid = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).next(std::time::Instant::now());
        if let Some(unsaid) = unsaid {
            tracing::warn!(unsaid, "large answer cut: its clients do not read it, and others need the memory");
        }
    }

    fn keep(&self, content: RenderingContent) -> Arc<Rendering> {
        let rendering = Arc::new(Rendering {
            content: RwLock::new(Some(content)),
            made: Instant::now(),
            moved: AtomicU64::new(0),
            room: self.room.clone(),
        });
        self.state().alive.push(Arc::downgrade(&rendering));
        rendering
    }

    fn state(&self) -> MutexGuard<'_, RenderingsState> {
        // Nothing that is done under the lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Asker ===

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let mut state = self.renderings.state();
        if let Some(awaited) = state.awaited(self.kind, &self.body) {
            awaited.askers -= 1;
            if awaited.askers == 0 {
                state.stop_awaiting(self.kind, &self.body);
            }
        }
    }
}

// === impl Making ===

impl Drop for Making {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).making.remove(&self.number);
    }
}

// === impl RenderingsState ===

impl RenderingsState {
    /// This body, if it is not begun.
    fn awaited(&mut self, kind: &RenderingKey, body: &Arc<OnceCell<Arc<Rendering>>>) -> Option<&mut PendingRendering> {
        self.awaited.get_mut(kind).filter(|awaited| Arc::ptr_eq(&awaited.body, body))
    }

    /// Whoever asks from here on gets a later one.
    fn stop_awaiting(&mut self, kind: &RenderingKey, body: &Arc<OnceCell<Arc<Rendering>>>) {
        if self.awaited(kind, body).is_some() {
            self.awaited.remove(kind);
        }
    }

    fn count_alive(&mut self) -> usize {
        self.alive.retain(|rendering| rendering.strong_count() > 0);
        self.alive.len()
    }

    /// Takes out the one whose readers have stood still for longest, if that is as long as this.
    fn stillest(&mut self, least: Duration) -> Option<Arc<Rendering>> {
        let alive = self.alive.iter().enumerate().filter_map(|(place, rendering)| Some((place, rendering.upgrade()?)));
        let (place, stillest) = alive.max_by_key(|(_, rendering)| rendering.still())?;
        if stillest.still() < least {
            return None;
        }
        self.alive.swap_remove(place);
        Some(stillest)
    }
}

// === impl Rendering ===

impl Rendering {
    fn content(&self) -> RwLockReadGuard<'_, Option<RenderingContent>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long no reader has taken anything.
    fn still(&self) -> Duration {
        self.made.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)))
    }

    fn note_move(&self) {
        let millis = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    /// Takes out what it holds.
    fn cut(&self) -> Option<RenderingContent> {
        self.content.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Rendering {
    fn drop(&mut self) {
        self.room.notify_waiters();
    }
}

// === impl RenderingContent ===

impl RenderingContent {
    fn of(source: RenderingSource, gzip: bool, streams: &Arc<Streams>) -> Self {
        match source {
            RenderingSource::Metrics(snapshot, format) if gzip => Self::Pieces(streams.pieces(&snapshot, format)),
            RenderingSource::Metrics(snapshot, format) => Self::Metrics(snapshot, format),
            RenderingSource::Text(text) if gzip => Self::Pieces(compressed(&text)),
            // Each piece for itself, so that who holds one holds no more.
            RenderingSource::Text(text) => Self::Pieces(text.chunks(PIECE).map(Bytes::copy_from_slice).collect()),
        }
    }
}

fn compressed(text: &[u8]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut gzip = GzEncoder::new(Vec::with_capacity(PIECE), Compression::fast());
    for chunk in text.chunks(PIECE) {
        // Writing to a Vec cannot fail.
        let _ = gzip.write_all(chunk);
        if gzip.get_ref().len() >= PIECE {
            pieces.push(std::mem::take(gzip.get_mut()).into());
        }
    }
    pieces.push(gzip.finish().unwrap_or_default().into());
    pieces
}

/// The pieces from here on that are about as much as one is elsewhere, as one, and how many they are.
/// Parts of a stream are small, and each that is sent by itself costs.
fn together(pieces: &[Bytes]) -> Option<(usize, Bytes)> {
    let first = pieces.first()?;
    let mut length = 0;
    let fits = |piece: &&Bytes| {
        length += piece.len();
        length <= PIECE
    };
    let count = pieces.iter().take_while(fits).count();
    Some(if count > 1 { (count, pieces[..count].concat().into()) } else { (1, first.clone()) })
}

// === impl SharedReader ===

impl SharedReader {
    fn of(rendering: Arc<Rendering>) -> Self {
        let (place, left) = match &*rendering.content() {
            Some(RenderingContent::Metrics(snapshot, format)) => {
                (ReadPosition::Encoding(Box::new(Encoder::new(snapshot, *format))), None)
            }
            Some(RenderingContent::Pieces(pieces)) => {
                (ReadPosition::Piece(0), Some(pieces.iter().map(|piece| piece.len() as u64).sum()))
            }
            None => (ReadPosition::Piece(0), None),
        };
        Self { rendering, place, left }
    }

    /// The next part of the body.
    pub(crate) fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        let part = match (&*self.rendering.content(), &mut self.place) {
            (Some(RenderingContent::Metrics(snapshot, _)), ReadPosition::Encoding(encoder)) => {
                Bytes::from(encoder.next_chunk(snapshot)?)
            }
            (Some(RenderingContent::Pieces(pieces)), ReadPosition::Piece(next)) => {
                let (count, part) = together(&pieces[*next..])?;
                *next += count;
                part
            }
            _ => return Some(Err(Cut)),
        };
        self.rendering.note_move();
        self.left = self.left.map(|left| left - part.len() as u64);
        Some(Ok(part))
    }

    /// The bytes that are left; `None` where they are not counted beforehand.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }
}

// === impl Cut ===

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body was cut: its readers took long, and others needed the room")
    }
}

impl Error for Cut {}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::toggle::Status;

    fn renderings() -> Renderings {
        Renderings::new(Worker::start("renderer").unwrap())
    }

    fn scrape() -> RenderingKey {
        RenderingKey { subject: Subject::Metrics(Format::Text), gzip: false }
    }

    fn text(text: &str) -> impl FnOnce() -> RenderingSource + Send + 'static + use<> {
        let text = text.as_bytes().to_vec();
        || RenderingSource::Text(text)
    }

    fn read(mut reader: SharedReader) -> Vec<u8> {
        std::iter::from_fn(|| reader.next().map(Result::unwrap)).flatten().collect()
    }

    /// Waits until so many are being made, and so many ask for one that is not begun.
    async fn until(renderings: &Renderings, made: usize, askers: usize) {
        let waiting = || renderings.state().awaited.get(&scrape()).map_or(0, |awaited| awaited.askers);
        while renderings.turns.available_permits() != TURNS - made || waiting() != askers {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_made_compressed_or_not() {
        let renderings = renderings();
        let long = "0123456789abcdef ".repeat(100_000);
        for gzip in [false, true] {
            let reader = renderings.body(RenderingKey { gzip, ..scrape() }, text(&long)).await.unwrap();
            let left = reader.left();
            let mut body = read(reader);
            assert_eq!(left, Some(body.len() as u64));
            if gzip {
                assert!(body.len() < long.len() / 10);
                let mut plain = Vec::new();
                GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
                body = plain;
            }
            assert!(body == long.as_bytes());
        }
    }

    #[tokio::test]
    async fn small_pieces_are_read_together_and_their_length_is_that_of_what_is_read() {
        let renderings = renderings();
        let sizes = [10, 0, 3000, PIECE - 3010, 1, PIECE + 5, PIECE, 7, 7];
        let pieces: Vec<_> = (0..).zip(sizes).map(|(fill, size)| Bytes::from(vec![fill; size])).collect();
        let mut reader = SharedReader::of(renderings.keep(RenderingContent::Pieces(pieces.clone())));
        assert_eq!(reader.left(), Some(sizes.iter().sum::<usize>() as u64));
        let read: Vec<_> = std::iter::from_fn(|| reader.next().map(Result::unwrap)).collect();
        assert_eq!(read.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, 1, PIECE + 5, PIECE, 14]);
        assert!(read.concat() == pieces.concat());
        assert_eq!(reader.left(), Some(0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_crowd_that_asks_while_others_are_made_shares_one_that_is_begun_later() {
        let renderings = Arc::new(renderings());
        let (go, gate) = mpsc::channel();
        let gate = Arc::new(Mutex::new(gate));
        let count = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let (renderings, gate, count) = (renderings.clone(), gate.clone(), count.clone());
            let make = move || {
                gate.lock().unwrap().recv().unwrap();
                RenderingSource::Text(count.fetch_add(1, Ordering::Relaxed).to_string().into_bytes())
            };
            tokio::spawn(async move { renderings.body(scrape(), make).await.map(read).unwrap() })
        };
        let first = ask();
        until(&renderings, 1, 0).await;
        let second = ask();
        until(&renderings, 2, 0).await;
        let crowd: Vec<_> = (0..20).map(|_| ask()).collect();
        until(&renderings, 2, 20).await;
        (0..3).for_each(|_| go.send(()).unwrap());
        let mut bodies = vec![first.await.unwrap(), second.await.unwrap()];
        for asker in crowd {
            bodies.push(asker.await.unwrap());
        }
        assert!(bodies[2..].iter().all(|body| *body == bodies[2]), "{bodies:?}");
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies, [b"0", b"1", b"2"]);
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_nobody_up() {
        let renderings = renderings();
        let turns = renderings.turns.acquire_many(2).await.unwrap();
        let gives_up = renderings.body(scrape(), text("never"));
        assert!(timeout_at(Instant::now(), gives_up).await.is_err());
        drop(turns);
        assert_eq!(read(renderings.body(scrape(), text("fresh")).await.unwrap()), b"fresh");
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_nothing_behind_wherever_it_waited() {
        let renderings = renderings();
        let of = |after: String| RenderingKey {
            subject: Subject::Toggles(Selection { after: Some(after), ..Selection::default() }, Layout::Compact),
            gzip: false,
        };
        let turn = renderings.other_turns.acquire().await.unwrap();
        for count in 0..100 {
            // Before it was looked at, while it waits for its turn, and while another waits for the same.
            drop(renderings.body(of(format!("dropped {count}")), text("never")));
            let [first, second] = [(); 2].map(|()| renderings.body(of(count.to_string()), text("never")));
            assert!(timeout_at(Instant::now(), async { tokio::join!(first, second) }).await.is_err());
        }
        assert_eq!(renderings.state().awaited.len(), 0);
        drop(turn);
        // While others must be cut to make room.
        let mut readers = Vec::new();
        for _ in 0..MOST_ALIVE {
            let mut reader = renderings.body(scrape(), text(&"x".repeat(3 * PIECE))).await.unwrap();
            reader.next().unwrap().unwrap();
            readers.push(reader);
        }
        let gives_up = renderings.body(scrape(), text("never"));
        assert!(timeout_at(Instant::now() + Duration::from_millis(10), gives_up).await.is_err());
        assert_eq!(renderings.state().awaited.len(), 0);
        assert_eq!(renderings.turns.available_permits(), TURNS);
    }

    #[tokio::test]
    async fn readers_that_stand_still_lose_their_place_and_those_that_read_do_not() {
        let renderings = renderings();
        let long = "x".repeat(PIECE * 1000);
        let mut oldest = renderings.body(scrape(), text(&long)).await.unwrap();
        let mut still = Vec::new();
        for _ in 0..MOST_ALIVE + 2 {
            // Else none has stood still for longer than another.
            tokio::time::sleep(Duration::from_millis(2)).await;
            oldest.next().unwrap().unwrap();
            still.push(renderings.body(scrape(), text("still")).await.unwrap());
        }
        assert!(oldest.next().unwrap().is_ok());
        let alive = still.iter_mut().filter_map(|reader| reader.next().unwrap().ok()).count();
        assert!(alive < MOST_ALIVE, "{alive}");
        assert!(still[0].next().unwrap().is_err(), "the one that stood still for longest");
        assert!(renderings.state().count_alive() <= MOST_ALIVE);
    }

    #[tokio::test]
    async fn nobody_is_cut_where_several_read() {
        let renderings = renderings();
        let mut readers = Vec::new();
        for _ in 0..MOST_ALIVE {
            readers.push(renderings.body(scrape(), text("moves")).await.unwrap());
        }
        assert!(readers.iter_mut().all(|reader| reader.next().unwrap().is_ok()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_waits_for_any_more_has_its_turn_until_it_is_made() {
        let renderings = renderings();
        let (go, gate) = mpsc::channel::<()>();
        let (begins, begun) = mpsc::channel();
        let making = renderings.body(scrape(), move || {
            begins.send(()).unwrap();
            gate.recv().unwrap();
            RenderingSource::Text(Vec::new())
        });
        tokio::select! {
            _ = making => panic!("it was made"),
            () = begun_in(begun) => {}
        }
        assert_eq!(renderings.turns.available_permits(), TURNS - 1);
        go.send(()).unwrap();
        while renderings.turns.available_permits() < TURNS {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_takes_long_to_make_keeps_no_scrape_waiting() {
        let renderings = renderings();
        let list = |status| RenderingKey {
            subject: Subject::Toggles(Selection { status: Some(status), ..Selection::default() }, Layout::Compact),
            gzip: false,
        };
        let (go, gate) = mpsc::channel::<()>();
        let slow = renderings.body(list(Status::Failed), move || {
            gate.recv().unwrap();
            RenderingSource::Text(Vec::new())
        });
        let after = renderings.body(list(Status::Unknown), text("after"));
        let scraped = async {
            assert_eq!(read(renderings.body(scrape(), text("scraped")).await.unwrap()), b"scraped");
            go.send(()).unwrap();
        };
        let (slow, after, ()) = tokio::join!(slow, after, scraped);
        assert!(slow.is_ok() && after.is_ok());
    }

    async fn begun_in(begun: mpsc::Receiver<()>) {
        crate::threads::try_run("test", move || begun.recv().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_is_cut_where_bodies_end() {
        let renderings = renderings();
        let mut slow = renderings.body(scrape(), text("slow")).await.unwrap();
        for _ in 0..100 {
            assert_eq!(read(renderings.body(scrape(), text("fast")).await.unwrap()), b"fast");
        }
        assert_eq!(slow.next().unwrap().unwrap(), "slow");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_by_those_who_wait_and_is_seen_until_it_ends() {
        let mut renderings = renderings();
        renderings.patience = Duration::from_millis(20);
        let (go, gate) = mpsc::channel::<()>();
        let stuck = renderings.body(scrape(), move || {
            let _ = gate.recv();
            RenderingSource::Text(Vec::new())
        });
        assert_eq!(stuck.await.err(), Some(NotMade::Late));
        let now = Instant::now();
        assert!(!renderings.are_stuck(now) && renderings.are_stuck(now + LONGEST));
        renderings.patience = LONGEST;
        assert_eq!(read(renderings.body(scrape(), text("another")).await.unwrap()), b"another");
        drop(go);
        while renderings.turns.available_permits() < TURNS {
            tokio::task::yield_now().await;
        }
        assert!(!renderings.are_stuck(now + LONGEST));
    }

    #[tokio::test]
    async fn what_panics_while_it_is_made_is_an_error_and_the_next_one_is_made() {
        let renderings = renderings();
        for _ in 0..2 * TURNS {
            let made = renderings.body(scrape(), || -> RenderingSource { panic!("while it was made") }).await;
            assert_eq!(made.err(), Some(NotMade::Panicked));
        }
        assert_eq!(read(renderings.body(scrape(), text("good")).await.unwrap()), b"good");
    }
}
