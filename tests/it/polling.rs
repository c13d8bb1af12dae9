//! When and how the upstream is polled.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::Reply;

use crate::harness::{Exporter, Exposition, KEY, Upstream, eventually};

fn watches(count: usize) -> String {
    (0..count)
        .map(|i| ["  - {name: w", &i.to_string(), ", agent_id: 1, progress_id: p", &i.to_string(), "}\n"].concat())
        .collect()
}

#[tokio::test]
async fn a_request_names_the_task_carries_the_key_and_says_who_asks() {
    let upstream = Upstream::start().await;
    let id = "a b/&?%é";
    upstream.script(id, [Reply::task("completed", None)]);
    let config = format!(
        "apis:\n  default: {{base_url: \"{}/prefix/\", api_key: {KEY}}}\n\
         watches: [{{agent_id: 4321, progress_id: \"{id}\"}}]\n",
        upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("it completed", |e| e.status("agent-4321").as_deref() == Some("completed")).await;
    let (_, request) = &upstream.requests()[0];
    assert_eq!(request.method, "GET");
    assert_eq!(request.path, "/prefix/test_framework/v2/aiagents/4321/toggle-mock-tools-progress/");
    assert_eq!(request.query, "progress_id=a%20b%2F%26%3F%25%C3%A9");
    assert_eq!(request.header("x-cekura-api-key"), Some(KEY));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(request.header("user-agent"), Some(format!("cekura-exporter/{version}").as_str()));
}

#[tokio::test]
async fn a_finished_run_is_left_alone_while_others_are_polled_on_over_one_connection() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::task("failed", None)]);
    upstream.script("p1", [Reply::task("in_progress", None)]);
    let _exporter = Exporter::polling(&upstream, &watches(2)).start().await;
    eventually("p1 was polled often", async || (upstream.polls_of("p1") >= 10).then_some(())).await;
    assert_eq!(upstream.polls_of("p0"), 1);
    let requests = upstream.requests();
    let connections: HashSet<_> = requests.iter().map(|(_, request)| request.connection).collect();
    assert!(connections.len() <= 2, "{} connections for {} polls", connections.len(), requests.len());
}

#[tokio::test]
async fn a_finished_run_is_rechecked_when_that_is_configured() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::task("completed", Some(true))]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k}}}}\npolling: {{recheck_finished: 30ms}}\nwatches:\n{}",
        upstream.url(),
        watches(1)
    );
    let exporter = Exporter::with(config).start().await;
    eventually("it was rechecked", async || (upstream.polls_of("p0") >= 4).then_some(())).await;
    let e = exporter.scrape().await;
    let completed = e.value("cekura_toggle_finished_total", &[("status", "completed")]);
    assert_eq!(completed, Some(1.0), "a rechecked run is counted once");
}

#[tokio::test]
async fn polls_of_one_run_keep_the_interval() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::task("in_progress", None)]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k}}}}\n\
         polling: {{min_interval: 200ms, max_interval: 200ms}}\nwatches:\n{}",
        upstream.url(),
        watches(1)
    );
    let _exporter = Exporter::with(config).start().await;
    eventually("it was polled six times", async || (upstream.polls_of("p0") >= 6).then_some(())).await;
    let times: Vec<_> = upstream.requests().iter().map(|(at, _)| *at).collect();
    let spread = times[5] - times[0];
    // A request may be delayed, never early: five intervals less what the first came late.
    assert!(spread >= Duration::from_millis(800), "{spread:?}");
}

#[tokio::test]
async fn a_poll_that_timed_out_is_left_alone_for_the_backoff_from_its_end() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::Silence]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k, timeout: 300ms}}}}\n\
         polling: {{min_interval: 200ms, max_interval: 200ms, backoff_max: 200ms}}\nwatches:\n{}",
        upstream.url(),
        watches(1)
    );
    let _exporter = Exporter::with(config).start().await;
    eventually("it was polled thrice", async || (upstream.polls_of("p0") >= 3).then_some(())).await;
    let times: Vec<_> = upstream.requests().iter().map(|(at, _)| *at).collect();
    let spread = times[2] - times[0];
    assert!(spread >= Duration::from_millis(950), "{spread:?}");
}

