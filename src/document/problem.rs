//! What is wrong with a document, and where.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// One problem: the file or the variable, the path of the key, and what is wrong.
///
/// It contains no secret, and no text that may be one by mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The path of the file or the name of the variable.
    pub origin: String,
    /// The position in the file, where it is known.
    pub position: Option<Position>,
    /// The path of the key, like `watches[3].agent_id`; empty if the problem is not with a key.
    pub path: String,
    /// What is wrong, and how to fix it.
    pub what: String,
}

/// A line and a column in a text, both counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// Everything that is wrong with a document; at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// The text that a document is read from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DocumentSource<'a> {
    /// A file. Its problems have positions.
    File(&'a Path),
    /// Any other text, by its name: a variable, or the body of a request. Most are short, so only the position of
    /// a syntax error is given, as part of its message.
    Text(&'a str),
}

/// The path of a key. It grows while a tree is walked, and is written out only where there is a problem, because
/// nearly all keys have none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyPath<'p> {
    /// The whole document.
    Root,
    /// A value of a map.
    Key(&'p KeyPath<'p>, &'p str),
    /// An element of a list.
    Index(&'p KeyPath<'p>, usize),
}

// === impl Problem ===

impl Problem {
    /// A problem without a position.
    pub fn new(origin: impl Into<String>, path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { origin: origin.into(), position: None, path: path.into(), what: what.into() }
    }

    /// Whether both are the same problem, even if it has moved to another line.
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

// === impl Problems ===

impl Problems {
    /// The problems as text, one line each.
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Both values, or the problems of both.
    ///
    /// # Errors
    /// If either has problems.
    pub fn of_both<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => Err(Self([one.0, other.0].concat())),
            (Err(problems), Ok(_)) | (Ok(_), Err(problems)) => Err(problems),
        }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join("\n"))
    }
}

impl std::error::Error for Problems {}

// === impl DocumentSource ===

impl<'a> DocumentSource<'a> {
    /// The name that its problems begin with.
    pub(crate) fn name(self) -> Cow<'a, str> {
        match self {
            Self::File(path) => path.to_string_lossy(),
            Self::Text(name) => name.into(),
        }
    }

    /// A problem with the syntax of the text.
    pub(super) fn syntax_problem(self, position: Position, path: impl Into<String>, what: &str) -> Problem {
        let (path, Position { line, column }) = (path.into(), position);
        match self {
            Self::File(_) => Problem { position: Some(position), ..Problem::new(self.name(), path, what) },
            Self::Text(name) if path.is_empty() => {
                Problem::new(name, path, format!("line {line}, column {column}: {what}"))
            }
            Self::Text(name) => Problem::new(name, path, format!("{what} (line {line}, column {column})")),
        }
    }

    /// The problem of a key that is set twice.
    pub(super) fn repeated_key(self, position: Position, path: &KeyPath<'_>) -> Problem {
        self.syntax_problem(position, path.to_string(), "is given a second time: keep one of them")
    }
}

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
                let dot = if above.is_empty() { "" } else { "." };
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
