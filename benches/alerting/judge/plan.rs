//! The plan of a run of the judge, drawn from a seed: the scripts of the slots, the outages of the APIs, and the
//! restarts of the exporter. Pure, and independent of the rules.

use fastrand::Rng;

use super::Settings;
use super::agents::{AgentScript, AskedAgent};

/// Seconds since the run began.
pub(crate) type Time = f64;

/// Everything that happens in a run of the judge.
pub(crate) struct Plan {
    pub(crate) slots: Vec<Slot>,
    /// The outages of the APIs.
    pub(crate) outages: Vec<Outage>,
    /// When and how the exporter is ended.
    pub(crate) restarts: Vec<(Time, Ending)>,
    /// How long the exporter stays away each time. A replica stays away for longer than its lease, so that the others
    /// take over first.
    pub(crate) away: Time,
    /// When the database of replicas fails over.
    pub(crate) failover: Time,
    /// From when to when one watch file is broken.
    pub(crate) broken_file: (Time, Time),
    /// From when to when the configuration on disk is broken.
    pub(crate) broken_configuration: (Time, Time),
    /// From when to when the agents of an API cannot be listed. The exporter lists them when it starts, and then every
    /// ten minutes, so one of its restarts is in this time.
    pub(crate) broken_list: (Time, Time),
}

/// A watch and its consecutive runs, and its agent. Without runs there is only the agent.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) agent_id: u32,
    pub(crate) api: Api,
    pub(crate) team: Option<&'static str>,
    pub(crate) source: Source,
    pub(crate) script: Script,
    pub(crate) runs: Vec<Run>,
    /// When it is removed from the watch list.
    pub(crate) removed: Option<Time>,
    /// Its agent, if the exporter asks for its mock status.
    pub(crate) asked: Option<AskedAgent>,
}

/// A toggle task, as the API answers for it.
#[derive(Clone, Default)]
pub(crate) struct Run {
    /// When the exporter is told to watch it.
    pub(crate) at: Time,
    /// The expected state of the mocks.
    pub(crate) expect: Option<bool>,
    /// When and how it ends; it is in progress before.
    pub(crate) ends: Option<(Time, End)>,
    /// From when to when its polls fail, and how.
    pub(crate) silent: Option<(Time, Time, Silence)>,
    /// From when on the API does not know its id.
    pub(crate) forgotten: Option<Time>,
    /// Whether its agent belongs to another project.
    pub(crate) foreign: bool,
}

/// How a task ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With the value of `mock_enabled`.
    Completed(Option<bool>),
    Failed,
}

/// How polls of a silent task fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    Hangs,
    Breaks,
    Resets,
    Babbles,
}

/// The APIs. Each is an upstream of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Api {
    /// It has short outages.
    Steady,
    /// It has one long outage.
    Flaky,
    /// It refuses the key for a while.
    Locked,
    /// The path in its `base_url` is wrong: it answers 404 to everything.
    Misplaced,
    /// Its request budget is too small for its toggles.
    Busy,
    /// It lists its agents.
    Listed,
    /// It has no toggle endpoint: it answers 404 to every toggle.
    Toggleless,
    /// It cannot tell the mock status of agents: it answers 404 to that.
    Statusless,
}

/// A time in which an API answers no poll validly.
#[derive(Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) api: Api,
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// Whether it is long enough for a notification.
    pub(crate) long: bool,
}

/// The source of a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Configuration,
    /// The watch file of this number.
    File(usize),
    Http,
}

/// How the exporter is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Killed,
    Stopped,
}

/// What happens to the runs of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Script {
    Good,
    Failed,
    Wrong,
    Null,
    Stuck,
    Late,
    Silent,
    Expired,
    Forgotten,
    FailedThenGood,
    FailedThenHanging,
    FailedThenExpired,
    FailedThenRemoved,
    WrongThenGood,
    WrongThenHanging,
    OnThenOff,
    Foreign,
    /// Never ends, at an API whose toggles are never answered validly.
    Unheard,
    /// What happens to the mocks of its agent matters.
    OfAgent(AgentScript),
}

