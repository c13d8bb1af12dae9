//! What polls and definitions change of a toggle.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::toggle::Expect;
use crate::toggle::sample::{self, answer, at};

fn watch(progress_id: &str, expect: Option<Expect>) -> Arc<Watch> {
    Arc::new(Watch { expect, ..sample::watch("w", progress_id) })
}

fn toggle(expect: Option<Expect>) -> Toggle {
    Toggle::new(watch("a", expect), at(0))
}

fn failure(reason: Reason) -> Outcome {
    Err(Failure::new(reason))
}

#[test]
fn a_run_that_was_seen_in_progress_finishes_with_its_duration() {
    let mut toggle = toggle(None);
    let first = toggle.apply(Ok(answer(ReportedStatus::InProgress, None)), at(1));
    assert_eq!(first, [Transition::StatusChanged { from: Status::Unknown, to: Status::InProgress }]);
    let last = toggle.apply(Ok(answer(ReportedStatus::Failed, None)), at(9));
    assert_eq!(
        last,
        [
            Transition::StatusChanged { from: Status::InProgress, to: Status::Failed },
            Transition::Finished { status: Status::Failed, duration: Some(Duration::from_secs(9)), mismatch: false },
        ]
    );
    assert_eq!((toggle.tally.completed, toggle.tally.failed), (0, 1));
    assert_eq!(toggle.tally.last_failed, Some(at(9)));
}

#[test]
fn a_problem_lasts_until_a_run_ends_well_whatever_a_retry_does() {
    let failed = |expect| Some(ToggleProblem { kind: ProblemKind::Failed, expect });
    let mismatch = |expect| Some(ToggleProblem { kind: ProblemKind::Mismatch, expect: Some(expect) });
    let mut toggle = toggle(None);
    let mut run = |id: &str, expect, outcomes: &[Outcome], second| {
        toggle.redefine(watch(id, expect), at(second));
        for outcome in outcomes {
            toggle.apply(outcome.clone(), at(second));
        }
        (toggle.tally.problem, toggle.tally.last_mismatched)
    };
    let says = |status, mock_enabled| Ok(answer(status, mock_enabled));
    let (on, off) = (Some(Expect::Enabled), Some(Expect::Disabled));
    assert_eq!(run("1", on, &[says(ReportedStatus::Failed, None)], 1), (failed(on), None));
    // Retries that hang, are not answered, or have a status that nobody knows.
    assert_eq!(run("2", on, &[says(ReportedStatus::InProgress, Some(true))], 2), (failed(on), None));
    assert_eq!(run("3", off, &[failure(Reason::NotFound)], 3), (failed(on), None));
    assert_eq!(run("4", None, &[says(ReportedStatus::Unrecognised(Text::own("paused")), None)], 4), (failed(on), None));
    let wrong = (mismatch(Expect::Disabled), Some(at(5)));
    assert_eq!(run("5", off, &[says(ReportedStatus::Completed, Some(true))], 5), wrong);
    assert_eq!(run("6", None, &[], 6), wrong);
    assert_eq!(run("7", None, &[says(ReportedStatus::Failed, None)], 7), (failed(None), Some(at(5))));
    assert_eq!(run("8", None, &[says(ReportedStatus::Completed, None)], 8), (None, Some(at(5))));
    let null = (mismatch(Expect::Enabled), Some(at(9)));
    assert_eq!(run("9", on, &[says(ReportedStatus::Completed, None)], 9), null);
    assert_eq!(run("10", on, &[says(ReportedStatus::Completed, Some(true))], 10), (None, Some(at(9))));
}

#[test]
fn a_recheck_and_another_expectation_update_the_problem() {
    let mut toggle = toggle(Some(Expect::Enabled));
    let kind = |toggle: &Toggle| toggle.tally.problem.map(|problem| problem.kind);
    toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(1));
    assert_eq!(kind(&toggle), None);
    toggle.apply(Ok(answer(ReportedStatus::Completed, Some(false))), at(2));
    assert_eq!(kind(&toggle), Some(ProblemKind::Mismatch));
    toggle.redefine(watch("a", Some(Expect::Disabled)), at(3));
    assert_eq!(kind(&toggle), None);
    toggle.redefine(watch("a", Some(Expect::Enabled)), at(4));
    assert_eq!((kind(&toggle), toggle.tally.last_mismatched), (Some(ProblemKind::Mismatch), Some(at(4))));
    toggle.apply(failure(Reason::Timeout), at(5));
    assert_eq!(kind(&toggle), Some(ProblemKind::Mismatch));
}

