//! Watches and agents that are defined outside the configuration: in watch files, and in the bodies of registrations.

use std::collections::BTreeSet;
use std::path::Path;

use super::watches::{Definitions, SharedKeys, file_entries, file_entry, unnamed_watch};
use crate::document::{DocumentSource, Problem, Problems, json, show, text_of, validated, yaml};
use crate::toggle::{ApiName, Source, Watch, WatchName};

/// Reads the watch file at `path`, whose content is `text`: one entry or a list of entries, with the same keys as in
/// the configuration. An entry without `progress_id` is an agent. The file is JSON if its name ends in `.json`, else
/// YAML. A file without content is an empty list.
///
/// # Errors
/// Every problem, with the path of the key within the file, like `[3].agent_id`.
pub fn definitions(path: &Path, text: &[u8], apis: &BTreeSet<ApiName>) -> Result<Definitions, Problems> {
    let source = DocumentSource::File(path);
    let text = text_of(source, text)?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    // A blank file is not valid JSON, but it is empty YAML.
    let is_blank = text.trim_start_matches('\u{feff}').trim().is_empty();
    let mut parsed = if is_json && !is_blank { json::parse(text, source) } else { yaml::parse(text, source) };
    let elements = parsed.as_mut().map(|(tree, _)| tree.take_elements()).unwrap_or_default();
    validated(source, parsed, |node| {
        if node.is_map() && node.has(WATCHES) && !node.has("agent_id") && !node.has("progress_id") {
            let what = "does not belong in a watch file: put the entries at the top, as a list";
            if let Some(section) = node.section() {
                section.note(WATCHES, what);
            }
            Definitions::default()
        } else if node.is_map() {
            file_entry(&node, apis)
        } else if node.is_list() || node.is_empty() {
            file_entries(&node, elements, apis)
        } else {
            node.note("must be one watch or agent, which is a map of keys to values, or a list of them");
            Definitions::default()
        }
    })
}

/// Reads a registration of the watch `name`, whose body is `body`: a JSON object with the keys of an entry in the
/// configuration, except for the name.
///
/// # Errors
/// Every problem. Its origin is `path` if it is with the name, else `body`.
pub fn definition(name: &str, body: &[u8], apis: &BTreeSet<ApiName>) -> Result<Watch, Problems> {
    let name = WatchName::parse(name).map_err(|what| Problem::new("path", "", format!("`{}` {what}", show(name))));
    let source = DocumentSource::Text("body");
    let slot = text_of(source, body).map_err(Problems::from).and_then(|text| {
        validated(source, json::parse(text, source), |node| {
            if node.is_map() {
                return unnamed_watch(&node, &SharedKeys::new(Some(apis)));
            }
            node.note("must be one JSON object");
            None
        })
    });
    match (name, slot) {
        (Ok(name), Ok(Some(slot))) => Ok(slot.named(name, Source::Http)),
        (name, slot) => {
            let of_slot = slot.err().into_iter().flat_map(|problems| problems.0);
            Err(Problems(name.err().into_iter().chain(of_slot).collect()))
        }
    }
}

