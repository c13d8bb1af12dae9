//! The two kinds of stores, which keep the same things: what is kept is read by the next process, and by other replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cekura_exporter::database::{Connector, DatabaseSettings, DatabaseUrl, UrlSource};
use cekura_exporter::replicas;
use cekura_exporter::store::{
    DatabaseStore, FileStore, Leases, Registration, RegistrationChange, Saved, SavedAgent, SavedToggle, Store,
    StoreError, UnsavedChanges,
};
use cekura_exporter::toggle::{
    AgentId, AgentKey, Answer, ApiName, Expect, Failure, LabelName, Labels, LiveMocks, ProgressId, Reason,
    ReportedStatus, Shard, ShardSet, Source, Text, Timestamp, Toggle, Watch, WatchName,
};
use tempfile::TempDir;

use crate::harness::{Postgres, Proxy, eventually};

/// Where a store of one kind is, which can be opened again and again.
enum Place {
    File(TempDir),
    Database(Box<Postgres>),
}

/// A store that is open and owns everything in it.
struct OpenStore {
    store: Store,
    leases: Leases,
}

// === impl Place ===

impl Place {
    async fn open(&self) -> OpenStore {
        match self {
            Self::File(folder) => {
                let (file, _) = FileStore::open(&folder.path().join("state.redb")).unwrap();
                OpenStore { store: Store::File(Arc::new(file)), leases: Leases::default() }
            }
            Self::Database(postgres) => {
                let database = database(&postgres.url());
                let leases = owning(&database).await;
                OpenStore { store: Store::Database(Arc::new(database)), leases }
            }
        }
    }

    /// What another process reads that comes later.
    async fn kept(&self) -> Saved {
        match self {
            Self::File(folder) => FileStore::open(&folder.path().join("state.redb")).unwrap().1,
            Self::Database(postgres) => kept_in(&database(&postgres.url())).await,
        }
    }
}

// === impl OpenStore ===

impl OpenStore {
    async fn register(&self, changes: &[RegistrationChange]) {
        self.store.register(changes.to_vec()).await.unwrap();
    }

    async fn save(
        &self,
        toggles: Vec<(WatchName, Vec<SavedToggle>)>,
        agents: Vec<(AgentKey, Option<SavedAgent>)>,
    ) -> Result<ShardSet, StoreError> {
        self.store.save(self.changes(toggles, agents)).await
    }

    fn changes(
        &self,
        toggles: Vec<(WatchName, Vec<SavedToggle>)>,
        agents: Vec<(AgentKey, Option<SavedAgent>)>,
    ) -> Arc<UnsavedChanges> {
        Arc::new(UnsavedChanges { toggles, agents, leases: self.leases, ..UnsavedChanges::default() })
    }

    /// Ends it as a process does that stops.
    async fn end(self) {
        self.store.end().await.unwrap();
    }
}

fn database(url: &str) -> DatabaseStore {
    let settings = DatabaseSettings::new(UrlSource::Given(DatabaseUrl::parse(url).unwrap()));
    DatabaseStore::new(&Connector::new(settings), Duration::from_secs(30), replicas::new_id())
}

/// Has a replica own what nobody else does.
async fn owning(database: &DatabaseStore) -> Leases {
    database.renew().await.unwrap();
    database.claim(&database.membership().await.unwrap().shards).await.unwrap();
    database.adopt(&database.membership().await.unwrap());
    database.leases()
}

/// What a replica reads that has read nothing yet.
async fn kept_in(database: &DatabaseStore) -> Saved {
    let new = database.new_registrations().await.unwrap();
    let registrations = new.changes.into_iter().filter_map(|change| match change {
        RegistrationChange::Put(registration) => Some((registration.watch.name.clone(), registration)),
        RegistrationChange::Remove(_) => None,
    });
    let registrations: BTreeMap<_, _> = registrations.collect();
    let since: Vec<_> = Shard::all().map(|shard| (shard, 0)).collect();
    let changes = database.changes(&since).await.unwrap();
    let toggles = changes.toggles.into_iter().filter(|(_, runs)| !runs.is_empty()).collect();
    let agents: BTreeMap<_, _> = changes.agents.into_iter().filter_map(|(key, agent)| Some((key, agent?))).collect();
    Saved { registrations: registrations.into_values().collect(), toggles, agents: agents.into_iter().collect() }
}

/// Runs a test with a store of each kind.
async fn with_both(test: impl AsyncFn(Place)) {
    test(Place::File(tempfile::tempdir().unwrap())).await;
    test(Place::Database(Box::new(Postgres::start().await))).await;
}

