//! Each reason is reached by its cause, and by nothing else.

use std::collections::HashSet;
use std::fmt::Write;

use cekura_exporter::demo::fault::Fault;
use cekura_exporter::demo::simulator::{Reply, Simulator};
use cekura_exporter::toggle::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Exporter, KEY, ReservedPort, Upstream};

/// Runs the configuration until a poll of the watch `w` failed, and returns the reason.
async fn reason_of(config: &str) -> String {
    let exporter = Exporter::with(config).start().await;
    let e = exporter.scrape_until("the poll failed", |e| e.poll_error("w").is_some()).await;
    let reason = e.poll_error("w").unwrap();
    assert!(e.value("cekura_api_requests_total", &[("outcome", &reason)]).unwrap() >= 1.0);
    assert_eq!(e.value("cekura_api_requests_total", &[("outcome", "ok")]), Some(0.0));
    assert_eq!(e.status("w").as_deref(), Some("unknown"));
    reason
}

/// A configuration with one watch of the API at this URL.
fn config_of(url: &str) -> String {
    format!(
        "apis: {{default: {{base_url: \"{url}\", api_key: {KEY}, timeout: 1s}}}}\n\
         watches: [{{name: w, agent_id: 1, progress_id: p}}]\n"
    )
}

#[tokio::test]
async fn each_fault_of_an_answer_has_its_reason_and_changes_nothing_that_was_known() {
    let upstream = Upstream::start().await;
    let mut watches = String::new();
    for fault in Fault::ALL {
        let name = format!("{fault:?}");
        upstream.script(&name, [Reply::task("in_progress", Some(true)), fault.reply()]);
        writeln!(watches, "  - {{name: {name}, agent_id: 1, progress_id: {name}}}").unwrap();
    }
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: {KEY}, timeout: 700ms, requests_per_second: 1000}}}}\n\
         polling: {{min_interval: 20ms, max_interval: 20ms, backoff_max: 1h}}\nwatches:\n{watches}",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    let e = exporter
        .scrape_until("every watch failed", |e| {
            Fault::ALL.iter().all(|fault| e.poll_error(&format!("{fault:?}")).is_some())
        })
        .await;
    // What comes after it may be polled over a connection that another fault is just closing.
    let failures = exporter.logged("poll failed", Fault::ALL.len()).await;
    for fault in Fault::ALL {
        let name = format!("{fault:?}");
        let first = failures.iter().find(|failure| failure["toggle"] == name.as_str()).unwrap();
        assert_eq!(first["reason"], fault.reason().as_str(), "{first}");
        let detail = first["detail"].as_str().unwrap();
        assert!(detail.starts_with("GET 127.0.0.1:") && !detail.contains("?progress_id"), "{detail}");
        assert_eq!(e.status(&name).as_deref(), Some("in_progress"), "{name}");
        let toggle = [("toggle", name.as_str())];
        assert_eq!(e.value("cekura_toggle_mock_enabled", &toggle), Some(1.0), "{name}");
        assert_eq!(e.value("cekura_toggle_up", &toggle), Some(0.0), "{name}");
    }
    for reason in Fault::ALL.iter().map(|fault| fault.reason()).collect::<HashSet<_>>() {
        let faults = Fault::ALL.iter().filter(|fault| fault.reason() == reason).count();
        let counted = e.value("cekura_api_requests_total", &[("outcome", reason.as_str())]).unwrap();
        assert!(counted >= f64::from(u32::try_from(faults).unwrap()), "{reason:?}: {counted} of {faults}");
    }
}

#[tokio::test]
async fn each_fault_of_a_mock_status_has_its_reason_and_changes_nothing_that_was_known() {
    let upstream = Upstream::start().await;
    // What has no status of a task may be a good mock status.
    let faults: Vec<_> = (1..).zip(Fault::ALL.into_iter().filter(|fault| *fault != Fault::NoStatus)).collect();
    let mut agents = String::new();
    for (agent, fault) in &faults {
        upstream.mock_status(*agent, [Reply::mock_status(true, "vapi"), fault.reply()]);
        writeln!(agents, "  - {{agent_id: {agent}, expect: disabled}}").unwrap();
    }
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: {KEY}, timeout: 700ms, requests_per_second: 1000}}}}\n\
         polling: {{agent_interval: 20ms, min_interval: 20ms, backoff_max: 1h}}\nagents:\n{agents}",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    let e = exporter.scrape_until("every agent failed", |e| e.count("cekura_agent_poll_error") == faults.len()).await;
    // What comes after it may be polled over a connection that another fault is just closing.
    let failures = exporter.logged("poll failed", faults.len()).await;
    for (agent, fault) in faults {
        let first = failures.iter().find(|failure| failure["agent_id"] == agent).unwrap();
        assert_eq!(first["reason"], fault.reason().as_str(), "{first}");
        let detail = first["detail"].as_str().unwrap();
        assert!(detail.starts_with("GET 127.0.0.1:") && detail.contains("/tools/mock-status/"), "{detail}");
        let id = agent.to_string();
        for (name, value) in [("mocks_live", 1.0), ("mocks_drift", 1.0), ("up", 0.0), ("info", 1.0)] {
            let shown = e.value(&format!("cekura_agent_{name}"), &[("agent_id", &id)]);
            assert_eq!(shown, Some(value), "{name} with {fault:?}");
        }
    }
}