/// The key of the configuration that holds the watch list.
const WATCHES: &str = "watches";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::{AgentSource, Expect, LabelName, Labels};
    use proptest::prelude::*;

    fn apis() -> BTreeSet<ApiName> {
        ["default", "eu"].map(|name| ApiName::parse(name).unwrap()).into()
    }

    fn read(name: &str, text: &str) -> Result<Definitions, String> {
        definitions(Path::new(name), text.as_bytes(), &apis()).map_err(|problems| problems.to_string())
    }

    fn file(name: &str, text: &str) -> Result<Vec<Arc<Watch>>, String> {
        read(name, text).map(|read| read.watches)
    }

    fn names(name: &str, text: &str) -> Vec<String> {
        file(name, text).unwrap_or_else(|what| panic!("{what}")).iter().map(|w| w.name.to_string()).collect()
    }

    fn problems(name: &str, text: &str) -> String {
        file(name, text).expect_err(text)
    }

    fn put(name: &str, body: &str) -> Result<Watch, String> {
        definition(name, body.as_bytes(), &apis()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_file_has_one_entry_or_a_list_of_entries() {
        assert_eq!(names("f.yaml", "agent_id: 1\nprogress_id: p\n"), ["agent-1"]);
        assert_eq!(names("f.json", r#"{"agent_id": 1, "progress_id": "p"}"#), ["agent-1"]);
        assert_eq!(
            names("f", "- {agent_id: 2, progress_id: p}\n- {agent_id: 1, progress_id: p}"),
            ["agent-2", "agent-1"]
        );
        let json =
            r#"[{"agent_id": 1, "progress_id": "p", "name": "b"}, {"agent_id": 1, "progress_id": "p", "name": "a"}]"#;
        for name in ["f.json", "f.JSON", "f.yaml", "f.yml"] {
            assert_eq!(names(name, json), ["b", "a"], "{name}");
        }
    }

    #[test]
    fn a_list_keeps_its_order_beyond_ten_entries() {
        let entries: Vec<_> = (1..=12).map(|n| format!(r#"{{"agent_id": {n}, "progress_id": "p"}}"#)).collect();
        let expected: Vec<_> = (1..=12).map(|n| format!("agent-{n}")).collect();
        assert_eq!(names("f.json", &format!("[{}]", entries.join(","))), expected);
    }

    #[test]
    fn a_file_without_entries_is_an_empty_list() {
        for text in ["", " \n", "\u{feff}", "\u{feff}\n", "null", "[]", "[ ]\n"] {
            assert_eq!(names("f.json", text), [""; 0], "{text:?}");
            assert_eq!(names("f.yaml", text), [""; 0], "{text:?}");
        }
        assert_eq!(names("f.yaml", "# later\n"), [""; 0]);
    }

    #[test]
    fn every_key_of_an_entry_is_read() {
        let yaml = "\u{feff}- name: a\n  agent_id: 7\n  progress_id: 0123\n  expect: disabled\n  api: eu\n  labels: {team: no}\n";
        let json =
            "\u{feff}[{\"name\": \"a\", \"agent_id\": \"7\", \"progress_id\": \"0123\", \"expect\": \"disabled\",
            \"api\": \"eu\", \"labels\": {\"team\": \"no\", \"none\": null}}]";
        let watch = file("f.yaml", yaml).unwrap().remove(0);
        assert_eq!(watch.progress_id.as_str(), "0123");
        assert_eq!((watch.expect, watch.source, watch.api.as_str()), (Some(Expect::Disabled), Source::File, "eu"));
        assert_eq!(watch.labels, [(LabelName::parse("team").unwrap(), "no".into())].into());
        assert_eq!(file("f.json", json).unwrap(), [watch]);
    }

    #[test]
    fn all_problems_of_a_file_are_reported_with_file_and_path() {
        let found = problems(
            "dir/f.yaml",
            "- {agent_id: 0, progress_id: ''}\n- {agent_id: 1, progress_id: p, api: us}\n- []\n- {agent_id: 1, \
             progress_id: p, labels: {job: x, a: [1]}, nmae: x}\n- {agent_id: 1, agent_id: 1, progress_id: p}\n- x\n",
        );
        for expected in [
            "dir/f.yaml:1:4: [0].agent_id: `0` is not an agent id",
            "dir/f.yaml:1:17: [0].progress_id: `` is empty",
            "dir/f.yaml:2:33: [1].api: `us` is not under `apis`; known are: default, eu",
            "dir/f.yaml:3:3: [2]: must be a map of keys to values",
            "dir/f.yaml:4:3: [3]: the name `agent-1` is taken by [1]: give each watch a name of its own",
            "dir/f.yaml:4:42: [3].labels.job: is reserved",
            "dir/f.yaml:4:50: [3].labels.a: must be a single value",
            "dir/f.yaml:4:59: [3].nmae: is not a known key: did you mean `name`? Known here are name, agent_id, progress_id, expect, api, labels",
            "dir/f.yaml:5:17: [4].agent_id: is given a second time: keep one of them",
            "dir/f.yaml:5:3: [4]: the name `agent-1` is taken by [1]",
            "dir/f.yaml:6:3: [5]: must be a map of keys to values",
        ] {
            assert!(found.contains(expected), "{expected}\n--\n{found}");
        }
        assert_eq!(found.lines().count(), 11, "{found}");
    }

    #[test]
    fn null_in_json_unsets_a_known_key_and_makes_no_other_key_known() {
        let good =
            r#"{"name": null, "agent_id": 1, "progress_id": "p", "api": null, "labels": {"team": null, "a": "b"}}"#;
        let watch = file("f.json", good).unwrap().remove(0);
        assert_eq!((watch.name.as_str(), watch.labels.iter().count()), ("agent-1", 1));
        let bad = r#"{"agent_id": 1, "progress_id": "p", "nmae": null, "labels": {"job": null, "__x": null}}"#;
        let found = problems("f.json", bad);
        for expected in ["labels.__x: is reserved", "labels.job: is reserved", "nmae: is not a known key"] {
            assert!(found.contains(expected), "{expected}\n--\n{found}");
        }
        assert_eq!(found.lines().count(), 3, "{found}");
        assert!(put("w", bad).is_err());
    }

    #[test]
    fn an_empty_list_or_map_is_not_taken_for_the_other() {
        assert!(problems("f.yaml", "- {agent_id: 1, progress_id: p, labels: []}").contains("labels: must be a map"));
        assert!(problems("f.yaml", "- []").contains("[0]: must be a map"));
    }

    #[test]
    fn a_syntax_error_after_thousands_of_good_entries_is_the_only_problem() {
        use std::fmt::Write;
        let (mut yaml, mut json) = (String::new(), "[".to_owned());
        for n in 1..=3000 {
            writeln!(yaml, "- {{agent_id: {n}, progress_id: p}}").unwrap();
            writeln!(json, "{{\"agent_id\": {n}, \"progress_id\": \"p\"}},").unwrap();
        }
        let found = problems("f.yaml", &(yaml + "- {agent_id: 1\n"));
        assert!(found.starts_with("f.yaml:3002:") && found.lines().count() == 1, "{found}");
        let found = problems("f.json", &(json + "{]"));
        assert!(found.starts_with("f.json:3001:2: is not JSON") && found.lines().count() == 1, "{found}");
    }

    #[test]
    fn the_watches_of_a_list_share_the_name_of_their_api() {
        let watches = file("f.yaml", "- {agent_id: 1, progress_id: p}\n- {agent_id: 2, progress_id: p}\n").unwrap();
        assert!(std::ptr::eq(watches[0].api.as_str(), watches[1].api.as_str()));
    }

    #[test]
    fn a_long_text_in_the_place_of_an_api_is_shown_in_part() {
        let found = problems("f.yaml", &format!("- {{agent_id: 1, progress_id: p, api: {}}}", "k".repeat(200)));
        assert!(found.contains("[0].api: `kkk") && !found.contains(&"k".repeat(65)), "{found}");
    }

    #[test]
    fn a_file_that_has_its_list_below_a_key_says_where_the_entries_belong() {
        let what = "watches: does not belong in a watch file: put the entries at the top, as a list";
        for name in ["f.json", "f.yaml"] {
            let found = problems(name, r#"{"watches": [{"agent_id": 1, "progress_id": "p"}]}"#);
            assert_eq!(found, format!("{name}:1:2: {what}"));
        }
        assert_eq!(problems("f.yaml", "apis: {}\nwatches: []\n"), format!("f.yaml:2:1: {what}"));
        assert!(problems("f.yaml", "agent_id: 1\nwatches: []\n").contains("watches: is not a known key"));
    }

    #[test]
    fn white_space_at_the_ends_of_ids_and_names_is_refused_wherever_they_come_from() {
        let json = r#"{"agent_id": 7, "progress_id": "p\n"}"#;
        for (found, origin) in [(put("a", json).unwrap_err(), "body"), (problems("f.json", json), "f.json:1:17")] {
            assert_eq!(found, format!("{origin}: progress_id: `p\\n` begins or ends with white space: remove it"));
        }
        let entry = "{name: ' a', agent_id: 7, progress_id: ' p'}";
        let in_config = crate::config::parse(&format!("watches: [{entry}]")).unwrap_err().to_string();
        for found in [problems("f.yaml", entry), in_config] {
            assert!(found.contains("name: ` a` begins or ends with white space"), "{found}");
            assert!(found.contains("progress_id: ` p` begins or ends with white space"), "{found}");
        }
    }

    #[test]
    fn the_problems_of_a_single_entry_have_no_index() {
        assert!(problems("f.yaml", "agent_id: x\nprogress_id: p").starts_with("f.yaml:1:1: agent_id: `x` is not"));
        for (name, empty) in
            [("f.yaml", "name: a"), ("f.json", r#"{"name": "a"}"#), ("f.json", r#"{"progress_id": null}"#)]
        {
            let found = problems(name, empty);
            assert!(found.contains("agent_id: is missing") && found.contains("progress_id: is missing"), "{found}");
        }
        for (name, empty) in [("f.yaml", "{}"), ("f.json", "{}"), ("f.json", r#"{"agent_id": null}"#)] {
            let found = problems(name, empty);
            assert!(found.ends_with(": agent_id: is missing") && found.lines().count() == 1, "{found}");
        }
        let twice = problems("f.json", "{\"agent_id\": 1,\n\"agent_id\": 2, \"progress_id\": \"p\"}");
        assert_eq!(twice, "f.json:2:1: agent_id: is given a second time: keep one of them");
    }

    #[test]
    fn an_entry_without_a_progress_id_is_an_agent() {
        let found =
            read("f.yaml", "- {agent_id: 2, expect: disabled, labels: {team: x}}\n- {agent_id: 1, progress_id: p}\n")
                .unwrap();
        assert_eq!((found.watches.len(), found.agents.len()), (1, 1));
        let agent = &found.agents[0];
        assert_eq!((agent.agent_id.get(), agent.expect, agent.source), (2, Some(Expect::Disabled), AgentSource::File));
        assert_eq!(read("f.json", r#"{"agent_id": 7}"#).unwrap().agents[0].agent_id.get(), 7);
    }

    #[test]
    fn an_entry_that_lacks_only_the_progress_id_of_a_watch_is_refused() {
        let null = problems("f.json", r#"{"agent_id": 7, "progress_id": null}"#);
        assert_eq!(null, "f.json:1:17: progress_id: is missing");
        assert_eq!(problems("f.yaml", "{name: a, agent_id: 7}"), "f.yaml: progress_id: is missing");
        assert!(put("w", r#"{"agent_id": 7}"#).unwrap_err().contains("progress_id: is missing"));
    }

    #[test]
    fn an_agent_is_listed_once_and_its_labels_may_not_be_those_of_its_series() {
        let found = problems(
            "f.yaml",
            "- {agent_id: 7}\n- {agent_id: 7, api: default}\n- {agent_id: 8, labels: {provider: x}}\n- {agent_id: 9, labels: {kind: x, job: y}}\n",
        );
        assert!(found.contains("f.yaml:2:3: [1]: is the agent of [0] again: keep one of them"), "{found}");
        assert!(found.contains("[2].labels.provider: is reserved: series of agents"), "{found}");
        assert!(
            found.contains("[3].labels.kind: is reserved") && found.contains("[3].labels.job: is reserved"),
            "{found}"
        );
        assert_eq!(found.lines().count(), 4, "{found}");
        let watch = r#"{"agent_id": 7, "progress_id": "p", "labels": {"provider": "x", "kind": "y"}}"#;
        assert!(put("w", watch).is_ok(), "series of watches have no such label");
    }

    #[test]
    fn what_is_no_text_or_no_list_is_one_problem() {
        let binary = definitions(Path::new("f.yaml"), b"a: \xff", &apis()).unwrap_err().to_string();
        assert_eq!(binary, "f.yaml: is not UTF-8 text");
        assert_eq!(problems("f.yaml", "a: [").lines().count(), 1);
        assert_eq!(problems("f.json", "[{]"), "f.json:1:3: is not JSON: key must be a string");
        assert!(problems("f.json", "- agent_id: 1").contains("is not JSON"));
        for (name, scalar) in [("f.json", "1"), ("f.json", "\"x\""), ("f.yaml", "x")] {
            assert!(problems(name, scalar).ends_with("or a list of them"));
        }
    }

    #[test]
    fn a_registration_is_an_object_without_a_name() {
        let watch = put("a", r#"{"agent_id": 7, "progress_id": 12, "expect": null, "labels": {"team": "x"}}"#).unwrap();
        assert_eq!((watch.name.as_str(), watch.agent_id.get(), watch.progress_id.as_str()), ("a", 7, "12"));
        assert_eq!((watch.expect, watch.api.as_str(), watch.source), (None, "default", Source::Http));
        assert_eq!(put("a", r#"{"agent_id": 7, "progress_id": "p"}"#).unwrap().labels, Labels::default());
        for body in ["null", "[]", "[1]", "1", "\"x\"", r#"[{"agent_id": 7, "progress_id": "p"}]"#] {
            assert_eq!(put("a", body).unwrap_err(), "body: must be one JSON object", "{body}");
        }
        for body in ["", " ", "agent_id: 7", "{\"agent_id\": 7} x"] {
            assert!(put("a", body).unwrap_err().contains("is not JSON"), "{body}");
        }
        assert_eq!(definition("a", b"\xff", &apis()).unwrap_err().to_string(), "body: is not UTF-8 text");
    }

    #[test]
    fn all_problems_of_a_registration_are_reported() {
        let found = put("a b", r#"{"name": "a", "agent_id": 1.0, "expect": true, "api": "us", "labels": {"le": 1}}"#);
        let expected = [
            "path: `a b` is not a watch name",
            "body: agent_id: `1.0` is not an agent id",
            "body: progress_id: is missing",
            "body: expect: `true` is neither",
            "body: api: `us` is not under `apis`",
            "body: labels.le: is reserved",
            "body: name: is not a known key; known here are agent_id, progress_id, expect, api, labels",
        ];
        let found = found.unwrap_err();
        assert_eq!(found.lines().count(), expected.len(), "{found}");
        for expected in expected {
            assert!(found.contains(expected), "{expected}\n--\n{found}");
        }
    }

    #[test]
    fn a_watch_without_an_api_needs_the_default_one() {
        let only_eu = BTreeSet::from([ApiName::parse("eu").unwrap()]);
        let found = definition("a", br#"{"agent_id": 1, "progress_id": "p"}"#, &only_eu).unwrap_err().to_string();
        assert!(found.starts_with("body: api: is missing, and the API `default` is not under `apis`"), "{found}");
    }

    fn valid_watch() -> impl Strategy<Value = Watch> {
        let label = ("[a-z][a-z0-9_]{0,9}".prop_filter_map("reserved", |n| LabelName::parse(&n).ok()), any::<String>());
        let labels = proptest::collection::btree_map(label.0, label.1.prop_map(Box::from), 0..4);
        let labels = labels.prop_map(|labels| labels.into_iter().collect());
        let progress_id = any::<String>().prop_filter_map("length", |id| crate::toggle::ProgressId::parse(&id).ok());
        let expect = proptest::option::of(prop_oneof![Just(Expect::Enabled), Just(Expect::Disabled)]);
        ("[A-Za-z0-9][A-Za-z0-9._-]{0,127}", 1..=u64::MAX, progress_id, expect, any::<bool>(), labels).prop_map(
            |(name, agent_id, progress_id, expect, eu, labels)| Watch {
                name: WatchName::parse(&name).unwrap(),
                api: ApiName::parse(if eu { "eu" } else { "default" }).unwrap(),
                agent_id: crate::toggle::AgentId::parse(&agent_id.to_string()).unwrap(),
                progress_id,
                expect,
                labels,
                source: Source::Http,
            },
        )
    }

    fn written(watch: &Watch) -> serde_json::Value {
        let labels: serde_json::Map<_, _> =
            watch.labels.iter().map(|(name, value)| (name.to_string(), value.to_string().into())).collect();
        serde_json::json!({
            "agent_id": watch.agent_id.get(),
            "progress_id": watch.progress_id.as_str(),
            "expect": watch.expect.map(Expect::as_str),
            "api": watch.api.as_str(),
            "labels": labels,
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_reads_back_as_it_was(watch in valid_watch()) {
            let mut json = written(&watch);
            let read = definition(watch.name.as_str(), json.to_string().as_bytes(), &apis());
            prop_assert_eq!(read.as_ref(), Ok(&watch));
            json["name"] = watch.name.as_str().into();
            let file = serde_json::to_string_pretty(&[json]).unwrap();
            let read = definitions(Path::new("f.json"), file.as_bytes(), &apis());
            prop_assert_eq!(read.map(|read| read.watches), Ok(vec![Watch { source: Source::File, ..watch }.into()]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), name in "\\PC{0,4}") {
            let _ = definition(&name, &bytes, &apis());
            let _ = definitions(Path::new("f.json"), &bytes, &apis());
            let _ = definitions(Path::new("f.yaml"), &bytes, &apis());
        }

        #[test]
        fn no_text_that_is_nearly_right_makes_it_panic(
            text in r#"([{}\[\],: 01"-]|"agent_id":|"progress_id":|"labels":|"p"|null|\\ud83d|\n){0,30}"#,
        ) {
            for (name, text) in [("f.json", text.clone()), ("f.yaml", text.replace('"', ""))] {
                match definitions(Path::new(name), text.as_bytes(), &apis()) {
                    Ok(read) => prop_assert!(read.watches.iter().all(|watch| watch.source == Source::File)),
                    Err(problems) => prop_assert!(!problems.0.is_empty()),
                }
            }
            if let Err(problems) = definition("a", text.as_bytes(), &apis()) {
                prop_assert!(!problems.0.is_empty());
            }
        }
    }
}
