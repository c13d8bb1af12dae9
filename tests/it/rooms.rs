//! The rooms of the program, and which of them import which: no room imports one that imports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that each room imports, without its tests.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The room that a file is in: its folder below `src`, or its own name.
fn room_of(file: &Path, src: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that are named behind `crate::`, be it alone or in braces.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut rooms = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => {
                let list = &list[..list.find(';').unwrap()];
                let depth = |at: usize| list[..at].matches('{').count() - list[..at].matches('}').count();
                let starts = list.match_indices(',').map(|(at, _)| at + 1).chain([0]);
                let names = starts.filter(|at| depth(*at) == 0).map(|at| list[at..].trim_start());
                rooms.extend(names.map(|name| name.split(|c| !is_of_name(c)).next().unwrap().to_owned()));
            }
            None => rooms.extend(after.split(|c| !is_of_name(c)).next().map(str::to_owned)),
        }
    }
    rooms
}

fn imports() -> Imports {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<_> = sources(&src).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).collect();
    let rooms: BTreeSet<_> = files.iter().map(|file| room_of(file, &src)).collect();
    let mut imports = Imports::new();
    for file in &files {
        let room = room_of(file, &src);
        // These two put the rooms together.
        let tests = ["tests", "sample"].iter().any(|stem| file.file_stem().unwrap() == *stem);
        if ["lib", "main"].contains(&room.as_str()) || tests {
            continue;
        }
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let named = named(code).into_iter().filter(|name| *name != room && rooms.contains(name));
        imports.entry(room.clone()).or_default().extend(named);
    }
    imports
}

/// A way from a room back to itself, if there is one.
fn circle(imports: &Imports, way: &mut Vec<String>) -> Option<Vec<String>> {
    for next in &imports[way.last().unwrap()] {
        if *next == way[0] {
            return Some(way.clone());
        }
        if !way.contains(next) {
            way.push(next.clone());
            if let Some(found) = circle(imports, way) {
                return Some(found);
            }
            way.pop();
        }
    }
    None
}

#[test]
fn imports_between_rooms_make_no_circle() {
    let imports = imports();
    assert!(imports["http"].contains("board") && imports["board"].contains("toggle"), "{imports:?}");
    let circles: Vec<_> = imports.keys().filter_map(|room| circle(&imports, &mut vec![room.clone()])).collect();
    assert!(circles.is_empty(), "{circles:?}");
}

#[test]
fn the_domain_imports_no_room_and_only_the_top_imports_the_server() {
    let imports = imports();
    assert_eq!(imports["toggle"], BTreeSet::new());
    let who_imports = |room: &str| -> Vec<&str> {
        imports.iter().filter(|(_, of)| of.contains(room)).map(|(importer, _)| importer.as_str()).collect()
    };
    assert_eq!(who_imports("http"), [""; 0]);
    assert_eq!(who_imports("demo"), [""; 0]);
}
