//! An exporter on a machine that gives it few threads, as in a pod whose pids are used up.

use std::process::Command;

use cekura_exporter::demo::simulator::Reply;
use serde_json::json;

use crate::harness::{Exporter, Upstream, run_through, tool};

/// The threads that an exporter has at the least: of the runtime three, and one each to poll, to log and to
/// make answers.
const LEAST: usize = 6;

/// The most that it is ever given here.
const MANY: usize = 100;

/// A user who is nobody else's, so that no other process counts among his; the superuser may have any number
/// of threads.
struct User(u32);

impl User {
    fn new(number: u32) -> Self {
        Self(30_000 + (std::process::id() * 8 + number) % 30_000)
    }

    /// Runs what comes after it as this user, who may read and write all files.
    fn words(&self) -> Vec<String> {
        let (user, keep) = (self.0, "-all,+dac_override,+dac_read_search");
        let setpriv = tool("setpriv").display().to_string();
        let words =
            format!("{setpriv} --reuid={user} --regid={user} --clear-groups --inh-caps={keep} --ambient-caps={keep}");
        words.split(' ').map(str::to_owned).collect()
    }

    /// As [`User::words`], with so many threads.
    fn with(&self, threads: usize) -> Vec<String> {
        let limit = [tool("prlimit").display().to_string(), format!("--nproc={threads}:{MANY}"), "--".to_owned()];
        self.words().into_iter().chain(limit).collect()
    }

    /// Changes how many threads a running exporter of his may have.
    fn allow(&self, exporter: &Exporter, threads: usize) {
        let [program, words @ ..] = &self.words()[..] else { unreachable!() };
        let limit = [format!("--pid={}", exporter.pid()), format!("--nproc={threads}:")];
        let allowed = Command::new(program).args(words).arg(tool("prlimit")).args(limit).status();
        assert!(allowed.unwrap().success());
    }
}

#[tokio::test]
async fn where_there_are_too_few_threads_to_start_that_is_an_error_in_words() {
    for threads in 1..LEAST {
        let through = User::new(u32::try_from(threads).unwrap()).with(threads);
        let through: Vec<_> = ["timeout".to_owned(), "30".to_owned()].into_iter().chain(through).collect();
        let output = run_through(&through, &["--demo", "--web.listen-address=127.0.0.1:0"], &[]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{threads}: {errors}");
        assert!(errors.contains("thread"), "{threads}: {errors}");
    }
}

#[tokio::test]
async fn a_good_state_file_is_good_where_there_are_few_threads_too() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = Exporter::registering(&upstream, &folder.path().join("state"));
    Exporter::with(config.clone()).start().await.stop().await;
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, &config).unwrap();
    for threads in LEAST - 1..LEAST + 2 {
        let through = User::new(u32::try_from(threads).unwrap()).with(threads);
        let through: Vec<_> = ["timeout".to_owned(), "5".to_owned()].into_iter().chain(through).collect();
        let args = ["--config.file", file.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"];
        let output = run_through(&through, &args, &[]);
        // It is told to stop, or could not start.
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("damaged"), "{threads}: {errors}");
        assert!(errors.is_empty() || errors.contains("could be started"), "{threads}: {errors}");
    }
}

#[tokio::test]
async fn with_the_least_threads_it_serves_and_says_why_it_cannot_poll_until_there_are_more() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", Some(true))]);
    let config = format!(
        "apis: {{default: {{base_url: \"{}\", api_key: k}}}}\n\
         polling: {{min_interval: 50ms, max_interval: 50ms, backoff_max: 50ms}}\n\
         watches: [{{name: w, agent_id: 1, progress_id: p}}]\n",
        upstream.url().replace("127.0.0.1", "localhost")
    );
    let user = User::new(0);
    let through = user.with(LEAST);
    let through: Vec<_> = through.iter().map(String::as_str).collect();
    let exporter = Exporter::with(config).through(&through).start().await;
    let e = exporter.scrape_until("it cannot be polled", |e| e.poll_error("w").is_some()).await;
    assert_eq!(e.poll_error("w").as_deref(), Some("dns"));
    let detail = exporter.toggle("w").await["poll_error_detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("no thread could be started"), "{detail}");
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
    let (status, text) = exporter.reload().await;
    assert!(status == 500 && text.contains("no thread could be started"), "{status} {text}");
    user.allow(&exporter, MANY);
    exporter.scrape_until("it is polled", |e| e.status("w").as_deref() == Some("in_progress")).await;
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(exporter.errors(), "", "nothing panicked");
    exporter.stop().await;
}

/// What serves answers never needs a thread that it does not have, and all else is tried again.
#[tokio::test]
async fn while_no_thread_is_to_be_had_scrapes_go_on_and_afterwards_all_goes_on() {
    let upstream = Upstream::start().await;
    upstream.script("p", [Reply::task("in_progress", Some(true))]);
    let folder = tempfile::tempdir().unwrap();
    let config = Exporter::registering(&upstream, &folder.path().join("state")) + "watch_files: [\"*.toggle\"]\n";
    let user = User::new(0);
    let through = user.with(MANY);
    let through: Vec<_> = through.iter().map(String::as_str).collect();
    let exporter = Exporter::with(config).through(&through).start().await;
    assert_eq!(exporter.put("w", &json!({"agent_id": 1, "progress_id": "p"})).await.0, 201);
    exporter.scrape_until("it is polled", |e| e.status("w").as_deref() == Some("in_progress")).await;
    user.allow(&exporter, 1);
    exporter.place("more.toggle", "{name: more, agent_id: 1, progress_id: p}");
    exporter.logged("no thread could be started: trying again every second", 1).await;
    exporter.logged("state could not be saved: a restart would forget it", 1).await;
    for _ in 0..5 {
        exporter.scrape().await;
        for path in ["/", "/api/v1/toggles", "/config", "/-/healthy", "/-/ready"] {
            assert_eq!(exporter.get(path).await.0, 200, "{path}");
        }
    }
    let (status, answer) = exporter.put("other", &json!({"agent_id": 1, "progress_id": "p"})).await;
    assert!(status == 503 && answer["error"].as_str().unwrap().contains("no thread"), "{status} {answer}");
    user.allow(&exporter, MANY);
    assert_eq!(exporter.put("other", &json!({"agent_id": 1, "progress_id": "p"})).await.0, 201);
    exporter.scrape_until("the file is read", |e| e.status("more").is_some()).await;
    exporter.logged("state is saved again", 1).await;
    assert_eq!(exporter.errors(), "", "nothing panicked");
    exporter.stop().await;
}
