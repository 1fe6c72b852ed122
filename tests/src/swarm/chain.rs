//! A made-up chain without blocks: descriptors, chunk hashes and certificates that verify, with no
//! bytes behind them. Only the state after each segment has bytes.

use std::sync::Arc;

use ledger::block::Header;
use ledger::certificate::{Certificate, VoteKind};
use ledger::chain::Chain;
use ledger::genesis::{Genesis, GenesisValidator};
use ledger::hash::{BlockHash, Domain, Hash, HistoryRoot};
use ledger::history::{History, HistoryRules, SegmentDescriptor, SegmentHead};
use ledger::merkle::{self, MerkleProof};
use ledger::signature::SigningKey;
use ledger::snapshot::Frontier;
use ledger::units::{Height, Round, SegmentIndex, Timestamp, VotingPower};
use protocol::message::CertifiedHeader;
use protocol::swarm::SnapshotOffer;
use protocol::swarm::message::{ChunkId, CollectionId};

use super::snapshots::MadeState;

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
    /// Headers of the last blocks of all segments.
    pub headers: Vec<Header>,
    /// The state after each segment.
    pub accounts: MadeState,
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
        Self::with_accounts(bytes, segment_bytes, chunk_bytes, 0)
    }

    /// Such a chain with this many accounts.
    ///
    /// # Panics
    /// When the lengths break a rule of the genesis.
    #[must_use]
    pub fn with_accounts(bytes: u64, segment_bytes: u64, chunk_bytes: u64, accounts: u64) -> Self {
        let key = SigningKey::from_seed(&[7; 32]);
        let chain = Chain::new(genesis(&key, segment_bytes, chunk_bytes));
        let rules = chain.history_rules();
        let count = (bytes / segment_bytes).max(1);
        let accounts = MadeState::new(accounts, chain.limits());
        let mut headers: Vec<Header> = Vec::new();
        let mut heads: Vec<SegmentHead> = Vec::new();
        for index in 0..count {
            let parent = block_hash(Height((index + 1) * BLOCKS - 1));
            let height = Height((index + 1) * BLOCKS);
            let header = header(&chain, &key, height, parent, &accounts);
            heads.push(head(&chain, &key, &header, (bytes / count).max(segment_bytes)));
            headers.push(header);
        }
        let descriptors = heads.iter().map(|head| head.descriptor);
        let history = History::restore(rules, descriptors).expect("made by the rules");
        let target = certified(&chain, &key, &history, &headers, &accounts);
        Self { rules, heads, headers, accounts, target, chain }
    }

    /// The certified header of the block after this many segments.
    ///
    /// # Panics
    /// When the chain has fewer segments.
    #[must_use]
    pub fn target_after(&self, segments: usize) -> CertifiedHeader {
        let key = SigningKey::from_seed(&[7; 32]);
        let (history, headers) = (self.history(segments), &self.headers[..segments]);
        certified(&self.chain, &key, &history, headers, &self.accounts)
    }

    /// The certified header of a block before the end of the first segment.
    #[must_use]
    pub fn target_inside(&self, height: Height) -> CertifiedHeader {
        let key = SigningKey::from_seed(&[7; 32]);
        let parent = block_hash(Height(height.0 - 1));
        let mut header = header(&self.chain, &key, height, parent, &self.accounts);
        header.history_root = self.history(0).root();
        let certificate = certify(&self.chain, &key, height, header.hash());
        CertifiedHeader { header, certificate }
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

    /// The snapshot at the end of a segment, with this frontier.
    ///
    /// # Panics
    /// When the chain has no such segment.
    #[must_use]
    pub fn offer(&self, segment: SegmentIndex, frontier: &Arc<Frontier>) -> SnapshotOffer {
        let head = self.head(segment);
        let height = head.descriptor.last;
        SnapshotOffer {
            height,
            id: frontier.id(height),
            frontier: Arc::clone(frontier),
            header: self.headers[segment.0 as usize].clone(),
            certificate: head.certificate.clone(),
        }
    }

    /// The place of the segment with this block.
    #[must_use]
    pub const fn manifest_index(&self, height: Height) -> usize {
        ((height.0 - 1) / BLOCKS) as usize
    }

    /// The hash of a block inside a segment, and its proof.
    #[must_use]
    pub fn block_proof(&self, height: Height) -> Option<(BlockHash, MerkleProof)> {
        let index = height.0.checked_sub(1)? / BLOCKS;
        let last = self.headers.get(usize::try_from(index).ok()?)?;
        let at = (height.0 - 1) % BLOCKS;
        let blocks = blocks(last);
        let proof = merkle::prove(&blocks, at as usize)?;
        Some((BlockHash(blocks[at as usize]), proof))
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

/// The hash of a block that ends no segment.
fn block_hash(height: Height) -> BlockHash {
    BlockHash(Hash::of(Domain::Block, &[&height.0.to_le_bytes()]))
}

fn header(
    chain: &Chain,
    key: &SigningKey,
    height: Height,
    parent: BlockHash,
    accounts: &MadeState,
) -> Header {
    Header {
        version: 1,
        height,
        time: Timestamp(1),
        parent,
        proposer: key.public(),
        transactions_root: Hash::ZERO,
        state_root: accounts.state.root(),
        history_root: HistoryRoot(Hash::ZERO),
        validators: chain.validators(Height(1)).hash(),
        next_validators: chain.validators(Height(1)).hash(),
        parent_certificate: Hash::ZERO,
    }
}

/// The hashes of the blocks of the segment that ends with this one.
fn blocks(last: &Header) -> Vec<Hash> {
    let heights = last.height.0 + 1 - BLOCKS..last.height.0;
    heights.map(|height| block_hash(Height(height)).0).chain([last.hash().0]).collect()
}

fn head(chain: &Chain, key: &SigningKey, last: &Header, bytes: u64) -> SegmentHead {
    let index = last.height.0 / BLOCKS - 1;
    let count = bytes.div_ceil(chain.history_rules().chunk_bytes);
    let hash = |chunk: u64| Hash::of(Domain::Chunk, &[&index.to_le_bytes(), &chunk.to_le_bytes()]);
    let chunks: Vec<Hash> = (0..count).map(hash).collect();
    let descriptor = SegmentDescriptor {
        index,
        first: Height(index * BLOCKS + 1),
        last: Height((index + 1) * BLOCKS),
        bytes,
        chunks_root: merkle::root(&chunks),
        blocks_root: merkle::root(&blocks(last)),
        last_block: last.hash(),
    };
    let certificate = certify(chain, key, descriptor.last, descriptor.last_block);
    SegmentHead { descriptor, chunks, certificate }
}

/// The certified header of the block after the last segment of a history.
fn certified(
    chain: &Chain,
    key: &SigningKey,
    history: &History,
    headers: &[Header],
    accounts: &MadeState,
) -> CertifiedHeader {
    let parent = headers[headers.len() - 1].hash();
    let mut header = header(chain, key, history.tip().next(), parent, accounts);
    header.history_root = history.root();
    let certificate = certify(chain, key, header.height, header.hash());
    CertifiedHeader { header, certificate }
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
