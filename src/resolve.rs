//! Name resolution with its own error type, so that a name that is not resolved can be distinguished from a server
//! that is not reached.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

use crate::threads::Thread;

/// The resolver of the system.
///
/// A lookup can block for long and cannot be cancelled. So there is at most one thread for each name, and
/// concurrent requests for a name share its lookup.
#[derive(Debug, Clone, Default)]
pub(crate) struct SystemResolver {
    lookups: Arc<Mutex<HashMap<String, Lookup>>>,
    addresses: Arc<Mutex<Addresses>>,
}

/// Which addresses were reached, and which were not.
#[derive(Debug, Default)]
struct Addresses {
    /// The addresses of each name in the order in which they are tried, until one of them is reached.
    tried: HashMap<String, Vec<IpAddr>>,
    /// The addresses before the one that was reached, and when that was.
    unreached: HashMap<IpAddr, Instant>,
}

/// The result of a lookup; `None` while it runs.
type Lookup = watch::Receiver<Option<LookupResult>>;

type LookupResult = Result<Vec<SocketAddr>, ResolveError>;

/// A host name that was not resolved.
#[derive(Debug, Clone)]
pub(crate) struct ResolveError(Arc<io::Error>);

/// Removes a running lookup when dropped, even by a panic.
struct RunningLookup {
    resolver: SystemResolver,
    name: String,
}

// === impl SystemResolver ===

impl SystemResolver {
    /// The addresses of a name, with the port 0. Waits for the running lookup of this name, or starts one.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut lookup = self.lookup(name)?;
        let found = lookup.wait_for(Option::is_some).await.map(|found| found.clone());
        // There is no result only if the lookup panicked.
        found.ok().flatten().unwrap_or_else(|| Err(io::Error::other("the lookup panicked").into()))
    }

    fn lookup(&self, name: &str) -> Result<Lookup, ResolveError> {
        let mut lookups = self.lookups();
        if let Some(lookup) = lookups.get(name) {
            return Ok(lookup.clone());
        }
        let thread = Thread::start("resolver")
            .map_err(|error| io::Error::new(error.kind(), format!("no thread could be started for it: {error}")))?;
        let (found, lookup) = watch::channel(None);
        lookups.insert(name.to_owned(), lookup.clone());
        let running = RunningLookup { resolver: self.clone(), name: name.to_owned() };
        thread.run(move || {
            let addresses = addresses(&running.name);
            // Later requests start a new lookup.
            drop(running);
            found.send_replace(Some(addresses));
        });
        Ok(lookup)
    }

    /// Records that this address was reached, and the ones before it were not.
    pub(crate) fn reached(&self, address: IpAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).reached(address, Instant::now());
    }

    fn lookups(&self) -> MutexGuard<'_, HashMap<String, Lookup>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let mut addresses = resolver.look_up(name.as_str()).await?;
            let mut known = resolver.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            known.order(name.as_str(), &mut addresses, Instant::now());
            drop(known);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a host. Blocks.
fn addresses(name: &str) -> LookupResult {
    // The port is a placeholder: the connector sets the URL's.
    let found: Vec<_> = (name, 0).to_socket_addrs()?.collect();
    if found.is_empty() { Err(io::Error::from(io::ErrorKind::NotFound).into()) } else { Ok(found) }
}

// === impl Addresses ===

impl Addresses {
    /// How long an address that was not reached stays at the end of the order.
    const REMEMBERED: Duration = Duration::from_mins(5);

    /// Moves addresses to the end that were not reached lately, because each would cost a timeout.
    fn order(&mut self, name: &str, addresses: &mut [SocketAddr], now: Instant) {
        self.unreached.retain(|_, since| now.saturating_duration_since(*since) < Self::REMEMBERED);
        let is_unreached = |address: &SocketAddr| self.unreached.contains_key(&address.ip());
        let (last, first): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_unreached);
        addresses.iter_mut().zip(first.into_iter().chain(last)).for_each(|(place, address)| *place = address);
        if addresses.len() > 1 {
            self.tried.insert(name.to_owned(), addresses.iter().map(SocketAddr::ip).collect());
        }
    }

    fn reached(&mut self, address: IpAddr, now: Instant) {
        // Later responses come over the same connection and say nothing about the others.
        for (_, order) in self.tried.extract_if(|_, order| order.contains(&address)) {
            self.unreached.remove(&address);
            self.unreached.extend(order.into_iter().take_while(|tried| *tried != address).map(|tried| (tried, now)));
        }
    }
}

// === impl RunningLookup ===

impl Drop for RunningLookup {
    fn drop(&mut self) {
        self.resolver.lookups().remove(&self.name);
    }
}

// === impl ResolveError ===

impl From<io::Error> for ResolveError {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's name was not resolved")
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_not_reached_is_tried_last_for_a_while() {
        let (mut known, now) = (Addresses::default(), Instant::now());
        let address = |last| SocketAddr::from(([192, 0, 2, last], 0));
        let order = |known: &mut Addresses, now| {
            let mut addresses = [1, 2, 3].map(address);
            known.order("h", &mut addresses, now);
            addresses
        };
        assert_eq!(order(&mut known, now), [1, 2, 3].map(address));
        known.reached(address(2).ip(), now);
        assert_eq!(order(&mut known, now), [2, 3, 1].map(address));
        known.reached(address(1).ip(), now);
        assert_eq!(order(&mut known, now), [1, 2, 3].map(address), "the others were not reached then");
        known.reached(address(2).ip(), now);
        // A later response over the same connection.
        known.reached(address(2).ip(), now + Duration::from_mins(4));
        assert_eq!(order(&mut known, now + Duration::from_mins(5)), [1, 2, 3].map(address));
    }

    #[tokio::test]
    async fn concurrent_requests_for_a_name_share_one_lookup() {
        let resolver = SystemResolver::default();
        let (found, lookup) = watch::channel(None);
        resolver.lookups().insert("a.invalid".to_owned(), lookup);
        let asking = std::iter::repeat_with(|| resolver.look_up("a.invalid")).take(100).collect::<Vec<_>>();
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        found.send_replace(Some(Ok(vec![address])));
        for asked in asking {
            assert_eq!(asked.await.unwrap(), [address]);
        }
    }

    #[tokio::test]
    async fn a_lookup_that_ended_or_was_dropped_leaves_nothing_behind() {
        let resolver = SystemResolver::default();
        for name in ["localhost", "no-such-host.invalid", "not a name"] {
            assert_eq!(resolver.look_up(name).await.is_ok(), name == "localhost", "{name}");
            assert!(resolver.lookups().is_empty(), "{name}");
            drop(resolver.lookup(name).unwrap());
            while !resolver.lookups().is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }
}
