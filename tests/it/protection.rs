//! What keeps browsers from being used against the exporter: headers, and what pages of other sites may
//! not do.

use cekura_exporter::demo::simulator::Reply;
use reqwest::header::{CONTENT_TYPE, HeaderMap, ORIGIN};
use reqwest::{Method, Response};
use rustix::process::Signal;

use crate::harness::{Exporter, Upstream, curl, eventually};

/// What every answer carries.
const PROTECTION: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// What the status page carries: it loads its own style and script, asks its own exporter, and may be kept
/// by who looks at it.
const OF_THE_PAGE: [(&str, &str); 5] = [
    PROTECTION[0],
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
    ),
    // So that a form of the page says where it comes from, also where browsers send no Sec-Fetch-Site.
    ("referrer-policy", "same-origin"),
    PROTECTION[3],
    ("cache-control", "private, no-cache"),
];

const TASK: &str = r#"{"agent_id": 1, "progress_id": "p"}"#;

/// An exporter that takes registrations and has the watch `w` of its configuration.
async fn registering(upstream: &Upstream, web: &str) -> Exporter {
    upstream.script("p", [Reply::task("in_progress", None)]);
    Exporter::with(config(upstream, &["w"])).web(web).start().await
}

fn config(upstream: &Upstream, watches: &[&str]) -> String {
    let watches: Vec<_> = watches.iter().map(|w| format!("{{name: {w}, agent_id: 1, progress_id: p}}")).collect();
    Exporter::registering(upstream, "state".as_ref()) + &format!("watches: [{}]\n", watches.join(", "))
}

