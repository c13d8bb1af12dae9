//! TLS: what is spoken, and what is refused. The clients are OpenSSL's, and handshakes written by hand
//! where OpenSSL has forgotten how to be weak.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::harness::{Authority, Client, Exporter, Start, tool};

/// The longest that is waited for another program, or for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

const FAILED: &str = "TLS handshake failed";

/// An exporter that speaks TLS, with these lines more under `tls_server_config`. The certificate of its
/// authority is beside its configuration, as `ca.pem`.
fn encrypted(authority: &Authority, more: &[&str]) -> Start {
    Exporter::with("watches: []\n").tls(authority, more).file("ca.pem", &authority.pem())
}

fn openssl(exporter: &Exporter, args: &[&str]) -> Child {
    let mut command = Command::new(tool("openssl"));
    // Without what the machine forbids.
    command.env_clear().env("OPENSSL_CONF", "/dev/null").args(args).current_dir(exporter.folder()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a program says, once it has ended.
async fn said(program: Child) -> String {
    let Output { stdout, stderr, .. } =
        tokio::time::timeout(PATIENCE, program.wait_with_output()).await.unwrap().unwrap();
    format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))
}

/// Asks by `openssl s_client` with these arguments whether it is ready.
///
/// # Errors
/// What the client says, if it gets no answer.
async fn s_client(exporter: &Exporter, args: &[&str]) -> Result<String, String> {
    let connect = ["s_client", "-connect", exporter.address(), "-CAfile", "ca.pem", "-verify_return_error", "-ign_eof"];
    let mut client = openssl(exporter, &[&connect, args].concat());
    // It may be gone already.
    let _ = client.stdin.take().unwrap().write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").await;
    let said = said(client).await;
    if said.contains(" 200 OK\r\n") { Ok(said) } else { Err(said) }
}

#[tokio::test]
async fn a_scrape_over_tls_says_when_the_certificate_expires_and_its_files_are_beside_the_web_configuration() {
    let authority = Authority::new("servers");
    let server = authority.server((2087, 6, 5));
    let exporter = Exporter::with("apis: {default: {api_key: k}}\n")
        .file("web/config.yaml", "tls_server_config: {cert_file: server.pem, key_file: keys/server.key}\n")
        .file("web/server.pem", &server.certificate)
        .file("web/keys/server.key", &server.key)
        .arg("--web.config.file=web/config.yaml")
        .client(&Client::trusting(&authority))
        .start()
        .await;
    let e = exporter.scrape().await;
    let expiry = "cekura_exporter_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(e.value(expiry, &[]), Some(3_705_609_600.0));
    assert_eq!(e.value("cekura_exporter_web_config_last_reload_successful", &[]), Some(1.0));
    let (logs, errors) = exporter.last_words().await;
    let bad: Vec<_> = logs.iter().filter(|line| line["level"] != "INFO").collect();
    assert!(bad.len() == 1 && bad[0]["message"] == "configuration warning" && errors.is_empty(), "{bad:?} {errors}");
}

/// What is answered to bytes that are not TLS, until the connection ends, and how it ends.
fn answered(exporter: &Exporter, sent: &[u8], part: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    sent.chunks(part).try_for_each(|part| stream.write_all(part))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn plain_http_is_answered_with_400_in_words_where_tls_is_spoken() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    let large = format!("PUT /x HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n{}", "x".repeat(20_000));
    let requests = ["GET /-/ready HTTP/1.1\r\nhost: x\r\n\r\n", "OPTIONS / HTTP/1.0\r\n\r\n", &large];
    for request in requests {
        for part in [1, request.len()] {
            let answer = answered(&exporter, request.as_bytes(), part).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
            assert!(body.contains("HTTPS") && body.ends_with('\n'), "{answer}");
        }
    }
    let said = exporter.logged(FAILED, 6).await;
    assert!(said.iter().all(|line| line["error"] == "the client speaks plain HTTP"), "{said:?}");
    let name = "cekura_exporter_http_connection_errors_total";
    assert_eq!(exporter.scrape().await.value(name, &[("reason", "handshake")]), Some(6.0));
}

