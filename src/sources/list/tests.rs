//! What edits of the watch list change.

use proptest::prelude::*;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::board::Board;
use crate::toggle::sample::{at, watch};

fn api(name: &str) -> ApiName {
    ApiName::parse(name).unwrap()
}

fn file(path: &str) -> Origin {
    Origin::File(Path::new(path).into())
}

fn of(origin: &Origin, name: &str, progress_id: &str, api_name: &str) -> WatchDefinition {
    let watch = Watch { source: origin.source(), api: api(api_name), ..watch(name, progress_id) };
    WatchDefinition::from(Arc::new(watch))
}

fn list(apis: &[&str]) -> WatchList {
    let mut list = WatchList::default();
    let mut edit = list.edit();
    edit.set_apis(apis.iter().map(|name| api(name)).collect());
    assert_eq!(edit.finish(&|_| false), EditResult::default());
    list
}

fn defines(list: &mut WatchList, origin: &Origin, name: &str) -> EditResult {
    let mut edit = list.edit();
    edit.define(origin, of(origin, name, "p", "default"));
    edit.finish(&|_| false)
}

fn watched(definition: WatchDefinition, may_come_back: bool) -> WatchChange {
    WatchChange { name: definition.watch.name.clone(), definition: Some(definition), may_come_back }
}

fn gone(name: &str, may_come_back: bool) -> WatchChange {
    WatchChange { name: watch(name, "p").name, definition: None, may_come_back }
}

fn counts(list: &WatchList) -> Vec<(usize, usize)> {
    list.counts().map(|(_, count)| (count.watches, count.rejected)).collect()
}

#[test]
fn precedence_is_by_origin_and_not_by_time_and_a_definition_that_lost_comes_back() {
    let mut list = list(&["default"]);
    let order = [Origin::Config, file("/a"), file("/b"), Origin::Http];
    // Each has a run of its own.
    let of = |i: usize| of(&order[i], "w", &format!("p{i}"), "default");
    for i in (0..order.len()).rev() {
        let mut edit = list.edit();
        edit.define(&order[i], of(i));
        assert_eq!(edit.finish(&|_| false).changes, [watched(of(i), i + 1 < order.len())]);
    }
    assert_eq!(counts(&list), [(1, 0), (0, 2), (0, 1)]);
    for (i, origin) in order.iter().enumerate() {
        assert_eq!(list.origin_of(&watch("w", "p").name), Some(origin));
        let mut edit = list.edit();
        edit.remove(origin, &watch("w", "p").name);
        let is_last = i + 1 == order.len();
        let expected = if is_last { gone("w", false) } else { watched(of(i + 1), false) };
        assert_eq!(edit.finish(&|_| false).changes, [expected]);
    }
    assert_eq!(counts(&list), [(0, 0); 3]);
}

#[test]
fn a_definition_that_loses_is_reported_once_with_the_origin_that_precedes_it() {
    let mut list = list(&["default"]);
    defines(&mut list, &Origin::Config, "w");
    let edited = defines(&mut list, &Origin::Http, "w");
    assert_eq!(edited.changes, []);
    assert_eq!((&edited.refused[0].origin, &edited.refused[0].by), (&Origin::Http, &Some(Origin::Config)));
    assert_eq!(defines(&mut list, &file("/a"), "w").refused.len(), 1, "the file's, and not the other one again");
    let rejected = list.rejected(9);
    let origins: Vec<_> = rejected.iter().map(|refused| (&refused.origin, &refused.by)).collect();
    assert_eq!(origins, [(&file("/a"), &Some(Origin::Config)), (&Origin::Http, &Some(Origin::Config))]);
    assert_eq!(list.rejected(1), rejected[..1]);
}

#[test]
fn a_watch_of_an_api_that_is_not_configured_waits_for_it() {
    let mut list = list(&["default"]);
    let mut edit = list.edit();
    edit.define(&Origin::Http, of(&Origin::Http, "w", "p", "staging"));
    let edited = edit.finish(&|_| false);
    assert_eq!((edited.changes.len(), edited.refused[0].by.clone()), (0, None));
    assert_eq!(counts(&list), [(0, 0), (0, 0), (0, 1)]);
    let mut edit = list.edit();
    edit.set_apis([api("default"), api("staging")].into());
    assert_eq!(edit.finish(&|_| false).changes.len(), 1);
    let mut edit = list.edit();
    edit.set_apis([api("default")].into());
    assert_eq!(edit.finish(&|_| false).changes, [gone("w", true)]);
}

