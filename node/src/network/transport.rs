//! A transport that checks every dial and every inbound handshake against our own rules.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::Abortable;
use libp2p::Multiaddr;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent,
};

use super::dials::{Dials, Undialed};
use super::handshakes::Handshakes;

/// How many connections are refused in a row before other tasks get their turn.
const REFUSED_AT_ONCE: usize = 32;

/// Wraps a transport whose connections are encrypted and multiplexed.
pub(crate) struct Guarded<Output> {
    inner: Boxed<Output>,
    dials: Dials,
    handshakes: Handshakes,
}

impl<Output> Guarded<Output> {
    pub(crate) fn new(inner: Boxed<Output>, dials: Dials, handshakes: Handshakes) -> Self {
        Self { inner, dials, handshakes }
    }
}

impl<Output: Send + 'static> Transport for Guarded<Output> {
    type Output = Output;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Output>>;
    type Dial = <Boxed<Output> as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        if let Err(refusal) = self.dials.allow(&address, Instant::now()) {
            return Err(TransportError::Other(io::Error::other(refusal)));
        }
        self.inner.dial(address, options)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        for _ in 0..REFUSED_AT_ONCE {
            let event = std::task::ready!(Pin::new(&mut self.inner).poll(cx));
            let TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } =
                event
            else {
                return Poll::Ready(event.map_upgrade(FutureExt::boxed));
            };
            let Some((place, stop)) = self.handshakes.enter(&send_back_addr, Instant::now()) else {
                // Dropping the upgrade closes the connection.
                continue;
            };
            let upgrade = Abortable::new(upgrade, stop);
            let upgrade = async move {
                let _place = place;
                upgrade
                    .await
                    .unwrap_or_else(|_| Err(io::Error::other("gave way to a newer handshake")))
            };
            return Poll::Ready(TransportEvent::Incoming {
                listener_id,
                upgrade: upgrade.boxed(),
                local_addr,
                send_back_addr,
            });
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether one of our own rules refused a dial.
pub(crate) fn is_refusal(error: &TransportError<io::Error>) -> bool {
    let TransportError::Other(error) = error else { return false };
    let mut error = error;
    while let Some(cause) = error.get_ref() {
        if cause.is::<Undialed>() {
            return true;
        }
        let Some(deeper) = cause.downcast_ref::<io::Error>() else { return false };
        error = deeper;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_however_deep() {
        let refusal = || io::Error::other(Undialed::Recent);
        assert!(is_refusal(&TransportError::Other(refusal())));
        assert!(is_refusal(&TransportError::Other(io::Error::other(refusal()))));
        assert!(!is_refusal(&TransportError::Other(io::Error::other("refused"))));
        assert!(!is_refusal(&TransportError::Other(io::ErrorKind::ConnectionRefused.into())));
        assert!(!is_refusal(&TransportError::MultiaddrNotSupported(Multiaddr::empty())));
    }
}
