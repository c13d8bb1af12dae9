//! A simulated Cekura API: what `--demo` polls, and what the tests poll.
//!
//! [`simulator`] answers requests as a script says, and [`fault`] has wrong answers. [`tasks`] is a script that follows
//! the specification of the API. [`scenario`] is the watch list of the demo, in which new runs begin by themselves.

pub mod agents;
pub mod fault;
pub mod scenario;
pub mod simulator;
pub mod tasks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::watch;

use crate::Service;
use crate::cekura::Proxies;
use scenario::Scenario;
use simulator::{Request, Simulator};
use tasks::Tasks;

/// Starts the simulated API on a free loopback port and a watch list against it. Both live as long
/// as the runtime.
///
/// # Errors
/// If no loopback port is free.
pub async fn start(telemetry_path: String, hangups: watch::Receiver<u32>) -> io::Result<Service> {
    let tasks = Arc::new(Tasks::new(scenario::KEY));
    let (answering, flaky_requests) = (tasks.clone(), AtomicU32::new(0));
    let script = move |request: &Request| {
        scenario::flaky_reply(request, &flaky_requests).unwrap_or_else(|| answering.answer(request))
    };
    let simulator = Simulator::start(script).await?;
    let scenario = Scenario::new(tasks, simulator.address());
    let config = scenario.config().map_err(io::Error::other)?;
    let demo_watches = Some(scenario.live(simulator).map_err(io::Error::other)?);
    Ok(Service { config, demo_watches, load: None, web: None, hangups, telemetry_path, proxies: Proxies::default() })
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
