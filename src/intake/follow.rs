//! Keeping up with the watch files.
//!
//! A look at files can hang for as long as a network volume does, so it is done by a task of its
//! own, and nobody waits for it for long.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::Order;
use crate::sources::{Files, Scan, WatchGlob};
use crate::threads::Thread;
use crate::toggle::ApiName;

/// How often the watch files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a start or a reload waits for a look at the watch files. What comes later is taken over
/// when it comes.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Looks at the watch files again and again.
pub struct FileFollower {
    /// What is looked with next, if that is not begun. A later one takes its place: while a look hangs, no
    /// more than one waits.
    wanted: Arc<Mutex<Option<Wanted>>>,
    /// Tells that there is one.
    told: watch::Sender<()>,
    /// Rescans so far.
    count: AtomicU64,
}

/// A look with other globs or APIs.
#[derive(Debug)]
pub(super) struct Rescan {
    /// Tells its looks from those with globs and APIs of before.
    pub(super) number: u64,
    /// What was found; `None` if looking takes long. Then it comes as an order.
    pub(super) scan: Option<Scan>,
}

/// Other globs or APIs to look with.
struct Wanted {
    globs: Vec<WatchGlob>,
    apis: BTreeSet<ApiName>,
    number: u64,
    scan: oneshot::Sender<Scan>,
}

// === impl FileFollower ===

impl FileFollower {
    /// One that looks at nothing yet. It ends with the receiver of the orders, or when dropped.
    pub(super) fn start(orders: mpsc::Sender<Order>) -> Self {
        let (told, tells) = watch::channel(());
        let wanted = Arc::default();
        tokio::spawn(follow(Arc::clone(&wanted), tells, orders));
        Self { wanted, told, count: AtomicU64::new(0) }
    }

    /// Goes on with these globs and APIs, and waits for the first look with them, but not for long. The
    /// intake takes orders meanwhile: what it is to do waits for no disk that is not its own.
    pub(super) async fn rescan(&self, globs: Vec<WatchGlob>, apis: BTreeSet<ApiName>) -> Rescan {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let (scan, receiver) = oneshot::channel();
        let wanted = || self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted() = Some(Wanted { globs, apis, number, scan });
        if self.told.send(()).is_err() {
            // Who looks is gone, which is only after a panic.
            wanted().take();
        }
        let scan = match tokio::time::timeout(LONGEST_WAIT, receiver).await {
            Ok(Ok(scan)) => Some(scan),
            Ok(Err(_)) => {
                tracing::error!("watch files are no longer followed: restart the exporter");
                None
            }
            Err(_) => {
                tracing::warn!("reading the watch files takes long: they are applied when it is done");
                None
            }
        };
        Rescan { number, scan }
    }
}

async fn follow(wanted: Arc<Mutex<Option<Wanted>>>, mut told: watch::Receiver<()>, orders: mpsc::Sender<Order>) {
    let mut files = Files::new(Vec::new(), BTreeSet::new());
    let mut number = 0;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            told = told.changed() => if told.is_err() {
                return;
            },
            _ = ticks.tick() => {}
        }
        let asked = wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let asked = asked.map(|asked| {
            files.reconfigure(asked.globs, asked.apis);
            number = asked.number;
            asked.scan
        });
        let scan = if files.is_idle() {
            if asked.is_none() {
                continue;
            }
            // Nothing is looked at.
            files.scan()
        } else {
            let thread = Thread::start_patiently("watch-files").await;
            let Ok((looked, scan)) = thread.run(move || look(files)).await else {
                tracing::error!("reading the watch files panicked: they are no longer followed");
                return;
            };
            files = looked;
            scan
        };
        let left = match asked {
            Some(asked) => asked.send(scan).err(),
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
