//! Several exporters that share a database: one of them polls and exposes each watch, and all answer for all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Exporter, Exposition, Postgres, Proxy, Start, Upstream, by_clock, eventually};

/// The lease of the replicas: the shortest that can be configured.
const LEASE: Duration = Duration::from_secs(3);

/// How many watches each test has in its configuration: enough that each of three replicas has some.
const WATCHES: u64 = 24;

fn configuration(upstream: &Upstream, url: &str, watches: u64) -> String {
    let watches: Vec<_> = (1..=watches).map(watch).collect();
    let watches = watches.concat();
    Exporter::quick(
        upstream,
        &format!(
            "watches:\n{watches}database: {{url: \"{url}\", lease: {LEASE:?}}}\nregistrations: {{enabled: true}}\n"
        ),
    )
}

fn watch(agent: u64) -> String {
    format!("- {{name: w{agent}, agent_id: {agent}, progress_id: p{agent}}}\n")
}

fn replica(upstream: &Upstream, url: &str) -> Start {
    Exporter::with(configuration(upstream, url, WATCHES))
}

/// Starts two replicas at the same time.
async fn two_replicas(upstream: &Upstream, url: &str) -> [Exporter; 2] {
    tokio::join!(replica(upstream, url).start(), replica(upstream, url).start()).into()
}

/// Starts three replicas at the same time.
async fn three_replicas(upstream: &Upstream, url: &str) -> [Exporter; 3] {
    let start = || replica(upstream, url).start();
    tokio::join!(start(), start(), start()).into()
}

fn task(agent: u64, progress_id: &str) -> Value {
    json!({"agent_id": agent, "progress_id": progress_id})
}

/// How many shards a replica owns.
fn shards(exposition: &Exposition) -> u64 {
    whole(exposition.value("cekura_exporter_shards", &[("state", "owned")]))
}

/// The value of a series that counts something; 0 without one.
fn whole(value: Option<f64>) -> u64 {
    format!("{:.0}", value.unwrap_or_default()).parse().unwrap()
}

/// The toggles that are exposed, and by how many of the replicas.
async fn exposed(replicas: &[&Exporter]) -> BTreeMap<String, usize> {
    let mut toggles = BTreeMap::new();
    for replica in replicas {
        let text = replica.scrape().await.text;
        for line in text.lines().filter(|line| line.starts_with("cekura_toggle_info{")) {
            let name = line.split("toggle=\"").nth(1).unwrap().split('"').next().unwrap();
            *toggles.entry(name.to_owned()).or_default() += 1;
        }
    }
    toggles
}

/// Waits until these replicas, and no others, share all shards, and each watch is exposed by one of them.
async fn share(replicas: &[&Exporter], watches: u64) {
    eventually("the replicas share everything", async || {
        let mut owned = 0;
        for replica in replicas {
            let exposition = replica.scrape().await;
            let known = whole(exposition.value("cekura_exporter_replicas", &[]));
            (known == replicas.len() as u64 && shards(&exposition) > 0).then_some(())?;
            owned += shards(&exposition);
        }
        (owned == 64).then_some(())?;
        let exposed = exposed(replicas).await;
        (exposed.len() as u64 == watches && exposed.values().all(|count| *count == 1)).then_some(())
    })
    .await;
}

/// The sum of a counter of a toggle over those that expose it.
async fn counted(replicas: &[&Exporter], name: &str, labels: &[(&str, &str)]) -> u64 {
    let mut sum = 0;
    for replica in replicas {
        sum += whole(replica.scrape().await.value(name, labels));
    }
    sum
}

