//! What is known of every toggle now.
//!
//! The poller alone changes what is known. Scrapes, pages and the JSON API take what they show as it
//! is: rows are copied when they change while somebody reads them, so nothing that is slow happens under the lock.

mod agents;
mod history;
mod remembered;
mod rows;
mod state;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::{Notify, watch};

use crate::sources::WatchChange;
use crate::store::{AgentChange, SavedToggle, ToggleChange};
use crate::toggle::{
    AgentId, AgentMock, ApiName, ClockJump, Event, Outcome, Reason, Run, Timestamp, Toggle, Transition, Watch,
    WatchName,
};
pub use rows::ToggleRows;
use state::{BoardState, agent_key};

/// What tells one agent from another.
pub type AgentKey = (ApiName, AgentId);

/// What is known of every watch and every agent.
#[derive(Debug, Default)]
pub struct Board {
    state: RwLock<BoardState>,
    /// Told when a run finished: what is most to be saved.
    finished: Notify,
    /// How often something that readers see was changed.
    revision: AtomicU64,
    /// How many rounds of saving have begun.
    rounds: AtomicU64,
    /// The last round that saved all that had changed before it began.
    saved: watch::Sender<u64>,
}

/// One run of one watch. It goes stale when the run is replaced or the watch is removed; what is
/// then asked of or told to it is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    slot: u32,
    generation: NonZeroU32,
}

/// What is known of one watch.
#[derive(Debug, Clone)]
pub struct ToggleRow {
    /// The watch, its run and its tally.
    pub toggle: Toggle,
    /// When its next poll is due; `None` if none is planned.
    pub next_poll: Option<Timestamp>,
}

/// A copy of what is known of the mocks of one agent.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// Its API.
    pub api: ApiName,
    /// Its id.
    pub id: AgentId,
    /// Its mocks.
    pub mock: AgentMock,
}

/// What a poll changed.
#[derive(Debug)]
pub struct AppliedPoll {
    /// The toggle as it is now.
    pub toggle: Toggle,
    /// What changed; never nothing.
    pub transitions: Vec<Transition>,
}

/// What changes of the watch list brought about.
#[derive(Debug, Default)]
pub struct RunChanges {
    /// The runs that are new on the board, in the order of the changes.
    pub started: Vec<StartedRun>,
    /// The runs that went stale.
    pub stale: Vec<RunId>,
}

/// A run that is new on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedRun {
    /// The run.
    pub run: RunId,
    /// Whether it is known from an earlier process that it finished.
    pub finished: bool,
}

/// A run that is waited for.
#[derive(Debug, Clone)]
pub struct AwaitedRun {
    /// The run.
    pub run: RunId,
    /// Tells each time that the run finished, was replaced or was removed.
    pub changed: Arc<Notify>,
}

/// What changed since it was saved.
#[derive(Debug, Default)]
pub struct UnsavedChanges {
    /// Watches, with what is known of their run and of those that may come back; nothing for those that
    /// are gone.
    pub toggles: Vec<ToggleChange>,
    /// Agents; nothing for those that are forgotten.
    pub agents: Vec<AgentChange>,
}

// === impl Board ===

impl Board {
    /// How many agents are looked at under the lock at a time.
    const AGENTS_AT_A_TIME: usize = 1024;

    /// How many names are looked through under the lock at a time for what is remembered.
    const NAMES_AT_A_TIME: usize = 1024;

    /// A board that remembers what an earlier process saved of watches and agents, and keeps account
    /// of what is to be saved.
    pub fn restored(
        toggles: BTreeMap<WatchName, Vec<SavedToggle>>,
        agents: impl IntoIterator<Item = (AgentKey, AgentMock)>,
    ) -> Self {
        Self { state: RwLock::new(BoardState::restored(toggles, agents)), ..Self::default() }
    }

    /// Moves every time that it shows by a jump of the clock. `set_clock` does that to the clock, before
    /// anybody sees the times.
    pub fn shift_times(&self, jump: ClockJump, set_clock: impl FnOnce(ClockJump)) {
        let mut state = self.write();
        set_clock(jump);
        state.shift_times(jump);
    }

    /// Takes over changes of the watch list, all at once. A watch whose run is the same keeps what
    /// is known of it, and a run that is remembered gets that back: one that an earlier process saved,
    /// or one that another source's watch was put in the place of.
    pub fn update(&self, changes: &[WatchChange], now: Timestamp) -> RunChanges {
        self.write().update(changes, now)
    }

