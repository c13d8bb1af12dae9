use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use redb::{ReadableDatabase, StorageBackend};
use tempfile::TempDir;

use super::*;
use crate::store::{Registration, SavedAgent, SavedToggle};
use crate::toggle::sample::{self, answer, at};
use crate::toggle::{
    AgentId, Answer, ApiName, ClockJump, Event, EventKind, Expect, Failure, LabelName, MockStatus, Outcome, ProgressId,
    Provider, Reason, ReportedStatus, Source, Status, Tally, Text, Timestamp, Toggle, Watch, WatchName,
};

/// A folder of its own, and the path of a state file in it.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    (folder, path)
}

fn open(path: &Path) -> (FileStore, Saved) {
    FileStore::open(path).unwrap()
}

fn saved(path: &Path) -> Saved {
    open(path).1
}

fn name(name: &str) -> WatchName {
    WatchName::parse(name).unwrap()
}

fn registration(name: &str, progress_id: &str) -> Registration {
    let watch = Watch { source: Source::Http, ..sample::watch(name, progress_id) };
    Registration { watch: Arc::new(watch), started: at(1), registered: at(2) }
}

fn put(name: &str) -> RegistrationChange {
    RegistrationChange::Put(registration(name, "p"))
}

fn names(saved: &Saved) -> Vec<&str> {
    saved.registrations.iter().map(|registration| registration.watch.name.as_str()).collect()
}

fn completed(name: &str) -> Toggle {
    let mut toggle = Toggle::new(Arc::new(sample::watch(name, "p")), at(0));
    toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(1));
    toggle
}

fn labelled() -> Watch {
    Watch { labels: [(LabelName::parse("team").unwrap(), "x".into())].into(), ..sample::watch("a", "p") }
}

fn agent() -> ((ApiName, AgentId), SavedAgent) {
    let mut agent = SavedAgent::default();
    let toggle = completed("a");
    agent.told.observe(&labelled(), &toggle.run, 3, at(1));
    ((ApiName::default_api(), AgentId::parse("4321").unwrap()), agent)
}

/// A file with something in every table, closed.
fn some_file() -> (TempDir, PathBuf) {
    let (folder, path) = folder();
    let (store, _) = open(&path);
    let registrations: Vec<_> = (0..40).map(|i| put(&format!("w{i}"))).collect();
    store.register(&registrations).unwrap();
    let toggles: Vec<_> =
        (0..40).map(|i| (name(&format!("w{i}")), vec![SavedToggle::of(&completed("w"), i)])).collect();
    let (key, agent) = agent();
    store.save(&toggles, &[(key, Some(agent))]).unwrap();
    (folder, path)
}

/// What a kill would leave behind: the bytes of the file while it is open.
fn killed_file() -> (TempDir, PathBuf) {
    let (folder, path) = some_file();
    let (store, _) = open(&path);
    store.register(&[put("last")]).unwrap();
    let bytes = fs::read(&path).unwrap();
    drop(store);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Puts raw values into a file that is closed.
fn tamper(path: &Path, work: impl FnOnce(&WriteTransaction)) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    work(&transaction);
    transaction.commit().unwrap();
}

