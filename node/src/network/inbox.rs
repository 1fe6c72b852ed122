//! Events and messages that the network hands to the rest of the node, in bounded queues.

use std::collections::VecDeque;

use libp2p::PeerId;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::{InboundRequestId, ResponseChannel};
use tokio::sync::mpsc;

use super::exchange::{RequestError, Response};
use super::links::LinkEvent;
use super::requests::RequestId;
use super::traffic::Place;
use super::wire::Topic;

/// Most events in the channel to the reader. Further events wait in the network's task.
const EVENTS: usize = 256;

/// The receiving ends. The network stops when `events` is dropped.
#[derive(Debug)]
pub struct Inbox {
    /// Votes and proposals: at most 512 wait.
    pub consensus: mpsc::Receiver<Gossip>,
    /// Certified headers: at most 256 wait.
    pub headers: mpsc::Receiver<Gossip>,
    /// Transaction batches: at most 1,024 wait.
    pub transactions: mpsc::Receiver<Gossip>,
    /// Peers, requests and responses, in order. None is lost, except events of a peer that came and
    /// went before the reader saw it.
    pub events: mpsc::Receiver<PeerEvent>,
    /// Events of links: at most 32 wait. When the channel is full, the links and their peers wait,
    /// and nothing else does. The order between an event of a link and one of `events` is not kept.
    /// If this receiver is dropped, no links are opened.
    pub links: mpsc::Receiver<LinkEvent>,
}

/// A gossip message that waits for its verdict. It is forwarded only after [`Verdict::Accept`], and
/// never if the verdict takes longer than 5 s.
#[derive(Debug)]
pub struct Gossip {
    /// Its topic. The payload is within the topic's limit.
    pub topic: Topic,
    /// The peer that sent it to us, not necessarily its author.
    pub from: PeerId,
    /// The payload.
    pub bytes: Vec<u8>,
    /// Names the message when its verdict is reported.
    pub ticket: GossipTicket,
}

#[cfg(test)]
impl Gossip {
    /// An empty message from a random peer.
    pub(crate) fn made_up() -> Self {
        let (topic, from) = (Topic::Consensus, PeerId::random());
        let ticket = GossipTicket {
            topic,
            id: MessageId::new(&[]),
            from,
            place: Box::new(Place::made_up(topic, from)),
        };
        Self { topic, from, bytes: Vec::new(), ticket }
    }
}

/// Names one received gossip message in [`Network::verdict`](super::Network::verdict).
#[derive(Debug)]
pub struct GossipTicket {
    pub(crate) topic: Topic,
    pub(crate) id: MessageId,
    pub(crate) from: PeerId,
    /// The message's share of the limits on waiting messages. It is given back when the ticket is
    /// dropped.
    pub(crate) place: Box<Place>,
}

/// How a gossip message was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Valid: it is forwarded.
    Accept,
    /// Not useful, but nobody's fault, such as a message that came too late. It is not forwarded.
    Ignore,
    /// Provably invalid, whatever the receiver's state. It is not forwarded, and all peers that
    /// sent it are penalized.
    Reject,
}

/// Names one received request in [`Network::respond`](super::Network::respond). If it is dropped,
/// the peer sees that we are busy.
#[derive(Debug)]
pub struct ResponseTicket {
    pub(crate) id: InboundRequestId,
    pub(crate) channel: ResponseChannel<Response>,
}

impl ResponseTicket {
    /// Whether the peer still waits: its stream is open and its time is not over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.channel.is_open()
    }
}

/// Events about peers.
#[derive(Debug)]
pub enum PeerEvent {
    /// A peer of our chain is connected. Comes before the peer's requests, and again only after
    /// [`PeerEvent::Disconnected`].
    Connected(PeerId),
    /// The peer's last connection is gone.
    Disconnected(PeerId),
    /// A peer sent a request.
    Request {
        /// Who asks.
        from: PeerId,
        /// At most [`REQUEST_BYTES_MAX`](super::REQUEST_BYTES_MAX).
        bytes: Vec<u8>,
        /// Names the request when it is answered.
        ticket: ResponseTicket,
    },
    /// The outcome of a request of ours. Each request has exactly one.
    Response {
        /// Which request.
        id: RequestId,
        /// Whom we asked.
        from: PeerId,
        /// The answer, at most [`RESPONSE_BYTES_MAX`](super::RESPONSE_BYTES_MAX).
        result: Result<Vec<u8>, RequestError>,
    },
}

