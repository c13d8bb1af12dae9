//! What changes the watch list and the settings: one thing at a time.
//!
//! Reloads, watch files, registrations and their expiry all come through here, are laid into the
//! [`WatchList`], and go to the poller as one update each. So what one of them decides cannot be
//! undone by another half way, and whoever is answered sees what was done.

mod events;
mod follow;
mod reload;
mod reloader;
mod table;

pub use events::configuration_warning;
pub use reloader::{ConfigLoader, PreparedReload, Reloader};

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::board::Board;
use crate::cekura::{BuildError, Clients, Renewal};
use crate::clock;
use crate::config::Config;
use crate::document::{Problem, Problems};
use crate::exposition::Metrics;
use crate::poller::{PollerSettings, PollerUpdate};
use crate::sources::{Edit, EditResult, FileScan, Origin, WatchDefinition, WatchGlob, WatchList, Watches};
use crate::store::{Registration, RegistrationChange, SavedToggle, Store};
use crate::threads;
use crate::toggle::{ApiName, Source, Watch, WatchName};
use crate::web::Web;
pub use follow::FileFollower;
use table::RegistrationTable;

/// How often it is looked for registrations that expired.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The most orders that wait to be taken; who orders more is held up.
const ORDERS_WAITING: usize = 1024;

/// The most registrations that share a commit.
const BATCH: usize = 256;

/// The most registrations that are kept.
pub const MOST_REGISTRATIONS: usize = 100_000;

/// Watches by the file that lists them.
type WatchesByFile = BTreeMap<Arc<Path>, Watches>;

/// Something that is asked of the intake.
pub enum IntakeCommand {
    /// Watch this, whatever was registered under its name.
    Register(Watch, Responder<Result<Registered, RegistrationError>>),
    /// Watch what was registered under this name no more.
    Deregister(WatchName, Responder<Result<(), RegistrationError>>),
    /// Put a configuration in force that was read again, with all that takes time done.
    Reload(Result<Box<PreparedReload>, Problems>, Responder<Result<(), Problems>>),
    /// The watch files were looked at. With the number of the rescan whose globs they match.
    Scanned(u64, FileScan),
}

/// Where the answer to an order goes.
pub type Responder<T> = oneshot::Sender<T>;

/// What came of a registration; it is durable, and every later read sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The name is new.
    Created,
    /// It replaced another one of that name, or is the same again.
    Replaced,
}

/// Why a registration was not taken or not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationError {
    /// Registrations are not enabled.
    Disabled,
    /// The name belongs to another source.
    NameTaken(Source),
    /// Nothing is registered under that name.
    NotRegistered,
    /// Its API is not configured any more.
    UnknownApi,
    /// There are as many as there may be.
    Full,
    /// It could not be made durable, for this reason.
    NotStored(String),
    /// It could not be made durable for want of room, as said here.
    DiskFull(String),
}

/// What readers need to know of the configuration in force.
#[derive(Debug, Clone)]
pub struct ConfigSnapshot {
    /// All of it. Its watches are those of the watch list, so it costs next to nothing.
    pub config: Arc<Config>,
    /// The APIs that a watch may name.
    pub apis: Arc<BTreeSet<ApiName>>,
}

/// What the intake works with.
pub struct IntakeContext {
    /// What is known of every toggle.
    pub board: Arc<Board>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where the poller takes its updates from.
    pub updates: mpsc::Sender<PollerUpdate>,
    /// Where renewed keys and authorities are told.
    pub renewals: mpsc::UnboundedSender<(ApiName, Renewal)>,
    /// Where registrations are kept.
    pub store: Option<Arc<Store>>,
    /// What was registered with an earlier process.
    pub registrations: Vec<Registration>,
    /// The clients of the APIs.
    pub clients: Arc<Clients>,
    /// The web configuration in force.
    pub web: watch::Receiver<Arc<Web>>,
    /// Whether others than this machine can register, unless somebody keeps them from it.
    pub exposed: bool,
}

/// Tells who ordered something what came of it.
type CommitReply = Box<dyn FnOnce(Result<(), RegistrationError>) + Send>;

