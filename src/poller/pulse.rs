//! Whether the poller is alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that the poller winds, and health checks read.
#[derive(Debug, Clone)]
pub struct Pulse {
    epoch: Instant,
    /// Milliseconds from the epoch to the last beat.
    last: Arc<AtomicU64>,
}

// === impl Pulse ===

impl Pulse {
    /// The poller beats at least this often.
    pub(super) const INTERVAL: Duration = Duration::from_secs(1);

    /// A poller that did not beat for this long is stuck.
    const LONGEST_SILENCE: Duration = Duration::from_secs(30);

    /// A pulse that beats `now`.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, last: Arc::default() }
    }

    /// Notes that the poller is alive.
    pub(super) fn beat(&self, now: Instant) {
        self.last.store(self.millis(now), Ordering::Relaxed);
    }

    /// Whether the last beat is recent.
    pub fn is_alive(&self, now: Instant) -> bool {
        let silence = self.millis(now).saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_millis(silence) < Self::LONGEST_SILENCE
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poller_that_does_not_beat_for_half_a_minute_is_not_alive() {
        let start = Instant::now();
        let pulse = Pulse::new(start);
        assert!(pulse.is_alive(start + Duration::from_secs(29)));
        assert!(!pulse.is_alive(start + Duration::from_secs(30)));
        pulse.beat(start + Duration::from_secs(20));
        assert!(pulse.is_alive(start + Duration::from_secs(49)));
    }
}
