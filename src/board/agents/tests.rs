//! What is known of agents, against a model that keeps everything that ever happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::board::{AgentRow, Board, RunId};
use crate::sources::{AgentChange, WatchChange};
use crate::store::{SavedAgent, SavedToggle};
use crate::toggle::sample::{self, agent, answer, mock_status};
use crate::toggle::{
    AgentDefinition, AgentKey, ClockJump, Drift, Expect, Failure, LiveMocks, ProgressId, Reason, ReportedStatus,
    Timestamp, Watch, WatchName,
};

/// What happens, in seconds of a clock that nobody sets.
#[derive(Debug, Clone)]
enum Happening {
    /// A watch gets another run.
    Begin(usize),
    /// The run of a watch is polled.
    Answer(usize, RunAnswer),
    /// The API is asked, and answers this.
    Ask(Option<bool>),
    /// A request that began so many seconds before is answered.
    LateAnswer(u64, bool),
    Forget,
    Restart,
    Jump(i64),
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunAnswer {
    InProgress,
    Completed(Option<bool>),
    Failed,
    NoAnswer,
}

const WATCHES: usize = 2;

/// Everything that ever happened to one agent.
#[derive(Debug, Default)]
struct Model {
    runs: [ModelRun; WATCHES],
    /// The runs that said whether mocks are on: when they count as finished, their place, and what they said.
    told: Vec<(u64, u64, bool)>,
    /// The latest of these when a request made the exporter forget them.
    forgotten: Option<(u64, u64)>,
    /// When each valid answer was asked for, and what it said.
    live: Vec<(u64, bool)>,
    finished: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct ModelRun {
    started: u64,
    place: u64,
    finished: bool,
    last_answer: Option<u64>,
    failed: bool,
}

impl Model {
    fn begin(&mut self, watch: usize, place: u64, now: u64) {
        self.runs[watch] = ModelRun { started: now, place, ..ModelRun::default() };
    }

    fn answer(&mut self, watch: usize, answer: RunAnswer, now: u64) {
        let run = &mut self.runs[watch];
        run.failed = answer == RunAnswer::NoAnswer;
        if run.failed {
            return;
        }
        let first = run.last_answer.replace(now).is_none();
        if matches!(answer, RunAnswer::Completed(_) | RunAnswer::Failed) && !run.finished {
            run.finished = true;
            self.finished = Some(now);
            if let RunAnswer::Completed(Some(enabled)) = answer {
                self.told.push((if first { run.started } else { now }, run.place, enabled));
            }
        }
    }

    fn newest(&self) -> Option<(u64, u64, bool)> {
        self.told.iter().copied().max().filter(|(at, place, _)| Some((*at, *place)) > self.forgotten)
    }

    fn drift(&self, expect: Option<Expect>, now: u64) -> Option<Drift> {
        let newest = self.newest();
        let should_be = newest.map(|(.., enabled)| Expect::of_mocks(enabled)).or(expect)?;
        let (asked, live) = *self.live.last()?;
        let runs = self.runs.iter().filter(|run| run.place > 0 && !run.finished);
        let in_progress =
            |run: &ModelRun| now - run.started <= 1800 && run.last_answer.map_or(!run.failed, |last| now - last <= 900);
        let is_judged = runs.clone().all(|run| !in_progress(run))
            && asked >= newest.map_or(0, |(at, ..)| at)
            && asked >= self.finished.unwrap_or(0);
        is_judged.then_some(Drift { expect: should_be, drifted: should_be != Expect::of_mocks(live) })
    }
}

/// The board, and what is on the disk.
struct Real {
    board: Board,
    toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
    agents: BTreeMap<AgentKey, SavedAgent>,
    definition: Arc<AgentDefinition>,
    watches: [Option<Arc<Watch>>; WATCHES],
    runs: [Option<RunId>; WATCHES],
    /// The sum of the clock's jumps.
    jump: i64,
}

impl Real {
    fn new(expect: Option<Expect>) -> Self {
        let definition = Arc::new(AgentDefinition { expect, ..agent("4321") });
        let real = Self {
            board: Board::restored(BTreeMap::new(), []),
            toggles: BTreeMap::new(),
            agents: BTreeMap::new(),
            definition,
            watches: [const { None }; WATCHES],
            runs: [None; WATCHES],
            jump: 0,
        };
        real.list_agent(0);
        real
    }

