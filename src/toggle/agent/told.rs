//! What the toggle tasks of an agent told of its mocks.

use std::time::Duration;

use crate::toggle::label::Labels;
use crate::toggle::run::{Run, Status};
use crate::toggle::time::Timestamp;
use crate::toggle::watch::{Watch, WatchName};

/// Whether the mocks of an agent are on according to its newest completed run. The default is that nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToldMocks {
    /// The order of the newest completed run that said whether mocks are on: when it counts as finished, and its
    /// place in the watch list; `None` if there was none.
    ///
    /// A run whose first answer was final finished before it was watched, so it counts as finished when it was first
    /// watched. The place in the watch list decides between equal times. The order in which answers arrive does not
    /// matter.
    pub newest: Option<(Timestamp, u64)>,
    /// Since when mocks are on; `None` while they are off or nothing is known.
    pub enabled_since: Option<Timestamp>,
    /// The watch of that run; `None` if nothing is known or an earlier version saved the state.
    pub told_by: Option<ToldBy>,
    /// Whether a request made the exporter forget this state, so that only a newer run sets it again.
    pub forgotten: bool,
    /// When the last watch of the agent was removed; `None` while it has one.
    pub unwatched_since: Option<Timestamp>,
}

/// The watch whose run said whether the mocks of an agent are on, as it was then. It may have been removed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldBy {
    /// Its name.
    pub toggle: WatchName,
    /// The labels that its user gave it.
    pub labels: Labels,
}

// === impl ToldMocks ===

impl ToldMocks {
    /// How long an agent whose mocks are on is kept after its last watch is removed.
    pub const KEPT_FOR: Duration = Duration::from_hours(7 * 24);

    /// Updates the state from a run of a watch. Only a completed run that says whether mocks are on changes it, and
    /// only if no newer run was observed.
    pub fn observe(&mut self, watch: &Watch, run: &Run, place: u64, now: Timestamp) {
        let Some(finish) = run.finished else { return };
        let at = if finish.at_first_answer { run.started } else { finish.at };
        // A time in the future would outrank every run that finishes before then.
        let order = (at.min(now), place);
        let (Status::Completed, Some(enabled)) = (run.last_answer.status, run.last_answer.mock_enabled) else { return };
        // A forgotten run does not set the state again.
        if self.newest.is_some_and(|newest| newest > order || (self.forgotten && newest == order)) {
            return;
        }
        self.newest = Some(order);
        self.enabled_since = enabled.then(|| self.enabled_since.unwrap_or(now));
        self.told_by = Some(ToldBy { toggle: watch.name.clone(), labels: watch.labels.clone() });
        self.forgotten = false;
    }

    /// Forgets the state until a newer run sets it. Returns whether it was known.
    pub fn forget(&mut self) -> bool {
        let was_known = self.enabled().is_some();
        if was_known {
            (self.enabled_since, self.told_by, self.forgotten) = (None, None, true);
        }
        was_known
    }

    /// Whether mocks are on; `None` if nothing is known.
    pub fn enabled(&self) -> Option<bool> {
        self.told_at().map(|_| self.enabled_since.is_some())
    }

    /// When the run that set the state counts as finished; `None` if nothing is known.
    pub fn told_at(&self) -> Option<Timestamp> {
        self.newest.filter(|_| !self.forgotten).map(|(at, _)| at)
    }

