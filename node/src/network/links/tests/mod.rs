//! Tests of links between nodes on loopback.
#![allow(clippy::unwrap_used)]

mod hostile;

use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::network::tests::{Node, config, meet, numbered, within, without_peer};
use crate::network::{LINK_DATA_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, NetworkConfig, Topic};

async fn next(node: &mut Node) -> LinkEvent {
    within("a link event", node.inbox.links.recv()).await.unwrap()
}

/// Two connected nodes whose links are open.
async fn linked() -> (Node, Node) {
    let mut a = Node::start(config(&[])).await;
    let mut b = Node::start(config(&[&a])).await;
    meet(&mut a, &mut b).await;
    assert_eq!(next(&mut a).await, LinkEvent::Opened(b.id()));
    assert_eq!(next(&mut b).await, LinkEvent::Opened(a.id()));
    (a, b)
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_until_the_link_closes() {
    let (mut a, mut b) = linked().await;
    let (a_id, b_id) = (a.id(), b.id());
    let step = 64 << 10;
    let lengths = [0, 1, 100, step - 5, step - 4, step - 3, step, 256 << 10, LINK_DATA_BYTES_MAX];
    let message = |number: usize| {
        let length = lengths
            .get(number)
            .map_or(LINK_MESSAGE_BYTES_MAX, |length| LINK_MESSAGE_BYTES_MAX.min(*length));
        numbered(number as u64, length)
    };
    let data = |number: usize| numbered(number as u64, lengths[number]);
    for (from, to) in [(&a, b_id), (&b, a_id)] {
        for number in 0..lengths.len() {
            from.network.send_message(to, message(number));
            from.network.send_data(to, data(number));
        }
        from.network.send_message(to, message(lengths.len()));
    }
    for (node, from) in [(&mut a, b_id), (&mut b, a_id)] {
        let (mut messages, mut chunks, mut written) = (0, 0, 0);
        while messages <= lengths.len() || chunks < lengths.len() || written < lengths.len() {
            match next(node).await {
                LinkEvent::Message(peer, bytes) => {
                    assert!(peer == from && bytes == message(messages), "message {messages}");
                    messages += 1;
                }
                LinkEvent::Data(peer, bytes) => {
                    assert!(peer == from && bytes == data(chunks), "data {chunks}");
                    chunks += 1;
                }
                LinkEvent::Written(peer) => {
                    assert_eq!(peer, from);
                    written += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let sum: usize = lengths.iter().sum();
    let messages = (0..=lengths.len()).map(|number| message(number).len()).sum();
    for (stream, bytes) in [("control", messages), ("data", sum)] {
        for direction in ["in", "out"] {
            let labels = format!("{{direction=\"{direction}\",stream=\"{stream}\"}}");
            a.counted(&format!("cairn_network_link_bytes_total{labels} {bytes}")).await;
        }
    }

    a.network.send_message(PeerId::random(), vec![1]);
    a.network.shutdown().await;
    within("the task's end", a.task).await.unwrap();
    assert_eq!(next(&mut b).await, LinkEvent::Closed(a_id));
    assert_eq!(a.inbox.links.recv().await, None, "nothing of the network is left");
    b.network.send_message(a_id, vec![1]);
    b.disconnected(a_id).await;
    assert_eq!(b.inbox.links.try_recv(), Err(TryRecvError::Empty));
}

/// At a rate limit of one byte a second, a frame of 128 KiB is spread over 150 ms (`PACED`), not
/// over days. The test measures only that it does not arrive much sooner.
#[tokio::test]
async fn data_is_spread_over_time() {
    let mut a =
        Node::start(NetworkConfig { data_rate: Some(NonZeroU64::MIN), ..config(&[]) }).await;
    let mut b = Node::start(config(&[&a])).await;
    assert_eq!(next(&mut a).await, LinkEvent::Opened(b.id()));
    assert_eq!(next(&mut b).await, LinkEvent::Opened(a.id()));
    let begun = Instant::now();
    a.network.send_data(b.id(), numbered(1, 128 << 10));
    assert_eq!(next(&mut b).await, LinkEvent::Data(a.id(), numbered(1, 128 << 10)));
    assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_peer_that_restarts_gets_a_new_link() {
    let first = config(&[]);
    let mut again = first.clone();
    let a = Node::start(first).await;
    let mut b = Node::start(config(&[&a])).await;
    let a_id = a.id();
    assert_eq!(next(&mut b).await, LinkEvent::Opened(a_id));
    again.listen = vec![without_peer(&a.address())];
    a.network.shutdown().await;
    within("the task's end", a.task).await.unwrap();
    assert_eq!(next(&mut b).await, LinkEvent::Closed(a_id));
    let mut a = Node::start(again).await;
    assert_eq!(next(&mut b).await, LinkEvent::Opened(a_id));
    b.network.send_message(a_id, vec![7]);
    assert_eq!(next(&mut a).await, LinkEvent::Opened(b.id()));
    assert_eq!(next(&mut a).await, LinkEvent::Message(b.id(), vec![7]));
}

/// Both sides send at once, far more than all buffers on the way hold, and begin to read late.
#[tokio::test]
async fn two_nodes_fill_each_other() {
    const FRAME: usize = 256 << 10;
    const TOTAL: u64 = 256;
    const WINDOW: u64 = 48;
    const FILLERS: u64 = 100;
    /// Reads all frames; each one lets the other side send one more.
    async fn side(mut node: Node, other: PeerId) -> Node {
        let (mut sent, mut acknowledged, mut received, mut fillers) = (WINDOW, 0, 0, 0);
        while received < TOTAL || acknowledged < TOTAL {
            match next(&mut node).await {
                LinkEvent::Data(_, bytes) => {
                    assert!(bytes == numbered(received, FRAME), "frame {received}");
                    received += 1;
                    node.network.send_message(other, numbered(received, 8));
                }
                LinkEvent::Message(_, bytes) if fillers < FILLERS => {
                    assert_eq!(bytes, numbered(fillers, 9));
                    fillers += 1;
                }
                LinkEvent::Message(_, bytes) => {
                    acknowledged += 1;
                    assert_eq!(bytes, numbered(acknowledged, 8));
                    if sent < TOTAL {
                        node.network.send_data(other, numbered(sent, FRAME));
                        sent += 1;
                    }
                }
                LinkEvent::Written(_) => {}
                other => panic!("{other:?}"),
            }
        }
        node
    }

    let (mut a, mut b) = linked().await;
    let (a_id, b_id) = (a.id(), b.id());
    for (from, to) in [(&a, b_id), (&b, a_id)] {
        (0..FILLERS).for_each(|number| from.network.send_message(to, numbered(number, 9)));
        (0..WINDOW).for_each(|number| from.network.send_data(to, numbered(number, FRAME)));
    }
    // Nobody reads the events of links yet, and requests are answered all the same.
    while a.inbox.links.len() < EVENTS || b.inbox.links.len() < EVENTS {
        let id = a.network.request(b_id, vec![1]);
        let (bytes, ticket) = b.request().await;
        b.network.respond(ticket, bytes);
        assert_eq!(a.response(id).await, Ok(vec![1]));
    }
    let start = Instant::now();
    let sides = async { tokio::join!(tokio::spawn(side(a, b_id)), tokio::spawn(side(b, a_id))) };
    let (a, b) = within("both ways at once", sides).await;
    let mebibytes = 2.0 * (TOTAL as f64) * (FRAME as f64) / f64::from(1 << 20);
    println!("{:.0} MiB/s, both ways together", mebibytes / start.elapsed().as_secs_f64());
    let (a, mut b) = (a.unwrap(), b.unwrap());
    a.network.publish(Topic::Consensus, vec![1]);
    assert_eq!(b.accept(Topic::Consensus).await, [1]);
}

/// The link with the silent peer closes after many frames, and no other link suffers.
#[tokio::test]
async fn a_peer_that_never_reads_holds_up_nobody() {
    let (mut a, mut silent) = linked().await;
    let mut friend = Node::start(config(&[&a])).await;
    meet(&mut a, &mut friend).await;
    let (silent_id, friend_id) = (silent.id(), friend.id());
    assert_eq!(next(&mut a).await, LinkEvent::Opened(friend_id));
    assert_eq!(next(&mut friend).await, LinkEvent::Opened(a.id()));

    (0..100).for_each(|_| a.network.send_message(silent_id, vec![0]));
    let mut sent = 0;
    loop {
        match a.inbox.links.try_recv() {
            Err(TryRecvError::Empty) => {}
            // The stream's window and the buffers take some frames.
            Ok(LinkEvent::Written(_)) => continue,
            other => break assert_eq!(other, Ok(LinkEvent::Closed(silent_id))),
        }
        a.network.send_data(silent_id, numbered(sent, 256 << 10));
        sent += 1;
        let id = a.network.request(silent_id, vec![1]);
        let (bytes, ticket) = silent.request().await;
        silent.network.respond(ticket, bytes);
        assert_eq!(a.response(id).await, Ok(vec![1]));
        a.network.publish(Topic::Consensus, numbered(sent, 100));
        assert_eq!(friend.accept(Topic::Consensus).await, numbered(sent, 100));
        a.network.send_message(friend_id, numbered(sent, 100));
        assert_eq!(next(&mut friend).await, LinkEvent::Message(a.id(), numbered(sent, 100)));
    }
    assert!(sent > 64, "closed after {sent} frames");
    // The link opens again, on this side at least, and the peer is still connected.
    assert_eq!(next(&mut a).await, LinkEvent::Opened(silent_id));
    assert_eq!(a.network.peers().borrow().len(), 2);
    assert_eq!(next(&mut silent).await, LinkEvent::Message(a.id(), vec![0]));
}

#[tokio::test]
async fn a_node_of_another_chain_gets_no_link() {
    let mut ours = Node::start(config(&[])).await;
    let mut foreign = Node::start(NetworkConfig { chain: "bb".into(), ..config(&[&ours]) }).await;
    ours.counted("libp2p_swarm_connections_duration_seconds_count{").await;
    let mut friend = Node::start(config(&[&ours])).await;
    assert_eq!(next(&mut friend).await, LinkEvent::Opened(ours.id()));
    assert_eq!(next(&mut ours).await, LinkEvent::Opened(friend.id()));
    assert_eq!(foreign.inbox.links.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn whoever_drops_the_reader_has_no_links() {
    let a = Node::start(config(&[])).await;
    let mut without = Node::start(config(&[&a])).await;
    drop(std::mem::replace(&mut without.inbox.links, mpsc::channel(1).1));
    let (a_id, mut a) = (a.id(), a);
    without.connected(a_id).await;
    // The other side's streams are accepted all the same: they cost one window each.
    assert_eq!(next(&mut a).await, LinkEvent::Opened(without.id()));
    let id = a.network.request(without.id(), vec![1]);
    let (bytes, ticket) = without.request().await;
    without.network.respond(ticket, bytes);
    assert_eq!(a.response(id).await, Ok(vec![1]));
}

/// The wait doubles with each failure, up to [`BACKOFF_MAX`]. A new connection starts over.
#[test]
fn links_that_fail_wait_ever_longer() {
    let (mut links, _, _reader) = Links::new(Meters::default(), None);
    let (peer, connection, mut now) =
        (PeerId::random(), ConnectionId::new_unchecked(1), Instant::now());
    links.on_admitted(peer, now);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let start = now;
        while links.due(now).is_empty() {
            now += Duration::from_millis(500);
        }
        waits.push((now - start).as_secs());
        links.on_opening(&peer, connection);
        assert!(links.due(now).is_empty(), "it is being opened");
        links.on_outward(&peer, ConnectionId::new_unchecked(2), Err(OpenError::Timeout), None, now);
        assert!(links.due(now + BACKOFF_MAX).is_empty(), "an answer of another connection is none");
        if waits.len() % 2 == 0 {
            links.on_outward(&peer, connection, Err(OpenError::Timeout), None, now);
        } else {
            links.on_connection_closed(&peer, connection, now);
        }
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60]);
    links.on_disconnected(&peer);
    assert!(links.due(now + BACKOFF_MAX).is_empty());
    links.on_admitted(peer, now);
    assert_eq!(links.due(now), [peer], "a new connection counts afresh");
}
