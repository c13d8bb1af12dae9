//! What must hold for any bytes. The fuzz targets feed them forever, the tests feed the corpora.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cekura_exporter::board::ToggleRow;
use cekura_exporter::cekura;
use cekura_exporter::exposition::{Encoder, Format, Snapshot};
use cekura_exporter::toggle::{
    AgentId, ApiName, LabelName, Labels, ProgressId, Reason, Redactions, Source, Text, Timestamp, Toggle, Watch,
    WatchName,
};
use cekura_exporter::{config, sources};

/// What stands for the API key.
const KEY: &str = "sk-fuzz-key";

/// What a key can be broken up by, and still be read.
const INVISIBLE: [char; 6] = ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}'];

/// An answer's body is decoded or refused, and no text that comes out of it shows a key, a URL, a query or a
/// control character, or is too long.
pub(crate) fn answer(bytes: &[u8]) {
    let hidden = Redactions::default().key(KEY).query("progress_id=it's 1");
    let texts: Vec<Text> = match cekura::decode(bytes, hidden.clone()) {
        Ok(answer) => [answer.status.raw(), answer.message, answer.error].into_iter().flatten().collect(),
        Err(failure) => failure.detail.into_iter().collect(),
    };
    let raw = String::from_utf8_lossy(bytes);
    let cleaned = Text::clean(&raw, &hidden);
    for text in texts.iter().chain(cekura::error_detail(bytes, &hidden).iter()).chain([&cleaned]) {
        let text = text.as_str();
        assert!(text.len() <= Text::MAX_BYTES, "{} bytes", text.len());
        let visible: String = text.chars().filter(|c| !INVISIBLE.contains(c)).collect();
        assert!(!visible.contains(KEY) && !text.contains("http://") && !text.contains("https://"), "{text}");
        assert!(!text.contains("?progress_id="), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

/// A mock status and a page of the list of agents are decoded or refused, and no text that comes out of them quotes
/// the body.
pub(crate) fn mock_status(bytes: &[u8]) {
    let failures = [cekura::decode_mock_status(bytes).err(), cekura::decode_agent_page(bytes).err()];
    for failure in failures.into_iter().flatten() {
        assert_eq!(failure.reason, Reason::Decode);
        let detail = failure.detail.unwrap();
        let known = ["the body", "a field"].iter().any(|start| detail.as_str().starts_with(start));
        assert!(known && detail.as_str().len() < 100, "{detail:?}");
    }
    if let Ok(page) = cekura::decode_agent_page(bytes) {
        assert!(page.agents.iter().all(|(id, _)| id.get() > 0));
    }
}

/// A Retry-After is between nothing and an hour.
pub(crate) fn retry_after(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    if let Some(pause) = cekura::retry_after(bytes, now) {
        assert!(pause > Duration::ZERO && pause <= Duration::from_hours(1), "{pause:?}");
    }
}

/// A configuration is taken, and then what is shown as in force is taken too and is the same; or it
/// is refused with problems that do not show the key.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match config::parse(text) {
        Ok(config) => {
            let shown = config.to_string();
            let again = config::parse(&shown).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
            assert_eq!(again.to_string(), shown);
        }
        Err(problems) => assert!(!problems.0.is_empty()),
    }
}

/// A watch file and the body of a registration are taken with names and agents that differ and known APIs, or
/// are refused with at least one problem of one line.
pub(crate) fn definitions(bytes: &[u8]) {
    let apis = BTreeSet::from([ApiName::default_api()]);
    let body = sources::definition("w", bytes, &apis);
    let body = body.map(|watch| sources::Definitions { watches: vec![watch.into()], agents: vec![] });
    let files = ["f.json", "f.yaml"].map(|name| sources::definitions(Path::new(name), bytes, &apis));
    for read in files.into_iter().chain([body]) {
        match read {
            Ok(read) => {
                let names: BTreeSet<_> = read.watches.iter().map(|watch| watch.name.as_str()).collect();
                assert_eq!(names.len(), read.watches.len(), "{names:?}");
                let agents: BTreeSet<_> = read.agents.iter().map(|agent| agent.key()).collect();
                assert_eq!(agents.len(), read.agents.len(), "{agents:?}");
                assert!(read.watches.iter().all(|watch| apis.contains(&watch.api)));
                assert!(read.agents.iter().all(|agent| apis.contains(&agent.api)));
            }
            Err(problems) => {
                assert!(!problems.0.is_empty());
                assert!(problems.0.iter().all(|problem| problem.to_string().lines().count() == 1), "{problems}");
            }
        }
    }
}

/// Whatever a user writes comes out of the exposition as one label value in either format, and is
/// read back.
pub(crate) fn exposition(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (id, label) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let Ok(progress_id) = ProgressId::parse(id) else { return };
    let watch = Watch {
        name: WatchName::parse("w").unwrap(),
        api: ApiName::default_api(),
        agent_id: AgentId::parse("1").unwrap(),
        progress_id,
        expect: None,
        labels: Labels::from([(LabelName::parse("team").unwrap(), label.into())]),
        source: Source::Config,
    };
    let toggle = Toggle::new(watch.into(), Timestamp::from_millis(1));
    let snapshot = Snapshot::new([ToggleRow::new(toggle)].into_iter().collect(), vec![], vec![], vec![]);
    for format in [Format::Text, Format::OpenMetrics] {
        let mut encoder = Encoder::new(&snapshot, format);
        let chunks: Vec<_> = std::iter::from_fn(|| encoder.next_chunk(&snapshot)).collect();
        let scrape = String::from_utf8(chunks.concat()).unwrap();
        let mut lines = scrape.split('\n').filter(|line| line.starts_with("cekura_toggle_info{"));
        let line = lines.next().unwrap();
        assert_eq!(value_of(line, "team"), label);
        assert_eq!(value_of(line, "progress_id"), id);
        assert_eq!(lines.next(), None);
        let ends = scrape.split('\n').filter(|line| *line == "# EOF").count();
        assert_eq!(ends, usize::from(format == Format::OpenMetrics));
    }
}

/// The value of a label in a line, unescaped. Labels are read one after the other: a value may end
/// like the name of another label.
fn value_of(line: &str, label: &str) -> String {
    let mut rest = line.split_once('{').unwrap().1;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        let (value, after) = quoted(after);
        if name == label {
            return value;
        }
        rest = after.strip_prefix(',').unwrap();
    }
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next().unwrap() {
            (at, '"') => return (value, &text[at + 1..]),
            (_, '\\') => match chars.next().unwrap().1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            (_, c) => value.push(c),
        }
    }
}
