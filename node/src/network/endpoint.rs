//! Where a node is reached: a host, a TCP port and perhaps its identity. Also, from where an IP
//! address can be reached.

use std::fmt;
use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::address::is_global;

/// A host, a TCP port and perhaps the peer there, as a multiaddr names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
    /// The identity of the node there, if the address names one.
    pub peer: Option<PeerId>,
}

/// A host, by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// `/ip4/` or `/ip6/`.
    Ip(IpAddr),
    /// `/dns/`: all addresses of the name.
    Name(String),
    /// `/dns4/`: its IPv4 addresses.
    Name4(String),
    /// `/dns6/`: its IPv6 addresses.
    Name6(String),
}

/// From where an IP address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// From nowhere: every interface at once, a group of hosts, or a block that nobody may use.
    Nobody,
    /// From the same machine only.
    Machine,
    /// From the same cable or radio cell. Each interface has such addresses, so an address alone
    /// does not say which interface is meant.
    Link,
    /// From one private network: RFC 1918, unique local IPv6 addresses (RFC 4193), and the shared
    /// block of carriers and overlays (RFC 6598).
    Site,
    /// From the public internet.
    World,
}

impl Reach {
    /// The reach of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let (is_link, is_site) = match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                let carrier_nat = a == 100 && (64..128).contains(&b);
                (ip.is_link_local(), ip.is_private() || carrier_nat)
            }
            IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.is_unique_local()),
        };
        match () {
            () if ip.is_loopback() => Self::Machine,
            () if is_link => Self::Link,
            () if is_site => Self::Site,
            () if is_global(ip) => Self::World,
            () => Self::Nobody,
        }
    }
}

impl Endpoint {
    /// The parts of an address. `None` if it is not a host, a TCP port and perhaps a peer, with
    /// nothing else.
    #[must_use]
    pub fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let named = |name: &str| is_host_name(name).then(|| name.to_owned());
        let host = match parts.next()? {
            Protocol::Ip4(ip) => Host::Ip(ip.into()),
            Protocol::Ip6(ip) => Host::Ip(ip.into()),
            Protocol::Dns(name) => Host::Name(named(&name)?),
            Protocol::Dns4(name) => Host::Name4(named(&name)?),
            Protocol::Dns6(name) => Host::Name6(named(&name)?),
            _ => return None,
        };
        let Protocol::Tcp(port) = parts.next()? else { return None };
        let peer = match parts.next() {
            None => None,
            Some(Protocol::P2p(peer)) => Some(peer),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self { host, port, peer })
    }

    /// The multiaddr.
    #[must_use]
    pub fn address(&self) -> Multiaddr {
        let host = match &self.host {
            Host::Ip(IpAddr::V4(ip)) => Protocol::Ip4(*ip),
            Host::Ip(IpAddr::V6(ip)) => Protocol::Ip6(*ip),
            Host::Name(name) => Protocol::Dns(name.into()),
            Host::Name4(name) => Protocol::Dns4(name.into()),
            Host::Name6(name) => Protocol::Dns6(name.into()),
        };
        let address = Multiaddr::empty().with(host).with(Protocol::Tcp(self.port));
        match self.peer {
            Some(peer) => address.with(Protocol::P2p(peer)),
            None => address,
        }
    }

    /// The same port and peer at an IP address.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Self {
        Self { host: Host::Ip(ip), ..self.clone() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// Whether a text is a host name: labels of letters, digits, `-` and `_` with dots between them. A
/// label has at most 63 characters, and the name 253. A text without a letter is not a name: it is
/// an IP address with a mistake in it.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_plain =
            label.chars().all(|char| char.is_ascii_alphanumeric() || char == '-' || char == '_');
        (1..=63).contains(&label.len())
            && is_plain
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.contains(|char: char| char.is_ascii_alphabetic())
        && text.len() <= 253
        && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_by_their_reach() {
        for (ip, reach) in [
            ("127.0.0.1", Reach::Machine),
            ("127.9.9.9", Reach::Machine),
            ("::1", Reach::Machine),
            ("::ffff:127.0.0.1", Reach::Machine),
            ("169.254.1.1", Reach::Link),
            ("fe80::1", Reach::Link),
            ("10.1.2.3", Reach::Site),
            ("172.16.0.1", Reach::Site),
            ("172.32.0.1", Reach::World),
            ("192.168.1.5", Reach::Site),
            ("100.64.0.1", Reach::Site),
            ("100.127.255.255", Reach::Site),
            ("100.128.0.1", Reach::World),
            ("fd00::1", Reach::Site),
            ("1.1.1.1", Reach::World),
            ("2606:4700::1", Reach::World),
            ("0.0.0.0", Reach::Nobody),
            ("::", Reach::Nobody),
            ("224.0.0.1", Reach::Nobody),
            ("255.255.255.255", Reach::Nobody),
            ("203.0.113.7", Reach::Nobody),
            ("ff02::1", Reach::Nobody),
            ("2001:db8::1", Reach::Nobody),
        ] {
            assert_eq!(Reach::of(ip.parse().unwrap()), reach, "{ip}");
        }
        assert!(Reach::Machine < Reach::Site && Reach::Site < Reach::World);
    }

    #[test]
    fn an_endpoint_is_a_host_a_port_and_perhaps_a_peer() {
        let peer = PeerId::random();
        for text in [
            "/ip4/10.0.0.1/tcp/7700".to_owned(),
            "/ip6/fd00::1/tcp/1".to_owned(),
            "/dns/node.example/tcp/7700".to_owned(),
            format!("/dns4/node.example/tcp/7700/p2p/{peer}"),
            "/dns6/localhost/tcp/0".to_owned(),
        ] {
            let endpoint = Endpoint::of(&text.parse().unwrap()).unwrap();
            assert_eq!(endpoint.to_string(), text);
            let there = endpoint.at("10.0.0.2".parse().unwrap());
            assert_eq!((there.port, there.peer), (endpoint.port, endpoint.peer));
            assert!(there.to_string().starts_with("/ip4/10.0.0.2/tcp/"), "{there}");
        }
        for text in [
            "/ip4/10.0.0.1".to_owned(),
            "/ip4/10.0.0.1/udp/1".to_owned(),
            "/ip4/10.0.0.1/tcp/1/ws".to_owned(),
            "/memory/1".to_owned(),
            "/dns4/no de/tcp/1".to_owned(),
            "/dns4/-node/tcp/1".to_owned(),
            "/dns4/1.2.3/tcp/1".to_owned(),
            format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit"),
            format!("/p2p/{peer}"),
        ] {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(Endpoint::of(&address), None, "{text}");
        }
        assert_eq!(Endpoint::of(&Multiaddr::empty()), None);
    }
}