/// Takes orders, one after the other.
pub struct Intake {
    means: IntakeContext,
    orders: mpsc::Receiver<IntakeCommand>,
    list: WatchList,
    registry: RegistrationTable,
    /// The configuration in force.
    config: Arc<Config>,
    apis: BTreeSet<ApiName>,
    /// Those who keep up with the files of the APIs.
    followers: JoinSet<()>,
    follower_of: BTreeMap<ApiName, AbortHandle>,
    /// The number of the rescan whose globs and APIs are in force.
    scans: u64,
    /// What the list has of each watch file.
    laid: WatchesByFile,
    /// Whether all watch files could be read when they were last looked at.
    all_up: bool,
    in_force: watch::Sender<ConfigSnapshot>,
    warned_of_many: bool,
    /// Names whose last commit failed: the state file may have them otherwise than the registry.
    unsure: BTreeSet<WatchName>,
    /// Why the last commit failed, so that it is said once.
    problem: Option<RegistrationError>,
    /// Whether the web configuration lets only those in who prove who they are.
    authenticates: bool,
}

/// Registrations that are made durable and visible together.
#[derive(Default)]
struct RegistrationBatch {
    names: HashSet<WatchName>,
    changes: Vec<RegistrationChange>,
    /// Told when that is done.
    replies: Vec<CommitReply>,
    created: usize,
}

// === impl Intake ===

impl Intake {
    /// Puts a first configuration in force: with this, what it lists is on the board. Returns where
    /// orders are taken, who looks at the watch files, and what is in force. Blocks while keys are read.
    ///
    /// # Errors
    /// If the client of an API cannot be set up.
    pub async fn start(
        config: Config,
        mut means: IntakeContext,
    ) -> Result<(Self, mpsc::Sender<IntakeCommand>, FileFollower, watch::Receiver<ConfigSnapshot>), BuildError> {
        let (sender, orders) = mpsc::channel(ORDERS_WAITING);
        let registry =
            RegistrationTable::new(std::mem::take(&mut means.registrations), config.registrations.retention.clone());
        let clients = means.clients.of(config.apis.clone())?;
        let before = Arc::new(Config {
            watches: Vec::new(),
            registrations: crate::config::Registrations::default(),
            ..config.clone()
        });
        let (in_force, told) = watch::channel(ConfigSnapshot { config: before.clone(), apis: Arc::default() });
        let authenticates = means.web.borrow_and_update().authenticates();
        let mut intake = Self {
            means,
            orders,
            list: WatchList::default(),
            registry,
            config: before,
            apis: BTreeSet::new(),
            followers: JoinSet::new(),
            follower_of: BTreeMap::new(),
            scans: 0,
            laid: BTreeMap::new(),
            all_up: false,
            in_force,
            warned_of_many: false,
            unsure: BTreeSet::new(),
            problem: None,
            authenticates,
        };
        let files = FileFollower::start(sender.clone());
        let scan = files.rescan(config.watch_files.clone(), clients.names()).await;
        intake.put_in_force(config, clients, scan).await;
        intake.means.metrics.reloaded(true, clock::now());
        Ok((intake, sender, files, told))
    }

