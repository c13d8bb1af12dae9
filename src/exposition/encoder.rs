//! What is exposed by one scrape, and its text 0.0.4 a chunk at a time.
//!
//! A scrape of many watches is tens of megabytes. It is encoded as fast as it is read, so it never
//! exists as a whole, and a reader that does not read costs no more than the rows, which readers
//! can share.

use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

use super::families::{AGENT_FAMILIES, Family, SOURCE_FAMILIES, SourceUp, TOGGLE_FAMILIES};
use crate::toggle::{AgentMock, Toggle};

/// The content type of text 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How large a chunk gets before the next one begins, in bytes.
const CHUNK: usize = 64 * 1024;

/// Something to expose, with the label text of its series.
pub type Labelled<T> = (Arc<str>, T);

/// What is exposed by one scrape.
pub struct Snapshot {
    toggles: Vec<Labelled<Toggle>>,
    agents: Vec<Labelled<AgentMock>>,
    sources: Vec<Labelled<SourceUp>>,
    gathered: Vec<MetricFamily>,
}

/// How far one reader of a snapshot is. It does not hold the snapshot.
pub struct Encoder {
    /// The families that are still to be encoded, the next one last.
    blocks: Vec<Block>,
    /// How many things of the next family are done.
    done: usize,
    /// Whether that family has its HELP and TYPE.
    headed: bool,
}

