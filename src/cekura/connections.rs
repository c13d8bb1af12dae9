//! The connections to one API. They are kept alive, and replaced before they are old.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::header::CONNECTION;
use reqwest::{ClientBuilder, Proxy, Response, redirect};
use rustls::ClientConfig;
use url::Url;

use super::client::{BuildError, USER_AGENT};
use super::trace::RequestTrace;
use crate::resolve::SystemResolver;
use crate::tls::CaBundle;

/// How long a connection is kept idle. Load balancers usually close it after 60 seconds, and a request that
/// is sent at that moment is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// The age at which connections are replaced, because a name may have moved and an open connection does not
/// notice.
const MAX_AGE: Duration = Duration::from_mins(5);

/// Younger connections are not retired. Otherwise each poll of an API that answers only errors would open a
/// new one.
const MIN_AGE: Duration = Duration::from_secs(1);

/// The most kept connections that a pool remembers.
const MAX_KEPT: usize = 1024;

/// The most headers of a response.
const MAX_HEADERS: usize = 512;

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

/// Connections that were opened with the same TLS settings and about the same time.
pub(super) struct Pool {
    http: reqwest::Client,
    since: Instant,
    /// The local addresses of connections that had a response and were kept alive.
    kept: Mutex<HashSet<SocketAddr>>,
    /// The trace of the only request, if it is traced.
    trace: Option<RequestTrace>,
}

// === impl Connections ===

impl Connections {
    /// Opens no connection yet. Connecting may take a part of `timeout`, which bounds a request, so that more
    /// than one address of a host can be tried.
    ///
    /// # Errors
    /// If the client cannot be built.
    pub(super) fn new(tls: ClientConfig, proxy: Option<Url>, timeout: Duration) -> Result<Self, BuildError> {
        let (resolver, connect_timeout) = (SystemResolver::default(), timeout.mul_f64(0.6));
        let http = client_builder(&tls, proxy.as_ref(), connect_timeout, &resolver)?;
        let pool = Arc::new(Pool::new(http, None)?);
        Ok(Self { proxy, connect_timeout, resolver, current: Mutex::new(Current { tls, pool }) })
    }

    /// The host and port of the proxy for the API, without its login.
    pub(super) fn proxy_address(&self) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        let port = proxy.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}{port}", proxy.host_str()?))
    }

    /// A pool without connections for one request to `base_url`, which is traced. `extra` are the extra root certificates.
    ///
    /// # Errors
    /// If the client cannot be built.
    pub(super) fn traced_pool(&self, base_url: &Url, extra: Option<&CaBundle>) -> Result<Pool, BuildError> {
        let trace = RequestTrace::new(self.proxy.as_ref().unwrap_or(base_url));
        let tls = trace.client_config(extra).map_err(BuildError::of)?;
        let http = self.client_builder(&tls)?;
        Pool::new(trace.attach(http, self.resolver.clone()), Some(trace))
    }

    /// The pool for the next request.
    pub(super) fn pool(&self) -> Arc<Pool> {
        let mut current = self.current();
        if current.pool.since.elapsed() >= MAX_AGE {
            self.renew(&mut current);
        }
        current.pool.clone()
    }

    /// Replaces this pool after a failure, if it is the current one and not new. Requests that use it go on.
    pub(super) fn retire(&self, pool: &Arc<Pool>) {
        let mut current = self.current();
        if Arc::ptr_eq(&current.pool, pool) && pool.since.elapsed() >= MIN_AGE {
            self.renew(&mut current);
        }
    }

    /// Replaces this pool whatever its age, and returns the new one.
    pub(super) fn replace(&self, pool: &Arc<Pool>) -> Arc<Pool> {
        let mut current = self.current();
        if Arc::ptr_eq(&current.pool, pool) {
            self.renew(&mut current);
        }
        current.pool.clone()
    }

    /// Uses these TLS settings for new connections.
    pub(super) fn set_tls(&self, tls: ClientConfig) {
        let mut current = self.current();
        current.tls = tls;
        self.renew(&mut current);
    }

    /// Records that this response came over a connection of this pool.
    pub(super) fn answered(&self, pool: &Pool, response: &Response) {
        if let Some(trace) = &pool.trace {
            trace.answered(response.status().as_u16());
        }
        let Some(connection) = response.extensions().get::<HttpInfo>() else { return };
        self.resolver.reached(connection.remote_addr().ip());
        let is_closed = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
        if !is_closed {
            pool.note_kept(connection.local_addr());
        }
    }

    fn renew(&self, current: &mut Current) {
        // The same settings have worked before. If they fail now, the old pool stays.
        if let Ok(pool) = self.client_builder(&current.tls).and_then(|http| Pool::new(http, None)) {
            current.pool = Arc::new(pool);
        }
    }

    /// The settings of a client with these TLS settings.
    fn client_builder(&self, tls: &ClientConfig) -> Result<ClientBuilder, BuildError> {
        client_builder(tls, self.proxy.as_ref(), self.connect_timeout, &self.resolver)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings of every client.
fn client_builder(
    tls: &ClientConfig,
    proxy: Option<&Url>,
    connect_timeout: Duration,
    resolver: &SystemResolver,
) -> Result<ClientBuilder, BuildError> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .dns_resolver(resolver.clone())
        .tls_backend_preconfigured(tls.clone())
        .connect_timeout(connect_timeout)
        .http1_max_headers(MAX_HEADERS)
        .pool_idle_timeout(IDLE_TIMEOUT);
    Ok(match proxy {
        Some(proxy) => http.proxy(Proxy::all(proxy.clone()).map_err(|error| BuildError::of(error.without_url()))?),
        None => http,
    })
}

