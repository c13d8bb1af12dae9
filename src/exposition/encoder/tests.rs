//! What a scrape exposes, and how it is cut into chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::board::{AskedAgent, ToggleRow};
use crate::exposition::Metrics;
use crate::labels::agent_labels;
use crate::toggle::sample::{self, answer, watch};
use crate::toggle::{
    AgentDefinition, AgentId, Answer, ApiName, Drift, Expect, Failure, LabelName, Labels, LiveMocks, MockStatus,
    Provider, Reason, ReportedStatus, Timestamp, ToldBy, Watch,
};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn chunks(snapshot: &Snapshot, format: Format) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(snapshot, format);
    std::iter::from_fn(|| encoder.next_chunk(snapshot)).collect()
}

fn encoded(snapshot: &Snapshot, format: Format) -> String {
    String::from_utf8(chunks(snapshot, format).concat()).unwrap()
}

fn text(snapshot: &Snapshot) -> String {
    encoded(snapshot, Format::Text)
}

fn waiting(name: &str) -> ToggleRow {
    ToggleRow::new(Toggle::new(Arc::new(watch(name, "p")), at(1)))
}

fn of_rows(rows: impl IntoIterator<Item = ToggleRow>) -> Snapshot {
    Snapshot::new(rows.into_iter().collect(), vec![], vec![], vec![])
}

fn text_of(toggle: &Toggle) -> String {
    text(&of_rows([ToggleRow::new(toggle.clone())]))
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
fn a_watch_before_its_first_answer_has_only_the_series_with_known_values() {
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
fn a_mismatched_run_whose_poll_failed_has_series_in_every_family() {
    let mut toggle = Toggle::new(Arc::new(Watch { expect: Some(Expect::Enabled), ..watch("w", "p") }), at(0));
    let answer =
        Answer { mcp_endpoints: Some(2), mcp_tools: Some(5), ..answer(ReportedStatus::Completed, Some(false)) };
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
            "last_mismatched_timestamp_seconds{} 1.500",
            "last_success_timestamp_seconds{} 1.500",
            "mcp_endpoints{} 2",
            "mcp_tools{} 5",
            "mock_enabled{} 0",
            r#"mock_mismatch{,expect="enabled"} 1"#,
            r#"poll_error{,reason="rate_limited"} 1"#,
            "poll_failures_total{} 1",
            "polls_total{} 2",
            r#"problem{,problem="mismatch",expect="enabled"} 1"#,
            "started_timestamp_seconds{} 0.000",
            r#"status{,status="in_progress"} 0"#,
            r#"status{,status="completed"} 1"#,
            r#"status{,status="failed"} 0"#,
            r#"status{,status="unknown"} 0"#,
            "up{} 0",
        ]
    );
}

/// A snapshot with series of toggles and of everything that is gathered.
fn full() -> Snapshot {
    let mut toggle = Toggle::new(Arc::new(Watch { expect: Some(Expect::Enabled), ..watch("w", "p") }), at(0));
    toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(1500));
    let metrics = Metrics::new().unwrap();
    let _api = metrics.api(&ApiName::default_api());
    Snapshot::new(
        [ToggleRow::new(toggle)].into_iter().collect(),
        vec![],
        vec![],
        metrics.gather(std::time::Instant::now()),
    )
}

#[test]
fn no_family_is_both_encoded_here_and_gathered() {
    let toggles = TOGGLE_FAMILIES.iter().map(Family::description);
    let agents = TOLD_FAMILIES.iter().map(Family::description).chain(ASKED_FAMILIES.iter().map(Family::description));
    let sources = SOURCE_FAMILIES.iter().map(Family::description);
    let ours: Vec<_> = toggles.chain(agents).chain(sources).map(|description| description.name).collect();
    for family in &full().gathered {
        assert!(!ours.contains(&family.name()), "{} is in both", family.name());
    }
}

