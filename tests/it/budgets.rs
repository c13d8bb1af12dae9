//! Budgets, pauses and outages: what the upstream is spared.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cekura_exporter::demo::fault::{Fault, throttled};
use cekura_exporter::demo::simulator::Reply;

use crate::harness::{Exporter, Upstream, eventually};

/// A configuration with this many watches, `w0` of `p0` and so on.
fn config(upstream: &Upstream, api: &str, polling: &str, count: usize) -> String {
    let watch = |i: usize| format!("  - {{name: w{i}, agent_id: 1, progress_id: p{i}}}\n");
    let watches: String = (0..count).map(watch).collect();
    format!("apis: {{default: {{base_url: {}, {api}}}}}\npolling: {{{polling}}}\nwatches:\n{watches}", upstream.url())
}

fn script_all(upstream: &Upstream, count: usize, reply: &Reply) {
    (0..count).for_each(|i| upstream.script(&format!("p{i}"), [reply.clone()]));
}

#[tokio::test]
async fn under_a_spent_budget_every_watch_has_its_turn() {
    let upstream = Upstream::start().await;
    script_all(&upstream, 30, &Reply::task("in_progress", None));
    let api = "api_key: k, requests_per_second: 20";
    let polling = "min_interval: 50ms, max_interval: 50ms";
    let exporter = Exporter::with(config(&upstream, api, polling, 30)).start().await;
    eventually("a watch was polled thrice", async || (upstream.requests().len() >= 75).then_some(())).await;
    let mut polls: HashMap<String, usize> = HashMap::new();
    for (_, request) in upstream.requests() {
        let count = polls.entry(request.progress_id().unwrap()).or_default();
        *count += 1;
        let thrice = *count >= 3;
        assert!(!thrice || polls.len() == 30, "one was polled a third time before all were polled");
    }
    let requests = upstream.requests();
    for (i, (at, _)) in requests.iter().enumerate() {
        // A busy machine takes one request up to a fifth of a second later than another.
        let nearly_a_second = *at + Duration::from_millis(800);
        let within = requests[i..].iter().take_while(|(later, _)| *later < nearly_a_second).count();
        // What the bucket holds, and what it earns in a second.
        assert!(within <= 41, "{within} requests within a second");
    }
    let e = exporter.scrape().await;
    assert!(e.value("cekura_api_throttle_seconds_total", &[]).unwrap() > 1.0);
    let late = e.value("cekura_exporter_poll_lag_seconds_bucket", &[("api", "default"), ("le", "0.5")]).unwrap();
    assert!(
        late < e.value("cekura_exporter_poll_lag_seconds_count", &[("api", "default")]).unwrap(),
        "no poll was late"
    );
}

#[tokio::test]
async fn throttling_without_retry_after_backs_off_that_watch_alone() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Fault::Throttled.reply()]);
    upstream.script("p1", [Reply::task("in_progress", None)]);
    let polling = "min_interval: 100ms, max_interval: 100ms, backoff_max: 1h";
    let exporter = Exporter::with(config(&upstream, "api_key: k", polling, 2)).start().await;
    eventually("w1 goes on", async || (upstream.polls_of("p1") >= 20).then_some(())).await;
    assert!(upstream.polls_of("p0") <= 6, "w0 was polled {} times", upstream.polls_of("p0"));
    assert_eq!(exporter.scrape().await.count("cekura_api_paused_until_timestamp_seconds"), 0);
}

