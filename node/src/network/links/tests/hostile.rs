//! Links of peers that break the protocol.

use std::future::Future;

use futures::{AsyncWriteExt, FutureExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};

use super::*;
use crate::network::exchange::tests::{Slow, TRICKLE};
use crate::network::intake::GRACE;
use crate::network::share::Share;
use crate::network::tests::{Node, PATIENCE, charge, config, numbered, within};
use crate::network::wire::Names;
use crate::network::{LINK_DATA_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, Severity};

/// A peer that speaks only the protocols of links, and badly.
struct Hostile {
    swarm: Swarm<Behaviour>,
    connection: Option<ConnectionId>,
    /// The streams that the node has opened. A stream closes when it is dropped.
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

    /// Runs the connection until `future` is done.
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

/// Some peers each send most of a frame of the largest size and nothing more. There are as many as
/// the room for such frames allows.
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
            // The peer sends nothing more and keeps its streams open. The test ends long before
            // `FRAMES.stall`, after which the node would end a frame that stands still.
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
    // Each peer has written so much that the node has read more of its frame than a link's floor
    // holds. So the node has given each frame room.
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
