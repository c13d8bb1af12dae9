//! Programs that serve HTTP on a port that they are told.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::exporter::keep_text;

/// A program that serves HTTP on loopback. Dropping it kills it.
pub(super) struct Server {
    name: String,
    child: Child,
    errors: Arc<Mutex<String>>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What its paths begin with. No other has it, so nobody else is taken for it.
    pub(super) prefix: String,
    http: reqwest::Client,
    _folder: TempDir,
}

/// What a server is started with.
pub(super) struct Place<'a> {
    /// An empty folder, which is its working directory.
    pub(super) folder: &'a Path,
    pub(super) address: SocketAddr,
    pub(super) prefix: &'a str,
}

// === impl Server ===

impl Server {
    /// Starts a program with these arguments, and waits until it says at the path `/-/ready` that it is.
    pub(super) async fn start(program: PathBuf, args: impl Fn(&Place) -> Vec<String>) -> Self {
        loop {
            let mut server = Self::spawn(&program, &args);
            if server.serves().await {
                return server;
            }
        }
    }

    /// It cannot be told to take any free port, so it gets one that was free a moment ago.
    fn spawn(program: &Path, args: impl Fn(&Place) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let prefix = format!("/{}", folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(program)
            .env_clear()
            .args(args(&Place { folder: folder.path(), address, prefix: &prefix }))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        keep_text(child.stderr.take().unwrap(), errors.clone());
        // It may be there already: the tests of one process share it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        Self { name, child, errors, address, prefix, http, _folder: folder }
    }

    /// Waits until it serves; false if its port was taken meanwhile.
    async fn serves(&mut self) -> bool {
        let ended = eventually(&format!("{} serves", self.name), async || {
            if self.http.get(self.url("/-/ready")).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Some(false);
            }
            self.child.try_wait().unwrap().map(|_| true)
        })
        .await;
        if ended {
            eventually(&format!("{} says that its port is taken", self.name), async || {
                self.errors.lock().unwrap().contains("address already in use").then_some(())
            })
            .await;
        }
        !ended
    }

    /// The URL of a path of its own.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.address, self.prefix)
    }

    /// The JSON that it answers; none while it does not answer.
    pub(super) async fn get(&self, path: &str) -> Option<Value> {
        let response = self.http.get(self.url(path)).send().await.ok()?;
        serde_json::from_str(&response.text().await.ok()?).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.errors.lock().unwrap());
        }
    }
}
