//! The mock state of an agent, over all watches of it: "are mocks on now?".

use std::time::Duration;

use super::run::{Run, Status};
use super::time::Timestamp;

/// What the newest completed run of an agent said about its mocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentMock {
    known: Option<Known>,
    /// When the agent's last watch went; `None` while it has one.
    unwatched_since: Option<Timestamp>,
}

/// The parts of an [`AgentMock`], as they are stored and restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentMockParts {
    /// When the newest completed run counts as finished, and its place in the watch list; `None`
    /// before any completed run said whether mocks are on.
    pub newest: Option<(Timestamp, u64)>,
    /// Since when mocks are on; `None` while they are off.
    pub enabled_since: Option<Timestamp>,
    /// When the agent's last watch went; `None` while it has one.
    pub unwatched_since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    newest: FinishOrder,
    /// Since when mocks are on; `None` while they are off.
    enabled_since: Option<Timestamp>,
}

/// Which of two finished runs is the newer one.
///
/// A run that was finished at its first answer ended before it was watched, so its place is the
/// time it was first watched; among equals the place in the watch list decides. The order in which
/// answers happen to arrive decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FinishOrder {
    at: Timestamp,
    place: u64,
}

// === impl AgentMock ===

impl AgentMock {
    /// How long an agent whose mocks are on is remembered beyond its last watch.
    pub const REMEMBERED: Duration = Duration::from_hours(7 * 24);

    /// Takes what a run shows after an answer. Only a completed run that says true or false
    /// changes anything, and only if no newer one was seen.
    pub fn observe(&mut self, run: &Run, place: u64, now: Timestamp) {
        let Some(mut order) = FinishOrder::of(run, place) else { return };
        // Else nothing that finishes later would count until a time that was ahead has come.
        order.at = order.at.min(now);
        let (Status::Completed, Some(enabled)) = (run.shown.status, run.shown.mock_enabled) else { return };
        if self.known.is_some_and(|known| known.newest > order) {
            return;
        }
        let since = self.known.and_then(|known| known.enabled_since).unwrap_or(now);
        self.known = Some(Known { newest: order, enabled_since: enabled.then_some(since) });
    }

    /// Whether mocks are on; `None` before any completed run said so.
    pub fn enabled(&self) -> Option<bool> {
        self.known.map(|known| known.enabled_since.is_some())
    }

    /// Since when mocks are on; `None` while they are off.
    pub fn enabled_since(&self) -> Option<Timestamp> {
        self.known?.enabled_since
    }

    /// Changes every time in it.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        if let Some(known) = &mut self.known {
            known.newest.at = map(known.newest.at);
            known.enabled_since = known.enabled_since.map(&map);
        }
        self.unwatched_since = self.unwatched_since.map(&map);
    }

    /// What it consists of, to be stored.
    pub fn parts(&self) -> AgentMockParts {
        AgentMockParts {
            newest: self.known.map(|known| (known.newest.at, known.newest.place)),
            enabled_since: self.enabled_since(),
            unwatched_since: self.unwatched_since,
        }
    }

    /// Notes whether the agent has a watch, and says whether it is still to be remembered.
    pub fn keep(&mut self, watched: bool, now: Timestamp) -> bool {
        if watched {
            self.unwatched_since = None;
            return true;
        }
        let since = *self.unwatched_since.get_or_insert(now);
        self.enabled() == Some(true) && now.since(since) < Self::REMEMBERED
    }
}

impl From<AgentMockParts> for AgentMock {
    fn from(parts: AgentMockParts) -> Self {
        let AgentMockParts { newest, enabled_since, unwatched_since } = parts;
        let known = newest.map(|(at, place)| Known { newest: FinishOrder { at, place }, enabled_since });
        Self { known, unwatched_since }
    }
}

// === impl FinishOrder ===

