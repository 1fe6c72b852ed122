//! Chooses where a new node listens, by the address of the node from which it joins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use crate::network::Reach;

/// Distance between two pairs of ports that are tried. The nodes of a local network have pairs ten
/// ports apart, so a network of ten nodes lies between two pairs.
const STEP: u16 = 100;
/// Most pairs that are tried.
const PAIRS_MAX: u16 = 50;

/// Where a node listens for peers, and whether its network is private.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ip: IpAddr,
    pub(super) is_private: bool,
}

impl Place {
    /// The place of a node that joins a node at the addresses `found`, of which the best one has
    /// this `reach`. A node on this machine is joined on loopback, another one on all interfaces.
    pub(super) fn of(found: &[IpAddr], reach: Reach) -> Self {
        let is_v6 = found.iter().all(IpAddr::is_ipv6);
        let any: IpAddr =
            if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let place = Self { ip: any, is_private: reach < Reach::World };
        if reach == Reach::Machine { place.on_loopback() } else { place }
    }

    /// The same place on loopback, which only this machine can reach.
    pub(super) fn on_loopback(self) -> Self {
        let ip = match self.ip {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Self { ip, ..self }
    }

    /// The first pair of free ports, for peers and for RPC, in steps of [`STEP`] from `first` on.
    /// `needed` says for each port, peers first, whether it has to be free.
    pub(super) fn free_ports(self, first: Ports, needed: (bool, bool)) -> Option<Ports> {
        let is_free = |ip: IpAddr, port: u16| TcpListener::bind((ip, port)).is_ok();
        let step = |number: u16| {
            let step = number.checked_mul(STEP)?;
            Some(Ports { p2p: first.p2p.checked_add(step)?, rpc: first.rpc.checked_add(step)? })
        };
        (0..PAIRS_MAX).map_while(step).find(|ports| {
            (!needed.0 || is_free(self.ip, ports.p2p))
                && (!needed.1 || is_free(Ipv4Addr::LOCALHOST.into(), ports.rpc))
        })
    }
}

/// The ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// For peers.
    pub(super) p2p: u16,
    /// For RPC, on loopback.
    pub(super) rpc: u16,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_link_decides() {
        for (found, listen, private) in [
            (&["127.0.0.1"][..], "127.0.0.1", true),
            (&["::1"], "::1", true),
            (&["192.168.1.5"], "0.0.0.0", true),
            (&["169.254.1.5"], "0.0.0.0", true),
            (&["100.64.0.9"], "0.0.0.0", true),
            (&["fd00::5"], "::", true),
            (&["1.1.1.1"], "0.0.0.0", false),
            (&["2606:4700::1"], "::", false),
            // A name with several addresses is judged by the one that reaches furthest.
            (&["127.0.0.1", "10.0.0.1"], "0.0.0.0", true),
            (&["10.0.0.1", "1.1.1.1"], "0.0.0.0", false),
            (&["2606:4700::1", "1.1.1.1"], "0.0.0.0", false),
        ] {
            let ips: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
            let reach = ips.iter().map(|ip| Reach::of(*ip)).max().unwrap();
            let place = Place::of(&ips, reach);
            assert_eq!(
                (place.ip.to_string().as_str(), place.is_private),
                (listen, private),
                "{found:?}"
            );
            assert!(place.on_loopback().ip.is_loopback());
            assert_eq!(place.on_loopback().is_private, private);
        }
    }

    #[test]
    fn a_taken_port_moves_the_pair() {
        let place = Place { ip: Ipv4Addr::LOCALHOST.into(), is_private: true };
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (p2p, rpc) = (listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let first = Ports { p2p: port(&p2p), rpc: port(&rpc) };
        // One port in use, of either kind, moves both.
        for needed in [(true, true), (true, false), (false, true)] {
            // Near the end of the range no pair may be left.
            let Some(found) = place.free_ports(first, needed) else { continue };
            assert_eq!(found.p2p - first.p2p, found.rpc - first.rpc);
            assert_eq!((found.p2p - first.p2p) % STEP, 0);
            assert_ne!(found, first, "{needed:?}");
        }
        assert_eq!(place.free_ports(first, (false, false)), Some(first));
        let last = Ports { p2p: u16::MAX, rpc: port(&rpc) };
        assert_eq!(place.free_ports(last, (false, true)), None, "there is no further port");
    }
}