    /// Takes orders until dropped. `lists` is the watch list of a configuration that is in no file, as
    /// it changes.
    pub async fn run(mut self, mut lists: watch::Receiver<Vec<Arc<Watch>>>) {
        let mut expiry = tokio::time::interval_at(Instant::now(), EXPIRY_INTERVAL);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(order) = self.orders.recv() => self.take(order).await,
                Ok(()) = lists.changed() => {
                    let watches = lists.borrow_and_update().clone();
                    let mut edit = self.list.edit();
                    edit.replace(&Origin::Config, watches.into_iter().map(Into::into));
                    let edited = edit.finish(|old| self.registry.has_run_of(old));
                    self.publish(edited, None).await;
                }
                _ = expiry.tick() => if self.expire().await {
                    expiry.reset_immediately();
                },
                Ok(()) = self.means.web.changed() => self.note_web(),
                Some(_) = self.followers.join_next() => {}
            }
        }
    }

    async fn take(&mut self, order: IntakeCommand) {
        let mut next = Some(order);
        while let Some(order) = next.take() {
            self.registry.follow(clock::moved());
            match order {
                IntakeCommand::Register(..) | IntakeCommand::Deregister(..) => {
                    next = self.take_registrations(order).await
                }
                // Whoever asked may have left.
                IntakeCommand::Reload(read, reply) => drop(reply.send(self.reload(read).await)),
                IntakeCommand::Scanned(number, scan) if number == self.scans => self.take_scan(scan).await,
                // It is of globs that were in force, or are about to be. What is new in it is found again, but
                // is not news any more.
                IntakeCommand::Scanned(_, scan) => scan.events.iter().for_each(events::watch_files),
            }
        }
    }

    async fn take_scan(&mut self, scan: FileScan) {
        let were_up = self.all_up;
        let mut edit = self.list.edit();
        let changed = lay_files(&mut edit, &mut self.laid, &scan);
        let edited = edit.finish(|old| self.registry.has_run_of(old));
        self.publish(edited, None).await;
        self.note_scan(&scan);
        if changed || !were_up {
            self.forget_all_remembered();
        }
    }

    /// Reports a look at the watch files, once what it found is on the board: whoever sees that a source is
    /// up sees its watches too.
    fn note_scan(&mut self, scan: &FileScan) {
        scan.events.iter().for_each(events::watch_files);
        self.means.metrics.set_sources(scan.up.iter().map(|(path, up)| (Source::File, &**path, *up)));
        self.all_up = scan.up.iter().all(|(_, up)| *up);
    }

    /// Drops the state of runs under these names that no source defines, unless a file that cannot be read
    /// may do so.
    fn forget_remembered<'n>(&self, names: impl IntoIterator<Item = &'n WatchName>) {
        if self.all_up {
            let (board, now) = (&self.means.board, clock::now());
            let forget = |name: &&WatchName| board.forget_inactive(name, |name, run| self.defines(name, run), now);
            events::forgotten(names.into_iter().filter(forget).count());
        }
    }

    /// As [`Intake::forget_remembered`], under all names.
    fn forget_all_remembered(&self) {
        if self.all_up {
            let keep = |name: &WatchName, run: &SavedToggle| self.defines(name, run);
            events::forgotten(self.means.board.forget_all_inactive(keep, clock::now()));
        }
    }

    /// Whether any source defines this run.
    fn defines(&self, name: &WatchName, run: &SavedToggle) -> bool {
        // Registrations that are not enabled are not on the list, and may be enabled again.
        let registered = self.registry.get(name).is_some_and(|kept| run.is_run_of(&kept.watch));
        registered || self.list.defines_run(name, |watch| run.is_run_of(watch))
    }

    /// Has the poller take over what changed, and waits until every reader sees it.
    async fn publish(&mut self, edited: EditResult, settings: Option<PollerSettings>) {
        edited.refused.iter().for_each(events::refused);
        if settings.is_some() || !edited.changes.is_empty() {
            let (taken, done) = oneshot::channel();
            // Both fail only when the poller is gone, and then the process ends.
            let _ = self
                .means
                .updates
                .send(PollerUpdate { settings, changes: edited.changes, moved: self.registry.moved(), taken })
                .await;
            let _ = done.await;
        }
        let mut watches = 0;
        for (source, count) in self.list.counts() {
            self.means.metrics.set_watches(source, count.watches, count.rejected);
            watches += count.watches;
        }
        if watches > Config::MANY_WATCHES && !self.warned_of_many {
            self.warned_of_many = true;
            events::many_watches(watches);
        }
    }

    // === Registrations ===

    /// Takes this order and those that wait behind it, as long as they are of its kind and of other
    /// names. Returns the first that is not.
    async fn take_registrations(&mut self, first: IntakeCommand) -> Option<IntakeCommand> {
        let mut batch = RegistrationBatch::default();
        let mut next = Some(first);
        let mut considered = 0;
        let left = loop {
            match next.take() {
                Some(IntakeCommand::Register(watch, reply)) if !batch.names.contains(&watch.name) => {
                    self.consider(watch, reply, &mut batch);
                }
                Some(IntakeCommand::Deregister(name, reply)) if !batch.names.contains(&name) => {
                    self.consider_removal(name, reply, &mut batch);
                }
                left => break left,
            }
            considered += 1;
            if considered == BATCH {
                break None;
            }
            next = self.orders.try_recv().ok();
        };
        let RegistrationBatch { changes, replies, .. } = batch;
        let done = self.commit(changes, events::deregistered).await;
        for reply in replies {
            reply(done.clone());
        }
        left
    }

    fn consider(
        &self,
        watch: Watch,
        reply: Responder<Result<Registered, RegistrationError>>,
        batch: &mut RegistrationBatch,
    ) {
        let decided = self.decide(watch, batch.created);
        let (registered, registration) = match decided {
            Ok((registered, Some(registration))) => (registered, registration),
            // Refused, or the same again. Whoever asked may have left.
            Ok((registered, None)) => return drop(reply.send(Ok(registered))),
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        batch.created += usize::from(registered == Registered::Created);
        batch.names.insert(registration.watch.name.clone());
        batch.changes.push(RegistrationChange::Put(registration));
        batch.replies.push(Box::new(move |done| drop(reply.send(done.map(|()| registered)))));
    }

    /// What is to be kept of a registration, if it is not the same again. `more` were taken that the
    /// registry does not know yet.
    fn decide(&self, watch: Watch, more: usize) -> Result<(Registered, Option<Registration>), RegistrationError> {
        self.may_change(&watch.name)?;
        if !self.apis.contains(&watch.api) {
            return Err(RegistrationError::UnknownApi);
        }
        let now = self.registry.now();
        match self.registry.get(&watch.name) {
            Some(old) if *old.watch == watch => {
                let again = self.unsure.contains(&watch.name).then(|| old.clone());
                Ok((Registered::Replaced, again))
            }
            Some(old) => {
                let started = if old.watch.same_run(&watch) { old.started } else { now };
                let watch = Arc::new(watch);
                Ok((Registered::Replaced, Some(Registration { watch, started, registered: now })))
            }
            // What it is unsure of may be in the state file, too.
            None if self.registry.len() + self.count_unsure() + more >= MOST_REGISTRATIONS => {
                Err(RegistrationError::Full)
            }
            None => {
                let registration = Registration { watch: Arc::new(watch), started: now, registered: now };
                Ok((Registered::Created, Some(registration)))
            }
        }
    }

    fn consider_removal(
        &self,
        name: WatchName,
        reply: Responder<Result<(), RegistrationError>>,
        batch: &mut RegistrationBatch,
    ) {
        let is_known = self.registry.get(&name).is_some() || self.unsure.contains(&name);
        if let Err(refusal) = self.may_change(&name).and(is_known.then_some(()).ok_or(RegistrationError::NotRegistered))
        {
            // Whoever asked may have left.
            return drop(reply.send(Err(refusal)));
        }
        batch.names.insert(name.clone());
        batch.changes.push(RegistrationChange::Remove(name));
        batch.replies.push(Box::new(move |done| drop(reply.send(done))));
    }

    /// Whether this name can be registered or removed over HTTP.
    fn may_change(&self, name: &WatchName) -> Result<(), RegistrationError> {
        if !self.config.registrations.enabled {
            return Err(RegistrationError::Disabled);
        }
        match self.list.origin_of(name).map(Origin::source) {
            Some(source @ (Source::Config | Source::File)) => Err(RegistrationError::NameTaken(source)),
            Some(Source::Http) | None => Ok(()),
        }
    }

    /// Removes what expired, and says whether there is more to be looked at.
    async fn expire(&mut self) -> bool {
        self.registry.follow(clock::moved());
        if !self.unsure.is_empty() && self.settle().await.is_err() {
            return false;
        }
        let (expired, more) = self.registry.expired(&self.means.board, clock::now(), BATCH);
        let changes = expired.iter().map(|name| RegistrationChange::Remove(name.clone())).collect();
        if self.commit(changes, events::expired).await.is_err() {
            self.registry.look_again(expired);
            return false;
        }
        more
    }

    /// How many registrations that are not known may be in the state file.
    fn count_unsure(&self) -> usize {
        self.unsure.iter().filter(|name| self.registry.get(name).is_none()).count()
    }

    /// Writes to the state file what is known of some names of which it is not known what it has.
    async fn settle(&mut self) -> Result<(), RegistrationError> {
        let Some(store) = self.means.store.clone() else { return Ok(()) };
        let known = |name: &WatchName| match self.registry.get(name) {
            Some(registration) => RegistrationChange::Put(registration.clone()),
            None => RegistrationChange::Remove(name.clone()),
        };
        let changes: Vec<_> = self.unsure.iter().take(BATCH).map(known).collect();
        let written = write(store, changes.clone()).await;
        self.note_written(&changes, &written);
        written
    }

    /// Makes changes of registrations durable, and then visible. `removed` reports what is gone.
    async fn commit(
        &mut self,
        changes: Vec<RegistrationChange>,
        removed: fn(&WatchName),
    ) -> Result<(), RegistrationError> {
        if changes.is_empty() {
            return Ok(());
        }
        let written = match self.means.store.clone() {
            Some(store) => write(store, changes.clone()).await,
            None => Err(RegistrationError::NotStored("there is no state file".to_owned())),
        };
        self.note_written(&changes, &written);
        written?;
        let names: Vec<_> = changes.iter().map(|change| change.name().clone()).collect();
        let mut edit = self.list.edit();
        for change in changes {
            match change {
                RegistrationChange::Put(registration) => {
                    events::registered(&registration.watch);
                    edit.define(&Origin::Http, RegistrationTable::definition(&registration));
                    self.registry.insert(registration);
                }
                RegistrationChange::Remove(name) => {
                    edit.remove(&Origin::Http, &name);
                    self.registry.remove(&name);
                    removed(&name);
                }
            }
        }
        let edited = edit.finish(|old| self.registry.has_run_of(old));
        self.publish(edited, None).await;
        self.forget_remembered(&names);
        Ok(())
    }

    /// Remembers of which names it is not known what the state file has, and says once what is wrong
    /// with it.
    fn note_written(&mut self, changes: &[RegistrationChange], written: &Result<(), RegistrationError>) {
        let names = changes.iter().map(RegistrationChange::name);
        match written {
            Ok(()) => {
                for name in names {
                    self.unsure.remove(name);
                }
                if self.problem.take().is_some() {
                    events::stored_again();
                }
            }
            Err(refusal) => {
                self.unsure.extend(names.cloned());
                if self.problem.as_ref() != Some(refusal) {
                    events::not_stored(refusal);
                    self.problem = Some(refusal.clone());
                }
            }
        }
    }
}