#[tokio::test]
async fn the_request_budget_spreads_first_polls_in_the_order_of_the_list() {
    let upstream = Upstream::start().await;
    let count = 24;
    for i in 0..count {
        upstream.script(&format!("p{i}"), [Reply::task("completed", None)]);
    }
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k, requests_per_second: 8, max_in_flight: 1}}}}\nwatches:\n{}",
        upstream.url(),
        watches(count)
    );
    let exporter = Exporter::with(config).start().await;
    let e = exporter
        .scrape_until("polls wait", |e| e.value("cekura_api_polls_waiting", &[]).is_some_and(|polls| polls > 0.0))
        .await;
    assert!(e.value("cekura_api_throttle_seconds_total", &[]).unwrap() >= 0.0);
    eventually("all were polled", async || (upstream.requests().len() == count).then_some(())).await;
    let requests = upstream.requests();
    let order: Vec<_> = requests.iter().map(|(_, request)| request.progress_id().unwrap()).collect();
    assert_eq!(order, (0..count).map(|i| format!("p{i}")).collect::<Vec<_>>());
    // A burst of 8, then 16 more at 8 a second.
    let spread = requests[count - 1].0 - requests[0].0;
    assert!(spread >= Duration::from_millis(1800), "{spread:?}");
    let e = exporter.scrape_until("none waits", |e| e.value("cekura_api_polls_waiting", &[]) == Some(0.0)).await;
    assert!(e.value("cekura_api_throttle_seconds_total", &[]).unwrap() > 8.0);
}

#[tokio::test]
async fn no_more_than_max_in_flight_requests_are_under_way() {
    let upstream = Upstream::start().await;
    for i in 0..9 {
        let slow = Reply::After(Duration::from_millis(400), Box::new(Reply::task("completed", None)));
        upstream.script(&format!("p{i}"), [slow]);
    }
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key: k, max_in_flight: 3, requests_per_second: 100}}}}\n\
         watches:\n{}",
        upstream.url(),
        watches(9)
    );
    let exporter = Exporter::with(config).start().await;
    exporter.scrape_until("three are under way", |e| e.value("cekura_api_requests_in_flight", &[]) == Some(3.0)).await;
    eventually("all were polled", async || (upstream.requests().len() == 9).then_some(())).await;
    let times: Vec<_> = upstream.requests().iter().map(|(at, _)| *at).collect();
    for i in 3..9 {
        let held: Duration = times[i] - times[i - 3];
        assert!(held >= Duration::from_millis(350), "request {i} came {held:?} after the third one before it");
    }
}

#[tokio::test]
async fn each_api_has_its_own_key_and_budget() {
    let (slow, fast) = (Upstream::start().await, Upstream::start().await);
    fast.script("f", [Reply::task("completed", None)]);
    let config = format!(
        "apis:\n  slow: {{base_url: {}, api_key: key-of-slow, requests_per_second: 0.001}}\n  \
         fast: {{base_url: {}, api_key: key-of-fast}}\n\
         watches:\n  - {{name: s1, agent_id: 1, progress_id: s, api: slow}}\n  \
         - {{name: s2, agent_id: 1, progress_id: s, api: slow}}\n  \
         - {{name: f, agent_id: 1, progress_id: f, api: fast}}\n",
        slow.url(),
        fast.url()
    );
    let exporter = Exporter::with(config).start().await;
    let e = exporter.scrape_until("f completed", |e| e.status("f").as_deref() == Some("completed")).await;
    assert_eq!(e.value("cekura_api_polls_waiting", &[("api", "fast")]), Some(0.0));
    let e = exporter
        .scrape_until("s2 waits", |e| e.value("cekura_api_polls_waiting", &[("api", "slow")]) == Some(1.0))
        .await;
    assert_eq!(e.status("s2").as_deref(), Some("unknown"));
    let keys = |upstream: &Upstream| -> HashMap<String, usize> {
        upstream.requests().iter().fold(HashMap::new(), |mut keys, (_, request)| {
            *keys.entry(request.header("x-cekura-api-key").unwrap().to_owned()).or_default() += 1;
            keys
        })
    };
    eventually("slow was polled", async || (!slow.requests().is_empty()).then_some(())).await;
    assert_eq!(keys(&slow), HashMap::from([("key-of-slow".to_owned(), 1)]));
    assert_eq!(keys(&fast), HashMap::from([("key-of-fast".to_owned(), 1)]));
}

