//! The registrations in memory, and when to check whether each of them has expired.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use crate::board::{Board, ToggleRow};
use crate::clock;
use crate::config::Retention;
use crate::sources::WatchDefinition;
use crate::store::Registration;
use crate::toggle::{ClockJump, Source, Status, Timestamp, Toggle, Watch, WatchName};

/// The registrations, by name.
#[derive(Debug)]
pub(super) struct RegistrationTable {
    registrations: HashMap<WatchName, KeptRegistration>,
    retention: Retention,
    /// The next check of each registration, the earliest first, and some checks that no longer count.
    checks: BinaryHeap<Reverse<ExpiryCheck>>,
    /// The number of the newest check.
    last_check: u64,
    /// The sum of the clock's jumps that all times here include.
    applied_jump: ClockJump,
}

/// When to check whether a registration has expired, and a number that no other check has.
type ExpiryCheck = (Timestamp, u64, WatchName);

#[derive(Debug)]
struct KeptRegistration {
    registration: Registration,
    /// The number of the check that counts. Its time is never later than the registration expires.
    check: u64,
}

/// The least time that an unfinished run is kept if it was not polled since the start.
const UNPOLLED: Duration = Duration::from_secs(30);

/// When to check again whether this exporter is the one that removes a registration.
const OWNER_CHECK: Duration = Duration::from_mins(1);

/// The time of a check that is due, whatever the clock says.
const AT_ONCE: Timestamp = Timestamp::from_millis(0);

// === impl RegistrationTable ===

impl RegistrationTable {
    /// How many checks that no longer count may stay in the heap of a small table.
    const SPARE: usize = 64;

    /// A table of the registrations that the state file has.
    pub(super) fn new(registrations: Vec<Registration>, retention: Retention) -> Self {
        let keep =
            |registration: Registration| (registration.watch.name.clone(), KeptRegistration { registration, check: 0 });
        let mut table = Self {
            registrations: registrations.into_iter().map(keep).collect(),
            retention,
            checks: BinaryHeap::new(),
            last_check: 0,
            applied_jump: ClockJump::default(),
        };
        table.check_all();
        table
    }

    /// Shifts every time by the jumps of the clock since the last call.
    pub(super) fn apply_jumps(&mut self) {
        let total = clock::total_jump();
        if total == self.applied_jump {
            return;
        }
        let unapplied = total - self.applied_jump;
        self.applied_jump = total;
        for kept in self.registrations.values_mut() {
            kept.registration.map_times(|time| time.shifted(unapplied));
        }
        self.check_all();
    }

    /// The sum of the clock's jumps that all times here include.
    pub(super) fn applied_jump(&self) -> ClockJump {
        self.applied_jump
    }

    /// The time of day by the same clock as the times here, without later jumps.
    pub(super) fn now(&self) -> Timestamp {
        clock::now_before(self.applied_jump)
    }

    pub(super) fn len(&self) -> usize {
        self.registrations.len()
    }

    pub(super) fn get(&self, name: &WatchName) -> Option<&Registration> {
        self.registrations.get(name).map(|kept| &kept.registration)
    }

    /// Whether this run is registered, even if registrations are disabled now.
    pub(super) fn has_run_of(&self, watch: &Watch) -> bool {
        self.get(&watch.name).is_some_and(|registration| registration.watch.same_run(watch))
    }

    pub(super) fn insert(&mut self, registration: Registration) {
        if let Some(kept) = self.registrations.get_mut(&registration.watch.name) {
            // Its check is early enough, because it now expires later than before.
            kept.registration = registration;
            return;
        }
        let (name, at) = (registration.watch.name.clone(), self.retention.earliest(registration.registered));
        self.registrations.insert(name.clone(), KeptRegistration { registration, check: 0 });
        self.check(at, name);
        if self.checks.len() > 2 * self.registrations.len() + Self::SPARE {
            // Otherwise registrations that come and go would leave checks behind until these are due.
            let all = &self.registrations;
            self.checks.retain(|Reverse((_, number, name))| all.get(name).is_some_and(|kept| kept.check == *number));
        }
    }

    pub(super) fn remove(&mut self, name: &WatchName) {
        self.registrations.remove(name);
    }

    /// The names of all registrations but these.
    pub(super) fn names_without(&self, names: &BTreeSet<WatchName>) -> Vec<WatchName> {
        self.registrations.keys().filter(|name| !names.contains(*name)).cloned().collect()
    }

    /// The definition of a registration, for the watch list.
    pub(super) fn definition(registration: &Registration) -> WatchDefinition {
        WatchDefinition { watch: registration.watch.clone(), started: Some(registration.started) }
    }

