//! Large bodies: rendered once for all clients that ask for the same, and bounded in number.
//!
//! A scrape of many watches is tens of megabytes. Two bounds keep any number of clients, and clients that
//! never read, from taking the machine's memory and CPU time:
//!
//! - Two scrapes and one other body are rendered at a time. What a query selects may take long to render,
//!   and must not keep a scrape waiting. Clients that wait for a turn share the next rendering with all that
//!   ask for the same, so each gets data that is newer than its request.
//! - At most [`MAX_ALIVE`] renderings are alive. One more replaces the one that nobody has read from for
//!   longest, so a client that reads is not cut before one that does not, and nobody waits for either.

mod rendering;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

use self::rendering::{Rendering, RenderingContent};
pub(crate) use self::rendering::{RenderingCut, RenderingReader, RenderingSource};
use super::json_layout::JsonLayout;
use crate::exposition::Format;
use crate::http::log_limiter::LogLimiter;
use crate::http::page::{AgentsQuery, PageQuery};
use crate::http::selection::Selection;
use crate::threads::{Panicked, Worker};
use crate::toggle::AgentKey;

/// How many scrapes are rendered at a time.
const SCRAPE_TURNS: usize = 2;

/// How many renderings are alive.
const MAX_ALIVE: usize = 16;

/// How long rendering may take. After that, clients get an error, and the exporter is not healthy.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Renders large bodies.
pub(crate) struct Renderings {
    /// It was started with the process, so no scrape depends on a thread that the machine may refuse.
    worker: Worker,
    time_limit: Duration,
    scrape_turns: Arc<Semaphore>,
    other_turns: Arc<Semaphore>,
    state: Mutex<RenderingsState>,
    cut_log: LogLimiter,
    timeout_log: LogLimiter,
}

#[derive(Default)]
struct RenderingsState {
    /// Renderings that clients wait for and that are not begun.
    pending: HashMap<RenderingKey, Weak<PendingRendering>>,
    /// When each rendering in progress was begun.
    in_progress: Vec<Weak<Instant>>,
    alive: Vec<Weak<Rendering>>,
}

/// Makes what is rendered. It is boxed, so that the path of a rendering is compiled once.
pub(crate) type MakeSource = Box<dyn FnOnce() -> RenderingSource + Send>;

/// A rendering that clients wait for. They own it, so it is dropped when all of them give up.
type PendingRendering = OnceCell<Arc<Rendering>>;

/// Identifies renderings that clients can share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RenderingKey {
    pub(crate) document: Document,
    pub(crate) gzip: bool,
}

/// What is rendered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Document {
    Metrics(Format),
    Toggles(Selection, JsonLayout),
    StatusPage(PageQuery),
    AgentsPage(AgentsQuery),
    AgentPage(AgentKey),
    ApisPage,
    SourcesPage,
    ReplicasPage,
    RuntimePage,
    Overview(JsonLayout),
    Agents(JsonLayout),
    Config,
}

/// Why there is no rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RenderError {
    Panicked,
    TimedOut,
}

// === impl Renderings ===

impl Renderings {
    pub(crate) fn new(worker: Worker) -> Self {
        Self {
            worker,
            time_limit: TIME_LIMIT,
            scrape_turns: Arc::new(Semaphore::new(SCRAPE_TURNS)),
            other_turns: Arc::new(Semaphore::new(1)),
            state: Mutex::default(),
            cut_log: LogLimiter::default(),
            timeout_log: LogLimiter::default(),
        }
    }

    /// Whether a rendering has been in progress for longer than it may.
    pub(crate) fn are_stuck(&self, now: Instant) -> bool {
        let state = self.state();
        let mut begun = state.in_progress.iter().filter_map(Weak::upgrade);
        begun.any(|begun| now.saturating_duration_since(*begun) > TIME_LIMIT)
    }

