//! The runbooks: `docs/runbooks.md` as a page whose commands are filled in, ready to be pasted.
//!
//! What is filled in comes from others: names and labels of whoever registers a toggle, the Host header of
//! whoever asks. So every value is written as its place in a command needs it, and then as HTML.

use std::fmt::{self, Write as _};

use hyper::header::{HOST, HeaderMap};
use serde_json::Value as Json;
use url::form_urlencoded;

use super::Escaped;
use crate::board::Board;
use crate::cekura::Api;
use crate::config::Config;
use crate::toggle::{AgentId, ApiName, Expect, Labels, Source, Toggle, Watch, WatchName};

/// A part of the page.
#[derive(Debug, Clone, Copy)]
enum TemplatePart {
    /// HTML that is always the same.
    Text(&'static str),
    /// What is filled in, and the example that stands there otherwise.
    Placeholder(Placeholder, &'static str),
}

/// What is filled in. Each has places of one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    /// The exporter's address, as an assignment of the shell.
    Exporter,
    /// The base URL of the API, as an assignment of the shell.
    Base,
    /// In which direction to toggle, as assignments of the shell.
    Direction,
    /// The toggle's labels: a field of JSON within single quotes of the shell.
    Labels,
    /// The toggle's name, which means nothing but itself in a path, in JSON and in a shell.
    Toggle,
    /// The agent's id, a number.
    Agent,
    /// The API's name, which means nothing but itself anywhere.
    Api,
}

/// Made of `docs/runbooks.md` by `build.rs`.
const TEMPLATE: &[TemplatePart] = include!(concat!(env!("OUT_DIR"), "/runbooks.rs"));

/// The page for one alert.
#[derive(Debug, Default)]
pub(crate) struct Runbooks {
    /// Where the exporter is, if that is known.
    pub(crate) exporter: Option<String>,
    /// What the alert is about.
    pub(crate) about: About,
}

/// What an alert is about.
#[derive(Debug, Default)]
pub(crate) enum About {
    /// Nothing was said: the commands keep their examples.
    #[default]
    Nothing,
    /// Something that is not there: a sentence that says so.
    Missing(String),
    /// A toggle.
    Toggle(std::sync::Arc<Watch>, Base),
    /// An agent, and the labels of whoever said last whether its mocks are on, or else those of the configuration.
    Agent(AgentId, Base, Labels),
    /// An API.
    Api(Base),
}

/// An API, and where it is.
#[derive(Debug)]
pub(crate) struct Base {
    api: ApiName,
    url: String,
}

// === impl About ===

impl About {
    /// What a query asks for: `toggle=NAME`, `agent=API/ID` or `api=NAME`.
    pub(crate) fn of_query(query: Option<&str>, board: &Board, config: &Config) -> Self {
        let mut parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let asked = parameters.find_map(|(name, value)| match &*name {
            "toggle" => Some(Self::of_toggle(&value, board, config)),
            "agent" => Some(Self::of_agent(&value, board, config)),
            "api" => Some(Self::of_api(&value, config)),
            _ => None,
        });
        asked.unwrap_or_default()
    }

    fn of_toggle(name: &str, board: &Board, config: &Config) -> Self {
        // Only a name is repeated on the page, not any text.
        let Ok(name) = WatchName::parse(name) else {
            return Self::Missing("The address of this page names no toggle.".to_owned());
        };
        let watch = board.with_row(name.as_str(), |row| in_trouble(&row.toggle));
        let found = watch.and_then(|watch| Some((Base::of(&watch.api, config)?, watch)));
        found.map_or_else(
            || {
                Self::Missing(format!(
                    "There is no toggle {} now. It may have been removed or have expired.",
                    name.as_str()
                ))
            },
            |(base, watch)| Self::Toggle(watch, base),
        )
    }

    fn of_agent(agent: &str, board: &Board, config: &Config) -> Self {
        let parsed =
            agent.split_once('/').and_then(|(api, id)| Some((ApiName::parse(api).ok()?, AgentId::parse(id).ok()?)));
        let found = parsed.and_then(|(api, id)| Some((id, Base::of(&api, config)?)));
        found.map_or_else(
            || Self::Missing("The address of this page names no agent of an API that is configured.".to_owned()),
            |(id, base)| {
                let labels = labels_of(&base.api, id, board, config);
                Self::Agent(id, base, labels)
            },
        )
    }

