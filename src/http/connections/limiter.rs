//! The limits of connections, in total and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use super::progress::ConnectionProgress;
use crate::config::ConnectionLimits;

/// The most connections that are reserved.
const MAX_RESERVED: u32 = 16;

/// One in this many connections is reserved, at least one and at most [`MAX_RESERVED`].
const RESERVED_PART: u32 = 32;

/// Limits how many connections are open.
///
/// When all connections are taken, a few more are admitted from networks that have none. The clients of the
/// others cannot take these too, so scrapes and probes from elsewhere get through. The network of an IPv4
/// address is the address, that of an IPv6 address its /64, because addresses within it cost nothing. The
/// limit for one client counts by address: pods of a node share a /64.
///
/// A client that has as many connections as it may gets another one if one of them is idle: that is closed.
/// So connections that others keep open at the same address, such as a proxy's, lock out no scraper.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    counted: Mutex<CountedConnections>,
    /// Counts the permits. A connection that was evicted has its permit until it ends.
    open: IntGauge,
}

/// The connections that count towards the limits: those that are open and were not evicted.
#[derive(Debug, Default)]
struct CountedConnections {
    total: u32,
    by_peer: HashMap<IpAddr, Vec<Arc<ConnectionProgress>>>,
    by_network: HashMap<IpAddr, u32>,
}

/// Permits a connection for as long as it lives.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    peer: IpAddr,
    pub(super) progress: Arc<ConnectionProgress>,
}

// === impl ConnectionLimiter ===

impl ConnectionLimiter {
    /// A limiter that counts the open connections in `open`.
    pub(super) fn new(open: IntGauge) -> Self {
        Self { counted: Mutex::default(), open }
    }

    /// A permit for a connection from this address; `None` if there are too many.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        limits: ConnectionLimits,
        progress: Arc<ConnectionProgress>,
    ) -> Option<ConnectionPermit> {
        // An IPv4 address is the same one over sockets of both kinds.
        let peer = peer.to_canonical();
        let mut counted = self.counted();
        while counted.of_peer(peer).len() >= limits.per_peer.get() as usize {
            counted.evict_idle(peer)?;
        }
        let total = limits.total.get();
        let is_new_network = !counted.by_network.contains_key(&network(peer));
        let max = if is_new_network { total.saturating_add(reserved(total)) } else { total };
        if counted.total >= max {
            return None;
        }
        counted.total += 1;
        counted.by_peer.entry(peer).or_default().push(progress.clone());
        *counted.by_network.entry(network(peer)).or_default() += 1;
        self.open.inc();
        Some(ConnectionPermit { limiter: self.clone(), peer, progress })
    }

    fn counted(&self) -> MutexGuard<'_, CountedConnections> {
        // Nothing that is done under the lock can panic half way.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl CountedConnections ===

impl CountedConnections {
    fn of_peer(&self, peer: IpAddr) -> &[Arc<ConnectionProgress>] {
        self.by_peer.get(&peer).map_or(&[], Vec::as_slice)
    }

    /// Closes the connection from this address that has been idle for longest, and no longer counts it.
    /// `None` if none is idle.
    fn evict_idle(&mut self, peer: IpAddr) -> Option<()> {
        let idle = self.of_peer(peer).iter().filter(|progress| progress.is_idle());
        let longest = idle.min_by_key(|progress| progress.deadline())?.clone();
        self.remove(peer, &longest);
        longest.evict();
        Some(())
    }

    /// Stops counting a connection, unless it was evicted before.
    fn remove(&mut self, peer: IpAddr, progress: &Arc<ConnectionProgress>) {
        let Some(of_peer) = self.by_peer.get_mut(&peer) else { return };
        let Some(index) = of_peer.iter().position(|other| Arc::ptr_eq(other, progress)) else { return };
        of_peer.swap_remove(index);
        if of_peer.is_empty() {
            self.by_peer.remove(&peer);
        }
        self.total -= 1;
        let network = network(peer);
        let left = self.by_network.remove(&network).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            self.by_network.insert(network, left);
        }
    }
}

fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn reserved(total: u32) -> u32 {
    (total / RESERVED_PART).clamp(1, MAX_RESERVED)
}

