//! Tests of gossip alone, on loopback. Our configuration must avoid problems that gossipsub's
//! defaults have.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::task::{Context, Poll};

use futures::StreamExt;
use libp2p::gossipsub::{Event, MessageAcceptance};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::time::timeout;

use super::*;

/// Long enough for a loaded machine, short enough to see that something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Some swarms, all polled by one task.
struct Net {
    swarms: Vec<Swarm<Gossipsub>>,
    names: Names,
}

impl Net {
    async fn start(count: usize, mesh: Mesh) -> Self {
        let names = Names::new("test");
        let swarm = || {
            SwarmBuilder::with_new_identity()
                .with_tokio()
                .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
                .unwrap()
                .with_behaviour(|_| behaviour(&names, mesh, false, PATIENCE).unwrap())
                .unwrap()
                .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
                // Nothing here dials again after a handshake that took too long.
                .with_connection_timeout(PATIENCE)
                .build()
        };
        let mut swarms: Vec<_> = (0..count).map(|_| swarm()).collect();
        for swarm in &mut swarms {
            swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        }
        let mut net = Self { swarms, names };
        net.until("listening", |net, _| {
            net.swarms.iter().all(|swarm| swarm.listeners().next().is_some())
        })
        .await;
        net
    }

    fn peer(&self, index: usize) -> PeerId {
        *self.swarms[index].local_peer_id()
    }

    fn hash(&self, topic: Topic) -> TopicHash {
        self.names.topics[topic.index()].hash()
    }

    fn mesh(&self, index: usize, topic: Topic) -> Vec<PeerId> {
        self.swarms[index].behaviour().mesh_peers(&self.hash(topic)).copied().collect()
    }

    fn score(&self, index: usize, of: usize) -> f64 {
        self.swarms[index].behaviour().peer_score(&self.peer(of)).unwrap()
    }

    fn publish(&mut self, index: usize, topic: Topic, bytes: Vec<u8>) {
        let hash = self.hash(topic);
        self.swarms[index].behaviour_mut().publish(hash, bytes).unwrap();
    }

    /// Dials, and waits until each side knows that the other has subscribed to all topics.
    async fn connect(&mut self, from: usize, to: usize) {
        let address: Multiaddr = self.swarms[to].listeners().next().unwrap().clone();
        self.swarms[from].dial(address).unwrap();
        let (a, b) = (self.peer(from), self.peer(to));
        let knows = |net: &Net, index: usize, peer: PeerId| {
            net.swarms[index]
                .behaviour()
                .all_peers()
                .any(|(id, topics)| *id == peer && topics.len() == 3)
        };
        self.until("connected", |net, _| knows(net, from, b) && knows(net, to, a)).await;
    }

    /// Runs all swarms and accepts each message, until `done` returns true. It is called after each
    /// event, and whenever all swarms are idle. If the event was a message, `done` is given its
    /// receiver and its payload.
    async fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&Net, Option<(usize, &[u8])>) -> bool,
    ) {
        let run = poll_fn(|context| {
            loop {
                let Some((index, event)) = self.next_event(context) else {
                    return if done(self, None) { Poll::Ready(()) } else { Poll::Pending };
                };
                let mut payload = None;
                if let SwarmEvent::Behaviour(Event::Message {
                    propagation_source,
                    message_id,
                    message,
                }) = event
                {
                    let gossip = self.swarms[index].behaviour_mut();
                    let accept = MessageAcceptance::Accept;
                    gossip.report_message_validation_result(
                        &message_id,
                        &propagation_source,
                        accept,
                    );
                    payload = Some(message.data);
                }
                if done(self, payload.as_deref().map(|bytes| (index, bytes))) {
                    return Poll::Ready(());
                }
            }
        });
        timeout(PATIENCE, run).await.unwrap_or_else(|_| panic!("never {what}"));
    }

    fn next_event(&mut self, context: &mut Context<'_>) -> Option<(usize, SwarmEvent<Event>)> {
        for (index, swarm) in self.swarms.iter_mut().enumerate() {
            if let Poll::Ready(Some(event)) = swarm.poll_next_unpin(context) {
                return Some((index, event));
            }
        }
        None
    }
}

fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, 7);
    bytes
}

