//! The judge of the alerts: compares the notifications that were sent with what was true.
//!
//! It simulates slots with random scripts. They pass through the real exporter, a Prometheus with the shipped rules
//! and an Alertmanager with the shipped routes to a webhook. All times in rules and routes are divided by one factor.

mod agents;
mod clocks;
mod configuration;
mod database;
mod driver;
mod exporter;
mod finale;
mod fleet;
#[path = "../../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the judge uses a part of it")]
pub(crate) mod harness;
mod plan;
mod registration;
mod scale;
mod scrapes;
mod truth;
mod upstream;
mod verdict;
mod webhook;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use self::clocks::Clocks;
use self::database::Database;
use self::driver::{Driver, Happened};
use self::harness::{Daemon, Failure, Program, load_average};
use self::plan::{Plan, Time};
pub(crate) use self::scale::Break;
use self::scale::Rules;
use self::scrapes::Scrapes;
use self::upstream::Upstreams;
use self::verdict::Verdict;
use self::webhook::Webhook;
// The clusters of the tests. The module that includes this one has them, so they are compiled once.
use super::Postgres;

const PROMETHEUS: Program = Program { name: "prometheus", package: "prometheus", ready: "/-/ready" };

const ALERTMANAGER: Program =
    Program { name: "prometheus-alertmanager", package: "prometheus-alertmanager", ready: "/-/ready" };

/// The shipped rules and routes.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/rules.yaml");
const ROUTES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alertmanager/alertmanager.yml");

/// What is simulated, and how. Times are in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) slots: u32,
    pub(crate) minutes: u32,
    pub(crate) seed: u64,
    /// How many exporters there are. Several are replicas that share a database.
    pub(crate) replicas: usize,
    /// The lease of replicas. Like everything else that is not in rules or routes, it is not scaled.
    lease: f64,
    /// The divisor of all times in rules and routes.
    pub(crate) factor: f64,
    /// The interval of scrapes and of rule evaluations.
    pub(crate) scrape_interval: f64,
    /// The polling intervals of the exporter. Agents are asked at the longest one.
    pub(crate) min_interval: f64,
    pub(crate) max_interval: f64,
    pub(crate) backoff_max: f64,
    /// The timeout of a request to an API.
    pub(crate) timeout: f64,
    /// One answer in so many is a fault.
    pub(crate) fault_every: u32,
    /// How the rules are broken on purpose.
    pub(crate) broken: Option<Break>,
    /// The scaled `group_interval` of the routes; known once they are read.
    group_interval: f64,
    /// Where to copy the scaled rules and the exporter's log.
    pub(crate) keep: Option<PathBuf>,
}

/// How long things may take, in seconds.
pub(crate) struct Bounds {
    /// From a change at the API until the exporter has seen it: a poll interval and a retry.
    detection: Time,
    /// From a change of the mocks of an agent until the exporter has seen it.
    agent_detection: Time,
    /// From the beginning of an API's outage until the exporter shows it.
    api_detection: Time,
    /// From the exporter to the evaluation that sees it, without lag: two scrapes and an evaluation.
    to_evaluation: Time,
    /// From the evaluation to the webhook.
    group_interval: Time,
    /// The lag that was measured.
    lag: Lag,
    /// For how long each alert is kept firing.
    kept_firing: HashMap<String, Time>,
    /// The gaps between successful scrapes, where at least one scrape failed or was late. Of replicas, those that no
    /// planned end of a replica explains.
    absences: Vec<(Time, Time)>,
    /// The gaps in which no exporter was scraped.
    blind: Vec<(Time, Time)>,
    /// The gaps in which some exporter was not scraped, for whatever reason.
    missing: Vec<(Time, Time)>,
}

/// How late Prometheus and this process were, in seconds.
#[derive(Debug, Default)]
struct Lag {
    /// The longest scrape.
    scrape: Time,
    /// The longest evaluation of the rules.
    evaluation: Time,
    /// The number of evaluations that were skipped.
    missed: f64,
    /// The longest delay of a timer of this process.
    timer: Time,
    /// By how much the system's clock jumped in all, forward and back. The exporter and Prometheus compare times by it,
    /// and the judge by a clock that nobody sets.
    clock: Time,
}

/// The result of a run.
pub(crate) struct Report {
    settings: Settings,
    bounds: Bounds,
    verdict: Verdict,
    scaled: usize,
    notifications: usize,
    happened: Happened,
    /// The runs that should have been polled and were not.
    never_polled: Vec<String>,
    load: String,
}

// === impl Settings ===

impl Settings {
    /// The defaults for this size. With many slots, scrapes, evaluations and polls are less frequent.
    pub(crate) fn new(slots: u32, minutes: u32, seed: u64) -> Self {
        let many = slots > 1000;
        let short = minutes < 6;
        Self {
            slots,
            minutes,
            seed,
            replicas: 1,
            // `CekuraShardUnowned` requires that it is shorter than the `for` of that alert. Less than 3 s is not allowed.
            lease: if short { 3.0 } else { 5.0 },
            factor: if short { 60.0 } else { 20.0 },
            scrape_interval: if many { 5.0 } else { 1.0 },
            min_interval: 0.5,
            max_interval: if many { 3.0 } else { 1.5 },
            backoff_max: if many { 6.0 } else { 3.0 },
            timeout: 1.0,
            // Two faults and a restart in a row look like an alert that is over, and with many slots they do happen.
            fault_every: if many { 100 } else { 30 },
            broken: None,
            group_interval: 0.0,
            keep: None,
        }
    }

