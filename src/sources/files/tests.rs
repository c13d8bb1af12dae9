//! What scans of the watch files find.

use super::reading::{FileReading, read, read_if_changed};
use super::*;
use crate::input_file::InputError;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// A folder with watch files, and a source that looks at it.
struct Folder {
    dir: TempDir,
    files: WatchFiles,
}

impl Folder {
    fn new(globs: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = WatchFiles::new(Self::globs(&dir, globs), apis(&["default"]));
        Self { dir, files }
    }

    fn globs(dir: &TempDir, globs: &[&str]) -> Vec<WatchGlob> {
        globs.iter().map(|glob| WatchGlob::parse(glob, Some(dir.path())).unwrap()).collect()
    }

    fn reconfigure(&mut self, globs: &[&str], names: &[&str]) {
        self.files.reconfigure(Self::globs(&self.dir, globs), apis(names));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file with one watch, whose name is the text.
    fn write(&self, name: &str, watch: &str) {
        self.write_text(name, &format!("name: {watch}\nagent_id: 1\nprogress_id: p\n"));
    }

    fn write_text(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn scan(&mut self) -> FolderScan {
        self.scan_in(Duration::ZERO)
    }

    /// Scans with a clock that goes so much ahead.
    fn scan_in(&mut self, ahead: Duration) -> FolderScan {
        FolderScan { scan: self.files.scan_at(SystemTime::now() + ahead), root: self.dir.path().to_owned() }
    }
}

/// A scan, told with paths within the folder.
struct FolderScan {
    scan: FileScan,
    root: PathBuf,
}

impl FolderScan {
    /// `file: watch watch` of every file.
    fn watches(&self) -> Vec<String> {
        let watches =
            |read: &Definitions| read.watches.iter().map(|w| w.name.to_string()).collect::<Vec<_>>().join(" ");
        self.scan.files.iter().map(|(path, list)| format!("{}: {}", self.short(&shown(path)), watches(list))).collect()
    }

    fn up(&self) -> Vec<bool> {
        self.scan.glob_up.iter().map(|(_, up)| *up).collect()
    }

    fn events(&self) -> Vec<String> {
        let told = |events: &FileEvent| match events {
            FileEvent::FileFailed { path, problems } | FileEvent::GlobFailed { glob: path, problems } => {
                let problems: Vec<_> = problems.iter().map(|p| self.short(&p.to_string())).collect();
                format!("failed {}: {}", self.short(path), problems.join("; "))
            }
            FileEvent::FileRecovered { path } | FileEvent::GlobRecovered { glob: path } => {
                format!("mended {}", self.short(path))
            }
            FileEvent::FileChanged { path, watches, .. } => format!("changed {} {watches}", self.short(path)),
            FileEvent::FileRemoved { path } => format!("removed {}", self.short(path)),
        };
        self.scan.events.iter().map(told).collect()
    }

    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.root.display()), "").replace(&shown(&self.root), ".")
    }

    fn list(&self, name: &str) -> Arc<Definitions> {
        self.scan.files[&*self.root.join(name)].clone()
    }
}

const NOTHING: [&str; 0] = [];
const LATER: Duration = Duration::from_hours(1);

fn apis(names: &[&str]) -> BTreeSet<ApiName> {
    names.iter().map(|name| ApiName::parse(name).unwrap()).collect()
}

#[test]
fn files_are_added_changed_and_removed() {
    let mut folder = Folder::new(&["*.yaml"]);
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up(), seen.events()), (vec![], vec![true], vec![]));
    folder.write("b.yaml", "b");
    folder.write("a.yaml", "a");
    folder.write("other.yml", "x");
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["a.yaml: a", "b.yaml: b"]);
    assert_eq!(seen.events(), ["changed a.yaml 1", "changed b.yaml 1"]);
    let again = folder.scan();
    assert_eq!(again.events(), NOTHING);
    assert!(Arc::ptr_eq(&seen.list("a.yaml"), &again.list("a.yaml")));
    folder.write_text("a.yaml", "[{agent_id: 1, progress_id: p}, {agent_id: 2, progress_id: p}]");
    fs::remove_file(folder.path("b.yaml")).unwrap();
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["a.yaml: agent-1 agent-2"]);
    assert_eq!(seen.events(), ["removed b.yaml", "changed a.yaml 2"]);
}

