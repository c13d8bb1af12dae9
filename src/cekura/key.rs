//! API keys: their sources, and a type that cannot be printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::input_file;
use crate::toggle::{ApiName, Redactions};

/// The variable that holds the key of the API `default`.
pub const KEY_VARIABLE: &str = "CEKURA_API_KEY";

/// A text that is never printed and is wiped from memory. `Debug` and `Display` show `<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Box<str>>>);

/// The source of the key of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The configuration or the environment has it.
    Given(Secret),
    /// The configuration or the environment has a key that cannot be sent, for this reason. Polls fail with
    /// `credentials`.
    Unusable(&'static str),
    /// A file has it, which may change at any time.
    File(KeyFile),
    /// There is no key. Polls fail with `credentials`.
    None,
}

/// A file with a key, which may have white space around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile(PathBuf);

/// The keys of all APIs, current and earlier ones, oldest first. An API may quote the key of another one, or an
/// earlier key, which may still be valid after a rotation. So all of them are hidden in texts.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Arc<Mutex<Vec<(ApiName, Secret)>>>);

/// How to give this API a key, for messages that say that it has none.
pub fn how_to_give_key(api: &ApiName) -> String {
    let or_variable =
        if *api == ApiName::default_api() { format!(", or the variable {KEY_VARIABLE}") } else { String::new() };
    format!("set api_key_file or api_key{or_variable}")
}

/// Stands for a secret, here and in `/config`.
const MASK: &str = "<secret>";

// === impl Secret ===

impl Secret {
    /// Parses a key. White space around it is ignored.
    ///
    /// # Errors
    /// What is wrong with the key, as a sentence for the user that does not quote it.
    pub fn parse(key: &str) -> Result<Self, &'static str> {
        let key = key.trim();
        if key.is_empty() {
            Err("is empty: a key is needed")
        } else if key.len() as u64 > KeyFile::MAX_BYTES {
            Err("is too long for a key")
        } else if key.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(Arc::new(Zeroizing::new(key.into()))))
        } else {
            Err("is not a key: only visible ASCII characters can be sent, without spaces or line breaks")
        }
    }

    /// The key itself, for the request header and to remove it from texts.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

// === impl Keyring ===

impl Keyring {
    /// The most keys of one API, including the current one.
    const MAX_PER_API: usize = 8;

    /// Adds the current key of an API.
    pub(super) fn put(&self, api: &ApiName, key: &Secret) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|(of, known)| of != api || known != key);
        keys.push((api.clone(), key.clone()));
        if keys.iter().filter(|(of, _)| of == api).count() > Self::MAX_PER_API
            && let Some(oldest) = keys.iter().position(|(of, _)| of == api)
        {
            keys.remove(oldest);
        }
    }

    /// All keys, to remove them from texts.
    pub(super) fn hidden(&self) -> Redactions {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().fold(Redactions::default(), |hidden, (_, key)| hidden.key(key.expose()))
    }
}

// === impl KeyFile ===

impl KeyFile {
    /// The maximum size of a key file, in bytes.
    pub const MAX_BYTES: u64 = 8 * 1024;

    /// A key file at `path`; it need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the key. Blocks.
    ///
    /// # Errors
    /// Why there is no usable key, as a sentence for the user that does not quote the file.
    pub fn read(&self) -> Result<Secret, String> {
        let content = input_file::read(&self.0, Self::MAX_BYTES).map_err(|error| error.to_string())?;
        let text = str::from_utf8(&content).map_err(|_| "is not UTF-8 text")?;
        Secret::parse(text).map_err(|what| format!("has no usable key: its content {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::Text;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::parse(" sk-live-1\n").unwrap();
        assert_eq!(secret.expose(), "sk-live-1");
        assert_eq!(format!("{secret} {secret:?} {:?}", KeySource::Given(secret.clone())).matches("sk-").count(), 0);
    }

    #[test]
    fn a_text_that_cannot_be_sent_is_no_key_and_its_error_does_not_quote_it() {
        for bad in ["", " \n", "sk-a b", "sk-a\nb", "sk-é", "sk-\u{7f}"] {
            let what = Secret::parse(bad).unwrap_err();
            assert!(!what.contains("sk-"), "{what}");
        }
    }

    #[test]
    fn earlier_keys_stay_hidden_up_to_a_limit() {
        let (keyring, api) = (Keyring::default(), ApiName::default_api());
        let key = |number: usize| Secret::parse(&format!("sk-{number:03}")).unwrap();
        (0..100).for_each(|number| keyring.put(&api, &key(number)));
        keyring.put(&ApiName::parse("other").unwrap(), &key(500));
        // Adding the same key again does not replace others.
        (0..100).for_each(|_| keyring.put(&api, &key(99)));
        let shown = Text::clean("sk-091 sk-092 sk-099 sk-500", &keyring.hidden());
        assert_eq!(shown.as_str(), "sk-091 <secret> <secret> <secret>");
    }

    #[test]
    fn a_key_file_is_trimmed_and_its_errors_name_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let file = KeyFile::new(path.clone());
        assert!(file.read().unwrap_err().starts_with("cannot be read"));
        std::fs::write(&path, "sk-1\r\n").unwrap();
        assert_eq!(file.read().unwrap().expose(), "sk-1");
        std::fs::write(&path, "").unwrap();
        assert!(file.read().unwrap_err().contains("is empty"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(file.read().unwrap_err().contains("not UTF-8"));
        std::fs::write(&path, "k".repeat(8 * 1024 + 9)).unwrap();
        assert!(file.read().unwrap_err().contains("is larger than 8 KiB"));
    }
}
