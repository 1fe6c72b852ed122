//! Bounds the memory for requests and answers of all connections together.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::places::Place;

/// Most bytes of all unread answers.
pub(super) const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// Most bytes of all requests that are being read or processed.
pub(super) const REQUESTS_BYTES_MAX: usize = 32 << 20;
/// Requests and answers up to this size need no room in a pool, so that a full pool does not stop
/// small calls. 512 connections with one such request or answer each take 8 MiB. A WebSocket may
/// have more: its queue holds up to about 1 MiB of small calls.
pub(super) const SMALL_BYTES: usize = 16 << 10;
/// How long an entry may stay even if the pool is full. A connection with an older entry may be
/// closed.
const HOLD_MIN: Duration = Duration::from_secs(1);
/// An answer is given to the connection in pieces of this size, so that little of it is in memory
/// twice.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// A bound on bytes, and the entries that use them.
pub(super) struct Pool {
    max: usize,
    holds: Mutex<Holds>,
}

#[derive(Default)]
struct Holds {
    next: u64,
    used: usize,
    /// The oldest first.
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    bytes: usize,
    since: Instant,
    cut: Arc<Notify>,
    is_leaving: bool,
}

impl Pool {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, holds: Mutex::default() })
    }

    /// Reserves room for this many bytes for a connection. `None` if there is too little. Then the
    /// connections with the oldest entries are closed if these are at least [`HOLD_MIN`] old, since
    /// such connections do not read their answer or do not finish their request.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize, place: &Place) -> Option<Hold> {
        if bytes <= SMALL_BYTES {
            return Some(Hold(None));
        }
        let mut holds = self.holds();
        if holds.used.saturating_add(bytes) > self.max {
            let wanted = holds.used.saturating_add(bytes) - self.max;
            holds.make_room(wanted);
            return None;
        }
        holds.used += bytes;
        holds.next += 1;
        let id = holds.next;
        let taken = Taken { bytes, since: Instant::now(), cut: place.cutter(), is_leaving: false };
        holds.taken.insert(id, taken);
        Some(Hold(Some((Arc::clone(self), id))))
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        // All counts are changed together, so a panic elsewhere leaves them consistent.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holds {
    fn make_room(&mut self, wanted: usize) {
        let mut freed = 0;
        for taken in self.taken.values_mut().take_while(|taken| taken.since.elapsed() >= HOLD_MIN) {
            if freed >= wanted {
                return;
            }
            freed += taken.bytes;
            if !std::mem::replace(&mut taken.is_leaving, true) {
                taken.cut.notify_one();
            }
        }
    }
}

/// Room in a pool. It is freed when dropped.
pub(super) struct Hold(Option<(Arc<Pool>, u64)>);

impl Drop for Hold {
    fn drop(&mut self) {
        let Some((pool, id)) = &self.0 else { return };
        let mut holds = pool.holds();
        if let Some(taken) = holds.taken.remove(id) {
            holds.used -= taken.bytes;
        }
    }
}

/// The room of one request or answer while it grows.
pub(super) struct Room<'a> {
    pool: &'a Arc<Pool>,
    place: &'a Place,
    /// Bytes that the pool does not count yet, because they are few.
    loose: usize,
    holds: Vec<Hold>,
}

impl<'a> Room<'a> {
    pub(super) const fn new(pool: &'a Arc<Pool>, place: &'a Place) -> Self {
        Self { pool, place, loose: 0, holds: Vec::new() }
    }

    /// Reserves room for this many more bytes. False if there is none.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let loose = self.loose.saturating_add(bytes);
        let Some(hold) = self.pool.hold(loose, self.place) else { return false };
        match hold {
            Hold(None) => self.loose = loose,
            hold => {
                self.loose = 0;
                self.holds.push(hold);
            }
        }
        true
    }

    pub(super) fn into_holds(self) -> Vec<Hold> {
        self.holds
    }
}

/// An answer with its room in the pool.
pub(super) struct Held {
    text: String,
    sent: usize,
    _holds: Vec<Hold>,
}

impl Held {
    pub(super) const fn new(text: String, holds: Vec<Hold>) -> Self {
        Self { text, sent: 0, _holds: holds }
    }

    /// An answer that is so short that it needs no room.
    pub(super) const fn small(text: String) -> Self {
        Self::new(text, Vec::new())
    }

    /// The next piece. It is a copy, so that it does not keep the whole answer in memory.
    pub(super) fn piece(&mut self) -> Option<Bytes> {
        let rest = self.text.as_bytes().get(self.sent..).filter(|rest| !rest.is_empty())?;
        let piece = Bytes::copy_from_slice(&rest[..rest.len().min(PIECE_BYTES)]);
        self.sent += piece.len();
        Some(piece)
    }

    pub(super) const fn is_done(&self) -> bool {
        self.sent == self.text.len()
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.piece().map(|piece| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact((self.text.len() - self.sent) as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;

    use super::super::places::Places;
    use super::*;

    #[tokio::test]
    async fn the_oldest_gives_way_when_there_is_no_room() {
        tokio::time::pause();
        let places = Places::new(9);
        let [slow, other, late] =
            [1, 2, 3].map(|last| places.take([10, 0, 0, last].into()).unwrap());
        let is_cut = |place: &Place| place.cut().now_or_never().is_some();
        let pool = Pool::new(100 << 10);
        let held = pool.hold(60 << 10, &slow).unwrap();
        let _other = pool.hold(40 << 10, &other).unwrap();
        assert!(pool.hold(20 << 10, &late).is_none() && !is_cut(&slow), "it may still read");
        assert!(pool.hold(SMALL_BYTES, &late).is_some(), "small ones need no room");
        tokio::time::advance(HOLD_MIN).await;
        assert!(pool.hold(20 << 10, &late).is_none() && is_cut(&slow) && !is_cut(&other));
        assert!(
            pool.hold(20 << 10, &late).is_none() && !is_cut(&other),
            "what leaves is room enough"
        );
        drop(held);
        let held = pool.hold(60 << 10, &late).unwrap();
        assert!(pool.hold(20 << 10, &slow).is_none() && is_cut(&other) && !is_cut(&late));
        let text = "x".repeat(PIECE_BYTES + 1);
        let mut answer = Held::new(text, vec![held]);
        assert_eq!(answer.piece().unwrap().len(), PIECE_BYTES);
        assert!(!answer.is_done() && answer.piece().unwrap().len() == 1 && answer.is_done());
        assert_eq!(answer.piece(), None);
        drop(answer);
        assert_eq!(pool.holds().used, 40 << 10);
    }
}
