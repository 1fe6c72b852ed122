//! Links: streams between two peers that stay open and carry frames, for messages and bulk.
//!
//! Each side opens two streams, one per [`Lane`], and only writes on them. It only reads from the
//! two streams that the other side opens. Every stream has a task of its own, so reading and
//! writing never wait for each other. A side regards the link as open while the two streams that it
//! opened are open. The link ends on both sides when any of the four streams ends, and is opened
//! again after a backoff.

mod behaviour;
mod outlet;
mod session;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::panic;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

pub(crate) use self::behaviour::{Behaviour, OpenError, StreamEvent};
pub(crate) use self::outlet::Outlets;
use self::session::{FRAMES, Session};
use super::intake::Intake;
use super::meters::Meters;
use super::socket::Taken;
use super::wire::Lane;

/// Most events that wait for the reader, of all links together: up to 32 MiB.
const EVENTS: usize = 32;

/// How long a link that failed or ended stays closed at first. The time doubles with each failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Longest time that a link stays closed. A link that was open for this long starts again at
/// [`BACKOFF_MIN`].
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Events of links. All events of one peer come between its `Opened` and its `Closed`. Messages are
/// in the order in which they were sent, and so are data frames.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Frames can be sent. The peer's own streams may not be open yet.
    Opened(PeerId),
    /// A control frame, at most [`LINK_MESSAGE_BYTES_MAX`](super::LINK_MESSAGE_BYTES_MAX).
    Message(PeerId, Vec<u8>),
    /// A data frame, at most [`LINK_DATA_BYTES_MAX`](super::LINK_DATA_BYTES_MAX).
    Data(PeerId, Vec<u8>),
    /// One more data frame has left; frames leave in the order of sending. The operating system has
    /// taken in all but about 32 KiB of the frame. If it is unknown how many bytes of the
    /// connection the system has taken in, the frame is only known to be in the stream.
    Written(PeerId),
    /// The link is gone, with all queued frames. It may open again after at least 1 s while the
    /// peer stays connected, or when the peer connects again.
    Closed(PeerId),
}

/// The links of the network's task: which are open, and which to open when.
pub(crate) struct Links {
    links: HashMap<PeerId, Link>,
    outlets: Outlets,
    events: mpsc::Sender<LinkEvent>,
    /// The frames of all links that are being received.
    intake: Intake,
    sessions: JoinSet<PeerId>,
    meters: Meters,
    rate: Option<NonZeroU64>,
}

/// The link with a peer that is admitted, or whose session has not ended yet.
struct Link {
    admitted: bool,
    state: State,
    /// When to open the link, if it is shut.
    due: Instant,
    backoff: Duration,
    /// Streams of the peer that wait until our own are open: the newest of each lane.
    inward: [Option<Stream>; 2],
}

enum State {
    Shut,
    /// Our streams are being opened on this connection.
    Opening(ConnectionId),
    /// A session runs. `taken` says which of the peer's streams it has.
    Open {
        inward: mpsc::Sender<(Lane, Stream)>,
        taken: [bool; 2],
        since: Instant,
    },
    /// The session, which began at this time, was told to end.
    Ending(Instant),
}

impl Links {
    /// No links yet. `rate`: see [`NetworkConfig::data_rate`](super::NetworkConfig::data_rate).
    pub(crate) fn new(
        meters: Meters,
        rate: Option<NonZeroU64>,
    ) -> (Self, Outlets, mpsc::Receiver<LinkEvent>) {
        let (events, reader) = mpsc::channel(EVENTS);
        let outlets = Outlets::default();
        let sessions = JoinSet::new();
        let intake = Intake::new(FRAMES);
        let links = Self {
            links: HashMap::new(),
            outlets: outlets.clone(),
            events,
            intake,
            sessions,
            meters,
            rate,
        };
        (links, outlets, reader)
    }

    /// A peer of our chain is connected.
    pub(crate) fn on_admitted(&mut self, peer: PeerId, now: Instant) {
        let link = self.links.entry(peer).or_insert_with(|| Link {
            admitted: true,
            state: State::Shut,
            due: now,
            backoff: BACKOFF_MIN,
            inward: [None, None],
        });
        link.admitted = true;
    }

    /// The peers whose links are to be opened.
    pub(crate) fn due(&self, now: Instant) -> Vec<PeerId> {
        if self.events.is_closed() {
            return Vec::new();
        }
        let due =
            |link: &Link| link.admitted && matches!(link.state, State::Shut) && link.due <= now;
        self.links.iter().filter(|(_, link)| due(link)).map(|(peer, _)| *peer).collect()
    }