#[test]
fn a_watch_that_moves_from_one_source_to_another_in_one_edit_is_never_gone() {
    let mut list = list(&["default"]);
    defines(&mut list, &Origin::Config, "w");
    let mut edit = list.edit();
    edit.replace(&Origin::Config, []);
    edit.replace(&file("/a"), [of(&file("/a"), "w", "p", "default")]);
    assert_eq!(edit.finish(&|_| false).changes, [watched(of(&file("/a"), "w", "p", "default"), false)]);
    let mut edit = list.edit();
    edit.replace(&file("/a"), [of(&file("/a"), "w", "p", "default")]);
    assert_eq!(edit.finish(&|_| false), EditResult::default(), "the same again changes nothing");
}

/// A step of an edit, of the list and of the model.
#[derive(Debug, Clone)]
enum Step {
    Replace(Origin, Vec<(u8, u8, bool)>),
    Register(u8, u8, bool),
    Deregister(u8),
    Apis(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let entries = || proptest::collection::vec((0..6u8, 0..3u8, any::<bool>()), 0..6);
    let origin = prop_oneof![Just(Origin::Config), Just(file("/a")), Just(file("/b"))];
    prop_oneof![
        3 => (origin, entries()).prop_map(|(origin, entries)| Step::Replace(origin, entries)),
        3 => (0..6u8, 0..3u8, any::<bool>()).prop_map(|(name, run, staging)| Step::Register(name, run, staging)),
        2 => (0..6u8).prop_map(Step::Deregister),
        1 => any::<bool>().prop_map(Step::Apis),
    ]
}

fn definition(origin: &Origin, (name, run, staging): (u8, u8, bool)) -> WatchDefinition {
    of(origin, &format!("w{name}"), &format!("p{run}"), if staging { "staging" } else { "default" })
}

/// All definitions. Of each name the first one whose API is configured takes effect.
type Model = BTreeMap<(WatchName, Origin), WatchDefinition>;

fn apply_to_model(model: &mut Model, apis: &mut Vec<&str>, step: &Step) {
    match step {
        Step::Replace(origin, entries) => {
            model.retain(|(_, from), _| from != origin);
            for entry in entries {
                let definition = definition(origin, *entry);
                model.insert((definition.watch.name.clone(), origin.clone()), definition);
            }
        }
        Step::Register(name, run, staging) => {
            let definition = definition(&Origin::Http, (*name, *run, *staging));
            model.insert((definition.watch.name.clone(), Origin::Http), definition);
        }
        Step::Deregister(name) => drop(model.remove(&(watch(&format!("w{name}"), "p").name, Origin::Http))),
        Step::Apis(staging) => *apis = if *staging { vec!["default", "staging"] } else { vec!["default"] },
    }
}

fn apply_to_edit(edit: &mut Edit<'_>, step: &Step) {
    match step {
        Step::Replace(origin, entries) => {
            let last: BTreeMap<_, _> = entries.iter().map(|entry| (entry.0, *entry)).collect();
            edit.replace(origin, last.into_values().map(|entry| definition(origin, entry)));
        }
        Step::Register(name, run, staging) => {
            edit.define(&Origin::Http, definition(&Origin::Http, (*name, *run, *staging)));
        }
        Step::Deregister(name) => edit.remove(&Origin::Http, &watch(&format!("w{name}"), "p").name),
        Step::Apis(true) => edit.set_apis([api("default"), api("staging")].into()),
        Step::Apis(false) => edit.set_apis([api("default")].into()),
    }
}

proptest! {
    #[test]
    fn any_sequence_of_edits_leaves_exactly_the_watches_that_the_rules_give(
        edits in proptest::collection::vec(proptest::collection::vec(any_step(), 1..4), 0..30)
    ) {
        let (mut model, mut apis) = (Model::new(), vec!["default"]);
        let (mut list, board) = (list(&["default"]), Board::default());
        for (second, steps) in (0..).zip(edits) {
            let mut edit = list.edit();
            for step in &steps {
                apply_to_model(&mut model, &mut apis, step);
                apply_to_edit(&mut edit, step);
            }
            let edited = edit.finish(&|_| false);
            board.update(&edited.changes, at(second));
            let mut expected: BTreeMap<WatchName, WatchDefinition> = BTreeMap::new();
            for ((name, _), definition) in &model {
                if apis.contains(&definition.watch.api.as_str()) {
                    expected.entry(name.clone()).or_insert_with(|| definition.clone());
                }
            }
            let shown: Vec<_> = board.rows().iter().map(|row| row.toggle.watch.clone()).collect();
            let expected: Vec<_> = expected.into_values().map(|definition| definition.watch).collect();
            prop_assert_eq!(&shown, &expected);
            for (source, count) in list.counts() {
                let defined = model.keys().filter(|(_, origin)| origin.source() == source).count();
                let watched = expected.iter().filter(|watch| watch.source == source).count();
                prop_assert_eq!((count.watches, count.rejected), (watched, defined - watched));
                let rejected = list.rejected(usize::MAX);
                let rejected = rejected.iter().filter(|refused| refused.origin.source() == source).count();
                prop_assert_eq!(rejected, defined - watched);
            }
        }
    }
}
