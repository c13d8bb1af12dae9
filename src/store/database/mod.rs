//! The database that several replicas share: registrations, the state of watches and agents, and who owns which shard.
//!
//! All times in it are those of its own clock. What a replica saves counts only while it owns the shard: each save
//! names the epoch of the ownership, which grows with each owner. Registrations belong to no shard; the last one wins.

mod clock;
mod fault;
mod replica;
mod request;
mod schema;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use self::clock::DatabaseClock;
pub(in crate::store) use self::fault::DatabaseFault;
pub use self::replica::{Leases, Membership, OwnerState, SharedChanges};
pub use self::request::AgentRequest;
use self::session::{Parameter, Session, TIME_LIMIT};
use super::{NewRegistrations, RegistrationChange, SavedToggle, StoreError, UnsavedChanges, record};
use crate::collections::inserted;
use crate::database::Connector;
use crate::toggle::{AgentId, ApiName, Shard, ShardSet, WatchName};

/// The most rows that are read at a time.
const PAGE: i64 = 5_000;

/// How long after it was sent a write can take effect: less than [`TIME_LIMIT`] by more than the deviation of clocks that
/// counts as none. A network may hold a statement back and deliver it when its client has given up, and a later one of
/// the same client, or of another, may have been confirmed meanwhile.
const VALID: Duration = Duration::from_secs(4);

/// How long it is kept that something was removed, as PostgreSQL writes it. A replica that was away for longer reads
/// all registrations anew.
const PURGED: &str = "1 day";

/// A database that replicas share. Its methods can be called at the same time, and dropped at any time.
#[derive(Debug)]
pub struct DatabaseStore {
    /// The id of this replica, which no other process ever had.
    id: String,
    /// How long this replica keeps its shards after it last renewed its lease.
    lease: Duration,
    clock: DatabaseClock,
    leases: SyncMutex<Leases>,
    /// Why the database was not there when it was last asked; `None` if it was.
    away: SyncMutex<Option<String>>,
    registrar: Mutex<Registrar>,
    saver: Mutex<Session>,
    coordinator: Mutex<Session>,
    notified: Arc<Notify>,
    requests: Mutex<mpsc::UnboundedReceiver<String>>,
}

/// The session for registrations.
#[derive(Debug)]
struct Registrar {
    session: Session,
    /// The version of the newest registration that was read.
    seen: i64,
}

// === impl DatabaseStore ===

impl DatabaseStore {
    /// A store that connects when it is first used.
    pub fn new(connector: &Connector, lease: Duration, id: String) -> Self {
        let session = || Session::new(connector.clone(), "").0;
        let (coordinator, requests) = Session::new(connector.clone(), "LISTEN cekura_exporter");
        Self {
            id,
            lease,
            clock: DatabaseClock::default(),
            leases: SyncMutex::default(),
            away: SyncMutex::default(),
            registrar: Mutex::new(Registrar { session: session(), seen: 0 }),
            saver: Mutex::new(session()),
            notified: coordinator.notified(),
            coordinator: Mutex::new(coordinator),
            requests: Mutex::new(requests),
        }
    }

