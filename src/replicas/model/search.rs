//! All orders of steps for few replicas, and random ones for more.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Mistake, ModelState, Scope, Step};

/// Of how many states of a search one is checked for whether all goes well from there.
const SETTLED: usize = 40;

/// A broken promise, and the steps that lead to it.
#[derive(Debug)]
#[allow(dead_code, reason = "it is printed when a test fails")]
struct Violation {
    promise: String,
    steps: Vec<Step>,
}

/// Tries all orders of steps. Returns how many states there are.
fn search<const S: usize>(scope: Scope) -> Result<usize, Violation> {
    let start = ModelState::<S>::new(scope);
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut visited: HashSet<u64> = [hasher.hash_one(&start)].into();
    // From which state each one was reached, and by which step.
    let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut next = VecDeque::from([(0, start)]);
    while let Some((at, state)) = next.pop_front() {
        let violation = |promise: String, last: Option<Step>, ways: &[(usize, Option<Step>)]| {
            let before = std::iter::successors(Some(ways[at]), |(before, step)| step.map(|_| ways[*before]));
            let mut steps: Vec<_> = last.into_iter().chain(before.filter_map(|(_, step)| step)).collect();
            steps.reverse();
            Violation { promise, steps }
        };
        if at.is_multiple_of(SETTLED) {
            state.clone().settle(scope).map_err(|promise| violation(promise, None, &ways))?;
        }
        for step in state.steps(scope) {
            let mut after = state.clone();
            after.take(step, scope).map_err(|promise| violation(promise, Some(step), &ways))?;
            if visited.insert(hasher.hash_one(&after)) {
                ways.push((at, Some(step)));
                next.push_back((ways.len() - 1, after));
            }
        }
    }
    Ok(ways.len())
}

/// Takes steps in an order that these numbers choose. One of eight goes wrong, if any can.
fn walk<const S: usize>(scope: Scope, choices: &[u8]) -> Result<(), Violation> {
    let mut state = ModelState::<S>::new(scope);
    let mut steps = Vec::new();
    for choice in choices {
        let goes_wrong = choice % 8 == 0;
        let (wrong, right): (Vec<_>, Vec<_>) = state.steps(scope).into_iter().partition(|step| step.goes_wrong());
        let possible = if wrong.is_empty() || !goes_wrong && !right.is_empty() { right } else { wrong };
        let Some(step) = possible.get(usize::from(choice / 8) % possible.len().max(1)) else { break };
        steps.push(*step);
        state.take(*step, scope).map_err(|promise| Violation { promise, steps: steps.clone() })?;
    }
    state.settle(scope).map_err(|promise| Violation { promise, steps })
}

#[test]
fn no_order_of_steps_of_two_replicas_breaks_a_promise() {
    let scope = Scope { replicas: 2, joined: 1, is_coarse: true, faults: 1, news: 1, mistake: None };
    let states = search::<1>(scope).unwrap();
    assert!(states > 15_000, "{states}");
    let states = search::<1>(Scope { joined: 0, news: 0, ..scope }).unwrap();
    assert!(states > 1_000, "{states}");
}

#[test]
fn with_each_mistake_some_order_of_steps_breaks_a_promise() {
    for (mistake, joined, news, promise) in [
        (Mistake::ClaimsWithoutCondition, 0, 0, "which it does not own any more"),
        (Mistake::KeepsEpoch, 1, 0, "which it does not own any more"),
        (Mistake::SavesWithoutFence, 1, 0, "which it does not own any more"),
        (Mistake::FencesWhenSent, 1, 0, "which it does not own any more"),
        (Mistake::OwnsBeforeReading, 1, 0, "is counted twice"),
        (Mistake::SavesLate, 1, 1, "overwrites the saved finish"),
        (Mistake::CountsBeforeSaving, 1, 0, "is counted twice"),
        (Mistake::CountsWhatWasLost, 1, 0, "is counted twice"),
        (Mistake::DropsUnsaved, 1, 0, "the finish in shard 0"),
        (Mistake::BelievesOldOwners, 1, 0, "which it handed over"),
    ] {
        let scope = Scope { replicas: 2, joined, is_coarse: true, faults: 1, news, mistake: Some(mistake) };
        let violation = search::<1>(scope).expect_err("the mistake must be found");
        assert!(violation.promise.contains(promise), "{mistake:?}: {violation:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_random_order_of_steps_of_three_replicas_breaks_a_promise(choices in vec(any::<u8>(), 0..150)) {
        let scope = Scope { replicas: 3, joined: 2, is_coarse: false, faults: u8::MAX, news: u8::MAX, mistake: None };
        prop_assert!(walk::<2>(scope, &choices).is_ok(), "{:?}", walk::<2>(scope, &choices));
    }
}
