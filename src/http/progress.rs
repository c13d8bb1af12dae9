//! By when a connection must have got further.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long a request's header may take to arrive, from its first byte; the first one from the
/// start of the connection.
pub(super) const HEADER: Duration = Duration::from_secs(10);

/// How long a connection may be without a request. Prometheus scrapes every minute or more often.
/// The beginning of a request that came together with the one before it counts as nothing.
const IDLE: Duration = Duration::from_mins(2);

/// How long an answer may take until all of it is handed to the system or waits in a small buffer.
const SENDING: Duration = Duration::from_mins(2);

/// How long a request may take to be answered, whatever it is. Waiting for a run takes ten minutes at
/// most.
const ANSWERING: Duration = Duration::from_mins(11);

/// How long a client may take nothing of what is there for it.
pub(super) const STALL: Duration = Duration::from_secs(30);

/// How far a connection is.
#[derive(Debug)]
pub(super) struct Progress(Mutex<ConnectionState>);

#[derive(Debug)]
struct ConnectionState {
    phase: Phase,
    /// Since when there is something to write that the client does not take.
    stalled: Option<Instant>,
}

/// What a connection is at, and until when it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived yet.
    Fresh(Instant),
    /// A header arrives.
    Header(Instant),
    /// Between requests.
    Idle(Instant),
    /// A request is being answered. How long that may take, its route says too.
    Answering(Instant),
    /// The answer is on its way.
    Sending(Instant),
}

/// A stream that notes what comes and goes.
pub(super) struct Noted<S> {
    stream: S,
    progress: Arc<Progress>,
}

/// An answer that is being sent, until it is dropped.
pub(crate) struct Sending(Arc<Progress>);

// === impl Progress ===

impl Progress {
    /// A connection that began now.
    pub(super) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(ConnectionState { phase: Phase::Fresh(now + HEADER), stalled: None })))
    }

    /// When it must have got further.
    pub(super) fn deadline(&self) -> Instant {
        let ConnectionState { phase, stalled } = &*self.state();
        let (Phase::Fresh(until)
        | Phase::Header(until)
        | Phase::Idle(until)
        | Phase::Answering(until)
        | Phase::Sending(until)) = phase;
        stalled.map_or(*until, |since| (since + STALL).min(*until))
    }

    /// Whether nothing has arrived yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.state().phase, Phase::Fresh(_))
    }

    /// Whether all that was asked for was answered, and taken.
    pub(super) fn is_idle(&self) -> bool {
        matches!(*self.state(), ConnectionState { phase: Phase::Idle(_), stalled: None })
    }

    /// The header of a request is there.
    pub(super) fn request(&self, now: Instant) {
        self.state().phase = Phase::Answering(now + ANSWERING);
    }

    /// There is an answer to send.
    pub(super) fn answer(self: &Arc<Self>, now: Instant) -> Sending {
        self.state().phase = Phase::Sending(now + SENDING);
        Sending(self.clone())
    }

    /// The answer was sent, as far as it will be. Meanwhile the next request may be there.
    fn idle(&self, now: Instant) {
        let phase = &mut self.state().phase;
        if matches!(phase, Phase::Sending(_)) {
            *phase = Phase::Idle(now + IDLE);
        }
    }

    fn received(&self, now: Instant) {
        let phase = &mut self.state().phase;
        match *phase {
            Phase::Fresh(until) => *phase = Phase::Header(until),
            Phase::Idle(_) => *phase = Phase::Header(now + HEADER),
            Phase::Header(_) | Phase::Answering(_) | Phase::Sending(_) => {}
        }
    }

    fn sent(&self, now: Instant, all: bool) {
        let stalled = &mut self.state().stalled;
        *stalled = if all { None } else { Some(stalled.unwrap_or(now)) };
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        // Nothing that is done under the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sending ===

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.idle(Instant::now());
    }
}

// === impl Noted ===

impl<S> Noted<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }

    fn wrote<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.progress.sent(Instant::now(), polled.is_ready());
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.progress.received(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wrote(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_first_header_has_ten_seconds_from_the_start_whatever_arrives_of_it() {
        let start = Instant::now();
        let progress = Progress::new(start);
        assert!(progress.is_fresh());
        progress.received(start + seconds(9));
        assert!(!progress.is_fresh());
        assert_eq!(progress.deadline(), start + seconds(10));
    }

    #[test]
    fn a_kept_connection_may_be_idle_for_two_minutes_and_a_later_header_has_ten_seconds() {
        let start = Instant::now();
        let progress = Progress::new(start);
        progress.request(start);
        assert_eq!(progress.deadline(), start + seconds(660), "longer than any route takes");
        let sending = progress.answer(start);
        progress.idle(start);
        assert!(progress.is_idle());
        assert_eq!(progress.deadline(), start + seconds(120));
        progress.received(start + seconds(60));
        progress.received(start + seconds(65));
        assert_eq!(progress.deadline(), start + seconds(70));
        progress.request(start + seconds(66));
        drop(sending);
        assert_eq!(progress.deadline(), start + seconds(726), "the end of an answer is not that of the next");
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_a_little_too_later() {
        let start = Instant::now();
        let progress = Progress::new(start);
        progress.request(start);
        let sending = progress.answer(start);
        progress.sent(start, true);
        assert_eq!(progress.deadline(), start + seconds(120));
        progress.sent(start + seconds(1), false);
        progress.sent(start + seconds(5), false);
        assert_eq!(progress.deadline(), start + seconds(31));
        progress.sent(start + seconds(30), true);
        progress.sent(start + seconds(31), false);
        assert_eq!(progress.deadline(), start + seconds(61));
        progress.sent(start + seconds(100), false);
        progress.sent(start + seconds(101), true);
        assert_eq!(progress.deadline(), start + seconds(120), "the whole answer has its own deadline");
        drop(sending);
    }
}