impl FinishOrder {
    fn of(run: &Run, place: u64) -> Option<Self> {
        let finish = run.finished?;
        Some(Self { at: if finish.at_first_answer { run.started } else { finish.at }, place })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{Reported, Toggle};

    fn toggle(started: u64) -> Toggle {
        Toggle::new(Arc::new(watch("w", "p")), at(started))
    }

    fn answers(toggle: &mut Toggle, status: Reported, mock_enabled: Option<bool>, now: u64) {
        toggle.apply(Ok(answer(status, mock_enabled)), at(now));
    }

    fn finished(started: u64, mock_enabled: Option<bool>, now: u64) -> Run {
        let mut toggle = toggle(started);
        answers(&mut toggle, Reported::InProgress, None, started);
        answers(&mut toggle, Reported::Completed, mock_enabled, now);
        toggle.run
    }

    #[test]
    fn the_newest_completed_run_decides() {
        let mut agent = AgentMock::default();
        assert_eq!(agent.enabled(), None);
        agent.observe(&finished(0, Some(true), 10), 0, at(10));
        assert_eq!((agent.enabled(), agent.enabled_since()), (Some(true), Some(at(10))));
        agent.observe(&finished(5, Some(false), 20), 1, at(20));
        assert_eq!((agent.enabled(), agent.enabled_since()), (Some(false), None));
        agent.observe(&finished(0, Some(true), 10), 0, at(30));
        assert_eq!(agent.enabled(), Some(false), "an older run that is rechecked changes nothing");
    }

    #[test]
    fn a_second_enable_keeps_the_time_of_the_first() {
        let mut agent = AgentMock::default();
        agent.observe(&finished(0, Some(true), 10), 0, at(10));
        agent.observe(&finished(15, Some(true), 20), 0, at(20));
        assert_eq!(agent.enabled_since(), Some(at(10)));
    }

    #[test]
    fn null_failed_and_running_say_nothing() {
        let mut agent = AgentMock::default();
        agent.observe(&finished(0, Some(true), 10), 0, at(10));
        agent.observe(&finished(15, None, 20), 0, at(20));
        let mut failed = toggle(21);
        answers(&mut failed, Reported::InProgress, Some(false), 22);
        agent.observe(&failed.run, 0, at(22));
        answers(&mut failed, Reported::Failed, Some(false), 23);
        agent.observe(&failed.run, 0, at(23));
        assert_eq!(agent.enabled(), Some(true));
    }

    #[test]
    fn of_runs_found_finished_the_later_in_the_list_is_newer_however_the_answers_arrive() {
        let mut enable = toggle(0);
        answers(&mut enable, Reported::Completed, Some(true), 2);
        let mut disable = toggle(0);
        answers(&mut disable, Reported::Completed, Some(false), 1);
        let mut agent = AgentMock::default();
        agent.observe(&disable.run, 1, at(1));
        agent.observe(&enable.run, 0, at(2));
        assert_eq!(agent.enabled(), Some(false));
    }

    #[test]
    fn the_parts_of_an_agent_make_the_same_agent_again() {
        let mut agent = AgentMock::default();
        assert_eq!(AgentMock::from(agent.parts()), agent);
        agent.observe(&finished(0, Some(true), 10), 7, at(10));
        agent.keep(false, at(20));
        assert_eq!(AgentMock::from(agent.parts()), agent);
        agent.observe(&finished(5, Some(false), 20), 1, at(20));
        assert_eq!(AgentMock::from(agent.parts()), agent);
    }

    #[test]
    fn an_unwatched_agent_is_remembered_for_seven_days_while_mocks_are_on() {
        let mut on = AgentMock::default();
        on.observe(&finished(0, Some(true), 10), 0, at(10));
        assert!(on.keep(false, at(100)));
        assert!(on.keep(false, at(100 + 7 * 86_400 - 1)));
        assert!(!on.keep(false, at(100 + 7 * 86_400)));
        let mut off = AgentMock::default();
        off.observe(&finished(0, Some(false), 10), 0, at(10));
        assert!(off.keep(true, at(20)));
        assert!(!off.keep(false, at(100)));
    }
}
