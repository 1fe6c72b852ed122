//! Groups of addresses that one operator can easily obtain together. Limits count by group, because
//! an address costs little and an identity costs nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::address::ip_of;

/// A group of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Group {
    /// An IPv4 /24.
    V4([u8; 3]),
    /// An IPv6 /48.
    V6([u16; 3]),
    /// One address and port: on private networks and loopback, where many nodes share an address.
    One(IpAddr, u16),
    /// An address without an IP address at its start.
    Unknown,
}

/// How addresses are grouped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grouping {
    /// Each address and port is a group of its own.
    pub(crate) private: bool,
    /// Loopback addresses are grouped like any others. For tests only.
    pub(crate) groups_loopback: bool,
}

impl Grouping {
    /// The group of an address.
    pub(crate) fn of(self, address: &Multiaddr) -> Group {
        let Some(ip) = ip_of(address) else { return Group::Unknown };
        if self.is_free(ip) {
            return Group::One(ip, port_of(address));
        }
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Group::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Group::V6([a, b, c])
            }
        }
    }

    /// The host of an address. `None` if limits by address do not apply to it.
    pub(crate) fn host(self, address: &Multiaddr) -> Option<IpAddr> {
        ip_of(address).filter(|ip| !self.is_free(*ip)).map(host_of)
    }

    /// Whether this address is exempt from limits by address.
    pub(crate) fn is_free(self, ip: IpAddr) -> bool {
        self.private || (ip.is_loopback() && !self.groups_loopback)
    }
}

/// A number for the group of an address, the same for all addresses of a group. `private`: each
/// address and port is a group of its own.
pub(crate) fn address_group(address: &Multiaddr, private: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    Grouping { private, groups_loopback: false }.of(address).hash(&mut hasher);
    hasher.finish()
}

impl Group {
    /// Whether limits by group apply to this group. They do not apply to [`Group::One`] and
    /// [`Group::Unknown`].
    pub(crate) fn is_limited(self) -> bool {
        matches!(self, Group::V4(_) | Group::V6(_))
    }
}

/// The host of an address: an IPv4 address itself, or the /64 of an IPv6 address, since one IPv6
/// host usually has a whole /64.
pub(crate) fn host_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The TCP port after the host, 0 if there is none.
pub(crate) fn port_of(address: &Multiaddr) -> u16 {
    match address.iter().nth(1) {
        Some(Protocol::Tcp(port)) => port,
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_grouped_by_their_network() {
        let public = Grouping::default();
        let private = Grouping { private: true, ..public };
        let test = Grouping { groups_loopback: true, ..public };
        // Two addresses, and whether they are in one group: on a public network, on a private
        // network, and with the grouping of tests.
        let cases = [
            ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.250/tcp/2", true, false, true),
            ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.4.4/tcp/1", false, false, false),
            ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1", true, true, true),
            ("/ip6/2606:4700:1::1/tcp/1", "/ip6/2606:4700:1:ffff::2/tcp/1", true, false, true),
            ("/ip6/2606:4700:1::1/tcp/1", "/ip6/2606:4700:2::1/tcp/1", false, false, false),
            ("/ip6/::ffff:1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1", true, true, true),
            ("/ip4/127.1.2.3/tcp/1", "/ip4/127.1.2.4/tcp/1", false, false, true),
            ("/dns4/a.example/tcp/1", "/dns4/b.example/tcp/1", true, true, true),
        ];
        for (one, other, on_public, on_private, in_tests) in cases {
            let (one, other): (Multiaddr, Multiaddr) =
                (one.parse().unwrap(), other.parse().unwrap());
            for (grouping, expected) in
                [(public, on_public), (private, on_private), (test, in_tests)]
            {
                assert_eq!(
                    grouping.of(&one) == grouping.of(&other),
                    expected,
                    "{one} and {other}: {grouping:?}"
                );
            }
        }
        let number = |text: &str, private| address_group(&text.parse().unwrap(), private);
        let [one, near, far] = ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1", "/ip4/1.2.4.4/tcp/1"];
        assert_eq!(number(one, false), number(near, false));
        assert!(
            number(one, false) != number(far, false) && number(one, true) != number(near, true)
        );
        let limited =
            |grouping: Grouping, text: &str| grouping.of(&text.parse().unwrap()).is_limited();
        assert!(limited(public, "/ip4/1.2.3.4/tcp/1") && !limited(private, "/ip4/1.2.3.4/tcp/1"));
        assert!(!limited(public, "/ip4/127.0.0.1/tcp/1") && limited(test, "/ip4/127.0.0.1/tcp/1"));
        assert!(!limited(public, "/dns4/a.example/tcp/1"));
    }
}
