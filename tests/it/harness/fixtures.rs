//! Configurations in `tests/fixtures`, which say in comments what must be said of them.

use std::fs;
use std::path::{Path, PathBuf};

/// What stands for a key in the fixtures; it must never show.
const FIXTURE_KEY: &str = "sk-fixture";

/// The fixtures of a folder whose names end so.
pub(crate) fn fixtures(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(ending));
    paths.sort();
    assert!(!paths.is_empty(), "there is no {ending}");
    paths
}

/// The comments of a fixture that start so.
pub(crate) fn comments(path: &Path, start: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| line.strip_prefix(start)).map(|rest| rest.trim().to_owned()).collect()
}

/// The lines on standard error about the configuration at `path`, each of which must start with that, perhaps
/// with line and column.
pub(crate) fn lines(path: &Path, errors: &[u8]) -> Vec<String> {
    let text = String::from_utf8(errors.to_vec()).unwrap();
    assert!(!text.contains(FIXTURE_KEY), "a secret shows: {text}");
    let strip = |line: &str| {
        let line = line.strip_prefix("warning: ").unwrap_or(line);
        let rest = line.strip_prefix(&format!("{}:", path.display())).unwrap_or_else(|| panic!("no path: {line}"));
        let (place, what) = rest.split_once(' ').unwrap();
        assert!(place.bytes().all(|b| b.is_ascii_digit() || b == b':'), "no place: {line}");
        what.to_owned()
    };
    text.lines().map(strip).collect()
}
