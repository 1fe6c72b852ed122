//! The final chain as this node has it.

use std::collections::BTreeMap;

use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::{ChainState, Committed};
use ledger::hash::BlockHash;
use ledger::units::Height;

use crate::message::CertifiedHeader;

/// Number of recent blocks whose hashes are kept. A header of an older block is ignored, even if it
/// proves a fork.
const RECENT_MAX: usize = 1_024;

/// The chain up to its last durable block, the tip, and the proof that the tip is final.
pub(super) struct FinalChain {
    /// The chain as of the tip.
    pub(super) state: ChainState,
    /// Header of the tip; none before the first block.
    header: Option<Header>,
    /// Certificate of the tip.
    certificate: Certificate,
    /// Hashes of recent blocks, to detect two certificates for one height.
    recent: BTreeMap<Height, BlockHash>,
}

impl FinalChain {
    pub(super) fn new(state: ChainState, header: Option<Header>, certificate: Certificate) -> Self {
        let recent = BTreeMap::from([(state.tip().height, state.tip().hash)]);
        Self { state, header, certificate, recent }
    }

    /// Height of the tip.
    pub(super) const fn height(&self) -> Height {
        self.state.tip().height
    }

    /// The height after the tip.
    pub(super) const fn next_height(&self) -> Height {
        self.height().next()
    }

    pub(super) const fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    pub(super) const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn certified_header(&self) -> Option<CertifiedHeader> {
        let header = self.header.clone()?;
        Some(CertifiedHeader { header, certificate: self.certificate.clone() })
    }

    /// The hash of a recent block.
    pub(super) fn hash(&self, height: Height) -> Option<BlockHash> {
        self.recent.get(&height).copied()
    }

    /// These blocks are durable, and `after` is the chain after them.
    pub(super) fn advance(&mut self, commits: &[Committed], after: ChainState) {
        let Some(last) = commits.last() else { return };
        self.state = after;
        self.certificate = last.certificate.clone();
        self.header = Some(last.block.header().clone());
        self.recent
            .extend(commits.iter().map(|commit| (commit.block.height(), commit.block.hash())));
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }
}
