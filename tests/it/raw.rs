//! Raw requests: torn, with lengths that contradict each other, with bytes that have no place there.
//!
//! Each file of `fuzz/corpus/http` is what one client sends. Its name begins with the statuses of
//! the answers that it gets until the connection ends, like `404x3+200`, or with `closed` for none.
//! What is torn ends there: the client says no more. What is named `whole` is answered otherwise when
//! it comes byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::harness::Exporter;

/// What is longer is not sent byte by byte.
const LONG: usize = 2048;

/// The statuses of the answers to what is sent, in parts of this size.
fn statuses(address: SocketAddr, sent: &[u8], part: usize, ends: bool) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    // What is refused early need not be taken to its end.
    let all = sent.chunks(part.max(1)).try_for_each(|part| stream.write_all(part));
    if all.is_ok() && ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answers = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        answers.extend_from_slice(&buffer[..bytes]);
    }
    let answers = String::from_utf8_lossy(&answers);
    // No answer has this in its body.
    answers.split("HTTP/1.").skip(1).map(|answer| answer[2..5].parse().unwrap()).collect()
}

/// What the name of a file says of the answers.
fn expected(name: &str) -> Vec<u16> {
    let answers = name.split('-').next().unwrap();
    let one = |answer: &str| {
        let (status, times) = answer.split_once('x').unwrap_or((answer, "1"));
        vec![status.parse().unwrap(); times.parse().unwrap()]
    };
    if answers == "closed" { Vec::new() } else { answers.split('+').flat_map(one).collect() }
}

#[tokio::test]
async fn no_bytes_confuse_the_server_and_what_is_no_request_is_refused() {
    let exporter = Exporter::with("watches: []\nstate_file: state\nregistrations: {enabled: true}\n").start().await;
    let address = exporter.urls[0].strip_prefix("http://").unwrap().parse().unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/http");
    let mut count = 0;
    for file in std::fs::read_dir(corpus).unwrap().map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        let sent = std::fs::read(file.path()).unwrap();
        let ends = name.contains("-torn-") || sent.is_empty();
        assert_eq!(statuses(address, &sent, sent.len(), ends), expected(&name), "{name}");
        if sent.len() <= LONG && !name.ends_with("-whole") {
            assert_eq!(statuses(address, &sent, 1, ends), expected(&name), "{name}, byte by byte");
        }
        count += 1;
    }
    assert!(count >= 80, "{count}");
    let e = exporter.scrape().await;
    // What is smuggled behind bad lengths asks for this.
    assert_eq!(e.value("cekura_exporter_http_requests_total", &[("handler", "/config")]), None);
    assert_eq!(e.value("cekura_exporter_watches", &[("source", "http")]), Some(0.0));
    assert_eq!(exporter.errors(), "");
    let bad: Vec<_> = exporter.logs().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(bad.is_empty(), "{bad:?}");
    exporter.stop().await;
}
