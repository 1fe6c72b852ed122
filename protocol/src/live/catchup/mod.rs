//! Catching up: applies blocks that others made final without this node, in order.
//!
//! Whole sealed segments come from [`crate::swarm`], verified. The blocks before and after them are
//! fetched here, by ranges, from several peers at once. A height is believed only with its
//! certificate, and a block only if a certificate names it. So a peer can delay this node, but
//! never mislead it.

mod follow;
mod holders;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ledger::block::{Block, verify_blocks};
use ledger::certificate::Certificate;
use ledger::chain::{BlockError, ChainState, Committed};
use ledger::hash::BlockHash;
use ledger::transaction::{Transaction, VerifiedTransaction, verify_transactions};
use ledger::units::Height;

use crate::ids::{PeerId, RequestId};
use crate::message::{BEHIND_FAR, BLOCKS_MAX, CertifiedHeader};
use crate::offence::Offence;
use crate::plan::FetchPlan;
use crate::planted::{self, Fault};
use holders::Holders;

/// Most requests for blocks in flight. Requests that timed out are not counted.
const IN_FLIGHT_MAX: usize = 4;
/// A node that catches up and lacks only one certified block keeps consensus stopped for at most
/// this long. Then consensus goes on, since it may still bring the block.
const GRACE: Duration = Duration::from_millis(400);
/// Delay from the certificate of the next block until catch-up fetches the block, if consensus is
/// fetching its body already. Otherwise there is no delay.
const BODY_GRACE: Duration = Duration::from_millis(100);
/// Timeout of a request. The peer then counts as failed and is asked less.
const PATIENCE: Duration = Duration::from_secs(5);
/// Delay after which a second peer is asked for the next block; the first answer counts. A third
/// peer is asked only once one of the two requests has timed out, so that a slow link does not
/// carry the block many times.
const SECOND_AFTER: Duration = Duration::from_millis(400);
/// The same delay if the first peer has answered before, since it is more likely slow than silent.
const SECOND_AFTER_KNOWN: Duration = Duration::from_millis(1_500);
/// Headers are kept for heights up to this far beyond the tip. Of heights further away only the
/// highest is remembered.
const HEADERS_AHEAD: u64 = 16;

#[derive(Debug)]
struct Flight {
    peer: PeerId,
    from: Height,
    /// When a second peer is asked for the same blocks.
    second_at: Duration,
    deadline: Duration,
    /// The request timed out. An answer still counts when it comes.
    is_late: bool,
}

/// Blocks that wait for the blocks before them.
#[derive(Debug)]
struct Received {
    peer: PeerId,
    blocks: Vec<Block<Transaction>>,
    certificate: Certificate,
}

/// Bytes of blocks of a segment that are committed together. A larger batch keeps the driver busy
/// for longer, and it performs nothing else meanwhile.
const COMMIT_BYTES: usize = 2 << 20;

/// A block whose signatures hold, and the certificate that makes it final.
type Final = (Block<Arc<VerifiedTransaction>>, Certificate);

/// Final blocks, and the chain after them.
pub(crate) type Batch = (Vec<Committed>, ChainState);

/// Why received blocks cannot be applied.
#[derive(Debug)]
pub(crate) enum CatchUpError {
    /// The peer sent blocks that it was not asked for, or that their certificates do not prove.
    Peer(PeerId, Offence),
    /// A certified block breaks the rules: more than two thirds of the power is dishonest, or this
    /// code is too old or wrong.
    Certified(BlockError),
}

/// The heights known beyond the tip, and the requests for their blocks.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// The highest height that a certificate proved.
    known: Height,
    /// Verified headers of the next heights.
    headers: BTreeMap<Height, CertifiedHeader>,
    holders: Holders,
    /// The next height, and since when a certificate of it or a later one is known.
    next_since: Option<(Height, Duration)>,
    flights: BTreeMap<RequestId, Flight>,
    received: BTreeMap<Height, Received>,
    /// Blocks of a segment that follow the tip.
    segment: VecDeque<Final>,
    /// How the blocks above the tip are fetched. `None` until the swarm machine has told it.
    plan: Option<FetchPlan>,
    /// The height of the highest header that the swarm machine was told of.
    told: Height,
}

