//! How long until a run is polled again. Pure: time and chance are arguments.

use std::time::Duration;

use crate::config::Polling;
use crate::toggle::{LiveMocks, Run, Timestamp};

/// The interval is the age of the run divided by this.
const AGE_DIVISOR: u32 = 10;

/// How long after its last poll a run is polled again; `None` if it is not polled again.
///
/// `chance` is from 0 to 1, and jitters the backoff.
pub(super) fn next_delay(run: &Run, polling: &Polling, now: Timestamp, chance: f64) -> Option<Duration> {
    if run.finished.is_some() && polling.recheck_finished.is_zero() {
        return None;
    }
    let delay = match &run.failing {
        Some(failing) => backoff(failing.polls, polling, chance),
        None => by_age(now.since(run.started), polling),
    };
    Some(match run.finished {
        None => delay,
        Some(_) if run.failing.is_none() => polling.recheck_finished,
        // A recheck that fails is not repeated sooner.
        Some(_) => delay.max(polling.recheck_finished),
    })
}

/// How long after its last poll an agent is asked again. `chance` is from 0 to 1. It jitters the backoff, and spreads
/// agents that were asked for the first time together.
pub(super) fn agent_delay(live: &LiveMocks, polling: &Polling, now: Timestamp, chance: f64) -> Duration {
    let interval = if live.is_watched_closely(now) {
        polling.min_interval.min(polling.agent_interval)
    } else {
        polling.agent_interval
    };
    match &live.failing {
        // An agent that does not answer is never asked more often than one that does.
        Some(failing) => backoff(failing.polls, polling, chance).max(interval),
        // A run has finished since it was asked.
        None if live.asked < live.run_finished => Duration::ZERO,
        None if live.polls == 1 => interval / 2 + (interval / 2).mul_f64(chance.clamp(0.0, 1.0)),
        None => interval,
    }
}

/// A tenth of the run's age, but at least `min_interval` and at most `max_interval`.
fn by_age(age: Duration, polling: &Polling) -> Duration {
    (age / AGE_DIVISOR).clamp(polling.min_interval, polling.max_interval)
}

