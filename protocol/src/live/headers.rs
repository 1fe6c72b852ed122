//! Certified headers: how nodes hear of final blocks, and who passes the headers on.
//!
//! The aim is that every node hears of each new block at once, whatever peers it has. A node that
//! has the block passes on the first header that comes with a valid certificate. A node that lacks
//! the block first fetches it from a peer, then announces it itself. So a node has each block whose
//! header it passes on, unless it is far behind, and it gossips at most one header of a height.

use std::time::Duration;

use ledger::hash::BlockHash;
use ledger::units::Height;

use super::phase::{Origin, Phase};
use super::{Effect, Machine, Topic, Verdict};
use crate::budget::Cost;
use crate::ids::PeerId;
use crate::live::bodies;
use crate::message::{BEHIND_FAR, CertifiedHeader, Evidence};

/// A header is passed on only if its block is fewer than this many heights below the tip: headers
/// of later blocks prove more.
const PASSED_BELOW_TIP: u64 = 8;
/// For at least this time, other nodes that decided the block leave the announcement to the
/// proposer.
const PROPOSER_FIRST: Duration = Duration::from_millis(200);
/// If the proposer does not announce, the other nodes do so at random times within this span after
/// [`PROPOSER_FIRST`]. A node that hears an announcement makes none.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(400);

/// How a header reached this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// By gossip: the sender may pass on headers of blocks that it lacks.
    Gossip,
    /// As the sender's own tip.
    Tip,
}

/// The headers that this node has sent, and when it announces the tip.
pub(super) struct Headers {
    /// The highest height whose header this node gossiped, or at first the tip at start. Only
    /// higher ones follow, so this node gossips at most one header of each height.
    passed: Height,
    /// When to announce the tip, unless another node is heard to do so first.
    pub(super) announce_at: Option<Duration>,
}

impl Headers {
    /// `tip` needs no announcement: an earlier run has made it.
    pub(super) const fn new(tip: Height) -> Self {
        Self { passed: tip, announce_at: None }
    }
}

impl Machine {
    /// Judges and uses a certified header from gossip. `Reject` if the certificate does not prove
    /// it.
    pub(super) fn on_header(&mut self, from: PeerId, certified: &CertifiedHeader) -> Verdict {
        self.on_certified(from, certified, Told::Gossip)
    }

    /// Uses a peer's tip. Returns false if the certificate does not prove the header.
    pub(super) fn on_tip(&mut self, from: PeerId, certified: &CertifiedHeader) -> bool {
        self.on_certified(from, certified, Told::Tip) != Verdict::Reject
    }

    /// Judges and uses a certified header. For a peer's tip, `Accept` means that it proves a fork.
    fn on_certified(&mut self, from: PeerId, certified: &CertifiedHeader, told: Told) -> Verdict {
        let (height, hash) = (certified.header.height, certified.header.hash());
        if height == Height(0) {
            return Verdict::Reject;
        }
        let known = self.final_hash(height).or_else(|| self.decided_hash(height));
        match known.or_else(|| self.catchup.hash(height)) {
            Some(known) if known != hash => {
                if !self.proves(certified) {
                    return Verdict::Reject;
                }
                self.on_fork(height, known, certified);
                return Verdict::Accept;
            }
            None if height <= self.chain.height() => return Verdict::Ignore,
            _ => {}
        }
        match told {
            Told::Tip => self.judge_tip(from, certified),
            Told::Gossip if height.0.saturating_sub(self.chain.height().0) > BEHIND_FAR => {
                self.on_far(from, certified)
            }
            Told::Gossip => self.on_near(from, certified, hash),
        }
    }

    /// Takes in a peer's own tip. It is verified only if it is above the highest proved height, or
    /// if it is the still unknown header after the tip. Any other claim is about a height that
    /// exists, so a false one costs only a request in vain.
    fn judge_tip(&mut self, from: PeerId, certified: &CertifiedHeader) -> Verdict {
        let (height, tip) = (certified.header.height, self.chain.height());
        let is_next = height == tip.next() && self.catchup.next_header(tip).is_none();
        if height > tip && (is_next || height > self.catchup.known()) {
            if !self.proves(certified) {
                return Verdict::Reject;
            }
            self.learn(certified);
        }
        self.catchup.on_claim(from, height);
        Verdict::Ignore
    }

    /// Gossip of a block that this node will not have soon. It is passed on at once: nodes that
    /// hear gossip only by way of this one should not wait to learn where the chain is.
    fn on_far(&mut self, from: PeerId, certified: &CertifiedHeader) -> Verdict {
        let height = certified.header.height;
        if height <= self.headers.passed {
            return Verdict::Ignore;
        }
        if !self.proves(certified) {
            return Verdict::Reject;
        }
        self.learn(certified);
        self.headers.passed = height;
        if self.catchup.claim(from) <= self.chain.height() {
            // The sender may lack the block too, and be as far behind as this node.
            self.ask_tip(from);
        }
        Verdict::Accept
    }