    fn of_api(name: &str, config: &Config) -> Self {
        ApiName::parse(name).ok().and_then(|api| Base::of(&api, config)).map_or_else(
            || Self::Missing("The address of this page names no API that is configured.".to_owned()),
            Self::Api,
        )
    }

    fn base(&self) -> Option<&Base> {
        match self {
            Self::Toggle(_, base) | Self::Agent(_, base, _) | Self::Api(base) => Some(base),
            Self::Nothing | Self::Missing(_) => None,
        }
    }

    fn agent(&self) -> Option<AgentId> {
        match self {
            Self::Toggle(watch, _) => Some(watch.agent_id),
            Self::Agent(agent, ..) => Some(*agent),
            _ => None,
        }
    }

    fn labels(&self) -> Option<&Labels> {
        match self {
            Self::Toggle(watch, _) => Some(&watch.labels),
            Self::Agent(.., labels) => Some(labels),
            _ => None,
        }
    }

    fn watch(&self) -> Option<&Watch> {
        match self {
            Self::Toggle(watch, _) => Some(watch),
            _ => None,
        }
    }
}

// === impl Base ===

impl Base {
    fn of(api: &ApiName, config: &Config) -> Option<Self> {
        let found = config.apis.iter().find(|found| found.name == *api);
        found.map(|Api { name, base_url, .. }| Self {
            api: name.clone(),
            url: base_url.as_str().trim_end_matches('/').to_owned(),
        })
    }
}

// === impl Runbooks ===

impl Runbooks {
    /// The whole page.
    pub(crate) fn render(&self) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        page.push_str(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Runbooks · cekura-exporter</title>\n<link rel=\"icon\" href=\"data:,\">\n\
             <link rel=\"stylesheet\" href=\"assets/status.css\">\n</head>\n<body>\n\
             <nav aria-label=\"Back\"><a href=\"./\">Status</a></nav>\n<main class=\"prose\">\n",
        );
        self.notice(page)?;
        for part in TEMPLATE {
            match part {
                TemplatePart::Text(html) => page.push_str(html),
                TemplatePart::Placeholder(value, example) => match self.value(*value) {
                    Some(filled) => write!(page, "{}", Escaped(filled))?,
                    None => write!(page, "{}", Escaped(example))?,
                },
            }
        }
        page.push_str("</main>\n</body>\n</html>\n");
        Ok(())
    }

    /// Says whose commands these are.
    fn notice(&self, page: &mut String) -> fmt::Result {
        page.push_str("<p class=\"notice\" role=\"note\">");
        match &self.about {
            About::Nothing => page.push_str(
                "The toggle, agent, API and labels in the commands are <strong>examples</strong>. Open this page \
                 from a toggle on the <a href=\"./\">status page</a>, or from an alert, to have them filled in.",
            ),
            About::Missing(what) => {
                write!(page, "{} The commands are <strong>not filled in</strong>: they have examples.", Escaped(what))?;
            }
            About::Toggle(watch, base) => {
                let (name, agent, api) = (Escaped(watch.name.as_str()), watch.agent_id, Escaped(base.api.as_str()));
                write!(
                    page,
                    "The commands are filled in for toggle <a href=\"./?toggle={name}\"><strong>{name}</strong></a>: \
                     agent {agent}, API {api}, source {}, ",
                    watch.source.as_str()
                )?;
                match watch.expect {
                    Some(expect) => write!(page, "expected to be {}.", expect.as_str())?,
                    None => page.push_str(
                        "no direction known: replace <code>TRUE_OR_FALSE</code> and <code>ENABLED_OR_DISABLED</code>.",
                    ),
                }
                if watch.source != Source::Http {
                    page.push_str(
                        " The <code>PUT</code> of step 2 is refused for this source: do what \
                         <a href=\"#toggle-again\">Toggle again</a> says instead.",
                    );
                }
            }
            About::Agent(agent, base, _) => write!(
                page,
                "The commands are filled in for agent <strong>{agent}</strong> of API {}. \
                 Toggles in them are examples.",
                Escaped(base.api.as_str())
            )?,
            About::Api(base) => write!(
                page,
                "The commands are filled in for API <strong>{}</strong>. Toggles, agents and labels in them are examples.",
                Escaped(base.api.as_str())
            )?,
        }
        page.push_str("</p>\n");
        Ok(())
    }

