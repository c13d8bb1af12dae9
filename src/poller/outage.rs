//! Outages: whether an API as a whole is down, and when to probe it. Pure: time and chance are arguments.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::PollTarget;
use crate::config::Polling;
use crate::toggle::Reason;

/// The fewest runs and agents that must be down before the API counts as down. Fewer may be wrong themselves, and their own
/// backoff is enough.
const FEWEST_DOWN: usize = 3;

/// The outage of an API, if it has one, and the targets that decide it: what is polled of the API.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// The targets that are polled.
    targets: HashSet<PollTarget>,
    /// The targets that have failed since the API's last answer, with a failure that is typical of an API that is down.
    down: HashSet<PollTarget>,
    /// Those that were down in an earlier outage and have not been answered since. They may be wrong themselves,
    /// so they do not count for another outage.
    suspect: HashSet<PollTarget>,
    /// Only while the API is down.
    probing: Option<Probing>,
}

/// The probes of an outage: one at a time, less and less often.
#[derive(Debug, Clone, Copy)]
struct Probing {
    failures: u32,
    /// When a failure was last counted. Polls that started before it say nothing new.
    counted: Instant,
    next: Instant,
}

/// A poll that ended.
pub(super) struct EndedPoll {
    pub(super) target: PollTarget,
    pub(super) verdict: PollVerdict,
    /// Whether it brought a valid answer. `None` if the route to the API has changed since the poll started: then the
    /// poll does not show whether the API is up.
    pub(super) valid: Option<bool>,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    /// Whether the target is not polled again.
    pub(super) last: bool,
}

/// What a poll shows about the API as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollVerdict {
    /// The API itself answered, even if it does not know the task or throttles.
    Answered,
    /// The poll failed as all polls do when an API cannot be reached, is broken, or refuses the key.
    Down,
    /// The failure may be of the target, or of something on the way.
    Neither,
}

/// The API went down, or came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OutageChange {
    /// Most targets have failed since its last answer.
    Began,
    /// An answer came. These targets were down, and are polled again.
    Ended(Vec<PollTarget>),
}

// === impl Outage ===

impl Outage {
    /// How many targets are polled.
    pub(super) fn polled(&self) -> usize {
        self.targets.len()
    }

    /// Adds a target that is polled from now on.
    pub(super) fn add(&mut self, target: PollTarget) {
        self.targets.insert(target);
    }

    /// Removes a target that is no longer polled.
    pub(super) fn remove(&mut self, target: PollTarget) {
        self.targets.remove(&target);
        for set in [&mut self.down, &mut self.suspect] {
            set.remove(&target);
        }
        if self.targets.is_empty() {
            // No poll could find out that the API is back.
            self.probing = None;
        }
    }

    /// Records what a poll shows about the API. `probe_delay` is the time until the next probe after that many failed ones.
    pub(super) fn record_poll(
        &mut self,
        poll: &EndedPoll,
        probe_delay: impl FnOnce(u32) -> Duration,
    ) -> Option<OutageChange> {
        if poll.last && poll.verdict != PollVerdict::Answered {
            self.remove(poll.target);
            return None;
        }
        if poll.last {
            self.targets.remove(&poll.target);
        }
        if poll.verdict == PollVerdict::Answered {
            self.suspect.remove(&poll.target);
            self.down.remove(&poll.target);
            return self.end();
        }
        if poll.verdict == PollVerdict::Down
            && self.targets.contains(&poll.target)
            && !self.suspect.contains(&poll.target)
        {
            self.down.insert(poll.target);
        }
        let sound = self.targets.len().saturating_sub(self.suspect.len());
        let most = self.down.len() >= FEWEST_DOWN && self.down.len() * 2 > sound;
        let failures = match self.probing {
            Some(probing) if poll.started < probing.counted => return None,
            Some(probing) => probing.failures.saturating_add(1),
            None if most => 1,
            None => return None,
        };
        let probing = Probing { failures, counted: poll.ended, next: poll.ended + probe_delay(failures) };
        self.probing.replace(probing).is_none().then_some(OutageChange::Began)
    }

