//! The task by itself, without running it.
#![allow(clippy::unwrap_used)]

use std::io;

use libp2p::TransportError;
use libp2p::swarm::{ConnectionId, DialError};

use super::*;
use crate::network::discovery::Event;
use crate::network::known::Outcome;

/// A task of a public network, or of a private one.
fn task(private: bool) -> Task {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = NetworkConfig { private, listen, ..NetworkConfig::default() };
    Task::new(config, &mut Registry::default()).unwrap().0
}

/// Waits until the task's node listens, and returns where.
async fn listening(task: &mut Task) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = task.swarm.select_next_some().await {
            return address;
        }
    }
}

fn knows(task: &Task, peer: PeerId) -> Option<Outcome> {
    let known = task.store.addresses.all().iter().find(|known| known.peer == peer);
    known.map(|known| known.outcome())
}

#[tokio::test]
async fn an_address_of_this_node_and_one_that_is_refused_stop_no_look() {
    let mut task = task(true);
    let own = listening(&mut task).await;
    let [one, other] = [PeerId::random(), PeerId::random()];
    let from = task.grouping.of(&own);
    task.store.addresses.heard(one, std::slice::from_ref(&own), from, 1);
    task.dial_stored(one, &own);
    assert_eq!(knows(&task, one), None, "this node listens there itself");
    // The gate refuses the dial of a banned peer.
    let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    task.store.addresses.heard(other, std::slice::from_ref(&address), from, 1);
    let bans = [(other, u64::MAX)].into();
    task.swarm.behaviour_mut().gate.set_bans(bans, Default::default());
    task.dial_stored(other, &address);
    assert!(task.store.addresses.all().iter().all(|known| known.tried_ms > 0));
    assert_eq!(knows(&task, other), Some(Outcome::Untried));
}

/// The peers of the routing table.
fn routed(task: &mut Task) -> Vec<PeerId> {
    let kad = &mut task.swarm.behaviour_mut().discovery.kad;
    let buckets = kad.kbuckets();
    buckets
        .flat_map(|bucket| bucket.iter().map(|it| *it.node.key.preimage()).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn a_false_address_takes_no_peer_out_of_the_routing_table() {
    let (mut task, peer) = (task(true), PeerId::random());
    let [true_one, other, lie]: [Multiaddr; 3] =
        [1, 2, 3].map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
    for address in [&true_one, &other] {
        task.store.addresses.on_success(peer, address, wall_ms());
        task.swarm.behaviour_mut().discovery.kad.add_address(&peer, address.clone());
    }
    for (failed, is_routed) in [(&lie, true), (&other, true), (&true_one, false)] {
        let failure = TransportError::Other(io::ErrorKind::ConnectionRefused.into());
        let error = DialError::Transport(vec![(failed.clone(), failure)]);
        task.on_dial_error(ConnectionId::new_unchecked(1), Some(peer), &error);
        assert_eq!(routed(&mut task).contains(&peer), is_routed, "{failed}");
    }
}

/// Has a node ask another one, and returns how many peers the answer names.
async fn ask(asker: &mut Task, asked: &mut Task) -> usize {
    asker.swarm.behaviour_mut().discovery.kad.get_closest_peers(PeerId::random());
    loop {
        let event = tokio::select! {
            event = asker.swarm.select_next_some() => event,
            _ = asked.swarm.select_next_some() => continue,
        };
        if let SwarmEvent::Behaviour(BehaviourEvent::Discovery(Event::Heard(_, named))) = event {
            return named.len();
        }
    }
}

#[tokio::test]
async fn requests_for_peers_are_charged_and_without_budget_answered_with_nobody() {
    let (mut asker, mut asked) = (task(true), task(true));
    let (peer, there) = (*asked.swarm.local_peer_id(), listening(&mut asked).await);
    asker.swarm.behaviour_mut().discovery.kad.add_address(&peer, there);
    let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    asked.swarm.behaviour_mut().discovery.kad.add_address(&PeerId::random(), address);
    assert_eq!(ask(&mut asker, &mut asked).await, 1);
    let from = *asker.swarm.local_peer_id();
    assert!(asked.accounts.report(&from).spent.total() > 0);
    asked.accounts.charge_request(&from, usize::MAX);
    assert_eq!(ask(&mut asker, &mut asked).await, 0);
}

/// A connected peer that serves discovery was reached at an address.
fn reach(task: &mut Task, number: usize, address: &Multiaddr) -> PeerId {
    let (peer, id) = (PeerId::random(), ConnectionId::new_unchecked(number));
    task.peers.on_connected(peer, id, address.clone(), false, None, Instant::now());
    task.peers.on_identified(&peer, "", true);
    task.on_reached(peer, address);
    peer
}

#[tokio::test]
async fn one_group_has_few_places_in_the_routing_table() {
    let mut task = task(false);
    let public = |group, host| format!("/ip4/7.7.{group}.{host}/tcp/7700").parse().unwrap();
    for host in 0..30 {
        reach(&mut task, host, &public(1, host));
    }
    let mut of_group = routed(&mut task);
    let kad = &mut task.swarm.behaviour_mut().discovery.kad;
    let most = kad.kbuckets().map(|bucket| bucket.num_entries()).max();
    assert_eq!(most, Some(2), "of one bucket");
    assert!((2..=8).contains(&of_group.len()), "{of_group:?}");
    let other = reach(&mut task, 100, &public(2, 1));
    assert!(routed(&mut task).contains(&other));
    // Ever new identities are in ever more buckets.
    while of_group.len() < 8 {
        let peer = reach(&mut task, 200, &public(1, 40));
        task.store.addresses.forget(&peer);
        of_group = routed(&mut task);
        of_group.retain(|peer| *peer != other);
    }
    for _ in 0..200 {
        let peer = reach(&mut task, 300, &public(1, 50));
        task.store.addresses.forget(&peer);
        assert!(!routed(&mut task).contains(&peer));
    }
}

#[tokio::test]
async fn nodes_that_share_an_address_are_all_in_the_routing_table() {
    let mut task = task(true);
    for port in 1..=20 {
        reach(&mut task, port, &format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
    }
    assert_eq!(routed(&mut task).len(), 20);
}
