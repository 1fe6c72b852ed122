//! Requests of this node and what is done with the answers, and the answers to requests of peers.

use std::time::Duration;

use ledger::codec;

use super::{Effect, Machine};
use crate::budget::Cost;
use crate::ids::{PeerId, RequestId, Ticket};
use crate::message::{
    GENESIS_PIECE_BYTES, REQUEST_BYTES_MAX, REQUESTED_TRANSACTIONS_MAX, RESPONSE_BYTES_MAX,
    Request, Response,
};
use crate::offence::Offence;

/// Purpose of a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// For the peer's tip and clock, and when it was asked.
    Tip(PeerId, Duration),
    /// For the list or the transactions of a proposed block.
    Body,
}

impl Machine {
    pub(super) fn ask(&mut self, peer: PeerId, request: &Request, asked: Asked) -> RequestId {
        let id = self.turn.request(peer, request);
        self.peers.requests.insert(id, asked);
        id
    }

    pub(super) fn on_request(&mut self, from: PeerId, ticket: Ticket, bytes: &[u8]) {
        let request = match codec::decode::<Request>(bytes, REQUEST_BYTES_MAX) {
            Ok(request) => request,
            Err(error) => return self.ban(from, Offence::Request(error)),
        };
        let response = match request {
            Request::Tip(theirs) => {
                if let Some(certified) = theirs
                    && !self.on_tip(from, &certified)
                {
                    return self.ban(from, Offence::Tip);
                }
                Response::Tip { now: self.turn.now.wall.0, head: self.certified_header() }
            }
            Request::Genesis(piece) => Response::Genesis(self.genesis_piece(piece)),
            Request::Blocks(height) => {
                return self.turn.push(Effect::RespondBlocks(ticket, height));
            }
            Request::Eras(said) => {
                return self.turn.push(Effect::RespondEras { ticket, from, said });
            }
            Request::Chunk(segment, chunk) => {
                return self.turn.push(Effect::RespondChunk { ticket, segment, chunk });
            }
            Request::Flood(message) => {
                return self.turn.push(Effect::RespondFlood { ticket, from, message });
            }
            Request::Proposed(_, block) => Response::Proposed(self.bodies.compact(&block)),
            Request::Transactions(hashes) => {
                if hashes.len() > REQUESTED_TRANSACTIONS_MAX {
                    return self.ban(from, Offence::TransactionsAsked { count: hashes.len() });
                }
                self.turn.charge(Cost::look_ups(hashes.len() as u64, 0));
                let known = hashes.iter().filter_map(|hash| self.transaction(hash));
                Response::Transactions(
                    known.map(|transaction| transaction.transaction().clone()).collect(),
                )
            }
        };
        self.turn.push(Effect::Respond(ticket, codec::encode(&response)));
    }

    pub(super) fn on_response(&mut self, id: RequestId, from: PeerId, bytes: Option<Vec<u8>>) {
        let response =
            match bytes.map(|bytes| codec::decode::<Response>(&bytes, RESPONSE_BYTES_MAX)) {
                None => None,
                Some(Ok(response)) => Some(response),
                Some(Err(error)) => {
                    self.ban(from, Offence::Response(error));
                    None
                }
            };
        match self.peers.requests.remove(&id) {
            Some(Asked::Tip(_, asked_at)) => {
                let Some(Response::Tip { now, head }) = response else { return };
                self.on_peer_clock(from, now, asked_at);
                if let Some(certified) = head
                    && !self.on_tip(from, &certified)
                {
                    self.ban(from, Offence::Tip);
                }
            }
            Some(Asked::Body) => {
                let Some(block) = self.bodies.answered(id) else { return };
                match response {
                    Some(Response::Proposed(Some(list))) => {
                        match self.bodies.check_list(&self.chain.state, block, &list) {
                            Ok(()) => {
                                self.bodies.on_gave(&block, from);
                                self.bodies.on_list(&block, list, from, &self.transactions.mempool);
                            }
                            Err(offence) => self.ban(from, offence),
                        }
                    }
                    Some(Response::Transactions(transactions)) => {
                        self.bodies.on_transactions(&self.chain.state, &block, transactions, from);
                    }
                    // The peer does not have the block, or the request failed. The next peer is
                    // asked.
                    _ => {}
                }
            }
            None => {
                let blocks = match response {
                    Some(Response::Blocks(blocks, certificate)) => Some((blocks, certificate)),
                    _ => None,
                };
                if let Some(Err(error)) = self.catchup.on_blocks(id, blocks, self.turn.now.elapsed)
                {
                    self.on_catchup_error(error);
                }
            }
        }
    }

    fn genesis_piece(&mut self, piece: u32) -> Option<Vec<u8>> {
        let chain = self.chain.state.chain();
        let bytes = self.peers.genesis.get_or_insert_with(|| codec::encode(chain.genesis()));
        bytes.chunks(GENESIS_PIECE_BYTES).nth(usize::try_from(piece).ok()?).map(<[u8]>::to_vec)
    }

    pub(super) fn ban(&mut self, peer: PeerId, offence: Offence) {
        self.turn.push(Effect::Ban { peer, offence });
    }
}