    /// Applies `map` to every time.
    pub fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        self.newest = self.newest.map(|(at, place)| (map(at), place));
        self.enabled_since = self.enabled_since.map(&map);
        self.unwatched_since = self.unwatched_since.map(&map);
    }

    /// Notes whether the agent has a watch. Returns whether its state is to be kept.
    pub fn keep(&mut self, watched: bool, now: Timestamp) -> bool {
        if watched {
            self.unwatched_since = None;
            return true;
        }
        let since = *self.unwatched_since.get_or_insert(now);
        self.enabled() == Some(true) && now.since(since) < Self::KEPT_FOR
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{LabelName, ReportedStatus, Toggle};

    fn toggle(started: u64) -> Toggle {
        Toggle::new(Arc::new(watch("w", "p")), at(started))
    }

    fn answers(toggle: &mut Toggle, status: ReportedStatus, mock_enabled: Option<bool>, now: u64) {
        toggle.apply(Ok(answer(status, mock_enabled)), at(now));
    }

    fn finished(started: u64, mock_enabled: Option<bool>, now: u64) -> Run {
        let mut toggle = toggle(started);
        answers(&mut toggle, ReportedStatus::InProgress, None, started);
        answers(&mut toggle, ReportedStatus::Completed, mock_enabled, now);
        toggle.run
    }

    #[test]
    fn the_newest_completed_run_decides() {
        let mut agent = ToldMocks::default();
        assert_eq!(agent.enabled(), None);
        agent.observe(&watch("w", "p"), &finished(0, Some(true), 10), 0, at(10));
        assert_eq!((agent.enabled(), agent.enabled_since), (Some(true), Some(at(10))));
        agent.observe(&watch("w", "p"), &finished(5, Some(false), 20), 1, at(20));
        assert_eq!((agent.enabled(), agent.enabled_since), (Some(false), None));
        agent.observe(&watch("w", "p"), &finished(0, Some(true), 10), 0, at(30));
        assert_eq!(agent.enabled(), Some(false), "an older run that is rechecked changes nothing");
    }

    #[test]
    fn a_second_enable_keeps_the_time_of_the_first() {
        let mut agent = ToldMocks::default();
        agent.observe(&watch("w", "p"), &finished(0, Some(true), 10), 0, at(10));
        agent.observe(&watch("w", "p"), &finished(15, Some(true), 20), 0, at(20));
        assert_eq!(agent.enabled_since, Some(at(10)));
    }

    #[test]
    fn null_failed_and_unfinished_runs_change_nothing() {
        let mut agent = ToldMocks::default();
        agent.observe(&watch("w", "p"), &finished(0, Some(true), 10), 0, at(10));
        agent.observe(&watch("w", "p"), &finished(15, None, 20), 0, at(20));
        let mut failed = toggle(21);
        answers(&mut failed, ReportedStatus::InProgress, Some(false), 22);
        agent.observe(&watch("w", "p"), &failed.run, 0, at(22));
        answers(&mut failed, ReportedStatus::Failed, Some(false), 23);
        agent.observe(&watch("w", "p"), &failed.run, 0, at(23));
        assert_eq!(agent.enabled(), Some(true));
    }

    #[test]
    fn of_runs_with_a_final_first_answer_the_later_in_the_list_is_newer() {
        let mut enable = toggle(0);
        answers(&mut enable, ReportedStatus::Completed, Some(true), 2);
        let mut disable = toggle(0);
        answers(&mut disable, ReportedStatus::Completed, Some(false), 1);
        let mut agent = ToldMocks::default();
        agent.observe(&watch("w", "p"), &disable.run, 1, at(1));
        agent.observe(&watch("w", "p"), &enable.run, 0, at(2));
        assert_eq!(agent.enabled(), Some(false));
    }

    #[test]
    fn the_watch_that_set_the_state_is_known_with_its_latest_labels() {
        let labels = Labels::from([(LabelName::parse("team").unwrap(), "payments".into())]);
        let (run, mut agent) = (finished(0, Some(true), 10), ToldMocks::default());
        agent.observe(&watch("enable", "p"), &run, 0, at(10));
        agent.observe(&Watch { labels: labels.clone(), ..watch("enable", "p") }, &run, 0, at(20));
        assert_eq!(agent.told_by, Some(ToldBy { toggle: watch("enable", "p").name, labels: labels.clone() }));
        assert_eq!((agent.told_at(), agent.enabled_since), (Some(at(10)), Some(at(10))));
        agent.observe(&watch("null", "p"), &finished(0, None, 30), 1, at(30));
        assert_eq!(agent.told_by.unwrap().toggle.as_str(), "enable", "a run that says nothing tells nothing");
    }

    #[test]
    fn a_forgotten_state_is_set_again_only_by_a_newer_run() {
        let (run, mut agent) = (finished(0, Some(true), 10), ToldMocks::default());
        assert!(!agent.forget(), "nothing is known");
        agent.observe(&watch("w", "p"), &run, 0, at(10));
        assert!(agent.forget());
        assert!(!agent.forget(), "it is forgotten already");
        agent.observe(&watch("w", "p"), &run, 0, at(20));
        assert_eq!((agent.enabled(), agent.enabled_since, agent.told_at()), (None, None, None));
        agent.observe(&watch("w", "p"), &finished(20, Some(true), 30), 1, at(30));
        assert_eq!((agent.enabled(), agent.enabled_since), (Some(true), Some(at(30))));
    }

    #[test]
    fn an_agent_without_watches_is_kept_for_seven_days_while_its_mocks_are_on() {
        let mut on = ToldMocks::default();
        on.observe(&watch("w", "p"), &finished(0, Some(true), 10), 0, at(10));
        assert!(on.keep(false, at(100)));
        assert!(on.keep(false, at(100 + 7 * 86_400 - 1)));
        assert!(!on.keep(false, at(100 + 7 * 86_400)));
        let mut off = ToldMocks::default();
        off.observe(&watch("w", "p"), &finished(0, Some(false), 10), 0, at(10));
        assert!(off.keep(true, at(20)));
        assert!(!off.keep(false, at(100)));
    }
}