/// The delay after `failures` in a row: it doubles up to `backoff_max`. Its upper half is jittered, so that
/// watches that failed together are not retried together.
pub(super) fn backoff(failures: u32, polling: &Polling, chance: f64) -> Duration {
    let doubled = 2u32.checked_pow(failures).and_then(|factor| polling.min_interval.checked_mul(factor));
    let longest = doubled.map_or(polling.backoff_max, |doubled| doubled.min(polling.backoff_max));
    let shortest = (longest / 2).max(polling.min_interval).min(longest);
    shortest + longest.saturating_sub(shortest).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::toggle::sample::{answer, at, mock_status, watch};
    use crate::toggle::{Failure, Reason, ReportedStatus, Text, Toggle};

    fn toggle() -> Toggle {
        Toggle::new(Arc::new(watch("w", "p")), at(0))
    }

    fn seconds(run: &Run, polling: &Polling, now: u64) -> Option<f64> {
        next_delay(run, polling, at(now), 1.0).map(|delay| delay.as_secs_f64())
    }

    #[test]
    fn a_run_is_polled_at_a_tenth_of_its_age_between_the_intervals() {
        let mut toggle = toggle();
        toggle.apply(Ok(answer(ReportedStatus::InProgress, None)), at(1));
        let polling = Polling::default();
        for (age, delay) in [(0, 5.0), (50, 5.0), (100, 10.0), (345, 34.5), (600, 60.0), (100_000, 60.0)] {
            assert_eq!(seconds(&toggle.run, &polling, age), Some(delay), "{age}");
        }
    }

    #[test]
    fn a_finished_run_is_not_polled_again_or_is_rechecked() {
        let mut toggle = toggle();
        toggle.apply(Ok(answer(ReportedStatus::Failed, None)), at(1));
        let mut polling = Polling::default();
        assert_eq!(seconds(&toggle.run, &polling, 2), None);
        polling.recheck_finished = Duration::from_secs(77);
        assert_eq!(seconds(&toggle.run, &polling, 2), Some(77.0));
        toggle.apply(Err(Failure::new(Reason::BadRequest)), at(3));
        assert_eq!(seconds(&toggle.run, &polling, 3), Some(77.0), "not the shorter backoff");
    }

    #[test]
    fn a_run_with_an_unrecognised_status_is_polled_again() {
        let mut toggle = toggle();
        let queued = ReportedStatus::Unrecognised(Text::own("paused"));
        toggle.apply(Ok(answer(queued, None)), at(1));
        assert_eq!(seconds(&toggle.run, &Polling::default(), 1), Some(5.0));
    }

    #[test]
    fn failures_back_off_and_a_valid_answer_ends_the_backoff() {
        let mut toggle = toggle();
        let polling = Polling::default();
        let mut delays = Vec::new();
        for second in 0..9 {
            toggle.apply(Err(Failure::new(Reason::ServerError)), at(second));
            delays.push(seconds(&toggle.run, &polling, second).unwrap());
        }
        assert_eq!(delays, [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]);
        toggle.apply(Ok(answer(ReportedStatus::InProgress, None)), at(10));
        assert_eq!(seconds(&toggle.run, &polling, 10), Some(5.0));
    }

    #[test]
    fn an_agent_is_asked_at_its_interval_and_at_the_shortest_one_after_a_run() {
        let (mut live, polling) = (LiveMocks::default(), Polling::default());
        let delay = |live: &LiveMocks, now| agent_delay(live, &polling, at(now), 1.0).as_secs();
        live.apply(Ok(mock_status(true)), at(10), at(10));
        assert_eq!(delay(&live, 10), 60);
        assert_eq!(agent_delay(&live, &polling, at(10), 0.0).as_secs(), 30, "agents are spread after their first poll");
        live.apply(Ok(mock_status(true)), at(10), at(10));
        assert_eq!(agent_delay(&live, &polling, at(10), 0.0).as_secs(), 60);
        live.run_finished = Some(at(20));
        assert_eq!(delay(&live, 20), 0, "it was asked before the run finished");
        live.apply(Ok(mock_status(true)), at(21), at(21));
        assert_eq!((delay(&live, 21), delay(&live, 79), delay(&live, 80)), (5, 5, 60));
        let fast = Polling { agent_interval: Duration::from_secs(1), ..Polling::default() };
        assert_eq!(agent_delay(&live, &fast, at(21), 1.0).as_secs(), 1);
    }

    #[test]
    fn an_agent_that_fails_backs_off_from_its_interval() {
        let (mut live, polling) = (LiveMocks::default(), Polling::default());
        let mut delays = Vec::new();
        for second in 0..7 {
            live.apply(Err(Failure::new(Reason::Timeout)), at(second), at(second));
            delays.push(agent_delay(&live, &polling, at(second), 1.0).as_secs());
        }
        assert_eq!(delays, [60, 60, 60, 80, 160, 300, 300]);
        live.run_finished = Some(at(7));
        live.failing = None;
        live.apply(Err(Failure::new(Reason::Timeout)), at(7), at(7));
        assert_eq!(agent_delay(&live, &polling, at(7), 1.0).as_secs(), 10);
    }

    proptest! {
        #[test]
        fn backoff_stays_between_min_interval_and_backoff_max(
            min in 1u64..100_000, more in 0u64..10_000_000, failures in 1u32.., chance in 0.0..=1.0f64
        ) {
            let polling = Polling {
                min_interval: Duration::from_millis(min),
                backoff_max: Duration::from_millis(min + more),
                ..Polling::default()
            };
            let delay = backoff(failures, &polling, chance);
            prop_assert!(delay >= polling.min_interval && delay <= polling.backoff_max, "{delay:?}");
        }

        #[test]
        fn the_interval_stays_between_its_bounds(age in any::<u32>(), min in 1u64..100_000, more in 0u64..10_000_000) {
            let polling = Polling {
                min_interval: Duration::from_millis(min),
                max_interval: Duration::from_millis(min + more),
                ..Polling::default()
            };
            let delay = by_age(Duration::from_millis(age.into()), &polling);
            prop_assert!(delay >= polling.min_interval && delay <= polling.max_interval);
        }
    }
}