#[tokio::test]
async fn bytes_that_are_neither_tls_nor_http_are_closed_without_words() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    let sent = [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"GETTING /",
        b"get / HTTP/1.1\r\n\r\n",
        &[0; 40],
        b"\xff\xfe\xfd\xfc\xfb\xfa",
    ];
    for sent in sent {
        // A reset is as good as an end: what came was not read.
        let answer = answered(&exporter, sent, sent.len()).unwrap_or_default();
        assert!(!answer.contains("HTTP"), "{answer}");
    }
    let said = exporter.logged(FAILED, sent.len()).await;
    assert!(said.iter().all(|line| line["error"] == "the client does not speak TLS"), "{said:?}");
}

#[tokio::test]
async fn plain_http_is_refused_where_tls_is_spoken_and_said_in_one_line() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    assert_eq!(exporter.status_for(&Client::default(), "/-/ready").await, Some(400));
    exporter.logged(FAILED, 1).await;
    assert_eq!(exporter.get("/-/ready").await.0, 200);
    let (logs, errors) = exporter.last_words().await;
    let lines: Vec<_> = logs.iter().filter(|line| line["message"] == FAILED).collect();
    assert!(lines.len() == 1 && errors.is_empty(), "{lines:?} {errors}");
    let text = |field: &str| lines[0][field].as_str().unwrap();
    assert!(text("level") == "WARN" && lines[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{lines:?}");
    assert_eq!(text("error"), "the client speaks plain HTTP");
}

#[tokio::test]
async fn versions_before_1_2_are_refused_in_one_line_each_and_1_2_and_1_3_are_spoken() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    for (count, version) in ["-tls1", "-tls1_1"].into_iter().enumerate() {
        let said = s_client(&exporter, &[version, "-cipher", "DEFAULT@SECLEVEL=0"]).await.unwrap_err();
        assert!(said.contains(" alert "), "{version}: {said}");
        assert_eq!(exporter.logged(FAILED, count + 1).await[count]["level"], "WARN");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(&exporter, &[version]).await.unwrap();
        assert!(said.contains(&format!("New, {name}, ")) && said.contains("Compression: NONE"), "{said}");
    }
    let (logs, errors) = exporter.last_words().await;
    assert_eq!(logs.iter().filter(|line| line["message"] == FAILED).count(), 2);
    assert_eq!(errors, "");
}

#[tokio::test]
async fn a_lowest_version_of_1_3_refuses_1_2() {
    let exporter = encrypted(&Authority::new("servers"), &["min_version: TLS13"]).start().await;
    assert!(s_client(&exporter, &["-tls1_2"]).await.unwrap_err().contains("alert protocol version"));
    s_client(&exporter, &["-tls1_3"]).await.unwrap();
    assert_eq!(exporter.logged(FAILED, 1).await.len(), 1);
}

#[tokio::test]
async fn of_the_suites_of_1_2_only_those_that_are_named_are_spoken() {
    let named = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]";
    let exporter = encrypted(&Authority::new("servers"), &[named]).start().await;
    for other in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        let said = s_client(&exporter, &["-tls1_2", "-cipher", other]).await.unwrap_err();
        assert!(said.contains("alert handshake failure"), "{other}: {said}");
    }
    s_client(&exporter, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]).await.unwrap();
    s_client(&exporter, &["-tls1_2"]).await.unwrap();
    s_client(&exporter, &["-tls1_3"]).await.unwrap();
}

