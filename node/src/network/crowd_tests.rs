//! Tests on loopback: crowds that want all connections of a node, offenders, restarts, and the
//! counts of bytes and costs.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::StreamExt;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, Swarm, SwarmEvent, dummy};
use libp2p::{SwarmBuilder, noise, tcp, yamux};
use protocol::budget::{Cost, REFILL, REQUEST};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use super::behaviour::{Guards, swarm};
use super::group::port_of;
use super::task::REFUSAL_DELAY;
use super::tests::{Node, PATIENCE, charge, config, within, without_peer};
use super::transport::is_refusal;
use super::wire::Names;
use super::*;

/// The usual limits, applied to loopback addresses too.
fn limits() -> Limits {
    Limits { groups_loopback: true, ..Limits::default() }
}

/// A peer that can connect but speaks none of our protocols.
fn stranger() -> Swarm<dummy::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| dummy::Behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

/// Opens a TCP connection to a node from this loopback address.
async fn connect_from(ip: &str, node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    let to = format!("127.0.0.1:{}", port_of(&node.address()));
    within("a TCP connection", socket.connect(to.parse().unwrap())).await.unwrap()
}

/// Connects the swarm to a node through a relay, so that the connection comes from the loopback
/// address `ip`. Returns whether it was established.
async fn connect(swarm: &mut Swarm<dummy::Behaviour>, ip: &str, to: &Node) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut far = connect_from(ip, to).await;
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        // The copying ends when either side closes.
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    swarm.dial(DialOpts::peer_id(to.id()).addresses(vec![address]).build()).unwrap();
    loop {
        match within("an outcome", swarm.select_next_some()).await {
            SwarmEvent::ConnectionEstablished { .. } => return true,
            SwarmEvent::OutgoingConnectionError { .. } => return false,
            _ => {}
        }
    }
}

/// Thirteen /24 groups with eight hosts each. These are 104 connections, more than the 96 inbound
/// places.
async fn crowd(node: &Node) -> Vec<Swarm<dummy::Behaviour>> {
    let mut crowd = Vec::new();
    for number in 0..13 * 8 {
        let mut swarm = stranger();
        assert!(
            connect(&mut swarm, &format!("127.1.{}.{}", number / 8, 1 + number % 8), node).await
        );
        crowd.push(swarm);
    }
    crowd
}

#[tokio::test]
async fn a_crowd_keeps_neither_named_peers_nor_newcomers_out() {
    let mut named = Node::start(config(&[])).await;
    let address = without_peer(&named.address());
    let mut node =
        Node::start(NetworkConfig { bootstrap: vec![address], limits: limits(), ..config(&[]) })
            .await;
    node.connected(named.id()).await;
    let mut crowd = crowd(&node).await;
    // Each member of the crowd stays until it is evicted, and does not come back.
    let crowded = tokio::spawn(async move {
        let mut crowd: futures::stream::SelectAll<_> = crowd.drain(..).collect();
        while crowd.next().await.is_some() {}
    });
    node.counted("cairn_network_connections_closed_total{reason=\"evicted\"}").await;

    // The named peer restarts, and dials before anybody can dial it.
    let (id, again) =
        (named.id(), NetworkConfig { bootstrap: vec![node.address()], ..named.config.clone() });
    named.network.shutdown().await;
    within("the end", named.task).await.unwrap();
    node.disconnected(id).await;
    named = Node::start(NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        ..again
    })
    .await;
    tokio::join!(named.connected(node.id()), node.connected(id));

    let mut newcomer = Node::start(config(&[&node])).await;
    let id = newcomer.id();
    tokio::join!(newcomer.connected(node.id()), node.connected(id));
    crowded.abort();
}

/// The transport checks every dial, so it also checks those that the swarm makes for Kademlia's
/// queries. As for such a dial, the network's task takes no part here: the test calls `swarm.dial`.
#[tokio::test]
async fn an_address_of_our_own_network_is_dialed_only_if_we_chose_it() {
    let node = Node::start(config(&[])).await;
    for (is_private, is_chosen, is_dialed) in
        [(false, false, false), (false, true, true), (true, false, true)]
    {
        let config = NetworkConfig { private: is_private, ..config(&[]) };
        let guards = Guards::new(&config);
        let mut swarm =
            swarm(&config, &Names::new("aa"), &mut Registry::default(), &guards).unwrap();
        let chosen: &[Multiaddr] = if is_chosen { &[node.address()] } else { &[] };
        guards.dials.choose(chosen, || swarm.dial(node.address())).unwrap();
        let outcome = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => return true,
                    SwarmEvent::OutgoingConnectionError {
                        error: DialError::Transport(failures),
                        ..
                    } => {
                        assert!(
                            failures.iter().all(|(_, failure)| is_refusal(failure)),
                            "{failures:?}"
                        );
                        return false;
                    }
                    _ => {}
                }
            }
        };
        assert_eq!(
            within("an outcome", outcome).await,
            is_dialed,
            "private: {is_private}, chosen: {is_chosen}"
        );
    }
}

