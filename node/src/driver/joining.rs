//! What a node without blocks does before it takes part: it asks its peers for their last final
//! block. If a peer proves one that is far ahead, sync loads a snapshot of the state. Only then the
//! machine of `live` is made, which goes on from there.
//!
//! While this lasts, the node votes and gossips nothing. Peers that ask for its tip are told that
//! it has no block.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::codec;
use ledger::units::Height;
use protocol::budget::Cost;
use protocol::message::{
    BEHIND_FAR, CertifiedHeader, REQUEST_BYTES_MAX, Request, Response, answer_bytes_max,
};
use protocol::{FetchPlan, Offence};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::blame::charge;
use super::live::{Inputs, Joined, ToDriver};
use super::peer_numbers::PeerNumbers;
use crate::clock::wall_ms;
use crate::network::{Gossip, Network, PeerEvent, PeerId, RequestId, ResponseTicket, Verdict};
use crate::submission::SubmitError;
use crate::verifier::Verified;
use crate::view::{Query, TipView};

/// How long a validator waits for a peer that proves a height. It is short, since the validators of
/// a new network wait for each other.
const VALIDATOR_WAITS: Duration = Duration::from_secs(1);
/// How long another node waits. Until then it has nothing else to do.
const OTHERS_WAIT: Duration = Duration::from_secs(10);
/// While a snapshot is fetched, a peer is asked for its tip at this interval: peers remove old
/// snapshots, so a newer one may be needed.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// A node that joins.
pub(crate) struct Joining {
    chain: Arc<Chain>,
    network: Network,
    peers: PeerNumbers,
    /// The tip at the genesis, for readers.
    genesis: TipView,
    /// The highest proved tip of a peer, if it is far ahead: sync loads a snapshot below it.
    target: watch::Sender<Option<CertifiedHeader>>,
    is_validator: bool,
    /// The peer that was asked for its tip last.
    last_asked: Option<PeerId>,
    connected: BTreeSet<PeerId>,
    /// Requests in flight.
    asked: HashMap<RequestId, PeerId>,
    near: Near,
    /// The height that each peer has proved.
    heights: BTreeMap<String, Height>,
    /// The newest plan by which sync fetches blocks.
    plan: Option<FetchPlan>,
}

/// The peers that have answered that they are not far ahead.
struct Near {
    peers: BTreeSet<PeerId>,
    /// Number of addresses of other nodes that the operator has named.
    named: usize,
}

impl Near {
    /// Whether every named peer has answered. An address that leads to no peer, or to the same one
    /// as another, counts as a peer without an answer.
    fn are_all(&self, is_named: impl Fn(&PeerId) -> bool) -> bool {
        self.peers.iter().filter(|peer| is_named(peer)).count() >= self.named
    }
}

impl Joining {
    /// `named`: number of addresses of other nodes that the operator has named.
    pub(crate) fn new(
        network: Network,
        peers: PeerNumbers,
        genesis: TipView,
        target: watch::Sender<Option<CertifiedHeader>>,
        is_validator: bool,
        named: usize,
    ) -> Self {
        Self {
            chain: Arc::clone(genesis.state.chain()),
            network,
            peers,
            genesis,
            target,
            is_validator,
            last_asked: None,
            connected: BTreeSet::new(),
            asked: HashMap::new(),
            near: Near { peers: BTreeSet::new(), named },
            heights: BTreeMap::new(),
            plan: None,
        }
    }

    /// Joins the chain. `None` if the node must stop.
    ///
    /// It ends without a snapshot if no peer proves a height in time, or if sync finds no snapshot.
    /// A peer that is not far ahead ends it too: at once on a validator, since all validators of a
    /// new network are at the same place, and on other nodes after a second, or sooner if every
    /// named peer has said the same.
    pub(crate) async fn run(mut self, inputs: &mut Inputs) -> Option<Joined> {
        let patience = if self.is_validator { VALIDATOR_WAITS } else { OTHERS_WAIT };
        let mut ask_at = Instant::now() + patience;
        loop {
            let is_loading = self.target.borrow().is_some();
            tokio::select! {
                biased;
                _ = inputs.stop.wait_for(|stop| *stop) => return None,
                news = inputs.sync.recv() => match news? {
                    ToDriver::Joined(tip) => return Some(self.end(tip.map(|tip| *tip))),
                    ToDriver::Plan(plan) => self.plan = Some(plan),
                    ToDriver::Segment(..) => {
                        tracing::error!("sync gave blocks before the node had joined");
                    }
                },
                event = inputs.events.recv() => {
                    if !self.on_event(event?) {
                        let accounts = self.network.accounts();
                        if self.is_validator || self.near.are_all(|peer| accounts.is_named(peer)) {
                            return Some(self.end(None));
                        }
                        // Another peer may be far ahead.
                        ask_at = ask_at.min(Instant::now() + VALIDATOR_WAITS);
                    }
                }
                // Until a peer proves a height, these wait for `live`, which begins soon.
                Some(gossip) = inputs.consensus.recv(), if is_loading => self.ignore(gossip),
                Some(gossip) = inputs.headers.recv(), if is_loading => self.ignore(gossip),
                verified = inputs.verified.recv(), if is_loading => self.on_verified(verified?),
                Some(query) = inputs.queries.recv() => self.on_query(query),
                () = sleep_until(ask_at) => {
                    if !is_loading {
                        return Some(self.end(None));
                    }
                    ask_at = Instant::now() + ASK_EVERY;
                    self.ask_next();
                }
            }
        }
    }

