//! What can be wrong with the database.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::database::ConnectError;

/// What is wrong with the database: a sentence without its subject.
#[derive(Debug)]
pub(in crate::store) enum DatabaseFault {
    /// No host of it accepts connections.
    Unreachable(ConnectError),
    /// It was not reached a moment ago, for this reason, and was not asked again.
    Away(String),
    /// The connection was lost.
    Disconnected(String),
    /// It did not answer within this time.
    Late(Duration),
    /// It refused a statement.
    Refused(String),
    /// The role may not create the schema.
    NoSchema,
    /// Its schema has this version, which is newer than ours.
    Newer(i32),
    /// A record in it is not what was written.
    Damaged(String),
}

// === impl DatabaseFault ===

impl DatabaseFault {
    /// Whether this program can never use the database.
    pub(in crate::store) fn is_final(&self) -> bool {
        matches!(self, Self::Newer(_))
    }
}

impl From<tokio_postgres::Error> for DatabaseFault {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // A server that shuts down, or that has become a standby, is on its way out.
            Some(refusal) if is_of_the_server(refusal.code()) => Self::Disconnected(refusal.message().to_owned()),
            // The detail of an error can hold values, which are nobody's business.
            Some(refusal) => Self::Refused(refusal.message().to_owned()),
            None => Self::Disconnected(error.to_string()),
        }
    }
}

/// Whether an error is about the server and not about the statement.
fn is_of_the_server(code: &SqlState) -> bool {
    let of_server = [
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    of_server.contains(&code)
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Away(problem) => f.write_str(problem),
            Self::Disconnected(problem) => write!(f, "ended the connection: {problem}"),
            Self::Late(limit) => write!(f, "did not answer within {limit:?}"),
            Self::Refused(problem) => write!(f, "refused a statement: {problem}"),
            Self::NoSchema => f.write_str(
                "has no schema cekura_exporter, and this role may not create it: grant the role CREATE on the \
                 database, or create the schema and make the role its owner",
            ),
            Self::Newer(version) => write!(
                f,
                "was written by a newer version of cekura-exporter (its schema is {version}, the newest known here is \
                 {}): run that version",
                super::schema::VERSION
            ),
            Self::Damaged(problem) => write!(f, "has a damaged record: {problem}"),
        }
    }
}
