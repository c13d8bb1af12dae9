//! Whether an API as a whole is down, and when to probe it then. Pure: time and chance come in.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::board::RunId;
use crate::config::Polling;
use crate::toggle::{Outcome, Reason};

/// Watches of one API that are down before the API can be: fewer may just be bad themselves, and
/// their own backoff is enough.
const FEWEST: usize = 3;

/// What is known of an API as a whole.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// The runs that are not finished.
    runs: HashSet<RunId>,
    /// Those whose last poll failed as all polls of an API that is down do.
    down: HashSet<RunId>,
    /// While the API is down.
    probing: Option<Probing>,
}

/// One probe at a time, less and less often.
#[derive(Debug, Clone, Copy)]
struct Probing {
    failures: u32,
    next: Instant,
}

/// The API went down, or came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Most watches are down with this reason or others like it.
    Began,
    /// An answer came. These runs were down, and may be polled again.
    Ended(Vec<RunId>),
}

// === impl Outage ===

impl Outage {
    /// A run of this API begins.
    pub(super) fn add(&mut self, run: RunId) {
        self.runs.insert(run);
    }

    /// Forgets runs that were replaced or removed.
    pub(super) fn retain(&mut self, is_current: impl Fn(RunId) -> bool) {
        self.runs.retain(|run| is_current(*run));
        self.down.retain(|run| is_current(*run));
    }

    /// Takes what a poll brought. `finished` says whether the run is polled no more.
    pub(super) fn note(
        &mut self,
        run: RunId,
        outcome: &Outcome,
        finished: bool,
        now: Instant,
        probe_delay: impl FnOnce(u32) -> Duration,
    ) -> Option<Change> {
        if finished {
            self.runs.remove(&run);
        }
        if is_down(outcome) && self.runs.contains(&run) {
            self.down.insert(run);
        } else {
            self.down.remove(&run);
        }
        if is_answered(outcome) {
            return self.end();
        }
        let most = self.down.len() >= FEWEST && self.down.len() * 2 > self.runs.len();
        if !most && self.probing.is_none() {
            return None;
        }
        let failures = self.probing.map_or(1, |probing| probing.failures.saturating_add(1));
        let began = self.probing.replace(Probing { failures, next: now + probe_delay(failures) }).is_none();
        began.then_some(Change::Began)
    }

    /// The API is taken to be up again, for one reason or another.
    pub(super) fn end(&mut self) -> Option<Change> {
        self.probing.take()?;
        let mut down: Vec<_> = self.down.drain().collect();
        down.sort_unstable();
        Some(Change::Ended(down))
    }

    /// The runs that are down.
    pub(super) fn down(&self) -> impl Iterator<Item = RunId> {
        self.down.iter().copied()
    }

    /// When the next probe may start; `None` while the API is not down.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.probing.map(|probing| probing.next)
    }
}

/// How long after a failed probe the next one may start: twice as long each time, but no longer
/// than a run may wait anyway, and jittered.
pub(super) fn probe_delay(failures: u32, polling: &Polling, chance: f64) -> Duration {
    let cap = polling.backoff_max.min(polling.max_interval);
    let doubled = 2u32.checked_pow(failures - 1).and_then(|factor| polling.min_interval.checked_mul(factor));
    let longest = doubled.map_or(cap, |doubled| doubled.min(cap));
    longest / 2 + (longest / 2).mul_f64(chance.clamp(0.0, 1.0))
}

/// Whether the API itself answered, be it that it knows nothing of the task or has no time now.
fn is_answered(outcome: &Outcome) -> bool {
    outcome.as_ref().err().is_none_or(|failure| {
        matches!(failure.reason, Reason::BadRequest | Reason::NotFound | Reason::RateLimited | Reason::ClientError)
    })
}

