//! Yamux with two counts: for each connection the bytes that arrived and are not read yet, and for
//! each peer the bytes that gossip has written.
//!
//! A stream that is not read fills its window of 256 KiB or more, and a connection has hundreds of
//! streams. So a connection whose streams hold too much is not read from its socket until they hold
//! less. Its peer has to wait; all other connections go on. A waiting connection goes on as soon as
//! its streams are read. Almost no reader of a stream waits for another stream. Only the reader of
//! a large frame of a link may, and only as long as a frame may take: see
//! [`intake`](super::intake).

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::iter;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use futures::future::{Ready, ready as now};
use futures::{AsyncRead, AsyncWrite};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};

use super::share::Share;

/// Most streams of one connection; beyond it the connection ends. The protocols have lower limits
/// of their own.
const STREAMS_MAX: usize = 384;

/// Bytes by which all windows of a connection together may grow beyond their initial 256 KiB each.
/// Windows grow on links with a long round trip, where one stream could not fill the link
/// otherwise: 8 MiB allow 300 Mbit/s at 200 ms.
const WINDOWS_GROW_BYTES: usize = 8 << 20;

/// Budget for the bytes that wait in streams for their readers. The floor is one window, since a
/// reader may wait for exactly the bytes that are in flight.
const UNREAD: Share = Share { all: 64 << 20, floor: 256 << 10 };

/// Most streams opened by the peer that wait until the swarm takes them. Beyond this number the
/// newest is reset.
const INWARD_WAITING: usize = 256;

/// How the name of gossip's protocol begins. The first bytes on a stream name its protocol.
const GOSSIP: &[u8] = b"/meshsub/";

/// A stream names its protocol within this many of its first bytes.
const NAMED_WITHIN: usize = 128;

/// Multiplexes connections. All of them share one count of unread bytes.
#[derive(Clone, Default)]
pub(crate) struct Yamux {
    unread: Arc<AtomicUsize>,
}

/// Bytes that gossip has written to each connected peer, on all its connections.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<Mutex<HashMap<PeerId, Weak<AtomicU64>>>>);

impl Written {
    /// Bytes that gossip has written to a peer since it connected.
    pub(crate) fn to(&self, peer: &PeerId) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(peer).and_then(Weak::upgrade).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts what gossip writes on a connection with a peer.
    pub(crate) fn count<C>(&self, peer: PeerId, muxer: &mut Muxer<C>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|_, count| count.strong_count() > 0);
        match counts.get(&peer).and_then(Weak::upgrade) {
            Some(count) => muxer.gossip = count,
            None => drop(counts.insert(peer, Arc::downgrade(&muxer.gossip))),
        }
    }
}