// === impl Pool ===

impl Pool {
    fn new(http: ClientBuilder, trace: Option<RequestTrace>) -> Result<Self, BuildError> {
        let http = http.build().map_err(|error| BuildError::of(error.without_url()))?;
        Ok(Self { http, since: Instant::now(), kept: Mutex::default(), trace })
    }

    /// The trace of the only request, if it is traced.
    pub(super) fn trace(&self) -> Option<&RequestTrace> {
        self.trace.as_ref()
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Whether this connection had a response before and was kept alive.
    pub(super) fn has_kept(&self, connection: SocketAddr) -> bool {
        self.kept().contains(&connection)
    }

    fn note_kept(&self, connection: SocketAddr) {
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            // Most of them are closed by now. Forgetting one that is open only means that its request is not
            // repeated.
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
    use crate::tls;

    fn connections() -> Connections {
        Connections::new(tls::client_config(None).unwrap(), None, Duration::from_secs(1)).unwrap()
    }

    /// Replaces the pool by one of this age.
    fn aged(connections: &Connections, age: Duration) {
        let mut current = connections.current();
        let pool = Pool::new(connections.client_builder(&current.tls).unwrap(), None).unwrap();
        current.pool = Arc::new(Pool { since: Instant::now().checked_sub(age).unwrap(), ..pool });
    }

    #[test]
    fn connections_are_replaced_at_their_maximum_age() {
        let connections = connections();
        assert!(Arc::ptr_eq(&connections.pool(), &connections.pool()));
        aged(&connections, MAX_AGE);
        let old = connections.current().pool.clone();
        assert!(!Arc::ptr_eq(&old, &connections.pool()));
    }

    #[test]
    fn a_pool_is_retired_once_and_not_while_it_is_new() {
        let connections = connections();
        let young = connections.pool();
        connections.retire(&young);
        assert!(Arc::ptr_eq(&young, &connections.pool()));
        aged(&connections, MIN_AGE);
        let old = connections.pool();
        connections.retire(&old);
        let new = connections.pool();
        assert!(!Arc::ptr_eq(&old, &new));
        connections.retire(&old);
        assert!(Arc::ptr_eq(&new, &connections.pool()), "other requests on the old pool end later");
        assert!(Arc::ptr_eq(&connections.replace(&old), &new));
        assert!(!Arc::ptr_eq(&connections.replace(&new), &new));
    }
}
