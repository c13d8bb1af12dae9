//! Signs of life of the poller: its heartbeat, and when a run last changed its status. The poller
//! writes them; health checks, the watchdog of systemd and the shutdown read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the poller's loop last ran. Clones share it.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    epoch: Instant,
    /// Milliseconds from the epoch to the last beat.
    last: Arc<AtomicU64>,
}

/// When the status of any run last changed. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LastStatusChange(Arc<Mutex<Option<Instant>>>);

// === impl Heartbeat ===

impl Heartbeat {
    /// The longest time between two beats of a poller that works.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    /// A poller that has not beaten for this long is stuck.
    const TIMEOUT: Duration = Duration::from_secs(30);

    /// A heartbeat whose first beat is `now`.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, last: Arc::default() }
    }

    /// Records that the poller is alive.
    pub(crate) fn beat(&self, now: Instant) {
        self.last.store(self.millis(now), Ordering::Relaxed);
    }

    /// Whether the last beat is less than 30 seconds old.
    pub fn is_alive(&self, now: Instant) -> bool {
        let silence = self.millis(now).saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_millis(silence) < Self::TIMEOUT
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl LastStatusChange ===

impl LastStatusChange {
    /// Records that a status changed `now`.
    pub(crate) fn record(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// How long it takes from `now` until the last change is `age` old; zero if nothing has changed.
    pub fn until_old(&self, age: Duration, now: Instant) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::ZERO, |last| (last + age).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poller_without_a_beat_for_30_seconds_is_not_alive() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new(start);
        assert!(heartbeat.is_alive(start + Duration::from_secs(29)));
        assert!(!heartbeat.is_alive(start + Duration::from_secs(30)));
        heartbeat.beat(start + Duration::from_secs(20));
        assert!(heartbeat.is_alive(start + Duration::from_secs(49)));
    }

    #[test]
    fn the_shutdown_waits_only_for_a_change_that_is_younger_than_asked() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let last = LastStatusChange::default();
        assert_eq!(last.until_old(second, start), Duration::ZERO);
        last.record(start);
        assert_eq!(last.until_old(2 * second, start + second), second);
        assert_eq!(last.until_old(2 * second, start + 3 * second), Duration::ZERO);
        assert_eq!(last.until_old(Duration::ZERO, start), Duration::ZERO);
    }
}
