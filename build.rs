//! Tells the program what it was built from.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

/// Where cargo writes down what a package was made from.
const PACKAGED: &str = ".cargo_vcs_info.json";

fn main() -> Result<(), Box<dyn Error>> {
    runbooks()?;
    println!("cargo:rerun-if-env-changed=CEKURA_EXPORTER_REVISION");
    for path in std::iter::once(PACKAGED.to_owned()).chain(head()).filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    // A build outside a checkout, like that of an image, says its revision itself. A package has it in
    // a file, and may lie in a checkout of something else.
    let revision = std::env::var("CEKURA_EXPORTER_REVISION")
        .ok()
        .filter(|revision| !revision.is_empty())
        .or_else(packaged)
        .or_else(|| first_line(Command::new("git").args(["rev-parse", "--short=12", "HEAD"])));
    let rustc = std::env::var("RUSTC").ok().and_then(|rustc| first_line(Command::new(rustc).arg("--version")));
    let rustc = rustc.and_then(|line| line.split(' ').nth(1).map(str::to_owned));
    println!("cargo:rustc-env=BUILD_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=BUILD_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
    Ok(())
}

/// Makes a page of the runbooks, whose sections can be linked to.
fn runbooks() -> Result<(), Box<dyn Error>> {
    const RUNBOOKS: &str = "docs/runbooks.md";
    println!("cargo:rerun-if-changed={RUNBOOKS}");
    let text = std::fs::read_to_string(RUNBOOKS)?;
    let (mut level, mut is_served) = (None, false);
    let events = Parser::new_ext(&text, Options::ENABLE_TABLES).filter_map(|event| match event {
        Event::Start(Tag::Heading { level: of, .. }) => {
            level = Some(of);
            None
        }
        Event::Text(title) if level.is_some() => {
            let of = level.take()?;
            let id = title.to_lowercase().replace(' ', "-");
            Some(Event::Html(format!("<{of} id=\"{id}\">{title}").into()))
        }
        // Other files of the project are not served.
        Event::Start(Tag::Link { ref dest_url, .. }) => {
            is_served = dest_url.starts_with('#');
            is_served.then_some(event)
        }
        Event::End(TagEnd::Link) => is_served.then_some(event),
        event => Some(event),
    });
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Runbooks · cekura-exporter</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"assets/status.css\">\n</head>\n<body>\n\
         <nav aria-label=\"Back\"><a href=\"./\">Status</a></nav>\n<main class=\"prose\">\n",
    );
    html::push_html(&mut page, events);
    // Those that are too wide are scrolled, by keyboard too.
    page = page.replace("<pre>", "<pre tabindex=\"0\">");
    page.push_str("</main>\n</body>\n</html>\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("runbooks.html"), page)?;
    Ok(())
}

/// What changes when the checkout moves to another commit. The index is not among it: `git add` and
/// `git status` write that.
fn head() -> impl Iterator<Item = String> {
    let path = |name| first_line(Command::new("git").args(["rev-parse", "--git-path", name]));
    ["HEAD", "refs/heads", "packed-refs"].into_iter().filter_map(path)
}

/// The revision that a package was made from.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(PACKAGED).ok()?;
    let (_, after) = text.split_once("\"sha1\"")?;
    let revision = after.split('"').nth(1)?;
    revision.get(..12).map(str::to_owned)
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}
