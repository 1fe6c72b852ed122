//! Stories of links on loopback.
#![allow(clippy::unwrap_used)]

use std::future::Future;

use futures::{AsyncWriteExt, FutureExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::network::exchange::tests::{Slow, TRICKLE};
use crate::network::intake::GRACE;
use crate::network::share::Share;
use crate::network::tests::{Node, PATIENCE, charge, config, meet, numbered, within, without_peer};
use crate::network::wire::Names;
use crate::network::{LINK_DATA_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, NetworkConfig, Severity, Topic};

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

/// At the lowest rate a frame takes at most the longest time allowed, not days. Only the least time
/// is checked.
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

/// Both ways at once and far more than all buffers between hold, with readers that begin late.
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
    // Nobody reads, and everything else goes on.
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

/// The slow peer's own link closes, late, and no other link suffers.
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
            // The stream's window and the buffers take some.
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

/// A peer that speaks only the protocols of links, and badly.
struct Hostile {
    swarm: Swarm<Behaviour>,
    connection: Option<ConnectionId>,
    /// The streams that the other side has opened. They are open while they are kept.
    inward: Vec<Stream>,
}

impl Hostile {
    async fn dial(node: &Node) -> Self {
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| Behaviour::new(Names::new("aa").links))
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        let mut hostile = Self { swarm, connection: None, inward: Vec::new() };
        hostile.swarm.dial(node.address()).unwrap();
        hostile
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    async fn streams(&mut self, node: &Node) -> [Stream; 2] {
        if let Some(connection) = self.connection {
            self.swarm.behaviour_mut().open(node.id(), connection);
        }
        loop {
            match within("hostile streams", self.swarm.select_next_some()).await {
                SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                    self.connection = Some(connection_id);
                    self.swarm.behaviour_mut().open(peer_id, connection_id);
                }
                SwarmEvent::Behaviour(StreamEvent::Inward { stream, .. }) => {
                    self.inward.push(stream)
                }
                SwarmEvent::Behaviour(StreamEvent::Outward { streams, .. }) => {
                    return streams.unwrap();
                }
                _ => {}
            }
        }
    }

    /// Keeps the connection running meanwhile.
    async fn during<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return done,
                event = self.swarm.select_next_some() => {
                    if let SwarmEvent::Behaviour(StreamEvent::Inward { stream, .. }) = event {
                        self.inward.push(stream);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_bad_frame_costs_the_link_and_what_came_before_it_counts() {
    let mut node = Node::start(config(&[])).await;
    let over = |limit: usize| (limit as u32 + 1).to_le_bytes().to_vec();
    let cases = [
        (Lane::Control, over(LINK_MESSAGE_BYTES_MAX)),
        (Lane::Control, vec![255; 4]),
        (Lane::Data, over(LINK_DATA_BYTES_MAX)),
        (Lane::Data, vec![0, 0, 0, 1]),
    ];
    for (lane, bad) in cases {
        let mut hostile = Hostile::dial(&node).await;
        let id = hostile.id();
        let mut streams = hostile.streams(&node).await;
        let bytes = [&[2, 0, 0, 0, 5, 6], bad.as_slice()].concat();
        let story = async {
            streams[lane.index()].write_all(&bytes).await.unwrap();
            streams[lane.index()].flush().await.unwrap();
            assert_eq!(next(&mut node).await, LinkEvent::Opened(id));
            let good = match lane {
                Lane::Control => LinkEvent::Message(id, vec![5, 6]),
                Lane::Data => LinkEvent::Data(id, vec![5, 6]),
            };
            assert_eq!(next(&mut node).await, good);
            assert_eq!(next(&mut node).await, LinkEvent::Closed(id));
            assert_eq!(node.network.peers().borrow().len(), 1, "the connection is not to blame");
        };
        hostile.during(story).await;
        node.network.ban(id, charge(Severity::Lie));
        hostile.during(node.disconnected(id)).await;
    }
}

#[tokio::test]
async fn a_peer_that_opens_its_streams_anew_gets_a_new_link() {
    let mut node = Node::start(config(&[])).await;
    let mut hostile = Hostile::dial(&node).await;
    let id = hostile.id();
    let mut first = hostile.streams(&node).await;
    first[0].write_all(&[1, 0, 0, 0, 1]).await.unwrap();
    hostile.during(async { assert_eq!(next(&mut node).await, LinkEvent::Opened(id)) }).await;
    hostile
        .during(async { assert_eq!(next(&mut node).await, LinkEvent::Message(id, vec![1])) })
        .await;

    // The old streams are still open: the new ones wait for the next session.
    let mut second = hostile.streams(&node).await;
    second[1].write_all(&[1, 0, 0, 0, 2]).await.unwrap();
    let story = async {
        assert_eq!(next(&mut node).await, LinkEvent::Closed(id));
        // Nobody reads the old streams any more.
        let _reset = first[0].write_all(&[1, 0, 0, 0, 3]).await;
        assert_eq!(next(&mut node).await, LinkEvent::Opened(id));
        assert_eq!(next(&mut node).await, LinkEvent::Data(id, vec![2]));
    };
    hostile.during(story).await;
    drop(second);
    hostile.during(async { assert_eq!(next(&mut node).await, LinkEvent::Closed(id)) }).await;
}

/// Only a link that keeps failing waits ever longer, not one that was open for long.
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

/// A hundred peers send most of the largest frame on each stream, and then next to nothing.
#[tokio::test(start_paused = true)]
async fn unfinished_frames_hold_a_bounded_number_of_bytes_and_let_others_in() {
    const LINKS: usize = 100;
    let intake = Intake::new(FRAMES);
    let mut frames = JoinSet::new();
    for _ in 0..LINKS {
        let source = intake.source();
        for lane in Lane::ALL {
            let source = source.clone();
            frames.spawn(async move {
                let mut slow = Slow::new(768 << 10, TRICKLE, lane.bytes_max());
                source.read(&mut slow, lane.bytes_max()).await.unwrap_err().kind()
            });
        }
    }
    let Share { all, floor } = FRAMES.share;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!((all..=all + LINKS * floor).contains(&intake.total()), "{} bytes", intake.total());
    let source = intake.source();
    let read = async |length: usize| {
        let mut whole = Slow::new(usize::MAX, TRICKLE, length);
        source.read(&mut whole, LINK_DATA_BYTES_MAX).await.map(|(frame, _)| frame.len())
    };
    let chunk = (128 << 10) + 12;
    assert_eq!(
        read(chunk).now_or_never().unwrap().unwrap(),
        chunk,
        "a chunk of the usual size has room"
    );
    let begun = tokio::time::Instant::now();
    assert_eq!(read(LINK_DATA_BYTES_MAX).await.unwrap(), LINK_DATA_BYTES_MAX);
    let waited = begun.elapsed();
    assert!(waited >= GRACE && waited < 10 * GRACE, "{waited:?}");
    let mut ended = HashMap::new();
    while let Some(kind) = frames.join_next().await {
        *ended.entry(kind.unwrap()).or_insert(0) += 1;
        assert!(intake.total() <= all + LINKS * floor, "{} bytes", intake.total());
    }
    let (slow, late) = (
        ended.remove(&std::io::ErrorKind::QuotaExceeded),
        ended.remove(&std::io::ErrorKind::TimedOut),
    );
    assert!(
        slow.is_some_and(|slow| slow > 100) && late.is_some() && ended.is_empty(),
        "{slow:?} {late:?} {ended:?}"
    );
    let longest = FRAMES.time(LINK_DATA_BYTES_MAX) + Duration::from_secs(1);
    assert!(begun.elapsed() < longest, "{:?}", begun.elapsed());
    assert_eq!(intake.total(), 0);
}

/// As many peers as find room for their frames of the largest size send most of them, and no more.
#[tokio::test]
async fn a_frame_that_stands_still_gives_way_to_a_frame_of_another_peer() {
    let mut node = Node::start(config(&[])).await;
    let mut hostile = JoinSet::new();
    let bytes = [&(LINK_DATA_BYTES_MAX as u32).to_le_bytes()[..], &[0; 768 << 10]].concat();
    let crowd = FRAMES.share.all / LINK_DATA_BYTES_MAX;
    let (sender, mut sent) = mpsc::channel(crowd);
    for _ in 0..crowd {
        let (sender, bytes, mut peer) = (sender.clone(), bytes.clone(), Hostile::dial(&node).await);
        let mut streams = peer.streams(&node).await;
        hostile.spawn(async move {
            let write = async {
                streams[Lane::Data.index()].write_all(&bytes).await.unwrap();
                streams[Lane::Data.index()].flush().await.unwrap();
            };
            peer.during(write).await;
            sender.send(peer.id()).await.unwrap();
            // Nothing more comes, and the streams stay open. This test ends long before the time
            // after which a frame that stands still ends.
            peer.during::<()>(std::future::pending()).await;
        });
    }
    let mut peers = Vec::new();
    while peers.len() < crowd {
        tokio::select! {
            peer = sent.recv() => peers.push(peer.unwrap()),
            event = next(&mut node) => assert!(matches!(event, LinkEvent::Opened(_)), "{event:?}"),
        }
    }
    // More than a window of each frame has been read, so each has its room.
    let mut honest = Node::start(config(&[&node])).await;
    let frame = numbered(1, LINK_DATA_BYTES_MAX);
    assert_eq!(next(&mut honest).await, LinkEvent::Opened(node.id()));
    honest.network.send_data(node.id(), frame.clone());
    let (mut gave_way, mut came) = (None, false);
    while gave_way.is_none() || !came {
        match next(&mut node).await {
            LinkEvent::Opened(_) => {}
            LinkEvent::Closed(peer) => {
                assert!(gave_way.replace(peer).is_none() && peers.contains(&peer))
            }
            LinkEvent::Data(peer, bytes) => came = peer == honest.id() && bytes == frame,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(node.network.peers().borrow().len(), crowd + 1, "the connection is not to blame");
}
