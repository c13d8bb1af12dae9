//! Reading a text as a document: decoded, parsed and validated.

use super::problem::{DocumentSource, Problem, Problems};
use super::section::{Node, Validation};
use super::yaml::Parsed;
use crate::input_file;

/// Decodes a text.
///
/// # Errors
/// If it is not UTF-8.
pub(crate) fn text_of<'t>(source: DocumentSource<'_>, bytes: &'t [u8]) -> Result<&'t str, Problem> {
    str::from_utf8(bytes).map_err(|_| Problem::new(source.name(), "", "is not UTF-8 text"))
}

/// Validates a document that was parsed, and wipes it from memory.
///
/// # Errors
/// All problems: those of the syntax, and those that `validate` noted.
pub(crate) fn validated<T>(
    source: DocumentSource<'_>,
    parsed: Result<Parsed, Problem>,
    validate: impl FnOnce(Node<'_>) -> T,
) -> Result<T, Problems> {
    let (mut tree, mut problems) = parsed?;
    let validation = Validation::new(source, &[]);
    let valid = validate(validation.root(&tree));
    problems.extend(validation.into_problems());
    tree.wipe();
    if problems.is_empty() { Ok(valid) } else { Err(Problems(problems)) }
}

/// The value of a key that holds `true` or `false`.
///
/// # Errors
/// If the text is anything else.
pub(crate) fn switch(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "is neither `true` nor `false`")
}

/// The path of a file that a key names.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn not_empty_path(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("is empty: the path of a file is needed");
    }
    input_file::plain_path(text).map(str::to_owned)
}