fn state_of(path: &Path) -> (Vec<u8>, SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

/// That the file is refused, by `open` and `check` alike, with a sentence that has `part` in it,
/// and is as it was.
#[track_caller]
fn assert_refused(path: &Path, part: &str) {
    let before = state_of(path);
    for error in [FileStore::open(path).unwrap_err(), FileStore::check(path).unwrap_err()] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(state_of(path) == before, "the file was touched");
}

// === What is kept ===

#[test]
fn registrations_come_back_whole_and_sorted_by_name() {
    let (_folder, path) = folder();
    let labels = [(LabelName::parse("team").unwrap(), "a \"b\"\n\u{1f600}".into())].into_iter().collect();
    let full = Watch {
        expect: Some(Expect::Disabled),
        labels,
        agent_id: AgentId::parse("18446744073709551615").unwrap(),
        ..sample::watch("b", "\"é\\\u{0}\n")
    };
    let full = Watch { source: Source::Http, ..full };
    let full = Registration { watch: Arc::new(full), started: at(5), registered: at(9) };
    let (store, empty) = open(&path);
    assert_eq!(empty, Saved::default());
    store.register(&[RegistrationChange::Put(full.clone()), put("c"), put("a")]).unwrap();
    drop(store);
    assert_eq!(saved(&path).registrations, [registration("a", "p"), full, registration("c", "p")]);
}

#[test]
fn changes_are_made_in_the_order_given() {
    let (_folder, path) = folder();
    let (store, _) = open(&path);
    let remove = |gone: &str| RegistrationChange::Remove(name(gone));
    store.register(&[put("a"), remove("a"), remove("b"), put("b"), put("c")]).unwrap();
    store.register(&[RegistrationChange::Put(registration("c", "q")), remove("d")]).unwrap();
    store.register(&[]).unwrap();
    drop(store);
    assert_eq!(saved(&path).registrations, [registration("b", "p"), registration("c", "q")]);
}

#[test]
fn toggles_and_agents_come_back_until_they_are_forgotten() {
    let (_folder, path) = folder();
    let (key, mock) = agent();
    let displaced = SavedToggle { progress_id: ProgressId::parse("q").unwrap(), ..SavedToggle::of(&completed("a"), 2) };
    let runs = vec![SavedToggle::of(&completed("a"), 3), displaced];
    let (store, _) = open(&path);
    store.save(&[(name("a"), runs.clone())], &[(key.clone(), Some(mock.clone()))]).unwrap();
    drop(store);
    let (store, both) = open(&path);
    assert_eq!(both.toggles["a"].iter().map(|run| &run.run).collect::<Vec<_>>(), [&runs[0].run, &runs[1].run]);
    assert_eq!(both.agents, [(key.clone(), mock)]);
    store.save(&[(name("a"), vec![]), (name("never"), vec![])], &[(key, None)]).unwrap();
    store.save(&[], &[]).unwrap();
    drop(store);
    assert_eq!(saved(&path), Saved::default());
}

/// Prometheus takes a counter that comes back lower for one that began anew, and all of it for new.
#[test]
fn counters_go_on_after_a_good_end_and_count_from_zero_after_any_other() {
    let (_folder, path) = folder();
    let saved = || vec![(name("a"), vec![SavedToggle::of(&completed("a"), 0)])];
    let counted = |saved: &Saved, name: &str| saved.toggles[name][0].tally.polls;
    let (key, mut mock) = agent();
    (mock.live.polls, mock.live.failures) = (7, 2);
    let of_agent = |saved: &Saved| (saved.agents[0].1.live.polls, saved.agents[0].1.live.failures);
    let (store, _) = open(&path);
    store.save(&saved(), &[(key, Some(mock))]).unwrap();
    store.end().unwrap();
    drop(store);
    let (store, both) = open(&path);
    assert_eq!((counted(&both, "a"), of_agent(&both)), (1, (7, 2)));
    // Not ended: what it may have counted and not saved is not known.
    store.save(&[(name("b"), vec![SavedToggle::of(&completed("b"), 0)])], &[]).unwrap();
    drop(store);
    let (store, both) = open(&path);
    let tally = &both.toggles["a"][0].tally;
    assert_eq!((tally.polls, tally.completed, tally.last_completed), (0, 0, completed("a").tally.last_completed));
    assert_eq!((counted(&both, "b"), of_agent(&both)), (0, (0, 0)));
    // What was not saved since stays at zero, what was goes on.
    store.save(&[(name("b"), vec![SavedToggle::of(&completed("b"), 0)])], &[]).unwrap();
    store.end().unwrap();
    drop(store);
    let (_store, both) = open(&path);
    assert_eq!((counted(&both, "a"), counted(&both, "b")), (0, 1));
}

#[test]
fn what_was_saved_with_a_clock_that_was_ahead_is_moved_back_as_a_whole_and_keeps_its_order() {
    let mut toggle = completed("a");
    toggle.redefine(Arc::new(sample::watch("a", "q")), at(5000));
    toggle.apply(Ok(answer(ReportedStatus::Failed, None)), at(5010));
    let (key, mock) = agent();
    let mut saved = Saved {
        registrations: vec![registration("a", "q")],
        toggles: [(name("a"), vec![SavedToggle::of(&toggle, 1)])].into(),
        agents: vec![(key, mock)],
    };
    let same = format!("{saved:?}");
    saved.no_later_than(at(5010));
    assert_eq!(format!("{saved:?}"), same);
    saved.no_later_than(at(4000));
    let tally = &saved.toggles["a"][0].tally;
    assert_eq!(tally.last_failed, Some(at(4000)));
    assert_eq!(
        tally.last_completed,
        completed("a").tally.last_completed.map(|at| at.shifted(ClockJump::from_millis(-1_010_000)))
    );
    assert_eq!(saved.toggles["a"][0].run.started, at(3990));
}

#[test]
fn a_saved_toggle_is_of_the_same_run_only() {
    let toggle = SavedToggle::of(&completed("a"), 0);
    assert!(toggle.is_run_of(&sample::watch("another-name", "p")));
    assert!(!toggle.is_run_of(&sample::watch("a", "q")));
    assert!(!toggle.is_run_of(&Watch { api: ApiName::parse("other").unwrap(), ..sample::watch("a", "p") }));
    assert!(!toggle.is_run_of(&Watch { agent_id: AgentId::parse("1").unwrap(), ..sample::watch("a", "p") }));
}

fn any_text() -> impl Strategy<Value = Text> {
    prop_oneof![".{0,20}", "https://[a-z]{3}\\.example/[a-z\n\u{202e}]{0,9}", "(é\n){600}"]
        .prop_map(|raw| Text::own(&raw))
}

fn any_event() -> impl Strategy<Value = Event> {
    let status = || proptest::sample::select(&Status::ALL[..]);
    let reason = || proptest::sample::select(&Reason::ALL[..]);
    let millis = || (0..9_999_999u64).prop_map(Duration::from_millis);
    let what = prop_oneof![
        "[!-~]{1,9}".prop_map(|id| EventKind::RunStarted { progress_id: ProgressId::parse(&id).unwrap() }),
        (status(), status(), proptest::option::of(millis()), any::<bool>(), proptest::option::of(any_text())).prop_map(
            |(from, to, duration, mismatch, text)| EventKind::StatusChanged { from, to, duration, mismatch, text }
        ),
        any_text().prop_map(|status| EventKind::UnrecognisedStatus { status }),
        (reason(), proptest::option::of(any_text()))
            .prop_map(|(reason, detail)| EventKind::PollFailed { reason, detail }),
        (reason(), millis()).prop_map(|(reason, lasted)| EventKind::Recovered { reason, lasted }),
    ];
    (0..9_999u64, what).prop_map(|(second, kind)| Event { at: at(second), kind })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let status = prop_oneof![
        Just(ReportedStatus::InProgress),
        Just(ReportedStatus::Completed),
        Just(ReportedStatus::Failed),
        Just(ReportedStatus::Queued),
        any_text().prop_map(ReportedStatus::Unrecognised),
    ];
    let texts = (proptest::option::of(any_text()), proptest::option::of(any_text()));
    let mocks = (any::<Option<bool>>(), any::<Option<u32>>(), any::<Option<u32>>());
    let good =
        (status, mocks, texts).prop_map(|(status, (mock_enabled, mcp_endpoints, mcp_tools), (message, error))| {
            Ok(Answer { status, mock_enabled, mcp_endpoints, mcp_tools, message, error, malformed: Vec::new() })
        });
    let reason = proptest::sample::select(&Reason::ALL[..]);
    let bad = (reason, proptest::option::of(any_text()))
        .prop_map(|(reason, detail)| Err(Failure { detail, ..Failure::new(reason) }));
    prop_oneof![2 => good, 1 => bad]
}

fn any_status() -> impl Strategy<Value = Result<MockStatus, Failure>> {
    let provider = proptest::option::of(proptest::sample::select(&Provider::ALL[..]));
    let counts = (proptest::option::of(any::<u32>()), proptest::option::of(any::<u32>()));
    let status = (any::<bool>(), provider, counts).prop_map(|(enabled, provider, (mcp_endpoints, tool_endpoints))| {
        MockStatus { enabled, provider, mcp_endpoints, tool_endpoints, malformed: Vec::new() }
    });
    prop_oneof![status.prop_map(Ok), Just(Err(Failure::new(Reason::Timeout).with_detail(Text::own("no answer")))),]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_a_watch_went_through_comes_back_exactly(
        outcomes in proptest::collection::vec(any_outcome(), 0..30), place: u64, unwatched: bool, forgotten: bool,
        statuses in proptest::collection::vec(any_status(), 0..9), unlisted: bool,
        events in proptest::collection::vec(any_event(), 0..4),
    ) {
        let mut toggle = Toggle::new(Arc::new(sample::watch("a", "p")), at(0));
        let mut agent = SavedAgent::default();
        for (second, outcome) in (1..).zip(outcomes) {
            toggle.apply(outcome, at(second));
            agent.told.observe(&labelled(), &toggle.run, place, at(second));
        }
        if forgotten {
            agent.told.forget();
        }
        agent.told.keep(!unwatched, at(99));
        for (second, outcome) in (1..).zip(statuses) {
            agent.live.apply(outcome, at(second), at(second));
            agent.live.run_finished = Some(at(second));
        }
        agent.live.keep(!unlisted, at(99));
        (agent.live.polls, agent.live.failures) = (0, 0);
        let (key, _) = self::agent();
        let (_folder, path) = folder();
        let (store, _) = open(&path);
        let runs = vec![SavedToggle { events: events.clone(), ..SavedToggle::of(&toggle, place) }];
        store.save(&[(name("a"), runs)], &[(key.clone(), Some(agent.clone()))]).unwrap();
        store.end().unwrap();
        drop(store);
        let back = saved(&path);
        let run = &back.toggles["a"][0];
        prop_assert!(run.is_run_of(&toggle.watch));
        prop_assert_eq!(format!("{:?}", run.run), format!("{:?}", toggle.run));
        prop_assert_eq!((&run.tally, run.place, &run.events), (&toggle.tally, place, &events));
        prop_assert_eq!(back.agents, [(key, agent)]);
    }
}

#[test]
fn records_of_a_later_version_with_more_fields_and_of_an_earlier_one_with_fewer_are_read() {
    let (_folder, path) = some_file();
    let registration = br#"{"api":"default","agent_id":1,"progress_id":"p","started":1,"registered":2,"more":[{}]}"#;
    let toggle = br#"{"api":"default","agent_id":1,"progress_id":"p","run":{"started":1,"status":"unknown","more":1}}"#;
    tamper(&path, |transaction| {
        transaction.open_table(REGISTRATIONS).unwrap().insert("a", registration.as_slice()).unwrap();
        transaction.open_table(TOGGLES).unwrap().insert("a", toggle.as_slice()).unwrap();
        transaction.open_table(AGENTS).unwrap().insert(("default", 7), b"{\"more\":1}".as_slice()).unwrap();
    });
    let saved = saved(&path);
    assert_eq!(saved.registrations[0].watch.expect, None);
    assert_eq!(saved.toggles["a"][0].tally, Tally::default());
    assert_eq!(saved.agents[0].1, SavedAgent::default());
}

#[test]
fn words_of_a_later_version_count_as_unknown_and_hinder_nothing() {
    let (_folder, path) = some_file();
    let registration =
        br#"{"api":"default","agent_id":1,"progress_id":"p","expect":"paused","started":1,"registered":2}"#;
    let toggle =
        br#"{"api":"default","agent_id":1,"progress_id":"p","run":{"started":1,"status":"rolled_back","last_success":5,
        "failing":{"reason":"quota","since":7,"polls":1}},"tally":{"last_failed":3},
        "events":[{"at":9,"event":"rolled_back","to":1},{"at":8,"event":"poll_failed","reason":"quota"}]}"#;
    tamper(&path, |transaction| {
        transaction.open_table(REGISTRATIONS).unwrap().insert("a", registration.as_slice()).unwrap();
        transaction.open_table(TOGGLES).unwrap().insert("a", toggle.as_slice()).unwrap();
    });
    let saved = saved(&path);
    assert_eq!(saved.registrations[0].watch.expect, None);
    let SavedToggle { run, tally, events, .. } = &saved.toggles["a"][0];
    assert_eq!((run.last_answer.status, run.up(), events.len()), (Status::Unknown, Some(true), 0));
    assert_eq!(tally.last_failed, Some(Timestamp::from_millis(3)));
}