#[test]
fn a_change_within_the_same_second_and_of_the_same_size_is_seen() {
    let mut folder = Folder::new(&["*.yaml"]);
    folder.write("f.yaml", "a");
    folder.scan();
    let modified = fs::metadata(folder.path("f.yaml")).unwrap().modified().unwrap();
    folder.write("f.yaml", "b");
    fs::File::options().write(true).open(folder.path("f.yaml")).unwrap().set_modified(modified).unwrap();
    assert_eq!(folder.scan().watches(), ["f.yaml: b"]);
}

#[test]
fn only_what_was_not_touched_for_a_while_is_not_read_again() {
    let mut folder = Folder::new(&["*.yaml"]);
    folder.write("f.yaml", "a");
    let modified = fs::metadata(folder.path("f.yaml")).unwrap().modified().unwrap();
    let reads = |folder: &mut Folder, ahead| folder.scan_in(ahead).scan.read;
    assert_eq!([reads(&mut folder, Duration::ZERO), reads(&mut folder, Duration::ZERO)], [1, 1], "it is new");
    assert_eq!([reads(&mut folder, LATER), reads(&mut folder, LATER)], [1, 0], "it is old");
    // Whoever sets the time of the content back cannot set that of the file back.
    folder.write("f.yaml", "b");
    fs::File::options().write(true).open(folder.path("f.yaml")).unwrap().set_modified(modified).unwrap();
    assert_eq!(folder.scan_in(LATER).watches(), ["f.yaml: b"]);
    assert_eq!(reads(&mut folder, LATER), 0);
    let ahead = SystemTime::now() + 2 * LATER;
    fs::File::options().write(true).open(folder.path("f.yaml")).unwrap().set_modified(ahead).unwrap();
    assert_eq!([reads(&mut folder, LATER), reads(&mut folder, LATER)], [1, 1], "it is from the future");
}

#[test]
fn watches_that_stay_when_their_file_changes_are_in_memory_once() {
    let mut folder = Folder::new(&["*.yaml"]);
    folder.write_text("f.yaml", "[{name: a, agent_id: 1, progress_id: p}, {name: b, agent_id: 1, progress_id: p}]");
    let before = folder.scan().list("f.yaml");
    folder.write_text("f.yaml", "[{name: b, agent_id: 1, progress_id: p}, {name: a, agent_id: 1, progress_id: q}]");
    let after = folder.scan().list("f.yaml");
    assert!(Arc::ptr_eq(&after.watches[0], &before.watches[1]));
    assert_eq!(after.watches[1].progress_id.as_str(), "q");
}

#[test]
fn content_that_says_the_same_is_no_news() {
    let mut folder = Folder::new(&["*.yaml"]);
    folder.write("f.yaml", "a");
    let before = folder.scan();
    folder.write_text("f.yaml", "# a comment\n{name: a, agent_id: 1, progress_id: p}\n");
    let after = folder.scan();
    assert_eq!(after.events(), NOTHING);
    assert!(Arc::ptr_eq(&before.list("f.yaml"), &after.list("f.yaml")));
}

#[test]
fn a_file_that_is_replaced_by_renaming_is_read_anew_and_hidden_ones_are_not() {
    let mut folder = Folder::new(&["*", "**/*.yaml"]);
    folder.write("f.yaml", "a");
    folder.write(".f.yaml.tmp", "b");
    folder.write(".hidden/g.yaml", "c");
    assert_eq!(folder.scan().watches(), ["f.yaml: a"]);
    folder.scan_in(LATER);
    fs::rename(folder.path(".f.yaml.tmp"), folder.path("f.yaml")).unwrap();
    let seen = folder.scan_in(LATER);
    assert_eq!((seen.watches(), seen.events()), (vec!["f.yaml: b".into()], vec!["changed f.yaml 1".into()]));
}

