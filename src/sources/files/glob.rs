//! The globs of watch files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use crate::input_file;

/// A glob as it was configured, and what it matches. A path without wildcards is that of one file.
///
/// `*`, `?` and `[…]` match within a name, `**` matches any number of folders. None of them matches a dot at the start
/// of a name, so that neither files that are being written nor the folders that Kubernetes swaps are read. Links are
/// followed. Below `**`, a folder that can be reached in several ways is read only under the first of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchGlob {
    configured: Arc<str>,
    /// The folder that the glob starts at: its leading names without wildcards, except for the name of the file. It
    /// has to exist.
    pub(super) root: PathBuf,
    /// The parts of the path below it. There is at least one, and the last one is not `Below`.
    pub(super) parts: Vec<PatternPart>,
}

/// A part of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PatternPart {
    /// Matches this name.
    Name(Box<str>),
    /// Matches names with wildcards.
    Like(Pattern),
    /// `**`: matches any number of folders.
    Below,
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

// === impl WatchGlob ===

impl WatchGlob {
    /// Parses a glob. A relative one starts at the folder `base`, whose path is taken literally, or at the working
    /// directory.
    ///
    /// # Errors
    /// What is wrong with the glob, as a sentence for the user.
    pub fn parse(configured: &str, base: Option<&Path>) -> Result<Self, String> {
        if configured.is_empty() {
            return Err("is empty: the path of a file, or a glob like /etc/watches/*.yaml, is needed".into());
        }
        input_file::plain_path(configured)?;
        if matches!(configured.rsplit('/').next(), None | Some("" | "." | ".." | "**")) {
            return Err("is for folders: a glob for files ends like /*.yaml, or **/*.yaml with those below".into());
        }
        let alternatives = configured.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        if alternatives.is_some_and(|(inner, _)| inner.contains(',')) {
            return Err("has alternatives in braces, which are not known here: list a glob for each".into());
        }
        let mut parts = Vec::new();
        for name in configured.split('/').filter(|name| !matches!(*name, "" | ".")) {
            let part = PatternPart::parse(name)?;
            // Several `**` in a row match what one does.
            if part != PatternPart::Below || parts.last() != Some(&PatternPart::Below) {
                parts.push(part);
            }
        }
        let mut root =
            if configured.starts_with('/') { Path::new("/") } else { base.unwrap_or(Path::new("")) }.to_owned();
        let last = parts.len().saturating_sub(1);
        let leading = parts.iter().take(last).take_while(|part| matches!(part, PatternPart::Name(_))).count();
        for part in parts.drain(..leading) {
            if let PatternPart::Name(name) = part {
                root.push(&*name);
            }
        }
        Ok(Self { configured: configured.into(), root, parts })
    }

    /// The glob as it was configured.
    pub fn configured(&self) -> &str {
        &self.configured
    }

    /// As [`WatchGlob::configured`], sharing its memory.
    pub(in crate::sources) fn shared_name(&self) -> Arc<str> {
        self.configured.clone()
    }

    /// Whether the glob matches this path.
    pub fn covers(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.root) else { return false };
        let names: Vec<_> = rest.iter().map(|name| name.to_string_lossy()).collect();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        covers(&self.parts, &names)
    }
}

fn covers(parts: &[PatternPart], names: &[&str]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (Some((PatternPart::Below, rest)), name) => {
            covers(rest, names) || name.is_some_and(|(name, more)| !name.starts_with('.') && covers(parts, more))
        }
        (Some((part, rest)), Some((name, more))) => part.matches(name) && covers(rest, more),
        (None, None) => true,
        _ => false,
    }
}

// === impl PatternPart ===

impl PatternPart {
    fn parse(name: &str) -> Result<Self, String> {
        if name == "**" {
            return Ok(Self::Below);
        }
        if !name.contains(['*', '?', '[']) {
            return Ok(Self::Name(name.into()));
        }
        Pattern::new(name).map(Self::Like).map_err(|error| format!("is not a glob: {}", error.msg))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(this) => **this == *name,
            Self::Like(pattern) => pattern.matches_with(name, OPTIONS),
            Self::Below => !name.starts_with('.'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_that_cannot_match_files_are_refused() {
        for (glob, expected) in [
            ("", "is empty"),
            ("dir/", "is for folders"),
            ("/", "is for folders"),
            (".", "is for folders"),
            ("dir/..", "is for folders"),
            ("dir/**", "is for folders"),
            ("dir/[a", "is not a glob: invalid range pattern"),
            ("dir/[a/b]", "is not a glob: invalid range pattern"),
            ("dir/a**", "is not a glob: recursive wildcards must form a single path component"),
            ("dir/***/a", "is not a glob: wildcards are either regular `*` or recursive `**`"),
            ("dir/*.{yaml,json}", "has alternatives in braces"),
        ] {
            let what = WatchGlob::parse(glob, None).unwrap_err();
            assert!(what.starts_with(expected), "{glob}: {what}");
        }
    }
}
