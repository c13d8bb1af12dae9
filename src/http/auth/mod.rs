//! Who may ask: logins by HTTP basic authentication.
//!
//! Verifying a password is slow on purpose, so it is what an attacker makes the exporter do. At
//! most two run at a time. Peers take turns, and of each the newest that waits goes first, so that a
//! flood's backlog does not stand before a good login; and the answers to failed ones are held back, so
//! that a flood that waits for its answers leaves most of what two can do. What was verified is
//! remembered: a scraper's login costs nothing from its second time on.

mod attempts;
mod credentials;
mod pace;
mod recent;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::sync::watch;
use tracing::warn;

use self::attempts::{Attempt, Attempts, VerdictReceiver};
use self::credentials::Credentials;
use self::pace::{AnswerSchedule, Cost, Failures};
use self::recent::{Recent, Tag, TagKey};
use super::responses::answer::{HttpResponse, problem};
use crate::threads::Thread;
use crate::web::Users;

/// Lets in who proves who they are. It lives as long as the process: what it remembers of a
/// password that was changed since is of no use.
pub struct Gate {
    porter: Arc<Porter>,
    /// Whether connections are being ended.
    draining: watch::Receiver<bool>,
}

/// Who asked did not prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied;

/// How a client is asked to log in.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="cekura-exporter", charset="UTF-8""#);

/// How many logins are remembered, of the good and of the bad.
const REMEMBERED: usize = 1024;

/// Whether an attempt is good. It takes its time.
type Verify = Box<dyn Fn(&Attempt) -> bool + Send + Sync>;

/// Verifies what is shown at the gate.
struct Porter {
    verify: Verify,
    key: TagKey,
    notes: Mutex<Notes>,
}

/// What the porter knows.
struct Notes {
    good: Recent,
    bad: Recent,
    attempts: Attempts,
    cost: Cost,
    schedule: AnswerSchedule,
    failures: Failures,
}

/// The verdict on an attempt, for as long as somebody waits for it.
struct Awaited<'a> {
    porter: &'a Porter,
    tag: Tag,
    /// Taken when it is dropped.
    verdict: Option<VerdictReceiver>,
}

// === impl Gate ===

impl Gate {
    /// A gate that remembers nobody. What `draining` tells ends all holding back.
    ///
    /// # Errors
    /// If the machine gives no random bytes.
    pub fn new(draining: watch::Receiver<bool>) -> io::Result<Self> {
        Self::verifying_by(Box::new(Attempt::verify), draining)
    }

    fn verifying_by(verify: Verify, draining: watch::Receiver<bool>) -> io::Result<Self> {
        let notes = Notes {
            good: Recent::of(REMEMBERED),
            bad: Recent::of(REMEMBERED),
            attempts: Attempts::default(),
            cost: Cost::default(),
            schedule: AnswerSchedule::default(),
            failures: Failures::default(),
        };
        let porter = Porter { verify, key: TagKey::random()?, notes: Mutex::new(notes) };
        Ok(Self { porter: Arc::new(porter), draining })
    }

    /// Lets in everybody if there are no users, else those whose headers have the name and the
    /// password of one. Needs a runtime.
    ///
    /// # Errors
    /// For everybody else. It takes the same time for a user that there is not as for a wrong
    /// password, if all passwords cost the same.
    pub async fn admit(&self, users: &Users, headers: &HeaderMap, peer: IpAddr) -> Result<(), Denied> {
        if users.is_empty() {
            return Ok(());
        }
        // Without it nobody tried to log in: browsers ask so at first.
        if !headers.contains_key(AUTHORIZATION) {
            return Err(Denied);
        }
        let Some(credentials) = Credentials::of(headers) else {
            self.note_failure();
            return Err(Denied);
        };
        if self.porter.verdict(peer.to_canonical(), Attempt::new(credentials, users)).await {
            return Ok(());
        }
        self.note_failure();
        self.hold_back().await;
        Err(Denied)
    }

    /// Waits until the answer to a failed login may leave.
    async fn hold_back(&self) {
        let hold = {
            let mut notes = self.porter.notes();
            let cost = notes.cost.typical();
            notes.schedule.hold(Instant::now(), cost)
        };
        if hold.is_zero() {
            return;
        }
        let mut draining = self.draining.clone();
        tokio::select! {
            () = tokio::time::sleep(hold) => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }

    /// Counts a failed login, and logs those that were counted as often as that may be.
    fn note_failure(&self) {
        let Some(wait) = self.porter.notes().failures.note(Instant::now()) else { return };
        let porter = self.porter.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let failures = porter.notes().failures.report(Instant::now());
            warn!(failures, "logins failed");
        });
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

// === impl Denied ===

impl From<Denied> for HttpResponse {
    /// Says the same whatever was wrong.
    fn from(Denied: Denied) -> Self {
        let what = "a login is needed: send a user and the password by HTTP basic authentication";
        let mut answer = problem(StatusCode::UNAUTHORIZED, what);
        answer.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        answer
    }
}

// === impl Porter ===

impl Porter {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an attempt is good: at once if that is remembered.
    async fn verdict(self: &Arc<Self>, peer: IpAddr, attempt: Attempt) -> bool {
        let tag = self.key.tag(&attempt);
        let (mut awaited, starts) = {
            let mut notes = self.notes();
            if notes.good.has(&tag) || notes.bad.has(&tag) {
                return notes.good.has(&tag);
            }
            let (verdict, starts) = notes.attempts.join(peer, tag, attempt);
            (Awaited { porter: self, tag, verdict: Some(verdict) }, starts)
        };
        if starts {
            self.begin();
        }
        awaited.verdict().await
    }

    /// Verifies what waits until nothing does, to its end, whoever has gone meanwhile.
    fn begin(self: &Arc<Self>) {
        let porter = self.clone();
        match Thread::start("login") {
            Ok(thread) => drop(thread.run(move || while porter.verify_next() {})),
            // Where the machine gives no thread, whoever else is served waits for each.
            Err(_) => drop(tokio::spawn(async move {
                while porter.verify_next() {
                    tokio::task::yield_now().await;
                }
            })),
        }
    }

    /// Verifies the next that waits; says whether there was one.
    fn verify_next(&self) -> bool {
        let next = self.notes().attempts.next();
        let Some((tag, attempt)) = next else { return false };
        let began = Instant::now();
        // A panic would take a place along, for ever.
        let good = catch_unwind(AssertUnwindSafe(|| (self.verify)(&attempt))).unwrap_or(false);
        self.settle(tag, good, began.elapsed());
        true
    }

    fn settle(&self, tag: Tag, good: bool, took: Duration) {
        let mut notes = self.notes();
        notes.cost.note(took);
        let remembered = if good { &mut notes.good } else { &mut notes.bad };
        remembered.remember(tag);
        notes.attempts.settle(&tag, good);
    }
}

// === impl Awaited ===

impl Awaited<'_> {
    async fn verdict(&mut self) -> bool {
        let Some(verdict) = &mut self.verdict else { return false };
        // Nobody drops the other end without having told.
        verdict.wait_for(Option::is_some).await.is_ok_and(|verdict| *verdict == Some(true))
    }
}

impl Drop for Awaited<'_> {
    /// What nobody waits for any more need not be verified.
    fn drop(&mut self) {
        if let Some(verdict) = self.verdict.take() {
            self.porter.notes().attempts.leave(&self.tag, verdict);
        }
    }
}
