//! Links: what a node's connection does to the frames it sends and gets.
//!
//! A node has one upload rate and one download rate. Peers take turns, a piece each, as connections that share a line do. Small
//! frames overtake those of chunks, as streams of one connection do, but not the bytes that the socket has already. What was sent
//! is with the other side one latency later, and then waits for its download rate.

use std::collections::{BTreeMap, VecDeque};

/// Peers take turns after so many bytes; chunks are cut so too, by the multiplexer.
const PIECE: u64 = 16 << 10;
/// Bytes to one peer that nothing overtakes: the send buffer of a socket.
const BUFFER: u64 = 128 << 10;

/// Nanoseconds since the beginning.
pub(super) type Nanos = u64;

/// Time that so many bytes take at a rate.
pub(super) fn nanos_for(bytes: u64, rate: u64) -> Nanos {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// At most a piece, and the frame that it completes.
#[derive(Debug)]
struct Part<T> {
    bytes: u64,
    is_chunk: bool,
    completes: Option<T>,
}

/// What leaves a node.
#[derive(Debug)]
pub(super) struct Uplink<T> {
    rate: u64,
    queues: BTreeMap<usize, VecDeque<Part<T>>>,
    /// Peers in their turn.
    turns: VecDeque<usize>,
    /// The piece that is being sent, and to whom; nobody, if the link is gone.
    sending: Option<(Option<usize>, u64)>,
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

    /// Hands a small frame to the link.
    pub(super) fn push(&mut self, to: usize, bytes: u64, content: T) {
        let queue = self.queue(to);
        let mut ahead = 0;
        let overtaken = queue.iter().rev().take_while(|part| part.is_chunk).count();
        let buffered = queue.iter().take_while(|part| {
            ahead += part.bytes;
            ahead <= BUFFER
        });
        let at = buffered.count().max(queue.len() - overtaken);
        queue.insert(at, Part { bytes: bytes.max(1), is_chunk: false, completes: Some(content) });
    }

    /// Hands the frame of a chunk to the link.
    pub(super) fn push_chunk(&mut self, to: usize, mut bytes: u64, content: T) {
        let queue = self.queue(to);
        while bytes > PIECE {
            bytes -= PIECE;
            queue.push_back(Part { bytes: PIECE, is_chunk: true, completes: None });
        }
        queue.push_back(Part { bytes: bytes.max(1), is_chunk: true, completes: Some(content) });
    }

    fn queue(&mut self, to: usize) -> &mut VecDeque<Part<T>> {
        let queue = self.queues.entry(to).or_default();
        if queue.is_empty() {
            self.turns.push_back(to);
        }
        queue
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.sending.is_some()
    }

    /// Begins to send the next piece, if none is being sent. Gives the time it takes.
    pub(super) fn start(&mut self) -> Option<Nanos> {
        if self.sending.is_some() {
            return None;
        }
        let to = self.turns.pop_front()?;
        let bytes = self.queues.get(&to)?.front()?.bytes;
        self.sending = Some((Some(to), bytes));
        Some(nanos_for(bytes, self.rate))
    }

    /// The piece that was being sent has left.
    pub(super) fn finish(&mut self) -> Option<Piece<T>> {
        let (to, bytes) = self.sending.take()?;
        self.sent += bytes;
        let to = to?;
        let queue = self.queues.get_mut(&to)?;
        let part = queue.pop_front()?;
        if !queue.is_empty() {
            self.turns.push_back(to);
        }
        Some(Piece { to, bytes, completes: part.completes })
    }

    /// Lets go of all that waits for a peer.
    pub(super) fn cut(&mut self, to: usize) {
        self.queues.remove(&to);
        self.turns.retain(|peer| *peer != to);
        if let Some((sending, _)) = &mut self.sending
            && *sending == Some(to)
        {
            *sending = None;
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
