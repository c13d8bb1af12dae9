//! Sharing the work with other replicas: which shards this one owns, and following what the others do.
//!
//! The coordinator renews the lease of this replica, divides the shards with the others, and reads what they saved. While
//! the database is away, this replica keeps what it owns. If the database was away since the start, this replica polls
//! everything after one lease, because nobody may have seen the others.

#[cfg(test)]
mod model;
mod plan;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use self::plan::SharePlan;
use crate::board::Board;
use crate::clock::{self, ProcessTime};
use crate::exposition::Metrics;
use crate::intake::IntakeCommand;
use crate::poller::{Replication, Share};
use crate::store::{AgentRequest, DatabaseStore, Membership, OwnerState, SharedChanges, StoreError};
use crate::toggle::{AgentKey, Shard, ShardSet};

/// How often the database is read, unless a notification comes. What others did is shown within two seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often what was removed long ago is deleted from the database.
const PURGE_INTERVAL: Duration = Duration::from_hours(1);

/// How long the state of shards may take to be saved before these are given to another replica.
const SAVE_LIMIT: Duration = Duration::from_secs(5);

/// An id that no other process has or had: the name of the host, which is that of the pod in Kubernetes, and a random
/// number.
pub fn new_id() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{:08x}", fastrand::u32(..))
}

/// How the coordinator reaches the rest of the program.
pub struct ReplicaLinks {
    /// The queue of the intake.
    pub commands: mpsc::Sender<IntakeCommand>,
    /// Asks for the mock status of an agent that this replica owns, ahead of its plan.
    pub asks: mpsc::UnboundedSender<AgentKey>,
    /// The agents whose mock status was asked for and that another replica owns.
    pub forwarded: mpsc::UnboundedReceiver<AgentKey>,
    /// Turns true when the watches and agents of the others are known, or when it is clear that they will not be soon.
    pub synchronized: watch::Sender<bool>,
    /// What is known of the others.
    pub report: watch::Sender<ReplicaReport>,
}

/// What this replica knows of the database and of the other replicas.
#[derive(Debug, Clone, Default)]
pub struct ReplicaReport {
    /// The ids of the replicas whose lease had not expired when the database was last read, sorted.
    pub(crate) members: Vec<String>,
    /// Whether the database was ever reached.
    pub(crate) was_reached: bool,
    /// Why the database cannot be used, and since when that is so; `None` while it can.
    pub(crate) problem: Option<(String, ProcessTime)>,
    /// How many shards this replica took over from others that are gone.
    pub(crate) takeovers: usize,
}

/// Divides the work with other replicas.
pub struct Coordinator {
    store: Arc<DatabaseStore>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    links: ReplicaLinks,
    /// The versions of the shards that were read.
    seen: [i64; Shard::COUNT as usize],
    /// The version of the newest registration that was read.
    registrations: i64,
    /// What the poller was told.
    share: Option<Share>,
    /// Whether this replica polls everything, because it has never reached the database.
    alone: bool,
    /// When the replica began or began again to renew its lease.
    joined: Option<Instant>,
    /// Why the database is away, so that each reason is logged once.
    problem: Option<String>,
}

// === impl Coordinator ===

impl Coordinator {
    /// A coordinator that has not joined the others yet.
    pub fn new(store: Arc<DatabaseStore>, board: Arc<Board>, metrics: Arc<Metrics>, links: ReplicaLinks) -> Self {
        metrics.set_database_up(false);
        metrics.set_replicas(1);
        metrics.set_shards(ShardSet::NONE);
        metrics.count_takeovers(0);
        let seen = [0; Shard::COUNT as usize];
        Self {
            store,
            board,
            metrics,
            links,
            seen,
            registrations: 0,
            share: None,
            alone: false,
            joined: None,
            problem: None,
        }
    }