#[tokio::test]
async fn each_fault_of_a_list_of_agents_has_its_reason() {
    let fault_of = |path: &str| Fault::ALL.into_iter().find(|fault| path.starts_with(&format!("/{fault:?}/"))).unwrap();
    let upstream = Simulator::start(move |request| fault_of(&request.path).reply()).await.unwrap();
    let mut apis = String::new();
    for fault in Fault::ALL {
        // What never ends by itself is given up soon, and what is long has the time that it takes.
        let timeout = if fault.reason() == Reason::Timeout { "700ms" } else { "1m" };
        let (name, url) = (format!("{fault:?}").to_lowercase(), format!("http://{}/{fault:?}", upstream.address()));
        writeln!(apis, "  {name}: {{base_url: {url}, api_key: {KEY}, timeout: {timeout}, discover_agents: true}}")
            .unwrap();
    }
    let exporter = Exporter::with(format!("apis:\n{apis}")).start().await;
    let failed = exporter.logged("agents could not be listed: the last list stays", Fault::ALL.len()).await;
    for fault in Fault::ALL {
        let of_api = failed.iter().find(|line| line["api"] == format!("{fault:?}").to_lowercase()).unwrap();
        // A page of the list may be larger than another answer.
        let reason = if fault == Fault::TooLarge { Reason::Decode } else { fault.reason() };
        assert_eq!(of_api["reason"], reason.as_str(), "{of_api}");
    }
}

#[test]
fn every_reason_has_a_fault_or_is_one_of_getting_there() {
    let of_answers: HashSet<_> = Fault::ALL.iter().map(|fault| fault.reason()).collect();
    let others: HashSet<_> = Reason::ALL.into_iter().filter(|reason| !of_answers.contains(reason)).collect();
    assert_eq!(others, HashSet::from([Reason::Dns, Reason::Connect, Reason::Tls, Reason::Credentials]));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_not_sent_on() {
    let (upstream, elsewhere) = (Upstream::start().await, Upstream::start().await);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("{}/elsewhere", elsewhere.url());
        upstream.script("p", [Reply::with_header(status, "location", location, "")]);
        assert_eq!(reason_of(&config_of(&upstream.url())).await, "redirect", "{status}");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_body_at_the_limit_is_read() {
    let upstream = Upstream::start().await;
    let json = r#"{"status":"completed","mock_enabled":true}"#;
    upstream.script("p", [Reply::new(200, format!("{json}{}", " ".repeat(1024 * 1024 - json.len())))]);
    let exporter = Exporter::with(config_of(&upstream.url())).start().await;
    exporter.scrape_until("it completed", |e| e.status("w").as_deref() == Some("completed")).await;
}

#[tokio::test]
async fn a_host_that_is_not_there_is_dns_or_connect() {
    assert_eq!(reason_of(&config_of("http://no-such-host.invalid")).await, "dns");
    assert_eq!(reason_of(&config_of("https://no-such-host.invalid")).await, "dns");
    let nobody = ReservedPort::new();
    let address = nobody.address;
    assert_eq!(reason_of(&config_of(&format!("http://{address}"))).await, "connect");
    assert_eq!(reason_of(&config_of(&format!("https://{address}"))).await, "connect");
}

#[tokio::test]
async fn a_handshake_that_is_answered_with_plain_text_is_tls_and_one_that_is_hung_up_on_is_aborted() {
    for (answer, reason) in [("HTTP/1.1 400 Bad Request\r\n\r\n", "tls"), ("", "aborted")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config_of(&format!("https://{}", listener.local_addr().unwrap()));
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
async fn a_server_that_accepts_and_never_shakes_hands_is_a_timeout() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(reason_of(&config_of(&format!("https://{}", silent.local_addr().unwrap()))).await, "timeout");
}

#[tokio::test]
async fn without_a_key_nothing_is_sent_and_the_detail_says_what_to_do() {
    let upstream = Upstream::start().await;
    let config = config_of(&upstream.url()).replace(&format!("api_key: {KEY}, "), "");
    assert_eq!(reason_of(&config).await, "credentials");
    assert!(upstream.requests().is_empty());
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("the poll failed", |e| e.poll_error("w").is_some()).await;
    let detail = exporter.toggle("w").await["poll_error_detail"].to_string();
    assert!(detail.contains("api_key_file"), "{detail}");
}
