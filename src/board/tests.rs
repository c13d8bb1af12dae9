//! What the board shows after changes of the watch list, polls and restarts.

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
        self.board.update(&edit.finish(&|_| may_come_back).changes, now)
    }

    fn begin(&mut self, watches: &[Arc<Watch>], now: Timestamp) -> RunId {
        self.set(watches, now).started[0].run
    }

    /// What another process has that starts with what this one saved.
    fn restarted(&self) -> Self {
        let UnsavedChanges { toggles, agents, .. } = self.board.take_unsaved(usize::MAX, FAR);
        let toggles = toggles.into_iter().filter(|(_, runs)| !runs.is_empty()).collect();
        let agents = agents.into_iter().filter_map(|(key, mock)| Some((key, mock?)));
        Self { list: WatchList::default(), board: Board::restored(toggles, agents) }
    }

    fn remembering() -> Self {
        Self { list: WatchList::default(), board: Board::restored(BTreeMap::new(), []) }
    }

    /// One whose state others share, and that owns nothing.
    fn shared() -> Self {
        Self { list: WatchList::default(), board: Board::shared() }
    }

    /// Owns everything in an epoch, or nothing.
    fn own(&self, epoch: Option<i64>, now: Timestamp) -> OwnershipChange {
        let mut leases = Leases::default();
        Shard::all().for_each(|shard| leases.set(shard, epoch));
        self.board.set_leases(&leases);
        self.board.own(leases.owned(), now)
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
fn an_agent_with_mocks_on_is_kept_for_seven_days_after_its_last_watch() {
    let mut listed = ListedBoard::default();
    let run = listed.begin(&[watch("a", "1")], at(0));
    listed.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    listed.set(&[], at(2));
    listed.board.forget_unused_agents(at(2 + 7 * 86_400 - 1));
    assert_eq!(listed.board.agents(FAR)[0].told.enabled(), Some(true));
    listed.board.forget_unused_agents(at(2 + 7 * 86_400));
    assert!(listed.board.agents(FAR).is_empty());
}

#[test]
fn an_agent_with_mocks_off_is_removed_with_its_last_watch() {
    let mut listed = ListedBoard::default();
    let run = listed.begin(&[watch("a", "1"), watch("b", "1")], at(0));
    listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
    listed.set(&[watch("b", "1")], at(2));
    assert_eq!(listed.board.agents(FAR).len(), 1);
    listed.set(&[watch("b", "2")], at(2));
    assert_eq!(listed.board.agents(FAR).len(), 1);
    listed.set(&[], at(3));
    assert!(listed.board.agents(FAR).is_empty());
}

#[test]
fn saved_runs_are_restored_and_a_new_run_keeps_only_the_tally() {
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
fn inactive_runs_are_kept_until_they_are_forgotten_explicitly() {
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
fn a_saved_agent_with_mocks_off_is_kept_until_its_watch_comes_back() {
    let mut listed = ListedBoard::remembering();
    let run = listed.begin(&[watch("a", "1")], at(0));
    listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
    let mut again = listed.restarted();
    again.board.forget_unused_agents(at(99));
    again.set(&[watch("a", "1")], at(100));
    assert_eq!(again.board.agents(FAR)[0].told.enabled(), Some(false));
}

#[test]
fn a_saved_agent_with_mocks_off_is_removed_if_its_watch_does_not_come_back() {
    let mut listed = ListedBoard::remembering();
    let run = listed.begin(&[watch("a", "1")], at(0));
    listed.board.apply(run, Ok(completed(false)), at(1), |_| None).unwrap();
    let again = listed.restarted();
    assert_eq!(again.board.agents(FAR).len(), 1);
    assert_eq!(again.board.forget_all_inactive(|_, _| false, at(99)), 1);
    assert!(again.board.agents(FAR).is_empty());
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
    assert_eq!(listed.board.agents(FAR)[0].told.enabled_since, Some(at(5401)));
    assert!(listed.board.events("a").unwrap().iter().all(|event| event.at <= at(5403)));
    let unsaved = listed.board.take_unsaved(9, FAR);
    assert_eq!((unsaved.toggles.len(), unsaved.agents.len()), (2, 1), "all of it is saved again");
    assert_eq!(unsaved.toggles[0].1[1].run.finished.unwrap().at, at(5401));
}

#[test]
fn inactive_runs_of_more_names_than_a_page_are_all_forgotten() {
    let mut listed = ListedBoard::remembering();
    let watches: Vec<_> = (0..=3 * Board::PAGE).map(|i| watch(&format!("w{i}"), "1")).collect();
    listed.set(&watches, at(0));
    let again = listed.restarted();
    assert_eq!(again.board.forget_all_inactive(|_, _| false, at(1)), watches.len());
    assert_eq!(again.board.take_unsaved(usize::MAX, FAR).toggles.len(), watches.len());
}

#[test]
fn runs_that_replace_one_another_keep_their_own_states() {
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
fn counters_and_events_continue_when_a_replaced_run_comes_back_after_its_watch_was_removed() {
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
fn an_agent_with_mocks_off_is_kept_while_it_has_an_inactive_run() {
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
        assert_eq!(listed.board.agents(FAR)[0].told.enabled(), Some(false), "{gone_between}");
    }
}

#[test]
fn the_oldest_of_many_inactive_runs_of_a_name_are_forgotten() {
    let mut listed = ListedBoard::remembering();
    for i in 0..20 {
        listed.displace(&[watch("a", &i.to_string())], at(i));
    }
    let saved = listed.board.take_unsaved(9, FAR).toggles;
    let ids: Vec<_> = saved[0].1.iter().map(|run| run.progress_id.as_str()).collect();
    assert_eq!(ids, ["19", "18", "17", "16", "15", "14", "13", "12", "11"]);
}

#[test]
fn an_agent_that_was_not_saved_is_restored_from_its_saved_run() {
    let mut listed = ListedBoard::remembering();
    let run = listed.begin(&[watch("a", "1")], at(0));
    listed.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    let toggles = listed.board.take_unsaved(9, FAR).toggles.into_iter().collect();
    let mut again = ListedBoard { list: WatchList::default(), board: Board::restored(toggles, []) };
    again.set(&[watch("a", "1")], at(100));
    let mock = again.board.agents(FAR)[0].told.clone();
    assert_eq!((mock.enabled(), mock.enabled_since), (Some(true), Some(at(1))));
}

#[test]
fn the_order_of_runs_with_a_final_first_answer_survives_a_restart() {
    let mut listed = ListedBoard::remembering();
    let begun = listed.set(&[watch("enable", "1"), watch("disable", "1")], at(0)).started;
    listed.board.apply(begun[1].run, Ok(completed(false)), at(1), |_| None).unwrap();
    let mut again = listed.restarted();
    let begun = again.set(&[watch("disable", "1"), watch("enable", "1")], at(9)).started;
    again.board.apply(begun[1].run, Ok(completed(true)), at(10), |_| None).unwrap();
    assert_eq!(again.board.agents(FAR)[0].told.enabled(), Some(false), "it ended before disable did");
}

#[test]
fn changes_are_taken_once_and_again_if_they_could_not_be_saved() {
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
async fn a_waiting_client_is_woken_when_the_run_finishes_is_replaced_or_is_removed() {
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
fn the_events_of_a_toggle_in_trouble_are_restored_after_a_restart() {
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
fn a_run_that_comes_back_has_an_event_with_its_status() {
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
        EventKind::StatusChanged { from: Status::Unknown, to: Status::Failed, duration: None, mismatch: false, text },
        EventKind::RunStarted { progress_id: watch("a", "1").progress_id.clone() },
    ];
    assert_eq!(again.board.events("a").unwrap()[..2], expected.map(|kind| Event { at: at(9), kind }));
}

#[test]
fn events_are_listed_newest_first_over_all_runs_of_a_watch_and_removed_with_it() {
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
    assert_eq!(listed.board.events("a"), Some(expected.map(|(second, kind)| Event { at: at(second), kind }).into()));
    assert_eq!(listed.board.events("b"), Some(vec![]));
    listed.set(&[watch("b", "1")], at(10));
    assert_eq!(listed.board.events("a"), None);
    listed.set(&[watch("a", "2"), watch("b", "1")], at(11));
    assert_eq!(listed.board.events("a"), Some(vec![]), "another watch has that slot");
}

/// Two boards with the same list, of which the first owns everything and the second nothing.
fn owner_and_other(watches: &[Arc<Watch>]) -> [ListedBoard; 2] {
    let (mut owner, mut other) = (ListedBoard::shared(), ListedBoard::shared());
    owner.own(Some(1), at(0));
    owner.set(watches, at(0));
    other.set(watches, at(0));
    [owner, other]
}

fn replicate(from: &ListedBoard, to: &ListedBoard, now: Timestamp) {
    let UnsavedChanges { toggles, agents, .. } = from.board.take_unsaved(usize::MAX, FAR);
    to.board.replicate(toggles, agents, now);
}

#[tokio::test]
async fn a_board_shows_what_the_owner_of_a_watch_saved_and_wakes_those_who_wait() {
    let [owner, other] = owner_and_other(&[watch("a", "1")]);
    let (theirs, ours) =
        (owner.board.state.read().unwrap().run_of("a").unwrap(), other.board.awaited_run("a").unwrap());
    let changed = ours.changed.notified();
    owner.board.apply(theirs, Ok(completed(true)), at(1), |_| None).unwrap();
    replicate(&owner, &other, at(2));
    changed.await;
    let row = other.board.row_of(ours.run).unwrap();
    assert_eq!((row.toggle.run.last_answer.status, row.toggle.tally.completed), (Status::Completed, 1));
    assert_eq!(other.board.events("a"), owner.board.events("a"));
    assert_eq!(other.board.agents(FAR)[0].told, owner.board.agents(FAR)[0].told);
    assert_eq!((other.board.owned_rows().len(), other.board.owned_agents(FAR).len()), (0, 0));
    assert_eq!((owner.board.owned_rows().len(), owner.board.owned_agents(FAR).len()), (1, 1));
}

#[test]
fn a_board_can_be_read_in_any_way_while_it_is_written() {
    let listed = ListedBoard::default();
    let board = &listed.board;
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                board.forget_agent(&ApiName::default_api(), AgentId::parse("1").unwrap(), at(1));
            }
        });
        for _ in 0..20_000 {
            assert_eq!((board.owned_rows().len(), board.owned_agents(FAR).len()), (0, 0));
            assert_eq!((board.rows().len(), board.agents(FAR).len(), board.all_agents(FAR).len()), (0, 0, 0));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_is_not_owned_is_neither_polled_nor_saved() {
    let [_, other] = owner_and_other(&[watch("a", "1")]);
    let run = other.board.awaited_run("a").unwrap().run;
    assert!(other.board.apply(run, Ok(completed(true)), at(1), |_| None).is_none());
    assert_eq!((other.board.row("a").unwrap().next_poll, other.board.is_polled("a")), (None, false));
    assert!(other.board.take_unsaved(9, FAR).is_empty());
}

#[test]
fn a_board_that_gains_a_shard_goes_on_where_the_owner_was() {
    let [owner, mut other] = owner_and_other(&[watch("a", "1"), watch("b", "1")]);
    let run = owner.board.awaited_run("a").unwrap().run;
    owner.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    replicate(&owner, &other, at(2));
    let OwnershipChange { gained_runs, .. } = other.own(Some(2), at(3));
    assert_eq!(gained_runs.iter().map(|run| run.finished).collect::<Vec<_>>(), [true, false]);
    assert_eq!(other.board.row("b").unwrap().next_poll, Some(at(3)));
    let lost = owner.own(None, at(3)).lost_runs;
    assert_eq!(lost.len(), 2);
    assert!(owner.board.apply(lost[1], Ok(completed(true)), at(4), |_| None).is_none());
    // What the former owner saves late changes nothing here.
    other.board.apply(gained_runs[1].run, Ok(completed(true)), at(4), |_| None).unwrap();
    let late = vec![(watch("b", "1").name.clone(), vec![])];
    other.board.replicate(late, vec![], at(5));
    assert_eq!(other.board.row("b").unwrap().toggle.tally.completed, 1);
    assert_eq!(other.set(&[watch("a", "1"), watch("b", "1")], at(6)).started.len(), 0);
}

#[test]
fn a_run_that_is_known_before_the_state_of_the_last_one_goes_on_with_its_counters_and_events() {
    let [owner, mut other] = owner_and_other(&[watch("a", "1")]);
    let run = owner.board.awaited_run("a").unwrap().run;
    owner.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    other.set(&[watch("a", "2")], at(2));
    replicate(&owner, &other, at(3));
    let row = other.board.row("a").unwrap();
    assert_eq!((row.toggle.run.last_answer.status, row.toggle.tally.completed), (Status::Unknown, 1));
    let started = EventKind::RunStarted { progress_id: watch("a", "2").progress_id.clone() };
    let events = [vec![Event { at: at(2), kind: started }], owner.board.events("a").unwrap()].concat();
    assert_eq!(other.board.events("a"), Some(events));
    let OwnershipChange { gained_runs, .. } = other.own(Some(2), at(4));
    other.board.apply(gained_runs[0].run, Ok(completed(true)), at(5), |_| None).unwrap();
    assert_eq!(other.board.row("a").unwrap().toggle.tally.completed, 2);
}

#[test]
fn what_was_not_saved_before_a_shard_was_lost_is_saved_when_it_comes_back_unless_another_replaced_it() {
    for is_replaced in [false, true] {
        let [mut owner, other] = owner_and_other(&[watch("a", "1")]);
        owner.board.take_unsaved(9, FAR);
        let run = owner.board.awaited_run("a").unwrap().run;
        owner.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
        let taken = owner.board.take_unsaved(9, FAR);
        assert_eq!((taken.toggles.len(), taken.finished.len()), (1, 1));
        owner.own(None, at(2));
        owner.board.mark_unsaved(&taken);
        assert!(owner.board.take_unsaved(9, FAR).is_empty());
        if is_replaced {
            other.own(Some(2), at(3));
            replicate(&other, &owner, at(4));
            assert_eq!(owner.board.row("a").unwrap().toggle.run.finished, None);
        }
        owner.own(Some(3), at(5));
        let again = owner.board.take_unsaved(9, FAR);
        assert_eq!(again.toggles.len(), usize::from(!is_replaced));
        assert!(again.finished.is_empty(), "another owner may have counted it");
        owner.set(&[], at(6));
    }
}

#[test]
fn what_is_refused_is_saved_in_the_next_epoch_and_counted_only_if_there_was_no_other_owner() {
    let [owner, _] = owner_and_other(&[watch("a", "1")]);
    let run = owner.board.awaited_run("a").unwrap().run;
    owner.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    let taken = owner.board.take_unsaved(9, FAR);
    assert!(!owner.board.mark_refused(&taken, ShardSet::ALL));
    assert!(owner.board.take_unsaved(9, FAR).is_empty());
    assert!(owner.board.mark_refused(&taken, ShardSet::NONE));
    let again = owner.board.take_unsaved(9, FAR);
    assert_eq!((again.toggles.len(), again.finished.len()), (1, 1));
    owner.own(Some(2), at(2));
    assert!(owner.board.mark_refused(&again, ShardSet::NONE));
    let last = owner.board.take_unsaved(9, FAR);
    assert_eq!((last.toggles.len(), last.finished.len()), (1, 0));
    assert_eq!(last.leases.epoch(Shard::all().next().unwrap()), Some(2));
}

#[test]
fn what_happened_before_anything_was_owned_is_saved_when_it_is() {
    let [_, other] = owner_and_other(&[watch("a", "1")]);
    other.board.own(ShardSet::ALL, at(1));
    let run = other.board.awaited_run("a").unwrap().run;
    other.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    assert!(other.board.take_unsaved(9, FAR).is_empty());
    other.own(Some(1), at(2));
    let taken = other.board.take_unsaved(9, FAR);
    assert_eq!((taken.toggles.len(), taken.finished.len()), (1, 1));
}

#[test]
fn state_that_arrives_before_its_watch_is_kept_for_it() {
    let [owner, mut other] = owner_and_other(&[watch("a", "1")]);
    other.set(&[watch("a", "0")], at(0));
    let run = owner.board.awaited_run("a").unwrap().run;
    owner.board.apply(run, Ok(completed(true)), at(1), |_| None).unwrap();
    replicate(&owner, &other, at(2));
    assert_eq!(other.board.row("a").unwrap().toggle.run.last_answer.status, Status::Unknown);
    other.set(&[watch("a", "1")], at(3));
    assert_eq!(other.board.row("a").unwrap().toggle.run.last_answer.status, Status::Completed);
}
