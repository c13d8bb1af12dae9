//! Name resolution with an error of its own type, so that `dns` is told from `connect`.

use std::error::Error;
use std::fmt;
use std::io;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The machine's resolver.
pub(super) struct SystemResolver;

/// A host name that was not resolved.
#[derive(Debug)]
pub(super) struct ResolveError(io::Error);

// === impl SystemResolver ===

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is a placeholder: the connector sets the URL's.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(ResolveError)?;
            let addresses: Vec<_> = found.collect();
            if addresses.is_empty() {
                return Err(ResolveError(io::Error::from(io::ErrorKind::NotFound)).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

// === impl ResolveError ===

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host's name was not resolved")
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}
