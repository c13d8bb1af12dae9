//! The progress of a connection, and the deadline of each step.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a request's header may take to arrive, from its first byte. That of the first request counts from the
/// start of the connection.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be without a request. Prometheus scrapes every minute or more often.
/// The beginning of a request that arrived together with the previous one does not count.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a response may take until all of it was given to the system or is in a small buffer.
const SENDING_TIMEOUT: Duration = Duration::from_mins(2);

/// How long handling a request may take, on any route. Waiting for a run takes up to ten minutes.
const HANDLING_TIMEOUT: Duration = Duration::from_mins(11);

/// How long a client may read nothing while there is something to read.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The progress of a connection. The stream, the service and the response's body report it.
#[derive(Debug)]
pub(super) struct ConnectionProgress {
    state: Mutex<ConnectionState>,
    evicted: Notify,
}

#[derive(Debug)]
struct ConnectionState {
    phase: Phase,
    /// Since when the client has not read what was sent.
    stalled_since: Option<Instant>,
}

/// A step of a connection, and its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived yet.
    Fresh(Instant),
    /// A header is arriving.
    Header(Instant),
    /// Between requests.
    Idle(Instant),
    /// A request is being handled. Its route may limit that further.
    Handling(Instant),
    /// The response is being sent.
    Sending(Instant),
}

/// A stream that reports what is received and sent.
pub(super) struct ProgressStream<S> {
    stream: S,
    progress: Arc<ConnectionProgress>,
}

/// Held by a response while it is sent. Dropping it ends the response.
pub(crate) struct SendingGuard(Arc<ConnectionProgress>);

// === impl ConnectionProgress ===

impl ConnectionProgress {
    /// The progress of a connection that begins now.
    pub(super) fn new(now: Instant) -> Arc<Self> {
        let state = ConnectionState { phase: Phase::Fresh(now + HEADER_TIMEOUT), stalled_since: None };
        Arc::new(Self { state: Mutex::new(state), evicted: Notify::new() })
    }

    /// The deadline of the current step.
    pub(super) fn deadline(&self) -> Instant {
        let ConnectionState { phase, stalled_since } = &*self.state();
        let (Phase::Fresh(until)
        | Phase::Header(until)
        | Phase::Idle(until)
        | Phase::Handling(until)
        | Phase::Sending(until)) = phase;
        stalled_since.map_or(*until, |since| (since + STALL_TIMEOUT).min(*until))
    }

    /// Whether nothing has arrived yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.state().phase, Phase::Fresh(_))
    }

    /// Whether every request has its response, and the client has read all of them.
    pub(super) fn is_idle(&self) -> bool {
        matches!(*self.state(), ConnectionState { phase: Phase::Idle(_), stalled_since: None })
    }

    /// Asks the connection, which is idle, to end in favour of another.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Resolves when the connection was asked to end.
    pub(super) async fn wait_until_evicted(&self) {
        self.evicted.notified().await;
    }

    /// The header of a request has arrived.
    pub(super) fn begin_request(&self, now: Instant) {
        self.state().phase = Phase::Handling(now + HANDLING_TIMEOUT);
    }

    /// Records that a response is ready to be sent.
    pub(super) fn begin_response(self: &Arc<Self>, now: Instant) -> SendingGuard {
        self.state().phase = Phase::Sending(now + SENDING_TIMEOUT);
        SendingGuard(self.clone())
    }

    /// The response was sent or given up. The next request may have arrived meanwhile.
    fn end_response(&self, now: Instant) {
        let phase = &mut self.state().phase;
        if matches!(phase, Phase::Sending(_)) {
            *phase = Phase::Idle(now + IDLE_TIMEOUT);
        }
    }

    fn record_received(&self, now: Instant) {
        let phase = &mut self.state().phase;
        match *phase {
            Phase::Fresh(until) => *phase = Phase::Header(until),
            Phase::Idle(_) => *phase = Phase::Header(now + HEADER_TIMEOUT),
            Phase::Header(_) | Phase::Handling(_) | Phase::Sending(_) => {}
        }
    }

    fn record_sent(&self, now: Instant, all: bool) {
        let stalled_since = &mut self.state().stalled_since;
        *stalled_since = if all { None } else { Some(stalled_since.unwrap_or(now)) };
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        // Nothing that is done under the lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SendingGuard ===

impl Drop for SendingGuard {
    fn drop(&mut self) {
        self.0.end_response(Instant::now());
    }
}

// === impl ProgressStream ===

impl<S> ProgressStream<S> {
    pub(super) fn new(stream: S, progress: Arc<ConnectionProgress>) -> Self {
        Self { stream, progress }
    }

    fn record_write<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.progress.record_sent(Instant::now(), polled.is_ready());
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ProgressStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.progress.record_received(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ProgressStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.record_write(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.record_write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.record_write(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.record_write(polled)
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
        let progress = ConnectionProgress::new(start);
        assert!(progress.is_fresh());
        progress.record_received(start + seconds(9));
        assert!(!progress.is_fresh());
        assert_eq!(progress.deadline(), start + seconds(10));
    }

    #[test]
    fn a_kept_connection_may_be_idle_for_two_minutes_and_a_later_header_has_ten_seconds() {
        let start = Instant::now();
        let progress = ConnectionProgress::new(start);
        progress.begin_request(start);
        assert_eq!(progress.deadline(), start + seconds(660), "longer than any route takes");
        let sending = progress.begin_response(start);
        progress.end_response(start);
        assert!(progress.is_idle());
        assert_eq!(progress.deadline(), start + seconds(120));
        progress.record_received(start + seconds(60));
        progress.record_received(start + seconds(65));
        assert_eq!(progress.deadline(), start + seconds(70));
        progress.begin_request(start + seconds(66));
        drop(sending);
        assert_eq!(progress.deadline(), start + seconds(726), "the end of a response is not that of the next");
    }

    #[test]
    fn a_client_that_reads_nothing_is_given_up_and_so_is_one_that_reads_little_later() {
        let start = Instant::now();
        let progress = ConnectionProgress::new(start);
        progress.begin_request(start);
        let sending = progress.begin_response(start);
        progress.record_sent(start, true);
        assert_eq!(progress.deadline(), start + seconds(120));
        progress.record_sent(start + seconds(1), false);
        progress.record_sent(start + seconds(5), false);
        assert_eq!(progress.deadline(), start + seconds(31));
        progress.record_sent(start + seconds(30), true);
        progress.record_sent(start + seconds(31), false);
        assert_eq!(progress.deadline(), start + seconds(61));
        progress.record_sent(start + seconds(100), false);
        progress.record_sent(start + seconds(101), true);
        assert_eq!(progress.deadline(), start + seconds(120), "the whole response has its own deadline");
        drop(sending);
    }
}
