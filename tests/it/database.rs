//! The database that exporters share: how it is reached, and how a check says what is wrong with it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use cekura_exporter::database::{Connector, DatabaseSettings, DatabaseUrl, UrlSource};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_postgres::{Client, Row};

use crate::harness::{Authority, FAR, Pair, Postgres, Proxy, run};

/// A password that must never show.
const PASSWORD: &str = "pw-test-61";

/// What is said of a database that has nothing of the exporter yet.
const EMPTY: &str = "the schema will be created";

/// The configuration of a database, and a folder for its files.
struct Configured {
    folder: TempDir,
    settings: DatabaseSettings,
}

/// What a check says: its exit code, what it says of the database on standard output, and its errors and warnings.
struct Checked {
    code: Option<i32>,
    said: String,
    errors: String,
}

// === impl Configured ===

impl Configured {
    fn by(url: UrlSource) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A server that runs as another user reads there, too.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self { folder, settings: DatabaseSettings::new(url) }
    }

    fn to(url: &str) -> Self {
        Self::by(UrlSource::Given(DatabaseUrl::parse(url).unwrap()))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// With a file of authorities.
    fn trusting(mut self, pem: &str) -> Self {
        self.settings.ca_file = Some(self.file("ca.pem", pem));
        self
    }

    /// With a file of the password.
    fn password(mut self, password: &str) -> Self {
        self.settings.password_file = Some(self.file("password", password));
        self
    }

    fn connector(&self) -> Connector {
        Connector::new(self.settings.clone())
    }

    /// Whether the connection to the server that is reached is encrypted.
    async fn is_encrypted(&self) -> bool {
        let (client, _) = connected(&self.connector()).await;
        one(&client, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await.get(0)
    }
}

// === impl Checked ===

impl Checked {
    /// Checks a configuration with this block `database`.
    fn of(block: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        fs::write(&path, format!("apis: {{default: {{api_key: k}}}}\nagents: [{{agent_id: 7}}]\n{block}\n")).unwrap();
        let output = run(&["--config.check", "--config.file", path.to_str().unwrap()], &[]);
        let [said, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(!format!("{said}{errors}").contains(PASSWORD), "a password shows: {said}{errors}");
        let said = said.lines().skip(1).collect::<Vec<_>>().join("\n");
        let path = path.to_str().unwrap();
        Self { code: output.status.code(), said, errors: errors.replace(path, "FILE") }
    }

    /// Checks that a database is good, without warnings.
    fn good(block: &str) -> String {
        let checked = Self::of(block);
        assert_eq!((checked.code, &*checked.errors), (Some(0), ""), "{block}: {}", checked.said);
        checked.said
    }

    /// What is wrong with a database, in one line.
    fn bad(block: &str) -> String {
        let checked = Self::of(block);
        assert_eq!((checked.code, &*checked.said), (Some(1), ""), "{block}: {}", checked.errors);
        assert_eq!(checked.errors.lines().count(), 1, "{}", checked.errors);
        checked.errors.trim_end().to_owned()
    }
}

/// A client, and its name in `pg_stat_activity`.
async fn connected(connector: &Connector) -> (Client, String) {
    let (client, connection) = connector.connect().await.unwrap_or_else(|error| panic!("{error}"));
    tokio::spawn(connection);
    let name = one(&client, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()").await.get(0);
    (client, name)
}

async fn one(client: &Client, sql: &str) -> Row {
    client.query_one(sql, &[]).await.unwrap()
}

/// Why a database is not reached.
async fn refused(connector: &Connector) -> String {
    let refused = connector.connect().await.err().expect("a connection is made").to_string();
    assert!(!format!("{refused} {connector:?}").contains(PASSWORD), "{refused} {connector:?}");
    refused
}

/// The block that names this URL.
fn block(url: &str) -> String {
    format!("database: {{url: \"{url}\"}}")
}

/// The URL of a cluster with this password.
fn with_password(postgres: &Postgres, password: &str) -> String {
    postgres.url().replace("postgres@", &format!("postgres:{password}@"))
}

/// A cluster with the certificate of a server.
async fn encrypting(pair: &Pair) -> Postgres {
    Postgres::with().tls(pair).start().await
}

/// A message of a server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// A server that answers what clients send with these messages, one after the other.
async fn scripted(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            for answer in &answers {
                assert_ne!(client.read(&mut [0; 1024]).await.unwrap(), 0);
                client.write_all(answer).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_check_says_what_the_database_is() {
    let postgres = Postgres::start().await;
    let said = Checked::good(&block(&postgres.url()));
    let start = "database: PostgreSQL 1";
    assert!(said.starts_with(start) && said.ends_with(&format!(", database `postgres`: {EMPTY}")), "{said}");
    let (client, name) = connected(&Configured::to(&postgres.url()).connector()).await;
    assert_eq!(name, "cekura-exporter");
    client.batch_execute("CREATE SCHEMA cekura_exporter").await.unwrap();
    assert!(Checked::good(&block(&postgres.url())).ends_with("the schema is there"));
}

#[tokio::test]
async fn a_server_without_encryption_is_used_only_where_that_is_allowed() {
    let postgres = Postgres::start().await;
    for mode in ["disable", "prefer"] {
        let url = format!("{}?sslmode={mode}", postgres.url());
        assert!(Checked::good(&block(&url)).ends_with(EMPTY), "{mode}");
        assert!(!Configured::to(&url).is_encrypted().await, "{mode}");
    }
    for mode in ["require", "verify-full"] {
        let said = Checked::bad(&block(&format!("{}?sslmode={mode}", postgres.url())));
        let address = postgres.address();
        assert_eq!(said, format!("the database cannot be reached: {address}: server does not support TLS"), "{mode}");
    }
}

#[tokio::test]
async fn each_sslmode_verifies_as_much_of_a_server_as_it_does_in_libpq() {
    let [authority, other] = ["databases", "others"].map(Authority::new);
    let named = encrypting(&authority.server(FAR)).await;
    let elsewhere = encrypting(&authority.server_named("db.example.com")).await;
    let [unknown, name] = ["UnknownIssuer", "certificate not valid for name \"127.0.0.1\""];
    for (postgres, mode, trusted, wrong) in [
        (&named, "disable", None, None),
        (&named, "prefer", None, None),
        (&elsewhere, "prefer", None, None),
        (&elsewhere, "require", None, None),
        (&elsewhere, "require", Some(&authority), None),
        (&named, "require", Some(&other), Some(unknown)),
        (&elsewhere, "verify-ca", Some(&authority), None),
        (&named, "verify-ca", Some(&other), Some(unknown)),
        (&named, "verify-full", Some(&authority), None),
        (&elsewhere, "verify-full", Some(&authority), Some(name)),
        (&named, "verify-full", Some(&other), Some(unknown)),
        (&named, "verify-full", None, Some(unknown)),
    ] {
        let url = format!("{}?sslmode={mode}", postgres.url());
        let access = Configured::to(&url);
        let access = trusted.into_iter().fold(access, |access, authority| access.trusting(&authority.pem()));
        let ca =
            access.settings.ca_file.as_ref().map_or(String::new(), |path| format!(", ca_file: {}", path.display()));
        let block = format!("database: {{url: \"{url}\"{ca}}}");
        match wrong {
            None => {
                assert!(Checked::good(&block).ends_with(EMPTY), "{block}");
                assert_eq!(access.is_encrypted().await, mode != "disable", "{block}");
            }
            Some(wrong) => {
                let said = Checked::bad(&block);
                let start = format!("the database cannot be reached: {}: TLS failed: ", postgres.address());
                assert!(said.starts_with(&start) && said.contains(wrong), "{block}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_verified_by_itself() {
    let pair = Pair::own_authority("127.0.0.1");
    let postgres = encrypting(&pair).await;
    let access = Configured::to(&format!("{}?sslmode=verify-full", postgres.url())).trusting(&pair.certificate);
    assert!(access.is_encrypted().await);
    let elsewhere = Pair::own_authority("db.example.com");
    let postgres = encrypting(&elsewhere).await;
    let by =
        |mode: &str| Configured::to(&format!("{}?sslmode={mode}", postgres.url())).trusting(&elsewhere.certificate);
    assert!(by("verify-ca").is_encrypted().await);
    assert!(refused(&by("verify-full").connector()).await.contains("not valid for name"));
}

#[tokio::test]
async fn authorities_are_read_again_at_each_connection() {
    let [authority, other] = ["databases", "others"].map(Authority::new);
    let postgres = encrypting(&authority.server(FAR)).await;
    let url = format!("{}?sslmode=verify-full", postgres.url());
    let access = Configured::to(&url).trusting(&other.pem());
    let connector = access.connector();
    assert!(refused(&connector).await.contains("UnknownIssuer"));
    access.file("ca.pem", &authority.pem());
    connected(&connector).await;
    access.file("ca.pem", "");
    assert!(refused(&connector).await.contains("ca.pem has no certificate"));
}

#[tokio::test]
async fn a_connection_that_only_prefers_encryption_falls_back_where_the_server_wants_none() {
    let folder = Configured::to("postgresql://u@h");
    let logins = folder.file("hba", "local all all trust\nhostnossl all all 127.0.0.1/32 trust\n");
    let pair = Authority::new("databases").server(FAR);
    let postgres = Postgres::with().tls(&pair).setting(&format!("hba_file={}", logins.display())).start().await;
    assert!(!Configured::to(&postgres.url()).is_encrypted().await);
    let said = Checked::bad(&block(&format!("{}?sslmode=require", postgres.url())));
    assert!(said.contains("no pg_hba.conf entry") && said.ends_with("(SQLSTATE 28000)"), "{said}");
}

#[tokio::test]
async fn a_password_is_that_of_the_url_or_that_of_a_file_which_is_read_again_at_each_connection() {
    let postgres = Postgres::with().password(PASSWORD).start().await;
    assert!(Checked::good(&block(&with_password(&postgres, PASSWORD))).ends_with(EMPTY));
    let access = Configured::to(&postgres.url()).password(&format!("{PASSWORD}\n"));
    let connector = access.connector();
    connected(&connector).await;
    access.file("password", "another");
    assert!(refused(&connector).await.contains("password authentication failed for user \"postgres\""));
    access.file("password", "");
    assert!(refused(&connector).await.contains("password is empty"));
    access.file("password", PASSWORD);
    connected(&connector).await;
}

#[tokio::test]
async fn a_url_in_a_file_is_read_again_at_each_connection() {
    let [one, other] = [Postgres::start().await, Postgres::with().password(PASSWORD).start().await];
    let folder = Configured::to("postgresql://u@h");
    let path = folder.file("url", &format!("{}\n", one.url()));
    assert!(Checked::good(&format!("database: {{url_file: {}}}", path.display())).ends_with(EMPTY));
    let access = Configured::by(UrlSource::File(path));
    let connector = access.connector();
    let (client, _) = connected(&connector).await;
    let port = "SELECT inet_server_port()";
    assert_eq!(self::one(&client, port).await.get::<_, i32>(0), i32::from(one.address().port()));
    folder.file("url", &with_password(&other, PASSWORD));
    let (client, _) = connected(&connector).await;
    assert_eq!(self::one(&client, port).await.get::<_, i32>(0), i32::from(other.address().port()));
    folder.file("url", &format!("postgresql://u:{PASSWORD}@h:x"));
    assert!(refused(&connector).await.ends_with("url has a port that is not a number from 1 to 65535"));
}

#[tokio::test]
async fn a_check_says_what_is_wrong_with_a_password_and_never_what_it_is() {
    let postgres = Postgres::with().password("right").start().await;
    let wrong = Checked::bad(&block(&with_password(&postgres, PASSWORD)));
    let address = postgres.address();
    let expected = format!(
        "the database cannot be reached: {address}: password authentication failed for user \"postgres\" (SQLSTATE 28P01)"
    );
    assert_eq!(wrong, expected);
    let none = Checked::bad(&block(&postgres.url()));
    assert!(none.ends_with("it wants a password, and none is configured: set password_file"), "{none}");
    // It is only a warning that the file is not there yet.
    let missing = Checked::of(&format!("database: {{url: \"{}\", password_file: none}}", postgres.url()));
    assert_eq!(missing.code, Some(1));
    let lines: Vec<_> = missing.errors.lines().collect();
    let [warning, error] = lines[..] else { panic!("{lines:?}") };
    assert!(
        warning.starts_with("warning: FILE:3:1: database: ") && warning.contains("none cannot be read"),
        "{warning}"
    );
    assert!(error.starts_with("the database cannot be reached: ") && error.contains("none cannot be read"), "{error}");
}

#[tokio::test]
async fn a_server_that_quotes_the_password_does_not_make_it_show() {
    let text = format!("SFATAL\0VFATAL\0C28P01\0Mno login with {PASSWORD}\0\0");
    let [asks, refuses] = [message(b'R', &3_u32.to_be_bytes()), message(b'E', text.as_bytes())];
    let server = scripted(vec![asks, refuses]).await;
    let url = format!("postgresql://u:{PASSWORD}@{server}?sslmode=disable");
    let said = refused(&Configured::to(&url).connector()).await;
    assert_eq!(said, format!("{server}: no login with <secret> (SQLSTATE 28P01)"));
}

#[tokio::test]
async fn a_login_is_bound_to_the_certificate_of_the_server() {
    let pair = Authority::new("databases").server(FAR);
    let postgres = Postgres::with().password(PASSWORD).tls(&pair).start().await;
    let url = |mode: &str| format!("{}?channel_binding=require&sslmode={mode}", with_password(&postgres, PASSWORD));
    assert!(Configured::to(&url("require")).is_encrypted().await);
    let said = refused(&Configured::to(&url("disable")).connector()).await;
    assert!(said.ends_with("server did not use channel binding"), "{said}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_wants_one() {
    let authority = Authority::new("databases");
    let pair = authority.client("postgres");
    let folder = Configured::to("postgresql://u@h");
    let logins = folder.file("hba", "local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n");
    let ca = folder.file("ca.pem", &authority.pem());
    let [certificate, key] =
        [("c.pem", &pair.certificate), ("k.pem", &pair.key)].map(|(name, pem)| folder.file(name, pem));
    let postgres = Postgres::with()
        .tls(&authority.server(FAR))
        .setting(&format!("hba_file={}", logins.display()))
        .setting(&format!("ssl_ca_file={}", ca.display()))
        .start()
        .await;
    let url = format!("{}?sslmode=require", postgres.url());
    let with = |key: &PathBuf| format!("{url}&sslcert={}&sslkey={}", certificate.display(), key.display());
    assert!(Configured::to(&with(&key)).is_encrypted().await);
    assert!(Checked::good(&block(&with(&key))).ends_with(EMPTY));
    let said = refused(&Configured::to(&url).connector()).await;
    assert!(said.contains("valid client certificate"), "{said}");
    let other = folder.file("other.pem", &authority.client("postgres").key);
    let said = refused(&Configured::to(&with(&other)).connector()).await;
    assert!(said.contains("other.pem is not the key of"), "{said}");
}

#[tokio::test]
async fn the_first_server_that_takes_writes_is_used() {
    let mut primary = Postgres::start().await;
    let standby = primary.synchronous_standby().await;
    let (first, second) = (standby.address(), primary.address());
    let both = format!("postgresql://postgres@{first},{second}/postgres");
    let port = async |url: &str| {
        let (client, _) = connected(&Configured::to(url).connector()).await;
        one(&client, "SELECT inet_server_port()").await.get::<_, i32>(0)
    };
    assert_eq!(port(&both).await, i32::from(second.port()));
    assert_eq!(port(&format!("{both}?target_session_attrs=any")).await, i32::from(first.port()));
    assert!(Checked::good(&block(&both)).ends_with(EMPTY));
    let only = Checked::bad(&block(&standby.url()));
    assert_eq!(only, format!("the database cannot be reached: {first}: it takes no writes, as a standby"));
    primary.stop();
    let neither = Checked::bad(&block(&both));
    let expected = format!("{first}: it takes no writes, as a standby; {second}: Connection refused (os error 111)");
    assert_eq!(neither, format!("the database cannot be reached: {expected}"));
    standby.promote().await;
    assert_eq!(port(&both).await, i32::from(first.port()));
}

#[tokio::test]
async fn a_server_is_reached_at_a_socket_of_the_machine_without_encryption() {
    let postgres = Postgres::with().tls(&Authority::new("databases").server(FAR)).start().await;
    let (folder, port) = (postgres.folder(), postgres.address().port());
    for url in [
        format!("postgresql:///postgres?host={}&port={port}&user=postgres&sslmode=verify-full", folder.display()),
        format!("postgresql://postgres@{}:{port}/postgres", folder.to_str().unwrap().replace('/', "%2F")),
    ] {
        assert!(Checked::good(&block(&url)).ends_with(EMPTY));
        assert!(!Configured::to(&url).is_encrypted().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_or_does_not_answer_is_said_within_its_timeout() {
    let mut postgres = Postgres::start().await;
    let mut proxy = Proxy::to(postgres.address());
    let through = block(&format!("{}?connect_timeout=1", Postgres::url_through(&proxy)));
    assert!(Checked::good(&through).ends_with(EMPTY));
    proxy.cut();
    let said = Checked::bad(&through);
    assert_eq!(said, format!("the database cannot be reached: {}: it did not answer within 1s", proxy.address()));
    proxy.refuse().await;
    assert!(Checked::bad(&through).ends_with("Connection refused (os error 111)"));
    postgres.stop();
    assert!(Checked::bad(&block(&postgres.url())).ends_with("Connection refused (os error 111)"));
}

#[tokio::test]
async fn a_role_that_may_not_create_the_schema_is_told_how_to_get_it() {
    let postgres = Postgres::start().await;
    postgres.query("CREATE ROLE \"limited role\" LOGIN").await;
    let url = postgres.url().replace("postgres@", "limited%20role@");
    let said = Checked::bad(&block(&url));
    assert_eq!(
        said,
        "the database cannot be used: there is no schema cekura_exporter, and the role `limited role` may not create it: \
         let an administrator of the database `postgres` run CREATE SCHEMA cekura_exporter AUTHORIZATION \"limited role\""
    );
    postgres.query("CREATE SCHEMA cekura_exporter").await;
    let said = Checked::bad(&block(&url));
    assert!(said.contains("may not use the schema cekura_exporter and create tables in it"), "{said}");
    postgres.query("ALTER SCHEMA cekura_exporter OWNER TO \"limited role\"").await;
    assert!(Checked::good(&block(&url)).ends_with("the schema is there"));
}

#[tokio::test]
async fn a_version_that_is_too_old_is_refused() {
    let connect = async |version: &str| {
        let told = format!("server_version\0{version}\0");
        let ready = [message(b'R', &[0; 4]), message(b'S', told.as_bytes()), message(b'Z', b"I")].concat();
        let server = scripted(vec![ready]).await;
        let url = format!("postgresql://u@{server}?sslmode=disable&target_session_attrs=any");
        (server, Configured::to(&url).connector().connect().await.map(drop))
    };
    for old in ["12.22", "9.6.24"] {
        let (server, refused) = connect(old).await;
        let version = old.split('.').next().unwrap();
        let expected = format!("{server}: it is PostgreSQL {version}, which is too old: 13 or later is needed");
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    for new in ["13.0", "18beta1", "17.2 (Debian 17.2-1)"] {
        assert_eq!(connect(new).await.1, Ok(()), "{new}");
    }
}

#[tokio::test]
async fn a_connection_that_others_may_read_is_warned_of() {
    let postgres = Postgres::start().await;
    let url = format!("postgresql://postgres:{PASSWORD}@{},db.invalid/postgres", postgres.address());
    let checked = Checked::of(&format!("registrations: {{enabled: true}}\n{}", block(&url)));
    assert_eq!(checked.code, Some(0), "{}", checked.errors);
    assert_eq!(
        checked.errors,
        "warning: FILE:4:1: database: sslmode=prefer encrypts connections only if nobody on the network prevents it: \
         sslmode=verify-full is recommended\n"
    );
}