    /// A rendering of `source`, which blocks and is called after this was.
    ///
    /// # Errors
    /// If rendering panics, or takes too long. It then goes on, and keeps its turn.
    pub(crate) async fn read(&self, key: RenderingKey, source: MakeSource) -> Result<RenderingReader, RenderError> {
        timeout(self.time_limit, self.render(key, source)).await.unwrap_or_else(|_| {
            if let Some(suppressed) = self.timeout_log.permit() {
                let limit_seconds = self.time_limit.as_secs_f64();
                tracing::error!(limit_seconds, suppressed, "answer given up: it was not rendered in time");
            }
            Err(RenderError::TimedOut)
        })
    }

    async fn render(&self, key: RenderingKey, source: MakeSource) -> Result<RenderingReader, RenderError> {
        let pending = self.state().join(&key);
        let rendering = pending.get_or_try_init(async || {
            let is_scrape = matches!(key.document, Document::Metrics(_));
            let turns = if is_scrape { &self.scrape_turns } else { &self.other_turns };
            let turn = turns.clone().acquire_owned().await;
            let begun = self.state().begin(&key, &pending);
            let content = self.worker.run(move || {
                // What was begun is rendered to its end and keeps its turn, even if all clients have gone.
                let _in_progress = (turn, begun);
                RenderingContent::new(source(), key.gzip)
            });
            Ok(self.keep(content.await.map_err(|Panicked| RenderError::Panicked)?))
        });
        rendering.await.map(|rendering| RenderingReader::new(rendering.clone()))
    }

    /// Keeps a rendering for its readers, in the place of another if there are too many.
    fn keep(&self, content: RenderingContent) -> Arc<Rendering> {
        let rendering = Arc::new(Rendering::new(content));
        let replaced = self.state().keep(&rendering);
        if let Some(replaced) = replaced {
            let content = replaced.cut();
            // It may be very many rows.
            drop(self.worker.run(move || drop(content)));
            if let Some(suppressed) = self.cut_log.permit() {
                tracing::warn!(suppressed, "large answer cut: its clients do not read it, and others need the memory");
            }
        }
        rendering
    }

    fn state(&self) -> MutexGuard<'_, RenderingsState> {
        // Nothing that is done under the lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RenderingsState ===

impl RenderingsState {
    /// Waits with others for a rendering that is not begun.
    fn join(&mut self, key: &RenderingKey) -> Arc<PendingRendering> {
        // Clients may have given up.
        self.pending.retain(|_, pending| pending.strong_count() > 0);
        self.pending.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let pending = Arc::default();
            self.pending.insert(key.clone(), Arc::downgrade(&pending));
            pending
        })
    }

    /// Later requests get another rendering. This one is in progress until the time that is
    /// returned is dropped.
    fn begin(&mut self, key: &RenderingKey, pending: &Arc<PendingRendering>) -> Arc<Instant> {
        // If the client that began it first gave up, another one may be pending by now.
        if self.pending.get(key).is_some_and(|found| found.ptr_eq(&Arc::downgrade(pending))) {
            self.pending.remove(key);
        }
        let begun = Arc::new(Instant::now());
        self.in_progress.retain(|begun| begun.strong_count() > 0);
        self.in_progress.push(Arc::downgrade(&begun));
        begun
    }

    /// Adds a rendering, and takes out the one that nobody has read from for longest if there are too many.
    fn keep(&mut self, rendering: &Arc<Rendering>) -> Option<Arc<Rendering>> {
        self.alive.retain(|rendering| rendering.strong_count() > 0);
        let stalest = if self.alive.len() < MAX_ALIVE {
            None
        } else {
            let alive = self.alive.iter().filter_map(Weak::upgrade);
            alive.min_by_key(|rendering| rendering.last_read())
        };
        if let Some(stalest) = &stalest {
            self.alive.retain(|rendering| !rendering.ptr_eq(&Arc::downgrade(stalest)));
        }
        self.alive.push(Arc::downgrade(rendering));
        stalest
    }
}
