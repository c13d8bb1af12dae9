//! Name resolution with an error of its own type, so that `dns` is told from `connect`.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;

use crate::threads::Thread;

/// The machine's resolver.
///
/// A lookup blocks for as long as the machine likes, and nothing can stop it. So there is one thread for
/// each name at most: who asks for a name that is being looked up waits for the same lookup.
#[derive(Debug, Clone, Default)]
pub(super) struct SystemResolver {
    lookups: Arc<Mutex<HashMap<String, Lookup>>>,
}

/// What comes of a lookup; `None` until then.
type Lookup = watch::Receiver<Option<Found>>;

type Found = Result<Vec<SocketAddr>, ResolveError>;

/// A host name that was not resolved.
#[derive(Debug, Clone)]
pub(super) struct ResolveError(Arc<io::Error>);

/// A lookup that is under way. When it is dropped it no longer is, be it by a panic.
struct UnderWay {
    resolver: SystemResolver,
    name: String,
}

// === impl SystemResolver ===

impl SystemResolver {
    /// Waits for the lookup of this name that is under way, or for a new one.
    async fn look_up(&self, name: &str) -> Found {
        let mut lookup = self.lookup(name)?;
        let found = lookup.wait_for(Option::is_some).await.map(|found| found.clone());
        // It is told unless the lookup panicked.
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
        let under_way = UnderWay { resolver: self.clone(), name: name.to_owned() };
        thread.run(move || {
            let addresses = addresses(&under_way.name);
            // Who asks from here on gets a new one.
            drop(under_way);
            found.send_replace(Some(addresses));
        });
        Ok(lookup)
    }

    fn lookups(&self) -> MutexGuard<'_, HashMap<String, Lookup>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.look_up(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a host. Blocks.
fn addresses(name: &str) -> Found {
    // The port is a placeholder: the connector sets the URL's.
    let found: Vec<_> = (name, 0).to_socket_addrs()?.collect();
    if found.is_empty() { Err(io::Error::from(io::ErrorKind::NotFound).into()) } else { Ok(found) }
}

// === impl UnderWay ===

impl Drop for UnderWay {
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

    #[tokio::test]
    async fn those_who_ask_for_a_name_at_the_same_time_share_one_lookup() {
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
    async fn a_lookup_that_is_over_or_given_up_leaves_nothing_behind() {
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