#[tokio::test]
async fn retry_after_pauses_the_whole_api_in_seconds_or_until_a_date_for_an_hour_at_most() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(15));
    for (status, asked, seconds) in
        [(429, "600", 600.0), (503, "600", 600.0), (429, &*date, 900.0), (503, "99999999999999999999", 3600.0)]
    {
        let upstream = Upstream::start().await;
        upstream.script("p0", [throttled(status, asked)]);
        upstream.script("p1", [Reply::task("in_progress", None)]);
        let polling = "min_interval: 50ms, max_interval: 50ms, backoff_max: 50ms";
        let exporter = Exporter::with(config(&upstream, "api_key: k", polling, 2)).start().await;
        let name = "cekura_api_paused_until_timestamp_seconds";
        let e = exporter.scrape_until("it is paused", |e| e.count(name) == 1).await;
        let until = e.value(name, &[("api", "default")]).unwrap();
        // The clock went on since the pause began, so it may only be shorter by now.
        assert!(until - now() <= seconds + 1.0 && until - now() > seconds - 60.0, "{asked}: {}", until - now());
        let e = exporter.scrape_until("both wait", |e| e.value("cekura_api_polls_waiting", &[]) == Some(2.0)).await;
        assert_eq!(e.value("cekura_api_requests_in_flight", &[]), Some(0.0));
    }
}

#[tokio::test]
async fn an_api_that_is_down_is_probed_by_one_request_at_a_time_until_it_answers_and_then_all_resume() {
    let upstream = Upstream::start().await;
    script_all(&upstream, 20, &Fault::BadGateway.reply());
    let api = "api_key: k, requests_per_second: 10000";
    let polling = "min_interval: 100ms, max_interval: 400ms, backoff_max: 400ms";
    let exporter = Exporter::with(config(&upstream, api, polling, 20)).start().await;
    exporter.logged("api is down: one probe at a time", 1).await;
    // What was under way then has ended when the API is paused and nothing is.
    exporter
        .scrape_until("it is paused", |e| {
            e.count("cekura_api_paused_until_timestamp_seconds") == 1
                && e.value("cekura_api_requests_in_flight", &[]) == Some(0.0)
        })
        .await;
    let before = upstream.requests().len();
    eventually("it was probed five times", async || (upstream.requests().len() >= before + 5).then_some(())).await;
    let probes = upstream.requests();
    for pair in probes[before..before + 5].windows(2) {
        let between = pair[1].0 - pair[0].0;
        assert!(between >= Duration::from_millis(45), "two probes within {between:?}");
    }
    script_all(&upstream, 20, &Reply::task("completed", Some(true)));
    let e = exporter
        .scrape_until("all completed", |e| (0..20).all(|i| e.status(&format!("w{i}")).as_deref() == Some("completed")))
        .await;
    assert_eq!(e.count("cekura_api_paused_until_timestamp_seconds"), 0);
    assert_eq!(exporter.logged("api is back: polls resume", 1).await.len(), 1);
}

#[tokio::test]
async fn an_api_is_probed_even_while_all_of_its_watches_have_backed_off_for_longer() {
    let upstream = Upstream::start().await;
    script_all(&upstream, 3, &Fault::BadGateway.reply());
    let polling = "min_interval: 50ms, max_interval: 200ms, backoff_max: 1d";
    let exporter = Exporter::with(config(&upstream, "api_key: k", polling, 3)).start().await;
    exporter.logged("api is down: one probe at a time", 1).await;
    // Without probes, twenty failures would take days of backoff.
    eventually("it was probed", async || (upstream.requests().len() >= 60).then_some(())).await;
    script_all(&upstream, 3, &Reply::task("completed", None));
    exporter
        .scrape_until("all completed", |e| (0..3).all(|i| e.status(&format!("w{i}")).as_deref() == Some("completed")))
        .await;
}

#[tokio::test]
async fn a_majority_of_bad_watches_backs_off_alone_and_the_good_ones_go_on() {
    let upstream = Upstream::start().await;
    script_all(&upstream, 5, &Reply::task("in_progress", None));
    script_all(&upstream, 3, &Fault::Forbidden.reply());
    let polling = "min_interval: 100ms, max_interval: 100ms, backoff_max: 1h";
    let exporter = Exporter::with(config(&upstream, "api_key: k, requests_per_second: 1000", polling, 5)).start().await;
    eventually("the good ones go on", async || (upstream.polls_of("p4") >= 40).then_some(())).await;
    assert!(upstream.polls_of("p3") >= 20, "{}", upstream.polls_of("p3"));
    for bad in ["p0", "p1", "p2"] {
        assert!(upstream.polls_of(bad) <= 10, "{bad} was polled {} times", upstream.polls_of(bad));
    }
    assert!(exporter.logs_of("api is down: one probe at a time").len() <= 1);
}

