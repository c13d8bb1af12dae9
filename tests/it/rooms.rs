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

/// The code of each file below `src` without its tests, with the room that it is in.
fn code() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_code = |file: &PathBuf| {
        let stem = file.file_stem().unwrap();
        file.extension().is_some_and(|extension| extension == "rs") && stem != "tests" && stem != "sample"
    };
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        (room_of(&file, &src), code)
    };
    sources(&src).into_iter().filter(is_code).map(read).collect()
}

fn imports() -> Imports {
    let code = code();
    let rooms: BTreeSet<_> = code.iter().map(|(room, _)| room.clone()).collect();
    let mut imports = Imports::new();
    // These two put the rooms together.
    for (room, code) in code.iter().filter(|(room, _)| !["lib", "main"].contains(&room.as_str())) {
        let named = named(code).into_iter().filter(|name| name != room && rooms.contains(name));
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

#[test]
fn no_name_of_a_type_means_two_things() {
    let keywords = ["struct ", "enum ", "trait ", "type "];
    let defined = |line: &str| {
        let item = line.strip_prefix("pub").map_or(line, |rest| rest.split_once(' ').map_or("", |(_, item)| item));
        let name = keywords.iter().find_map(|keyword| item.strip_prefix(keyword))?;
        name.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned)
    };
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (room, code) in code() {
        for name in code.lines().filter_map(defined) {
            types.entry(name).or_default().push(room.clone());
        }
    }
    assert!(types.len() > 200, "{types:?}");
    types.retain(|_, rooms| rooms.len() > 1);
    assert!(types.is_empty(), "{types:?}");
}