/// Writes changes of registrations.
async fn write(store: Arc<Store>, changes: Vec<RegistrationChange>) -> Result<(), RegistrationError> {
    match threads::try_run("registrations", move || store.register(&changes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.is_for_want_of_room() => Err(RegistrationError::DiskFull(error.to_string())),
        Ok(Err(error)) => Err(RegistrationError::NotStored(error.to_string())),
        Err(lost) => Err(RegistrationError::NotStored(format!("cannot be written: {lost}"))),
    }
}

/// Lays what the watch files have into the list. Says whether any of them has something else than before.
fn lay_files(edit: &mut Edit<'_>, laid: &mut WatchesByFile, scan: &FileScan) -> bool {
    let mut changed = false;
    for path in laid.keys().filter(|path| !scan.files.contains_key(*path)) {
        edit.replace(&Origin::File(path.clone()), []);
        changed = true;
    }
    for (path, watches) in &scan.files {
        if laid.get(path).is_none_or(|laid| !Arc::ptr_eq(laid, watches)) {
            edit.replace(&Origin::File(path.clone()), watches.iter().cloned().map(WatchDefinition::from));
            changed = true;
        }
    }
    laid.clone_from(&scan.files);
    changed
}

/// Takes out the watches of files that no glob matches any more. The others cannot be looked at now.
fn keep_covered(edit: &mut Edit<'_>, laid: &mut WatchesByFile, globs: &[WatchGlob]) {
    for (path, _) in laid.extract_if(.., |path, _| !globs.iter().any(|glob| glob.covers(path))) {
        edit.replace(&Origin::File(path), []);
    }
}

/// What keeps a reload from being done.
fn problem(path: &str, what: String) -> Problems {
    Problems(vec![Problem::new("reload", path, what)])
}
