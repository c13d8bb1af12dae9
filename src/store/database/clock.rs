//! The clock of the database. It is the clock of all times in the tables, because the clocks of replicas may differ.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::toggle::{ClockJump, Timestamp};

/// How far the database's clock is from this machine's.
#[derive(Debug, Default)]
pub(super) struct DatabaseClock(Mutex<ClockDeviation>);

#[derive(Debug, Clone, Copy, Default)]
struct ClockDeviation {
    /// The database's clock minus this machine's, in milliseconds; zero if that is less than [`TOLERANCE`].
    ahead: i64,
    /// The sum of this machine's jumps that it includes.
    jumps: ClockJump,
}

/// Smaller deviations count as none, in milliseconds. Otherwise the same time would be shown a little differently by
/// each replica.
const TOLERANCE: i64 = 500;

// === impl DatabaseClock ===

impl DatabaseClock {
    /// Takes note of the database's clock, which was read between two times of this machine's.
    pub(super) fn read(&self, database: Timestamp, sent: Timestamp, received: Timestamp) {
        let middle = millis(sent) + (millis(received) - millis(sent)) / 2;
        let mut deviation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *deviation = deviation.corrected(millis(database) - middle, clock::total_jump());
    }

    /// What must be added to times of this machine before they go into the database.
    pub(super) fn to_database(&self) -> ClockJump {
        let deviation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ClockJump::from_millis(deviation.ahead_after(clock::total_jump()))
    }

    /// The time of the database in this long, in milliseconds.
    pub(super) fn after(&self, time: Duration) -> i64 {
        millis(clock::now().shifted(self.to_database()).after(time))
    }

    /// What must be added to times in the database so that they are times of this machine.
    pub(super) fn to_local(&self) -> ClockJump {
        ClockJump::default() - self.to_database()
    }
}

// === impl ClockDeviation ===

impl ClockDeviation {
    /// The deviation when these jumps have happened.
    fn ahead_after(self, jumps: ClockJump) -> i64 {
        self.ahead.saturating_sub((jumps - self.jumps).as_millis())
    }

    /// The deviation after it was measured. It only changes by more than the tolerance.
    fn corrected(self, measured: i64, jumps: ClockJump) -> Self {
        let known = self.ahead_after(jumps);
        let ahead = if (measured - known).abs() <= TOLERANCE { known } else { measured };
        Self { ahead: if measured.abs() <= TOLERANCE { 0 } else { ahead }, jumps }
    }
}

fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn after(measured: &[i64]) -> i64 {
        let none = ClockJump::default();
        measured.iter().fold(ClockDeviation::default(), |of, measured| of.corrected(*measured, none)).ahead
    }

    #[test]
    fn a_small_deviation_is_none_and_a_large_one_does_not_change_with_the_network() {
        for (measured, ahead) in [
            (&[300, -400][..], 0),
            (&[HOUR], HOUR),
            (&[HOUR, HOUR + 400, HOUR - 499], HOUR),
            (&[HOUR, HOUR + 700], HOUR + 700),
            (&[HOUR, 20], 0),
            (&[-HOUR, -HOUR - 501, 0, -HOUR], -HOUR),
        ] {
            assert_eq!(after(measured), ahead, "{measured:?}");
        }
    }

    #[test]
    fn a_jump_of_this_machine_counts_before_the_database_is_asked_again() {
        let deviation = ClockDeviation::default().corrected(HOUR, ClockJump::default());
        assert_eq!(deviation.ahead_after(ClockJump::from_millis(HOUR)), 0);
        assert_eq!(deviation.ahead_after(ClockJump::from_millis(-HOUR)), 2 * HOUR);
    }
}
