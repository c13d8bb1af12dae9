//! The upstream: one poll in, one [`Outcome`](crate::toggle::Outcome) out.
//!
//! Keys live here and nowhere else. Why a request failed is decided here and nowhere else.

mod answer;
mod budget;
mod client;
mod clients;
mod connections;
mod encoding;
mod fault;
mod follow;
mod key;
mod proxy;
mod resolve;
mod tls;

pub use answer::{decode, error_detail};
pub use budget::{Budget, Rate};
pub use client::{BuildError, Client, Polled, USER_AGENT, retry_after, without_endpoint};
pub use clients::{ApiClients, Clients};
pub use follow::{Renewal, follow_files};
pub use key::{KeyFile, KeySource, Keyring, Secret};
pub use proxy::{BadProxy, Proxies};
pub use tls::CaBundle;

use std::num::NonZeroU32;
use std::time::Duration;

use url::Url;

use crate::toggle::ApiName;

/// One configured API.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Its name in the configuration.
    pub name: ApiName,
    /// Where it is: http or https with a host, with or without a path prefix.
    pub base_url: Url,
    /// Where its key comes from.
    pub key: KeySource,
    /// Extra root certificates.
    pub ca: Option<CaBundle>,
    /// The most that one request may take, from connecting to the last byte.
    pub timeout: Duration,
    /// The most requests at a time.
    pub max_in_flight: NonZeroU32,
    /// The request budget.
    pub requests_per_second: Rate,
}

// === impl Api ===

impl Api {
    /// Whether one client serves both: only the budget may differ.
    pub fn is_asked_like(&self, other: &Self) -> bool {
        let (max_in_flight, requests_per_second) = (other.max_in_flight, other.requests_per_second);
        Self { max_in_flight, requests_per_second, ..self.clone() } == *other
    }

    /// Whether both lead to the same upstream with the same key.
    pub fn is_reached_like(&self, other: &Self) -> bool {
        self.base_url == other.base_url && self.key == other.key && self.ca == other.ca
    }
}
