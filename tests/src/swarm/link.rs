//! Links: what a node's connection does to the frames it sends and gets.
//!
//! A node has one upload rate and one download rate. Peers take turns, a piece each, as connections that share a line do. Small
//! frames overtake those of chunks, as streams of one connection do, but not the bytes that the socket has already. What was sent
//! is with the other side one latency later, and then waits for its download rate; a window bounds what waits there.

use std::collections::{BTreeMap, VecDeque};

/// Bytes to one peer that nothing overtakes: what a socket may hold unsent.
const SOCKET: u64 = 32 << 10;
/// Bytes to one peer that count as written: those, and what a link hands on before the socket has taken in the rest.
const WRITTEN: u64 = 64 << 10;
/// Bytes to one peer that were sent and that it has not taken in.
const WINDOW: u64 = 1 << 20;

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

/// What waits for one peer.
#[derive(Debug)]
struct Queue<T> {
    parts: VecDeque<Part<T>>,
    pushed: u64,
    sent: u64,
    /// Sent and not taken in.
    on_way: u64,
    /// Where chunks end that are not written yet.
    unwritten: VecDeque<u64>,
    is_in_turn: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let unwritten = VecDeque::new();
        Self { parts: VecDeque::new(), pushed: 0, sent: 0, on_way: 0, unwritten, is_in_turn: false }
    }
}

/// What leaves a node.
#[derive(Debug)]
pub(super) struct Uplink<T> {
    rate: u64,
    /// Peers take turns after so many bytes: two milliseconds, but a packet and no more than the multiplexer's frames.
    piece: u64,
    queues: BTreeMap<usize, Queue<T>>,
    /// Peers in their turn.
    turns: VecDeque<usize>,
    sending: Option<Sending>,
    /// Bytes sent.
    pub(super) sent: u64,
}

/// A piece that is being sent: to whom, if the link still is, and how many parts.
#[derive(Debug)]
struct Sending {
    to: Option<usize>,
    parts: usize,
    bytes: u64,
}

/// A piece has left: to whom, its length, the frames that it completes, and how many chunks now are written.
#[derive(Debug)]
pub(super) struct Piece<T> {
    pub(super) to: usize,
    pub(super) bytes: u64,
    pub(super) completes: Vec<T>,
    pub(super) written: usize,
}

impl<T> Uplink<T> {
    pub(super) fn new(rate: u64) -> Self {
        let piece = (rate / 500).clamp(1_500, 16 << 10);
        Self { rate, piece, queues: BTreeMap::new(), turns: VecDeque::new(), sending: None, sent: 0 }
    }

    /// Hands a small frame to the link.
    pub(super) fn push(&mut self, to: usize, bytes: u64, content: T) {
        let queue = self.queues.entry(to).or_default();
        queue.pushed += bytes;
        let mut ahead = 0;
        let overtaken = queue.parts.iter().rev().take_while(|part| part.is_chunk).count();
        let buffered = queue.parts.iter().take_while(|part| {
            ahead += part.bytes;
            ahead <= SOCKET
        });
        let at = buffered.count().max(queue.parts.len() - overtaken);
        queue.parts.insert(at, Part { bytes, is_chunk: false, completes: Some(content) });
        self.take_turn(to);
    }

    /// Hands the frame of a chunk to the link. Gives how many chunks are written by that.
    pub(super) fn push_chunk(&mut self, to: usize, bytes: u64, content: T) -> usize {
        let queue = self.queues.entry(to).or_default();
        queue.pushed += bytes;
        queue.unwritten.push_back(queue.pushed);
        let mut left = bytes;
        while left > self.piece {
            left -= self.piece;
            queue.parts.push_back(Part { bytes: self.piece, is_chunk: true, completes: None });
        }
        queue.parts.push_back(Part { bytes: left, is_chunk: true, completes: Some(content) });
        let written = queue.written();
        self.take_turn(to);
        written
    }

    fn take_turn(&mut self, to: usize) {
        if let Some(queue) = self.queues.get_mut(&to)
            && !queue.is_in_turn
            && !queue.parts.is_empty()
            && queue.on_way < WINDOW
        {
            queue.is_in_turn = true;
            self.turns.push_back(to);
        }
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
        let (mut parts, mut bytes) = (0, 0);
        for part in &self.queues.get(&to)?.parts {
            if parts > 0 && bytes + part.bytes > self.piece {
                break;
            }
            (parts, bytes) = (parts + 1, bytes + part.bytes);
        }
        self.sending = Some(Sending { to: Some(to), parts, bytes });
        Some(nanos_for(bytes, self.rate))
    }

    /// The piece that was being sent has left.
    pub(super) fn finish(&mut self) -> Option<Piece<T>> {
        let Sending { to, parts, bytes } = self.sending.take()?;
        self.sent += bytes;
        let to = to?;
        let queue = self.queues.get_mut(&to)?;
        let completes = queue.parts.drain(..parts).filter_map(|part| part.completes).collect();
        queue.sent += bytes;
        queue.on_way += bytes;
        queue.is_in_turn = false;
        let written = queue.written();
        self.take_turn(to);
        Some(Piece { to, bytes, completes, written })
    }

    /// The peer has taken in so much, and we know.
    pub(super) fn taken(&mut self, to: usize, bytes: u64) {
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.on_way = queue.on_way.saturating_sub(bytes);
            // While it is being sent to, its turn is over.
            if self.sending.as_ref().is_none_or(|sending| sending.to != Some(to)) {
                self.take_turn(to);
            }
        }
    }

    /// Lets go of all that waits for a peer.
    pub(super) fn cut(&mut self, to: usize) {
        self.queues.remove(&to);
        self.turns.retain(|peer| *peer != to);
        if let Some(sending) = &mut self.sending
            && sending.to == Some(to)
        {
            sending.to = None;
        }
    }
}

impl<T> Queue<T> {
    fn written(&mut self) -> usize {
        let is_written = |end: &&u64| end.saturating_sub(self.sent) <= WRITTEN;
        let count = self.unwritten.iter().take_while(is_written).count();
        self.unwritten.drain(..count).count()
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
