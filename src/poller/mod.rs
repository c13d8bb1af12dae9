//! When to poll, and the loop that polls.
//!
//! A target is what a poll asks for: the progress of a run, the mock status of an agent, or a page of an API's list of
//! agents. Schedules hold when each is due. A target that is due waits in the queue of its API until the budget lets it
//! start; runs come before agents. Then its request is a task of its own, and the outcome is applied to the board.
//! Polls are coalesced and never dropped: a target has at most one poll that is planned, queued or running, and one
//! that is held back runs late.

mod agents;
mod availability;
mod debug_poll;
mod discovery;
mod events;
mod interval;
mod lane;
mod outage;
mod outcome;
mod queue;
mod schedule;
mod update;

pub use debug_poll::{DebugPollPermit, DebugPollRefusal, DebugPolls};
pub use schedule::Schedule;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::board::{Board, RunId};
use crate::cekura::{AgentPage, Api, Client, Polled, Renewal};
use crate::clock;
use crate::config::Polling;
use crate::exposition::Metrics;
use crate::liveness::{Heartbeat, LastStatusChange};
use crate::sources::{self, ListedAgents};
use crate::store::{self, Leases, ToggleChange};
use crate::tasks::boxed;
use crate::threads::{BlockingTask, Thread};
use crate::toggle::{AgentId, AgentKey, Answer, ApiName, ClockJump, Failure, MockStatus, ShardSet, Watch};
use debug_poll::DebugPollCommand;
use queue::{ApiQueue, ReadyPoll};

/// How often the board forgets agents that have been without a watch or unlisted for long.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// How often the clock is compared with the system's.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Changes that take effect together.
pub struct PollerUpdate {
    /// Other settings, if they changed.
    pub settings: Option<PollerSettings>,
    /// Changes of the watch list. The settings have every API that a watch names.
    pub changes: Vec<sources::WatchChange>,
    /// Changes of the list of agents. The settings have every API that an agent names.
    pub agents: Vec<sources::AgentChange>,
    /// What other exporters did, if there are any.
    pub replication: Replication,
    /// The sum of the clock's jumps that the times in the changes include.
    pub applied_jump: ClockJump,
    /// Resolves when every reader of the board sees the changes.
    pub taken: oneshot::Sender<()>,
}

/// What other exporters did that share the watches and agents.
#[derive(Debug, Default)]
pub struct Replication {
    /// The state that they saved of watches.
    pub toggles: Vec<ToggleChange>,
    /// The state that they saved of agents.
    pub agents: Vec<store::SavedAgentChange>,
    /// The sum of the clock's jumps that the times in these states include.
    pub jumps: ClockJump,
    /// What this exporter polls from now on; `None` if that stays as it is.
    pub share: Option<Share>,
}

// === impl Replication ===

impl Replication {
    /// Whether others did nothing.
    pub fn is_empty(&self) -> bool {
        self.toggles.is_empty() && self.agents.is_empty() && self.share.is_none()
    }
}

/// The share of the work that an exporter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The shards that it owns.
    pub owned: ShardSet,
    /// In which epochs it owns them, so that their state is saved only in these.
    pub leases: Leases,
    /// Those of them that it has just been given. Their state is the saved one, even where it polled them before.
    pub given: ShardSet,
    /// How many exporters there are, this one included.
    pub replicas: NonZeroU32,
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
    /// Asks for the mock status of an agent ahead of its plan.
    pub asks: mpsc::UnboundedSender<AgentKey>,
    /// Asks for polls beside the schedule.
    pub debug_polls: DebugPolls,
    /// The agents whose mock status was asked for and that another exporter owns.
    pub forwarded: mpsc::UnboundedReceiver<AgentKey>,
    /// The listings of agents that ended.
    pub listings: mpsc::UnboundedReceiver<AgentListing>,
    /// Whether the poller is alive.
    pub heartbeat: Heartbeat,
    /// When the status of any run last changed.
    pub last_change: LastStatusChange,
}

/// The outcome of listing the agents of an API.
#[derive(Debug)]
pub struct AgentListing {
    /// The API.
    pub api: ApiName,
    /// The agents with mock tools, or why there is no complete list.
    pub found: Result<ListedAgents, Failure>,
}

/// What a poll asks for, of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum PollTarget {
    /// The progress of a run.
    Run(RunId),
    /// The mock status of an agent.
    Agent(AgentId),
    /// A page of the list of agents.
    Discovery,
}

/// The result of a request.
enum PollResult {
    Run(Polled<Answer>),
    Agent(Polled<MockStatus>),
    Page(Polled<AgentPage>),
}

