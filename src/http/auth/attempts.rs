//! Attempts to log in: which is verified next, and who is told.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use tokio::sync::watch;

use super::credentials::Credentials;
use super::recent::Tag;
use crate::web::{PasswordHash, Users};

/// How many are verified at a time. Each takes a processor for as long as it takes.
pub(super) const MOST_AT_A_TIME: usize = 2;

/// Of so many that are verified, one is the oldest that waits of its peer. The others are the newest.
const OLDEST_ONE_IN: usize = 8;

/// What was shown, and what it is to be verified against.
pub(super) struct Attempt {
    pub(super) credentials: Credentials,
    pub(super) hash: PasswordHash,
    /// Whether there is such a user.
    known: bool,
}

/// Where a verdict will be told.
pub(super) type VerdictReceiver = watch::Receiver<Option<bool>>;

/// The attempts that wait or are being verified. The same one twice is one.
#[derive(Default)]
pub(super) struct Attempts {
    pending: HashMap<Tag, Pending>,
    /// Those of each peer; the newest is the last.
    waiting: HashMap<IpAddr, VecDeque<Tag>>,
    /// The peers that have some waiting; the first is next.
    peers: VecDeque<IpAddr>,
    /// How many were the newest since one was the oldest.
    newest_in_a_row: usize,
    /// How many places are taken.
    places: usize,
}

struct Pending {
    told: watch::Sender<Option<bool>>,
    /// Whose it is, who shows it; `None` while it is being verified.
    waiting: Option<(IpAddr, Attempt)>,
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
    /// Takes an attempt of a peer, as its newest. True if a place was free for it, which is taken now:
    /// somebody must begin to work there.
    pub(super) fn join(&mut self, peer: IpAddr, tag: Tag, attempt: Attempt) -> (VerdictReceiver, bool) {
        if let Some(pending) = self.pending.get_mut(&tag) {
            let verdict = pending.told.subscribe();
            if let Some((of, _)) = &mut pending.waiting {
                let before = std::mem::replace(of, peer);
                self.take_out(before, &tag);
                self.queue(peer, tag);
            }
            return (verdict, false);
        }
        let (told, verdict) = watch::channel(None);
        self.pending.insert(tag, Pending { told, waiting: Some((peer, attempt)) });
        self.queue(peer, tag);
        let free = self.places < MOST_AT_A_TIME;
        self.places += usize::from(free);
        (verdict, free)
    }

    /// Gives up waiting. If nobody else waits for it and it is not being verified, it is dropped.
    pub(super) fn leave(&mut self, tag: &Tag, verdict: VerdictReceiver) {
        drop(verdict);
        let Some(pending) = self.pending.get(tag).filter(|pending| pending.told.receiver_count() == 0) else { return };
        if let Some((peer, _)) = pending.waiting {
            self.pending.remove(tag);
            self.take_out(peer, tag);
        }
    }

    /// What is to be verified next at a place. Peers take turns, so that the flood of one holds up no
    /// other. Of a peer it is the newest, so that a good login overtakes a backlog, but now and then
    /// the oldest, so that it is not overtaken for ever where newer ones come, and go again, faster
    /// than any is verified. `None` gives the place back.
    pub(super) fn next(&mut self) -> Option<(Tag, Attempt)> {
        let next = self.next_of_next_peer();
        if next.is_none() {
            self.places = self.places.saturating_sub(1);
        }
        next
    }

    fn next_of_next_peer(&mut self) -> Option<(Tag, Attempt)> {
        let peer = *self.peers.front()?;
        let waiting = self.waiting.get(&peer)?;
        self.newest_in_a_row = (self.newest_in_a_row + 1) % OLDEST_ONE_IN;
        let tag = *if self.newest_in_a_row == 0 { waiting.front() } else { waiting.back() }?;
        self.take_out(peer, &tag);
        if self.waiting.contains_key(&peer) {
            self.peers.rotate_left(1);
        }
        let (_, attempt) = self.pending.get_mut(&tag)?.waiting.take()?;
        Some((tag, attempt))
    }

    fn queue(&mut self, peer: IpAddr, tag: Tag) {
        let waiting = self.waiting.entry(peer).or_default();
        if waiting.is_empty() {
            self.peers.push_back(peer);
        }
        waiting.push_back(tag);
    }

    fn take_out(&mut self, peer: IpAddr, tag: &Tag) {
        let Some(waiting) = self.waiting.get_mut(&peer) else { return };
        waiting.retain(|waiting| waiting != tag);
        if waiting.is_empty() {
            self.waiting.remove(&peer);
            self.peers.retain(|other| *other != peer);
        }
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
        (self.waiting.values().map(VecDeque::len).sum(), told, self.places)
    }
}
