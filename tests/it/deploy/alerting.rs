//! From a toggle that fails to somebody who is told: exporter, scraper, Alertmanager and a webhook.

use std::collections::BTreeSet;
use std::path::Path;

use cekura_exporter::demo::simulator::Reply;
use serde_json::{Value, json};

use super::yaml;
use crate::harness::{
    Alertmanager, Exporter, Exposition, Monitoring, Scraper, Upstream, Webhook, by_clock, eventually,
};
use crate::with_scrapers::with_scrapers;

with_scrapers! {
    prometheus_2: Prometheus2 =>
    each_team_is_told_of_its_own_toggles_once_for_all_of_them_and_when_it_is_over,
    an_api_that_is_down_is_one_page_and_mutes_its_own_toggles_and_one_refused_toggle_mutes_none,
    a_toggle_that_completed_without_taking_effect_is_an_alert_on_its_agent_until_it_has,
    mocks_that_are_switched_by_hand_are_an_alert_until_they_are_switched_back,
    an_api_that_has_lost_its_toggle_endpoint_is_no_outage_while_the_mock_status_is_answered,
}

with_scrapers! {
    prometheus_3: Prometheus3 =>
    each_team_is_told_of_its_own_toggles_once_for_all_of_them_and_when_it_is_over,
    an_api_that_is_down_is_one_page_and_mutes_its_own_toggles_and_one_refused_toggle_mutes_none,
    a_toggle_that_completed_without_taking_effect_is_an_alert_on_its_agent_until_it_has,
}

// Other rules see what a rule recorded some seconds after vmalert evaluated it. Rules in which nothing waits, as here,
// have fired before those that mute them.
with_scrapers! {
    victoria_metrics: VictoriaMetrics =>
    each_team_is_told_of_its_own_toggles_once_for_all_of_them_and_when_it_is_over,
}

/// The rules as they are shipped, except that nothing waits: how long each holds is promtool's part.
fn rules(folder: &Path) -> Value {
    let mut rules = yaml("deploy/prometheus/rules.yaml");
    for rule in rules["groups"][0]["rules"].as_array_mut().unwrap() {
        let rule = rule.as_object_mut().unwrap();
        rule.remove("for");
        rule.remove("keep_firing_for");
    }
    let file = folder.join("rules.yaml");
    std::fs::write(&file, rules.to_string()).unwrap();
    json!(file)
}

/// The routes as they are shipped, except that they wait for seconds and lead to the webhook.
fn routes(webhook: &Webhook) -> Value {
    let mut config = yaml("deploy/alertmanager/alertmanager.yml");
    // Long enough for all that fires in one evaluation to be there.
    config["route"]["group_wait"] = json!("3s");
    config["route"]["group_interval"] = json!("1s");
    for receiver in config["receivers"].as_array_mut().unwrap() {
        let url = webhook.url(receiver["name"].as_str().unwrap());
        receiver["webhook_configs"][0]["url"] = json!(url);
    }
    config
}

/// Scrapes the exporter and tells the Alertmanager.
async fn monitoring(scraper: Scraper, exporter: &Exporter, alertmanager: &Alertmanager, folder: &Path) -> Monitoring {
    let config = json!({
        "rule_files": [rules(folder)],
        "scrape_configs": [{"job_name": "cekura-exporter", "static_configs": [{"targets": [exporter.address()]}]}],
        "alerting": {"alertmanagers": [alertmanager.as_target()]},
    });
    Monitoring::with(scraper, &config).await
}

/// An exporter whose clock is three hours behind: what just began has lasted that long for Prometheus.
async fn started_long_ago(config: String) -> Exporter {
    by_clock(Exporter::with(config), -3.0 * 3600.0).start().await
}

/// The values of a label among the alerts of a notification.
fn values(notification: &Value, label: &str) -> BTreeSet<String> {
    let alerts = notification["alerts"].as_array().unwrap().iter();
    alerts.map(|alert| alert["labels"][label].as_str().unwrap_or("-").to_owned()).collect()
}

/// Waits for the first notification with this status that a receiver gets.
async fn notified(webhook: &Webhook, receiver: &str, status: &str) -> Value {
    eventually(&format!("{receiver} is told of what is {status}"), async || {
        webhook.notifications(receiver).into_iter().find(|notification| notification["status"] == status)
    })
    .await
}

