//! Globs, and the files that they match.
//!
//! Names are matched by the `glob` crate, but the folders are walked here. Its own walk panics at a
//! file name that is not UTF-8 while hidden files are left out, finds nothing below a hidden folder
//! whose name has to be escaped, follows links in circles, and cannot tell a folder that is missing
//! from one that is empty.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use crate::document::Problem;
use crate::input_file;

/// A glob as it was configured, and what it matches. A path without wildcards is that of one file.
///
/// `*`, `?` and `[…]` match within a name, `**` matches any number of folders. None of them matches
/// a dot at the start of a name, so that neither files that are being written nor the folders that
/// Kubernetes swaps are read. Links are followed; below `**`, a folder that can be reached in
/// several ways is read under its first name only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchGlob {
    configured: Arc<str>,
    /// The longest leading part without wildcards, the name of the file not included. It has to be
    /// there.
    root: PathBuf,
    /// What has to follow: at least one, and a name or a pattern as the last.
    parts: Vec<PatternPart>,
}

/// What matches one name of a path, or any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternPart {
    /// This name.
    Name(Box<str>),
    /// Every name like this.
    Like(Pattern),
    /// Any number of folders.
    Below,
}

/// What one walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// All that matches and is no folder, nearly in order.
    pub(super) found: Vec<PathBuf>,
    /// Why it may not be all.
    pub(super) problems: Vec<Problem>,
    /// Whether there was more than was asked for, so that the walk was given up.
    pub(super) over: bool,
}

/// One walk under way.
struct FolderWalk<'g> {
    glob: &'g WatchGlob,
    /// The most files that are looked for, and the most folders that are entered.
    most: usize,
    folders: usize,
    /// Folders that are to be entered, with the part that their names have to match; last one first.
    todo: Vec<(PathBuf, usize)>,
    /// Folders below a `**` that were entered, by device, inode and part.
    entered: HashSet<(u64, u64, usize)>,
    walked: Walked,
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

// === impl WatchGlob ===

impl WatchGlob {
    /// Takes a glob. If it is relative it starts at the folder `base`, in whose path nothing is a
    /// wildcard, or at the working directory.
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
            // Several in a row are as good as one.
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

    /// As [`WatchGlob::configured`], to be shared.
    pub(super) fn shared_name(&self) -> Arc<str> {
        self.configured.clone()
    }

    /// Whether `path` is one that a walk might find.
    pub fn covers(&self, path: &Path) -> bool {
        let Ok(rest) = path.strip_prefix(&self.root) else { return false };
        let names: Vec<_> = rest.iter().map(|name| name.to_string_lossy()).collect();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        covers(&self.parts, &names)
    }

    /// Looks for all files that match; gives up where there are more than `most`, or that many
    /// folders to look into. Blocks.
    pub(super) fn walk(&self, most: usize) -> Walked {
        let mut walk = FolderWalk {
            glob: self,
            most,
            folders: 0,
            todo: vec![(self.root.clone(), 0)],
            entered: HashSet::new(),
            walked: Walked::default(),
        };
        if walk.root_is_there() {
            while let Some((folder, part)) = walk.todo.pop()
                && !walk.walked.over
            {
                walk.enter(folder, part);
            }
            // If it went away meanwhile, files are missing that nobody removed.
            walk.root_is_there();
        }
        walk.walked
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

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(this) => **this == *name,
            Self::Like(pattern) => pattern.matches_with(name, OPTIONS),
            Self::Below => !name.starts_with('.'),
        }
    }
}

// === impl FolderWalk ===

