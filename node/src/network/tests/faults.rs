//! Peers that are cut off, and latency.

use std::time::Instant;

use super::*;
use crate::network::faults::LATENCY_MAX;

fn armed(bootstrap: &[&Node]) -> NetworkConfig {
    NetworkConfig { faults: true, private: true, ..config(bootstrap) }
}

fn cut(node: &Node, peers: &[PeerId]) {
    let plan = FaultPlan { cut: peers.iter().copied().collect(), ..FaultPlan::default() };
    node.network.set_faults(plan).unwrap();
}

fn heal(node: &Node) {
    node.network.set_faults(FaultPlan::default()).unwrap();
}

/// Two connected nodes that allow faults.
async fn armed_pair() -> (Node, Node) {
    let mut a = Node::start(armed(&[])).await;
    let mut b = Node::start(armed(&[&a])).await;
    meet(&mut a, &mut b).await;
    (a, b)
}

/// How long a held peer is watched. Nothing may arrive in this time.
const WATCHED: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn a_cut_holds_gossip_and_requests_and_the_heal_brings_all_of_it() {
    for both_ends in [true, false] {
        let (mut a, mut b) = armed_pair().await;
        let (a_id, b_id) = (a.id(), b.id());
        cut(&a, &[b_id]);
        if both_ends {
            cut(&b, &[a_id]);
        }
        let question = b.network.request(a_id, b"?".to_vec());
        for number in 0..50 {
            a.network.publish(Topic::Consensus, numbered(number, 100));
            b.network.publish(Topic::Consensus, numbered(100 + number, 100));
        }
        let nothing = async {
            tokio::select! {
                gossip = a.inbox.consensus.recv() => panic!("{gossip:?}"),
                gossip = b.inbox.consensus.recv() => panic!("{gossip:?}"),
                event = a.inbox.events.recv() => panic!("{event:?}"),
                event = b.inbox.events.recv() => panic!("{event:?}"),
            }
        };
        assert!(timeout(WATCHED, nothing).await.is_err(), "both ends: {both_ends}");
        heal(&a);
        heal(&b);
        for number in 0..50 {
            assert_eq!(b.accept(Topic::Consensus).await, numbered(number, 100));
            assert_eq!(a.accept(Topic::Consensus).await, numbered(100 + number, 100));
        }
        let (bytes, ticket) = a.request().await;
        assert_eq!(bytes, b"?");
        a.network.respond(ticket, b"!".to_vec());
        assert_eq!(b.response(question).await, Ok(b"!".to_vec()));
    }
}

/// A link holds its frames, and other peers notice nothing.
#[tokio::test]
async fn only_the_peer_that_is_cut_off_is_held() {
    let (mut a, mut b) = armed_pair().await;
    let mut c = Node::start(armed(&[&a])).await;
    let (a_id, b_id, c_id) = (a.id(), b.id(), c.id());
    tokio::join!(a.connected(c_id), c.connected(a_id));
    for (node, mut peers) in
        [(&mut a, vec![b_id, c_id]), (&mut b, vec![a_id]), (&mut c, vec![a_id])]
    {
        while !peers.is_empty() {
            let event = within("a link", node.inbox.links.recv()).await.unwrap();
            peers.retain(|peer| event != LinkEvent::Opened(*peer));
        }
    }
    cut(&a, &[b_id]);
    a.network.send_message(b_id, b"held".to_vec());
    a.network.send_message(c_id, b"sent".to_vec());
    let message = |from, text: &[u8]| Some(LinkEvent::Message(from, text.to_vec()));
    let arrives = async { while c.inbox.links.recv().await != message(a_id, b"sent") {} };
    within("a message to another peer", arrives).await;
    let arrives = async { while b.inbox.links.recv().await != message(a_id, b"held") {} };
    tokio::pin!(arrives);
    assert!(timeout(WATCHED, &mut arrives).await.is_err());
    heal(&a);
    within("the held message", arrives).await;
}

#[tokio::test]
async fn a_peer_that_is_cut_off_cannot_connect_and_is_not_dialed() {
    let mut a = Node::start(armed(&[])).await;
    let stranger = Keypair::generate_ed25519();
    let b_id = stranger.public().to_peer_id();
    cut(&a, &[b_id]);
    let mut b = Node::start(NetworkConfig { identity: stranger, ..armed(&[&a]) }).await;
    let a_id = a.id();
    // `a` refuses both dials: its own and that of `b`.
    a.network.dial(b.address());
    let connects = async { tokio::join!(a.connected(b_id), b.connected(a_id)) };
    assert!(timeout(4 * WATCHED, connects).await.is_err());
    heal(&a);
    tokio::join!(a.connected(b_id), b.connected(a_id));
}

#[tokio::test]
async fn a_held_connection_may_close_and_is_made_again_at_the_heal() {
    let (mut a, mut b) = armed_pair().await;
    let (a_id, b_id) = (a.id(), b.id());
    cut(&a, &[b_id]);
    cut(&b, &[a_id]);
    a.network.ban(b_id, charge(Severity::Mistake));
    tokio::join!(a.disconnected(b_id), b.disconnected(a_id));
    assert!(timeout(2 * WATCHED, b.connected(a_id)).await.is_err());
    heal(&a);
    heal(&b);
    tokio::join!(a.connected(b_id), b.connected(a_id));
}

#[tokio::test]
async fn latency_delays_both_ways_and_can_be_changed() {
    const LATENCY: Duration = Duration::from_millis(300);
    let (mut a, mut b) = armed_pair().await;
    let (a_id, b_id) = (a.id(), b.id());
    let delay = |node: &Node, peer, latency| {
        let plan = FaultPlan { latency: [(peer, latency)].into(), ..FaultPlan::default() };
        node.network.set_faults(plan).unwrap();
    };
    for (number, latency) in (0..).zip([LATENCY, LATENCY / 2]) {
        delay(&a, b_id, latency);
        delay(&b, a_id, latency);
        let start = Instant::now();
        a.network.publish(Topic::Consensus, numbered(number, 100));
        assert_eq!(b.accept(Topic::Consensus).await, numbered(number, 100));
        assert!(start.elapsed() >= latency, "{:?}", start.elapsed());
        let question = a.network.request(b_id, b"?".to_vec());
        let (_, ticket) = b.request().await;
        b.network.respond(ticket, b"!".to_vec());
        assert_eq!(a.response(question).await, Ok(b"!".to_vec()));
        assert!(start.elapsed() >= 3 * latency, "{:?}", start.elapsed());
    }
    // What waits for a long time goes on at once without latency.
    delay(&a, b_id, LATENCY_MAX);
    delay(&b, a_id, LATENCY_MAX);
    let start = Instant::now();
    let question = a.network.request(b_id, b"?".to_vec());
    delay(&a, b_id, Duration::ZERO);
    delay(&b, a_id, Duration::ZERO);
    let (_, ticket) = b.request().await;
    b.network.respond(ticket, b"!".to_vec());
    assert_eq!(a.response(question).await, Ok(b"!".to_vec()));
    assert!(start.elapsed() < LATENCY_MAX, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_network_that_is_not_local_has_no_faults() {
    let (a, mut b) = pair().await;
    let plan = FaultPlan { cut: [b.id()].into(), ..FaultPlan::default() };
    assert_eq!(a.network.set_faults(plan), Err(FaultError::Unarmed));
    assert!(a.network.faults().borrow().is_empty());
    a.network.publish(Topic::Consensus, numbered(1, 100));
    assert_eq!(b.accept(Topic::Consensus).await, numbered(1, 100));
}
