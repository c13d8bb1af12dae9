//! The blackbox exporter, which probes when it is asked to.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::harness::{Connection, Cpu, Daemon, Failure, Program};

pub(crate) const PROGRAM: Program =
    Program { name: "prometheus-blackbox-exporter", package: "prometheus-blackbox-exporter", ready: "/-/healthy" };

/// Probes at a time.
const IN_FLIGHT: usize = 64;

const CONFIGURATION: &str = "modules:
  http_2xx: {prober: http, http: {preferred_ip_protocol: ip4}}
";

/// The blackbox exporter. It does nothing unless it is asked to.
pub(crate) struct Blackbox(Daemon);

/// Those who ask it without a pause. Dropping it ends them.
pub(crate) struct Probing {
    asking: JoinSet<Result<(), Failure>>,
    probes: Arc<AtomicU64>,
}

// === impl Blackbox ===

impl Blackbox {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let daemon = PROGRAM.start(|address, folder| {
            let file = folder.join("blackbox.yml");
            fs::write(&file, CONFIGURATION)?;
            let file = format!("--config.file={}", file.display());
            Ok(vec![file, format!("--web.listen-address={address}"), "--log.level=error".into()])
        });
        Ok(Self(daemon.await?))
    }

    pub(crate) fn cpu(&self) -> Result<Cpu, Failure> {
        Cpu::of(self.0.id())
    }

    pub(crate) fn probe(&self, url: &str) -> Probing {
        let (mut asking, probes) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for _ in 0..IN_FLIGHT {
            asking.spawn(ask_on(self.0.address, format!("/probe?module=http_2xx&target={url}"), probes.clone()));
        }
        Probing { asking, probes }
    }
}

/// Asks on one connection until a probe fails.
async fn ask_on(address: SocketAddr, target: String, probes: Arc<AtomicU64>) -> Result<(), Failure> {
    let mut connection = Connection::open(address).await?;
    let mut text = Vec::new();
    loop {
        text.clear();
        let status = connection.get(&target, "", |piece| text.extend_from_slice(piece)).await?;
        if status != 200 || !str::from_utf8(&text)?.lines().any(|line| line == "probe_success 1") {
            return Err("A probe of the blackbox exporter failed.".into());
        }
        probes.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Probing ===

impl Probing {
    /// How many probes succeeded so far. None may have failed.
    pub(crate) fn probes(&mut self) -> Result<u64, Failure> {
        match self.asking.try_join_next() {
            Some(ended) => Err(ended?.err().unwrap_or_else(|| "The probing ended.".into())),
            None => Ok(self.probes.load(Ordering::Relaxed)),
        }
    }
}