/// The scripts and their weights.
const SCRIPTS: [(Script, u32); 16] = [
    (Script::Good, 50),
    (Script::Failed, 5),
    (Script::Wrong, 5),
    (Script::Null, 4),
    (Script::Stuck, 5),
    (Script::Late, 6),
    (Script::Silent, 6),
    (Script::Expired, 4),
    (Script::Forgotten, 4),
    (Script::FailedThenGood, 7),
    (Script::FailedThenHanging, 6),
    (Script::FailedThenExpired, 4),
    (Script::FailedThenRemoved, 4),
    (Script::WrongThenGood, 5),
    (Script::WrongThenHanging, 6),
    (Script::OnThenOff, 5),
];

/// The number of slots that are stuck from the beginning to the end.
const LASTING: u32 = 40;

/// There is one more slot for an agent that is asked for so many slots, and at least so many for each script.
const SLOTS_PER_AGENT: u32 = 5;
const LEAST_AGENTS: u32 = 6;

/// One in so many slots is of an agent of another project.
const FOREIGN_EVERY: u32 = 60;

/// One in so many slots that are not registered is of an agent that is configured to stay on. A registration that
/// completed expires, and what it told with it, so that the mocks of such an agent would drift.
const STAYS_ON_EVERY: u32 = 15;

/// The values of the label `team`: two that have a route, and none.
const TEAMS: [Option<&str>; 3] = [Some("bookings"), Some("payments"), None];

// === impl Plan ===

impl Plan {
    /// Draws a plan.
    pub(crate) fn draw(settings: &Settings) -> Self {
        let mut rng = Rng::with_seed(settings.seed);
        let whole = settings.seconds();
        let files = usize::try_from(settings.slots / 200).unwrap_or_default().max(3);
        let mut slots: Vec<_> =
            (0..settings.slots).map(|number| Slot::draw(number, files, settings, &mut rng)).collect();
        let count = u32::try_from(AgentScript::ALL.len()).unwrap_or(1);
        for each in 0..LEAST_AGENTS.max(settings.slots / SLOTS_PER_AGENT / count) {
            for script in AgentScript::ALL {
                let number = u32::try_from(slots.len()).unwrap_or(u32::MAX);
                slots.push(Slot::of_agent(number, script, each, files, settings, &mut rng));
            }
        }
        let restarts = f64::from(settings.restarts());
        let restarts = (0..settings.restarts()).map(|number| {
            let at = whole * (f64::from(number) + 0.5 + (rng.f64() - 0.5) * 0.4) / restarts;
            (at, if number % 2 == 0 { Ending::Killed } else { Ending::Stopped })
        });
        let restarts: Vec<_> = restarts.collect();
        let taken_over = if settings.replicas > 1 { settings.lease + 2.0 } else { 0.0 };
        let away = taken_over + settings.scrape_interval * 1.2;
        // Between two restarts.
        let failover = whole * f64::from(settings.restarts().div_ceil(2)) / f64::from(settings.restarts());
        let broken_configuration = (whole * 0.2, whole * 0.2 + settings.surely_notified());
        // With a broken configuration the exporter is not restarted.
        let restart = restarts.first().map_or(0.0, |(at, _)| *at);
        let put_off = (broken_configuration.0..broken_configuration.1).contains(&restart);
        let restart = if put_off { broken_configuration.1 } else { restart };
        Self {
            slots,
            restarts,
            away,
            failover,
            outages: Outage::all(settings),
            broken_file: (whole * 0.55, whole * 0.55 + settings.surely_notified()),
            broken_configuration,
            broken_list: (restart - 2.0, restart + away + settings.scaled(600.0) + settings.surely_notified() + 8.0),
        }
    }
}

// === impl Outage ===

impl Outage {
    fn all(settings: &Settings) -> Vec<Self> {
        let whole = settings.seconds();
        // Half of the `for` of the alerts on an API.
        let short = settings.scaled(300.0) / 2.0;
        let outage = |api, from: f64, to, long| Self { api, from: whole * from, to, long };
        vec![
            outage(Api::Steady, 0.33, whole * 0.33 + short, false),
            outage(Api::Flaky, 0.4, whole * 0.65, true),
            outage(Api::Locked, 0.35, whole * 0.6, true),
            outage(Api::Steady, 0.72, whole * 0.72 + short, false),
        ]
    }
}

