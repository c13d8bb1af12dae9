//! The tables, and bringing them up to the version that this program knows.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::fault::DatabaseFault;

/// The version of the schema. A database with a higher one is refused.
pub(super) const VERSION: i32 = 1;

/// Each migration brings the schema from the version of its index to the next one.
const MIGRATIONS: [&str; VERSION as usize] = [FIRST];

/// One replica at a time migrates. The number means nothing; others must not use it.
const MIGRATION_LOCK: i64 = 0x0063_656b_7572_6131;

/// The columns `version` grow with each change of a row, so that a replica finds what is new to it. A record is the
/// JSON of the types in `record`; it is null if what it was about is removed.
const FIRST: &str = "
CREATE TABLE cekura_exporter.counters (name text PRIMARY KEY, value bigint NOT NULL);
INSERT INTO cekura_exporter.counters VALUES ('registrations', 0), ('purged', 0);

CREATE TABLE cekura_exporter.replicas (id text PRIMARY KEY, expires timestamptz NOT NULL);

CREATE TABLE cekura_exporter.shards (
    shard smallint PRIMARY KEY,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 0
);
INSERT INTO cekura_exporter.shards (shard) SELECT generate_series(0, 63);

CREATE TABLE cekura_exporter.registrations (
    name text COLLATE \"C\" PRIMARY KEY,
    version bigint NOT NULL,
    record text,
    changed timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON cekura_exporter.registrations (version, name);

CREATE TABLE cekura_exporter.toggles (
    name text COLLATE \"C\" PRIMARY KEY,
    shard smallint NOT NULL,
    version bigint NOT NULL,
    started bigint NOT NULL,
    record text,
    changed timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON cekura_exporter.toggles (shard, version);

CREATE TABLE cekura_exporter.agents (
    api text COLLATE \"C\",
    agent_id text COLLATE \"C\",
    shard smallint NOT NULL,
    version bigint NOT NULL,
    record text,
    changed timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (api, agent_id)
);
CREATE INDEX ON cekura_exporter.agents (shard, version);
";

/// Makes the schema, or brings it up to date. Several replicas may do it at the same time.
///
/// # Errors
/// If the role may not create the schema, or if the schema is newer.
pub(super) async fn migrate(client: &mut Client) -> Result<(), DatabaseFault> {
    if version(client).await? == Some(VERSION) {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    // It is released when the transaction ends, even if that is because this process is gone.
    transaction.query_typed("SELECT pg_advisory_xact_lock($1)", &[(&MIGRATION_LOCK, Type::INT8)]).await?;
    let from = match version(&transaction).await? {
        Some(version) => version,
        None => create(&transaction).await?,
    };
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or_default()) {
        transaction.batch_execute(migration).await?;
    }
    let set_version = "UPDATE cekura_exporter.schema_version SET version = $1";
    transaction.query_typed(set_version, &[(&VERSION, Type::INT4)]).await?;
    Ok(transaction.commit().await?)
}

/// The version of the schema; `None` if there is none.
///
/// # Errors
/// If it is newer than ours.
pub(super) async fn version(client: &impl GenericClient) -> Result<Option<i32>, DatabaseFault> {
    // Reading the catalog sees what another session has just committed; `to_regclass` may not.
    let found = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables \
                 WHERE schemaname = 'cekura_exporter' AND tablename = 'schema_version')";
    let found = client.query_typed(found, &[]).await?;
    if !found.first().map_or(Ok(false), |row| row.try_get(0))? {
        return Ok(None);
    }
    let version = client.query_typed("SELECT version FROM cekura_exporter.schema_version", &[]).await?;
    match version.first().map(|row| row.try_get(0)).transpose()? {
        Some(newer) if newer > VERSION => Err(DatabaseFault::Newer(newer)),
        version => Ok(version),
    }
}

/// Makes the schema without any table but that of the version, unless an administrator made it.
async fn create(transaction: &Transaction<'_>) -> Result<i32, DatabaseFault> {
    let rights = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'cekura_exporter'), \
                  has_database_privilege(current_database(), 'CREATE')";
    let rights = transaction.query_typed(rights, &[]).await?;
    let Some(rights) = rights.first() else { return Err(DatabaseFault::NoSchema) };
    match (rights.try_get(0)?, rights.try_get(1)?) {
        (true, _) => {}
        (false, true) => transaction.batch_execute("CREATE SCHEMA cekura_exporter").await?,
        (false, false) => return Err(DatabaseFault::NoSchema),
    }
    let table = "CREATE TABLE cekura_exporter.schema_version (version integer NOT NULL);
                 INSERT INTO cekura_exporter.schema_version VALUES (0)";
    transaction.batch_execute(table).await?;
    Ok(0)
}