/// A peer outside the mesh gets one IHAVE with many ids. With ids of 32 bytes or a control limit of
/// 16 KiB it would stop reading for good.
#[tokio::test]
async fn an_ihave_of_many_ids_does_not_end_the_stream() {
    const MESSAGES: u64 = 2_000;
    const BURST: u64 = 200;
    let topic = Topic::Transactions;
    let mut net = Net::start(3, Mesh { target: 1, low: 1, high: 1, outbound_min: 0 }).await;
    let (inside, publisher, outside) = (0, 1, 2);
    net.connect(inside, publisher).await;
    let first = net.peer(inside);
    net.until("in the mesh", |net, _| net.mesh(publisher, topic).contains(&first)).await;
    net.connect(outside, publisher).await;

    // All messages are published within the three heartbeats that an IHAVE covers, and a burst fits
    // into a peer's queue of 256.
    let mut early = 0;
    for burst in 0..MESSAGES / BURST {
        for number in burst * BURST..(burst + 1) * BURST {
            net.publish(publisher, topic, numbered(number, 100));
        }
        let mut left = BURST;
        net.until("received in the mesh", |_, received| {
            let receiver = received.map(|(index, _)| index);
            left -= u64::from(receiver == Some(inside));
            early += u64::from(receiver == Some(outside));
            left == 0
        })
        .await;
    }
    assert_eq!(net.mesh(publisher, topic), [first], "the other peer must hear by IHAVE only");
    if early == 0 {
        net.until("received outside the mesh", |_, received| {
            received.is_some_and(|(index, _)| index == outside)
        })
        .await;
    }
    net.publish(publisher, topic, numbered(MESSAGES, 100));
    let last = numbered(MESSAGES, 100);
    net.until("received after the large IHAVE", |_, received| received == Some((outside, &last)))
        .await;
}

/// Under load, all nodes of a small network keep the score they began with, and their mesh.
#[tokio::test]
async fn a_small_network_never_punishes_its_own() {
    const NODES: usize = 4;
    const MESSAGES: usize = 400;
    let mut net = Net::start(NODES, Mesh::SMALL).await;
    for from in 0..NODES {
        for to in 0..from {
            net.connect(from, to).await;
        }
    }
    let meshed = |net: &Net| {
        (0..NODES).all(|index| net.mesh(index, Topic::Consensus).len() >= Mesh::SMALL.low)
    };
    net.until("a mesh", |net, _| meshed(net)).await;
    let mut number = 0;
    for _ in 0..MESSAGES / 50 {
        for _ in 0..50 {
            for index in 0..NODES {
                number += 1;
                net.publish(index, Topic::Consensus, numbered(number, 2_000));
            }
        }
        let mut left = 50 * NODES * (NODES - 1);
        net.until("received by all", |_, received| {
            left -= usize::from(received.is_some());
            left == 0
        })
        .await;
    }
    assert!(meshed(&net));
    for index in 0..NODES {
        for of in (0..NODES).filter(|of| *of != index) {
            assert_eq!(net.score(index, of), 0.0, "{index} of {of}");
        }
    }
}

/// A payload over its topic's limit is not forwarded, and its sender is soon ignored.
#[tokio::test]
async fn an_oversized_payload_costs_the_sender_its_score() {
    let topic = Topic::Transactions;
    let mut net = Net::start(2, Mesh::SMALL).await;
    net.connect(0, 1).await;
    let largest = numbered(0, topic.bytes_max());
    net.publish(0, topic, largest.clone());
    net.until("received the largest", |_, received| received == Some((1, &largest))).await;
    assert_eq!(net.score(1, 0), 0.0);
    for number in 1..=3 {
        net.publish(0, topic, numbered(number, topic.bytes_max() + 1));
    }
    // Counters decay a little each second.
    net.until("punished", |net, received| {
        assert!(received.is_none(), "an oversized payload was handed on");
        net.score(1, 0) < -80.0
    })
    .await;
}

/// The mesh takes one peer. A small message about consensus reaches all peers at once, a large one
/// and other topics only the mesh.
#[tokio::test]
async fn a_small_message_goes_to_all_peers_at_once() {
    const OTHERS: usize = 6;
    let mut net =
        Net::start(1 + OTHERS, Mesh { target: 1, low: 1, high: 1, outbound_min: 0 }).await;
    for other in 1..=OTHERS {
        net.connect(other, 0).await;
    }
    let push = |net: &mut Net, topic: Topic, number: u64, length: usize| {
        let hash = net.hash(topic);
        publish(
            net.swarms[0].behaviour_mut(),
            hash,
            numbered(number, length),
            topic == Topic::Consensus,
        )
        .unwrap()
        .len()
    };
    net.until("a mesh", |net, _| net.mesh(0, Topic::Consensus).len() == 1).await;
    // Pushed to all at once, also outside the mesh: no peer has to ask for it.
    assert_eq!(push(&mut net, Topic::Consensus, 1, 200), OTHERS);
    assert_eq!(push(&mut net, Topic::Consensus, 2, FLOOD_BYTES_MAX + 1), 1);
    let mut heard = HashSet::new();
    net.until("heard by all", |_, received| {
        if let Some((index, bytes)) = received
            && bytes == numbered(1, 200)
        {
            heard.insert(index);
        }
        heard.len() == OTHERS
    })
    .await;
    // Afterwards no peer is explicit. A mesh never holds explicit peers, and this one still holds
    // its peer.
    assert_eq!(net.mesh(0, Topic::Consensus).len(), 1);
}