#[tokio::test]
async fn each_watch_is_exposed_by_one_replica_and_each_replica_answers_for_all() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let [a, b, c] = three_replicas(&upstream, &postgres.url()).await;
    let all = [&a, &b, &c];
    share(&all, WATCHES).await;
    for replica in all {
        assert_eq!(replica.scrape().await.value("cekura_exporter_database_up", &[]), Some(1.0));
        let (status, list) = replica.get("/api/v1/toggles").await;
        assert_eq!((status, list.matches("\"progress_id\"").count() as u64), (200, WATCHES));
    }
    let polled_by = |toggle: &Value| toggle["replica"].as_str().unwrap().to_owned();
    let mut by_replica = BTreeMap::<_, usize>::new();
    for agent in 1..=WATCHES {
        let name = format!("w{agent}");
        let seen = [polled_by(&a.toggle(&name).await), polled_by(&b.toggle(&name).await)];
        assert_eq!(seen[0], seen[1]);
        assert!(c.get("/").await.1.contains(&format!("polled by {}", seen[0])));
        let polled_by = format!("<dt>Polled by</dt><dd><a href=\"../replicas\">{}</a>", seen[0]);
        eventually("its page says so", async || {
            c.get(&format!("/toggles/{name}")).await.1.contains(&polled_by).then_some(())
        })
        .await;
        *by_replica.entry(seen[0].clone()).or_default() += 1;
    }
    assert_eq!(by_replica.len(), 3, "{by_replica:?}");
    for agent in 100..112_u64 {
        let name = format!("r{agent}");
        let (put, get) = if agent % 2 == 0 { (0, 1) } else { (2, 0) };
        assert_eq!(all[put].put(&name, &task(agent, "first")).await.0, 201);
        assert_eq!(all[get].get(&format!("/toggles/{name}")).await.0, 200, "its page is there at once");
        assert_eq!(all[get].toggle(&name).await["progress_id"], "first");
        assert_eq!(all[get].put(&name, &task(agent, "second")).await.0, 200);
        assert_eq!(all[put].toggle(&name).await["progress_id"], "second");
        assert_eq!(all[get].put(&name, &task(agent, "second")).await.0, 200, "the same again");
    }
    share(&all, WATCHES + 12).await;
    for (delete, name) in all.iter().zip(["r100", "r101", "r102"]) {
        assert_eq!(delete.delete(name).await, 204);
        for replica in all {
            assert_eq!(replica.get(&format!("/api/v1/toggles/{name}")).await.0, 404);
            assert_eq!(replica.delete(name).await, 404);
        }
    }
    share(&all, WATCHES + 9).await;
}

