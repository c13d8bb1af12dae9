//! Signals: the first SIGTERM or SIGINT drains, the second stops at once, and SIGHUP reloads.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::tasks;

/// A stop signal that comes this soon after the first one is a repetition: `timeout` and process groups deliver one
/// twice within a millisecond.
const REPETITION: Duration = Duration::from_secs(1);

/// A signal that is caught. It is kept until [`Signals::listen`] receives it.
#[derive(Debug)]
pub struct CaughtSignal(Signal);

/// The number of signals to stop and to reload so far.
#[derive(Debug, Clone)]
pub struct Signals {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

/// Counts the signals to stop, without repetitions.
#[derive(Debug, Default)]
struct StopCounter {
    stops: watch::Sender<u32>,
    first: Option<Instant>,
}

/// Catches a signal from now on, so that it does not end the process. Needs no runtime and starts no thread.
///
/// A signal that comes before `main` still ends the process, because exec resets handlers and only unsafe code could
/// run before `main`.
///
/// # Errors
/// If the signal cannot be caught.
pub fn catch(kind: SignalKind) -> io::Result<CaughtSignal> {
    // The handler belongs to the process and outlives this runtime, which never runs. Signals wait in a pipe that
    // every later runtime reads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    signal(kind).map(CaughtSignal)
}

// === impl Signals ===

impl Signals {
    /// Listens for SIGHUP and for the two signals to stop. Needs a runtime.
    pub fn listen(hangup: CaughtSignal, [term, int]: [CaughtSignal; 2]) -> Self {
        let (CaughtSignal(mut hangup), CaughtSignal(mut term), CaughtSignal(mut int)) = (hangup, term, int);
        let (reload, hangups) = watch::channel(0);
        let mut counter = StopCounter::default();
        let stops = counter.stops.subscribe();
        tasks::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => counter.count(Instant::now()),
                    _ = int.recv() => counter.count(Instant::now()),
                    _ = hangup.recv() => reload.send_modify(|count| *count += 1),
                }
            }
        });
        Self { stops, hangups }
    }

    /// Counts the signals to reload.
    pub fn hangups(&self) -> watch::Receiver<u32> {
        self.hangups.clone()
    }

    /// Resolves after `times` signals to stop.
    pub async fn stopped(mut self, times: u32) {
        if self.stops.wait_for(|count| *count >= times).await.is_err() {
            // The task that listens ends only with the runtime.
            std::future::pending::<()>().await;
        }
    }
}

// === impl StopCounter ===

impl StopCounter {
    /// Counts a signal that comes `now`, unless it repeats the first one.
    fn count(&mut self, now: Instant) {
        if self.first.is_some_and(|first| now.duration_since(first) < REPETITION) {
            return;
        }
        self.first.get_or_insert(now);
        self.stops.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_before_the_runtime_starts_is_received_by_it() {
        let CaughtSignal(mut caught) = catch(SignalKind::user_defined2()).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let received = async { tokio::time::timeout(Duration::from_mins(1), caught.recv()).await };
        assert_eq!(runtime.block_on(received).unwrap(), Some(()));
    }

    #[test]
    fn a_stop_signal_within_a_second_of_the_first_does_not_count() {
        let start = Instant::now();
        let mut counter = StopCounter::default();
        for (millis, count) in [(0, 1), (1, 1), (999, 1), (1000, 2), (1001, 3)] {
            counter.count(start + Duration::from_millis(millis));
            assert_eq!(*counter.stops.borrow(), count, "after {millis} ms");
        }
    }
}
