//! The soak test: 5,000 watches for ten minutes against an upstream that does everything wrong now
//! and then. Run it with `cargo test --release --test soak -- --nocapture`; the variable
//! `SOAK_SECONDS` sets another time.
//!
//! Meanwhile clients give up requests half way, the configuration is reloaded, now and then with files that
//! cannot be read, and the exporter's clock is set ahead and back.
//!
//! Tasks finish over the first four fifths of the time. Faults are injected at random until then,
//! and for a twentieth of the time, from the middle on, every answer is 502. In the last fifth the
//! upstream is good, so that at the end every watch must be shown right.

// Every build of it is a test anyway; clippy excuses unwrap and panic only where it sees this.
#![cfg(test)]

#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it is that of the integration tests")]
mod harness;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cekura_exporter::demo::fault::Fault;
use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use harness::{Exporter, Exposition, KEY, by_clock, set_clock};

const WATCHES: u32 = 5000;

/// One answer in so many is a fault.
const FAULT_EVERY: u32 = 40;

/// Of the faults that pause the whole API, one in so many is kept: each holds up all watches.
const PAUSES_KEPT: u32 = 20;

/// The upstream, and what it did.
struct Upstream {
    begun: Instant,
    whole: Duration,
    answers: Mutex<HashMap<&'static str, u64>>,
}

/// What the exporter held at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    resident: f64,
    descriptors: f64,
    threads: f64,
    polls: f64,
}

impl Upstream {
    fn answer(&self, request: &Request) -> Reply {
        let part = self.begun.elapsed().as_secs_f64() / self.whole.as_secs_f64();
        let fault = self.fault(part);
        let outcome = fault.map_or("ok", |fault| fault.reason().as_str());
        *self.answers.lock().unwrap().entry(outcome).or_default() += 1;
        fault.map_or_else(|| task(&request.progress_id().unwrap(), part), Fault::reply)
    }

    /// What goes wrong this time, if anything does.
    fn fault(&self, part: f64) -> Option<Fault> {
        if part > 0.8 {
            return None;
        }
        if (0.5..0.55).contains(&part) {
            return Some(Fault::BadGateway);
        }
        let fault = Fault::ALL[fastrand::usize(..Fault::ALL.len())];
        let pauses = matches!(fault, Fault::ThrottledForASecond | Fault::UnavailableForASecond);
        (fastrand::u32(..FAULT_EVERY) == 0 && !(pauses && fastrand::u32(..PAUSES_KEPT) > 0)).then_some(fault)
    }
}

/// The number of a task, which its id ends with.
fn number(progress_id: &str) -> u32 {
    progress_id.rsplit('-').next().unwrap().parse().unwrap()
}

/// How a task ends.
fn ending(number: u32) -> (&'static str, Option<bool>) {
    match number % 4 {
        0 => ("failed", None),
        1 => ("completed", Some(false)),
        _ => ("completed", Some(true)),
    }
}

/// The answer of a task when this part of the time has passed.
fn task(progress_id: &str, part: f64) -> Reply {
    let number = number(progress_id);
    let (status, mock_enabled) = ending(number);
    if part < 0.8 * f64::from(number) / f64::from(WATCHES) {
        Reply::task("in_progress", None)
    } else {
        Reply::task(status, mock_enabled)
    }
}

fn configuration(url: &str) -> String {
    let watch = |i| format!("  - {{name: w{i}, agent_id: {}, progress_id: task-{i}, expect: enabled}}\n", i + 1);
    let watches: String = (0..WATCHES).map(watch).collect();
    format!(
        "apis: {{default: {{base_url: {url}, api_key: {KEY}, timeout: 2s, requests_per_second: 5000, max_in_flight: 64}}}}\n\
         polling: {{min_interval: 2s, max_interval: 10s, backoff_max: 10s}}\nwatches:\n{watches}"
    )
}

fn sample(exporter: &Exporter, e: &Exposition, begun: Instant) -> Sample {
    let value = |name| e.value(name, &[]).unwrap();
    Sample {
        at: begun.elapsed(),
        resident: value("process_resident_memory_bytes") / 1024.0 / 1024.0,
        descriptors: value("process_open_fds"),
        threads: threads(exporter),
        polls: polls(e),
    }
}

fn threads(exporter: &Exporter) -> f64 {
    let status = exporter.proc("status");
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    threads.trim().parse().unwrap()
}

/// Gives up requests at whatever point they are, for ever. What they ask for is another one each time.
async fn give_up_requests(http: reqwest::Client, url: String) {
    for count in 0u64.. {
        let path = match count % 4 {
            0 => format!("/api/v1/toggles?after=abandoned-{count}"),
            1 => format!("/api/v1/toggles/w{}?wait=5m", count % 5000),
            2 => format!("/?q=abandoned-{count}"),
            _ => "/metrics".to_owned(),
        };
        let patience = Duration::from_millis(fastrand::u64(1..60));
        let _ = http.get(format!("{url}{path}")).timeout(patience).send().await;
    }
}

/// Reloads again and again, now and then with files whose reading does not end or fails.
async fn reload(exporter: &Exporter, config: &str) {
    let fifo = exporter.folder().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let key = format!("api_key: {KEY}");
    for bad in ["api_key_file: fifo", "api_key_file: /dev/zero", "api_key: k, ca_file: fifo", "api_key: k, ca_file: ."]
    {
        exporter.reconfigure(config.replace(&key, bad));
        // Whatever comes of it: the next one is good.
        exporter.reload().await;
    }
    exporter.reconfigure(config);
    assert_eq!(exporter.reload().await.0, 200);
    std::fs::remove_file(fifo).unwrap();
}