#[test]
fn the_last_finish_has_the_later_time_even_if_the_clock_goes_back() {
    let mut toggle = toggle(None);
    let order = |toggle: &Toggle| toggle.tally.last_completed.cmp(&toggle.tally.last_failed);
    toggle.apply(Ok(answer(ReportedStatus::Completed, None)), at(3600));
    for (second, reported, expected) in [
        (3600, ReportedStatus::Failed, Ordering::Less),
        (10, ReportedStatus::Completed, Ordering::Greater),
        (0, ReportedStatus::Failed, Ordering::Less),
    ] {
        toggle.redefine(watch(&format!("{second}{reported:?}"), None), at(second));
        toggle.apply(Ok(answer(reported, None)), at(second));
        assert_eq!(order(&toggle), expected, "{second}");
    }
}

#[test]
fn a_run_whose_first_answer_is_final_has_no_duration() {
    let mut toggle = toggle(None);
    toggle.apply(failure(Reason::Timeout), at(1));
    let transitions = toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(9));
    let finished = Transition::Finished { status: Status::Completed, duration: None, mismatch: false };
    assert!(transitions.contains(&finished), "{transitions:?}");
}

#[test]
fn a_failed_poll_changes_only_up_the_failure_streak_and_the_counters() {
    let mut toggle = toggle(Some(Expect::Enabled));
    toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(1));
    let before = toggle.clone();
    assert_eq!(toggle.apply(failure(Reason::BadRequest), at(2)), [Transition::PollFailed { changed: true }]);
    assert_eq!(toggle.apply(failure(Reason::BadRequest), at(3)), [Transition::PollFailed { changed: false }]);
    assert_eq!(toggle.apply(failure(Reason::Dns), at(4)), [Transition::PollFailed { changed: true }]);
    assert_eq!(toggle.run.last_answer, before.run.last_answer);
    assert_eq!(toggle.run.finished, before.run.finished);
    assert_eq!(toggle.run.last_success, Some(at(1)));
    assert_eq!((toggle.run.up(), toggle.tally.polls, toggle.tally.failures), (Some(false), 4, 3));
    let recovered = toggle.apply(Ok(answer(ReportedStatus::Completed, Some(true))), at(7));
    assert_eq!(recovered, [Transition::Recovered { reason: Reason::Dns, lasted: Duration::from_secs(5) }]);
    assert_eq!(toggle.run.up(), Some(true));
}

#[test]
fn a_run_that_completes_in_another_state_than_expected_or_null_is_a_mismatch() {
    for (expect, mock_enabled, mismatch) in [
        (Some(Expect::Enabled), Some(true), Some(false)),
        (Some(Expect::Enabled), Some(false), Some(true)),
        (Some(Expect::Enabled), None, Some(true)),
        (Some(Expect::Disabled), Some(false), Some(false)),
        (Some(Expect::Disabled), Some(true), Some(true)),
        (None, Some(true), None),
    ] {
        let mut toggle = toggle(expect);
        assert_eq!(toggle.mismatch(), expect.map(|_| false));
        toggle.apply(Ok(answer(ReportedStatus::Completed, mock_enabled)), at(1));
        assert_eq!(toggle.mismatch(), mismatch, "{expect:?} {mock_enabled:?}");
    }
}

#[test]
fn a_failed_run_is_not_a_mismatch() {
    let mut toggle = toggle(Some(Expect::Enabled));
    toggle.apply(Ok(answer(ReportedStatus::Failed, Some(false))), at(1));
    assert_eq!(toggle.mismatch(), Some(false));
}

#[test]
fn an_unrecognised_status_is_unknown_and_reported_once_per_value() {
    let mut toggle = toggle(None);
    let paused = || Ok(answer(ReportedStatus::Unrecognised(Text::own("paused")), None));
    let first = |transitions: &[Transition]| {
        transitions.iter().any(|t| matches!(t, Transition::UnrecognisedStatus { first: true, .. }))
    };
    assert!(first(&toggle.apply(paused(), at(1))));
    assert!(!first(&toggle.apply(paused(), at(2))));
    assert_eq!(toggle.run.last_answer.status, Status::Unknown);
    assert_eq!(toggle.run.raw_status(), Some(&Text::own("paused")));
    assert_eq!(toggle.run.up(), Some(true));
}

