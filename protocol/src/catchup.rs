//! Catching up: blocks that others made final without this node, applied in order.
//!
//! Whole sealed segments come from [`crate::sync`], verified; the blocks before and after them are fetched here, by ranges, from several
//! peers at once. A height counts only with its certificate; a block only when a certificate names it. So a peer can delay, never mislead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ledger::block::Block;
use ledger::certificate::Certificate;
use ledger::chain::{BlockError, ChainState, Committed};
use ledger::transaction::{Transaction, VerifiedTransaction, verify_transactions};
use ledger::units::Height;

use crate::ids::{PeerId, RequestId};
use crate::message::{BEHIND_FAR, BLOCKS_MAX};
use crate::offence::Offence;

/// Requests for blocks under way at once.
const IN_FLIGHT_MAX: usize = 4;
/// A node that lags by one block waits so long for consensus to bring it.
const GRACE: Duration = Duration::from_millis(400);
/// After so long without an answer another peer is asked.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Flight {
    peer: PeerId,
    from: Height,
    deadline: Duration,
    /// Another peer may be asked for the same; the answer still counts when it comes.
    is_late: bool,
}

/// Blocks that wait for those before them.
#[derive(Debug)]
struct Received {
    peer: PeerId,
    blocks: Vec<Block<Transaction>>,
    certificate: Certificate,
}

/// Bytes of blocks of a segment that are committed together: the driver performs nothing else meanwhile.
const COMMIT_BYTES: usize = 2 << 20;

/// A block whose signatures hold, and why it is final.
type Final = (Block<Arc<VerifiedTransaction>>, Certificate);

/// Final blocks, and the chain after them.
pub(crate) type Batch = (Vec<Committed>, ChainState);

/// Why a response was no use.
#[derive(Debug)]
pub(crate) enum CatchUpError {
    /// What the peer sent is not what any certificate names.
    Peer(PeerId, Offence),
    /// A certified block breaks the rules: more than a third of the power is dishonest, or this code is too old or wrong.
    Certified(BlockError),
}

/// What is known of heights beyond the tip, and what is being fetched.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    /// Highest height that each peer has proved.
    proved: BTreeMap<PeerId, Height>,
    /// Since when a height beyond the tip is known.
    behind_since: Option<Duration>,
    flights: BTreeMap<RequestId, Flight>,
    received: BTreeMap<Height, Received>,
    /// Blocks of a segment that follow the tip.
    segment: VecDeque<Final>,
    /// Which heights come as segments; nothing while that is not known of a node far behind.
    plan: Option<Option<(Height, Height)>>,
    /// The highest header that sync was told of.
    told: Height,
}

impl CatchUp {
    /// A peer has a certified block of this height.
    pub(crate) fn on_proof(&mut self, peer: PeerId, height: Height) {
        let best = self.proved.entry(peer).or_default();
        *best = height.max(*best);
    }

    pub(crate) fn on_disconnected(&mut self, peer: PeerId) {
        self.proved.remove(&peer);
        self.flights.retain(|_, flight| flight.peer != peer);
    }

    pub(crate) fn best(&self) -> Height {
        self.proved.values().max().copied().unwrap_or_default()
    }

    pub(crate) fn proved(&self) -> &BTreeMap<PeerId, Height> {
        &self.proved
    }

    /// Whether consensus cannot be expected to bring the next block. While this holds, the node signs nothing.
    pub(crate) fn is_behind(&mut self, tip: Height, now: Duration) -> bool {
        if self.is_in_segments(tip) {
            // Certified, and on its way or here: also if whoever said so has gone.
            return true;
        }
        let lag = self.best().0.saturating_sub(tip.0);
        if lag == 0 {
            self.behind_since = None;
            return false;
        }
        let since = *self.behind_since.get_or_insert(now);
        lag > 1 || now >= since.saturating_add(GRACE)
    }

    /// Whether sync should hear of a certified header: more than a few blocks are missing.
    pub(crate) fn is_news_to_sync(&mut self, tip: Height, height: Height) -> bool {
        let is_far = |from: Height| height.0.saturating_sub(from.0) > BEHIND_FAR;
        if !is_far(tip) || height <= self.told {
            return false;
        }
        if self.told <= tip {
            // Far behind anew: what is fetched how is to be said anew.
            self.plan = None;
        }
        self.told = height;
        true
    }

    /// Which heights come as segments.
    pub(crate) fn on_plan(&mut self, plan: Option<(Height, Height)>) {
        self.plan = Some(plan);
    }

