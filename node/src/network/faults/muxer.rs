//! A connection and its streams, held while their peer is cut off.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use super::delay::Delayed;
use super::{Peer, Seat, Side};

/// A connection. While it is held, the multiplexer still sends and receives, within the windows of
/// the streams, and the connection may close.
pub(super) struct Held {
    inner: StreamMuxerBox,
    seat: Seat,
}

impl Held {
    pub(super) fn new(inner: StreamMuxerBox, peer: Arc<Peer>) -> Self {
        Self { inner, seat: Seat::new(peer) }
    }

    fn stream(&self, inner: SubstreamBox) -> HeldStream {
        let seat = Seat::new(Arc::clone(&self.seat.peer));
        let delayed = Delayed::new(Arc::clone(&seat.peer.held_bytes));
        HeldStream { inner, seat, delayed }
    }
}

impl StreamMuxer for Held {
    type Substream = HeldStream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<HeldStream>> {
        ready!(self.seat.poll_uncut(Side::In, cx));
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<HeldStream>> {
        ready!(self.seat.poll_uncut(Side::Out, cx));
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(self.stream(stream)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream of a connection.
pub(super) struct HeldStream {
    inner: SubstreamBox,
    seat: Seat,
    delayed: Delayed,
}

impl AsyncRead for HeldStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, seat, delayed } = &mut *self;
        ready!(seat.poll_uncut(Side::In, cx));
        delayed.poll_read(inner, seat, cx, bytes)
    }
}

impl AsyncWrite for HeldStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.seat.poll_uncut(Side::Out, cx));
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.seat.poll_uncut(Side::Out, cx));
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.seat.poll_uncut(Side::Out, cx));
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