#[test]
fn config_maps_are_followed_as_kubernetes_swaps_them() {
    let mut folder = Folder::new(&["mount/*.yaml", "mount/**/*.yaml"]);
    folder.write("mount/..2026_01/f.yaml", "a");
    folder.write("mount/..2026_01/sub/g.yaml", "b");
    let link = |target: &str, name: &str| symlink(target, folder.path("mount").join(name)).unwrap();
    link("..2026_01", "..data");
    link("..data/f.yaml", "f.yaml");
    link("..data/sub", "sub");
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["mount/f.yaml: a", "mount/sub/g.yaml: b"]);
    assert_eq!(folder.scan_in(LATER).up(), [true, true]);
    folder.write("mount/..2026_02/f.yaml", "c");
    folder.write("mount/..2026_02/sub/g.yaml", "b");
    symlink("..2026_02", folder.path("mount/..data_tmp")).unwrap();
    fs::rename(folder.path("mount/..data_tmp"), folder.path("mount/..data")).unwrap();
    fs::remove_dir_all(folder.path("mount/..2026_01")).unwrap();
    let swapped = folder.scan_in(LATER);
    assert_eq!(swapped.watches(), ["mount/f.yaml: c", "mount/sub/g.yaml: b"]);
    assert_eq!(swapped.events(), ["changed mount/f.yaml 1"]);
    assert!(Arc::ptr_eq(&seen.list("mount/sub/g.yaml"), &swapped.list("mount/sub/g.yaml")));
}

#[test]
fn a_broken_file_keeps_its_last_good_watches_until_it_is_mended() {
    let mut folder = Folder::new(&["*.yaml", "a.yaml"]);
    folder.write("a.yaml", "a");
    folder.write("b.yaml", "b");
    folder.scan();
    folder.write_text("b.yaml", "agent_id: 0\nprogress_id: p\n");
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["a.yaml: a".into(), "b.yaml: b".into()], vec![false, true]));
    let [events] = &seen.events()[..] else { panic!("{:?}", seen.events()) };
    assert!(events.starts_with("failed b.yaml: b.yaml:1:1: agent_id: `0` is not an agent id"), "{events}");
    let again = folder.scan_in(LATER);
    assert_eq!((again.up(), again.events()), (vec![false, true], vec![]), "it is told once");
    let has_problems: Vec<_> = again.scan.problems.keys().map(|origin| again.short(origin)).collect();
    assert_eq!(has_problems, ["b.yaml"], "but each scan knows it");
    folder.write_text("b.yaml", "# still\nagent_id: 0\nprogress_id: p\n");
    assert_eq!(folder.scan_in(LATER).events(), NOTHING, "it is the same problem");
    folder.write_text("b.yaml", "name: b\nagent_id: 1\n");
    assert_eq!(folder.scan_in(LATER).events(), ["failed b.yaml: b.yaml: progress_id: is missing"]);
    folder.write("b.yaml", "b");
    let mended = folder.scan_in(LATER);
    assert_eq!((mended.up(), mended.events()), (vec![true, true], vec!["mended b.yaml".into()]));
    assert!(mended.scan.problems.is_empty());
    assert!(Arc::ptr_eq(&seen.list("b.yaml"), &mended.list("b.yaml")));
}

#[test]
fn a_file_that_never_was_good_has_no_watches() {
    let mut folder = Folder::new(&["*"]);
    folder.write("a.yaml", "a");
    folder.write_text("b.json", "{");
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["a.yaml: a".into()], vec![false]));
    fs::remove_file(folder.path("b.json")).unwrap();
    let seen = folder.scan();
    assert_eq!((seen.up(), seen.events()), (vec![true], vec!["removed b.json".into()]));
    folder.write_text("b.json", r#"[{"agent_id": 2, "progress_id": "p"}]"#);
    assert_eq!(folder.scan().watches(), ["a.yaml: a", "b.json: agent-2"]);
}

