//! The frontier of a snapshot, collected page by page. All pages come from one peer, so that peer
//! is to blame if the frontier is wrong. Only its counts are not proved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::history::SegmentDescriptor;
use ledger::snapshot::{FRONTIER_PAGE_SUBTREES, FrontierBeginning, SnapshotRules};

use super::offers::Announced;
use crate::ids::PeerId;
use crate::message::CertifiedHeader;
use crate::offence::Offence;
use crate::swarm::input::SnapshotOffer;
use crate::swarm::message::FrontierPage;

/// Timeout of a page. It doubles with each try of the snapshot, so that slow links get the time
/// that they need.
const PATIENCE: Duration = Duration::from_secs(3);
/// Timeout of a whole frontier, after which another holder is asked for all of it. It doubles with
/// each try too. The longest frontier has 16 MiB, so it needs 7 Mbit/s in the first try.
const PATIENCE_ALL: Duration = Duration::from_secs(20);

/// The search for a frontier among those who hold a snapshot when a try begins. Each of them is
/// asked once. Those that refuse are asked again for a while, since they may be busy. Who comes
/// later waits for the next try, so a hostile peer cannot prolong one by coming again and again.
#[derive(Debug)]
pub(super) struct FrontierFetch {
    pub(super) snapshot: Announced,
    pub(super) since: Duration,
    /// The holders that are still to be asked.
    pub(super) unasked: BTreeSet<PeerId>,
    /// The holders that have refused.
    pub(super) refused: BTreeSet<PeerId>,
    /// The frontier in flight. `None` until the next holder is asked.
    pub(super) request: Option<Request>,
    /// When the next holder is asked.
    pub(super) deadline: Duration,
}

impl FrontierFetch {
    pub(super) const fn new(snapshot: Announced, holders: BTreeSet<PeerId>, now: Duration) -> Self {
        Self {
            snapshot,
            since: now,
            unasked: holders,
            refused: BTreeSet::new(),
            request: None,
            deadline: now,
        }
    }

    /// A holder is asked for the first page. `tries`: how often the snapshot was tried before.
    pub(super) fn on_asked(
        &mut self,
        peer: PeerId,
        tries: u32,
        rules: &SnapshotRules,
        now: Duration,
    ) {
        let request = Request::new(self.snapshot, peer, tries, rules, now);
        self.unasked.remove(&peer);
        self.deadline = request.deadline;
        self.request = Some(request);
    }
}

/// A frontier in flight.
#[derive(Debug)]
pub(super) struct Request {
    snapshot: Announced,
    pub(super) peer: PeerId,
    /// The page in flight.
    pub(super) page: u32,
    block: Option<CertifiedHeader>,
    subtrees: FrontierBeginning,
    /// Timeout of each page.
    patience: Duration,
    /// When the whole frontier must be here.
    end: Duration,
    pub(super) deadline: Duration,
}

impl Request {
    pub(super) fn new(
        snapshot: Announced,
        peer: PeerId,
        tries: u32,
        rules: &SnapshotRules,
        now: Duration,
    ) -> Self {
        // A snapshot that has used up its tries is not tried again.
        let times = 1u32.checked_shl(tries).unwrap_or(u32::MAX);
        let patience = PATIENCE.saturating_mul(times);
        Self {
            snapshot,
            peer,
            page: 0,
            block: None,
            subtrees: FrontierBeginning::new(rules),
            patience,
            end: now.saturating_add(PATIENCE_ALL.saturating_mul(times)),
            deadline: now.saturating_add(patience),
        }
    }

    /// Takes in the page in flight. Returns the whole snapshot's offer, or `None` if the next page
    /// is to be requested. `segment`: the proved segment that the snapshot's block ends.
    ///
    /// # Errors
    /// The peer lied.
    pub(super) fn on_page(
        &mut self,
        page: FrontierPage,
        chain: &Chain,
        rules: &SnapshotRules,
        segment: &SegmentDescriptor,
        now: Duration,
    ) -> Result<Option<SnapshotOffer>, Offence> {
        let FrontierPage { block, subtrees } = page;
        let (height, id) = self.snapshot;
        if self.page == 0 {
            let block = block.filter(|block| is_proved(block, chain, segment));
            self.block = Some(block.ok_or(Offence::SnapshotBlock { height })?);
        }
        let is_last = subtrees.len() < FRONTIER_PAGE_SUBTREES;
        self.subtrees.extend(subtrees).map_err(Offence::Frontier)?;
        if !is_last {
            self.page = self.page.saturating_add(1);
            self.deadline = now.saturating_add(self.patience).min(self.end);
            return Ok(None);
        }
        let Some(CertifiedHeader { header, certificate }) = self.block.take() else {
            return Err(Offence::SnapshotBlock { height });
        };
        let subtrees = std::mem::replace(&mut self.subtrees, FrontierBeginning::new(rules));
        let frontier = subtrees.finish(header.state_root).map_err(Offence::Frontier)?;
        if frontier.id(height) != id {
            return Err(Offence::WrongFrontier);
        }
        let frontier = Arc::new(frontier);
        Ok(Some(SnapshotOffer { height, id, frontier, header, certificate }))
    }
}

/// Whether a block is the last one of a proved segment, and certified.
fn is_proved(block: &CertifiedHeader, chain: &Chain, segment: &SegmentDescriptor) -> bool {
    let CertifiedHeader { header, certificate } = block;
    let (height, hash) = (segment.last, segment.last_block);
    let validators = chain.validators(height);
    header.hash() == hash && certificate.verify(chain.id(), validators, height, hash).is_ok()
}