#[tokio::test]
async fn each_replica_makes_the_debug_polls_that_it_is_asked_for_itself() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    upstream.script("p1", [Reply::task("in_progress", None)]);
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    share(&[&a, &b], WATCHES).await;
    assert_eq!(a.put("new", &task(1000, "p1")).await.0, 201);
    let mut replicas = Vec::new();
    for replica in [&a, &b] {
        for name in ["w1", "new"] {
            let response = replica.request(Method::POST, &format!("/-/debug/poll?toggle={name}")).await;
            assert_eq!(response.status(), 200, "{name}");
            let report: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            assert_eq!(report["answer"]["status"], "in_progress", "{report}");
            replicas.push(report["replica"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!((&replicas[0], &replicas[2]), (&replicas[1], &replicas[3]));
    assert_ne!(replicas[0], replicas[2]);
    let polled_by = a.toggle("w1").await["replica"].as_str().unwrap().to_owned();
    assert!(replicas.contains(&polled_by), "{polled_by}: {replicas:?}");
}

#[tokio::test]
async fn a_registration_is_in_the_lists_of_all_replicas_even_while_nobody_polls_it() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let config = configuration(&upstream, &postgres.url(), 0).replace("lease: 3s", "lease: 10m");
    let start = || Exporter::with(config.clone()).start();
    let (a, b, c) = tokio::join!(start(), start(), start());
    share(&[&a, &b, &c], 0).await;
    b.signal(Signal::STOP);
    for agent in 100..110 {
        assert_eq!(a.put(&format!("r{agent}"), &task(agent, "p")).await.0, 201);
    }
    eventually("the other one lists them, too", async || {
        (c.get("/api/v1/toggles").await.1.matches("\"progress_id\"").count() == 10).then_some(())
    })
    .await;
    b.signal(Signal::CONT);
}

#[tokio::test]
async fn a_wait_on_any_replica_ends_when_the_run_does_on_another() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    share(&[&a, &b], WATCHES).await;
    for agent in 1..=4 {
        upstream.script(&format!("p{agent}"), [Reply::task("completed", Some(true))]);
        for replica in [&a, &b] {
            let begun = Instant::now();
            let (status, toggle) = replica.get(&format!("/api/v1/toggles/w{agent}?wait=1m&progress_id=p{agent}")).await;
            assert_eq!(status, 200);
            assert!(toggle.contains("\"status\":\"completed\""), "{toggle}");
            assert!(begun.elapsed() < Duration::from_secs(50));
            assert_eq!(replica.get(&format!("/api/v1/toggles/w{agent}?progress_id=other")).await.0, 409);
        }
        let events = b.get(&format!("/api/v1/toggles/w{agent}/events")).await.1;
        assert!(events.contains("completed"), "{events}");
    }
}

#[tokio::test]
async fn what_the_api_says_of_an_agent_can_be_awaited_and_forgotten_on_any_replica() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let agents: Vec<_> = (1..=4).map(|agent| format!("- {{agent_id: {agent}}}\n")).collect();
    for agent in 1..=4 {
        upstream.mock_status(agent, [Reply::mock_status(false, "vapi")]);
        upstream.script(&format!("p{agent}"), [Reply::task("completed", Some(true))]);
    }
    // No other toggles, because agents are asked while no toggle waits, and those of the others fail again and again.
    let config = format!("{}agents:\n{}", configuration(&upstream, &postgres.url(), 4), agents.concat());
    let start = || Exporter::with(config.clone()).start();
    let (a, b) = tokio::join!(start(), start());
    share(&[&a, &b], 4).await;
    for agent in 1..=4 {
        let path = format!("/api/v1/agents/default/{agent}");
        for replica in [&a, &b] {
            eventually("what the toggle told is known", async || {
                replica.get(&path).await.1.contains("\"mock_enabled\":true").then_some(())
            })
            .await;
        }
        assert_eq!(a.request(Method::DELETE, &path).await.status(), 204);
        assert_eq!(a.request(Method::DELETE, &path).await.status(), 404, "it is forgotten");
        eventually("the other one knows it, too", async || {
            b.get(&path).await.1.contains("\"mock_enabled\":null").then_some(())
        })
        .await;
        let waits = [&a, &b].map(|replica| replica.get_later(&format!("{path}?wait=50s&live=enabled")));
        upstream.mock_status(agent, [Reply::mock_status(true, "vapi")]);
        for wait in waits {
            let (status, answer) = wait.await.unwrap();
            assert!(status == 200 && answer.contains("\"mocks_live\":true"), "{status} {answer}");
        }
    }
    let before = counted(&[&a, &b], "cekura_agent_polls_total", &[("agent_id", "1")]).await;
    a.stop().await;
    eventually("its counters go on", async || {
        (counted(&[&b], "cekura_agent_polls_total", &[("agent_id", "1")]).await >= before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_replica_owned_is_taken_over_and_no_run_is_counted_twice() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    (1..=WATCHES).for_each(|agent| upstream.script(&format!("p{agent}"), [Reply::task("completed", Some(true))]));
    let [a, b, c] = three_replicas(&upstream, &postgres.url()).await;
    let all = [&a, &b, &c];
    share(&all, WATCHES).await;
    let finished = async |replicas: &[&Exporter]| {
        counted(replicas, "cekura_api_runs_finished_total", &[("outcome", "completed")]).await
    };
    eventually("all runs are counted", async || (finished(&all).await == WATCHES).then_some(())).await;
    let before = finished(&[&b, &c]).await;
    let owned = shards(&a.scrape().await);
    let begun = Instant::now();
    a.kill().await;
    share(&[&b, &c], WATCHES).await;
    assert!(begun.elapsed() < LEASE + Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(counted(&[&b, &c], "cekura_exporter_takeovers_total", &[]).await, owned);
    for agent in 1..=WATCHES {
        let labels = [("toggle", &*format!("w{agent}")), ("status", "completed")];
        eventually("the finish is still known, and counted once", async || {
            (counted(&[&b, &c], "cekura_toggle_finished_total", &labels).await == 1).then_some(())
        })
        .await;
    }
    assert_eq!(finished(&[&b, &c]).await, before, "runs that another replica counted are not counted again");
}

#[tokio::test]
async fn a_replica_that_stops_properly_gives_its_shards_to_the_others_at_once() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    share(&[&a, &b], WATCHES).await;
    a.stop().await;
    share(&[&b], WATCHES).await;
    assert_eq!(counted(&[&b], "cekura_exporter_takeovers_total", &[]).await, 0, "they were given, not taken");
    assert_eq!(postgres.query("SELECT count(*) FROM cekura_exporter.replicas").await, [["1"]]);
    let polls = |exposition: &Exposition| exposition.value("cekura_toggle_polls_total", &[("toggle", "w1")]).unwrap();
    let before = polls(&b.scrape().await);
    b.scrape_until("it polls", |exposition| polls(exposition) > before).await;
}

#[tokio::test]
async fn a_replica_that_stood_still_for_longer_than_its_lease_saves_nothing_of_what_others_own_now() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    share(&[&a, &b], WATCHES).await;
    a.signal(Signal::STOP);
    share_alone(&b).await;
    let name = "late";
    (100..104).for_each(|agent| upstream.script(&format!("q{agent}"), [Reply::task("failed", None)]));
    for agent in 100..104 {
        assert_eq!(b.put(&format!("{name}{agent}"), &task(agent, &format!("q{agent}"))).await.0, 201);
    }
    let owners = "SELECT count(DISTINCT owner) FROM cekura_exporter.shards";
    assert_eq!(postgres.query(owners).await, [["1"]]);
    a.signal(Signal::CONT);
    // It joins again as if it were new.
    share(&[&a, &b], WATCHES + 4).await;
    for agent in 100..104 {
        eventually("what happened meanwhile is known", async || {
            (a.toggle(&format!("{name}{agent}")).await["status"] == "failed").then_some(())
        })
        .await;
    }
    let finished = counted(&[&a, &b], "cekura_api_runs_finished_total", &[("outcome", "failed")]).await;
    assert_eq!(finished, 4);
}

#[tokio::test]
async fn a_replica_that_missed_a_removal_forgets_the_registration_even_if_the_removal_was_purged() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    for agent in 100..104 {
        assert_eq!(a.put(&format!("r{agent}"), &task(agent, "p")).await.0, 201);
    }
    share(&[&a, &b], WATCHES + 4).await;
    b.signal(Signal::STOP);
    share_alone(&a).await;
    assert_eq!(a.delete("r100").await, 204);
    let removed = "SELECT count(*) FROM cekura_exporter.toggles WHERE record IS NULL";
    eventually("its state is removed", async || (postgres.query(removed).await == [["1"]]).then_some(())).await;
    for table in ["registrations", "toggles"] {
        postgres.query(&format!("UPDATE cekura_exporter.{table} SET changed = changed - interval '25 hours'")).await;
    }
    // It purges when it starts.
    let c = replica(&upstream, &postgres.url()).start().await;
    let rows = "SELECT count(*) FROM cekura_exporter.registrations";
    eventually("the removal is purged", async || (postgres.query(rows).await == [["3"]]).then_some(())).await;
    assert_eq!(postgres.query(removed).await, [["0"]]);
    b.signal(Signal::CONT);
    share(&[&a, &b, &c], WATCHES + 3).await;
    for replica in [&a, &b, &c] {
        assert_eq!(replica.get("/api/v1/toggles/r100").await.0, 404);
        assert_eq!(replica.toggle("r103").await["progress_id"], "p");
    }
}

/// Waits until a replica owns everything, although others do not know.
async fn share_alone(replica: &Exporter) {
    replica.scrape_until("it owns everything", |exposition| shards(exposition) == 64).await;
}

#[tokio::test]
async fn while_the_database_is_away_polling_goes_on_and_registrations_are_refused() {
    let (upstream, mut postgres) = (Upstream::start().await, Postgres::start().await);
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    assert_eq!(a.put("before", &task(100, "p")).await.0, 201);
    share(&[&a, &b], WATCHES + 1).await;
    postgres.stop();
    for replica in [&a, &b] {
        replica.scrape_until("it says so", |e| e.value("cekura_exporter_database_up", &[]) == Some(0.0)).await;
        let (status, answer) = replica.put("during", &task(101, "p")).await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("the database cannot be reached"), "{answer}");
        assert_eq!(replica.delete("before").await, 503);
        assert_eq!(replica.get("/api/v1/toggles/before").await.0, 200);
        let (status, answer) = replica.get("/api/v1/toggles/unknown").await;
        assert_eq!(status, 503, "{answer}");
        assert_eq!(replica.get("/toggles/before").await.0, 200);
        let (status, page) = replica.get("/toggles/unknown").await;
        assert!(status == 503 && page.contains("another one may have registered it: the database cannot be"), "{page}");
    }
    upstream.script("p1", [Reply::task("failed", None)]);
    upstream.script("p2", [Reply::task("completed", Some(true))]);
    eventually("what happens is exposed", async || {
        let failed = counted(&[&a, &b], "cekura_toggle_status", &[("toggle", "w1"), ("status", "failed")]).await;
        let completed = counted(&[&a, &b], "cekura_toggle_status", &[("toggle", "w2"), ("status", "completed")]).await;
        ((failed, completed) == (1, 1)).then_some(())
    })
    .await;
    // That nothing happens when leases expire has no condition to wait for.
    tokio::time::sleep(LEASE + LEASE).await;
    assert_eq!(exposed(&[&a, &b]).await.len() as u64, WATCHES + 1, "nobody gives up anything");
    postgres.start_again().await;
    share(&[&a, &b], WATCHES + 1).await;
    assert_eq!(counted(&[&a, &b], "cekura_exporter_takeovers_total", &[]).await, 0);
    eventually("it is taken again", async || (a.put("after", &task(102, "p")).await.0 == 201).then_some(())).await;
    let finished =
        async |outcome: &str| counted(&[&a, &b], "cekura_api_runs_finished_total", &[("outcome", outcome)]).await;
    eventually("what finished meanwhile is counted", async || {
        ((finished("failed").await, finished("completed").await) == (1, 1)).then_some(())
    })
    .await;
    b.kill().await;
    share(&[&a], WATCHES + 2).await;
    assert_eq!(a.toggle("w1").await["status"], "failed");
}

