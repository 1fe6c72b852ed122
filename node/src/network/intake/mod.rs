//! Intake: the memory of frames that are being received, which all peers share.
//!
//! A frame is in memory until its last byte has come, and a hostile peer need not send that byte.
//! So the frames that are being received have a budget:
//!
//! - Each source, which is a connection or a link, has room for some bytes in any case: its floor.
//! - A frame that does not fit into what is left of its source's floor *claims* room for its whole
//!   length from the budget. So once a frame has a claim, only its own peer can delay it.
//! - If the budget has no room, the slowest claims that are at least [`GRACE`] old give way: their
//!   frames are dropped.
//!
//! A claim is needed only when the bytes of a frame no longer fit, not when its length is
//! announced. So a peer has to send bytes before it holds any room that others could use.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::AsyncRead;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::frame::{Counted, next_length, read_length, read_part};
use super::share::Share;

/// Age from which the rate of a claim is measured. Over a shorter time the rate says little, since
/// the other streams of the peer share the connection.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// How often a frame that waits for room tries again. When a claim reaches the age of [`GRACE`], it
/// may give way, and no event reports that.
const RETRY: Duration = Duration::from_millis(200);

/// The limits of one kind of frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long a frame may take to begin. `None` is unlimited.
    pub(crate) begins: Option<Duration>,
    /// How long a frame that has begun may stand still.
    pub(crate) stall: Duration,
    /// Least rate of a frame that has begun, in bytes a second. The frame may take `stall` beyond
    /// the time that follows from this rate.
    pub(crate) rate: usize,
    /// Room for all claims, and the floor of each source. A source that has a claim may have half
    /// of the room that the claims of others leave.
    pub(crate) share: Share,
    /// Whether a frame that finds no room waits for it. Otherwise the frame is refused.
    pub(crate) waits: bool,
}

impl Limits {
    /// How long a frame may take once its length is known.
    pub(crate) fn time(&self, length: usize) -> Duration {
        let millis = u64::try_from(length.saturating_mul(1_000) / self.rate).unwrap_or(u64::MAX);
        self.stall.saturating_add(Duration::from_millis(millis))
    }
}

/// The frames of one kind that are being received from all peers.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    limits: Limits,
    book: Arc<Mutex<Book>>,
}

/// A connection or a link: the frames on its streams share one floor.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    intake: Intake,
    id: u64,
}

/// A frame that is being received, or that was received and is not yet handed on. Dropping it frees
/// its room.
#[derive(Debug)]
pub(crate) struct Arrival {
    source: Source,
    /// The announced length.
    length: usize,
    /// Bytes of the source's floor that the frame uses.
    held: usize,
    claim: Option<u64>,
    received: Arc<AtomicUsize>,
    /// Dropping it ends the reading of the frame. It moves into the [`Claim`], once there is one.
    going: Option<oneshot::Sender<Infallible>>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    /// Only sources that hold room.
    sources: HashMap<u64, Own>,
    claims: HashMap<u64, Claim>,
    /// Bytes of all claims.
    claimed: usize,
}

/// The bytes of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Own {
    held: usize,
    claimed: usize,
}

#[derive(Debug)]
struct Claim {
    source: u64,
    length: usize,
    /// Since when only the peer delays the frame. `None` once the frame is complete: from then on
    /// only this node delays it.
    since: Option<Instant>,
    /// Bytes that had arrived when the claim was made.
    before: usize,
    received: Arc<AtomicUsize>,
    /// Dropping it ends the reading.
    _going: oneshot::Sender<Infallible>,
}

impl Intake {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, book: Arc::default() }
    }

    pub(crate) fn source(&self) -> Source {
        let mut book = self.lock();
        book.next += 1;
        Source { intake: self.clone(), id: book.next }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all frames that are being received.
    #[cfg(test)]
    pub(crate) fn total(&self) -> usize {
        let book = self.lock();
        book.claimed + book.sources.values().map(|own| own.held).sum::<usize>()
    }
}

impl Source {
    /// Reads one frame of at most `bytes_max` bytes. The frame has its room until the [`Arrival`]
    /// is dropped.
    ///
    /// # Errors
    /// As [`read_length`] and [`read_part`], `TimedOut` if the whole frame takes too long, and
    /// `QuotaExceeded` if it finds no room or gives way to another frame.
    pub(crate) async fn read<T>(
        &self,
        io: &mut T,
        bytes_max: usize,
    ) -> io::Result<(Vec<u8>, Arrival)>
    where
        T: AsyncRead + Unpin + Send,
    {
        let Limits { begins, stall, waits, .. } = self.intake.limits;
        let length = read_length(io, bytes_max, begins, Some(stall)).await?;
        let (mut arrival, given_up) = self.arrival(length);
        let mut io = Counted { io, moved: Arc::clone(&arrival.received) };
        let read = async {
            let mut frame = Vec::new();
            while frame.len() < length {
                let next = next_length(frame.len(), length);
                while !arrival.make_room(next, Instant::now()) {
                    if !waits {
                        return Err(no_room("no room for the whole frame"));
                    }
                    sleep(RETRY).await;
                }
                read_part(&mut io, &mut frame, next, Some(stall)).await?;
            }
            Ok(frame)
        };
        let frame = tokio::select! {
            biased;
            read = timeout(self.intake.limits.time(length), read) => read??,
            // Nothing is ever sent on this channel. It resolves when the sender is dropped.
            _ = given_up => return Err(no_room("the frame was slow and gave way to another one")),
        };
        arrival.on_complete();
        Ok((frame, arrival))
    }

