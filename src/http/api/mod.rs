//! The JSON API: toggles and their events, agents, the overview, waiting for a run, debug polls, registrations and
//! reloads.

pub(crate) mod agents;
pub(crate) mod debug_poll;
pub(crate) mod history;
pub(crate) mod labels;
pub(crate) mod overview;
pub(crate) mod toggles;
pub(crate) mod wait;
pub(crate) mod write;
