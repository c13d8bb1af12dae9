//! Users and their password hashes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

use crate::collections::inserted;

/// The users who may log in.
#[derive(Debug, Default)]
pub struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    decoy: PasswordHash,
}

/// A bcrypt hash. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    cost: u32,
    /// In the form of bcrypt, with `$2b$`, the newest of the equivalent versions.
    text: String,
}

/// The valid costs: from the lowest of bcrypt up to one at which a login takes seconds.
const COSTS: RangeInclusive<u32> = 4..=16;

/// Lengths in characters.
const SALT: usize = 22;
const SALT_AND_HASH: usize = 53;

/// The base64 of bcrypt. The last character of a salt has unused bits, which some tools set.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

// === impl Users ===

impl Users {
    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The password hash of a user.
    pub fn hash_of(&self, user: &[u8]) -> Option<&PasswordHash> {
        self.hashes.get(str::from_utf8(user).ok()?)
    }

    /// A hash that no password matches, with the highest cost of all users. It is verified for unknown users, so
    /// that the time of an answer does not tell whether a user exists.
    pub fn decoy(&self) -> &PasswordHash {
        &self.decoy
    }

    /// Whether hashes have different costs. Then the time of an answer tells which users exist.
    pub fn costs_differ(&self) -> bool {
        self.hashes.values().any(|hash| hash.cost != self.decoy.cost)
    }
}

impl FromIterator<(String, PasswordHash)> for Users {
    fn from_iter<I: IntoIterator<Item = (String, PasswordHash)>>(users: I) -> Self {
        let hashes: BTreeMap<_, _> = inserted(users);
        let highest = hashes.values().map(|hash| hash.cost).max();
        let decoy = highest.map(PasswordHash::of_nobody).unwrap_or_default();
        Self { hashes, decoy }
    }
}

// === impl PasswordHash ===

impl PasswordHash {
    /// Parses a hash as `htpasswd -B` prints it.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the user that does not quote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let misshapen = || {
            "must be a bcrypt hash as `htpasswd -nBC 10 USER` prints it: $2y$, $2b$ or $2a$, a cost of two digits, $, \
             and 53 characters"
                .to_owned()
        };
        let version = ["$2y$", "$2b$", "$2a$"];
        let rest = version.iter().find_map(|version| text.strip_prefix(version)).ok_or_else(misshapen)?;
        let (cost, rest) = rest.split_once('$').ok_or_else(misshapen)?;
        if cost.len() != 2 || !cost.bytes().all(|digit| digit.is_ascii_digit()) || rest.len() != SALT_AND_HASH {
            return Err(misshapen());
        }
        let (salt, hash) = rest.split_at_checked(SALT).ok_or_else(misshapen)?;
        let [salt, hash] = [salt, hash].map(|part| BASE64.decode(part).map(|bytes| BASE64.encode(bytes)));
        let (Ok(salt), Ok(hash)) = (salt, hash) else { return Err(misshapen()) };
        let cost = cost.parse().map_err(|_| misshapen())?;
        if !COSTS.contains(&cost) {
            let (least, most) = (COSTS.start(), COSTS.end());
            return Err(format!(
                "has the cost {cost} and must have one of {least} to {most}: each step doubles the time that a login \
                 takes, which is seconds at {most}, and soon minutes"
            ));
        }
        Ok(Self::new(cost, &salt, &hash))
    }

    /// Whether it is the hash of this password. Blocks for as long as its cost determines.
    pub fn matches(&self, password: &[u8]) -> bool {
        bcrypt::verify(password, &self.text).unwrap_or(false)
    }

    /// The whole hash, to tell it from others.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    fn of_nobody(cost: u32) -> Self {
        let zeros = ".".repeat(SALT_AND_HASH);
        let (salt, hash) = zeros.split_at(SALT);
        Self::new(cost, salt, hash)
    }

    fn new(cost: u32, salt: &str, hash: &str) -> Self {
        Self { cost, text: format!("$2b${cost:02}${salt}{hash}") }
    }
}

