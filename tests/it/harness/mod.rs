//! What the tests drive: the exporter as a process, a scripted upstream, and real scrapers, Alertmanager and
//! PostgreSQL.

mod alertmanager;
mod authority;
mod client;
mod clock;
mod curl;
mod exporter;
mod exposition;
mod fixtures;
pub(crate) mod markdown;
mod monitoring;
mod port;
mod postgres;
mod proxy;
mod recorder;
mod server;
mod tls_upstream;
mod tool;
mod upstream;

pub(crate) use alertmanager::{Alertmanager, Webhook};
pub(crate) use authority::{Authority, FAR, Pair};
pub(crate) use client::Client;
pub(crate) use clock::{by_clock, set_clock};
pub(crate) use curl::curl;
pub(crate) use exporter::{Exporter, Start, TLS, has_ipv6, run, run_through, run_with_sockets};
pub(crate) use exposition::Exposition;
pub(crate) use fixtures::{comments, fixtures, lines};
pub(crate) use monitoring::{Monitoring, Scraper};
pub(crate) use port::ReservedPort;
pub(crate) use postgres::{Postgres, postgres_programs, psql};
pub(crate) use proxy::Proxy;
pub(crate) use recorder::Recorder;
pub(crate) use tls_upstream::TlsUpstream;
pub(crate) use tool::{newest_tool, tool};
pub(crate) use upstream::Upstream;

use std::time::{Duration, Instant};

/// A key that must never show.
pub(crate) const KEY: &str = "sk-test-key-73";

/// How long a condition may take to come true. Far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `probe` yields something, and returns it.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "it never came true that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
