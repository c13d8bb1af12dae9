//! Who owns which shard, and what other replicas saved.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::fault::DatabaseFault;
use super::session::Parameter;
use super::{DatabaseStore, agent_key, cell, number, readable, schema, shard};
use crate::clock;
use crate::store::{SavedAgentChange, StoreError, ToggleChange, record};
use crate::toggle::{ClockJump, Shard, ShardOwners, ShardSet, Timestamp, WatchName};

/// How many shards are read at a time by a replica that has read nothing yet.
const SHARDS_AT_A_TIME: usize = 8;

/// How long nothing was heard of a replica that is forgotten, as PostgreSQL writes it.
const FORGOTTEN: &str = "1 hour";

/// The epochs of the shards that a replica owns, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leases([Option<i64>; Shard::COUNT as usize]);

/// The live replicas, and who owns the shards.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    /// The ids of the replicas whose lease has not expired, sorted.
    pub replicas: Vec<String>,
    /// Every shard, sorted.
    pub shards: Vec<OwnerState>,
    /// The version of the newest registration.
    pub registrations: i64,
}

/// Who owns a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerState {
    /// The shard.
    pub shard: Shard,
    /// The id of the replica that owns it; `None` if none does.
    pub owner: Option<String>,
    /// Grows with each owner.
    pub epoch: i64,
    /// Grows with each save of its watches and agents.
    pub version: i64,
}

/// What other replicas saved.
#[derive(Debug, Default)]
pub struct SharedChanges {
    /// The state of watches.
    pub toggles: Vec<ToggleChange>,
    /// The state of agents.
    pub agents: Vec<SavedAgentChange>,
    /// The sum of the clock's jumps that the times in it include.
    pub jumps: ClockJump,
}

// === impl Leases ===

impl Default for Leases {
    fn default() -> Self {
        Self([None; Shard::COUNT as usize])
    }
}

impl Leases {
    /// What the database says that a replica owns.
    pub fn of(id: &str, membership: &Membership) -> Self {
        let mut leases = Self::default();
        for state in membership.shards.iter().filter(|state| state.owner.as_deref() == Some(id)) {
            leases.set(state.shard, Some(state.epoch));
        }
        leases
    }

    /// The shards that the replica did not own before, or only in an earlier epoch.
    pub fn gained_since(&self, before: &Self) -> ShardSet {
        let is_gained = |shard: &Shard| self.epoch(*shard).is_some() && self.epoch(*shard) != before.epoch(*shard);
        Shard::all().filter(is_gained).collect()
    }

    /// The epoch in which the replica owns a shard; `None` if it does not.
    pub fn epoch(&self, shard: Shard) -> Option<i64> {
        self.0[usize::from(shard.number())]
    }

    /// The shards that it owns.
    pub fn owned(&self) -> ShardSet {
        Shard::all().filter(|shard| self.epoch(*shard).is_some()).collect()
    }

    /// Owns a shard in an epoch, or owns it no more.
    pub fn set(&mut self, shard: Shard, epoch: Option<i64>) {
        self.0[usize::from(shard.number())] = epoch;
    }
}

// === impl Membership ===

impl Membership {
    /// The owners of the shards.
    pub fn owners(&self) -> ShardOwners {
        let owned = |state: &OwnerState| Some((state.shard, Arc::from(state.owner.as_deref()?)));
        self.shards.iter().filter_map(owned).collect()
    }
}

// === impl DatabaseStore ===

