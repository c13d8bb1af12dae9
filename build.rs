//! Tells the program what it was built from, and builds the runbooks into it.

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

/// What stands in the commands of the runbooks as an example, and the `Value` that takes its place.
const EXAMPLES: [(&str, &str); 8] = [
    ("exporter=http://cekura-exporter:10058", "Exporter"),
    ("base=https://api.cekura.ai", "Base"),
    ("enabled=true expect=enabled", "Direction"),
    ("\"labels\": {\"team\": \"bookings\"}", "Labels"),
    ("bookings-enable", "Toggle"),
    ("bookings-disable", "Toggle"),
    ("4321", "Agent"),
    ("default", "Api"),
];

/// Stands for the first example while Markdown becomes HTML, and those behind it for the others: characters
/// that HTML leaves alone.
const FIRST_MARK: u32 = 0xe000;

/// Makes a template of the runbooks: HTML whose sections can be linked to, split at the examples in its
/// commands. It is written as the elements of a slice of `Part`.
fn runbooks() -> Result<(), Box<dyn Error>> {
    const RUNBOOKS: &str = "docs/runbooks.md";
    println!("cargo:rerun-if-changed={RUNBOOKS}");
    let text = std::fs::read_to_string(RUNBOOKS)?;
    if text.chars().any(|c| ('\u{e000}'..='\u{f8ff}').contains(&c)) {
        return Err(format!("{RUNBOOKS} has a character for private use").into());
    }
    let (mut level, mut is_served, mut is_code) = (None, false, false);
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
        Event::Code(code) => Some(Event::Code(marked(&code).into())),
        Event::Start(Tag::CodeBlock(_)) | Event::End(TagEnd::CodeBlock) => {
            is_code = !is_code;
            Some(event)
        }
        Event::Text(code) if is_code => Some(Event::Text(marked(&code).into())),
        // Other files of the project are not served.
        Event::Start(Tag::Link { ref dest_url, .. }) => {
            is_served = dest_url.starts_with('#');
            is_served.then_some(event)
        }
        Event::End(TagEnd::Link) => is_served.then_some(event),
        event => Some(event),
    });
    let mut page = String::new();
    html::push_html(&mut page, events);
    // Those that are too wide are scrolled, by keyboard too.
    page = page.replace("<pre>", "<pre tabindex=\"0\">");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("runbooks.rs"), template(&page))?;
    Ok(())
}

/// The code with a mark in the place of each example.
fn marked(code: &str) -> String {
    let marks = (FIRST_MARK..).filter_map(char::from_u32);
    EXAMPLES
        .iter()
        .zip(marks)
        .fold(code.to_owned(), |code, ((example, _), mark)| code.replace(example, &mark.to_string()))
}

/// The elements of a slice of `Part` that this page is made of.
fn template(page: &str) -> String {
    let mut parts = Vec::new();
    let mut text = String::new();
    for c in page.chars() {
        let place = u32::from(c).checked_sub(FIRST_MARK).and_then(|place| usize::try_from(place).ok());
        if let Some((example, value)) = place.and_then(|place| EXAMPLES.get(place)) {
            parts.push(format!(
                "TemplatePart::Text({text:?}), TemplatePart::Placeholder(Placeholder::{value}, {example:?})"
            ));
            text.clear();
        } else {
            text.push(c);
        }
    }
    parts.push(format!("TemplatePart::Text({text:?})"));
    format!("&[{}]", parts.join(", "))
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
