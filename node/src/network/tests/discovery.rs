//! What nodes learn of peers that they never met, and what they believe of it.

use super::*;
use crate::network::known::{KnownAddress, Outcome};

/// A node on a private network that keeps no connection but those with its named peers.
fn shy(bootstrap: &[&Node]) -> NetworkConfig {
    let limits = Limits { outbound: 0, pending: 0, ..Limits::default() };
    NetworkConfig { private: true, limits, ..config(bootstrap) }
}

/// Waits until a node knows what `is_enough` wants, and returns all that it knows. No event tells
/// of addresses, so they are polled.
async fn known(
    node: &Node,
    what: &str,
    is_enough: impl Fn(&[KnownAddress]) -> bool,
) -> Vec<KnownAddress> {
    let enough = async {
        loop {
            let known = node.network.known().await;
            if is_enough(&known) {
                return known;
            }
            // No event tells of a new address.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, enough).await
}

fn names(known: &[KnownAddress], peer: PeerId, address: &Multiaddr) -> bool {
    known.iter().any(|it| it.peer == peer && it.address == *address)
}

/// All nodes are connected to the hub alone. So they hear of each other only by its answers.
#[tokio::test]
async fn a_node_that_knows_one_address_hears_of_all_nodes() {
    let hub = Node::start(shy(&[])).await;
    let mut nodes = Vec::new();
    for _ in 0..6 {
        nodes.push(Node::start(shy(&[&hub])).await);
    }
    for node in &nodes {
        let knows_all = |known: &[KnownAddress]| {
            nodes
                .iter()
                .filter(|other| other.id() != node.id())
                .all(|other| names(known, other.id(), &without_peer(&other.address())))
        };
        let known = known(node, "all others", knows_all).await;
        let met = known.iter().filter(|it| it.seen_ms.is_some());
        assert!(met.map(|it| it.peer).eq([hub.id()]), "{known:?}");
    }
}

#[tokio::test]
async fn an_address_is_passed_on_only_if_its_peer_answers_there() {
    let hub = Node::start(shy(&[])).await;
    // Nobody listens at one of these addresses, and at the other one the hub does.
    let nowhere: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let elsewhere = without_peer(&hub.address());
    let external = vec![nowhere.clone(), elsewhere.clone()];
    let liar = Node::start(NetworkConfig { external, ..shy(&[&hub]) }).await;
    let honest = Node::start(shy(&[&hub])).await;
    let is_found_out = |known: &[KnownAddress]| {
        let failed = known.iter().filter(|it| it.peer == liar.id());
        failed.filter(|it| it.outcome == Outcome::Failed).count() == 2
    };
    known(&hub, "two failures", is_found_out).await;
    let newcomer = Node::start(shy(&[&hub])).await;
    let knows_honest =
        |known: &[KnownAddress]| names(known, honest.id(), &without_peer(&honest.address()));
    let known = known(&newcomer, "the honest node", knows_honest).await;
    assert!(!names(&known, liar.id(), &nowhere), "{known:?}");
    assert!(!names(&known, liar.id(), &elsewhere), "{known:?}");
}

#[tokio::test]
async fn who_has_an_object_is_found_by_its_key() {
    let hub = Node::start(shy(&[])).await;
    let holder = Node::start(shy(&[&hub])).await;
    let seeker = Node::start(shy(&[&hub])).await;
    let key = [7; 32];
    holder.network.provide(key);
    // No event tells that a record was stored, so look-ups are repeated.
    let search = async {
        loop {
            let (mut found, mut others) = (None, seeker.network.find_providers([8; 32]));
            let mut looked_up = seeker.network.find_providers(key);
            while let Some(event) = looked_up.recv().await {
                match event {
                    ProviderEvent::Found { peer, addresses, .. } => found = Some((peer, addresses)),
                    ProviderEvent::Ended { requests } => assert!(requests <= 2, "{requests}"),
                }
            }
            let nobody = others.recv().await;
            assert!(matches!(nobody, None | Some(ProviderEvent::Ended { .. })), "{nobody:?}");
            match found {
                Some(found) => return found,
                // No event tells of a stored record.
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let (peer, addresses) = within("the holder", search).await;
    assert_eq!((peer, addresses), (holder.id(), vec![without_peer(&holder.address())]));
}
