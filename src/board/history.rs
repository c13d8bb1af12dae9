//! What happened to each toggle lately. It is kept in memory only: a restart forgets it.

use std::collections::BTreeMap;
use std::mem::size_of;
use std::time::Duration;

use crate::toggle::{ProgressId, Reason, Status, Text, Timestamp, Toggle, Transition};

/// Something that happened to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was seen.
    pub at: Timestamp,
    /// What it was.
    pub what: What,
}

/// What happened to a toggle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Another run is watched from now on.
    Began {
        /// Its task.
        progress_id: ProgressId,
    },
    /// The status is another one.
    Status {
        /// The status before.
        from: Status,
        /// The status now.
        to: Status,
        /// From first watched to seen finished; `None` if it did not finish now, or the first answer
        /// said so.
        duration: Option<Duration>,
        /// Whether it completed in another state than was expected.
        mismatch: bool,
        /// The task's error, or else its message.
        text: Option<Text>,
    },
    /// The status is not a documented one, and the run did not answer so before.
    Unrecognised {
        /// The status as sent.
        status: Text,
    },
    /// A poll failed where the one before did not, or did for another reason.
    PollFailed {
        /// The reason.
        reason: Reason,
        /// What more is known.
        detail: Option<Text>,
    },
    /// Polls succeed again.
    Recovered {
        /// The reason of the last failure.
        reason: Reason,
        /// From the first failure of the row until now.
        lasted: Duration,
    },
}

/// The events of all toggles.
#[derive(Debug)]
pub(super) struct History {
    /// What they may take, in bytes.
    room: usize,
    /// By slot, and in the order in which they came.
    events: BTreeMap<(u32, u64), Event>,
    /// The slot of each, in the order in which they came.
    slots: BTreeMap<u64, u32>,
    /// How many ever came.
    came: u64,
    /// What they take.
    bytes: usize,
}

// === impl History ===

impl Default for History {
    fn default() -> Self {
        Self::with_room(Self::MOST_BYTES)
    }
}

impl History {
    /// How many events of one toggle are kept.
    const MOST_OF_ONE: usize = 50;

    /// What the events of all toggles may take, in bytes. Those go first that are the oldest of all.
    const MOST_BYTES: usize = 8 << 20;

    fn with_room(room: usize) -> Self {
        Self { room, events: BTreeMap::new(), slots: BTreeMap::new(), came: 0, bytes: 0 }
    }

    /// Takes up what a poll changed.
    pub(super) fn note(&mut self, slot: u32, toggle: &Toggle, transitions: &[Transition], at: Timestamp) {
        for what in transitions.iter().filter_map(|transition| What::of(transition, toggle, transitions)) {
            self.record(slot, Event { at, what });
        }
    }

    /// Takes up an event, and drops what there is no room for.
    pub(super) fn record(&mut self, slot: u32, event: Event) {
        self.came += 1;
        self.bytes += event.size();
        self.events.insert((slot, self.came), event);
        self.slots.insert(self.came, slot);
        if self.of(slot).nth(Self::MOST_OF_ONE).is_some() {
            self.drop_first(slot);
        }
        while self.bytes > self.room
            && let Some((_, slot)) = self.slots.first_key_value()
        {
            self.drop_first(*slot);
        }
    }

    /// Changes the time of every event.
    pub(super) fn map_times(&mut self, map: impl Fn(Timestamp) -> Timestamp) {
        for event in self.events.values_mut() {
            event.at = map(event.at);
        }
    }

    /// Forgets all of a slot.
    pub(super) fn clear(&mut self, slot: u32) {
        while self.drop_first(slot) {}
    }

    /// The events of a slot, the newest first.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = &Event> {
        self.events.range((slot, 0)..=(slot, u64::MAX)).rev().map(|(_, event)| event)
    }

    /// Drops the oldest event of a slot; says whether there was one.
    fn drop_first(&mut self, slot: u32) -> bool {
        let first = self.events.range((slot, 0)..=(slot, u64::MAX)).next().map(|(key, _)| *key);
        let Some((key, event)) = first.and_then(|key| self.events.remove_entry(&key)) else { return false };
        self.slots.remove(&key.1);
        self.bytes -= event.size();
        true
    }
}

