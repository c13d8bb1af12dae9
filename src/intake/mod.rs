//! Changes of the watch list, the list of agents and the settings, one at a time.
//!
//! Reloads, scans of the watch files, registrations and their expiry are commands in one queue. Each of
//! them edits the [`WatchList`] or the [`AgentList`], and what the edit changed goes to the poller as one update. So no command
//! can undo half of another, and a client that gets a reply sees the change.

mod config_file;
mod discovery;
mod events;
mod follow;
mod registrations;
mod reload;
mod reloader;
mod replication;
mod report;
mod table;
mod watch_files;

pub use config_file::{FollowedConfigFile, LastRead};
pub use events::configuration_warning;
pub use follow::FileFollower;
pub use reloader::{ConfigLoader, PreparedReload, Reloader, StoreSettings};
#[cfg(test)]
pub(crate) use report::DefinedCounts;
pub use report::{DiscoveryReport, GlobReport, ReloadReport, SourceReport};

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::board::Board;
use crate::cekura::{BuildError, Clients, Renewal};
use crate::clock;
use crate::config::{Config, Registrations};
use crate::document::{Problem, Problems};
use crate::exposition::Metrics;
use crate::poller::{AgentListing, PollerSettings, PollerUpdate, Replication};
use crate::sources::{AgentList, DiscoveredAgents, EditResult, FileScan, ListedAgents, Origin, WatchList};
use crate::store::{Registration, Store};
use crate::toggle::{ApiName, Reason, Source, Timestamp, Watch, WatchName};
use crate::web::Web;
use table::RegistrationTable;
use watch_files::DefinitionsByFile;

/// How often expired registrations are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// The most commands that wait in the queue. The sender of another one waits.
const QUEUE_LENGTH: usize = 1024;

/// A request to the intake.
pub enum IntakeCommand {
    /// Register this watch, in place of the registration of the same name.
    Register(Watch, Responder<Result<Registered, RegistrationError>>),
    /// Remove the registration of this name.
    Deregister(WatchName, Responder<Result<(), RegistrationError>>),
    /// Put a configuration that was read again in force, or record why it could not be read.
    Reload(Result<Box<PreparedReload>, Problems>, Responder<Result<(), Problems>>),
    /// Apply a scan of the watch files. The number is that of the rescan whose globs it used.
    Scanned(u64, FileScan),
    /// Say where the watch of this name comes from; `None` if there is no such watch.
    FindOrigin(WatchName, Responder<Option<WatchOrigin>>),
    /// Read what other replicas registered; with the reason if that failed, as a sentence.
    CatchUp(Responder<Result<(), String>>),
    /// Take over what other replicas did; whether what they registered could be read.
    Replicate(Box<Replication>, Responder<bool>),
}

/// Where a watch comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchOrigin {
    /// The source that defines it.
    pub origin: Origin,
    /// When it was last registered or replaced; `None` if it was not registered.
    pub registered: Option<Timestamp>,
}

/// Takes the reply to a command.
pub type Responder<T> = oneshot::Sender<T>;

/// The result of a registration. It is on the disk, and every later read sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The name is new.
    Created,
    /// It replaced the registration of that name, or is equal to it.
    Replaced,
}

/// Why a registration was not stored or not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationError {
    /// Registrations are not enabled.
    Disabled,
    /// The name belongs to a watch of this other source.
    NameTaken(Source),
    /// Nothing is registered under that name.
    NotRegistered,
    /// The API is no longer configured.
    UnknownApi,
    /// There are as many as `registrations.max` allows, which is this number.
    Full(NonZeroU32),
    /// The state file or the database could not be written, for this reason; a sentence.
    NotStored(String),
    /// The state file could not be written because its disk is full; with the error, as a sentence.
    DiskFull(String),
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct ConfigSnapshot {
    /// All of it. It shares its watches with the watch list, so it takes almost no memory.
    pub config: Arc<Config>,
    /// The APIs that a watch may name.
    pub apis: Arc<BTreeSet<ApiName>>,
}

/// The parts of the program that the intake uses.
pub struct IntakeContext {
    /// The state of every toggle.
    pub board: Arc<Board>,
    /// The exporter's metrics.
    pub metrics: Arc<Metrics>,
    /// Sends updates to the poller.
    pub updates: mpsc::Sender<PollerUpdate>,
    /// Tells the poller which API has another key or other certificate authorities.
    pub renewals: mpsc::UnboundedSender<(ApiName, Renewal)>,
    /// The listings of agents that ended.
    pub listings: mpsc::UnboundedReceiver<AgentListing>,
    /// The state file or the database, where registrations are kept.
    pub store: Option<Store>,
    /// The registrations that the state file had at the start.
    pub registrations: Vec<Registration>,
    /// The agents of each API that an earlier process asked.
    pub asked_before: BTreeMap<ApiName, ListedAgents>,
    /// The clients of the APIs.
    pub clients: Arc<Clients>,
    /// The web configuration in force.
    pub web: watch::Receiver<Arc<Web>>,
    /// Whether other machines can connect.
    pub exposed: bool,
}

