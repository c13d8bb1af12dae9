//! Threads for what blocks, and what happens where the machine gives none.
//!
//! The runtime's own pool for this panics where a thread is refused, or lets work wait for a thread that
//! may never be free. Here a refusal is an error that the caller gets before it hands anything over, and
//! work that must never depend on a new thread is done by a [`Worker`] one.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::oneshot;

/// How soon it is tried again to start a thread.
const RETRY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits for the one thing that it is for.
#[derive(Debug)]
pub struct Thread {
    job: Sender<Job>,
}

/// A thread that is there from the start. What it is given while it is busy is done by others beside it, or
/// waits for it where the machine gives no others.
#[derive(Debug)]
pub struct Worker {
    name: String,
    jobs: Sender<Job>,
    /// What it is given and has not done.
    given: Arc<AtomicUsize>,
}

/// What comes of work on another thread. Dropping it does not stop the work.
#[derive(Debug)]
pub struct Work<T> {
    done: oneshot::Receiver<Result<T, Panicked>>,
}

/// The work panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Why work on a thread of its own brought nothing.
#[derive(Debug)]
pub enum Lost {
    /// The machine gave no thread.
    Refused(io::Error),
    /// The work panicked.
    Panicked,
}

/// Does `work` on a thread of its own.
///
/// # Errors
/// If there is no thread to be had, or the work panics.
pub async fn apart<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
    let thread = Thread::start(name).map_err(Lost::Refused)?;
    thread.run(work).await.map_err(|Panicked| Lost::Panicked)
}

/// Starts a thread that the process cannot do without. A thread whose work is done may count for a moment
/// yet, so a refusal is believed only when it has lasted for a second.
///
/// # Errors
/// If there is none to be had.
pub async fn required<T>(start: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..20 {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY / 20).await,
            started => return started,
        }
    }
    start()
}

/// Runs `start`, which may panic if no thread can be created. Then says why on standard error and ends the
/// process with 1: a library that is started by half would wait for ever.
pub fn start_or_exit<T>(start: impl FnOnce() -> T) -> T {
    let hook = take_hook();
    set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or_default();
        // If nobody reads it, there is nobody to tell.
        let _ = writeln!(io::stderr(), "threads could not be started: raise the limit of processes: {what}");
        #[expect(clippy::disallowed_methods, reason = "nothing serves yet that would be drained")]
        std::process::exit(1);
    }));
    let started = start();
    set_hook(hook);
    started
}

// === impl Thread ===

impl Thread {
    /// Starts one of this name, of which the system shows 15 bytes.
    ///
    /// # Errors
    /// If the machine gives none.
    pub fn start(name: &str) -> io::Result<Self> {
        let (job, given) = channel::<Job>();
        Builder::new().name(name.to_owned()).spawn(move || {
            // Nothing comes if what was to be done is not to be done any more.
            if let Ok(job) = given.recv() {
                job();
            }
        })?;
        Ok(Self { job })
    }

    /// Starts one of this name as soon as the machine gives one, and says once that it gives none.
    pub async fn start_patiently(name: &str) -> Self {
        let mut said = false;
        loop {
            match Self::start(name) {
                Ok(thread) => return thread,
                Err(error) if !said => {
                    said = true;
                    tracing::warn!(name, %error, "no thread could be started: it is tried again");
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Does `work` on it, at once.
    pub fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        let (job, work) = Work::of(work);
        // It waits for it.
        let _ = self.job.send(job);
        work
    }
}

// === impl Worker ===

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// If the machine gives none.
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, waiting) = channel::<Job>();
        Builder::new().name(name.to_owned()).spawn(move || waiting.into_iter().for_each(|job| job()))?;
        Ok(Self { name: name.to_owned(), jobs, given: Arc::default() })
    }

    /// Does `work`.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        let is_busy = self.given.fetch_add(1, Ordering::Relaxed) > 0;
        if is_busy && let Ok(thread) = Thread::start(&self.name) {
            self.given.fetch_sub(1, Ordering::Relaxed);
            return thread.run(work);
        }
        let (job, work) = Work::of(work);
        let given = self.given.clone();
        // It is there as long as this is.
        let _ = self.jobs.send(Box::new(move || {
            job();
            given.fetch_sub(1, Ordering::Relaxed);
        }));
        work
    }
}

// === impl Work ===

impl<T: Send + 'static> Work<T> {
    /// What is to be done, and what will come of it.
    fn of(work: impl FnOnce() -> T + Send + 'static) -> (Job, Self) {
        let (tell, done) = oneshot::channel();
        let job = move || {
            let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
            // Whoever waited may have gone.
            let _ = tell.send(done);
        };
        (Box::new(job), Self { done })
    }
}

impl<T> Future for Work<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.done).poll(context).map(|done| done.unwrap_or(Err(Panicked)))
    }
}

// === Errors ===

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it panicked")
    }
}

impl Error for Panicked {}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "no thread could be started for it: {error}"),
            Self::Panicked => Panicked.fmt(f),
        }
    }
}

impl Error for Lost {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_is_done_apart_and_a_panic_of_it_is_an_error() {
        assert_eq!(apart("works", || 7).await.unwrap(), 7);
        let panics = apart("panics", || -> u32 { panic!("within") }).await;
        assert!(matches!(panics, Err(Lost::Panicked)));
    }

    #[tokio::test]
    async fn a_standing_thread_does_all_that_it_is_given_also_after_a_panic() {
        let standing = Worker::start("standing").unwrap();
        for i in 0..9 {
            let work = standing.run(move || if i == 3 { panic!("within") } else { i });
            assert_eq!(work.await, if i == 3 { Err(Panicked) } else { Ok(i) });
        }
    }

    #[tokio::test]
    async fn what_it_is_given_while_it_is_busy_is_done_beside_it() {
        let standing = Worker::start("standing").unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let busy = standing.run(move || gate.recv());
        assert_eq!(standing.run(|| 1).await, Ok(1));
        go.send(()).unwrap();
        assert_eq!(busy.await, Ok(Ok(())));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_done_all_the_same() {
        let (done, is_done) = mpsc::channel();
        drop(Worker::start("standing").unwrap().run(move || done.send(())));
        assert_eq!(is_done.recv(), Ok(()));
    }
}
