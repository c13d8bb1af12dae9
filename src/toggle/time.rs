//! Points in time, as users see them.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Sub;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A wall-clock time: milliseconds since the Unix epoch, never before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(
    /// The milliseconds plus one, so that `Option<Timestamp>` has the same size.
    NonZeroU64,
);

/// A jump of the clock of this process, by which all earlier times are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockJump {
    /// Negative if the clock was set back.
    millis: i64,
}

// === impl Timestamp ===

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// The time from `earlier` to `self`; zero if the clock was set back meanwhile.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.as_millis().saturating_sub(earlier.as_millis()))
    }

    /// A time from before a jump, as it is shown after the jump.
    #[must_use]
    pub fn shifted(self, jump: ClockJump) -> Self {
        Self::from_millis(self.as_millis().saturating_add_signed(jump.millis))
    }

    /// The time `delay` before this one.
    #[must_use]
    pub fn before(self, delay: Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_sub(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time `delay` after this one.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

// === impl ClockJump ===

impl ClockJump {
    /// From milliseconds; negative if the clock was set back.
    pub const fn from_millis(millis: i64) -> Self {
        Self { millis }
    }

    /// Milliseconds; negative if the clock was set back.
    pub const fn as_millis(self) -> i64 {
        self.millis
    }
}

/// The jumps that a later sum of jumps has and an earlier one has not.
impl Sub for ClockJump {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { millis: self.millis - earlier.millis }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH.checked_add(Duration::from_millis(time.as_millis())).unwrap_or(UNIX_EPOCH)
    }
}

/// RFC 3339 in UTC with milliseconds, as in `2026-11-24T03:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3339 ends with the year 9999, and the formatter refuses later times.
        const LAST: u64 = 253_402_300_799_999;
        let time = UNIX_EPOCH + Duration::from_millis(self.as_millis().min(LAST));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}