/// A family, wherever its series are kept.
#[derive(Clone, Copy)]
enum Block {
    Toggles(&'static Family<Toggle>),
    Agents(&'static Family<AgentMock>),
    Sources(&'static Family<SourceUp>),
    /// The index of a gathered one.
    Gathered(usize),
}

// === impl Snapshot ===

impl Snapshot {
    /// Toggles, agents and sources, and the gathered families of the `prometheus` crate.
    pub fn new(
        toggles: Vec<Labelled<Toggle>>,
        agents: Vec<Labelled<AgentMock>>,
        sources: Vec<Labelled<SourceUp>>,
        gathered: Vec<MetricFamily>,
    ) -> Self {
        Self { toggles, agents, sources, gathered }
    }
}

// === impl Encoder ===

impl Encoder {
    /// A reader at the beginning of a snapshot. Families come sorted by name; those without series
    /// are left out.
    pub fn new(snapshot: &Snapshot) -> Self {
        let of_toggles = TOGGLE_FAMILIES.iter().map(|family| (family.name, Block::Toggles(family)));
        let of_agents = AGENT_FAMILIES.iter().map(|family| (family.name, Block::Agents(family)));
        let of_sources = SOURCE_FAMILIES.iter().map(|family| (family.name, Block::Sources(family)));
        let ours = of_toggles.chain(of_agents).chain(of_sources);
        let theirs = snapshot.gathered.iter().enumerate().map(|(i, family)| (family.name(), Block::Gathered(i)));
        let mut blocks: Vec<_> = ours.chain(theirs).collect();
        blocks.sort_by(|(a, _), (b, _)| b.cmp(a));
        Self { blocks: blocks.into_iter().map(|(_, block)| block).collect(), done: 0, headed: false }
    }

    /// The next chunk, of the snapshot that this encoder was made for; `None` after the last.
    pub fn next_chunk(&mut self, snapshot: &Snapshot) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(CHUNK + CHUNK / 16);
        while out.len() < CHUNK
            && let Some(&block) = self.blocks.last()
        {
            let finished = match block {
                Block::Toggles(family) => self.put_family(&mut out, family, &snapshot.toggles),
                Block::Agents(family) => self.put_family(&mut out, family, &snapshot.agents),
                Block::Sources(family) => self.put_family(&mut out, family, &snapshot.sources),
                Block::Gathered(index) => put_gathered(&mut out, &snapshot.gathered[index]),
            };
            if finished {
                self.blocks.pop();
                (self.done, self.headed) = (0, false);
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// Writes series until the chunk is full or the family is finished, and says whether it is.
    fn put_family<T>(&mut self, out: &mut Vec<u8>, family: &'static Family<T>, things: &[Labelled<T>]) -> bool {
        for (labels, thing) in things.get(self.done..).unwrap_or_default() {
            if out.len() >= CHUNK {
                return false;
            }
            let before = out.len();
            family.put(out, labels, thing);
            self.done += 1;
            if !self.headed && out.len() > before {
                self.headed = true;
                let head = ["# HELP ", family.name, " ", family.help, "\n# TYPE ", family.name, " ", family.kind, "\n"];
                out.splice(before..before, head.concat().into_bytes());
            }
        }
        true
    }
}

fn put_gathered(out: &mut Vec<u8>, family: &MetricFamily) -> bool {
    let before = out.len();
    if let Err(error) = prometheus::Encoder::encode(&TextEncoder::new(), std::slice::from_ref(family), out) {
        out.truncate(before);
        tracing::error!(family = family.name(), %error, "family could not be encoded");
    }
    true
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

    fn chunks(snapshot: &Snapshot) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(snapshot);
        std::iter::from_fn(|| encoder.next_chunk(snapshot)).collect()
    }

    fn text(snapshot: &Snapshot) -> String {
        String::from_utf8(chunks(snapshot).concat()).unwrap()
    }

    fn labelled(toggle: &Toggle) -> Labelled<Toggle> {
        (watch_labels(&toggle.watch), toggle.clone())
    }

    fn text_of(toggle: &Toggle) -> String {
        text(&Snapshot::new(vec![labelled(toggle)], vec![], vec![], vec![]))
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
        let text = text(&Snapshot::new(vec![labelled(&toggle)], vec![], vec![], gathered));
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
    fn the_chunks_of_many_watches_are_the_text_of_one_by_one_sorted_by_family() {
        let toggles: Vec<_> =
            (0..2000).map(|i| labelled(&Toggle::new(Arc::new(watch(&format!("w{i}"), "p")), at(1)))).collect();
        let chunks = chunks(&Snapshot::new(toggles.clone(), vec![], vec![], vec![]));
        assert!(chunks.len() > 5 && chunks.iter().all(|chunk| chunk.len() < CHUNK + CHUNK / 16));
        let whole = String::from_utf8(chunks.concat()).unwrap();
        let mut each: Vec<_> = Vec::new();
        for toggle in toggles {
            each.extend(text(&Snapshot::new(vec![toggle], vec![], vec![], vec![])).lines().map(str::to_owned));
        }
        let heads: Vec<_> = whole.lines().filter(|line| line.starts_with('#')).collect();
        let mut distinct = heads.clone();
        distinct.dedup();
        assert_eq!(heads, distinct, "a family has its HELP and TYPE once");
        let (mut whole, mut each): (Vec<_>, Vec<_>) =
            (whole.lines().collect(), each.iter().map(String::as_str).collect());
        whole.sort_unstable();
        each.sort_unstable();
        each.dedup();
        assert_eq!(whole, each);
    }

    #[test]
    fn readers_at_different_places_share_a_snapshot_and_each_reads_all_of_it() {
        fn can_be_sent<T: Send + 'static>(_: &T) {}
        let toggle = |i| labelled(&Toggle::new(Arc::new(watch(&format!("w{i}"), "p")), at(1)));
        let snapshot = Snapshot::new((0..500).map(toggle).collect(), vec![], vec![], vec![]);
        let whole = text(&snapshot);
        let (mut ahead, mut behind) = (Encoder::new(&snapshot), Encoder::new(&snapshot));
        can_be_sent(&ahead);
        let mut read = [ahead.next_chunk(&snapshot).unwrap(), Vec::new()];
        while let Some(chunk) = behind.next_chunk(&snapshot) {
            read[1].extend(chunk);
            read[0].extend(ahead.next_chunk(&snapshot).unwrap_or_default());
        }
        assert!(read.iter().all(|read| read == whole.as_bytes()));
    }

    #[test]
    fn agents_have_api_and_id_only() {
        let labels = agent_labels(&ApiName::default_api(), AgentId::parse("9").unwrap());
        assert_eq!(&*labels, r#"api="default",agent_id="9""#);
        assert_eq!(text(&Snapshot::new(vec![], vec![(labels, AgentMock::default())], vec![], vec![])), "");
    }
}