    /// The id of this replica.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How long this replica keeps its shards after it last renewed its lease.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The shards that this replica owns, as far as it knows.
    pub fn leases(&self) -> Leases {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_leases(&self, leases: &Leases) {
        *self.leases.lock().unwrap_or_else(PoisonError::into_inner) = *leases;
    }

    /// Whether the database was there when it was last asked.
    pub fn is_up(&self) -> bool {
        self.away().is_none()
    }

    /// Resolves when another replica did something that this one should know soon, or when the connection is lost.
    pub async fn notified(&self) {
        self.notified.notified().await;
    }

    /// Sends a request to the replica that owns an agent.
    ///
    /// # Errors
    /// If the database does not confirm it.
    pub async fn request(&self, request: &AgentRequest) -> Result<(), StoreError> {
        const REQUEST: &str = "SELECT pg_notify('cekura_exporter', $1)::text";
        self.check_presence()?;
        let payload = request.to_string();
        let session = &mut self.registrar.lock().await.session;
        self.noted(session.query(REQUEST, &[(&payload, Type::TEXT)]).await)?;
        Ok(())
    }

    /// The next request of any replica, also of this one.
    pub async fn next_request(&self) -> AgentRequest {
        let mut requests = self.requests.lock().await;
        loop {
            match requests.recv().await {
                Some(payload) => {
                    if let Some(request) = AgentRequest::parse(&payload) {
                        return request;
                    }
                }
                // The session, which sends them, lives as long as the store.
                None => std::future::pending().await,
            }
        }
    }

    /// Stores registrations and removals, one after the other, in one transaction.
    ///
    /// # Errors
    /// If the database does not confirm it. Then either all or none of them are stored, now or within seconds.
    pub async fn register(&self, changes: &[RegistrationChange]) -> Result<(), StoreError> {
        const STORE: &str = "
            WITH counter AS (
                UPDATE cekura_exporter.counters SET value = value + 1
                WHERE name = 'registrations' AND clock_timestamp() < to_timestamp($3::bigint / 1000.0) RETURNING value
            ), stored AS (
                INSERT INTO cekura_exporter.registrations (name, version, record)
                SELECT changed.name, counter.value, changed.record
                FROM counter, unnest($1, $2) AS changed (name, record)
                ON CONFLICT (name) DO UPDATE
                SET version = excluded.version, record = excluded.record, changed = clock_timestamp()
            )
            SELECT value, pg_notify('cekura_exporter', '')::text FROM counter";
        if changes.is_empty() {
            return Ok(());
        }
        self.check_presence()?;
        let shift = self.clock.to_database();
        // Of several changes of a name, the last one wins.
        let changes: BTreeMap<&WatchName, &RegistrationChange> =
            inserted(changes.iter().map(|change| (change.name(), change)));
        let names: Vec<&str> = changes.keys().map(|name| name.as_str()).collect();
        let record = |change: &RegistrationChange| match change {
            RegistrationChange::Put(registration) => {
                let mut registration = registration.clone();
                registration.map_times(|time| time.shifted(shift));
                json(record::write_registration(&registration)).map(Some)
            }
            RegistrationChange::Remove(_) => Ok(None),
        };
        let records: Vec<Option<String>> = changes.into_values().map(record).collect::<Result<_, _>>()?;
        let Registrar { session, seen } = &mut *self.registrar.lock().await;
        let until = self.clock.after(VALID);
        let parameters: [Parameter<'_>; 3] =
            [(&names, Type::TEXT_ARRAY), (&records, Type::TEXT_ARRAY), (&until, Type::INT8)];
        let stored = self.noted(session.query(STORE, &parameters).await)?;
        let stored = stored.first().ok_or(DatabaseFault::Late(TIME_LIMIT))?;
        let version: i64 = cell(Some(stored), 0)?;
        if version == *seen + 1 {
            // Nobody else has stored anything since.
            *seen = version;
        }
        Ok(())
    }

    /// The registrations that are new since this was last called.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn new_registrations(&self) -> Result<NewRegistrations, StoreError> {
        self.check_presence()?;
        let Registrar { session, seen } = &mut *self.registrar.lock().await;
        loop {
            let (purged, newest) = self.versions(session).await?;
            // What was purged since this replica last read cannot be told from what was never there.
            let is_complete = purged > *seen;
            if newest == *seen {
                return Ok(NewRegistrations::default());
            }
            let since = if is_complete { 0 } else { *seen };
            let (changes, version) = self.registrations_since(session, since).await?;
            if self.versions(session).await?.0 == purged {
                *seen = version.max(newest);
                return Ok(NewRegistrations { changes, is_complete });
            }
        }
    }

    /// The versions of the newest removal that was purged, and of the newest registration.
    async fn versions(&self, session: &mut Session) -> Result<(i64, i64), DatabaseFault> {
        const VERSIONS: &str = "SELECT name, value FROM cekura_exporter.counters ORDER BY name";
        let versions = self.noted(session.query(VERSIONS, &[]).await)?;
        Ok((cell(versions.first(), 1)?, cell(versions.get(1), 1)?))
    }

    /// The registrations that are newer than a version, and the version of the newest one.
    async fn registrations_since(
        &self,
        session: &mut Session,
        since: i64,
    ) -> Result<(Vec<RegistrationChange>, i64), DatabaseFault> {
        const READ: &str = "
            SELECT name, record, version FROM cekura_exporter.registrations
            WHERE (version, name) > ($1, $2) ORDER BY version, name LIMIT $3";
        // No name comes after this one.
        let (mut version, mut name) = (since, "\u{10ffff}".to_owned());
        let mut changes = Vec::new();
        loop {
            let parameters: [Parameter<'_>; 3] = [(&version, Type::INT8), (&name, Type::TEXT), (&PAGE, Type::INT8)];
            let rows = self.noted(session.query(READ, &parameters).await)?;
            for row in &rows {
                changes.extend(self.registration(row)?);
            }
            if let Some(last) = rows.last() {
                (name, version) = (cell(Some(last), 0)?, cell(Some(last), 2)?);
            }
            if i64::try_from(rows.len()).is_ok_and(|rows| rows < PAGE) {
                return Ok((changes, version));
            }
        }
    }

    /// A registration or a removal; `None` if the record cannot be read, which is logged.
    fn registration(&self, row: &Row) -> Result<Option<RegistrationChange>, DatabaseFault> {
        let (name, record): (&str, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
        let shift = self.clock.to_local();
        let read = || {
            let name = WatchName::parse(name)?;
            let Some(record) = record else { return Ok(RegistrationChange::Remove(name)) };
            let mut registration = record::read_registration(name, record.as_bytes())?;
            registration.map_times(|time| time.shifted(shift));
            Ok(RegistrationChange::Put(registration))
        };
        Ok(readable("registration", name, read()))
    }

    /// Deletes what says that something was removed long ago.
    ///
    /// # Errors
    /// If the database does not confirm it.
    pub async fn purge(&self) -> Result<(), StoreError> {
        const PURGE: &str = "
            WITH registrations AS (
                DELETE FROM cekura_exporter.registrations
                WHERE record IS NULL AND changed < clock_timestamp() - $1::text::interval RETURNING version
            ), toggles AS (
                DELETE FROM cekura_exporter.toggles
                WHERE record IS NULL AND changed < clock_timestamp() - $1::text::interval
            ), agents AS (
                DELETE FROM cekura_exporter.agents
                WHERE record IS NULL AND changed < clock_timestamp() - $1::text::interval
            )
            UPDATE cekura_exporter.counters SET value = greatest(value, (SELECT max(version) FROM registrations))
            WHERE name = 'purged' AND EXISTS (SELECT FROM registrations)";
        let mut session = self.coordinator.lock().await;
        self.noted(session.query(PURGE, &[(&PURGED, Type::TEXT)]).await)?;
        Ok(())
    }

    /// Saves the state of watches and agents in shards that this replica owns, in one transaction, and returns these
    /// shards. What is in other shards, by now, is not saved.
    ///
    /// # Errors
    /// If the database does not confirm it. Then either all or none of it is saved, now or within seconds.
    pub async fn save(&self, changes: &UnsavedChanges) -> Result<ShardSet, StoreError> {
        const SAVE: &str = "
            WITH held AS (
                UPDATE cekura_exporter.shards SET version = version + 1
                FROM unnest($1, $2) AS held (shard, epoch)
                WHERE shards.shard = held.shard AND shards.epoch = held.epoch
                    AND clock_timestamp() < to_timestamp($13::bigint / 1000.0)
                RETURNING shards.shard, shards.version
            ), toggles AS (
                INSERT INTO cekura_exporter.toggles AS saved (name, shard, version, started, record)
                SELECT changed.name, changed.shard, held.version, changed.started, changed.record
                FROM unnest($3, $4, $5, $6) AS changed (name, shard, started, record) JOIN held USING (shard)
                ON CONFLICT (name) DO UPDATE
                SET shard = excluded.shard, version = excluded.version, started = excluded.started,
                    record = excluded.record, changed = clock_timestamp()
                WHERE saved.shard = excluded.shard OR saved.record IS NULL OR saved.started <= excluded.started
            ), removed AS (
                UPDATE cekura_exporter.toggles AS saved
                SET version = held.version, record = NULL, changed = clock_timestamp()
                FROM held WHERE saved.name = ANY ($7) AND saved.shard = held.shard AND saved.record IS NOT NULL
            ), agents AS (
                INSERT INTO cekura_exporter.agents (api, agent_id, shard, version, record)
                SELECT changed.api, changed.agent_id, changed.shard, held.version, changed.record
                FROM unnest($8, $9, $10, $11) AS changed (api, agent_id, shard, record) JOIN held USING (shard)
                ON CONFLICT (api, agent_id) DO UPDATE
                SET version = excluded.version, record = excluded.record, changed = clock_timestamp()
            )
            SELECT array_agg(shard), CASE WHEN $12 THEN pg_notify('cekura_exporter', '')::text END FROM held";
        let mut session = self.saver.lock().await;
        let removed: Vec<&str> = changes.removed_toggles().map(WatchName::as_str).collect();
        let mut shards: Vec<Shard> = changes.shards().collect();
        if !removed.is_empty() {
            shards.extend(self.shards_of(&mut session, &removed).await?);
        }
        // Not the leases of now: another replica may have replaced this state since it was taken.
        let leases = changes.leases;
        let mut held: Vec<(i16, i64)> =
            shards.into_iter().filter_map(|shard| Some((number(shard), leases.epoch(shard)?))).collect();
        held.sort_unstable();
        held.dedup();
        if held.is_empty() {
            return Ok(ShardSet::NONE);
        }
        let (held_shards, epochs): (Vec<i16>, Vec<i64>) = held.into_iter().unzip();
        let toggles = self.toggle_columns(changes)?;
        let agents = self.agent_columns(changes)?;
        let until = self.clock.after(VALID);
        let parameters: [Parameter<'_>; 13] = [
            (&held_shards, Type::INT2_ARRAY),
            (&epochs, Type::INT8_ARRAY),
            (&toggles.names, Type::TEXT_ARRAY),
            (&toggles.shards, Type::INT2_ARRAY),
            (&toggles.started, Type::INT8_ARRAY),
            (&toggles.records, Type::TEXT_ARRAY),
            (&removed, Type::TEXT_ARRAY),
            (&agents.apis, Type::TEXT_ARRAY),
            (&agents.ids, Type::TEXT_ARRAY),
            (&agents.shards, Type::INT2_ARRAY),
            (&agents.records, Type::TEXT_ARRAY),
            (&changes.is_news, Type::BOOL),
            (&until, Type::INT8),
        ];
        let saved = self.noted(session.query(SAVE, &parameters).await)?;
        let saved: Option<Vec<i16>> = cell(saved.first(), 0)?;
        Ok(saved.unwrap_or_default().into_iter().filter_map(shard).collect())
    }

    /// The shards in which these watches are saved.
    async fn shards_of(&self, session: &mut Session, names: &[&str]) -> Result<Vec<Shard>, DatabaseFault> {
        const FIND: &str =
            "SELECT DISTINCT shard FROM cekura_exporter.toggles WHERE name = ANY ($1) AND record IS NOT NULL";
        let rows = self.noted(session.query(FIND, &[(&names, Type::TEXT_ARRAY)]).await)?;
        let numbers = rows.iter().map(|row| row.try_get::<_, i16>(0)).collect::<Result<Vec<_>, _>>()?;
        Ok(numbers.into_iter().filter_map(shard).collect())
    }

    fn toggle_columns<'c>(&self, changes: &'c UnsavedChanges) -> Result<ToggleColumns<'c>, DatabaseFault> {
        let shift = self.clock.to_database();
        let mut columns = ToggleColumns::default();
        for (name, runs) in &changes.toggles {
            let mut runs: Vec<SavedToggle> = runs.clone();
            for run in &mut runs {
                run.map_times(|time| time.shifted(shift));
            }
            let [newest, displaced @ ..] = runs.as_slice() else { continue };
            columns.names.push(name.as_str());
            columns.shards.push(number(newest.shard()));
            columns.started.push(i64::try_from(newest.run.started.as_millis()).unwrap_or(i64::MAX));
            columns.records.push(json(record::write_toggle(newest, displaced, 0))?);
        }
        Ok(columns)
    }

    fn agent_columns<'c>(&self, changes: &'c UnsavedChanges) -> Result<AgentColumns<'c>, DatabaseFault> {
        let shift = self.clock.to_database();
        let mut columns = AgentColumns::default();
        for ((api, id), saved) in &changes.agents {
            columns.apis.push(api.as_str());
            columns.ids.push(id.to_string());
            columns.shards.push(number(Shard::of(api, *id)));
            columns.records.push(match saved {
                Some(saved) => {
                    let mut saved = saved.clone();
                    saved.map_times(|time| time.shifted(shift));
                    Some(json(record::write_agent(&saved, 0))?)
                }
                None => None,
            });
        }
        Ok(columns)
    }

    fn away(&self) -> MutexGuard<'_, Option<String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of whether the database was there.
    fn noted<T>(&self, result: Result<T, DatabaseFault>) -> Result<T, DatabaseFault> {
        *self.away() = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Refuses to ask a database that was away when it was last asked, because whoever asks would wait in vain. The
    /// coordinator asks on, and takes note when it is back.
    fn check_presence(&self) -> Result<(), DatabaseFault> {
        self.away().as_ref().map_or(Ok(()), |problem| Err(DatabaseFault::Away(problem.clone())))
    }
}

