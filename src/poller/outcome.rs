//! What happens when a request has ended: its outcome goes to the board, and the next poll is planned.

use std::time::Instant;

use tokio::task::{Id, JoinError};

use super::outage::{EndedPoll, OutageChange, PollVerdict};
use super::{Poller, RunningPoll, events, interval};
use crate::cekura::Polled;
use crate::clock;
use crate::toggle::{Answer, ApiName, Failure, Outcome, Reason, Transition};

impl Poller {
    /// Takes the outcome of a request. A request that panicked, which is a bug, counts as aborted.
    pub(super) fn request_ended(&mut self, ended: Result<(Id, Polled), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(poll) = self.running.remove(&id) else { return };
        // If its API was removed meanwhile, nobody wants the outcome any more.
        let queue = self.queues.get_mut(&poll.watch.api).filter(|queue| queue.number == poll.queue);
        let Some(queue) = queue else { return };
        let polled = ended.map_or_else(
            |_| {
                events::poll_panicked(&poll.watch);
                Polled { outcome: Err(Failure::new(Reason::Aborted)), took: None, repeated: false }
            },
            |(_, polled)| polled,
        );
        let retry_after = polled.outcome.as_ref().err().and_then(|failure| failure.retry_after);
        // Only the upstream that asked for a pause gets one.
        let pause = retry_after.filter(|_| poll.route_generation == queue.route_generation);
        queue.release_request(pause, polled.repeated, Instant::now());
        queue.metrics.count_poll(&polled.outcome, polled.took);
        if let Ok(Answer { malformed, .. }) = &polled.outcome
            && let Some(new) = queue.new_malformed_fields(malformed)
        {
            events::malformed(&poll.watch, &new);
        }
        let change = self.apply(&poll, polled.outcome);
        self.report_outage(&poll.watch.api, change);
    }

    /// Applies the outcome to the board, plans the next poll, and reports what changed. Returns whether the
    /// API went down or came back with it.
    fn apply(&mut self, poll: &RunningPoll, outcome: Outcome) -> Option<OutageChange> {
        let queue = self.queues.get_mut(&poll.watch.api)?;
        let (now, ended) = (clock::now(), Instant::now());
        // Polls keep their interval from start to start. A failed one is retried an interval after its end, or
        // the next one would follow a timeout at once.
        let from = if outcome.is_ok() { poll.started } else { ended };
        // If the key or the whole route to the API changed meanwhile, a failure because of the old one is held
        // against neither the run nor the API, and an answer ends no outage of the new upstream.
        let rerouted = poll.route_generation != queue.route_generation;
        let rekeyed = poll.key_generation != queue.key_generation;
        let outdated = outcome.as_ref().is_err_and(|failure| rerouted || (rekeyed && is_of_the_key(failure.reason)));
        let verdict = if rerouted { PollVerdict::Neither } else { PollVerdict::of(&outcome) };
        let valid = (!rerouted).then_some(outcome.is_ok());
        let (mut due, mut change) = (None, None);
        let applied = self.board.apply(poll.run, outcome, now, |run| {
            if outdated {
                due = Some(ended);
                return Some(now);
            }
            due = interval::next_delay(run, &self.polling, now, fastrand::f64()).map(|delay| from + delay);
            let (run, last) = (poll.run, due.is_none());
            let ended_poll = EndedPoll { run, verdict, valid, started: poll.started, ended, last };
            change = queue.record_poll(&ended_poll, &self.polling);
            due.map(|due| now.after(due.saturating_duration_since(ended)))
        });
        if let Some(due) = due {
            self.schedule.plan(due, poll.run);
        }
        if let Some(applied) = applied {
            if applied.transitions.iter().any(|transition| matches!(transition, Transition::StatusChanged { .. })) {
                self.last_change.record(ended);
            }
            events::report(&applied, &queue.metrics, || self.metrics.external_url());
        }
        change
    }

    /// Reports that an API went down or came back. When it is back, the runs that were down are due again,
    /// spread over the shortest interval.
    fn report_outage(&mut self, api: &ApiName, change: Option<OutageChange>) {
        let Some(queue) = self.queues.get_mut(api) else { return };
        let now = Instant::now();
        match change {
            None => {}
            Some(OutageChange::Began) => events::api_down(api),
            Some(OutageChange::Ended(runs)) => {
                events::api_back(api, runs.len());
                queue.skip_burst(now);
                for run in runs {
                    self.replan(now + self.polling.min_interval.mul_f64(fastrand::f64()), run);
                }
            }
        }
    }
}

/// Whether another key or other certificate authorities may mend this failure.
fn is_of_the_key(reason: Reason) -> bool {
    reason.may_need_another_key() || reason == Reason::Tls
}