/// The reader went away.
#[derive(Debug)]
pub(crate) struct Closed;

/// Events on their way to the reader. The swarm never waits for room.
///
/// No event is refused for lack of room, yet their number is bounded. Requests and responses are
/// bounded by the requests in flight. Of each peer at most one `Disconnected` and one `Connected`
/// wait. If a peer came and went before the reader saw it, its `Connected` and its requests are
/// dropped, and there is no `Disconnected`.
pub(crate) struct Events {
    waiting: VecDeque<PeerEvent>,
    sender: mpsc::Sender<PeerEvent>,
}

impl Events {
    pub(crate) fn new() -> (Self, mpsc::Receiver<PeerEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS);
        (Self { waiting: VecDeque::new(), sender }, receiver)
    }

    pub(crate) fn push(&mut self, event: PeerEvent) {
        if let PeerEvent::Disconnected(gone) = event {
            let unseen =
                |event: &PeerEvent| matches!(event, PeerEvent::Connected(peer) if *peer == gone);
            let stale = |event: &PeerEvent| {
                unseen(event) || matches!(event, PeerEvent::Request { from, .. } if *from == gone)
            };
            if self.waiting.iter().any(unseen) {
                self.waiting.retain(|event| !stale(event));
                return;
            }
        }
        self.waiting.push_back(event);
    }

    /// Hands one event to the reader, once there is an event and room for it. Cancel safe.
    pub(crate) async fn deliver(&mut self) -> Result<(), Closed> {
        if self.waiting.is_empty() {
            // The reader may also leave while there is nothing to deliver.
            self.sender.closed().await;
            return Err(Closed);
        }
        let permit = self.sender.reserve().await.map_err(|_| Closed)?;
        if let Some(event) = self.waiting.pop_front() {
            permit.send(event);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn response(id: u64) -> PeerEvent {
        PeerEvent::Response {
            id: RequestId(id),
            from: PeerId::random(),
            result: Err(RequestError::Busy),
        }
    }

    #[tokio::test]
    async fn events_wait_in_order_for_room() {
        let (mut events, mut reader) = Events::new();
        let total = 3 * EVENTS as u64;
        for id in 0..total {
            events.push(response(id));
        }
        for id in 0..total {
            let event = loop {
                tokio::select! {
                    biased;
                    delivered = events.deliver() => delivered.unwrap(),
                    event = reader.recv() => break event.unwrap(),
                }
                // Only reading makes room.
                if reader.len() == EVENTS {
                    break reader.recv().await.unwrap();
                }
            };
            assert!(
                matches!(event, PeerEvent::Response { id: RequestId(got), .. } if got == id),
                "{id}: {event:?}"
            );
        }
        drop(reader);
        assert!(events.deliver().await.is_err());
    }

    #[test]
    fn peers_that_come_and_go_unseen_leave_nothing() {
        let (mut events, _reader) = Events::new();
        let known = PeerId::random();
        for _ in 0..100 {
            let peer = PeerId::random();
            events.push(PeerEvent::Connected(peer));
            events.push(PeerEvent::Disconnected(peer));
        }
        assert!(events.waiting.is_empty());
        for _ in 0..100 {
            events.push(PeerEvent::Disconnected(known));
            events.push(PeerEvent::Connected(known));
            events.push(PeerEvent::Disconnected(known));
            events.waiting.truncate(1);
        }
        events.push(PeerEvent::Connected(known));
        assert!(matches!(events.waiting[0], PeerEvent::Disconnected(peer) if peer == known));
        assert!(matches!(events.waiting[1], PeerEvent::Connected(peer) if peer == known));
    }
}