#[tokio::test]
async fn retry_after_pauses_the_whole_api_and_shows_until_when() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::with_header(429, "retry-after", "2", "{}"), Reply::task("completed", None)]);
    upstream.script("p1", [Reply::task("in_progress", None)]);
    let exporter = Exporter::polling(&upstream, &watches(2)).start().await;
    // The pause may show a moment before what it came with.
    let is_paused = |e: &Exposition| {
        e.count("cekura_api_paused_until_timestamp_seconds") == 1
            && e.poll_error("w0").as_deref() == Some("rate_limited")
    };
    exporter.scrape_until("the API is paused", is_paused).await;
    let paused = Instant::now();
    let polls = upstream.requests().len();
    exporter.scrape_until("the pause is over", |e| e.count("cekura_api_paused_until_timestamp_seconds") == 0).await;
    let after = upstream.requests();
    let during = after[polls..].iter().filter(|(at, _)| *at < paused + Duration::from_secs(1)).count();
    // One that was under way when the answer came may still arrive.
    assert!(during <= 1, "{during} polls in the pause");
    exporter.scrape_until("w0 completed", |e| e.status("w0").as_deref() == Some("completed")).await;
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes_and_a_missing_one_sends_nothing() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::task("in_progress", None)]);
    let config = format!(
        "apis: {{default: {{base_url: {}, api_key_file: key}}}}\n\
         polling: {{min_interval: 50ms, max_interval: 50ms, backoff_max: 50ms}}\nwatches:\n{}",
        upstream.url(),
        watches(1)
    );
    let exporter = Exporter::with(config).start().await;
    let e = exporter.scrape_until("there is no key", |e| e.poll_error("w0").as_deref() == Some("credentials")).await;
    assert!(e.value("cekura_api_requests_total", &[("outcome", "credentials")]).unwrap() >= 1.0);
    assert_eq!(e.value("cekura_api_request_duration_seconds_count", &[]), Some(0.0));
    assert!(upstream.requests().is_empty());
    assert_eq!(exporter.logged("no usable api key", 1).await.len(), 1);
    for key in ["first-key", "second-key"] {
        std::fs::write(exporter.folder().join("key"), format!("{key}\n")).unwrap();
        eventually("the key is used", async || {
            let requests = upstream.requests();
            let last = requests.last().and_then(|(_, request)| request.header("x-cekura-api-key"));
            (last == Some(key)).then_some(())
        })
        .await;
    }
    std::fs::remove_file(exporter.folder().join("key")).unwrap();
    exporter.scrape_until("the key is gone", |e| e.poll_error("w0").as_deref() == Some("credentials")).await;
}

#[tokio::test]
async fn an_api_is_up_unless_all_of_its_polls_fail_whatever_the_reason() {
    let upstream = Upstream::start().await;
    let up = |e: &Exposition| e.value("cekura_api_up", &[("api", "default")]);
    let exporter = Exporter::with(Exporter::quick(&upstream, "")).start().await;
    assert_eq!(up(&exporter.scrape().await), None, "no poll has ended");
    exporter.reconfigure(Exporter::quick(&upstream, &format!("watches:\n{}", watches(1))));
    assert_eq!(exporter.reload().await.0, 200);
    for code in [404, 403, 400, 429, 503, 418] {
        upstream.script("p0", [Reply::task("in_progress", None)]);
        exporter.scrape_until("the API is up", |e| up(e) == Some(1.0)).await;
        upstream.script("p0", [Reply::detail(code, "no")]);
        exporter.scrape_until(&format!("all is {code}"), |e| up(e) == Some(0.0)).await;
    }
}

#[tokio::test]
async fn one_toggle_that_is_answered_keeps_its_api_up_and_another_api_tells_nothing_of_it() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Reply::task("in_progress", None)]);
    upstream.script("p1", [Reply::detail(403, "no")]);
    let config = format!(
        "apis:\n  default: {{base_url: \"{url}\", api_key: k}}\n  wrong: {{base_url: \"{url}\", api_key: k}}\n\
         polling: {{min_interval: 30ms, max_interval: 60ms, backoff_max: 60ms}}\nwatches:\n{}  \
         - {{name: w, agent_id: 1, progress_id: unknown, api: wrong}}\n",
        watches(2),
        url = upstream.url()
    );
    let exporter = Exporter::with(config).start().await;
    let refused = |e: &Exposition| e.value("cekura_toggle_poll_failures_total", &[("toggle", "w1")]);
    let e = exporter.scrape_until("it was refused often", |e| refused(e) >= Some(5.0)).await;
    assert_eq!(e.value("cekura_api_up", &[("api", "default")]), Some(1.0));
    assert_eq!(e.value("cekura_api_up", &[("api", "wrong")]), Some(0.0));
}
