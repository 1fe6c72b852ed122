//! Bodies of proposed blocks: assembled from the mempool and from peers, judged once, kept for the height.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::block::Block;
use ledger::chain::{BlockError, ChainState, ValidBlock};
use ledger::hash::{BlockHash, TxHash};
use ledger::transaction::{Transaction, VerifiedTransaction, transaction_hash, verify_transactions};
use ledger::units::Timestamp;

use crate::ids::{PeerId, RequestId};
use crate::mempool::Mempool;
use crate::message::{CompactBlock, REQUESTED_TRANSACTIONS_MAX, Request, SignedProposal};

/// Blocks of the next height remembered without their transactions; they cannot be judged yet.
const AHEAD_MAX: usize = 4;
/// Blocks of one round that are looked for. An honest proposer has one; more than two of another tell nothing new.
const PER_ROUND_MAX: usize = 2;
/// Blocks looked for at the same time; those of the oldest rounds give way.
const WANTED_MAX: usize = 32;
/// After so long without an answer another peer is asked.
const PATIENCE: Duration = Duration::from_millis(500);

/// A proposal whose block is not complete here.
#[derive(Debug)]
struct Wanted {
    /// Every proposal for this block: it may be proposed again in later rounds.
    proposals: Vec<SignedProposal>,
    /// Transactions that were not in the mempool. `None`: fetched, and its signature does not hold.
    fetched: BTreeMap<TxHash, Option<Arc<VerifiedTransaction>>>,
    /// Who has it first: who sent the proposal.
    source: PeerId,
    asked: Option<(RequestId, Duration)>,
    tries: usize,
    /// When to look at it again.
    wait: Option<Duration>,
}

/// What is known of a block.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
pub(crate) enum Verdict {
    /// It follows the tip.
    Valid(ValidBlock),
    /// It does not, and never will.
    Invalid,
}

/// The result of trying to complete a block.
pub(crate) enum Progress {
    /// Judged: tell consensus about these proposals.
    Judged(Vec<SignedProposal>, Verdict, Option<BlockError>),
    /// Ask a peer.
    Ask(PeerId, Request),
    /// An answer is awaited, or the block's time is ahead of the clock.
    Wait(Option<Duration>),
}

/// Bodies of one height.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    verdicts: BTreeMap<BlockHash, Verdict>,
    compact: BTreeMap<BlockHash, CompactBlock>,
    wanted: BTreeMap<BlockHash, Wanted>,
    /// The transactions of all valid blocks by hash. `None` until a peer asks, and again when a block is added: to look
    /// through the blocks at each question would cost 12,000 comparisons a hash.
    transactions: Option<BTreeMap<TxHash, Arc<VerifiedTransaction>>>,
}

impl Bodies {
    /// Forgets the decided height. Blocks of later heights stay, within bounds.
    pub(crate) fn next_height(&mut self, tip: ledger::units::Height) {
        self.verdicts.clear();
        self.transactions = None;
        self.wanted.clear();
        self.compact.retain(|_, compact| compact.header.height > tip);
    }

    pub(crate) fn verdict(&self, block: &BlockHash) -> Option<&Verdict> {
        self.verdicts.get(block)
    }

    pub(crate) fn insert(&mut self, block: ValidBlock) {
        self.verdicts.insert(block.hash(), Verdict::Valid(block));
        self.transactions = None;
    }

    /// The block without its transactions, for a peer.
    pub(crate) fn compact(&self, block: &BlockHash) -> Option<CompactBlock> {
        match self.verdicts.get(block) {
            Some(Verdict::Valid(valid)) => Some(CompactBlock {
                header: valid.header().clone(),
                parent_certificate: valid.block().parent_certificate.clone(),
                transactions: valid.block().transactions.iter().map(|transaction| transaction.hash()).collect(),
            }),
            _ => self.compact.get(block).cloned(),
        }
    }