fn name(name: &str) -> WatchName {
    WatchName::parse(name).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn key(agent: u64) -> AgentKey {
    (ApiName::default_api(), AgentId::of(agent).unwrap())
}

fn watch(name: &str, agent: u64, progress_id: &str) -> Watch {
    let (api, agent_id) = key(agent);
    Watch {
        name: self::name(name),
        api,
        agent_id,
        progress_id: ProgressId::restore(progress_id).unwrap(),
        expect: None,
        labels: Labels::default(),
        source: Source::Http,
    }
}

fn registration(watch: Watch) -> Registration {
    Registration { watch: Arc::new(watch), started: at(1), registered: at(2) }
}

fn put(watch: Watch) -> RegistrationChange {
    RegistrationChange::Put(registration(watch))
}

fn remove(gone: &str) -> RegistrationChange {
    RegistrationChange::Remove(name(gone))
}

fn completed(message: &str) -> Answer {
    Answer {
        status: ReportedStatus::Completed,
        mock_enabled: Some(true),
        mcp_endpoints: Some(3),
        mcp_tools: None,
        message: Some(Text::own(message)),
        error: None,
        malformed: vec![],
    }
}

/// A toggle whose run failed to be polled, and finished then.
fn finished(watch: Watch, message: &str) -> Toggle {
    let mut toggle = Toggle::new(Arc::new(watch), at(0));
    toggle.apply(Err(Failure::new(Reason::Dns)), at(3));
    toggle.apply(Ok(completed(message)), at(5));
    toggle
}

fn agent_of(toggle: &Toggle) -> SavedAgent {
    let mut agent = SavedAgent::default();
    agent.told.observe(&toggle.watch, &toggle.run, 1, at(6));
    agent.live.enabled = Some(false);
    agent.live.asked = Some(at(7));
    agent
}

fn names(saved: &Saved) -> Vec<&str> {
    saved.registrations.iter().map(|registration| registration.watch.name.as_str()).collect()
}

#[tokio::test]
async fn registrations_are_kept_until_they_are_replaced_or_removed() {
    with_both(async |place| {
        assert_eq!(place.kept().await, Saved::default());
        let open = place.open().await;
        open.register(&[put(watch("b", 1, "1")), put(watch("a", 2, "1")), put(watch("c", 3, "1"))]).await;
        open.register(&[put(watch("b", 4, "2")), remove("c"), remove("never")]).await;
        open.register(&[]).await;
        drop(open);
        let kept = place.kept().await;
        assert_eq!(kept.registrations, [registration(watch("a", 2, "1")), registration(watch("b", 4, "2"))]);
        let open = place.open().await;
        open.register(&[remove("a"), put(watch("c", 3, "3"))]).await;
        open.end().await;
        assert_eq!(names(&place.kept().await), ["b", "c"]);
    })
    .await;
}

#[tokio::test]
async fn changes_of_the_same_name_are_made_in_the_order_given() {
    with_both(async |place| {
        let open = place.open().await;
        open.register(&[put(watch("a", 1, "1")), remove("a"), remove("b"), put(watch("b", 1, "1"))]).await;
        open.register(&[put(watch("b", 1, "2")), put(watch("b", 1, "3")), put(watch("c", 1, "1")), remove("c")]).await;
        drop(open);
        assert_eq!(place.kept().await.registrations, [registration(watch("b", 1, "3"))]);
    })
    .await;
}

#[tokio::test]
async fn everything_that_a_name_a_label_and_an_id_may_contain_comes_back() {
    let every = ('0'..='9').chain('A'..='Z').chain('a'..='z').chain(['.', '_', '-']).collect::<String>();
    let longest = "9".repeat(WatchName::MAX_BYTES);
    let odd = "\u{0}\u{1}\t\r\n \"'\\\\/{}[],:;%$\u{7f}\u{85}é\u{202e}\u{fffd}\u{1f600}\u{10ffff}";
    let labels: Labels = [("team", odd), ("_x", ""), ("Z9", "NULL"), ("a", "{1,2}"), ("zz", "\\x00")]
        .into_iter()
        .map(|(name, value)| (LabelName::parse(name).unwrap(), value.into()))
        .collect();
    let full =
        |name: &str| Watch { expect: Some(Expect::Disabled), labels: labels.clone(), ..watch(name, u64::MAX, odd) };
    let names_in_order = [every.as_str(), longest.as_str(), "A.b", "NULL", "a-b", "a.b", "a_b", "null"];
    with_both(async |place| {
        let open = place.open().await;
        let mut expected: Vec<_> = names_in_order.iter().map(|name| registration(full(name))).collect();
        open.register(&expected.iter().cloned().map(RegistrationChange::Put).collect::<Vec<_>>()).await;
        let toggle = finished(full(&longest), odd);
        let (saved, agent) = (SavedToggle::of(&toggle, 3), agent_of(&toggle));
        open.save(vec![(name(&longest), vec![saved.clone()])], vec![(key(u64::MAX), Some(agent.clone()))])
            .await
            .unwrap();
        open.end().await;
        let kept = place.kept().await;
        expected.sort_by(|a, b| a.watch.name.cmp(&b.watch.name));
        assert_eq!(kept.registrations, expected);
        assert_eq!(kept.toggles, [(name(&longest), vec![saved])].into());
        assert_eq!(kept.agents, [(key(u64::MAX), agent)]);
    })
    .await;
}

#[tokio::test]
async fn the_state_of_watches_and_agents_is_kept_until_it_is_replaced_or_removed() {
    with_both(async |place| {
        let open = place.open().await;
        let toggle = finished(watch("a", 1, "1"), "on");
        let displaced = SavedToggle { progress_id: ProgressId::restore("0").unwrap(), ..SavedToggle::of(&toggle, 1) };
        let runs = vec![SavedToggle::of(&toggle, 2), displaced];
        let begun = SavedToggle::of(&Toggle::new(Arc::new(watch("b", 2, "1")), at(0)), 3);
        let agent = agent_of(&toggle);
        let toggles = vec![(name("a"), runs.clone()), (name("b"), vec![begun.clone()])];
        open.save(toggles, vec![(key(1), Some(agent.clone())), (key(2), Some(agent.clone()))]).await.unwrap();
        open.save(vec![], vec![]).await.unwrap();
        open.end().await;
        let kept = place.kept().await;
        assert_eq!(kept.toggles, [(name("a"), runs), (name("b"), vec![begun])].into());
        assert_eq!(kept.agents, [(key(1), agent.clone()), (key(2), agent.clone())]);
        let open = place.open().await;
        let next = SavedToggle::of(&finished(watch("b", 2, "2"), "off"), 4);
        let toggles = vec![(name("a"), vec![]), (name("b"), vec![next.clone()]), (name("never"), vec![])];
        open.save(toggles, vec![(key(1), None), (key(3), None), (key(2), Some(SavedAgent::default()))]).await.unwrap();
        open.end().await;
        let kept = place.kept().await;
        assert_eq!(kept.toggles, [(name("b"), vec![next])].into());
        assert_eq!(kept.agents, [(key(2), SavedAgent::default())]);
    })
    .await;
}

#[tokio::test]
async fn what_a_watch_was_saves_nothing_of_what_it_is_under_another_agent() {
    with_both(async |place| {
        let open = place.open().await;
        let (first, second) = (finished(watch("a", 1, "1"), "on"), finished(watch("a", 2, "1"), "on"));
        for toggle in [&first, &second, &first] {
            open.save(vec![(name("a"), vec![SavedToggle::of(toggle, 1)])], vec![]).await.unwrap();
        }
        open.save(vec![(name("a"), vec![])], vec![]).await.unwrap();
        open.end().await;
        assert_eq!(place.kept().await, Saved::default());
    })
    .await;
}

#[tokio::test]
async fn large_batches_are_kept_whole() {
    const MANY: u64 = 12_000;
    with_both(async |place| {
        let open = place.open().await;
        let watches: Vec<_> = (1..=MANY).map(|agent| watch(&format!("w{agent}"), agent, "p")).collect();
        open.register(&watches.iter().cloned().map(put).collect::<Vec<_>>()).await;
        open.register(&[put(watch("last", 1, "p"))]).await;
        let toggles: Vec<_> = watches.iter().map(|watch| finished(watch.clone(), "on")).collect();
        let agents = toggles.iter().map(|toggle| (key(toggle.watch.agent_id.get()), Some(agent_of(toggle))));
        let states = toggles.iter().map(|toggle| (toggle.watch.name.clone(), vec![SavedToggle::of(toggle, 1)]));
        let saved = open.save(states.collect(), agents.collect()).await.unwrap();
        assert_eq!(saved, ShardSet::ALL);
        open.end().await;
        let kept = place.kept().await;
        let counts = (kept.registrations.len(), kept.toggles.len(), kept.agents.len());
        assert_eq!(counts, (12_001, 12_000, 12_000));
        assert!(kept.toggles.values().all(|runs| runs.len() == 1 && runs[0].run.finished.is_some()));
    })
    .await;
}

#[tokio::test]
async fn the_shards_that_were_saved_are_returned() {
    with_both(async |place| {
        let open = place.open().await;
        let toggle = finished(watch("a", 1, "1"), "on");
        let saved = open.save(vec![(name("a"), vec![SavedToggle::of(&toggle, 1)])], vec![]).await.unwrap();
        let (api, agent) = key(1);
        assert!(saved.contains(Shard::of(&api, agent)));
        let saved = open.save(vec![(name("a"), vec![])], vec![(key(5), None)]).await.unwrap();
        let (api, other) = key(5);
        assert!(saved.contains(Shard::of(&api, agent)) && saved.contains(Shard::of(&api, other)));
        open.end().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_an_error_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let file = FileStore::open(folder.path()).unwrap_err();
    assert_eq!((file.subject(), file.is_final()), ("the state file", false));
    let mut postgres = Postgres::start().await;
    let store = database(&postgres.url());
    let leases = owning(&store).await;
    postgres.stop();
    let toggles = vec![(name("a"), vec![SavedToggle::of(&finished(watch("a", 1, "1"), "on"), 1)])];
    let save = UnsavedChanges { toggles, leases, ..UnsavedChanges::default() };
    for error in [
        store.save(&save).await.unwrap_err(),
        store.register(&[put(watch("a", 1, "1"))]).await.unwrap_err(),
        store.new_registrations().await.unwrap_err(),
        store.membership().await.unwrap_err(),
        store.leave().await.unwrap_err(),
    ] {
        assert_eq!((error.subject(), error.is_final(), error.is_disk_full()), ("the database", false, false));
        assert!(
            error.to_string().starts_with("ended the connection") || error.to_string().contains("cannot be reached")
        );
    }
    assert!(!store.is_up());
    postgres.start_again().await;
    store.renew().await.unwrap();
    assert!(store.is_up());
    assert!(!store.save(&save).await.unwrap().is_empty());
    store.register(&[put(watch("a", 1, "1"))]).await.unwrap();
    let kept = kept_in(&database(&postgres.url())).await;
    assert_eq!((names(&kept), kept.toggles.len()), (vec!["a"], 1));
}

#[tokio::test]
async fn a_replica_saves_nothing_in_a_shard_that_another_one_has_taken() {
    let place = Place::Database(Box::new(Postgres::start().await));
    let Place::Database(postgres) = &place else { unreachable!() };
    let old = place.open().await;
    let state = |message: &str| vec![(name("a"), vec![SavedToggle::of(&finished(watch("a", 1, "1"), message), 1)])];
    let agent = |on| vec![(key(1), Some(SavedAgent { live: on, ..SavedAgent::default() }))];
    let on = agent_of(&finished(watch("a", 1, "1"), "on")).live;
    assert!(!old.save(state("first"), agent(on.clone())).await.unwrap().is_empty());
    assert!(owning(&database(&postgres.url())).await.owned().is_empty(), "its lease has not expired");
    postgres.query("UPDATE cekura_exporter.replicas SET expires = clock_timestamp()").await;
    let new = place.open().await;
    assert_eq!(new.leases.owned(), ShardSet::ALL);
    assert!(!new.save(state("second"), vec![]).await.unwrap().is_empty());
    assert!(old.save(state("late"), agent(LiveMocks::default())).await.unwrap().is_empty());
    assert!(old.save(vec![(name("a"), vec![])], vec![(key(1), None)]).await.unwrap().is_empty());
    let kept = place.kept().await;
    assert_eq!(kept.toggles[&name("a")][0].run.last_answer.message, Some(Text::own("second")));
    assert_eq!(kept.agents[0].1.live, on);
}

/// A network can hold a statement back, and deliver it long after its client has given up.
#[tokio::test]
async fn what_was_given_up_takes_no_effect_when_it_arrives_late() {
    let postgres = Postgres::start().await;
    let mut proxy = Proxy::to(postgres.address());
    let cut_off = database(&Postgres::url_through(&proxy));
    let leases = owning(&cut_off).await;
    let save = |message: &str| {
        let toggles = vec![(name("a"), vec![SavedToggle::of(&finished(watch("a", 1, "1"), message), 1)])];
        UnsavedChanges { toggles, leases, ..UnsavedChanges::default() }
    };
    cut_off.register(&[put(watch("a", 1, "0"))]).await.unwrap();
    cut_off.save(&save("zeroth")).await.unwrap();
    proxy.cut();
    let (first, late) = (save("first"), [put(watch("a", 1, "1"))]);
    let (saved, registered) = tokio::join!(cut_off.save(&first), cut_off.register(&late));
    assert!(saved.unwrap_err().to_string().contains("did not answer"));
    assert!(registered.unwrap_err().to_string().contains("did not answer"));
    // As the same replica does when it has connected again. Where it connects from makes no difference.
    let again = database(&postgres.url());
    again.register(&[put(watch("a", 1, "2"))]).await.unwrap();
    assert!(!again.save(&save("second")).await.unwrap().is_empty());
    drop(again);
    proxy.heal();
    drop(cut_off);
    let others =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    eventually("all has arrived", async || (postgres.query(others).await == [["0"]]).then_some(())).await;
    let kept = kept_in(&database(&postgres.url())).await;
    assert_eq!(kept.registrations[0].watch.progress_id.as_str(), "2");
    assert_eq!(kept.toggles[&name("a")][0].run.last_answer.message, Some(Text::own("second")));
}
