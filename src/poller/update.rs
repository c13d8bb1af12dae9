//! Changes of the schedule from outside: updates of the watch list and the settings, and renewed keys.

use std::collections::BTreeSet;
use std::time::Instant;

use super::queue::ApiQueue;
use super::{PollTarget, Poller, PollerSettings, PollerUpdate, Replication, Share, interval};
use crate::board::{OwnershipChange, RunChanges, RunId, StartedRun, ToggleRow};
use crate::cekura::Renewal;
use crate::clock;
use crate::collections::inserted;
use crate::sources::AgentChange;
use crate::toggle::{AgentId, ApiName, ClockJump, LiveMocks, Reason, ShardSet, Timestamp};

impl Poller {
    /// Applies changes of the settings and the watch list.
    pub(super) fn update(&mut self, mut update: PollerUpdate) {
        let apis = update.settings.map(|settings| self.apply_settings(settings));
        // Only this thread makes the clock jump, so it does not jump in here.
        let unapplied = clock::total_jump() - update.applied_jump;
        for definition in update.changes.iter_mut().filter_map(|change| change.definition.as_mut()) {
            definition.started = definition.started.map(|started| started.shifted(unapplied));
        }
        let RunChanges { started, stale } = self.board.update(&update.changes, clock::now());
        self.remove_runs(stale);
        let now = Instant::now();
        self.board.update_agents(&update.agents, clock::now());
        self.update_agents(&update.agents, now);
        self.plan_started(started, now);
        self.apply_replication(update.replication, now);
        if let Some(apis) = apis {
            // Only now, because the watches of an API that is removed are gone before it is.
            for (api, _) in self.queues.extract_if(.., |api, _| !apis.contains(api)) {
                self.metrics.forget_api(&api);
            }
        }
        // Nobody may wait for it any more.
        let _ = update.taken.send(());
    }

    /// Takes over what other exporters did, and polls what this one owns from now on.
    fn apply_replication(&mut self, replication: Replication, now: Instant) {
        let Replication { mut toggles, mut agents, jumps, share } = replication;
        let unapplied = clock::total_jump() - jumps;
        if unapplied != ClockJump::default() {
            let shifted = |time: Timestamp| time.shifted(unapplied);
            toggles.iter_mut().flat_map(|(_, runs)| runs).for_each(|run| run.map_times(shifted));
            agents.iter_mut().filter_map(|(_, agent)| agent.as_mut()).for_each(|agent| agent.map_times(shifted));
        }
        if let Some(Share { owned, given, .. }) = share {
            self.own(owned.without(given), now);
        }
        self.board.replicate(toggles, agents, clock::now());
        if let Some(Share { owned, leases, replicas, .. }) = share {
            // State that another replica replaced is never saved in the new epoch.
            self.board.set_leases(&leases);
            self.own(owned, now);
            self.replicas = replicas;
            self.queues.values_mut().for_each(|queue| queue.share_budget(replicas, now));
        }
    }

    /// Polls what is in these shards from now on, and nothing else.
    fn own(&mut self, shards: ShardSet, now: Instant) {
        let OwnershipChange { gained_runs, lost_runs, gained_agents, lost_agents } =
            self.board.own(shards, clock::now());
        self.remove_runs(lost_runs);
        for (api, agent) in lost_agents {
            if let Some(queue) = self.queues.get_mut(&api) {
                queue.remove_agent(agent);
            }
        }
        for (api, agent) in gained_agents {
            if let Some(queue) = self.queues.get_mut(&api) {
                queue.add_agent(agent, now);
            }
        }
        self.plan_started(gained_runs, now);
    }

    /// Ceases to poll these runs.
    fn remove_runs(&mut self, runs: Vec<RunId>) {
        for run in runs {
            self.queues.values_mut().for_each(|queue| queue.remove_run(run));
            self.schedule.cancel(run);
        }
    }

