//! Byzantine validators in the world: what they hear, when they act, and how their messages reach
//! others.

use std::sync::Arc;

use ledger::codec;
use protocol::message::{
    Attempt, CONSENSUS_BYTES_MAX, ConsensusMessage, REQUEST_BYTES_MAX, Request,
};
use protocol::{RequestId, Topic};

use super::super::byzantine::{Act, Byzantine, PACE, Surroundings};
use super::super::network::Gossip;
use super::{Happening, World};

impl World {
    /// Byzantine validators act on a timer, from the beginning to the end.
    pub(super) fn misbehave(&mut self, node: usize) {
        self.plan_in(PACE, Happening::Act { node });
        let acts = self.with_byzantine(node, Byzantine::act);
        self.perform_acts(node, acts);
    }

    pub(super) fn tell_byzantine(&mut self, node: usize, gossip: &Gossip, bytes: &Arc<Vec<u8>>) {
        if gossip.topic == Topic::Consensus {
            let acts = self.with_byzantine(node, |byzantine, world| byzantine.hear(world, bytes));
            self.perform_acts(node, acts);
        }
    }

    /// `who` is the node that asked, its life, and the request's number.
    pub(super) fn ask_byzantine(
        &mut self,
        node: usize,
        who: (usize, u64, RequestId),
        bytes: &[u8],
    ) {
        let request = codec::decode::<Request>(bytes, REQUEST_BYTES_MAX);
        let request =
            request.unwrap_or_else(|error| panic!("machines ask what can be read: {error}"));
        let answer =
            self.with_byzantine(node, |byzantine, world| byzantine.answer(world, &request));
        let (to, life, id) = who;
        if let (Some(answer), Some(delay)) = (answer, self.network.send(&mut self.rng, node, to)) {
            self.plan_in(
                delay,
                Happening::Answer { to, life, id, bytes: Some(codec::encode(&answer)) },
            );
        }
    }

    fn with_byzantine<T>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut Byzantine, Surroundings<'_>) -> T,
    ) -> T {
        let peers = (0..self.nodes.len()).filter(|peer| *peer != node).collect();
        let wall = self.nodes[node].now(self.time).wall;
        let Some(byzantine) = &mut self.nodes[node].byzantine else {
            panic!("node {node} is honest");
        };
        let surroundings = Surroundings {
            time: self.time,
            wall,
            chain: self.check.newest(),
            tip: self.check.tip(),
            peers,
            rng: &mut self.rng,
        };
        act(byzantine, surroundings)
    }

    fn perform_acts(&mut self, node: usize, acts: Vec<Act>) {
        for act in acts {
            self.misdeeds += 1;
            match act {
                Act::Say(topic, bytes, listeners) => {
                    self.note(node, 5, &bytes);
                    self.on_proposed(topic, &bytes);
                    let key = Arc::new(bytes.clone());
                    let gossip =
                        Arc::new(Gossip { topic, bytes, transactions: Vec::new(), spreads: true });
                    self.broadcast(node, &gossip, &key, |to| {
                        listeners.as_ref().is_none_or(|some| some.contains(&to))
                    });
                }
                Act::Ask(to, bytes) => {
                    let life = self.nodes[node].life;
                    self.note(node, 6, &bytes);
                    if let Some(delay) = self.network.send(&mut self.rng, node, to) {
                        // The answer is discarded.
                        self.plan_in(
                            delay,
                            Happening::Request { from: node, life, to, id: RequestId(0), bytes },
                        );
                    }
                }
            }
        }
    }

    fn on_proposed(&mut self, topic: Topic, bytes: &[u8]) {
        if topic != Topic::Consensus {
            return;
        }
        let attempt = codec::decode::<Attempt<ConsensusMessage>>(bytes, CONSENSUS_BYTES_MAX);
        if let Ok(Attempt { message: ConsensusMessage::Proposal(signed, _), .. }) = attempt {
            self.check.on_proposed(&signed.proposal);
        }
    }
}
