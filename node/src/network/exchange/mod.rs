//! Request/response: one stream per request. Each of the two messages has its length before it, as
//! a little-endian `u32`.
//!
//! Bulk data goes both ways over one connection. Neither direction waits for the other: each
//! request has its own stream, and all streams of a connection are polled together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, OutboundFailure, ProtocolSupport};
use tokio::time::timeout;

use super::frame::{Counted, Pace, read_frame_within, write_frame};
use super::intake::{Arrival, Intake, Limits, Source};
use super::requests::{INBOUND_PER_PEER_MAX, REQUESTS_PER_PEER_MAX, Sending};
use super::share::Share;
use super::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

/// How long a whole request may take, from the opening of its stream. For 64 KiB this is 26 kbit/s.
const REQUEST: Duration = Duration::from_secs(20);

/// How long an answer may take to begin. The peer has to look it up, and other answers share the
/// link.
const ANSWER_BEGINS: Duration = Duration::from_secs(30);

/// How long an answer that has begun may stand still. A slow link is fine as long as bytes arrive.
const STALL: Duration = Duration::from_secs(20);

/// Least rate of an answer once it has begun, in bytes a second: 4 MiB take at most 128 s, plus
/// [`STALL`]. A slower link cannot follow the chain, and a slower reader holds our memory for
/// longer.
const ANSWER_RATE: usize = 32 << 10;

/// How long a whole exchange may take: longer than its parts together.
const EXCHANGE: Duration = Duration::from_secs(240);

/// Budget for the bytes of requests that are being received, on all connections. A connection
/// always has room for one request.
const UNFINISHED: Share = Share { all: 16 << 20, floor: REQUEST_BYTES_MAX };

/// Limits of answers that are being received. Each connection always has room for `floor` bytes.
/// Answers that do not fit there share `all`, which is as large as the budget for sending large
/// answers: see [`requests`](super::requests). An answer without room is refused, and the caller
/// may ask again. An answer that waited for room could hold up all streams of its connection.
const ANSWERS: Limits = Limits {
    begins: Some(ANSWER_BEGINS),
    stall: STALL,
    rate: ANSWER_RATE,
    share: Share { all: 64 << 20, floor: 128 << 10 },
    waits: false,
};

/// Most streams of one connection, both directions together.
const STREAMS_MAX: usize = REQUESTS_PER_PEER_MAX + INBOUND_PER_PEER_MAX + 32;

/// Request/response over [`Frames`].
pub(crate) type Exchange = request_response::Behaviour<Frames>;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The answer did not begin within 30 s, stood still for 20 s or came at less than 32 KiB a
    /// second, or the request could not be sent within 20 s.
    #[error("timed out")]
    Timeout,
    /// There is no connection to the peer, or it closed.
    #[error("not connected")]
    Disconnected,
    /// The peer does not speak our protocol.
    #[error("the peer does not support the protocol")]
    Unsupported,
    /// Too many requests are in flight on either side, or this node has no room for the answer, or
    /// the peer closed the stream without an answer.
    #[error("busy")]
    Busy,
    /// Anything else, such as a frame that is too large or cut short.
    #[error("{0}")]
    Other(String),
}

impl From<OutboundFailure> for RequestError {
    fn from(failure: OutboundFailure) -> Self {
        match failure {
            OutboundFailure::Timeout => RequestError::Timeout,
            OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => {
                RequestError::Disconnected
            }
            OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
            OutboundFailure::Io(error) => match error.kind() {
                io::ErrorKind::TimedOut => RequestError::Timeout,
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                    RequestError::Busy
                }
                io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => RequestError::Busy,
                io::ErrorKind::QuotaExceeded => RequestError::Busy,
                _ => RequestError::Other(error.to_string()),
            },
        }
    }
}

/// Builds request/response for a chain.
pub(crate) fn behaviour(protocol: StreamProtocol) -> Exchange {
    let config = request_response::Config::default()
        .with_request_timeout(EXCHANGE)
        .with_max_concurrent_streams(STREAMS_MAX);
    Exchange::with_codec(Frames::default(), [(protocol, ProtocolSupport::Full)], config)
}

/// A request as it goes over a stream.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// Most bytes of the answer to a request of ours.
    answer_bytes_max: usize,
    /// The bytes that a peer's request takes of the bound on unfinished requests. They are given
    /// back once [`Requests`](super::requests::Requests) counts the request, or when it is refused.
    /// `None` for a request of ours.
    _held: Option<Held>,
}