/// How the rest of the program reaches the intake.
pub struct IntakeHandle {
    /// The queue of commands.
    pub commands: mpsc::Sender<IntakeCommand>,
    /// Rescans the watch files.
    pub files: FileFollower,
    /// The configuration in force, whenever it changes.
    pub config: watch::Receiver<ConfigSnapshot>,
    /// What the sources define and what is wrong with them, whenever it changes.
    pub sources: watch::Receiver<SourceReport>,
}

/// Carries out commands, one after the other.
pub struct Intake {
    context: IntakeContext,
    commands: mpsc::Receiver<IntakeCommand>,
    list: WatchList,
    agents: AgentList,
    /// The agents that each API listed.
    discovered: BTreeMap<ApiName, DiscoveredAgents>,
    /// Why the last listing of an API failed, so that each reason is logged once.
    listing_errors: BTreeMap<ApiName, Reason>,
    registrations: RegistrationTable,
    /// The configuration in force.
    config: Arc<Config>,
    apis: BTreeSet<ApiName>,
    /// The tasks that follow the key files and authorities of the APIs.
    followers: JoinSet<()>,
    follower_of: BTreeMap<ApiName, AbortHandle>,
    /// The number of the rescan whose globs and APIs are in force.
    rescan: u64,
    /// What the lists have from each watch file.
    definitions_by_file: DefinitionsByFile,
    /// Whether the last scan could read all watch files.
    all_files_up: bool,
    snapshots: watch::Sender<ConfigSnapshot>,
    report: watch::Sender<SourceReport>,
    warned_of_many: bool,
    /// The names whose last commit failed: the state file may or may not have that change.
    uncertain: BTreeSet<WatchName>,
    /// Why the last commit failed, so that each reason is logged once.
    write_error: Option<RegistrationError>,
    /// Whether the web configuration requires a login or a client certificate.
    authenticates: bool,
}

// === impl Intake ===

impl Intake {
    /// Puts the first configuration in force. When this returns, its watches are on the board. Blocks
    /// while key files are read.
    ///
    /// # Errors
    /// If the client of an API cannot be set up.
    pub async fn start(config: Config, mut context: IntakeContext) -> Result<(Self, IntakeHandle), BuildError> {
        let (sender, commands) = mpsc::channel(QUEUE_LENGTH);
        let registrations = std::mem::take(&mut context.registrations);
        let clients = context.clients.of(config.apis.clone())?;
        // Against this one, everything in the first configuration is a change.
        let none = Arc::new(Config {
            watches: Vec::new(),
            agents: Vec::new(),
            registrations: Registrations::default(),
            ..config.clone()
        });
        let (snapshots, snapshot) = watch::channel(ConfigSnapshot { config: none.clone(), apis: Arc::default() });
        let (report, sources) = watch::channel(SourceReport::new());
        let authenticates = context.web.borrow_and_update().authenticates();
        let mut intake = Self {
            context,
            commands,
            list: WatchList::default(),
            agents: AgentList::default(),
            discovered: BTreeMap::new(),
            listing_errors: BTreeMap::new(),
            registrations: RegistrationTable::new(registrations, config.registrations.retention.clone()),
            config: none,
            apis: BTreeSet::new(),
            followers: JoinSet::new(),
            follower_of: BTreeMap::new(),
            rescan: 0,
            definitions_by_file: DefinitionsByFile::new(),
            all_files_up: false,
            snapshots,
            report,
            warned_of_many: false,
            uncertain: BTreeSet::new(),
            write_error: None,
            authenticates,
        };
        let asked_before = std::mem::take(&mut intake.context.asked_before);
        intake.restore_discoveries(&config.apis, asked_before);
        let files = FileFollower::start(sender.clone());
        let scan = files.rescan(config.watch_files.clone(), clients.names()).await;
        intake.put_in_force(config, clients, scan).await;
        intake.context.metrics.reloaded(true, clock::now());
        Ok((intake, IntakeHandle { commands: sender, files, config: snapshot, sources }))
    }

