//! Debug polls: single polls that a person asks for, beside the schedule.
//!
//! Such a poll is a request of the API's budget like any other, and changes nothing that is known of its toggle. It goes
//! before what waits in the queue, but not twice in a row. An API has at most one at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::queue::ApiQueue;
use super::{Poller, events};
use crate::cekura::{Client, TracedPoll};
use crate::toggle::{ApiName, Reason, Watch};

/// How long a debug poll waits for the budget of its API.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Asks the poller for debug polls.
#[derive(Clone)]
pub struct DebugPolls(mpsc::UnboundedSender<DebugPollCommand>);

/// The right to send one request, which the budget of the API has already paid for. It is given back when this is dropped,
/// be it before the request, amid it or after it.
pub struct DebugPollPermit {
    client: Arc<Client>,
    commands: DebugPolls,
    ended: EndedDebugPoll,
}

/// Why there is no debug poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugPollRefusal {
    /// There is already one of this API.
    Busy,
    /// The API asked for a pause, which lasts for so long.
    Paused(Duration),
    /// The budget of the API allowed no request in time.
    OverBudget,
    /// The API is not configured any more.
    NoSuchApi,
    /// The poller stops.
    Stopping,
}

/// What the poller is asked for.
pub(super) enum DebugPollCommand {
    /// A permit for a request to an API.
    Begin(ApiName, PermitReply),
    /// Taking back a permit.
    End(EndedDebugPoll),
}

pub(super) type PermitReply = oneshot::Sender<Result<DebugPollPermit, DebugPollRefusal>>;

/// A debug poll that has ended.
#[derive(Clone)]
pub(super) struct EndedDebugPoll {
    api: ApiName,
    /// The number of the queue that it comes from.
    queue: u64,
    /// The API's [`ApiQueue::route_generation`] when it started.
    route_generation: u64,
    /// `None` if it was cancelled.
    result: Option<RequestResult>,
}

/// What counts of a request.
#[derive(Clone, Copy)]
struct RequestResult {
    failed: Option<Reason>,
    took: Option<Duration>,
    retry_after: Option<Duration>,
}

/// The debug poll of an API, if there is one.
#[derive(Default)]
pub(super) struct DebugPollSlot {
    state: SlotState,
    /// Whether it was a debug poll that started last, and no poll of the queue.
    started_last: bool,
}

#[derive(Default)]
enum SlotState {
    #[default]
    Free,
    Waiting(PermitReply),
    Running,
}

// === impl DebugPolls ===

impl DebugPolls {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<DebugPollCommand>) {
        let (send, receive) = mpsc::unbounded_channel();
        (Self(send), receive)
    }

    /// Waits until the budget of the API allows a request, for at most ten seconds.
    ///
    /// # Errors
    /// Why there is no permit.
    pub async fn permit(&self, api: &ApiName) -> Result<DebugPollPermit, DebugPollRefusal> {
        let (reply, permit) = oneshot::channel();
        self.0.send(DebugPollCommand::Begin(api.clone(), reply)).map_err(|_| DebugPollRefusal::Stopping)?;
        match tokio::time::timeout(MAX_WAIT, permit).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => Err(DebugPollRefusal::Stopping),
            Err(_) => Err(DebugPollRefusal::OverBudget),
        }
    }
}

// === impl DebugPollPermit ===

impl DebugPollPermit {
    /// Polls the task of a watch.
    pub async fn poll(mut self, watch: &Watch) -> TracedPoll {
        let polled = self.client.traced_poll(watch.agent_id, &watch.progress_id).await;
        let failure = polled.outcome.as_ref().err();
        self.ended.result = Some(RequestResult {
            failed: failure.map(|failure| failure.reason),
            took: polled.took,
            retry_after: failure.and_then(|failure| failure.retry_after),
        });
        events::debug_poll_ended(watch, &polled);
        polled
    }
}

impl Drop for DebugPollPermit {
    fn drop(&mut self) {
        // The receiver is gone only while the process stops.
        let _ = self.commands.0.send(DebugPollCommand::End(self.ended.clone()));
    }
}

// === impl DebugPollSlot ===

impl DebugPollSlot {
    /// Adds a debug poll, if there is none.
    fn request(&mut self, reply: PermitReply, paused: Option<Duration>) {
        let is_free = match &self.state {
            SlotState::Free => true,
            // Nobody waits for it any more.
            SlotState::Waiting(reply) => reply.is_closed(),
            SlotState::Running => false,
        };
        match (is_free, paused) {
            (false, _) => drop(reply.send(Err(DebugPollRefusal::Busy))),
            (true, Some(pause)) => drop(reply.send(Err(DebugPollRefusal::Paused(pause)))),
            (true, None) => self.state = SlotState::Waiting(reply),
        }
    }

    /// Whether a debug poll waits.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&self.state, SlotState::Waiting(reply) if !reply.is_closed())
    }

    /// Whether polls of the queue go before the one that waits.
    pub(super) fn yields(&self) -> bool {
        self.started_last
    }

    /// Records that a poll of the queue started.
    pub(super) fn note_other_start(&mut self) {
        self.started_last = false;
    }

    /// Takes the one that waits, which starts now.
    pub(super) fn start(&mut self) -> Option<PermitReply> {
        match std::mem::replace(&mut self.state, SlotState::Running) {
            SlotState::Waiting(reply) => {
                self.started_last = true;
                Some(reply)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Records that the one that runs has ended.
    pub(super) fn end(&mut self) {
        self.state = SlotState::Free;
    }
}

impl Poller {
    /// Begins or ends a debug poll.
    pub(super) fn debug_poll(&mut self, command: DebugPollCommand) {
        let now = Instant::now();
        match command {
            DebugPollCommand::Begin(api, reply) => match self.queues.get_mut(&api) {
                Some(queue) => {
                    let paused = queue.pause(now);
                    queue.debug_poll.request(reply, paused);
                }
                None => drop(reply.send(Err(DebugPollRefusal::NoSuchApi))),
            },
            DebugPollCommand::End(ended) => self.debug_poll_ended(&ended, now),
        }
    }

    fn debug_poll_ended(&mut self, ended: &EndedDebugPoll, now: Instant) {
        let queue = self.queues.get_mut(&ended.api).filter(|queue| queue.number == ended.queue);
        let Some(queue) = queue else { return };
        let retry_after = ended.result.and_then(|result| result.retry_after);
        // Only the upstream that asked for a pause gets one.
        queue.release_debug_poll(retry_after.filter(|_| ended.route_generation == queue.route_generation), now);
        if let Some(RequestResult { failed, took, .. }) = ended.result {
            queue.metrics.count_request(failed, took);
        }
    }
}

/// Starts the debug poll of an API that waits, if the budget allows it.
pub(super) fn start(api: &ApiName, queue: &mut ApiQueue, commands: &DebugPolls, now: Instant) {
    let Some(reply) = queue.start_debug_poll(now) else { return };
    let (number, route_generation) = (queue.number, queue.route_generation);
    let ended = EndedDebugPoll { api: api.clone(), queue: number, route_generation, result: None };
    let permit = DebugPollPermit { client: queue.client.clone(), commands: commands.clone(), ended };
    // If nobody waits any more, the permit is dropped, which gives it back.
    let _ = reply.send(Ok(permit));
}
