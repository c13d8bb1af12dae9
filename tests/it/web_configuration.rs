//! TLS, headers and users: what is valid, what is refused, and how that is said.
//!
//! What the settings do to connections is tried beside the code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Exporter, Upstream, comments, eventually, fixtures, lines, run, tool};

/// A folder with the certificates and keys that the fixtures name.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.issue("server", [(2020, 1, 1), (2100, 1, 1)]);
        folder.issue("clients", [(2020, 1, 1), (2100, 1, 1)]);
        folder.issue("expired", [(2020, 1, 1), (2021, 2, 3)]);
        folder.issue("early", [(2090, 1, 1), (2100, 1, 1)]);
        folder
    }

    fn issue(&self, name: &str, [from, until]: [(i32, u8, u8); 2]) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// The text of a file as a YAML scalar.
    fn quoted(&self, name: &str) -> String {
        serde_json::to_string(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    /// Puts a fixture into the folder.
    fn lay(&self, fixture: &Path) -> PathBuf {
        let text = fs::read_to_string(fixture).unwrap();
        let text = text
            .replace(": CERTIFICATE", &format!(": {}", self.quoted("server.pem")))
            .replace(": KEY", &format!(": {}", self.quoted("server.key")))
            .replace(": AUTHORITY", &format!(": {}", self.quoted("clients.pem")));
        self.write("web.yaml", &text)
    }

    /// What must be said of a fixture.
    fn comments(&self, fixture: &Path, start: &str) -> Vec<String> {
        let folder = self.0.path().to_str().unwrap();
        comments(fixture, start).iter().map(|comment| comment.replace("FOLDER", folder)).collect()
    }

    /// Checks a web configuration beside a configuration of which nothing is to be said.
    fn check(&self, web: &Path) -> Output {
        let config = self.write("config.yaml", "apis: {default: {api_key: sk-fixture}}\nwatch_files: [\"*.toggle\"]\n");
        run(
            &["--config.check", "--config.file", config.to_str().unwrap(), "--web.config.file", web.to_str().unwrap()],
            &[],
        )
    }

    /// What is said when this web configuration is checked, without anything of a key or a hash.
    fn said(&self, web: &Path) -> (Option<i32>, Vec<String>) {
        let output = self.check(web);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("EsimhC7zG"), "a hash shows: {text}");
        let key = fs::read_to_string(self.path("server.key")).unwrap();
        assert!(!key.lines().any(|line| text.contains(line)), "a key shows: {text}");
        (output.status.code(), lines(web, &output.stderr))
    }
}

#[test]
fn every_good_fixture_passes_with_the_warnings_that_it_names_and_no_more() {
    let folder = Folder::new();
    for fixture in fixtures("web", ".good.yaml") {
        let (code, lines) = folder.said(&folder.lay(&fixture));
        assert_eq!(code, Some(0), "{}: {lines:#?}", fixture.display());
        assert_eq!(lines, folder.comments(&fixture, "# warns:"), "{}", fixture.display());
    }
}

#[test]
fn every_bad_fixture_is_refused_with_all_of_its_problems_and_no_other() {
    let folder = Folder::new();
    for fixture in fixtures("web", ".bad.yaml") {
        let (code, lines) = folder.said(&folder.lay(&fixture));
        assert_eq!(code, Some(2), "{}: {lines:#?}", fixture.display());
        let expected = folder.comments(&fixture, "# expect:");
        assert!(!expected.is_empty(), "{} expects nothing", fixture.display());
        for expected in &expected {
            assert!(lines.iter().any(|line| line.contains(expected)), "{}: {expected}\n{lines:#?}", fixture.display());
        }
        assert_eq!(lines.len(), expected.len(), "{}: {lines:#?}", fixture.display());
    }
}

#[test]
fn the_example_in_the_documents_is_valid() {
    let folder = Folder::new();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tls-and-logins.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, example) = page.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    assert_eq!(folder.said(&folder.write("web.yaml", example)), (Some(0), vec![]));
}

