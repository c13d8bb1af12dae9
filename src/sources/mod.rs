//! Where watches and agents come from.
//!
//! A watch is defined by the same keys in the configuration, in watch files and in registrations. [`WatchFiles`] reads
//! watch files. [`WatchList`] keeps the definitions of all sources, and decides which of them take effect; [`AgentList`]
//! does so for agents. [`DiscoveredAgents`] keeps the agents that an API listed.

mod agents;
mod definitions;
mod discovered;
mod files;
mod list;
mod watches;

pub use agents::{AgentChange, AgentCounts, AgentEdit, AgentList, AgentOrigin, RefusedAgent};
pub use definitions::{definition, definitions};
pub use discovered::{DiscoveredAgents, ListedAgents};
pub use files::{FileEvent, FileScan, WatchFiles, WatchGlob, share_equal};
pub use list::{Edit, EditResult, Origin, RefusedDefinition, WatchChange, WatchCounts, WatchDefinition, WatchList};
pub use watches::Definitions;
pub(crate) use watches::{agents, watches};
