//! Shards: the parts that watches and agents are divided into, so that several exporters can share them.

use std::sync::Arc;

use super::{AgentId, ApiName};

/// A part of the watches and agents. An agent and all of its watches are in the same shard, so that their series are
/// exposed by one exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

/// A set of shards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShardSet(u64);

/// The names of the owners of the shards, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOwners([Option<Arc<str>>; Shard::COUNT as usize]);

// === impl Shard ===

impl Shard {
    /// How many shards there are. Exporters of different versions share them, so this never changes.
    pub const COUNT: u8 = 64;

    /// The shard of an agent. It is the same in every version.
    pub fn of(api: &ApiName, agent: AgentId) -> Self {
        // FNV-1a, whose low bits a final mix makes depend on every byte.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let bytes = api.as_str().bytes().chain([0]).chain(agent.get().to_le_bytes());
        let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        Self((mix(hash) % u64::from(Self::COUNT)).to_le_bytes()[0])
    }

    /// The shard with this number; `None` if there is none.
    pub fn new(number: u8) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// The number of the shard, below [`Shard::COUNT`].
    pub fn number(self) -> u8 {
        self.0
    }

    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// Which of several owners is the preferred one of this shard (rendezvous hashing): when one comes or goes, only
    /// its own shards move. `None` without an owner.
    pub fn preferred<'a>(self, owners: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let weight =
            |owner: &str| owner.bytes().fold(mix(u64::from(self.0) + 1), |hash, byte| mix(hash ^ u64::from(byte)));
        owners.into_iter().max_by_key(|owner| (weight(owner), *owner))
    }
}

/// The finalizer of `SplitMix64`: each bit of the result depends on every bit of the input.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

// === impl ShardSet ===

impl ShardSet {
    /// Every shard.
    pub const ALL: Self = Self(u64::MAX);

    /// No shard.
    pub const NONE: Self = Self(0);

    /// Whether a shard is in the set.
    pub fn contains(self, shard: Shard) -> bool {
        self.0 & (1 << shard.0) != 0
    }

    /// How many shards are in the set.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether no shard is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The shards of this set that are not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The shards of the set, sorted.
    pub fn iter(self) -> impl Iterator<Item = Shard> {
        Shard::all().filter(move |shard| self.contains(*shard))
    }
}

// === impl ShardOwners ===

impl ShardOwners {
    /// The owner of an agent and its watches; `None` if nobody owns them at present.
    pub fn of(&self, api: &ApiName, agent: AgentId) -> Option<&str> {
        self.0[usize::from(Shard::of(api, agent).0)].as_deref()
    }

    /// The owner of each shard, sorted by shard; `None` where nobody owns it at present.
    pub fn of_shards(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(Option::as_deref)
    }
}

impl FromIterator<(Shard, Arc<str>)> for ShardOwners {
    fn from_iter<I: IntoIterator<Item = (Shard, Arc<str>)>>(owners: I) -> Self {
        let mut of_shards = [const { None }; Shard::COUNT as usize];
        for (shard, owner) in owners {
            of_shards[usize::from(shard.0)] = Some(owner);
        }
        Self(of_shards)
    }
}

/// An exporter without others owns every shard.
impl Default for ShardSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        Self(shards.into_iter().fold(0, |set, shard| set | 1 << shard.0))
    }
}

impl std::fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Shard::number)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(api: &str, agent: u64) -> Shard {
        Shard::of(&ApiName::parse(api).unwrap(), AgentId::of(agent).unwrap())
    }

    #[test]
    fn the_shard_of_an_agent_is_the_same_in_every_version() {
        let shards = [("default", 1), ("default", 2), ("default", 4321), ("eu", 4321), ("eu", u64::MAX)];
        assert_eq!(shards.map(|(api, agent)| shard(api, agent).number()), [21, 58, 8, 40, 33]);
    }

    #[test]
    fn agents_are_spread_over_all_shards() {
        let mut agents = [0; Shard::COUNT as usize];
        (1..=64_000).for_each(|agent| agents[usize::from(shard("default", agent).number())] += 1);
        assert!(agents.iter().all(|count| (800..1200).contains(count)), "{agents:?}");
    }

    #[test]
    fn only_the_shards_of_an_owner_that_goes_get_another_one() {
        let before = ["a", "b", "c"];
        let owners: Vec<_> = Shard::all().map(|shard| shard.preferred(before)).collect();
        for owner in before {
            let owned = owners.iter().filter(|of| **of == Some(owner)).count();
            assert!((10..35).contains(&owned), "{owner} has {owned}");
        }
        for (shard, owner) in Shard::all().zip(owners) {
            if owner != Some("b") {
                assert_eq!(shard.preferred(["c", "a"]), owner);
            }
        }
        assert_eq!(Shard::all().find_map(|shard| shard.preferred([])), None);
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set: ShardSet = [0, 7, 63].into_iter().filter_map(Shard::new).collect();
        assert_eq!(set.iter().map(Shard::number).collect::<Vec<_>>(), [0, 7, 63]);
        assert_eq!((set.len(), ShardSet::ALL.len(), ShardSet::NONE.len()), (3, 64, 0));
        assert_eq!(ShardSet::ALL.without(set).len(), 61);
        assert!(set.without(ShardSet::ALL).is_empty() && !set.is_empty());
        assert_eq!(Shard::new(64), None);
    }
}