    /// The definitions of all registrations, sorted by name.
    pub(super) fn definitions(&self) -> Vec<WatchDefinition> {
        let kept = self.registrations.values();
        let mut definitions: Vec<_> = kept.map(|kept| Self::definition(&kept.registration)).collect();
        definitions.sort_unstable_by(|a, b| a.watch.name.cmp(&b.watch.name));
        definitions
    }

    /// Applies another retention to all registrations.
    pub(super) fn set_retention(&mut self, retention: Retention) {
        if self.retention != retention {
            self.retention = retention;
            self.check_all();
        }
    }

    /// Makes up to `most` of the checks that are due. Returns the names that have expired, each once, and
    /// whether more checks are due. The caller removes the expired registrations.
    pub(super) fn expired(&mut self, board: &Board, now: Timestamp, most: usize) -> (Vec<WatchName>, bool) {
        if self.checks.peek().is_some_and(|Reverse((at, ..))| *at > self.retention.earliest(now)) {
            // The clock was set back.
            self.check_all();
        }
        let mut expired = Vec::new();
        for _ in 0..most {
            if !self.is_check_due(now) {
                break;
            }
            let Some(Reverse((_, number, name))) = self.checks.pop() else { break };
            // It may have been removed, and registered again since.
            let Some(kept) = self.registrations.get(&name).filter(|kept| kept.check == number) else { continue };
            let watch = &kept.registration.watch;
            if !board.owns_agent(&watch.api, watch.agent_id) {
                // The exporter that owns it removes it.
                self.check(now.after(OWNER_CHECK).min(self.retention.earliest(now)), name);
                continue;
            }
            let expiry = expiry(&kept.registration, board, &self.retention, now);
            if expiry <= now {
                expired.push(name);
            } else {
                // The run may finish at any time, and then expires earlier.
                self.check(expiry.min(self.retention.earliest(now)), name);
            }
        }
        (expired, self.is_check_due(now))
    }

    fn is_check_due(&self, now: Timestamp) -> bool {
        self.checks.peek().is_some_and(|Reverse((at, ..))| *at <= now)
    }

    /// Checks these again at once, because the expired ones could not be removed.
    pub(super) fn check_again(&mut self, names: Vec<WatchName>) {
        for name in names {
            self.check(AT_ONCE, name);
        }
    }

    /// Checks all registrations at once.
    pub(super) fn check_all(&mut self) {
        self.checks.clear();
        let names: Vec<_> = self.registrations.keys().cloned().collect();
        self.check_again(names);
    }

    /// Plans the check of a registration, in place of the one that was planned.
    fn check(&mut self, at: Timestamp, name: WatchName) {
        self.last_check += 1;
        if let Some(kept) = self.registrations.get_mut(&name) {
            kept.check = self.last_check;
            self.checks.push(Reverse((at, self.last_check, name)));
        }
    }
}

/// When a registration expires, as far as its run is known now.
fn expiry(registration: &Registration, board: &Board, retention: &Retention, now: Timestamp) -> Timestamp {
    // Where another source defines the name, the run on the board is not that of the registration.
    let of_run = |row: &ToggleRow| {
        let expiry =
            || (retention.expiry(registration.registered, &row.toggle, now), row.toggle.run.finished.is_some());
        (row.toggle.watch.source == Source::Http).then(expiry)
    };
    let name = registration.watch.name.as_str();
    match board.with_row(name, of_run).flatten() {
        Some((expiry, is_finished)) if is_finished || board.is_polled(name) => expiry,
        // The run went on while the exporter was down.
        Some((expiry, _)) => expiry.max(now.after(UNPOLLED)),
        None => registration.registered.min(now).after(retention.unfinished),
    }
}

// === impl Retention ===

