//! The Pushgateway, which keeps what it was pushed.

use std::fmt::Write as _;
use std::net::SocketAddr;

use reqwest::Client;

use crate::harness::{Daemon, Failure, Program};

pub(crate) const PROGRAM: Program =
    Program { name: "prometheus-pushgateway", package: "prometheus-pushgateway", ready: "/-/ready" };

/// Groups that are pushed, of a thousand series each.
const GROUPS: u32 = 100;

/// Toggles in each group.
const TOGGLES: u32 = 100;

/// The metrics of each. With `job` and `instance`, which it puts there itself, they have four labels,
/// as most of the exporter's series.
const METRICS: [&str; 10] = [
    "cekura_toggle_info",
    "cekura_toggle_status",
    "cekura_toggle_mock_enabled",
    "cekura_toggle_mock_mismatch",
    "cekura_toggle_mcp_endpoints",
    "cekura_toggle_mcp_tools",
    "cekura_toggle_started_timestamp_seconds",
    "cekura_toggle_up",
    "cekura_toggle_last_success_timestamp_seconds",
    "cekura_toggle_polls_total",
];

pub(crate) struct Pushgateway(Daemon);

// === impl Pushgateway ===

impl Pushgateway {
    /// Starts it, and pushes a hundred thousand series.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Checking each push against all before it would take seconds, and no scrape.
        let daemon = PROGRAM.start(|address, _| {
            let listen = format!("--web.listen-address={address}");
            Ok(vec![listen, "--push.disable-consistency-check".into(), "--log.level=error".into()])
        });
        let daemon = daemon.await?;
        let client = Client::builder().no_proxy().build()?;
        for number in 0..GROUPS {
            let url = format!("http://{}/metrics/job/load-{number:03}", daemon.address);
            client.put(url).body(group(number)).send().await?.error_for_status()?;
        }
        Ok(Self(daemon))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }
}

fn group(number: u32) -> String {
    let mut text = String::new();
    for metric in METRICS {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "# TYPE {metric} gauge");
        for toggle in 0..TOGGLES {
            let toggle = number * TOGGLES + toggle;
            let value = if metric.ends_with("_timestamp_seconds") { "1764018485.123" } else { "1" };
            let _ = writeln!(text, "{metric}{{toggle=\"load-{toggle:05}\",team=\"bookings\"}} {value}");
        }
    }
    text
}