    /// Divides the work until it is dropped. Returns only if this version can never use the database.
    pub async fn run(mut self) -> StoreError {
        let alone_at = Instant::now() + self.store.lease();
        loop {
            // Nobody could be asked while the database was away. Whoever waits asks again.
            while self.links.forwarded.try_recv().is_ok() {}
            let error = match self.coordinate().await {
                Ok(never) => match never {},
                Err(error) if error.is_final() => {
                    let problem = format!("{} {error}", error.subject());
                    error!(problem, "this version can never use the database: it stops");
                    return error;
                }
                Err(error) => error,
            };
            self.lost(&error);
            if self.share.is_none() && Instant::now() >= alone_at {
                warn!("the database has not been reached since the start: everything configured is polled");
                self.alone = true;
                self.apply(SharedChanges::default(), ShardSet::ALL, ShardSet::ALL, 1).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Joins the others and divides the work until the database is away.
    async fn coordinate(&mut self) -> Result<std::convert::Infallible, StoreError> {
        self.store.greet().await?;
        if !self.alone {
            // What the others saved is read before this replica is given anything.
            let membership = self.store.membership().await?;
            self.follow(&membership).await?;
        }
        self.store.renew().await?;
        self.joined = Some(Instant::now());
        self.found();
        let store = self.store.clone();
        let mut renewals = tokio::time::interval(self.store.lease() / 3);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purges = tokio::time::interval(PURGE_INTERVAL);
        // Not a sleep that begins anew with each request: many requests would keep this replica from reading.
        let mut reads = tokio::time::interval(INTERVAL);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = renewals.tick() => self.store.renew().await?,
                _ = purges.tick() => self.store.purge().await?,
                () = store.notified() => {}
                _ = reads.tick() => {}
                Some(agent) = self.links.forwarded.recv() => {
                    self.store.request(&AgentRequest::Ask(agent)).await?;
                    continue;
                }
                request = store.next_request() => {
                    self.answer(request);
                    continue;
                }
            }
            self.divide().await?;
        }
    }

    /// Does what another replica asks for, if this one owns the agent.
    fn answer(&self, request: AgentRequest) {
        let (AgentRequest::Ask((api, id)) | AgentRequest::Forget((api, id))) = &request;
        if !self.board.owns_agent(api, *id) {
            return;
        }
        match request {
            AgentRequest::Ask(agent) => {
                self.board.save_next_answer(&agent);
                // The receiver is gone only while the process stops.
                let _ = self.links.asks.send(agent);
            }
            AgentRequest::Forget((api, id)) => _ = self.board.forget_agent(&api, id, clock::now()),
        }
    }

    /// Claims and gives shards as planned, and takes over what others saved.
    async fn divide(&mut self) -> Result<(), StoreError> {
        if self.alone && !self.may_take_over() {
            // Others may be in the same situation. Everything is polled until it is clear who is there.
            return Ok(());
        }
        let was_alone = std::mem::take(&mut self.alone);
        let membership = self.store.membership().await?;
        if !was_alone {
            // What was lost is dropped before any of it can be claimed: the state of it is what others saved.
            self.follow(&membership).await?;
        }
        let plan = SharePlan::of(self.store.id(), &membership, &self.store.leases(), self.may_take_over());
        if plan == SharePlan::default() {
            return if was_alone { self.follow(&membership).await } else { Ok(()) };
        }
        self.give(&membership, plan.give).await?;
        if !plan.claim.is_empty() {
            let claimed = self.store.claim(&plan.claim).await?;
            self.count_takeovers(&plan.claim, claimed);
        }
        // Who owned what before is out of date, and what others saved until now is complete.
        let membership = self.store.membership().await?;
        self.follow(&membership).await
    }

    /// Whether shards may be taken from replicas whose lease has expired. When the database comes back, all leases may
    /// have, and the others need a moment to renew theirs.
    fn may_take_over(&self) -> bool {
        let grace = self.store.lease() / 3 + INTERVAL;
        self.joined.is_some_and(|joined| joined.elapsed() >= grace)
    }

    /// Gives shards to other replicas, after their state is saved and this one has stopped polling them.
    async fn give(&mut self, membership: &Membership, shards: Vec<(Shard, Option<String>)>) -> Result<(), StoreError> {
        if shards.is_empty() {
            return Ok(());
        }
        let given: ShardSet = shards.iter().map(|(shard, _)| *shard).collect();
        self.board.save_counted_in(given);
        self.board.save_soon();
        if tokio::time::timeout(SAVE_LIMIT, self.board.all_saved()).await.is_err() {
            // They are given when their state is saved.
            return Ok(());
        }
        let owned = self.store.leases().owned().without(given);
        self.apply(SharedChanges::default(), owned, ShardSet::NONE, live(membership)).await;
        self.store.hand_over(&shards).await
    }

    fn count_takeovers(&self, planned: &[OwnerState], claimed: ShardSet) {
        let taken_over = planned.iter().filter(|state| state.owner.is_some() && claimed.contains(state.shard)).count();
        if taken_over > 0 {
            info!(shards = taken_over, "shards were taken over from a replica that is gone");
            self.metrics.count_takeovers(taken_over);
            self.links.report.send_modify(|report| report.takeovers += taken_over);
        }
    }

    /// Takes over what others saved, and the shards that the database says are this replica's.
    async fn follow(&mut self, membership: &Membership) -> Result<(), StoreError> {
        let new = |state: &&OwnerState| state.version > self.seen[usize::from(state.shard.number())];
        let since: Vec<_> = membership.shards.iter().filter(new).collect();
        let since_seen: Vec<_> =
            since.iter().map(|state| (state.shard, self.seen[usize::from(state.shard.number())])).collect();
        let changes = self.store.changes(&since_seen).await?;
        self.board.set_owners(membership.owners());
        self.links.report.send_modify(|report| report.members.clone_from(&membership.replicas));
        let versions: Vec<_> = since.iter().map(|state| (state.shard, state.version)).collect();
        let given = self.store.adopt(membership);
        let new_registrations = (membership.registrations != self.registrations).then_some(membership.registrations);
        let owned = self.store.leases().owned();
        self.apply_with(changes, owned, given, live(membership), new_registrations).await;
        for (shard, version) in versions {
            self.seen[usize::from(shard.number())] = version;
        }
        Ok(())
    }

    /// Has the intake and the poller take over what others saved, and own these shards.
    async fn apply(&mut self, changes: SharedChanges, owned: ShardSet, given: ShardSet, replicas: u32) {
        self.apply_with(changes, owned, given, replicas, None).await;
    }

    /// As [`Coordinator::apply`], and has them read registrations up to a version, if there are new ones.
    async fn apply_with(
        &mut self,
        changes: SharedChanges,
        owned: ShardSet,
        given: ShardSet,
        replicas: u32,
        new_registrations: Option<i64>,
    ) {
        let replicas_or_one = NonZeroU32::new(replicas).unwrap_or(NonZeroU32::MIN);
        let share = Share { owned, leases: self.store.leases(), given, replicas: replicas_or_one };
        let known = self.share.map(|share| Share { given: ShardSet::NONE, ..share });
        let SharedChanges { toggles, agents, jumps } = changes;
        let replication = Replication { toggles, agents, jumps, share: (known != Some(share)).then_some(share) };
        if !replication.is_empty() || new_registrations.is_some() {
            let (responder, done) = oneshot::channel();
            // Both fail only if the intake is gone, and then the process ends.
            let _ = self.links.commands.send(IntakeCommand::Replicate(Box::new(replication), responder)).await;
            if let (Ok(true), Some(version)) = (done.await, new_registrations) {
                self.registrations = version;
            }
        }
        self.share = Some(Share { given: ShardSet::NONE, ..share });
        self.links.synchronized.send_replace(true);
        self.metrics.set_shards(owned);
        self.metrics.set_replicas(replicas);
    }

    fn found(&mut self) {
        self.metrics.set_database_up(true);
        self.links.report.send_modify(|report| (report.was_reached, report.problem) = (true, None));
        if self.problem.take().is_some() {
            info!("the database can be used again");
        }
        info!(replica = self.store.id(), "this replica shares the work with others");
    }

    fn lost(&mut self, error: &StoreError) {
        self.metrics.set_database_up(false);
        let problem = format!("{} {error}", error.subject());
        if self.problem.as_ref() != Some(&problem) {
            error!(problem, "the database cannot be used: this replica goes on with what it has");
            self.links.report.send_modify(|report| {
                let since = report.problem.as_ref().map_or_else(ProcessTime::now, |(_, since)| *since);
                report.problem = Some((problem.clone(), since));
            });
            self.problem = Some(problem);
        }
    }
}

/// How many replicas there are, this one included.
fn live(membership: &Membership) -> u32 {
    u32::try_from(membership.replicas.len()).unwrap_or(u32::MAX).max(1)
}
