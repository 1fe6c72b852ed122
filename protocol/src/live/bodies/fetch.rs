//! Fetching the body of a proposed block: which parts are missing, and which peer is asked for
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::block::Block;
use ledger::chain::ChainState;
use ledger::hash::{BlockHash, TxHash};
use ledger::transaction::VerifiedTransaction;

use super::{Progress, Verdict};
use crate::ids::{PeerId, RequestId};
use crate::live::mempool::Mempool;
use crate::live::requests::Asked;
use crate::live::{Machine, Notice};
use crate::message::{CompactBlock, REQUESTED_TRANSACTIONS_MAX, Request, SignedProposal};

/// Most proposals kept for one block, which may be proposed again in later rounds. The newest stay.
const PROPOSALS_MAX: usize = 8;
/// Timeout of a request, after which another peer is asked.
const PATIENCE: Duration = Duration::from_millis(400);
/// Most requests for one block whose answers are still taken. Older ones are forgotten.
const ASKED_MAX: usize = 4;

/// A proposed block that is not judged yet.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The last proposals for this block, at most [`PROPOSALS_MAX`].
    pub(super) proposals: Vec<SignedProposal>,
    /// The block without its transactions, and the transactions found so far.
    pub(super) list: Option<List>,
    /// The peer that sent the list. It is asked first for transactions, unless it gave nothing when
    /// it was asked. A peer that sent only a proposal may have nothing else.
    source: Option<PeerId>,
    /// Unanswered requests, newest last.
    asked: Vec<RequestId>,
    /// Until when no other peer is asked.
    patience_ends: Duration,
    /// Peers that were asked. Once all were, each may be asked again.
    tried: BTreeSet<PeerId>,
    /// Peers that were asked and gave nothing for this block. All other peers are asked first.
    silent: BTreeSet<PeerId>,
    /// Something happened that [`super::Bodies::advance`] has not looked at yet.
    pub(super) is_due: bool,
    /// When to try again, if nothing happens before.
    pub(super) wait: Option<Duration>,
    /// The block is final, so it is fetched whatever its round.
    pub(super) is_decided: bool,
}

impl Wanted {
    pub(super) const fn new() -> Self {
        Self {
            proposals: Vec::new(),
            list: None,
            source: None,
            asked: Vec::new(),
            patience_ends: Duration::ZERO,
            tried: BTreeSet::new(),
            silent: BTreeSet::new(),
            is_due: true,
            wait: None,
            is_decided: false,
        }
    }

    pub(super) fn on_proposal(&mut self, proposal: SignedProposal) {
        if self.proposals.contains(&proposal) {
            return;
        }
        // The newest proposals stay: consensus can still vote in their rounds.
        if self.proposals.len() >= PROPOSALS_MAX {
            self.proposals.remove(0);
        }
        self.proposals.push(proposal);
    }

    /// Takes in the first list. Returns the number of look-ups in the mempool.
    pub(super) fn on_list(
        &mut self,
        compact: CompactBlock,
        from: PeerId,
        mempool: &Mempool,
    ) -> u64 {
        let list = List::new(compact, mempool);
        let look_ups = list.found.len() as u64;
        self.list = Some(list);
        // The peer that sent the list is asked first for the transactions, unless it was silent.
        self.source = Some(from);
        self.tried.clear();
        self.is_due = true;
        look_ups
    }

    /// A request was sent to a peer.
    pub(super) fn on_asked(&mut self, id: RequestId, peer: PeerId, now: Duration) {
        if self.asked.len() >= ASKED_MAX {
            self.asked.remove(0);
        }
        self.asked.push(id);
        self.patience_ends = now.saturating_add(PATIENCE);
        self.wait = Some(self.patience_ends);
        self.tried.insert(peer);
        self.silent.insert(peer);
    }

    /// Takes in the end of a request, be it an answer or a failure. It counts even if another peer
    /// was asked since. Returns false if the request was for another block or is forgotten.
    pub(super) fn on_answer(&mut self, id: RequestId) -> bool {
        if !self.asked.contains(&id) {
            return false;
        }
        if self.asked.last() == Some(&id) {
            self.patience_ends = Duration::ZERO;
        }
        self.asked.retain(|asked| *asked != id);
        self.is_due = true;
        true
    }

    /// A peer gave a part of the block when it was asked.
    pub(super) fn on_gave(&mut self, peer: PeerId) {
        self.silent.remove(&peer);
    }

    /// The request for what is missing.
    pub(super) fn request(&self, block: BlockHash, chain: &ChainState) -> Request {
        match &self.list {
            None => Request::Proposed(chain.tip().height.next(), block),
            Some(list) => {
                let missing = list.missing.keys().copied().take(REQUESTED_TRANSACTIONS_MAX);
                Request::Transactions(missing.collect())
            }
        }
    }

