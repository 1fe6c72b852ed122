//! The addresses of this machine's interfaces.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use libp2p::core::transport::{Boxed, ListenerId, Transport, TransportEvent};
use libp2p::{Multiaddr, tcp};
use tokio::time::timeout;

use super::address::ip_of;
use super::endpoint::{Endpoint, Host};

/// The system names all addresses at once. After this time without a further one the list counts as
/// complete. With a shorter time a loaded machine may miss some. With a longer one commands feel
/// slow.
const QUIET: Duration = Duration::from_millis(300);
/// Most addresses that are listed.
const ADDRESSES_MAX: usize = 64;

/// The addresses of this machine at which a listener on `any` can be reached; `any` is 0.0.0.0 or
/// `::`. Empty if the system does not name them.
pub async fn own_addresses(any: IpAddr) -> Vec<IpAddr> {
    // A listener on all interfaces is told the address of each. This one serves no connection, and
    // it is closed when the function returns.
    let mut listener: Boxed<tcp::tokio::TcpStream> =
        tcp::tokio::Transport::new(tcp::Config::default()).boxed();
    let address: Multiaddr = Endpoint { host: Host::Ip(any), port: 0, peer: None }.address();
    if listener.listen_on(ListenerId::next(), address).is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    while found.len() < ADDRESSES_MAX {
        let next = poll_fn(|cx| Pin::new(&mut listener).poll(cx));
        match timeout(QUIET, next).await {
            Ok(TransportEvent::NewAddress { listen_addr, .. }) => found.extend(ip_of(&listen_addr)),
            Ok(TransportEvent::AddressExpired { .. }) => {}
            // A stranger has connected, or the listener has failed.
            Ok(_) | Err(_) => break,
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopback_is_among_the_addresses() {
        let found = own_addresses("0.0.0.0".parse().unwrap()).await;
        assert!(found.contains(&"127.0.0.1".parse().unwrap()), "{found:?}");
        assert!(found.iter().all(IpAddr::is_ipv4), "{found:?}");
    }
}
