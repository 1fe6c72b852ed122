//! Peers: their tips, their requests and their responses.

use std::time::Duration;

use ledger::codec;
use ledger::units::Height;

use super::headers::Told;
use super::{Effect, Machine, Notice, Phase};
use crate::budget::Cost;
use crate::ids::{PeerId, RequestId, Ticket};
use crate::live::catchup::CatchUpError;
use crate::message::{
    GENESIS_PIECE_BYTES, REQUEST_BYTES_MAX, REQUESTED_TRANSACTIONS_MAX, RESPONSE_BYTES_MAX,
    Request, Response,
};
use crate::offence::Offence;

/// Interval of status requests. One peer is asked at a time, in turn.
const POLL: Duration = Duration::from_secs(2);

/// Purpose of a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The peer's tip and clock; and when it was asked.
    Status(PeerId, Duration),
    /// The list or transactions of a proposed block.
    Body,
}

impl Machine {
    pub(super) fn on_connected(&mut self, peer: PeerId) {
        self.peers.insert(peer);
        self.catchup.on_connected(peer);
        self.signing.on_connected(self.now);
        self.outbox.on_connected(self.now.elapsed);
        self.ask_status(peer);
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.catchup.on_disconnected(peer);
        self.bodies.on_disconnected(peer);
        self.clocks.on_disconnected(peer);
    }

    pub(super) fn ask_status(&mut self, peer: PeerId) {
        if self
            .requests
            .values()
            .any(|asked| matches!(asked, Asked::Status(asked, _) if *asked == peer))
        {
            return;
        }
        let request = Request::Tip(self.certified_header());
        self.ask(peer, &request, Asked::Status(peer, self.now.elapsed));
    }

    pub(super) fn ask(&mut self, peer: PeerId, request: &Request, asked: Asked) -> RequestId {
        let id = self.request(peer, request);
        self.requests.insert(id, asked);
        id
    }

    fn request(&mut self, peer: PeerId, request: &Request) -> RequestId {
        self.next_request = self.next_request.saturating_add(1);
        let id = RequestId(self.next_request);
        self.effects.push(Effect::Request(id, peer, codec::encode(request)));
        id
    }

    pub(super) fn poll_peers(&mut self) {
        if self.now.elapsed < self.next_poll {
            return;
        }
        self.next_poll = self.now.elapsed.saturating_add(POLL);
        let after = (std::ops::Bound::Excluded(self.polled), std::ops::Bound::Unbounded);
        let next = self.peers.range(after).next().or_else(|| self.peers.first()).copied();
        if let Some(peer) = next {
            self.polled = peer;
            self.ask_status(peer);
        }
    }

    pub(super) fn on_request(&mut self, from: PeerId, ticket: Ticket, bytes: &[u8]) {
        let request = match codec::decode::<Request>(bytes, REQUEST_BYTES_MAX) {
            Ok(request) => request,
            Err(error) => return self.ban(from, Offence::Request(error)),
        };
        let response = match request {
            Request::Tip(theirs) => {
                if let Some(certified) = theirs
                    && self.on_header(from, &certified, Told::Status) == super::Verdict::Reject
                {
                    return self.ban(from, Offence::Tip);
                }
                Response::Tip { now: self.now.wall.0, head: self.certified_header() }
            }
            Request::Genesis(piece) => Response::Genesis(self.genesis_piece(piece)),
            Request::Blocks(height) => {
                return self.effects.push(Effect::RespondBlocks(ticket, height));
            }
            Request::Proposed(_, block) => Response::Proposed(self.bodies.compact(&block)),
            Request::Transactions(hashes) => {
                if hashes.len() > REQUESTED_TRANSACTIONS_MAX {
                    return self.ban(from, Offence::TransactionsAsked { count: hashes.len() });
                }
                self.cost = self.cost.and(Cost::look_ups(hashes.len() as u64, 0));
                let known = hashes.iter().filter_map(|hash| self.transaction(hash));
                Response::Transactions(
                    known.map(|transaction| transaction.transaction().clone()).collect(),
                )
            }
        };
        self.effects.push(Effect::Respond(ticket, codec::encode(&response)));
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
        match self.requests.remove(&id) {
            Some(Asked::Status(_, asked_at)) => {
                let Some(Response::Tip { now, head }) = response else { return };
                self.on_peer_clock(from, now, asked_at);
                if let Some(certified) = head
                    && self.on_header(from, &certified, Told::Status) == super::Verdict::Reject
                {
                    self.ban(from, Offence::Tip);
                }
            }
            Some(Asked::Body) => {
                let Some(block) = self.bodies.answered(id) else { return };
                match response {
                    Some(Response::Proposed(Some(list))) => {
                        match self.bodies.check_list(&self.chain, block, &list) {
                            Ok(()) => {
                                self.bodies.on_gave(&block, from);
                                self.bodies.on_list(&block, list, from, &self.mempool);
                            }
                            Err(offence) => self.ban(from, offence),
                        }
                    }
                    Some(Response::Transactions(transactions)) => {
                        self.bodies.on_transactions(&self.chain, &block, transactions, from);
                    }
                    // The peer does not have it (any more), so the next peer is asked.
                    _ => {}
                }
            }
            None => {
                let blocks = match response {
                    Some(Response::Blocks(blocks, certificate)) => Some((blocks, certificate)),
                    _ => None,
                };
                if let Some(Err(error)) = self.catchup.on_blocks(id, blocks, self.now.elapsed) {
                    self.on_catchup_error(error);
                }
            }
        }
    }

