//! Answers to readers who ask the machine.

use super::Driver;
use crate::view::Query;

impl Driver {
    pub(super) fn on_query(&mut self, query: Query) {
        // The sender of the query may have gone. Then the answer is dropped.
        match query {
            Query::Pending(id, reply) => drop(reply.send(self.machine.mempool().find(&id))),
            Query::PendingNonce(account, reply) => {
                let _ = reply.send(self.machine.pending_nonce(&account));
            }
            Query::Mempool(limit, reply) => drop(reply.send(self.machine.mempool().best(limit))),
            Query::PeerHeights(reply) => {
                let heights = self.machine.peer_heights();
                let named = heights.iter().filter_map(|(peer, height)| {
                    Some((self.peers.id(*peer)?.to_string(), *height))
                });
                drop(reply.send(named.collect()));
            }
        }
    }
}