    /// A transaction of a proposed block, for a peer: it may have left the mempool.
    pub(crate) fn transaction(&mut self, hash: &TxHash) -> Option<Arc<VerifiedTransaction>> {
        let verdicts = &self.verdicts;
        let index = self.transactions.get_or_insert_with(|| {
            let valid = verdicts.values().filter_map(|verdict| match verdict {
                Verdict::Valid(valid) => Some(valid),
                Verdict::Invalid => None,
            });
            let all = valid.flat_map(|valid| &valid.block().transactions);
            all.map(|transaction| (transaction.hash(), Arc::clone(transaction))).collect()
        });
        index.get(hash).cloned()
    }

    /// Remembers a block that is looked for without its transactions. The caller checked that it is what the hash stands for.
    pub(crate) fn remember(&mut self, block: BlockHash, compact: CompactBlock) {
        if self.wanted.contains_key(&block) {
            self.compact.insert(block, compact);
        }
    }

    /// Remembers a block of the height after the next. What finds no room is fetched when its height begins.
    pub(crate) fn remember_ahead(&mut self, block: BlockHash, compact: CompactBlock) {
        let height = compact.header.height;
        if self.compact.values().filter(|other| other.header.height == height).count() < AHEAD_MAX {
            self.compact.insert(block, compact);
        }
    }

    /// Looks for the block of a proposal from now on.
    pub(crate) fn want(&mut self, proposal: SignedProposal, source: PeerId) {
        let (block, round) = (proposal.proposal.block, proposal.proposal.round);
        if !self.wanted.contains_key(&block) {
            let first_round = |wanted: &Wanted| wanted.proposals.iter().map(|other| other.proposal.round).min();
            let of_round = self.wanted.values().filter(|wanted| first_round(wanted) == Some(round)).count();
            if of_round >= PER_ROUND_MAX {
                return;
            }
            if self.wanted.len() >= WANTED_MAX {
                let oldest = self.wanted.iter().min_by_key(|(_, wanted)| first_round(wanted)).map(|(block, _)| *block);
                if let Some(oldest) = oldest {
                    self.wanted.remove(&oldest);
                    self.compact.remove(&oldest);
                }
            }
        }
        let wanted = self.wanted.entry(block).or_insert_with(|| Wanted {
            proposals: Vec::new(),
            fetched: BTreeMap::new(),
            source,
            asked: None,
            tries: 0,
            wait: None,
        });
        if !wanted.proposals.contains(&proposal) {
            wanted.proposals.push(proposal);
        }
    }