#[test]
fn families_are_sorted_and_described_once_in_either_format() {
    for format in [Format::Text, Format::OpenMetrics] {
        let scrape = encoded(&full(), format);
        let names = |what| scrape.lines().filter_map(move |l| l.strip_prefix(what)?.split(' ').next());
        let types: Vec<_> = names("# TYPE ").collect();
        assert!(types.is_sorted_by(|a, b| a < b), "{types:?}");
        assert!(names("# HELP ").eq(types.iter().copied()));
    }
}

#[test]
fn every_counter_is_a_counter_in_openmetrics_too() {
    let counters = |format| encoded(&full(), format).lines().filter(|line| line.ends_with(" counter")).count();
    assert_eq!(counters(Format::Text), counters(Format::OpenMetrics));
    assert!(counters(Format::Text) > 5);
}

#[test]
fn openmetrics_has_the_units_and_no_creation_times() {
    let scrape = encoded(&full(), Format::OpenMetrics);
    for line in [
        "# UNIT cekura_toggle_started_timestamp_seconds seconds",
        "# UNIT cekura_toggle_duration_seconds seconds",
        "# UNIT cekura_api_throttle_seconds seconds",
        "# UNIT process_cpu_seconds seconds",
        "# UNIT process_resident_memory_bytes bytes",
        "# TYPE cekura_toggle_polls counter",
    ] {
        assert!(scrape.lines().any(|l| l == line), "{line} is not in\n{scrape}");
    }
    assert!(!scrape.contains("_created"));
    assert!(!encoded(&full(), Format::Text).contains("# UNIT"));
}

