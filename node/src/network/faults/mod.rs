//! Faults on a local network: peers that are cut off, and latency of what peers send.
//!
//! A *cut* holds the streams of a peer's connections: reads, writes and new streams wait. Nothing
//! is lost and nothing is closed, so what waits goes on at once when the cut is healed. The gate
//! refuses new connections with the peer. *Latency* delays what a stream has received.
//!
//! Only a network whose configuration allows faults wraps its connections. Each end of a connection
//! has its own faults, set by its own operator.

mod delay;
mod muxer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::muxing::StreamMuxerBox;
use tokio::sync::watch;

/// Longest latency. Pings and unanswered requests fail after half a minute, so a much longer
/// latency would look like a cut.
pub const LATENCY_MAX: Duration = Duration::from_secs(10);

/// Most peers with faults.
pub const FAULTY_PEERS_MAX: usize = 1024;

/// All faults of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Peers whose connections are held.
    pub cut: BTreeSet<PeerId>,
    /// How much later the bytes of a peer are read than they arrive.
    pub latency: BTreeMap<PeerId, Duration>,
}

/// Why faults were not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The network is not a local one, so it allows no faults.
    #[error("faults can be set on a local network only: this chain has a genesis of its own")]
    Unarmed,
    /// A node cannot be cut off from itself.
    #[error("{0} is this node itself, expected one of its peers")]
    Itself(PeerId),
    /// The latency is too long.
    #[error("a latency of {} ms, expected at most {} ms", .0.as_millis(), LATENCY_MAX.as_millis())]
    Latency(Duration),
    /// There are too many peers.
    #[error("faults of {} peers, expected at most {}", .0, FAULTY_PEERS_MAX)]
    Peers(usize),
}

impl FaultPlan {
    /// Whether there are no faults.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cut.is_empty() && self.latency.is_empty()
    }

    /// Number of faults.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cut.len() + self.latency.len()
    }

    /// Checks the limits, and drops latencies of zero.
    pub(crate) fn checked(mut self, local: PeerId) -> Result<Self, FaultError> {
        if self.cut.contains(&local) || self.latency.contains_key(&local) {
            return Err(FaultError::Itself(local));
        }
        if let Some(latency) = self.latency.values().find(|latency| **latency > LATENCY_MAX) {
            return Err(FaultError::Latency(*latency));
        }
        self.latency.retain(|_, latency| !latency.is_zero());
        let peers = self.cut.len().max(self.latency.len());
        if peers > FAULTY_PEERS_MAX { Err(FaultError::Peers(peers)) } else { Ok(self) }
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        let cut = list(self.cut.iter().map(ToString::to_string).collect());
        let latency = self.latency.iter();
        let latency =
            list(latency.map(|(peer, t)| format!("{peer} {} ms", t.as_millis())).collect());
        match (cut.is_empty(), latency.is_empty()) {
            (true, true) => f.write_str("none"),
            (false, true) => write!(f, "cut off from {cut}"),
            (true, false) => write!(f, "latency from {latency}"),
            (false, false) => write!(f, "cut off from {cut}; latency from {latency}"),
        }
    }
}

/// The faults of a network that allows them, shared by its handles, its task and its connections.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Shared>);

struct Shared {
    plan: watch::Sender<Arc<FaultPlan>>,
    /// The peers with a connection.
    peers: Mutex<HashMap<PeerId, Weak<Peer>>>,
}

impl Default for Faults {
    fn default() -> Self {
        let (plan, _) = watch::channel(Arc::default());
        Self(Arc::new(Shared { plan, peers: Mutex::default() }))
    }
}

impl Faults {
    /// The faults that are set, kept up to date.
    pub(crate) fn plan(&self) -> watch::Receiver<Arc<FaultPlan>> {
        self.0.plan.subscribe()
    }

    pub(crate) fn is_cut(&self, peer: &PeerId) -> bool {
        self.0.plan.borrow().cut.contains(peer)
    }

    /// Replaces all faults.
    pub(crate) fn set(&self, plan: FaultPlan) {
        let mut peers = self.lock();
        peers.retain(|_, peer| peer.strong_count() > 0);
        for (id, peer) in peers.iter().filter_map(|(id, peer)| Some((id, peer.upgrade()?))) {
            peer.set(plan.cut.contains(id), latency(&plan, id));
        }
        self.0.plan.send_if_modified(|now| {
            let is_new = **now != plan;
            if is_new {
                *now = Arc::new(plan);
            }
            is_new
        });
    }

    /// Wraps a connection with a peer.
    pub(crate) fn wrap(&self, peer: PeerId, muxer: StreamMuxerBox) -> StreamMuxerBox {
        StreamMuxerBox::new(muxer::Held::new(muxer, self.peer(peer)))
    }

    fn peer(&self, id: PeerId) -> Arc<Peer> {
        let mut peers = self.lock();
        if let Some(peer) = peers.get(&id).and_then(Weak::upgrade) {
            return peer;
        }
        peers.retain(|_, peer| peer.strong_count() > 0);
        let peer = Arc::new(Peer::default());
        // The plan is read under the lock, so that no change is missed.
        let plan = Arc::clone(&self.0.plan.borrow());
        peer.set(plan.cut.contains(&id), latency(&plan, &id));
        peers.insert(id, Arc::downgrade(&peer));
        peer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Weak<Peer>>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn latency(plan: &FaultPlan, peer: &PeerId) -> Duration {
    plan.latency.get(peer).copied().unwrap_or_default()
}

/// The faults of one peer, as its connections and streams see them.
#[derive(Default)]
struct Peer {
    is_cut: AtomicBool,
    /// In milliseconds.
    latency: AtomicU64,
    /// Bytes that all its streams hold back.
    held_bytes: Arc<AtomicUsize>,
    /// The readers and writers that wait for a change, by the number of their [`Seat`].
    waiting: Mutex<HashMap<u64, [Option<Waker>; 2]>>,
    seats: AtomicU64,
}

impl Peer {
    /// Changes the faults of this peer, and wakes all tasks that wait for a change.
    fn set(&self, is_cut: bool, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        self.is_cut.store(is_cut, Ordering::SeqCst);
        self.latency.store(ms, Ordering::SeqCst);
        let waiting: Vec<_> = self.lock().drain().collect();
        waiting.into_iter().flat_map(|(_, wakers)| wakers).flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, [Option<Waker>; 2]>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two directions of a connection or a stream. At most one task uses each direction at a time.
#[derive(Clone, Copy)]
enum Side {
    /// Reads, or accepts streams.
    In,
    /// Writes, or opens streams.
    Out,
}

/// The registration of a connection or a stream that may wait for a change of the faults.
struct Seat {
    peer: Arc<Peer>,
    number: u64,
}

impl Seat {
    fn new(peer: Arc<Peer>) -> Self {
        let number = peer.seats.fetch_add(1, Ordering::Relaxed);
        Self { peer, number }
    }

    fn latency(&self) -> Duration {
        Duration::from_millis(self.peer.latency.load(Ordering::SeqCst))
    }

    /// Ready while the peer is not cut off.
    fn poll_uncut(&self, side: Side, cx: &Context<'_>) -> Poll<()> {
        if !self.peer.is_cut.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        self.wait(side, cx);
        // A change just before the waker was registered has woken nobody.
        if self.peer.is_cut.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Registers the task of `cx`, so that the next change wakes it.
    fn wait(&self, side: Side, cx: &Context<'_>) {
        let mut waiting = self.peer.lock();
        let wakers = waiting.entry(self.number).or_default();
        wakers[side as usize] = Some(cx.waker().clone());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.peer.lock().remove(&self.number);
    }
}
