//! Watches, and types for their fields whose values are always valid.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::label::Labels;
use super::named::named_enum;

/// An entry of the watch list: its name and its current run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The name, which is unique and stays over runs.
    pub name: WatchName,
    /// The API that is polled.
    pub api: ApiName,
    /// The agent whose mocks are toggled.
    pub agent_id: AgentId,
    /// The id of the toggle task.
    pub progress_id: ProgressId,
    /// The state in which the run should end, if the user gave one.
    pub expect: Option<Expect>,
    /// The labels that the user gave, on every series of this watch.
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

/// The id of a toggle task: any text of 1 to 256 bytes without white space around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProgressId(Box<str>);

/// The mock state in which a run should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Mocks on.
    Enabled,
    /// Mocks off.
    Disabled,
}

named_enum! {
    /// Where a watch comes from.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Source {
        /// The configuration.
        Config = "config",
        /// A watch file.
        File = "file",
        /// A registration over HTTP.
        Http = "http",
    }
}

/// What is wrong with a text that has white space around it.
const WHITE_SPACE: &str = "begins or ends with white space: remove it";

fn has_white_space_around(text: &str) -> bool {
    text.trim().len() < text.len()
}

// === impl Watch ===

impl Watch {
    /// Whether `other` has the same run: the same task of the same agent at the same API.
    pub fn same_run(&self, other: &Self) -> bool {
        self.api == other.api && self.agent_id == other.agent_id && self.progress_id == other.progress_id
    }
}

// === impl WatchName ===

impl WatchName {
    /// The length limit of a name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// # Errors
    /// What is wrong with the name, to follow it in a message.
    pub fn parse(name: &str) -> Result<Self, String> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let goes_on_well = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if starts_well && goes_on_well && name.len() <= Self::MAX_BYTES {
            Ok(Self(name.into()))
        } else if has_white_space_around(name) {
            Err(WHITE_SPACE.into())
        } else {
            Err("is not a watch name: 1 to 128 letters, digits, dots, underscores and hyphens, \
                 a letter or digit first"
                .into())
        }
    }

    /// The default name of a watch: `agent-<agent_id>`.
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
    /// The name of the API of watches that name none.
    pub const DEFAULT: &str = "default";

    /// # Errors
    /// What is wrong with the name, to follow it in a message.
    pub fn parse(name: &str) -> Result<Self, String> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let goes_on_well = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if starts_well && goes_on_well {
            Ok(Self(name.into()))
        } else {
            Err("is not an API name: lower-case letters, digits and underscores, no underscore first".into())
        }
    }

    /// The API of watches that name none.
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
    /// The lowest id.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// # Errors
    /// What is wrong with the id, to follow it in a message.
    pub fn parse(id: &str) -> Result<Self, String> {
        let plain = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
        id.parse()
            .ok()
            .filter(|_| plain)
            .map(Self)
            .ok_or_else(|| "is not an agent id: a whole number above 0, in plain digits without leading zeros".into())
    }

    /// The id with this number; `None` for 0.
    pub fn of(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The id.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

// === impl ProgressId ===

impl ProgressId {
    /// The length limit of an id, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Parses an id from a user. White space around it is never part of the id: it comes from a shell or a text
    /// file, and the upstream would not know the id.
    ///
    /// # Errors
    /// What is wrong with the id, to follow it in a message.
    pub fn parse(id: &str) -> Result<Self, String> {
        if has_white_space_around(id) { Err(WHITE_SPACE.into()) } else { Self::restore(id) }
    }

    /// Restores a stored id, which an earlier version may have accepted with white space around it.
    ///
    /// # Errors
    /// What is wrong with the id, to follow it in a message.
    pub fn restore(id: &str) -> Result<Self, String> {
        match id.len() {
            0 => Err("is empty: use the id that starting the toggle returned".into()),
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
    /// What is wrong with the value, to follow it in a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "enabled" => Ok(Self::Enabled),
            "disabled" => Ok(Self::Disabled),
            _ => Err("is neither `enabled` nor `disabled`".into()),
        }
    }

    /// The value as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }

    /// The state of mocks that are on or off.
    pub fn of_mocks(enabled: bool) -> Self {
        if enabled { Self::Enabled } else { Self::Disabled }
    }

    /// Whether the answer `mock_enabled` is the expected state. Null never is.
    pub fn is_met_by(self, mock_enabled: Option<bool>) -> bool {
        mock_enabled == Some(self == Self::Enabled)
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

/// A map with names as keys can be searched with a plain string.
impl std::borrow::Borrow<str> for WatchName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_other_characters_are_refused() {
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
    fn white_space_around_a_progress_id_or_a_name_is_named_in_the_error() {
        for id in [" p", "p ", "p\n", "\tp", "p\u{a0}", " "] {
            assert!(ProgressId::parse(id).unwrap_err().contains("white space"), "{id:?}");
            assert!(WatchName::parse(id).unwrap_err().contains("white space"), "{id:?}");
        }
        assert!(ProgressId::parse("a b").is_ok());
    }

    #[test]
    fn stored_progress_ids_are_restored_unchanged() {
        assert_eq!(ProgressId::restore(" p\n").unwrap().as_str(), " p\n");
        assert!(ProgressId::restore("").is_err() && ProgressId::restore(&"x".repeat(257)).is_err());
    }

    #[test]
    fn progress_ids_are_any_1_to_256_bytes() {
        assert!(ProgressId::parse(&"é".repeat(128)).is_ok());
        assert!(ProgressId::parse("").is_err());
        assert!(ProgressId::parse(&"x".repeat(257)).is_err());
    }
}
