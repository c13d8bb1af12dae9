//! What happens when a request has ended: its outcome goes to the board, and the next poll is planned.

use std::time::Instant;

use tokio::task::{Id, JoinError};

use super::discovery::Discovery;
use super::outage::{EndedPoll, OutageChange, PollVerdict};
use super::queue::ApiQueue;
use super::{AgentListing, PollResult, PollTarget, Poller, RunningPoll, events, interval};
use crate::cekura::{AgentPage, Polled};
use crate::clock;
use crate::toggle::{Answer, ApiName, Failure, MockStatus, Outcome, Reason, Transition};

/// What an ended poll shows, before its outcome is applied.
struct Verdict {
    /// Whether the failure is because of a key or a route that the API no longer has. It is held against nothing.
    outdated: bool,
    of_poll: PollVerdict,
    /// Whether it brought a valid answer; `None` if the route to the API has changed since it started.
    valid: Option<bool>,
}

impl Poller {
    /// Takes the outcome of a request. A request that panicked, which is a bug, counts as aborted.
    pub(super) fn request_ended(&mut self, ended: Result<(Id, PollResult), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(poll) = self.running.remove(&id) else { return };
        // If its API was removed meanwhile, nobody wants the outcome any more.
        let Some(queue) = self.queues.get_mut(&poll.api).filter(|queue| queue.number == poll.queue) else { return };
        let result = ended.map_or_else(|_| panicked(&poll), |(_, result)| result);
        let change = match result {
            PollResult::Run(polled) => {
                settle(queue, &poll, &polled);
                self.apply_to_run(&poll, polled.outcome)
            }
            PollResult::Agent(polled) => {
                settle(queue, &poll, &polled);
                self.apply_to_agent(&poll, polled.outcome)
            }
            PollResult::Page(polled) => {
                settle(queue, &poll, &polled);
                self.apply_to_listing(&poll, polled.outcome)
            }
        };
        self.report_outage(&poll.api, change);
    }

    /// Applies the outcome to the board, plans the next poll, and reports what changed. Returns whether the
    /// API went down or came back with it.
    fn apply_to_run(&mut self, poll: &RunningPoll, outcome: Outcome) -> Option<OutageChange> {
        let (PollTarget::Run(run), Some(watch)) = (poll.target, &poll.watch) else { return None };
        let queue = self.queues.get_mut(&poll.api)?;
        if let Ok(Answer { malformed, .. }) = &outcome
            && let Some(new) = queue.new_malformed_fields(malformed)
        {
            events::malformed(watch, &new);
        }
        let (now, ended) = (clock::now(), Instant::now());
        // Polls keep their interval from start to start. A failed one is retried an interval after its end, or
        // the next one would follow a timeout at once.
        let from = if outcome.is_ok() { poll.started } else { ended };
        let verdict = Verdict::of(poll, queue, outcome.as_ref().err().map(|failure| failure.reason));
        let (mut due, mut change) = (None, None);
        let applied = self.board.apply(run, outcome, now, |run| {
            if verdict.outdated {
                due = Some(ended);
                return Some(now);
            }
            due = interval::next_delay(run, &self.polling, now, fastrand::f64()).map(|delay| from + delay);
            change = queue.record_poll(&verdict.ended_poll(poll, ended, due.is_none()), &self.polling);
            due.map(|due| now.after(due.saturating_duration_since(ended)))
        });
        if let Some(due) = due {
            self.schedule.plan(due, run);
        }
        if let Some(applied) = applied {
            if applied.transitions.iter().any(|transition| matches!(transition, Transition::StatusChanged { .. })) {
                self.last_change.record(ended);
            }
            if applied.is_finish() {
                // What the toggle told is compared with what is as soon as possible.
                self.plan_agent(&poll.api, watch.agent_id, ended);
            }
            let queue = self.queues.get(&poll.api)?;
            events::report(&applied, &queue.metrics, !self.board.is_shared(), || self.metrics.external_url());
        }
        change
    }

    /// As [`Poller::apply_to_run`], for the poll of an agent.
    fn apply_to_agent(&mut self, poll: &RunningPoll, outcome: Result<MockStatus, Failure>) -> Option<OutageChange> {
        let PollTarget::Agent(agent) = poll.target else { return None };
        let queue = self.queues.get_mut(&poll.api)?;
        if let Ok(MockStatus { malformed, .. }) = &outcome
            && let Some(new) = queue.new_malformed_fields(malformed)
        {
            events::agent_malformed(&poll.api, agent, &new);
        }
        let (now, ended) = (clock::now(), Instant::now());
        let from = if outcome.is_ok() { poll.started } else { ended };
        let asked = now.before(ended.saturating_duration_since(poll.started));
        let verdict = Verdict::of(poll, queue, outcome.as_ref().err().map(|failure| failure.reason));
        let (mut due, mut change) = (None, None);
        let applied = self.board.apply_to_agent(&(poll.api.clone(), agent), outcome, asked, now, |live| {
            let delay = interval::agent_delay(live, &self.polling, now, fastrand::f64());
            let next = if verdict.outdated { ended } else { (from + delay).max(ended) };
            if !verdict.outdated {
                change = queue.record_poll(&verdict.ended_poll(poll, ended, false), &self.polling);
            }
            due = Some(next);
            now.after(next.saturating_duration_since(ended))
        });
        if let Some(due) = due {
            queue.agents.plan(due, agent);
        }
        if let Some(applied) = applied {
            events::report_agent(&applied);
        }
        change
    }

