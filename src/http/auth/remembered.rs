//! Logins that were verified, kept without anything that could be used to log in.

use std::collections::{HashSet, VecDeque};
use std::io;

use ring::hmac;
use ring::rand::SystemRandom;

use super::credentials::Login;

/// How many valid logins are remembered, and how many invalid ones.
const MAX_REMEMBERED: usize = 1024;

/// Identifies a login by user, password and hash, so a login after the hash was changed is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LoginDigest([u8; 32]);

/// Computes digests. Nobody else can, because the key is random and stays in this process.
pub(super) struct LoginDigestKey(hmac::Key);

/// The latest logins that were verified. Invalid ones never displace valid ones.
#[derive(Debug, Default)]
pub(super) struct RememberedLogins {
    valid: RecentDigests,
    invalid: RecentDigests,
}

/// The latest digests, the oldest first.
#[derive(Debug, Default)]
struct RecentDigests {
    digests: HashSet<LoginDigest>,
    order: VecDeque<LoginDigest>,
}

// === impl LoginDigestKey ===

impl LoginDigestKey {
    /// # Errors
    /// If the machine gives no random bytes.
    pub(super) fn random() -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        key.map(Self).map_err(|_| io::Error::other("the machine gives no random bytes"))
    }

    pub(super) fn digest(&self, login: &Login) -> LoginDigest {
        let Login { credentials, hash, .. } = login;
        let mut context = hmac::Context::with_key(&self.0);
        // The name follows its length and the hash has a fixed length, so no two logins are the same bytes.
        context.update(&credentials.user().len().to_le_bytes());
        context.update(credentials.user());
        context.update(credentials.password());
        context.update(hash.as_bytes());
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        LoginDigest(digest)
    }
}

// === impl RememberedLogins ===

impl RememberedLogins {
    /// Whether the login is valid, if it is remembered.
    pub(super) fn get(&self, digest: &LoginDigest) -> Option<bool> {
        let is_valid = self.valid.digests.contains(digest);
        (is_valid || self.invalid.digests.contains(digest)).then_some(is_valid)
    }

    pub(super) fn insert(&mut self, digest: LoginDigest, is_valid: bool) {
        let digests = if is_valid { &mut self.valid } else { &mut self.invalid };
        digests.insert(digest);
    }
}

// === impl RecentDigests ===

impl RecentDigests {
    /// Forgets the oldest if there are too many.
    fn insert(&mut self, digest: LoginDigest) {
        if self.digests.insert(digest) {
            self.order.push_back(digest);
        }
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> LoginDigest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        LoginDigest(bytes)
    }

    #[test]
    fn the_oldest_login_is_forgotten_and_invalid_ones_displace_no_valid_one() {
        let mut logins = RememberedLogins::default();
        logins.insert(digest(0), true);
        for n in (1..=MAX_REMEMBERED + 1).chain([2, 2]) {
            logins.insert(digest(n), false);
        }
        assert_eq!([0, 1, 2].map(|n| logins.get(&digest(n))), [Some(true), None, Some(false)]);
        assert_eq!(logins.invalid.digests.len(), MAX_REMEMBERED);
        assert_eq!(logins.invalid.order.len(), MAX_REMEMBERED);
    }
}
