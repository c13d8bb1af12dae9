//! SIGTERM and SIGINT: the first drains, the second stops at once. SIGHUP reloads.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// For so long after the first stop signal, another one is the same: `timeout` and process groups deliver
/// one twice within a millisecond.
const SAME_STOP: Duration = Duration::from_secs(1);

/// A signal that is caught, and kept until [`Signals::listen`] hears of it.
#[derive(Debug)]
pub struct Caught(Signal);

/// How often the process was told to stop, and to reload.
#[derive(Debug, Clone)]
pub struct Signals {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

/// Counts the signals to stop.
#[derive(Debug, Default)]
struct Stops {
    count: watch::Sender<u32>,
    first: Option<Instant>,
}

/// Catches a signal from now on, so that it does not end the process. Needs no runtime and starts no thread.
///
/// A signal that comes before `main` still ends the process: exec resets handlers, and nothing can be done
/// before `main` without unsafe code.
///
/// # Errors
/// If the signal cannot be caught.
pub fn catch(kind: SignalKind) -> io::Result<Caught> {
    // The handler belongs to the process and outlives this runtime, which never runs. What was caught waits
    // in a pipe that every later runtime reads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    signal(kind).map(Caught)
}

// === impl Signals ===

impl Signals {
    /// Listens to what was caught: SIGHUP, and the signals to stop. Needs a runtime.
    pub fn listen(Caught(mut hangup): Caught, [Caught(mut term), Caught(mut int)]: [Caught; 2]) -> Self {
        let (reload, hangups) = watch::channel(0);
        let mut stops = Stops::default();
        let told = stops.count.subscribe();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => stops.hear(Instant::now()),
                    _ = int.recv() => stops.hear(Instant::now()),
                    _ = hangup.recv() => reload.send_modify(|count| *count += 1),
                }
            }
        });
        Self { stops: told, hangups }
    }

    /// Counts the signals to reload.
    pub fn hangups(&self) -> watch::Receiver<u32> {
        self.hangups.clone()
    }

    /// Resolves when the process was told `times` times to stop.
    pub async fn told(mut self, times: u32) {
        if self.stops.wait_for(|count| *count >= times).await.is_err() {
            // The listening task ends with the runtime only.
            std::future::pending::<()>().await;
        }
    }
}

// === impl Stops ===

impl Stops {
    /// Counts a signal that came now, unless it is the first one again.
    fn hear(&mut self, now: Instant) {
        if self.first.is_some_and(|first| now.duration_since(first) < SAME_STOP) {
            return;
        }
        self.first.get_or_insert(now);
        self.count.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_comes_before_there_is_a_runtime_is_heard_by_it() {
        let Caught(mut caught) = catch(SignalKind::user_defined2()).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let heard = async { tokio::time::timeout(Duration::from_mins(1), caught.recv()).await };
        assert_eq!(runtime.block_on(heard).unwrap(), Some(()));
    }

    #[test]
    fn a_stop_signal_within_a_second_of_the_first_is_the_same_one() {
        let start = Instant::now();
        let mut stops = Stops::default();
        for (millis, told) in [(0, 1), (1, 1), (999, 1), (1000, 2), (1001, 3)] {
            stops.hear(start + Duration::from_millis(millis));
            assert_eq!(*stops.count.borrow(), told, "after {millis} ms");
        }
    }
}
