//! Requests between nodes, and frames that are refused.

use std::collections::HashSet;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, SwarmBuilder, noise, tcp, yamux};

use super::super::wire::Names;
use super::*;

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

/// A codec that breaks our protocol: it writes requests and answers as they are, without their
/// length.
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

    // Frames that are too large, cut short or missing, and at last a good one, which also shows
    // that the peer is on our chain.
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
