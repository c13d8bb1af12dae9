//! Logins by HTTP basic authentication.
//!
//! Verifying a password is slow on purpose, which a flood of logins can exploit. At most [`MAX_VERIFICATIONS`]
//! run at a time, one for each client address, and addresses take turns. So a flood from one address does not
//! delay a login from another. Of one address, the newest login goes first. The results are remembered, so the
//! login of a scraper costs nothing from the second time on.

mod credentials;
mod remembered;
#[cfg(test)]
mod tests;
mod turns;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use self::credentials::{Credentials, Login};
use self::remembered::{LoginDigest, LoginDigestKey, RememberedLogins};
use self::turns::{AddressTurn, AddressTurns};
use super::log_limiter::LogLimiter;
use super::responses::response::{HttpResponse, problem};
use crate::threads::Thread;
use crate::web::Users;

/// How many passwords are verified at a time. Each keeps a CPU busy.
const MAX_VERIFICATIONS: usize = 2;

/// The challenge that asks a client to log in.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="cekura-exporter", charset="UTF-8""#);

/// Verifies logins. It lives as long as the process, even if the users change: what is remembered of a login
/// includes the password's hash, so it is of no use after the password was changed.
pub(super) struct Authenticator {
    digest_key: LoginDigestKey,
    remembered: Arc<Mutex<RememberedLogins>>,
    /// Taken first, so that at most one login of each address waits for a turn of all.
    address_turns: Arc<AddressTurns>,
    turns: Arc<Semaphore>,
    verify: Verify,
    failure_log: LogLimiter,
}

/// Whether a login is valid. Takes as long as hashing a password does.
type Verify = Arc<dyn Fn(&Login) -> bool + Send + Sync>;

/// The client did not prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unauthorized;

// === impl Authenticator ===

impl Authenticator {
    /// # Errors
    /// If the machine gives no random bytes.
    pub(super) fn new() -> io::Result<Self> {
        Self::with_verify(Arc::new(Login::verify))
    }

    fn with_verify(verify: Verify) -> io::Result<Self> {
        Ok(Self {
            digest_key: LoginDigestKey::random()?,
            remembered: Arc::default(),
            address_turns: Arc::default(),
            turns: Arc::new(Semaphore::new(MAX_VERIFICATIONS)),
            verify,
            failure_log: LogLimiter::default(),
        })
    }

    /// Accepts everybody if there are no users, otherwise only requests with the name and password of one.
    ///
    /// # Errors
    /// For everybody else. An unknown user takes as long as a wrong password, if all hashes have the same cost.
    pub(super) async fn authenticate(
        &self,
        users: &Users,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<(), Unauthorized> {
        if users.is_empty() {
            return Ok(());
        }
        // Browsers first ask without credentials. That is no failed login.
        if !headers.contains_key(AUTHORIZATION) {
            return Err(Unauthorized);
        }
        let login = Credentials::from_headers(headers).map(|credentials| Login::new(credentials, users));
        if let Some(login) = login
            && self.is_valid(login, peer.to_canonical()).await
        {
            return Ok(());
        }
        if let Some(suppressed) = self.failure_log.permit() {
            warn!(suppressed, "login failed");
        }
        Err(Unauthorized)
    }

    async fn is_valid(&self, login: Login, peer: IpAddr) -> bool {
        let digest = self.digest_key.digest(&login);
        if let Some(is_valid) = lock(&self.remembered).get(&digest) {
            return is_valid;
        }
        let Some(of_address) = self.address_turns.take(peer).await else { return false };
        // The semaphore is never closed.
        let Ok(of_all) = self.turns.clone().acquire_owned().await else { return false };
        // The same login may have been verified meanwhile.
        let remembered = lock(&self.remembered).get(&digest);
        match remembered {
            Some(is_valid) => is_valid,
            None => self.verify(login, digest, (of_address, of_all)).await,
        }
    }

    /// Verifies a login on a thread of its own, to its end and with its turns, even if the client is gone.
    async fn verify(&self, login: Login, digest: LoginDigest, turns: (AddressTurn, OwnedSemaphorePermit)) -> bool {
        let (verify, remembered) = (self.verify.clone(), self.remembered.clone());
        let work = move || {
            let _turns = turns;
            let is_valid = verify(&login);
            lock(&remembered).insert(digest, is_valid);
            is_valid
        };
        match Thread::start("login") {
            Ok(thread) => thread.run(work).await.unwrap_or(false),
            // The machine gives no thread, so the requests that this one serves wait meanwhile.
            Err(_) => work(),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Unauthorized ===

impl From<Unauthorized> for HttpResponse {
    /// The same whatever was wrong.
    fn from(Unauthorized: Unauthorized) -> Self {
        let what = "a login is needed: send a user and the password by HTTP basic authentication";
        let mut response = problem(StatusCode::UNAUTHORIZED, what);
        response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        response
    }
}