/// A file that an earlier release wrote is read, and what that release did not have is absent.
#[test]
fn the_state_file_of_each_release_is_read() {
    let (_folder, path) = folder();
    let packed: &[u8] = include_bytes!("../../../tests/fixtures/state/0.1.0.gz");
    io::copy(&mut flate2::read::GzDecoder::new(packed), &mut fs::File::create(&path).unwrap()).unwrap();
    let saved = saved(&path);
    assert_eq!(names(&saved), ["registered"]);
    assert_eq!(saved.registrations[0].watch.expect, Some(Expect::Enabled));
    let runs = saved.toggles.iter().map(|(name, runs)| (name.as_str(), runs[0].run.last_answer.status, runs.len()));
    assert_eq!(
        runs.collect::<Vec<_>>(),
        [
            ("bad", Status::Failed, 1),
            ("gone", Status::Unknown, 1),
            ("good", Status::Completed, 1),
            ("odd", Status::Unknown, 1),
            ("off", Status::Completed, 1),
            ("registered", Status::InProgress, 1),
        ]
    );
    assert_eq!(saved.toggles["gone"][0].run.failing.as_ref().unwrap().reason, Reason::NotFound);
    assert_eq!(saved.toggles["odd"][0].run.raw_status().unwrap().as_str(), "paused");
    assert_eq!(saved.agents.len(), 2);
}

