//! The modules of the program, and which of them import which: no module imports one that imports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules that each module imports, without its tests.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The module that a file is in: its folder below `src`, or its own name.
fn module_of(file: &Path, src: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that are named behind `crate::`, be it alone or in braces.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut modules = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => {
                let list = &list[..list.find(';').unwrap()];
                let depth = |at: usize| list[..at].matches('{').count() - list[..at].matches('}').count();
                let starts = list.match_indices(',').map(|(at, _)| at + 1).chain([0]);
                let names = starts.filter(|at| depth(*at) == 0).map(|at| list[at..].trim_start());
                modules.extend(names.map(|name| name.split(|c| !is_of_name(c)).next().unwrap().to_owned()));
            }
            None => modules.extend(after.split(|c| !is_of_name(c)).next().map(str::to_owned)),
        }
    }
    modules
}

/// The code of each file below `src` without its tests, with the module that it is in.
fn code() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_code = |file: &PathBuf| {
        let stem = file.file_stem().unwrap();
        file.extension().is_some_and(|extension| extension == "rs") && stem != "tests" && stem != "sample"
    };
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        (module_of(&file, &src), code)
    };
    sources(&src).into_iter().filter(is_code).map(read).collect()
}

fn imports() -> Imports {
    let code = code();
    let modules: BTreeSet<_> = code.iter().map(|(module, _)| module.clone()).collect();
    let mut imports = Imports::new();
    // These two put the modules together.
    for (module, code) in code.iter().filter(|(module, _)| !["lib", "main"].contains(&module.as_str())) {
        let named = named(code).into_iter().filter(|name| name != module && modules.contains(name));
        imports.entry(module.clone()).or_default().extend(named);
    }
    imports
}

/// A cycle from a module back to itself, if there is one.
fn cycle(imports: &Imports, way: &mut Vec<String>) -> Option<Vec<String>> {
    for next in &imports[way.last().unwrap()] {
        if *next == way[0] {
            return Some(way.clone());
        }
        if !way.contains(next) {
            way.push(next.clone());
            if let Some(found) = cycle(imports, way) {
                return Some(found);
            }
            way.pop();
        }
    }
    None
}

#[test]
fn imports_between_modules_make_no_cycle() {
    let imports = imports();
    assert!(imports["http"].contains("board") && imports["board"].contains("toggle"), "{imports:?}");
    let cycles: Vec<_> = imports.keys().filter_map(|module| cycle(&imports, &mut vec![module.clone()])).collect();
    assert!(cycles.is_empty(), "{cycles:?}");
}

#[test]
fn the_domain_imports_no_module_and_only_the_process_imports_the_server() {
    let imports = imports();
    assert_eq!(imports["toggle"], BTreeSet::new());
    let who_imports = |module: &str| -> Vec<&str> {
        imports.iter().filter(|(_, of)| of.contains(module)).map(|(importer, _)| importer.as_str()).collect()
    };
    assert_eq!(who_imports("process"), [""; 0]);
    assert_eq!(who_imports("http"), ["process"]);
    assert_eq!(who_imports("demo"), ["process"]);
}

#[test]
fn no_two_modules_define_a_type_of_the_same_name() {
    let keywords = ["struct ", "enum ", "trait ", "type "];
    let defined = |line: &str| {
        let item = line.strip_prefix("pub").map_or(line, |rest| rest.split_once(' ').map_or("", |(_, item)| item));
        let name = keywords.iter().find_map(|keyword| item.strip_prefix(keyword))?;
        name.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned)
    };
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, code) in code() {
        for name in code.lines().filter_map(defined) {
            types.entry(name).or_default().push(module.clone());
        }
    }
    assert!(types.len() > 200, "{types:?}");
    types.retain(|_, modules| modules.len() > 1);
    assert!(types.is_empty(), "{types:?}");
}
