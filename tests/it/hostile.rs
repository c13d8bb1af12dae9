//! Clients that mean no good: half of a request, answers that are not read, too many connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::harness::{Exporter, eventually};

/// The longest that a client waits for an answer or for the end of a connection.
const PATIENCE: Duration = Duration::from_mins(1);

/// The address of another client than those that come from 127.0.0.1.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn address(exporter: &Exporter) -> SocketAddr {
    exporter.urls[0].strip_prefix("http://").unwrap().parse().unwrap()
}

/// A connection from this address.
fn connect(exporter: &Exporter, from: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&address(exporter).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Connections from 127.0.0.1 that are not idle: no request of theirs was answered yet.
fn hold(exporter: &Exporter, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(exporter, Ipv4Addr::LOCALHOST)).collect()
}

/// Whether the other side has ended a connection on which nothing is sent.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match read {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Sends a request; the status of its answer, if one comes. The connection is kept.
fn ask(stream: &mut TcpStream, path: &str) -> Option<u16> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            bytes => answer.extend_from_slice(&buffer[..bytes]),
        }
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

/// What a counter of connections says, asked for from elsewhere.
async fn errors(exporter: &Exporter, reason: &str) -> f64 {
    let name = "cekura_exporter_http_connection_errors_total";
    scrape(exporter).await.value(name, &[("reason", reason)]).unwrap()
}

/// A scrape from another address than that of most connections.
async fn scrape(exporter: &Exporter) -> crate::harness::Exposition {
    let client = reqwest::Client::builder().no_proxy().local_address(IpAddr::from(ELSEWHERE)).build().unwrap();
    let answer = client.get(format!("{}/metrics", exporter.urls[0])).timeout(PATIENCE).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    crate::harness::Exposition::parse(answer.text().await.unwrap())
}

