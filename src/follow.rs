//! Following files: they are checked every two seconds, and at once on request.
//!
//! A check can hang for as long as a network volume does. So it runs on a thread of its own, and a request
//! gives up on it after a while.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};

use crate::threads::{self, Panicked};

/// The time between two checks.
const INTERVAL: Duration = Duration::from_secs(2);

/// The longest that a request waits for its check.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);

/// Checks files at intervals. Owns the state that the checks use.
pub(crate) struct Follower<S> {
    thread_name: &'static str,
    ticks: Interval,
    /// `None` while a check runs, and for ever after a check that panicked.
    state: Option<S>,
}

/// Requests checks. While a check runs, only the latest request waits: it replaces an earlier one.
#[derive(Debug)]
pub(crate) struct CheckRequester<Q, A> {
    pending: PendingRequest<Q, A>,
    /// Tells the follower that a request is pending. Closed when the follower has ended.
    notify: watch::Sender<()>,
}

/// The requests of a [`CheckRequester`], as the follower receives them.
#[derive(Debug)]
pub(crate) struct CheckRequests<Q, A> {
    pending: PendingRequest<Q, A>,
    notified: watch::Receiver<()>,
}

/// A request, and where its result goes.
pub(crate) type CheckRequest<Q, A> = (Q, oneshot::Sender<A>);

type PendingRequest<Q, A> = Arc<Mutex<Option<CheckRequest<Q, A>>>>;

/// Why a request got no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckError {
    /// The follower has ended, which it does only if a check panics.
    Ended,
    /// The check took longer than [`MAX_WAIT`], or a later request replaced this one.
    TimedOut,
}

/// A requester and its requests.
pub(crate) fn check_requests<Q, A>() -> (CheckRequester<Q, A>, CheckRequests<Q, A>) {
    let (notify, notified) = watch::channel(());
    let pending = PendingRequest::default();
    (CheckRequester { pending: pending.clone(), notify }, CheckRequests { pending, notified })
}

// === impl Follower ===

impl<S: Send + 'static> Follower<S> {
    /// A follower that runs its checks on threads of this name. The first tick comes at once.
    pub(crate) fn new(thread_name: &'static str, state: S) -> Self {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { thread_name, ticks, state: Some(state) }
    }

    /// Waits until the next check is due.
    pub(crate) async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    /// The state that the checks use.
    pub(crate) fn state(&mut self) -> Option<&mut S> {
        self.state.as_mut()
    }

    /// Runs a check, as soon as there is a thread for it.
    ///
    /// # Errors
    /// If this check or an earlier one panicked. The state is lost then.
    pub(crate) async fn check<T>(&mut self, check: impl FnOnce(&mut S) -> T + Send + 'static) -> Result<T, Panicked>
    where
        T: Send + 'static,
    {
        let mut state = self.state.take().ok_or(Panicked)?;
        let (state, result) = threads::run(self.thread_name, move || {
            let result = check(&mut state);
            (state, result)
        })
        .await?;
        self.state = Some(state);
        Ok(result)
    }
}

// === impl CheckRequester ===

impl<Q, A> CheckRequester<Q, A> {
    /// Requests a check and waits for its result.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub(crate) async fn request(&self, request: Q) -> Result<A, CheckError> {
        let (reply, result) = oneshot::channel();
        let put = |request| *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = request;
        put(Some((request, reply)));
        if self.notify.send(()).is_err() {
            put(None);
        }
        match tokio::time::timeout(MAX_WAIT, result).await {
            Ok(Ok(result)) => Ok(result),
            // Its reply was dropped: by a later request, or because nobody is left to reply.
            Ok(Err(_)) if self.notify.is_closed() => Err(CheckError::Ended),
            Ok(Err(_)) | Err(_) => Err(CheckError::TimedOut),
        }
    }
}

// === impl CheckRequests ===

impl<Q, A> CheckRequests<Q, A> {
    /// Waits for the next request; `None` when the requester was dropped. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<CheckRequest<Q, A>> {
        loop {
            self.notified.changed().await.ok()?;
            let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
            if pending.is_some() {
                return pending;
            }
        }
    }
}

impl<Q, A> Drop for CheckRequests<Q, A> {
    fn drop(&mut self) {
        // Nobody will reply to it.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

// === impl CheckError ===

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("is not followed any more: restart the exporter"),
            Self::TimedOut => write!(f, "took longer than {MAX_WAIT:?} to be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_changes_the_state_and_the_next_one_sees_it() {
        let mut follower = Follower::new("check", 1);
        follower.tick().await;
        assert_eq!(follower.check(|state| std::mem::replace(state, 2)).await, Ok(1));
        assert_eq!(follower.check(|state| *state).await, Ok(2));
        assert_eq!(follower.state(), Some(&mut 2));
    }

    #[tokio::test]
    async fn a_follower_ends_with_a_check_that_panics() {
        let mut follower = Follower::new("check", ());
        assert_eq!(follower.check(|()| panic!("within")).await, Err::<(), _>(Panicked));
        assert_eq!(follower.check(|()| ()).await, Err(Panicked));
    }

    #[tokio::test]
    async fn a_request_gets_the_result_of_its_own_check() {
        let (requester, mut requests) = check_requests();
        let replies = async {
            while let Some((request, reply)) = requests.next().await {
                let _ = reply.send(request + 1);
            }
        };
        let asks = async {
            assert_eq!(requester.request(1).await, Ok(2));
            assert_eq!(requester.request(2).await, Ok(3));
        };
        tokio::select! {
            () = replies => panic!("the requester is there"),
            () = asks => {}
        }
    }

    #[tokio::test]
    async fn a_later_request_replaces_one_that_waits() {
        let (requester, mut requests) = check_requests::<u8, ()>();
        let (first, second, ()) = tokio::join!(requester.request(1), requester.request(2), async {
            let (request, reply) = requests.next().await.unwrap();
            assert_eq!(request, 2);
            let _ = reply.send(());
        });
        assert_eq!((first, second), (Err(CheckError::TimedOut), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_does_not_wait_for_a_check_that_hangs() {
        let (requester, mut requests) = check_requests::<(), ()>();
        let hangs = async {
            let _request = requests.next().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = hangs => {}
            result = requester.request(()) => assert_eq!(result, Err(CheckError::TimedOut)),
        }
    }

    #[tokio::test]
    async fn a_request_ends_with_the_follower() {
        let (requester, requests) = check_requests::<(), ()>();
        drop(requests);
        assert_eq!(requester.request(()).await, Err(CheckError::Ended));
    }

    #[tokio::test]
    async fn the_requests_end_with_the_requester() {
        let (requester, mut requests) = check_requests::<(), ()>();
        drop(requester);
        assert!(requests.next().await.is_none());
    }
}