async fn ask(exporter: &Exporter, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let request = exporter.http().request(method, exporter.urls[0].clone() + path).body(body.to_owned());
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

#[track_caller]
fn assert_carries(headers: &HeaderMap, expected: &[(&str, &str)], what: &str) {
    for (name, value) in expected {
        let values: Vec<_> = headers.get_all(*name).iter().collect();
        assert_eq!(values, [value], "{name} of {what}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_protection_whatever_its_path_and_status() {
    let upstream = Upstream::start().await;
    let exporter = registering(&upstream, "").await;
    let json = &[("content-type", "application/json")][..];
    for (method, path, headers, body, status) in [
        (Method::GET, "/", &[][..], "", 200),
        (Method::HEAD, "/", &[], "", 200),
        (Method::GET, "/metrics", &[], "", 200),
        (Method::GET, "/metrics", &[("accept-encoding", "gzip")], "", 200),
        (Method::GET, "/config", &[], "", 200),
        (Method::GET, "/api/v1/toggles", &[], "", 200),
        (Method::GET, "/api/v1/toggles/w", &[], "", 200),
        (Method::GET, "/api/v1/toggles/w?wait=soon", &[], "", 400),
        (Method::GET, "/-/healthy", &[], "", 200),
        (Method::GET, "/-/ready", &[], "", 200),
        (Method::POST, "/-/reload", &[], "", 200),
        (Method::PUT, "/api/v1/toggles/a", json, TASK, 201),
        (Method::DELETE, "/api/v1/toggles/a", &[], "", 204),
        (Method::PUT, "/api/v1/toggles/a", json, "{}", 400),
        (Method::PUT, "/api/v1/toggles/a", &[], TASK, 415),
        (Method::PUT, "/api/v1/toggles/w", json, TASK, 409),
        (Method::PUT, "/api/v1/toggles/a", json, &" ".repeat(70_000), 413),
        (Method::DELETE, "/api/v1/toggles/none", &[], "", 404),
        (Method::DELETE, "/api/v1/toggles/w", &[("sec-fetch-site", "cross-site")], "", 403),
        (Method::GET, "/nothing", &[], "", 404),
        (Method::POST, "/metrics", &[], "", 405),
        (Method::OPTIONS, "/metrics", &[("sec-fetch-site", "cross-site")], "", 204),
    ] {
        let what = format!("{method} {path}");
        let expected = if path == "/" { OF_THE_PAGE } else { PROTECTION };
        let answer = ask(&exporter, method, path, headers, body).await;
        assert_eq!(answer.status(), status, "{what}");
        assert_carries(answer.headers(), &expected, &what);
    }
    exporter.place("config.yaml", "{a: b}");
    let answer = ask(&exporter, Method::POST, "/-/reload", &[], "").await;
    assert_eq!(answer.status(), 500);
    assert_carries(answer.headers(), &PROTECTION, "a reload that failed");
    exporter.place("config.yaml", &(config(&upstream, &["w"]) + "shutdown: {linger: 1h}\n"));
    assert_eq!(exporter.reload().await.0, 200);
    exporter.scrape_until("it changed state", |e| e.status("w").as_deref() == Some("in_progress")).await;
    exporter.signal(Signal::TERM);
    let unready = async || Some(exporter.request(Method::GET, "/-/ready").await).filter(|a| a.status() == 503);
    assert_carries(eventually("it drains", unready).await.headers(), &PROTECTION, "a refusal of readiness");
}

#[tokio::test]
async fn a_refusal_for_want_of_a_login_carries_the_protection_too() {
    let users = "basic_auth_users: {alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}\n";
    let exporter = Exporter::with("watches: []\n").web(users).start().await;
    let answer = exporter.request(Method::GET, "/").await;
    assert_eq!(answer.status(), 401);
    assert_carries(answer.headers(), &PROTECTION, "a refusal");
}

#[tokio::test]
async fn headers_of_the_web_configuration_come_with_every_answer_in_the_place_of_ours() {
    let web = "http_server_config:\n  headers:\n    \
               Content-Security-Policy: frame-ancestors https://portal.example\n    \
               Strict-Transport-Security: max-age=31536000\n    \
               X-Content-Type-Options: nosniff\n    \
               X-Frame-Options: sameorigin\n    \
               X-XSS-Protection: \"0\"\n";
    let configured = [
        ("content-security-policy", "frame-ancestors https://portal.example"),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "sameorigin"),
        ("x-xss-protection", "0"),
    ];
    let upstream = Upstream::start().await;
    let exporter = registering(&upstream, web).await;
    for (path, status) in [("/", 200), ("/metrics", 200), ("/-/ready", 200), ("/nothing", 404), ("/-/reload", 405)] {
        let answer = exporter.request(Method::GET, path).await;
        assert_eq!(answer.status(), status);
        assert_carries(answer.headers(), &configured, path);
        let ours = if path == "/" { OF_THE_PAGE[2] } else { PROTECTION[2] };
        assert_carries(answer.headers(), &[ours], path);
    }
    exporter.place("web.yaml", "");
    assert_eq!(exporter.reload().await.0, 200);
    let answer = exporter.request(Method::GET, "/").await;
    assert_carries(answer.headers(), &OF_THE_PAGE, "/");
    assert!(!answer.headers().contains_key("strict-transport-security"));
}

#[tokio::test]
async fn pages_of_other_sites_write_nothing_and_own_pages_and_programs_do() {
    let upstream = Upstream::start().await;
    let exporter = registering(&upstream, "").await;
    let own = exporter.urls[0].clone();
    let json = (CONTENT_TYPE.as_str(), "application/json");
    exporter.place("config.yaml", &config(&upstream, &["w", "x"]));
    assert_eq!(ask(&exporter, Method::PUT, "/api/v1/toggles/kept", &[json], TASK).await.status(), 201);
    for foreign in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        (ORIGIN.as_str(), "https://evil.example"),
        (ORIGIN.as_str(), "http://127.0.0.1:1"),
        (ORIGIN.as_str(), "null"),
    ] {
        for (method, path, body) in [
            (Method::PUT, "/api/v1/toggles/a", TASK),
            (Method::DELETE, "/api/v1/toggles/kept", ""),
            (Method::POST, "/-/reload", ""),
        ] {
            let answer = ask(&exporter, method.clone(), path, &[foreign, json], body).await;
            assert_eq!(answer.status(), 403, "{method} {path} {foreign:?}");
        }
        assert_eq!(ask(&exporter, Method::GET, "/", &[foreign], "").await.status(), 200, "a link to it is fine");
    }
    for (path, status) in [("/api/v1/toggles/a", 404), ("/api/v1/toggles/kept", 200), ("/api/v1/toggles/x", 404)] {
        assert_eq!(exporter.get(path).await.0, status, "{path}");
    }
    for own in [&[][..], &[("sec-fetch-site", "same-origin"), (ORIGIN.as_str(), &own)], &[(ORIGIN.as_str(), &own)]] {
        for (method, path, body, status) in [
            (Method::PUT, "/api/v1/toggles/a", TASK, 201),
            (Method::DELETE, "/api/v1/toggles/a", "", 204),
            (Method::POST, "/-/reload", "", 200),
        ] {
            let answer = ask(&exporter, method.clone(), path, &[own, &[json]].concat(), body).await;
            assert_eq!(answer.status(), status, "{method} {path} {own:?}");
        }
    }
    assert_eq!(exporter.get("/api/v1/toggles/x").await.0, 200);
}

#[tokio::test]
async fn a_form_reloads_and_removes_nothing_and_plain_requests_by_curl_do() {
    let upstream = Upstream::start().await;
    let exporter = registering(&upstream, "").await;
    let put = &["--request", "PUT", "--json", TASK][..];
    assert_eq!(curl(&exporter, "/api/v1/toggles/a", put), 201);
    exporter.place("config.yaml", &config(&upstream, &["w", "x"]));
    for form in [&["--data", "a=b"][..], &["--form", "a=b"], &["--data", "{}", "--header", "content-type: text/plain"]]
    {
        assert_eq!(curl(&exporter, "/-/reload", form), 415, "{form:?}");
        assert_eq!(curl(&exporter, "/api/v1/toggles/a", &[&["--request", "DELETE"], form].concat()), 415, "{form:?}");
        assert_eq!(curl(&exporter, "/api/v1/toggles/b", &[&["--request", "PUT"], form].concat()), 415, "{form:?}");
    }
    for (path, status) in [("/api/v1/toggles/x", 404), ("/api/v1/toggles/a", 200), ("/api/v1/toggles/b", 404)] {
        assert_eq!(exporter.get(path).await.0, status, "{path}");
    }
    assert_eq!(curl(&exporter, "/-/reload", &["--request", "POST"]), 200);
    assert_eq!(curl(&exporter, "/api/v1/toggles/x", &[]), 200);
    assert_eq!(curl(&exporter, "/api/v1/toggles/a", put), 200);
    assert_eq!(curl(&exporter, "/api/v1/toggles/a", &["--request", "DELETE"]), 204);
    let (logs, _) = exporter.last_words().await;
    assert_eq!(logs.iter().filter(|line| line["message"] == "configuration reloaded").count(), 1);
}
