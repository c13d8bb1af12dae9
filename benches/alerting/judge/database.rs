//! The database that replicas share.

use super::Postgres;

/// A PostgreSQL and its synchronous standby, which takes its place.
pub(super) struct Database {
    primary: Postgres,
    standby: Postgres,
}

// === impl Database ===

impl Database {
    pub(super) async fn start() -> Self {
        let primary = Postgres::with().durable().start().await;
        let standby = primary.synchronous_standby().await;
        Self { primary, standby }
    }

    /// A URL with both hosts, which leads to the one that is the primary.
    pub(super) fn url(&self) -> String {
        let (one, other) = (self.primary.address(), self.standby.address());
        format!("postgresql://postgres@{one},{other}/postgres?target_session_attrs=read-write")
    }

    /// Ends the primary as a power cut would, and promotes the standby. There is no other one afterwards.
    pub(super) async fn fail_over(&mut self) {
        self.primary.stop();
        self.standby.promote().await;
    }
}
