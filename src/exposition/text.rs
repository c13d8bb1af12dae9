//! The whole exposition as text 0.0.4.

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};

use super::families::{AGENT_FAMILIES, Family, Series, TOGGLE_FAMILIES};
use crate::toggle::{AgentMock, Toggle};

/// The content type of text 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family, wherever its series are kept.
enum Block<'a> {
    Toggles(&'static Family<Toggle>),
    Agents(&'static Family<AgentMock>),
    Gathered(&'a MetricFamily),
}

/// Encodes toggles and agents, each with its label text, and the gathered families of the
/// `prometheus` crate, sorted by family. A family without series is left out.
pub fn encode(toggles: &[(&str, &Toggle)], agents: &[(&str, &AgentMock)], gathered: &[MetricFamily]) -> Vec<u8> {
    let ours = TOGGLE_FAMILIES.iter().map(|family| (family.name, Block::Toggles(family)));
    let agent_families = AGENT_FAMILIES.iter().map(|family| (family.name, Block::Agents(family)));
    let theirs = gathered.iter().map(|family| (family.name(), Block::Gathered(family)));
    let mut blocks: Vec<_> = ours.chain(agent_families).chain(theirs).collect();
    blocks.sort_by_key(|(name, _)| *name);

    let mut out = Vec::with_capacity(32 * 1024 + toggles.len() * 2048);
    for (_, block) in blocks {
        match block {
            Block::Toggles(family) => put_family(&mut out, family, toggles),
            Block::Agents(family) => put_family(&mut out, family, agents),
            Block::Gathered(family) => put_gathered(&mut out, family),
        }
    }
    out
}

fn put_family<T>(out: &mut Vec<u8>, family: &'static Family<T>, things: &[(&str, &T)]) {
    let before = out.len();
    for (keyword, text) in [("# HELP ", family.help), ("# TYPE ", family.kind)] {
        for part in [keyword, family.name, " ", text, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    let head = out.len();
    for (labels, thing) in things {
        (family.write)(&mut Series { out: &mut *out, name: family.name, labels }, thing);
    }
    if out.len() == head {
        out.truncate(before);
    }
}

fn put_gathered(out: &mut Vec<u8>, family: &MetricFamily) {
    let before = out.len();
    if let Err(error) = TextEncoder::new().encode(std::slice::from_ref(family), out) {
        out.truncate(before);
        tracing::error!(family = family.name(), %error, "family could not be encoded");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::exposition::{Metrics, agent_labels, watch_labels};
    use crate::toggle::sample::{answer, watch};
    use crate::toggle::{
        AgentId, Answer, ApiName, Expect, Failure, LabelName, Labels, Reason, Reported, Timestamp, Watch,
    };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn text_of(toggle: &Toggle) -> String {
        let labels = watch_labels(&toggle.watch);
        String::from_utf8(encode(&[(&labels, toggle)], &[], &[])).unwrap()
    }

    /// The series of a text without HELP and TYPE lines and without what is common to all.
    fn series(text: &str) -> Vec<String> {
        let own = r#"toggle="w",api="default",agent_id="4321""#;
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.replace(own, "").replace("cekura_toggle_", ""))
            .collect()
    }

    #[test]
    fn a_watch_before_its_first_answer_shows_what_is_known_and_no_more() {
        let toggle = Toggle::new(Arc::new(watch("w", "p")), at(1_790_000_000_005));
        assert_eq!(
            series(&text_of(&toggle)),
            [
                r#"finished_total{,status="completed"} 0"#,
                r#"finished_total{,status="failed"} 0"#,
                r#"info{,progress_id="p",source="config",expect=""} 1"#,
                "poll_failures_total{} 0",
                "polls_total{} 0",
                "started_timestamp_seconds{} 1790000000.005",
                r#"status{,status="in_progress"} 0"#,
                r#"status{,status="completed"} 0"#,
                r#"status{,status="failed"} 0"#,
                r#"status{,status="unknown"} 1"#,
            ]
        );
    }

    #[test]
    fn a_mismatched_run_whose_poll_failed_shows_every_family() {
        let mut toggle = Toggle::new(Arc::new(Watch { expect: Some(Expect::Enabled), ..watch("w", "p") }), at(0));
        let answer = Answer { mcp_endpoints: Some(2), mcp_tools: Some(5), ..answer(Reported::Completed, Some(false)) };
        toggle.apply(Ok(answer), at(1500));
        toggle.apply(Err(Failure::new(Reason::RateLimited)), at(2500));
        assert_eq!(
            series(&text_of(&toggle)),
            [
                "finished_timestamp_seconds{} 1.500",
                r#"finished_total{,status="completed"} 1"#,
                r#"finished_total{,status="failed"} 0"#,
                r#"info{,progress_id="p",source="config",expect="enabled"} 1"#,
                "last_completed_timestamp_seconds{} 1.500",
                "last_success_timestamp_seconds{} 1.500",
                "mcp_endpoints{} 2",
                "mcp_tools{} 5",
                "mock_enabled{} 0",
                r#"mock_mismatch{,expect="enabled"} 1"#,
                r#"poll_error{,reason="rate_limited"} 1"#,
                "poll_failures_total{} 1",
                "polls_total{} 2",
                "started_timestamp_seconds{} 0.000",
                r#"status{,status="in_progress"} 0"#,
                r#"status{,status="completed"} 1"#,
                r#"status{,status="failed"} 0"#,
                r#"status{,status="unknown"} 0"#,
                "up{} 0",
            ]
        );
    }

    #[test]
    fn families_of_both_encoders_are_sorted_disjoint_and_described_once() {
        let toggle = Toggle::new(Arc::new(Watch { expect: Some(Expect::Enabled), ..watch("w", "p") }), at(0));
        let metrics = Metrics::new().unwrap();
        let _api = metrics.api(&ApiName::default_api());
        let gathered = metrics.gather(std::time::Instant::now());
        let ours: Vec<_> =
            TOGGLE_FAMILIES.iter().map(|f| f.name).chain(AGENT_FAMILIES.iter().map(|f| f.name)).collect();
        for family in &gathered {
            assert!(!ours.contains(&family.name()), "{} is in both", family.name());
        }
        let labels = watch_labels(&toggle.watch);
        let text = String::from_utf8(encode(&[(&labels, &toggle)], &[], &gathered)).unwrap();
        let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut sorted = types.clone();
        sorted.sort_by_key(|line| line.split(' ').next());
        sorted.dedup_by_key(|line| line.split(' ').next());
        assert_eq!(types, sorted);
        assert_eq!(text.matches("# HELP ").count(), types.len());
    }

    /// An independent reading of one line: name, labels, value. Panics on what is not text 0.0.4.
    fn parse_line(line: &str) -> (String, BTreeMap<String, String>, String) {
        let (name, rest) = line.split_once('{').unwrap();
        let mut chars = rest.chars().peekable();
        let mut labels = BTreeMap::new();
        while chars.peek() != Some(&'}') {
            let key: String = chars.by_ref().take_while(|c| *c != '=').collect();
            assert_eq!(chars.next(), Some('"'));
            let mut value = String::new();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => value.push(match chars.next().unwrap() {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("escape of {c}"),
                    }),
                    c => value.push(c),
                }
            }
            assert_eq!(labels.insert(key, value), None);
            if chars.peek() == Some(&',') {
                chars.next();
            }
        }
        let value: String = chars.skip(1).collect();
        (name.to_owned(), labels, value.trim().to_owned())
    }

    proptest! {
        #[test]
        fn whatever_users_write_is_read_back_from_the_exposition(
            progress_id in "(\\PC|[\n\r\t\"\\\\{},=]){1,40}", team in "(\\PC|[\n\r\t\"\\\\{},=]){0,40}"
        ) {
            let labels = Labels::from([(LabelName::parse("team").unwrap(), team.as_str().into())]);
            let toggle = Toggle::new(Arc::new(Watch { labels, ..watch("w", &progress_id) }), at(7));
            let text = text_of(&toggle);
            let info = text.split('\n').find(|line| line.starts_with("cekura_toggle_info{")).unwrap();
            let (_, labels, value) = parse_line(info);
            prop_assert_eq!(&labels["progress_id"], &progress_id);
            prop_assert_eq!(&labels["team"], &team);
            prop_assert_eq!(&labels["toggle"], "w");
            prop_assert_eq!(value, "1");
            prop_assert_eq!(text.split('\n').filter(|l| !l.starts_with('#') && !l.is_empty()).count(), 10);
        }

        #[test]
        fn times_are_read_back_to_the_millisecond(millis in 0..10_000_000_000_000u64) {
            let toggle = Toggle::new(Arc::new(watch("w", "p")), at(millis));
            let text = text_of(&toggle);
            let line = text.lines().find(|line| line.starts_with("cekura_toggle_started")).unwrap();
            let (_, _, value) = parse_line(line);
            let (seconds, fraction) = value.split_once('.').unwrap();
            prop_assert_eq!(fraction.len(), 3);
            prop_assert_eq!(format!("{seconds}{fraction}").parse::<u64>().unwrap(), millis);
        }
    }

    #[test]
    fn agents_have_api_and_id_only() {
        let labels = agent_labels(&ApiName::default_api(), AgentId::parse("9").unwrap());
        assert_eq!(&*labels, r#"api="default",agent_id="9""#);
        assert_eq!(encode(&[], &[(&labels, &AgentMock::default())], &[]), b"");
    }
}
