//! Threads for work that blocks, on machines that may refuse new threads.
//!
//! The blocking pool of the runtime panics when a thread is refused, or queues work for a thread that may
//! never be free. Here a refusal is an error, which the caller gets before the work starts. Work that must
//! not depend on a new thread runs on a [`Worker`], whose thread exists from the start.

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

/// The pause before another attempt to start a thread.
const RETRY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits for one piece of work.
#[derive(Debug)]
pub struct Thread {
    job: Sender<Job>,
}

/// A thread that exists from the start. While it is busy, new work runs on new threads, or waits for it if
/// the machine refuses those.
#[derive(Debug)]
pub struct Worker {
    name: String,
    jobs: Sender<Job>,
    /// The number of jobs that were sent and have not ended.
    unfinished: Arc<AtomicUsize>,
}

/// Waits for work on another thread. Dropping it does not stop the work.
#[derive(Debug)]
pub struct BlockingTask<T> {
    done: oneshot::Receiver<Result<T, Panicked>>,
}

/// The work panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Why work on a new thread has no result.
#[derive(Debug)]
pub enum ThreadError {
    /// The machine refused a thread. The work did not start.
    Refused(io::Error),
    /// The work panicked.
    Panicked,
}

/// Runs `work` on a new thread.
///
/// # Errors
/// If a thread is refused, or the work panics.
pub async fn try_run<T>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ThreadError>
where
    T: Send + 'static,
{
    let thread = Thread::start(name).map_err(ThreadError::Refused)?;
    thread.run(work).await.map_err(|Panicked| ThreadError::Panicked)
}

/// Runs `work` on a new thread. If a thread is refused, this is logged once and tried again every second.
///
/// # Errors
/// If the work panics.
pub async fn run<T>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked>
where
    T: Send + 'static,
{
    let mut is_logged = false;
    loop {
        match Thread::start(name) {
            Ok(thread) => return thread.run(work).await,
            Err(error) if !is_logged => {
                is_logged = true;
                tracing::warn!(name, %error, "no thread could be started: trying again every second");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Starts a thread that the process cannot run without. The system may still count a thread that has just
/// ended, so this fails only if threads are refused for a second.
///
/// # Errors
/// If threads are refused.
pub async fn start_with_retry<T>(start: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..20 {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY / 20).await,
            started => return started,
        }
    }
    start()
}

/// Runs `start`, which may panic if a thread is refused. If it does, writes the reason to standard error and
/// exits with code 1, because a library that has started only some of its threads would wait for ever.
pub fn start_or_exit<T>(start: impl FnOnce() -> T) -> T {
    let hook = take_hook();
    set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or_default();
        // Standard error may be closed.
        let _ = writeln!(io::stderr(), "threads could not be started: raise the limit of processes: {what}");
        #[expect(clippy::disallowed_methods, reason = "nothing is served yet that would have to be drained")]
        std::process::exit(1);
    }));
    let started = start();
    set_hook(hook);
    started
}

// === impl Thread ===

impl Thread {
    /// Starts a thread of this name, of which the system shows 15 bytes.
    ///
    /// # Errors
    /// If the thread is refused.
    pub fn start(name: &str) -> io::Result<Self> {
        let (job, given) = channel::<Job>();
        Builder::new().name(name.to_owned()).spawn(move || {
            // There is no job if the handle was dropped.
            if let Ok(job) = given.recv() {
                job();
            }
        })?;
        Ok(Self { job })
    }

    /// Runs `work` on the thread.
    pub fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> BlockingTask<T> {
        let (job, task) = BlockingTask::new(work);
        // The thread waits for it.
        let _ = self.job.send(job);
        task
    }
}

// === impl Worker ===

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread is refused.
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        Builder::new().name(name.to_owned()).spawn(move || queue.into_iter().for_each(|job| job()))?;
        Ok(Self { name: name.to_owned(), jobs, unfinished: Arc::default() })
    }

    /// Runs `work`.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> BlockingTask<T> {
        let is_busy = self.unfinished.fetch_add(1, Ordering::Relaxed) > 0;
        if is_busy && let Ok(thread) = Thread::start(&self.name) {
            self.unfinished.fetch_sub(1, Ordering::Relaxed);
            return thread.run(work);
        }
        let (job, task) = BlockingTask::new(work);
        let unfinished = self.unfinished.clone();
        // The thread lives as long as this handle.
        let _ = self.jobs.send(Box::new(move || {
            job();
            unfinished.fetch_sub(1, Ordering::Relaxed);
        }));
        task
    }
}

// === impl BlockingTask ===

impl<T: Send + 'static> BlockingTask<T> {
    /// The job for the thread, and the task that waits for it.
    fn new(work: impl FnOnce() -> T + Send + 'static) -> (Job, Self) {
        let (reply, done) = oneshot::channel();
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked);
            // The task may have been dropped.
            let _ = reply.send(result);
        };
        (Box::new(job), Self { done })
    }
}

impl<T> Future for BlockingTask<T> {
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

impl fmt::Display for ThreadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "no thread could be started for it: {error}"),
            Self::Panicked => Panicked.fmt(f),
        }
    }
}

impl Error for ThreadError {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_runs_on_a_new_thread_and_its_panic_is_an_error() {
        assert_eq!(try_run("works", || 7).await.unwrap(), 7);
        let panics = try_run("panics", || -> u32 { panic!("within") }).await;
        assert!(matches!(panics, Err(ThreadError::Panicked)));
    }

    #[tokio::test]
    async fn a_worker_runs_all_of_its_work_even_after_a_panic() {
        let worker = Worker::start("worker").unwrap();
        for i in 0..9 {
            let work = worker.run(move || if i == 3 { panic!("within") } else { i });
            assert_eq!(work.await, if i == 3 { Err(Panicked) } else { Ok(i) });
        }
    }

    #[tokio::test]
    async fn work_for_a_busy_worker_runs_on_another_thread() {
        let worker = Worker::start("worker").unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let busy = worker.run(move || gate.recv());
        assert_eq!(worker.run(|| 1).await, Ok(1));
        go.send(()).unwrap();
        assert_eq!(busy.await, Ok(Ok(())));
    }

    #[tokio::test]
    async fn work_is_done_even_if_its_task_is_dropped() {
        let (done, is_done) = mpsc::channel();
        drop(Worker::start("worker").unwrap().run(move || done.send(())));
        assert_eq!(is_done.recv(), Ok(()));
    }
}