    /// The peer is no longer cut off. Its link is due at once if it is shut.
    pub(crate) fn on_healed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(link) = self.links.get_mut(peer) {
            (link.due, link.backoff) = (now, BACKOFF_MIN);
        }
    }

    /// Our streams are being opened.
    pub(crate) fn on_opening(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.state = State::Opening(connection);
        }
    }

    /// Our streams are open, or could not be opened.
    pub(crate) fn on_outward(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        streams: Result<[Stream; 2], OpenError>,
        taken: Option<Taken>,
        now: Instant,
    ) {
        let Some(link) = self.links.get_mut(peer) else { return };
        if !matches!(link.state, State::Opening(asked) if asked == connection) {
            return;
        }
        let outward = match streams {
            Ok(outward) => outward,
            Err(error) => {
                tracing::debug!(%peer, %error, "a link cannot be opened");
                return link.postpone(now);
            }
        };
        let (inward, inward_reader) = mpsc::channel(Lane::ALL.len());
        self.sessions.spawn(
            Session {
                peer: *peer,
                outward,
                inward: inward_reader,
                outbox: self.outlets.insert(*peer),
                outlets: self.outlets.clone(),
                events: self.events.clone(),
                source: self.intake.source(),
                meters: self.meters.clone(),
                rate: self.rate,
                taken,
            }
            .run(),
        );
        let waiting = std::mem::take(&mut link.inward);
        link.state = State::Open { inward, taken: [false, false], since: now };
        for (lane, stream) in Lane::ALL.into_iter().zip(waiting) {
            if let Some(stream) = stream {
                self.on_inward(peer, lane, stream);
            }
        }
    }

    /// The peer has opened a stream.
    ///
    /// A second stream of one lane means that the peer has started over: our session ends, and the
    /// stream is for the next session.
    pub(crate) fn on_inward(&mut self, peer: &PeerId, lane: Lane, stream: Stream) {
        let Some(link) = self.links.get_mut(peer).filter(|link| link.admitted) else { return };
        let refused = match &mut link.state {
            State::Open { inward, taken, .. } if !taken[lane.index()] => {
                taken[lane.index()] = true;
                // The session may have ended by itself.
                inward.try_send((lane, stream)).err().map(|error| error.into_inner().1)
            }
            State::Open { since, .. } => {
                link.state = State::Ending(*since);
                self.outlets.remove(peer);
                Some(stream)
            }
            _ => Some(stream),
        };
        if refused.is_some() {
            link.inward[lane.index()] = refused;
        }
    }

    /// A connection is gone, perhaps one of several.
    pub(crate) fn on_connection_closed(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        now: Instant,
    ) {
        if let Some(link) = self.links.get_mut(peer)
            && matches!(link.state, State::Opening(asked) if asked == connection)
        {
            link.postpone(now);
        }
    }

    /// The last connection is gone.
    pub(crate) fn on_disconnected(&mut self, peer: &PeerId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        if let State::Open { since, .. } = link.state {
            link.state = State::Ending(since);
            self.outlets.remove(peer);
        }
        link.admitted = false;
        link.inward = [None, None];
        if !matches!(link.state, State::Ending(_)) {
            self.links.remove(peer);
        }
    }

    /// Waits for the next session to end. `None` when there is none. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Option<Result<PeerId, JoinError>> {
        self.sessions.join_next().await
    }

    /// A session has ended. A panic in it ends the network.
    pub(crate) fn on_ended(&mut self, ended: Result<PeerId, JoinError>, now: Instant) {
        let peer = match ended {
            Ok(peer) => peer,
            Err(error) => panic::resume_unwind(error.into_panic()),
        };
        let link =
            self.links.get_mut(&peer).expect("invariant: a link stays until its session has ended");
        if !link.admitted {
            self.links.remove(&peer);
            return;
        }
        if let State::Open { since, .. } | State::Ending(since) = link.state
            && now.duration_since(since) >= BACKOFF_MAX
        {
            link.backoff = BACKOFF_MIN;
        }
        link.postpone(now);
    }

    /// Ends all sessions.
    pub(crate) async fn shutdown(&mut self) {
        self.sessions.shutdown().await;
    }
}

impl Link {
    fn postpone(&mut self, now: Instant) {
        self.state = State::Shut;
        self.due = now + self.backoff;
        self.backoff = BACKOFF_MAX.min(2 * self.backoff);
    }
}
