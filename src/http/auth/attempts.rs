//! Attempts to log in: which is verified next, and who is told.

use std::collections::{HashMap, VecDeque};

use tokio::sync::watch;

use super::credentials::Credentials;
use super::recent::Tag;
use crate::web::{PasswordHash, Users};

/// How many are verified at a time. Each takes a processor for as long as it takes.
pub(super) const MOST_AT_A_TIME: usize = 2;

/// Of so many that are verified, one is the oldest that waits. The others are the newest.
const OLDEST_ONE_IN: usize = 8;

/// What was shown, and what it is to be verified against.
pub(super) struct Attempt {
    pub(super) credentials: Credentials,
    pub(super) hash: PasswordHash,
    /// Whether there is such a user.
    known: bool,
}

/// Where a verdict will be told.
pub(super) type Verdict = watch::Receiver<Option<bool>>;

/// The attempts that wait or are being verified. The same one twice is one.
#[derive(Default)]
pub(super) struct Attempts {
    pending: HashMap<Tag, Pending>,
    /// The newest is the last.
    waiting: VecDeque<Tag>,
    /// How many were the newest since one was the oldest.
    newest_in_a_row: usize,
    /// How many places are taken.
    places: usize,
}

struct Pending {
    told: watch::Sender<Option<bool>>,
    /// `None` while it is being verified.
    waiting: Option<Attempt>,
}

// === impl Attempt ===

impl Attempt {
    pub(super) fn new(credentials: Credentials, users: &Users) -> Self {
        let hash = users.hash_of(credentials.user());
        Self { known: hash.is_some(), hash: hash.unwrap_or(users.decoy()).clone(), credentials }
    }

    /// Whether it is good, after the time that the hash takes.
    pub(super) fn verify(&self) -> bool {
        // Both are looked at, whether there is such a user or not.
        self.hash.matches(self.credentials.password()) & self.known
    }
}

// === impl Attempts ===

impl Attempts {
    /// Takes an attempt, as the newest. True if a place was free for it, which is taken now:
    /// somebody must begin to work there.
    pub(super) fn join(&mut self, tag: Tag, attempt: Attempt) -> (Verdict, bool) {
        if let Some(pending) = self.pending.get(&tag) {
            if pending.waiting.is_some() {
                self.waiting.retain(|waiting| *waiting != tag);
                self.waiting.push_back(tag);
            }
            return (pending.told.subscribe(), false);
        }
        let (told, verdict) = watch::channel(None);
        self.pending.insert(tag, Pending { told, waiting: Some(attempt) });
        self.waiting.push_back(tag);
        let free = self.places < MOST_AT_A_TIME;
        self.places += usize::from(free);
        (verdict, free)
    }

    /// Gives up waiting. If nobody else waits for it and it is not being verified, it is dropped.
    pub(super) fn leave(&mut self, tag: &Tag, verdict: Verdict) {
        drop(verdict);
        let dropped = |pending: &Pending| pending.waiting.is_some() && pending.told.receiver_count() == 0;
        if self.pending.get(tag).is_some_and(dropped) {
            self.pending.remove(tag);
            self.waiting.retain(|waiting| waiting != tag);
        }
    }

    /// What is to be verified next at a place: the newest, so that a good login overtakes a backlog,
    /// but now and then the oldest, so that it is not overtaken for ever where newer ones come, and
    /// go again, faster than any is verified. `None` gives the place back.
    pub(super) fn next(&mut self) -> Option<(Tag, Attempt)> {
        self.newest_in_a_row = (self.newest_in_a_row + 1) % OLDEST_ONE_IN;
        let tag = if self.newest_in_a_row == 0 { self.waiting.pop_front() } else { self.waiting.pop_back() };
        let attempt = |tag| Some((tag, self.pending.get_mut(&tag)?.waiting.take()?));
        let next = tag.and_then(attempt);
        if next.is_none() {
            self.places = self.places.saturating_sub(1);
        }
        next
    }

    /// Tells everybody who waits for it.
    pub(super) fn settle(&mut self, tag: &Tag, good: bool) {
        if let Some(pending) = self.pending.remove(tag) {
            pending.told.send_replace(Some(good));
        }
    }

    /// How many wait to be verified, how many wait for a verdict, and how many places are taken.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let told = self.pending.values().map(|pending| pending.told.receiver_count()).sum();
        (self.waiting.len(), told, self.places)
    }
}
