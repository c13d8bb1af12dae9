//! The queue of one API: what is due, held back by its budget, its pauses and its outages.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PollTarget;
use super::agents::AgentSchedule;
use super::availability::{Availability, FailureContext};
use super::debug_poll::{DebugPollSlot, PermitReply};
use super::discovery::Discovery;
use super::lane::Lane;
use super::outage::{self, EndedPoll, Outage, OutageChange};
use crate::board::RunId;
use crate::cekura::{Api, Budget, Client};
use crate::clock;
use crate::config::Polling;
use crate::exposition::ApiMetrics;
use crate::toggle::{AgentId, Watch};

/// One API: how it is reached, whether it works, and what waits for it.
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
    /// How many exporters share the budget of the API.
    replicas: NonZeroU32,
    /// The fields that were malformed in an answer and were logged.
    malformed: Vec<&'static str>,
    /// The runs that are due.
    runs: Lane<RunId>,
    /// The agents that are due. They start only while no run waits.
    due_agents: Lane<AgentId>,
    /// When the other agents are due.
    pub(super) agents: AgentSchedule,
    /// The listing of the agents, if they are discovered.
    pub(super) discovery: Option<Discovery>,
    /// The debug poll that waits or runs, if there is one.
    pub(super) debug_poll: DebugPollSlot,
    /// How many requests in flight are not polls of runs.
    behind_runs: u32,
    /// The values that the metrics have now.
    shown_waiting: usize,
    shown_pause: Option<Instant>,
}

/// A poll that the budget lets start.
pub(super) struct ReadyPoll {
    pub(super) due: Instant,
    pub(super) target: PollTarget,
    /// The watch of the run, if it is the poll of one.
    pub(super) watch: Option<Arc<Watch>>,
}

// === impl ApiQueue ===

