//! The machine's side of fetching a body: peers are asked for missing parts, and consensus is told
//! the verdict.

use super::{Progress, Verdict};
use crate::live::requests::Asked;
use crate::live::{Machine, Notice};

impl Machine {
    /// Tries to complete the fetched blocks that need attention.
    pub(crate) fn advance_bodies(&mut self) {
        let due = self.bodies.due(self.turn.now.elapsed);
        if due.is_empty() {
            return;
        }
        // By lot: in any other order a peer could get itself asked first, such as by connecting
        // early.
        let mut peers: Vec<_> = self.peers.connected.iter().copied().collect();
        peers.sort_by_cached_key(|_| self.turn.lots.draw());
        for block in due {
            let (now, wall) = (self.turn.now.elapsed, self.turn.now.wall);
            match self.bodies.advance(
                block,
                &self.chain.state,
                &self.transactions.mempool,
                &peers,
                now,
                wall,
            ) {
                Progress::Wait => {}
                Progress::Ask(peer, request) => {
                    let id = self.ask(peer, &request, Asked::Body);
                    self.bodies.asked(&block, id, peer, now);
                }
                Progress::Judged(proposals, verdict, error) => {
                    let valid = match &verdict {
                        Verdict::Valid(valid) => {
                            self.log_body(valid);
                            true
                        }
                        Verdict::Invalid => {
                            let reason = error.map_or_else(
                                || "a signature does not hold".to_owned(),
                                |e| e.to_string(),
                            );
                            let height = self.consensus.height();
                            self.turn.notice(Notice::InvalidBlock(height, block, reason));
                            false
                        }
                    };
                    // Consensus needs no verdict on a block that it has decided.
                    let proposals = match self.phase.decided() {
                        Some(_) => Vec::new(),
                        None => proposals,
                    };
                    for proposal in proposals {
                        // Consensus does not have it yet if the body was dropped before.
                        self.give(&proposal);
                        let Some(proposals) = self.phase.proposals() else { return };
                        proposals.tell(proposal.proposal.round, block);
                        let outputs = self.consensus.on_block(&proposal, valid, now);
                        self.perform(outputs);
                        if !self.phase.is_deciding() {
                            return;
                        }
                    }
                    self.on_fetched(block, &verdict);
                }
            }
        }
    }
}
