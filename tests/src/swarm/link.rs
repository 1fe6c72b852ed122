//! Links: what a node's connection does to the frames it sends and gets.
//!
//! A node has one upload rate and one download rate. Frames to one peer go in order; peers take turns, a piece each, as connections
//! that share a line do. What was sent is with the other side one latency later, and then waits for its download rate.

use std::collections::{BTreeMap, VecDeque};

/// Peers take turns after so many bytes.
const PIECE: u64 = 16 << 10;

/// Nanoseconds since the beginning.
pub(super) type Nanos = u64;

/// Time that so many bytes take at a rate.
pub(super) fn nanos_for(bytes: u64, rate: u64) -> Nanos {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// Something on its way.
#[derive(Debug)]
struct Frame<T> {
    left: u64,
    content: T,
}

/// What leaves a node.
#[derive(Debug)]
pub(super) struct Uplink<T> {
    rate: u64,
    queues: BTreeMap<usize, VecDeque<Frame<T>>>,
    /// Peers in their turn.
    turns: VecDeque<usize>,
    /// The piece that is being sent.
    sending: Option<(usize, u64)>,
    /// Bytes sent.
    pub(super) sent: u64,
}

/// A piece has left: to whom, its length, and the frame that it completes.
#[derive(Debug)]
pub(super) struct Piece<T> {
    pub(super) to: usize,
    pub(super) bytes: u64,
    pub(super) completes: Option<T>,
}

impl<T> Uplink<T> {
    pub(super) const fn new(rate: u64) -> Self {
        Self { rate, queues: BTreeMap::new(), turns: VecDeque::new(), sending: None, sent: 0 }
    }

    pub(super) fn push(&mut self, to: usize, bytes: u64, content: T) {
        let queue = self.queues.entry(to).or_default();
        if queue.is_empty() {
            self.turns.push_back(to);
        }
        queue.push_back(Frame { left: bytes.max(1), content });
    }

    /// Begins to send the next piece, if none is being sent. Gives the time it takes.
    pub(super) fn start(&mut self) -> Option<Nanos> {
        if self.sending.is_some() {
            return None;
        }
        let to = self.turns.pop_front()?;
        let frame = self.queues.get(&to)?.front()?;
        let bytes = frame.left.min(PIECE);
        self.sending = Some((to, bytes));
        Some(nanos_for(bytes, self.rate))
    }

    /// The piece that was being sent has left.
    pub(super) fn finish(&mut self) -> Option<Piece<T>> {
        let (to, bytes) = self.sending.take()?;
        self.sent += bytes;
        // The queue may be gone with its link.
        let queue = self.queues.get_mut(&to)?;
        let frame = queue.front_mut()?;
        frame.left = frame.left.saturating_sub(bytes);
        let is_done = frame.left == 0;
        let completes = is_done.then(|| queue.pop_front()).flatten().map(|frame| frame.content);
        if !queue.is_empty() {
            self.turns.push_back(to);
        }
        Some(Piece { to, bytes, completes })
    }

    /// Lets go of all that waits for a peer.
    pub(super) fn cut(&mut self, to: usize) {
        self.queues.remove(&to);
        self.turns.retain(|peer| *peer != to);
        // The bytes of the piece under way are lost; no other piece may take its place meanwhile.
        if let Some((peer, _)) = &mut self.sending
            && *peer == to
        {
            *peer = usize::MAX;
        }
    }
}

/// What comes to a node.
#[derive(Debug)]
pub(super) struct Downlink {
    rate: u64,
    free_at: Nanos,
}

impl Downlink {
    pub(super) const fn new(rate: u64) -> Self {
        Self { rate, free_at: 0 }
    }

    /// Takes in a piece that arrives at a time, after those before it. Gives the time when all of it is there.
    pub(super) fn take(&mut self, arrives_at: Nanos, bytes: u64) -> Nanos {
        self.free_at = self.free_at.max(arrives_at) + nanos_for(bytes, self.rate);
        self.free_at
    }
}
