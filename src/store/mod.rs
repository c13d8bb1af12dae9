//! Keeping registrations and the state of watches and agents over restarts.
//!
//! What is kept and what the program uses are different types; `record` converts between them.

mod database;
mod error;
mod file;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::database::{AgentRequest, DatabaseStore, Leases, Membership, OwnerState, SharedChanges};
pub use self::error::StoreError;
pub use self::file::FileStore;
use crate::threads::{self, ThreadError};
use crate::toggle::{
    AgentId, ApiName, ClockJump, Event, LiveMocks, ProgressId, Run, Shard, ShardSet, Status, Tally, Timestamp, Toggle,
    ToldMocks, Watch, WatchName,
};

/// Where state is kept.
#[derive(Debug, Clone)]
pub enum Store {
    /// In a file.
    File(Arc<FileStore>),
    /// In a database that several replicas share.
    Database(Arc<DatabaseStore>),
}

/// The registrations that are new to a replica.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NewRegistrations {
    /// What changed, in the order in which it was stored.
    pub changes: Vec<RegistrationChange>,
    /// Whether these are all registrations, so that others are gone.
    pub is_complete: bool,
}

/// A watch that was registered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The watch; its source is [`Source::Http`](crate::toggle::Source::Http).
    pub watch: Arc<Watch>,
    /// When its run was first watched.
    pub started: Timestamp,
    /// When it was last registered or replaced.
    pub registered: Timestamp,
}

/// The saved state of a run, with what its watch has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedToggle {
    /// The API of the run.
    pub api: ApiName,
    /// The agent of the run.
    pub agent_id: AgentId,
    /// The task of the run.
    pub progress_id: ProgressId,
    /// The state of the run.
    pub run: Run,
    /// What the watch has counted over all of its runs.
    pub tally: Tally,
    /// The watch's place in the watch list.
    pub place: u64,
    /// The recent events of the watch, the newest first.
    pub events: Vec<Event>,
}

/// The saved state of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedAgent {
    /// What its toggle tasks told of its mocks.
    pub told: ToldMocks,
    /// What its mock status said.
    pub live: LiveMocks,
}

/// Everything that is in the state file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The registrations, sorted by name.
    pub registrations: Vec<Registration>,
    /// The state of each watch of any source: of its run, and then of the runs that a watch of another source displaced,
    /// the newest first.
    pub toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
    /// The state of each agent.
    pub agents: Vec<((ApiName, AgentId), SavedAgent)>,
}

/// A change of one registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationChange {
    /// Adds the registration or replaces it.
    Put(Registration),
    /// Removes the registration, if there is one.
    Remove(WatchName),
}

/// State that changed since it was saved.
#[derive(Debug, Default)]
pub struct UnsavedChanges {
    /// Watches with the state of their current run and their inactive runs; an empty list removes the watch.
    pub toggles: Vec<ToggleChange>,
    /// Agents with their state; `None` removes the agent.
    pub agents: Vec<SavedAgentChange>,
    /// The runs among them that finished, as far as they are to be counted when they are saved.
    pub finished: Vec<FinishedRun>,
    /// The epochs in which this exporter owned the shards when the changes were taken, if others share the state.
    pub leases: Leases,
    /// Whether the other exporters that share the state should read it at once.
    pub is_news: bool,
}

/// A run that finished. Where several exporters share the work, it is counted when it is saved: of two that see the same
/// run finish, only one can save it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedRun {
    /// The name of its watch.
    pub toggle: WatchName,
    /// Its API.
    pub api: ApiName,
    /// Its shard.
    pub shard: Shard,
    /// How it ended.
    pub status: Status,
    /// How long it took; `None` if it had finished before it was first asked for.
    pub duration: Option<Duration>,
    /// Whether it completed in another state than expected.
    pub mismatch: bool,
}

/// The new state of a watch, as in [`Saved`]; empty to remove it.
pub type ToggleChange = (WatchName, Vec<SavedToggle>);

/// The new state of an agent; `None` to remove it.
pub type SavedAgentChange = ((ApiName, AgentId), Option<SavedAgent>);

// === impl Store ===

impl Store {
    /// Changes registrations, one after the other, in one transaction. When this returns `Ok`, all of them survive a kill
    /// and a power loss.
    ///
    /// # Errors
    /// If they cannot be written. Then either all or none of them are stored.
    pub async fn register(&self, changes: Vec<RegistrationChange>) -> Result<(), StoreError> {
        match self {
            Self::File(file) => blocking("registrations", file, move |file| file.register(&changes)).await,
            Self::Database(database) => database.register(&changes).await,
        }
    }