    /// Carries out commands until it is dropped. The watches of the demo, if this is the demo, replace those of the
    /// configuration.
    pub async fn run(mut self, mut demo_watches: Option<watch::Receiver<Vec<Arc<Watch>>>>) {
        let mut expiry = tokio::time::interval_at(Instant::now(), EXPIRY_INTERVAL);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(command) = self.commands.recv() => self.carry_out(command).await,
                Some(watches) = next_watches(&mut demo_watches) => {
                    let mut edit = self.list.edit();
                    edit.replace(&Origin::Config, watches.into_iter().map(Into::into));
                    let edited = edit.finish(&|old| self.registrations.has_run_of(old));
                    self.publish(edited, None).await;
                }
                Some(listing) = self.context.listings.recv() => self.apply_listing(listing).await,
                _ = expiry.tick() => if self.expire().await {
                    expiry.reset_immediately();
                },
                Ok(()) = self.context.web.changed() => self.web_changed(),
                Some(_) = self.followers.join_next() => {}
            }
        }
    }

    async fn carry_out(&mut self, command: IntakeCommand) {
        let mut next = Some(command);
        while let Some(command) = next.take() {
            self.registrations.apply_jumps();
            match command {
                IntakeCommand::Register(..) | IntakeCommand::Deregister(..) => {
                    next = self.change_registrations(command).await;
                }
                IntakeCommand::Reload(loaded, responder) => reply(responder, self.reload(loaded).await),
                IntakeCommand::FindOrigin(name, responder) => reply(responder, self.origin_of(&name)),
                IntakeCommand::CatchUp(responder) => next = self.catch_up_for(responder).await,
                IntakeCommand::Replicate(replication, responder) => {
                    reply(responder, self.replicate(*replication).await);
                }
                IntakeCommand::Scanned(rescan, scan) if rescan == self.rescan => self.apply_scan(scan).await,
                // It used other globs than those in force. The next scan finds the same files again, but no
                // longer reports them as changed.
                IntakeCommand::Scanned(_, scan) => scan.events.iter().for_each(events::watch_files),
            }
        }
    }

    fn origin_of(&self, name: &WatchName) -> Option<WatchOrigin> {
        let origin = self.list.origin_of(name)?.clone();
        let registration = self.registrations.get(name).filter(|_| origin == Origin::Http);
        Some(WatchOrigin { origin, registered: registration.map(|registration| registration.registered) })
    }

    /// Sends the changes of both lists to the poller, and waits until every reader sees them.
    async fn publish(&mut self, edited: EditResult, settings: Option<PollerSettings>) {
        self.publish_with(edited, settings, Replication::default()).await;
    }

    /// As [`Intake::publish`], together with what other replicas did.
    async fn publish_with(&mut self, edited: EditResult, settings: Option<PollerSettings>, replication: Replication) {
        edited.refused.iter().for_each(events::refused);
        let agents = self.agents.finish_edit();
        agents.refused.iter().for_each(events::agent_refused);
        let changed = !edited.changes.is_empty() || !agents.changes.is_empty() || !replication.is_empty();
        if settings.is_some() || changed {
            let (taken, done) = oneshot::channel();
            let applied_jump = self.registrations.applied_jump();
            let update = PollerUpdate {
                settings,
                changes: edited.changes,
                agents: agents.changes,
                replication,
                applied_jump,
                taken,
            };
            // Both fail only if the poller is gone, and then the process ends.
            let _ = self.context.updates.send(update).await;
            let _ = done.await;
        }
        let mut watches = 0;
        for (source, count) in self.list.counts() {
            self.context.metrics.set_watches(source, count.watches, count.rejected);
            watches += count.watches;
        }
        for (source, count) in self.agents.counts() {
            self.context.metrics.set_agents(source, count.agents, count.rejected);
        }
        self.report_lists();
        if watches > Config::MANY_WATCHES && !self.warned_of_many {
            self.warned_of_many = true;
            events::many_watches(watches);
        }
    }
}

/// The watches of the demo when they change next; `None` if this is not the demo.
async fn next_watches(demo_watches: &mut Option<watch::Receiver<Vec<Arc<Watch>>>>) -> Option<Vec<Arc<Watch>>> {
    let demo_watches = demo_watches.as_mut()?;
    demo_watches.changed().await.ok()?;
    Some(demo_watches.borrow_and_update().clone())
}

/// Replies to a client, which may have gone.
fn reply<T>(responder: Responder<T>, value: T) {
    let _ = responder.send(value);
}

/// Problems of a reload, as one.
fn problem(path: &str, what: String) -> Problems {
    Problems(vec![Problem::new("reload", path, what)])
}
