//! When the status of any run last changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the status of any run last changed, as the poller notes it and the shutdown reads it.
#[derive(Debug, Clone, Default)]
pub struct LastChange(Arc<Mutex<Option<Instant>>>);

// === impl LastChange ===

impl LastChange {
    /// Notes that a status changed `now`.
    pub(super) fn note(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// How long it is until the last change is `age` old; zero if there was none.
    pub fn until_old(&self, age: Duration, now: Instant) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(Duration::ZERO, |last| (last + age).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_that_is_younger_than_asked_is_waited_for() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let last = LastChange::default();
        assert_eq!(last.until_old(second, start), Duration::ZERO);
        last.note(start);
        assert_eq!(last.until_old(2 * second, start + second), second);
        assert_eq!(last.until_old(2 * second, start + 3 * second), Duration::ZERO);
        assert_eq!(last.until_old(Duration::ZERO, start), Duration::ZERO);
    }
}
