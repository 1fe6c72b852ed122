//! The bytes of a stream that wait until their latency is over.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::AsyncRead;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Seat, Side};

/// Most bytes that one stream holds back. Beyond it the stream is not read, and its window slows
/// down the peer.
pub(super) const HELD_BYTES_MAX: usize = 1 << 20;

/// Most bytes that all streams of a peer hold back together. Beyond it, a stream that holds
/// something is not read.
pub(super) const PEER_HELD_BYTES_MAX: usize = 16 << 20;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 8 << 10;

/// Bytes for which a piece counts beyond its content, so that many small pieces are bounded too.
const PIECE_COST: usize = 64;

/// The bytes that a stream has received and not yet handed on.
pub(super) struct Delayed {
    pieces: VecDeque<Piece>,
    /// Bytes of all pieces, and [`PIECE_COST`] for each.
    bytes: usize,
    /// The same for all streams of the peer.
    of_peer: Arc<AtomicUsize>,
    /// Set once the stream has ended or failed.
    is_over: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

struct Piece {
    arrived: Instant,
    /// Empty at the end of the stream.
    content: io::Result<Vec<u8>>,
    /// Number of bytes that were handed on.
    taken: usize,
}

impl Delayed {
    pub(super) fn new(of_peer: Arc<AtomicUsize>) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, of_peer, is_over: false, timer: None }
    }

    /// Reads bytes that have waited for the whole latency. Without latency nothing is held back.
    pub(super) fn poll_read(
        &mut self,
        inner: &mut (impl AsyncRead + Unpin),
        seat: &Seat,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let latency = seat.latency();
            if latency.is_zero() && self.pieces.is_empty() && !self.is_over {
                return Pin::new(inner).poll_read(cx, bytes);
            }
            self.fill(inner, cx);
            let Some(first) = self.pieces.front() else {
                if self.is_over {
                    return Poll::Ready(Ok(0));
                }
                // The stream wakes us when bytes arrive.
                return Poll::Pending;
            };
            let due = first.arrived + latency;
            if due <= Instant::now() {
                return Poll::Ready(self.take(bytes));
            }
            seat.wait(Side::In, cx);
            let is_due = self.poll_timer(due, cx).is_ready();
            // A change just before the waker was registered has woken nobody.
            if !is_due && seat.latency() == latency {
                return Poll::Pending;
            }
        }
    }

    /// Whether more may be held back. A stream may always hold one piece, so it goes on.
    fn has_room(&self) -> bool {
        self.bytes < HELD_BYTES_MAX
            && (self.pieces.is_empty()
                || self.of_peer.load(Ordering::Relaxed) < PEER_HELD_BYTES_MAX)
    }

    /// Receives bytes that have arrived, until no more may be held back.
    fn fill(&mut self, inner: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) {
        let mut piece = [0; PIECE_BYTES];
        while !self.is_over && self.has_room() {
            let Poll::Ready(read) = Pin::new(&mut *inner).poll_read(cx, &mut piece) else { return };
            let content = read.map(|count| piece[..count].to_vec());
            self.is_over = !content.as_ref().is_ok_and(|bytes| !bytes.is_empty());
            let cost = PIECE_COST + content.as_ref().map_or(0, Vec::len);
            self.bytes += cost;
            self.of_peer.fetch_add(cost, Ordering::Relaxed);
            self.pieces.push_back(Piece { arrived: Instant::now(), content, taken: 0 });
        }
    }

    /// Hands on bytes of the first piece. After an error the stream counts as ended.
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(first) = self.pieces.front_mut() else { return Ok(0) };
        let mut count = 0;
        if let Ok(content) = &first.content {
            let rest = &content[first.taken..];
            count = rest.len().min(bytes.len());
            bytes[..count].copy_from_slice(&rest[..count]);
            first.taken += count;
            if first.taken < content.len() {
                return Ok(count);
            }
        }
        let Some(Piece { content, .. }) = self.pieces.pop_front() else { return Ok(count) };
        let cost = PIECE_COST + content.as_ref().map_or(0, Vec::len);
        self.bytes -= cost;
        self.of_peer.fetch_sub(cost, Ordering::Relaxed);
        content.map(|_| count)
    }

    fn poll_timer(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        self.of_peer.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
