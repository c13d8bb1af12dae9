//! What the database has to write when nothing changes but the counters of polls.

use std::time::{Duration, Instant};

use crate::api::EndlessTasks;
use crate::fleet::{REPLICAS, database, large};
use crate::harness::{Failure, Table, goal, mebibytes};
use crate::test_harness::Postgres;

/// How long is measured.
const WINDOW: Duration = Duration::from_mins(1);

/// How long it may take until only counters change.
const SETTLE_LIMIT: Duration = Duration::from_mins(5);

/// How long the rows are counted to see that.
const STEP: Duration = Duration::from_secs(5);

/// Rows per second.
const GOAL: f64 = 200.0;

/// What was written so far.
struct Written {
    at: Instant,
    /// Rows by table.
    rows: Vec<(String, f64)>,
    /// Bytes of the write-ahead log.
    log: f64,
}

pub(crate) async fn measure(watches: u32) -> Result<Table, Failure> {
    let mut table = Table::new(&format!("writing, {watches} watches with tasks in progress, polled each minute"));
    let ((postgres, url), api) = (database().await, EndlessTasks::start(watches).await?);
    let fleet = large(url, &api, watches).await?;
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut before = Written::so_far(&postgres).await?;
    loop {
        tokio::time::sleep(STEP).await;
        let now = Written::so_far(&postgres).await?;
        let is_settled = api.polls().all(|poll| poll.is_some()) && now.rows_since(&before) < GOAL;
        before = now;
        if is_settled || Instant::now() > deadline {
            break;
        }
    }
    tokio::time::sleep(WINDOW).await;
    let after = Written::so_far(&postgres).await?;
    let rows = after.rows_since(&before);
    table.row("rows", format!("{rows:.1} per second (goal {GOAL}: {})", goal(rows < GOAL)));
    let by_table = after.by_table_since(&before).map(|(name, rows)| format!("{name} {rows:.1}"));
    table.row("  by table", by_table.collect::<Vec<_>>().join(", "));
    let seconds = (after.at - before.at).as_secs_f64();
    table.row("write-ahead log", format!("{:.1} KiB per second", (after.log - before.log) / 1024.0 / seconds));
    table.row("connections", format!("{} of each replica", connections(&postgres).await? / REPLICAS));
    let size = number_in("SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables", &postgres).await?;
    table.row("size of the tables", format!("{:.1} MiB", size / 1024.0 / 1024.0));
    let resident = fleet.resident()?.into_iter().map(|bytes| format!("{:.0}", mebibytes(bytes)));
    table.row("resident memory", format!("{} MiB", resident.collect::<Vec<_>>().join(", ")));
    Ok(table)
}

/// How many connections there are, without that of the one who asks.
async fn connections(postgres: &Postgres) -> Result<usize, Failure> {
    let sql = "SELECT application_name FROM pg_stat_activity WHERE backend_type = 'client backend' \
               AND pid <> pg_backend_pid()";
    Ok(postgres.query(sql).await.len())
}

/// The number that a statement yields.
async fn number_in(sql: &str, postgres: &Postgres) -> Result<f64, Failure> {
    let rows = postgres.query(sql).await;
    Ok(rows.first().and_then(|row| row.first()).ok_or("The database yields no row.")?.parse()?)
}

// === impl Written ===

impl Written {
    async fn so_far(postgres: &Postgres) -> Result<Self, Failure> {
        const ROWS: &str = "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables \
                            WHERE schemaname = 'cekura_exporter' ORDER BY relname";
        let rows = postgres.query(ROWS).await.into_iter().map(|row| match &*row {
            [table, rows] => Ok((table.clone(), rows.parse()?)),
            _ => Err("The database tells no rows by table.".into()),
        });
        let log = number_in("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn", postgres).await?;
        Ok(Self { at: Instant::now(), rows: rows.collect::<Result<_, Failure>>()?, log })
    }

    /// Rows per second of each table.
    fn by_table_since(&self, earlier: &Self) -> impl Iterator<Item = (&str, f64)> {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let pairs = self.rows.iter().zip(&earlier.rows);
        pairs.map(move |((table, now), (_, before))| (&**table, (now - before) / seconds))
    }

    fn rows_since(&self, earlier: &Self) -> f64 {
        self.by_table_since(earlier).map(|(_, rows)| rows).sum()
    }
}
