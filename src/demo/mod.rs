//! A simulated Cekura API: what `--demo` polls, and what the tests poll.
//!
//! [`simulator`] answers requests as a script says, and [`fault`] has wrong answers. [`tasks`] and [`agents`] are scripts
//! that follow the specification of the API, and [`api`] puts them together. [`scenario`] has the watches and agents of
//! the demo, in which new runs begin by themselves.

pub mod agents;
pub mod api;
pub mod fault;
pub mod scenario;
pub mod simulator;
pub mod tasks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Service;
use crate::cekura::Proxies;
use api::SimulatedApi;
use scenario::Scenario;
use simulator::Simulator;

/// Starts the simulated API on a free loopback port, and a watch list and agents against it. All of it lives as long
/// as the runtime.
///
/// # Errors
/// If no loopback port is free.
pub async fn start(telemetry_path: String, hangups: watch::Receiver<u32>) -> io::Result<Service> {
    let api = Arc::new(SimulatedApi::default());
    let answering = api.clone();
    let simulator = Simulator::start(move |request| answering.answer(request)).await?;
    let scenario = Scenario::new(api, simulator.address());
    let config = scenario.config().map_err(io::Error::other)?;
    let demo_watches = Some(scenario.live(simulator).map_err(io::Error::other)?);
    let (load, followed, web, proxies, flags) = (None, None, None, Proxies::default(), Vec::new());
    Ok(Service { config, demo_watches, load, followed, web, hangups, telemetry_path, proxies, flags })
}

/// The line for a person at a terminal: which addresses to open.
pub fn welcome(listening: SocketAddr, encrypted: bool, telemetry_path: &str) -> String {
    let host = if listening.ip().is_unspecified() { "localhost".to_owned() } else { bracketed(listening) };
    let scheme = if encrypted { "https" } else { "http" };
    let site = format!("{scheme}://{host}:{}", listening.port());
    format!("demo: open {site}/ or {site}{telemetry_path} or {site}/api/v1/toggles")
}

fn bracketed(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}