async fn each_team_is_told_of_its_own_toggles_once_for_all_of_them_and_when_it_is_over(scraper: Scraper) {
    let upstream = Upstream::start().await;
    upstream.script("failed", [Reply::task("failed", None)]);
    upstream.script("completed", [Reply::task("completed", Some(false))]);
    upstream.script("runs", [Reply::task("in_progress", None)]);
    let state = tempfile::tempdir().unwrap();
    let exporter = started_long_ago(Exporter::registering(&upstream, &state.path().join("state"))).await;
    let register = async |name: &str, agent_id: u32, progress_id: &str, team: &str| {
        let watch = json!({"agent_id": agent_id, "progress_id": progress_id, "labels": {"team": team}});
        let (status, answer) = exporter.put(name, &watch).await;
        assert!([200, 201].contains(&status), "{answer}");
    };
    for agent_id in 1..=50 {
        register(&format!("bookings-{agent_id}"), agent_id, "failed", "bookings").await;
    }
    register("charge", 60, "failed", "payments").await;
    register("refund", 61, "runs", "payments").await;
    register("lost", 70, "failed", "nobody-knows").await;
    exporter.scrape_until("all answered", |e| e.count("cekura_toggle_last_success_timestamp_seconds") == 53).await;

    let webhook = Webhook::start().await;
    let alertmanager = Alertmanager::beside(scraper, &routes(&webhook)).await;
    let _monitoring = monitoring(scraper, &exporter, &alertmanager, state.path()).await;

    let bookings = notified(&webhook, "bookings-pager", "firing").await;
    assert_eq!(bookings["alerts"].as_array().unwrap().len(), 50);
    assert_eq!(values(&bookings, "toggle").len(), 50);
    assert_eq!(values(&bookings, "team"), ["bookings".to_owned()].into());
    let payments = notified(&webhook, "payments-pager", "firing").await;
    for (label, value) in [
        ("alertname", "CekuraToggleFailed"),
        ("severity", "critical"),
        ("toggle", "charge"),
        ("agent_id", "60"),
        ("team", "payments"),
        ("api", "default"),
        ("job", "cekura-exporter"),
    ] {
        assert_eq!(values(&payments, label), [value.to_owned()].into(), "{label}");
    }
    let stuck = notified(&webhook, "payments-chat", "firing").await;
    assert_eq!(values(&stuck, "alertname"), ["CekuraToggleStuck".to_owned()].into());
    let lost = notified(&webhook, "platform-pager", "firing").await;
    assert_eq!(values(&lost, "toggle"), ["lost".to_owned()].into());

    register("charge", 60, "completed", "payments").await;
    let over = notified(&webhook, "payments-pager", "resolved").await;
    assert_eq!(values(&over, "toggle"), ["charge".to_owned()].into());
    let annotations = &over["alerts"][0]["annotations"];
    assert_eq!(annotations["summary"], "Toggle charge failed.");
    // The exporter's URL is recorded by a rule. Nothing waits here, so the first notification may have been sent before,
    // and that of vmalert always is.
    if scraper != Scraper::VictoriaMetrics {
        let exporter_url = format!("http://{}", exporter.address());
        assert_eq!(annotations["runbook_url"], format!("{exporter_url}/runbooks?toggle=charge#cekuratogglefailed"));
        assert_eq!(annotations["dashboard_url"], format!("{exporter_url}/toggles/charge"));
    }
    assert_eq!(webhook.notifications("bookings-pager").len(), 1);
    assert_eq!(webhook.notifications("bookings-chat"), [] as [Value; 0]);
}