#[test]
fn a_file_that_is_missing_a_folder_or_no_text_is_refused() {
    let folder = Folder::new();
    let binary = folder.path("binary.yaml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    let large = folder.write("large.yaml", &"#".repeat(1024 * 1024 + 1));
    for (path, what) in [
        (folder.path("none.yaml"), "cannot be read"),
        (folder.path("."), "is not a regular file"),
        (binary, "is not UTF-8 text"),
        (large, "is larger than 1 MiB"),
    ] {
        let (code, lines) = folder.said(&path);
        assert_eq!(code, Some(2));
        assert!(lines.len() == 1 && lines[0].contains(what), "{lines:?}");
    }
}

#[test]
fn keys_of_every_form_are_taken_and_those_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let openssl = |args: &str| {
        let args = args.split(' ');
        let output = Command::new(tool("openssl")).args(args).current_dir(folder.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let web = folder.write("web.yaml", "tls_server_config: {cert_file: a.pem, key_file: used.key}");
    for (key, conversion, problem) in [
        ("genrsa -out a.key 2048", "pkey -in a.key -out used.key", None),
        ("genrsa -out a.key 2048", "rsa -in a.key -traditional -out used.key", None),
        ("ecparam -name prime256v1 -genkey -out a.key", "pkey -in a.key -out used.key", None),
        // With its parameters in a section of their own.
        ("ecparam -name secp384r1 -genkey -out a.key", "ecparam -name secp384r1 -genkey -out unused.key", None),
        ("genpkey -algorithm ed25519 -out a.key", "pkey -in a.key -out used.key", None),
        ("genrsa -out a.key 1024", "pkey -in a.key -out used.key", Some("has a private key that cannot be used")),
        (
            "ecparam -name secp521r1 -genkey -out a.key",
            "pkey -in a.key -out used.key",
            Some("has a private key that cannot be used"),
        ),
        (
            "genrsa -out a.key 2048",
            "pkey -in a.key -aes256 -passout pass:sk-fixture -out used.key",
            Some("has an encrypted key"),
        ),
        (
            "genrsa -out a.key 2048",
            "rsa -in a.key -aes256 -traditional -passout pass:sk-fixture -out used.key",
            Some("has an encrypted key"),
        ),
    ] {
        openssl(key);
        openssl("req -x509 -key a.key -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost -out a.pem");
        fs::copy(folder.path("a.key"), folder.path("used.key")).unwrap();
        openssl(conversion);
        let (code, lines) = folder.said(&web);
        match problem {
            None => assert_eq!((code, lines), (Some(0), vec![]), "{key}, {conversion}"),
            Some(problem) => assert!(code == Some(2) && lines[0].contains(problem), "{key}, {conversion}: {lines:?}"),
        }
    }
}

#[test]
fn a_bad_web_configuration_keeps_the_exporter_from_starting_even_as_a_demo() {
    let folder = Folder::new();
    let config = folder.write("config.yaml", "");
    let web = folder.write("web.yaml", "{tls: {}}");
    let web = web.to_str().unwrap();
    for start in [&["--config.file", config.to_str().unwrap()][..], &["--demo"]] {
        let args = [start, &["--web.config.file", web, "--web.listen-address=127.0.0.1:0"]].concat();
        let output = run(&args, &[]);
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.starts_with(&format!("{web}:1:2: tls: is not a known key")), "{errors}");
        assert_eq!((errors.lines().count(), output.stdout), (1, vec![]));
    }
}

#[test]
fn the_problems_of_both_configurations_are_told_together() {
    let folder = Folder::new();
    let config = folder.write("config.yaml", "{a: b}");
    let web = folder.write("web.yaml", "{c: d}");
    let both = ["--config.file", config.to_str().unwrap(), "--web.config.file", web.to_str().unwrap()];
    for more in [&["--config.check"][..], &["--web.listen-address=127.0.0.1:0"]] {
        let output = run(&[&both, more].concat(), &[]);
        let errors = String::from_utf8(output.stderr).unwrap();
        let starts = [format!("{}:1:2: a: ", config.display()), format!("{}:1:2: c: ", web.display())];
        assert_eq!((output.status.code(), errors.lines().count()), (Some(2), 2), "{errors}");
        assert!(errors.lines().zip(starts).all(|(line, start)| line.starts_with(&start)), "{errors}");
    }
}

/// A web configuration that leaves the tests' requests as they are.
const DENY: &str = "http_server_config: {headers: {X-Frame-Options: deny}}\n";

const SUCCESSFUL: &str = "cekura_exporter_web_config_last_reload_successful";

#[tokio::test]
async fn a_bad_web_configuration_fails_a_reload_and_then_the_main_configuration_in_force_stays_too() {
    let upstream = Upstream::start().await;
    let exporter = Exporter::with(Exporter::quick(&upstream, "")).web(DENY).start().await;
    let web = exporter.folder().join("web.yaml");
    let with_watch = Exporter::quick(&upstream, "watches: [{name: w, agent_id: 1, progress_id: p}]\n");
    exporter.reconfigure(&with_watch);
    fs::write(&web, "http_server_config: {headers: {X-Frame-Options: sk-fixture}}\n").unwrap();
    let (status, text) = exporter.reload().await;
    assert!(status == 500 && text.contains("web.yaml:1:32: http_server_config.headers.X-Frame-Options"), "{text}");
    assert_eq!(exporter.get("/api/v1/toggles/w").await.0, 404);
    let e = exporter.scrape().await;
    assert_eq!(e.value(SUCCESSFUL, &[]), Some(0.0));
    assert_eq!(e.value("cekura_exporter_config_last_reload_successful", &[]), Some(0.0));

    exporter.reconfigure("{a: b}");
    let (status, text) = exporter.reload().await;
    assert!(
        status == 500 && text.contains("config.yaml:1:2: a: ") && text.contains("web.yaml:1:32: http_server"),
        "{text}"
    );

    // One that is good is taken over by itself, whatever the other is like.
    fs::write(&web, DENY.replace("deny", "sameorigin")).unwrap();
    let (status, text) = exporter.reload().await;
    assert!(status == 500 && !text.contains("web.yaml"), "{text}");
    assert_eq!(exporter.scrape().await.value(SUCCESSFUL, &[]), Some(1.0));
    exporter.reconfigure(&with_watch);
    assert_eq!(exporter.reload().await.0, 200);
    assert_eq!(exporter.get("/api/v1/toggles/w").await.0, 200);
    assert!(!format!("{:?}", exporter.logs()).contains("sk-fixture"));
}

#[tokio::test]
async fn a_web_configuration_is_followed_and_each_change_is_said_once() {
    let exporter = Exporter::with("watches: []\n").web(DENY).start().await;
    assert_eq!(exporter.scrape().await.value(SUCCESSFUL, &[]), Some(1.0));
    let web = exporter.folder().join("web.yaml");
    fs::write(&web, "{a: b}").unwrap();
    exporter.scrape_until("it is bad", |e| e.value(SUCCESSFUL, &[]) == Some(0.0)).await;
    let said = exporter.logged("web configuration not reloaded: the one in force stays", 1).await;
    assert_eq!(said.len(), 1);
    assert!(said[0]["level"] == "ERROR" && said[0]["problem"].as_str().unwrap().starts_with("web.yaml:1:2: a: is not"));
    fs::write(&web, DENY).unwrap();
    exporter.scrape_until("it is good", |e| e.value(SUCCESSFUL, &[]) == Some(1.0)).await;
    // What nobody changed is not reloaded, though it is looked at.
    exporter.signal(Signal::HUP);
    exporter.logged("configuration reloaded", 1).await;
    assert_eq!(exporter.logs_of("web configuration reloaded").len(), 1);
    assert_eq!(exporter.logs_of("web configuration not reloaded: the one in force stays").len(), 1);
}

#[tokio::test]
async fn without_a_web_configuration_its_metric_says_that_all_is_well() {
    let exporter = Exporter::with("").start().await;
    let e = exporter.scrape().await;
    assert_eq!(e.value(SUCCESSFUL, &[]), Some(1.0));
    assert!(!e.text.contains("cekura_exporter_tls_certificate_expiry_timestamp_seconds"), "{}", e.text);
}

#[tokio::test]
async fn registrations_are_said_to_be_open_to_all_only_where_nobody_has_to_log_in() {
    let users = "basic_auth_users: {alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}\n";
    let start = |web: &str| {
        let start = Exporter::with("state_file: state\nregistrations: {enabled: true}\n").web(web);
        start.arg("--web.listen-address=0.0.0.0:0").start()
    };
    let warnings = |exporter: &Exporter| {
        exporter.logs().iter().filter(|line| line["message"].as_str().unwrap().starts_with("registrations are")).count()
    };
    let exporter = start(DENY).await;
    eventually("it is said", async || (warnings(&exporter) == 1).then_some(())).await;
    let exporter = start(users).await;
    assert_eq!(warnings(&exporter), 0);
    fs::write(exporter.folder().join("web.yaml"), DENY).unwrap();
    eventually("it is said when the users are gone", async || (warnings(&exporter) == 1).then_some(())).await;
}

#[tokio::test]
async fn the_demo_says_that_it_is_encrypted() {
    let folder = Folder::new();
    let web = folder.write("web.yaml", "tls_server_config: {cert_file: server.pem, key_file: server.key}");
    let exporter = Exporter::with("").arg("--demo").arg(&format!("--web.config.file={}", web.display())).start().await;
    let url = exporter.urls[0].replace("http://", "https://");
    eventually("it welcomes", async || exporter.errors().contains(&format!("open {url}/ ")).then_some(())).await;
}

/// A client that trusts this certificate and shows that one.
fn client(trusted: &str, shown: Option<&str>) -> reqwest::Client {
    let trusted = reqwest::Certificate::from_pem(trusted.as_bytes()).unwrap();
    let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]);
    if let Some(shown) = shown {
        client = client.identity(reqwest::Identity::from_pem(shown.as_bytes()).unwrap());
    }
    client.build().unwrap()
}

