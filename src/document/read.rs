//! Reading a text as a document: parsed, validated, and all of its problems with their places.

use std::path::Path;

use figment::Figment;
use figment::value::Value;
use zeroize::Zeroize;

use super::position::locate;
use super::problem::{Problem, Problems};
use super::section::{Node, Reading};
use super::yaml::{Parsed, SyntaxFault};
use crate::input_file;

/// The text that these bytes are.
pub(crate) fn text_of<'t>(origin: &Path, bytes: &'t [u8]) -> Result<&'t str, Problems> {
    str::from_utf8(bytes).map_err(|_| Problems(vec![problem(origin, String::new(), "is not UTF-8 text".into())]))
}

/// What `validate` makes of the text of a file that was parsed, if nothing is wrong with it.
pub(crate) fn validated<T>(
    file: &Path,
    text: &str,
    parsed: Result<Parsed, SyntaxFault>,
    validate: impl FnOnce(Node<'_>) -> T,
) -> Result<T, Problems> {
    let origin = file.display().to_string();
    validated_text(file, parsed, |fault| fault.of_file(&origin), validate).map_err(|Problems(mut problems)| {
        locate(text, &origin, &mut problems);
        Problems(problems)
    })
}

/// As [`validated`], of a text whose faults become problems by `problem_of`.
pub(crate) fn validated_text<T>(
    origin: &Path,
    parsed: Result<Parsed, SyntaxFault>,
    problem_of: impl Fn(SyntaxFault) -> Problem,
    validate: impl FnOnce(Node<'_>) -> T,
) -> Result<T, Problems> {
    let (mut tree, faults) = parsed.map_err(|fault| Problems(vec![problem_of(fault)]))?;
    let mut problems: Vec<_> = faults.into_iter().map(problem_of).collect();
    let figment = Figment::new();
    let reading = Reading::new(&figment, origin);
    let read = validate(reading.root(&tree));
    problems.extend(reading.into_problems());
    wipe(&mut tree);
    if problems.is_empty() { Ok(read) } else { Err(Problems(problems)) }
}

fn problem(origin: &Path, path: String, what: String) -> Problem {
    Problem::new(origin.display().to_string(), path, what)
}

/// Wipes all text of a tree from memory: there may be keys in it.
fn wipe(tree: &mut Value) {
    match tree {
        Value::String(_, text) => text.zeroize(),
        Value::Dict(_, dict) => dict.values_mut().for_each(wipe),
        _ => {}
    }
}

/// The text of a key that holds `true` or `false`.
///
/// # Errors
/// What is wrong with any other text.
pub(crate) fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither `true` nor `false`"),
    }
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