// === impl ConnectionPermit ===

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.counted().remove(self.peer, &self.progress);
        self.limiter.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use tokio::time::Instant;

    use super::*;

    fn limiter() -> Arc<ConnectionLimiter> {
        Arc::new(ConnectionLimiter::new(IntGauge::new("open", "open").unwrap()))
    }

    fn limits(total: u32, per_peer: u32) -> ConnectionLimits {
        let number = |n| NonZeroU32::new(n).unwrap();
        ConnectionLimits { total: number(total), per_peer: number(per_peer) }
    }

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, n).into()
    }

    fn admit(limiter: &Arc<ConnectionLimiter>, peer: IpAddr, limits: ConnectionLimits) -> Option<ConnectionPermit> {
        limiter.admit(peer, limits, ConnectionProgress::new(Instant::now()))
    }

    fn is_evicted(progress: &ConnectionProgress) -> bool {
        pin!(progress.wait_until_evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// How many of `tries` connections from one address are admitted; they are held.
    fn fill(
        limiter: &Arc<ConnectionLimiter>,
        of: IpAddr,
        limits: ConnectionLimits,
        tries: usize,
    ) -> Vec<ConnectionPermit> {
        (0..tries).filter_map(|_| admit(limiter, of, limits)).collect()
    }

    #[test]
    fn one_address_gets_as_many_as_it_may_and_a_place_that_was_left_is_free_again() {
        let limiter = limiter();
        let limits = limits(512, 3);
        let mut held = fill(&limiter, peer(1), limits, 10);
        assert_eq!(held.len(), 3);
        assert_eq!(fill(&limiter, peer(2), limits, 1).len(), 1);
        held.pop();
        assert_eq!(fill(&limiter, peer(1), limits, 10).len(), 1);
    }

    #[test]
    fn a_full_house_has_a_place_for_addresses_that_hold_none_and_only_one_each() {
        let limiter = limiter();
        let limits = limits(64, 64);
        let all = fill(&limiter, peer(1), limits, 100);
        assert_eq!(all.len(), 64);
        let scraper = fill(&limiter, peer(2), limits, 100);
        assert_eq!(scraper.len(), 1);
        assert_eq!(fill(&limiter, peer(3), limits, 100).len(), 1);
        let _prober = fill(&limiter, peer(3), limits, 100);
        assert_eq!(fill(&limiter, peer(4), limits, 100).len(), 0, "the reserve is bounded");
        drop(scraper);
        assert_eq!(fill(&limiter, peer(4), limits, 100).len(), 1);
    }

    #[test]
    fn the_reserve_is_for_networks_that_hold_none() {
        let limiter = limiter();
        let limits = limits(4, 2);
        let address = |network: u16, n: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, n]);
        let all: Vec<_> = (0..8).filter_map(|n| admit(&limiter, address(1, n), limits)).collect();
        assert_eq!(all.len(), 4);
        assert!(admit(&limiter, address(2, 1), limits).is_some());
    }

    #[test]
    fn the_connection_that_is_idle_for_longest_makes_room_for_another_of_its_address() {
        let limiter = limiter();
        let limits = limits(64, 3);
        let held = fill(&limiter, peer(1), limits, 3);
        let _other = fill(&limiter, peer(2), limits, 3);
        assert!(admit(&limiter, peer(1), limits).is_none(), "nothing was asked over them yet");
        let [first, second, busy] = [0, 1, 2].map(|n| held[n].progress.clone());
        busy.begin_request(Instant::now());
        for progress in [&second, &first] {
            progress.begin_request(Instant::now());
            drop(progress.begin_response(Instant::now()));
        }
        let newcomers = fill(&limiter, peer(1), limits, 10);
        assert_eq!(newcomers.len(), 2);
        assert!([first, second].iter().all(|progress| is_evicted(progress)));
        assert!(!is_evicted(&busy));
        assert_eq!(limiter.open.get(), 8, "those that were evicted are open until they end");
        // They end later, and nothing is counted twice.
        drop(held);
        assert_eq!(limiter.open.get(), 5);
        let counted = limiter.counted();
        assert_eq!((counted.of_peer(peer(1)).len(), counted.total), (2, 5));
        drop(counted);
    }

    #[test]
    fn an_address_is_the_same_over_both_kinds_of_sockets() {
        let limiter = limiter();
        let limits = limits(10, 1);
        let _held = admit(&limiter, peer(1), limits).unwrap();
        assert!(admit(&limiter, Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into(), limits).is_none());
    }

    #[test]
    fn the_reserve_is_a_small_part_but_never_none() {
        assert_eq!([1, 31, 64, 512, 1_000_000].map(reserved), [1, 1, 2, 16, 16]);
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_left() {
        let limiter = limiter();
        drop((0..100).map(|n| admit(&limiter, peer(n), limits(512, 2)).unwrap()).collect::<Vec<_>>());
        let counted = limiter.counted();
        assert_eq!((counted.total, counted.by_peer.len(), counted.by_network.len()), (0, 0, 0));
    }
}
