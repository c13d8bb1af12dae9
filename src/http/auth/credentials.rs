//! What a client sends to log in: a user and a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use zeroize::Zeroizing;

use crate::web::{PasswordHash, Users};

/// A user's name and a password, of any bytes. They are wiped from memory when they are dropped.
pub(super) struct Credentials {
    /// Both, with a colon between them.
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

/// Credentials, and the hash that the password must match.
pub(super) struct Login {
    pub(super) credentials: Credentials,
    pub(super) hash: PasswordHash,
    is_known_user: bool,
}

// === impl Login ===

impl Login {
    /// An unknown user gets the hash of a decoy, so that verifying takes as long as for a known one.
    pub(super) fn new(credentials: Credentials, users: &Users) -> Self {
        let hash = users.hash_of(credentials.user());
        Self { is_known_user: hash.is_some(), hash: hash.unwrap_or(users.decoy()).clone(), credentials }
    }

    /// Whether it is valid. Blocks for as long as hashing a password takes.
    pub(super) fn verify(&self) -> bool {
        // The hash is computed for an unknown user, too.
        self.hash.matches(self.credentials.password()) & self.is_known_user
    }
}

// === impl Credentials ===

impl Credentials {
    /// The credentials in the `Authorization` header; `None` unless there is exactly one, and it is valid.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let value = value.as_bytes();
        let (scheme, encoded) = value.split_at(value.iter().position(|b| *b == b' ')?);
        if !scheme.eq_ignore_ascii_case(b"Basic") {
            return None;
        }
        let encoded = encoded.trim_ascii();
        // Large enough from the start, because growing would leave a copy behind in memory.
        let mut text = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = STANDARD.decode_slice(encoded, &mut text[..]).ok()?;
        text.truncate(length);
        let colon = text.iter().position(|b| *b == b':')?;
        Some(Self { text, colon })
    }

    pub(super) fn user(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(values: &[&str]) -> Option<(Vec<u8>, Vec<u8>)> {
        let values = values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap()));
        let credentials = Credentials::from_headers(&values.collect())?;
        Some((credentials.user().to_vec(), credentials.password().to_vec()))
    }

    #[test]
    fn the_user_goes_up_to_the_first_colon_and_both_are_bytes() {
        for (value, user, password) in [
            ("Basic YTpi", &b"a"[..], &b"b"[..]),
            ("basic YTpi", b"a", b"b"),
            ("BASIC   YTpi", b"a", b"b"),
            ("Basic YTpiOmM=", b"a", b"b:c"),
            ("Basic YTo=", b"a", b""),
            ("Basic OmI=", b"", b"b"),
            ("Basic Og==", b"", b""),
            ("Basic 6Tr/+g==", b"\xe9", b"\xff\xfa"),
        ] {
            assert_eq!(parse_all(&[value]), Some((user.to_vec(), password.to_vec())), "{value}");
        }
    }

    #[test]
    fn none_two_other_schemes_and_damage_are_no_credentials() {
        for values in [
            &[][..],
            &["Basic YTpi", "Basic YTpi"],
            &["Basic YTpi, Basic YTpi"],
            &["Bearer YTpi"],
            &["Digest username=\"a\""],
            &["Basic"],
            &["Basic "],
            &["BasicYTpi"],
            &["YTpi"],
            &["Basic YTp"],
            &["Basic YTo"],
            &["Basic YT pi"],
            &["Basic YTpi="],
            &["Basic 6Tr_-g=="],
            &["Basic YWI="],
        ] {
            assert!(parse_all(values).is_none(), "{values:?}");
        }
    }
}