async fn an_api_that_is_down_is_one_page_and_mutes_its_own_toggles_and_one_refused_toggle_mutes_none(scraper: Scraper) {
    let upstream = Upstream::start().await;
    let watch = |api: &str, name: String, team: &str, reply: Reply| {
        upstream.script(&name, [reply]);
        json!({"name": name, "agent_id": 1, "progress_id": name, "api": api, "labels": {"team": team}})
    };
    let down = (1..=5).map(|n| watch("down", format!("down-{n}"), "bookings", Reply::detail(500, "no")));
    let moved = (1..=3).map(|n| watch("moved", format!("moved-{n}"), "bookings", Reply::detail(404, "no")));
    let alone = [
        watch("default", "foreign".to_owned(), "payments", Reply::detail(403, "no")),
        watch("default", "silent".to_owned(), "bookings", Reply::detail(500, "no")),
        watch("default", "runs".to_owned(), "nobody-knows", Reply::task("in_progress", None)),
    ];
    let watches: Vec<_> = down.chain(moved).chain(alone).collect();
    let api = json!({"base_url": upstream.url(), "api_key": "k", "timeout": "1m"});
    let config = json!({"apis": {"down": api, "moved": api, "default": api}, "watches": watches});
    let exporter = started_long_ago(config.to_string()).await;
    exporter.scrape_until("all were polled", |e| e.count("cekura_toggle_up") == 11).await;

    let webhook = Webhook::start().await;
    let alertmanager = Alertmanager::beside(scraper, &routes(&webhook)).await;
    let folder = tempfile::tempdir().unwrap();
    let _monitoring = monitoring(scraper, &exporter, &alertmanager, folder.path()).await;

    let pages = eventually("both APIs are told of", async || {
        let pages = webhook.notifications("platform-pager");
        (pages.len() == 2).then_some(pages)
    })
    .await;
    for page in &pages {
        assert_eq!(page["alerts"].as_array().unwrap().len(), 1, "{page}");
        assert_eq!(values(page, "alertname"), ["CekuraApiDown".to_owned()].into());
        let description = page["alerts"][0]["annotations"]["description"].as_str().unwrap();
        let expected =
            if values(page, "api").contains("moved") { "the path in its base_url is wrong" } else { "server_error 5." };
        assert!(description.contains(expected), "{description}");
    }
    let apis: BTreeSet<_> = pages.iter().flat_map(|page| values(page, "api")).collect();
    assert_eq!(apis, ["down", "moved"].map(str::to_owned).into());
    let muted = eventually("those of APIs that are down are muted", async || {
        let alerts = alertmanager.alerts().await.into_iter();
        let muted = alerts.filter(|alert| alert["status"]["state"] == "suppressed");
        let muted: BTreeSet<_> = muted.map(|alert| alert["labels"]["toggle"].as_str().unwrap().to_owned()).collect();
        (muted.len() >= 8).then_some(muted)
    })
    .await;
    assert!(muted.iter().all(|toggle| toggle.contains('-')), "{muted:?}");
    // The toggles of the API that answers are told of, each to its own team.
    let silent = notified(&webhook, "bookings-chat", "firing").await;
    assert_eq!(values(&silent, "toggle"), ["silent".to_owned()].into());
    let foreign = notified(&webhook, "payments-chat", "firing").await;
    assert_eq!(values(&foreign, "alertname"), ["CekuraToggleForbidden".to_owned()].into());
    let told = webhook.notifications("bookings-chat");
    assert!(told.iter().all(|told| values(told, "toggle") == ["silent".to_owned()].into()), "{told:?}");
    assert_eq!(webhook.notifications("platform-pager").len(), 2);
}

/// Scrapes the exporter, without an Alertmanager. Nothing waits in its rules.
async fn without_alertmanager(scraper: Scraper, exporter: &Exporter, folder: &Path) -> Monitoring {
    let rules = rules(folder);
    Monitoring::scraping(scraper, exporter, Path::new(rules.as_str().unwrap())).await
}

/// The configuration of an exporter that asks often, and within its budget.
fn asking(upstream: &Upstream, lists: &str) -> String {
    let api = json!({"base_url": upstream.url(), "api_key": "k", "timeout": "1m", "requests_per_second": 1000});
    let polling = "{agent_interval: 100ms, min_interval: 50ms, max_interval: 100ms, backoff_max: 200ms}";
    format!("apis: {{default: {api}}}\npolling: {polling}\n{lists}")
}

/// Waits until this is what fires, and returns it.
async fn fires<const N: usize>(monitoring: &Monitoring, alerts: [&str; N]) -> [Value; N] {
    let is_one_of = |alert: &Value| alerts.iter().any(|name| alert["labels"]["alertname"] == *name);
    eventually(&format!("{alerts:?} fires and nothing else"), async || {
        let firing = monitoring.firing().await;
        firing.iter().all(is_one_of).then_some(firing)?.try_into().ok()
    })
    .await
}

/// What an alert on the agent 7 says: its state that should be, its team, its severity and its summary.
fn said_of_agent(alert: &Value) -> [&str; 4] {
    for (label, value) in [("agent_id", "7"), ("api", "default"), ("job", "cekura-exporter")] {
        assert_eq!(alert["labels"][label], value, "{alert}");
    }
    let label = |name: &str| alert["labels"][name].as_str().unwrap();
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    [label("expect"), label("team"), label("severity"), summary]
}

