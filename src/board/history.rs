//! The latest events of each toggle.

use std::collections::BTreeMap;
use std::mem::size_of;

use crate::toggle::{Event, EventKind, Text, Timestamp, Toggle, Transition};

/// The latest events of all toggles, within a limit of memory.
#[derive(Debug)]
pub(super) struct History {
    /// The limit of memory, in bytes.
    room: usize,
    /// By slot and number.
    events: BTreeMap<(u32, u64), Event>,
    /// The slot of each event, by number.
    slots: BTreeMap<u64, u32>,
    /// The number of the last event.
    last: u64,
    /// How much memory the events take, in bytes.
    bytes: usize,
}

// === impl History ===

impl Default for History {
    fn default() -> Self {
        Self::with_room(Self::MAX_BYTES)
    }
}

impl History {
    /// The most events of one toggle that are kept.
    const MAX_PER_TOGGLE: usize = 50;

    /// The memory limit for the events of all toggles, in bytes. Beyond it, the oldest events are dropped.
    const MAX_BYTES: usize = 8 << 20;

    fn with_room(room: usize) -> Self {
        Self { room, events: BTreeMap::new(), slots: BTreeMap::new(), last: 0, bytes: 0 }
    }

    /// Records the transitions that a poll caused.
    pub(super) fn record_transitions(&mut self, slot: u32, toggle: &Toggle, transitions: &[Transition], at: Timestamp) {
        for kind in transitions.iter().filter_map(|transition| EventKind::of(transition, toggle, transitions)) {
            self.record(slot, Event { at, kind });
        }
    }

    /// Records an event, and drops the oldest ones that exceed a limit.
    pub(super) fn record(&mut self, slot: u32, event: Event) {
        self.last += 1;
        self.bytes += size(&event);
        self.events.insert((slot, self.last), event);
        self.slots.insert(self.last, slot);
        if self.of(slot).nth(Self::MAX_PER_TOGGLE).is_some() {
            self.drop_first(slot);
        }
        while self.bytes > self.room
            && let Some((_, slot)) = self.slots.first_key_value()
        {
            self.drop_first(*slot);
        }
    }

    /// Applies `map` to the time of every event.
    pub(super) fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        for event in self.events.values_mut() {
            event.at = map(event.at);
        }
    }

    /// Records the saved events of an empty slot, which are given newest first.
    pub(super) fn restore(&mut self, slot: u32, events: Vec<Event>) {
        events.into_iter().rev().for_each(|event| self.record(slot, event));
    }

    /// Drops all events of a slot.
    pub(super) fn clear(&mut self, slot: u32) {
        while self.drop_first(slot) {}
    }

    /// The events of a slot, the newest first.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = &Event> {
        self.events.range((slot, 0)..=(slot, u64::MAX)).rev().map(|(_, event)| event)
    }

    /// Drops the oldest event of a slot. Returns whether there was one.
    fn drop_first(&mut self, slot: u32) -> bool {
        let first = self.events.range((slot, 0)..=(slot, u64::MAX)).next().map(|(key, _)| *key);
        let Some((key, event)) = first.and_then(|key| self.events.remove_entry(&key)) else { return false };
        self.slots.remove(&key.1);
        self.bytes -= size(&event);
        true
    }
}

/// About how much memory an event takes, in bytes. Texts count in full, although runs share them. The rest counts
/// twice, because the nodes of a tree that is filled in order are little more than half full.
fn size(event: &Event) -> usize {
    let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.as_str().len());
    let more = match &event.kind {
        EventKind::RunStarted { progress_id } => progress_id.as_str().len(),
        EventKind::StatusChanged { text: of, .. } | EventKind::PollFailed { detail: of, .. } => text(of),
        EventKind::UnrecognisedStatus { status } => status.as_str().len(),
        EventKind::Recovered { .. } => 0,
    };
    2 * size_of::<((u32, u64), Event, u64, u32)>() + more
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::toggle::Reason;
    use crate::toggle::sample::at;

    fn event(second: u64, text: usize) -> Event {
        let detail = Some(Text::restore(&"x".repeat(text)));
        Event { at: at(second), kind: EventKind::PollFailed { reason: Reason::Dns, detail } }
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<Event>() <= 56, "{}", size_of::<Event>());
    }

    #[test]
    fn the_newest_fifty_events_of_a_toggle_are_kept() {
        let mut history = History::default();
        for second in 0..100_000 {
            history.record(3, event(second, 0));
        }
        let kept: Vec<_> = history.of(3).map(|event| event.at).collect();
        assert_eq!(kept, (99_950..100_000).rev().map(at).collect::<Vec<_>>());
        assert_eq!((history.events.len(), history.slots.len()), (50, 50));
    }

    #[test]
    fn the_oldest_events_of_all_toggles_are_dropped_at_the_limit_of_memory() {
        let mut history = History::default();
        for (second, slot) in (0..).zip(0..20_000) {
            history.record(slot, event(second, 1000));
        }
        assert!(history.bytes <= History::MAX_BYTES && history.bytes > History::MAX_BYTES - 2000);
        assert!(history.of(0).next().is_none() && history.of(10_000).next().is_none());
        assert_eq!(history.of(19_999).count(), 1);
    }

    proptest! {
        #[test]
        fn the_kept_events_are_those_that_a_plain_list_would_keep(
            steps in proptest::collection::vec((0u32..3, 0usize..200, 0u32..40), 1..400)
        ) {
            let (mut history, mut list) = (History::with_room(30_000), Vec::<(u32, Event)>::new());
            for (second, (slot, text, clear)) in (0..).zip(steps) {
                if clear == 0 {
                    history.clear(slot);
                    list.retain(|(of, _)| *of != slot);
                    continue;
                }
                history.record(slot, event(second, text));
                list.push((slot, event(second, text)));
                if list.iter().filter(|(of, _)| *of == slot).count() > History::MAX_PER_TOGGLE {
                    let first = list.iter().position(|(of, _)| *of == slot).unwrap();
                    list.remove(first);
                }
                while list.iter().map(|(_, event)| size(event)).sum::<usize>() > 30_000 {
                    list.remove(0);
                }
            }
            for slot in 0..3 {
                let expected: Vec<_> = list.iter().rev().filter(|(of, _)| *of == slot).map(|(_, event)| event).collect();
                prop_assert_eq!(history.of(slot).collect::<Vec<_>>(), expected);
            }
            prop_assert_eq!(history.slots.len(), list.len());
            prop_assert_eq!(history.events.len(), list.len());
            prop_assert_eq!(history.bytes, list.iter().map(|(_, event)| size(event)).sum::<usize>());
        }
    }
}