/// Polls the runs on the watch list and the agents, and keeps the board up to date.
pub struct Poller {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    polling: Polling,
    updates: mpsc::Receiver<PollerUpdate>,
    renewals: mpsc::UnboundedReceiver<(ApiName, Renewal)>,
    asks: mpsc::UnboundedReceiver<AgentKey>,
    debug_polls: DebugPolls,
    debug_poll_commands: mpsc::UnboundedReceiver<DebugPollCommand>,
    forwarded: mpsc::UnboundedSender<AgentKey>,
    listings: mpsc::UnboundedSender<AgentListing>,
    queues: BTreeMap<ApiName, ApiQueue>,
    /// How many exporters share the budgets of the APIs.
    replicas: NonZeroU32,
    /// How many queues there were so far.
    queue_count: u64,
    schedule: Schedule,
    requests: JoinSet<PollResult>,
    /// The poll that each request belongs to.
    running: HashMap<Id, RunningPoll>,
    heartbeat: Heartbeat,
    last_change: LastStatusChange,
}

/// A poll whose request is in progress.
struct RunningPoll {
    api: ApiName,
    target: PollTarget,
    /// The watch of the run, if it is the poll of one.
    watch: Option<Arc<Watch>>,
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
        let (send_ask, asks) = mpsc::unbounded_channel();
        let (debug_polls, debug_poll_commands) = DebugPolls::new();
        let (send_forwarded, forwarded) = mpsc::unbounded_channel();
        let (send_listing, listings) = mpsc::unbounded_channel();
        let (heartbeat, last_change) = (Heartbeat::new(Instant::now()), LastStatusChange::default());
        let poller = Self {
            board,
            metrics,
            polling: Polling::default(),
            updates,
            renewals,
            asks,
            debug_polls: debug_polls.clone(),
            debug_poll_commands,
            forwarded: send_forwarded,
            listings: send_listing,
            queues: BTreeMap::new(),
            replicas: NonZeroU32::MIN,
            queue_count: 0,
            schedule: Schedule::new(Instant::now()),
            requests: JoinSet::new(),
            running: HashMap::new(),
            heartbeat: heartbeat.clone(),
            last_change: last_change.clone(),
        };
        let handle = PollerHandle {
            updates: send_update,
            renewals: send_renewal,
            asks: send_ask,
            debug_polls,
            forwarded,
            listings,
            heartbeat,
            last_change,
        };
        (poller, handle)
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
                Some((api, agent)) = self.asks.recv() => self.ask_soon(&api, agent),
                Some(command) = self.debug_poll_commands.recv() => self.debug_poll(command),
                () = sleep_until(wake) => {}
                _ = beat.tick() => {}
                _ = forget.tick() => self.board.forget_unused_agents(clock::now()),
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
        for queue in self.queues.values_mut() {
            queue.enqueue_agents(now);
            if queue.wants_a_probe(now) {
                // A probe is due, but everything has backed off for longer. The first that is planned becomes the probe.
                let down: Vec<_> = queue.outage.down().collect();
                down.into_iter().any(|target| match target {
                    PollTarget::Run(run) => self.schedule.replan(now, run),
                    PollTarget::Agent(agent) => queue.agents.replan(now, agent),
                    PollTarget::Discovery => false,
                });
                queue.enqueue_agents(now);
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
        for (api, queue) in &mut self.queues {
            if !queue.debug_poll.yields() {
                debug_poll::start(api, queue, &self.debug_polls, now);
            }
            while let Some(ReadyPoll { due, target, watch }) = queue.start_next(now, |run| self.board.watch(run)) {
                if watch.is_some() {
                    queue.metrics.observe_lag(now.saturating_duration_since(due));
                }
                let poll = RunningPoll {
                    api: api.clone(),
                    target,
                    watch,
                    started: now,
                    queue: queue.number,
                    key_generation: queue.key_generation,
                    route_generation: queue.route_generation,
                };
                let request = self.requests.spawn(boxed(request(queue, &poll, now)));
                self.running.insert(request.id(), poll);
            }
            debug_poll::start(api, queue, &self.debug_polls, now);
            queue.update_metrics(now);
            wake = wake.into_iter().chain(queue.next_wake(now)).min();
        }
        wake
    }
}

/// The request of a poll that starts now.
fn request(queue: &mut ApiQueue, poll: &RunningPoll, now: Instant) -> impl Future<Output = PollResult> + use<> {
    let (client, target, watch) = (queue.client.clone(), poll.target, poll.watch.clone());
    let page = match (target, &mut queue.discovery) {
        (PollTarget::Discovery, Some(discovery)) => discovery.start_page(now),
        _ => None,
    };
    async move {
        match (target, watch) {
            (PollTarget::Agent(agent), _) => PollResult::Agent(client.mock_status(agent).await),
            (PollTarget::Run(_), Some(watch)) => PollResult::Run(client.poll(watch.agent_id, &watch.progress_id).await),
            (PollTarget::Run(_) | PollTarget::Discovery, _) => PollResult::Page(client.agents(page.as_deref()).await),
        }
    }
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