    fn at(&self, second: u64) -> Timestamp {
        sample::at(1_000_000 + second).shifted(ClockJump::from_millis(self.jump))
    }

    fn list_agent(&self, now: u64) {
        let change = AgentChange { key: self.definition.key(), definition: Some(self.definition.clone()) };
        self.board.update_agents(&[change], self.at(now));
    }

    fn begin(&mut self, index: usize, number: usize, now: u64) {
        let watch = Watch {
            name: WatchName::parse(&format!("w{index}")).unwrap(),
            progress_id: ProgressId::parse(&format!("run-{number}")).unwrap(),
            ..sample::watch("w", "p")
        };
        self.watches[index] = Some(Arc::new(watch));
        self.show(index, now);
    }

    fn show(&mut self, index: usize, now: u64) {
        let Some(watch) = self.watches[index].clone() else { return };
        let name = watch.name.clone();
        let change = WatchChange { name, definition: Some(watch.into()), may_come_back: false };
        self.runs[index] = self.board.update(&[change], self.at(now)).started.first().map(|started| started.run);
    }

    fn row(&self, now: u64) -> AgentRow {
        let (api, id) = self.definition.key();
        self.board.agent(&api, id, self.at(now)).unwrap()
    }

    fn ask(&self, asked: u64, answer: Option<bool>, now: u64) {
        let outcome = answer.map(mock_status).ok_or_else(|| Failure::new(Reason::Timeout));
        let key = self.definition.key();
        let later = self.at(now).after(Duration::from_mins(1));
        let mut applied = false;
        let next_poll = |_: &LiveMocks| {
            applied = true;
            later
        };
        self.board.apply_to_agent(&key, outcome, self.at(asked), self.at(now), next_poll);
        assert!(applied, "the agent is asked");
    }