    /// When a block that is looked for wants attention.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.wanted.values().filter_map(|wanted| wanted.wait).min()
    }

    pub(crate) fn is_wanted(&self, block: &BlockHash) -> bool {
        self.wanted.contains_key(block)
    }

    pub(crate) fn wanted(&self) -> Vec<BlockHash> {
        self.wanted.keys().copied().collect()
    }

    /// A request is on its way.
    pub(crate) fn asked(&mut self, block: &BlockHash, id: RequestId, now: Duration) {
        if let Some(wanted) = self.wanted.get_mut(block) {
            wanted.asked = Some((id, now.saturating_add(PATIENCE)));
            wanted.wait = Some(now.saturating_add(PATIENCE));
            wanted.tries = wanted.tries.saturating_add(1);
        }
    }

    /// The block that the last request for it was about. An answer to an earlier one comes too late: another peer was asked since.
    pub(crate) fn answered(&mut self, id: RequestId) -> Option<BlockHash> {
        let is_it = |wanted: &Wanted| wanted.asked.is_some_and(|(asked, _)| asked == id);
        let (block, wanted) = self.wanted.iter_mut().find(|(_, wanted)| is_it(wanted))?;
        wanted.asked = None;
        Some(*block)
    }

    /// Transactions from a peer for a wanted block. Others than the missing ones are left out.
    pub(crate) fn on_transactions(&mut self, chain: &ChainState, block: &BlockHash, transactions: Vec<Transaction>) {
        let id = chain.chain().id();
        let (Some(wanted), Some(compact)) = (self.wanted.get_mut(block), self.compact.get(block)) else { return };
        let named: std::collections::BTreeSet<&TxHash> = compact.transactions.iter().collect();
        let mut hashes = Vec::new();
        let mut missing = Vec::new();
        for transaction in transactions {
            let hash = transaction_hash(id, &transaction);
            if named.contains(&hash) && !wanted.fetched.contains_key(&hash) {
                hashes.push(hash);
                missing.push(transaction);
            }
        }
        wanted.fetched.extend(hashes.into_iter().zip(verify_transactions(id, missing)));
    }

    /// Completes a wanted block if all is there, or says what to do for it.
    pub(crate) fn advance(
        &mut self,
        block: BlockHash,
        chain: &ChainState,
        mempool: &Mempool,
        peers: &[PeerId],
        now: Duration,
        wall: Timestamp,
    ) -> Progress {
        let progress = self.try_advance(block, chain, mempool, peers, now, wall);
        if let (Progress::Wait(until), Some(wanted)) = (&progress, self.wanted.get_mut(&block)) {
            wanted.wait = *until;
        }
        progress
    }

    fn try_advance(
        &mut self,
        block: BlockHash,
        chain: &ChainState,
        mempool: &Mempool,
        peers: &[PeerId],
        now: Duration,
        wall: Timestamp,
    ) -> Progress {
        let Some(wanted) = self.wanted.get(&block) else { return Progress::Wait(None) };
        let height = chain.tip().height.next();
        let request = match self.compact.get(&block) {
            None => Request::Proposed(height, block),
            Some(compact) => match assemble(compact, wanted, mempool) {
                Assembled::Missing(hashes) => Request::Transactions(hashes),
                Assembled::Forged => return self.judge(block, Verdict::Invalid, None),
                Assembled::Complete(complete) => {
                    let latest = wall.0.saturating_add(chain.chain().limits().clock_drift_ms);
                    if let Some(early @ 1..) = complete.header.time.0.checked_sub(latest) {
                        // Never invalid: the clock will get there, and clocks are not part of the rules.
                        return Progress::Wait(Some(now.saturating_add(Duration::from_millis(early))));
                    }
                    return match chain.validate(complete) {
                        Ok(valid) => self.judge(block, Verdict::Valid(valid), None),
                        Err(error) => self.judge(block, Verdict::Invalid, Some(error)),
                    };
                }
            },
        };
        if let Some((_, deadline)) = wanted.asked.filter(|(_, deadline)| *deadline > now) {
            return Progress::Wait(Some(deadline));
        }
        // The first to ask is who sent the proposal, then everybody in turn.
        let others = peers.len().max(1);
        let next = match wanted.tries {
            0 if peers.contains(&wanted.source) => Some(wanted.source),
            tries => tries.checked_rem(others).and_then(|place| peers.get(place)).copied(),
        };
        match next {
            Some(peer) => Progress::Ask(peer, request),
            None => Progress::Wait(Some(now.saturating_add(PATIENCE))),
        }
    }

    fn judge(&mut self, block: BlockHash, verdict: Verdict, error: Option<BlockError>) -> Progress {
        let proposals = self.wanted.remove(&block).map(|wanted| wanted.proposals).unwrap_or_default();
        self.verdicts.insert(block, verdict.clone());
        self.transactions = None;
        Progress::Judged(proposals, verdict, error)
    }
}

#[allow(clippy::large_enum_variant)] // Made once and handed on: a box would cost more than the move.
enum Assembled {
    Complete(Block<Arc<VerifiedTransaction>>),
    Missing(Vec<TxHash>),
    /// The block holds a transaction that nobody signed.
    Forged,
}

fn assemble(compact: &CompactBlock, wanted: &Wanted, mempool: &Mempool) -> Assembled {
    let mut transactions = Vec::with_capacity(compact.transactions.len());
    let mut missing = Vec::new();
    for hash in &compact.transactions {
        match (wanted.fetched.get(hash), mempool.get(hash)) {
            (Some(None), _) => return Assembled::Forged,
            (Some(Some(transaction)), _) => transactions.push(Arc::clone(transaction)),
            (None, Some(transaction)) => transactions.push(transaction),
            (None, None) => missing.push(*hash),
        }
    }
    if missing.is_empty() {
        return Assembled::Complete(Block {
            header: compact.header.clone(),
            parent_certificate: compact.parent_certificate.clone(),
            transactions,
        });
    }
    missing.truncate(REQUESTED_TRANSACTIONS_MAX);
    Assembled::Missing(missing)
}