#[tokio::test]
async fn without_a_database_since_the_start_everything_is_polled_after_one_lease() {
    let upstream = Upstream::start().await;
    let mut postgres = Postgres::start().await;
    postgres.stop();
    let [a, b] = two_replicas(&upstream, &postgres.url()).await;
    for replica in [&a, &b] {
        replica.scrape_until("it polls everything", |e| e.count("cekura_toggle_up") as u64 == WATCHES).await;
        assert_eq!(shards(&replica.scrape().await), 64);
    }
    postgres.start_again().await;
    share(&[&a, &b], WATCHES).await;
}

#[tokio::test]
async fn what_finished_before_the_database_was_there_is_saved_when_it_is() {
    let upstream = Upstream::start().await;
    upstream.script("p1", [Reply::task("completed", Some(true))]);
    let mut postgres = Postgres::start().await;
    postgres.stop();
    let a = replica(&upstream, &postgres.url()).start().await;
    a.scrape_until("the run finished", |e| e.status("w1").as_deref() == Some("completed")).await;
    postgres.start_again().await;
    share(&[&a], WATCHES).await;
    let finished = async || counted(&[&a], "cekura_api_runs_finished_total", &[("outcome", "completed")]).await;
    eventually("it is counted", async || (finished().await == 1).then_some(())).await;
    let b = replica(&upstream, &postgres.url()).start().await;
    share(&[&a, &b], WATCHES).await;
    assert_eq!(b.toggle("w1").await["status"], "completed");
    assert_eq!(counted(&[&a, &b], "cekura_api_runs_finished_total", &[("outcome", "completed")]).await, 1);
}