    /// What stands in the place of an example, if that is known.
    fn value(&self, value: Placeholder) -> Option<String> {
        let about = &self.about;
        match value {
            Placeholder::Exporter => self.exporter.as_ref().map(|url| format!("exporter={}", ShellWord(url))),
            Placeholder::Base => about.base().map(|base| format!("base={}", ShellWord(&base.url))),
            Placeholder::Direction => about.watch().map(|watch| direction(watch.expect).to_owned()),
            Placeholder::Labels => about.labels().map(|labels| format!("\"labels\": {}", quoted(&json(labels)))),
            Placeholder::Toggle => about.watch().map(|watch| watch.name.as_str().to_owned()),
            Placeholder::Agent => about.agent().map(|agent| agent.to_string()),
            Placeholder::Api => about.base().map(|base| base.api.as_str().to_owned()),
        }
    }
}

/// The watch of a toggle, with the direction that alerts on it have: that of the run that ended badly, also
/// while a run in the other direction is in its place.
fn in_trouble(toggle: &Toggle) -> std::sync::Arc<Watch> {
    match toggle.tally.problem {
        Some(problem) if problem.expect != toggle.watch.expect => {
            std::sync::Arc::new(Watch { expect: problem.expect, ..(*toggle.watch).clone() })
        }
        _ => toggle.watch.clone(),
    }
}

/// The labels that alerts on an agent have.
fn labels_of(api: &ApiName, id: AgentId, board: &Board, config: &Config) -> Labels {
    let known = board.agent(api, id);
    let told = known.as_ref().and_then(|agent| agent.mock.told_by.as_ref()).map(|teller| teller.labels.clone());
    let configured = || config.agents.iter().find(|agent| agent.api == *api && agent.agent_id == id);
    told.or_else(|| configured().map(|agent| agent.labels.clone())).unwrap_or_default()
}

/// Without a direction, the commands must fail rather than toggle the wrong way.
fn direction(expect: Option<Expect>) -> &'static str {
    match expect {
        Some(Expect::Enabled) => "enabled=true expect=enabled",
        Some(Expect::Disabled) => "enabled=false expect=disabled",
        None => "enabled=TRUE_OR_FALSE expect=ENABLED_OR_DISABLED",
    }
}

/// The labels as JSON in printable ASCII: a terminal acts on control characters even where a shell quotes them.
fn json(labels: &Labels) -> String {
    let fields: serde_json::Map<_, _> =
        labels.iter().map(|(name, value)| (name.as_str().to_owned(), Json::from(value))).collect();
    let json = Json::Object(fields).to_string();
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// Text as it is written within single quotes of a shell.
fn quoted(text: &str) -> String {
    text.replace('\'', r"'\''")
}

/// Text as one word of a shell that means nothing but itself.
struct ShellWord<'a>(&'a str);

impl fmt::Display for ShellWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:@%+,".contains(c);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            f.write_str(self.0)
        } else {
            write!(f, "'{}'", quoted(self.0))
        }
    }
}

