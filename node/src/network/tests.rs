//! Stories of whole networks on loopback.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use tokio::time::timeout;

use super::wire::Names;
use super::*;

/// Long enough for a loaded machine, short enough to notice that something hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(super) fn config(bootstrap: &[&Node]) -> NetworkConfig {
    NetworkConfig {
        identity: Keypair::generate_ed25519(),
        chain: "aa".into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        external: vec![],
        bootstrap: bootstrap.iter().map(|node| node.address()).collect(),
        store: None,
        mdns: false,
        private: false,
        small_mesh: true,
        limits: Limits::default(),
        data_rate: None,
    }
}

pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().take(2).collect()
}

pub(super) struct Node {
    pub(super) network: Network,
    pub(super) inbox: Inbox,
    pub(super) task: JoinHandle<()>,
    pub(super) config: NetworkConfig,
    registry: Registry,
}

impl Node {
    pub(super) async fn start(config: NetworkConfig) -> Self {
        let mut registry = Registry::default();
        let (network, inbox, task) = start(config.clone(), &mut registry).unwrap();
        let mut addresses = network.addresses();
        within("listening", addresses.wait_for(|addresses| !addresses.is_empty())).await.unwrap();
        Self { network, inbox, task, config, registry }
    }

    pub(super) fn id(&self) -> PeerId {
        self.network.local_peer()
    }

    pub(super) fn address(&self) -> Multiaddr {
        self.network.addresses().borrow()[0].clone()
    }

