//! Keeping up with the watch files.
//!
//! A look at files can hang for as long as a network volume does, so it is done by a task of its
//! own, and nobody waits for it for long.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::Order;
use crate::sources::{Files, Scan, WatchGlob};
use crate::toggle::ApiName;

/// How often the watch files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a start or a reload waits for a look at the watch files. What comes later is taken over
/// when it comes.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Looks at the watch files again and again.
pub(super) struct FileFollower {
    rescans: mpsc::UnboundedSender<Rescan>,
    /// Rescans so far.
    count: u64,
}

/// Other globs or APIs.
struct Rescan {
    globs: Vec<WatchGlob>,
    apis: BTreeSet<ApiName>,
    number: u64,
    scan: oneshot::Sender<Scan>,
}

// === impl FileFollower ===

impl FileFollower {
    /// One that looks at nothing yet. It ends with the receiver of the orders, or when dropped.
    pub(super) fn start(orders: mpsc::Sender<Order>) -> Self {
        let (rescans, receiver) = mpsc::unbounded_channel();
        tokio::spawn(follow(receiver, orders));
        Self { rescans, count: 0 }
    }

    /// Goes on with these globs and APIs. `None` if looking takes long; then the result comes as an
    /// order.
    pub(super) async fn rescan(&mut self, globs: Vec<WatchGlob>, apis: BTreeSet<ApiName>) -> Option<Scan> {
        self.count += 1;
        let (scan, receiver) = oneshot::channel();
        // Who looks is gone only after a panic, which the answer tells too.
        let _ = self.rescans.send(Rescan { globs, apis, number: self.count, scan });
        match tokio::time::timeout(LONGEST_WAIT, receiver).await {
            Ok(Ok(scan)) => return Some(scan),
            Ok(Err(_)) => tracing::error!("watch files are not looked at any more: restart the exporter"),
            Err(_) => tracing::warn!("watch files take long to look at: they are taken over when they were"),
        }
        None
    }

    /// Whether a scan is of the globs in force.
    pub(super) fn is_current(&self, number: u64) -> bool {
        self.count == number
    }
}

async fn follow(mut rescans: mpsc::UnboundedReceiver<Rescan>, orders: mpsc::Sender<Order>) {
    let mut files = Files::new(Vec::new(), BTreeSet::new());
    let mut number = 0;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            rescan = rescans.recv() => match rescan {
                Some(rescan) => Some(rescan),
                None => return,
            },
            _ = ticks.tick() => None,
        };
        let wanted = asked.map(|rescan| {
            files.reconfigure(rescan.globs, rescan.apis);
            number = rescan.number;
            rescan.scan
        });
        if files.is_idle() && wanted.is_none() {
            continue;
        }
        let Ok((looked, scan)) = tokio::task::spawn_blocking(move || look(files)).await else {
            tracing::error!("looking at the watch files panicked: they are looked at no more");
            return;
        };
        files = looked;
        let left = match wanted {
            Some(wanted) => wanted.send(scan).err(),
            None => Some(scan),
        };
        if let Some(scan) = left
            && orders.send(Order::Scanned(number, scan)).await.is_err()
        {
            return;
        }
    }
}

fn look(mut files: Files) -> (Files, Scan) {
    let scan = files.scan();
    (files, scan)
}