    fn seconds(&self) -> f64 {
        f64::from(self.minutes) * 60.0
    }

    /// Scales a time of the rules.
    fn scaled(&self, seconds: f64) -> f64 {
        seconds / self.factor
    }

    /// How many restarts there are. More would make `CekuraExporterDown` fire, which counts changes of `up`.
    fn restarts(&self) -> u32 {
        (self.minutes / 2).max(2)
    }

    /// How long Prometheus waits before it sends an alert again; a minute by default. Alertmanager takes an alert for
    /// resolved after four times as long, so it must not be much shorter than an evaluation may take.
    fn resend_delay(&self) -> f64 {
        self.group_interval
    }

    /// How long a condition with `for: 5m` must last so that a notification is certain.
    fn surely_notified(&self) -> f64 {
        self.scaled(300.0) + 8.0 * self.scrape_interval + self.group_interval + 10.0
    }
}

// === impl Bounds ===

impl Bounds {
    fn of(settings: &Settings, kept_firing: HashMap<String, Time>) -> Self {
        // The next poll may meet a fault; then the retry sees the change.
        let detection = settings.max_interval + 2.0 * settings.min_interval + settings.timeout;
        Self {
            detection,
            // The retry of an agent is not sooner than the next request.
            agent_detection: 2.0 * settings.max_interval + settings.timeout,
            api_detection: 2.0 * settings.max_interval + 2.0 * settings.timeout + detection,
            to_evaluation: 3.0 * settings.scrape_interval,
            group_interval: settings.group_interval,
            lag: Lag::default(),
            kept_firing,
            absences: Vec::new(),
            blind: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// From the exporter to a notification that something fires.
    fn notification(&self) -> Time {
        self.staleness() + self.group_interval
    }

    /// From the exporter to the evaluation that sees it.
    fn staleness(&self) -> Time {
        self.to_evaluation + self.lag.sum()
    }

    /// From the exporter to a notification that an alert is resolved.
    fn resolution(&self, alert: &str) -> Time {
        self.notification() + self.kept_firing.get(alert).copied().unwrap_or_default()
    }
}

impl Lag {
    fn sum(&self) -> Time {
        self.scrape + self.evaluation + self.timer + self.clock
    }
}

/// Simulates the slots and judges the notifications.
pub(crate) async fn run(mut settings: Settings) -> Result<Report, Failure> {
    let (rules, routes) = (fs::read_to_string(RULES)?, fs::read_to_string(ROUTES)?);
    let rules = Rules::parse(&rules)?;
    let kept_firing = rules.kept_firing()?.into_iter().map(|(alert, seconds)| (alert, settings.scaled(seconds)));
    let kept_firing = kept_firing.collect();
    settings.group_interval = settings.scaled(scale::time_of(&routes, "group_interval")?);
    let mut bounds = Bounds::of(&settings, kept_firing);
    let rules = settings.broken.map_or(Ok(rules.clone()), |how| rules.broken(how))?;
    let (rules, scaled) = rules.scaled(settings.factor);

    // Other code in this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
    let folder = tempfile::tempdir()?;
    let database = if settings.replicas > 1 { Some(Database::start().await) } else { None };
    let begun = Instant::now();
    let plan = Arc::new(Plan::draw(&settings));
    let upstreams = Arc::new(Upstreams::start(&plan, &settings, begun).await?);
    let repeat_interval = settings.scaled(scale::time_of(&routes, "repeat_interval")?);
    let webhook = Webhook::start(begun, repeat_interval).await?;
    let routes = scale::routes(&routes, settings.factor, |receiver| webhook.url(receiver))?;
    let alertmanager = start_alertmanager(&routes).await?;
    let mut driver = Driver::start(&plan, &settings, &upstreams, database, folder.path(), &http, begun).await?;
    fs::write(folder.path().join("rules.yaml"), rules)?;
    let rules = folder.path().join("rules.yaml");
    let prometheus = start_prometheus(&settings, &rules, &driver.targets(), &alertmanager).await?;

    let clocks = Arc::new(Clocks::default());
    let watching = tokio::spawn(clocks.clone().watch(begun));
    driver.drive(settings.seconds()).await?;
    let (told, end) = webhook.take();
    let lasted = begun.elapsed().as_secs_f64();
    let load = load_average()?;
    bounds.lag = scrapes::lag(&http, &prometheus, lasted).await?;
    let (finale, happened) = driver.finish();
    watching.abort();
    (bounds.lag.timer, bounds.lag.clock) = (clocks.late(), clocks.jumped());
    let scrapes = Scrapes::query(&http, &prometheus, begun, end).await?;
    (bounds.blind, bounds.missing) = (scrapes.blind(&settings), scrapes.missing(&settings));
    bounds.absences =
        if settings.replicas == 1 { bounds.blind.clone() } else { scrapes.unplanned(&happened, &settings) };
    let expected = truth::expected(&plan, &settings, &bounds, &happened, &upstreams);
    let about = |subject: &_| truth::script_of(&plan, subject).map(|script| format!("{script:?}")).unwrap_or_default();
    let mut verdict = Verdict::of(&told, &expected, end, about);

    let never_polled = truth::never_polled(&plan, &happened, &upstreams, end);

    let expected = finale.play(&settings, &bounds).await?;
    let expected: HashMap<_, _> = expected.into_iter().map(|expected| (expected.subject.clone(), expected)).collect();
    let (mut last_told, end) = webhook.take();
    last_told.changes.retain(|subject, _| expected.contains_key(subject));
    (last_told.repeated, last_told.doubled) = (Vec::new(), Vec::new());
    verdict.add(Verdict::of(&last_told, &expected, end, about));
    if let Some(keep) = &settings.keep {
        leave(folder.path(), keep)?;
    }
    let notifications = told.notifications;
    Ok(Report { settings, bounds, verdict, scaled, notifications, happened, never_polled, load })
}

/// Copies the files of the run to a folder.
fn leave(folder: &Path, keep: &Path) -> Result<(), Failure> {
    fs::create_dir_all(keep)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), keep.join(entry.file_name()))?;
        }
    }
    Ok(())
}