// === impl Slot ===

impl Slot {
    fn draw(number: u32, files: usize, settings: &Settings, rng: &mut Rng) -> Self {
        let whole = settings.seconds();
        // An API without unfinished toggles has no alerts, so each API has some that never finish.
        let lasts = (number < LASTING).then(|| Api::ALL[number as usize % Api::ALL.len()]);
        let api = lasts.unwrap_or_else(|| match rng.u32(..100) {
            0..74 => Api::Steady,
            74..90 => Api::Flaky,
            90..96 => Api::Locked,
            _ => Api::Misplaced,
        });
        let script = match api {
            Api::Misplaced | Api::Toggleless => Script::Unheard,
            _ if lasts.is_some() => Script::Stuck,
            Api::Steady if rng.u32(..FOREIGN_EVERY) == 0 => Script::Foreign,
            _ => Script::draw(api, rng),
        };
        // If the first toggles of the API were all foreign, most of the API would be refused.
        let (from, to) = match script {
            _ if lasts.is_some() => (0.0, 0.02),
            Script::Foreign => (0.05, 0.45),
            _ => (0.0, 0.45),
        };
        let at = whole * (from + rng.f64() * (to - from));
        let (runs, removed) = script.runs(at, settings, rng);
        let source = match rng.u32(..100) {
            0..5 => Source::Configuration,
            5..30 => Source::File(rng.usize(..files)),
            _ => Source::Http,
        };
        Self {
            name: format!("slot-{number:05}"),
            agent_id: number + 1,
            api,
            team: TEAMS[rng.usize(..TEAMS.len())],
            source,
            script,
            runs,
            removed,
            asked: (source != Source::Http && rng.u32(..STAYS_ON_EVERY) == 0).then(AskedAgent::staying_on),
        }
    }

    /// A slot for an agent that is asked, the one of this number among those with the script.
    fn of_agent(
        number: u32,
        script: AgentScript,
        among: u32,
        files: usize,
        settings: &Settings,
        rng: &mut Rng,
    ) -> Self {
        let api = script.api(among);
        let (agent, run) = script.draw(api, settings, rng);
        // A discovered agent has no labels but those of a toggle of it.
        let has_labels = !agent.discovered || run.is_some();
        Self {
            name: format!("slot-{number:05}"),
            agent_id: number + 1,
            api,
            team: TEAMS[rng.usize(..TEAMS.len())].filter(|_| has_labels),
            source: if rng.bool() { Source::Configuration } else { Source::File(rng.usize(..files)) },
            script: Script::OfAgent(script),
            runs: run.into_iter().collect(),
            removed: None,
            asked: Some(agent),
        }
    }

    /// The progress id of a run.
    pub(crate) fn progress_id(&self, run: usize) -> String {
        format!("{}:{run}", self.agent_id - 1)
    }
}

/// The slot and the run of a progress id.
pub(crate) fn parse_progress_id(id: &str) -> Option<(usize, usize)> {
    let (slot, run) = id.split_once(':')?;
    Some((slot.parse().ok()?, run.parse().ok()?))
}

// === impl Script ===

impl Script {
    fn draw(api: Api, rng: &mut Rng) -> Self {
        let total: u32 = SCRIPTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = rng.u32(..total);
        let found = SCRIPTS.iter().find(|(_, weight)| {
            let found = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            found
        });
        match found {
            // During a long outage, whether an id is known cannot be observed.
            Some((Self::Expired | Self::FailedThenExpired, _)) if api != Api::Steady => Self::Good,
            Some((script, _)) => *script,
            None => Self::Good,
        }
    }

