//! When to poll, and the loop that does.
//!
//! One heap holds when each run is due. A run that is due queues in the lane of its API until the
//! budget lets it start; then its request is a task of its own, and what that brings is applied to
//! the board. Work is coalesced, never dropped: a run has at most one poll planned, queued or under
//! way, and one that is held back runs late.

mod availability;
mod cadence;
mod events;
mod outage;
mod queue;
mod schedule;

pub use schedule::Schedule;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::board::{Board, RunChanges, RunId, ToggleRow};
use crate::cekura::{Api, Client, Polled, Renewal};
use crate::clock;
use crate::config::Polling;
use crate::exposition::Metrics;
use crate::liveness::{Heartbeat, LastStatusChange};
use crate::sources;
use crate::toggle::{Answer, ApiName, ClockJump, Failure, Outcome, Reason, Transition, Watch};

use outage::{EndedPoll, OutageChange, PollVerdict};
use queue::ApiQueue;

/// How often agents without a watch are looked over.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// How often it is looked whether the system's clock was set.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be different from now on: all of it at once.
pub struct PollerUpdate {
    /// How and at which APIs is polled, if that changed.
    pub settings: Option<PollerSettings>,
    /// Changes of the watch list. Every API that a watch names must be among the settings.
    pub changes: Vec<sources::WatchChange>,
    /// The sum of all jumps of the clock when their times were stamped.
    pub moved: ClockJump,
    /// Told when every reader of the board sees it.
    pub taken: oneshot::Sender<()>,
}

/// How and at which APIs is polled.
pub struct PollerSettings {
    /// When to poll.
    pub polling: Polling,
    /// Every API, with its client: the same one as before unless how it is reached changed.
    pub apis: Vec<(Api, Arc<Client>)>,
}

/// Polls what is on the watch list, and keeps the board.
pub struct Poller {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    polling: Polling,
    updates: mpsc::Receiver<PollerUpdate>,
    renewals: mpsc::UnboundedReceiver<(ApiName, Renewal)>,
    lanes: BTreeMap<ApiName, ApiQueue>,
    /// Lanes so far.
    lane_count: u64,
    schedule: Schedule,
    flights: JoinSet<Polled>,
    /// What each request that is under way is for.
    under_way: HashMap<Id, RunningPoll>,
    heartbeat: Heartbeat,
    last_change: LastStatusChange,
}

struct RunningPoll {
    run: RunId,
    watch: Arc<Watch>,
    started: Instant,
    /// The number of the lane that it started from.
    lane: u64,
    /// How often the API's key had changed when it started.
    keys: u64,
    /// How often the way to the API had.
    ways: u64,
}

// === impl Poller ===

impl Poller {
    /// A poller that polls nothing until it is told what, by its first update.
    pub fn new(
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        updates: mpsc::Receiver<PollerUpdate>,
        renewals: mpsc::UnboundedReceiver<(ApiName, Renewal)>,
    ) -> Self {
        Self {
            board,
            metrics,
            polling: Polling::default(),
            updates,
            renewals,
            lanes: BTreeMap::new(),
            lane_count: 0,
            schedule: Schedule::new(Instant::now()),
            flights: JoinSet::new(),
            under_way: HashMap::new(),
            heartbeat: Heartbeat::new(Instant::now()),
            last_change: LastStatusChange::default(),
        }
    }

    /// Tells whether the poller is alive.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Tells when the status of any run last changed.
    pub fn last_change(&self) -> LastStatusChange {
        self.last_change.clone()
    }

    /// Polls until dropped.
    pub async fn run(mut self) {
        let mut beat = interval(Heartbeat::INTERVAL);
        let mut forget = interval(FORGET_INTERVAL);
        let mut look = interval(CLOCK_INTERVAL);
        let mut system_clock = clock::ClockFollower::default();
        loop {
            let wake = self.advance(Instant::now());
            tokio::select! {
                Some(landed) = self.flights.join_next_with_id() => {
                    self.land(landed);
                    // What else has landed is taken together, which spares looking around after each.
                    while let Some(landed) = self.flights.try_join_next_with_id() {
                        self.land(landed);
                    }
                }
                Some(update) = self.updates.recv() => self.update(update),
                Some((api, renewal)) = self.renewals.recv() => self.renewed(&api, renewal),
                () = sleep_until(wake) => {}
                _ = beat.tick() => {}
                _ = forget.tick() => self.board.forget_unwatched_agents(clock::now()),
                _ = look.tick() => if let Some(jump) = system_clock.look() {
                    self.board.shift_times(jump, clock::jump);
                    self.lanes.values_mut().for_each(ApiQueue::clock_moved);
                }
            }
        }
    }

