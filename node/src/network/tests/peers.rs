//! Peers that are found, refused and missed.

use super::*;

#[tokio::test]
async fn a_bootstrap_peer_that_comes_back_is_found_again() {
    let first = config(&[]);
    let mut again = first.clone();
    let a = Node::start(first).await;
    let mut b = Node::start(config(&[&a])).await;
    let a_id = a.id();
    b.connected(a_id).await;
    again.listen = vec![without_peer(&a.address())];
    a.network.shutdown().await;
    within("the task's end", a.task).await.unwrap();
    b.disconnected(a_id).await;
    assert!(b.network.peers().borrow().is_empty());
    let _a = Node::start(again).await;
    b.connected(a_id).await;
}

#[tokio::test]
async fn a_bootstrap_address_needs_no_identity_and_may_come_up_later() {
    let a = Node::start(config(&[])).await;
    let address = without_peer(&a.address());
    a.network.shutdown().await;
    within("the task's end", a.task).await.unwrap();
    let mut b =
        Node::start(NetworkConfig { bootstrap: vec![address.clone()], ..config(&[]) }).await;
    let late = Node::start(NetworkConfig { listen: vec![address], ..config(&[]) }).await;
    b.connected(late.id()).await;
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused() {
    let mut ours = Node::start(config(&[])).await;
    let mut foreign = config(&[&ours]);
    foreign.chain = "bb".into();
    let mut theirs = Node::start(foreign).await;
    ours.counted("libp2p_swarm_connections_duration_seconds_count{").await;
    let mut friend = Node::start(config(&[&ours])).await;
    friend.connected(ours.id()).await;
    let first = within("an event", ours.inbox.events.recv()).await.unwrap();
    assert!(matches!(first, PeerEvent::Connected(peer) if peer == friend.id()), "{first:?}");
    assert!(theirs.inbox.events.try_recv().is_err());
}

#[tokio::test]
async fn a_banned_peer_stays_out() {
    let (mut a, mut b) = pair().await;
    a.network.ban(b.id(), charge(Severity::Lie));
    let (a_id, b_id) = (a.id(), b.id());
    tokio::join!(a.disconnected(b_id), b.disconnected(a_id));
    // `b` dials again, as `a` is its bootstrap peer. The next peer that gets in is `friend`.
    let mut friend = Node::start(config(&[&a])).await;
    b.network.dial(a.address());
    friend.connected(a.id()).await;
    let next = within("an event", a.inbox.events.recv()).await.unwrap();
    assert!(matches!(next, PeerEvent::Connected(peer) if peer == friend.id()), "{next:?}");
}

#[tokio::test]
async fn peers_of_peers_are_found() {
    let private = |bootstrap: &[&Node]| NetworkConfig { private: true, ..config(bootstrap) };
    let middle = Node::start(private(&[])).await;
    let left = Node::start(private(&[&middle])).await;
    let mut right = Node::start(private(&[&middle])).await;
    right.connected(left.id()).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let a = Node::start(config(&[])).await;
    let mut second = config(&[]);
    let address = without_peer(&a.address());
    second.listen = vec![address.clone()];
    let error = start(second, &mut Registry::default()).err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
    let mut odd = config(&[]);
    odd.listen = vec!["/ip4/127.0.0.1/udp/7700".parse().unwrap()];
    let error = start(odd, &mut Registry::default()).err().unwrap().to_string();
    assert!(error.contains("only TCP"), "{error}");
}

/// Others may name an address of a holder under a wrong identity. Then it is dialed all the same,
/// or liars could use up the one dial a minute that it may have.
#[tokio::test]
async fn a_holder_is_dialed_whatever_identity_others_name_at_its_address() {
    let private = |of: &[&Node]| NetworkConfig { private: true, ..config(of) };
    let (holder, mut node) = (Node::start(private(&[])).await, Node::start(private(&[])).await);
    let nobody: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    node.network.dial_holder(nobody);
    let wrong = without_peer(&holder.address()).with_p2p(PeerId::random()).unwrap();
    node.network.dial_holder(wrong.clone());
    node.connected(holder.id()).await;
    // A connected peer is not dialed again. The next one that is connected is a friend.
    node.network.dial_holder(wrong);
    let friend = Node::start(private(&[])).await;
    node.network.dial_holder(friend.address());
    node.connected(friend.id()).await;
    assert_eq!(node.network.peers().borrow().len(), 2);
    assert!(node.network.bans().borrow().is_empty());
}
