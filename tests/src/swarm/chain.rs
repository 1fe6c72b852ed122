//! A made-up chain without blocks: descriptors, chunk hashes and certificates that verify, with no
//! bytes behind them.

use std::sync::Arc;

use ledger::block::Header;
use ledger::certificate::{Certificate, VoteKind};
use ledger::chain::Chain;
use ledger::genesis::{Genesis, GenesisValidator};
use ledger::hash::{BlockHash, Domain, Hash};
use ledger::history::{History, HistoryRules, SegmentDescriptor, SegmentHead};
use ledger::merkle;
use ledger::signature::SigningKey;
use ledger::units::{Height, Round, SegmentIndex, Timestamp, VotingPower};
use protocol::message::CertifiedHeader;
use protocol::swarm::message::{ChunkId, CollectionId};

/// Blocks in each segment.
const BLOCKS: u64 = 100;

/// A made-up chain, which seeds have and leechers fetch.
#[derive(Debug)]
pub struct Made {
    /// Genesis and limits, with one validator.
    pub chain: Arc<Chain>,
    /// Segment and chunk lengths.
    pub rules: HistoryRules,
    /// Heads of all segments.
    pub heads: Vec<SegmentHead>,
    /// A certified header after the last segment, which proves all of them.
    pub target: CertifiedHeader,
}

impl Made {
    /// A chain of `bytes` in equal segments of at least `segment_bytes`, in chunks of
    /// `chunk_bytes`.
    ///
    /// # Panics
    /// When the lengths break a rule of the genesis.
    #[must_use]
    pub fn new(bytes: u64, segment_bytes: u64, chunk_bytes: u64) -> Self {
        let key = SigningKey::from_seed(&[7; 32]);
        let chain = Chain::new(genesis(&key, segment_bytes, chunk_bytes));
        let rules = chain.history_rules();
        let count = (bytes / segment_bytes).max(1);
        let heads: Vec<SegmentHead> = (0..count)
            .map(|index| head(&chain, &key, index, (bytes / count).max(segment_bytes)))
            .collect();
        let descriptors = heads.iter().map(|head| head.descriptor);
        let history = History::restore(rules, descriptors).expect("made by the rules");
        let header = Header {
            version: 1,
            height: history.tip().next(),
            time: Timestamp(1),
            parent: last_block(count - 1),
            proposer: key.public(),
            transactions_root: Hash::ZERO,
            state_root: ledger::hash::StateRoot(Hash::ZERO),
            history_root: history.root(),
            validators: chain.validators(Height(1)).hash(),
            next_validators: chain.validators(Height(1)).hash(),
            parent_certificate: Hash::ZERO,
        };
        let certificate = certify(&chain, &key, header.height, header.hash());
        Self { rules, heads, target: CertifiedHeader { header, certificate }, chain }
    }

    /// The history of a node that has applied this many segments.
    ///
    /// # Panics
    /// When the chain has fewer segments.
    #[must_use]
    pub fn history(&self, segments: usize) -> History {
        History::restore(self.rules, self.descriptors(segments)).expect("made by the rules")
    }

    /// Descriptors of this many segments, from the first on.
    #[must_use]
    pub fn descriptors(&self, segments: usize) -> Vec<SegmentDescriptor> {
        self.heads[..segments].iter().map(|head| head.descriptor).collect()
    }

    /// Length of all segments, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.heads.iter().map(|head| head.descriptor.bytes).sum()
    }

    /// Number of chunks in all segments.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.heads.iter().map(|head| head.chunks.len() as u64).sum()
    }

    /// The head of a segment of this chain.
    #[must_use]
    pub fn head(&self, segment: SegmentIndex) -> &SegmentHead {
        &self.heads[segment.0 as usize]
    }

    /// Hash and length of a chunk; `None` if there is no such chunk.
    #[must_use]
    pub fn chunk(&self, id: ChunkId) -> Option<(Hash, u64)> {
        let head = self.heads.get(usize::try_from(id.segment.index.0).ok()?)?;
        let range = head.descriptor.chunk_range(u64::from(id.chunk), &self.rules)?;
        Some((head.chunks[id.chunk as usize], range.end - range.start))
    }

    /// The id of this chain's history.
    #[must_use]
    pub fn id(&self) -> CollectionId {
        CollectionId(self.chain.id().0)
    }
}

fn genesis(key: &SigningKey, segment_bytes: u64, chunk_bytes: u64) -> Genesis {
    let template = Genesis::from_json(include_bytes!("../../../genesis.json"));
    let mut genesis =
        template.unwrap_or_else(|error| panic!("the template is a valid genesis: {error}"));
    let payout = genesis.validators[0].payout;
    let validator = GenesisValidator {
        name: "one".to_owned(),
        key: key.public(),
        payout,
        power: VotingPower(1),
    };
    genesis.validators = vec![validator];
    genesis.limits.segment_bytes = segment_bytes;
    genesis.limits.chunk_bytes = chunk_bytes;
    genesis.limits.block_bytes_max = genesis.limits.block_bytes_max.min(segment_bytes);
    let problems = genesis.problems();
    assert!(problems.is_empty(), "a swarm keeps the rules of the genesis: {problems:?}");
    genesis
}

fn last_block(index: u64) -> BlockHash {
    BlockHash(Hash::of(Domain::Block, &[&index.to_le_bytes()]))
}

fn head(chain: &Chain, key: &SigningKey, index: u64, bytes: u64) -> SegmentHead {
    let count = bytes.div_ceil(chain.history_rules().chunk_bytes);
    let hash = |chunk: u64| Hash::of(Domain::Chunk, &[&index.to_le_bytes(), &chunk.to_le_bytes()]);
    let chunks: Vec<Hash> = (0..count).map(hash).collect();
    let descriptor = SegmentDescriptor {
        index,
        first: Height(index * BLOCKS + 1),
        last: Height((index + 1) * BLOCKS),
        bytes,
        chunks_root: merkle::root(&chunks),
        blocks_root: Hash::ZERO,
        last_block: last_block(index),
    };
    let certificate = certify(chain, key, descriptor.last, descriptor.last_block);
    SegmentHead { descriptor, chunks, certificate }
}

fn certify(chain: &Chain, key: &SigningKey, height: Height, block: BlockHash) -> Certificate {
    let vote = ledger::certificate::Vote {
        kind: VoteKind::Precommit,
        height,
        round: Round(0),
        block: Some(block),
        validator: key.public(),
    };
    let signature = key.sign(&vote.message(chain.id()));
    Certificate::new(height, Round(0), block, chain.validators(height), [(key.public(), signature)])
}