    /// Ends the outage, if there is one.
    fn end(&mut self) -> Option<OutageChange> {
        let mut down: Vec<_> = self.down.drain().collect();
        self.probing.take()?;
        down.sort_unstable();
        self.suspect.extend(&down);
        Some(OutageChange::Ended(down))
    }

    /// Ends the outage without an answer, because the API is reached in another way or with another key.
    pub(super) fn reset(&mut self) {
        self.down.clear();
        self.probing = None;
    }

    /// Lets the next probe start at once.
    pub(super) fn probe_at_once(&mut self, now: Instant) {
        if let Some(probing) = &mut self.probing {
            probing.next = now;
        }
    }

    /// The targets that are down.
    pub(super) fn down(&self) -> impl Iterator<Item = PollTarget> {
        self.down.iter().copied()
    }

    /// When the next probe may start; `None` if there is no outage.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.probing.map(|probing| probing.next)
    }
}

/// How long after the end of a failed probe the next one may start. It doubles up to the shorter of `backoff_max`
/// and `max_interval`, and is jittered.
pub(super) fn probe_delay(failures: u32, polling: &Polling, chance: f64) -> Duration {
    let cap = polling.backoff_max.min(polling.max_interval);
    let doubled = 2u32.checked_pow(failures - 1).and_then(|factor| polling.min_interval.checked_mul(factor));
    let longest = doubled.map_or(cap, |doubled| doubled.min(cap));
    longest / 2 + (longest / 2).mul_f64(chance.clamp(0.0, 1.0))
}

// === impl PollVerdict ===

