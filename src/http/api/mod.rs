//! The API: toggles, agents, what happened to them and how all is as JSON, waiting for a run, and what changes
//! something.

pub(crate) mod agents;
pub(crate) mod history;
pub(crate) mod overview;
pub(crate) mod toggles;
pub(crate) mod wait;
pub(crate) mod write;
