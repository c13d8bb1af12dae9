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
    let used: BTreeSet<_> = TEMPLATE.iter().filter_map(of).collect();
    let all = ["Agent", "Api", "Base", "Direction", "Exporter", "Labels", "Toggle"];
    assert_eq!(used, all.map(str::to_owned).into());
    let page = runbooks(AlertSubject::Toggle(watch(None, "payments"), base("https://api.test/v"))).render();
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
    let page = runbooks(AlertSubject::Unspecified).render();
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
        let plain = runbooks_of_nobody().render();
        prop_assert_eq!(runbooks.render().matches('<').count(), plain.matches('<').count());
    }
}

/// As that of the property above, with labels of letters alone.
fn runbooks_of_nobody() -> Runbooks {
    runbooks(AlertSubject::Toggle(watch(None, "nobody"), base("https://a")))
}
