//! The work whose instructions are counted.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cekura_exporter::board::{Board, RunId};
use cekura_exporter::cekura::{decode, decode_mock_status};
use cekura_exporter::exposition::Format;
use cekura_exporter::poller::Schedule;
use cekura_exporter::toggle::{AgentId, Answer, ApiName};

use crate::Failure;
use crate::sample::{STATUS, Sample, TYPICAL, after, encode, hidden};

/// Work whose instructions are counted.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Writing the text of ten thousand series.
    Encoding,
    /// A thousand times what is done about one poll, but for its request: its run is due, its answer is
    /// read and applied, and the next poll is planned.
    Polls,
    /// The same without reading the answer, which is so much that the rest is not seen beside it.
    Applying,
    /// Writing the text of a thousand agents.
    EncodingAgents,
    /// A thousand times reading the mock status of an agent and applying it.
    Asking,
}

/// Runs that are polled one after the other.
struct Polling {
    board: Board,
    schedule: Schedule,
    end: Instant,
}

/// How many polls are counted together, so that none of them matters by itself.
const POLLS: usize = 1000;

/// The time between two polls of a run.
const INTERVAL: Duration = Duration::from_secs(5);

// === impl Work ===

impl Work {
    pub(crate) const ALL: [Self; 5] = [Self::Encoding, Self::Polls, Self::Applying, Self::EncodingAgents, Self::Asking];

    /// As the baseline has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Polls => "polls",
            Self::Applying => "applying",
            Self::EncodingAgents => "encoding_agents",
            Self::Asking => "asking",
        }
    }

    /// As it is told to people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Encoding => "encoding 10,000 series",
            Self::Polls => "processing 1,000 polls",
            Self::Applying => "applying 1,000 answers",
            Self::EncodingAgents => "encoding 1,000 agents",
            Self::Asking => "processing 1,000 mock statuses",
        }
    }

    /// Does the work once, so that all is there that is made only once, and once more so that it is
    /// counted.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Encoding => {
                let snapshot = Sample::of_series(10_000)?.snapshot();
                twice(&mut || {
                    black_box(encode(&snapshot, Format::Text));
                });
            }
            Self::Polls => {
                let mut polling = Polling::new(Sample::of_watches(2 * POLLS)?);
                let answer = || decode(black_box(TYPICAL.as_bytes()), hidden()).ok();
                let mut polled = true;
                twice(&mut || polled &= (0..POLLS).all(|_| polling.poll(answer).is_some()));
                require(polled)?;
            }
            Self::Applying => {
                let mut polling = Polling::new(Sample::of_watches(2 * POLLS)?);
                let mut answers: Vec<_> =
                    (0..2 * POLLS).filter_map(|_| decode(TYPICAL.as_bytes(), hidden()).ok()).collect();
                let mut polled = true;
                twice(&mut || polled &= (0..POLLS).all(|_| polling.poll(|| answers.pop()).is_some()));
                require(polled)?;
            }
            Self::EncodingAgents => {
                let snapshot = Sample::of_agents(POLLS)?.snapshot();
                twice(&mut || {
                    black_box(encode(&snapshot, Format::Text));
                });
            }
            Self::Asking => {
                let sample = Sample::of_agents(POLLS)?;
                let agents: Vec<_> = sample.board.asked_agents(&ApiName::default_api());
                let ask = |agent: AgentId| {
                    let status = decode_mock_status(black_box(STATUS.as_bytes()));
                    status.is_ok_and(|status| sample.ask(&(ApiName::default_api(), agent), status))
                };
                let mut asked = true;
                twice(&mut || asked &= agents.iter().all(|(agent, _)| ask(*agent)));
                require(asked)?;
            }
        }
        Ok(())
    }
}

fn require(polled: bool) -> Result<(), Failure> {
    if polled { Ok(()) } else { Err("A run was not due, or its answer was not read.".into()) }
}

fn twice(work: &mut dyn FnMut()) {
    work();
    only_this_is_counted(work);
}

/// What is called from here is counted, and nothing else is. The name is that of
/// [`callgrind::REGION`](crate::callgrind::REGION).
#[inline(never)]
fn only_this_is_counted(work: &mut dyn FnMut()) {
    work();
    // This is here so that the call is not the last thing done, which could become a jump that leaves.
    black_box(());
}

// === impl Polling ===

impl Polling {
    /// The runs of a sample that are not finished, due one after the other within an interval.
    fn new(sample: Sample) -> Self {
        let Sample { board, runs } = sample;
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let goes_on = |run: &RunId| board.row_of(*run).is_some_and(|row| row.toggle.run.finished.is_none());
        for (millis, run) in (0..).zip(runs.into_iter().filter(goes_on)) {
            schedule.plan(start + Duration::from_millis(millis), run);
        }
        Self { board, schedule, end: start + Duration::from_hours(24) }
    }

    /// What is done about one poll, if there is one.
    fn poll(&mut self, answer: impl FnOnce() -> Option<Answer>) -> Option<()> {
        let (due, run) = self.schedule.pop_due(self.end)?;
        black_box(self.board.apply(run, Ok(answer()?), after(60), |_| Some(after(65))));
        self.schedule.plan(due + INTERVAL, run);
        Some(())
    }
}