// === impl Event ===

impl Event {
    /// About what it takes, in bytes. Texts count in full, although runs share them. Nodes of a tree that
    /// is filled in order are a little over half full.
    fn size(&self) -> usize {
        let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.as_str().len());
        let more = match &self.what {
            What::Began { progress_id } => progress_id.as_str().len(),
            What::Status { text: of, .. } | What::PollFailed { detail: of, .. } => text(of),
            What::Unrecognised { status } => status.as_str().len(),
            What::Recovered { .. } => 0,
        };
        2 * size_of::<((u32, u64), Self, u64, u32)>() + more
    }
}

// === impl What ===

impl What {
    /// That the toggle has the status `to` now.
    pub(super) fn status(toggle: &Toggle, from: Status, to: Status, duration: Option<Duration>) -> Self {
        let mut texts = [&toggle.run.shown.error, &toggle.run.shown.message].into_iter().flatten();
        let text = texts.find(|text| !text.as_str().is_empty()).cloned();
        Self::Status { from, to, duration, mismatch: toggle.mismatch() == Some(true), text }
    }

    /// What a transition of a toggle is told as; `None` where another one tells it, or it is a repeat.
    fn of(transition: &Transition, toggle: &Toggle, all: &[Transition]) -> Option<Self> {
        Some(match transition {
            Transition::Status { from, to } => {
                let duration = all.iter().find_map(|transition| match transition {
                    Transition::Finished { duration, .. } => *duration,
                    _ => None,
                });
                Self::status(toggle, *from, *to, duration)
            }
            Transition::Unrecognised { status, first: true } => Self::Unrecognised { status: status.clone() },
            Transition::PollFailed { changed: true } => {
                let failing = toggle.run.failing.as_ref()?;
                Self::PollFailed { reason: failing.reason, detail: failing.detail.clone() }
            }
            Transition::Recovered { reason, lasted } => Self::Recovered { reason: *reason, lasted: *lasted },
            Transition::Finished { .. } | Transition::Unrecognised { .. } | Transition::PollFailed { .. } => {
                return None;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::toggle::sample::at;

    fn event(second: u64, text: usize) -> Event {
        let detail = Some(Text::restore(&"x".repeat(text)));
        Event { at: at(second), what: What::PollFailed { reason: Reason::Dns, detail } }
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<Event>() <= 56, "{}", size_of::<Event>());
    }

    #[test]
    fn of_one_toggle_the_newest_fifty_are_kept_however_many_there_are() {
        let mut history = History::default();
        for second in 0..100_000 {
            history.record(3, event(second, 0));
        }
        let kept: Vec<_> = history.of(3).map(|event| event.at).collect();
        assert_eq!(kept, (99_950..100_000).rev().map(at).collect::<Vec<_>>());
        assert_eq!((history.events.len(), history.slots.len()), (50, 50));
    }

    #[test]
    fn of_all_toggles_the_oldest_go_when_they_take_too_much() {
        let mut history = History::default();
        for (second, slot) in (0..).zip(0..20_000) {
            history.record(slot, event(second, 1000));
        }
        assert!(history.bytes <= History::MOST_BYTES && history.bytes > History::MOST_BYTES - 2000);
        assert!(history.of(0).next().is_none() && history.of(10_000).next().is_none());
        assert_eq!(history.of(19_999).count(), 1);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_a_plain_list_would_keep(
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
                if list.iter().filter(|(of, _)| *of == slot).count() > History::MOST_OF_ONE {
                    let first = list.iter().position(|(of, _)| *of == slot).unwrap();
                    list.remove(first);
                }
                while list.iter().map(|(_, event)| event.size()).sum::<usize>() > 30_000 {
                    list.remove(0);
                }
            }
            for slot in 0..3 {
                let expected: Vec<_> = list.iter().rev().filter(|(of, _)| *of == slot).map(|(_, event)| event).collect();
                prop_assert_eq!(history.of(slot).collect::<Vec<_>>(), expected);
            }
            prop_assert_eq!(history.slots.len(), list.len());
            prop_assert_eq!(history.events.len(), list.len());
            prop_assert_eq!(history.bytes, list.iter().map(|(_, event)| event.size()).sum::<usize>());
        }
    }
}
