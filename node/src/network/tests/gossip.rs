//! Gossip between nodes.

use std::collections::HashSet;

use super::*;

#[tokio::test]
async fn two_nodes_gossip_on_all_topics() {
    let (mut a, mut b) = pair().await;
    for topic in Topic::ALL {
        for length in [8, 9, topic.bytes_max()] {
            a.network.publish(topic, numbered(1, length));
            let gossip = b.gossip(topic).await;
            assert_eq!((gossip.topic, gossip.from, gossip.bytes.len()), (topic, a.id(), length));
            b.network.verdict(gossip.ticket, Verdict::Accept);
            b.network.publish(topic, numbered(2, length));
            assert_eq!(a.accept(topic).await, numbered(2, length));
        }
    }
    let peers = a.network.peers();
    let peer = peers.borrow()[0].clone();
    assert_eq!((peer.id, peer.inbound), (b.id(), true));
    assert!(peer.agent.starts_with("cairn-node/"), "{}", peer.agent);
    let metrics = a.metrics();
    let accepted = metrics.lines().any(|line| {
        line.starts_with("cairn_network_gossip_messages_total{")
            && line.contains("topic=\"consensus\"")
            && line.contains("outcome=\"accepted\"")
            && line.ends_with(" 3")
    });
    assert!(accepted, "{metrics}");
    assert!(metrics.contains("libp2p_bandwidth_bytes_total"));
}

#[tokio::test]
async fn only_what_is_accepted_goes_on() {
    let mut middle = Node::start(config(&[])).await;
    let mut left = Node::start(config(&[&middle])).await;
    meet(&mut middle, &mut left).await;
    let mut right = Node::start(config(&[&middle])).await;
    meet(&mut middle, &mut right).await;

    let topic = Topic::Consensus;
    let verdicts = [None, Some(Verdict::Ignore), Some(Verdict::Reject), Some(Verdict::Accept)];
    let mut open = Vec::new();
    for (number, verdict) in (0..).zip(verdicts) {
        left.network.publish(topic, numbered(number, 100));
        let gossip = middle.gossip(topic).await;
        assert_eq!(gossip.bytes, numbered(number, 100));
        match verdict {
            Some(verdict) => middle.network.verdict(gossip.ticket, verdict),
            None => open.push(gossip.ticket),
        }
    }
    let gossip = right.gossip(topic).await;
    assert_eq!(
        (gossip.bytes, gossip.from),
        (numbered(3, 100), middle.id()),
        "the accepted one, from the middle"
    );
    for ticket in open {
        middle.network.verdict(ticket, Verdict::Accept);
    }
    assert_eq!(right.gossip(topic).await.bytes, numbered(0, 100), "the one accepted late");
    assert_eq!(middle.network.peers().borrow().len(), 2);
    assert_eq!(left.network.peers().borrow().len(), 1, "the ends know the middle only");
}

/// If the limit of a frame were less than twice the payload, all but the first few of these
/// messages would vanish without an error.
#[tokio::test]
async fn thousands_of_large_messages_all_arrive() {
    const WINDOW: u64 = 32;
    let (a, mut b) = pair().await;
    for (topic, count) in
        [(Topic::Transactions, 2_000), (Topic::Headers, 400), (Topic::Consensus, 200)]
    {
        let length = |number: u64| topic.bytes_max() - (number % 3) as usize;
        let mut published = 0;
        let mut missing: HashSet<u64> = (0..count).collect();
        while !missing.is_empty() {
            while published < count && published < count - missing.len() as u64 + WINDOW {
                a.network.publish(topic, numbered(published, length(published)));
                published += 1;
            }
            let bytes = b.accept(topic).await;
            let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes.len(), length(number));
            assert!(missing.remove(&number), "message {number} came twice");
        }
    }
}

#[tokio::test]
async fn a_full_queue_drops_and_lives_on() {
    let (a, mut b) = pair().await;
    let topic = Topic::Headers;
    // The share of the queue that a peer gets if no other peer sends.
    let capacity = b.inbox.headers.capacity() as u64 / 2;
    let ignored = |metrics: &str| {
        metrics.lines().any(|line| line.contains("inbox_full") && line.ends_with(" 1"))
    };
    let mut number = 0;
    let overflow = async {
        // The message on consensus arrives after all messages that were published before it.
        while !ignored(&b.metrics()) {
            number += 1;
            a.network.publish(topic, numbered(number, 100));
            a.network.publish(Topic::Consensus, numbered(number, 100));
            b.inbox.consensus.recv().await.unwrap();
        }
    };
    within("an overflow", overflow).await;
    assert!(number > capacity, "{number}");
    for number in 1..=capacity {
        assert_eq!(b.gossip(topic).await.bytes, numbered(number, 100));
    }
    a.network.publish(topic, numbered(u64::MAX, 100));
    assert_eq!(b.gossip(topic).await.bytes, numbered(u64::MAX, 100));
}

#[tokio::test]
async fn a_lone_node_publishes_to_nobody_and_later_to_somebody() {
    let mut a = Node::start(config(&[])).await;
    for topic in Topic::ALL {
        a.network.publish(topic, numbered(1, 100));
        a.network.publish(topic, numbered(1, topic.bytes_max() + 1));
    }
    let mut b = Node::start(config(&[&a])).await;
    meet(&mut a, &mut b).await;
    a.network.publish(Topic::Consensus, numbered(1, 100));
    assert_eq!(
        b.accept(Topic::Consensus).await,
        numbered(1, 100),
        "what nobody got is not a duplicate"
    );
}
