//! SIGTERM and SIGINT: the first drains, the second stops at once. SIGHUP reloads.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the process was told to stop, and to reload.
#[derive(Debug, Clone)]
pub struct Signals {
    stops: watch::Receiver<u32>,
    hangups: watch::Receiver<u32>,
}

// === impl Signals ===

impl Signals {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// If the signals cannot be listened to.
    pub fn listen() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (stop, stops) = watch::channel(0);
        let (reload, hangups) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let count = tokio::select! {
                    _ = term.recv() => &stop,
                    _ = int.recv() => &stop,
                    _ = hangup.recv() => &reload,
                };
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { stops, hangups })
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