#[test]
fn yaml_and_json_single_entries_lists_and_empty_files_are_read() {
    let mut folder = Folder::new(&["*"]);
    folder.write_text("a.json", r#"{"agent_id": 1, "progress_id": "p"}"#);
    folder.write_text("b.json", r#"[{"agent_id": 2, "progress_id": "p"}, {"agent_id": 3, "progress_id": "p"}]"#);
    folder.write_text("c.yaml", "agent_id: 4\nprogress_id: p\n");
    folder.write_text("d.yaml", "- {agent_id: 5, progress_id: p}\n- {agent_id: 6, progress_id: p}\n");
    folder.write_text("e.yaml", "");
    let seen = folder.scan();
    let expected =
        ["a.json: agent-1", "b.json: agent-2 agent-3", "c.yaml: agent-4", "d.yaml: agent-5 agent-6", "e.yaml: "];
    assert_eq!((seen.watches(), seen.up()), (expected.map(String::from).to_vec(), vec![true]));
}

#[test]
fn a_name_twice_in_a_file_is_a_problem_and_in_two_files_is_not() {
    let mut folder = Folder::new(&["*"]);
    folder.write("a.yaml", "x");
    folder.write("b.yaml", "x");
    folder.write_text("c.yaml", "[{agent_id: 1, progress_id: p}, {agent_id: 1, progress_id: q}]");
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["a.yaml: x", "b.yaml: x"]);
    assert!(seen.events()[2].contains("[1]: the name `agent-1` is taken by [0]"), "{:?}", seen.events());
}

#[test]
fn a_folder_that_is_missing_is_a_failed_source_until_it_comes() {
    let mut folder = Folder::new(&["later/*.yaml", "later/one.yaml", "*.yaml"]);
    let seen = folder.scan();
    assert_eq!(seen.up(), [false, false, true]);
    let missing = "later: cannot be read: No such file or directory (os error 2)";
    assert_eq!(seen.events(), ["*.yaml", "one.yaml"].map(|glob| format!("failed later/{glob}: {missing}")));
    assert_eq!(folder.scan().events(), NOTHING);
    fs::create_dir(folder.path("later")).unwrap();
    let seen = folder.scan();
    assert_eq!(
        (seen.up(), seen.events()),
        (vec![true; 3], vec!["mended later/*.yaml".into(), "mended later/one.yaml".into()])
    );
    folder.write("later/one.yaml", "a");
    assert_eq!(folder.scan().watches(), ["later/one.yaml: a"]);
}

#[test]
fn files_of_a_folder_that_went_away_keep_their_watches() {
    let mut folder = Folder::new(&["dir/*.yaml", "**/*.json"]);
    folder.write("dir/f.yaml", "a");
    folder.write_text("dir/g.json", r#"{"agent_id": 2, "progress_id": "p"}"#);
    folder.scan();
    fs::rename(folder.path("dir"), folder.path(".away")).unwrap();
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["dir/f.yaml: a".into()], vec![false, true]));
    fs::write(folder.path("dir"), "").unwrap();
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["dir/f.yaml: a"]);
    assert_eq!(seen.events(), ["failed dir/*.yaml: dir: is not a folder"]);
    fs::remove_file(folder.path("dir")).unwrap();
    fs::create_dir(folder.path("dir")).unwrap();
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec![], vec![true, true]));
    assert_eq!(seen.events(), ["mended dir/*.yaml", "removed dir/f.yaml"]);
}

