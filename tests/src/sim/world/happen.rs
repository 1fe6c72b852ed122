//! What happens to nodes: start and crash, partition and reconnection, arriving messages and
//! transfers.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Input, RequestId, Ticket, Topic};
use rand::RngExt;

use super::super::network::Gossip;
use super::super::node::{Fuse, Heard, peer_id};
use super::super::plan::{Damage, Fault, milliseconds};
use super::{Happening, World};

impl World {
    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake { node, life } => {
                let time = self.time;
                if let Some(running) =
                    self.nodes[node].in_life(life).filter(|it| it.alarm == Some(time))
                {
                    running.alarm = None;
                    self.give(node, Input::Time);
                }
            }
            Happening::Gossip { from, to, gossip, bytes } => {
                self.on_gossip(from, to, gossip, bytes)
            }
            Happening::Request { from, life, to, id, bytes } if !self.nodes[to].is_honest() => {
                self.ask_byzantine(to, (from, life, id), &bytes);
            }
            Happening::Request { from, life, to, id, bytes } => {
                let Some(running) =
                    self.nodes[to].running.as_mut().filter(|it| it.peers.get(&from) == Some(&life))
                else {
                    return;
                };
                let ticket = running.ticket();
                running.questions.insert(ticket, (from, life, id));
                self.give(to, Input::Request(peer_id(from), ticket, bytes));
            }
            Happening::Answer { to, life, id, bytes } => {
                let asked =
                    self.nodes[to].in_life(life).and_then(|running| running.asked.remove(&id));
                if let Some(from) = asked {
                    self.give(to, Input::Response(id, peer_id(from), bytes));
                }
            }
            Happening::Meet { node, peer } => self.meet(node, peer),
            Happening::Load => self.submit(),
            Happening::Act { node } => self.misbehave(node),
            Happening::Fault(Fault::Crash { node, effects, down, damage }) => {
                let is_due = effects == 0 && !self.nodes[node].would_lose_log();
                if let Some(running) = &mut self.nodes[node].running {
                    running.fuse = Some(Fuse { effects, down, damage });
                    if is_due {
                        self.blow(node, Fuse { effects, down, damage });
                    }
                }
            }
            Happening::Fault(Fault::Partition { side, lasts, noticed }) => {
                self.tell(None, || {
                    format!(
                        "{side:?} are alone for {lasts:?}{}",
                        if noticed { "" } else { ", silently" }
                    )
                });
                let number = self.network.split(side, noticed);
                self.plan_in(lasts, Happening::Join(number));
                (0..self.nodes.len()).for_each(|node| self.meet_all(node));
            }
            Happening::Join(number) => {
                self.network.join(number);
                (0..self.nodes.len()).for_each(|node| self.meet_all(node));
            }
            Happening::Restart { node, life } => {
                if self.nodes[node].running.is_none() && self.nodes[node].life == life {
                    self.start(node);
                }
            }
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        let memory = self.plan.memory;
        self.nodes[node].start(self.time, memory);
        let disk = &self.nodes[node].disk;
        self.tell(Some(node), || {
            format!("starts at height {}, log {}", disk.height(), disk.log_text())
        });
        self.note(node, 1, &[]);
        self.meet_all(node);
        self.set_alarm(node);
    }

    pub(super) fn blow(&mut self, node: usize, fuse: Fuse) {
        self.stop(node, fuse.damage);
        let life = self.nodes[node].life;
        self.plan_in(fuse.down, Happening::Restart { node, life });
    }

    pub(super) fn stop(&mut self, node: usize, damage: Damage) {
        self.tell(Some(node), || format!("crashes, damage: {damage:?}"));
        self.note(node, 2, &[]);
        self.crashes += 1;
        self.nodes[node].running = None;
        self.nodes[node].disk.crash(&mut self.rng, damage);
        self.meet_all(node);
    }

    /// This node and every other one soon learn whether they are connected.
    pub(super) fn meet_all(&mut self, node: usize) {
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            for (node, peer) in [(node, peer), (peer, node)] {
                let delay = self.network.delay(&mut self.rng);
                self.plan_in(delay, Happening::Meet { node, peer });
            }
        }
    }

    pub(super) fn meet(&mut self, node: usize, peer: usize) {
        let life = self.nodes[peer].living().filter(|_| self.network.connects(node, peer));
        let Some(running) = &mut self.nodes[node].running else { return };
        let known = running.peers.get(&peer).copied();
        if known == life {
            return;
        }
        if known.is_some() {
            running.peers.remove(&peer);
            let failed: Vec<RequestId> = running
                .asked
                .iter()
                .filter(|(_, asked)| **asked == peer)
                .map(|(id, _)| *id)
                .collect();
            running.asked.retain(|_, asked| *asked != peer);
            self.give(node, Input::Disconnected(peer_id(peer)));
            failed
                .into_iter()
                .for_each(|id| self.give(node, Input::Response(id, peer_id(peer), None)));
        }
        if let (Some(life), Some(running)) = (life, &mut self.nodes[node].running) {
            running.peers.insert(peer, life);
            self.give(node, Input::Connected(peer_id(peer)));
        }
    }

    pub(super) fn submit(&mut self) {
        let mean = milliseconds(self.plan.load_interval);
        let pause = Duration::from_millis(self.rng.random_range(0..=2 * mean));
        self.plan_in(pause, Happening::Load);
        let node = self.rng.random_range(0..self.nodes.len());
        let now = self.nodes[node].now(self.time).wall;
        let chain = self.check.newest();
        let transaction = match self.loaded {
            true => self.load.next(&mut self.rng, chain, now),
            false => self.load.again(chain).into_iter().next(),
        };
        if let Some(transaction) = transaction {
            self.give(node, Input::Submit(Ticket(0), transaction));
        }
    }

    pub(super) fn on_gossip(
        &mut self,
        from: usize,
        to: usize,
        gossip: Arc<Gossip>,
        bytes: Arc<Vec<u8>>,
    ) {
        if !self.network.reaches(from, to) {
            return;
        }
        if !self.nodes[to].is_honest() {
            return self.tell_byzantine(to, &gossip, &bytes);
        }
        let Some(running) =
            self.nodes[to].running.as_mut().filter(|it| it.peers.contains_key(&from))
        else {
            return;
        };
        if !running.seen.insert(Arc::clone(&bytes)) {
            return;
        }
        let ticket = running.ticket();
        let input = match gossip.topic {
            Topic::Transactions => Input::Transactions(ticket, gossip.transactions.clone()),
            topic => Input::Gossip(topic, peer_id(from), ticket, gossip.bytes.clone()),
        };
        running.heard.insert(ticket, Heard { from, gossip, bytes });
        self.give(to, input);
    }
}
