//! Finding the files that a glob matches.
//!
//! The `glob` crate only matches names. Its own walk panics at a file name that is not UTF-8 while hidden files are left
//! out, finds nothing below a hidden folder whose name has to be escaped, follows links in circles, and cannot tell a
//! missing folder from an empty one.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::glob::{PatternPart, WatchGlob};
use crate::document::Problem;

/// A walk through the folders that a glob leads to, and what it found.
pub(super) struct GlobWalk<'g> {
    pub(super) glob: &'g WatchGlob,
    /// The matching paths that are not folders, nearly in order.
    pub(super) files: Vec<PathBuf>,
    /// Whether there are more files or folders than the limit, so that the walk was ended.
    pub(super) is_over_limit: bool,
    /// The other reasons why files may be missing.
    problems: Vec<Problem>,
    /// The most files that are found, and the most folders that are entered.
    limit: usize,
    /// How many folders were entered.
    folders: usize,
    /// The folders to enter, and the index of the part that the names in them have to match; the last one is next.
    pending: Vec<(PathBuf, usize)>,
    /// The folders below a `**` that were entered, by device, inode and part.
    entered: HashSet<(u64, u64, usize)>,
}

// === impl GlobWalk ===

impl<'g> GlobWalk<'g> {
    /// Finds all files that match. Ends early where there are more files than `limit`, or more folders to enter.
    /// Blocks.
    pub(super) fn run(glob: &'g WatchGlob, limit: usize) -> Self {
        let mut walk = Self {
            glob,
            files: Vec::new(),
            is_over_limit: false,
            problems: Vec::new(),
            limit,
            folders: 0,
            pending: vec![(glob.root.clone(), 0)],
            entered: HashSet::new(),
        };
        if walk.root_exists() {
            while let Some((folder, part)) = walk.pending.pop()
                && !walk.is_over_limit
            {
                walk.enter(folder, part);
            }
            // If it went away meanwhile, files are missing that nobody removed.
            walk.root_exists();
        }
        walk
    }

    /// Whether there may be files that it did not find.
    pub(super) fn has_failed(&self) -> bool {
        self.is_over_limit || !self.problems.is_empty()
    }

    /// Why there may be files that it did not find.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let Self { glob, mut problems, limit, .. } = self;
        if self.is_over_limit {
            let what = format!("comes to more than {limit} files, those of other globs included, or folders");
            problems.push(Problem::new(glob.configured(), "", what));
        }
        problems
    }

    fn root_exists(&mut self) -> bool {
        let root = &self.glob.root;
        match fs::metadata(or_here(root)) {
            Ok(metadata) if metadata.is_dir() => return true,
            Ok(_) => self.problem(root, "is not a folder".into()),
            Err(error) => self.problem(root, format!("cannot be read: {error}")),
        }
        false
    }

    /// Looks in a folder for names that match the part with this index.
    fn enter(&mut self, folder: PathBuf, index: usize) {
        self.folders += 1;
        if self.folders > self.limit {
            self.is_over_limit = true;
        }
        let Some(part) = self.glob.parts.get(index) else { return };
        let is_last = index + 1 == self.glob.parts.len();
        match part {
            PatternPart::Name(name) if is_last => self.add_if_there(folder.join(&**name)),
            PatternPart::Name(name) => self.pending.push((folder.join(&**name), index + 1)),
            PatternPart::Like(_) if is_last => {
                let files = self.list(&folder, part).into_iter().filter(|(_, kind)| !kind.is_dir());
                self.files.extend(files.map(|(path, _)| path));
                self.is_over_limit |= self.files.len() > self.limit;
            }
            PatternPart::Like(_) => self.enter_all(&folder, part, index + 1),
            PatternPart::Below if self.is_new(&folder, index) => {
                self.enter_all(&folder, part, index);
                self.pending.push((folder, index + 1));
            }
            PatternPart::Below => {}
        }
    }

    /// Makes the matching folders in `folder` the next ones to enter.
    fn enter_all(&mut self, folder: &Path, part: &PatternPart, next: usize) {
        for (path, kind) in self.list(folder, part).into_iter().rev() {
            if kind.is_dir() || kind.is_symlink() && self.is_link_to_folder(&path) {
                self.pending.push((path, next));
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
                // A link to nothing or to itself does not lead to a folder.
                false
            }
        }
    }

    /// Whether a folder is entered for the first time below a `**`.
    fn is_new(&mut self, folder: &Path, index: usize) -> bool {
        // A folder without an identity cannot be listed either, which is reported there.
        fs::metadata(or_here(folder)).map_or(true, |m| self.entered.insert((m.dev(), m.ino(), index)))
    }

    /// Adds the path of a file that a glob names without wildcards, if the file exists.
    fn add_if_there(&mut self, path: PathBuf) {
        match fs::symlink_metadata(&path) {
            Ok(_) if self.glob.parts.len() == 1 && path.is_dir() => {
                self.problem(&path, "is a folder: a glob for the files in it ends like /*.yaml".into());
            }
            Ok(_) => {
                self.files.push(path);
                self.is_over_limit |= self.files.len() > self.limit;
            }
            Err(error) if is_absence(&error) => {}
            Err(error) => self.problem(&path, format!("cannot be read: {error}")),
        }
    }

    /// The matching entries of a folder, sorted by name.
    fn list(&mut self, folder: &Path, part: &PatternPart) -> Vec<(PathBuf, FileType)> {
        let mut listed = Vec::new();
        if let Err(error) = list(folder, part, self.limit, &mut listed)
            // A folder that was removed since its parent was listed has nothing to list.
            && (!is_absence(&error) || *folder == *self.glob.root)
        {
            self.problem(folder, format!("cannot be listed: {error}"));
        }
        self.is_over_limit |= listed.len() > self.limit;
        // Names are cheaper to compare than paths.
        listed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        listed.into_iter().map(|(name, kind)| (folder.join(name), kind)).collect()
    }

    fn problem(&mut self, at: &Path, what: String) {
        let problem = Problem::new(or_here(at).display().to_string(), "", what);
        self.problems.push(problem);
    }
}

