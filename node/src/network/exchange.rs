//! Request/response: one stream per request, a `u32` little-endian length before each of the two messages.
//!
//! Bulk goes both ways over one connection, so nothing here waits for one direction before it serves the other: each
//! request has its own stream, and all streams of a connection are polled together.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, OutboundFailure, ProtocolSupport};

use super::frame::{Pace, read_frame, write_frame};
use super::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

/// How long an answer may take to begin: the peer has to look it up, and other answers share the link.
const ANSWER_BEGINS: Duration = Duration::from_secs(30);

/// How long a message that has begun may stand still. A slow link is fine as long as bytes arrive.
const STALL: Duration = Duration::from_secs(20);

/// How long a whole exchange may take, however steadily it trickles.
const EXCHANGE: Duration = Duration::from_secs(600);

/// Requests in flight to one peer; more are answered with [`RequestError::Busy`].
pub const REQUESTS_PER_PEER_MAX: usize = 64;

/// Requests of one peer that we work on. More than the peer may send, as it sees an answer before we see it sent.
pub(crate) const INBOUND_PER_PEER_MAX: usize = REQUESTS_PER_PEER_MAX + 32;

/// Streams of one connection, both directions together.
const STREAMS_MAX: usize = REQUESTS_PER_PEER_MAX + INBOUND_PER_PEER_MAX + 32;

/// Request/response over [`Frames`].
pub(crate) type Exchange = request_response::Behaviour<Frames>;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The answer did not begin within 30 s, or stood still for 20 s.
    #[error("timed out")]
    Timeout,
    /// There is no connection to the peer, or it closed.
    #[error("not connected")]
    Disconnected,
    /// The peer does not speak our protocol.
    #[error("the peer does not support the protocol")]
    Unsupported,
    /// Too many requests are in flight, here or there, or the peer closed the stream without an answer.
    #[error("busy")]
    Busy,
    /// Anything else: a frame too large or cut short.
    #[error("{0}")]
    Other(String),
}

impl From<OutboundFailure> for RequestError {
    fn from(failure: OutboundFailure) -> Self {
        match failure {
            OutboundFailure::Timeout => RequestError::Timeout,
            OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => RequestError::Disconnected,
            OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
            OutboundFailure::Io(error) => match error.kind() {
                io::ErrorKind::TimedOut => RequestError::Timeout,
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => RequestError::Busy,
                io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => RequestError::Busy,
                _ => RequestError::Other(error.to_string()),
            },
        }
    }
}

/// Builds request/response for a chain.
pub(crate) fn behaviour(protocol: StreamProtocol) -> Exchange {
    let config =
        request_response::Config::default().with_request_timeout(EXCHANGE).with_max_concurrent_streams(STREAMS_MAX);
    Exchange::with_codec(Frames, [(protocol, ProtocolSupport::Full)], config)
}

/// The codec: bytes in, bytes out.
#[derive(Clone)]
pub(crate) struct Frames;

impl request_response::Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, REQUEST_BYTES_MAX, Some(STALL), Some(STALL)).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, RESPONSE_BYTES_MAX, Some(ANSWER_BEGINS), Some(STALL)).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &request, Some(STALL), &mut Pace::default()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &response, Some(STALL), &mut Pace::default()).await
    }
}