impl FolderWalk<'_> {
    fn root_is_there(&mut self) -> bool {
        let root = &self.glob.root;
        match fs::metadata(or_here(root)) {
            Ok(metadata) if metadata.is_dir() => return true,
            Ok(_) => self.problem(root, "is not a folder".into()),
            Err(error) => self.problem(root, format!("cannot be read: {error}")),
        }
        false
    }

    /// Looks for what matches the given part in a folder.
    fn enter(&mut self, folder: PathBuf, index: usize) {
        self.folders += 1;
        if self.folders > self.most {
            self.walked.over = true;
        }
        let Some(part) = self.glob.parts.get(index) else { return };
        let is_last = index + 1 == self.glob.parts.len();
        match part {
            PatternPart::Name(name) if is_last => self.offer(folder.join(&**name)),
            PatternPart::Name(name) => self.todo.push((folder.join(&**name), index + 1)),
            PatternPart::Like(_) if is_last => {
                let files = self.list(&folder, part).into_iter().filter(|(_, kind)| !kind.is_dir());
                self.walked.found.extend(files.map(|(path, _)| path));
                self.walked.over |= self.walked.found.len() > self.most;
            }
            PatternPart::Like(_) => self.enter_all(&folder, part, index + 1),
            PatternPart::Below if self.is_new(&folder, index) => {
                self.enter_all(&folder, part, index);
                self.todo.push((folder, index + 1));
            }
            PatternPart::Below => {}
        }
    }

    /// Plans to enter the folders in `folder` that match.
    fn enter_all(&mut self, folder: &Path, part: &PatternPart, next: usize) {
        for (path, kind) in self.list(folder, part).into_iter().rev() {
            if kind.is_dir() || kind.is_symlink() && self.is_link_to_folder(&path) {
                self.todo.push((path, next));
            }
        }
    }

    fn is_link_to_folder(&mut self, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    self.problem(path, format!("cannot be read: {error}"));
                }
                // A link to nothing or to itself is no folder.
                false
            }
        }
    }

    /// Whether a folder is entered for the first time below a `**`.
    fn is_new(&mut self, folder: &Path, index: usize) -> bool {
        // What cannot be asked for its identity cannot be listed, and is a problem there.
        fs::metadata(or_here(folder)).map_or(true, |m| self.entered.insert((m.dev(), m.ino(), index)))
    }

    /// A path that matches, if there is something.
    fn offer(&mut self, path: PathBuf) {
        match fs::symlink_metadata(&path) {
            Ok(_) if self.glob.parts.len() == 1 && path.is_dir() => {
                self.problem(&path, "is a folder: a glob for the files in it ends like /*.yaml".into());
            }
            Ok(_) => {
                self.walked.found.push(path);
                self.walked.over |= self.walked.found.len() > self.most;
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => self.problem(&path, format!("cannot be read: {error}")),
        }
    }

    /// What is in a folder and matches, by name.
    fn list(&mut self, folder: &Path, part: &PatternPart) -> Vec<(PathBuf, FileType)> {
        let mut listed = Vec::new();
        if let Err(error) = list(folder, part, self.most, &mut listed)
            // One that went away since its parent was listed, or is none, has nothing to list.
            && (!is_absence(&error) || *folder == *self.glob.root)
        {
            self.problem(folder, format!("cannot be listed: {error}"));
        }
        self.walked.over |= listed.len() > self.most;
        // Names are cheaper to compare than paths.
        listed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        listed.into_iter().map(|(name, kind)| (folder.join(name), kind)).collect()
    }

    fn problem(&mut self, at: &Path, what: String) {
        let problem = Problem::new(or_here(at).display().to_string(), "", what);
        self.walked.problems.push(problem);
    }
}

/// Lists what matches, and no more than one beyond `most`.
fn list(folder: &Path, part: &PatternPart, most: usize, listed: &mut Vec<(OsString, FileType)>) -> io::Result<()> {
    for entry in fs::read_dir(or_here(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        if !part.matches(&name.to_string_lossy()) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) => listed.push((name, kind)),
            Err(error) if is_absence(&error) => {}
            Err(error) => return Err(error),
        }
        if listed.len() > most {
            break;
        }
    }
    Ok(())
}

pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The path as the system takes it: the empty one is the working directory.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn folder(files: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }

    /// What a glob finds, with paths within the folder; every path is also one that it covers.
    fn found(glob: &str, dir: &Path) -> String {
        let glob = WatchGlob::parse(glob, Some(dir)).unwrap();
        let walked = glob.walk(1000);
        assert_eq!((&walked.problems, walked.over), (&vec![], false));
        let short = |path: &PathBuf| {
            assert!(glob.covers(path), "{glob:?} {path:?}");
            path.strip_prefix(dir).unwrap().display().to_string()
        };
        let mut found: Vec<_> = walked.found.iter().map(short).collect();
        found.sort();
        found.join(" ")
    }

    #[test]
    fn wildcards_match_within_names_and_across_folders() {
        let dir = folder(&["a.yaml", "b.yml", "x/a.yaml", "x/y/a.yaml", "x/y/z/b.json", ".h/a.yaml", "x/.a.yaml"]);
        for (glob, expected) in [
            ("*.yaml", "a.yaml"),
            ("?.y*ml", "a.yaml b.yml"),
            ("[ab].*", "a.yaml b.yml"),
            ("[!a].*", "b.yml"),
            ("*/a.yaml", "x/a.yaml"),
            ("*/*/*.yaml", "x/y/a.yaml"),
            ("x/*/a.yaml", "x/y/a.yaml"),
            ("**/a.yaml", "a.yaml x/a.yaml x/y/a.yaml"),
            ("**/**/*.yaml", "a.yaml x/a.yaml x/y/a.yaml"),
            ("x/**/*", "x/a.yaml x/y/a.yaml x/y/z/b.json"),
            ("**/y/**/*", "x/y/a.yaml x/y/z/b.json"),
            ("**/z/../*.yaml", "x/y/z/../a.yaml"),
            (".h/*", ".h/a.yaml"),
            (".*/*.yaml", ".h/a.yaml"),
            ("x/.*.yaml", "x/.a.yaml"),
            ("a.yaml", "a.yaml"),
            ("x//y/./a.yaml", "x/y/a.yaml"),
            ("none.yaml", ""),
            ("none*/*", ""),
            ("*/none/a.yaml", ""),
            ("*/a.yaml/b", ""),
        ] {
            assert_eq!(found(glob, dir.path()), expected, "{glob}");
        }
    }

    #[test]
    fn nothing_in_the_path_of_the_base_is_a_wildcard() {
        let dir = folder(&["[a]*/.b?/f.yaml", "a/.b?/f.yaml"]);
        assert_eq!(found("*.yaml", &dir.path().join("[a]*/.b?")), "f.yaml");
        let absolute = dir.path().join("a/*/f.yaml").display().to_string();
        assert_eq!(WatchGlob::parse(&absolute, Some(Path::new("/x"))).unwrap().root, dir.path().join("a"));
    }

    #[test]
    fn links_are_followed_but_never_in_circles() {
        let dir = folder(&["a/f.yaml"]);
        for (target, name) in [(".", "here"), ("..", "a/up"), (".", "a/here"), ("a", "z"), ("f.yaml", "a/g.yaml")] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        assert_eq!(found("**/*.yaml", dir.path()), "a/f.yaml a/g.yaml");
        assert_eq!(found("z/*.yaml", dir.path()), "z/f.yaml z/g.yaml");
        assert_eq!(found("*/f.yaml", dir.path()), "a/f.yaml z/f.yaml");
    }

    #[test]
    fn a_walk_that_finds_too_much_is_given_up() {
        let dir = folder(&["a", "b", "c", "x/a", "x/y/a", "x/y/z/a"]);
        for glob in ["*", "**/a"] {
            let glob = WatchGlob::parse(glob, Some(dir.path())).unwrap();
            assert!(glob.walk(2).over && !glob.walk(100).over, "{glob:?}");
        }
    }

    #[test]
    fn a_single_path_that_is_a_folder_is_a_problem() {
        let dir = folder(&["watches/a"]);
        let walked = WatchGlob::parse("watches", Some(dir.path())).unwrap().walk(10);
        assert!(walked.problems[0].what.starts_with("is a folder"), "{:?}", walked.problems);
    }

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

    #[test]
    fn a_relative_glob_starts_at_the_working_directory_where_there_is_no_base() {
        for glob in ["src/sources/*.rs", "./src/**/files.rs", "Cargo.toml", "Cargo*"] {
            let walked = WatchGlob::parse(glob, None).unwrap().walk(1000);
            assert!(walked.problems.is_empty() && !walked.found.is_empty(), "{glob}: {walked:?}");
            assert!(walked.found.iter().all(|path| path.is_relative() && !path.starts_with(".")), "{walked:?}");
        }
    }

    proptest! {
        #[test]
        fn no_glob_makes_it_panic(glob in "([*?\\[\\]!a./{},-]|\\PC){0,20}", path in "[a./]{0,10}") {
            // Not at the root: that would be a walk over the whole machine.
            let glob = glob.trim_start_matches('/');
            if let Ok(glob) = WatchGlob::parse(glob, Some(Path::new("/proc/self/none"))) {
                glob.walk(10);
                glob.covers(Path::new(&path));
                glob.covers(&Path::new("/proc/self/none").join(&path));
            }
        }
    }
}