/// Lists the matching entries of a folder, and ends with the first one over `limit`.
fn list(folder: &Path, part: &PatternPart, limit: usize, listed: &mut Vec<(OsString, FileType)>) -> io::Result<()> {
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
        if listed.len() > limit {
            break;
        }
    }
    Ok(())
}

/// Whether the error says that there is no such file.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The path as the system takes it: the empty path is the working directory.
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
        let walked = GlobWalk::run(&glob, 1000);
        assert_eq!((&walked.problems, walked.is_over_limit), (&vec![], false));
        let short = |path: &PathBuf| {
            assert!(glob.covers(path), "{glob:?} {path:?}");
            path.strip_prefix(dir).unwrap().display().to_string()
        };
        let mut found: Vec<_> = walked.files.iter().map(short).collect();
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
            assert!(GlobWalk::run(&glob, 2).is_over_limit && !GlobWalk::run(&glob, 100).is_over_limit, "{glob:?}");
        }
    }

    #[test]
    fn a_single_path_that_is_a_folder_is_a_problem() {
        let dir = folder(&["watches/a"]);
        let glob = WatchGlob::parse("watches", Some(dir.path())).unwrap();
        let walked = GlobWalk::run(&glob, 10);
        assert!(walked.problems[0].what.starts_with("is a folder"), "{:?}", walked.problems);
    }

    #[test]
    fn a_relative_glob_starts_at_the_working_directory_where_there_is_no_base() {
        for glob in ["src/sources/*.rs", "./src/**/walk.rs", "Cargo.toml", "Cargo*"] {
            let parsed = WatchGlob::parse(glob, None).unwrap();
            let GlobWalk { files, problems, .. } = GlobWalk::run(&parsed, 1000);
            assert!(problems.is_empty() && !files.is_empty(), "{glob}: {problems:?}");
            assert!(files.iter().all(|path| path.is_relative() && !path.starts_with(".")), "{files:?}");
        }
    }

    proptest! {
        #[test]
        fn no_glob_makes_it_panic(glob in "([*?\\[\\]!a./{},-]|\\PC){0,20}", path in "[a./]{0,10}") {
            // Not at the root: that would be a walk over the whole machine.
            let glob = glob.trim_start_matches('/');
            if let Ok(glob) = WatchGlob::parse(glob, Some(Path::new("/proc/self/none"))) {
                GlobWalk::run(&glob, 10);
                glob.covers(Path::new(&path));
                glob.covers(&Path::new("/proc/self/none").join(&path));
            }
        }
    }
}
