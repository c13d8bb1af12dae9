//! What happened to each toggle lately. It is kept in memory only: a restart forgets it.

use std::collections::{HashMap, VecDeque};
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

/// The events of all toggles, by their slots.
#[derive(Debug)]
pub(super) struct History {
    /// What they may take, in bytes.
    room: usize,
    slots: Vec<VecDeque<Event>>,
    /// The slot of each event, in the order in which they came. Some are of events that are gone.
    order: VecDeque<u32>,
    /// How many of the first entries in `order` of a slot are of events that are gone.
    gone: HashMap<u32, usize>,
    /// How many events there are.
    events: usize,
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

    /// How many entries of events that are gone are left in `order`, beyond as many as there are events.
    const SLACK: usize = 1024;

    fn with_room(room: usize) -> Self {
        Self { room, slots: Vec::new(), order: VecDeque::new(), gone: HashMap::new(), events: 0, bytes: 0 }
    }

    /// Takes up what a poll changed.
    pub(super) fn note(&mut self, slot: u32, toggle: &Toggle, transitions: &[Transition], at: Timestamp) {
        for what in transitions.iter().filter_map(|transition| What::of(transition, toggle, transitions)) {
            self.record(slot, Event { at, what });
        }
    }

    /// Takes up an event, and drops what there is no room for.
    pub(super) fn record(&mut self, slot: u32, event: Event) {
        let at = slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, VecDeque::new);
        }
        self.bytes += event.size();
        self.events += 1;
        self.order.push_back(slot);
        self.slots[at].push_back(event);
        if self.slots[at].len() > Self::MOST_OF_ONE {
            self.drop_first(slot);
            *self.gone.entry(slot).or_default() += 1;
        }
        while self.bytes > self.room && self.forget_oldest() {}
        if self.order.len() > 2 * self.events + Self::SLACK {
            self.tidy();
        }
    }

    /// Forgets all of a slot.
    pub(super) fn clear(&mut self, slot: u32) {
        let Some(events) = self.slots.get_mut(slot as usize).map(std::mem::take) else { return };
        if !events.is_empty() {
            self.events -= events.len();
            self.bytes -= events.iter().map(Event::size).sum::<usize>();
            *self.gone.entry(slot).or_default() += events.len();
        }
    }

    /// The events of a slot, the newest first.
    pub(super) fn of(&self, slot: u32) -> Vec<Event> {
        self.slots.get(slot as usize).into_iter().flatten().rev().cloned().collect()
    }

    /// Forgets the oldest event of all; says whether there was one.
    fn forget_oldest(&mut self) -> bool {
        while let Some(slot) = self.order.pop_front() {
            match self.gone.get_mut(&slot) {
                Some(1) => drop(self.gone.remove(&slot)),
                Some(gone) => *gone -= 1,
                None => {
                    self.drop_first(slot);
                    return true;
                }
            }
        }
        false
    }

    fn drop_first(&mut self, slot: u32) {
        if let Some(event) = self.slots.get_mut(slot as usize).and_then(VecDeque::pop_front) {
            self.events -= 1;
            self.bytes -= event.size();
        }
    }

    /// Drops the entries of events that are gone.
    fn tidy(&mut self) {
        let mut gone = std::mem::take(&mut self.gone);
        self.order.retain(|slot| match gone.get_mut(slot).filter(|gone| **gone > 0) {
            Some(gone) => {
                *gone -= 1;
                false
            }
            None => true,
        });
    }
}

// === impl Event ===

impl Event {
    /// About what it takes, in bytes. Texts count in full, although runs share them.
    fn size(&self) -> usize {
        let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.as_str().len());
        let more = match &self.what {
            What::Began { progress_id } => progress_id.as_str().len(),
            What::Status { text: of, .. } | What::PollFailed { detail: of, .. } => text(of),
            What::Unrecognised { status } => status.as_str().len(),
            What::Recovered { .. } => 0,
        };
        size_of::<Self>() + size_of::<u32>() + more
    }
}

// === impl What ===

impl What {
    /// What a transition of a toggle is told as; `None` where another one tells it, or it is a repeat.
    fn of(transition: &Transition, toggle: &Toggle, all: &[Transition]) -> Option<Self> {
        let (run, shown) = (&toggle.run, &toggle.run.shown);
        Some(match transition {
            Transition::Status { from, to } => {
                let duration = all.iter().find_map(|transition| match transition {
                    Transition::Finished { duration, .. } => *duration,
                    _ => None,
                });
                let mismatch = toggle.mismatch() == Some(true);
                let text = shown.error.clone().or_else(|| shown.message.clone());
                Self::Status { from: *from, to: *to, duration, mismatch, text }
            }
            Transition::Unrecognised { status, first: true } => Self::Unrecognised { status: status.clone() },
            Transition::PollFailed { changed: true } => {
                let failing = run.failing.as_ref()?;
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
        let kept: Vec<_> = history.of(3).iter().map(|event| event.at).collect();
        assert_eq!(kept, (99_950..100_000).rev().map(at).collect::<Vec<_>>());
        assert!(history.order.len() <= 100 + History::SLACK + 1, "{}", history.order.len());
    }

    #[test]
    fn of_all_toggles_the_oldest_go_when_they_take_too_much() {
        let mut history = History::default();
        for (second, slot) in (0..).zip(0..20_000) {
            history.record(slot, event(second, 1000));
        }
        assert!(history.bytes <= History::MOST_BYTES && history.bytes > History::MOST_BYTES - 2000);
        assert!(history.of(0).is_empty() && history.of(10_000).is_empty());
        assert_eq!(history.of(19_999).len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_a_plain_list_would_keep(
            steps in proptest::collection::vec((0u32..6, 0usize..200, 0u32..20), 1..300)
        ) {
            let (mut history, mut list) = (History::with_room(10_000), Vec::<(u32, Event)>::new());
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
                while list.iter().map(|(_, event)| event.size()).sum::<usize>() > 10_000 {
                    list.remove(0);
                }
            }
            for slot in 0..6 {
                let expected: Vec<_> = list.iter().rev().filter(|(of, _)| *of == slot).map(|(_, event)| event.clone()).collect();
                prop_assert_eq!(history.of(slot), expected);
            }
            history.tidy();
            prop_assert_eq!(history.order.len(), list.len());
            prop_assert_eq!(history.events, list.len());
        }
    }
}
