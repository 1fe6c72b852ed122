//! Bodies of proposed blocks: assembled from the mempool and from peers, judged, and kept while
//! they can still matter.
//!
//! A height can take any number of rounds, so bodies of rounds further back are dropped
//! ([`Bodies::on_round`]). A dropped body that is needed again is fetched like any missing body.
//!
//! A proposer chooses the content of a block, so all work on it is bounded here: two blocks a
//! round, one look-up for each transaction of a block, one execution for each block. The missing
//! transactions of a block are a set that only shrinks, so no input makes the machine look through
//! a whole block again.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::{BlockError, ChainState, ValidBlock};
use ledger::hash::{BlockHash, TxHash};
use ledger::transaction::{
    Transaction, VerifiedTransaction, transaction_hash, verify_transactions,
};
use ledger::units::{Round, Timestamp};

use crate::ids::{PeerId, RequestId};
use crate::live::mempool::Mempool;
use crate::message::{CompactBlock, REQUESTED_TRANSACTIONS_MAX, Request, SignedProposal};
use crate::offence::Offence;
use fetch::Wanted;

/// Most blocks of one round that are fetched or judged. An honest proposer makes one. More than two
/// are of no use, since the consensus core drops the third.
const PER_ROUND_MAX: usize = 2;
/// Bytes of the smallest transaction: a transfer with one output and no memo. It bounds how many
/// transactions a block can have. A peer's list of more transactions is refused.
pub(crate) const TRANSACTION_BYTES_MIN: u64 = 177;

/// Work on proposed blocks since the machine's start. Tests compare it with bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Look-ups of single transactions of proposed blocks, in the mempool or among the missing
    /// ones.
    pub look_ups: u64,
    /// Blocks built, or executed to be judged. Blocks that a restart executes again from its log
    /// are not counted.
    pub executed: u64,
    /// Blocks written to the log.
    pub logged: u64,
}

/// The verdict on a block.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Made once and handed on: a box costs more than the move.
pub(crate) enum Verdict {
    /// It is valid as the next block after the tip.
    Valid(ValidBlock),
    /// It is invalid, and remains so.
    Invalid,
}

/// The result of trying to complete a block.
pub(crate) enum Progress {
    /// Judged: tell consensus the verdict on these proposals.
    Judged(Vec<SignedProposal>, Verdict, Option<BlockError>),
    /// Ask a peer.
    Ask(PeerId, Request),
    /// No peer can be asked now, a request is in flight, or the block's time is too far ahead of
    /// the clock.
    Wait,
}

/// Bodies of the height after the tip.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    verdicts: BTreeMap<BlockHash, Verdict>,
    wanted: BTreeMap<BlockHash, Wanted>,
    /// The transactions of all valid blocks by hash. Built when a peer asks, dropped when a block
    /// is added: without this index each requested hash would cost up to 12,000 comparisons a
    /// block.
    transactions: Option<BTreeMap<TxHash, Arc<VerifiedTransaction>>>,
    /// Blocks fetched or judged, by the rounds near the current one in which they were proposed.
    rounds: BTreeMap<Round, BTreeSet<BlockHash>>,
    /// The last block that was built here.
    built: Option<BlockHash>,
    /// Connected peers that gave a part of a block when they were last asked for one.
    gave: BTreeSet<PeerId>,
    work: Work,
}

impl Bodies {
    /// Forgets the decided height.
    pub(crate) fn next_height(&mut self) {
        self.verdicts.clear();
        self.transactions = None;
        self.wanted.clear();
        self.rounds.clear();
        self.built = None;
    }