#[tokio::test]
async fn a_connection_above_the_limit_of_its_address_is_closed_at_once_and_others_get_in() {
    let exporter = Exporter::with("watches: []\nweb: {max_connections_per_peer: 3}\n").start().await;
    let mut held = hold(&exporter, 3);
    assert_eq!(ask(&mut connect(&exporter, Ipv4Addr::LOCALHOST), "/-/ready"), None);
    assert_eq!(ask(&mut connect(&exporter, ELSEWHERE), "/-/ready"), Some(200));
    assert!(errors(&exporter, "limit").await >= 1.0);
    drop(held.pop());
    eventually("a place that was left is free again", async || {
        (ask(&mut connect(&exporter, Ipv4Addr::LOCALHOST), "/-/ready") == Some(200)).then_some(())
    })
    .await;
    let said = exporter
        .logged("connection refused: too many, see web.max_connections and web.max_connections_per_peer", 1)
        .await;
    assert!(said[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{said:?}");
}

#[tokio::test]
async fn an_idle_connection_gives_way_to_a_new_one_of_its_address() {
    let exporter = Exporter::with("watches: []\nweb: {max_connections_per_peer: 3}\n").start().await;
    let mut idle: Vec<_> = (0..3).map(|_| connect(&exporter, Ipv4Addr::LOCALHOST)).collect();
    for stream in &mut idle {
        assert_eq!(ask(stream, "/-/ready"), Some(200));
    }
    let mut scraper = connect(&exporter, Ipv4Addr::LOCALHOST);
    assert_eq!(ask(&mut scraper, "/metrics"), Some(200));
    eventually("the one that was idle for longest is closed", async || is_closed(&mut idle[0]).then_some(())).await;
    assert_eq!(ask(&mut idle[1], "/-/ready"), Some(200));
    assert!(errors(&exporter, "limit").await < 1.0, "none was refused");
}

#[tokio::test]
async fn when_one_peer_has_taken_all_places_another_one_is_still_answered() {
    let exporter =
        Exporter::with("watches: []\nweb: {max_connections: 8, max_connections_per_peer: 8}\n").start().await;
    let _held = hold(&exporter, 8);
    assert_eq!(ask(&mut connect(&exporter, Ipv4Addr::LOCALHOST), "/-/ready"), None);
    assert!(scrape(&exporter).await.value("cekura_exporter_http_connections", &[]).unwrap() >= 9.0);
}

#[tokio::test]
async fn the_caps_are_those_of_the_configuration_that_was_read_last() {
    let exporter = Exporter::with("watches: []\nweb: {max_connections_per_peer: 5}\n").start().await;
    exporter.reconfigure("watches: []\nweb: {max_connections_per_peer: 1}\n");
    assert_eq!(exporter.reload().await.0, 200);
    let _held = hold(&exporter, 1);
    assert_eq!(ask(&mut connect(&exporter, Ipv4Addr::LOCALHOST), "/-/ready"), None);
}

#[tokio::test]
async fn a_header_that_does_not_arrive_ends_the_connection() {
    let exporter = Exporter::with("watches: []\n").start().await;
    let mut silent = connect(&exporter, Ipv4Addr::LOCALHOST);
    let mut half = connect(&exporter, Ipv4Addr::LOCALHOST);
    half.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut again = connect(&exporter, Ipv4Addr::LOCALHOST);
    assert_eq!(ask(&mut again, "/-/ready"), Some(200));
    again.write_all(b"GET ").unwrap();
    let mut idle = connect(&exporter, Ipv4Addr::LOCALHOST);
    assert_eq!(ask(&mut idle, "/-/ready"), Some(200));
    eventually("all that send too little are gone", async || {
        (is_closed(&mut silent) && is_closed(&mut half) && is_closed(&mut again)).then_some(())
    })
    .await;
    assert!(!is_closed(&mut idle), "an idle connection is kept");
    assert!(errors(&exporter, "timeout").await >= 3.0);
}

#[tokio::test]
async fn clients_that_never_read_are_given_up_and_scrapes_go_on_meanwhile() {
    let watches: Vec<_> =
        (1..=3000).map(|n| json!({"name": format!("w{n}"), "agent_id": n, "progress_id": "p"})).collect();
    // Its API is a closed port: what it polls does not matter here.
    let exporter = Exporter::with(
        json!({"apis": {"default": {"base_url": "http://127.0.0.1:9"}}, "watches": watches}).to_string(),
    )
    .start()
    .await;
    let mut hostile = Vec::new();
    for _ in 0..60 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address(&exporter).into()).unwrap();
        let mut stream: TcpStream = socket.into();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        hostile.push(stream);
    }
    for _ in 0..340 {
        let mut stream = connect(&exporter, Ipv4Addr::LOCALHOST);
        // It may have been refused already.
        let _ = stream.write_all(b"GET /");
        hostile.push(stream);
    }
    let began = Instant::now();
    let open = |e: &crate::harness::Exposition| e.value("cekura_exporter_http_connections", &[]).unwrap();
    assert!(open(&scrape(&exporter).await) > 60.0);
    eventually("all hostile connections are gone", async || {
        let e = scrape(&exporter).await;
        assert_eq!(e.count("cekura_toggle_info"), 3000);
        // What is left are scrapes.
        (open(&e) <= 2.0).then_some(())
    })
    .await;
    println!("gone after {:?}", began.elapsed());
}

#[tokio::test]
async fn headers_that_are_too_large_or_too_many_are_refused() {
    let exporter = Exporter::with("watches: []\n").start().await;
    let status = |fields: String| {
        let mut stream = connect(&exporter, Ipv4Addr::LOCALHOST);
        // It may be refused before it is sent to its end.
        let _ = stream.write_all(format!("GET /-/ready HTTP/1.1\r\nhost: x\r\n{fields}\r\n").as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.split(' ').nth(1).map(str::to_owned)
    };
    let with_end = "connection: close\r\n";
    assert_eq!(status(format!("a: {}\r\n{with_end}", "x".repeat(15_000))).as_deref(), Some("200"));
    assert_eq!(status(format!("a: {}\r\n{with_end}", "x".repeat(17_000))).as_deref(), Some("431"));
    let many = |n: usize| "a: x\r\n".repeat(n) + with_end;
    assert_eq!(status(many(98)).as_deref(), Some("200"));
    assert_eq!(status(many(99)).as_deref(), Some("431"));
}
