//! The clocks of this process and of the machine, while the alerts are judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::plan::Time;

/// What the clocks of this process and of the machine did, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The longest delay of a timer.
    late: AtomicU64,
    /// The sum of all jumps of the system's clock, forward and back.
    jumped: AtomicU64,
}

/// Seconds from milliseconds.
fn seconds(millis: &AtomicU64) -> Time {
    Duration::from_millis(millis.load(Ordering::Relaxed)).as_secs_f64()
}

/// By how many seconds the system's clock is ahead of `begun`. `None` if this process was stopped while it read the two.
fn system_ahead(begun: Instant) -> Option<Time> {
    const SHORT: Duration = Duration::from_millis(2);
    let before = Instant::now();
    let system = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    (before.elapsed() < SHORT).then_some(system.as_secs_f64() - before.duration_since(begun).as_secs_f64())
}

// === impl Clocks ===

impl Clocks {
    /// The longest delay of a timer.
    pub(super) fn late(&self) -> Time {
        seconds(&self.late)
    }

    /// By how much the system's clock jumped in all.
    pub(super) fn jumped(&self) -> Time {
        seconds(&self.jumped)
    }

    /// Watches them until it is aborted. Times count from `begun`.
    pub(super) async fn watch(self: Arc<Self>, begun: Instant) {
        const TICK: Duration = Duration::from_millis(100);
        // Less than this may come from reading one clock after the other.
        const JUMP: Time = 0.01;
        let mut ahead = system_ahead(begun);
        loop {
            let before = Instant::now();
            tokio::time::sleep(TICK).await;
            let late = before.elapsed().saturating_sub(TICK).as_millis();
            self.late.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            let Some(now) = system_ahead(begun) else { continue };
            let jump = (now - ahead.replace(now).unwrap_or(now)).abs();
            if jump > JUMP {
                let millis = Duration::from_secs_f64(jump).as_millis();
                self.jumped.fetch_add(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        }
    }
}