#[tokio::test]
async fn a_replica_that_owns_again_what_others_owned_meanwhile_goes_on_from_what_they_saved() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    (1..=WATCHES).for_each(|agent| upstream.script(&format!("p{agent}"), [Reply::task("in_progress", None)]));
    let a = replica(&upstream, &postgres.url()).start().await;
    share(&[&a], WATCHES).await;
    a.signal(Signal::STOP);
    let b = replica(&upstream, &postgres.url()).start().await;
    share_alone(&b).await;
    (1..=WATCHES).for_each(|agent| upstream.script(&format!("p{agent}"), [Reply::task("completed", Some(true))]));
    let finished = async |replica: &Exporter| {
        counted(&[replica], "cekura_api_runs_finished_total", &[("outcome", "completed")]).await
    };
    eventually("all runs are counted", async || (finished(&b).await == WATCHES).then_some(())).await;
    b.stop().await;
    a.signal(Signal::CONT);
    for agent in 1..=WATCHES {
        eventually("it knows what the other one saved", async || {
            (a.toggle(&format!("w{agent}")).await["status"] == "completed").then_some(())
        })
        .await;
    }
    share(&[&a], WATCHES).await;
    assert_eq!(finished(&a).await, 0, "the other one has counted them");
    let saved = "SELECT count(*) FROM cekura_exporter.toggles WHERE record LIKE '%\"status\":\"completed\"%'";
    assert_eq!(postgres.query(saved).await, [[WATCHES.to_string()]]);
}