    /// Drops blocks that are no longer needed. Of the judged blocks it keeps those of the last,
    /// this and the next round, the last block built here, and the `pinned` ones: the values that
    /// consensus calls locked and valid. Of the blocks that are being fetched it keeps those
    /// proposed in these three rounds and the decided one. Blocks of later rounds exist if the
    /// height was begun again at round 0.
    ///
    /// If a dropped block is decided after all, it is fetched again: see [`Bodies::want_decided`].
    /// A quorum precommitted it, so the honest validators of this quorum are locked on it and hold
    /// it.
    pub(crate) fn on_round(&mut self, round: Round, pinned: &BTreeSet<BlockHash>) {
        let near = Round(round.0.saturating_sub(1))..=Round(round.0.saturating_add(1));
        self.wanted.retain(|_, wanted| {
            wanted.is_decided
                || wanted.proposals.iter().any(|signed| near.contains(&signed.proposal.round))
        });
        self.rounds.retain(|round, _| near.contains(round));
        let (rounds, built, before) = (&self.rounds, self.built, self.verdicts.len());
        self.verdicts.retain(|block, _| {
            pinned.contains(block)
                || built == Some(*block)
                || rounds.values().any(|blocks| blocks.contains(block))
        });
        if self.verdicts.len() < before {
            self.transactions = None;
        }
    }

    /// Blocks in memory: judged, or being fetched.
    pub(crate) fn held(&self) -> usize {
        self.verdicts.len().saturating_add(self.wanted.len())
    }

    pub(crate) const fn work(&self) -> Work {
        self.work
    }

    /// The last block that was built here, if it is held.
    pub(crate) fn built(&self) -> Option<&ValidBlock> {
        match self.verdicts.get(&self.built?) {
            Some(Verdict::Valid(valid)) => Some(valid),
            Some(Verdict::Invalid) | None => None,
        }
    }

    /// Notes that a held block was proposed in a round. The block is kept while the round is near.
    pub(crate) fn on_proposed(&mut self, block: BlockHash, round: Round) {
        self.rounds.entry(round).or_default().insert(block);
    }

    pub(crate) const fn note_logged(&mut self) {
        self.work.logged = self.work.logged.saturating_add(1);
    }

    pub(crate) fn verdict(&self, block: &BlockHash) -> Option<&Verdict> {
        self.verdicts.get(block)
    }

    /// Blocks that are valid as the next block after the tip.
    pub(crate) fn valid(&self) -> impl Iterator<Item = &ValidBlock> {
        self.verdicts.values().filter_map(|verdict| match verdict {
            Verdict::Valid(valid) => Some(valid),
            Verdict::Invalid => None,
        })
    }

    /// Adds a block that was built here, for a round.
    pub(crate) fn insert_built(&mut self, block: ValidBlock, round: Round) {
        self.work.executed = self.work.executed.saturating_add(1);
        self.built = Some(block.hash());
        self.on_proposed(block.hash(), round);
        self.insert(block);
    }

