//! Certified headers: what others have made final, told by gossip and by answers.

use ledger::codec;
use ledger::hash::BlockHash;
use ledger::units::Height;

use super::{Effect, Machine, Topic, Verdict};
use crate::ids::PeerId;
use crate::message::{Attempt, CertifiedHeader, Evidence};

impl Machine {
    /// A certified header, from gossip or an answer.
    pub(super) fn on_header(&mut self, from: PeerId, certified: &CertifiedHeader) -> Verdict {
        let CertifiedHeader { header, certificate } = certified;
        let (height, hash) = (header.height, header.hash());
        let tip = self.chain.tip().height;
        if height == Height(0) {
            return Verdict::Reject;
        }
        let known = self.recent.get(&height);
        if known == Some(&hash) || (known.is_none() && height <= tip) {
            self.catchup.on_proof(from, height);
            return Verdict::Ignore;
        }
        let validators = self.chain.chain().validators(height);
        if certificate.verify(self.chain.chain().id(), validators, height, hash).is_err() {
            return Verdict::Reject;
        }
        if let Some(known) = known.copied() {
            self.on_fork(height, known, certified);
            return Verdict::Accept;
        }
        self.catchup.on_proof(from, height);
        if self.catchup.is_news_to_sync(tip, height) {
            self.effects.push(Effect::Sync(certified.clone()));
        }
        Verdict::Accept
    }

    /// Two certificates for one height: more than a third of the power signed both. No node can tell which is right.
    fn on_fork(&mut self, height: Height, known: BlockHash, other: &CertifiedHeader) {
        self.effects.push(Effect::Evidence(Evidence::Fork(known, Box::new(other.clone()))));
        self.halt(format!(
            "two certificates for height {height}: block {known} here and block {} elsewhere. More than a third of the voting power \
             signed both. The proof is in the store",
            other.header.hash(),
        ));
    }

    /// Everybody who missed the votes learns of the block by its certificate. One node says it: who proposed the block.
    pub(super) fn announce(&mut self) {
        let (Some(key), Some(header)) = (&self.key, &self.header) else { return };
        if header.proposer != key.public() {
            return;
        }
        let message = CertifiedHeader { header: header.clone(), certificate: self.certificate.clone() };
        let attempt = self.attempt();
        self.effects.push(Effect::Gossip(Topic::Headers, codec::encode(&Attempt { attempt, message })));
    }
}
