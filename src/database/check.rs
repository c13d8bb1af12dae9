//! Whether the database is as the exporter needs it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::SCHEMA;
use super::connector::{ConnectError, Connector};

/// A database that answers. As text, what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseInfo {
    version: String,
    database: String,
    has_schema: bool,
}

/// Why a database cannot be used. As text, one sentence.
#[derive(Debug)]
pub enum DatabaseCheckError {
    /// There is no connection.
    Connect(ConnectError),
    /// The role may not do what the exporter needs.
    Privilege(String),
    /// A query was not answered.
    Query(String),
}

/// How long the answer to a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects, and asks whether the role may make the schema and its tables.
///
/// # Errors
/// What is missing.
pub async fn check(connector: &Connector) -> Result<DatabaseInfo, DatabaseCheckError> {
    let (client, connection) = connector.connect().await.map_err(DatabaseCheckError::Connect)?;
    let sql = format!(
        "SELECT current_setting('server_version'), current_database(), current_user, \
         has_database_privilege(current_database(), 'CREATE'), \
         to_regnamespace('{SCHEMA}') IS NOT NULL, \
         coalesce(has_schema_privilege(to_regnamespace('{SCHEMA}')::oid, 'USAGE') \
             AND has_schema_privilege(to_regnamespace('{SCHEMA}')::oid, 'CREATE'), false), \
         current_setting('transaction_read_only'), \
         (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('{SCHEMA}')::oid AND relkind = 'r' \
             AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT') \
                 AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')))"
    );
    let asked = async {
        tokio::select! {
            rows = client.simple_query(&sql) => rows,
            // Whatever ended the connection, the query says it.
            _ = connection => client.simple_query(&sql).await,
        }
    };
    let messages = match timeout(QUERY_TIMEOUT, asked).await {
        Ok(Ok(messages)) => messages,
        Ok(Err(error)) => {
            let told = error.as_db_error().map_or_else(|| error.to_string(), |told| told.message().to_owned());
            return Err(DatabaseCheckError::Query(told));
        }
        Err(_) => return Err(DatabaseCheckError::Query(format!("no answer within {QUERY_TIMEOUT:?}"))),
    };
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let cell = |index| row.and_then(|row| row.try_get(index).ok().flatten()).unwrap_or_default().to_owned();
    let holds = |index| cell(index) == "t";
    let (database, role) = (cell(1), cell(2));
    let (may_create, has_schema, may_use) = (holds(3), holds(4), holds(5));
    if cell(6) == "on" {
        let what = format!("the database `{database}` takes no writes: name its primary, or let it take writes");
        return Err(DatabaseCheckError::Privilege(what));
    }
    if has_schema && may_use && cell(7) != "0" {
        let what = format!(
            "the role `{role}` may not read and write all tables in the schema {SCHEMA}: \
             grant it SELECT, INSERT, UPDATE and DELETE on them, or make it their owner"
        );
        return Err(DatabaseCheckError::Privilege(what));
    }
    if has_schema && !may_use {
        let what = format!(
            "the role `{role}` may not use the schema {SCHEMA} and create tables in it: \
             make it the owner with ALTER SCHEMA {SCHEMA} OWNER TO {}",
            quoted(&role)
        );
        return Err(DatabaseCheckError::Privilege(what));
    }
    if !has_schema && !may_create {
        let what = format!(
            "there is no schema {SCHEMA}, and the role `{role}` may not create it: let an administrator of the database \
             `{database}` run CREATE SCHEMA {SCHEMA} AUTHORIZATION {}",
            quoted(&role)
        );
        return Err(DatabaseCheckError::Privilege(what));
    }
    Ok(DatabaseInfo { version: cell(0), database, has_schema })
}

/// A name as SQL has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

// === impl DatabaseInfo ===

impl fmt::Display for DatabaseInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.split(' ').next().unwrap_or_default();
        let schema = if self.has_schema { "the schema is there" } else { "the schema will be created" };
        write!(f, "PostgreSQL {version}, database `{}`: {schema}", self.database)
    }
}

// === impl DatabaseCheckError ===

impl fmt::Display for DatabaseCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "the database cannot be reached: {error}"),
            Self::Privilege(what) => write!(f, "the database cannot be used: {what}"),
            Self::Query(what) => write!(f, "the database did not answer: {what}"),
        }
    }
}

impl Error for DatabaseCheckError {}
