//! The anchor of a snapshot: proof that its block is in the chain, for those who have no manifest.
//! No message between nodes carries one.

use crate::block::{HEADER_BYTES, Header};
use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate, CertificateError};
use crate::chain::Chain;
use crate::codec::{Decode, Encode};
use crate::hash::{BlockHash, HistoryRoot};
use crate::history::{SegmentDescriptor, SegmentProof};
use crate::merkle::ProofError;
use crate::snapshot::SnapshotRules;

/// An anchor that does not show what it should show. Its sender is always at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// No snapshot is made after this segment.
    #[error("segment {index} does not end with a snapshot")]
    NotDue {
        /// The segment.
        index: u64,
    },
    /// The segment is not in the history under the root.
    #[error("the segment is not proved: {0}")]
    Segment(#[from] ProofError),
    /// The header is not that of the segment's last block.
    #[error("block {got}, expected block {expected}, the last one of the segment")]
    Block {
        /// Hash of the header.
        got: BlockHash,
        /// Hash in the descriptor.
        expected: BlockHash,
    },
    /// The certificate does not prove that the block is final.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The block of a snapshot, with the proof that a later header commits to it.
///
/// A node that loads the snapshot stores this header and its certificate, since it needs both to
/// validate the next block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotAnchor {
    /// Header of the block. The snapshot is the state after this block.
    pub header: Header,
    /// Proves that the block is final. Nodes may have different certificates of one block.
    pub certificate: Certificate,
    /// The segment whose last block this is.
    pub descriptor: SegmentDescriptor,
    /// Proves that the segment is part of history.
    pub segment: SegmentProof,
}

impl SnapshotAnchor {
    /// Most bytes of an anchor that verifies.
    pub const BYTES_MAX: usize =
        HEADER_BYTES + CERTIFICATE_BYTES_MAX + 128 + (8 + 2 * (8 + 63 * 32));

    /// Verifies that the block is in the chain, and that the chain has a snapshot here. `root` is
    /// the `history_root` of a certified header. The proof is for the root of exactly this header:
    /// a header before or after which other segments were sealed has another root.
    ///
    /// Whether another snapshot lies in the same window of time is not checked: the state is proved
    /// in any case.
    ///
    /// # Errors
    /// `AnchorError`.
    pub fn verify(&self, chain: &Chain, root: HistoryRoot) -> Result<(), AnchorError> {
        let index = self.descriptor.index;
        if !SnapshotRules::new(chain.limits()).is_candidate(index) {
            return Err(AnchorError::NotDue { index });
        }
        self.segment.verify(root, &self.descriptor)?;
        let (got, expected) = (self.header.hash(), self.descriptor.last_block);
        if got != expected {
            return Err(AnchorError::Block { got, expected });
        }
        let height = self.header.height;
        self.certificate.verify(chain.id(), chain.validators(height), height, got)?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::address::Coin;
    use crate::certificate::{Vote, VoteKind};
    use crate::chain::{ChainState, Tip, ValidBlock};
    use crate::codec::{decode, encode};
    use crate::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits};
    use crate::hash::Hash;
    use crate::history::{History, SealedSegment};
    use crate::signature::SigningKey;
    use crate::snapshot::Frontier;
    use crate::transaction::{Body, Output, Transfer, verify_transactions};
    use crate::units::{Amount, Height, Nonce, Round, Timestamp, VotingPower};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    /// A chain of segments with two blocks each. Every second segment ends with a snapshot.
    struct Made {
        chain: Arc<Chain>,
        /// The chain after each height, from 0 on.
        states: Vec<ChainState>,
        /// From height 1 on.
        blocks: Vec<(ValidBlock, Certificate)>,
        sealed: Vec<SealedSegment>,
    }