    /// What the run is a run of; `None` if it is stale.
    pub fn watch(&self, run: RunId) -> Option<Arc<Watch>> {
        Some(self.read().entry(run)?.row.toggle.watch.clone())
    }

    /// Takes what a poll of this run brought, and says what that changed, if anything. `next_poll` says
    /// from the run's new state when it is polled next. If the run is stale, it is not asked, and
    /// nothing changes.
    pub fn apply(
        &self,
        run: RunId,
        outcome: Outcome,
        now: Timestamp,
        next_poll: impl FnOnce(&Run) -> Option<Timestamp>,
    ) -> Option<AppliedPoll> {
        let mut state = self.write();
        let answered = outcome.is_ok();
        let outcome = state.share_message(outcome);
        let entry = state.entry_mut(run)?;
        let transitions = entry.row.toggle.apply(outcome, now);
        entry.row.next_poll = next_poll(&entry.row.toggle.run);
        entry.polled = true;
        let tells_of_agent = answered && entry.row.toggle.run.finished.is_some();
        state.note_change(run);
        if transitions.is_empty() && !tells_of_agent {
            return None;
        }
        let (toggle, place) = state.entry(run).map(|entry| (entry.row.toggle.clone(), entry.place))?;
        state.history.note(run.slot, &toggle, &transitions, now);
        if answered && state.agents.observe(&toggle.watch, &toggle.run, place, now) {
            state.agent_changed(agent_key(&toggle.watch));
        }
        if transitions.iter().any(|transition| matches!(transition, Transition::Finished { .. })) {
            state.wake(run);
            self.finished.notify_one();
        }
        (!transitions.is_empty()).then_some(AppliedPoll { toggle, transitions })
    }

    /// Shows when the next poll of this run is due.
    pub fn set_next_poll(&self, run: RunId, next_poll: Option<Timestamp>) {
        if let Some(entry) = self.write().entry_mut(run) {
            entry.row.next_poll = next_poll;
        }
    }

    /// The runs at this API whose last poll failed for a reason like that.
    pub fn failing(&self, api: &ApiName, like: impl Fn(Reason) -> bool) -> Vec<RunId> {
        let fails = |row: &ToggleRow| row.toggle.run.failing.as_ref().is_some_and(|failing| like(failing.reason));
        let state = self.read();
        let found = state.runs().filter(|(_, row)| row.toggle.watch.api == *api && fails(row));
        found.map(|(run, _)| run).collect()
    }

    /// What `of` makes of every run, sorted by name.
    pub fn map_runs<T>(&self, mut of: impl FnMut(RunId, &ToggleRow) -> T) -> Vec<T> {
        self.read().runs().map(|(run, row)| of(run, row)).collect()
    }

    /// The run that is watched under this name now, to wait for it. Wait only after looking at its
    /// row, with a future of `changed` that was made before.
    pub fn awaited_run(&self, name: &str) -> Option<AwaitedRun> {
        let mut state = self.write_unseen();
        let run = state.run_of(name)?;
        let changed = state.waiting(run)?;
        Some(AwaitedRun { run, changed })
    }

    /// What is known of this run; `None` if it is stale.
    pub fn row_of(&self, run: RunId) -> Option<ToggleRow> {
        Some(self.read().entry(run)?.row.clone())
    }

    /// Forgets what was said of an agent's mocks, until a newer run says something. Says whether anything was
    /// known. It is saved at once.
    pub fn forget_agent(&self, api: &ApiName, id: AgentId, now: Timestamp) -> bool {
        let mut state = self.write();
        let forgotten = state.forget_agent(api, id, now);
        if forgotten {
            self.finished.notify_one();
        }
        forgotten
    }

    /// Forgets agents that were without a watch for long enough.
    pub fn forget_unwatched_agents(&self, now: Timestamp) {
        self.write().forget_unwatched_agents(now);
    }

    /// Forgets what is remembered under this name of runs that are not on the list, but for those to keep.
    /// Says whether that was anything.
    pub fn forget_inactive(
        &self,
        name: &WatchName,
        keep: impl Fn(&WatchName, &SavedToggle) -> bool,
        now: Timestamp,
    ) -> bool {
        // Most names have nothing remembered, and whoever reads is not to be held up for them.
        !self.read().remembered(name).is_empty() && self.write().forget_inactive(name, keep, now)
    }

