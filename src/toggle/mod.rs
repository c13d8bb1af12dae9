//! The domain: what a watch is, what a run of it went through, what its agent's mocks are.
//!
//! Everything here is pure. There is no IO, no clock and no runtime: time comes in as a
//! [`Timestamp`], an answer comes in as an [`Outcome`], and what happened goes out as
//! [`Transition`] values.

mod agent;
mod event;
mod label;
mod outcome;
mod run;
#[cfg(test)]
pub(crate) mod sample;
mod slot;
mod standing;
mod text;
mod time;
mod watch;

pub use agent::{AgentDefinition, AgentMock, AgentMockParts, ToldBy};
pub use event::{Event, EventKind};
pub use label::{LabelName, Labels};
pub use outcome::{Answer, Failure, Outcome, Reason, ReportedStatus};
pub use run::{FailureStreak, Finish, LastAnswer, RawStatuses, Run, Status};
pub use slot::{ProblemKind, Tally, Toggle, ToggleProblem, Transition};
pub use standing::Standing;
pub use text::{Redactions, Text};
pub use time::{ClockJump, Timestamp};
pub use watch::{AgentId, ApiName, Expect, ProgressId, Source, Watch, WatchName};
