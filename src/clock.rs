//! The time of day, by a clock that nobody can set.
//!
//! Times are compared with earlier ones: to see what is newer, what has expired, what takes too long. The
//! system's clock can be set at any time, so those comparisons cannot rely on it. This clock advances by the time
//! that really passes, including time that the machine is suspended, and follows the system's clock in two ways.
//! A small deviation is corrected gradually. A jump is followed once it has lasted. Then all earlier times are
//! shifted by the same amount, so that their order and their age stay the same.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::toggle::{ClockJump, Timestamp};

/// The clock of this process.
static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock {
    ahead: AtomicI64::new(system_ahead()),
    total_jump: AtomicI64::new(0),
    shown: AtomicI64::new(0),
});

/// How often the two clocks are read at most to find by how much they differ.
const READINGS: usize = 10;

/// Readings within so many milliseconds count as made at once.
const AT_ONCE: i64 = 1;

#[derive(Debug)]
struct Clock {
    /// The time of day minus the steady clock, in milliseconds.
    ahead: AtomicI64,
    /// The sum of all jumps so far, in milliseconds.
    total_jump: AtomicI64,
    /// The latest time that [`now`] has returned since the last jump. It never returns an earlier one.
    shown: AtomicI64,
}

/// A time at which something happened in this process. When the clock jumps, the time is shown as shifted by the jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessTime(
    /// The time by the clock as it was before any jump.
    Timestamp,
);

/// Compares the clock with the system's at intervals.
#[derive(Debug, Default)]
pub(crate) struct ClockFollower {
    suspected: Option<SuspectedJump>,
}

/// A deviation that may be a jump, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SuspectedJump {
    deviation: i64,
    /// When it was first seen, by the steady clock.
    since: i64,
}

/// What to do about a deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockCorrection {
    /// Correct the clock by this many milliseconds.
    Adjust(i64),
    /// Wait and see whether it lasts; with the deviation if it is a new one.
    Wait(Option<i64>),
    /// The system's clock jumped by this many milliseconds, and the jump has lasted.
    Jumped(i64),
}

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let now = steady_clock().saturating_add(CLOCK.ahead.load(Ordering::Relaxed));
    let shown = CLOCK.shown.fetch_max(now, Ordering::Relaxed);
    if shown - now > ClockFollower::SMALL {
        // Another thread read the clock before a jump back, and stored that time after the jump.
        CLOCK.shown.store(now, Ordering::Relaxed);
        return from_millis(now);
    }
    from_millis(shown.max(now))
}

/// The time of day without the jumps that came after their sum was `total`.
pub(crate) fn now_before(total: ClockJump) -> Timestamp {
    loop {
        let (before, now, after) = (total_jump(), now(), total_jump());
        if before == after {
            return now.shifted(total - after);
        }
    }
}

/// Makes the clock jump. All earlier times must be shifted by the same amount.
pub(crate) fn jump(jump: ClockJump) {
    CLOCK.ahead.fetch_add(jump.as_millis(), Ordering::Relaxed);
    CLOCK.shown.store(0, Ordering::Relaxed);
    CLOCK.total_jump.fetch_add(jump.as_millis(), Ordering::Release);
}

/// The sum of all jumps so far. A time that was taken when the sum was different must be shifted by the difference.
pub(crate) fn total_jump() -> ClockJump {
    ClockJump::from_millis(CLOCK.total_jump.load(Ordering::Acquire))
}

// === impl ProcessTime ===

impl ProcessTime {
    pub(crate) fn now() -> Self {
        Self(now_before(ClockJump::default()))
    }

    /// The time by the clock as it is set now.
    pub(crate) fn shown(self) -> Timestamp {
        self.0.shifted(total_jump())
    }
}

// === impl ClockFollower ===

impl ClockFollower {
    /// The smallest jump, in milliseconds. Less than this is a small deviation.
    const SMALL: i64 = 2_000;

    /// The largest correction of one check, in milliseconds.
    const STEP: i64 = 100;

    /// How long a jump must last to be followed, in milliseconds: enough to notice and undo a mistake.
    const LASTING: i64 = 30_000;

