//! Counts the bytes that the operating system takes from each connection. By this count a link
//! knows that a frame has left this process.
//!
//! Between a stream and the wire there are the multiplexer's queue, the cipher's buffer and the
//! socket's buffer, some 400 KiB together. If chunks filled them on many connections at a time, all
//! of these chunks would share the node's access to the network, and all would arrive late. So
//! bytes are counted where they leave this process, and the system is told to hold few of them.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::ConnectedPoint;
use libp2p::tcp::tokio::TcpStream;
use tokio::sync::watch;

use super::line::Line;

/// Bytes of a connection that the system may hold unsent (`TCP_NOTSENT_LOWAT`). All further bytes
/// wait in this process, where short frames can overtake them.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 32 << 10;

/// How many bytes of a connection, encrypted, the operating system has taken in so far.
pub(crate) type Taken = watch::Receiver<u64>;

/// Handles of a connection's socket, for the network's task.
#[derive(Clone)]
pub(crate) struct Hold {
    pub(crate) taken: Taken,
    pub(crate) line: Line,
}

/// The sockets of new connections, until [`Sockets::take`] claims them.
#[derive(Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<HashMap<ConnectedPoint, Vec<Hold>>>>);

impl Sockets {
    /// Counts the bytes of a new connection.
    pub(crate) fn wrap(&self, stream: TcpStream, endpoint: ConnectedPoint) -> Socket {
        hold_little(&stream);
        let (taken, reader) = watch::channel(0);
        let line = Line::default();
        let mut sockets = self.lock();
        sockets.retain(|_, holds| {
            forget_failed(holds);
            !holds.is_empty()
        });
        sockets.entry(endpoint).or_default().push(Hold { taken: reader, line: line.clone() });
        Socket { stream, taken, line }
    }

    /// The socket of an established connection. `None` if several dials to its address are in
    /// flight: their sockets cannot be told apart.
    pub(crate) fn take(&self, endpoint: &ConnectedPoint) -> Option<Hold> {
        let mut sockets = self.lock();
        let holds = sockets.get_mut(endpoint)?;
        forget_failed(holds);
        if holds.len() > 1 {
            return None;
        }
        sockets.remove(endpoint)?.pop()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectedPoint, Vec<Hold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets sockets that were dropped: their connections failed.
fn forget_failed(holds: &mut Vec<Hold>) {
    holds.retain(|hold| hold.taken.has_changed().is_ok());
}

#[cfg(target_os = "linux")]
fn hold_little(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(&stream.0).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "cannot limit the unsent bytes of a socket");
    }
}

#[cfg(not(target_os = "linux"))]
fn hold_little(_: &TcpStream) {}

/// A connection's socket.
pub(crate) struct Socket {
    stream: TcpStream,
    taken: watch::Sender<u64>,
    line: Line,
}

impl Socket {
    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }

    fn count(&self, written: usize) -> Poll<io::Result<usize>> {
        self.taken.send_modify(|taken| *taken += written as u64);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.line.check(cx)?;
        let read = ready!(self.stream().poll_read(cx, bytes))?;
        self.line.on_received(read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.line.check(cx)?;
        let written = ready!(self.stream().poll_write(cx, bytes))?;
        self.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.check(cx)?;
        self.stream().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.check(cx)?;
        self.stream().poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