#[test]
fn a_file_counts_once_however_many_globs_match_it() {
    let mut folder = Folder::new(&["*.yaml", "./a.*", "a.yaml", "**/a.yaml"]);
    folder.write("a.yaml", "a");
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.scan.read), (vec!["a.yaml: a".into()], 1));
    folder.write_text("a.yaml", "x");
    let seen = folder.scan();
    assert_eq!((seen.up(), seen.events().len()), (vec![false; 4], 1));
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let mut folder = Folder::new(&["*"]);
    folder.write("a", "a");
    fs::create_dir(folder.path("folder")).unwrap();
    symlink("folder", folder.path("link-to-folder")).unwrap();
    assert_eq!(folder.scan().up(), [true], "folders are passed over");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap();
    assert!(made.success());
    symlink("/dev/zero", folder.path("zero")).unwrap();
    symlink("nothing", folder.path("nowhere")).unwrap();
    symlink("circle", folder.path("circle")).unwrap();
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["a: a".into()], vec![false]));
    let irregular = |name| format!("failed {name}: {name}: is not a regular file");
    let events = seen.events();
    assert!(events[0].starts_with("failed circle: circle: cannot be read: "), "{events:?}");
    assert_eq!(events[1], "failed nowhere: nowhere: is a link to nothing");
    assert_eq!(events[2..], ["pipe", "socket", "zero"].map(irregular));
}

#[test]
fn a_file_that_becomes_unreadable_keeps_its_watches() {
    let mut folder = Folder::new(&["*"]);
    folder.write("f", "a");
    folder.scan_in(LATER);
    fs::rename(folder.path("f"), folder.path(".f")).unwrap();
    symlink("nothing", folder.path("f")).unwrap();
    let seen = folder.scan_in(LATER);
    assert_eq!((seen.watches(), seen.up()), (vec!["f: a".into()], vec![false]));
    fs::rename(folder.path(".f"), folder.path("f")).unwrap();
    let seen = folder.scan_in(LATER);
    assert_eq!((seen.watches(), seen.up(), seen.events()), (vec!["f: a".into()], vec![true], vec!["mended f".into()]));
}

#[test]
fn a_file_that_vanishes_between_finding_and_reading_is_gone() {
    let folder = Folder::new(&[]);
    assert!(matches!(read_if_changed(&folder.path("f"), None, SystemTime::now()), FileReading::Gone));
    let error = read(&folder.path("f"), SystemTime::now()).err().unwrap();
    assert!(matches!(FileReading::failed(&folder.path("f"), &error), FileReading::Gone));
}

#[test]
fn a_pipe_that_takes_the_place_of_a_file_is_not_waited_for() {
    let folder = Folder::new(&[]);
    assert!(std::process::Command::new("mkfifo").arg(folder.path("f")).status().unwrap().success());
    assert!(matches!(read(&folder.path("f"), SystemTime::now()), Err(InputError::NotRegular)));
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let mut folder = Folder::new(&["*"]);
    folder.write("f.yaml", "a");
    folder.scan();
    let file = fs::File::options().write(true).open(folder.path("f.yaml")).unwrap();
    file.set_len(WatchFiles::MAX_FILE_BYTES + 1).unwrap();
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["f.yaml: a".into()], vec![false]));
    assert_eq!(seen.events(), ["failed f.yaml: f.yaml: is larger than 64 MiB"]);
}

#[test]
fn more_files_than_are_taken_fail_their_glob_and_hinder_no_other() {
    let mut folder = Folder::new(&["many/*", "few/*"]);
    folder.files.max_files = 3;
    for name in ["few/a", "many/b", "many/c"] {
        folder.write(name, &name[name.len() - 1..]);
    }
    assert_eq!(folder.scan().watches(), ["few/a: a", "many/b: b", "many/c: c"]);
    folder.write("many/a", "d");
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["few/a: a", "many/b: b", "many/c: c"]);
    assert_eq!(seen.up(), [false, true]);
    let over = "failed many/*: many/*: comes to more than 3 files, those of other globs included, or folders";
    assert_eq!(seen.events(), [over]);
    folder.write("many/d", "e");
    let seen = folder.scan();
    assert_eq!((seen.watches().len(), seen.up(), seen.events()), (3, vec![false, true], vec![]));
    for name in ["many/b", "many/d"] {
        fs::remove_file(folder.path(name)).unwrap();
    }
    let seen = folder.scan();
    assert_eq!(seen.watches(), ["few/a: a", "many/a: d", "many/c: c"]);
    assert_eq!(seen.events(), ["mended many/*", "removed many/b", "changed many/a 1"]);
}

