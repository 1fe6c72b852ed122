//! Addresses of nodes, in the forms that people write and the one that the network takes.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::network::{Multiaddr, is_host_name};

/// Where a node listens or is reached: a multiaddr such as `/ip4/127.0.0.1/tcp/7700`. `IP:PORT`
/// and, for a peer, `HOST:PORT` are also parsed. `/dnsaddr/NAME` is a name under which addresses of
/// nodes are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct P2pAddress(pub Multiaddr);

/// The text is not an address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an address, expected e.g. \"127.0.0.1:7700\", \"node.example:7700\" or \
     \"/dns4/node.example/tcp/7700/p2p/<peer id>\""
)]
pub struct P2pAddressError {
    text: String,
}

impl P2pAddressError {
    fn of(text: &str) -> Self {
        Self { text: text.chars().take(200).collect() }
    }
}

impl From<SocketAddr> for P2pAddress {
    fn from(address: SocketAddr) -> Self {
        let (kind, port) = (if address.is_ipv4() { "ip4" } else { "ip6" }, address.port());
        let text = format!("/{kind}/{}/tcp/{port}", address.ip());
        Self(text.parse().unwrap_or_else(|error| {
            panic!("every IP address and port is a multiaddr, got {text}: {error}")
        }))
    }
}

impl P2pAddress {
    /// Whether the address begins with an IP address. A node cannot listen on a name.
    pub(super) fn is_ip(&self) -> bool {
        let text = self.to_string();
        text.starts_with("/ip4/") || text.starts_with("/ip6/")
    }

    /// Whether this is a loopback address, which only this machine can reach. A name such as
    /// `localhost` does not count.
    pub(crate) fn is_loopback(&self) -> bool {
        let text = self.to_string();
        text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/")
    }

    /// The same address at another TCP port.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        let text = self.to_string();
        let Some((host, rest)) = text.split_once("/tcp/") else { return self.clone() };
        let rest = rest.find('/').map_or("", |end| &rest[end..]);
        format!("{host}/tcp/{port}{rest}").parse().unwrap_or_else(|_| self.clone())
    }
}

/// A host name and a port, as a `/dns` multiaddr, which resolves to all addresses of the name.
fn named(text: &str) -> Option<Multiaddr> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| is_host_name(host) && *port > 0)?;
    format!("/dns/{host}/tcp/{port}").parse().ok()
}

impl FromStr for P2pAddress {
    type Err = P2pAddressError;

    fn from_str(text: &str) -> Result<Self, P2pAddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        if let Some(name) = text.strip_prefix("/dnsaddr/") {
            let seed = is_host_name(name).then(|| text.parse().ok()).flatten();
            return seed.map(Self).ok_or_else(|| P2pAddressError::of(text));
        }
        // An empty text would parse as an empty multiaddr, and a multiaddr without a TCP port
        // cannot be dialed.
        let address = if text.contains("/tcp/") { text.parse().ok() } else { named(text) };
        address.map(Self).ok_or_else(|| P2pAddressError::of(text))
    }
}

impl TryFrom<String> for P2pAddress {
    type Error = P2pAddressError;

    fn try_from(text: String) -> Result<Self, P2pAddressError> {
        text.parse()
    }
}

impl From<P2pAddress> for String {
    fn from(address: P2pAddress) -> Self {
        address.0.to_string()
    }
}

impl fmt::Display for P2pAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_moves_to_another_port() {
        for (text, moved) in [
            ("/ip4/10.0.0.1/tcp/7700", "/ip4/10.0.0.1/tcp/9"),
            (
                "/dns/node.example/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                "/dns/node.example/tcp/9/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
            ),
        ] {
            assert_eq!(text.parse::<P2pAddress>().unwrap().with_port(9).to_string(), moved);
        }
    }

    #[test]
    fn addresses_are_multiaddrs_or_a_host_and_a_port() {
        for (text, shown) in [
            ("127.0.0.1:7700", Some("/ip4/127.0.0.1/tcp/7700")),
            ("[::1]:7700", Some("/ip6/::1/tcp/7700")),
            ("/dns4/node.example/tcp/7700", Some("/dns4/node.example/tcp/7700")),
            ("", None),
            ("/ip4/127.0.0.1", None),
            ("localhost:7700", Some("/dns/localhost/tcp/7700")),
            ("node.example:7700", Some("/dns/node.example/tcp/7700")),
            ("a-b.node_1.example.:1", Some("/dns/a-b.node_1.example./tcp/1")),
            ("node.example", None),
            ("node.example:0", None),
            ("node.example:77000", None),
            ("node.example:port", None),
            ("node..example:7700", None),
            ("-node.example:7700", None),
            ("no de:7700", None),
            ("node/ip4:7700", None),
            (":7700", None),
            ("/dnsaddr/seed.example", Some("/dnsaddr/seed.example")),
            ("/dnsaddr/seed.example/tcp/7700", None),
            ("/dnsaddr/no de", None),
            ("/dnsaddr/", None),
            ("1.2.3:7700", None),
            ("http://node.example:7700", None),
            ("/ip4/127.0.0.1/tcp/77000", None),
        ] {
            assert_eq!(
                text.parse::<P2pAddress>().ok().map(|address| address.to_string()).as_deref(),
                shown,
                "{text}"
            );
        }
    }
}
