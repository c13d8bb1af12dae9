//! One API's queue: what is due there, in order, held by its budget, its pauses and its outages.

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

/// One API, as the poller sees it.
pub(super) struct ApiQueue {
    api: Api,
    pub(super) client: Arc<Client>,
    pub(super) metrics: Arc<ApiMetrics>,
    pub(super) outage: Outage,
    answering: Availability,
    /// How often the API's key changed, or all of the way to it.
    pub(super) keys: u64,
    /// How often the way to the API changed.
    pub(super) ways: u64,
    /// Tells this lane from an earlier one of an API of the same name.
    pub(super) number: u64,
    budget: Budget,
    /// Fields that were malformed in an answer, and are logged.
    malformed: Vec<&'static str>,
    /// Runs that are due, with the time since when, first come first; and some that are gone.
    queue: VecDeque<(Instant, RunId)>,
    /// Those in the queue that are not gone.
    waiting: HashSet<RunId>,
    /// What the metrics show.
    shown_waiting: usize,
    shown_up: Option<bool>,
    shown_pause: Option<Instant>,
}

/// A poll that may start now.
pub(super) struct NextPoll {
    pub(super) due: Instant,
    pub(super) run: RunId,
    pub(super) watch: Arc<Watch>,
}

// === impl ApiQueue ===

impl ApiQueue {
    /// Runs that are gone and stay in the queue all the same.
    const ROOM: usize = 64;

    pub(super) fn new(api: Api, client: Arc<Client>, metrics: Arc<ApiMetrics>, number: u64, now: Instant) -> Self {
        let budget = Budget::new(api.requests_per_second, api.max_in_flight, now);
        Self {
            api,
            client,
            metrics,
            outage: Outage::default(),
            answering: Availability::default(),
            keys: 0,
            ways: 0,
            number,
            budget,
            malformed: Vec::new(),
            queue: VecDeque::new(),
            waiting: HashSet::new(),
            shown_waiting: 0,
            shown_up: None,
            shown_pause: None,
        }
    }

    /// Goes on with other settings. What is under way ends as it began. Says whether they lead to
    /// another upstream; then what was learnt of the old one holds no more.
    pub(super) fn reconfigure(&mut self, api: Api, client: Arc<Client>, now: Instant) -> bool {
        self.budget.set(api.requests_per_second, api.max_in_flight, now);
        let is_another = !self.api.has_same_upstream(&api);
        if is_another {
            self.budget.unpause();
            self.outage.reset();
            self.answering.reset();
            self.keys += 1;
            self.ways += 1;
        }
        (self.api, self.client) = (api, client);
        is_another
    }

    /// Forgets a run that is gone. Looking for it in a long queue would take long.
    pub(super) fn remove(&mut self, run: RunId) {
        self.stop_polling(run);
        if self.waiting.remove(&run) && self.queue.len() > 2 * self.waiting.len() + Self::ROOM {
            self.queue.retain(|(_, run)| self.waiting.contains(run));
        }
    }

    /// A run is polled no more.
    pub(super) fn stop_polling(&mut self, run: RunId) {
        self.outage.remove(run);
        self.answering.remove(run, self.outage.polled());
    }

    /// Takes what a poll brought, and says whether the API went down or came back with it.
    pub(super) fn note(&mut self, poll: &EndedPoll, polling: &Polling) -> Option<OutageChange> {
        let change = self.outage.note(poll, |failures| outage::probe_delay(failures, polling, fastrand::f64()));
        let polled = self.outage.polled();
        match poll.valid {
            None => {}
            Some(true) => self.answering.answered(poll.ended),
            Some(false) => {
                let circumstances = FailureContext {
                    polled,
                    outage: self.outage.next_probe().is_some(),
                    lately: polling.max_interval.saturating_mul(2).saturating_add(self.api.timeout),
                };
                self.answering.failed(poll.run, poll.ended, circumstances);
            }
        }
        if poll.last {
            self.answering.remove(poll.run, polled);
        }
        change
    }