    /// As [`Poller::apply_to_run`], for a page of the list of agents.
    fn apply_to_listing(&mut self, poll: &RunningPoll, page: Result<AgentPage, Failure>) -> Option<OutageChange> {
        let queue = self.queues.get_mut(&poll.api)?;
        if let Ok(AgentPage { malformed, .. }) = &page
            && let Some(new) = queue.new_malformed_fields(malformed)
        {
            events::listing_malformed(&poll.api, &new);
        }
        let ended = Instant::now();
        let verdict = Verdict::of(poll, queue, page.as_ref().err().map(|failure| failure.reason));
        let is_of_old_route = verdict.valid.is_none();
        // `None` if discovery was disabled meanwhile.
        let discovery = queue.discovery.as_mut()?;
        if is_of_old_route || verdict.outdated {
            *discovery = Discovery::new(ended);
            return None;
        }
        let listed = discovery.end_page(page, ended, &self.polling, fastrand::f64());
        let change = queue.record_poll(&verdict.ended_poll(poll, ended, false), &self.polling);
        if let Some(found) = listed {
            // The receiver is gone only while the process stops.
            let _ = self.listings.send(AgentListing { api: poll.api.clone(), found });
        }
        change
    }

    /// Reports that an API went down or came back. When it is back, what was down is due again, spread over the shortest
    /// interval.
    fn report_outage(&mut self, api: &ApiName, change: Option<OutageChange>) {
        let Some(queue) = self.queues.get_mut(api) else { return };
        let now = Instant::now();
        match change {
            None => {}
            Some(OutageChange::Began) => events::api_down(api),
            Some(OutageChange::Ended(targets)) => {
                events::api_back(api, targets.len());
                queue.skip_burst(now);
                for target in targets {
                    self.replan(api, target, now + self.polling.min_interval.mul_f64(fastrand::f64()));
                }
            }
        }
    }
}

/// Frees the place of a request that has ended, and counts it.
fn settle<T>(queue: &mut ApiQueue, poll: &RunningPoll, polled: &Polled<T>) {
    let failure = polled.outcome.as_ref().err();
    let retry_after = failure.and_then(|failure| failure.retry_after);
    // Only the upstream that asked for a pause gets one.
    let pause = retry_after.filter(|_| poll.route_generation == queue.route_generation);
    queue.release_request(poll.target, pause, polled.repeated, Instant::now());
    queue.metrics.count_request(failure.map(|failure| failure.reason), polled.took);
}

/// The result of a request that panicked.
fn panicked(poll: &RunningPoll) -> PollResult {
    fn aborted<T>() -> Polled<T> {
        Polled { outcome: Err(Failure::new(Reason::Aborted)), took: None, repeated: false }
    }
    events::request_panicked(&poll.api);
    match poll.target {
        PollTarget::Run(_) => PollResult::Run(aborted()),
        PollTarget::Agent(_) => PollResult::Agent(aborted()),
        PollTarget::Discovery => PollResult::Page(aborted()),
    }
}

// === impl Verdict ===

impl Verdict {
    /// The verdict on a poll that failed for this reason; `None` if it brought a valid answer.
    ///
    /// If the key or the whole route to the API changed meanwhile, a failure because of the old one is held against
    /// neither the target nor the API, and an answer ends no outage of the new upstream.
    fn of(poll: &RunningPoll, queue: &ApiQueue, failed: Option<Reason>) -> Self {
        let rerouted = poll.route_generation != queue.route_generation;
        let rekeyed = poll.key_generation != queue.key_generation;
        Self {
            outdated: failed.is_some_and(|reason| rerouted || (rekeyed && is_of_the_key(reason))),
            of_poll: if rerouted { PollVerdict::Neither } else { PollVerdict::of(failed) },
            valid: (!rerouted).then_some(failed.is_none()),
        }
    }

    /// The poll as the outage rule sees it. `last` says whether the target is not polled again.
    fn ended_poll(&self, poll: &RunningPoll, ended: Instant, last: bool) -> EndedPoll {
        let Self { of_poll: verdict, valid, .. } = *self;
        EndedPoll { target: poll.target, verdict, valid, started: poll.started, ended, last }
    }
}

/// Whether another key or other certificate authorities may mend this failure.
fn is_of_the_key(reason: Reason) -> bool {
    reason.may_need_another_key() || reason == Reason::Tls
}
