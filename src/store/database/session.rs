//! A connection to the database, which is opened when it is needed.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Row};

use super::fault::DatabaseFault;
use super::schema;
use crate::database::{Connection, Connector};
use crate::tasks;

/// How long a statement may take, and connecting without the time that the network takes.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The server gives up at the same time, so that nothing that was given up here takes effect much later.
const SETTINGS: &str =
    "SET statement_timeout = '5s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '10s'";

/// A statement's parameter with its type.
pub(super) type Parameter<'p> = (&'p (dyn ToSql + Sync), Type);

/// A connection to the database. After a fault, the next statement opens another one.
#[derive(Debug)]
pub(super) struct Session {
    connector: Connector,
    open: Option<OpenSession>,
    /// What is done when the connection is open: a statement, or nothing.
    greeting: &'static str,
    /// Notified when a notification arrives, and when the connection ends.
    notified: Arc<Notify>,
    /// Takes the payloads of notifications.
    payloads: mpsc::UnboundedSender<String>,
}

#[derive(Debug)]
struct OpenSession {
    client: Client,
    driver: AbortHandle,
}

// === impl Session ===

impl Session {
    /// A session that is not open yet, and the payloads of the notifications that it gets. Whenever it is opened, it
    /// begins with the statements in `greeting`.
    pub(super) fn new(connector: Connector, greeting: &'static str) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (payloads, received) = mpsc::unbounded_channel();
        (Self { connector, open: None, greeting, notified: Arc::default(), payloads }, received)
    }

    /// Notified when a notification arrives, and when the connection ends.
    pub(super) fn notified(&self) -> Arc<Notify> {
        self.notified.clone()
    }

    /// Runs a statement and returns its rows. After a fault it is not known whether the statement took effect.
    ///
    /// # Errors
    /// If the database cannot be reached, refuses, or does not answer in time.
    pub(super) async fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, DatabaseFault> {
        // It is put back only if the statement succeeds. So a call that is dropped half way leaves no connection
        // whose state nobody knows.
        let open = match self.open.take().filter(|open| !open.client.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let rows = in_time(open.client.query_typed(sql, parameters)).await?;
        self.open = Some(open);
        Ok(rows)
    }

    async fn connect(&self) -> Result<OpenSession, DatabaseFault> {
        let (client, connection) = self.connector.connect().await.map_err(DatabaseFault::Unreachable)?;
        let driver = tasks::spawn(drive(connection, self.notified.clone(), self.payloads.clone())).abort_handle();
        let mut open = OpenSession { client, driver };
        in_time(open.client.batch_execute(SETTINGS)).await?;
        let migrated = tokio::time::timeout(TIME_LIMIT, schema::migrate(&mut open.client)).await;
        migrated.unwrap_or(Err(DatabaseFault::Late(TIME_LIMIT)))?;
        in_time(open.client.batch_execute(self.greeting)).await?;
        Ok(open)
    }
}

async fn in_time<T>(statement: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, DatabaseFault> {
    match tokio::time::timeout(TIME_LIMIT, statement).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(DatabaseFault::Late(TIME_LIMIT)),
    }
}

/// Moves the bytes of a connection until it ends.
async fn drive(mut connection: Connection, notified: Arc<Notify>, payloads: mpsc::UnboundedSender<String>) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        let AsyncMessage::Notification(notification) = message else { continue };
        if notification.payload().is_empty() {
            notified.notify_one();
        } else {
            // The receiver lives as long as the store.
            let _ = payloads.send(notification.payload().to_owned());
        }
    }
    notified.notify_one();
}

// === impl OpenSession ===

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
