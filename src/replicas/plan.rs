//! Who is to own which shard. It is pure: the membership is passed in, and what to do is returned.

use crate::store::{Leases, Membership, OwnerState};
use crate::toggle::Shard;

/// What a replica is to do about the shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SharePlan {
    /// The shards to claim, because they are this replica's and nobody owns them, or only a replica that is gone.
    pub(super) claim: Vec<OwnerState>,
    /// The shards to give to other replicas.
    pub(super) give: Vec<(Shard, Option<String>)>,
}

// === impl SharePlan ===

impl SharePlan {
    /// The plan of the replica `id`, which owns what its leases say. Unless `takes_over`, it claims no shard that a
    /// replica which is gone owns.
    pub(super) fn of(id: &str, membership: &Membership, leases: &Leases, takes_over: bool) -> Self {
        let mut plan = Self::default();
        if !membership.is_live(id) {
            return plan;
        }
        for state in &membership.shards {
            let preferred = state.shard.preferred(membership.replicas.iter().map(String::as_str));
            let is_mine = preferred == Some(id);
            match &state.owner {
                Some(owner) if owner == id => {
                    let is_held = leases.epoch(state.shard) == Some(state.epoch);
                    plan.give.extend((is_held && !is_mine).then(|| (state.shard, preferred.map(str::to_owned))));
                }
                owner => {
                    let is_free = match owner {
                        Some(owner) => takes_over && !membership.is_live(owner),
                        None => true,
                    };
                    plan.claim.extend((is_free && is_mine).then(|| state.clone()));
                }
            }
        }
        plan
    }
}

// === impl Membership ===

impl Membership {
    /// Whether the lease of a replica has not expired.
    fn is_live(&self, id: &str) -> bool {
        self.replicas.iter().any(|live| live == id)
    }
}