#[test]
fn a_queued_run_is_in_progress_and_has_a_raw_status() {
    let mut toggle = toggle(None);
    toggle.apply(Ok(answer(ReportedStatus::Queued, None)), at(1));
    assert_eq!(toggle.run.last_answer.status, Status::InProgress);
    assert_eq!(toggle.run.raw_status(), Some(&Text::own("queued")));
    assert!(toggle.apply(Ok(answer(ReportedStatus::InProgress, None)), at(2)).is_empty());
    assert_eq!(toggle.run.raw_status(), None);
}

#[test]
fn only_a_new_run_resets_everything_except_the_tally() {
    let mut toggle = toggle(None);
    toggle.apply(Ok(answer(ReportedStatus::Failed, None)), at(1));
    assert!(!toggle.redefine(watch("a", Some(Expect::Enabled)), at(2)));
    let tally = toggle.tally.clone();
    assert_eq!((tally.polls, tally.failed, tally.last_failed), (1, 1, Some(at(1))));
    assert_eq!((toggle.run.last_answer.status, toggle.run.started), (Status::Failed, at(0)));
    assert!(toggle.redefine(watch("b", Some(Expect::Enabled)), at(3)));
    assert_eq!((toggle.run.last_answer.status, toggle.run.started), (Status::Unknown, at(3)));
    assert_eq!((toggle.run.up(), toggle.run.finished), (None, None));
    assert_eq!(toggle.tally, tally);
}

#[test]
fn a_recheck_that_finds_a_completed_run_failed_sets_last_failed_but_counts_no_second_finish() {
    let mut toggle = toggle(None);
    toggle.apply(Ok(answer(ReportedStatus::Completed, None)), at(1));
    toggle.apply(Ok(answer(ReportedStatus::Failed, None)), at(2));
    assert_eq!((toggle.tally.completed, toggle.tally.failed), (1, 0));
    assert_eq!((toggle.tally.last_completed, toggle.tally.last_failed), (Some(at(1)), Some(at(2))));
    assert_eq!(toggle.run.finished.map(|finish| finish.at), Some(at(1)));
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let status = prop_oneof![
        Just(ReportedStatus::InProgress),
        Just(ReportedStatus::Completed),
        Just(ReportedStatus::Failed),
        Just(ReportedStatus::Queued),
        "[a-z]{1,3}".prop_map(|s| ReportedStatus::Unrecognised(Text::own(&s))),
    ];
    let good = (status, any::<Option<bool>>(), proptest::option::of(0..5u32))
        .prop_map(|(status, mock_enabled, mcp_endpoints)| Ok(Answer { mcp_endpoints, ..answer(status, mock_enabled) }));
    let bad = proptest::sample::select(&Reason::ALL[..]).prop_map(failure);
    prop_oneof![3 => good, 1 => bad]
}

proptest! {
    #[test]
    fn after_any_outcomes_the_counters_add_up_and_the_run_finished_at_most_once(
        outcomes in proptest::collection::vec(any_outcome(), 0..40)
    ) {
        let mut toggle = toggle(Some(Expect::Enabled));
        let (mut finishes, mut answers, mut endpoints) = (0, 0, None);
        for (second, outcome) in (1..).zip(outcomes.iter().cloned()) {
            let (before, failed) = (toggle.clone(), outcome.is_err());
            if let Ok(answer) = &outcome {
                answers += 1;
                endpoints = answer.mcp_endpoints.or(endpoints);
            }
            let transitions = toggle.apply(outcome, at(second));
            finishes += transitions.iter().filter(|t| matches!(t, Transition::Finished { .. })).count() as u64;
            prop_assert_eq!(toggle.run.up(), Some(!failed));
            if failed {
                prop_assert_eq!(&toggle.run.last_answer, &before.run.last_answer);
                prop_assert_eq!(toggle.run.last_success, before.run.last_success);
            }
            if before.run.finished.is_some() {
                prop_assert_eq!(toggle.run.finished, before.run.finished);
            }
            let changed = toggle.run.last_answer.status != before.run.last_answer.status;
            prop_assert_eq!(changed, transitions.iter().any(|t| matches!(t, Transition::StatusChanged { .. })));
        }
        let tally = &toggle.tally;
        prop_assert_eq!(tally.polls, outcomes.len() as u64);
        prop_assert_eq!(tally.failures, tally.polls - answers);
        prop_assert_eq!(u64::from(tally.completed + tally.failed), finishes);
        prop_assert!(finishes <= 1);
        prop_assert_eq!(toggle.run.finished.is_some(), finishes == 1);
        prop_assert_eq!(toggle.run.last_answer.mcp_endpoints, endpoints);
    }
}