/// Which of all suites that OpenSSL has for TLS 1.2 are spoken.
async fn spoken(exporter: &Exporter) -> BTreeSet<String> {
    let all = said(openssl(exporter, &["ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"])).await;
    let all: Vec<_> = all.trim().split(':').collect();
    for weak in ["NULL-SHA", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES256-GCM-SHA384", "ADH-AES128-SHA"]
    {
        assert!(all.contains(&weak), "OpenSSL cannot try {weak}: it has {all:?}");
    }
    let mut spoken = BTreeSet::new();
    for suite in all {
        if s_client(exporter, &["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]).await.is_ok() {
            spoken.insert(suite.to_owned());
        }
    }
    spoken
}

#[tokio::test]
async fn with_an_ecdsa_key_only_its_forward_secret_authenticated_suites_are_spoken() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    let expected = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
    assert_eq!(spoken(&exporter).await, expected.map(str::to_owned).into());
    assert_eq!(agreed(&exporter, &[0, 1]), [(0xc02b, 0), (0xc02c, 0), (0xcca9, 0)]);
    assert_eq!(agreed(&exporter, &[1]), [], "without compression is the only way");
}

#[tokio::test]
async fn with_an_rsa_key_only_its_forward_secret_authenticated_suites_are_spoken() {
    let authority = Authority::new("servers");
    let start = encrypted(&authority, &[]);
    // rcgen cannot make such a key.
    let key = std::process::Command::new(tool("openssl")).args(["genpkey", "-algorithm", "RSA"]).output().unwrap();
    let server = authority.server_with(&String::from_utf8(key.stdout).unwrap());
    let exporter = start.server(&server).start().await;
    let expected = ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"];
    assert_eq!(spoken(&exporter).await, expected.map(str::to_owned).into());
    assert_eq!(agreed(&exporter, &[0]), [(0xc02f, 0), (0xc030, 0), (0xcca8, 0)]);
}

/// The suites, of all that there ever were for TLS 1.2, that are agreed upon when each is offered alone
/// and with these compressions; with the compression that is agreed upon.
fn agreed(exporter: &Exporter, compressions: &[u8]) -> Vec<(u16, u8)> {
    let all = (0..=0xff).chain(0xc000..=0xc0ff).chain(0xcc00..=0xccff);
    all.filter_map(|suite| greet(exporter, suite, compressions)).collect()
}

/// The record that refuses.
const ALERT: u8 = 21;

/// The message that agrees.
const SERVER_HELLO: u8 = 2;

/// Offers a suite and compressions. Returns what is agreed upon.
fn greet(exporter: &Exporter, suite: u16, compressions: &[u8]) -> Option<(u16, u8)> {
    let mut stream = TcpStream::connect(exporter.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello(suite, compressions)).unwrap();
    let mut record = [0; 5];
    stream.read_exact(&mut record).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
    stream.read_exact(&mut answer).unwrap();
    if record[0] == ALERT {
        return None;
    }
    assert_eq!(answer[0], SERVER_HELLO, "{record:?} {answer:?}");
    // Before it are the header, a version, random bytes and the length of the session's id.
    let rest = &answer[4 + 2 + 32..];
    let rest = &rest[1 + usize::from(rest[0])..];
    Some((u16::from_be_bytes([rest[0], rest[1]]), rest[2]))
}

/// What a client of TLS 1.2 has to say.
const EXTENSIONS: [&[u8]; 4] = [
    // The groups X25519 and P-256.
    &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
    // Points that are not compressed.
    &[0, 11, 0, 2, 1, 0],
    // Signatures by ECDSA, RSA-PSS and RSA, each with SHA-256.
    &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1],
    // The extended master secret.
    &[0, 23, 0, 0],
];

/// The hello of a client of TLS 1.2.
fn hello(suite: u16, compressions: &[u8]) -> Vec<u8> {
    let suites = with_length(&suite.to_be_bytes());
    let compressions = [&[u8::try_from(compressions.len()).unwrap()], compressions].concat();
    let extensions = with_length(&EXTENSIONS.concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &suites, &compressions, &extensions].concat();
    let message = [&[1, 0][..], &with_length(&body)].concat();
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

#[tokio::test]
async fn a_connection_is_not_negotiated_anew() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    let connect = ["s_client", "-connect", exporter.address(), "-CAfile", "ca.pem", "-tls1_2"];
    let mut client = openssl(&exporter, &connect);
    // This line asks for it. The client would go on while there is something to read.
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"R\n").await.unwrap();
    let said = said(client).await;
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    drop(input);
    assert_eq!(exporter.get("/-/ready").await.0, 200);
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_ends_the_connection() {
    let exporter = encrypted(&Authority::new("servers"), &[]).start().await;
    let hello = hello(0xc02b, &[0]);
    let begun = [&hello[..0], &hello[..1], &hello[..hello.len() / 2], &hello, b"GE"];
    let clients = begun.map(|begun| {
        let mut stream = TcpStream::connect(exporter.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begun).unwrap();
        stream
    });
    assert_eq!(exporter.get("/-/ready").await.0, 200, "others get in meanwhile");
    for mut stream in clients {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let name = "cekura_exporter_http_connection_errors_total";
    assert_eq!(exporter.scrape().await.value(name, &[("reason", "timeout")]), Some(5.0));
}
