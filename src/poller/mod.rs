//! When to poll, and the loop that does.
//!
//! One heap holds when each run is due. A run that is due queues in the lane of its API until the
//! budget lets it start; then its request is a task of its own, and what that brings is applied to
//! the board. Work is coalesced, never dropped: a run has at most one poll planned, queued or under
//! way, and one that is held back runs late.

mod cadence;
mod events;
mod lane;
mod outage;
mod pulse;
mod schedule;

pub use pulse::Pulse;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

use crate::board::{Board, RunId};
use crate::cekura::{Api, Budget, Client, Polled};
use crate::config::Polling;
use crate::exposition::Metrics;
use crate::sources::WatchList;
use crate::toggle::{ApiName, Failure, Outcome, Reason, Watch};
use crate::wall_clock;
use lane::Lane;
use outage::{Change, Poll, Verdict};
use schedule::Schedule;

/// How often agents without a watch are looked over.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// Polls what is on the watch list, and keeps the board.
pub struct Poller {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    polling: Polling,
    lists: watch::Receiver<WatchList>,
    key_changes: mpsc::UnboundedReceiver<ApiName>,
    lanes: BTreeMap<ApiName, Lane>,
    schedule: Schedule,
    flights: JoinSet<Polled>,
    /// What each request that is under way is for.
    under_way: HashMap<Id, Flight>,
    pulse: Pulse,
}

struct Flight {
    run: RunId,
    watch: Arc<Watch>,
    started: Instant,
    /// How often the API's key had changed when it started.
    keys: u64,
}

// === impl Poller ===

impl Poller {
    /// A poller that has polled nothing yet. Every API that a watch names must be among `apis`.
    pub fn new(
        board: Arc<Board>,
        metrics: Arc<Metrics>,
        polling: Polling,
        lists: watch::Receiver<WatchList>,
        key_changes: mpsc::UnboundedReceiver<ApiName>,
        apis: impl IntoIterator<Item = (Api, Arc<Client>)>,
    ) -> Self {
        let now = Instant::now();
        let lane = |(api, client): (Api, Arc<Client>)| {
            let budget = Budget::new(api.requests_per_second, api.max_in_flight, now);
            let lane = Lane::new(client, metrics.api(&api.name), budget);
            (api.name, lane)
        };
        let lanes = apis.into_iter().map(lane).collect();
        let mut poller = Self {
            board,
            metrics,
            polling,
            lists,
            key_changes,
            lanes,
            schedule: Schedule::default(),
            flights: JoinSet::new(),
            under_way: HashMap::new(),
            pulse: Pulse::new(now),
        };
        poller.take_list();
        poller
    }

    /// Tells whether the poller is alive.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Polls until dropped.
    pub async fn run(mut self) {
        let mut beat = interval(Pulse::INTERVAL);
        let mut forget = interval(FORGET_INTERVAL);
        let mut lists_end = false;
        loop {
            let wake = self.advance(Instant::now());
            tokio::select! {
                Some(landed) = self.flights.join_next_with_id() => self.land(landed),
                changed = self.lists.changed(), if !lists_end => match changed {
                    Ok(()) => self.take_list(),
                    Err(_) => lists_end = true,
                },
                Some(api) = self.key_changes.recv() => self.key_changed(&api),
                () = sleep_until(wake) => {}
                _ = beat.tick() => {}
                _ = forget.tick() => self.board.forget_agents(wall_clock()),
            }
        }
    }

    /// Starts what may start now, and says when time alone will let more start.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.pulse.beat(now);
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
                self.metrics.observe_lag(now.saturating_duration_since(start.due));
                let (client, watch) = (lane.client.clone(), start.watch.clone());
                let task = async move { client.poll(watch.agent_id, &watch.progress_id).await };
                let flight = Flight { run: start.run, watch: start.watch, started: now, keys: lane.keys };
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
        let Some(lane) = self.lanes.get_mut(&flight.watch.api) else { return };
        let polled = landed.map_or_else(
            |_| {
                events::poll_panicked(&flight.watch);
                Polled { outcome: Err(Failure::new(Reason::Aborted)), took: None }
            },
            |(_, polled)| polled,
        );
        lane.ended(retry_after(&polled.outcome), Instant::now());
        lane.metrics.count_poll(&polled.outcome, polled.took);
        let change = self.apply(&flight, polled.outcome);
        self.report_outage(&flight.watch.api, change);
    }

    /// Applies the outcome to the board, plans the next poll, and reports what changed. Says
    /// whether the API went down or came back with it.
    fn apply(&mut self, flight: &Flight, outcome: Outcome) -> Option<Change> {
        let lane = self.lanes.get_mut(&flight.watch.api)?;
        let (now, ended) = (wall_clock(), Instant::now());
        // Polls keep their interval from start to start; a failing one is left alone from its end,
        // or one that times out would come back at once.
        let from = if outcome.is_ok() { flight.started } else { ended };
        // The key is another one since: what a poll with the old one says of it is not held against
        // the run or the API.
        let for_the_key = outcome.as_ref().is_err_and(|failure| failure.reason.is_for_want_of_a_key());
        let outdated = flight.keys != lane.keys && for_the_key;
        let (mut due, mut change) = (None, None);
        let verdict = Verdict::of(&outcome);
        let applied = self.board.apply(flight.run, outcome, now, |run| {
            if outdated {
                due = Some(ended);
                return Some(now);
            }
            due = cadence::next_delay(run, &self.polling, now, fastrand::f64()).map(|delay| from + delay);
            let (run, last) = (flight.run, due.is_none());
            let poll = Poll { run, verdict, started: flight.started, ended, last };
            change = lane.outage.note(&poll, |n| outage::probe_delay(n, &self.polling, fastrand::f64()));
            due.map(|due| now.after(due.saturating_duration_since(ended)))
        });
        if let Some(due) = due {
            self.schedule.plan(due, flight.run);
        }
        if let Some(applied) = applied {
            events::report(&applied, &lane.metrics);
        }
        change
    }

    /// Reports that an API went down, or came back; then all that was down is due again, spread.
    fn report_outage(&mut self, api: &ApiName, change: Option<Change>) {
        let Some(lane) = self.lanes.get_mut(api) else { return };
        let now = Instant::now();
        match change {
            None => {}
            Some(Change::Began) => events::api_down(api),
            Some(Change::Ended(runs)) => {
                events::api_back(api, runs.len());
                lane.resume(now);
                for run in runs {
                    self.replan(now + self.polling.min_interval.mul_f64(fastrand::f64()), run);
                }
            }
        }
    }

    /// The key of an API is another one: what failed for want of a good one is tried at once.
    fn key_changed(&mut self, api: &ApiName) {
        let now = Instant::now();
        let Some(lane) = self.lanes.get_mut(api) else { return };
        lane.keys += 1;
        let runs = self.board.failing_for_want_of_a_key(api);
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
            self.board.plan(run, wall_clock().after(until));
        }
    }

    /// Brings the board to the newest watch list. New runs are due at once, in the list's order.
    fn take_list(&mut self) {
        let list = self.lists.borrow_and_update().clone();
        let now = Instant::now();
        for run in self.board.reconcile(&list, wall_clock()) {
            self.schedule.plan(now, run);
            if let Some(watch) = self.board.watch(run)
                && let Some(lane) = self.lanes.get_mut(&watch.api)
            {
                lane.outage.add(run);
            }
        }
        for lane in self.lanes.values_mut() {
            lane.outage.retain(|run| self.board.watch(run).is_some());
        }
        self.metrics.set_watches(&list.iter().map(|watch| watch.source).collect::<Vec<_>>());
    }
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
