//! Queues of outgoing frames, between any thread and a link's writers. Queueing never waits.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot};

use crate::network::wire::Lane;

/// Most frames of a lane that wait for one peer.
const fn frames_waiting_max(lane: Lane) -> usize {
    match lane {
        Lane::Control => 1_024,
        Lane::Data => 64,
    }
}

/// Most bytes of a lane that wait for one peer, including the frame that is being written.
const fn bytes_waiting_max(lane: Lane) -> usize {
    match lane {
        Lane::Control => 8 << 20,
        Lane::Data => 32 << 20,
    }
}

/// The outlets of all open links, shared by the network's task, its handles and the links. Removing
/// an outlet ends its link.
#[derive(Clone, Default)]
pub(crate) struct Outlets(Arc<Mutex<HashMap<PeerId, Outlet>>>);

/// The queues of frames for one peer.
struct Outlet {
    queues: [Queue; 2],
    /// Dropping it ends the link.
    _open: oneshot::Sender<Infallible>,
}

struct Queue {
    frames: mpsc::Sender<Vec<u8>>,
    /// Bytes that are not yet written.
    bytes: Arc<AtomicUsize>,
}

/// The receiving ends of an [`Outlet`], for the link's writers.
pub(super) struct Outbox {
    pub(super) frames: [Frames; 2],
    /// Resolves when the [`Outlet`] is removed.
    pub(super) closed: oneshot::Receiver<Infallible>,
}

/// The frames of one lane.
pub(super) struct Frames {
    frames: mpsc::Receiver<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

impl Outlets {
    /// Opens the queues to a peer.
    pub(super) fn insert(&self, peer: PeerId) -> Outbox {
        let [control, data] = Lane::ALL.map(queue);
        let (open, closed) = oneshot::channel();
        self.lock().insert(peer, Outlet { queues: [control.0, data.0], _open: open });
        Outbox { frames: [control.1, data.1], closed }
    }

    /// Ends the peer's link.
    pub(super) fn remove(&self, peer: &PeerId) {
        self.lock().remove(peer);
    }

    /// Queues a frame. Returns whether it was queued.
    ///
    /// A frame that finds its queue full ends the link, as a stream with a missing frame is
    /// useless. A frame over the size limit ends it too.
    pub(crate) fn send(&self, peer: &PeerId, lane: Lane, bytes: Vec<u8>) -> bool {
        let length = bytes.len();
        let mut outlets = self.lock();
        let Some(outlet) = outlets.get(peer) else { return false };
        if length > lane.bytes_max() {
            let lane = lane.name();
            tracing::error!(%peer, lane, length, "closing a link: a frame is over the limit");
        } else if outlet.queues[lane.index()].push(lane, bytes) {
            return true;
        } else {
            tracing::debug!(%peer, lane = lane.name(), "closing a link: the peer does not read");
        }
        outlets.remove(peer);
        false
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Outlet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn queue(lane: Lane) -> (Queue, Frames) {
    let (sender, receiver) = mpsc::channel(frames_waiting_max(lane));
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { frames: sender, bytes: bytes.clone() }, Frames { frames: receiver, bytes })
}

impl Queue {
    /// Queues a frame. Returns whether there was room. If not, the count of bytes is wrong from
    /// then on, and the outlet must be removed.
    fn push(&self, lane: Lane, frame: Vec<u8>) -> bool {
        let length = frame.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        before + length <= bytes_waiting_max(lane) && self.frames.try_send(frame).is_ok()
    }
}

impl Frames {
    /// The next frame. `None` when the [`Outlet`] is removed and no frame is left.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        self.frames.recv().await
    }

    /// A frame of this length was written, so its bytes no longer count as waiting.
    pub(super) fn on_written(&self, length: usize) {
        self.bytes.fetch_sub(length, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn queues_are_bounded_in_frames_and_bytes() {
        use Lane::{Control, Data};
        // lane, bytes a frame, frames that fit
        let cases = [
            (Control, 0, 1_024),
            (Control, 1, 1_024),
            (Control, 1 << 20, 8),
            (Control, (1 << 20) + 1, 0),
            (Data, 1, 64),
            (Data, 512 << 10, 64),
            (Data, 1 << 20, 32),
            (Data, (1 << 20) + 64, 31),
            (Data, (1 << 20) + 65, 0),
        ];
        let (peer, other) = (PeerId::random(), PeerId::random());
        for (lane, length, fit) in cases {
            let outlets = Outlets::default();
            let (mut outbox, mut other_outbox) = (outlets.insert(peer), outlets.insert(other));
            for number in 0..fit {
                assert!(outlets.send(&peer, lane, vec![0; length]), "{lane:?} {length} {number}");
            }
            assert!(
                outbox
                    .closed
                    .try_recv()
                    .is_err_and(|error| error == oneshot::error::TryRecvError::Empty)
            );
            assert!(!outlets.send(&peer, lane, vec![0; length]), "{lane:?} {length}");
            assert!(
                outbox
                    .closed
                    .try_recv()
                    .is_err_and(|error| error == oneshot::error::TryRecvError::Closed)
            );
            assert!(!outlets.send(&peer, lane, vec![]), "there is no link any more");
            assert!(outlets.send(&other, lane, vec![1]), "the other peer has its own");
            assert_eq!(other_outbox.frames[lane.index()].next().await, Some(vec![1]));
        }
    }

    #[tokio::test]
    async fn what_is_written_makes_room() {
        let (outlets, peer) = (Outlets::default(), PeerId::random());
        let mut outbox = outlets.insert(peer);
        for _ in 0..100 {
            assert!(outlets.send(&peer, Lane::Data, vec![0; 1 << 20]));
            let frames = &mut outbox.frames[Lane::Data.index()];
            let length = frames.next().await.unwrap().len();
            frames.on_written(length);
        }
    }
}