#[tokio::test]
async fn a_replica_that_is_cut_off_from_the_database_is_replaced_and_comes_back() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let mut proxy = Proxy::to(postgres.address());
    let a = replica(&upstream, &Postgres::url_through(&proxy)).start().await;
    let b = replica(&upstream, &postgres.url()).start().await;
    share(&[&a, &b], WATCHES).await;
    proxy.cut();
    share_alone(&b).await;
    a.scrape_until("it says so", |e| e.value("cekura_exporter_database_up", &[]) == Some(0.0)).await;
    assert!(shards(&a.scrape().await) > 0, "it goes on, because nobody told it that others took over");
    upstream.script("p3", [Reply::task("failed", None)]);
    eventually("each exposes it", async || {
        let labels = [("toggle", "w3"), ("status", "failed")];
        (counted(&[&b], "cekura_toggle_status", &labels).await == 1).then_some(())
    })
    .await;
    proxy.heal();
    share(&[&a, &b], WATCHES).await;
    let finished = async || counted(&[&a, &b], "cekura_api_runs_finished_total", &[("outcome", "failed")]).await;
    assert_eq!(finished().await, 1);
    assert_eq!(counted(&[&a, &b], "cekura_toggle_finished_total", &[("toggle", "w3"), ("status", "failed")]).await, 1);
}

#[tokio::test]
async fn a_standby_that_is_promoted_has_everything_that_was_acknowledged() {
    let upstream = Upstream::start().await;
    let mut primary = Postgres::start().await;
    let standby = primary.synchronous_standby().await;
    let url = format!(
        "postgresql://postgres@{},{}/postgres?target_session_attrs=read-write",
        primary.address(),
        standby.address()
    );
    let [a, b] = two_replicas(&upstream, &url).await;
    share(&[&a, &b], WATCHES).await;
    for agent in 100..110 {
        assert_eq!((if agent % 2 == 0 { &a } else { &b }).put(&format!("r{agent}"), &task(agent, "p")).await.0, 201);
    }
    primary.stop();
    standby.promote().await;
    share(&[&a, &b], WATCHES + 10).await;
    for replica in [&a, &b] {
        replica
            .scrape_until("it found the new primary", |e| e.value("cekura_exporter_database_up", &[]) == Some(1.0))
            .await;
    }
    eventually("it is taken again", async || (a.put("after", &task(110, "p")).await.0 < 300).then_some(())).await;
    eventually("the other one knows it", async || (b.get("/api/v1/toggles/after").await.0 == 200).then_some(())).await;
    assert_eq!(b.toggle("after").await["progress_id"], "p");
    let c = replica(&upstream, &url).start().await;
    share(&[&a, &b, &c], WATCHES + 11).await;
}