    /// Plans the first polls of runs, as far as this exporter owns them.
    fn plan_started(&mut self, started: Vec<StartedRun>, now: Instant) {
        self.schedule.reserve(started.len());
        for StartedRun { run, finished } in started {
            if finished {
                self.plan_by_state(run, now);
            } else if self.board.owns(run) {
                self.plan_at_once(run, now);
            }
        }
    }

    /// Asks new agents at once, and the others as before.
    fn update_agents(&mut self, changes: &[AgentChange], now: Instant) {
        for AgentChange { key: (api, agent), definition } in changes {
            let Some(queue) = self.queues.get_mut(api) else { continue };
            match definition {
                None => queue.remove_agent(*agent),
                Some(_) if queue.agents.contains(*agent) => {
                    let due = queue.agents.due(*agent).unwrap_or(now);
                    let until = due.saturating_duration_since(now);
                    self.board.set_next_agent_poll(api, *agent, clock::now().after(until));
                }
                Some(_) if self.board.owns_agent(api, *agent) => queue.add_agent(*agent, now),
                Some(_) => {}
            }
        }
    }

    /// Plans the first poll of a run that has not finished. Runs that are planned together are polled in the order
    /// of the list.
    fn plan_at_once(&mut self, run: RunId, now: Instant) {
        self.schedule.plan(now, run);
        if let Some(watch) = self.board.watch(run)
            && let Some(queue) = self.queues.get_mut(&watch.api)
        {
            queue.outage.add(PollTarget::Run(run));
        }
    }

    /// Plans the next poll of a run by its state, counted from now.
    fn plan_by_state(&mut self, run: RunId, now: Instant) {
        let Some(row) = self.board.row_of(run).filter(|_| self.board.owns(run)) else { return };
        let Some(queue) = self.queues.get_mut(&row.toggle.watch.api) else { return };
        let clock = clock::now();
        let delay = interval::next_delay(&row.toggle.run, &self.polling, clock, fastrand::f64());
        if let Some(delay) = delay {
            queue.outage.add(PollTarget::Run(run));
            self.schedule.plan(now + delay, run);
        } else {
            queue.stop_polling(PollTarget::Run(run));
            self.schedule.cancel(run);
        }
        self.board.set_next_poll(run, delay.map(|delay| clock.after(delay)));
    }

    /// Sets up a queue for each API, and returns the names of all of them.
    fn apply_settings(&mut self, settings: PollerSettings) -> BTreeSet<ApiName> {
        let now = Instant::now();
        let apis = inserted(settings.apis.iter().map(|(api, _)| api.name.clone()));
        for (api, client) in settings.apis {
            let (name, discover) = (api.name.clone(), api.discover_agents);
            if let Some(queue) = self.queues.get_mut(&name) {
                let rerouted = queue.reconfigure(api, client, now);
                queue.discover(discover, now);
                if rerouted {
                    queue.discover_anew(now);
                    // What failed on the old route is repeated on the new one at once.
                    self.repeat_failing(&name, |_| true, now);
                }
            } else {
                self.queue_count += 1;
                let mut queue =
                    ApiQueue::new(api, client, self.metrics.api(&name), self.queue_count, self.replicas, now);
                queue.discover(discover, now);
                self.queues.insert(name, queue);
            }
        }
        if self.polling != settings.polling {
            self.polling = settings.polling;
            self.intervals_changed(now);
        }
        apis
    }

