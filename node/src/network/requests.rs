//! Requests in flight, both ways: limits on their number and bytes, per peer and in all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::{InboundRequestId, OutboundRequestId};
use tokio::sync::oneshot;

use super::share::Share;

/// Identifies a request of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Most requests in flight to one peer. More fail with
/// [`RequestError::Busy`](super::RequestError::Busy).
pub const REQUESTS_PER_PEER_MAX: usize = 64;

/// Most requests of one peer that we work on. This is more than a peer may have in flight: it may
/// send the next request when it sees an answer, before we learn that the answer was sent.
pub(crate) const INBOUND_PER_PEER_MAX: usize = REQUESTS_PER_PEER_MAX + 32;

/// Most requests of all peers that we work on.
const INBOUND_MAX: usize = 1024;

/// Budget for the bytes of requests that we work on. A request for a list of transactions has up to
/// 32 KiB, all others less than 1 KiB.
const REQUESTS: Share = Share { all: 16 << 20, floor: 64 << 10 };

/// Largest small answer, in bytes, such as a status or some transactions.
const SMALL_BYTES: usize = 64 << 10;

/// Budget for the bytes of small answers that are being sent. It is separate, so large answers
/// never take the room of small ones.
const SMALL: Share = Share { all: 16 << 20, floor: 2 * SMALL_BYTES };

/// Budget for the bytes of larger answers that are being sent. A peer that is alone may have 32
/// MiB. More would only help slow readers. Less would slow down a peer that catches up over a
/// connection with a long round trip.
const LARGE: Share = Share { all: 64 << 20, floor: 0 };

/// For how long the rate of a new answer is not judged. At first its bytes only fill buffers, and
/// then they take a while to reach a distant peer.
const GRACE: Duration = Duration::from_secs(5);

/// The counts of requests in flight. A peer over a limit is told that we are busy.
pub(crate) struct Requests<Outbound = OutboundRequestId, Inbound = InboundRequestId> {
    outbound: HashMap<Outbound, (RequestId, PeerId)>,
    inbound: HashMap<Inbound, Request>,
    loads: HashMap<PeerId, Load>,
    /// The bytes of all peers.
    total: Bytes,
}

/// A request of a peer.
struct Request {
    peer: PeerId,
    bytes: usize,
    answer: Option<Answer>,
}

/// An answer on its way.
struct Answer {
    bytes: usize,
    since: Instant,
    sent: Arc<AtomicUsize>,
    /// Dropping it cancels the answer.
    _going: oneshot::Sender<Infallible>,
}

/// The part of an [`Answer`] that its writer holds.
#[derive(Debug)]
pub(crate) struct Sending {
    /// Bytes written to the stream so far.
    pub(crate) sent: Arc<AtomicUsize>,
    /// Resolves when the answer is cancelled.
    pub(crate) cut: oneshot::Receiver<Infallible>,
}

/// The requests and bytes that are in flight with one peer.
#[derive(Default, PartialEq, Eq)]
struct Load {
    outbound: usize,
    inbound: usize,
    bytes: Bytes,
}

/// Bytes that requests and answers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    requests: usize,
    small: usize,
    large: usize,
}

impl Bytes {
    /// The count of the budget to which an answer of this length belongs.
    fn answers(&mut self, length: usize) -> &mut usize {
        if length <= SMALL_BYTES { &mut self.small } else { &mut self.large }
    }
}

impl Answer {
    /// Mean rate so far, in bytes a second.
    fn rate(&self, now: Instant) -> u128 {
        let sent = u128::try_from(self.sent.load(Ordering::Relaxed)).unwrap_or(u128::MAX);
        sent.saturating_mul(1_000) / now.duration_since(self.since).as_millis().max(1)
    }
}

impl<Outbound: Hash + Eq, Inbound: Hash + Eq + Copy> Requests<Outbound, Inbound> {
    pub(crate) fn new() -> Self {
        Self {
            outbound: HashMap::new(),
            inbound: HashMap::new(),
            loads: HashMap::new(),
            total: Bytes::default(),
        }
    }

    /// Whether the peer may be sent another request.
    pub(crate) fn may_ask(&self, peer: &PeerId) -> bool {
        self.loads.get(peer).is_none_or(|load| load.outbound < REQUESTS_PER_PEER_MAX)
    }

    /// We sent a request.
    pub(crate) fn on_asked(&mut self, id: Outbound, request: RequestId, peer: PeerId) {
        self.outbound.insert(id, (request, peer));
        self.loads.entry(peer).or_default().outbound += 1;
    }

    /// A request of ours has its outcome. Returns its id, `None` if it is unknown.
    pub(crate) fn on_answered(&mut self, id: Outbound) -> Option<RequestId> {
        let (request, peer) = self.outbound.remove(&id)?;
        self.relieve(peer, |load| load.outbound -= 1);
        Some(request)
    }