    /// The registrations that other replicas changed since this was last called.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn new_registrations(&self) -> Result<NewRegistrations, StoreError> {
        match self {
            Self::File(_) => Ok(NewRegistrations::default()),
            Self::Database(database) => database.new_registrations().await,
        }
    }

    /// Saves the state of watches and agents in one transaction, which is as durable as that of [`Store::register`].
    /// Returns the shards that were saved: all, or those that this replica owns if several share the store.
    ///
    /// # Errors
    /// As for [`Store::register`].
    pub async fn save(&self, changes: Arc<UnsavedChanges>) -> Result<ShardSet, StoreError> {
        match self {
            Self::File(file) => {
                let save = move |file: &FileStore| file.save(&changes.toggles, &changes.agents);
                blocking("saver", file, save).await.map(|()| ShardSet::ALL)
            }
            Self::Database(database) => database.save(&changes).await,
        }
    }

    /// Records that everything is saved, or gives the shards to the other replicas. Nothing may be saved after this.
    ///
    /// # Errors
    /// As for [`Store::register`].
    pub async fn end(&self) -> Result<(), StoreError> {
        match self {
            Self::File(file) => blocking("saver", file, FileStore::end).await,
            Self::Database(database) => database.leave().await,
        }
    }
}

/// Runs `work` on a thread, because it waits for the disk.
async fn blocking(
    thread: &str,
    file: &Arc<FileStore>,
    work: impl FnOnce(&FileStore) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), StoreError> {
    let file = file.clone();
    let done = threads::try_run(thread, move || work(&file)).await;
    done.unwrap_or_else(|lost: ThreadError| Err(lost.into()))
}

// === impl Registration ===

impl Registration {
    /// Replaces every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.started = map(self.started);
        self.registered = map(self.registered);
    }
}

// === impl Saved ===

impl Saved {
    /// If any time is later than `now`, moves all times back so that the newest is `now`. Otherwise, after a clock was ahead,
    /// new times would count as older than saved ones. All times keep their order.
    pub fn no_later_than(&mut self, now: Timestamp) {
        let mut newest = Timestamp::from_millis(0);
        self.map_times(&mut |time| {
            newest = newest.max(time);
            time
        });
        let ahead = newest.as_millis().saturating_sub(now.as_millis());
        if ahead > 0 {
            let jump = ClockJump::from_millis(i64::try_from(ahead).unwrap_or(i64::MAX).saturating_neg());
            self.map_times(&mut |time| time.shifted(jump));
        }
    }

    fn map_times(&mut self, map: &mut impl FnMut(Timestamp) -> Timestamp) {
        let map = std::cell::RefCell::new(map);
        let map = |time| (map.borrow_mut())(time);
        self.registrations.iter_mut().for_each(|registration| registration.map_times(map));
        self.toggles.values_mut().flatten().for_each(|toggle| toggle.map_times(map));
        self.agents.iter_mut().for_each(|(_, agent)| agent.map_times(map));
    }
}

// === impl SavedAgent ===

impl SavedAgent {
    /// Applies `map` to every time.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.told.map_times(&map);
        self.live.map_times(&map);
    }
}

// === impl RegistrationChange ===

impl RegistrationChange {
    /// The name whose registration changes.
    pub fn name(&self) -> &WatchName {
        match self {
            Self::Put(registration) => &registration.watch.name,
            Self::Remove(name) => name,
        }
    }
}

// === impl UnsavedChanges ===

impl UnsavedChanges {
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.toggles.is_empty() && self.agents.is_empty()
    }

    /// The watches of which nothing is known any more.
    fn removed_toggles(&self) -> impl Iterator<Item = &WatchName> {
        self.toggles.iter().filter(|(_, runs)| runs.is_empty()).map(|(name, _)| name)
    }

    /// The shards of the watches and agents of which something is known, and of all other agents.
    fn shards(&self) -> impl Iterator<Item = Shard> {
        let of_toggles = self.toggles.iter().filter_map(|(_, runs)| Some(runs.first()?.shard()));
        of_toggles.chain(self.agents.iter().map(|((api, id), _)| Shard::of(api, *id)))
    }
}

// === impl SavedToggle ===

impl SavedToggle {
    /// The state of the toggle, without its events.
    pub fn of(toggle: &Toggle, place: u64) -> Self {
        let Toggle { watch, run, tally } = toggle;
        Self {
            api: watch.api.clone(),
            agent_id: watch.agent_id,
            progress_id: watch.progress_id.clone(),
            run: run.clone(),
            tally: tally.clone(),
            place,
            events: Vec::new(),
        }
    }

    /// Replaces every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.run.map_times(&map);
        self.tally.map_times(&map);
        for event in &mut self.events {
            event.at = map(event.at);
        }
    }

    /// The shard of its agent.
    pub fn shard(&self) -> Shard {
        Shard::of(&self.api, self.agent_id)
    }

    /// Whether this is the run of the watch.
    pub fn is_run_of(&self, watch: &Watch) -> bool {
        self.api == watch.api && self.agent_id == watch.agent_id && self.progress_id == watch.progress_id
    }
}