async fn a_toggle_that_completed_without_taking_effect_is_an_alert_on_its_agent_until_it_has(scraper: Scraper) {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    upstream.script("on", [Reply::task("in_progress", None)]);
    let lists = "agents: [{agent_id: 7, expect: disabled, labels: {team: bookings}}]\n\
                 watches: [{name: turn-on, agent_id: 7, progress_id: 'on', expect: enabled, labels: {team: bookings}}]\n";
    let exporter = Exporter::with(asking(&upstream, lists)).start().await;
    exporter.scrape_until("mocks are off", |e| e.value("cekura_agent_mocks_live", &[]) == Some(0.0)).await;
    let folder = tempfile::tempdir().unwrap();
    let monitoring = without_alertmanager(scraper, &exporter, folder.path()).await;
    let expression = "cekura_toggle_status{status='in_progress'} == 1";
    eventually("it is scraped", async || (monitoring.query(expression).await.len() == 1).then_some(())).await;
    fires(&monitoring, []).await;

    upstream.script("on", [Reply::task("completed", Some(true))]);
    let [alert] = fires(&monitoring, ["CekuraAgentMocksDrifted"]).await;
    let said = ["enabled", "bookings", "critical", "Mocks of agent 7 are off, but should be on."];
    assert_eq!(said_of_agent(&alert), said);

    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    fires(&monitoring, []).await;
}

async fn mocks_that_are_switched_by_hand_are_an_alert_until_they_are_switched_back(scraper: Scraper) {
    let upstream = Upstream::start().await;
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    upstream.mock_status(8, [Reply::mock_status(true, "vapi")]);
    let agents = "agents:\n  - {agent_id: 7, expect: disabled, labels: {team: bookings}}\n  - {agent_id: 8}\n";
    let exporter = Exporter::with(asking(&upstream, agents)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let monitoring = without_alertmanager(scraper, &exporter, folder.path()).await;
    let expression = "cekura_agent_mocks_drift == 0";
    eventually("it is scraped", async || (monitoring.query(expression).await.len() == 1).then_some(())).await;
    fires(&monitoring, []).await;

    upstream.mock_status(7, [Reply::mock_status(true, "vapi")]);
    let [alert] = fires(&monitoring, ["CekuraAgentMocksDrifted"]).await;
    let said = ["disabled", "bookings", "critical", "Mocks of agent 7 are on, but should be off."];
    assert_eq!(said_of_agent(&alert), said);
    let exporter_url = format!("http://{}", exporter.address());
    let runbook = alert["annotations"]["runbook_url"].as_str().unwrap();
    assert!(runbook.starts_with(&format!("{exporter_url}/runbooks?")), "{runbook}");
    assert!(runbook.ends_with("#cekuraagentmocksdrifted"), "{runbook}");

    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    fires(&monitoring, []).await;
}

async fn an_api_that_has_lost_its_toggle_endpoint_is_no_outage_while_the_mock_status_is_answered(scraper: Scraper) {
    let upstream = Upstream::start().await;
    let mut watches = Vec::new();
    for name in ["a", "b", "c", "d"] {
        upstream.script(name, [Reply::new(404, "<html>Not Found</html>")]);
        watches.push(json!({"name": name, "agent_id": 7, "progress_id": name}));
    }
    let lists = format!("agents: [{{agent_id: 7, labels: {{team: bookings}}}}]\nwatches: {}\n", json!(watches));
    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    // Its toggles have been like this for three hours, as Prometheus sees it.
    let exporter = started_long_ago(asking(&upstream, &lists)).await;
    let all_polled = |e: &Exposition| e.count("cekura_toggle_up") == 4 && e.count("cekura_agent_mocks_live") == 1;
    exporter.scrape_until("all were polled", all_polled).await;
    let folder = tempfile::tempdir().unwrap();
    let monitoring = without_alertmanager(scraper, &exporter, folder.path()).await;
    let [alert] = fires(&monitoring, ["CekuraApiNoToggleEndpoint"]).await;
    let label = |name: &str| alert["labels"][name].as_str();
    assert_eq!(["api", "severity", "toggle"].map(label), [Some("default"), Some("info"), None], "{alert}");

    // The other way round, it is the path: nothing is answered any more.
    upstream.mock_status(7, [Reply::new(404, "<html>Not Found</html>")]);
    fires(&monitoring, ["CekuraApiDown"]).await;

    upstream.mock_status(7, [Reply::mock_status(false, "vapi")]);
    for name in ["a", "b", "c", "d"] {
        upstream.script(name, [Reply::task("completed", Some(false))]);
    }
    fires(&monitoring, []).await;
}
