//! Logins by HTTP basic authentication.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::{Authority, Client, Exporter, FAR, TLS, Upstream, curl, eventually};

/// The least that bcrypt does.
const COST: u32 = 4;

fn hash(password: &str) -> String {
    bcrypt::hash(password, COST).unwrap()
}

/// The block of a web configuration with these users and passwords.
fn users<'a>(users: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let hashes: BTreeMap<_, _> = users.into_iter().map(|(user, password)| (user, hash(password))).collect();
    // JSON is YAML.
    format!("basic_auth_users: {}\n", json!(hashes))
}

const ALICE: (&str, &str) = ("alice", "correct horse");
const BOB: (&str, &str) = ("bob", "battery: staple");

fn as_user((user, password): (&str, &str)) -> Client {
    Client::default().logged_in(user, password)
}

/// Asks as this client, with a definition in the body where one belongs.
async fn ask(exporter: &Exporter, client: &Client, method: &Method, path: &str) -> reqwest::Response {
    let mut request = client.http().request(method.clone(), client.url(exporter.address()) + path);
    if method == Method::PUT {
        request = request.header(CONTENT_TYPE, "application/json").body(r#"{"agent_id": 1, "progress_id": "p"}"#);
    }
    request.send().await.unwrap()
}

/// Every path, with the methods that it answers and the status.
const PATHS: [(&str, &[(&str, u16)]); 10] = [
    ("/metrics", &[("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405)]),
    ("/", &[("GET", 200), ("HEAD", 200), ("OPTIONS", 204)]),
    ("/config", &[("GET", 200), ("HEAD", 200)]),
    ("/api/v1/toggles", &[("GET", 200), ("HEAD", 200)]),
    ("/api/v1/toggles/w", &[("GET", 404), ("HEAD", 404), ("PUT", 201), ("GET", 200), ("DELETE", 204)]),
    ("/api/v1/toggles/w?wait=1s", &[("GET", 404)]),
    ("/api/v1/toggles/w/events", &[("GET", 404)]),
    ("/-/reload", &[("POST", 200), ("GET", 405), ("OPTIONS", 204)]),
    ("/nothing", &[("GET", 404), ("PUT", 404), ("OPTIONS", 404)]),
    ("//-/healthy", &[("GET", 404)]),
];

#[tokio::test]
async fn nothing_but_the_probes_is_answered_without_a_login_and_everything_is_with_one() {
    let upstream = Upstream::start().await;
    let config = Exporter::registering(&upstream, "state".as_ref());
    let exporter = Exporter::with(config).web(&users([ALICE])).start().await;
    let nobody = Client::default();
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(exporter.status_for(&nobody, path).await, Some(200), "{path}");
    }
    for (path, answers) in PATHS {
        for (method, status) in answers {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let refused = ask(&exporter, &nobody, &method, path).await;
            assert_eq!(refused.status(), 401, "{method} {path}");
            assert!(refused.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic realm="));
            assert_eq!(refused.headers()[CONTENT_TYPE], "application/json");
            if method != Method::HEAD {
                let problem: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
                assert!(problem["error"].as_str().unwrap().contains("login"), "{method} {path}: {problem}");
            }
            let answer = ask(&exporter, &as_user(ALICE), &method, path).await;
            assert_eq!(answer.status(), *status, "{method} {path}");
            assert!(!answer.headers().contains_key(WWW_AUTHENTICATE), "{method} {path}");
        }
    }
    let (logs, _) = exporter.last_words().await;
    let reloaded = logs.iter().filter(|line| line["message"] == "configuration reloaded").count();
    assert_eq!(reloaded, 1, "only who logged in reloads");
}

#[tokio::test]
async fn a_login_is_refused_unless_name_and_password_are_those_of_the_same_user() {
    let exporter = Exporter::with("watches: []\n").web(&users([ALICE, BOB])).start().await;
    for good in [ALICE, BOB] {
        assert_eq!(exporter.status_for(&as_user(good), "/metrics").await, Some(200));
    }
    let (alice, bob) = (ALICE.1, BOB.1);
    for bad in [
        ("carol", alice),
        ("alice", "wrong"),
        ("alice", bob),
        ("bob", alice),
        ("Alice", alice),
        ("alice", ""),
        ("alice", "correct horse "),
        ("", alice),
        ("", ""),
    ] {
        let answer = exporter.answer_to(&as_user(bad), "/metrics").await.unwrap();
        assert_eq!(answer.status(), 401, "{bad:?}");
        assert!(answer.headers().contains_key(WWW_AUTHENTICATE));
    }
    let basic = STANDARD.encode(format!("alice:{alice}"));
    let url = &format!("{}/metrics", exporter.urls[0]);
    for (header, status) in [
        (format!("Basic {basic}"), 200),
        (format!("basic {basic}"), 200),
        (format!("Bearer {basic}"), 401),
        (basic.clone(), 401),
        ("Basic".to_owned(), 401),
        ("Basic %".to_owned(), 401),
    ] {
        let answer = exporter.http().get(url).header("authorization", &header).send().await.unwrap();
        assert_eq!(answer.status(), status, "{header}");
    }
}

#[tokio::test]
async fn who_is_taken_from_the_file_is_refused_soon_and_so_is_a_password_that_was_changed() {
    let exporter = Exporter::with("watches: []\n").web(&users([ALICE, BOB])).start().await;
    let status = async |user| exporter.status_for(&as_user(user), "/metrics").await.unwrap();
    assert_eq!((status(ALICE).await, status(BOB).await), (200, 200));
    exporter.place("web.yaml", &users([ALICE]));
    eventually("bob is refused", async || (status(BOB).await == 401).then_some(())).await;
    assert_eq!(status(ALICE).await, 200);
    let changed = ("alice", "another");
    exporter.place("web.yaml", &users([changed]));
    eventually("the new password is taken", async || (status(changed).await == 200).then_some(())).await;
    assert_eq!(status(ALICE).await, 401);
}

#[tokio::test]
async fn curl_logs_in_over_tls() {
    let authority = Authority::new("servers");
    let start = Exporter::with("watches: []\n").web(&(TLS.to_owned() + &users([ALICE, BOB])));
    let start = start.server(&authority.server(FAR)).file("ca.pem", &authority.pem());
    let exporter = start.client(&Client::trusting(&authority)).start().await;
    for (login, status) in [
        (&["--user", "alice:correct horse"][..], 200),
        (&["--user", "bob:battery: staple"], 200),
        (&["--user", "alice:wrong"], 401),
        (&["--user", "alice:wrong", "--anyauth"], 401),
        (&["--user", "bob:battery: staple", "--anyauth"], 200),
        (&[], 401),
    ] {
        let got = curl(&exporter, "/metrics", &[&["--cacert", "ca.pem"], login].concat());
        assert_eq!(got, status, "{login:?}");
    }
}

#[tokio::test]
async fn no_password_no_hash_and_no_key_shows_in_any_output_at_any_level() {
    let authority = Authority::new("servers");
    let server = authority.server(FAR);
    let hash = hash(ALICE.1);
    let web = |key: &str, hash: &str| {
        json!({
            "tls_server_config": {"cert": server.certificate, "key": key},
            "basic_auth_users": {"alice": hash},
        })
        .to_string()
    };
    let alice = Client::trusting(&authority).logged_in(ALICE.0, ALICE.1);
    let exporter = Exporter::with("watches: []\n")
        .web(&web(&server.key, &hash))
        .client(&alice)
        .arg("--log.level=trace")
        .start()
        .await;
    let mut outputs = Vec::new();
    for path in ["/metrics", "/", "/api/v1/toggles", "/config", "/nothing"] {
        outputs.push(exporter.get(path).await.1);
    }
    let wrong = ("alice", "a-wrong-one");
    let refused = exporter.answer_to(&Client::trusting(&authority).logged_in(wrong.0, wrong.1), "/").await.unwrap();
    assert_eq!(refused.status(), 401);
    outputs.push(refused.text().await.unwrap());
    let damaged = server.key.replace("\n-----END", "!\n-----END");
    for text in [
        web(&damaged, &hash),
        web(&server.certificate, &hash),
        web(&server.key, &hash[..59]),
        web(&server.key, &hash.replace("$04$", "$31$")),
        web(&server.key, &hash).replace("\"alice\":", ""),
        web(&server.key, &hash).replace("\"alice\"", &format!("\"{hash}\"")),
        web(&server.key, &hash).replace('}', ""),
        web(&server.key, &hash).replace("key", "key_file"),
    ] {
        exporter.place("web.yaml", &text);
        let (status, text) = exporter.reload().await;
        assert_eq!(status, 500, "{text}");
        outputs.push(text);
    }
    let (logs, errors) = exporter.last_words().await;
    assert!(logs.iter().any(|line| line["message"] == "login failed"), "{logs:#?}");
    outputs.extend(logs.iter().map(ToString::to_string));
    outputs.push(errors);
    let basic = |(user, password): (&str, &str)| STANDARD.encode(format!("{user}:{password}"));
    let (salt, hashed) = hash[7..].split_at(22);
    let mut secrets = vec![ALICE.1.to_owned(), wrong.1.to_owned(), basic(ALICE), basic(wrong)];
    secrets.extend([salt.to_owned(), hashed[..30].to_owned()]);
    secrets.extend(server.key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    for output in &outputs {
        let shown: Vec<_> = secrets.iter().filter(|secret| output.contains(*secret)).collect();
        assert!(shown.is_empty(), "{shown:?} in {output}");
    }
}

#[tokio::test]
async fn a_flood_of_bad_logins_is_refused_and_keeps_no_good_one_out() {
    const BAD: usize = 300;
    let names: Vec<_> = (0..20).map(|n| (format!("user-{n}"), format!("password-{n}"))).collect();
    let web = users(names.iter().map(|(name, password)| (name.as_str(), password.as_str())));
    let exporter = Exporter::with("watches: []\n").web(&web).start().await;
    let status = {
        let (http, url) = (exporter.http(), format!("{}/api/v1/toggles", exporter.urls[0]));
        async move |user: String, password: String| {
            http.get(&url).basic_auth(user, Some(password)).send().await.unwrap().status().as_u16()
        }
    };
    let (sent, mut flood) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let (tell, mut told) = mpsc::unbounded_channel();
    for _ in 0..16 {
        let (sent, status, tell) = (sent.clone(), status.clone(), tell.clone());
        flood.spawn(async move {
            loop {
                let n = sent.fetch_add(1, Ordering::Relaxed);
                if n >= BAD {
                    break;
                }
                // Half of them are of users that there are.
                tell.send(status(format!("user-{}", n % 40), format!("guess-{n}")).await).unwrap();
            }
        });
    }
    drop(tell);
    let (mut refused, mut good) = (0, names.iter().cycle());
    while let Some(bad) = told.recv().await {
        assert_eq!(bad, 401);
        refused += 1;
        let (name, password) = good.next().unwrap().clone();
        assert_eq!(status(name, password).await, 200, "when {refused} were refused");
    }
    assert_eq!(refused, BAD);
    flood.join_all().await;
}

#[tokio::test]
async fn registrations_are_said_to_be_open_where_tls_alone_keeps_nobody_out() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let authorities = "client_ca_file: clients.pem";
    for (more, warnings) in [
        (&[][..], 1),
        (&["client_auth_type: RequireAnyClientCert"], 1),
        (&["client_auth_type: VerifyClientCertIfGiven", authorities], 1),
        (&["client_auth_type: RequireAndVerifyClientCert", authorities], 0),
    ] {
        let start = Exporter::with("state_file: state\nregistrations: {enabled: true}\n").tls(&servers, more);
        let start = start.file("clients.pem", &clients.pem()).arg("--web.listen-address=0.0.0.0:0");
        let (logs, _) = start.start().await.last_words().await;
        let warned = logs.iter().filter(|line| line.to_string().contains("without authentication")).count();
        assert_eq!(warned, warnings, "{more:?}");
    }
}