impl Retention {
    /// When a registration with this toggle expires. Times that are later than `now`, because the clock was
    /// ahead, count as `now`. A run that completed otherwise than expected is kept like a failed one: its
    /// alert must not be resolved while nothing was repaired.
    fn expiry(&self, registered: Timestamp, toggle: &Toggle, now: Timestamp) -> Timestamp {
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

    /// The earliest that a registration can expire if its run finishes `now`.
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

    /// A board with these registrations, each of which was polled once without an answer.
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
        board.update(&edit.finish(&|_| false).changes, at(0));
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

    fn expired(table: &mut RegistrationTable, board: &Board, now: u64) -> Vec<String> {
        let (names, _) = table.expired(board, at(now), 1000);
        for name in &names {
            table.remove(name);
        }
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_registration_expires_by_the_state_of_its_run() {
        let registrations = ["good", "bad", "silent", "answers"].map(|name| registration(name, "p", 0));
        let board = board(&registrations);
        let mut table = RegistrationTable::new(registrations.into(), retention());
        answers(&board, "good", ReportedStatus::Completed, 5);
        answers(&board, "bad", ReportedStatus::Failed, 5);
        answers(&board, "answers", ReportedStatus::InProgress, 40);
        for (now, names) in
            [(14, vec![]), (15, vec!["good"]), (49, vec![]), (50, vec!["silent"]), (89, vec![]), (90, vec!["answers"])]
        {
            assert_eq!(expired(&mut table, &board, now), names, "{now}");
        }
        assert_eq!(expired(&mut table, &board, 105), ["bad"]);
        assert_eq!((table.len(), table.checks.len()), (0, 0));
    }

    #[test]
    fn after_a_day_of_downtime_no_unfinished_run_expires_before_it_was_polled() {
        let registrations = [registration("w", "p", 0)];
        let board = unpolled(&registrations);
        let mut table = RegistrationTable::new(registrations.into(), retention());
        for now in [86_400, 86_401, 86_500] {
            assert_eq!(expired(&mut table, &board, now), [""; 0], "{now}");
        }
        fails(&board, "w", 86_501);
        assert_eq!(expired(&mut table, &board, 86_530), ["w"]);
    }

    #[test]
    fn a_run_that_completed_otherwise_than_expected_is_kept_like_a_failed_one() {
        let Registration { watch, .. } = registration("w", "p", 0);
        let watch = Arc::new(Watch { expect: Some(Expect::Disabled), ..Watch::clone(&watch) });
        let registrations = [Registration { watch, ..registration("w", "p", 0) }];
        let board = board(&registrations);
        let mut table = RegistrationTable::new(registrations.into(), retention());
        // The answer says nothing of mocks.
        answers(&board, "w", ReportedStatus::Completed, 5);
        assert_eq!(expired(&mut table, &board, 104), [""; 0]);
        assert_eq!(expired(&mut table, &board, 105), ["w"]);
    }

    #[test]
    fn a_name_that_is_registered_again_and_again_takes_no_memory_and_expires_once() {
        let board = board(&[registration("w", "p", 0)]);
        let mut table = RegistrationTable::new(Vec::new(), retention());
        for i in 0..10_000 {
            table.insert(registration("w", "p", i % 9));
        }
        assert_eq!(table.checks.len(), 1);
        for _ in 0..10_000 {
            table.remove(&watch("w", "p").name);
            table.insert(registration("w", "p", 9));
        }
        assert!(table.checks.len() < 100, "{}", table.checks.len());
        assert_eq!(expired(&mut table, &board, 58), [""; 0]);
        assert_eq!(expired(&mut table, &board, 59), ["w"]);
    }

    #[test]
    fn a_registration_that_could_not_be_removed_expires_again() {
        let board = board(&[registration("w", "p", 0)]);
        let mut table = RegistrationTable::new(vec![registration("w", "p", 0)], retention());
        let (names, more) = table.expired(&board, at(50), 9);
        assert_eq!((names.len(), more, table.expired(&board, at(51), 9).0.len()), (1, false, 0));
        table.check_again(names);
        assert_eq!(expired(&mut table, &board, 51), ["w"]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_registrations_for_ever() {
        let ahead = 1_000_000;
        let board = board(&[registration("w", "p", ahead)]);
        let mut table = RegistrationTable::new(Vec::new(), retention());
        table.insert(registration("w", "p", ahead));
        assert_eq!(expired(&mut table, &board, 0), [""; 0]);
        answers(&board, "w", ReportedStatus::Completed, 5);
        assert_eq!(expired(&mut table, &board, 15), ["w"]);
    }

    #[test]
    fn another_retention_applies_at_once() {
        let board = board(&[registration("w", "p", 0)]);
        let mut table = RegistrationTable::new(vec![registration("w", "p", 0)], retention());
        assert_eq!(expired(&mut table, &board, 9), [""; 0]);
        table.set_retention(Retention { unfinished: Duration::from_secs(3), ..retention() });
        assert_eq!(expired(&mut table, &board, 9), ["w"]);
    }

    #[test]
    fn a_registration_that_another_source_overrides_expires_without_a_run() {
        let (mut list, board) = (WatchList::default(), Board::default());
        let mut edit = list.edit();
        edit.set_apis([ApiName::default_api()].into());
        edit.define(&Origin::Config, Arc::new(watch("w", "p")).into());
        let changes: Vec<WatchChange> = edit.finish(&|_| false).changes;
        board.update(&changes, at(0));
        answers(&board, "w", ReportedStatus::Completed, 1);
        let mut table = RegistrationTable::new(vec![registration("w", "p", 0)], retention());
        assert_eq!(expired(&mut table, &board, 49), [""; 0], "the run that completed is of another source");
        assert_eq!(expired(&mut table, &board, 50), ["w"]);
    }
}
