//! A checkpoint: a block that the chain must contain, named by the operator.
//!
//! The block at the end of a segment is proved by the segment's descriptor. For a block inside a
//! segment a peer sends a proof of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use ledger::hash::BlockHash;
use ledger::history::SegmentDescriptor;
use ledger::merkle::MerkleProof;
use ledger::units::{Height, SegmentIndex};

use super::offers::Offers;
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::swarm::engine::Engine;
use crate::swarm::history::{self, HISTORY};
use crate::swarm::join_failure::JoinFailure;
use crate::swarm::message::SyncMessage;

/// Timeout of a request, after which another peer is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// After this time without a proof, joining fails, unless some peer that has the segment was not
/// asked yet.
const PATIENCE_ALL: Duration = Duration::from_secs(30);
/// Delay until peers are asked again after one had no proof.
const RETRY: Duration = Duration::from_millis(750);

/// A checkpoint that is not checked yet.
#[derive(Debug)]
pub(super) struct Checkpoint {
    height: Height,
    hash: BlockHash,
    /// The request in flight, and when it is given up.
    asked: Option<(PeerId, Duration)>,
    /// The peers with a link that were asked.
    all_asked: BTreeSet<PeerId>,
    /// Since when a proof is sought.
    since: Option<Duration>,
    /// Whether the block was above all proved segments at the last look.
    is_above_all: bool,
}

impl Checkpoint {
    pub(super) const fn new((height, hash): (Height, BlockHash)) -> Self {
        Self {
            height,
            hash,
            asked: None,
            all_asked: BTreeSet::new(),
            since: None,
            is_above_all: false,
        }
    }

    /// Whether a snapshot of this height may be loaded before the check is over: the block is above
    /// all proved segments. Whoever applies the blocks after the snapshot compares it.
    pub(super) fn allows(&self, snapshot: Height) -> bool {
        self.is_above_all && snapshot < self.height
    }

    /// Checks the block if it is the target or ends a segment, or asks for its proof. A block above
    /// all proved segments waits for a longer manifest. Returns whether the check is over.
    ///
    /// # Errors
    /// The chain contradicts the checkpoint, or nobody proves the block.
    pub(super) fn settle(
        &mut self,
        engine: &mut Engine,
        history: &history::Kind,
        offers: &mut Offers,
    ) -> Result<bool, JoinFailure> {
        let segment = history.source.manifest().segment_of(self.height).copied();
        self.is_above_all = segment.is_none();
        let Some(segment) = segment else {
            let proof = history.source.proof().map(|proof| &proof.header);
            let target = proof.filter(|header| header.height == self.height);
            return target.map_or(Ok(false), |header| self.compare(header.hash()).map(|()| true));
        };
        if segment.last == self.height {
            return self.compare(segment.last_block).map(|()| true);
        }
        let since = *self.since.get_or_insert(engine.now);
        let is_over = since.saturating_add(PATIENCE_ALL) <= engine.now;
        if self.asked.is_some_and(|(_, deadline)| deadline > engine.now) {
            return Ok(false);
        }
        let index = HISTORY.segment(SegmentIndex(segment.index));
        let holders = engine.census.peers().filter(|(_, holder)| holder.is_complete(index));
        let holders: Vec<PeerId> = holders.map(|(peer, _)| peer).collect();
        let unasked = holders.iter().filter(|peer| !self.all_asked.contains(peer));
        let next = match offers.least_asked(unasked.copied()) {
            None if is_over => {
                return Err(JoinFailure::CheckpointUnproved { height: self.height });
            }
            None => offers.least_asked(holders.into_iter()),
            unasked => unasked,
        };
        if let Some(peer) = next {
            offers.note_asked(peer);
            self.all_asked.insert(peer);
            self.asked = Some((peer, engine.now.saturating_add(PATIENCE)));
            engine.send(peer, &SyncMessage::GetBlockProof(self.height));
        }
        Ok(false)
    }

    fn compare(&self, found: BlockHash) -> Result<(), JoinFailure> {
        let Self { height, hash: expected, .. } = *self;
        if found == expected {
            return Ok(());
        }
        Err(JoinFailure::CheckpointContradicted { height, expected, found })
    }

    /// Takes in an answer. Returns whether the check is over.
    ///
    /// # Errors
    /// The proved block is another one than the checkpoint.
    pub(super) fn on_proof(
        &mut self,
        engine: &mut Engine,
        history: &history::Kind,
        from: PeerId,
        height: Height,
        proof: Option<(BlockHash, MerkleProof)>,
    ) -> Result<bool, JoinFailure> {
        if height != self.height || self.asked.is_none_or(|(peer, _)| peer != from) {
            return Ok(false);
        }
        let Some((hash, proof)) = proof else {
            // The next peer is asked after a moment. An answer that comes again puts nothing off.
            let retry_at = engine.now.saturating_add(RETRY);
            self.asked = self.asked.map(|(peer, deadline)| (peer, deadline.min(retry_at)));
            return Ok(false);
        };
        self.asked = None;
        let segment = history.source.manifest().segment_of(height);
        if !segment.is_some_and(|segment| is_proved(segment, height, hash, &proof)) {
            engine.ban(from, Offence::BlockProof { height });
            return Ok(false);
        }
        self.compare(hash).map(|()| true)
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.asked = self.asked.filter(|(asked, _)| *asked != peer);
        self.all_asked.remove(&peer);
    }

    /// When [`Self::settle`] is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let all = self.since?.saturating_add(PATIENCE_ALL);
        Some(self.asked.map_or(all, |(_, deadline)| deadline))
    }
}

/// Whether a proof shows that the block at a height of a segment has this hash.
fn is_proved(
    segment: &SegmentDescriptor,
    height: Height,
    hash: BlockHash,
    proof: &MerkleProof,
) -> bool {
    let index = height.0.checked_sub(segment.first.0);
    let place = (Some(proof.index), Some(proof.count));
    place == (index, segment.block_count()) && proof.verify(segment.blocks_root, hash.0).is_ok()
}
