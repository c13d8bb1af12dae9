//! The domain: watches, their runs, what polls change of a run, and the mocks of agents.
//!
//! Everything here is pure. There is no IO, no clock and no runtime: the time is passed in as a
//! [`Timestamp`], the result of a poll as an [`Outcome`], and changes are returned as [`Transition`] values.

mod agent;
mod event;
mod label;
mod named;
mod outcome;
mod run;
#[cfg(test)]
pub(crate) mod sample;
mod shard;
mod standing;
mod state_machine;
mod tally;
mod text;
mod time;
mod watch;

pub use agent::{
    AgentDefinition, AgentKey, AgentSource, AgentTransition, AgentView, Drift, LiveMocks, MockStatus, Provider, ToldBy,
    ToldMocks, should_be,
};
pub use event::{Event, EventKind};
pub use label::{LabelName, Labels};
pub(crate) use named::named_enum;
pub use outcome::{Answer, Failure, Outcome, Reason, ReportedStatus};
pub use run::{FailureStreak, Finish, LastAnswer, RawStatuses, Run, Status};
pub use shard::{Shard, ShardOwners, ShardSet};
pub use standing::Standing;
pub use state_machine::{Toggle, Transition};
pub use tally::{ProblemKind, Tally, ToggleProblem};
pub use text::{Redactions, Text};
pub use time::{ClockJump, Timestamp};
pub use watch::{AgentId, ApiName, Expect, ProgressId, Source, Watch, WatchName};