impl DatabaseStore {
    /// Renews the lease of this replica. The first time, it joins the others.
    ///
    /// # Errors
    /// If the database does not confirm it.
    pub async fn renew(&self) -> Result<(), StoreError> {
        const RENEW: &str = "
            WITH forgotten AS (
                DELETE FROM cekura_exporter.replicas
                WHERE id <> $1 AND expires < clock_timestamp() - $3::text::interval
            ), known AS (
                SELECT count(*) AS replicas FROM cekura_exporter.replicas WHERE id = $1
            ), renewed AS (
                INSERT INTO cekura_exporter.replicas (id, expires)
                VALUES ($1, clock_timestamp() + make_interval(secs => $2))
                ON CONFLICT (id) DO UPDATE SET expires = excluded.expires
            )
            SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
                   CASE WHEN replicas = 0 THEN pg_notify('cekura_exporter', '')::text END
            FROM known";
        let lease = self.lease.as_secs_f64();
        let parameters: [Parameter<'_>; 3] = [(&self.id, Type::TEXT), (&lease, Type::FLOAT8), (&FORGOTTEN, Type::TEXT)];
        self.read_clock(RENEW, &parameters).await
    }

    /// Reads the clock of the database, and checks that its schema can be used.
    ///
    /// # Errors
    /// If the database does not answer, or if a newer version wrote it.
    pub async fn greet(&self) -> Result<(), StoreError> {
        self.read_clock("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", &[]).await
    }

    /// Runs a statement whose first result is the time of the database, in milliseconds, and takes note of that.
    async fn read_clock(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<(), StoreError> {
        let mut session = self.coordinator.lock().await;
        // The session is opened first, so that the clock is read within one round trip.
        self.noted(session.query("SELECT 1", &[]).await)?;
        let sent = clock::now();
        let rows = self.noted(session.query(sql, parameters).await)?;
        let millis: i64 = cell(rows.first(), 0)?;
        let database = Timestamp::from_millis(u64::try_from(millis).unwrap_or_default());
        self.clock.read(database, sent, clock::now());
        Ok(())
    }

    /// The live replicas, and who owns the shards.
    ///
    /// # Errors
    /// If they cannot be read, or if a newer version wrote the schema.
    pub async fn membership(&self) -> Result<Membership, StoreError> {
        // One statement, so that both are of the same moment. A replica that left has no shard at the moment when it left.
        const READ: &str = "
            SELECT shard, owner, epoch, shards.version, schema_version.version, CASE WHEN shard = 0 THEN ARRAY (
                SELECT id FROM cekura_exporter.replicas WHERE expires > clock_timestamp() ORDER BY id
            ) END, (SELECT value FROM cekura_exporter.counters WHERE name = 'registrations')
            FROM cekura_exporter.shards, cekura_exporter.schema_version ORDER BY shard";
        let mut session = self.coordinator.lock().await;
        let rows = self.noted(session.query(READ, &[]).await)?;
        let (version, replicas): (i32, Vec<String>) = (cell(rows.first(), 4)?, cell(rows.first(), 5)?);
        if version > schema::VERSION {
            return Err(DatabaseFault::Newer(version).into());
        }
        let shards = rows.iter().map(owner_state).collect::<Result<Vec<_>, _>>()?;
        let registrations = cell(rows.first(), 6)?;
        Ok(Membership { replicas, shards: shards.into_iter().flatten().collect(), registrations })
    }

    /// Takes the ownership of shards that nobody owns, or whose owner has not renewed its lease. Each is given with the
    /// epoch that it had when that was seen. Returns those that were taken. They are owned when a [`Membership`] that says
    /// so is adopted, because only what is read after this is the state that their last owner left.
    ///
    /// # Errors
    /// If the database does not confirm it. What was taken nevertheless is seen in the next [`Membership`].
    pub async fn claim(&self, shards: &[OwnerState]) -> Result<ShardSet, StoreError> {
        const CLAIM: &str = "
            UPDATE cekura_exporter.shards SET owner = $1, epoch = shards.epoch + 1
            FROM unnest($2, $3) AS claimed (shard, epoch)
            WHERE shards.shard = claimed.shard AND shards.epoch = claimed.epoch AND (owner IS NULL OR NOT EXISTS (
                SELECT FROM cekura_exporter.replicas WHERE id = owner AND expires > clock_timestamp()
            ))
            RETURNING shards.shard";
        if shards.is_empty() {
            return Ok(ShardSet::NONE);
        }
        let (numbers, epochs): (Vec<_>, Vec<_>) = shards.iter().map(|state| (number(state.shard), state.epoch)).unzip();
        let parameters: [Parameter<'_>; 3] =
            [(&self.id, Type::TEXT), (&numbers, Type::INT2_ARRAY), (&epochs, Type::INT8_ARRAY)];
        let mut session = self.coordinator.lock().await;
        let claimed = self.noted(session.query(CLAIM, &parameters).await)?;
        let mut taken = Vec::new();
        for row in &claimed {
            taken.extend(shard(cell(Some(row), 0)?));
        }
        Ok(taken.into_iter().collect())
    }

    /// Owns exactly the shards that the database says this replica owns. Returns those that it did not own before, or
    /// only in an earlier epoch.
    pub fn adopt(&self, membership: &Membership) -> ShardSet {
        let (before, leases) = (self.leases(), Leases::of(self.id(), membership));
        self.set_leases(&leases);
        leases.gained_since(&before)
    }

    /// Gives shards that this replica owns to other replicas, or to nobody, as to a replica that has gone meanwhile.
    ///
    /// # Errors
    /// If the database does not confirm it.
    pub async fn hand_over(&self, shards: &[(Shard, Option<String>)]) -> Result<(), StoreError> {
        Ok(self.give(shards, None).await?)
    }

    /// Gives shards to other replicas, and removes a replica at the same moment, so that nobody gives them back to it.
    async fn give(&self, shards: &[(Shard, Option<String>)], leaving: Option<&str>) -> Result<(), DatabaseFault> {
        const HAND_OVER: &str = "
            WITH given AS (
                UPDATE cekura_exporter.shards SET epoch = shards.epoch + 1, owner = (
                    SELECT id FROM cekura_exporter.replicas WHERE id = given.owner AND expires > clock_timestamp()
                )
                FROM unnest($1, $2, $3) AS given (shard, epoch, owner)
                WHERE shards.shard = given.shard AND shards.epoch = given.epoch
                RETURNING shards.shard
            ), gone AS (
                DELETE FROM cekura_exporter.replicas WHERE id = $4
            )
            SELECT count(*), pg_notify('cekura_exporter', '')::text FROM given";
        let leases = self.leases();
        let held = shards.iter().filter_map(|(shard, owner)| Some((*shard, leases.epoch(*shard)?, owner.as_deref())));
        let held: Vec<(Shard, i64, Option<&str>)> = held.collect();
        let numbers: Vec<_> = held.iter().map(|(shard, ..)| number(*shard)).collect();
        let epochs: Vec<_> = held.iter().map(|(_, epoch, _)| *epoch).collect();
        let owners: Vec<_> = held.iter().map(|(.., owner)| *owner).collect();
        let parameters: [Parameter<'_>; 4] = [
            (&numbers, Type::INT2_ARRAY),
            (&epochs, Type::INT8_ARRAY),
            (&owners, Type::TEXT_ARRAY),
            (&leaving, Type::TEXT),
        ];
        let mut session = self.coordinator.lock().await;
        self.noted(session.query(HAND_OVER, &parameters).await)?;
        Ok(())
    }

    /// Gives all shards to the other replicas, and leaves. Nothing may be saved after this.
    ///
    /// # Errors
    /// If the database does not confirm it. Then the others wait until the lease has expired.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let membership = self.membership().await?;
        // A claim may have been confirmed that the coordinator did not see any more.
        self.adopt(&membership);
        let mut others = membership.replicas;
        others.retain(|id| id != self.id());
        let preferred = |shard: Shard| shard.preferred(others.iter().map(String::as_str)).map(str::to_owned);
        let given: Vec<_> = self.leases().owned().iter().map(|shard| (shard, preferred(shard))).collect();
        Ok(self.give(&given, Some(self.id())).await?)
    }

    /// What was saved in these shards since the versions that are given with them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn changes(&self, since: &[(Shard, i64)]) -> Result<SharedChanges, StoreError> {
        let mut changes = SharedChanges { jumps: clock::total_jump(), ..SharedChanges::default() };
        let is_first = since.iter().any(|(_, version)| *version == 0);
        let size = if is_first { SHARDS_AT_A_TIME } else { usize::from(Shard::COUNT) };
        for part in since.chunks(size) {
            self.read_changes(part, &mut changes).await?;
        }
        Ok(changes)
    }

    async fn read_changes(&self, since: &[(Shard, i64)], changes: &mut SharedChanges) -> Result<(), DatabaseFault> {
        const TOGGLES: &str = "
            SELECT name, record FROM cekura_exporter.toggles
            JOIN unnest($1, $2) AS seen (shard, version) ON toggles.shard = seen.shard AND toggles.version > seen.version";
        const AGENTS: &str = "
            SELECT api, agent_id, record FROM cekura_exporter.agents
            JOIN unnest($1, $2) AS seen (shard, version) ON agents.shard = seen.shard AND agents.version > seen.version";
        let (shards, versions): (Vec<_>, Vec<_>) = since.iter().map(|(shard, seen)| (number(*shard), *seen)).unzip();
        let parameters: [Parameter<'_>; 2] = [(&shards, Type::INT2_ARRAY), (&versions, Type::INT8_ARRAY)];
        let mut session = self.coordinator.lock().await;
        let (toggles, agents) = (
            self.noted(session.query(TOGGLES, &parameters).await)?,
            self.noted(session.query(AGENTS, &parameters).await)?,
        );
        drop(session);
        let shift = self.clock.to_local();
        for row in &toggles {
            changes.toggles.extend(toggle_change(row, shift)?);
        }
        for row in &agents {
            changes.agents.extend(agent_change(row, shift)?);
        }
        Ok(())
    }
}

/// The owner of a shard; `None` for a shard that this version does not have.
fn owner_state(row: &Row) -> Result<Option<OwnerState>, DatabaseFault> {
    let Some(shard) = shard(row.try_get(0)?) else { return Ok(None) };
    Ok(Some(OwnerState { shard, owner: row.try_get(1)?, epoch: row.try_get(2)?, version: row.try_get(3)? }))
}

fn toggle_change(row: &Row, shift: ClockJump) -> Result<Option<ToggleChange>, DatabaseFault> {
    let (name, record): (&str, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
    let read = || {
        let mut runs = record.map(|record| record::read_toggle(record.as_bytes(), 0)).transpose()?.unwrap_or_default();
        for run in &mut runs {
            run.map_times(|time| time.shifted(shift));
        }
        Ok((WatchName::parse(name)?, runs))
    };
    Ok(readable("toggle", name, read()))
}

fn agent_change(row: &Row, shift: ClockJump) -> Result<Option<SavedAgentChange>, DatabaseFault> {
    let (api, id, record): (&str, &str, Option<&str>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let read = || {
        let mut agent = record.map(|record| record::read_agent(record.as_bytes(), 0)).transpose()?;
        if let Some(agent) = &mut agent {
            agent.map_times(|time| time.shifted(shift));
        }
        Ok((agent_key(api, id)?, agent))
    };
    Ok(readable("agent", id, read()))
}
