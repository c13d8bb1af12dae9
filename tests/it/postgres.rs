//! The database of the tests, and the network that leads to it: both do what the tests of replicas rely on.

use std::fs;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Authority, FAR, Postgres, Proxy, eventually, psql};

/// Makes a table with one row.
const TABLE: &str = "CREATE TABLE kept AS SELECT 1 AS row";
const ROWS: &str = "SELECT row FROM kept ORDER BY row";

/// What psql says when nothing was answered for the two seconds that [`impatient`] gives it, the least that it
/// knows.
const SILENCE: &str = "timeout expired";

fn impatient(url: &str) -> String {
    format!("{url}?connect_timeout=2")
}

/// What is wrong with a statement that has to fail.
async fn refused(url: &str, sql: &str) -> String {
    psql(url, sql).await.expect_err(sql)
}

/// How many processes work in this folder, or did before it was removed.
fn processes_in(folder: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let folders = processes.filter_map(|process| fs::read_link(process.join("cwd")).ok());
    folders.filter(|working_in| working_in.starts_with(folder)).count()
}

#[tokio::test]
async fn a_cluster_answers_and_yields_rows_as_they_are() {
    let postgres = Postgres::start().await;
    assert_eq!(psql(&postgres.url(), "SELECT current_user").await.unwrap(), [["postgres"]]);
    let rows = postgres.query("VALUES ('a|b', ''), (E'two\nlines', 'ä')").await;
    assert_eq!(rows, [["a|b", ""], ["two\nlines", "ä"]]);
    assert_eq!(postgres.query("SELECT 1 WHERE false").await, [[""; 0]; 0]);
    assert!(refused(&postgres.url(), "SELECT missing").await.contains("column \"missing\" does not exist"));
}

#[tokio::test]
async fn a_cluster_does_not_wait_for_the_disk_unless_it_is_told_to() {
    let [quick, durable] = [Postgres::with(), Postgres::with().durable()];
    assert_eq!(quick.start().await.query("SHOW fsync").await, [["off"]]);
    assert_eq!(durable.start().await.query("SHOW fsync").await, [["on"]]);
}

#[tokio::test]
async fn two_clusters_at_the_same_time_do_not_disturb_each_other() {
    let (one, other) = tokio::join!(Postgres::start(), Postgres::start());
    one.query(TABLE).await;
    assert_eq!(other.query("SELECT to_regclass('kept')").await, [[""]]);
    drop(one);
    assert_eq!(other.query("SELECT 1").await, [["1"]]);
}

#[tokio::test]
async fn a_stopped_cluster_comes_back_at_its_address_with_its_data() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    postgres.query(TABLE).await;
    postgres.stop();
    assert!(refused(&url, ROWS).await.contains("Connection refused"));
    postgres.start_again().await;
    assert_eq!(psql(&url, ROWS).await.unwrap(), [["1"]]);
}

#[tokio::test]
async fn a_paused_cluster_answers_nobody_until_it_is_resumed() {
    let postgres = Postgres::start().await;
    postgres.pause().await;
    assert!(refused(&impatient(&postgres.url()), "SELECT 1").await.contains(SILENCE));
    postgres.resume();
    assert_eq!(postgres.query("SELECT 1").await, [["1"]]);
}

#[tokio::test]
async fn a_standby_follows_its_primary_also_after_a_restart_and_is_read_only() {
    let mut primary = Postgres::start().await;
    let standby = primary.standby().await;
    primary.query(TABLE).await;
    eventually("the standby has the table", async || psql(&standby.url(), ROWS).await.ok()).await;
    assert!(refused(&standby.url(), "INSERT INTO kept VALUES (2)").await.contains("read-only transaction"));
    primary.stop();
    primary.start_again().await;
    primary.query("INSERT INTO kept VALUES (2)").await;
    eventually("the standby follows again", async || (standby.query(ROWS).await == [["1"], ["2"]]).then_some(())).await;
}

#[tokio::test]
async fn a_promoted_standby_has_what_was_committed_on_the_primary() {
    let mut primary = Postgres::start().await;
    let standby = primary.synchronous_standby().await;
    primary.query(TABLE).await;
    primary.stop();
    standby.promote().await;
    assert_eq!(standby.query(ROWS).await, [["1"]]);
    standby.query("INSERT INTO kept VALUES (2)").await;
    assert_eq!(standby.query(ROWS).await, [["1"], ["2"]]);
}

#[tokio::test]
async fn a_primary_that_failed_can_follow_its_successor_and_succeed_it() {
    let mut first = Postgres::start().await;
    let mut second = first.synchronous_standby().await;
    first.query(TABLE).await;
    first.stop();
    second.promote().await;
    let address = first.address();
    first.start_again_as_standby_of(&second).await;
    assert_eq!(first.address(), address);
    second.query("INSERT INTO kept VALUES (2)").await;
    second.stop();
    first.promote().await;
    first.query("INSERT INTO kept VALUES (3)").await;
    assert_eq!(first.query(ROWS).await, [["1"], ["2"], ["3"]]);
}

