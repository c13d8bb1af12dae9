//! A board as it is in use, for the benches that measure single parts and for the tests that count
//! what these do. What is counted holds for exactly this board.

use std::sync::Arc;
use std::time::Duration;

use cekura_exporter::board::{Board, RunId};
use cekura_exporter::cekura::{decode, decode_mock_status};
use cekura_exporter::exposition::{Encoder, Format, Snapshot};
use cekura_exporter::sources::{AgentChange, WatchChange};
use cekura_exporter::toggle::{
    AgentDefinition, AgentId, AgentKey, AgentSource, ApiName, Expect, Failure, LabelName, Labels, LiveMocks,
    MockStatus, Outcome, ProgressId, Reason, Redactions, Source, Timestamp, Watch, WatchName,
};

/// The key that is cut out of answers.
pub(crate) fn hidden() -> Redactions {
    Redactions::default().key("sk-5f2b8c1d9e3a4f60")
}

/// An answer that says no more than it must.
pub(crate) const SMALL: &str =
    r#"{"status":"in_progress","mock_enabled":null,"mcp_endpoints":[],"message":null,"error":null}"#;

/// An answer that says all that it can, of a run that goes on.
pub(crate) const TYPICAL: &str = r#"{"status":"in_progress","mock_enabled":null,"mcp_endpoints":[{"mock_index":0,"url":"https://mock.invalid/mcp/7f3a9c2e/0","tool_names":["check_availability","create_booking","cancel_booking"]},{"mock_index":1,"url":"https://mock.invalid/mcp/7f3a9c2e/1","tool_names":["find_customer","send_confirmation"]}],"message":"Registered 2 of 3 endpoints, the last one at https://mock.invalid/mcp/7f3a9c2e/1","error":"The server of the third endpoint did not answer in time; it is tried again."}"#;

/// A mock status that says all that it can.
pub(crate) const STATUS: &str = r#"{"mock_enabled":true,"provider":"vapi","assistant_id":"0b7d4a52-8d1c-4f0e-9f8e-0c9f5f1d2a3b","mcp_endpoints":[{"mock_index":0,"url":"https://mock.invalid/mcp/7f3a9c2e/0","tool_names":["check_availability","create_booking"]}],"tool_endpoints":[{"tool_name":"find_customer","url":"https://mock.invalid/tool/7f3a9c2e/1"}]}"#;

/// When the runs were first watched.
const STARTED: Timestamp = Timestamp::from_millis(1_790_000_000_005);

/// What became of the runs, again and again.
const FATES: [Fate; 12] = [
    Fate::Completed { expect: Some(Expect::Enabled) },
    Fate::GoesOn,
    Fate::Completed { expect: None },
    Fate::Failed,
    Fate::GoesOn,
    Fate::Completed { expect: None },
    Fate::Completed { expect: None },
    Fate::Waits,
    Fate::GoesOn,
    Fate::Completed { expect: Some(Expect::Enabled) },
    Fate::DoesNotAnswer,
    Fate::Completed { expect: None },
];

/// The series that there are of so many watches, those of their agents included.
const SERIES: usize = 200;

/// Watches in every state, each of an agent of its own.
pub(crate) struct Sample {
    pub(crate) board: Board,
    /// The runs in the order of their watches' names.
    pub(crate) runs: Vec<RunId>,
}

#[derive(Clone, Copy)]
enum Fate {
    /// Was not polled yet.
    Waits,
    GoesOn,
    /// Answered once, and then no more.
    DoesNotAnswer,
    Completed {
        expect: Option<Expect>,
    },
    Failed,
}

// === impl Sample ===

impl Sample {
    /// So many watches.
    ///
    /// # Errors
    /// If the exporter takes no such watch or answer any more.
    pub(crate) fn of_watches(watches: usize) -> Result<Self, String> {
        let fates = || FATES.into_iter().cycle().take(watches);
        let named = (0..).zip(fates()).map(|(number, fate)| Ok(begins(watch(number, fate)?)));
        let board = Board::default();
        let begun = board.update(&named.collect::<Result<Vec<_>, String>>()?, STARTED).started;
        let runs: Vec<_> = begun.into_iter().map(|begun| begun.run).collect();
        for (run, fate) in runs.iter().zip(fates()) {
            for (outcome, seconds) in fate.outcomes()?.into_iter().zip([3, 17]) {
                board.apply(*run, outcome, after(seconds), |run| run.finished.is_none().then(|| after(seconds + 5)));
            }
        }
        Ok(Self { board, runs })
    }

    /// As many watches as have exactly so many series, which must be a multiple of two hundred.
    ///
    /// # Errors
    /// If the exporter takes no such watch or answer any more, or makes more or less of them.
    pub(crate) fn of_series(series: usize) -> Result<Self, String> {
        let sample = Self::of_watches(series / SERIES * FATES.len())?;
        let snapshot = sample.snapshot();
        let mut encoder = Encoder::new(&snapshot, Format::Text);
        let text = std::iter::from_fn(|| encoder.next_chunk(&snapshot)).collect::<Vec<_>>().concat();
        let counted = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        match counted.count() {
            counted if counted == series => Ok(sample),
            counted => Err(format!("the sample has {counted} series and not {series}: adapt SERIES and FATES")),
        }
    }

