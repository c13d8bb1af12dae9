//! Following the watch files.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::IntakeCommand;
use crate::follow::{CheckError, CheckRequester, CheckRequests, Follower, check_requests};
use crate::sources::{FileScan, WatchFiles, WatchGlob};
use crate::tasks;
use crate::toggle::ApiName;

/// Scans the watch files at intervals, and sends what it finds as [`IntakeCommand::Scanned`].
pub struct FileFollower {
    rescans: CheckRequester<FileSelection, FileScan>,
    /// The number of the latest selection.
    latest: AtomicU64,
}

/// The first scan with a new selection of files.
#[derive(Debug)]
pub(super) struct Rescan {
    /// Numbers the selection. Scans with an earlier one are out of date.
    pub(super) number: u64,
    /// `None` if the scan takes long. Then the result follows as a command.
    pub(super) scan: Option<FileScan>,
}

/// Which files are scanned, and which APIs their watches may name.
struct FileSelection {
    globs: Vec<WatchGlob>,
    apis: BTreeSet<ApiName>,
    number: u64,
}

// === impl FileFollower ===

impl FileFollower {
    /// A follower without files. It ends when it is dropped, or when nobody receives its commands.
    pub(super) fn start(commands: mpsc::Sender<IntakeCommand>) -> Self {
        let (rescans, requests) = check_requests();
        tasks::spawn(follow(requests, commands));
        Self { rescans, latest: AtomicU64::new(0) }
    }

    /// Selects other globs and APIs, and waits for the first scan with them, but not for long.
    pub(super) async fn rescan(&self, globs: Vec<WatchGlob>, apis: BTreeSet<ApiName>) -> Rescan {
        let number = self.latest.fetch_add(1, Ordering::Relaxed) + 1;
        let scan = self.rescans.request(FileSelection { globs, apis, number }).await;
        match scan {
            Ok(_) => {}
            Err(CheckError::Ended) => tracing::error!("watch files are no longer followed: restart the exporter"),
            Err(CheckError::TimedOut) => {
                tracing::warn!("reading the watch files takes long: they are applied when it is done");
            }
        }
        Rescan { number, scan: scan.ok() }
    }
}

async fn follow(mut rescans: CheckRequests<FileSelection, FileScan>, commands: mpsc::Sender<IntakeCommand>) {
    let mut follower = Follower::new("watch-files", WatchFiles::new(Vec::new(), BTreeSet::new()));
    let mut number = 0;
    loop {
        let rescan = tokio::select! {
            rescan = rescans.next() => match rescan {
                Some(rescan) => Some(rescan),
                None => return,
            },
            () = follower.tick() => None,
        };
        let (selection, reply) = rescan.unzip();
        if let (Some(selection), Some(files)) = (selection, follower.state()) {
            files.reconfigure(selection.globs, selection.apis);
            number = selection.number;
        }
        let scanned = match follower.state() {
            Some(files) if files.is_idle() && reply.is_none() => continue,
            // Nothing is read, so this needs no thread.
            Some(files) if files.is_idle() => Ok(files.scan()),
            _ => follower.check(WatchFiles::scan).await,
        };
        let Ok(scan) = scanned else {
            tracing::error!("reading the watch files panicked: they are no longer followed");
            return;
        };
        // The requester may have stopped waiting.
        let unsent = match reply {
            Some(reply) => reply.send(scan).err(),
            None => Some(scan),
        };
        if let Some(scan) = unsent
            && commands.send(IntakeCommand::Scanned(number, scan)).await.is_err()
        {
            return;
        }
    }
}