    fn restart(&mut self, now: u64) {
        let unsaved = self.board.take_unsaved(usize::MAX, self.at(now));
        self.toggles.extend(unsaved.toggles);
        for (key, saved) in unsaved.agents {
            match saved {
                Some(saved) => _ = self.agents.insert(key, saved),
                None => _ = self.agents.remove(&key),
            }
        }
        self.board = Board::restored(self.toggles.clone(), self.agents.clone());
        self.list_agent(now);
        (0..WATCHES).for_each(|index| self.show(index, now));
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    let answer = prop_oneof![
        2 => Just(RunAnswer::InProgress),
        4 => proptest::option::of(any::<bool>()).prop_map(RunAnswer::Completed),
        1 => Just(RunAnswer::Failed),
        1 => Just(RunAnswer::NoAnswer),
    ];
    prop_oneof![
        2 => (0..WATCHES).prop_map(Happening::Begin),
        6 => (0..WATCHES, answer).prop_map(|(watch, answer)| Happening::Answer(watch, answer)),
        4 => proptest::option::weighted(0.8, any::<bool>()).prop_map(Happening::Ask),
        2 => (0u64..30, any::<bool>()).prop_map(|(ago, live)| Happening::LateAnswer(ago, live)),
        1 => Just(Happening::Forget),
        1 => Just(Happening::Restart),
        1 => (-100_000i64..100_000).prop_map(Happening::Jump),
        2 => (0u64..2000).prop_map(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn drift_is_what_everything_that_ever_happened_says(
        expect in proptest::sample::select(vec![None, Some(Expect::Enabled), Some(Expect::Disabled)]),
        happenings in proptest::collection::vec(happening(), 0..40),
    ) {
        let (mut model, mut real) = (Model::default(), Real::new(expect));
        let (mut now, mut place) = (1000, 0);
        for (number, happening) in happenings.into_iter().enumerate() {
            now += 1;
            match happening {
                Happening::Begin(watch) => {
                    place += 1;
                    model.begin(watch, place, now);
                    real.begin(watch, number, now);
                }
                Happening::Answer(watch, said) => {
                    // A finished run is not polled again.
                    let Some(run) = real.runs[watch].filter(|_| !model.runs[watch].finished) else { continue };
                    model.answer(watch, said, now);
                    let outcome = match said {
                        RunAnswer::InProgress => Ok(answer(ReportedStatus::InProgress, None)),
                        RunAnswer::Completed(enabled) => Ok(answer(ReportedStatus::Completed, enabled)),
                        RunAnswer::Failed => Ok(answer(ReportedStatus::Failed, None)),
                        RunAnswer::NoAnswer => Err(Failure::new(Reason::Timeout)),
                    };
                    real.board.apply(run, outcome, real.at(now), |_| None);
                }
                Happening::Ask(answer) => {
                    model.live.extend(answer.map(|live| (now, live)));
                    real.ask(now, answer, now);
                }
                Happening::LateAnswer(ago, live) => {
                    model.live.push((now - ago, live));
                    real.ask(now - ago, Some(live), now);
                }
                Happening::Forget => {
                    if let Some((at, place, _)) = model.newest() {
                        model.forgotten = Some((at, place));
                    }
                    let (api, id) = real.definition.key();
                    real.board.forget_agent(&api, id, real.at(now));
                }
                Happening::Restart => real.restart(now),
                Happening::Jump(millis) => {
                    real.jump += millis;
                    real.board.shift_times(ClockJump::from_millis(millis), |_| {});
                }
                Happening::Wait(seconds) => now += seconds,
            }
            let row = real.row(now);
            let asked = row.asked.as_ref().unwrap();
            prop_assert_eq!(asked.drift, model.drift(expect, now), "after {}", number);
            prop_assert_eq!(asked.live.enabled, model.live.last().map(|(_, live)| *live));
            prop_assert_eq!(row.told.enabled(), model.newest().map(|(.., enabled)| enabled));
            let in_list = real.board.agents(real.at(now)).pop().and_then(|row| row.asked?.drift);
            prop_assert_eq!(in_list, asked.drift, "the list and the agent agree");
        }
    }
}

#[test]
fn an_agent_that_is_not_listed_any_more_is_not_shown_and_its_state_comes_back_within_a_day() {
    let real = Real::new(None);
    real.ask(10, Some(true), 10);
    let key = real.definition.key();
    let unlist = |now| real.board.update_agents(&[AgentChange { key: key.clone(), definition: None }], real.at(now));
    unlist(20);
    assert!(real.board.agents(real.at(20)).is_empty() && real.board.all_agents(real.at(20)).is_empty());
    real.board.forget_unused_agents(real.at(20 + 86_399));
    real.list_agent(90_000);
    let asked = real.row(90_000).asked.unwrap();
    assert_eq!((asked.live.enabled, asked.live.enabled_since), (Some(true), Some(real.at(10))));
    unlist(100_000);
    real.board.forget_unused_agents(real.at(100_000 + 86_400));
    real.list_agent(200_000);
    assert_eq!(real.row(200_000).asked.unwrap().live.enabled, None);
}

#[test]
fn an_outcome_for_an_agent_that_is_not_listed_any_more_is_dropped() {
    let real = Real::new(None);
    let key = real.definition.key();
    real.board.update_agents(&[AgentChange { key: key.clone(), definition: None }], real.at(1));
    let applied = real.board.apply_to_agent(&key, Ok(mock_status(true)), real.at(2), real.at(2), |_| real.at(3));
    assert!(applied.is_none() && !real.board.is_asked(&key.0, key.1));
}
