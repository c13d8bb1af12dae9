//! Logins that are remembered, without anything that could be used to log in.

use std::collections::{HashSet, VecDeque};
use std::io;

use ring::hmac;
use ring::rand::SystemRandom;

use super::attempts::Attempt;

/// What tells an attempt from others. It is made from user, password and hash, so an attempt after
/// the hash was changed is another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag([u8; 32]);

/// Makes tags. Nobody else can: its key is of this process.
pub(super) struct TagKey(hmac::Key);

/// The latest of some tags.
pub(super) struct Recent {
    most: usize,
    tags: HashSet<Tag>,
    /// The oldest first.
    order: VecDeque<Tag>,
}

// === impl TagKey ===

impl TagKey {
    /// # Errors
    /// If the machine gives no random bytes.
    pub(super) fn random() -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        key.map(Self).map_err(|_| io::Error::other("the machine gives no random bytes"))
    }

    pub(super) fn tag(&self, attempt: &Attempt) -> Tag {
        let Attempt { credentials, hash, .. } = attempt;
        let mut context = hmac::Context::with_key(&self.0);
        // With its length before the name and a hash of fixed length behind it, no two attempts
        // are the same bytes.
        context.update(&credentials.user().len().to_le_bytes());
        context.update(credentials.user());
        context.update(credentials.password());
        context.update(hash.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        Tag(tag)
    }
}

// === impl Recent ===

impl Recent {
    /// The latest `most`.
    pub(super) fn of(most: usize) -> Self {
        Self { most, tags: HashSet::new(), order: VecDeque::new() }
    }

    pub(super) fn has(&self, tag: &Tag) -> bool {
        self.tags.contains(tag)
    }

    /// Remembers it in place of the oldest, when there are enough.
    pub(super) fn remember(&mut self, tag: Tag) {
        if !self.tags.insert(tag) {
            return;
        }
        self.order.push_back(tag);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.tags.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_when_there_are_enough() {
        let mut recent = Recent::of(2);
        let tag = |n| Tag([n; 32]);
        for n in [1, 2, 2, 1, 3] {
            recent.remember(tag(n));
        }
        assert_eq!([1, 2, 3].map(|n| recent.has(&tag(n))), [false, true, true]);
        assert_eq!((recent.tags.len(), recent.order.len()), (2, 2));
    }
}
