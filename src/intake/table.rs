//! The registrations, and when each of them expires.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::board::{Board, ToggleRow};
use crate::clock;
use crate::config::Retention;
use crate::sources::WatchDefinition;
use crate::store::Registration;
use crate::toggle::{ClockJump, Source, Status, Timestamp, Toggle, Watch, WatchName};

/// What is registered, by name.
#[derive(Debug)]
pub(super) struct RegistrationTable {
    registrations: HashMap<WatchName, KeptRegistration>,
    retention: Retention,
    /// When to look whether a registration expired, earliest first.
    looks: BinaryHeap<Reverse<ExpiryCheck>>,
    /// Looks so far.
    count: u64,
    /// The jumps of the clock that all times are moved by.
    moved: ClockJump,
}

/// When to look whether a registration expired, with a number of its own.
type ExpiryCheck = (Timestamp, u64, WatchName);

#[derive(Debug)]
struct KeptRegistration {
    registration: Registration,
    /// The number of the look that is for it. Its time is never later than the registration expires.
    look: u64,
}

// === impl RegistrationTable ===

impl RegistrationTable {
    /// Looks that are void and kept all the same.
    const ROOM: usize = 64;

    /// Registrations of an earlier process.
    pub(super) fn new(registrations: Vec<Registration>, retention: Retention) -> Self {
        let mut registry = Self {
            registrations: HashMap::with_capacity(registrations.len()),
            retention,
            looks: BinaryHeap::new(),
            count: 0,
            moved: ClockJump::default(),
        };
        for registration in registrations {
            let name = registration.watch.name.clone();
            registry.registrations.insert(name, KeptRegistration { registration, look: 0 });
        }
        registry.look_at_all();
        registry
    }

    /// Moves every time with the clock, of which these are all jumps so far.
    pub(super) fn follow(&mut self, moved: ClockJump) {
        let by = ClockJump::from_millis(moved.as_millis() - self.moved.as_millis());
        if by == ClockJump::default() {
            return;
        }
        self.moved = moved;
        for kept in self.registrations.values_mut() {
            kept.registration.map_times(|time| time.moved(by));
        }
        self.look_at_all();
    }

    /// The sum of the jumps of the clock that all times are moved by.
    pub(super) fn moved(&self) -> ClockJump {
        self.moved
    }

    /// The time of day by the clock as it was before jumps that the times here are not moved by yet.
    pub(super) fn now(&self) -> Timestamp {
        clock::now_before(self.moved)
    }

    pub(super) fn len(&self) -> usize {
        self.registrations.len()
    }

    pub(super) fn get(&self, name: &WatchName) -> Option<&Registration> {
        self.registrations.get(name).map(|kept| &kept.registration)
    }

    /// Whether this run is registered, be it that registrations are not enabled now.
    pub(super) fn has_run_of(&self, watch: &Watch) -> bool {
        self.get(&watch.name).is_some_and(|registration| registration.watch.same_run(watch))
    }

    pub(super) fn insert(&mut self, registration: Registration) {
        if let Some(kept) = self.registrations.get_mut(&registration.watch.name) {
            // The look that is planned comes early enough: it now expires later than before.
            kept.registration = registration;
            return;
        }
        let (name, at) = (registration.watch.name.clone(), self.retention.earliest(registration.registered));
        self.registrations.insert(name.clone(), KeptRegistration { registration, look: 0 });
        self.look(at, name);
        if self.looks.len() > 2 * self.registrations.len() + Self::ROOM {
            // Registrations that come and go would else leave looks behind until their time.
            let all = &self.registrations;
            self.looks.retain(|Reverse((_, number, name))| all.get(name).is_some_and(|kept| kept.look == *number));
        }
    }

    pub(super) fn remove(&mut self, name: &WatchName) {
        self.registrations.remove(name);
    }

