//! The connections to one API: kept, but not for ever.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::header::CONNECTION;
use reqwest::{Proxy, Response, redirect};
use rustls::ClientConfig;
use url::Url;

use super::client::{BuildError, USER_AGENT};
use super::resolve::SystemResolver;

/// Connections that were idle for this long are closed by us, before the usual 60 s of load
/// balancers: a request on a connection that the other side is closing would be lost.
const IDLE: Duration = Duration::from_secs(50);

/// The age at which connections make room for new ones. Names move, and whoever has a connection does not
/// look where to.
const AGE: Duration = Duration::from_mins(5);

/// Connections that are younger than this are not given up: an API that answers nothing but errors would
/// else be connected to for each poll.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// The most connections of a pool that are remembered as kept.
const MOST_KEPT: usize = 1024;

/// The most headers that an answer may have.
const MOST_HEADERS: usize = 512;

/// The connections to one API.
pub(super) struct Connections {
    proxy: Option<Url>,
    connect_timeout: Duration,
    resolver: SystemResolver,
    current: Mutex<Current>,
}

struct Current {
    tls: ClientConfig,
    pool: Arc<Pool>,
}

/// Connections that were made one after the other.
pub(super) struct Pool {
    http: reqwest::Client,
    since: Instant,
    /// Those that brought an answer and were kept, by their ends here.
    kept: Mutex<HashSet<SocketAddr>>,
}

// === impl Connections ===

impl Connections {
    /// None yet. Connecting may take a part of `timeout`, the most that a request may take, so that of a
    /// host's addresses more than one can be tried.
    ///
    /// # Errors
    /// If no client can be built.
    pub(super) fn new(tls: ClientConfig, proxy: Option<Url>, timeout: Duration) -> Result<Self, BuildError> {
        let (resolver, connect_timeout) = (SystemResolver::default(), timeout.mul_f64(0.6));
        let pool = Arc::new(Pool::new(&tls, proxy.as_ref(), connect_timeout, &resolver)?);
        Ok(Self { proxy, connect_timeout, resolver, current: Mutex::new(Current { tls, pool }) })
    }

    /// The host and the port of the proxy that leads to the API, without its login.
    pub(super) fn proxy_address(&self) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        let port = proxy.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}{port}", proxy.host_str()?))
    }

    /// The connections to use now.
    pub(super) fn pool(&self) -> Arc<Pool> {
        let mut current = self.current();
        if current.pool.since.elapsed() >= AGE {
            self.renew(&mut current);
        }
        current.pool.clone()
    }

    /// These led to nothing good. Whoever asks from here on gets new ones.
    pub(super) fn give_up(&self, pool: &Arc<Pool>) {
        let mut current = self.current();
        if Arc::ptr_eq(&current.pool, pool) && pool.since.elapsed() >= LEAST_AGE {
            self.renew(&mut current);
        }
    }

    /// New ones, whatever the age of these.
    pub(super) fn fresh(&self, pool: &Arc<Pool>) -> Arc<Pool> {
        let mut current = self.current();
        if Arc::ptr_eq(&current.pool, pool) {
            self.renew(&mut current);
        }
        current.pool.clone()
    }

    /// Verifies servers so from here on.
    pub(super) fn set_tls(&self, tls: ClientConfig) {
        let mut current = self.current();
        current.tls = tls;
        self.renew(&mut current);
    }

    /// This answer came over a connection of this pool.
    pub(super) fn answered(&self, pool: &Pool, answer: &Response) {
        let Some(connection) = answer.extensions().get::<HttpInfo>() else { return };
        self.resolver.reached(connection.remote_addr().ip());
        let is_closed = answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
        if !is_closed {
            pool.note_kept(connection.local_addr());
        }
    }

    fn renew(&self, current: &mut Current) {
        // It was built like this before. If it cannot be now, what is there serves on.
        if let Ok(pool) = Pool::new(&current.tls, self.proxy.as_ref(), self.connect_timeout, &self.resolver) {
            current.pool = Arc::new(pool);
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pool ===

impl Pool {
    fn new(
        tls: &ClientConfig,
        proxy: Option<&Url>,
        connect_timeout: Duration,
        resolver: &SystemResolver,
    ) -> Result<Self, BuildError> {
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .dns_resolver(resolver.clone())
            .tls_backend_preconfigured(tls.clone())
            .connect_timeout(connect_timeout)
            .http1_max_headers(MOST_HEADERS)
            .pool_idle_timeout(IDLE);
        if let Some(proxy) = proxy {
            http = http.proxy(Proxy::all(proxy.clone()).map_err(|error| BuildError::of(error.without_url()))?);
        }
        let http = http.build().map_err(|error| BuildError::of(error.without_url()))?;
        Ok(Self { http, since: Instant::now(), kept: Mutex::default() })
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Whether this connection had brought an answer before, and was kept.
    pub(super) fn has_kept(&self, connection: SocketAddr) -> bool {
        self.kept().contains(&connection)
    }

    fn note_kept(&self, connection: SocketAddr) {
        let mut kept = self.kept();
        if kept.len() >= MOST_KEPT {
            // Most of them are closed by now. What is forgotten costs a repeat at most.
            kept.clear();
        }
        kept.insert(connection);
    }

    fn kept(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cekura::tls;

    fn connections() -> Connections {
        Connections::new(tls::client_config(None).unwrap(), None, Duration::from_secs(1)).unwrap()
    }

    /// As if they had been made that long ago.
    fn aged(connections: &Connections, age: Duration) {
        let mut current = connections.current();
        let pool = Pool::new(&current.tls, None, Duration::from_secs(1), &connections.resolver).unwrap();
        current.pool = Arc::new(Pool { since: Instant::now().checked_sub(age).unwrap(), ..pool });
    }

    #[test]
    fn connections_make_room_for_new_ones_at_their_age() {
        let connections = connections();
        assert!(Arc::ptr_eq(&connections.pool(), &connections.pool()));
        aged(&connections, AGE);
        let old = connections.current().pool.clone();
        assert!(!Arc::ptr_eq(&old, &connections.pool()));
    }

    #[test]
    fn those_that_led_to_nothing_good_are_given_up_once_and_not_at_once() {
        let connections = connections();
        let young = connections.pool();
        connections.give_up(&young);
        assert!(Arc::ptr_eq(&young, &connections.pool()));
        aged(&connections, LEAST_AGE);
        let old = connections.pool();
        connections.give_up(&old);
        let new = connections.pool();
        assert!(!Arc::ptr_eq(&old, &new));
        connections.give_up(&old);
        assert!(Arc::ptr_eq(&new, &connections.pool()), "others that led over the old ones end later");
        assert!(Arc::ptr_eq(&connections.fresh(&old), &new));
        assert!(!Arc::ptr_eq(&connections.fresh(&new), &new));
    }
}
