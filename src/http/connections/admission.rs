//! Which connections are served: so many in all, and so many from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::ConnectionLimits;

/// The largest reserve, in connections.
const MOST_RESERVED: u32 = 16;

/// One part in so many of all connections is reserved, at least one and at most [`MOST_RESERVED`].
const RESERVED_PART: u32 = 32;

/// Admits connections as long as there is room.
///
/// When all places are taken, a few more are there for networks that hold none: whoever took the
/// places cannot take these too, so scrapes and probes from elsewhere get through. The network of an
/// IPv4 address is the address, that of an IPv6 address its /64, whose addresses cost nothing. What
/// one address may hold goes by the address: pods of a node share a /64.
#[derive(Debug, Default)]
pub(crate) struct Admission(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    total: u32,
    by_peer: HashMap<IpAddr, u32>,
    by_network: HashMap<IpAddr, u32>,
}

/// A place, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    peer: IpAddr,
}

// === impl Admission ===

impl Admission {
    /// A place for a connection from this address, if there is one.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr, limits: ConnectionLimits) -> Option<Admitted> {
        // The same address, whichever kind of socket it came by.
        let peer = peer.to_canonical();
        let mut open = self.open();
        let held = open.by_peer.get(&peer).copied().unwrap_or_default();
        let total = limits.total.get();
        let newcomer = !open.by_network.contains_key(&network(peer));
        let places = if newcomer { total.saturating_add(reserve(total)) } else { total };
        if open.total >= places || held >= limits.per_peer.get() {
            return None;
        }
        open.total += 1;
        *open.by_peer.entry(peer).or_default() += 1;
        *open.by_network.entry(network(peer)).or_default() += 1;
        Some(Admitted { admission: self.clone(), peer })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing that is done under the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn take_one(counts: &mut HashMap<IpAddr, u32>, of: IpAddr) {
    let left = counts.remove(&of).unwrap_or_default().saturating_sub(1);
    if left > 0 {
        counts.insert(of, left);
    }
}

fn reserve(total: u32) -> u32 {
    (total / RESERVED_PART).clamp(1, MOST_RESERVED)
}

// === impl Admitted ===

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.total -= 1;
        take_one(&mut open.by_peer, self.peer);
        take_one(&mut open.by_network, network(self.peer));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use super::*;

    fn limits(total: u32, per_peer: u32) -> ConnectionLimits {
        let number = |n| NonZeroU32::new(n).unwrap();
        ConnectionLimits { total: number(total), per_peer: number(per_peer) }
    }

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    /// How many of `tries` connections from one address are admitted; they are held.
    fn fill(admission: &Arc<Admission>, of: IpAddr, limits: ConnectionLimits, tries: usize) -> Vec<Admitted> {
        (0..tries).filter_map(|_| admission.admit(of, limits)).collect()
    }

    #[test]
    fn one_address_gets_as_many_as_it_may_and_a_place_that_was_left_is_free_again() {
        let admission = Arc::new(Admission::default());
        let limits = limits(512, 3);
        let mut held = fill(&admission, peer(1), limits, 10);
        assert_eq!(held.len(), 3);
        assert_eq!(fill(&admission, peer(2), limits, 1).len(), 1);
        held.pop();
        assert_eq!(fill(&admission, peer(1), limits, 10).len(), 1);
    }

    #[test]
    fn a_full_house_has_a_place_for_addresses_that_hold_none_and_only_one_each() {
        let admission = Arc::new(Admission::default());
        let limits = limits(64, 64);
        let all = fill(&admission, peer(1), limits, 100);
        assert_eq!(all.len(), 64);
        let scraper = fill(&admission, peer(2), limits, 100);
        assert_eq!(scraper.len(), 1);
        assert_eq!(fill(&admission, peer(3), limits, 100).len(), 1);
        let _prober = fill(&admission, peer(3), limits, 100);
        assert_eq!(fill(&admission, peer(4), limits, 100).len(), 0, "the reserve is bounded");
        drop(scraper);
        assert_eq!(fill(&admission, peer(4), limits, 100).len(), 1);
    }

    #[test]
    fn the_reserve_is_for_networks_that_hold_none() {
        let admission = Arc::new(Admission::default());
        let limits = limits(4, 2);
        let address = |network: u16, n: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, n]);
        let all: Vec<_> = (0..8).filter_map(|n| admission.admit(address(1, n), limits)).collect();
        assert_eq!(all.len(), 4);
        assert!(admission.admit(address(2, 1), limits).is_some());
    }

    #[test]
    fn an_address_is_the_same_over_both_kinds_of_sockets() {
        let admission = Arc::new(Admission::default());
        let limits = limits(10, 1);
        let _held = admission.admit(peer(1), limits).unwrap();
        assert!(admission.admit(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into(), limits).is_none());
    }

    #[test]
    fn the_reserve_is_a_small_part_but_never_none() {
        assert_eq!([1, 31, 64, 512, 1_000_000].map(reserve), [1, 1, 2, 16, 16]);
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_left() {
        let admission = Arc::new(Admission::default());
        drop((0..100).map(|n| admission.admit(peer(n), limits(512, 2)).unwrap()).collect::<Vec<_>>());
        let open = admission.open();
        assert_eq!((open.total, open.by_peer.len(), open.by_network.len()), (0, 0, 0));
    }
}