/// The state of watches, by column.
#[derive(Default)]
struct ToggleColumns<'c> {
    names: Vec<&'c str>,
    shards: Vec<i16>,
    started: Vec<i64>,
    records: Vec<String>,
}

/// The state of agents, by column.
#[derive(Default)]
struct AgentColumns<'c> {
    apis: Vec<&'c str>,
    ids: Vec<String>,
    shards: Vec<i16>,
    records: Vec<Option<String>>,
}

fn number(shard: Shard) -> i16 {
    i16::from(shard.number())
}

/// The shard with this number; `None` if there is none.
fn shard(number: i16) -> Option<Shard> {
    Shard::new(u8::try_from(number).ok()?)
}

/// The text of a record.
fn json(record: std::io::Result<Vec<u8>>) -> Result<String, DatabaseFault> {
    let damaged = |problem: String| DatabaseFault::Damaged(problem);
    let record = record.map_err(|error| damaged(error.to_string()))?;
    String::from_utf8(record).map_err(|error| damaged(error.to_string()))
}

/// The value in a column of a row that has to be there.
fn cell<'r, T: tokio_postgres::types::FromSql<'r>>(row: Option<&'r Row>, column: usize) -> Result<T, DatabaseFault> {
    let row = row.ok_or_else(|| DatabaseFault::Damaged("a row is missing".to_owned()))?;
    Ok(row.try_get(column)?)
}

/// What was read; `None` if it cannot be used, which is logged. Others can.
fn readable<T>(kind: &str, key: &str, read: Result<T, String>) -> Option<T> {
    read.inspect_err(|problem| tracing::error!(key, problem, "a {kind} in the database cannot be read: it is ignored"))
        .ok()
}

/// The key of an agent in the tables.
fn agent_key(api: &str, id: &str) -> Result<(ApiName, AgentId), String> {
    Ok((ApiName::parse(api)?, AgentId::parse(id)?))
}
