//! The runbooks: `docs/runbooks.md` as a page whose commands are filled in, ready to be pasted.
//!
//! The values are untrusted: names and labels come from clients that register toggles, the Host header from the
//! client of the page. So every value is quoted for its place in a command, and then escaped as HTML.

mod shell;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use hyper::header::{HOST, HeaderMap};

use self::shell::{ShellWord, ascii_json, quoted};
pub(crate) use self::subject::AlertSubject;
use super::html::Escaped;
use super::layout::{Icon, Layout, SiteInfo, Up, View};
use crate::toggle::{Expect, Source};

/// The page for one alert.
#[derive(Debug, Default)]
pub(crate) struct Runbooks {
    /// The URL of the exporter, if it is known.
    pub(crate) exporter: Option<String>,
    pub(crate) subject: AlertSubject,
}

/// A part of the page.
#[derive(Debug, Clone, Copy)]
enum TemplatePart {
    /// HTML that is always the same.
    Text(&'static str),
    /// A value to fill in, and the example that is shown without it.
    Placeholder(Placeholder, &'static str),
}

/// A value that is filled in. Each occurs in one kind of context only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    /// The exporter's URL, as an assignment of the shell.
    Exporter,
    /// The base URL of the API, as an assignment of the shell.
    Base,
    /// The direction of the toggle or agent, as assignments of the shell.
    Direction,
    /// The toggle's labels: a field of JSON within single quotes of the shell.
    Labels,
    /// The toggle's name, which needs no quoting in a path, in JSON or in a shell.
    Toggle,
    /// The agent's id, a number.
    Agent,
    /// The API's name, which needs no quoting anywhere.
    Api,
}

/// `docs/runbooks.md`, in pieces.
#[derive(Debug)]
struct RunbookTemplate {
    /// HTML that leads to the sections.
    contents: &'static str,
    sections: &'static [RunbookSection],
}

/// What there is to know about one alert, or how to do something.
#[derive(Debug)]
struct RunbookSection {
    /// Its fragment in the address of the page.
    id: &'static str,
    /// The name of the alert, or what it is about.
    title: &'static str,
    parts: &'static [TemplatePart],
}

/// The end of a sentence, as HTML.
const UNKNOWN_DIRECTION: &str =
    "no direction known: replace <code>TRUE_OR_FALSE</code> and <code>ENABLED_OR_DISABLED</code>.";

/// What cannot be done for a toggle that was not registered, as HTML.
const PUT_REFUSED: &str = "The <code>PUT</code> of step 2 is refused for this source: do what \
                           <a href=\"#toggle-again\">Toggle again</a> says instead.";

/// What the commands have if there is nothing to fill in.
const ONLY_EXAMPLES: &str = "The names and ids in the commands are examples.";

/// Made from `docs/runbooks.md` by `build.rs`.
const TEMPLATE: RunbookTemplate = include!(concat!(env!("OUT_DIR"), "/runbooks.rs"));

// === impl RunbookSection ===

impl RunbookSection {
    /// Whether its commands have names or ids that are examples unless they are filled in.
    fn has_examples(&self) -> bool {
        use Placeholder::{Agent, Api, Labels, Toggle};
        self.parts.iter().any(|part| matches!(part, TemplatePart::Placeholder(Agent | Api | Labels | Toggle, _)))
    }
}

// === impl Runbooks ===

impl Runbooks {
    /// The whole page around its content.
    pub(crate) fn page(site: SiteInfo<'_>, content: &str) -> String {
        let layout = Layout {
            site,
            title: "Runbooks",
            view: View::Runbooks,
            depth: 0,
            style: Some("runbooks.css"),
            icon: Icon::Well,
            is_kept_up_to_date: true,
        };
        layout.page(|page| page.write_str(content))
    }

    /// What the page has besides what all pages have.
    pub(crate) fn content(&self) -> String {
        let mut content = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut content);
        content
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        page.push_str("<h1>Runbooks</h1>\n");
        self.notice(page)?;
        let RunbookTemplate { contents, sections } = TEMPLATE;
        write!(
            page,
            "<div class=\"runbooks\">\n<nav id=\"contents\" aria-label=\"Contents\" tabindex=\"0\">\n{contents}</nav>\n<div>\n"
        )?;
        for section in sections {
            let RunbookSection { id, title, .. } = section;
            write!(page, "<section id=\"{id}\">\n<div class=\"heading\"><h2>{title}</h2>")?;
            if let Some(subject) = self.subject.name().filter(|_| self.is_filled_in(section)) {
                write!(page, " <span class=\"subject\">{}</span>", Escaped(subject))?;
            }
            page.push_str(" <a class=\"back\" href=\"#contents\">Contents</a></div>\n");
            self.write_body(page, section)?;
            page.push_str("</section>\n");
        }
        page.push_str("</div>\n</div>\n");
        Ok(())
    }

    /// The section with this id for a toggle, without its heading, for a page in this many folders; `None` if that is not
    /// there, or if nothing is known to fill in.
    pub(super) fn section(&self, id: &str, depth: usize) -> Option<String> {
        let AlertSubject::Toggle(watch, _) = &self.subject else { return None };
        let section = TEMPLATE.sections.iter().find(|section| section.id == id)?;
        let mut body = String::new();
        self.write_body(&mut body, section).ok()?;
        let links = format!("href=\"{}runbooks?toggle={}#", Up(depth), Escaped(watch.name.as_str()));
        Some(body.replace("href=\"#", &links))
    }