#[tokio::test]
async fn clocks_of_replicas_may_be_hours_apart() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let a = by_clock(replica(&upstream, &postgres.url()), -3600.0).start().await;
    let b = by_clock(replica(&upstream, &postgres.url()), 3600.0).start().await;
    share(&[&a, &b], WATCHES).await;
    upstream.script("p5", [Reply::task("completed", Some(true))]);
    let times = async |replica: &Exporter| {
        let toggle = replica.toggle("w5").await;
        toggle["finished_at"].as_str().map(|time| (time.to_owned(), toggle["started_at"].to_string()))
    };
    let (of_a, of_b) =
        eventually("both know that it finished", async || Some((times(&a).await?, times(&b).await?))).await;
    assert_ne!(of_a, of_b, "each says it by its own clock");
    a.kill().await;
    share(&[&b], WATCHES).await;
    let labels = [("toggle", "w5"), ("status", "completed")];
    b.scrape_until("it is still known", |e| e.value("cekura_toggle_finished_total", &labels) == Some(1.0)).await;
    assert_eq!(times(&b).await.unwrap(), of_b);
}

#[tokio::test]
async fn an_older_version_that_meets_a_newer_schema_says_so_and_stops() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let mut a = replica(&upstream, &postgres.url()).start().await;
    share(&[&a], WATCHES).await;
    postgres.query("UPDATE cekura_exporter.schema_version SET version = 1000").await;
    assert!(!a.ended().await.success());
    let errors = a.errors();
    assert!(errors.contains("was written by a newer version of cekura-exporter (its schema is 1000"), "{errors}");
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_by_kills_amid_a_storm_of_registrations() {
    let (upstream, postgres) = (Upstream::start().await, Postgres::start().await);
    let url = postgres.url();
    let mut replicas = Vec::from(three_replicas(&upstream, &url).await);
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let http = replicas[0].http();
        let urls: Vec<_> = replicas.iter().map(|replica| replica.urls[0].clone()).collect();
        let storm = (0..60).map(|n: usize| {
            let (agent, url) = (1000 + 100 * round + n as u64, &urls[n % 3]);
            let request = http
                .put(format!("{url}/api/v1/toggles/s{agent}"))
                .body(task(agent, "p").to_string())
                .header("content-type", "application/json");
            async move {
                // Spread over the time before and after the kill.
                tokio::time::sleep(Duration::from_millis(5 * n as u64)).await;
                let answer = request.send().await;
                answer.is_ok_and(|answer| answer.status().is_success()).then(|| format!("s{agent}"))
            }
        });
        let storm: Vec<_> = storm.map(tokio::spawn).collect();
        // In the middle of the storm.
        tokio::time::sleep(Duration::from_millis(150)).await;
        replicas.remove(usize::from(round % 2 == 0)).kill().await;
        for put in storm {
            acknowledged.extend(put.await.unwrap());
        }
        replicas.push(replica(&upstream, &url).start().await);
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    for replica in &replicas {
        for name in &acknowledged {
            assert_eq!(replica.get(&format!("/api/v1/toggles/{name}")).await.0, 200, "{name}");
        }
    }
    let all: Vec<_> = replicas.iter().collect();
    let stored = postgres.query("SELECT count(*) FROM cekura_exporter.registrations WHERE record IS NOT NULL").await;
    share(&all, WATCHES + stored[0][0].parse::<u64>().unwrap()).await;
}