    fn arrival(&self, length: usize) -> (Arrival, oneshot::Receiver<Infallible>) {
        let (going, given_up) = oneshot::channel();
        let received = Arc::default();
        (
            Arrival {
                source: self.clone(),
                length,
                held: 0,
                claim: None,
                received,
                going: Some(going),
            },
            given_up,
        )
    }
}

fn no_room(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, reason)
}

impl Arrival {
    /// Makes room for the first `bytes` of the frame. Returns whether there is room.
    fn make_room(&mut self, bytes: usize, now: Instant) -> bool {
        let Source { intake, id } = &self.source;
        let share = intake.limits.share;
        let mut book = intake.lock();
        let own = book.sources.get(id).copied().unwrap_or_default();
        if self.claim.is_some() || bytes <= self.held {
            return true;
        }
        let more = bytes - self.held;
        if own.held + more <= share.floor {
            book.sources.entry(*id).or_default().held += more;
            self.held = bytes;
            return true;
        }
        // The first claim of a source may be larger than the source's share.
        let may_claim = own.claimed == 0 || share.allows(own.claimed, book.claimed, self.length);
        if !may_claim || !book.make_room(self.length, share.all, now) {
            return false;
        }
        let Some(going) = self.going.take() else { return false };
        book.next += 1;
        let claim = Claim {
            source: *id,
            length: self.length,
            since: Some(now),
            before: self.received.load(Ordering::Relaxed),
            received: Arc::clone(&self.received),
            _going: going,
        };
        let number = book.next;
        book.claims.insert(number, claim);
        book.claimed += self.length;
        let own = book.sources.entry(*id).or_default();
        own.claimed += self.length;
        own.held -= self.held;
        (self.claim, self.held) = (Some(number), 0);
        true
    }

    /// All of the frame has arrived. It keeps its room and can no longer be made to give way.
    fn on_complete(&self) {
        let mut book = self.source.intake.lock();
        if let Some(claim) = self.claim.and_then(|claim| book.claims.get_mut(&claim)) {
            claim.since = None;
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut book = self.source.intake.lock();
        if let Some(claim) = self.claim {
            book.give_up(claim);
        }
        let held = self.held;
        book.relieve(self.source.id, |own| own.held -= held);
    }
}

impl Book {
    /// Makes the slowest claims give way until there is room for `bytes`. If all claims with a
    /// known rate together would not make enough room, none gives way. Returns whether there is
    /// room.
    fn make_room(&mut self, bytes: usize, all: usize, now: Instant) -> bool {
        let mut room = all.saturating_sub(self.claimed);
        let measured = self
            .claims
            .iter()
            .filter_map(|(id, claim)| Some((claim.rate(now)?, *id, claim.length)));
        let mut measured: Vec<(u128, u64, usize)> = measured.collect();
        measured.sort_unstable();
        let mut slowest = Vec::new();
        for (_, id, length) in measured {
            if room >= bytes {
                break;
            }
            room += length;
            slowest.push(id);
        }
        let has_room = room >= bytes;
        if has_room {
            slowest.into_iter().for_each(|id| self.give_up(id));
        }
        has_room
    }

    /// Ends a claim. If its frame is still being read, the reading ends.
    fn give_up(&mut self, claim: u64) {
        if let Some(Claim { source, length, .. }) = self.claims.remove(&claim) {
            self.claimed -= length;
            self.relieve(source, |own| own.claimed -= length);
        }
    }

    fn relieve(&mut self, source: u64, change: impl FnOnce(&mut Own)) {
        if let Some(own) = self.sources.get_mut(&source) {
            change(own);
            if *own == Own::default() {
                self.sources.remove(&source);
            }
        }
    }
}

impl Claim {
    /// Mean rate so far, in bytes a second. `None` if the claim is younger than [`GRACE`] or its
    /// frame is complete.
    fn rate(&self, now: Instant) -> Option<u128> {
        let time = now.duration_since(self.since?);
        let bytes = self.received.load(Ordering::Relaxed).saturating_sub(self.before);
        let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
        (time >= GRACE).then(|| bytes.saturating_mul(1_000) / time.as_millis())
    }
}

#[cfg(test)]
mod tests;