    /// Applies other intervals: no run or agent waits for longer than they say, and finished runs are rechecked or no
    /// longer rechecked.
    fn intervals_changed(&mut self, now: Instant) {
        let clock = clock::now();
        let late = |run, row: &ToggleRow| {
            let delay = interval::next_delay(&row.toggle.run, &self.polling, clock, fastrand::f64());
            let is_late = match (self.schedule.due(run), delay) {
                (Some(due), Some(delay)) => due > now + delay,
                (Some(_), None) => true,
                // It is queued, or running, or was not to be polled again.
                (None, delay) => row.next_poll.is_none() && delay.is_some(),
            };
            is_late.then_some(run)
        };
        let late = self.board.map_runs(late);
        late.into_iter().flatten().for_each(|run| self.plan_by_state(run, now));
        let apis: Vec<_> = self.queues.keys().cloned().collect();
        for api in apis {
            for (agent, live) in self.board.asked_agents(&api) {
                let due = now + interval::agent_delay(&live, &self.polling, clock, fastrand::f64());
                let planned = self.queues.get(&api).and_then(|queue| queue.agents.due(agent));
                if planned.is_some_and(|planned| planned > due) {
                    self.replan(&api, PollTarget::Agent(agent), due);
                }
            }
        }
    }

    /// An API has another key or other authorities: polls that failed for want of these are repeated at once.
    pub(super) fn renewed(&mut self, api: &ApiName, renewal: Renewal) {
        let now = Instant::now();
        let Some(queue) = self.queues.get_mut(api) else { return };
        queue.key_generation += 1;
        queue.outage.probe_at_once(now);
        if self.repeat_failing(api, |reason| renewal.may_mend(reason), now) {
            let Some(queue) = self.queues.get_mut(api) else { return };
            queue.outage.reset();
        }
    }

    /// Repeats at once what last failed for a reason that `matches`. Returns whether there was anything.
    fn repeat_failing(&mut self, api: &ApiName, matches: impl Fn(Reason) -> bool, now: Instant) -> bool {
        let runs = self.board.failing(api, &matches).into_iter().map(PollTarget::Run);
        let fails = |live: &LiveMocks| live.failing.as_ref().is_some_and(|streak| matches(streak.reason));
        let agents = self.board.asked_agents(api).into_iter().filter(|(_, live)| fails(live));
        let failing: Vec<_> = runs.chain(agents.map(|(agent, _)| PollTarget::Agent(agent))).collect();
        for target in &failing {
            self.replan(api, *target, now);
        }
        let listing = self.queues.get_mut(api).and_then(|queue| queue.discovery.as_mut());
        let restarted = listing.is_some_and(|discovery| discovery.restart_if_failing(now));
        restarted || !failing.is_empty()
    }

    /// Asks for the mock status of an agent at once, unless that is queued or running.
    pub(super) fn plan_agent(&mut self, api: &ApiName, agent: AgentId, now: Instant) {
        self.replan(api, PollTarget::Agent(agent), now);
    }

    /// Asks for the mock status of an agent ahead of its plan, but not more often than at the shortest interval.
    pub(super) fn ask_soon(&mut self, api: &ApiName, agent: AgentId) {
        if !self.board.owns_agent(api, agent) {
            // The receiver is gone only if no other exporter shares the work, or while the process stops.
            let _ = self.forwarded.send((api.clone(), agent));
            return;
        }
        let Some(queue) = self.queues.get_mut(api) else { return };
        let due = queue.agents.earliest(agent, self.polling.min_interval, Instant::now());
        if queue.agents.due(agent).is_some_and(|planned| planned > due) {
            self.replan(api, PollTarget::Agent(agent), due);
        }
    }

    /// Moves the planned poll of a target; does nothing if that is queued or running.
    pub(super) fn replan(&mut self, api: &ApiName, target: PollTarget, due: Instant) {
        let now = Instant::now();
        let next_poll = clock::now().after(due.saturating_duration_since(now));
        match target {
            PollTarget::Run(run) => {
                if self.schedule.replan(due, run) {
                    self.board.set_next_poll(run, Some(next_poll));
                }
            }
            PollTarget::Agent(agent) => {
                let queue = self.queues.get_mut(api);
                if queue.is_some_and(|queue| queue.agents.replan(due, agent)) {
                    self.board.set_next_agent_poll(api, agent, next_poll);
                }
            }
            PollTarget::Discovery => {
                if let Some(planned) = self.queues.get_mut(api).and_then(|queue| queue.planned_page()) {
                    *planned = due;
                }
            }
        }
    }
}