    /// So many agents that were asked once, and no watch.
    ///
    /// # Errors
    /// If the exporter takes no such agent or answer any more.
    pub(crate) fn of_agents(agents: usize) -> Result<Self, String> {
        let sample = Self { board: Board::default(), runs: Vec::new() };
        let definitions = (0..agents).map(agent).collect::<Result<Vec<_>, String>>()?;
        let listed = |definition: &AgentDefinition| AgentChange {
            key: definition.key(),
            definition: Some(Arc::new(definition.clone())),
        };
        sample.board.update_agents(&definitions.iter().map(listed).collect::<Vec<_>>(), STARTED);
        for definition in definitions {
            let status = decode_mock_status(STATUS.as_bytes()).map_err(|failure| format!("{failure:?}"))?;
            sample.ask(&definition.key(), status);
        }
        Ok(sample)
    }

    /// Applies the answer of an agent, and returns whether it is one of the board.
    pub(crate) fn ask(&self, agent: &AgentKey, status: MockStatus) -> bool {
        let mut applied = false;
        let next_poll = |_: &LiveMocks| {
            applied = true;
            after(120)
        };
        self.board.apply_to_agent(agent, Ok(status), after(60), after(61), next_poll);
        applied
    }

    /// What a scrape exposes, but for what is kept of APIs and of the process, which is the same for
    /// any number of watches.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.board.rows(), self.board.agents(STARTED), vec![], vec![])
    }
}

/// So many seconds after the runs were first watched.
pub(crate) fn after(seconds: u64) -> Timestamp {
    STARTED.after(Duration::from_secs(seconds))
}

/// What a poll brings that was answered so.
///
/// # Errors
/// If that is no answer any more.
pub(crate) fn answered(body: &str) -> Result<Outcome, String> {
    let answer = decode(body.as_bytes(), hidden()).map_err(|failure| format!("{failure:?}"))?;
    Ok(Ok(answer))
}

/// What a poll brings that was answered so, but that the run completed and mocks are on.
///
/// # Errors
/// If that is no answer any more.
pub(crate) fn completed(body: &str) -> Result<Outcome, String> {
    answered(&body.replace("in_progress", "completed").replace(r#""mock_enabled":null"#, r#""mock_enabled":true"#))
}

/// Reads a snapshot to its end, a chunk after the other, as a scrape does. Returns the chunks and the
/// bytes.
pub(crate) fn encode(snapshot: &Snapshot, format: Format) -> (usize, usize) {
    let mut encoder = Encoder::new(snapshot, format);
    let (mut chunks, mut bytes) = (0, 0);
    while let Some(chunk) = encoder.next_chunk(snapshot) {
        chunks += 1;
        bytes += std::hint::black_box(chunk).len();
    }
    (chunks, bytes)
}

/// What puts a run in the place of the one that is watched under this number, another run each time
/// that `times` is another number.
///
/// # Errors
/// If the exporter takes no such watch any more.
pub(crate) fn replaced(number: usize, times: usize) -> Result<WatchChange, String> {
    let progress_id = ProgressId::parse(&format!("0b7d4a52-{times:04}-4f0e-9f8e-{number:012}"))?;
    Ok(begins(Watch { progress_id, ..watch(number, Fate::GoesOn)? }))
}

fn begins(watch: Watch) -> WatchChange {
    WatchChange { name: watch.name.clone(), definition: Some(Arc::new(watch).into()), may_come_back: false }
}

fn watch(number: usize, fate: Fate) -> Result<Watch, String> {
    Ok(Watch {
        name: WatchName::parse(&format!("bookings-{number:06}"))?,
        api: ApiName::default_api(),
        agent_id: AgentId::parse(&(number + 1).to_string())?,
        progress_id: ProgressId::parse(&format!("6f0c1f6e-8d1c-4f0e-9f8e-{number:012}"))?,
        expect: fate.expect(),
        labels: Labels::from([(LabelName::parse("team")?, "bookings".into())]),
        source: Source::Config,
    })
}

fn agent(number: usize) -> Result<AgentDefinition, String> {
    Ok(AgentDefinition {
        api: ApiName::default_api(),
        agent_id: AgentId::parse(&(number + 1).to_string())?,
        expect: Some(Expect::Enabled),
        labels: Labels::from([(LabelName::parse("team")?, "bookings".into())]),
        source: AgentSource::Config,
        provider: None,
    })
}

// === impl Fate ===

impl Fate {
    fn expect(self) -> Option<Expect> {
        match self {
            Self::Completed { expect } => expect,
            Self::Waits | Self::GoesOn | Self::DoesNotAnswer | Self::Failed => None,
        }
    }

    /// What the polls of a run brought.
    fn outcomes(self) -> Result<Vec<Outcome>, String> {
        let goes_on = || answered(SMALL);
        Ok(match self {
            Self::Waits => vec![],
            Self::GoesOn => vec![goes_on()?],
            Self::DoesNotAnswer => vec![goes_on()?, Err(Failure::new(Reason::Timeout))],
            Self::Completed { .. } => vec![goes_on()?, completed(TYPICAL)?],
            Self::Failed => vec![goes_on()?, answered(&SMALL.replace("in_progress", "failed"))?],
        })
    }
}