    /// A peer sent a request of this many bytes. Returns whether we work on it.
    pub(crate) fn on_request(&mut self, id: Inbound, peer: PeerId, bytes: usize) -> bool {
        let (count, own) =
            self.loads.get(&peer).map_or((0, 0), |load| (load.inbound, load.bytes.requests));
        if count >= INBOUND_PER_PEER_MAX
            || self.inbound.len() >= INBOUND_MAX
            || !REQUESTS.allows(own, self.total.requests, bytes)
        {
            return false;
        }
        self.inbound.insert(id, Request { peer, bytes, answer: None });
        let load = self.loads.entry(peer).or_default();
        load.inbound += 1;
        load.bytes.requests += bytes;
        self.total.requests += bytes;
        true
    }

    /// Counts an answer that we want to send. `None` if it may not be sent, because there is no
    /// room or the request is no longer open.
    ///
    /// A peer to which no large answer is being sent may have one, however small its share is. If
    /// the budget for large answers is used up, the slowest large answers are cancelled to make
    /// room. An answer younger than [`GRACE`] is never cancelled.
    pub(crate) fn may_respond(
        &mut self,
        id: Inbound,
        bytes: usize,
        now: Instant,
    ) -> Option<Sending> {
        let request = self.inbound.get(&id).filter(|request| request.answer.is_none())?;
        let peer = request.peer;
        let own = *self.loads.get_mut(&peer)?.bytes.answers(bytes);
        let taken = *self.total.answers(bytes);
        if bytes <= SMALL_BYTES {
            if !SMALL.allows(own, taken, bytes) {
                return None;
            }
        } else if !(own == 0 || LARGE.allows(own, taken, bytes)) || !self.make_room(bytes, now) {
            return None;
        }
        *self.loads.get_mut(&peer)?.bytes.answers(bytes) += bytes;
        *self.total.answers(bytes) += bytes;
        let (going, cut) = oneshot::channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let answer = Answer { bytes, since: now, sent: Arc::clone(&sent), _going: going };
        self.inbound.get_mut(&id)?.answer = Some(answer);
        Some(Sending { sent, cut })
    }

    /// Cancels the slowest large answers until there is room for one more. Returns whether there is
    /// room.
    fn make_room(&mut self, bytes: usize, now: Instant) -> bool {
        while self.total.large + bytes > LARGE.all {
            let measured = self.inbound.iter().filter_map(|(id, request)| {
                let answer = request.answer.as_ref().filter(|answer| answer.bytes > SMALL_BYTES)?;
                (now.duration_since(answer.since) >= GRACE).then(|| (answer.rate(now), *id))
            });
            let Some((_, slowest)) = measured.min_by_key(|(rate, _)| *rate) else { return false };
            self.give_up(slowest);
        }
        true
    }

    /// Cancels an answer. The request is still counted until its stream has ended.
    fn give_up(&mut self, id: Inbound) {
        let Some(request) = self.inbound.get_mut(&id) else { return };
        if let Some(Answer { bytes, .. }) = request.answer.take() {
            let peer = request.peer;
            *self.total.answers(bytes) -= bytes;
            self.relieve(peer, |load| *load.bytes.answers(bytes) -= bytes);
        }
    }

    /// A peer's request is over: the answer was sent, or never will be.
    pub(crate) fn on_served(&mut self, id: Inbound) {
        self.give_up(id);
        if let Some(Request { peer, bytes, .. }) = self.inbound.remove(&id) {
            self.total.requests -= bytes;
            self.relieve(peer, |load| {
                load.inbound -= 1;
                load.bytes.requests -= bytes;
            });
        }
    }

