//! What is wrong with a configuration, and where.

use std::fmt;

/// One problem: the file or the variable, the path of the key, and what is wrong.
///
/// No value of a secret, and nothing that may hold one by mistake, is part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file's path or the variable's name.
    pub origin: String,
    /// Where in the file it is; `None` if it is in none, or nowhere in it.
    pub position: Option<Position>,
    /// The path of the key, like `watches[3].agent_id`; empty if the problem is not with a key.
    pub path: String,
    /// What is wrong and what would be right.
    pub what: String,
}

/// A line and a column in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters; in JSON that cannot be read, in bytes.
    pub column: usize,
}

/// Everything that is wrong with a configuration; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// The path of a key, as it grows while a tree is walked. It is written out only where there is a
/// problem, because nearly all keys have none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyPath<'p> {
    /// The whole tree.
    Root,
    /// What is at a key; that of a list's element is like `[0]`.
    Key(&'p KeyPath<'p>, &'p str),
    /// An element of a list.
    Index(&'p KeyPath<'p>, usize),
}

// === impl Problem ===

impl Problem {
    /// A problem whose position is not known.
    pub fn new(origin: impl Into<String>, path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { origin: origin.into(), position: None, path: path.into(), what: what.into() }
    }

    /// Whether both are the same problem, be it at another line than before.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.origin, &self.path, &self.what) == (&other.origin, &other.path, &other.what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        match self.path.as_str() {
            "" => write!(f, ": {}", self.what),
            path => write!(f, ": {path}: {}", self.what),
        }
    }
}

impl Problems {
    /// Each as a line of its own.
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Both, or the problems of either.
    ///
    /// # Errors
    /// If there are any.
    pub fn of_both<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => Err(Self([one.0, other.0].concat())),
            (Err(problems), Ok(_)) | (Ok(_), Err(problems)) => Err(problems),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join("\n"))
    }
}

impl std::error::Error for Problems {}

// === impl KeyPath ===

impl KeyPath<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Root => true,
            Self::Key(above, key) => key.is_empty() && above.is_empty(),
            Self::Index(..) => false,
        }
    }
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(above, key) => {
                let dot = if above.is_empty() || key.starts_with('[') { "" } else { "." };
                write!(f, "{above}{dot}{}", show(key))
            }
            Self::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// Text that a user wrote, fit for one line of an error: short, and without control characters.
pub(crate) fn show(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