    /// Compares the clock with the system's, and corrects a small deviation. Returns a jump that is to be followed.
    pub(crate) fn check(&mut self) -> Option<ClockJump> {
        let deviation = system_ahead().saturating_sub(CLOCK.ahead.load(Ordering::Relaxed));
        match self.judge(deviation, steady_clock()) {
            ClockCorrection::Adjust(by) => {
                CLOCK.ahead.fetch_add(by, Ordering::Relaxed);
                None
            }
            ClockCorrection::Wait(new) => {
                if let Some(millis) = new {
                    let (jump_seconds, wait_seconds) = (millis / 1000, Self::LASTING / 1000);
                    tracing::warn!(jump_seconds, wait_seconds, "system clock jumped: it is followed if that lasts");
                }
                None
            }
            ClockCorrection::Jumped(millis) => {
                let jump_seconds = millis / 1000;
                tracing::warn!(jump_seconds, "system clock was set: all times that are shown are moved by as much");
                Some(ClockJump::from_millis(millis))
            }
        }
    }

    fn judge(&mut self, deviation: i64, steady: i64) -> ClockCorrection {
        if deviation.abs() < Self::SMALL {
            self.suspected = None;
            return ClockCorrection::Adjust(deviation.clamp(-Self::STEP, Self::STEP));
        }
        match self.suspected {
            Some(suspected) if (suspected.deviation - deviation).abs() < Self::SMALL => {
                if steady - suspected.since < Self::LASTING {
                    return ClockCorrection::Wait(None);
                }
                self.suspected = None;
                ClockCorrection::Jumped(deviation)
            }
            _ => {
                self.suspected = Some(SuspectedJump { deviation, since: steady });
                ClockCorrection::Wait(Some(deviation))
            }
        }
    }
}

/// The system's clock minus the steady clock, in milliseconds.
fn system_ahead() -> i64 {
    closest((0..READINGS).map(|_| (steady_clock(), system_clock(), steady_clock())))
}

/// The difference between two clocks, of readings of the one before, of the other, and of the one after.
///
/// If the process is stopped between two readings, they differ by that time, too. So the pair counts that was read in
/// the shortest time.
fn closest(readings: impl Iterator<Item = (i64, i64, i64)>) -> i64 {
    let mut shortest = i64::MAX;
    let mut difference = 0;
    for (before, other, after) in readings {
        let lasted = after.saturating_sub(before);
        if lasted < shortest {
            (shortest, difference) = (lasted, other.saturating_sub(before));
        }
        if lasted <= AT_ONCE {
            break;
        }
    }
    difference
}

/// Milliseconds since the Unix epoch by the system's clock, which can be set.
fn system_clock() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The limit leaves room for sums of such times.
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

    /// The corrections for deviations that are seen once a second.
    fn corrections(deviations: impl IntoIterator<Item = i64>) -> Vec<ClockCorrection> {
        let mut follower = ClockFollower::default();
        (0..).zip(deviations).map(|(second, deviation)| follower.judge(deviation, second * 1000)).collect()
    }

    #[test]
    fn small_deviations_are_corrected_bit_by_bit() {
        assert_eq!(corrections([3, -40, 1999, -1999]), [3, -40, 100, -100].map(ClockCorrection::Adjust));
    }

    #[test]
    fn a_jump_is_followed_when_it_has_lasted_and_by_its_size_then() {
        for jump in [HOUR, -HOUR, 365 * 24 * HOUR] {
            let mut corrections = corrections((0..31).map(|second| jump + second));
            assert_eq!(corrections.pop(), Some(ClockCorrection::Jumped(jump + 30)));
            assert_eq!(corrections.remove(0), ClockCorrection::Wait(Some(jump)));
            assert!(corrections.iter().all(|correction| *correction == ClockCorrection::Wait(None)), "{corrections:?}");
        }
    }

    #[test]
    fn a_jump_that_is_undone_or_goes_on_growing_is_not_followed() {
        let two_days = std::iter::repeat_n(48 * HOUR, 29);
        let back = corrections(two_days.clone().chain([0]).chain(two_days));
        assert!(!back.iter().any(|correction| matches!(correction, ClockCorrection::Jumped(_))), "{back:?}");
        let racing = corrections((1..100).map(|second| second * 9_000));
        assert!(!racing.iter().any(|correction| matches!(correction, ClockCorrection::Jumped(_))), "{racing:?}");
    }

    #[test]
    fn what_is_read_while_the_process_is_stopped_does_not_count() {
        let mut later = std::iter::repeat_with(|| panic!("it is read again"));
        let readings = [(0, 1_700, 700), (800, 1_810, 810), (900, 1_901, 901)];
        assert_eq!(closest(readings.into_iter().chain(&mut later)), 1_001);
        assert_eq!(closest(readings.into_iter().take(2)), 1_010);
    }

    #[test]
    fn the_clock_agrees_with_the_system_clock_until_that_is_set() {
        assert!((i64::try_from(now().as_millis()).unwrap() - system_clock()).abs() < ClockFollower::SMALL);
        assert_eq!(total_jump(), ClockJump::from_millis(0));
    }
}
