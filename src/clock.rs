//! The time of day, as this process counts it.
//!
//! What was stamped at one time is compared with what is stamped later: what is newer, what expired, what
//! takes too long. The system's clock cannot be trusted with that, for it can be set at any time. So time
//! goes on by what really passes, a suspended machine's sleep included, and follows the system's clock in
//! two ways. A small deviation is made up for bit by bit. A jump is believed once it has lasted, and then
//! everything that was stamped is moved by as much: its order and its age stay what they are.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::toggle::{ClockJump, Timestamp};

/// The clock of this process.
static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock {
    ahead: AtomicI64::new(system_clock().saturating_sub(steady_clock())),
    moved: AtomicI64::new(0),
    shown: AtomicI64::new(0),
});

#[derive(Debug)]
struct Clock {
    /// What the time of day is ahead of the steady clock, in milliseconds.
    ahead: AtomicI64,
    /// The jumps so far, added up, in milliseconds.
    moved: AtomicI64,
    /// The latest time that was shown since the last jump: no later look shows an earlier one.
    shown: AtomicI64,
}

/// Looks again and again how far the system's clock is off.
#[derive(Debug, Default)]
pub(crate) struct ClockFollower {
    suspect: Option<Suspect>,
}

/// A deviation that is not believed yet, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspect {
    deviation: i64,
    /// When it was first seen, by the steady clock.
    since: i64,
}

/// What to do about a deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Correction {
    /// Make up for so many milliseconds at once.
    Adjust(i64),
    /// See whether it lasts; with the deviation, if it is a new one.
    Wait(Option<i64>),
    /// The system's clock was set by so many milliseconds, for good.
    Jumped(i64),
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let now = steady_clock().saturating_add(CLOCK.ahead.load(Ordering::Relaxed));
    let shown = CLOCK.shown.fetch_max(now, Ordering::Relaxed);
    if shown - now > ClockFollower::SMALL {
        // Somebody looked just before a jump back, and noted that just after it.
        CLOCK.shown.store(now, Ordering::Relaxed);
        return from_millis(now);
    }
    from_millis(shown.max(now))
}

/// The time of day as it would be without the jumps that came after the sum of all was `moved`.
pub(crate) fn now_before(moved: ClockJump) -> Timestamp {
    loop {
        let (before, now, after) = (self::moved(), now(), self::moved());
        if before == after {
            return now.moved(ClockJump::from_millis(moved.as_millis() - after.as_millis()));
        }
    }
}

/// Moves the clock. Everything that was stamped before has to be moved by as much.
pub(crate) fn jump(jump: ClockJump) {
    CLOCK.ahead.fetch_add(jump.as_millis(), Ordering::Relaxed);
    CLOCK.shown.store(0, Ordering::Relaxed);
    CLOCK.moved.fetch_add(jump.as_millis(), Ordering::Release);
}

/// The sum of all jumps so far. A time that was stamped when the sum was another must be moved by the
/// difference.
pub(crate) fn moved() -> ClockJump {
    ClockJump::from_millis(CLOCK.moved.load(Ordering::Acquire))
}

// === impl ClockFollower ===

impl ClockFollower {
    /// Less than this is no jump.
    const SMALL: i64 = 2_000;

    /// The most that is made up for at a look.
    const STEP: i64 = 100;

    /// How long a jump must last to be believed, in milliseconds. Whoever sets a clock wrong and notices it
    /// sets it right before that.
    const LASTING: i64 = 30_000;

    /// Looks at the system's clock, and makes up for a small deviation. Returns a jump that is to be
    /// followed.
    pub(crate) fn look(&mut self) -> Option<ClockJump> {
        let steady = steady_clock();
        let deviation = system_clock() - steady.saturating_add(CLOCK.ahead.load(Ordering::Relaxed));
        match self.judge(deviation, steady) {
            Correction::Adjust(by) => {
                CLOCK.ahead.fetch_add(by, Ordering::Relaxed);
                None
            }
            Correction::Wait(new) => {
                if let Some(millis) = new {
                    let (jump_seconds, wait_seconds) = (millis / 1000, Self::LASTING / 1000);
                    tracing::warn!(jump_seconds, wait_seconds, "system clock jumped: it is followed if that lasts");
                }
                None
            }
            Correction::Jumped(millis) => {
                let jump_seconds = millis / 1000;
                tracing::warn!(jump_seconds, "system clock was set: all times that are shown are moved by as much");
                Some(ClockJump::from_millis(millis))
            }
        }
    }

    fn judge(&mut self, deviation: i64, steady: i64) -> Correction {
        if deviation.abs() < Self::SMALL {
            self.suspect = None;
            return Correction::Adjust(deviation.clamp(-Self::STEP, Self::STEP));
        }
        match self.suspect {
            Some(suspect) if (suspect.deviation - deviation).abs() < Self::SMALL => {
                if steady - suspect.since < Self::LASTING {
                    return Correction::Wait(None);
                }
                self.suspect = None;
                Correction::Jumped(deviation)
            }
            _ => {
                self.suspect = Some(Suspect { deviation, since: steady });
                Correction::Wait(Some(deviation))
            }
        }
    }
}

/// Milliseconds since the Unix epoch by the system's clock, which can be set.
fn system_clock() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A clock that is further ahead than this is as wrong as it can be.
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// Milliseconds by a clock that nobody can set, and that goes on while the machine is suspended.
fn steady_clock() -> i64 {
    #[cfg(target_os = "linux")]
    const STEADY: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const STEADY: ClockId = ClockId::Monotonic;
    let time = clock_gettime(STEADY);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    /// What comes of deviations that are seen once a second.
    fn verdicts(deviations: impl IntoIterator<Item = i64>) -> Vec<Correction> {
        let mut follower = ClockFollower::default();
        (0..).zip(deviations).map(|(second, deviation)| follower.judge(deviation, second * 1000)).collect()
    }

    #[test]
    fn small_deviations_are_made_up_for_bit_by_bit() {
        assert_eq!(verdicts([3, -40, 1999, -1999]), [3, -40, 100, -100].map(Correction::Adjust));
    }

    #[test]
    fn a_jump_is_followed_when_it_has_lasted_and_by_what_it_is_then() {
        for jump in [HOUR, -HOUR, 365 * 24 * HOUR] {
            let mut verdicts = verdicts((0..31).map(|second| jump + second));
            assert_eq!(verdicts.pop(), Some(Correction::Jumped(jump + 30)));
            assert_eq!(verdicts.remove(0), Correction::Wait(Some(jump)));
            assert!(verdicts.iter().all(|verdict| *verdict == Correction::Wait(None)), "{verdicts:?}");
        }
    }

    #[test]
    fn a_jump_that_is_taken_back_or_is_followed_by_another_is_not_followed() {
        let two_days = std::iter::repeat_n(48 * HOUR, 29);
        let back = verdicts(two_days.clone().chain([0]).chain(two_days));
        assert!(!back.iter().any(|verdict| matches!(verdict, Correction::Jumped(_))), "{back:?}");
        let racing = verdicts((1..100).map(|second| second * 9_000));
        assert!(!racing.iter().any(|verdict| matches!(verdict, Correction::Jumped(_))), "{racing:?}");
    }

    #[test]
    fn the_clock_shows_what_the_system_does_until_that_is_set() {
        assert!((i64::try_from(now().as_millis()).unwrap() - system_clock()).abs() < ClockFollower::SMALL);
        assert_eq!(moved(), ClockJump::from_millis(0));
    }
}