#[tokio::test]
async fn silent_connections_keep_no_handshake_out() {
    let node = Node::start(NetworkConfig { limits: limits(), ..config(&[]) }).await;
    let mut silent = Vec::new();
    for number in 0..200_u32 {
        silent.push(connect_from(&format!("127.2.{}.1", number % 100), &node).await);
    }
    let mut newcomer = Node::start(config(&[&node])).await;
    newcomer.connected(node.id()).await;
    // All silent connections end. Most give way to newer handshakes, and the others time out.
    let all = async {
        for mut connection in silent {
            let mut bytes = Vec::new();
            // A reset ends the connection too.
            let _ = connection.read_to_end(&mut bytes).await;
        }
    };
    within("the end of silent connections", all).await;
}

#[tokio::test]
async fn a_first_mistake_costs_the_connection_and_a_lie_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut a =
        Node::start(NetworkConfig { store: Some(folder.path().join("peers.json")), ..config(&[]) })
            .await;
    let mut b = Node::start(config(&[&a])).await;
    let (a_id, b_id) = (a.id(), b.id());
    b.connected(a_id).await;
    a.connected(b_id).await;
    a.network.ban(b_id, charge(Severity::Mistake));
    a.network.ban(b_id, charge(Severity::Mistake));
    a.disconnected(b_id).await;
    assert!(a.network.bans().borrow().is_empty());
    // B comes back, and lies.
    a.connected(b_id).await;
    a.network.ban(b_id, charge(Severity::Lie));
    a.disconnected(b_id).await;
    let mut bans = a.network.bans();
    let ban = within("a ban", bans.wait_for(|bans| !bans.is_empty())).await.unwrap()[0].clone();
    assert_eq!((ban.peer, ban.offence.as_str()), (b_id, "wrong_chunk"));

    let again = NetworkConfig { listen: vec![without_peer(&a.address())], ..a.config.clone() };
    a.network.shutdown().await;
    within("the end", a.task).await.unwrap();
    let mut a = Node::start(again).await;
    assert_eq!(a.network.bans().borrow()[..], [ban]);
    let mut friend = Node::start(config(&[&a])).await;
    friend.connected(a_id).await;
    b.network.dial(a.address());
    let next = within("an event", a.inbox.events.recv()).await.unwrap();
    assert!(matches!(next, PeerEvent::Connected(peer) if peer == friend.id()), "{next:?}");
}

#[tokio::test]
async fn anchors_and_identities_are_found_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Some(folder.path().join("peers.json"));
    let private = |bootstrap: &[&Node]| NetworkConfig { private: true, ..config(bootstrap) };
    let named = Node::start(private(&[])).await;
    let other = Node::start(private(&[&named])).await;
    let first =
        NetworkConfig { store, bootstrap: vec![without_peer(&named.address())], ..private(&[]) };
    let node = Node::start(first).await;
    // The node dials `named` by its address and finds `other` through it. A peer with an agent has
    // also sent its listening addresses.
    let mut peers = node.network.peers();
    let known = |peers: &Arc<Vec<PeerInfo>>| {
        peers.iter().filter(|peer| !peer.agent.is_empty()).count() == 2
    };
    within("both peers", peers.wait_for(known)).await.unwrap();
    let again = node.config.clone();
    node.network.shutdown().await;
    within("the end", node.task).await.unwrap();
    named.network.shutdown().await;
    within("the end", named.task).await.unwrap();
    let text = std::fs::read_to_string(folder.path().join("peers.json")).unwrap();
    assert!(text.contains("\"identities\":[{\"peer\":"), "{text}");

    let mut node = Node::start(NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        ..again
    })
    .await;
    node.connected(other.id()).await;
}

#[tokio::test]
async fn bytes_of_peers_are_counted() {
    let (a, b) = super::tests::pair().await;
    let of = |node: &Node| {
        let peer = node.network.peers().borrow()[0].clone();
        (peer.traffic.sent_bytes(), peer.traffic.received_bytes())
    };
    let before = of(&a);
    a.network.request(b.id(), vec![0; REQUEST_BYTES_MAX]);
    let counted = async {
        while of(&b).1 < before.0 + REQUEST_BYTES_MAX as u64 {
            // The counts change without an event to wait for.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    within("the bytes of a request", counted).await;
    assert!(of(&a).0 >= before.0 + REQUEST_BYTES_MAX as u64);
}

#[tokio::test]
async fn a_peer_without_budget_waits_for_each_refusal() {
    let (mut a, mut b) = super::tests::pair().await;
    let asked = a.network.request(b.id(), vec![1]);
    let (bytes, ticket) = b.request().await;
    b.network.respond(ticket, bytes);
    assert_eq!(a.response(asked).await, Ok(vec![1]));
    let spent = b.network.accounts().report(&a.id()).spent;
    assert!(spent.decode >= REQUEST, "a request has a price, however small: {spent:?}");

    // A debt that the refill does not pay before the test ends.
    let debt = Cost { verify: 3_600 * REFILL, ..Cost::NONE };
    b.network.accounts().charge(&a.id(), &debt);
    let start = Instant::now();
    let refused = a.network.request(b.id(), vec![2]);
    assert_eq!(a.response(refused).await, Err(RequestError::Busy));
    assert!(start.elapsed() >= REFUSAL_DELAY, "{:?}", start.elapsed());
    assert_eq!(b.network.accounts().report(&a.id()).refused, 1);
}
