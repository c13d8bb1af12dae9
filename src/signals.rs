//! SIGTERM and SIGINT: the first drains, the second stops at once. SIGHUP, which would end the
//! process, is left without effect.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the process was told to stop.
#[derive(Debug, Clone)]
pub struct StopSignals(watch::Receiver<u32>);

// === impl StopSignals ===

impl StopSignals {
    /// Listens from now on. Needs a runtime.
    ///
    /// # Errors
    /// If the signals cannot be listened to.
    pub fn listen() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = hangup.recv() => {
                        tracing::warn!("SIGHUP has no effect: the configuration is read at the start only");
                        continue;
                    }
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(counted))
    }

    /// Resolves when the process was told `times` times to stop.
    pub async fn told(mut self, times: u32) {
        if self.0.wait_for(|count| *count >= times).await.is_err() {
            // The listening task ends with the runtime only.
            std::future::pending::<()>().await;
        }
    }
}
