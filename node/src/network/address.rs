//! Which addresses may be dialed, and which peer an address names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// The peer an address names at its end, if any.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The IP address at the start, if any. An IPv4-mapped IPv6 address counts as IPv4.
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
        _ => None,
    }
}

/// Fails if another process listens on this address, or if it is not an IP address with a TCP port.
/// The transport itself would not notice, since it opens its ports with `SO_REUSEPORT`: two nodes
/// of one user would each get some of the connections meant for both.
pub(crate) fn check_free(address: &Multiaddr) -> io::Result<()> {
    match (ip_of(address), address.iter().nth(1)) {
        (Some(ip), Some(Protocol::Tcp(port))) => {
            TcpListener::bind(SocketAddr::new(ip, port)).map(drop)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "only TCP addresses such as /ip4/127.0.0.1/tcp/7700 work",
        )),
    }
}

/// Whether an address that a peer gave may be dialed. It must be an IP address with a TCP port.
/// Unless the network is private, the IP address must belong to the public internet. Host names are
/// not dialed: the owner of a name can choose a new host for each dial.
pub(crate) fn is_dialable(address: &Multiaddr, private: bool) -> bool {
    let mut parts = address.iter();
    let host = match parts.next() {
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => {
            ip_of(address).is_some_and(|ip| private || is_global(ip))
        }
        _ => false,
    };
    host && matches!(parts.next(), Some(Protocol::Tcp(port)) if port != 0)
        && matches!(parts.next(), None | Some(Protocol::P2p(_)))
        && parts.next().is_none()
}

/// Whether an address is routed on the public internet.
pub(crate) fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => is_global_v6(ip),
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let carrier_nat = a == 100 && (64..128).contains(&b);
    let protocol_assignments = a == 192 && b == 0 && c == 0;
    let benchmarks = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 240
        || carrier_nat
        || protocol_assignments
        || benchmarks
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation())
}

/// Only 2000::/3 is assigned for public use. In it are 2001::/23 for protocols, Teredo among them,
/// 2001:db8::/32 and 3fff::/20 for documentation, and 2002::/16 for 6to4. An address of Teredo or
/// 6to4 contains an IPv4 address, which may be private. As each IPv4 address has a /48 of its own,
/// an IPv4 /24 would count as many groups.
fn is_global_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let protocols = first == 0x2001 && second < 0x200;
    let documentation =
        (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    let six_to_four = first == 0x2002;
    first & 0xe000 == 0x2000 && !(protocols || documentation || six_to_four)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dialable() {
        // An address, and whether it may be dialed on a public and on a private network.
        let cases = [
            ("/ip4/1.1.1.1/tcp/7700", true, true),
            ("/ip4/1.1.1.1/tcp/0", false, false),
            ("/ip4/1.1.1.1", false, false),
            ("/ip4/1.1.1.1/udp/7700", false, false),
            ("/ip4/1.1.1.1/tcp/7700/ws", false, false),
            ("/ip4/127.0.0.1/tcp/7700", false, true),
            ("/ip4/10.1.2.3/tcp/7700", false, true),
            ("/ip4/172.16.0.1/tcp/7700", false, true),
            ("/ip4/192.168.0.1/tcp/7700", false, true),
            ("/ip4/169.254.1.1/tcp/7700", false, true),
            ("/ip4/100.64.0.1/tcp/7700", false, true),
            ("/ip4/100.128.0.1/tcp/7700", true, true),
            ("/ip4/0.0.0.0/tcp/7700", false, true),
            ("/ip4/255.255.255.255/tcp/7700", false, true),
            ("/ip6/::1/tcp/7700", false, true),
            ("/ip6/fe80::1/tcp/7700", false, true),
            ("/ip6/fd00::1/tcp/7700", false, true),
            ("/ip6/::ffff:10.0.0.1/tcp/7700", false, true),
            ("/ip6/2606:4700::1/tcp/7700", true, true),
            ("/ip6/2001:200::1/tcp/7700", true, true),
            ("/ip6/2001:0:808:808::1/tcp/7700", false, true),
            ("/ip6/2002:808:808::1/tcp/7700", false, true),
            ("/ip6/2001:db8::1/tcp/7700", false, true),
            ("/ip6/3fff::1/tcp/7700", false, true),
            ("/dns4/cairn.example/tcp/7700", false, false),
            ("/memory/7", false, false),
        ];
        for (text, public, private) in cases {
            let address: Multiaddr = text.parse().unwrap();
            assert_eq!(is_dialable(&address, false), public, "{text} on a public network");
            assert_eq!(is_dialable(&address, true), private, "{text} on a private network");
        }
    }

    #[test]
    fn a_peer_is_at_the_end() {
        let peer = PeerId::random();
        let address: Multiaddr = "/ip4/1.1.1.1/tcp/7700".parse().unwrap();
        assert_eq!(peer_of(&address), None);
        let named = address.with_p2p(peer).unwrap();
        assert_eq!(peer_of(&named), Some(peer));
        assert!(is_dialable(&named, false));
        let relayed = named.with(Protocol::P2pCircuit).with_p2p(PeerId::random()).unwrap();
        assert!(!is_dialable(&relayed, false));
    }
}
