//! Turns of client addresses: one login of each address is verified at a time, and the newest goes first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::lock;

/// The addresses whose turn is taken, each with the logins that wait for it, the newest last.
///
/// The logins of a flood are older than a valid login that arrives during it, so the valid login goes first.
#[derive(Debug, Default)]
pub(super) struct AddressTurns(Mutex<HashMap<IpAddr, Vec<oneshot::Sender<AddressTurn>>>>);

/// The turn of an address. When it is dropped, the newest login that waits gets it.
#[derive(Debug)]
pub(super) struct AddressTurn {
    turns: Arc<AddressTurns>,
    peer: IpAddr,
}

// === impl AddressTurns ===

impl AddressTurns {
    /// Waits for the turn of an address. Returns it, or `None` if it was lost, which only a bug can cause.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Option<AddressTurn> {
        let turn = {
            let mut taken = lock(&self.0);
            let Some(waiting) = taken.get_mut(&peer) else {
                taken.insert(peer, Vec::new());
                return Some(AddressTurn { turns: self.clone(), peer });
            };
            // Clients that have gone no longer wait.
            waiting.retain(|waiting| !waiting.is_closed());
            let (sender, turn) = oneshot::channel();
            waiting.push(sender);
            turn
        };
        turn.await.ok()
    }

    /// The newest login that still waits. If there is none, the turn is free.
    fn next(&self, peer: IpAddr) -> Option<oneshot::Sender<AddressTurn>> {
        let mut taken = lock(&self.0);
        let waiting = taken.get_mut(&peer)?;
        waiting.retain(|waiting| !waiting.is_closed());
        let newest = waiting.pop();
        if newest.is_none() {
            taken.remove(&peer);
        }
        newest
    }

    /// How many logins of an address have its turn or wait for it.
    #[cfg(test)]
    pub(super) fn count(&self, peer: IpAddr) -> usize {
        let is_open = |waiting: &&oneshot::Sender<AddressTurn>| !waiting.is_closed();
        lock(&self.0).get(&peer).map_or(0, |waiting| 1 + waiting.iter().filter(is_open).count())
    }
}

// === impl AddressTurn ===

impl Drop for AddressTurn {
    fn drop(&mut self) {
        if let Some(next) = self.turns.next(self.peer) {
            // If that client has just gone, dropping its turn gives it to the next one.
            let _ = next.send(Self { turns: self.turns.clone(), peer: self.peer });
        }
    }
}