    /// The next event for which the question has an answer; others are dropped.
    async fn event<T>(&mut self, what: &str, mut wanted: impl FnMut(PeerEvent) -> Option<T>) -> T {
        let find = async {
            loop {
                if let Some(found) = wanted(self.inbox.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        within(what, find).await
    }

    pub(super) async fn connected(&mut self, peer: PeerId) {
        self.event("connected", |event| {
            matches!(event, PeerEvent::Connected(other) if other == peer).then_some(())
        })
        .await;
    }

    pub(super) async fn disconnected(&mut self, peer: PeerId) {
        self.event("disconnected", |event| {
            matches!(event, PeerEvent::Disconnected(other) if other == peer).then_some(())
        })
        .await;
    }

    pub(super) async fn response(&mut self, id: RequestId) -> Result<Vec<u8>, RequestError> {
        self.event("a response", |event| match event {
            PeerEvent::Response { id: other, result, .. } if other == id => Some(result),
            _ => None,
        })
        .await
    }

    pub(super) async fn request(&mut self) -> (Vec<u8>, ResponseTicket) {
        self.event("a request", |event| match event {
            PeerEvent::Request { bytes, ticket, .. } => Some((bytes, ticket)),
            _ => None,
        })
        .await
    }

    fn queue(&mut self, topic: Topic) -> &mut tokio::sync::mpsc::Receiver<Gossip> {
        match topic {
            Topic::Consensus => &mut self.inbox.consensus,
            Topic::Headers => &mut self.inbox.headers,
            Topic::Transactions => &mut self.inbox.transactions,
        }
    }

    async fn gossip(&mut self, topic: Topic) -> Gossip {
        within("gossip", self.queue(topic).recv()).await.unwrap()
    }

    pub(super) async fn accept(&mut self, topic: Topic) -> Vec<u8> {
        let gossip = self.gossip(topic).await;
        self.network.verdict(gossip.ticket, Verdict::Accept);
        gossip.bytes
    }

    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits for a metric that does not exist before it first counts. No event reports a counter,
    /// so it is polled.
    pub(super) async fn counted(&self, name: &str) {
        let count = async {
            while !self.metrics().lines().any(|line| line.starts_with(name)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(name, count).await;
    }
}

/// Two connected nodes, each of which knows that the other listens to gossip.
pub(super) async fn pair() -> (Node, Node) {
    let mut a = Node::start(config(&[])).await;
    let mut b = Node::start(config(&[&a])).await;
    meet(&mut a, &mut b).await;
    (a, b)
}

pub(super) async fn meet(a: &mut Node, b: &mut Node) {
    let (a_id, b_id) = (a.id(), b.id());
    tokio::join!(a.connected(b_id), b.connected(a_id));
    probe(a, b).await;
    probe(b, a).await;
}

/// Subscriptions travel after the connection is up: publishes until something arrives.
async fn probe(from: &Node, to: &mut Node) {
    let heard = async {
        for number in 0u64.. {
            from.network.publish(
                Topic::Headers,
                [from.id().to_bytes(), number.to_be_bytes().to_vec()].concat(),
            );
            if timeout(Duration::from_millis(50), to.inbox.headers.recv()).await.is_ok() {
                break;
            }
        }
        // More than one may be in flight.
        while timeout(Duration::from_millis(50), to.inbox.headers.recv()).await.is_ok() {}
    };
    within("the first gossip", heard).await;
}

pub(super) fn charge(severity: Severity) -> Charge {
    Charge { offence: "wrong_chunk".into(), detail: "a test".into(), severity }
}

pub(super) fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, 7);
    bytes
}

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

/// With a frame limit below twice the payload, all but the first few of these would vanish without
/// an error.
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
    // The share of a peer that is alone.
    let capacity = b.inbox.headers.capacity() as u64 / 2;
    let ignored = |metrics: &str| {
        metrics.lines().any(|line| line.contains("inbox_full") && line.ends_with(" 1"))
    };
    let mut number = 0;
    let overflow = async {
        // The message on consensus comes after the earlier ones.
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

/// Each side sends the other far more than all buffers on the way hold.
#[tokio::test]
async fn two_nodes_fill_each_other() {
    const IN_FLIGHT: usize = 8;
    const TOTAL: usize = 24;
    async fn both_sides(mut node: Node, other: PeerId) -> Node {
        let (mut asked, mut answered, mut served) = (0, 0, 0);
        while answered < TOTAL || served < TOTAL {
            while asked < TOTAL && asked < answered + IN_FLIGHT {
                node.network.request(other, vec![asked as u8; REQUEST_BYTES_MAX]);
                asked += 1;
            }
            match within("both ways at once", node.inbox.events.recv()).await.unwrap() {
                PeerEvent::Request { bytes, ticket, .. } => {
                    assert_eq!(bytes.len(), REQUEST_BYTES_MAX);
                    node.network.respond(ticket, vec![bytes[0]; RESPONSE_BYTES_MAX]);
                    served += 1;
                }
                PeerEvent::Response { result, .. } => {
                    assert_eq!(result.unwrap().len(), RESPONSE_BYTES_MAX);
                    answered += 1;
                }
                _ => {}
            }
        }
        node
    }
    let (a, b) = pair().await;
    let (a_id, b_id) = (a.id(), b.id());
    let (a, b) = tokio::join!(tokio::spawn(both_sides(a, b_id)), tokio::spawn(both_sides(b, a_id)));
    let (mut a, b) = (a.unwrap(), b.unwrap());
    a.network.publish(Topic::Consensus, vec![1]);
    b.network.publish(Topic::Consensus, vec![2]);
    assert_eq!(a.accept(Topic::Consensus).await, [2]);
}

#[tokio::test]
async fn requests_that_cannot_be_answered_say_why() {
    let (mut a, mut b) = pair().await;
    let stranger = a.network.request(PeerId::random(), vec![1]);
    assert_eq!(a.response(stranger).await, Err(RequestError::Disconnected));
    let large = a.network.request(b.id(), vec![0; REQUEST_BYTES_MAX + 1]);
    assert!(matches!(a.response(large).await, Err(RequestError::Other(_))));

    let declined = a.network.request(b.id(), vec![2]);
    drop(b.request().await);
    assert_eq!(a.response(declined).await, Err(RequestError::Busy));
    let too_large = a.network.request(b.id(), vec![3]);
    let (_, ticket) = b.request().await;
    b.network.respond(ticket, vec![0; RESPONSE_BYTES_MAX + 1]);
    assert_eq!(a.response(too_large).await, Err(RequestError::Busy));

    for (length, is_allowed) in [(100, true), (101, false), (RESPONSE_BYTES_MAX, false)] {
        let bounded = a.network.request_within(b.id(), vec![4], 100);
        let (_, ticket) = b.request().await;
        b.network.respond(ticket, vec![0; length]);
        let reason = format!("a frame of {length} bytes was announced, at most 100 are allowed");
        let expected =
            if is_allowed { Ok(vec![0; length]) } else { Err(RequestError::Other(reason)) };
        assert_eq!(a.response(bounded).await, expected);
    }

    let ids: Vec<_> = (0..=REQUESTS_PER_PEER_MAX)
        .map(|number| a.network.request(b.id(), vec![number as u8]))
        .collect();
    assert_eq!(
        a.response(ids[REQUESTS_PER_PEER_MAX]).await,
        Err(RequestError::Busy),
        "one too many"
    );
    for _ in 0..REQUESTS_PER_PEER_MAX {
        let (bytes, ticket) = b.request().await;
        b.network.respond(ticket, bytes);
    }
    let mut answers = HashSet::new();
    for _ in 0..REQUESTS_PER_PEER_MAX {
        let (id, result) = a
            .event("an answer", |event| match event {
                PeerEvent::Response { id, result, .. } => Some((id, result)),
                _ => None,
            })
            .await;
        let number = ids.iter().position(|other| *other == id).unwrap();
        assert_eq!(result, Ok(vec![number as u8]));
        assert!(answers.insert(id));
    }
}

#[tokio::test]
async fn a_killed_peer_is_missed_and_its_requests_fail() {
    let (mut a, b) = pair().await;
    let b_id = b.id();
    let open = a.network.request(b_id, vec![1]);
    b.task.abort();
    let mut gone = false;
    let failed = a
        .event("both ends of it", |event| {
            match event {
                PeerEvent::Disconnected(peer) if peer == b_id => gone = true,
                PeerEvent::Response { id, result, .. } if id == open => {
                    return Some(result.is_err());
                }
                _ => {}
            }
            None
        })
        .await;
    assert!(failed);
    if !gone {
        a.disconnected(b_id).await;
    }
    assert!(a.network.peers().borrow().is_empty());
}

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
    // `b` dials again, as `a` is its bootstrap peer; the next one that comes is let in.
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

#[tokio::test]
async fn shutdown_ends_the_task_and_so_does_a_dropped_inbox() {
    let a = Node::start(config(&[])).await;
    let other = a.network.clone();
    a.network.shutdown().await;
    within("the end", a.task).await.unwrap();
    other.publish(Topic::Consensus, vec![1]);
    within("a second shutdown", other.shutdown()).await;

    let b = Node::start(config(&[])).await;
    drop(b.inbox);
    within("the end", b.task).await.unwrap();
}

/// A codec that breaks our protocol: it writes its request as it is, and echoes requests as
/// answers.
#[derive(Clone)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>>
    where
        T: futures::AsyncRead + Unpin + Send,
    {
        self.read_request(protocol, io).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: futures::AsyncWrite + Unpin + Send,
    {
        self.write_request(protocol, io, bytes).await
    }
}

#[tokio::test]
async fn hostile_frames_are_refused() {
    let mut node = Node::start(config(&[])).await;
    let mut hostile = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| {
            let protocol = [(Names::new("aa").exchange, ProtocolSupport::Full)];
            request_response::Behaviour::with_codec(
                Raw,
                protocol,
                request_response::Config::default(),
            )
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    let node_id = node.id();
    hostile.dial(node.address()).unwrap();

    // Too large, cut short, and at last a good one, which also shows who is on our chain.
    let mut oversized = (REQUEST_BYTES_MAX as u32 + 1).to_le_bytes().to_vec();
    oversized.resize(oversized.len() + REQUEST_BYTES_MAX + 1, 0);
    let frames = [vec![255; 8], oversized, vec![9, 0, 0, 0, 1], vec![], vec![2, 0, 0, 0, 5, 6]];
    let mut served = 0;
    let story = async {
        loop {
            tokio::select! {
                event = hostile.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { .. } => {
                        for frame in &frames {
                            hostile.behaviour_mut().send_request(&node_id, frame.clone());
                        }
                    }
                    SwarmEvent::Behaviour(request_response::Event::Message {
                        message: request_response::Message::Response { response, .. }, ..
                    }) if !response.is_empty() => {
                        assert_eq!(response, [1, 0, 0, 0, 8]);
                        served += 1;
                    }
                    SwarmEvent::Behaviour(request_response::Event::Message {
                        message: request_response::Message::Request { channel, .. }, ..
                    }) => {
                        // An answer that announces 4 GiB.
                        hostile.behaviour_mut().send_response(channel, vec![255; 16]).unwrap();
                    }
                    _ => {}
                },
                event = node.inbox.events.recv() => match event.unwrap() {
                    PeerEvent::Request { from, bytes, ticket } => {
                        assert_eq!(bytes, [5, 6]);
                        node.network.respond(ticket, vec![8]);
                        node.network.request(from, vec![1]);
                    }
                    PeerEvent::Response { result, .. } => {
                        let Err(RequestError::Other(reason)) = &result else {
                            panic!("{result:?}");
                        };
                        assert!(reason.contains("announced"), "{reason}");
                        if served == 1 {
                            return;
                        }
                    }
                    _ => {}
                },
            }
        }
    };
    within("one good answer and one refused", story).await;
}
