//! The upstream: one request in, one outcome out.
//!
//! Only this module knows keys, and only this module decides why a request failed.

mod agents;
mod answer;
mod budget;
mod client;
mod clients;
mod connections;
mod encoding;
mod endpoint;
mod failure;
mod follow;
mod json;
mod key;
mod proxy;
mod response;
mod trace;

pub use agents::{AgentPage, decode_agent_page, decode_mock_status};
pub use answer::{decode, error_detail};
pub use budget::{Budget, Rate};
pub use client::{BuildError, Client, Polled, TracedPoll, USER_AGENT};
pub use clients::{ApiClients, Clients};
pub use endpoint::without_endpoint;
pub use follow::{Renewal, follow_files};
pub use key::{KEY_VARIABLE, KeyFile, KeySource, Keyring, Secret, how_to_give_key};
pub use proxy::{BadProxy, Proxies};
pub use response::retry_after;
pub use trace::{ConnectPhase, RequestPhase, RequestPhases, ResolvePhase, ResolvedHost, TlsPhase};

use std::num::NonZeroU32;
use std::time::Duration;

use url::Url;

use crate::tls::CaBundle;
use crate::toggle::ApiName;

/// One configured API.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Its name in the configuration.
    pub name: ApiName,
    /// Its URL: http or https with a host, with or without a path prefix.
    pub base_url: Url,
    /// The source of its key.
    pub key: KeySource,
    /// Extra root certificates.
    pub ca: Option<CaBundle>,
    /// Bounds one request, from connecting to the last byte.
    pub timeout: Duration,
    /// The maximum number of requests at a time.
    pub max_in_flight: NonZeroU32,
    /// The request budget.
    pub requests_per_second: Rate,
    /// Whether the agents that it lists are asked for their mock status.
    pub discover_agents: bool,
}

// === impl Api ===

impl Api {
    /// Whether one client serves both: they differ in the budget and in discovery at most.
    pub fn has_same_client(&self, other: &Self) -> bool {
        let Self { max_in_flight, requests_per_second, discover_agents, .. } = *other;
        Self { max_in_flight, requests_per_second, discover_agents, ..self.clone() } == *other
    }

    /// Whether both have the same upstream, key and root certificates.
    pub fn has_same_upstream(&self, other: &Self) -> bool {
        self.base_url == other.base_url && self.key == other.key && self.ca == other.ca
    }
}
