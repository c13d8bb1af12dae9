//! The queue of one API: its due runs, held back by its budget, its pauses and its outages.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::board::RunId;
use crate::cekura::{Api, Budget, Client};
use crate::clock;
use crate::config::Polling;
use crate::exposition::ApiMetrics;
use crate::poller::availability::{Availability, FailureContext};
use crate::poller::outage::{self, EndedPoll, Outage, OutageChange};
use crate::toggle::Watch;

/// One API: how it is reached, whether it works, and the runs that wait for it.
pub(super) struct ApiQueue {
    api: Api,
    pub(super) client: Arc<Client>,
    pub(super) metrics: Arc<ApiMetrics>,
    pub(super) outage: Outage,
    availability: Availability,
    /// Incremented when the key of the API or the route to it changes. A poll that started in an earlier
    /// generation says nothing about this key.
    pub(super) key_generation: u64,
    /// Incremented when the route to the API changes: its URL, proxy, authorities or key source. A poll that
    /// started in an earlier generation says nothing about this route.
    pub(super) route_generation: u64,
    /// Distinguishes this queue from that of a removed API of the same name.
    pub(super) number: u64,
    budget: Budget,
    /// The fields that were malformed in an answer and were logged.
    malformed: Vec<&'static str>,
    /// The runs that are due, each with its due time, in the order in which they became due. Some of them may have
    /// been removed.
    due_runs: VecDeque<(Instant, RunId)>,
    /// The due runs that were not removed.
    waiting: HashSet<RunId>,
    /// The values that the metrics have now.
    shown_waiting: usize,
    shown_pause: Option<Instant>,
}

/// A poll that the budget lets start.
pub(super) struct ReadyPoll {
    pub(super) due: Instant,
    pub(super) run: RunId,
    pub(super) watch: Arc<Watch>,
}

// === impl ApiQueue ===

impl ApiQueue {
    /// How many removed runs may stay in a short queue.
    const SPARE: usize = 64;

    pub(super) fn new(api: Api, client: Arc<Client>, metrics: Arc<ApiMetrics>, number: u64, now: Instant) -> Self {
        let budget = Budget::new(api.requests_per_second, api.max_in_flight, now);
        Self {
            api,
            client,
            metrics,
            outage: Outage::default(),
            availability: Availability::default(),
            key_generation: 0,
            route_generation: 0,
            number,
            budget,
            malformed: Vec::new(),
            due_runs: VecDeque::new(),
            waiting: HashSet::new(),
            shown_waiting: 0,
            shown_pause: None,
        }
    }

    /// Applies other settings; running requests end with the old ones. Returns whether the API is reached in
    /// another way. Then everything that was learnt about the old way is forgotten.
    pub(super) fn reconfigure(&mut self, api: Api, client: Arc<Client>, now: Instant) -> bool {
        self.budget.set(api.requests_per_second, api.max_in_flight, now);
        let route_changed = !self.api.has_same_upstream(&api);
        if route_changed {
            self.budget.unpause();
            self.outage.reset();
            self.availability.reset();
            self.key_generation += 1;
            self.route_generation += 1;
        }
        (self.api, self.client) = (api, client);
        route_changed
    }

    /// Removes a run. It may stay in the queue for a while, because searching a long queue takes long.
    pub(super) fn remove(&mut self, run: RunId) {
        self.stop_polling(run);
        if self.waiting.remove(&run) && self.due_runs.len() > 2 * self.waiting.len() + Self::SPARE {
            self.due_runs.retain(|(_, run)| self.waiting.contains(run));
        }
    }

    /// Stops counting a run, because it is not polled again.
    pub(super) fn stop_polling(&mut self, run: RunId) {
        self.outage.remove(run);
        self.availability.remove(run, self.outage.polled());
        self.metrics.set_up(self.availability.up());
    }

    /// Records what a poll shows about the API. Returns the change if the API went down or came back.
    pub(super) fn record_poll(&mut self, poll: &EndedPoll, polling: &Polling) -> Option<OutageChange> {
        let change = self.outage.record_poll(poll, |failures| outage::probe_delay(failures, polling, fastrand::f64()));
        let polled = self.outage.polled();
        match poll.valid {
            None => {}
            Some(true) => self.availability.answered(poll.ended),
            Some(false) => {
                let context = FailureContext {
                    polled,
                    outage: self.outage.next_probe().is_some(),
                    longest_gap: polling.max_interval.saturating_mul(2).saturating_add(self.api.timeout),
                };
                self.availability.failed(poll.run, poll.ended, context);
            }
        }
        if poll.last {
            self.availability.remove(poll.run, polled);
        }
        self.metrics.set_up(self.availability.up());
        change
    }