    /// As the watch list has it.
    pub(super) fn definition(registration: &Registration) -> WatchDefinition {
        WatchDefinition { watch: registration.watch.clone(), started: Some(registration.started) }
    }

    /// All of them as the watch list has them, sorted by name.
    pub(super) fn definitions(&self) -> Vec<WatchDefinition> {
        let kept = self.registrations.values();
        let mut definitions: Vec<_> = kept.map(|kept| Self::definition(&kept.registration)).collect();
        definitions.sort_unstable_by(|a, b| a.watch.name.cmp(&b.watch.name));
        definitions
    }

    /// Goes on with another retention.
    pub(super) fn set_retention(&mut self, retention: Retention) {
        if self.retention != retention {
            self.retention = retention;
            self.look_at_all();
        }
    }

    /// Looks at no more than so many, and returns those that expired, each once; the caller removes
    /// them. Says whether there are more to be looked at now.
    pub(super) fn expired(&mut self, board: &Board, now: Timestamp, most: usize) -> (Vec<WatchName>, bool) {
        if self.looks.peek().is_some_and(|Reverse((at, ..))| *at > self.retention.earliest(now)) {
            // That can only be if the clock was set back.
            self.look_at_all();
        }
        let mut expired = Vec::new();
        for _ in 0..most {
            if !self.has_looks(now) {
                break;
            }
            let Some(Reverse((_, number, name))) = self.looks.pop() else { break };
            // It may have been removed since, and registered again.
            let Some(kept) = self.registrations.get(&name).filter(|kept| kept.look == number) else { continue };
            let end = end(&kept.registration, board, &self.retention, now);
            if end <= now {
                expired.push(name);
            } else {
                // The run may finish at any time from now on.
                self.look(end.min(self.retention.earliest(now)), name);
            }
        }
        (expired, self.has_looks(now))
    }

    fn has_looks(&self, now: Timestamp) -> bool {
        self.looks.peek().is_some_and(|Reverse((at, ..))| *at <= now)
    }

    /// What was expired could not be removed.
    pub(super) fn look_again(&mut self, names: Vec<WatchName>) {
        for name in names {
            self.look(AT_ONCE, name);
        }
    }

    fn look_at_all(&mut self) {
        self.looks.clear();
        let names: Vec<_> = self.registrations.keys().cloned().collect();
        self.look_again(names);
    }

    /// Looks at a registration at this time, and at no other.
    fn look(&mut self, at: Timestamp, name: WatchName) {
        self.count += 1;
        if let Some(kept) = self.registrations.get_mut(&name) {
            kept.look = self.count;
            self.looks.push(Reverse((at, self.count, name)));
        }
    }
}

/// When to look again at a run that is unfinished and was not polled since the exporter started.
const UNPOLLED: Duration = Duration::from_secs(30);

/// The time of a look that is due, whatever the clock says.
const AT_ONCE: Timestamp = Timestamp::from_millis(0);

/// When a registration expires, as its run is now.
fn end(registration: &Registration, board: &Board, retention: &Retention, now: Timestamp) -> Timestamp {
    // A registration that is refused has no run: what is watched under its name is another source's.
    let of_run = |row: &ToggleRow| {
        let end = || (retention.end(registration.registered, &row.toggle, now), row.toggle.run.finished.is_some());
        (row.toggle.watch.source == Source::Http).then(end)
    };
    let name = registration.watch.name.as_str();
    match board.with_row(name, of_run).flatten() {
        Some((end, is_finished)) if is_finished || board.is_polled(name) => end,
        // While the exporter was down, the run went on.
        Some((end, _)) => end.max(now.after(UNPOLLED)),
        None => registration.registered.min(now).after(retention.unfinished),
    }
}

// === impl Retention ===