#[test]
fn of_very_many_problems_the_first_are_told() {
    let mut folder = Folder::new(&["*"]);
    folder.write_text("f.yaml", &"- x\n".repeat(WatchFiles::MAX_PROBLEMS + 5));
    let scan = folder.scan().scan;
    let [FileEvent::FileFailed { problems, .. } | FileEvent::GlobFailed { problems, .. }] = &scan.events[..] else {
        panic!("{:?}", scan.events)
    };
    assert_eq!(problems.len(), WatchFiles::MAX_PROBLEMS + 1);
    assert_eq!(problems.last().unwrap().what, "5 more problems");
}

#[test]
fn an_api_that_a_reload_adds_mends_the_files_that_name_it() {
    let mut folder = Folder::new(&["*"]);
    folder.write("a", "a");
    folder.write_text("b", "{agent_id: 2, progress_id: p, api: eu}");
    let seen = folder.scan_in(LATER);
    assert_eq!((seen.watches(), seen.up()), (vec!["a: a".into()], vec![false]));
    let before = seen.list("a");
    folder.reconfigure(&["*"], &["default", "eu"]);
    let seen = folder.scan_in(LATER);
    assert_eq!((seen.watches(), seen.up()), (vec!["a: a".into(), "b: agent-2".into()], vec![true]));
    assert_eq!(seen.events(), ["mended b", "changed b 1"]);
    assert!(Arc::ptr_eq(&before, &seen.list("a")));
    folder.reconfigure(&["*"], &["default"]);
    let seen = folder.scan_in(LATER);
    assert_eq!((seen.watches(), seen.up()), (vec!["a: a".into(), "b: agent-2".into()], vec![false]));
}

#[test]
fn other_globs_of_a_reload_find_other_files() {
    let mut folder = Folder::new(&["*.yaml", "gone/*"]);
    folder.write("a.yaml", "a");
    folder.write("b.yml", "b");
    folder.scan();
    folder.reconfigure(&["*.yml"], &["default"]);
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["b.yml: b".into()], vec![true]));
    assert_eq!(seen.events(), ["removed a.yaml", "changed b.yml 1"]);
    folder.reconfigure(&[], &["default"]);
    assert!(!folder.files.is_idle(), "there is something to forget");
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec![], vec![]));
    assert!(folder.files.is_idle());
}

#[test]
fn names_that_are_not_utf_8_are_read_and_shown_as_far_as_they_can_be() {
    use std::os::unix::ffi::OsStrExt;
    let mut folder = Folder::new(&["*.yaml"]);
    folder.write("a.yaml", "a");
    let name = std::ffi::OsStr::from_bytes(b"\xff.yaml");
    fs::copy(folder.path("a.yaml"), folder.dir.path().join(name)).unwrap();
    let seen = folder.scan();
    assert_eq!((seen.watches(), seen.up()), (vec!["a.yaml: a".into(), "\u{fffd}.yaml: a".into()], vec![true]));
    fs::remove_file(folder.dir.path().join(name)).unwrap();
    assert_eq!(folder.scan().events(), ["removed \u{fffd}.yaml"]);
}

#[test]
fn a_file_that_is_emptied_keeps_its_watches_for_one_look() {
    let mut folder = Folder::new(&["*.yaml"]);
    folder.write("a.yaml", "a");
    assert_eq!(folder.scan().watches(), ["a.yaml: a"]);
    for content in ["", "again"] {
        fs::write(folder.path("a.yaml"), content).unwrap();
        let seen = folder.scan();
        assert_eq!((seen.watches(), seen.up()), (vec!["a.yaml: a".into()], vec![content.is_empty()]), "{content}");
    }
    fs::write(folder.path("a.yaml"), "").unwrap();
    assert_eq!(folder.scan().watches(), ["a.yaml: a"]);
    assert_eq!(folder.scan().watches(), ["a.yaml: "], "it is meant");
    folder.write("b.yaml", "b");
    fs::write(folder.path("b.yaml"), "").unwrap();
    assert_eq!(folder.scan().watches(), ["a.yaml: ", "b.yaml: "], "nothing was known of it");
}