    /// As [`Board::forget_inactive`], for all names. Says for how many that was anything. They are gone
    /// through some at a time, so that nobody waits for the lock for long.
    pub fn forget_all_inactive(&self, keep: impl Fn(&WatchName, &SavedToggle) -> bool, now: Timestamp) -> usize {
        let (mut last, mut forgotten) = (None, 0);
        loop {
            let names = self.read().remembered_after(last.as_ref(), Self::NAMES_AT_A_TIME);
            let Some(name) = names.last() else { return forgotten };
            last = Some(name.clone());
            let mut state = self.write_unseen();
            forgotten += names.iter().filter(|name| state.forget_inactive(name, &keep, now)).count();
        }
    }

    /// Resolves when a run finished since this last did.
    pub async fn run_finished(&self) {
        self.finished.notified().await;
    }

    /// Takes what changed since it was last taken: at most so many watches, and as many agents.
    pub fn take_unsaved(&self, most: usize, now: Timestamp) -> UnsavedChanges {
        self.write_unseen().take_unsaved(most, now)
    }

    /// What was taken could not be saved: it is to be taken again.
    pub fn mark_unsaved(&self, unsaved: &UnsavedChanges) {
        let mut state = self.write_unseen();
        unsaved.toggles.iter().for_each(|(name, _)| state.changed(name));
        unsaved.agents.iter().for_each(|(key, _)| state.agent_changed(key.clone()));
    }

    /// A round of saving begins. Tell [`Board::finish_save`] its number when all is saved.
    pub fn begin_save(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// All that had changed before this round of saving began is saved.
    pub fn finish_save(&self, round: u64) {
        self.saved.send_replace(round);
    }

    /// Resolves when all that has changed until now is saved; at once where nothing is ever saved.
    pub async fn all_saved(&self) {
        if self.read().is_saved() {
            let next = self.rounds.load(Ordering::Acquire) + 1;
            // The sender is here.
            let _ = self.saved.subscribe().wait_for(|round| *round >= next).await;
        }
    }

    /// Another number whenever something that readers see has changed. What is read after this is at
    /// least as new.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Every watch as it is now, sorted by name.
    pub fn rows(&self) -> ToggleRows {
        self.read().rows().clone()
    }

    /// The watch of that name.
    pub fn row(&self, name: &str) -> Option<ToggleRow> {
        self.with_row(name, ToggleRow::clone)
    }

    /// What happened lately to the watch of that name, the newest first.
    pub fn events(&self, name: &str) -> Option<Vec<Event>> {
        let state = self.read();
        Some(state.history.of(state.run_of(name)?.slot).cloned().collect())
    }

    /// What `of` makes of the watch of that name.
    pub fn with_row<T>(&self, name: &str, of: impl FnOnce(&ToggleRow) -> T) -> Option<T> {
        let state = self.read();
        Some(of(&state.entry(state.run_of(name)?)?.row))
    }

    /// Whether a poll of the run that is watched under that name ended in this process.
    pub fn is_polled(&self, name: &str) -> bool {
        let state = self.read();
        state.run_of(name).and_then(|run| state.entry(run)).is_some_and(|entry| entry.polled)
    }

    /// Every agent whose mock state is known, sorted by API and id. They are copied some at a time, so
    /// that the writer never waits for long.
    pub fn agents(&self) -> Vec<AgentRow> {
        let mut rows = Vec::new();
        let mut last = None;
        loop {
            last = self.read().agents.page(last.as_ref(), Self::AGENTS_AT_A_TIME, &mut rows);
            if last.is_none() {
                return rows;
            }
        }
    }

    /// The agent, if it has a watch or its mock state is known.
    pub fn agent(&self, api: &ApiName, id: AgentId) -> Option<AgentRow> {
        self.read().agents.get(api, id)
    }

    /// Every agent that has a watch or whose mock state is known, sorted by API and id.
    pub fn all_agents(&self) -> Vec<AgentRow> {
        self.read().agents.all().collect()
    }

    // Nothing that is done under the lock leaves the state half changed, so what a panic elsewhere
    // poisoned is still good.

    fn read(&self) -> RwLockReadGuard<'_, BoardState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BoardState> {
        let state = self.write_unseen();
        // Whoever sees the number and then reads waits for the change.
        self.revision.fetch_add(1, Ordering::Release);
        state
    }

    /// For what readers do not see.
    fn write_unseen(&self) -> RwLockWriteGuard<'_, BoardState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ToggleRow ===

impl ToggleRow {
    /// A toggle with no poll planned.
    pub fn new(toggle: Toggle) -> Self {
        Self { toggle, next_poll: None }
    }
}

// === impl UnsavedChanges ===

impl UnsavedChanges {
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.toggles.is_empty() && self.agents.is_empty()
    }
}

// === impl RunId ===

