//! The man page and the completions, made from the flags.

use std::io::{self, Write as _};

use cekura_exporter::cli::Cli;
use clap::{Arg, ArgAction, Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// How the program is started.
const USAGE: &str = "\
cekura-exporter [--config.file=PATH] [OPTION]...
cekura-exporter --config.check[=online] [--config.file=PATH] [--web.config.file=PATH]
cekura-exporter --demo [OPTION]...";

/// The paragraphs of the description.
const DESCRIPTION: [&str; 3] = [
    "cekura-exporter polls the background tasks with which Cekura turns the mock tools of AI agents on and off, and \
     asks Cekura whether the mocks of each agent are on. It compares the two and exposes the result to Prometheus. It \
     only reads, and never turns anything on or off.",
    "It serves the metrics, a status page, a JSON API, and the runbooks to which its alerts link. What it polls is \
     written in a configuration in YAML, in watch files, or registered over HTTP.",
    "The exporter runs in the foreground and writes its log to standard output.",
];

/// The sections of the man page that `--help` has, too, with its titles.
const SECTIONS_OF_HELP: [(&str, &str); 3] =
    [("Environment:", "ENVIRONMENT"), ("Signals:", "SIGNALS"), ("Exit codes:", "EXIT STATUS")];

/// The values of `--log.level` that are complete by themselves.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The files, as the Debian package has them.
const FILES: [(&str, &str); 5] = [
    ("/etc/cekura-exporter/config.yaml", "the configuration that the service reads"),
    ("/etc/cekura-exporter/api-key", "the key of Cekura; readable for root alone, because systemd passes it on"),
    ("/var/lib/cekura-exporter/state", "what is kept across restarts: registrations, and the state of runs and agents"),
    ("/usr/share/doc/cekura-exporter/examples/config.yaml", "every key of the configuration, explained"),
    (
        "/usr/share/doc/cekura-exporter/examples/",
        "rules of alerts and a dashboard, a script for CI jobs, and the units of systemd that are optional",
    ),
];

/// Where to read on.
const SEE_ALSO: [&str; 2] = [
    "prometheus(1), promtool(1), systemctl(1), systemd.exec(5)",
    "A running exporter serves its runbooks at /runbooks, such as http://localhost:10058/runbooks.",
];

/// The files of this folder that are made from the flags, by name.
///
/// # Errors
/// If the text of `--help` does not have a section that belongs into the man page.
pub(crate) fn files() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    Ok(vec![
        ("cekura-exporter.1", man_page()?),
        ("cekura-exporter.bash", completions(Shell::Bash)),
        ("_cekura-exporter", completions(Shell::Zsh)),
        ("cekura-exporter.fish", completions(Shell::Fish)),
    ])
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut completed(Cli::command()), "cekura-exporter", &mut script);
    script
}

/// The command, as shells should complete it.
fn completed(command: Command) -> Command {
    command
        .mut_args(|arg| {
            // A menu has one line for each flag.
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let end = [", print", "; ", " ["].iter().filter_map(|end| help.find(end)).min().unwrap_or(help.len());
            arg.help(help[..end].to_owned())
        })
        // The shells would write its value as a word of its own, which is refused.
        .mut_arg("config_check", |arg| {
            let help = arg.get_help().cloned().unwrap_or_default();
            Arg::new("config_check").long("config.check").action(ArgAction::SetTrue).conflicts_with("demo").help(help)
        })
        .mut_arg("listen", |arg| arg.value_hint(ValueHint::Other))
        .mut_arg("telemetry_path", |arg| arg.value_hint(ValueHint::Other))
        .mut_arg("log_level", |arg| arg.value_parser(LOG_LEVELS))
}

fn man_page() -> io::Result<Vec<u8>> {
    let command = Cli::command();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let command = command.about(env!("CARGO_PKG_DESCRIPTION")).override_usage(USAGE);
    // Without version and date, so that the page changes only when what it says changes. An empty date would be left out
    // and the next argument taken for it.
    let man = Man::new(command).title("CEKURA-EXPORTER").date(" ").source("cekura-exporter").manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    section("DESCRIPTION", &mut page, |roff| paragraphs(roff, &DESCRIPTION))?;
    man.render_options_section(&mut page)?;
    for (title, heading) in SECTIONS_OF_HELP {
        let missing = || io::Error::other(format!("--help has no section '{title}'"));
        let text = help.split("\n\n").find_map(|block| block.strip_prefix(title)).ok_or_else(missing)?;
        section(heading, &mut page, |roff| {
            for (term, what) in entries(text) {
                entry(roff, bold(term), &what);
            }
        })?;
    }
    section("FILES", &mut page, |roff| {
        for (path, what) in FILES {
            entry(roff, italic(path), what);
        }
    })?;
    section("SEE ALSO", &mut page, |roff| paragraphs(roff, &SEE_ALSO))?;
    Ok(page)
}

fn section(heading: &str, page: &mut Vec<u8>, fill: impl FnOnce(&mut Roff)) -> io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [heading]);
    fill(&mut roff);
    page.write_all(roff.to_roff().as_bytes())
}

fn paragraphs(roff: &mut Roff, texts: &[&str]) {
    for (number, text) in texts.iter().enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*text)]);
    }
}

fn entry(roff: &mut Roff, term: Inline, what: &str) {
    roff.control("TP", []);
    roff.text([term]);
    roff.text([roman(what)]);
}

/// The terms of a section of `--help` with what they mean. A term is indented by two blanks, and two follow it. What
/// it means may go on in lines that are indented further.
fn entries(section: &str) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in section.lines().filter(|line| !line.is_empty()) {
        match (line.strip_prefix("  ").filter(|line| !line.starts_with(' ')), entries.last_mut()) {
            (Some(line), _) => {
                let (term, what) = line.split_once("  ").unwrap_or((line, ""));
                entries.push((term.to_owned(), what.trim().to_owned()));
            }
            (None, Some((_, what))) => {
                if !what.is_empty() {
                    what.push(' ');
                }
                what.push_str(line.trim());
            }
            (None, None) => {}
        }
    }
    entries
}