/// The sum over all series of a family.
fn sum(e: &Exposition, name: &str) -> f64 {
    let of_family = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    e.text.lines().filter(of_family).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn polls(e: &Exposition) -> f64 {
    sum(e, "cekura_api_requests_total")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_grows_while_everything_goes_wrong() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |text| text.parse().expect("SOAK_SECONDS is a number"));
    let whole = Duration::from_secs(seconds);
    let upstream = Arc::new(Upstream { begun: Instant::now(), whole, answers: Mutex::default() });
    let answering = upstream.clone();
    let simulator = Simulator::start(move |request| answering.answer(request)).await.unwrap();
    let config = configuration(&format!("http://{}", simulator.address()));
    // The log would be kept here, and is of no interest but for its first lines.
    let levels = "--log.level=error,cekura_exporter=error,cekura_exporter::http=info";
    let exporter = by_clock(Exporter::with(config.clone()).arg(levels), 0.0).start().await;
    let abandoning: Vec<_> =
        (0..8).map(|_| tokio::spawn(give_up_requests(exporter.http(), exporter.urls[0].clone()))).collect();

    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(whole / 60);
    while upstream.begun.elapsed() < whole {
        ticks.tick().await;
        let taken = sample(&exporter, &exporter.scrape().await, upstream.begun);
        println!(
            "{:4.0} s  {:9.0} polls  {:6.1} MiB  {:4.0} descriptors  {:3.0} threads",
            taken.at.as_secs_f64(),
            taken.polls,
            taken.resident,
            taken.descriptors,
            taken.threads
        );
        samples.push(taken);
        // A year ahead, right again, an hour back.
        set_clock(&exporter, [0.0, 31_536_000.0, 0.0, -3600.0][samples.len() % 4]);
        if taken.at < whole.mul_f64(0.7) {
            reload(&exporter, &config).await;
        }
    }
    abandoning.iter().for_each(tokio::task::JoinHandle::abort);

    let e = exporter.scrape_until("nothing is under way", |e| sum(e, "cekura_api_requests_in_flight") < 0.5).await;
    every_watch_is_shown_right(&e);
    the_counters_are_those_of_the_upstream(&e, &upstream.answers.lock().unwrap());
    memory_descriptors_and_threads_are_flat(&samples);
}

fn every_watch_is_shown_right(e: &Exposition) {
    for i in 0..WATCHES {
        let name = format!("w{i}");
        let (status, mock_enabled) = ending(i);
        assert_eq!(e.status(&name).as_deref(), Some(status), "{name}");
        let toggle = [("toggle", name.as_str())];
        assert_eq!(e.value("cekura_toggle_mock_enabled", &toggle), mock_enabled.map(|on| f64::from(u8::from(on))));
        let mismatch = status == "completed" && mock_enabled == Some(false);
        assert_eq!(e.value("cekura_toggle_mock_mismatch", &toggle), Some(f64::from(u8::from(mismatch))), "{name}");
        assert_eq!(e.value("cekura_toggle_up", &toggle), Some(1.0), "{name}");
    }
    for name in ["cekura_toggle_info", "cekura_toggle_up", "cekura_toggle_finished_timestamp_seconds"] {
        assert_eq!(e.count(name), WATCHES as usize, "{name}");
    }
    assert!((sum(e, "cekura_toggle_finished_total") - f64::from(WATCHES)).abs() < 0.5);
    assert!((sum(e, "cekura_api_runs_finished_total") - f64::from(WATCHES)).abs() < 0.5);
}

/// Each answer was counted as what it was, but for `aborted`: a request that is reset on a connection that was
/// kept is sent once more, and one may be lost on a connection that the upstream had just closed.
fn the_counters_are_those_of_the_upstream(e: &Exposition, answers: &HashMap<&'static str, u64>) {
    let mut outcomes: Vec<_> = answers.iter().collect();
    outcomes.sort_unstable();
    for (outcome, answered) in outcomes {
        let counted = e.value("cekura_api_requests_total", &[("outcome", outcome)]).unwrap();
        println!("{outcome:>18}  answered {answered:8}  counted {counted:8.0}");
        let answered = f64::from(u32::try_from(*answered).unwrap());
        if *outcome == "aborted" {
            assert!(counted > 0.0 && counted - answered <= 0.001 * polls(e), "{outcome}");
        } else {
            assert!((counted - answered).abs() < 0.5, "{outcome}");
        }
    }
    let by_watch = sum(e, "cekura_toggle_polls_total");
    assert!((by_watch - polls(e)).abs() < 0.5, "{by_watch} polls by watch, {} by outcome", polls(e));
}

/// Over the last half, the end is no more than a tenth above the begin.
fn memory_descriptors_and_threads_are_flat(samples: &[Sample]) {
    let half = samples[samples.len() / 2];
    let last = samples[samples.len() - 1];
    assert!(last.resident <= half.resident * 1.1 + 1.0, "{half:?} {last:?}");
    assert!(last.descriptors <= half.descriptors * 1.1 + 8.0, "{half:?} {last:?}");
    assert!(last.threads <= half.threads + 2.0, "{half:?} {last:?}");
}