#[tokio::test]
async fn renewed_certificates_and_authorities_of_clients_hold_without_a_restart() {
    let folder = Folder::new();
    let read = |name: &str| fs::read_to_string(folder.path(name)).unwrap();
    let web = folder.write(
        "web.yaml",
        "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: clients.pem, \
         client_auth_type: RequireAndVerifyClientCert}\n",
    );
    let exporter = Exporter::with("").arg(&format!("--web.config.file={}", web.display())).start().await;
    let url = exporter.urls[0].replace("http://127.0.0.1", "https://localhost");
    let metrics = async |client: &reqwest::Client| {
        let answer = client.get(format!("{url}/metrics")).send().await.ok()?;
        Some(crate::harness::Exposition::parse(answer.text().await.ok()?))
    };
    let expiry =
        |e: &crate::harness::Exposition| e.value("cekura_exporter_tls_certificate_expiry_timestamp_seconds", &[]);
    let (server, clients) = (read("server.pem"), read("clients.pem") + &read("clients.key"));
    let known = client(&server, Some(&clients));
    assert_eq!(expiry(&metrics(&known).await.unwrap()), Some(4_102_444_800.0));
    assert!(metrics(&client(&server, None)).await.is_none(), "who shows no certificate does not get in");
    let plain = exporter.status_for(&crate::harness::Client::default(), "/metrics").await;
    assert_eq!(plain, Some(400), "nor does plain HTTP");

    folder.issue("server", [(2020, 1, 1), (2099, 1, 1)]);
    let renewed = client(&read("server.pem"), Some(&clients));
    let e = eventually("the new certificate is shown", async || metrics(&renewed).await).await;
    assert_eq!(expiry(&e), Some(4_070_908_800.0));
    assert!(metrics(&client(&server, Some(&clients))).await.is_none());

    folder.issue("clients", [(2020, 1, 1), (2100, 1, 1)]);
    let known = client(&read("server.pem"), Some(&(read("clients.pem") + &read("clients.key"))));
    eventually("the new authority is trusted", async || metrics(&known).await).await;
    let old = client(&read("server.pem"), Some(&clients));
    assert!(metrics(&old).await.is_none(), "and the old one is not");
    eventually("nor on connections that were there", async || metrics(&renewed).await.is_none().then_some(())).await;
}