    /// The verified blocks of a segment; those up to the tip are known.
    pub(crate) fn on_segment(
        &mut self,
        tip: Height,
        blocks: Vec<Block<Arc<VerifiedTransaction>>>,
        certificate: Certificate,
    ) {
        let mut certificates: Vec<Certificate> =
            blocks.iter().skip(1).map(|block| block.parent_certificate.clone()).collect();
        certificates.push(certificate);
        let blocks = blocks.into_iter().zip(certificates);
        self.segment.extend(blocks.filter(|(block, _)| block.header.height > tip));
    }

    /// Whether the next block comes in a segment.
    fn is_in_segments(&self, tip: Height) -> bool {
        self.plan.flatten().is_some_and(|(first, last)| first <= tip.next() && tip < last)
    }

    /// Up to which height blocks are fetched by ranges now.
    fn range_end(&self, tip: Height) -> Option<Height> {
        let best = self.best();
        let is_far = best.0.saturating_sub(tip.0) > BEHIND_FAR;
        match self.plan {
            Some(Some((first, _))) if tip.next() < first => Some(Height(first.0.saturating_sub(1))),
            _ if self.is_in_segments(tip) => None,
            None if is_far => None,
            _ => Some(best),
        }
    }

    /// When a node that follows consensus turns to catching up, if consensus does not bring the next block before.
    pub(crate) fn grace_ends(&self) -> Option<Duration> {
        self.behind_since.map(|since| since.saturating_add(GRACE))
    }

    /// When a node that catches up asks somebody else.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.on_time().map(|flight| flight.deadline).min()
    }

    /// Which blocks to ask from whom now. Each is to be confirmed by [`CatchUp::asked`].
    pub(crate) fn next_requests(&mut self, tip: Height, now: Duration) -> Vec<(PeerId, Height)> {
        self.flights.values_mut().for_each(|flight| flight.is_late = flight.deadline <= now);
        self.received.retain(|first, _| *first > tip);
        let mut requests = Vec::new();
        let mut from = tip.next();
        let Some(end) = self.range_end(tip) else { return requests };
        while from <= end && self.on_time().count().saturating_add(requests.len()) < IN_FLIGHT_MAX {
            if let Some(received) = self.received.get(&from) {
                from = Height(from.0.saturating_add(received.blocks.len().max(1) as u64));
                continue;
            }
            if from.0 > tip.0.saturating_add(BLOCKS_MAX.saturating_mul(IN_FLIGHT_MAX as u64)) {
                break;
            }
            let underway = self.on_time().any(|flight| flight.from == from);
            if !underway && let Some(peer) = self.least_busy(from, &requests) {
                requests.push((peer, from));
            }
            // The next range begins where a full answer ends; a short one leaves a gap that is asked again.
            let known = self.received.range(from..).next().map(|(first, _)| *first);
            let stride = Height(from.0.saturating_add(BLOCKS_MAX));
            from = known.map_or(stride, |known| known.min(stride));
        }
        requests
    }

    fn on_time(&self) -> impl Iterator<Item = &Flight> {
        self.flights.values().filter(|flight| !flight.is_late)
    }

    fn least_busy(&self, from: Height, requests: &[(PeerId, Height)]) -> Option<PeerId> {
        let busy = |peer: &PeerId| {
            let flying = self.flights.values().filter(|flight| flight.peer == *peer).count();
            flying.saturating_add(requests.iter().filter(|(asked, _)| asked == peer).count())
        };
        let holders = self.proved.iter().filter(|(_, height)| **height >= from).map(|(peer, _)| *peer);
        let late =
            |peer: &PeerId| self.flights.values().filter(|flight| flight.peer == *peer && flight.is_late).count();
        holders.min_by_key(|peer| (late(peer), busy(peer), *peer))
    }

    pub(crate) fn asked(&mut self, id: RequestId, peer: PeerId, from: Height, now: Duration) {
        self.flights.insert(id, Flight { peer, from, deadline: now.saturating_add(PATIENCE), is_late: false });
    }

    /// Takes in the answer to a request, if it is one of these.
    pub(crate) fn on_blocks(
        &mut self,
        id: RequestId,
        answer: Option<(Vec<Block<Transaction>>, Certificate)>,
    ) -> Option<Result<(), CatchUpError>> {
        let flight = self.flights.remove(&id)?;
        let Some((blocks, certificate)) = answer else {
            // It may have pruned, or be busy: it gets fewer questions, not a ban.
            self.proved.remove(&flight.peer);
            return Some(Ok(()));
        };
        let Some(first) = blocks.first().map(|block| block.header.height) else {
            self.proved.remove(&flight.peer);
            return Some(Ok(()));
        };
        if first != flight.from || blocks.len() as u64 > BLOCKS_MAX {
            let offence = Offence::BlocksUnasked { first, count: blocks.len(), asked: flight.from };
            return Some(Err(CatchUpError::Peer(flight.peer, offence)));
        }
        self.received.entry(flight.from).or_insert(Received { peer: flight.peer, blocks, certificate });
        Some(Ok(()))
    }

    /// The blocks that follow the tip, verified and validated, if they are there.
    pub(crate) fn take_next(&mut self, chain: &ChainState) -> Option<Result<Batch, CatchUpError>> {
        if let Some(batch) = self.take_of_segment(chain) {
            return Some(batch);
        }
        let received = self.received.remove(&chain.tip().height.next())?;
        Some(verify(chain, received))
    }
}