impl RunId {
    /// The place on the board that the run is in: a small number, used again when it is free.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    #[cfg(test)]
    pub(crate) fn of(slot: u32, generation: u32) -> Self {
        Self { slot, generation: NonZeroU32::new(generation).unwrap() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sources::{Origin, WatchList};
    use crate::toggle::sample::{answer, at};
    use crate::toggle::{Answer, EventKind, Failure, ReportedStatus, Status, Text, sample};

    fn watch(name: &str, progress_id: &str) -> Arc<Watch> {
        Arc::new(sample::watch(name, progress_id))
    }

    fn completed(mock_enabled: bool) -> Answer {
        answer(ReportedStatus::Completed, Some(mock_enabled))
    }

    fn all(board: &Board) -> Vec<ToggleRow> {
        board.rows().iter().cloned().collect()
    }

    fn names(board: &Board) -> Vec<String> {
        board.rows().iter().map(|row| row.toggle.watch.name.to_string()).collect()
    }

    /// Later than anything that happens.
    const FAR: Timestamp = Timestamp::from_millis(u64::MAX / 2);

    /// A board and the list that it shows.
    #[derive(Default)]
    struct ListedBoard {
        list: WatchList,
        board: Board,
    }

    impl ListedBoard {
        /// Makes the board show exactly these watches.
        fn set(&mut self, watches: &[Arc<Watch>], now: Timestamp) -> RunChanges {
            self.show(watches, false, now)
        }

        /// As [`ListedBoard::set`]; what was shown before may come back.
        fn displace(&mut self, watches: &[Arc<Watch>], now: Timestamp) -> RunChanges {
            self.show(watches, true, now)
        }

        fn show(&mut self, watches: &[Arc<Watch>], may_come_back: bool, now: Timestamp) -> RunChanges {
            let mut edit = self.list.edit();
            edit.set_apis([ApiName::default_api()].into());
            edit.replace(&Origin::Config, watches.iter().cloned().map(Into::into));
            self.board.update(&edit.finish(|_| may_come_back).changes, now)
        }

        fn begin(&mut self, watches: &[Arc<Watch>], now: Timestamp) -> RunId {
            self.set(watches, now).started[0].run
        }

        /// What another process has that starts with what this one saved.
        fn restarted(&self) -> Self {
            let UnsavedChanges { toggles, agents } = self.board.take_unsaved(usize::MAX, FAR);
            let toggles = toggles.into_iter().filter(|(_, runs)| !runs.is_empty()).collect();
            let agents = agents.into_iter().filter_map(|(key, mock)| Some((key, mock?)));
            Self { list: WatchList::default(), board: Board::restored(toggles, agents) }
        }

        fn remembering() -> Self {
            Self { list: WatchList::default(), board: Board::restored(BTreeMap::new(), []) }
        }
    }

    #[test]
    fn the_board_shows_exactly_the_list_sorted_by_name() {
        let mut listed = ListedBoard::default();
        assert_eq!(listed.set(&[watch("b", "1"), watch("a", "1")], at(0)).started.len(), 2);
        assert_eq!(names(&listed.board), ["a", "b"]);
        let updated = listed.set(&[watch("b", "1"), watch("c", "1")], at(1));
        assert_eq!((updated.started.len(), updated.stale.len()), (1, 1));
        assert_eq!(names(&listed.board), ["b", "c"]);
        assert_eq!(listed.set(&[], at(2)).stale.len(), 2);
        assert_eq!(names(&listed.board), [""; 0]);
    }

    #[test]
    fn the_same_run_keeps_its_state_and_a_new_one_begins_anew() {
        let mut listed = ListedBoard::default();
        let first = listed.begin(&[watch("a", "1")], at(0));
        listed.board.apply(first, Ok(completed(true)), at(1), |_| None).unwrap();
        let labelled = Watch { expect: Some(crate::toggle::Expect::Enabled), ..sample::watch("a", "1") };
        assert!(listed.set(&[Arc::new(labelled)], at(2)).started.is_empty());
        assert_eq!(listed.board.row("a").unwrap().toggle.run.last_answer.status, Status::Completed);
        let updated = listed.set(&[watch("a", "2")], at(3));
        let row = listed.board.row("a").unwrap();
        assert_eq!((row.toggle.run.last_answer.status, row.toggle.tally.completed), (Status::Unknown, 1));
        assert_eq!(updated.stale, [first]);
        assert_ne!(updated.started[0].run, first);
    }

    #[test]
    fn an_answer_for_a_replaced_or_removed_run_changes_nothing() {
        let mut listed = ListedBoard::default();
        let replaced = listed.begin(&[watch("a", "1")], at(0));
        let removed = listed.begin(&[watch("a", "2")], at(1));
        assert!(listed.board.apply(replaced, Ok(completed(true)), at(2), |_| None).is_none());
        assert!(listed.board.watch(replaced).is_none());
        listed.set(&[], at(3));
        listed.set(&[watch("b", "1")], at(4));
        assert!(listed.board.apply(removed, Ok(completed(true)), at(5), |_| None).is_none());
        assert_eq!(listed.board.row("b").unwrap().toggle.tally.polls, 0);
    }

    #[test]
    fn an_agent_whose_mocks_are_on_outlives_its_last_watch_by_seven_days() {
        let mut listed = ListedBoard::default();
        let run = listed.begin(&[watch("a", "1")], at(0));
        listed.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
        listed.set(&[], at(2));
        listed.board.forget_unwatched_agents(at(2 + 7 * 86_400 - 1));
        assert_eq!(listed.board.agents()[0].mock.enabled(), Some(true));
        listed.board.forget_unwatched_agents(at(2 + 7 * 86_400));
        assert!(listed.board.agents().is_empty());
    }

    #[test]
    fn an_agent_whose_mocks_are_off_goes_with_its_last_watch() {
        let mut listed = ListedBoard::default();
        let run = listed.begin(&[watch("a", "1"), watch("b", "1")], at(0));
        listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
        listed.set(&[watch("b", "1")], at(2));
        assert_eq!(listed.board.agents().len(), 1);
        listed.set(&[watch("b", "2")], at(2));
        assert_eq!(listed.board.agents().len(), 1);
        listed.set(&[], at(3));
        assert!(listed.board.agents().is_empty());
    }

    #[test]
    fn what_was_saved_is_known_again_and_a_new_run_keeps_the_tally_only() {
        let mut listed = ListedBoard::remembering();
        for begun in listed.set(&[watch("a", "1"), watch("b", "1"), watch("c", "1")], at(0)).started {
            listed.board.apply(begun.run, Ok(answer(ReportedStatus::InProgress, None)), at(1), |_| None).unwrap();
        }
        let failed = listed.board.awaited_run("a").unwrap().run;
        listed.board.apply(failed, Ok(answer(ReportedStatus::Failed, None)), at(2), |_| None).unwrap();
        let before = all(&listed.board);
        let mut again = listed.restarted();
        let begun = again.set(&[watch("c", "1"), watch("b", "2"), watch("a", "1")], at(9)).started;
        assert_eq!(begun.iter().map(|begun| begun.finished).collect::<Vec<_>>(), [false, false, true]);
        let after = all(&again.board);
        assert_eq!(format!("{:?}", after[0].toggle), format!("{:?}", before[0].toggle));
        assert_eq!(after[0].next_poll, None, "a finished run is not polled anew");
        assert_eq!((after[1].toggle.run.started, after[1].toggle.tally.polls), (at(9), 1));
        assert_eq!((after[2].toggle.run.started, after[2].next_poll), (at(0), Some(at(9))));
    }

    #[test]
    fn what_no_source_lists_is_forgotten_only_when_that_is_said() {
        let mut listed = ListedBoard::remembering();
        listed.set(&[watch("a", "1"), watch("b", "1")], at(0));
        let mut again = listed.restarted();
        again.set(&[watch("a", "1")], at(1));
        assert_eq!(again.board.take_unsaved(9, FAR).toggles.len(), 0, "it is saved as it is");
        assert_eq!(again.board.forget_all_inactive(|name, _| name.as_str() == "b", at(1)), 0);
        let (a, b) = (&watch("a", "1").name, &watch("b", "1").name);
        assert!(!again.board.forget_inactive(a, |_, _| false, at(1)), "that one is on the list");
        assert!(again.board.forget_inactive(b, |_, _| false, at(1)));
        assert_eq!(again.board.take_unsaved(9, FAR).toggles, [(b.clone(), Vec::new())]);
        assert_eq!(again.board.forget_all_inactive(|_, _| false, at(1)), 0);
    }

    #[test]
    fn an_agent_whose_mocks_are_off_is_known_again_although_its_watch_comes_later() {
        let mut listed = ListedBoard::remembering();
        let run = listed.begin(&[watch("a", "1")], at(0));
        listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
        let mut again = listed.restarted();
        again.board.forget_unwatched_agents(at(99));
        again.set(&[watch("a", "1")], at(100));
        assert_eq!(again.board.agents()[0].mock.enabled(), Some(false));
    }

    #[test]
    fn an_agent_whose_mocks_are_off_goes_when_its_watch_does_not_come_again() {
        let mut listed = ListedBoard::remembering();
        let run = listed.begin(&[watch("a", "1")], at(0));
        listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
        let again = listed.restarted();
        assert_eq!(again.board.agents().len(), 1);
        assert_eq!(again.board.forget_all_inactive(|_, _| false, at(99)), 1);
        assert!(again.board.agents().is_empty());
    }

    #[test]
    fn all_times_move_with_the_clock_and_keep_their_order() {
        let hour = ClockJump::from_millis(-3_600_000);
        let mut listed = ListedBoard::remembering();
        let begun = listed.set(&[watch("a", "1"), watch("b", "1")], at(9000)).started;
        listed.board.apply(begun[0].run, Ok(completed(true)), at(9001), |_| None).unwrap();
        listed.board.apply(begun[1].run, Err(Failure::new(Reason::Dns)), at(9002), |_| Some(at(9009))).unwrap();
        listed.displace(&[watch("a", "2"), watch("b", "1")], at(9003));
        while !listed.board.take_unsaved(9, FAR).is_empty() {}
        listed.board.shift_times(hour, |jump| assert_eq!(jump, hour));
        let a = listed.board.row("a").unwrap().toggle;
        assert_eq!((a.run.started, a.tally.last_completed), (at(5403), Some(at(5401))));
        let b = listed.board.row("b").unwrap();
        assert_eq!((b.toggle.run.failing.as_ref().unwrap().since, b.next_poll), (at(5402), Some(at(5409))));
        assert_eq!(listed.board.agents()[0].mock.enabled_since(), Some(at(5401)));
        assert!(listed.board.events("a").unwrap().iter().all(|event| event.at <= at(5403)));
        let unsaved = listed.board.take_unsaved(9, FAR);
        assert_eq!((unsaved.toggles.len(), unsaved.agents.len()), (2, 1), "all of it is saved again");
        assert_eq!(unsaved.toggles[0].1[1].run.finished.unwrap().at, at(5401));
    }

    #[test]
    fn many_names_are_gone_through_in_parts_and_none_is_passed_over() {
        let mut listed = ListedBoard::remembering();
        let watches: Vec<_> = (0..=3 * Board::NAMES_AT_A_TIME).map(|i| watch(&format!("w{i}"), "1")).collect();
        listed.set(&watches, at(0));
        let again = listed.restarted();
        assert_eq!(again.board.forget_all_inactive(|_, _| false, at(1)), watches.len());
        assert_eq!(again.board.take_unsaved(usize::MAX, FAR).toggles.len(), watches.len());
    }

    #[test]
    fn a_run_that_takes_the_place_of_another_takes_nothing_of_what_is_known_of_it() {
        let mut listed = ListedBoard::remembering();
        let status = |listed: &ListedBoard| listed.board.row("a").unwrap().toggle.run.last_answer.status;
        let (first, second) = (watch("a", "1"), watch("a", "2"));
        let run = listed.begin(std::slice::from_ref(&first), at(0));
        listed.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
        let run = listed.displace(std::slice::from_ref(&second), at(2)).started[0].run;
        listed.board.apply(run, Ok(answer(ReportedStatus::Failed, None)), at(3), |_| None).unwrap();
        let mut again = listed.restarted();
        // Back and forth, in this process and in the next.
        for listed in [&mut listed, &mut again] {
            listed.displace(std::slice::from_ref(&first), at(4));
            assert_eq!(status(listed), Status::Completed);
            listed.displace(std::slice::from_ref(&second), at(5));
            assert_eq!(status(listed), Status::Failed);
            listed.displace(&[], at(6));
            listed.displace(std::slice::from_ref(&first), at(7));
            assert_eq!(status(listed), Status::Completed);
            let tally = &listed.board.row("a").unwrap().toggle.tally;
            assert_eq!((tally.polls, tally.completed, tally.failed), (2, 1, 1), "each run is counted once");
        }
    }

    #[test]
    fn counters_and_events_go_on_when_a_displaced_run_comes_back_to_a_name_that_was_gone() {
        let mut listed = ListedBoard::remembering();
        let fails = |listed: &ListedBoard, run, second| {
            listed.board.apply(run, Err(Failure::new(Reason::Dns)), at(second), |_| None).unwrap();
        };
        let run = listed.begin(&[watch("a", "1")], at(0));
        fails(&listed, run, 1);
        let run = listed.displace(&[watch("a", "2")], at(2)).started[0].run;
        fails(&listed, run, 3);
        let before = listed.board.events("a").unwrap();
        listed.set(&[], at(4));
        listed.set(&[watch("a", "1")], at(5));
        assert_eq!(listed.board.row("a").unwrap().toggle.tally.polls, 2);
        let events = listed.board.events("a").unwrap();
        assert!(events.ends_with(&before) && events.len() > before.len(), "{events:?}");
    }

    #[test]
    fn an_agent_whose_mocks_are_off_stays_known_while_a_run_of_it_may_come_back() {
        let elsewhere = || Arc::new(Watch { agent_id: AgentId::parse("7").unwrap(), ..sample::watch("a", "2") });
        for gone_between in [false, true] {
            let mut listed = ListedBoard::remembering();
            let run = listed.begin(&[watch("a", "1")], at(0));
            listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
            listed.displace(&[elsewhere()], at(2));
            if gone_between {
                listed.displace(&[], at(3));
            }
            listed.set(&[watch("a", "1")], at(4));
            assert_eq!(listed.board.agents()[0].mock.enabled(), Some(false), "{gone_between}");
        }
    }

    #[test]
    fn of_very_many_runs_that_took_the_place_of_one_another_the_oldest_is_forgotten() {
        let mut listed = ListedBoard::remembering();
        for i in 0..20 {
            listed.displace(&[watch("a", &i.to_string())], at(i));
        }
        let saved = listed.board.take_unsaved(9, FAR).toggles;
        let ids: Vec<_> = saved[0].1.iter().map(|run| run.progress_id.as_str()).collect();
        assert_eq!(ids, ["19", "18", "17", "16", "15", "14", "13", "12", "11"]);
    }

    #[test]
    fn an_agent_learns_of_a_run_that_was_saved_when_it_was_not() {
        let mut listed = ListedBoard::remembering();
        let run = listed.begin(&[watch("a", "1")], at(0));
        listed.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
        let toggles = listed.board.take_unsaved(9, FAR).toggles.into_iter().collect();
        let mut again = ListedBoard { list: WatchList::default(), board: Board::restored(toggles, []) };
        again.set(&[watch("a", "1")], at(100));
        let mock = again.board.agents()[0].mock.clone();
        assert_eq!((mock.enabled(), mock.enabled_since()), (Some(true), Some(at(1))));
    }

    #[test]
    fn the_agents_order_of_runs_found_finished_survives_a_restart() {
        let mut listed = ListedBoard::remembering();
        let begun = listed.set(&[watch("enable", "1"), watch("disable", "1")], at(0)).started;
        listed.board.apply(begun[1].run, Ok(completed(false)), at(1), |_| None).unwrap();
        let mut again = listed.restarted();
        let begun = again.set(&[watch("disable", "1"), watch("enable", "1")], at(9)).started;
        again.board.apply(begun[1].run, Ok(completed(true)), at(10), |_| None).unwrap();
        assert_eq!(again.board.agents()[0].mock.enabled(), Some(false), "it ended before disable did");
    }

    #[test]
    fn what_could_not_be_saved_is_taken_again_and_nothing_is_taken_twice() {
        let mut listed = ListedBoard::remembering();
        let run = listed.begin(&[watch("a", "1"), watch("b", "1")], at(0));
        let first = listed.board.take_unsaved(1, FAR);
        assert_eq!((first.toggles.len(), first.agents.len()), (1, 0));
        listed.board.mark_unsaved(&first);
        assert_eq!(listed.board.take_unsaved(9, FAR).toggles.len(), 2);
        assert_eq!(listed.board.take_unsaved(9, FAR).toggles.len(), 0);
        listed.board.apply(run, Err(Failure::new(Reason::Dns)), at(1), |_| None).unwrap();
        assert_eq!(listed.board.take_unsaved(9, FAR).toggles.len(), 1);
        assert_eq!(ListedBoard::default().board.take_unsaved(9, FAR).toggles.len(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_when_the_run_finishes_is_replaced_or_is_removed() {
        type Act = fn(&mut ListedBoard, RunId);
        let acts: [Act; 3] = [
            |listed, run| drop(listed.board.apply(run, Ok(completed(true)), at(1), |_| None)),
            |listed, _| drop(listed.set(&[watch("a", "2")], at(1))),
            |listed, _| drop(listed.set(&[], at(1))),
        ];
        for act in acts {
            let mut listed = ListedBoard::default();
            let run = listed.begin(&[watch("a", "1")], at(0));
            let awaited = listed.board.awaited_run("a").unwrap();
            let changed = awaited.changed.notified();
            listed.board.apply(run, Ok(answer(ReportedStatus::InProgress, None)), at(0), |_| None).unwrap();
            act(&mut listed, run);
            changed.await;
        }
    }

    #[test]
    fn what_happened_to_a_toggle_in_trouble_is_told_again_after_a_restart() {
        let mut listed = ListedBoard::remembering();
        let begun = listed.set(&[watch("bad", "1"), watch("good", "1")], at(0)).started;
        let apply = |run, outcome, second| drop(listed.board.apply(run, outcome, at(second), |_| None));
        for second in 1..30 {
            apply(begun[0].run, Err(Failure::new(Reason::Dns)), second);
            apply(begun[0].run, Ok(answer(ReportedStatus::InProgress, None)), second);
        }
        apply(begun[0].run, Ok(answer(ReportedStatus::Failed, None)), 40);
        apply(begun[1].run, Ok(completed(true)), 41);
        let before = listed.board.events("bad").unwrap();
        let mut again = listed.restarted();
        again.set(&[watch("bad", "1"), watch("good", "2")], at(50));
        assert_eq!(again.board.events("bad").unwrap(), before[..20]);
        let (good, of_the_run_before) = (again.board.events("good").unwrap(), listed.board.events("good").unwrap());
        let run_began = EventKind::RunStarted { progress_id: watch("good", "2").progress_id.clone() };
        assert_eq!((&good[0].kind, &good[1..]), (&run_began, &of_the_run_before[..]));
    }

    #[test]
    fn a_run_that_comes_back_is_told_with_what_is_known_of_it() {
        let mut listed = ListedBoard::remembering();
        let run = listed.begin(&[watch("a", "1")], at(0));
        let (message, error) = (Some(Text::own("no room")), Some(Text::own("")));
        let failed = Answer { message, error, ..answer(ReportedStatus::Failed, None) };
        listed.board.apply(run, Ok(failed), at(1), |_| None).unwrap();
        let mut again = listed.restarted();
        again.set(&[watch("a", "2")], at(5));
        again.set(&[watch("a", "1")], at(9));
        let text = Some(Text::own("no room"));
        let expected = [
            EventKind::StatusChanged {
                from: Status::Unknown,
                to: Status::Failed,
                duration: None,
                mismatch: false,
                text,
            },
            EventKind::RunStarted { progress_id: watch("a", "1").progress_id.clone() },
        ];
        assert_eq!(again.board.events("a").unwrap()[..2], expected.map(|kind| Event { at: at(9), kind }));
    }

    #[test]
    fn what_happened_is_told_newest_first_over_the_runs_of_a_slot_and_goes_with_its_watch() {
        let mut listed = ListedBoard::default();
        let run = listed.begin(&[watch("a", "1"), watch("b", "1")], at(0));
        let poll =
            |listed: &ListedBoard, run, outcome, second| drop(listed.board.apply(run, outcome, at(second), |_| None));
        for (second, outcome) in [
            Err(Failure::new(Reason::Dns)),
            Err(Failure::new(Reason::Dns)),
            Err(Failure::new(Reason::Timeout)),
            Ok(answer(ReportedStatus::InProgress, None)),
            Ok(answer(ReportedStatus::InProgress, None)),
            Ok(completed(true)),
        ]
        .into_iter()
        .zip(1..)
        .map(|(outcome, second)| (second, outcome))
        {
            poll(&listed, run, outcome, second);
        }
        listed.set(&[watch("a", "2"), watch("b", "1")], at(9));
        let failed = |reason| EventKind::PollFailed { reason, detail: None };
        let status = |from, to, duration| EventKind::StatusChanged { from, to, duration, mismatch: false, text: None };
        let expected = [
            (9, EventKind::RunStarted { progress_id: watch("a", "2").progress_id.clone() }),
            (6, status(Status::InProgress, Status::Completed, Some(Duration::from_secs(6)))),
            (4, status(Status::Unknown, Status::InProgress, None)),
            (4, EventKind::Recovered { reason: Reason::Timeout, lasted: Duration::from_secs(3) }),
            (3, failed(Reason::Timeout)),
            (1, failed(Reason::Dns)),
        ];
        assert_eq!(
            listed.board.events("a"),
            Some(expected.map(|(second, kind)| Event { at: at(second), kind }).into())
        );
        assert_eq!(listed.board.events("b"), Some(vec![]));
        listed.set(&[watch("b", "1")], at(10));
        assert_eq!(listed.board.events("a"), None);
        listed.set(&[watch("a", "2"), watch("b", "1")], at(11));
        assert_eq!(listed.board.events("a"), Some(vec![]), "another watch has that slot");
    }
}
