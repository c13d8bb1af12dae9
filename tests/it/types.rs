//! The types of the scripts of the pages, as `JSDoc` writes them.

use std::path::Path;
use std::process::Command;

use crate::harness::tool;

/// The scripts, and how the compiler and editors are to read them.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page/assets");

const SETTINGS: &str = "jsconfig.json";

/// What the compiler says of a project, and whether it has no error.
fn checked(project: &Path, options: &[&str]) -> (bool, String) {
    let tsc = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/node_modules/typescript/bin/tsc");
    let output =
        Command::new(tool("node")).arg(tsc).arg("-p").arg(project.join(SETTINGS)).args(options).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn the_scripts_of_the_pages_have_no_error_of_types() {
    let (is_good, said) = checked(Path::new(SCRIPTS), &["--listFiles"]);
    assert!(is_good, "{said}");
    let scripts: Vec<_> = std::fs::read_dir(SCRIPTS)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "js"))
        .collect();
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        assert!(said.contains(&format!("/src/http/page/assets/{script}\n")), "{script} is not checked: {said}");
    }
}

#[test]
fn an_error_of_types_is_found() {
    let project = tempfile::tempdir().unwrap();
    let settings = std::fs::read(Path::new(SCRIPTS).join(SETTINGS)).unwrap();
    std::fs::write(project.path().join(SETTINGS), settings).unwrap();
    std::fs::write(
        project.path().join("wrong.js"),
        "export const hide = () => (document.querySelector(\"p\").hidden = true);\n",
    )
    .unwrap();
    let (is_good, said) = checked(project.path(), &[]);
    assert!(!is_good && said.contains("possibly 'null'"), "{said}");
}
