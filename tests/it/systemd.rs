//! Run by systemd: what it is told, and the listeners that it hands over.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;

use crate::harness::{Exporter, run, run_with_sockets};

const EMPTY: &str = "watches: []\n";

/// The end of systemd's socket.
struct Systemd {
    name: String,
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
}

impl Systemd {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { name: path.to_str().unwrap().to_owned(), socket, _folder: folder }
    }

    fn at_an_abstract_name() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        let socket = unix::UnixDatagram::bind_addr(&unix::SocketAddr::from_abstract_name(name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { name: format!("@{name}"), socket: UnixDatagram::from_std(socket).unwrap(), _folder: folder }
    }

    /// The next message.
    async fn hears(&self) -> String {
        let mut message = vec![0; 4096];
        let receiving = self.socket.recv(&mut message);
        let length = tokio::time::timeout(Duration::from_mins(1), receiving).await.expect("it is told").unwrap();
        message.truncate(length);
        String::from_utf8(message).unwrap()
    }

    /// Hears that a reload began, and no sooner than `before`.
    async fn hears_of_a_reload(&self, before: u64) {
        let message = self.hears().await;
        let (reloading, usec) = message.split_once('\n').unwrap();
        let (name, usec) = usec.split_once('=').unwrap();
        assert_eq!((reloading, name), ("RELOADING=1", "MONOTONIC_USEC"));
        let usec: u64 = usec.parse().unwrap();
        assert!((before..=monotonic_usec()).contains(&usec), "{usec} is before {before} or to come");
    }
}

fn monotonic_usec() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}

#[tokio::test]
async fn it_is_told_when_the_exporter_serves_reloads_and_stops() {
    for systemd in [Systemd::at_a_path(), Systemd::at_an_abstract_name()] {
        let mut exporter = Exporter::with(EMPTY).env("NOTIFY_SOCKET", &systemd.name).start().await;
        assert_eq!(systemd.hears().await, "READY=1");
        assert_eq!(exporter.get("/-/ready").await.0, 200);
        let before = monotonic_usec();
        exporter.signal(Signal::HUP);
        systemd.hears_of_a_reload(before).await;
        assert_eq!(systemd.hears().await, "READY=1");
        for (config, status) in [(EMPTY, 200), ("watches: [", 500)] {
            exporter.reconfigure(config);
            let before = monotonic_usec();
            assert_eq!(exporter.reload().await.0, status);
            systemd.hears_of_a_reload(before).await;
            assert_eq!(systemd.hears().await, "READY=1", "after {status}");
        }
        exporter.signal(Signal::TERM);
        assert_eq!(systemd.hears().await, "STOPPING=1");
        assert_eq!(exporter.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_reload_whose_client_has_gone_is_ended_too() {
    let systemd = Systemd::at_a_path();
    let exporter = Exporter::with(EMPTY).env("NOTIFY_SOCKET", &systemd.name).start().await;
    assert_eq!(systemd.hears().await, "READY=1");
    let file = exporter.folder().join("config.yaml");
    std::fs::remove_file(&file).unwrap();
    // Nobody writes to it, so that reading it takes its time.
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    tokio::select! {
        _ = exporter.reload() => panic!("it was answered before"),
        () = systemd.hears_of_a_reload(0) => {}
    }
    assert_eq!(systemd.hears().await, "READY=1");
}

#[tokio::test]
async fn its_watchdog_is_fed_if_it_watches_this_process() {
    let systemd = Systemd::at_a_path();
    let watched = |pid: &str| {
        let through = format!("WATCHDOG_PID={pid} exec \"$@\"");
        let start = Exporter::with(EMPTY).through(&["/bin/sh", "-c", &through, "sh"]);
        start.env("NOTIFY_SOCKET", &systemd.name).env("WATCHDOG_USEC", "200000").start()
    };
    let exporter = watched("$$").await;
    let mut heard = Vec::new();
    while heard.iter().filter(|message| *message == "WATCHDOG=1").count() < 5 {
        heard.push(systemd.hears().await);
    }
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
    exporter.kill().await;
    // What it was told before the kill is still there.
    while tokio::time::timeout(Duration::ZERO, systemd.hears()).await.is_ok() {}
    let exporter = watched("1").await;
    assert_eq!(systemd.hears().await, "READY=1");
    exporter.stop().await;
    assert_eq!(systemd.hears().await, "STOPPING=1");
}

#[tokio::test]
async fn a_systemd_that_cannot_be_told_is_logged_once_and_hinders_nothing() {
    for socket in ["/none/such", "@none-such", "nonsense"] {
        let start = Exporter::with(EMPTY).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "1000");
        let mut exporter = start.start().await;
        for _ in 0..2 {
            assert_eq!(exporter.reload().await.0, 200, "{socket}");
        }
        exporter.signal(Signal::TERM);
        assert_eq!(exporter.ended().await.code(), Some(0));
        let complaints = exporter.logs_of("systemd cannot be told how the exporter is doing");
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert_eq!(complaints[0]["socket"], socket);
    }
}

#[tokio::test]
async fn every_listener_that_it_hands_over_is_served() {
    let exporter = Exporter::with(EMPTY).handing_over(&["tcp", "tcp", "tcp"]).start().await;
    assert_eq!(exporter.urls.len(), 3);
    for url in &exporter.urls {
        let answer = exporter.http().request(Method::GET, format!("{url}/-/ready")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
    }
    assert!(exporter.logs_of("listen addresses are not used: the listeners are those of systemd").is_empty());
    exporter.stop().await;
}

#[tokio::test]
async fn listen_addresses_beside_it_are_not_used_and_that_is_said() {
    let start = Exporter::with(EMPTY).handing_over(&["tcp"]).arg("--web.listen-address=127.0.0.1:1");
    let exporter = start.start().await;
    assert_ne!(exporter.urls, ["http://127.0.0.1:1"]);
    let said = exporter.logged("listen addresses are not used: the listeners are those of systemd", 1).await;
    assert_eq!(said.len(), 1);
    assert_eq!(exporter.get("/-/ready").await.0, 200);
    exporter.stop().await;
}

/// What a start that fails with 1 says.
fn refusal(output: std::process::Output) -> String {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    errors
}

#[test]
fn sockets_of_another_kind_exit_with_1_and_say_which_would_be_right() {
    for kinds in [&["udp"][..], &["unix"], &["connection"], &["file"], &["tcp", "udp"]] {
        let errors = refusal(run_with_sockets(kinds, &["--demo", "--web.systemd-socket"]));
        let which = format!("socket {} that", kinds.len());
        assert!(errors.contains(&which) && errors.contains("ListenStream="), "{kinds:?}: {errors}");
    }
}

#[test]
fn no_socket_exits_with_1_and_says_what_is_missing() {
    // Those of another process are not ours.
    for environment in [&[][..], &[("LISTEN_FDS", "0")], &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]] {
        let errors = refusal(run(&["--demo", "--web.systemd-socket"], environment));
        assert!(errors.contains("no socket") && errors.contains("ListenStream=10058"), "{environment:?}: {errors}");
    }
}
