//! Tells the program what it was built from, and builds the runbooks into it.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

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
    ("enabled=TRUE_OR_FALSE expect=ENABLED_OR_DISABLED", "Direction"),
    ("\"labels\": {\"team\": \"bookings\"}", "Labels"),
    ("bookings-enable", "Toggle"),
    ("bookings-disable", "Toggle"),
    ("4321", "Agent"),
    ("default", "Api"),
];

/// Stands for the first example while Markdown becomes HTML, and those behind it for the others: characters
/// that HTML leaves alone.
const FIRST_MARK: u32 = 0xe000;

/// The parts of a section of the runbooks: how each begins, its class and its heading on the page.
const PARTS: [(&str, &str, &str); 5] = [
    ("What it means.", "means", "What it means"),
    ("Look.", "look", "Look"),
    ("Do.", "do", "Do"),
    ("When it ends.", "ends", "When it ends"),
    ("What it is not.", "is-not", "What it is not"),
];

/// Makes a template of the runbooks: HTML in sections that can be linked to, split at the examples in its commands.
/// It is written as a `RunbookTemplate`.
fn runbooks() -> Result<(), Box<dyn Error>> {
    const RUNBOOKS: &str = "docs/runbooks.md";
    println!("cargo:rerun-if-changed={RUNBOOKS}");
    let text = std::fs::read_to_string(RUNBOOKS)?;
    if text.chars().any(|c| ('\u{e000}'..='\u{f8ff}').contains(&c)) {
        return Err(format!("{RUNBOOKS} has a character for private use").into());
    }
    let mut contents = Vec::new();
    let mut sections: Vec<(String, Vec<Event<'_>>)> = Vec::new();
    let (mut level, mut is_served, mut is_code) = (None, false, false);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        let event = match event {
            Event::Start(Tag::Heading { level: of, .. }) => {
                level = Some(of);
                continue;
            }
            Event::End(TagEnd::Heading(_)) => {
                level = None;
                continue;
            }
            Event::Text(title) if level.is_some() => {
                // The page has the title of the whole.
                if level == Some(HeadingLevel::H2) {
                    sections.push((title.into_string(), Vec::new()));
                }
                continue;
            }
            Event::Code(code) => Event::Code(marked(&code).into()),
            Event::Start(Tag::CodeBlock(_)) | Event::End(TagEnd::CodeBlock) => {
                is_code = !is_code;
                event
            }
            Event::Text(code) if is_code => Event::Text(marked(&code).into()),
            // Other files of the project are not served.
            Event::Start(Tag::Link { ref dest_url, .. }) => {
                is_served = dest_url.starts_with('#');
                if !is_served {
                    continue;
                }
                event
            }
            Event::End(TagEnd::Link) if !is_served => continue,
            event => event,
        };
        sections.last_mut().map_or(&mut contents, |(_, events)| events).push(event);
    }
    let contents = folded(contents)?;
    let sections = sections.into_iter().map(|(title, events)| {
        let id = title.to_lowercase().replace(' ', "-");
        format!("RunbookSection {{ id: {id:?}, title: {title:?}, parts: {} }}", template(&html_of(parted(events))))
    });
    let sections = sections.collect::<Vec<_>>().join(", ");
    let template = format!("RunbookTemplate {{ contents: {:?}, sections: &[{sections}] }}", html_of(contents));
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("runbooks.rs"), template)?;
    Ok(())
}

/// The events of the contents: what is behind their first paragraph is folded, and what each link says of its
/// section has an element of its own.
fn folded(events: Vec<Event<'_>>) -> Result<Vec<Event<'_>>, Box<dyn Error>> {
    let end = Event::End(TagEnd::Paragraph);
    let after = events.iter().position(|event| *event == end).ok_or("the runbooks begin without a paragraph")?;
    let mut folded = Vec::with_capacity(events.len());
    for (index, event) in events.into_iter().enumerate() {
        folded.push(match event {
            Event::Text(text) => match text.strip_prefix(": ") {
                Some(note) => {
                    let class = note.split(';').next().unwrap_or_default().to_owned();
                    let class = if class.contains(' ') { "note" } else { &class };
                    Event::Html(format!(" <span class=\"{class}\">{note}</span>").into())
                }
                None => Event::Text(text),
            },
            event => event,
        });
        if index == after {
            folded.push(Event::Html("<details>\n<summary>Contents</summary>\n".into()));
        }
    }
    folded.push(Event::Html("</details>\n".into()));
    Ok(folded)
}

/// The events of a section, with its parts as elements that have headings.
fn parted(events: Vec<Event<'_>>) -> Vec<Event<'_>> {
    let mut parted = Vec::with_capacity(events.len());
    let mut is_open = false;
    let mut events = events.into_iter().peekable();
    while let Some(event) = events.next() {
        let begins = event == Event::Start(Tag::Paragraph) && events.peek() == Some(&Event::Start(Tag::Strong));
        parted.push(event);
        if !begins {
            continue;
        }
        let strong = events.next();
        let part = match events.peek() {
            Some(Event::Text(text)) => PARTS.iter().find(|(beginning, ..)| **text == **beginning),
            _ => None,
        };
        let Some((_, class, heading)) = part else {
            parted.extend(strong);
            continue;
        };
        let end = if is_open { "</div>\n" } else { "" };
        let start = format!("{end}<div class=\"part {class}\">\n<h3>{heading}</h3>\n");
        let paragraph = parted.len().saturating_sub(1);
        parted.insert(paragraph, Event::Html(start.into()));
        is_open = true;
        // The beginning is the heading now: its text, the end of the emphasis, and the space behind it.
        events.nth(1);
        if let Some(Event::Text(text)) = events.next_if(|event| matches!(event, Event::Text(_))) {
            parted.push(Event::Text(text.trim_start().to_owned().into()));
        }
    }
    if is_open {
        parted.push(Event::Html("</div>\n".into()));
    }
    parted
}

fn html_of(events: Vec<Event<'_>>) -> String {
    let mut page = String::new();
    html::push_html(&mut page, events.into_iter());
    // Those that are too wide are scrolled, by keyboard too.
    page.replace("<pre>", "<pre tabindex=\"0\">")
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
