//! A limit on log lines that clients can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines are written in each [`WINDOW`].
const MAX_LINES: u32 = 100;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// Limits the lines of one kind. Suppressed lines are counted, and the next line gets the count.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(Mutex<LogWindow>);

#[derive(Debug, Default)]
struct LogWindow {
    began: Option<Instant>,
    written: u32,
    suppressed: u64,
}

// === impl LogLimiter ===

impl LogLimiter {
    /// How many lines were suppressed since the last one, if another may be written now.
    pub(super) fn permit(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).permit(Instant::now())
    }
}

// === impl LogWindow ===

impl LogWindow {
    fn permit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.written) = (Some(now), 0);
        }
        if self.written == MAX_LINES {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_lines_are_permitted_in_ten_seconds_and_the_rest_is_counted() {
        let mut window = LogWindow::default();
        let start = Instant::now();
        let mut permitted = |seconds, tries: usize| -> Vec<u64> {
            (0..tries).filter_map(|_| window.permit(start + Duration::from_secs(seconds))).collect()
        };
        assert_eq!(permitted(0, 100), [0; 100]);
        assert!(permitted(9, 3).is_empty());
        assert_eq!(permitted(10, 2), [3, 0]);
    }
}