async fn start_alertmanager(routes: &str) -> Result<Daemon, Failure> {
    let prepare = |address, folder: &Path| {
        let file = folder.join("alertmanager.yml");
        fs::write(&file, routes)?;
        Ok(vec![
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", folder.join("data").display()),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_owned(),
        ])
    };
    ALERTMANAGER.start(prepare).await
}

async fn start_prometheus(
    settings: &Settings,
    rules: &Path,
    exporters: &[String],
    alertmanager: &Daemon,
) -> Result<Daemon, Failure> {
    let interval = format!("{}ms", settings.scrape_interval * 1000.0);
    let resend_delay = format!("{:.0}ms", settings.resend_delay() * 1000.0);
    let prepare = |address: std::net::SocketAddr, folder: &Path| {
        let file = folder.join("prometheus.yml");
        let job = |name, targets: &[String]| json!({"job_name": name, "static_configs": [{"targets": targets}]});
        let config = json!({
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [rules],
            "scrape_configs": [job("cekura-exporter", exporters), job("prometheus", &[address.to_string()])],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]},
        });
        // JSON is YAML.
        fs::write(&file, config.to_string())?;
        Ok(vec![
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={address}"),
            format!("--rules.alert.resend-delay={resend_delay}"),
        ])
    };
    PROMETHEUS.start(prepare).await
}

// === impl Report ===

impl Report {
    /// Whether nothing is wrong, and every alert was judged.
    pub(crate) fn is_good(&self) -> bool {
        self.verdict.wrong() == 0 && self.never_polled.is_empty() && self.verdict.not_judged().next().is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, bounds, verdict, scaled, notifications, happened, never_polled, load } = self;
        let broken = settings.broken.map(|how| format!(", broken: {}", how.as_str())).unwrap_or_default();
        let Settings { slots, minutes, seed, factor, scrape_interval, group_interval, .. } = settings;
        writeln!(f, "{slots} slots over {minutes} minutes, seed {seed}{broken}")?;
        if settings.replicas > 1 {
            writeln!(
                f,
                "{} replicas with a lease of {:.0} s; the database failed over: {:.1?}",
                settings.replicas, settings.lease, happened.failover
            )?;
        }
        writeln!(f, "{scaled} times of the rules and those of the routes are divided by {factor}")?;
        writeln!(
            f,
            "bound: {:.1} s (poll {:.1} s and a retry), 2 scrapes and an evaluation of {scrape_interval:.0} s, \
             group_interval {group_interval:.1} s, lag {:.1} s: {:.1} s",
            bounds.detection,
            settings.max_interval,
            bounds.lag.sum(),
            bounds.detection + bounds.notification(),
        )?;
        let Lag { scrape, evaluation, missed, timer, clock } = &bounds.lag;
        writeln!(
            f,
            "lag: scrapes {scrape:.2} s, evaluations {evaluation:.2} s ({missed} left out), timers {timer:.2} s, \
             jumps of the clock {clock:.2} s; load average {load}; not scraped: {:.1?}",
            bounds.absences
        )?;
        let away: Vec<_> = happened.ended.iter().map(|ended| (ended.from, ended.to)).collect();
        writeln!(f, "the exporter was away: {away:.1?}; {notifications} notifications")?;
        write!(f, "{verdict}")?;
        if !never_polled.is_empty() {
            writeln!(f, "{} runs were never polled: {}", never_polled.len(), never_polled.join(", "))?;
        }
        for alert in verdict.not_judged() {
            writeln!(f, "{alert} was never due: the run was too short or the machine too busy to judge it.")?;
        }
        writeln!(
            f,
            "{}",
            if self.is_good() {
                "No notification is wrong or missing."
            } else {
                "Notifications are wrong, missing or not judged."
            }
        )
    }
}