    /// Adds a valid block: one that was just built here, or one that was judged before a restart.
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
                transactions: valid
                    .block()
                    .transactions
                    .iter()
                    .map(|transaction| transaction.hash())
                    .collect(),
            }),
            _ => self.wanted.get(block)?.list.as_ref().map(|list| list.compact.clone()),
        }
    }

    /// Checks that a list is that of a block. Cheap checks go first, and if the list is known
    /// already, it is compared and not hashed.
    ///
    /// # Errors
    /// `Offence::BlockList` when the list has more transactions than fit in a block,
    /// `Offence::WrongBlock` when it is not the list of this block.
    pub(crate) fn check_list(
        &self,
        chain: &ChainState,
        block: BlockHash,
        list: &CompactBlock,
    ) -> Result<(), Offence> {
        let (count, most) = (list.transactions.len(), transactions_max(chain));
        if count > most {
            return Err(Offence::BlockList { count, most });
        }
        let is_same = match (
            self.verdicts.get(&block),
            self.wanted.get(&block).and_then(|wanted| wanted.list.as_ref()),
        ) {
            (Some(Verdict::Valid(valid)), _) => {
                let known = valid.block();
                known.header == list.header
                    && known.parent_certificate == list.parent_certificate
                    && known.transactions.len() == count
                    && known
                        .transactions
                        .iter()
                        .zip(&list.transactions)
                        .all(|(known, hash)| known.hash() == *hash)
            }
            (None, Some(known)) => known.compact == *list,
            _ => list.is(block),
        };
        if is_same { Ok(()) } else { Err(Offence::WrongBlock) }
    }

    /// A transaction of a valid proposed block, for a peer. It may have left the mempool.
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

    /// Fetches the block of a proposal from now on, unless its round already has [`PER_ROUND_MAX`]
    /// blocks.
    pub(crate) fn want(&mut self, proposal: SignedProposal) {
        let (block, round) = (proposal.proposal.block, proposal.proposal.round);
        let is_known = self.rounds.values().any(|blocks| blocks.contains(&block));
        let of_round = self.rounds.entry(round).or_default();
        let is_bounded = !crate::planted::is(crate::planted::Fault::BlocksOfRoundUnbounded);
        if !is_known && of_round.len() >= PER_ROUND_MAX && is_bounded {
            return;
        }
        of_round.insert(block);
        let wanted = self.wanted.entry(block).or_insert_with(Wanted::new);
        wanted.on_proposal(proposal);
    }

    /// Fetches a decided block that was dropped.
    pub(crate) fn want_decided(&mut self, block: BlockHash) {
        self.wanted.entry(block).or_insert_with(Wanted::new).is_decided = true;
    }

    /// Takes in the list of a block that is being fetched. The caller has checked the list by
    /// [`Bodies::check_list`].
    pub(crate) fn on_list(
        &mut self,
        block: &BlockHash,
        compact: CompactBlock,
        from: PeerId,
        mempool: &Mempool,
    ) {
        let Some(wanted) = self.wanted.get_mut(block).filter(|wanted| wanted.list.is_none()) else {
            return;
        };
        let look_ups = wanted.on_list(compact, from, mempool);
        self.work.look_ups = self.work.look_ups.saturating_add(look_ups);
    }

    /// Takes in a verified transaction, whether or not the mempool admitted it.
    pub(crate) fn on_transaction(&mut self, transaction: &Arc<VerifiedTransaction>) {
        let hash = transaction.hash();
        for wanted in self.wanted.values_mut() {
            let Some(list) = wanted.list.as_mut().filter(|list| !list.missing.is_empty()) else {
                continue;
            };
            self.work.look_ups = self.work.look_ups.saturating_add(1);
            list.fill(&hash, transaction);
            wanted.is_due |= list.missing.is_empty();
        }
    }

    /// When the next fetched block needs attention.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.wanted.values().filter_map(|wanted| wanted.wait).min()
    }

    pub(crate) fn is_wanted(&self, block: &BlockHash) -> bool {
        self.wanted.contains_key(block)
    }

    /// Blocks that need attention now.
    pub(crate) fn due(&self, now: Duration) -> Vec<BlockHash> {
        let is_due = |wanted: &Wanted| {
            wanted.is_due
                || wanted.wait.is_some_and(|at| at <= now)
                || crate::planted::is(crate::planted::Fault::AssembledAtEachInput)
        };
        self.wanted.iter().filter(|(_, wanted)| is_due(wanted)).map(|(block, _)| *block).collect()
    }

    /// A request was sent.
    pub(crate) fn asked(&mut self, block: &BlockHash, id: RequestId, peer: PeerId, now: Duration) {
        if let Some(wanted) = self.wanted.get_mut(block) {
            wanted.on_asked(id, peer, now);
            self.gave.remove(&peer);
        }
    }

    /// A peer gave a part of a block when it was asked.
    pub(crate) fn on_gave(&mut self, block: &BlockHash, peer: PeerId) {
        self.gave.insert(peer);
        if let Some(wanted) = self.wanted.get_mut(block) {
            wanted.on_gave(peer);
        }
    }

    pub(crate) fn on_disconnected(&mut self, peer: PeerId) {
        self.gave.remove(&peer);
    }

    /// The block that an answered request was about.
    pub(crate) fn answered(&mut self, id: RequestId) -> Option<BlockHash> {
        let mut wanted = self.wanted.iter_mut();
        wanted.find_map(|(block, wanted)| wanted.on_answer(id).then_some(*block))
    }

    /// Takes in transactions from a peer for a block that is being fetched. Transactions that are
    /// not missing are ignored.
    pub(crate) fn on_transactions(
        &mut self,
        chain: &ChainState,
        block: &BlockHash,
        transactions: Vec<Transaction>,
        from: PeerId,
    ) {
        let id = chain.chain().id();
        let Some(list) = self.wanted.get_mut(block).and_then(|wanted| wanted.list.as_mut()) else {
            return;
        };
        let mut missing: BTreeMap<TxHash, Transaction> = BTreeMap::new();
        for transaction in transactions.into_iter().take(REQUESTED_TRANSACTIONS_MAX) {
            self.work.look_ups = self.work.look_ups.saturating_add(1);
            let hash = transaction_hash(id, &transaction);
            if list.missing.contains_key(&hash) {
                missing.insert(hash, transaction);
            }
        }
        let (hashes, missing): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        let mut fetched = Vec::new();
        for (hash, verified) in hashes.into_iter().zip(verify_transactions(id, missing)) {
            match verified {
                Some(transaction) => {
                    list.fill(&hash, &transaction);
                    fetched.push(transaction);
                }
                None => list.is_forged = true,
            }
        }
        // Other blocks that are being fetched may lack the same transactions.
        fetched.iter().for_each(|transaction| self.on_transaction(transaction));
        if !fetched.is_empty() {
            self.on_gave(block, from);
        }
    }

    /// Judges a block if it is complete, or returns the next step towards that.
    pub(crate) fn advance(
        &mut self,
        block: BlockHash,
        chain: &ChainState,
        mempool: &Mempool,
        peers: &[PeerId],
        now: Duration,
        wall: Timestamp,
    ) -> Progress {
        let Some(wanted) = self.wanted.get_mut(&block) else { return Progress::Wait };
        wanted.is_due = false;
        wanted.wait = None;
        if crate::planted::is(crate::planted::Fault::AssembledAtEachInput)
            && let Some(list) = &wanted.list
        {
            let known =
                list.compact.transactions.iter().filter(|hash| mempool.get(hash).is_some()).count();
            let looked_up = list.compact.transactions.len().max(known) as u64;
            self.work.look_ups = self.work.look_ups.saturating_add(looked_up);
        }
        match &wanted.list {
            Some(list) if list.is_forged => return self.judge(block, Verdict::Invalid, None),
            Some(list) if list.missing.is_empty() => {
                let latest = wall.0.saturating_add(chain.chain().limits().clock_drift_ms);
                if let Some(early @ 1..) = list.compact.header.time.0.checked_sub(latest) {
                    // The block is not invalid: this clock will reach its time, and clocks are no
                    // part of the rules.
                    wanted.wait = Some(now.saturating_add(Duration::from_millis(early)));
                    return Progress::Wait;
                }
                self.work.executed = self.work.executed.saturating_add(1);
                return match chain.validate(list.block()) {
                    Ok(valid) => self.judge(block, Verdict::Valid(valid), None),
                    Err(error) => self.judge(block, Verdict::Invalid, Some(error)),
                };
            }
            Some(_) | None => {}
        }
        match wanted.choose(peers, &self.gave, now) {
            Some(peer) => Progress::Ask(peer, wanted.request(block, chain)),
            None => Progress::Wait,
        }
    }

    fn judge(&mut self, block: BlockHash, verdict: Verdict, error: Option<BlockError>) -> Progress {
        let proposals =
            self.wanted.remove(&block).map(|wanted| wanted.proposals).unwrap_or_default();
        self.verdicts.insert(block, verdict.clone());
        self.transactions = None;
        Progress::Judged(proposals, verdict, error)
    }
}

/// Most transactions that fit in a block.
pub(crate) fn transactions_max(chain: &ChainState) -> usize {
    let most = chain.chain().limits().block_bytes_max / TRANSACTION_BYTES_MIN;
    usize::try_from(most).unwrap_or(usize::MAX)
}