    fn genesis_piece(&mut self, piece: u32) -> Option<Vec<u8>> {
        let chain = self.chain.chain();
        let bytes = self.genesis.get_or_insert_with(|| codec::encode(chain.genesis()));
        bytes.chunks(GENESIS_PIECE_BYTES).nth(usize::try_from(piece).ok()?).map(<[u8]>::to_vec)
    }

    /// Fetches and commits blocks that others made final, and begins or ends catching up.
    pub(super) fn follow_others(&mut self) {
        if matches!(self.phase, Phase::Committing | Phase::Halted) {
            return;
        }
        let (tip, now) = (self.chain.tip().height, self.now.elapsed);
        let is_catching_up = self.phase == Phase::CatchingUp;
        match (is_catching_up, self.catchup.is_behind(tip, now, is_catching_up)) {
            (true, false) => {
                // A height that has begun goes on where it stood: beginning it again would forget
                // what was signed in it.
                let is_begun = self.consensus.height() == tip.next();
                self.phase = match is_begun {
                    true if self.decided.is_some() => Phase::Fetching,
                    true => Phase::Deciding,
                    false => Phase::Waiting,
                };
                self.effects.push(Effect::Notice(Notice::CaughtUp(tip)));
            }
            (false, true) => {
                // While it catches up, a node never signs: consensus gets no messages and no
                // timeouts.
                self.phase = Phase::CatchingUp;
                self.effects.push(Effect::Notice(Notice::Behind(tip, self.catchup.known())));
            }
            _ => {}
        }
        if self.phase != Phase::CatchingUp && self.fetch_at().is_none_or(|at| at > now) {
            return;
        }
        match self.catchup.take_next(&self.chain) {
            Some(Ok((commits, after))) => {
                return self.commit(commits, after, self.source_of_others());
            }
            Some(Err(error)) => self.on_catchup_error(error),
            None => {}
        }
        for (peer, from) in self.catchup.next_requests(tip, now) {
            let id = self.request(peer, &Request::Blocks(from));
            self.catchup.asked(id, peer, from, now);
        }
    }

    /// When to fetch the next block while consensus still works on it, if a certificate proves it.
    fn fetch_at(&self) -> Option<Duration> {
        let next = self.catchup.next_header(self.chain.tip().height);
        let is_body_coming = next.is_some_and(|next| self.bodies.is_wanted(&next.header.hash()));
        self.catchup.fetch_at(is_body_coming)
    }

    /// When [`Machine::follow_others`] is due next.
    pub(super) fn follow_deadline(&self) -> Option<Duration> {
        let now = self.now.elapsed;
        let fetch = self.fetch_at().filter(|at| *at > now);
        fetch.into_iter().chain(self.catchup.deadline(now)).min()
    }

    fn on_catchup_error(&mut self, error: CatchUpError) {
        match error {
            CatchUpError::Peer(peer, offence) => {
                self.catchup.on_disconnected(peer);
                self.ban(peer, offence);
            }
            CatchUpError::Certified(error) => {
                self.halt(format!("a certified block breaks the rules: {error}"))
            }
        }
    }

    fn ban(&mut self, peer: PeerId, offence: Offence) {
        self.effects.push(Effect::Ban { peer, offence });
    }

    /// Highest height that any peer claims, without the peers that failed when last asked.
    #[must_use]
    pub fn best_peer_height(&self) -> Height {
        self.catchup.best()
    }
}