    /// Gossip of a block that is final here, or will be soon.
    fn on_near(&mut self, from: PeerId, certified: &CertifiedHeader, hash: BlockHash) -> Verdict {
        let (height, tip) = (certified.header.height, self.chain.height());
        let is_final = self.final_hash(height).is_some();
        let is_held =
            is_final || matches!(self.bodies.verdict(&hash), Some(bodies::Verdict::Valid(_)));
        let is_known = is_final || self.catchup.hash(height).is_some();
        let is_news =
            height > self.headers.passed && height.0.saturating_add(PASSED_BELOW_TIP) > tip.0;
        if is_known && !(is_news && is_held) {
            self.catchup.on_claim(from, height);
            return Verdict::Ignore;
        }
        if !self.proves(certified) {
            return Verdict::Reject;
        }
        if !is_final {
            self.learn(certified);
        }
        self.catchup.on_claim(from, height);
        if !is_held {
            // This node announces the header once it has the block, unless it knows a later one by
            // then.
            return Verdict::Ignore;
        }
        self.headers.passed = self.headers.passed.max(height);
        Verdict::Accept
    }

    /// Whether the certificate proves the header.
    fn proves(&mut self, certified: &CertifiedHeader) -> bool {
        let CertifiedHeader { header, certificate } = certified;
        if certificate == self.chain.certificate() && header.height == self.chain.height() {
            return header.hash() == self.chain.state.tip().hash;
        }
        self.turn.charge(Cost::signatures(certificate.signatures.len() as u64));
        certified.verify(self.chain.state.chain()).is_ok()
    }

    fn learn(&mut self, certified: &CertifiedHeader) {
        let tip = self.chain.height();
        self.catchup.on_verified(tip, certified);
        if self.catchup.is_news_to_sync(tip, certified.header.height) {
            self.turn.push(Effect::Sync(certified.clone()));
        }
    }

    /// The hash of the block of this height, if it is final here or being committed.
    fn final_hash(&self, height: Height) -> Option<BlockHash> {
        let committing = match &self.phase {
            Phase::Committing(committing) => committing.commits.as_slice(),
            _ => &[],
        };
        let mut hashes =
            committing.iter().map(|commit| (commit.block.height(), commit.block.hash()));
        let is_it = |(other, hash): (Height, BlockHash)| (other == height).then_some(hash);
        self.chain.hash(height).or_else(|| hashes.find_map(is_it))
    }

    /// The hash of the block of this height, if consensus decided it here and its body is being
    /// fetched.
    fn decided_hash(&self, height: Height) -> Option<BlockHash> {
        let decided = self.phase.decided().filter(|decided| decided.height == height);
        decided.map(|decided| decided.block)
    }

    /// Two certificates for one height: more than a third of the power signed both. No node can
    /// tell which one is right.
    pub(super) fn on_fork(&mut self, height: Height, known: BlockHash, other: &CertifiedHeader) {
        self.turn.push(Effect::Evidence(Evidence::Fork(known, Box::new(other.clone()))));
        self.halt(format!(
            "two certificates for height {height}: block {known} here and block {} elsewhere. \
             More than a third of the voting power signed both. The proof is in the store",
            other.header.hash(),
        ));
    }

    /// The tip has advanced. Plans its announcement, unless a header of the tip was gossiped or a
    /// later block is known. The proposer announces at once. So does a node at which the
    /// certificate of others made the block final, since peers behind it may hear of the block from
    /// nobody else. Other nodes wait for the proposer first.
    pub(super) fn plan_announcement(&mut self, origin: Origin) {
        let (tip, now) = (self.chain.state.tip(), self.turn.now.elapsed);
        let is_proposer = |key: &ledger::signature::SigningKey| {
            self.chain.header().is_some_and(|header| header.proposer == key.public())
        };
        self.headers.announce_at = match origin {
            _ if self.headers.passed >= tip.height || self.catchup.known() > tip.height => None,
            Origin::Consensus if !self.validator.key.as_ref().is_some_and(is_proposer) => {
                let within = u64::try_from(ANNOUNCED_WITHIN.as_millis()).unwrap_or(u64::MAX);
                let spread = Duration::from_millis(self.turn.lots.below(within));
                Some(now.saturating_add(PROPOSER_FIRST).saturating_add(spread))
            }
            _ => Some(now),
        };
    }

    /// Announces the tip, unless another node's announcement was heard meanwhile.
    pub(super) fn announce(&mut self) {
        if self.headers.announce_at.is_none_or(|at| at > self.turn.now.elapsed) {
            return;
        }
        self.headers.announce_at = None;
        let tip = self.chain.height();
        if self.headers.passed < tip
            && let Some(message) = self.certified_header()
        {
            self.headers.passed = tip;
            self.turn.gossip(Topic::Headers, message);
        }
    }
}
