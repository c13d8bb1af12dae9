//! Users and the hashes of their passwords.

use std::collections::BTreeMap;
use std::fmt;

/// The users who may log in.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<String, PasswordHash>);

/// A bcrypt hash. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

// === impl Users ===

impl Users {
    /// Whether nobody needs to log in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, PasswordHash)> for Users {
    fn from_iter<I: IntoIterator<Item = (String, PasswordHash)>>(users: I) -> Self {
        Self(users.into_iter().collect())
    }
}

// === impl PasswordHash ===

impl PasswordHash {
    /// Takes a hash as `htpasswd -B` writes it.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the user. It does not show the hash.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
