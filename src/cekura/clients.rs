//! The clients of all APIs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::BuildError;
use super::{Api, Client, Keyring, Proxies};
use crate::collections::inserted;
use crate::toggle::ApiName;

/// The clients in force, and the settings for building new ones.
pub struct Clients {
    proxies: Proxies,
    keyring: Keyring,
    current: Mutex<ApiClients>,
}

/// Every API with its client.
#[derive(Clone, Default)]
pub struct ApiClients(pub Vec<(Api, Arc<Client>)>);

// === impl Clients ===

impl Clients {
    /// No clients yet.
    pub fn new(proxies: Proxies) -> Self {
        Self { proxies, keyring: Keyring::default(), current: Mutex::default() }
    }

    /// Clients of these APIs. An API that differs only in its budget keeps its client. Blocks, because a new
    /// client reads its key file.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn of(&self, apis: Vec<Api>) -> Result<ApiClients, BuildError> {
        let ApiClients(before) = self.current();
        let client = |api: Api| {
            let kept = before.iter().find(|(old, _)| old.has_same_client(&api)).map(|(_, client)| client.clone());
            let new = || Client::new(&api, &self.proxies, self.keyring.clone()).map(Arc::new);
            let client = kept.map_or_else(new, Ok)?;
            Ok((api, client))
        };
        apis.into_iter().map(client).collect::<Result<_, _>>().map(ApiClients)
    }

    /// Puts these clients in force.
    pub fn put_in_force(&self, clients: &ApiClients) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = clients.clone();
    }

    /// The clients in force.
    pub fn current(&self) -> ApiClients {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

// === impl ApiClients ===

impl ApiClients {
    /// The names of the APIs.
    pub fn names(&self) -> BTreeSet<ApiName> {
        inserted(self.0.iter().map(|(api, _)| api.name.clone()))
    }
}