impl Request {
    /// A request of ours. A longer answer is not read.
    pub(crate) fn new(bytes: Vec<u8>, answer_bytes_max: usize) -> Self {
        Self { bytes, answer_bytes_max, _held: None }
    }
}

/// A response as it goes over a stream.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
    /// The handle by which [`Requests`](super::requests::Requests) counts and cancels an answer of
    /// ours. `None` for a received response.
    pub(crate) sending: Option<Sending>,
    /// The bytes that a received response takes of [`ANSWERS`]. They are given back once the
    /// network's task has taken the response. `None` for an answer of ours.
    _arrival: Option<Arrival>,
}

impl Response {
    /// An answer of ours.
    pub(crate) fn new(bytes: Vec<u8>, sending: Option<Sending>) -> Self {
        Self { bytes, sending, _arrival: None }
    }
}

/// The codec: it reads and writes frames as bytes, and bounds those that are being received.
///
/// libp2p clones the behaviour's codec for each connection, and clones that clone for each stream
/// of the connection. So all clones share `all` and `answers`, and the clones of one connection
/// share `connection` and `source`. The request and the answer of one stream go through the same
/// clone, so `answer_bytes_max` can be set by the request.
pub(crate) struct Frames {
    all: Arc<AtomicUsize>,
    connection: Option<Arc<AtomicUsize>>,
    answers: Intake,
    /// The answers on this connection.
    source: Option<Source>,
    /// Most bytes of the answer to the request on this stream.
    answer_bytes_max: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            all: Arc::default(),
            connection: None,
            answers: Intake::new(ANSWERS),
            source: None,
            answer_bytes_max: RESPONSE_BYTES_MAX,
        }
    }
}

impl Clone for Frames {
    fn clone(&self) -> Self {
        Self {
            all: Arc::clone(&self.all),
            connection: Some(self.connection.clone().unwrap_or_default()),
            answers: self.answers.clone(),
            source: Some(self.source.clone().unwrap_or_else(|| self.answers.source())),
            answer_bytes_max: self.answer_bytes_max,
        }
    }
}

/// Bytes of [`UNFINISHED`] that one request has reserved. Dropping it gives them back.
#[derive(Debug)]
struct Held {
    all: Arc<AtomicUsize>,
    connection: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    fn nothing(frames: &Frames) -> Self {
        Self {
            all: Arc::clone(&frames.all),
            connection: frames.connection.clone().unwrap_or_default(),
            bytes: 0,
        }
    }

    /// Raises the reserved bytes to `bytes`. Returns whether [`UNFINISHED`] allows it.
    fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let (own, taken) =
            (self.connection.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed));
        let has_room = UNFINISHED.allows(own, taken, more);
        if has_room {
            self.all.fetch_add(more, Ordering::Relaxed);
            self.connection.fetch_add(more, Ordering::Relaxed);
            self.bytes += more;
        }
        has_room
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
        self.connection.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl request_response::Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut held = Held::nothing(self);
        let read = read_frame_within(io, REQUEST_BYTES_MAX, |bytes| held.grow(bytes));
        let bytes = timeout(REQUEST, read).await??;
        Ok(Request { bytes, answer_bytes_max: RESPONSE_BYTES_MAX, _held: Some(held) })
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        let source = self.source.get_or_insert_with(|| self.answers.source());
        let (bytes, arrival) = source.read(io, self.answer_bytes_max).await?;
        Ok(Response { bytes, sending: None, _arrival: Some(arrival) })
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Request,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.answer_bytes_max = request.answer_bytes_max;
        timeout(REQUEST, write_frame(io, &request.bytes, None, &mut Pace::default())).await?
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Response,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Response { bytes, sending, .. } = response;
        let (sent, cut) = sending.map(|Sending { sent, cut }| (sent, cut)).unzip();
        let mut io = Counted { io, moved: sent.unwrap_or_default() };
        let mut pace = Pace::default();
        let write = timeout(
            ANSWERS.time(bytes.len()),
            write_frame(&mut io, &bytes, Some(STALL), &mut pace),
        );
        let Some(cut) = cut else { return write.await? };
        tokio::select! {
            written = write => written?,
            // Nothing is ever sent on this channel. It resolves when the sender is dropped.
            _ = cut => {
                let reason = "the answer was cancelled: the peer read it too slowly";
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
