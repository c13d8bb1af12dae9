//! The man page and the completions of the shells.

use std::collections::BTreeSet;
use std::process::Command;

use super::{file, printed};
use crate::harness::{run, tool};

#[path = "../../../deploy/manual/pages.rs"]
mod pages;

#[test]
fn the_man_page_and_the_completions_are_made_from_the_flags() {
    for (name, made) in pages::files().unwrap() {
        let there = std::fs::read(file("deploy/manual").join(name)).unwrap_or_default();
        assert!(made == there, "deploy/manual/{name} is not what `cargo run --example manual` writes");
    }
}

/// The man page as it is read.
fn man_page() -> String {
    let mut mandoc = Command::new(tool("mandoc"));
    let text = printed(mandoc.args(["-T", "ascii", "-O", "width=100"]).arg(file("deploy/manual/cekura-exporter.1")));
    // A letter that is printed twice is bold, and one after an underscore is in italics.
    let mut plain = String::new();
    for c in text.chars() {
        if c == '\u{8}' {
            plain.pop();
        } else {
            plain.push(c);
        }
    }
    plain
}

#[test]
fn mandoc_finds_no_mistake_in_the_man_page() {
    let mut mandoc = Command::new(tool("mandoc"));
    mandoc.args(["-T", "lint", "-W", "warning"]).arg(file("deploy/manual/cekura-exporter.1"));
    let output = mandoc.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // It has no date, and the generator breaks lines before a list of values.
    let excused =
        ["cannot parse date", "skipping paragraph macro: br before sp", "skipping paragraph macro: br after sp"];
    let mistakes: Vec<_> = said.lines().filter(|line| !excused.iter().any(|excused| line.contains(excused))).collect();
    assert_eq!(mistakes, [""; 0]);
}

#[test]
fn the_man_page_has_the_usual_sections_and_all_that_the_help_lists() {
    let page = man_page();
    let sections: Vec<_> = page.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())).collect();
    let expected =
        ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "SIGNALS", "EXIT STATUS", "FILES", "SEE ALSO"];
    // The first line names the page.
    assert_eq!(sections[1..], expected, "{page}");

    let words_of = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let help = String::from_utf8(run(&["--help"], &[]).stdout).unwrap();
    let (flags, rest) = help.split_once("\nEnvironment:\n").unwrap();
    let (rest, _) = rest.split_once("\nDocumentation:").unwrap();
    let flags: BTreeSet<_> = words_of(flags).into_iter().filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() > 8, "{flags:?}");
    // The title of a section is written in another way, and a word that is not ASCII is replaced.
    let of_sections: BTreeSet<_> = rest.lines().filter(|line| line.starts_with(' ')).flat_map(words_of).collect();
    let missing: Vec<_> = flags
        .union(&of_sections)
        .map(|word| word.split(['[', ']', '=']).next().unwrap())
        .filter(|word| word.is_ascii() && !page.contains(word))
        .collect();
    assert_eq!(missing, [""; 0], "{page}");
}

// === Completions ===

/// What bash completes this line to.
fn completed_by_bash(line: &[&str]) -> BTreeSet<String> {
    // As bash calls it: with the command, the word and the word before.
    let script = r#"source "$1"; shift
        function=$(complete -p cekura-exporter | sed 's/.* -F \([^ ]*\) .*/\1/')
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        "$function" cekura-exporter "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new(tool("bash"));
    bash.args(["--norc", "-euc", script, "bash"]).arg(file("deploy/manual/cekura-exporter.bash"));
    printed(bash.arg("cekura-exporter").args(line)).lines().map(str::to_owned).collect()
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn bash_completes_flags_and_their_values() {
    assert_eq!(completed_by_bash(&["--log."]), words(&["--log.level", "--log.format"]));
    assert_eq!(completed_by_bash(&["--log.format", "j"]), words(&["json"]));
    let levels = words(&["error", "warn", "info", "debug", "trace"]);
    assert_eq!(completed_by_bash(&["--demo", "--log.level", ""]), levels);
    assert_eq!(completed_by_bash(&["--config.file", "Cargo.l"]), words(&["Cargo.lock"]));
    assert!(completed_by_bash(&["--config.check", ""]).iter().all(|word| word.starts_with('-')));
}

#[test]
fn fish_completes_flags_and_their_values() {
    let completed = |line: &str| {
        let mut fish = Command::new(tool("fish"));
        fish.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"]);
        let said = printed(fish.arg(file("deploy/manual/cekura-exporter.fish")).arg(line));
        said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(completed("cekura-exporter --log."), words(&["--log.level", "--log.format"]));
    assert_eq!(completed("cekura-exporter --log.format j"), words(&["json"]));
    assert!(completed("cekura-exporter --config.file Cargo.l").contains("Cargo.lock"));
}

#[test]
fn zsh_reads_the_completion_and_knows_the_command_by_it() {
    let script = "fpath=($1 $fpath); autoload -Uz compinit; compinit -D -u; autoload +X _cekura-exporter; \
                  print -- $_comps[cekura-exporter]";
    let mut zsh = Command::new(tool("zsh"));
    let said = printed(zsh.args(["-f", "-c", script, "zsh"]).arg(file("deploy/manual")));
    assert_eq!(said.trim(), "_cekura-exporter");
    printed(Command::new(tool("zsh")).args(["-f", "-n"]).arg(file("deploy/manual/_cekura-exporter")));
}