    /// Adds a run that is due since `due`.
    pub(super) fn enqueue(&mut self, due: Instant, run: RunId) {
        self.waiting.insert(run);
        self.due_runs.push_back((due, run));
    }

    /// Takes the next run out of the queue if its poll may start. `watch_of` is the watch of a run, if the run
    /// still exists. Call [`ApiQueue::release_request`] when its request has ended.
    pub(super) fn start_next(
        &mut self,
        now: Instant,
        watch_of: impl Fn(RunId) -> Option<Arc<Watch>>,
    ) -> Option<ReadyPoll> {
        while let Some((due, run)) = self.due_runs.front().copied() {
            let watch = if self.waiting.contains(&run) { watch_of(run) } else { None };
            match watch {
                None => {
                    self.pop(run);
                }
                Some(_) if !self.may_probe(now) || !self.budget.try_start(now) => return None,
                Some(watch) => {
                    self.pop(run);
                    self.metrics.in_flight.inc();
                    return Some(ReadyPoll { due, run, watch });
                }
            }
        }
        None
    }

    /// Takes the first run out of the queue, and frees the memory of a long queue that is empty now.
    fn pop(&mut self, run: RunId) {
        self.due_runs.pop_front();
        self.waiting.remove(&run);
        if self.due_runs.is_empty() && self.due_runs.capacity() > Self::SPARE {
            (self.due_runs, self.waiting) = (VecDeque::new(), HashSet::new());
        }
    }

    /// Frees the place of a request that has ended. The upstream may have asked for a pause, and the request may have
    /// been sent twice, which costs two requests of the budget.
    pub(super) fn release_request(&mut self, retry_after: Option<Duration>, repeated: bool, now: Instant) {
        self.budget.ended();
        if repeated {
            self.budget.spend(now);
        }
        self.metrics.in_flight.dec();
        if let Some(pause) = retry_after {
            self.budget.pause(now, pause);
        }
    }

    /// Counts an answer with malformed fields, and returns those that no earlier answer had malformed.
    pub(super) fn new_malformed_fields(&mut self, fields: &[&'static str]) -> Option<String> {
        if fields.is_empty() {
            return None;
        }
        self.metrics.malformed_answers.inc();
        let new: Vec<_> = fields.iter().copied().filter(|field| !self.malformed.contains(field)).collect();
        self.malformed.extend(&new);
        (!new.is_empty()).then(|| new.join(", "))
    }

    /// Whether a probe is due and the queue has no run for it.
    pub(super) fn wants_a_probe(&self, now: Instant) -> bool {
        self.outage.next_probe().is_some() && self.waiting.is_empty() && self.may_probe(now)
    }

    /// Whether a poll may start as far as outages go: in an outage, one probe at a time.
    fn may_probe(&self, now: Instant) -> bool {
        self.outage.next_probe().is_none_or(|next| next <= now && self.budget.is_idle())
    }

    /// Makes the runs that waited for the end of an outage start at the pace of the budget, without a burst.
    pub(super) fn skip_burst(&mut self, now: Instant) {
        self.budget.spend_burst(now);
    }

    /// When a poll may start or a metric changes next, as far as that depends on time alone.
    pub(super) fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        let start = if self.waiting.is_empty() { None } else { self.next_start(now) };
        start.into_iter().chain(self.shown_pause.filter(|pause| *pause > now)).min()
    }

    fn next_start(&mut self, now: Instant) -> Option<Instant> {
        let start = self.budget.next_start(now)?;
        match self.outage.next_probe() {
            Some(_) if !self.budget.is_idle() => None,
            Some(probe) => Some(start.max(probe)),
            None => Some(start),
        }
    }

    /// The end of the pause, if there is one. An outage always has one, even while the probe that was due then
    /// is running.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.budget.paused(now).into_iter().chain(self.outage.next_probe()).max()
    }

    /// Makes [`ApiQueue::update_metrics`] set the end of the pause again, because the clock jumped.
    pub(super) fn refresh_pause_metric(&mut self) {
        self.shown_pause = None;
    }

    /// Updates the metrics that show how many runs wait and how long the API is paused.
    pub(super) fn update_metrics(&mut self, now: Instant) {
        if self.shown_waiting != self.waiting.len() {
            self.shown_waiting = self.waiting.len();
            self.metrics.set_waiting(self.shown_waiting, now);
        }
        let pause = self.paused_until(now);
        if self.shown_pause != pause {
            self.shown_pause = pause;
            let until = |pause: Instant| clock::now().after(pause.saturating_duration_since(now));
            self.metrics.set_paused_until(pause.map(until));
        }
    }
}
