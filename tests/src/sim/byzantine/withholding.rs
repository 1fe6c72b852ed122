//! Withholding: the coalition lets a block get all precommits except its own, which the block needs
//! too. Then it shows the certificate that only it can make, and never sends the block. A node that
//! waits for the block from the sender of the certificate would wait for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::codec;
use ledger::hash::BlockHash;
use ledger::units::{Height, Round};
use protocol::message::{CertifiedHeader, ConsensusMessage, Request, Response};

use super::{Act, Conduct, Scene};

/// Interval at which the certificate is shown again while its height is not final.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Withholding {
    prevoted: BTreeSet<(Height, Round)>,
    /// The certificate, and when it is shown next.
    kept: Option<(CertifiedHeader, Duration)>,
}

impl Conduct for Withholding {
    fn act(&mut self, scene: &mut Scene<'_>) {
        let height = scene.height();
        self.prevoted = self.prevoted.split_off(&(height, Round(0)));
        self.kept = self.kept.take().filter(|(certified, _)| certified.header.height == height);
        self.prevote(scene);
        if self.kept.is_none() {
            self.kept = certify(scene).map(|certified| (certified, scene.world.time));
        }
        if let Some((certified, at)) = &mut self.kept
            && *at <= scene.world.time
        {
            *at = scene.world.time + AGAIN;
            scene.show(certified.clone());
            let request = codec::encode(&Request::Tip(Some(certified.clone())));
            let asks = scene.world.peers.iter().map(|peer| Act::Ask(*peer, request.clone()));
            scene.acts.extend(asks);
        }
    }

    fn answer(&mut self, scene: &mut Scene<'_>, request: &Request) -> Option<Response> {
        match (request, &self.kept) {
            (Request::Tip(_), Some((certified, _))) => {
                Some(Response::Tip { now: scene.world.wall.0, head: Some(certified.clone()) })
            }
            _ => None,
        }
    }
}

impl Withholding {
    /// The whole coalition prevotes for the proposed block, so that the honest validators
    /// precommit.
    fn prevote(&mut self, scene: &mut Scene<'_>) {
        let height = scene.height();
        let proposed = scene
            .talk
            .proposals(height)
            .map(|(signed, _)| (signed.proposal.round, signed.proposal.block));
        let due: Vec<(Round, BlockHash)> = proposed.collect();
        for (round, block) in due {
            if !self.prevoted.insert((height, round)) {
                continue;
            }
            for key in scene.coalition {
                let (kind, validator) = (VoteKind::Prevote, key.public());
                let signed = scene
                    .sign_vote(key, Vote { kind, height, round, block: Some(block), validator });
                scene.say(ConsensusMessage::Vote(signed));
            }
        }
    }
}

/// A certificate from the precommits heard and the coalition's own, if they suffice and the header
/// is known.
fn certify(scene: &Scene<'_>) -> Option<CertifiedHeader> {
    let height = scene.height();
    let validators = scene.world.chain.chain().validators(height);
    scene.talk.votes(height, VoteKind::Precommit).find_map(|(round, block, heard)| {
        let mut signatures = heard.clone();
        for key in scene.coalition {
            let (kind, validator) = (VoteKind::Precommit, key.public());
            let vote = Vote { kind, height, round, block: Some(block), validator };
            signatures.insert(validator, scene.sign_vote(key, vote).signature);
        }
        let of_block = |compact: &&protocol::message::CompactBlock| compact.header.hash() == block;
        let compact =
            scene.talk.proposals(height).filter_map(|(_, compact)| compact).find(of_block)?;
        let header = compact.header.clone();
        let certificate = Certificate::new(height, round, block, validators, signatures);
        certificate.verify(scene.id(), validators, height, block).ok()?;
        Some(CertifiedHeader { header, certificate })
    })
}