impl CatchUp {
    /// `seed` decides which of several peers is asked. It must be secret: a peer that knows it can
    /// foresee the choice.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            known: Height(0),
            headers: BTreeMap::new(),
            holders: Holders::new(seed),
            next_since: None,
            flights: BTreeMap::new(),
            received: BTreeMap::new(),
            segment: VecDeque::new(),
            plan: None,
            told: Height(0),
        }
    }

    /// A header above the tip whose certificate was verified.
    pub(crate) fn on_verified(&mut self, tip: Height, certified: &CertifiedHeader) {
        let height = certified.header.height;
        self.known = self.known.max(height);
        if height.0.saturating_sub(tip.0) <= HEADERS_AHEAD {
            self.headers.insert(height, certified.clone());
        }
    }

    /// The hash that a certificate gave to a height above the tip.
    pub(crate) fn hash(&self, height: Height) -> Option<BlockHash> {
        self.headers.get(&height).map(|certified| certified.header.hash())
    }

    /// The certified header of the block after the tip.
    pub(crate) fn next_header(&self, tip: Height) -> Option<&CertifiedHeader> {
        self.headers.get(&tip.next())
    }

    /// A peer says that it has the block of this height, which is proved to exist.
    pub(crate) fn on_claim(&mut self, peer: PeerId, height: Height) {
        self.holders.on_claim(peer, height);
    }

    /// The highest block that a peer said to have.
    pub(crate) fn claim(&self, peer: PeerId) -> Height {
        self.holders.claim(peer)
    }

    pub(crate) fn on_connected(&mut self, peer: PeerId) {
        self.holders.on_connected(peer);
    }

    pub(crate) fn on_disconnected(&mut self, peer: PeerId) {
        self.holders.on_disconnected(peer);
        self.flights.retain(|_, flight| flight.peer != peer);
    }

    /// The highest height that a certificate proved.
    pub(crate) const fn known(&self) -> Height {
        self.known
    }

    /// The highest height that any peer claims, without the peers that failed when last asked.
    pub(crate) fn best(&self) -> Height {
        self.holders.best()
    }

    /// The highest height that each peer said to have.
    pub(crate) fn claims(&self) -> BTreeMap<PeerId, Height> {
        self.holders.claims()
    }

    /// Whether consensus must stop because it cannot bring the next block. While it is stopped,
    /// this node signs nothing.
    ///
    /// A certificate of a block after the next one proves that a quorum has finished the next
    /// height. If only the next block is certified, consensus goes on, after [`GRACE`] if it was
    /// stopped. The peer that shows the certificate may withhold the block, and others may still
    /// need this node's votes.
    pub(crate) fn is_behind(&mut self, tip: Height, now: Duration, is_catching_up: bool) -> bool {
        self.headers.retain(|height, _| *height > tip);
        let lag = self.known.0.saturating_sub(tip.0);
        if lag == 0 {
            self.next_since = None;
        }
        let since = match self.next_since {
            Some((next, since)) if next == tip.next() => since,
            _ => now,
        };
        if lag > 0 {
            self.next_since = Some((tip.next(), since));
        }
        let stops = planted::is(Fault::CertificateStopsConsensus)
            && lag == 1
            && now >= since.saturating_add(GRACE);
        // The heights of segments are certified, even if the peer that proved them has gone.
        self.is_in_segments(tip)
            || lag > 1
            || stops
            || (lag == 1 && is_catching_up && now < since.saturating_add(GRACE))
    }

    /// When to fetch the next block, if a certificate of it or of a later block is known.
    pub(crate) fn fetch_at(&self, is_body_coming: bool) -> Option<Duration> {
        let (_, since) = self.next_since?;
        Some(if is_body_coming { since.saturating_add(BODY_GRACE) } else { since })
    }

    /// Whether to tell the swarm machine of a certified header: it is higher than the last one
    /// told, and more than [`BEHIND_FAR`] blocks are missing.
    pub(crate) fn is_news_to_sync(&mut self, tip: Height, height: Height) -> bool {
        let is_far = |from: Height| height.0.saturating_sub(from.0) > BEHIND_FAR;
        if !is_far(tip) || height <= self.told {
            return false;
        }
        if self.told <= tip {
            // We fell far behind again, so the old plan is stale: wait for a new one.
            self.plan = None;
        }
        self.told = height;
        true
    }

    /// The swarm machine tells which heights come as segments.
    pub(crate) fn on_plan(&mut self, plan: FetchPlan) {
        self.plan = Some(plan);
    }

    /// Takes in the verified blocks of a segment; blocks up to the tip are dropped.
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
        let segments = self.plan.and_then(FetchPlan::segments);
        segments.is_some_and(|range| range.contains(tip.next()))
    }

    /// The height up to which blocks are fetched by ranges now. `None` if no range is due.
    fn range_end(&self, tip: Height) -> Option<Height> {
        let is_far = self.known.0.saturating_sub(tip.0) > BEHIND_FAR;
        match self.plan {
            Some(FetchPlan::Segments(range)) if tip.next() < range.first => range.first.previous(),
            _ if self.is_in_segments(tip) => None,
            None if is_far => None,
            _ => Some(self.known),
        }
    }

    /// The next time after `now` at which a request, the grace period or a peer's rest ends.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        let flights = self.on_time().flat_map(|flight| [flight.second_at, flight.deadline]);
        let grace = self.next_since.map(|(_, since)| since.saturating_add(GRACE));
        flights.chain(grace).chain(self.holders.next_rested(now)).filter(|at| *at > now).min()
    }

    /// The requests to make now. The caller confirms each by [`CatchUp::asked`].
    pub(crate) fn next_requests(&mut self, tip: Height, now: Duration) -> Vec<(PeerId, Height)> {
        for flight in
            self.flights.values_mut().filter(|flight| !flight.is_late && flight.deadline <= now)
        {
            flight.is_late = true;
            self.holders.on_failure(flight.peer, now);
        }
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
            if self.is_wanted(from, tip, now)
                && let Some(peer) = self.choose(from, &requests, now)
            {
                requests.push((peer, from));
            }
            // The next range begins where a full answer ends. After a short answer, the rest is
            // asked for later.
            let known = self.received.range(from..).next().map(|(first, _)| *first);
            let stride = Height(from.0.saturating_add(BLOCKS_MAX));
            from = known.map_or(stride, |known| known.min(stride));
        }
        requests
    }

    fn on_time(&self) -> impl Iterator<Item = &Flight> {
        self.flights.values().filter(|flight| !flight.is_late)
    }

    /// Whether a peer should be asked for the blocks from this height on. A second peer is asked
    /// only for the next block, if the first peer does not answer soon, since all later blocks wait
    /// for that one.
    fn is_wanted(&self, from: Height, tip: Height, now: Duration) -> bool {
        let mut flights = self.on_time().filter(|flight| flight.from == from);
        match (flights.next(), flights.next()) {
            (None, _) => true,
            (Some(first), None) => from == tip.next() && first.second_at <= now,
            (Some(_), Some(_)) => false,
        }
    }

    fn choose(
        &mut self,
        from: Height,
        requests: &[(PeerId, Height)],
        now: Duration,
    ) -> Option<PeerId> {
        let flights = &self.flights;
        self.holders.choose(from, now, |peer| {
            let asked = flights.values().filter(|flight| flight.peer == *peer);
            if asked.clone().any(|flight| flight.from == from && !flight.is_late) {
                return None;
            }
            Some(
                asked
                    .count()
                    .saturating_add(requests.iter().filter(|(asked, _)| asked == peer).count()),
            )
        })
    }

    pub(crate) fn asked(&mut self, id: RequestId, peer: PeerId, from: Height, now: Duration) {
        let second =
            if self.holders.has_answered(peer) { SECOND_AFTER_KNOWN } else { SECOND_AFTER };
        let (second_at, deadline) = (now.saturating_add(second), now.saturating_add(PATIENCE));
        self.flights.insert(id, Flight { peer, from, second_at, deadline, is_late: false });
    }

    /// Takes in the answer to a request. `None` if catch-up did not make the request.
    pub(crate) fn on_blocks(
        &mut self,
        id: RequestId,
        answer: Option<(Vec<Block<Transaction>>, Certificate)>,
        now: Duration,
    ) -> Option<Result<(), CatchUpError>> {
        let flight = self.flights.remove(&id)?;
        let Some((blocks, certificate)) = answer.filter(|(blocks, _)| !blocks.is_empty()) else {
            // The peer may not have the blocks yet, no longer keep them, or be busy. It is asked
            // less, and not banned.
            if !flight.is_late {
                self.holders.on_failure(flight.peer, now);
            }
            return Some(Ok(()));
        };
        let first = blocks.first().map(|block| block.header.height).unwrap_or_default();
        if first != flight.from || blocks.len() as u64 > BLOCKS_MAX {
            let offence = Offence::BlocksUnasked { first, count: blocks.len(), asked: flight.from };
            return Some(Err(CatchUpError::Peer(flight.peer, offence)));
        }
        self.holders.on_answer(flight.peer);
        self.received.entry(flight.from).or_insert(Received {
            peer: flight.peer,
            blocks,
            certificate,
        });
        Some(Ok(()))
    }

    /// The blocks that follow the tip, verified and validated, if they have arrived.
    pub(crate) fn take_next(&mut self, chain: &ChainState) -> Option<Result<Batch, CatchUpError>> {
        if let Some(batch) = self.take_of_segment(chain) {
            return Some(batch);
        }
        let received = self.received.remove(&chain.tip().height.next())?;
        Some(verify(chain, received))
    }
}

impl CatchUp {
    /// The next blocks of a segment, validated by the same rules as all others.
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

/// Verifies the certificates first, since they cost little and show who is to blame. Then verifies
/// all signatures in one batch, and then validates the blocks in order.
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
        if block.check_content(id).is_err() {
            return Err(blame(Offence::BlockBody { height: header.height }));
        }
        parent = hash;
    }
    let mut state = chain.clone();
    let mut commits = Vec::with_capacity(blocks.len());
    let verified = verify_blocks(blocks, |transactions| verify_transactions(id, transactions));
    for (block, certificate) in verified.zip(certificates) {
        let block = block.map_err(BlockError::from);
        let valid = block.and_then(|block| state.validate(block));
        commits.push(state.commit(valid.map_err(CatchUpError::Certified)?, certificate));
    }
    Ok((commits, state))
}