    /// Writes a section, after what the reader has to know before the commands: an alert leads to the section, so what the
    /// page says at its beginning is not seen.
    fn write_body(&self, page: &mut String, section: &RunbookSection) -> fmt::Result {
        let mut parts = String::new();
        self.write_parts(&mut parts, section)?;
        match &self.subject {
            AlertSubject::Toggle(watch, _) if watch.source != Source::Http && parts.contains("Step 2.") => {
                writeln!(page, "<p class=\"notice\">{PUT_REFUSED}</p>")?;
            }
            AlertSubject::Missing(what) if section.has_examples() => {
                writeln!(page, "<p class=\"notice missing\">{} {ONLY_EXAMPLES}</p>", Escaped(what))?;
            }
            _ => {}
        }
        page.push_str(&parts);
        Ok(())
    }

    fn write_parts(&self, page: &mut String, section: &RunbookSection) -> fmt::Result {
        for part in section.parts {
            match part {
                TemplatePart::Text(html) => page.push_str(html),
                TemplatePart::Placeholder(placeholder, example) => {
                    write!(page, "{}", Escaped(self.value(*placeholder).as_deref().unwrap_or(example)))?;
                }
            }
        }
        Ok(())
    }

    /// Whether something in the section comes from what the page is about.
    fn is_filled_in(&self, section: &RunbookSection) -> bool {
        section.parts.iter().any(|part| match part {
            TemplatePart::Placeholder(Placeholder::Exporter, _) | TemplatePart::Text(_) => false,
            TemplatePart::Placeholder(placeholder, _) => self.value(*placeholder).is_some(),
        })
    }

    /// Says whose commands these are.
    fn notice(&self, page: &mut String) -> fmt::Result {
        let class = match &self.subject {
            AlertSubject::Unspecified => "",
            AlertSubject::Missing(_) => " missing",
            AlertSubject::Toggle(..) | AlertSubject::Agent(..) | AlertSubject::Api(_) => " filled",
        };
        write!(page, "<p class=\"notice{class}\" role=\"note\">")?;
        match &self.subject {
            AlertSubject::Unspecified => page.push_str(
                "The toggle, agent, API and labels in the commands are <strong>examples</strong>. Open this page \
                 from a toggle on the <a href=\"./\">status page</a>, or from an alert, to have them filled in.",
            ),
            AlertSubject::Missing(what) => {
                write!(page, "{} The commands are <strong>not filled in</strong>: they have examples.", Escaped(what))?;
            }
            AlertSubject::Toggle(watch, api) => {
                let (name, agent, api) = (Escaped(watch.name.as_str()), watch.agent_id, Escaped(api.api.as_str()));
                write!(
                    page,
                    "The commands are filled in for toggle <a href=\"toggles/{name}\"><strong>{name}</strong></a>: \
                     agent {agent}, API {api}, source {}, ",
                    watch.source.as_str()
                )?;
                match watch.expect {
                    Some(expect) => write!(page, "expected to be {}.", expect.as_str())?,
                    None => page.push_str(UNKNOWN_DIRECTION),
                }
                if watch.source != Source::Http {
                    write!(page, " {PUT_REFUSED}")?;
                }
            }
            AlertSubject::Agent(agent, api, _, should_be) => {
                write!(
                    page,
                    "The commands are filled in for agent <strong>{agent}</strong> of API {}, ",
                    Escaped(api.api.as_str())
                )?;
                match should_be {
                    Some(expect) => write!(page, "whose mocks should be {}.", expect.as_str())?,
                    None => page.push_str(UNKNOWN_DIRECTION),
                }
                page.push_str(" Toggles in them are examples.");
            }
            AlertSubject::Api(api) => write!(
                page,
                "The commands are filled in for API <strong>{}</strong>. Toggles, agents and labels in them are examples.",
                Escaped(api.api.as_str())
            )?,
        }
        page.push_str("</p>\n");
        Ok(())
    }

    /// What replaces an example, if it is known.
    fn value(&self, placeholder: Placeholder) -> Option<String> {
        let subject = &self.subject;
        match placeholder {
            Placeholder::Exporter => self.exporter.as_ref().map(|url| format!("exporter={}", ShellWord(url))),
            Placeholder::Base => subject.api().map(|api| format!("base={}", ShellWord(&api.url))),
            Placeholder::Direction => match subject {
                AlertSubject::Toggle(watch, _) => Some(direction(watch.expect).to_owned()),
                AlertSubject::Agent(.., should_be) => Some(direction(*should_be).to_owned()),
                _ => None,
            },
            Placeholder::Labels => {
                subject.labels().map(|labels| format!("\"labels\": {}", quoted(&ascii_json(labels))))
            }
            Placeholder::Toggle => subject.watch().map(|watch| watch.name.as_str().to_owned()),
            Placeholder::Agent => subject.agent().map(|agent| agent.to_string()),
            Placeholder::Api => subject.api().map(|api| api.api.as_str().to_owned()),
        }
    }
}

/// Without a direction, the commands must fail rather than toggle the wrong way.
fn direction(expect: Option<Expect>) -> &'static str {
    match expect {
        Some(Expect::Enabled) => "enabled=true expect=enabled",
        Some(Expect::Disabled) => "enabled=false expect=disabled",
        None => "enabled=TRUE_OR_FALSE expect=ENABLED_OR_DISABLED",
    }
}

/// The URL at which the client that sent these headers reaches the exporter, if its Host header is a host.
pub(crate) fn exporter_url(headers: &HeaderMap, encrypted: bool) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let scheme = if encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{host}");
    let is_url = url::Url::parse(&url).is_ok_and(|url| url.has_host() && url.path() == "/");
    (is_url && host.chars().all(is_of_host)).then_some(url)
}
