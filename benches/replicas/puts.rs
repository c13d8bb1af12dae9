//! What registering takes, beside a commit of the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::api::EndlessTasks;
use crate::fleet::{Configuration, Fleet, client, database};
use crate::harness::{Failure, Table, goal, percentile};

const LEASE: Duration = Duration::from_secs(15);

/// Connections that write all the time.
const WRITERS: u32 = 16;

/// The names that each of them registers.
const NAMES: u32 = 200;

/// How often both are measured, and for how long each time.
const ROUNDS: u32 = 3;
const TIME: Duration = Duration::from_secs(5);

/// How long a PUT may take at all.
const PUT_LIMIT: Duration = Duration::from_secs(10);

/// What registering may take beyond a commit, but for one in a hundred.
const GOAL: Duration = Duration::from_millis(20);

/// What is committed: a counter that grows, and a row with it.
const COUNTED: &str = "WITH counter AS (UPDATE bench_counter SET value = value + 1 RETURNING value)
     INSERT INTO bench_rows SELECT value, $1 FROM counter";

/// As [`COUNTED`], without the counter that all wait for.
const UNCOUNTED: &str = "INSERT INTO bench_rows VALUES (0, $1)";

/// The text of a row. It is as long as the record of a registration.
const ROW: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                   0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(crate) async fn measure() -> Result<Table, Failure> {
    let mut table = Table::new(&format!("PUTs of {WRITERS} writers at three replicas"));
    let ((postgres, url), api) = (database().await, EndlessTasks::start(WRITERS * NAMES).await?);
    postgres.query("CREATE TABLE bench_counter (value bigint NOT NULL)").await;
    postgres.query("INSERT INTO bench_counter VALUES (0)").await;
    postgres.query("CREATE TABLE bench_rows (number bigint NOT NULL, record text NOT NULL)").await;
    let clients = clients(&url).await?;
    let fleet = Fleet::start(Configuration {
        database: url,
        lease: LEASE,
        api: api.address(),
        budget: "requests_per_second: 1000, max_in_flight: 16",
        polling: "min_interval: 5s, max_interval: 5s",
        watches: String::new(),
    })
    .await?;
    let (mut puts, mut counted, mut uncounted) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        counted.extend(commits(&clients, COUNTED).await?);
        uncounted.extend(commits(&clients, UNCOUNTED).await?);
        puts.extend(all_put(&fleet, round).await?);
    }
    for times in [&mut puts, &mut counted, &mut uncounted] {
        times.sort_unstable();
    }
    let [put, commit] = [&puts, &counted].map(|times| percentile(times, 99));
    let beyond = put.saturating_sub(commit);
    table.row("PUT", quantiles(&puts));
    table.row("commit with counter", quantiles(&counted));
    table.row("commit without counter", quantiles(&uncounted));
    table.row(
        "p99 of PUTs",
        format!("{beyond:.2?} more than a commit with counter (goal {GOAL:?}: {})", goal(beyond <= GOAL)),
    );
    Ok(table)
}

/// Connections to the database, one for each writer.
async fn clients(url: &str) -> Result<Vec<Arc<Client>>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // It ends when the client is dropped.
        tokio::spawn(connection);
        clients.push(Arc::new(client));
    }
    Ok(clients)
}

/// What each commit of a statement took, by all clients at the same time.
async fn commits(clients: &[Arc<Client>], statement: &'static str) -> Result<Vec<Duration>, Failure> {
    let until = Instant::now() + TIME;
    let commits = clients.iter().cloned().map(|client| async move {
        let mut times = Vec::new();
        while Instant::now() < until {
            let started = Instant::now();
            client.query_typed(statement, &[(&ROW, Type::TEXT)]).await?;
            times.push(started.elapsed());
        }
        Ok(times)
    });
    all(commits).await
}

/// What each PUT took, by all writers at the same time, each of which has one replica.
async fn all_put(fleet: &Fleet, round: u32) -> Result<Vec<Duration>, Failure> {
    let until = Instant::now() + TIME;
    let addresses = fleet.addresses();
    let writers = (0..WRITERS).zip(addresses.into_iter().cycle()).map(|(writer, (_, address))| async move {
        let http = client(PUT_LIMIT)?;
        let mut times = Vec::new();
        for put in 0.. {
            if Instant::now() >= until {
                break;
            }
            let number = writer * NAMES + put % NAMES;
            let url = format!("http://{address}/api/v1/toggles/pr-{number:05}-bookings");
            let id = format!("6f0c1f6e-{round:04}-{put:06}-{number}");
            let body = json!({"agent_id": number + 1, "progress_id": id, "labels": {"team": "bookings"}}).to_string();
            let request = http.put(url).header("content-type", "application/json").body(body);
            let started = Instant::now();
            let answer = request.send().await?;
            let status = answer.status();
            answer.bytes().await?;
            times.push(started.elapsed());
            if !status.is_success() {
                return Err(format!("A PUT was answered with {status}.").into());
            }
        }
        Ok(times)
    });
    all(writers).await
}

/// The times of all of them.
async fn all(
    tasks: impl Iterator<Item = impl Future<Output = Result<Vec<Duration>, Failure>> + Send + 'static>,
) -> Result<Vec<Duration>, Failure> {
    let all = tasks.collect::<JoinSet<_>>().join_all().await;
    Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

fn quantiles(sorted: &[Duration]) -> String {
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(sorted, percent));
    let rate = sorted.len() as u64 / (TIME * ROUNDS).as_secs();
    format!("p50 {p50:.2?}, p99 {p99:.2?}, max {most:.2?}, {rate} per second")
}
