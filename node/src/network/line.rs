//! One connection at its socket: how many bytes came in, and a way to cut it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Context;

use futures::task::AtomicWaker;

/// The state of one connection's socket, shared by the socket and the network's task.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<State>);

#[derive(Default)]
struct State {
    received: AtomicU64,
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Line {
    /// Ends the connection at once. An orderly close waits until the peer has read all bytes in
    /// flight, and a hostile peer does not read.
    pub(crate) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// Fails if the connection was cut. Otherwise a later cut wakes the task of `cx`, which owns
    /// the socket.
    pub(crate) fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.0.waker.register(cx.waker());
        match self.0.is_cut.load(Ordering::Acquire) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    /// This many encrypted bytes came in.
    pub(crate) fn on_received(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Encrypted bytes that came in so far.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}