    /// The peer to ask now. `None` while an asked peer still has time to answer, or if there is no
    /// peer. `gave` are peers that gave something when they were last asked.
    ///
    /// Peers that gave nothing for this block when they were asked come last. Of the others, the
    /// peer that sent the list comes first, then those that gave something. Of equal peers, the
    /// first in the given order.
    pub(super) fn choose(
        &mut self,
        peers: &[PeerId],
        gave: &BTreeSet<PeerId>,
        now: Duration,
    ) -> Option<PeerId> {
        if self.patience_ends > now {
            self.wait = Some(self.patience_ends);
            return None;
        }
        // Once all peers were asked, each may be asked again.
        if peers.iter().all(|peer| self.tried.contains(peer)) {
            self.tried.clear();
        }
        let rank = |peer: &&PeerId| {
            (self.silent.contains(peer), self.source != Some(**peer), !gave.contains(peer))
        };
        // Of equal peers `min_by_key` returns the first.
        let next = peers.iter().filter(|peer| !self.tried.contains(peer)).min_by_key(rank).copied();
        if next.is_none() {
            self.wait = Some(now.saturating_add(PATIENCE));
        }
        next
    }
}

/// A proposed block and the transactions of it that were found, by their place in the block.
#[derive(Debug)]
pub(super) struct List {
    pub(super) compact: CompactBlock,
    found: Vec<Option<Arc<VerifiedTransaction>>>,
    /// Places of each missing transaction.
    pub(super) missing: BTreeMap<TxHash, Vec<usize>>,
    /// A transaction of the list has a signature that does not hold, so the block is invalid.
    pub(super) is_forged: bool,
}

impl List {
    /// Finds the transactions that the mempool has.
    fn new(compact: CompactBlock, mempool: &Mempool) -> Self {
        let mut missing: BTreeMap<TxHash, Vec<usize>> = BTreeMap::new();
        let found = compact.transactions.iter().enumerate().map(|(place, hash)| {
            let found = mempool.get(hash);
            if found.is_none() {
                missing.entry(*hash).or_default().push(place);
            }
            found
        });
        let found = found.collect();
        Self { compact, found, missing, is_forged: false }
    }

    pub(super) fn fill(&mut self, hash: &TxHash, transaction: &Arc<VerifiedTransaction>) {
        for place in self.missing.remove(hash).unwrap_or_default() {
            if let Some(found) = self.found.get_mut(place) {
                *found = Some(Arc::clone(transaction));
            }
        }
    }

    /// The block, once nothing is missing.
    pub(super) fn block(&self) -> Block<Arc<VerifiedTransaction>> {
        Block {
            header: self.compact.header.clone(),
            parent_certificate: self.compact.parent_certificate.clone(),
            transactions: self.found.iter().flatten().cloned().collect(),
        }
    }
}

impl Machine {
    /// Tries to complete the fetched blocks that need attention.
    pub(crate) fn advance_bodies(&mut self) {
        let due = self.bodies.due(self.turn.now.elapsed);
        if due.is_empty() {
            return;
        }
        // The order is random. In a fixed order a peer could get itself asked first, for example by
        // connecting early.
        let mut peers: Vec<_> = self.peers.connected.iter().copied().collect();
        peers.sort_by_cached_key(|_| self.turn.lots.draw());
        for block in due {
            let (now, wall) = (self.turn.now.elapsed, self.turn.now.wall);
            match self.bodies.advance(
                block,
                &self.chain.state,
                &self.transactions.mempool,
                &peers,
                now,
                wall,
            ) {
                Progress::Wait => {}
                Progress::Ask(peer, request) => {
                    let id = self.ask(peer, &request, Asked::Body);
                    self.bodies.asked(&block, id, peer, now);
                }
                Progress::Judged(proposals, verdict, error) => {
                    let valid = match &verdict {
                        Verdict::Valid(valid) => {
                            self.log_body(valid);
                            true
                        }
                        Verdict::Invalid => {
                            let reason = error.map_or_else(
                                || "a signature does not hold".to_owned(),
                                |e| e.to_string(),
                            );
                            let height = self.consensus.height();
                            self.turn.notice(Notice::InvalidBlock(height, block, reason));
                            false
                        }
                    };
                    // Consensus needs no verdict on a block that it has decided.
                    let proposals = match self.phase.decided() {
                        Some(_) => Vec::new(),
                        None => proposals,
                    };
                    for proposal in proposals {
                        // Consensus does not know the proposal yet if the body was dropped before.
                        self.give(&proposal);
                        let Some(proposals) = self.phase.proposals() else { return };
                        proposals.tell(proposal.proposal.round, block);
                        let outputs = self.consensus.on_block(&proposal, valid, now);
                        self.perform(outputs);
                        if !self.phase.is_deciding() {
                            return;
                        }
                    }
                    self.on_fetched(block, &verdict);
                }
            }
        }
    }
}
