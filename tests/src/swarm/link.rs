//! Links: how long frames take from one node to another.
//!
//! A node has one upload rate and one download rate. Its peers take turns, one piece of a frame
//! each, like connections that share a line. Small frames overtake chunk frames, like streams of
//! one connection, but they do not overtake bytes that are already in the socket. A piece arrives
//! one latency after it was sent, and then takes the time that the receiver's download rate allows.
//! A window bounds the bytes to one peer that were sent and not yet taken in.

use std::collections::{BTreeMap, VecDeque};

/// Bytes to one peer that no frame overtakes: as many as a socket may hold unsent.
const SOCKET: u64 = 32 << 10;
/// A chunk counts as written once at most this many bytes are left to send up to its end. These are
/// the bytes in the socket, and those that the link hands on before the socket has room.
const WRITTEN: u64 = 64 << 10;
/// Most bytes in flight to one peer, which are sent and not yet taken in.
const WINDOW: u64 = 1 << 20;

/// Nanoseconds since the run began.
pub(super) type Nanos = u64;

/// Time to move this many bytes at a rate in bytes a second.
pub(super) fn nanos_for(bytes: u64, rate: u64) -> Nanos {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// Part of a frame, at most a piece long, and the frame if this part completes it.
#[derive(Debug)]
struct Part<T> {
    bytes: u64,
    is_chunk: bool,
    completes: Option<T>,
}

/// Bytes that wait to be sent to one peer.
#[derive(Debug)]
struct Queue<T> {
    parts: VecDeque<Part<T>>,
    pushed: u64,
    sent: u64,
    /// Bytes sent and not yet taken in.
    on_way: u64,
    /// For each chunk that is not written yet, how many bytes were queued up to its end.
    unwritten: VecDeque<u64>,
    is_in_turn: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let unwritten = VecDeque::new();
        Self { parts: VecDeque::new(), pushed: 0, sent: 0, on_way: 0, unwritten, is_in_turn: false }
    }
}

/// A node's upload side.
#[derive(Debug)]
pub(super) struct Uplink<T> {
    rate: u64,
    /// Bytes after which the next peer takes its turn. They are what the rate moves in two
    /// milliseconds, but at least a packet and at most a frame of the multiplexer.
    piece: u64,
    queues: BTreeMap<usize, Queue<T>>,
    /// Peers with something to send, in the order of their turns.
    turns: VecDeque<usize>,
    sending: Option<Sending>,
    /// Bytes sent.
    pub(super) sent: u64,
}

/// A piece being sent: the peer, unless its link was cut, and the parts.
#[derive(Debug)]
struct Sending {
    to: Option<usize>,
    parts: usize,
    bytes: u64,
}

/// A piece that was sent: its peer, its length, the frames that it completes, and how many chunks
/// are written by it.
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
        Self {
            rate,
            piece,
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            sending: None,
            sent: 0,
        }
    }

    /// Queues a small frame.
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

    /// Queues the frame of a chunk. Returns how many chunks count as written now.
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

    /// Starts to send the next piece, unless one is being sent. Returns the time it takes.
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

    /// Ends the sending of the current piece.
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

    /// The sender learns that the peer has taken in this many bytes.
    pub(super) fn taken(&mut self, to: usize, bytes: u64) {
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.on_way = queue.on_way.saturating_sub(bytes);
            // If a piece is being sent to the peer, the peer gets its next turn when that piece has
            // left.
            if self.sending.as_ref().is_none_or(|sending| sending.to != Some(to)) {
                self.take_turn(to);
            }
        }
    }

    /// Drops everything queued for a peer.
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

/// A node's download side.
#[derive(Debug)]
pub(super) struct Downlink {
    rate: u64,
    free_at: Nanos,
}

impl Downlink {
    pub(super) const fn new(rate: u64) -> Self {
        Self { rate, free_at: 0 }
    }

    /// Takes in a piece that arrives at this time, after all earlier pieces. Returns the time at
    /// which it is complete.
    pub(super) fn take(&mut self, arrives_at: Nanos, bytes: u64) -> Nanos {
        self.free_at = self.free_at.max(arrives_at) + nanos_for(bytes, self.rate);
        self.free_at
    }
}