#[tokio::test]
async fn a_refusal_of_the_old_key_that_comes_after_the_new_one_is_held_against_nobody() {
    let upstream = Upstream::start().await;
    for i in 0..4 {
        let slow = Reply::After(Duration::from_secs(5), Box::new(Fault::Unauthorized.reply()));
        upstream.script(&format!("p{i}"), [slow, Reply::task("in_progress", None)]);
    }
    let polling = "min_interval: 30m, max_interval: 30m, backoff_max: 1h";
    let api = "api_key_file: key, timeout: 20s";
    let start = Exporter::with(config(&upstream, api, polling, 4)).file("key", "refused-key");
    let exporter = start.start().await;
    eventually("all are under way", async || (upstream.requests().len() == 4).then_some(())).await;
    std::fs::write(exporter.folder().join("key"), "better-key").unwrap();
    exporter
        .scrape_until("all answer", |e| (0..4).all(|i| e.status(&format!("w{i}")).as_deref() == Some("in_progress")))
        .await;
    assert_eq!(exporter.logs_of("api is down: one probe at a time").len(), 0);
}

#[tokio::test]
async fn rechecks_of_finished_runs_are_probes_too_when_the_api_is_down() {
    let upstream = Upstream::start().await;
    script_all(&upstream, 9, &Reply::task("completed", None));
    let polling = "min_interval: 100ms, max_interval: 1h, backoff_max: 1h, recheck_finished: 100ms";
    let api = "api_key: k, requests_per_second: 1000";
    let exporter = Exporter::with(config(&upstream, api, polling, 9)).start().await;
    eventually("all are rechecked", async || (upstream.requests().len() >= 30).then_some(())).await;
    script_all(&upstream, 9, &Fault::BadGateway.reply());
    exporter.logged("api is down: one probe at a time", 1).await;
    script_all(&upstream, 9, &Reply::task("completed", None));
    exporter.logged("api is back: polls resume", 1).await;
}

#[tokio::test]
async fn one_watch_that_fails_keeps_no_other_from_being_polled() {
    let upstream = Upstream::start().await;
    upstream.script("p0", [Fault::ServerError.reply()]);
    upstream.script("p1", [Reply::task("in_progress", None)]);
    let polling = "min_interval: 50ms, max_interval: 50ms, backoff_max: 1h";
    let exporter = Exporter::with(config(&upstream, "api_key: k", polling, 2)).start().await;
    eventually("w1 goes on", async || (upstream.polls_of("p1") >= 20).then_some(())).await;
    assert_eq!(exporter.logs_of("api is down: one probe at a time").len(), 0);
}

#[tokio::test]
async fn a_refused_key_is_not_hammered_and_a_new_one_is_tried_at_once() {
    for (fault, count) in [(Fault::Unauthorized, 2), (Fault::Forbidden, 2), (Fault::Unauthorized, 9)] {
        let upstream = Upstream::start().await;
        for i in 0..count {
            upstream.script(&format!("p{i}"), [fault.reply(), Reply::task("in_progress", None)]);
        }
        let polling = "min_interval: 30m, max_interval: 30m, backoff_max: 1h";
        let api = "api_key_file: key, requests_per_second: 1000";
        let exporter = Exporter::with(config(&upstream, api, polling, count)).start().await;
        let key = exporter.folder().join("key");
        std::fs::write(&key, "refused-key").unwrap();
        exporter
            .scrape_until("the key is refused", |e| e.poll_error("w0").as_deref() == Some(fault.reason().as_str()))
            .await;
        let refused = Instant::now();
        std::fs::write(&key, "better-key").unwrap();
        exporter
            .scrape_until("all answer", |e| {
                (0..count).all(|i| e.status(&format!("w{i}")).as_deref() == Some("in_progress"))
            })
            .await;
        let with_old = upstream.requests().iter().filter(|(at, _)| *at < refused).count();
        assert!(with_old <= count, "{fault:?}: {with_old} requests with a key that was refused");
    }
}