    /// Starts what may start now, and says when time alone will let more start.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.heartbeat.beat(now);
        // All may have backed off for longer than the next probe is away.
        for lane in self.lanes.values().filter(|lane| lane.wants_a_probe(now)) {
            let _ = lane.outage.down().any(|run| self.schedule.replan(now, run));
        }
        while let Some((due, run)) = self.schedule.pop_due(now) {
            self.enqueue(due, run);
        }
        let mut wake = self.schedule.next_due();
        for lane in self.lanes.values_mut() {
            while let Some(start) = lane.start_next(now, |run| self.board.watch(run)) {
                lane.metrics.observe_lag(now.saturating_duration_since(start.due));
                let (client, watch) = (lane.client.clone(), start.watch.clone());
                let task = async move { client.poll(watch.agent_id, &watch.progress_id).await };
                let flight = RunningPoll {
                    run: start.run,
                    watch: start.watch,
                    started: now,
                    lane: lane.number,
                    keys: lane.keys,
                    ways: lane.ways,
                };
                self.under_way.insert(self.flights.spawn(task).id(), flight);
            }
            lane.show(now);
            wake = wake.into_iter().chain(lane.next_wake(now)).min();
        }
        wake
    }

    fn enqueue(&mut self, due: Instant, run: RunId) {
        if let Some(watch) = self.board.watch(run)
            && let Some(lane) = self.lanes.get_mut(&watch.api)
        {
            lane.enqueue(due, run);
        }
    }

    /// Takes what a request brought. One that panicked, which is a fault of ours, brought nothing.
    fn land(&mut self, landed: Result<(Id, Polled), JoinError>) {
        let id = landed.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(flight) = self.under_way.remove(&id) else { return };
        // What was started before its API was removed is nobody's any more.
        let lane = self.lanes.get_mut(&flight.watch.api).filter(|lane| lane.number == flight.lane);
        let Some(lane) = lane else { return };
        let polled = landed.map_or_else(
            |_| {
                events::poll_panicked(&flight.watch);
                Polled { outcome: Err(Failure::new(Reason::Aborted)), took: None, repeated: false }
            },
            |(_, polled)| polled,
        );
        // A pause is for the upstream that asked for it.
        let pause = retry_after(&polled.outcome).filter(|_| flight.ways == lane.ways);
        lane.ended(pause, polled.repeated, Instant::now());
        lane.metrics.count_poll(&polled.outcome, polled.took);
        if let Ok(Answer { malformed, .. }) = &polled.outcome
            && let Some(unsaid) = lane.note_malformed(malformed)
        {
            events::malformed(&flight.watch, &unsaid);
        }
        let change = self.apply(&flight, polled.outcome);
        self.report_outage(&flight.watch.api, change);
    }

    /// Applies the outcome to the board, plans the next poll, and reports what changed. Says
    /// whether the API went down or came back with it.
    fn apply(&mut self, flight: &RunningPoll, outcome: Outcome) -> Option<OutageChange> {
        let lane = self.lanes.get_mut(&flight.watch.api)?;
        let (now, ended) = (clock::now(), Instant::now());
        // Polls keep their interval from start to start; a failing one is left alone from its end,
        // or one that times out would come back at once.
        let from = if outcome.is_ok() { flight.started } else { ended };
        // The key, or all of the way to the API, is another one since: a failure that came of the
        // old one is not held against the run or the API, and no answer ends an outage of the new one.
        let for_the_key = outcome
            .as_ref()
            .is_err_and(|failure| failure.reason.may_need_another_key() || failure.reason == Reason::Tls);
        let detoured = flight.ways != lane.ways;
        let outdated = (detoured && outcome.is_err()) || (flight.keys != lane.keys && for_the_key);
        let (mut due, mut change) = (None, None);
        let verdict = if detoured { PollVerdict::Neither } else { PollVerdict::of(&outcome) };
        let valid = (!detoured).then_some(outcome.is_ok());
        let applied = self.board.apply(flight.run, outcome, now, |run| {
            if outdated {
                due = Some(ended);
                return Some(now);
            }
            due = cadence::next_delay(run, &self.polling, now, fastrand::f64()).map(|delay| from + delay);
            let (run, last) = (flight.run, due.is_none());
            let poll = EndedPoll { run, verdict, valid, started: flight.started, ended, last };
            change = lane.note(&poll, &self.polling);
            due.map(|due| now.after(due.saturating_duration_since(ended)))
        });
        if let Some(due) = due {
            self.schedule.plan(due, flight.run);
        }
        if let Some(applied) = applied {
            if applied.transitions.iter().any(|transition| matches!(transition, Transition::StatusChanged { .. })) {
                self.last_change.record(ended);
            }
            events::report(&applied, &lane.metrics, || self.metrics.external_url());
        }
        change
    }

    /// Reports that an API went down, or came back; then all that was down is due again, spread.
    fn report_outage(&mut self, api: &ApiName, change: Option<OutageChange>) {
        let Some(lane) = self.lanes.get_mut(api) else { return };
        let now = Instant::now();
        match change {
            None => {}
            Some(OutageChange::Began) => events::api_down(api),
            Some(OutageChange::Ended(runs)) => {
                events::api_back(api, runs.len());
                lane.resume(now);
                for run in runs {
                    self.replan(now + self.polling.min_interval.mul_f64(fastrand::f64()), run);
                }
            }
        }
    }

    /// The key of an API is another one, or its authorities are: what failed for want of a good one is tried
    /// at once.
    fn renewed(&mut self, api: &ApiName, renewal: Renewal) {
        let now = Instant::now();
        let Some(lane) = self.lanes.get_mut(api) else { return };
        lane.keys += 1;
        let runs = self.board.failing(api, |reason| renewal.may_mend(reason));
        if runs.is_empty() {
            lane.outage.probe_at_once(now);
        } else {
            lane.outage.reset();
        }
        for run in runs {
            self.replan(now, run);
        }
    }

    /// Makes a run that is planned due at another time.
    fn replan(&mut self, due: Instant, run: RunId) {
        if self.schedule.replan(due, run) {
            let until = due.saturating_duration_since(Instant::now());
            self.board.set_next_poll(run, Some(clock::now().after(until)));
        }
    }

    /// Takes over settings and changes of the watch list.
    fn update(&mut self, mut update: PollerUpdate) {
        let apis = update.settings.map(|settings| self.take_settings(settings));
        // This thread alone moves the clock, so it stays where it is here.
        let late = ClockJump::from_millis(clock::moved().as_millis() - update.moved.as_millis());
        for definition in update.changes.iter_mut().filter_map(|change| change.now.as_mut()) {
            definition.started = definition.started.map(|started| started.moved(late));
        }
        let RunChanges { started: begun, stale: gone } = self.board.update(&update.changes, clock::now());
        for run in gone {
            self.lanes.values_mut().for_each(|lane| lane.remove(run));
            self.schedule.cancel(run);
        }
        self.schedule.reserve(begun.len());
        for begun in begun {
            self.begin(begun.run, begun.finished);
        }
        if let Some(apis) = apis {
            self.lanes.retain(|api, _| apis.contains(api) || drop_api(&self.metrics, api));
        }
        // Who asked may have left.
        let _ = update.taken.send(());
    }

    /// Plans the first poll of a run. New runs are due at once, in the order of the list.
    fn begin(&mut self, run: RunId, finished: bool) {
        let now = Instant::now();
        if finished {
            self.plan_by_cadence(run, now);
            return;
        }
        self.schedule.plan(now, run);
        if let Some(watch) = self.board.watch(run)
            && let Some(lane) = self.lanes.get_mut(&watch.api)
        {
            lane.outage.add(run);
        }
    }

    /// Plans a run that nobody knows to be due as its state has it, as of now.
    fn plan_by_cadence(&mut self, run: RunId, now: Instant) {
        let Some(row) = self.board.row_of(run) else { return };
        let Some(lane) = self.lanes.get_mut(&row.toggle.watch.api) else { return };
        let clock = clock::now();
        let delay = cadence::next_delay(&row.toggle.run, &self.polling, clock, fastrand::f64());
        if let Some(delay) = delay {
            lane.outage.add(run);
            self.schedule.plan(now + delay, run);
        } else {
            lane.stop_polling(run);
            self.schedule.cancel(run);
        }
        self.board.set_next_poll(run, delay.map(|delay| clock.after(delay)));
    }

    /// Sets up the lanes, and returns the APIs that there are from now on.
    fn take_settings(&mut self, settings: PollerSettings) -> BTreeSet<ApiName> {
        let now = Instant::now();
        let apis = settings.apis.iter().map(|(api, _)| api.name.clone()).collect();
        for (api, client) in settings.apis {
            let name = api.name.clone();
            if let Some(lane) = self.lanes.get_mut(&name) {
                if lane.reconfigure(api, client, now) {
                    self.retry_failing(&name, now);
                }
            } else {
                self.lane_count += 1;
                let lane = ApiQueue::new(api, client, self.metrics.api(&name), self.lane_count, now);
                self.lanes.insert(name, lane);
            }
        }
        if self.polling != settings.polling {
            self.polling = settings.polling;
            self.polling_changed(now);
        }
        apis
    }

    /// An API is reached in another way: what failed in the old one is tried at once.
    fn retry_failing(&mut self, api: &ApiName, now: Instant) {
        for run in self.board.failing(api, |_| true) {
            self.replan(now, run);
        }
    }

    /// Other intervals hold: no run waits longer than they say, and finished ones are rechecked, or
    /// are no more.
    fn polling_changed(&mut self, now: Instant) {
        let clock = clock::now();
        let late = |run, row: &ToggleRow| {
            let delay = cadence::next_delay(&row.toggle.run, &self.polling, clock, fastrand::f64());
            let is_late = match (self.schedule.due(run), delay) {
                (Some(due), Some(delay)) => due > now + delay,
                (Some(_), None) => true,
                // It is queued or under way, or it was left alone.
                (None, delay) => row.next_poll.is_none() && delay.is_some(),
            };
            is_late.then_some(run)
        };
        let late = self.board.map_runs(late);
        late.into_iter().flatten().for_each(|run| self.plan_by_cadence(run, now));
    }
}

/// Says that an API has no lane any more.
fn drop_api(metrics: &Metrics, api: &ApiName) -> bool {
    metrics.forget_api(api);
    false
}

fn retry_after(outcome: &Outcome) -> Option<Duration> {
    outcome.as_ref().err()?.retry_after
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