    fn made() -> Made {
        let limits = Limits { segment_blocks: 2, snapshot_segments: 2, ..Limits::default() };
        let validator = |seed: u8| GenesisValidator {
            name: String::new(),
            key: key(seed).public(),
            payout: key(seed).public(),
            power: VotingPower(1),
        };
        let account = |seed: u8| GenesisAccount {
            name: String::new(),
            account: key(seed).public(),
            balance: Amount(1 << 40),
        };
        let chain = Chain::new(Genesis {
            format: FORMAT,
            network: "local".to_owned(),
            address_prefix: "crn".to_owned(),
            coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
            start_time: Timestamp(1_000),
            accounts: (20..30).map(account).collect(),
            validators: (1..=4).map(validator).collect(),
            limits,
        });
        let mut state = ChainState::genesis(Arc::clone(&chain));
        let mut made = Made {
            chain: Arc::clone(&chain),
            states: vec![state.clone()],
            blocks: Vec::new(),
            sealed: Vec::new(),
        };
        let mut before = Certificate::genesis(chain.id());
        for height in 1..=17u64 {
            let transfer = Body::Transfer(Transfer {
                sender: key(20).public(),
                nonce: Nonce(height - 1),
                outputs: vec![Output {
                    account: key(40 + height as u8).public(),
                    amount: Amount(5),
                }],
                fee: Amount(1 << 20),
                expires_at: Timestamp(60_000),
                memo: Vec::new(),
            });
            let signed = vec![transfer.sign(chain.id(), &key(20))];
            let candidates = verify_transactions(chain.id(), signed).into_iter().flatten();
            let block = state.propose(key(1).public(), Timestamp(0), before, candidates);
            before = certify(&chain, &block, 1..=3);
            made.sealed.extend(state.advance(&block));
            made.states.push(state.clone());
            made.blocks.push((block, before.clone()));
        }
        assert_eq!(made.sealed.len(), 8);
        made
    }

    fn certify(
        chain: &Chain,
        block: &ValidBlock,
        signers: std::ops::RangeInclusive<u8>,
    ) -> Certificate {
        let (height, hash) = (block.height(), block.hash());
        let precommits = signers.map(|seed| {
            let vote = Vote {
                kind: VoteKind::Precommit,
                height,
                round: Round(0),
                block: Some(hash),
                validator: key(seed).public(),
            };
            (vote.validator, key(seed).sign(&vote.message(chain.id())))
        });
        Certificate::new(height, Round(0), hash, chain.validators(height), precommits)
    }

    impl Made {
        /// The anchor of the last block of a segment, under the root after `segments` segments.
        fn anchor(&self, index: u64, segments: u64) -> SnapshotAnchor {
            let descriptor = self.sealed[index as usize].descriptor;
            let (block, certificate) = &self.blocks[descriptor.last.0 as usize - 1];
            SnapshotAnchor {
                header: block.header().clone(),
                certificate: certificate.clone(),
                descriptor,
                segment: self.history().prove_segment(index, segments).unwrap(),
            }
        }

        fn history(&self) -> &History {
            self.states.last().unwrap().history()
        }

        fn root(&self, segments: u64) -> HistoryRoot {
            self.history().root_at(segments).unwrap()
        }
    }

    #[test]
    fn every_snapshot_is_proved_under_each_later_root_and_under_no_other() {
        let made = made();
        for segments in 1..=8 {
            for index in 0..segments {
                let anchor = made.anchor(index, segments);
                let expected =
                    if index % 2 == 1 { Ok(()) } else { Err(AnchorError::NotDue { index }) };
                assert_eq!(anchor.verify(&made.chain, made.root(segments)), expected);
                for other in (0..=8).filter(|other| *other != segments) {
                    assert!(anchor.verify(&made.chain, made.root(other)).is_err());
                }
                let bytes = encode(&anchor);
                assert_eq!(decode(&bytes, SnapshotAnchor::BYTES_MAX), Ok(anchor));
            }
        }
    }