/// Where the client that sent these headers reaches the exporter, as far as its Host header tells.
pub(crate) fn address(headers: &HeaderMap, encrypted: bool) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let scheme = if encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{host}");
    let is_url = url::Url::parse(&url).is_ok_and(|url| url.has_host() && url.path() == "/");
    (is_url && host.chars().all(is_of_host)).then_some(url)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::toggle::LabelName;
    use crate::toggle::sample;

    fn base(url: &str) -> Base {
        Base { api: ApiName::parse("staging").unwrap(), url: url.to_owned() }
    }

    fn watch(expect: Option<Expect>, team: &str) -> Arc<Watch> {
        let labels = Labels::from([(LabelName::parse("team").unwrap(), team.into())]);
        Arc::new(Watch { expect, labels, agent_id: AgentId::parse("77").unwrap(), ..sample::watch("payments", "id") })
    }

    fn runbooks(about: About) -> Runbooks {
        Runbooks { exporter: Some("https://exporter.test/base".to_owned()), about }
    }

    /// What a shell takes for its words.
    fn words(command: &str) -> Vec<String> {
        let script = format!(r"printf '%s\0' {command}");
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn every_value_has_a_place_on_the_page_and_no_example_is_left_in_the_code_of_a_toggle() {
        let of = |part: &TemplatePart| match part {
            TemplatePart::Placeholder(value, _) => Some(format!("{value:?}")),
            TemplatePart::Text(_) => None,
        };
        let used: BTreeSet<_> = TEMPLATE.iter().filter_map(of).collect();
        let all = ["Agent", "Api", "Base", "Direction", "Exporter", "Labels", "Toggle"];
        assert_eq!(used, all.map(str::to_owned).into());
        let page = runbooks(About::Toggle(watch(None, "payments"), base("https://api.test/v"))).render();
        for example in ["cekura-exporter:10058", "api.cekura.ai", "bookings", "4321", "default"] {
            assert!(!page.contains(example), "{example}");
        }
        for filled in [
            "exporter=https://exporter.test/base\n",
            "base=https://api.test/v\n",
            "/toggles/payments\" \\\n  -d wait=50s",
            "/aiagents/77/",
        ] {
            assert!(page.contains(filled), "{filled}");
        }
    }

    #[test]
    fn a_page_about_nothing_is_the_text_with_its_examples_but_for_the_address() {
        let page = runbooks(About::Nothing).render();
        let (_, body) = page.split_once("</p>\n").unwrap();
        let text: String = TEMPLATE
            .iter()
            .map(|part| match part {
                TemplatePart::Text(html) => (*html).to_owned(),
                TemplatePart::Placeholder(_, example) => Escaped(example).to_string(),
            })
            .collect();
        let expected = text.replace("exporter=http://cekura-exporter:10058", "exporter=https://exporter.test/base");
        assert_eq!(body.strip_suffix("</main>\n</body>\n</html>\n"), Some(&*expected));
    }

    #[test]
    fn without_a_direction_the_commands_have_none() {
        let of = |expect| {
            runbooks(About::Toggle(watch(expect, ""), base("https://a"))).value(Placeholder::Direction).unwrap()
        };
        assert_eq!(of(Some(Expect::Enabled)), "enabled=true expect=enabled");
        assert_eq!(of(Some(Expect::Disabled)), "enabled=false expect=disabled");
        assert!(!of(None).contains("true") && !of(None).contains("enabled "));
    }

    #[test]
    fn the_address_of_the_exporter_is_that_of_the_host_header_if_it_is_a_host() {
        let of = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            address(&headers, false)
        };
        for host in ["exporter", "exporter.test:10058", "10.0.0.1", "[::1]:10058", "my_exporter"] {
            assert_eq!(of(host), Some(format!("http://{host}")), "{host}");
        }
        for host in
            ["", ":", "a b", "a/b", "a?b", "u@a", "$(id)", "a;id", "a'b", "a&b", "a\tb", "a:b", "é", "a:99999", "[::1"]
        {
            assert_eq!(of(host), None, "{host}");
        }
        assert_eq!(address(&HeaderMap::new(), true), None);
        let headers = HeaderMap::from_iter([(HOST, "exporter".parse().unwrap())]);
        assert_eq!(address(&headers, true).as_deref(), Some("https://exporter"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_url_means_anything_to_a_shell(url in "[^\0]{0,12}|[ '\"$`(){};&|<>*?~#!\\\\\n=a]{0,12}") {
            prop_assert_eq!(words(&format!("x={}", ShellWord(&url))), [format!("x={url}")]);
        }

        #[test]
        fn no_label_means_anything_to_a_shell_a_terminal_or_a_browser(team in "\\PC{0,12}|[ '\"$`(){};&|<>\\\\\n\u{1b}\u{7f}\u{9b}\u{202e}é😀]{0,12}") {
            let runbooks = runbooks(About::Toggle(watch(None, &team), base("https://a")));
            let field = runbooks.value(Placeholder::Labels).unwrap();
            prop_assert!(field.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", field);
            let read = words(&format!("'{{{field}}}'"));
            let json: Json = serde_json::from_str(&read.concat()).unwrap();
            prop_assert_eq!((read.len(), &json["labels"]), (1, &serde_json::json!({"team": team})));
            let plain = runbooks_of_nobody().render();
            prop_assert_eq!(runbooks.render().matches('<').count(), plain.matches('<').count());
        }
    }

    /// As that of the property above, with labels of letters alone.
    fn runbooks_of_nobody() -> Runbooks {
        runbooks(About::Toggle(watch(None, "nobody"), base("https://a")))
    }
}