/// Whether the poll failed as it does when an API cannot be reached, is broken, or takes no key.
fn is_down(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|failure| {
        matches!(
            failure.reason,
            Reason::Connect
                | Reason::Dns
                | Reason::Tls
                | Reason::Timeout
                | Reason::ServerError
                | Reason::Unauthorized
                | Reason::Forbidden
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::sample::answer;
    use crate::toggle::{Failure, Reported};

    fn run(slot: usize) -> RunId {
        RunId::of_slot(slot)
    }

    fn outage(runs: usize) -> Outage {
        let mut outage = Outage::default();
        (0..runs).for_each(|slot| outage.add(run(slot)));
        outage
    }

    fn fails(outage: &mut Outage, slot: usize, reason: Reason, now: Instant) -> Option<Change> {
        outage.note(run(slot), &Err(Failure::new(reason)), false, now, |n| Duration::from_secs(n.into()))
    }

    fn answers(outage: &mut Outage, slot: usize, now: Instant) -> Option<Change> {
        let outcome = Ok(answer(Reported::InProgress, None));
        outage.note(run(slot), &outcome, false, now, |n| Duration::from_secs(n.into()))
    }

    #[test]
    fn an_api_is_down_when_most_of_its_watches_are() {
        let now = Instant::now();
        let mut outage = outage(6);
        for slot in 0..3 {
            assert_eq!(fails(&mut outage, slot, Reason::Timeout, now), None);
        }
        assert_eq!(outage.next_probe(), None, "half is not most");
        assert_eq!(fails(&mut outage, 3, Reason::ServerError, now), Some(Change::Began));
        assert_eq!(outage.next_probe(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn one_or_two_watches_are_never_an_outage() {
        let now = Instant::now();
        let mut outage = outage(2);
        for _ in 0..9 {
            assert_eq!(fails(&mut outage, 0, Reason::Connect, now), None);
            assert_eq!(fails(&mut outage, 1, Reason::Connect, now), None);
        }
    }

    #[test]
    fn failures_that_are_no_sign_of_an_outage_do_not_count() {
        let now = Instant::now();
        let mut outage = outage(4);
        for reason in [Reason::BadRequest, Reason::NotFound, Reason::RateLimited, Reason::Decode, Reason::Credentials] {
            for slot in 0..4 {
                assert_eq!(fails(&mut outage, slot, reason, now), None);
            }
        }
    }

    #[test]
    fn probes_come_less_and_less_often_and_an_answer_ends_it_for_all() {
        let start = Instant::now();
        let mut outage = outage(4);
        for slot in 0..3 {
            fails(&mut outage, slot, Reason::Connect, start);
        }
        let later = start + Duration::from_secs(10);
        assert_eq!(fails(&mut outage, 0, Reason::Connect, later), None);
        assert_eq!(outage.next_probe(), Some(later + Duration::from_secs(2)));
        assert_eq!(fails(&mut outage, 1, Reason::Decode, later), None);
        assert_eq!(outage.next_probe(), Some(later + Duration::from_secs(3)), "that was not the API");
        assert_eq!(answers(&mut outage, 3, later), Some(Change::Ended(vec![run(0), run(2)])));
        assert_eq!((outage.next_probe(), answers(&mut outage, 1, later)), (None, None));
    }

    #[test]
    fn an_answer_that_knows_nothing_of_the_task_is_one_of_the_api() {
        let now = Instant::now();
        for reason in [Reason::BadRequest, Reason::NotFound, Reason::RateLimited] {
            let mut outage = outage(3);
            for slot in 0..3 {
                fails(&mut outage, slot, Reason::Timeout, now);
            }
            assert_eq!(fails(&mut outage, 0, reason, now), Some(Change::Ended(vec![run(1), run(2)])), "{reason:?}");
        }
    }

    #[test]
    fn finished_and_removed_runs_do_not_count() {
        let now = Instant::now();
        let mut outage = outage(10);
        for slot in 4..8 {
            let outcome = Ok(answer(Reported::Completed, None));
            outage.note(run(slot), &outcome, true, now, |_| Duration::ZERO);
        }
        outage.retain(|run| run.slot() < 8);
        fails(&mut outage, 0, Reason::Dns, now);
        fails(&mut outage, 1, Reason::Dns, now);
        assert_eq!(fails(&mut outage, 2, Reason::Dns, now), Some(Change::Began), "three of four");
    }

    #[test]
    fn the_probe_delay_doubles_up_to_the_shorter_of_both_caps() {
        let polling = Polling::default();
        let delays: Vec<_> = (1..8).map(|n| probe_delay(n, &polling, 1.0).as_secs()).collect();
        assert_eq!(delays, [5, 10, 20, 40, 60, 60, 60]);
        assert_eq!(probe_delay(u32::MAX, &polling, 0.0), Duration::from_secs(30));
    }
}
