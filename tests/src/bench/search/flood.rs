//! A flood query in the simulated network, by the machine that nodes run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use protocol::PeerId;
use protocol::eras::Era;
use protocol::find::{Flood, FloodEffect, FloodInput};
use protocol::holder::Holder;
use protocol::search::{FloodMessage, QueryId, Wanted};

use super::Cost;
use super::network::{Network, Node};

/// Time from one search to the next, long enough that nodes forget the former one.
const BETWEEN: Duration = Duration::from_secs(100);

/// The machines of all nodes.
pub(super) struct Floods<'a> {
    network: &'a Network,
    machines: Vec<Flood>,
    now: Duration,
    searches: u64,
}

/// A message under way: when it arrives, its place in the order of sending, to whom, from whom.
type Sent = Reverse<(Duration, u64, Node, Node)>;

impl<'a> Floods<'a> {
    pub(super) fn new(network: &'a Network) -> Self {
        let machine = |(node, links): (Node, &Vec<Node>)| {
            let mut machine = Flood::new(node as u64);
            for peer in links {
                machine.handle(Duration::ZERO, FloodInput::Connected(PeerId(*peer as u64)));
            }
            machine
        };
        let machines = network.links.iter().enumerate().map(machine).collect();
        Self { network, machines, now: Duration::ZERO, searches: 0 }
    }

    /// Searches for an object that these nodes have.
    pub(super) fn search(&mut self, asker: Node, holders: &[Node]) -> Cost {
        self.now += BETWEEN;
        self.searches += 1;
        let (began, id) = (self.now, QueryId(u128::from(self.searches).to_le_bytes()));
        let mut under_way: BinaryHeap<Sent> = BinaryHeap::new();
        let mut messages: Vec<FloodMessage> = Vec::new();
        let mut cost = Cost::default();
        let first = FloodInput::Search(id, Wanted::Era(Era(0)));
        let mut effects = vec![(asker, self.machines[asker].handle(self.now, first))];
        loop {
            for (node, effects) in effects.drain(..) {
                for effect in effects {
                    match effect {
                        FloodEffect::Send(to, message) => {
                            let to = to.0 as Node;
                            let delay = Duration::from_micros(self.network.delay(node, to));
                            under_way.push(Reverse((
                                self.now + delay,
                                messages.len() as u64,
                                to,
                                node,
                            )));
                            cost.queries +=
                                u64::from(matches!(message, FloodMessage::Query { .. }));
                            messages.push(message);
                        }
                        FloodEffect::Found { hops, .. } => {
                            cost.first.get_or_insert(self.now - began);
                            cost.hops.get_or_insert(u64::from(hops.get()));
                            cost.found += 1;
                        }
                    }
                }
            }
            let Some(Reverse((at, number, to, from))) = under_way.pop() else { break };
            self.now = at;
            let here = holders.contains(&to).then(|| Holder::new(&to.to_le_bytes(), [])).flatten();
            let message = messages[number as usize].clone();
            let input = FloodInput::Message { from: PeerId(from as u64), message, here };
            effects.push((to, self.machines[to].handle(at, input)));
        }
        cost.messages = messages.len() as u64;
        cost
    }
}