    /// The runs of a slot whose first run begins at `at`, and when the slot is removed.
    fn runs(self, at: Time, settings: &Settings, rng: &mut Rng) -> (Vec<Run>, Option<Time>) {
        let whole = settings.seconds();
        let direction = rng.bool();
        let expect = [Some(true), Some(false), None][rng.usize(..3)];
        let said = expect.unwrap_or(direction);
        // Some have ended before the exporter first asks.
        let soon = (rng.f64() * 16.0 - 2.0).max(0.0);
        let ending =
            |at: Time, after: f64, expect, end| Run { at, expect, ends: Some((at + after, end)), ..Run::default() };
        let hanging = |at: Time, expect| Run { at, expect, ..Run::default() };
        // After the notification of the first run, in most cases.
        let next = (at + soon + settings.surely_notified() * 0.5 + rng.f64() * whole * 0.3).min(whole * 0.8);
        let good = End::Completed(Some(said));
        let wrong = End::Completed(Some(!direction));
        let retry = soon + 1.0;
        let runs = match self {
            Self::Good => vec![ending(at, soon, expect, good)],
            Self::Failed | Self::FailedThenRemoved => vec![ending(at, soon, expect, End::Failed)],
            Self::Wrong => vec![ending(at, soon, Some(direction), wrong)],
            Self::Null => vec![ending(at, soon, Some(direction), End::Completed(None))],
            Self::Stuck | Self::Unheard => vec![hanging(at, expect)],
            Self::Late => vec![ending(at, 5.0 + rng.f64() * whole * 0.5, expect, good)],
            Self::Silent => vec![Self::silent(at, expect, good, settings, rng)],
            Self::Expired => vec![Run { forgotten: Some(0.0), ..hanging(at, expect) }],
            Self::Forgotten => vec![Run { forgotten: Some(at + 5.0 + rng.f64() * 30.0), ..hanging(at, expect) }],
            Self::FailedThenGood => vec![ending(at, soon, expect, End::Failed), ending(next, retry, expect, good)],
            Self::FailedThenHanging => vec![ending(at, soon, expect, End::Failed), hanging(next, expect)],
            Self::FailedThenExpired => {
                vec![ending(at, soon, expect, End::Failed), Run { forgotten: Some(0.0), ..hanging(next, expect) }]
            }
            Self::WrongThenGood => vec![
                ending(at, soon, Some(direction), wrong),
                ending(next, retry, Some(direction), End::Completed(Some(direction))),
            ],
            Self::WrongThenHanging => {
                vec![ending(at, soon, Some(direction), wrong), hanging(next, Some(direction))]
            }
            Self::OnThenOff => {
                let off = (at + soon + 5.0 + rng.f64() * whole * 0.7).min(whole * 0.85);
                vec![
                    ending(at, soon, Some(true), End::Completed(Some(true))),
                    ending(off, retry, Some(false), End::Completed(Some(false))),
                ]
            }
            Self::Foreign => vec![Run { foreign: true, ..hanging(at, expect) }],
            Self::OfAgent(_) => Vec::new(),
        };
        let removed = (self == Self::FailedThenRemoved).then_some(next);
        (runs, removed)
    }

    /// A run that is silent from the start or later, for ever or until it completes.
    fn silent(at: Time, expect: Option<bool>, end: End, settings: &Settings, rng: &mut Rng) -> Run {
        let from = if rng.u32(..3) == 0 { 0.0 } else { at + 3.0 + rng.f64() * 20.0 };
        let how = [Silence::Hangs, Silence::Breaks, Silence::Resets, Silence::Babbles][rng.usize(..4)];
        let to = from.max(at) + settings.scaled(900.0) + settings.surely_notified() + rng.f64() * 30.0;
        if rng.bool() {
            Run { at, expect, ends: Some((to, end)), silent: Some((from, to, how)), ..Run::default() }
        } else {
            Run { at, expect, silent: Some((from, f64::INFINITY, how)), ..Run::default() }
        }
    }
}

// === impl Api ===

impl Api {
    pub(crate) const ALL: [Self; 8] = [
        Self::Steady,
        Self::Flaky,
        Self::Locked,
        Self::Misplaced,
        Self::Busy,
        Self::Listed,
        Self::Toggleless,
        Self::Statusless,
    ];

    /// Its request budget.
    pub(crate) fn requests_per_second(self) -> f64 {
        if self == Self::Busy { 0.5 } else { 20_000.0 }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Flaky => "flaky",
            Self::Locked => "locked",
            Self::Misplaced => "misplaced",
            Self::Busy => "busy",
            Self::Listed => "listed",
            Self::Toggleless => "toggleless",
            Self::Statusless => "statusless",
        }
    }
}