    fn end(self, tip: Option<TipView>) -> Joined {
        Joined { tip, connected: self.connected, plan: self.plan }
    }

    /// Returns false if a peer has answered that it is not far ahead, so there is nothing to load.
    fn on_event(&mut self, event: PeerEvent) -> bool {
        match event {
            PeerEvent::Connected(peer) => {
                self.peers.hold(peer);
                self.connected.insert(peer);
                self.ask(peer);
            }
            PeerEvent::Disconnected(peer) => {
                self.peers.release(&peer);
                self.connected.remove(&peer);
                self.near.peers.remove(&peer);
                self.heights.remove(&peer.to_string());
            }
            PeerEvent::Request { from, bytes, ticket } => self.on_request(from, &bytes, ticket),
            PeerEvent::Response { id, from, result } => {
                if let Some(from) = self.asked.remove(&id).filter(|asked| *asked == from)
                    && let Ok(bytes) = result
                {
                    return self.on_response(from, &bytes);
                }
            }
        }
        true
    }

    /// Asks the peers for their tips in turn.
    fn ask_next(&mut self) {
        let last = self.last_asked.map_or(Unbounded, Excluded);
        let after = self.connected.range((last, Unbounded)).next();
        if let Some(peer) = after.or_else(|| self.connected.first()).copied() {
            self.ask(peer);
        }
    }

    fn ask(&mut self, peer: PeerId) {
        self.last_asked = Some(peer);
        let request = codec::encode(&Request::Tip(None));
        let most = answer_bytes_max(&request);
        let id = self.network.request_within(peer, request, most);
        self.asked.insert(id, peer);
    }

    /// Answers a question for the tip. Other requests are refused as busy.
    fn on_request(&self, from: PeerId, bytes: &[u8], ticket: ResponseTicket) {
        match codec::decode::<Request>(bytes, REQUEST_BYTES_MAX) {
            Ok(Request::Tip(_)) => {
                let answer = codec::encode(&Response::Tip { now: wall_ms(), head: None });
                self.network.accounts().charge(&from, &Cost::answer(answer.len()));
                self.network.respond(ticket, answer);
            }
            Ok(_) => {}
            Err(error) => self.ban(from, &Offence::Request(error)),
        }
    }

    /// Returns false if the peer is not far ahead.
    fn on_response(&mut self, from: PeerId, bytes: &[u8]) -> bool {
        let head = match Response::decode(bytes) {
            Ok(Response::Tip { head, .. }) => head,
            Ok(_) => return true,
            Err(error) => {
                self.ban(from, &Offence::Response(error));
                return true;
            }
        };
        let Some(head) = head else { return self.on_near(from) };
        let height = head.header.height;
        let signatures = head.certificate.signatures.len() as u64;
        self.network.accounts().charge(&from, &Cost::signatures(signatures));
        if head.verify(&self.chain).is_err() {
            self.ban(from, &Offence::Tip);
            return true;
        }
        self.heights.insert(from.to_string(), height);
        let best = self.target.borrow().as_ref().map(|best| best.header.height);
        if height.0 <= BEHIND_FAR {
            return self.on_near(from);
        }
        if best.is_none_or(|best| height > best) {
            self.target.send_replace(Some(head));
        }
        true
    }

    /// A peer is not far ahead. Returns whether another one is.
    fn on_near(&mut self, peer: PeerId) -> bool {
        self.near.peers.insert(peer);
        self.target.borrow().is_some()
    }

    fn ban(&self, peer: PeerId, offence: &Offence) {
        self.network.ban(peer, charge(offence));
    }

    fn ignore(&self, gossip: Gossip) {
        self.network.verdict(gossip.ticket, Verdict::Ignore);
    }

    fn on_verified(&self, verified: Verified) {
        match verified {
            Verified::Gossip(ticket, ..) => self.network.verdict(ticket, Verdict::Ignore),
            Verified::Submission(_, reply) => drop(reply.send(Err(SubmitError::Unavailable))),
        }
    }

    fn on_query(&self, query: Query) {
        // The sender of the query may have gone. Then the answer is dropped.
        match query {
            Query::Pending(_, reply) => drop(reply.send(None)),
            Query::PendingNonce(account, reply) => {
                let _ = reply.send(self.genesis.state.account(&account).nonce);
            }
            Query::Mempool(_, reply) => drop(reply.send(Vec::new())),
            Query::PeerHeights(reply) => drop(reply.send(self.heights.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_waits_for_no_more_peers_once_all_named_ones_have_answered() {
        let [one, two, stranger] = [PeerId::random(), PeerId::random(), PeerId::random()];
        for (answers, named, are_all) in [
            (&[][..], 1, false),
            (&[one], 1, true),
            (&[one], 2, false),
            (&[one, stranger], 2, false),
            (&[stranger], 1, false),
            (&[one, two], 2, true),
            (&[one, two, stranger], 2, true),
            // Two addresses of one peer, or of nobody.
            (&[one, two], 3, false),
        ] {
            let near = Near { peers: answers.iter().copied().collect(), named };
            let is_named = |peer: &PeerId| [one, two].contains(peer);
            assert_eq!(near.are_all(is_named), are_all, "{answers:?} of {named}");
        }
    }
}