#[tokio::test]
async fn a_commit_waits_for_a_synchronous_standby() {
    let primary = Postgres::start().await;
    let standby = primary.synchronous_standby().await;
    primary.query(TABLE).await;
    standby.pause().await;
    let url = primary.url();
    let commit = tokio::spawn(async move { psql(&url, "INSERT INTO kept VALUES (2)").await });
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("the commit waits", async || (primary.query(waiting).await == [["1"]]).then_some(())).await;
    standby.resume();
    commit.await.unwrap().unwrap();
    assert_eq!(primary.query(ROWS).await, [["1"], ["2"]]);
}

#[tokio::test]
async fn a_cluster_with_a_password_refuses_who_does_not_know_it() {
    let postgres = Postgres::with().password("right").start().await;
    let with = |password: &str| postgres.url().replace("postgres@", &format!("postgres:{password}@"));
    assert_eq!(psql(&with("right"), "SELECT 1").await.unwrap(), [["1"]]);
    assert!(refused(&with("wrong"), "SELECT 1").await.contains("password authentication failed"));
    assert!(refused(&postgres.url(), "SELECT 1").await.contains("no password supplied"));
}

#[tokio::test]
async fn a_cluster_with_a_certificate_speaks_tls_to_those_who_trust_its_authority() {
    let [authority, other] = ["databases", "others"].map(Authority::new);
    let postgres = Postgres::with().tls(&authority.server(FAR)).start().await;
    let folder = tempfile::tempdir().unwrap();
    let ask = async |name: &str, authority: &Authority| {
        let file = folder.path().join(name);
        fs::write(&file, authority.pem()).unwrap();
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url(), file.display());
        psql(&url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await
    };
    assert_eq!(ask("its.pem", &authority).await.unwrap(), [["t"]]);
    assert!(ask("other.pem", &other).await.unwrap_err().contains("certificate verify failed"));
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_cluster() {
    let running = Postgres::start().await;
    let standby = running.standby().await;
    let paused = Postgres::start().await;
    paused.pause().await;
    let mut stopped = Postgres::start().await;
    stopped.stop();
    let clusters = [running, standby, paused, stopped];
    let folders = clusters.each_ref().map(Postgres::folder);
    assert!(folders[..3].iter().all(|folder| processes_in(folder) > 1), "{folders:?}");
    drop(clusters);
    for folder in folders {
        assert_eq!(processes_in(&folder), 0);
        assert!(!folder.exists());
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_of_a_test_that_fails() {
    let postgres = Postgres::start().await;
    let folder = postgres.folder();
    let failed = tokio::spawn(async move { assert!(postgres.query("SELECT 1").await.is_empty(), "as it is meant to") });
    assert!(failed.await.unwrap_err().is_panic());
    assert_eq!(processes_in(&folder), 0);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_network_that_is_cut_lets_nothing_pass_until_it_is_healed() {
    let postgres = Postgres::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut to_listener = Proxy::to(listener.local_addr().unwrap());
    let mut to_postgres = Proxy::to(postgres.address());
    let mut client = TcpStream::connect(to_listener.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"before").await.unwrap();
    let mut received = [0; 6];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"before");

    to_listener.cut();
    to_postgres.cut();
    client.write_all(b"during").await.unwrap();
    let url = Postgres::url_through(&to_postgres);
    assert!(refused(&impatient(&url), "SELECT 1").await.contains(SILENCE));
    assert!(server.try_read(&mut received).is_err(), "it passed: {received:?}");

    to_listener.heal();
    to_postgres.heal();
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"during");
    assert_eq!(psql(&url, "SELECT 1").await.unwrap(), [["1"]]);
    drop(client);
    assert_eq!(server.read(&mut received).await.unwrap(), 0);
}

#[tokio::test]
async fn a_network_that_refuses_closes_all_connections_until_it_is_healed() {
    let postgres = Postgres::start().await;
    let mut proxy = Proxy::to(postgres.address());
    let url = Postgres::url_through(&proxy);
    let kept = url.clone();
    let connected = tokio::spawn(async move { psql(&kept, "SELECT pg_sleep(3600)").await });
    let sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    eventually("a client is connected", async || (postgres.query(sleeping).await == [["1"]]).then_some(())).await;
    proxy.refuse().await;
    let lost = connected.await.unwrap().unwrap_err();
    assert!(lost.contains("server closed the connection unexpectedly"), "{lost}");
    assert!(refused(&url, "SELECT 1").await.contains("Connection refused"));
    proxy.heal();
    assert_eq!(psql(&url, "SELECT 1").await.unwrap(), [["1"]]);
    proxy.refuse().await;
    proxy.cut();
    assert!(refused(&impatient(&url), "SELECT 1").await.contains(SILENCE));
}