impl Retention {
    /// When a registration expires whose toggle is this. What the clock was ahead is not waited for. A run
    /// that completed otherwise than was expected is kept like one that failed: its alert must not end by
    /// itself while nothing was mended.
    fn end(&self, registered: Timestamp, toggle: &Toggle, now: Timestamp) -> Timestamp {
        let run = &toggle.run;
        let finished = run.finished.map(|finish| finish.at.min(now));
        match (finished, run.last_answer.status) {
            (Some(at), Status::Completed) if toggle.mismatch() != Some(true) => at.after(self.completed),
            (Some(at), _) => at.after(self.failed),
            (None, _) => {
                let answered = run.last_success.unwrap_or(registered);
                answered.max(registered).min(now).after(self.unfinished)
            }
        }
    }

    /// The earliest that it can expire if its run finishes `now`.
    fn earliest(&self, now: Timestamp) -> Timestamp {
        now.after(self.completed.min(self.failed).min(self.unfinished))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sources::{Origin, WatchChange, WatchList};
    use crate::toggle::sample::{answer, at, watch};
    use crate::toggle::{ApiName, Expect, Failure, Reason, ReportedStatus};

    fn registration(name: &str, progress_id: &str, registered: u64) -> Registration {
        let watch = Watch { source: Source::Http, ..watch(name, progress_id) };
        Registration { watch: Arc::new(watch), started: at(registered), registered: at(registered) }
    }

    fn retention() -> Retention {
        let seconds = Duration::from_secs;
        Retention { completed: seconds(10), failed: seconds(100), unfinished: seconds(50) }
    }

    /// A board that watches what is registered, and has polled each without an answer.
    fn board(registrations: &[Registration]) -> Board {
        let board = unpolled(registrations);
        for registration in registrations {
            fails(&board, registration.watch.name.as_str(), 0);
        }
        board
    }

    fn unpolled(registrations: &[Registration]) -> Board {
        let (mut list, board) = (WatchList::default(), Board::default());
        let mut edit = list.edit();
        edit.set_apis([ApiName::default_api()].into());
        edit.replace(&Origin::Http, registrations.iter().map(RegistrationTable::definition));
        board.update(&edit.finish(|_| false).changes, at(0));
        board
    }

    fn answers(board: &Board, name: &str, status: ReportedStatus, now: u64) {
        let run = board.awaited_run(name).unwrap().run;
        board.apply(run, Ok(answer(status, None)), at(now), |_| None).unwrap();
    }

    fn fails(board: &Board, name: &str, now: u64) {
        let run = board.awaited_run(name).unwrap().run;
        board.apply(run, Err(Failure::new(Reason::Timeout)), at(now), |_| None).unwrap();
    }

    fn expired(registry: &mut RegistrationTable, board: &Board, now: u64) -> Vec<String> {
        let (names, _) = registry.expired(board, at(now), 1000);
        for name in &names {
            registry.remove(name);
        }
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_expires_by_what_became_of_its_run() {
        let registrations = ["good", "bad", "silent", "answers"].map(|name| registration(name, "p", 0));
        let board = board(&registrations);
        let mut registry = RegistrationTable::new(registrations.into(), retention());
        answers(&board, "good", ReportedStatus::Completed, 5);
        answers(&board, "bad", ReportedStatus::Failed, 5);
        answers(&board, "answers", ReportedStatus::InProgress, 40);
        for (now, names) in
            [(14, vec![]), (15, vec!["good"]), (49, vec![]), (50, vec!["silent"]), (89, vec![]), (90, vec!["answers"])]
        {
            assert_eq!(expired(&mut registry, &board, now), names, "{now}");
        }
        assert_eq!(expired(&mut registry, &board, 105), ["bad"]);
        assert_eq!((registry.len(), registry.looks.len()), (0, 0));
    }

    #[test]
    fn after_a_day_of_downtime_no_unfinished_run_expires_before_it_was_polled() {
        let registrations = [registration("w", "p", 0)];
        let board = unpolled(&registrations);
        let mut registry = RegistrationTable::new(registrations.into(), retention());
        for now in [86_400, 86_401, 86_500] {
            assert_eq!(expired(&mut registry, &board, now), [""; 0], "{now}");
        }
        fails(&board, "w", 86_501);
        assert_eq!(expired(&mut registry, &board, 86_530), ["w"]);
    }

    #[test]
    fn one_that_completed_otherwise_than_was_expected_is_kept_like_one_that_failed() {
        let Registration { watch, .. } = registration("w", "p", 0);
        let watch = Arc::new(Watch { expect: Some(Expect::Disabled), ..Watch::clone(&watch) });
        let registrations = [Registration { watch, ..registration("w", "p", 0) }];
        let board = board(&registrations);
        let mut registry = RegistrationTable::new(registrations.into(), retention());
        // Nothing is said of mocks.
        answers(&board, "w", ReportedStatus::Completed, 5);
        assert_eq!(expired(&mut registry, &board, 104), [""; 0]);
        assert_eq!(expired(&mut registry, &board, 105), ["w"]);
    }

    #[test]
    fn a_slot_that_is_registered_again_and_again_takes_no_room_and_expires_once() {
        let board = board(&[registration("w", "p", 0)]);
        let mut registry = RegistrationTable::new(Vec::new(), retention());
        for i in 0..10_000 {
            registry.insert(registration("w", "p", i % 9));
        }
        assert_eq!(registry.looks.len(), 1);
        for _ in 0..10_000 {
            registry.remove(&watch("w", "p").name);
            registry.insert(registration("w", "p", 9));
        }
        assert!(registry.looks.len() < 100, "{}", registry.looks.len());
        assert_eq!(expired(&mut registry, &board, 58), [""; 0]);
        assert_eq!(expired(&mut registry, &board, 59), ["w"]);
    }

    #[test]
    fn what_could_not_be_removed_expires_again() {
        let board = board(&[registration("w", "p", 0)]);
        let mut registry = RegistrationTable::new(vec![registration("w", "p", 0)], retention());
        let (names, more) = registry.expired(&board, at(50), 9);
        assert_eq!((names.len(), more, registry.expired(&board, at(51), 9).0.len()), (1, false, 0));
        registry.look_again(names);
        assert_eq!(expired(&mut registry, &board, 51), ["w"]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_them_for_ever() {
        let ahead = 1_000_000;
        let board = board(&[registration("w", "p", ahead)]);
        let mut registry = RegistrationTable::new(Vec::new(), retention());
        registry.insert(registration("w", "p", ahead));
        assert_eq!(expired(&mut registry, &board, 0), [""; 0]);
        answers(&board, "w", ReportedStatus::Completed, 5);
        assert_eq!(expired(&mut registry, &board, 15), ["w"]);
    }

    #[test]
    fn another_retention_holds_at_once() {
        let board = board(&[registration("w", "p", 0)]);
        let mut registry = RegistrationTable::new(vec![registration("w", "p", 0)], retention());
        assert_eq!(expired(&mut registry, &board, 9), [""; 0]);
        registry.set_retention(Retention { unfinished: Duration::from_secs(3), ..retention() });
        assert_eq!(expired(&mut registry, &board, 9), ["w"]);
    }

    #[test]
    fn one_that_is_refused_expires_without_a_run() {
        let (mut list, board) = (WatchList::default(), Board::default());
        let mut edit = list.edit();
        edit.set_apis([ApiName::default_api()].into());
        edit.define(&Origin::Config, Arc::new(watch("w", "p")).into());
        let changes: Vec<WatchChange> = edit.finish(|_| false).changes;
        board.update(&changes, at(0));
        answers(&board, "w", ReportedStatus::Completed, 1);
        let mut registry = RegistrationTable::new(vec![registration("w", "p", 0)], retention());
        assert_eq!(expired(&mut registry, &board, 49), [""; 0], "the run that completed is another source's");
        assert_eq!(expired(&mut registry, &board, 50), ["w"]);
    }
}
