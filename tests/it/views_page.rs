//! The pages of agents, APIs, sources, replicas and the process: what the server writes, and in a browser as
//! `views_page.mjs` says.

use std::fs;

use cekura_exporter::demo::simulator::Reply;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use tokio::process::Command;

use crate::harness::{Exporter, KEY, Postgres, Upstream, eventually, tool};

/// What means something in HTML.
const WRITTEN: &str = r#"<script>window.ran=1</script><img src=x onerror=window.ran=1>"'&amp;"#;

/// The password in the URL of a database that is not there.
const PASSWORD: &str = "pg-secret-42";

/// Plays a scenario in a browser.
async fn played(scenario: &str, exporter: &Exporter) {
    let mut node = Command::new(tool("node"));
    let script = format!("{}/tests/it/views_page.mjs", env!("CARGO_MANIFEST_DIR"));
    node.arg(script).arg(scenario).arg(&exporter.urls[0]).kill_on_drop(true);
    let output = node.output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&said));
}

/// An exporter of agents that stand in several ways, with an API that is down, a watch file that cannot be read and
/// definitions that are refused. Nothing changes any more.
async fn mixed(upstream: &Upstream) -> Exporter {
    upstream.script("on", [Reply::task("completed", Some(true))]);
    upstream.script("told", [Reply::task("completed", Some(true))]);
    upstream.script("later", [Reply::with_header(429, "retry-after", "3600", r#"{"detail":"not now"}"#)]);
    for (id, enabled, provider) in
        [(1, false, "vapi"), (2, true, "retell"), (3, true, "bland"), (5, false, "vapi"), (6, true, "custom")]
    {
        upstream.mock_status(id, [Reply::mock_status(enabled, provider)]);
    }
    upstream.mock_status(4, [Reply::detail(403, &format!("This agent belongs to another project: {WRITTEN}"))]);
    upstream.page(1, [Reply::detail(403, "The key may not list agents.")]);
    let config = format!(
        "apis:\n  default: {{base_url: {url}, api_key: {KEY}, discover_agents: true}}\n  \
           slow: {{base_url: {url}, api_key: {KEY}}}\n  unused: {{base_url: {url}, api_key: {KEY}}}\n\
         polling: {{agent_interval: 1h}}\nregistrations: {{enabled: true}}\nstate_file: state\n\
         watch_files: [\"here/*.yaml\", \"there/*.yaml\"]\n\
         watches: [{{name: bookings-enable, agent_id: 1, progress_id: 'on'}}, \
                   {{name: z-enable, agent_id: 9, progress_id: told, labels: {{team: Chat}}}}, \
                   {{name: later, agent_id: 9, progress_id: later, api: slow}}]\n\
         agents: [{{agent_id: 1, labels: {{team: \"<b>Voice</b>\"}}}}, {{agent_id: 2, expect: disabled}}, {{agent_id: 3}}, \
                  {{agent_id: 4}}, {{agent_id: 5, expect: disabled}}, {{agent_id: 6}}]\n",
        url = upstream.url()
    );
    let exporter = Exporter::with(config)
        .file("here/good.yaml", "- {name: z-enable, agent_id: 9, progress_id: told}\n")
        .file("here/odd.yaml", "- {name: x, agent: 9}\n")
        .start()
        .await;
    exporter
        .scrape_until("all were asked", |e| {
            e.count("cekura_agent_up") == 6
                && e.count("cekura_agent_mocks_drift") == 3
                && e.count("cekura_agent_mock_enabled") == 2
                && e.value("cekura_toggle_up", &[("toggle", "later")]) == Some(0.0)
                && e.value("cekura_exporter_source_up", &[("source", "discovery")]) == Some(0.0)
        })
        .await;
    exporter.reconfigure("apis: 7\nodd: 1\n");
    assert_eq!(exporter.reload().await.0, 500);
    exporter
}

const PATHS: [&str; 5] = ["/agents", "/agents/default/1", "/apis", "/sources", "/runtime"];

#[tokio::test]
async fn agents_are_found_by_their_standing_and_each_has_a_page() {
    let upstream = Upstream::start().await;
    played("agents", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn apis_say_whether_they_answer_and_what_holds_polls_back() {
    let upstream = Upstream::start().await;
    played("apis", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn sources_say_why_they_cannot_be_read_and_are_problems_of_the_status_page() {
    let upstream = Upstream::start().await;
    played("sources", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn the_process_shows_its_flags_and_its_configuration() {
    let upstream = Upstream::start().await;
    played("runtime", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn the_views_are_for_everybody() {
    let upstream = Upstream::start().await;
    played("accessible", &mixed(&upstream).await).await;
}

#[tokio::test]
async fn what_is_open_stays_open_while_the_page_keeps_itself_up_to_date() {
    let upstream = Upstream::start().await;
    let exporter = mixed(&upstream).await;
    let file = exporter.folder().join("here/odd.yaml");
    let playing = played("refreshed", &exporter);
    // The reader has opened something when the page is asked for again, five seconds after it was shown.
    let mend = async {
        eventually("the page is asked for again", async || {
            let e = exporter.scrape().await;
            let answers =
                |code| e.value("cekura_exporter_http_requests_total", &[("handler", "/sources"), ("code", code)]);
            (answers("200").unwrap_or_default() + answers("304").unwrap_or_default() > 1.0).then_some(())
        })
        .await;
        fs::write(file, "[]\n").unwrap();
    };
    tokio::join!(playing, mend);
}

#[tokio::test]
async fn no_page_has_a_secret_and_each_is_sent_again_only_when_it_changed() {
    let upstream = Upstream::start().await;
    let exporter = mixed(&upstream).await;
    for path in PATHS {
        let answer = exporter.request(Method::GET, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"), "{path}");
        let page = answer.text().await.unwrap();
        assert!(!page.contains(KEY) && !page.contains("<script>window"), "{path}: {page}");
        assert!(!page.contains("<b>Voice"), "{path}: {page}");
        // It may be made anew once a minute.
        eventually("it is not sent again", async || {
            let answer = exporter.request(Method::GET, path).await;
            let known = answer.headers()["etag"].clone();
            let again = exporter.http().get(format!("{}{path}", exporter.urls[0])).header(IF_NONE_MATCH, known);
            (again.send().await.unwrap().status() == 304).then_some(())
        })
        .await;
    }
    let (status, before) = exporter.get("/sources").await;
    assert_eq!(status, 200);
    assert!(before.contains("4 sources cannot be read, 1 definition refused."), "{before}");
    fs::write(exporter.folder().join("here/odd.yaml"), "[]\n").unwrap();
    fs::create_dir(exporter.folder().join("there")).unwrap();
    eventually("the files can be read", async || {
        exporter.get("/sources").await.1.contains("2 sources cannot be read, 1 definition refused.").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_does_not_exist_is_a_page_that_leads_to_what_does() {
    let exporter = Exporter::with("watches: []\n").start().await;
    for (path, sentence, link) in [
        ("/agents/default/7", "No toggle and no source has agent 7 of API default.", "../../agents"),
        ("/agents/%3Cb%3E/x", "No toggle and no source has agent x of API &lt;b&gt;.", "../../agents"),
        ("/replicas", "There is this exporter only: no database is configured.", "./"),
    ] {
        let (status, page) = exporter.get(path).await;
        assert_eq!(status, 404, "{path}");
        assert!(page.contains(&format!("<h1>{sentence}</h1>")), "{path}: {page}");
        assert!(page.contains(&format!("href=\"{link}\"")), "{path}: {page}");
    }
    assert!(!exporter.get("/").await.1.contains("href=\"replicas\""));
}

#[tokio::test]
async fn replicas_show_who_polls_what_and_that_the_database_is_away() {
    let (upstream, mut postgres) = (Upstream::start().await, Postgres::start().await);
    upstream.script("p", [Reply::task("in_progress", None)]);
    let watches: Vec<_> = (1..=24).map(|i| format!("- {{name: w{i}, agent_id: {i}, progress_id: p}}\n")).collect();
    let watches = watches.concat();
    let config = Exporter::quick(
        &upstream,
        &format!("watches:\n{watches}database: {{url: \"{}\", lease: 3s}}\n", postgres.url()),
    );
    let start = || Exporter::with(config.clone()).start();
    let (a, b) = tokio::join!(start(), start());
    let both = "2 replicas, and the database can be used.";
    for replica in [&a, &b] {
        eventually("both are there", async || {
            let e = replica.scrape().await;
            let page = replica.get("/replicas").await.1;
            (page.contains(both) && e.value("cekura_exporter_shards", &[("state", "owned")]) == Some(32.0)
                || page.contains(both) && !page.contains("data-key=\"nobody\""))
            .then_some(())
        })
        .await;
    }
    played("replicas", &a).await;
    postgres.stop();
    eventually("the database is away", async || {
        let page = a.get("/replicas").await.1;
        page.contains("The database cannot be used.").then_some(())
    })
    .await;
    played("without_database", &a).await;
}

#[tokio::test]
async fn a_replica_without_database_does_not_say_that_an_agent_does_not_exist() {
    let config =
        format!("watches: []\ndatabase: {{url: 'postgresql://exporter:{PASSWORD}@127.0.0.1:1/exporter', lease: 3s}}\n");
    let exporter = Exporter::with(config).start().await;
    let answer = exporter.request(Method::GET, "/agents/default/7").await;
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    let page = answer.text().await.unwrap();
    assert!(page.contains("This replica does not know agent 7"), "{page}");
    for path in ["/replicas", "/runtime", "/"] {
        let (status, page) = exporter.get(path).await;
        assert_eq!(status, 200);
        assert!(!page.contains(PASSWORD), "{path}: {page}");
    }
}
