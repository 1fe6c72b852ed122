//! The frontier of a snapshot, collected page by page. All pages come from one peer, so that peer
//! is to blame if the frontier is wrong. Only its counts are not proved.

use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::history::SegmentDescriptor;
use ledger::snapshot::{
    FRONTIER_PAGE_SUBTREES, FRONTIER_SUBTREES_MAX, Frontier, FrontierError, SnapshotRules,
    SubtreeDescriptor,
};

use super::offers::Announced;
use crate::ids::PeerId;
use crate::message::CertifiedHeader;
use crate::offence::Offence;
use crate::swarm::input::SnapshotOffer;
use crate::swarm::message::FrontierPage;

/// Timeout of a page. It doubles with each request that is not answered, so that slow links get the
/// time that they need, at most this many times.
const PATIENCE: Duration = Duration::from_secs(3);
const DOUBLED_MAX: u32 = 3;
/// Requests for the first page, to any peers, after which the snapshot is left.
pub(super) const REQUESTS_MAX: u32 = 4;

/// A frontier in flight.
#[derive(Debug)]
pub(super) struct FrontierFetch {
    pub(super) snapshot: Announced,
    pub(super) peer: PeerId,
    /// The page in flight.
    pub(super) page: u32,
    block: Option<CertifiedHeader>,
    /// At most [`FRONTIER_SUBTREES_MAX`].
    subtrees: Vec<SubtreeDescriptor>,
    /// How often the frontier was requested from its beginning.
    pub(super) requests: u32,
    pub(super) deadline: Duration,
}

impl FrontierFetch {
    /// The first page is requested from a peer, for the `requests`-th time.
    pub(super) fn new(snapshot: Announced, peer: PeerId, requests: u32, now: Duration) -> Self {
        let (block, subtrees) = (None, Vec::new());
        let deadline = now.saturating_add(patience(requests));
        Self { snapshot, peer, page: 0, block, subtrees, requests, deadline }
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
        let got = self.subtrees.len().saturating_add(subtrees.len());
        if got > FRONTIER_SUBTREES_MAX {
            return Err(Offence::Frontier(FrontierError::TooMany { got }));
        }
        self.subtrees.extend(subtrees);
        if !is_last {
            self.page = self.page.saturating_add(1);
            self.deadline = now.saturating_add(patience(self.requests));
            return Ok(None);
        }
        let Some(CertifiedHeader { header, certificate }) = self.block.take() else {
            return Err(Offence::SnapshotBlock { height });
        };
        let subtrees = std::mem::take(&mut self.subtrees);
        let frontier =
            Frontier::verify(subtrees, header.state_root, rules).map_err(Offence::Frontier)?;
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

fn patience(requests: u32) -> Duration {
    PATIENCE.saturating_mul(1u32 << requests.saturating_sub(1).min(DOUBLED_MAX))
}