impl ApiQueue {
    /// `replicas` is how many exporters share the budget of the API.
    pub(super) fn new(
        api: Api,
        client: Arc<Client>,
        metrics: Arc<ApiMetrics>,
        number: u64,
        replicas: NonZeroU32,
        now: Instant,
    ) -> Self {
        let rate = api.requests_per_second.shared_by(replicas);
        let budget = Budget::new(rate, share_of(api.max_in_flight, replicas), now);
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
            replicas,
            malformed: Vec::new(),
            runs: Lane::default(),
            due_agents: Lane::default(),
            agents: AgentSchedule::default(),
            discovery: None,
            debug_poll: DebugPollSlot::default(),
            behind_runs: 0,
            shown_waiting: 0,
            shown_pause: None,
        }
    }

    /// Applies other settings; running requests end with the old ones. Returns whether the API is reached in
    /// another way. Then everything that was learnt about the old way is forgotten.
    pub(super) fn reconfigure(&mut self, api: Api, client: Arc<Client>, now: Instant) -> bool {
        let route_changed = !self.api.has_same_upstream(&api);
        if route_changed {
            self.budget.unpause();
            self.outage.reset();
            self.availability.reset();
            self.key_generation += 1;
            self.route_generation += 1;
        }
        (self.api, self.client) = (api, client);
        self.share_budget(self.replicas, now);
        route_changed
    }

    /// Shares the budget of the API with so many exporters, this one included.
    pub(super) fn share_budget(&mut self, replicas: NonZeroU32, now: Instant) {
        self.replicas = replicas;
        self.budget.set(self.api.requests_per_second.shared_by(replicas), self.max_in_flight(), now);
    }

    fn max_in_flight(&self) -> NonZeroU32 {
        share_of(self.api.max_in_flight, self.replicas)
    }

    /// Begins or ends the discovery of agents.
    pub(super) fn discover(&mut self, discover: bool, now: Instant) {
        if discover == self.discovery.is_some() {
            return;
        }
        self.discovery = discover.then(|| Discovery::new(now));
        if discover {
            self.outage.add(PollTarget::Discovery);
        } else {
            self.stop_polling(PollTarget::Discovery);
        }
    }

    /// Begins the listing of the agents again, because the API is reached in another way from now on. While a page is
    /// read, this is left to its outcome, which does not count.
    pub(super) fn discover_anew(&mut self, now: Instant) {
        if let Some(discovery) = self.discovery.as_mut().filter(|discovery| discovery.due.is_some()) {
            *discovery = Discovery::new(now);
        }
    }

    /// Adds an agent, which is due at once.
    pub(super) fn add_agent(&mut self, agent: AgentId, now: Instant) {
        self.agents.plan(now, agent);
        self.outage.add(PollTarget::Agent(agent));
    }

    /// Removes an agent.
    pub(super) fn remove_agent(&mut self, agent: AgentId) {
        self.agents.remove(agent);
        self.due_agents.remove(agent);
        self.stop_polling(PollTarget::Agent(agent));
    }

    /// Removes a run.
    pub(super) fn remove_run(&mut self, run: RunId) {
        self.stop_polling(PollTarget::Run(run));
        self.runs.remove(run);
    }

    /// Stops counting a target, because it is not polled again.
    pub(super) fn stop_polling(&mut self, target: PollTarget) {
        self.outage.remove(target);
        self.availability.remove(target, self.outage.polled());
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
                let of_agents = if self.agents.is_empty() { Duration::ZERO } else { polling.agent_interval };
                let longest_interval = polling.max_interval.max(of_agents);
                let context = FailureContext {
                    polled,
                    outage: self.outage.next_probe().is_some(),
                    longest_gap: longest_interval.saturating_mul(2).saturating_add(self.api.timeout),
                };
                self.availability.failed(poll.target, poll.ended, context);
            }
        }
        if poll.last {
            self.availability.remove(poll.target, polled);
        }
        self.metrics.set_up(self.availability.up());
        change
    }

    /// Adds a run that is due since `due`.
    pub(super) fn enqueue(&mut self, due: Instant, run: RunId) {
        self.runs.push(due, run);
    }

    /// Moves the agents that are due into their lane.
    pub(super) fn enqueue_agents(&mut self, now: Instant) {
        while let Some((due, agent)) = self.agents.pop_due(now) {
            self.due_agents.push(due, agent);
        }
    }

    /// How many polls wait.
    fn waiting(&self, now: Instant) -> usize {
        self.runs.len() + self.due_agents.len() + usize::from(self.due_page(now).is_some())
    }

    /// When the next page of the list of agents is due, to move it; `None` while one is read.
    pub(super) fn planned_page(&mut self) -> Option<&mut Instant> {
        self.discovery.as_mut()?.due.as_mut()
    }

    fn due_page(&self, now: Instant) -> Option<Instant> {
        self.discovery.as_ref()?.due.filter(|due| *due <= now)
    }

    /// The next poll: runs come first, then a page of the list of agents, then agents.
    fn next(&mut self, now: Instant, watch_of: impl Fn(RunId) -> Option<Arc<Watch>>) -> Option<ReadyPoll> {
        while let Some((due, run)) = self.runs.first() {
            match watch_of(run) {
                Some(watch) => return Some(ReadyPoll { due, target: PollTarget::Run(run), watch: Some(watch) }),
                None => self.runs.pop(),
            }
        }
        if !self.may_start_behind_runs() {
            return None;
        }
        let due_agent = |(due, agent)| (due, PollTarget::Agent(agent));
        let page = self.due_page(now).map(|due| (due, PollTarget::Discovery));
        let (due, target) = page.or_else(|| self.due_agents.first().map(due_agent))?;
        Some(ReadyPoll { due, target, watch: None })
    }

    /// Whether a request that is not the poll of a run may start. At most half of the requests in flight are such, so
    /// that slow ones leave room for runs.
    fn may_start_behind_runs(&self) -> bool {
        self.behind_runs < self.max_in_flight().get().div_ceil(2)
    }

    /// Takes the next poll out of the queue, if it may start. `watch_of` is the watch of a run, if the run still exists.
    /// Call [`ApiQueue::release_request`] when its request has ended.
    pub(super) fn start_next(
        &mut self,
        now: Instant,
        watch_of: impl Fn(RunId) -> Option<Arc<Watch>>,
    ) -> Option<ReadyPoll> {
        let ready = self.next(now, watch_of)?;
        if !self.may_probe(now) || !self.budget.try_start(now) {
            return None;
        }
        match ready.target {
            PollTarget::Run(_) => self.runs.pop(),
            PollTarget::Agent(agent) => {
                self.due_agents.pop();
                self.agents.start(agent, now);
                self.behind_runs += 1;
            }
            // The caller begins to read the page.
            PollTarget::Discovery => self.behind_runs += 1,
        }
        self.debug_poll.note_other_start();
        self.metrics.in_flight.inc();
        Some(ready)
    }

    /// Takes the debug poll that waits, if the budget lets it start. An outage does not hold it back.
    /// Call [`ApiQueue::release_debug_poll`] when its request has ended.
    pub(super) fn start_debug_poll(&mut self, now: Instant) -> Option<PermitReply> {
        if !self.debug_poll.is_waiting() || !self.budget.try_start(now) {
            return None;
        }
        self.metrics.in_flight.inc();
        self.debug_poll.start()
    }

    /// Frees the place of a debug poll that has ended. The upstream may have asked for a pause.
    pub(super) fn release_debug_poll(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.debug_poll.end();
        self.budget.ended();
        self.metrics.in_flight.dec();
        if let Some(pause) = retry_after {
            self.budget.pause(now, pause);
        }
    }

    /// For how long the upstream still wants no requests, if it asked for a pause.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.budget.paused(now).map(|until| until.saturating_duration_since(now))
    }

    /// Frees the place of a request that has ended. The upstream may have asked for a pause, and the request may have
    /// been sent twice, which costs two requests of the budget.
    pub(super) fn release_request(
        &mut self,
        target: PollTarget,
        retry_after: Option<Duration>,
        repeated: bool,
        now: Instant,
    ) {
        self.budget.ended();
        if !matches!(target, PollTarget::Run(_)) {
            self.behind_runs = self.behind_runs.saturating_sub(1);
        }
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

    /// Whether a probe is due and nothing waits that could be the probe.
    pub(super) fn wants_a_probe(&self, now: Instant) -> bool {
        self.outage.next_probe().is_some() && self.waiting(now) == 0 && self.may_probe(now)
    }

    /// Whether a poll may start as far as outages go: in an outage, one probe at a time.
    fn may_probe(&self, now: Instant) -> bool {
        self.outage.next_probe().is_none_or(|next| next <= now && self.budget.is_idle())
    }

    /// Makes the polls that waited for the end of an outage start at the pace of the budget, without a burst.
    pub(super) fn skip_burst(&mut self, now: Instant) {
        self.budget.spend_burst(now);
    }

    /// When a poll may start or a metric changes next, as far as that depends on time alone.
    pub(super) fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        let waits = self.runs.len() > 0 || (self.waiting(now) > 0 && self.may_start_behind_runs());
        let start = if waits { self.next_start(now) } else { None };
        let debug_poll = if self.debug_poll.is_waiting() { self.budget.next_start(now) } else { None };
        let planned = self.discovery.as_ref().and_then(|discovery| discovery.due).filter(|due| *due > now);
        let pause = self.shown_pause.filter(|pause| *pause > now);
        start.into_iter().chain(debug_poll).chain(self.agents.next_due()).chain(planned).chain(pause).min()
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
        let waiting = self.waiting(now);
        if self.shown_waiting != waiting {
            self.shown_waiting = waiting;
            self.metrics.set_waiting(waiting, now);
        }
        let pause = self.paused_until(now);
        if self.shown_pause != pause {
            self.shown_pause = pause;
            let until = |pause: Instant| clock::now().after(pause.saturating_duration_since(now));
            self.metrics.set_paused_until(pause.map(until));
        }
    }
}

/// The requests in flight that each of several exporters may have; at least one.
fn share_of(max_in_flight: NonZeroU32, replicas: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(max_in_flight.get() / replicas).unwrap_or(NonZeroU32::MIN)
}