impl PollVerdict {
    /// The verdict for a poll that failed for this reason; `None` if it brought a valid answer.
    pub(super) fn of(failed: Option<Reason>) -> Self {
        match failed {
            None | Some(Reason::BadRequest | Reason::NotFound | Reason::RateLimited | Reason::ClientError) => {
                Self::Answered
            }
            Some(
                Reason::Connect
                | Reason::Dns
                | Reason::Tls
                | Reason::Timeout
                | Reason::ServerError
                | Reason::Unauthorized
                | Reason::Forbidden,
            ) => Self::Down,
            Some(_) => Self::Neither,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::RunId;
    use crate::toggle::sample::answer;
    use crate::toggle::{Failure, Outcome, ReportedStatus};

    fn run(slot: usize) -> PollTarget {
        PollTarget::Run(RunId::of(u32::try_from(slot).unwrap(), 1))
    }

    fn outage(runs: usize) -> Outage {
        let mut outage = Outage::default();
        (0..runs).for_each(|slot| outage.add(run(slot)));
        outage
    }

    fn note(outage: &mut Outage, slot: usize, outcome: &Outcome, last: bool, now: Instant) -> Option<OutageChange> {
        let poll = EndedPoll {
            target: run(slot),
            verdict: PollVerdict::of(outcome.as_ref().err().map(|failure| failure.reason)),
            valid: Some(outcome.is_ok()),
            started: now,
            ended: now,
            last,
        };
        outage.record_poll(&poll, |n| Duration::from_secs(n.into()))
    }

    fn fails(outage: &mut Outage, slot: usize, reason: Reason, now: Instant) -> Option<OutageChange> {
        note(outage, slot, &Err(Failure::new(reason)), false, now)
    }

    fn answers(outage: &mut Outage, slot: usize, now: Instant) -> Option<OutageChange> {
        note(outage, slot, &Ok(answer(ReportedStatus::InProgress, None)), false, now)
    }

    #[test]
    fn an_api_is_down_when_most_of_its_watches_are() {
        let now = Instant::now();
        let mut outage = outage(6);
        for slot in 0..3 {
            assert_eq!(fails(&mut outage, slot, Reason::Timeout, now), None);
        }
        assert_eq!(outage.next_probe(), None, "half is not most");
        assert_eq!(fails(&mut outage, 3, Reason::ServerError, now), Some(OutageChange::Began));
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
        assert_eq!(answers(&mut outage, 3, later), Some(OutageChange::Ended(vec![run(0), run(1), run(2)])));
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
            assert_eq!(
                fails(&mut outage, 0, reason, now),
                Some(OutageChange::Ended(vec![run(1), run(2)])),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn failures_between_answers_are_no_outage() {
        let now = Instant::now();
        let mut outage = outage(5);
        for _ in 0..9 {
            for slot in 0..3 {
                assert_eq!(fails(&mut outage, slot, Reason::Forbidden, now), None);
                assert_eq!(answers(&mut outage, 4, now), None);
            }
        }
    }

    #[test]
    fn runs_that_keep_failing_after_an_outage_do_not_cause_another_one() {
        let mut now = Instant::now();
        let mut outage = outage(20);
        let mut changes = Vec::new();
        for _ in 0..9 {
            for slot in 0..12 {
                changes.extend(fails(&mut outage, slot, Reason::ServerError, now));
            }
            for slot in 12..20 {
                changes.extend(answers(&mut outage, slot, now));
            }
            now += Duration::from_mins(1);
        }
        let began = changes.iter().filter(|change| **change == OutageChange::Began).count();
        assert_eq!((began, changes.len()), (1, 2), "{changes:?}");
        for slot in 12..17 {
            changes.extend(fails(&mut outage, slot, Reason::ServerError, now));
        }
        assert_eq!(changes.last(), Some(&OutageChange::Began), "most of the sound ones are down");
    }

    #[test]
    fn polls_that_were_running_when_the_outage_began_do_not_delay_the_probe() {
        let start = Instant::now();
        let mut outage = outage(20);
        let later = start + Duration::from_secs(1);
        for slot in 0..20 {
            let poll = EndedPoll {
                target: run(slot),
                verdict: PollVerdict::Down,
                valid: Some(false),
                started: start,
                ended: later,
                last: false,
            };
            outage.record_poll(&poll, |n| Duration::from_secs(n.into()));
        }
        assert_eq!(outage.next_probe(), Some(later + Duration::from_secs(1)));
    }

    #[test]
    fn finished_and_removed_runs_do_not_count() {
        let now = Instant::now();
        let mut outage = outage(10);
        for slot in 4..8 {
            note(&mut outage, slot, &Ok(answer(ReportedStatus::Completed, None)), true, now);
        }
        (8..10).for_each(|slot| outage.remove(run(slot)));
        fails(&mut outage, 0, Reason::Dns, now);
        fails(&mut outage, 1, Reason::Dns, now);
        assert_eq!(fails(&mut outage, 2, Reason::Dns, now), Some(OutageChange::Began), "three of four");
    }

    #[test]
    fn a_run_whose_last_poll_fails_is_removed_and_an_api_without_runs_is_not_down() {
        let now = Instant::now();
        let mut outage = outage(3);
        for slot in 0..3 {
            fails(&mut outage, slot, Reason::Connect, now);
        }
        assert!(outage.next_probe().is_some());
        let last = Err(Failure::new(Reason::Connect));
        for slot in 0..3 {
            assert_eq!(note(&mut outage, slot, &last, true, now), None);
        }
        assert_eq!((outage.next_probe(), outage.down().count()), (None, 0));
        outage.add(run(5));
        assert_eq!(answers(&mut outage, 5, now), None);
    }

    #[test]
    fn the_probe_delay_doubles_up_to_the_shorter_of_both_caps() {
        let polling = Polling::default();
        let delays: Vec<_> = (1..8).map(|n| probe_delay(n, &polling, 1.0).as_secs()).collect();
        assert_eq!(delays, [5, 10, 20, 40, 60, 60, 60]);
        assert_eq!(probe_delay(u32::MAX, &polling, 0.0), Duration::from_secs(30));
    }
}