    fn relieve(&mut self, peer: PeerId, change: impl FnOnce(&mut Load)) {
        if let Some(load) = self.loads.get_mut(&peer) {
            change(load);
            if *load == Load::default() {
                self.loads.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A block of the usual largest size.
    const BLOCK: usize = 2 << 20;

    type Books = Requests<u64, usize>;

    fn asks(requests: &mut Books, ids: std::ops::Range<usize>, peer: PeerId) {
        for id in ids {
            assert!(requests.on_request(id, peer, 9), "{id}");
        }
    }

    #[test]
    fn a_peer_has_its_share_and_all_have_theirs() {
        let mut requests = Books::new();
        let mut peer = PeerId::random();
        asks(&mut requests, 0..INBOUND_PER_PEER_MAX, peer);
        assert!(!requests.on_request(INBOUND_PER_PEER_MAX, peer, 9));
        requests.on_served(INBOUND_PER_PEER_MAX);
        assert!(
            !requests.on_request(INBOUND_PER_PEER_MAX, peer, 9),
            "a refused request was never counted"
        );
        requests.on_served(0);
        assert!(requests.on_request(0, peer, 9));
        for id in INBOUND_PER_PEER_MAX..INBOUND_MAX {
            if id % INBOUND_PER_PEER_MAX == 0 {
                peer = PeerId::random();
            }
            assert!(requests.on_request(id, peer, 9), "{id}");
        }
        assert!(!requests.on_request(INBOUND_MAX, PeerId::random(), 9));
        for id in 0..INBOUND_MAX {
            requests.on_served(id);
        }
        assert!(
            requests.loads.is_empty()
                && requests.inbound.is_empty()
                && requests.total == Bytes::default()
        );
    }

    /// Sixteen peers use up their shares with requests of the largest size.
    #[test]
    fn requests_that_wait_are_bounded_in_bytes() {
        let mut requests = Books::new();
        let mut id = 0;
        for _ in 0..16 {
            let peer = PeerId::random();
            while requests.on_request(id, peer, 64 << 10) {
                id += 1;
            }
        }
        assert!(
            requests.total.requests <= REQUESTS.all + 16 * REQUESTS.floor,
            "{:?}",
            requests.total
        );
        assert!(
            requests.on_request(id, PeerId::random(), 64 << 10),
            "one of a newcomer always has room"
        );
    }

    /// Sixteen peers ask for blocks as often as they may, and read next to nothing.
    #[test]
    fn slow_readers_keep_nobody_from_an_answer() {
        let (mut requests, start) = (Books::new(), Instant::now());
        let mut sending = HashMap::new();
        let mut id = 0;
        for _ in 0..16 {
            let peer = PeerId::random();
            for _ in 0..INBOUND_MAX / 17 {
                asks(&mut requests, id..id + 1, peer);
                if let Some(answer) = requests.may_respond(id, BLOCK, start) {
                    // The connection's window is full, and the peer reads very slowly.
                    answer.sent.store(256 << 10, Ordering::Relaxed);
                    sending.insert(id, answer);
                }
                id += 1;
            }
        }
        assert!(
            requests.total.large <= LARGE.all && sending.len() <= LARGE.all / BLOCK,
            "{:?}",
            requests.total
        );
        let honest = PeerId::random();
        asks(&mut requests, id..id + 3, honest);
        assert!(requests.may_respond(id, SMALL_BYTES, start).is_some(), "a small one");
        assert!(
            requests.may_respond(id + 1, BLOCK, start).is_none(),
            "nobody is known to be slow yet"
        );
        let later = start + GRACE;
        sending.get(&0).unwrap().sent.store(BLOCK, Ordering::Relaxed);
        let mut answer = requests.may_respond(id + 1, BLOCK, later).unwrap();
        let cut = |sending: &mut Sending| {
            sending.cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let given_up: Vec<usize> =
            sending.iter_mut().filter_map(|(id, answer)| cut(answer).then_some(*id)).collect();
        assert_eq!(given_up.len(), 1, "as many as are needed");
        assert_ne!(given_up, [0], "not the fastest");
        assert!(!cut(&mut answer));
        assert!(requests.may_respond(id + 2, BLOCK, later).is_none(), "its share is small by now");
        requests.on_served(given_up[0]);
        (0..id + 3).for_each(|id| requests.on_served(id));
        assert!(requests.total == Bytes::default() && requests.loads.is_empty());
    }

    #[test]
    fn a_peer_alone_is_sent_half_of_all() {
        let (mut requests, now, peer) = (Books::new(), Instant::now(), PeerId::random());
        asks(&mut requests, 0..INBOUND_PER_PEER_MAX, peer);
        let count = (0..INBOUND_PER_PEER_MAX)
            .filter(|id| requests.may_respond(*id, BLOCK, now).is_some())
            .count();
        assert_eq!(count, LARGE.all / 2 / BLOCK);
        assert!(requests.may_respond(0, BLOCK, now).is_none(), "it is being answered");
        requests.on_served(0);
        assert!(requests.may_respond(0, BLOCK, now).is_none(), "it is over");
        assert!(requests.may_respond(count, BLOCK, now).is_some());
    }

    #[test]
    fn small_answers_are_bounded_too() {
        let (mut requests, now) = (Books::new(), Instant::now());
        let mut id = 0;
        for _ in 0..10 {
            let peer = PeerId::random();
            for _ in 0..INBOUND_PER_PEER_MAX {
                asks(&mut requests, id..id + 1, peer);
                requests.may_respond(id, SMALL_BYTES, now);
                id += 1;
            }
        }
        assert!(requests.total.small <= SMALL.all + 10 * SMALL.floor, "{:?}", requests.total);
        asks(&mut requests, id..id + 1, PeerId::random());
        assert!(requests.may_respond(id, SMALL_BYTES, now).is_some());
    }

    #[test]
    fn each_answer_frees_a_place() {
        let mut requests = Requests::<u64, u64>::new();
        let peer = PeerId::random();
        for id in 0..REQUESTS_PER_PEER_MAX as u64 {
            assert!(requests.may_ask(&peer));
            requests.on_asked(id, RequestId(100 + id), peer);
        }
        assert!(!requests.may_ask(&peer));
        assert!(requests.may_ask(&PeerId::random()));
        assert_eq!(requests.on_answered(7), Some(RequestId(107)));
        assert_eq!(requests.on_answered(7), None);
        assert!(requests.may_ask(&peer));
    }
}