    /// A run is due since `due`.
    pub(super) fn enqueue(&mut self, due: Instant, run: RunId) {
        self.waiting.insert(run);
        self.queue.push_back((due, run));
    }

    /// Takes the next run that the budget lets start, with what `watch_of` says it is a run of. Give
    /// it back with [`ApiQueue::ended`].
    pub(super) fn start_next(
        &mut self,
        now: Instant,
        watch_of: impl Fn(RunId) -> Option<Arc<Watch>>,
    ) -> Option<NextPoll> {
        while let Some((due, run)) = self.queue.front().copied() {
            let watch = if self.waiting.contains(&run) { watch_of(run) } else { None };
            match watch {
                None => {
                    self.pop(run);
                }
                Some(_) if !self.may_probe(now) || !self.budget.try_start(now) => return None,
                Some(watch) => {
                    self.pop(run);
                    self.metrics.in_flight.inc();
                    return Some(NextPoll { due, run, watch });
                }
            }
        }
        None
    }

    /// Takes the first run out of the queue, which does not keep the room of a crowd that has gone.
    fn pop(&mut self, run: RunId) {
        self.queue.pop_front();
        self.waiting.remove(&run);
        if self.queue.is_empty() && self.queue.capacity() > Self::ROOM {
            (self.queue, self.waiting) = (VecDeque::new(), HashSet::new());
        }
    }

    /// A poll that was started has ended. The upstream may have asked for a pause, and the request may have
    /// been sent twice.
    pub(super) fn ended(&mut self, retry_after: Option<Duration>, repeated: bool, now: Instant) {
        self.budget.ended();
        if repeated {
            self.budget.spend(now);
        }
        self.metrics.in_flight.dec();
        if let Some(pause) = retry_after {
            self.budget.pause(now, pause);
        }
    }

    /// Counts an answer with malformed fields, and says which of them none had before.
    pub(super) fn note_malformed(&mut self, fields: &[&'static str]) -> Option<String> {
        if fields.is_empty() {
            return None;
        }
        self.metrics.malformed_answers.inc();
        let unsaid: Vec<_> = fields.iter().copied().filter(|field| !self.malformed.contains(field)).collect();
        self.malformed.extend(&unsaid);
        (!unsaid.is_empty()).then(|| unsaid.join(", "))
    }

    /// Whether a probe is due, and nothing waits that could be it.
    pub(super) fn wants_a_probe(&self, now: Instant) -> bool {
        self.outage.next_probe().is_some() && self.waiting.is_empty() && self.may_probe(now)
    }

    /// Whether an outage lets a poll start: one probe at a time.
    fn may_probe(&self, now: Instant) -> bool {
        self.outage.next_probe().is_none_or(|next| next <= now && self.budget.is_idle())
    }

    /// The API is there again: what waited starts at the pace of the budget, without a burst.
    pub(super) fn resume(&mut self, now: Instant) {
        self.budget.spend_burst(now);
    }

    /// When there is something to do here, as far as time alone decides.
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

    /// Until when nothing is sent. An outage shows for as long as it lasts, also while the probe
    /// that was due is under way.
    fn paused(&self, now: Instant) -> Option<Instant> {
        self.budget.paused(now).into_iter().chain(self.outage.next_probe()).max()
    }

    /// The clock was moved: what is shown of a pause is another time now.
    pub(super) fn clock_moved(&mut self) {
        self.shown_pause = None;
    }

    /// Brings the metrics up to date.
    pub(super) fn show(&mut self, now: Instant) {
        if self.shown_waiting != self.waiting.len() {
            self.shown_waiting = self.waiting.len();
            self.metrics.set_waiting(self.shown_waiting, now);
        }
        if self.shown_up != self.answering.up() {
            self.shown_up = self.answering.up();
            self.metrics.set_up(self.shown_up);
        }
        let pause = self.paused(now);
        if self.shown_pause != pause {
            self.shown_pause = pause;
            let until = |pause: Instant| clock::now().after(pause.saturating_duration_since(now));
            self.metrics.set_paused_until(pause.map(until));
        }
    }
}