// === A new file ===

#[test]
fn a_new_file_is_complete_private_and_alone_in_its_folder() {
    let (folder, path) = folder();
    drop(open(&path));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(saved(&path), Saved::default());
}

#[test]
fn an_empty_file_counts_as_none_also_behind_a_link() {
    let (folder, path) = folder();
    fs::write(&path, "").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(FileStore::check(&link).is_ok());
    let (store, _) = open(&link);
    store.register(&[put("a")]).unwrap();
    drop(store);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(names(&saved(&path)), ["a"]);
}

#[test]
fn what_a_crash_left_of_a_new_file_does_not_hinder() {
    let (folder, path) = folder();
    fs::write(folder.path().join(".cekura-exporter-0000000000000000.new"), "half").unwrap();
    drop(open(&path));
    assert_eq!(saved(&path), Saved::default());
}

#[test]
fn the_folder_must_be_there() {
    let (folder, path) = folder();
    assert!(FileStore::check(&path).is_ok());
    assert!(!path.exists(), "a check makes no file");
    let path = folder.path().join("missing/state.redb");
    for error in [FileStore::open(&path).unwrap_err(), FileStore::check(&path).unwrap_err()] {
        assert!(error.to_string().contains("no folder"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_that_says_why() {
    let (folder, path) = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    // The superuser may do it all the same.
    if let Err(error) = FileStore::open(&path) {
        assert!(error.to_string().contains("cannot be created: Permission denied"), "{error}");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

// === Files that are refused, and left as they are ===

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let (_folder, path) = some_file();
    tamper(&path, |transaction| {
        transaction.open_table(META).unwrap().insert("version", VERSION + 1).unwrap();
        transaction.open_table(REGISTRATIONS).unwrap().insert("a", b"of another form".as_slice()).unwrap();
    });
    assert_refused(&path, "newer version");
}

#[test]
fn what_is_no_state_file_is_refused() {
    let (folder, path) = folder();
    fs::write(&path, "short").unwrap();
    assert_refused(&path, "not a state file");
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect();
    fs::write(&path, random).unwrap();
    assert_refused(&path, "not a state file");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    assert_refused(&path, "not a state file");

    let foreign = folder.path().join("foreign.redb");
    Database::create(&foreign).unwrap();
    assert_refused(&foreign, "not a state file");
    tamper(&foreign, |transaction| {
        transaction.open_table(TableDefinition::<u64, u64>::new("meta")).unwrap().insert(1, 1).unwrap();
    });
    assert_refused(&foreign, "not a state file");
}

#[test]
fn a_folder_is_refused() {
    let (folder, _) = folder();
    for error in [FileStore::open(folder.path()).unwrap_err(), FileStore::check(folder.path()).unwrap_err()] {
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let (_folder, path) = some_file();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    // The superuser may do it all the same.
    if let Err(error) = FileStore::check(&path) {
        assert!(error.to_string().contains("cannot be opened: Permission denied"), "{error}");
    }
}

#[test]
fn a_file_that_was_cut_short_is_refused_after_a_clean_stop_and_after_a_kill() {
    for (_folder, path) in [some_file(), killed_file()] {
        let whole = fs::read(&path).unwrap();
        for len in [whole.len() / 2, whole.len() - 1, 4096, 320, 64] {
            fs::write(&path, &whole[..len]).unwrap();
            assert_refused(&path, "damaged");
        }
    }
}

#[test]
fn a_record_that_makes_no_sense_is_damage_that_names_it() {
    for record in [
        &b"{}"[..],
        b"\xff",
        br#"{"api":"default","agent_id":0,"progress_id":"p","started":1,"registered":2}"#,
        br#"{"api":"UPPER","agent_id":1,"progress_id":"p","started":1,"registered":2}"#,
        br#"{"api":"default","agent_id":1,"progress_id":"","started":1,"registered":2}"#,
        br#"{"api":"default","agent_id":1,"progress_id":"p","started":-1,"registered":2}"#,
        br#"{"api":"default","agent_id":1,"progress_id":"p","started":1,"registered":2,"labels":{"job":"x"}}"#,
    ] {
        let (_folder, path) = some_file();
        tamper(&path, |transaction| {
            transaction.open_table(REGISTRATIONS).unwrap().insert("w7", record).unwrap();
        });
        assert_refused(&path, "damaged (registration \"w7\": ");
    }
    for run in [r#"{"started":1,"status":1}"#, r#"{"started":1,"status":"failed","failing":{"reason":"dns"}}"#] {
        let (_folder, path) = some_file();
        let record = format!(r#"{{"api":"default","agent_id":1,"progress_id":"p","run":{run}}}"#);
        tamper(&path, |transaction| {
            transaction.open_table(TOGGLES).unwrap().insert("w7", record.as_bytes()).unwrap();
        });
        assert_refused(&path, "damaged (toggle \"w7\": ");
    }
    let (_folder, path) = some_file();
    tamper(&path, |transaction| {
        transaction.open_table(REGISTRATIONS).unwrap().insert("not a name", b"{}".as_slice()).unwrap();
    });
    assert_refused(&path, "damaged (registration \"not a name\": ");
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless_after_a_clean_stop_and_after_a_kill() {
    for (_folder, path) in [some_file(), killed_file()] {
        let whole = fs::read(&path).unwrap();
        fs::copy(&path, path.with_extension("good")).unwrap();
        let expected = saved(&path.with_extension("good"));
        let pages: Vec<_> =
            whole.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0)).collect();
        let in_pages = pages.iter().flat_map(|(page, _)| [0, 1, 7, 300, 2000, 4095].map(|at| page * 4096 + at));
        let mut noticed = 0;
        for at in (0..320).step_by(5).chain(in_pages) {
            let mut flipped = whole.clone();
            // Byte 9 is left out: a bit in it says which of the last two commits counts, and after a
            // kill nothing but this bit does.
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            if let Ok((_, saved)) = FileStore::open(&path) {
                assert!(saved == expected, "byte {at}");
            } else {
                noticed += 1;
                assert!(fs::read(&path).unwrap() == flipped, "byte {at}: the file was touched");
            }
        }
        assert!(noticed > 10, "{noticed}");
    }
}

#[test]
fn a_file_that_is_in_use_is_refused_but_checks_well() {
    let (_folder, path) = folder();
    let (store, _) = open(&path);
    let before = state_of(&path);
    let error = FileStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(FileStore::check(&path).is_ok());
    assert!(state_of(&path) == before);
    store.register(&[put("a")]).unwrap();
    let error = FileStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(store);
    assert_eq!(names(&saved(&path)), ["a"]);
}

// === Stops and failures ===

#[test]
fn a_dropped_store_leaves_a_file_that_needs_no_repair() {
    let (_folder, path) = some_file();
    let database = redb::ReadOnlyDatabase::open(&path).unwrap();
    assert!(database.begin_read().unwrap().open_table(REGISTRATIONS).is_ok());
}

#[test]
fn a_killed_process_has_lost_nothing_that_was_acknowledged() {
    let (_folder, path) = killed_file();
    let before = state_of(&path);
    FileStore::check(&path).unwrap();
    assert!(state_of(&path) == before, "a check repairs nothing");
    let saved = saved(&path);
    assert_eq!((saved.registrations.len(), saved.toggles.len(), saved.agents.len()), (41, 40, 1));
    assert_eq!(names(&saved)[0], "last");
}

#[test]
fn a_check_leaves_a_good_file_as_it_is() {
    let (_folder, path) = some_file();
    let before = state_of(&path);
    FileStore::check(&path).unwrap();
    assert!(state_of(&path) == before);
}

/// A disk that can be full: then nothing can be written, or nothing be synced.
#[derive(Debug)]
struct Failing {
    disk: Disk,
    writes: Arc<AtomicBool>,
    syncs: Arc<AtomicBool>,
}

fn fail_if(failing: &AtomicBool) -> io::Result<()> {
    if failing.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fail_if(&self.writes)?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        fail_if(&self.syncs)?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        fail_if(&self.writes)?;
        self.disk.write(offset, data)
    }
}

#[test]
fn a_full_disk_is_an_error_until_it_has_room_again_and_loses_nothing() {
    for what in 0..2 {
        let (_folder, path) = some_file();
        let (disk, _, session) = open::open(&path).unwrap();
        let failing = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let [writes, syncs] = failing.clone();
        let disk: Disk = Arc::new(Failing { disk, writes, syncs });
        let store = FileStore { database: Mutex::new(Some(open::open_database(&disk).unwrap())), disk, session };
        store.register(&[put("before")]).unwrap();
        failing[what].store(true, Ordering::Relaxed);
        for _ in 0..3 {
            let error = store.register(&[put("meanwhile"), put("meanwhile-too")]).unwrap_err();
            assert!(error.to_string().contains("cannot be written ("), "{error}");
        }
        failing[what].store(false, Ordering::Relaxed);
        store.register(&[RegistrationChange::Remove(name("w0")), put("after")]).unwrap();
        store.register(&[put("and-after-that")]).unwrap();
        let error = FileStore::open(&path).unwrap_err();
        assert!(error.to_string().contains("in use"), "the lock was lost: {error}");
        drop(store);
        let saved = saved(&path);
        let kept = names(&saved);
        assert!(["and-after-that", "after", "before", "w1", "w39"].iter().all(|name| kept.contains(name)), "{kept:?}");
        assert!(!kept.contains(&"w0"));
        assert_eq!(kept.contains(&"meanwhile"), kept.contains(&"meanwhile-too"), "{kept:?}");
    }
}