#[test]
fn openmetrics_ends_with_one_eof_and_has_the_series_of_text() {
    let snapshot = of_rows((0..2000).map(|i| waiting(&format!("w{i}"))));
    let scrape = encoded(&snapshot, Format::OpenMetrics);
    assert!(scrape.ends_with("\n# EOF\n"));
    assert_eq!(scrape.matches("# EOF").count(), 1);
    let series = |scrape: &str| {
        let mut series: Vec<_> = scrape.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
        series.sort_unstable();
        series
    };
    assert_eq!(series(&scrape), series(&text(&snapshot)));
    assert_eq!(encoded(&of_rows([]), Format::OpenMetrics), "# EOF\n");
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
    fn labels_of_users_are_parsed_as_they_were_written(
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
    fn times_have_the_precision_of_a_millisecond(millis in 0..10_000_000_000_000u64) {
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
fn many_watches_have_the_series_of_each_one_sorted_by_family() {
    let toggles: Vec<_> = (0..2000).map(|i| waiting(&format!("w{i}"))).collect();
    let chunks = chunks(&of_rows(toggles.clone()), Format::Text);
    assert!(chunks.len() > 5 && chunks.iter().all(|chunk| chunk.len() < CHUNK + CHUNK / 16));
    let whole = String::from_utf8(chunks.concat()).unwrap();
    let mut each: Vec<_> = Vec::new();
    for toggle in toggles {
        each.extend(text(&of_rows([toggle])).lines().map(str::to_owned));
    }
    let heads: Vec<_> = whole.lines().filter(|line| line.starts_with('#')).collect();
    let mut distinct = heads.clone();
    distinct.dedup();
    assert_eq!(heads, distinct, "a family has its HELP and TYPE once");
    let (mut whole, mut each): (Vec<_>, Vec<_>) = (whole.lines().collect(), each.iter().map(String::as_str).collect());
    whole.sort_unstable();
    each.sort_unstable();
    each.dedup();
    assert_eq!(whole, each);
}

#[test]
fn several_encoders_can_read_one_snapshot_at_different_speeds() {
    fn can_be_sent<T: Send + 'static>(_: &T) {}
    let snapshot = of_rows((0..500).map(|i| waiting(&format!("w{i}"))));
    let whole = text(&snapshot);
    let (mut ahead, mut behind) = (Encoder::new(&snapshot, Format::Text), Encoder::new(&snapshot, Format::Text));
    can_be_sent(&ahead);
    let mut read = [ahead.next_chunk(&snapshot).unwrap(), Vec::new()];
    while let Some(chunk) = behind.next_chunk(&snapshot) {
        read[1].extend(chunk);
        read[0].extend(ahead.next_chunk(&snapshot).unwrap_or_default());
    }
    assert!(read.iter().all(|read| read == whole.as_bytes()));
}

#[test]
fn series_of_agents_have_the_labels_of_the_watch_that_set_the_state() {
    let of_agent = |told| {
        let agent = AgentRow { api: ApiName::default_api(), id: AgentId::parse("9").unwrap(), told, asked: None };
        text(&Snapshot::new(ToggleRows::default(), vec![agent], vec![], vec![]))
    };
    assert_eq!(of_agent(ToldMocks::default()), "");
    let labels = Labels::from([(LabelName::parse("team").unwrap(), "a\"b".into())]);
    let told_by = Some(ToldBy { toggle: watch("w", "p").name, labels });
    let on = ToldMocks { newest: Some((at(1), 1)), enabled_since: Some(at(2500)), told_by, ..Default::default() };
    let series: Vec<_> = of_agent(on).lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(
        series,
        [
            r#"cekura_agent_mock_enabled{api="default",agent_id="9",team="a\"b"} 1"#,
            r#"cekura_agent_mock_enabled_since_timestamp_seconds{api="default",agent_id="9",team="a\"b"} 2.500"#,
        ]
    );
}

#[test]
fn an_agent_that_is_asked_has_a_series_in_each_family_that_applies() {
    let definition = AgentDefinition {
        expect: Some(Expect::Disabled),
        labels: Labels::from([(LabelName::parse("team").unwrap(), "x".into())]),
        ..sample::agent("9")
    };
    let scrape = |live: LiveMocks, drift| {
        let labels = agent_labels(&definition);
        let asked = Some(AskedAgent { definition: Arc::new(definition.clone()), labels, live, next_poll: None, drift });
        let (api, id, told) = (ApiName::default_api(), AgentId::parse("9").unwrap(), ToldMocks::default());
        let whole =
            text(&Snapshot::new(ToggleRows::default(), vec![AgentRow { api, id, told, asked }], vec![], vec![]));
        let series = whole.lines().filter(|line| !line.starts_with('#'));
        let short =
            |line: &str| line.replace("cekura_agent_", "").replace(r#"api="default",agent_id="9",team="x""#, "");
        series.map(short).collect::<Vec<_>>()
    };
    let never_asked = [
        r#"expected{,expect="disabled"} 1"#,
        r#"info{,source="config",provider=""} 1"#,
        "poll_failures_total{} 0",
        "polls_total{} 0",
    ];
    assert_eq!(scrape(LiveMocks::default(), None), never_asked);
    let mut live = LiveMocks::default();
    let status = MockStatus {
        provider: Some(Provider::Vapi),
        mcp_endpoints: Some(2),
        tool_endpoints: Some(3),
        ..sample::mock_status(true)
    };
    live.apply(Ok(status), at(1), at(1));
    live.apply(Err(Failure::new(Reason::Timeout)), at(2), at(2));
    let drift = Some(Drift { expect: Expect::Disabled, drifted: true });
    assert_eq!(
        scrape(live, drift),
        [
            r#"expected{,expect="disabled"} 1"#,
            r#"info{,source="config",provider="vapi"} 1"#,
            "last_success_timestamp_seconds{} 0.001",
            r#"mock_endpoints{,kind="mcp"} 2"#,
            r#"mock_endpoints{,kind="tool"} 3"#,
            r#"mocks_drift{,expect="disabled"} 1"#,
            "mocks_live{} 1",
            "mocks_live_since_timestamp_seconds{} 0.001",
            r#"poll_error{,reason="timeout"} 1"#,
            "poll_failures_total{} 1",
            "polls_total{} 2",
            "up{} 0",
        ]
    );
}
