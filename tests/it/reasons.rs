//! Each reason is reached by its cause.

use std::time::Duration;

use cekura_exporter::demo::simulator::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Exporter, Upstream};

/// Polls an upstream that answers so, and returns the reason that is shown.
async fn reason_for(reply: Reply) -> String {
    let upstream = Upstream::start().await;
    upstream.script("p", [reply]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k, timeout: 500ms}}}}\n\
         watches: [{{name: w, agent_id: 1, progress_id: p}}]\n",
        upstream.url()
    );
    reason_of(&config).await
}

/// Runs the configuration until a poll failed, checks that it counts where it should, and returns
/// the reason.
async fn reason_of(config: &str) -> String {
    let exporter = Exporter::with(config).start().await;
    let e = exporter.scrape_until("the poll failed", |e| e.poll_error("w").is_some()).await;
    let reason = e.poll_error("w").unwrap();
    assert!(e.value("cekura_api_requests_total", &[("outcome", &reason)]).unwrap() >= 1.0);
    assert_eq!(e.value("cekura_api_requests_total", &[("outcome", "ok")]), Some(0.0));
    assert_eq!(e.status("w").as_deref(), Some("unknown"));
    reason
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.as_bytes().to_vec())
}

#[tokio::test]
async fn each_http_status_has_its_reason() {
    for (status, reason) in [
        (204, "unexpected_status"),
        (302, "redirect"),
        (400, "bad_request"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (418, "client_error"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
    ] {
        assert_eq!(reason_for(Reply::new(status, "")).await, reason, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_not_sent_on() {
    let elsewhere = Upstream::start().await;
    let location = format!("{}/elsewhere", elsewhere.url());
    assert_eq!(reason_for(Reply::with_header(307, "location", location, "")).await, "redirect");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn no_answer_and_half_an_answer_in_time_are_timeouts() {
    assert_eq!(reason_for(Reply::Silence).await, "timeout");
    let drip = Reply::Endless {
        head: b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec(),
        piece: b" ".to_vec(),
        pause: Duration::from_millis(50),
    };
    assert_eq!(reason_for(drip).await, "timeout");
}

#[tokio::test]
async fn a_lost_connection_and_what_is_not_http_are_aborted() {
    for reply in [
        raw(""),
        raw("HTTP/1.1 200 OK\r\ncontent-le"),
        raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"st"),
        raw("SSH-2.0-OpenSSH_9.2p1\r\n"),
        raw("220 mail.invalid ESMTP\r\n"),
    ] {
        assert_eq!(reason_for(reply.clone()).await, "aborted", "{reply:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_documented_json_is_a_decode_failure() {
    let deep = format!("{{\"status\":\"failed\",\"message\":{}", "[".repeat(200_000));
    for body in ["", "<html>", "[]", "{}", r#"{"status":7}"#, r#"{"status":"completed","mock_enabled":"yes"}"#, &deep] {
        assert_eq!(reason_for(Reply::new(200, body)).await, "decode", "{body:.40}");
    }
    let not_utf8 = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"status\":\"\xff\"}".to_vec();
    assert_eq!(reason_for(Reply::Raw(not_utf8)).await, "decode");
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_even_without_an_end() {
    assert_eq!(reason_for(Reply::new(200, " ".repeat(1024 * 1024 + 1))).await, "too_large");
    let endless = Reply::Endless {
        head: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        piece: [b"10000\r\n".as_slice(), &b" ".repeat(0x10000), b"\r\n"].concat(),
        pause: Duration::ZERO,
    };
    assert_eq!(reason_for(endless).await, "too_large");
}

#[tokio::test]
async fn a_body_at_the_limit_is_read() {
    let upstream = Upstream::start().await;
    let json = r#"{"status":"completed","mock_enabled":true}"#;
    upstream.script("p", [Reply::new(200, format!("{json}{}", " ".repeat(1024 * 1024 - json.len())))]);
    let exporter = Exporter::polling(&upstream, "  - {name: w, agent_id: 1, progress_id: p}\n").start().await;
    exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
}

#[tokio::test]
async fn a_host_that_is_not_there_is_dns_or_connect() {
    let watch = "watches: [{name: w, agent_id: 1, progress_id: p}]\n";
    let unknown = format!("apis: {{default: {{base_url: \"http://no-such-host.invalid\", api_key: k}}}}\n{watch}");
    assert_eq!(reason_of(&unknown).await, "dns");
    // Bound and dropped at once: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("apis: {{default: {{base_url: \"http://{address}\", api_key: k}}}}\n{watch}");
    assert_eq!(reason_of(&refused).await, "connect");
}

#[tokio::test]
async fn a_server_that_answers_a_handshake_with_plain_text_is_tls_and_one_that_hangs_up_is_aborted() {
    for (answer, reason) in [("HTTP/1.1 400 Bad Request\r\n\r\n", "tls"), ("", "aborted")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = format!(
            "apis: {{default: {{base_url: \"https://{}\", api_key: k}}}}\n\
             watches: [{{name: w, agent_id: 1, progress_id: p}}]\n",
            listener.local_addr().unwrap()
        );
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_buf(&mut Vec::new()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(reason_of(&config).await, reason);
        server.abort();
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_sent() {
    let upstream = Upstream::start().await;
    let config = format!(
        "apis: {{default: {{base_url: {}}}}}\nwatches: [{{name: w, agent_id: 1, progress_id: p}}]\n",
        upstream.url()
    );
    assert_eq!(reason_of(&config).await, "credentials");
    assert!(upstream.requests().is_empty());
}