impl Default for PasswordHash {
    fn default() -> Self {
        Self::of_nobody(bcrypt::DEFAULT_COST)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of the password `secret`, made by the C library.
    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

    fn with_cost(cost: u32) -> PasswordHash {
        PasswordHash::parse(&HASH.replace("$04$", &format!("${cost:02}$"))).unwrap()
    }

    fn users<const N: usize>(users: [(&str, PasswordHash); N]) -> Users {
        users.into_iter().map(|(name, hash)| (name.to_owned(), hash)).collect()
    }

    #[test]
    fn equivalent_versions_of_bcrypt_are_accepted() {
        for version in ["$2a$", "$2b$", "$2y$"] {
            let hash = PasswordHash::parse(&HASH.replace("$2y$", version)).unwrap();
            assert!(hash.matches(b"secret"), "{version}");
            assert!(!hash.matches(b"Secret") && !hash.matches(b"") && !hash.matches(b"secret1"), "{version}");
            assert!(hash == PasswordHash::parse(HASH).unwrap(), "{version}");
        }
    }

    #[test]
    fn unused_bits_of_a_salt_are_ignored() {
        let hash = PasswordHash::parse(&HASH.replace("stuu", "stuv")).unwrap();
        assert!(hash.matches(b"secret"));
    }

    #[test]
    fn a_password_need_not_be_utf_8() {
        let hash = PasswordHash::parse(&bcrypt::hash(b"\xff\xfe:", 4).unwrap()).unwrap();
        assert!(hash.matches(b"\xff\xfe:") && !hash.matches(b"\xff\xfe"));
    }

    #[test]
    fn an_invalid_hash_is_refused_without_quoting_it() {
        let salt_and_hash = &HASH[7..];
        for text in [
            String::new(),
            "secret".to_owned(),
            HASH.replace("$2y$", "$2x$"),
            HASH.replace("$2y$", "$2$"),
            HASH.replace("$2y$", "$apr1$"),
            HASH.replace("$04$", "$4$"),
            HASH.replace("$04$", "$+4$"),
            HASH.replace("$04$", "$004$"),
            HASH.replace("$04$", "$04"),
            HASH.replace("$04$", "$03$"),
            HASH.replace("$04$", "$17$"),
            HASH.replace("$04$", "$31$"),
            HASH.replace('W', ""),
            format!("{HASH}W"),
            format!("{HASH} "),
            HASH.replace("ab", "a="),
            HASH.replace("ab", "a+"),
            HASH.replace("ab", "\u{e9}"),
            HASH.replace("rstuu2", "rstu\u{e9}"),
        ] {
            let Err(error) = PasswordHash::parse(&text) else { panic!("{text} is taken") };
            assert!(error.starts_with("must be a bcrypt hash") || error.starts_with("has the cost"), "{error}");
            assert!(!error.contains(&salt_and_hash[..8]) && !error.contains(&salt_and_hash[45..]), "{error}");
        }
        assert!(PasswordHash::parse(&HASH.replace("$04$", "$17$")).unwrap_err().contains("cost 17"));
        assert_eq!(format!("{:?}", PasswordHash::parse(HASH).unwrap()), "<secret>");
    }

    #[test]
    fn the_decoy_has_the_highest_cost_and_matches_no_password() {
        let of = users([("a", with_cost(4)), ("b", with_cost(6)), ("c", with_cost(5))]);
        assert_eq!(of.decoy().cost, 6);
        assert!(!of.decoy().matches(b"") && !of.decoy().matches(b"secret"));
        assert!(of.costs_differ());
        assert!(!users([("a", with_cost(5)), ("b", with_cost(5))]).costs_differ());
        assert!(!users([]).costs_differ() && users([]).is_empty());
    }

    #[test]
    fn users_are_found_by_their_exact_name() {
        let of = users([("a", with_cost(4)), ("\u{e9}", with_cost(5))]);
        assert!(of.hash_of(b"a") == Some(&with_cost(4)) && of.hash_of("\u{e9}".as_bytes()) == Some(&with_cost(5)));
        for name in [&b"A"[..], b"", b"aa", b"\xff"] {
            assert!(of.hash_of(name).is_none(), "{name:?}");
        }
    }
}
