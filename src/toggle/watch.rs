//! Watches: the named slots of the watch list, in types that cannot be wrong.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::label::Labels;

/// One entry of the watch list: a named slot and the run that is in it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The slot's name, unique and stable over runs.
    pub name: WatchName,
    /// The API that the run is polled at.
    pub api: ApiName,
    /// The agent whose tools are toggled.
    pub agent_id: AgentId,
    /// The toggle task.
    pub progress_id: ProgressId,
    /// The state that the run should end in, where the user said so.
    pub expect: Option<Expect>,
    /// The user's labels, on every series of this watch.
    pub labels: Labels,
    /// Where the watch comes from.
    pub source: Source,
}

/// The name of a watch: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchName(Arc<str>);

/// The name of a configured API: `[a-z0-9][a-z0-9_]*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiName(Arc<str>);

/// The id of an agent, unique within one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(NonZeroU64);

/// The id of a toggle task: any text of 1 to 256 bytes without white space at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgressId(Box<str>);

/// The mock state that a run should end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Mocks on.
    Enabled,
    /// Mocks off.
    Disabled,
}

/// Where a watch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The configuration.
    Config,
    /// A watch file.
    File,
    /// A registration over HTTP.
    Http,
}

/// What is wrong with a text that white space was left around.
const WHITE_SPACE: &str = "begins or ends with white space: take that away";

fn has_white_space_at_its_ends(text: &str) -> bool {
    text.trim().len() < text.len()
}

// === impl Watch ===

impl Watch {
    /// Whether `other` is the same run: the same task of the same agent at the same API.
    pub fn same_run(&self, other: &Self) -> bool {
        self.api == other.api && self.agent_id == other.agent_id && self.progress_id == other.progress_id
    }
}

// === impl WatchName ===

impl WatchName {
    /// The longest name, in bytes.
    pub const MOST_BYTES: usize = 128;

    /// # Errors
    /// What is wrong with the name, as a sentence for the user.
    pub fn parse(name: &str) -> Result<Self, String> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let goes_on_well = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if starts_well && goes_on_well && name.len() <= Self::MOST_BYTES {
            Ok(Self(name.into()))
        } else if has_white_space_at_its_ends(name) {
            Err(WHITE_SPACE.into())
        } else {
            Err("is not a watch name: 1 to 128 letters, digits, dots, underscores and hyphens, \
                 a letter or digit first"
                .into())
        }
    }

    /// The name of a watch that was given none: `agent-<agent_id>`.
    pub fn of_agent(agent: AgentId) -> Self {
        Self(format!("agent-{agent}").into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl ApiName ===

impl ApiName {
    /// The name of the API that watches belong to where they name none.
    pub const DEFAULT: &str = "default";

    /// # Errors
    /// What is wrong with the name, as a sentence for the user.
    pub fn parse(name: &str) -> Result<Self, String> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let goes_on_well = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if starts_well && goes_on_well {
            Ok(Self(name.into()))
        } else {
            Err("is not an API name: lower-case letters, digits and underscores, no underscore first".into())
        }
    }

    /// The API that watches belong to where they name none.
    pub fn default_api() -> Self {
        Self(Self::DEFAULT.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl AgentId ===

impl AgentId {
    /// The least id.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// # Errors
    /// What is wrong with the id, as a sentence for the user.
    pub fn parse(id: &str) -> Result<Self, String> {
        let plain = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
        id.parse()
            .ok()
            .filter(|_| plain)
            .map(Self)
            .ok_or_else(|| "is not an agent id: a whole number above 0, in plain digits without leading zeros".into())
    }

    /// The id.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

// === impl ProgressId ===

impl ProgressId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Takes an id from a user. White space at its ends is never part of an id: it is left over from a shell or
    /// a text file, and the upstream would not know the id.
    ///
    /// # Errors
    /// What is wrong with the id, as a sentence for the user.
    pub fn parse(id: &str) -> Result<Self, String> {
        if has_white_space_at_its_ends(id) { Err(WHITE_SPACE.into()) } else { Self::restore(id) }
    }

    /// Takes an id that was stored, which an earlier version may have taken with white space at its ends.
    ///
    /// # Errors
    /// What is wrong with the id, as a sentence for the user.
    pub fn restore(id: &str) -> Result<Self, String> {
        match id.len() {
            0 => Err("is empty: the id that starting the toggle answered is needed".into()),
            1..=Self::MAX_BYTES => Ok(Self(id.into())),
            len => Err(format!("is {len} bytes long: at most {} are allowed", Self::MAX_BYTES)),
        }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Expect ===

impl Expect {
    /// # Errors
    /// What is wrong with the value, as a sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            _ => Err("is neither `enabled` nor `disabled`".into()),
        }
    }

    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }

    /// Whether `mock_enabled`, as answered, is what was expected.
    pub fn is_met_by(self, mock_enabled: Option<bool>) -> bool {
        mock_enabled == Some(self == Self::Enabled)
    }
}

// === impl Source ===

impl Source {
    /// Every source, in the order of precedence.
    pub const ALL: [Self; 3] = [Self::Config, Self::File, Self::Http];

    /// As shown in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::File => "file",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for WatchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ApiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lets maps keyed by name be asked with a plain string.
impl std::borrow::Borrow<str> for WatchName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "9", "bookings-enable", "A.b_c-9", &"x".repeat(128)] {
            assert!(WatchName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "a b", "a/b", "é", "a\n", &"x".repeat(129)] {
            assert!(WatchName::parse(bad).is_err(), "{bad}");
        }
        for good in ["default", "9", "a_b"] {
            assert!(ApiName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "_a", "A", "a-b", "a.b", "a b"] {
            assert!(ApiName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn agent_ids_are_plain_positive_numbers() {
        assert_eq!(AgentId::parse("4321").unwrap().get(), 4321);
        for bad in ["", "0", "-1", "+1", "007", "1.0", "1e3", "0x1", "1_000", " 1", "18446744073709551616"] {
            assert!(AgentId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn white_space_at_the_ends_of_a_progress_id_or_a_name_is_refused_in_words() {
        for id in [" p", "p ", "p\n", "\tp", "p\u{a0}", " "] {
            assert!(ProgressId::parse(id).unwrap_err().contains("white space"), "{id:?}");
            assert!(WatchName::parse(id).unwrap_err().contains("white space"), "{id:?}");
        }
        assert!(ProgressId::parse("a b").is_ok());
    }

    #[test]
    fn progress_ids_that_were_stored_are_restored_as_they_were() {
        assert_eq!(ProgressId::restore(" p\n").unwrap().as_str(), " p\n");
        assert!(ProgressId::restore("").is_err() && ProgressId::restore(&"x".repeat(257)).is_err());
    }

    #[test]
    fn progress_ids_have_one_to_256_bytes_of_anything() {
        assert!(ProgressId::parse(&"é".repeat(128)).is_ok());
        assert!(ProgressId::parse("").is_err());
        assert!(ProgressId::parse(&"x".repeat(257)).is_err());
    }
}