impl Yamux {
    fn connection<C: AsyncRead + AsyncWrite + Unpin>(self, io: C, mode: yamux::Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        let least = STREAMS_MAX * usize::try_from(yamux::DEFAULT_CREDIT).unwrap_or(usize::MAX);
        config.set_max_connection_receive_window(Some(least + WINDOWS_GROW_BYTES));
        let book = Book { all: self.unread, unread: Mutex::default() };
        let book = Arc::new(book);
        let wire =
            Wire { io, book: Arc::clone(&book), header: [0; HEADER_BYTES], filled: 0, body: None };
        Muxer {
            connection: yamux::Connection::new(wire, config, mode),
            book,
            gossip: Arc::default(),
            inward: VecDeque::new(),
            waker: None,
        }
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, io: C, _: Self::Info) -> Self::Future {
        now(Ok(self.connection(io, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, io: C, _: Self::Info) -> Self::Future {
        now(Ok(self.connection(io, yamux::Mode::Client)))
    }
}

/// Unread bytes in the streams of one connection.
struct Book {
    /// Unread bytes of all connections.
    all: Arc<AtomicUsize>,
    unread: Mutex<Unread>,
}

#[derive(Default)]
struct Unread {
    /// Unread bytes of each open stream.
    streams: HashMap<u32, usize>,
    total: usize,
    /// Set while the connection waits for its readers.
    waiting: Option<Waker>,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_opened(&self, stream: u32) {
        self.lock().streams.entry(stream).or_default();
    }

    /// A frame arrived for a stream. Yamux does not keep data for a closed stream, so it is not
    /// counted.
    fn on_arrived(&self, stream: u32, bytes: usize) {
        let mut unread = self.lock();
        if let Some(waiting) = unread.streams.get_mut(&stream) {
            *waiting += bytes;
            unread.total += bytes;
            self.all.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn on_read(&self, stream: u32, bytes: usize) {
        let mut unread = self.lock();
        let Some(waiting) = unread.streams.get_mut(&stream) else { return };
        let bytes = bytes.min(*waiting);
        *waiting -= bytes;
        self.relieve(unread, bytes);
    }

    fn on_closed(&self, stream: u32) {
        let mut unread = self.lock();
        let bytes = unread.streams.remove(&stream).unwrap_or(0);
        self.relieve(unread, bytes);
    }

    fn relieve(&self, mut unread: MutexGuard<'_, Unread>, bytes: usize) {
        unread.total -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        let waker = unread.waiting.take();
        drop(unread);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready when the socket may be read.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = self.lock();
        if UNREAD.allows(unread.total, self.all.load(Ordering::Relaxed), 0) {
            return Poll::Ready(());
        }
        unread.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let total = self.lock().total;
        self.all.fetch_sub(total, Ordering::Relaxed);
    }
}

/// Bytes of a yamux header: version, type, two of flags, four of the stream, four of the length.
const HEADER_BYTES: usize = 12;

/// The type of a frame with a body.
const DATA: u8 = 0;

/// The flag that opens a stream.
const SYN: u16 = 1;

/// The transport below yamux. It parses the headers of received frames.
struct Wire<C> {
    io: C,
    book: Arc<Book>,
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// The body that is arriving.
    body: Option<Body>,
}

struct Body {
    stream: u32,
    length: usize,
    left: usize,
}

impl<C> Wire<C> {
    fn on_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(body) = &mut self.body {
                let taken = body.left.min(bytes.len());
                body.left -= taken;
                bytes = &bytes[taken..];
            } else {
                let taken = (HEADER_BYTES - self.filled).min(bytes.len());
                self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                self.filled += taken;
                bytes = &bytes[taken..];
                if self.filled == HEADER_BYTES {
                    self.filled = 0;
                    self.on_header();
                }
            }
            if let Some(Body { stream, length, left: 0 }) = self.body {
                self.book.on_arrived(stream, length);
                self.body = None;
            }
        }
    }

    fn on_header(&mut self) {
        let [_version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = self.header;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        if u16::from_be_bytes([f0, f1]) & SYN != 0 && stream != 0 {
            self.book.on_opened(stream);
        }
        if kind == DATA {
            let length =
                usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
            self.body = Some(Body { stream, length, left: length });
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Wire<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.book.poll_room(cx));
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, bytes))?;
        self.on_bytes(&bytes[..read]);
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Wire<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

/// One connection.
pub(crate) struct Muxer<C> {
    connection: yamux::Connection<Wire<C>>,
    book: Arc<Book>,
    /// Bytes that gossip has written.
    gossip: Arc<AtomicU64>,
    /// Streams that the peer opened and that the swarm has not asked for yet.
    inward: VecDeque<Stream>,
    /// Set while the swarm waits for a stream that the peer opens.
    waker: Option<Waker>,
}

impl<C> Muxer<C> {
    fn stream(&self, stream: yamux::Stream) -> Stream {
        let id = stream.id().val();
        self.book.on_opened(id);
        let (book, gossip) = (Arc::clone(&self.book), Arc::clone(&self.gossip));
        Stream { stream, id, book, gossip, kind: Kind::Unnamed(Vec::new()) }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match ready!(self.connection.poll_next_inbound(cx)) {
            Some(Ok(stream)) => Poll::Ready(Ok(self.stream(stream))),
            Some(Err(error)) => Poll::Ready(Err(io_error(error))),
            None => Poll::Ready(Err(io_error(yamux::ConnectionError::Closed))),
        }
    }
}

fn io_error(error: yamux::ConnectionError) -> io::Error {
    match error {
        yamux::ConnectionError::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        if let Some(stream) = self.inward.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(result) = self.poll_next(cx) {
            return Poll::Ready(result);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let stream = ready!(self.connection.poll_new_outbound(cx)).map_err(io_error)?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx).map_err(io_error)
    }

    /// Moves the data of all streams. Yamux does so only while it is asked for the peer's next
    /// stream.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.inward.len() < INWARD_WAITING {
            self.inward.push_back(stream);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        // There may be more streams; other tasks get their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One stream. It reports the bytes that are read, and the bytes that gossip writes.
pub(crate) struct Stream {
    stream: yamux::Stream,
    id: u32,
    book: Arc<Book>,
    gossip: Arc<AtomicU64>,
    kind: Kind,
}

/// The protocol of a stream, as far as it matters.
enum Kind {
    /// The bytes written so far, which do not name a protocol yet.
    Unnamed(Vec<u8>),
    Gossip,
    Other,
}

impl Stream {
    fn on_written(&mut self, bytes: &[u8]) {
        if let Kind::Unnamed(written) = &mut self.kind {
            let left = NAMED_WITHIN.saturating_sub(written.len());
            written.extend_from_slice(&bytes[..left.min(bytes.len())]);
            if written.windows(GOSSIP.len()).any(|part| part == GOSSIP) {
                self.kind = Kind::Gossip;
            } else if written.len() >= NAMED_WITHIN {
                self.kind = Kind::Other;
            }
        }
        if matches!(self.kind, Kind::Gossip) {
            self.gossip
                .fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, bytes))?;
        self.book.on_read(self.id, read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.on_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.book.on_closed(self.id);
    }
}

#[cfg(test)]
mod tests;