impl CatchUp {
    /// Some blocks of a segment, in order by the same rules as all others.
    fn take_of_segment(&mut self, chain: &ChainState) -> Option<Result<Batch, CatchUpError>> {
        let next = chain.tip().height.next();
        while self.segment.front().is_some_and(|(block, _)| block.header.height < next) {
            self.segment.pop_front();
        }
        if self.segment.front()?.0.header.height != next {
            return None;
        }
        let (mut state, mut commits, mut bytes) = (chain.clone(), Vec::new(), 0usize);
        while bytes < COMMIT_BYTES
            && let Some((block, certificate)) = self.segment.pop_front()
        {
            let valid = match state.validate(block) {
                Ok(valid) => valid,
                Err(error) => return Some(Err(CatchUpError::Certified(error))),
            };
            bytes = bytes.saturating_add(valid.bytes().len());
            commits.push(state.commit(valid, certificate));
        }
        Some(Ok((commits, state)))
    }
}

/// Certificates first: they cost little and show who is to blame. Then all signatures in one batch, then the rules, in order.
fn verify(chain: &ChainState, received: Received) -> Result<Batch, CatchUpError> {
    let Received { peer, blocks, certificate } = received;
    let id = chain.chain().id();
    let blame = |offence: Offence| CatchUpError::Peer(peer, offence);
    let mut certificates: Vec<Certificate> =
        blocks.iter().skip(1).map(|block| block.parent_certificate.clone()).collect();
    certificates.push(certificate);
    let mut parent = chain.tip().hash;
    for (block, certificate) in blocks.iter().zip(&certificates) {
        let header = &block.header;
        let hash = header.hash();
        if header.parent != parent {
            return Err(blame(Offence::BlockUnlinked { height: header.height }));
        }
        let validators = chain.chain().validators(header.height);
        certificate
            .verify(id, validators, header.height, hash)
            .map_err(|error| blame(Offence::BlockUncertified { height: header.height, error }))?;
        let hashes: Vec<_> = block
            .transactions
            .iter()
            .map(|transaction| ledger::transaction::transaction_hash(id, transaction))
            .collect();
        if header.transactions_root != ledger::block::transactions_root(&hashes)
            || header.parent_certificate != block.parent_certificate.hash()
        {
            return Err(blame(Offence::BlockBody { height: header.height }));
        }
        parent = hash;
    }
    let counts: Vec<usize> = blocks.iter().map(|block| block.transactions.len()).collect();
    let (headers, transactions): (Vec<_>, Vec<_>) =
        blocks.into_iter().map(|block| ((block.header, block.parent_certificate), block.transactions)).unzip();
    let mut verified = verify_transactions(id, transactions.into_iter().flatten().collect()).into_iter();
    let mut state = chain.clone();
    let mut commits = Vec::with_capacity(headers.len());
    for (((header, parent_certificate), count), certificate) in headers.into_iter().zip(counts).zip(certificates) {
        let transactions: Option<Vec<Arc<_>>> = verified.by_ref().take(count).collect();
        let Some(transactions) = transactions else {
            let error = ledger::chain::TransactionError::Signature;
            return Err(CatchUpError::Certified(BlockError::Transaction { index: 0, error }));
        };
        let block = Block { header, parent_certificate, transactions };
        let valid = state.validate(block).map_err(CatchUpError::Certified)?;
        commits.push(state.commit(valid, certificate));
    }
    Ok((commits, state))
}
