//! When to poll, and the loop that polls.
//!
//! One schedule holds when each run is due. A run that is due waits in the queue of its API until the budget
//! lets it start. Then its request is a task of its own, and the outcome is applied to the board. Polls are
//! coalesced and never dropped: a run has at most one poll that is planned, queued or running, and one that
//! is held back runs late.

mod availability;
mod events;
mod interval;
mod outage;
mod outcome;
mod queue;
mod schedule;
mod update;

pub use schedule::Schedule;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::board::{Board, RunId};
use crate::cekura::{Api, Client, Polled, Renewal};
use crate::clock;
use crate::config::Polling;
use crate::exposition::Metrics;
use crate::liveness::{Heartbeat, LastStatusChange};
use crate::sources;
use crate::threads::{BlockingTask, Thread};
use crate::toggle::{ApiName, ClockJump, Watch};
use queue::{ApiQueue, ReadyPoll};

/// How often the board forgets agents that have been without a watch for long.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// How often the clock is compared with the system's.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Changes that take effect together.
pub struct PollerUpdate {
    /// Other settings, if they changed.
    pub settings: Option<PollerSettings>,
    /// Changes of the watch list. The settings have every API that a watch names.
    pub changes: Vec<sources::WatchChange>,
    /// The sum of the clock's jumps that the times in the changes include.
    pub applied_jump: ClockJump,
    /// Resolves when every reader of the board sees the changes.
    pub taken: oneshot::Sender<()>,
}

/// How the poller polls.
pub struct PollerSettings {
    /// The intervals.
    pub polling: Polling,
    /// Every API with its client. It is a new client only if the API is reached in another way.
    pub apis: Vec<(Api, Arc<Client>)>,
}

/// How the rest of the program reaches the poller.
pub struct PollerHandle {
    /// Sends updates.
    pub updates: mpsc::Sender<PollerUpdate>,
    /// Tells which API has another key or other certificate authorities.
    pub renewals: mpsc::UnboundedSender<(ApiName, Renewal)>,
    /// Whether the poller is alive.
    pub heartbeat: Heartbeat,
    /// When the status of any run last changed.
    pub last_change: LastStatusChange,
}

/// Polls the runs on the watch list, and keeps the board up to date.
pub struct Poller {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    polling: Polling,
    updates: mpsc::Receiver<PollerUpdate>,
    renewals: mpsc::UnboundedReceiver<(ApiName, Renewal)>,
    queues: BTreeMap<ApiName, ApiQueue>,
    /// How many queues there were so far.
    queue_count: u64,
    schedule: Schedule,
    requests: JoinSet<Polled>,
    /// The poll that each request belongs to.
    running: HashMap<Id, RunningPoll>,
    heartbeat: Heartbeat,
    last_change: LastStatusChange,
}

/// A poll whose request is in progress.
struct RunningPoll {
    run: RunId,
    watch: Arc<Watch>,
    started: Instant,
    /// The number of the queue that it comes from.
    queue: u64,
    /// The API's [`ApiQueue::key_generation`] when it started.
    key_generation: u64,
    /// The API's [`ApiQueue::route_generation`] when it started.
    route_generation: u64,
}

// === impl Poller ===

impl Poller {
    /// A poller that polls nothing until its first update.
    pub fn new(board: Arc<Board>, metrics: Arc<Metrics>) -> (Self, PollerHandle) {
        let (send_update, updates) = mpsc::channel(1);
        let (send_renewal, renewals) = mpsc::unbounded_channel();
        let (heartbeat, last_change) = (Heartbeat::new(Instant::now()), LastStatusChange::default());
        let poller = Self {
            board,
            metrics,
            polling: Polling::default(),
            updates,
            renewals,
            queues: BTreeMap::new(),
            queue_count: 0,
            schedule: Schedule::new(Instant::now()),
            requests: JoinSet::new(),
            running: HashMap::new(),
            heartbeat: heartbeat.clone(),
            last_change: last_change.clone(),
        };
        (poller, PollerHandle { updates: send_update, renewals: send_renewal, heartbeat, last_change })
    }

    /// Polls on this thread until `stop` resolves. Polls are many small steps: handing them from thread to
    /// thread would cost more than doing them, and on a thread of their own they never delay a scrape.
    ///
    /// # Errors
    /// If no runtime can be set up.
    pub fn run_on(self, thread: Thread, stop: oneshot::Receiver<()>) -> io::Result<BlockingTask<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let polling = async {
            tokio::select! {
                () = self.run() => {}
                // It also resolves when the sender is dropped.
                _ = stop => {}
            }
        };
        Ok(thread.run(move || runtime.block_on(polling)))
    }

    /// Polls until it is dropped.
    async fn run(mut self) {
        let mut beat = ticker(Heartbeat::INTERVAL);
        let mut forget = ticker(FORGET_INTERVAL);
        let mut check_clock = ticker(CLOCK_INTERVAL);
        let mut system_clock = clock::ClockFollower::default();
        loop {
            let wake = self.advance(Instant::now());
            tokio::select! {
                Some(ended) = self.requests.join_next_with_id() => {
                    self.request_ended(ended);
                    // Taking all that have ended together saves an `advance` for each.
                    while let Some(ended) = self.requests.try_join_next_with_id() {
                        self.request_ended(ended);
                    }
                }
                Some(update) = self.updates.recv() => self.update(update),
                Some((api, renewal)) = self.renewals.recv() => self.renewed(&api, renewal),
                () = sleep_until(wake) => {}
                _ = beat.tick() => {}
                _ = forget.tick() => self.board.forget_unwatched_agents(clock::now()),
                _ = check_clock.tick() => if let Some(jump) = system_clock.check() {
                    self.board.shift_times(jump, clock::jump);
                    self.queues.values_mut().for_each(ApiQueue::refresh_pause_metric);
                }
            }
        }
    }

    /// Starts the polls that may start now. Returns when the next one may, as far as that depends on time
    /// alone.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.heartbeat.beat(now);
        for queue in self.queues.values().filter(|queue| queue.wants_a_probe(now)) {
            // A probe is due, but every run has backed off for longer.
            for run in queue.outage.down() {
                if self.schedule.replan(now, run) {
                    // This run becomes the probe.
                    break;
                }
            }
        }
        while let Some((due, run)) = self.schedule.pop_due(now) {
            if let Some(watch) = self.board.watch(run)
                && let Some(queue) = self.queues.get_mut(&watch.api)
            {
                queue.enqueue(due, run);
            }
        }
        let mut wake = self.schedule.next_due();
        for queue in self.queues.values_mut() {
            while let Some(ready) = queue.start_next(now, |run| self.board.watch(run)) {
                let (request, poll) = start(queue, ready, now);
                self.running.insert(self.requests.spawn(request).id(), poll);
            }
            queue.update_metrics(now);
            wake = wake.into_iter().chain(queue.next_wake(now)).min();
        }
        wake
    }
}

/// The request of a poll that starts now.
fn start(queue: &ApiQueue, ready: ReadyPoll, now: Instant) -> (impl Future<Output = Polled> + use<>, RunningPoll) {
    queue.metrics.observe_lag(now.saturating_duration_since(ready.due));
    let (client, watch) = (queue.client.clone(), ready.watch.clone());
    let request = async move { client.poll(watch.agent_id, &watch.progress_id).await };
    let poll = RunningPoll {
        run: ready.run,
        watch: ready.watch,
        started: now,
        queue: queue.number,
        key_generation: queue.key_generation,
        route_generation: queue.route_generation,
    };
    (request, poll)
}

fn ticker(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
