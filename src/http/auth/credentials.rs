//! What a client shows: a user and a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use zeroize::Zeroizing;

/// A user's name and a password, of any bytes. They are wiped from memory when they are dropped.
pub(super) struct Credentials {
    /// Both, with a colon between them.
    text: Zeroizing<Vec<u8>>,
    colon: usize,
}

// === impl Credentials ===

impl Credentials {
    /// Those in the one `Authorization` header that there must be.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let value = value.as_bytes();
        let (scheme, encoded) = value.split_at(value.iter().position(|b| *b == b' ')?);
        if !scheme.eq_ignore_ascii_case(b"Basic") {
            return None;
        }
        let encoded = encoded.trim_ascii();
        // Made large enough at once, so that growing it leaves no copy behind.
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

    fn of(values: &[&str]) -> Option<(Vec<u8>, Vec<u8>)> {
        let values = values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap()));
        let credentials = Credentials::of(&values.collect())?;
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
            assert_eq!(of(&[value]), Some((user.to_vec(), password.to_vec())), "{value}");
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
            assert!(of(values).is_none(), "{values:?}");
        }
    }
}
