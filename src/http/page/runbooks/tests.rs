use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use serde_json::Value as Json;

use super::subject::ApiUrl;
use super::*;
use crate::toggle::{AgentId, ApiName, LabelName, Labels, Watch, sample};

fn base(url: &str) -> ApiUrl {
    ApiUrl { api: ApiName::parse("staging").unwrap(), url: url.to_owned() }
}

fn watch(expect: Option<Expect>, team: &str) -> Arc<Watch> {
    let labels = Labels::from([(LabelName::parse("team").unwrap(), team.into())]);
    Arc::new(Watch { expect, labels, agent_id: AgentId::parse("77").unwrap(), ..sample::watch("payments", "id") })
}

fn runbooks(subject: AlertSubject) -> Runbooks {
    Runbooks { exporter: Some("https://exporter.test/base".to_owned()), subject }
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
    let used: BTreeSet<_> = TEMPLATE.sections.iter().flat_map(|section| section.parts).filter_map(of).collect();
    let all = ["Agent", "Api", "Base", "Direction", "Exporter", "Labels", "Toggle"];
    assert_eq!(used, all.map(str::to_owned).into());
    let page = runbooks(AlertSubject::Toggle(watch(None, "payments"), base("https://api.test/v"))).content();
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
fn a_page_about_nothing_has_the_examples_but_for_the_address() {
    let content = runbooks(AlertSubject::Unspecified).content();
    for section in TEMPLATE.sections {
        let text: String = section
            .parts
            .iter()
            .map(|part| match part {
                TemplatePart::Text(html) => (*html).to_owned(),
                TemplatePart::Placeholder(_, example) => Escaped(example).to_string(),
            })
            .collect();
        let expected = text.replace("exporter=http://cekura-exporter:10058", "exporter=https://exporter.test/base");
        let (id, title) = (section.id, section.title);
        let heading = format!(
            "<div class=\"heading\"><h2>{title}</h2> <a class=\"back\" href=\"#contents\">Contents</a></div>\n"
        );
        assert!(content.contains(&format!("<section id=\"{id}\">\n{heading}{expected}</section>\n")), "{id}");
    }
}

#[test]
fn each_alert_has_parts_with_headings_in_one_order_and_the_contents_lead_to_every_section() {
    let names = ["means", "look", "do", "ends", "is-not"];
    let headings = ["What it means", "Look", "Do", "When it ends", "What it is not"];
    let mut alerts = 0;
    for section in TEMPLATE.sections {
        let mut content = String::new();
        runbooks(AlertSubject::Unspecified).write_parts(&mut content, section).unwrap();
        let id = section.id;
        assert_eq!(content.matches("<div").count(), content.matches("</div>").count(), "{id}");
        assert!(TEMPLATE.contents.contains(&format!("<a href=\"#{id}\">{}</a>", section.title)), "{id}");
        if section.title.starts_with("Cekura") {
            alerts += 1;
            let parts: Vec<_> = content.split("<div class=\"part ").collect();
            assert_eq!(parts[0], "", "{id}");
            assert_eq!(parts.len(), 1 + names.len(), "{id}");
            for (part, (name, heading)) in parts[1..].iter().zip(names.into_iter().zip(headings)) {
                assert!(part.starts_with(&format!("{name}\">\n<h3>{heading}</h3>\n<p>")), "{id}: {part}");
                assert!(!part.contains(&format!("<strong>{heading}.")), "{id}: {part}");
            }
        }
    }
    assert!(alerts > 20, "{alerts}");
    assert_eq!(TEMPLATE.contents.matches("<a ").count(), TEMPLATE.sections.len());
    for severity in ["critical", "warning", "info"] {
        assert!(
            TEMPLATE.contents.contains(&format!("</a> <span class=\"{severity}\">{severity}</span>")),
            "{severity}"
        );
    }
    assert!(TEMPLATE.contents.contains("</a> <span class=\"critical\">critical; warning if"));
}

#[test]
fn a_heading_says_whose_commands_are_below_it_if_some_are_filled_in() {
    let toggle = || AlertSubject::Toggle(watch(None, "payments"), base("https://api.test"));
    let heading = |subject: AlertSubject, id: &str| {
        let content = runbooks(subject).content();
        let (_, after) = content.split_once(&format!("<section id=\"{id}\">\n<div class=\"heading\">")).unwrap();
        let heading = after.split_once("</div>").unwrap().0;
        heading.split_once("<span class=\"subject\">").map(|(_, of)| of.split_once('<').unwrap().0.to_owned())
    };
    assert_eq!(heading(toggle(), "cekuratogglefailed").as_deref(), Some("payments"));
    assert_eq!(heading(toggle(), "cekuraconfigreloadfailed"), None);
    assert_eq!(heading(AlertSubject::Unspecified, "cekuratogglefailed"), None);
    assert_eq!(heading(AlertSubject::Missing("None.".to_owned()), "cekuratogglefailed"), None);
    let agent = AlertSubject::Agent(AgentId::parse("77").unwrap(), base("https://a"), Labels::default(), None);
    assert_eq!(heading(agent, "cekuraagentmocksdrifted").as_deref(), Some("agent 77 of API staging"));
    assert_eq!(heading(AlertSubject::Api(base("https://a")), "cekuraapidown").as_deref(), Some("API staging"));
}

#[test]
fn a_section_for_another_page_is_that_of_the_toggle_and_leads_to_the_runbooks() {
    let toggle = runbooks(AlertSubject::Toggle(watch(None, "payments"), base("https://api.test")));
    let section = toggle.section("cekuratogglefailed", 1).unwrap();
    assert!(section.contains("base=https://api.test\n") && section.contains("/aiagents/77/"), "{section}");
    assert!(section.contains("<a href=\"../runbooks?toggle=payments#toggle-again\">"), "{section}");
    assert!(!section.contains("href=\"#") && !section.contains("<h2") && !section.contains("<section"), "{section}");
    assert!(section.starts_with("<p class=\"notice\">The <code>PUT</code>"), "it is not a registration: {section}");
    assert!(toggle.section("cekuratogglestuck", 0).unwrap().contains("<a href=\"runbooks?toggle=payments#"));
    assert_eq!(toggle.section("nothing", 1), None);
    assert_eq!(runbooks(AlertSubject::Unspecified).section("cekuratogglefailed", 1), None);
}

#[test]
fn what_has_to_be_known_before_the_commands_is_said_in_the_section() {
    let section = |subject: AlertSubject, id: &str| {
        let content = runbooks(subject).content();
        let section =
            content.split_once(&format!("<section id=\"{id}\">")).unwrap().1.split_once("</section>").unwrap().0;
        section.to_owned()
    };
    let toggle = || AlertSubject::Toggle(watch(None, "payments"), base("https://api.test"));
    assert!(section(toggle(), "cekuratogglefailed").contains("<p class=\"notice\">The <code>PUT</code>"));
    assert!(!section(toggle(), "cekuratogglenotanswering").contains("class=\"notice"));
    let missing = || AlertSubject::Missing("There is no toggle <x> now.".to_owned());
    let notice = "<p class=\"notice missing\">There is no toggle &lt;x&gt; now. The names and ids in the commands are examples.</p>";
    assert!(section(missing(), "cekuratogglefailed").contains(notice));
    assert!(!section(missing(), "cekuraconfigreloadfailed").contains("class=\"notice"));
    assert!(!section(AlertSubject::Unspecified, "cekuratogglefailed").contains("class=\"notice"));
}

#[test]
fn without_a_direction_the_commands_have_none() {
    let of = |expect| {
        runbooks(AlertSubject::Toggle(watch(expect, ""), base("https://a"))).value(Placeholder::Direction).unwrap()
    };
    assert_eq!(of(Some(Expect::Enabled)), "enabled=true expect=enabled");
    assert_eq!(of(Some(Expect::Disabled)), "enabled=false expect=disabled");
    assert!(!of(None).contains("true") && !of(None).contains("enabled "));
    let of_agent = |should_be| {
        let agent = AlertSubject::Agent(AgentId::parse("77").unwrap(), base("https://a"), Labels::default(), should_be);
        runbooks(agent).value(Placeholder::Direction).unwrap()
    };
    for expect in [Some(Expect::Enabled), Some(Expect::Disabled), None] {
        assert_eq!(of_agent(expect), of(expect));
    }
}

#[test]
fn the_address_of_the_exporter_is_that_of_the_host_header_if_it_is_a_host() {
    let of = |host: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        exporter_url(&headers, false)
    };
    for host in ["exporter", "exporter.test:10058", "10.0.0.1", "[::1]:10058", "my_exporter"] {
        assert_eq!(of(host), Some(format!("http://{host}")), "{host}");
    }
    for host in
        ["", ":", "a b", "a/b", "a?b", "u@a", "$(id)", "a;id", "a'b", "a&b", "a\tb", "a:b", "é", "a:99999", "[::1"]
    {
        assert_eq!(of(host), None, "{host}");
    }
    assert_eq!(exporter_url(&HeaderMap::new(), true), None);
    let headers = HeaderMap::from_iter([(HOST, "exporter".parse().unwrap())]);
    assert_eq!(exporter_url(&headers, true).as_deref(), Some("https://exporter"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_url_means_anything_to_a_shell(url in "[^\0]{0,12}|[ '\"$`(){};&|<>*?~#!\\\\\n=a]{0,12}") {
        prop_assert_eq!(words(&format!("x={}", ShellWord(&url))), [format!("x={url}")]);
    }

    #[test]
    fn no_label_means_anything_to_a_shell_a_terminal_or_a_browser(team in "\\PC{0,12}|[ '\"$`(){};&|<>\\\\\n\u{1b}\u{7f}\u{9b}\u{202e}é😀]{0,12}") {
        let runbooks = runbooks(AlertSubject::Toggle(watch(None, &team), base("https://a")));
        let field = runbooks.value(Placeholder::Labels).unwrap();
        prop_assert!(field.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", field);
        let read = words(&format!("'{{{field}}}'"));
        let json: Json = serde_json::from_str(&read.concat()).unwrap();
        prop_assert_eq!((read.len(), &json["labels"]), (1, &serde_json::json!({"team": team})));
        let plain = runbooks_of_nobody().content();
        prop_assert_eq!(runbooks.content().matches('<').count(), plain.matches('<').count());
    }
}

/// As that of the property above, with labels of letters alone.
fn runbooks_of_nobody() -> Runbooks {
    runbooks(AlertSubject::Toggle(watch(None, "nobody"), base("https://a")))
}