    #[test]
    fn every_part_of_an_anchor_must_fit() {
        let made = made();
        let with = |change: &dyn Fn(&mut SnapshotAnchor)| {
            let mut anchor = made.anchor(3, 8);
            change(&mut anchor);
            anchor.verify(&made.chain, made.root(8))
        };
        assert_eq!(with(&|_| ()), Ok(()));

        // A header of a hostile state, another final header, and one that was never final.
        let changes: [&dyn Fn(&mut SnapshotAnchor); 4] = [
            &|anchor| anchor.header.state_root.0.0[0] ^= 1,
            &|anchor| anchor.header.time.0 += 1,
            &|anchor| anchor.header = made.blocks[8].0.header().clone(),
            &|anchor| anchor.header.version = 3,
        ];
        for change in changes {
            assert!(matches!(with(change), Err(AnchorError::Block { .. })));
        }
        let other = made.anchor(5, 8);
        let changes: [&dyn Fn(&mut SnapshotAnchor); 6] = [
            &|anchor| anchor.descriptor = other.descriptor,
            &|anchor| anchor.descriptor.last_block = other.descriptor.last_block,
            &|anchor| anchor.descriptor.index = 5,
            &|anchor| anchor.segment = other.segment.clone(),
            &|anchor| anchor.segment.count = 9,
            &|anchor| anchor.segment.siblings.push(Hash::ZERO),
        ];
        for change in changes {
            assert!(matches!(with(change), Err(AnchorError::Segment(_))));
        }
        let (block, _) = &made.blocks[7];
        let two = certify(&made.chain, block, 1..=2);
        let changes: [&dyn Fn(&mut SnapshotAnchor); 3] = [
            &|anchor| anchor.certificate = other.certificate.clone(),
            &|anchor| anchor.certificate = two.clone(),
            &|anchor| anchor.certificate.signatures[0].0[5] ^= 1,
        ];
        for change in changes {
            assert!(matches!(with(change), Err(AnchorError::Certificate(_))));
        }
        // Any certificate of a quorum does.
        let four = certify(&made.chain, block, 1..=4);
        assert_eq!(with(&|anchor| anchor.certificate = four.clone()), Ok(()));
        let not_due = with(&|anchor| *anchor = made.anchor(4, 8));
        assert_eq!(not_due, Err(AnchorError::NotDue { index: 4 }));
    }

    /// A newcomer that loads a snapshot is where the chain was after its block, and goes on.
    #[test]
    fn a_loaded_snapshot_goes_on_as_the_chain_did() {
        let made = made();
        let rules = SnapshotRules::new(made.chain.limits());
        for index in [1, 3, 5, 7] {
            let anchor = made.anchor(index, 8);
            anchor.verify(&made.chain, made.root(8)).unwrap();
            let SnapshotAnchor { header, descriptor, .. } = &anchor;
            let place = descriptor.last.0 as usize;
            let giver = made.states[place].state();
            let bytes = Frontier::of(giver, &rules).unwrap().bytes();
            let frontier = Frontier::decode(&bytes, header.state_root, &rules).unwrap();
            let chunks = (0..).zip(frontier.chunks(giver));
            let chunks = chunks.map(|(index, bytes)| frontier.verify_chunk(index, &bytes).unwrap());
            let state = frontier.assemble(chunks).unwrap();

            let descriptors = made.sealed.iter().map(|segment| segment.descriptor);
            let descriptors = descriptors.take(index as usize + 1);
            let history = History::restore(made.chain.history_rules(), descriptors).unwrap();
            let tip = Tip { height: header.height, hash: header.hash(), time: header.time };
            let mut loaded = ChainState::restored(Arc::clone(&made.chain), tip, state, history);
            assert_eq!(loaded.roots(), made.states[place].roots());
            for (block, certificate) in &made.blocks[place..] {
                let block = loaded.validate(block.block().clone()).unwrap();
                loaded.commit(block, certificate.clone());
            }
            assert_eq!(loaded.tip(), made.states.last().unwrap().tip());
            assert_eq!(loaded.history(), made.history());
        }
    }

    /// A proof under the largest count, and a certificate of the largest set.
    #[test]
    fn the_limit_admits_every_anchor_that_verifies() {
        let mut anchor = made().anchor(1, 8);
        anchor.segment.siblings = vec![Hash::ZERO; 63];
        anchor.segment.peaks = vec![Hash::ZERO; 63];
        let others = encode(&anchor).len() - encode(&anchor.certificate).len();
        assert_eq!(others + CERTIFICATE_BYTES_MAX, SnapshotAnchor::BYTES_MAX);
        assert_eq!(anchor.header.height, Height(4));
    }
}
