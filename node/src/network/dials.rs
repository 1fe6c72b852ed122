//! Which addresses may be dialed. The transport asks this module before each dial, whichever part
//! of the node wants the dial.
//!
//! The network's task names the addresses that it has chosen: those of the configuration, of the
//! local network and of the operator, and those of peers that are no longer cut off. Every other
//! address was learned from a peer, by a Kademlia query or from the peer store. It may be a trap: a
//! host of our own network, or a stranger's host that an attacker wants us to bother.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;

use super::address::{ip_of, is_dialable};
use super::group::{Grouping, port_of};

/// Least time between two dials of one learned address.
const INTERVAL: Duration = Duration::from_secs(60);

/// Most dials of learned addresses with one IP address within [`INTERVAL`], on a public network.
const PER_IP_MAX: usize = 4;

/// Most dials remembered. Beyond it no learned address is dialed until a record is [`INTERVAL`]
/// old.
const RECENT_MAX: usize = 1024;

/// Most of them that Kademlia's queries make, which dial whatever an answer names. The others are
/// left to this node's own choices: peers of the store, calls back, and peers that have what it
/// fetches.
const QUERIES_MAX: usize = RECENT_MAX / 2;

/// Why an address is not dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undialed {
    /// A peer gave the address, and [`is_dialable`] does not allow it.
    #[error("a peer gave an address that must not be dialed")]
    Unfit,
    /// The address was dialed within [`INTERVAL`], or its IP address or all learned addresses
    /// together were dialed too often within it.
    #[error("dialed less than a minute ago")]
    Recent,
}

/// The rules, and the dials of the last minute. The transport and the network's task share them.
#[derive(Clone)]
pub(crate) struct Dials(Arc<Mutex<Book>>);

struct Book {
    grouping: Grouping,
    /// The addresses that the task is dialing at this moment.
    chosen: Vec<Multiaddr>,
    /// Whether the node itself has chosen the learned addresses that are being dialed at this
    /// moment. Otherwise a query dials them.
    is_own: bool,
    recent: HashMap<(IpAddr, u16), Record>,
}

struct Record {
    at: Instant,
    is_own: bool,
}

impl Dials {
    pub(crate) fn new(grouping: Grouping) -> Self {
        let (chosen, recent) = (Vec::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Book { grouping, chosen, is_own: false, recent })))
    }

    /// Runs a dial of addresses that the task has chosen.
    pub(crate) fn choose<T>(&self, addresses: &[Multiaddr], dial: impl FnOnce() -> T) -> T {
        self.lock().chosen = addresses.iter().map(without_peer).collect();
        let result = dial();
        self.lock().chosen.clear();
        result
    }

    /// Runs a dial of learned addresses that the node itself wants, and not a query.
    pub(crate) fn own<T>(&self, dial: impl FnOnce() -> T) -> T {
        self.lock().is_own = true;
        let result = dial();
        self.lock().is_own = false;
        result
    }

    /// Whether an address that was found by multicast may be dialed now. It may be one of our own
    /// network. If it may be dialed, the dial is recorded.
    pub(crate) fn allow_local(&self, address: &Multiaddr, now: Instant) -> Result<(), Undialed> {
        self.own(|| self.lock().record(&without_peer(address), true, now))
    }

    /// Whether an address may be dialed now. If so, the dial is recorded.
    pub(crate) fn allow(&self, address: &Multiaddr, now: Instant) -> Result<(), Undialed> {
        self.lock().allow(address, now)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn allow(&mut self, address: &Multiaddr, now: Instant) -> Result<(), Undialed> {
        let address = without_peer(address);
        if self.chosen.contains(&address) {
            return Ok(());
        }
        self.record(&address, self.grouping.private, now)
    }

    fn record(&mut self, address: &Multiaddr, private: bool, now: Instant) -> Result<(), Undialed> {
        let ip = ip_of(address).filter(|_| is_dialable(address, private)).ok_or(Undialed::Unfit)?;
        self.recent.retain(|_, record| now.duration_since(record.at) < INTERVAL);
        let key = (ip, port_of(address));
        let of_ip = self.recent.keys().filter(|(other, _)| *other == ip).count();
        let crowded = of_ip >= PER_IP_MAX && !self.grouping.is_free(ip);
        let of_queries = self.recent.values().filter(|record| !record.is_own).count();
        let is_full =
            self.recent.len() >= RECENT_MAX || (!self.is_own && of_queries >= QUERIES_MAX);
        if self.recent.contains_key(&key) || crowded || is_full {
            return Err(Undialed::Recent);
        }
        self.recent.insert(key, Record { at: now, is_own: self.is_own });
        Ok(())
    }
}

/// The address without the identity at its end.
pub(crate) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}

/// Why a dial failed, in one line. For a failed connection it is the system's error, which libp2p
/// wraps several times.
pub(crate) fn reason(error: &DialError) -> String {
    let DialError::Transport(failures) = error else { return error.to_string() };
    let Some((_, failure)) = failures.last() else { return error.to_string() };
    let mut cause: &dyn std::error::Error = failure;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    fn parse(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn learned_addresses_must_be_fit_and_chosen_ones_need_not() {
        // An address that a peer gave, and whether it is dialed on a public and on a private
        // network.
        let cases = [
            ("/ip4/1.1.1.1/tcp/7700", true, true),
            ("/ip6/2606:4700::1/tcp/7700", true, true),
            ("/ip4/10.0.0.1/tcp/7700", false, true),
            ("/ip4/127.0.0.1/tcp/7700", false, true),
            ("/ip4/169.254.169.254/tcp/80", false, true),
            ("/ip6/fd00::1/tcp/7700", false, true),
            ("/dns4/node.example/tcp/7700", false, false),
            ("/dns/node.example/tcp/7700", false, false),
            ("/ip4/1.1.1.1/tcp/0", false, false),
        ];
        let now = Instant::now();
        for (text, public, private) in cases {
            for (is_private, expected) in [(false, public), (true, private)] {
                let dials = Dials::new(Grouping { private: is_private, groups_loopback: false });
                let address = parse(text).with_p2p(PeerId::random()).unwrap();
                assert_eq!(
                    dials.allow(&address, now).is_ok(),
                    expected,
                    "{text}, private: {is_private}"
                );
                dials.choose(&[parse(text)], || {
                    assert_eq!(dials.allow(&address, now), Ok(()), "{text}")
                });
                assert!(dials.allow(&address, now).is_err(), "{text} is not chosen any more");
            }
        }
    }

    #[test]
    fn a_learned_address_is_dialed_once_a_minute() {
        let (dials, start) = (Dials::new(Grouping::default()), Instant::now());
        let address = parse("/ip4/1.1.1.1/tcp/7700");
        let allowed = |from: u64| {
            (from..from + 600)
                .filter(|second| {
                    dials.allow(&address, start + Duration::from_secs(*second)).is_ok()
                })
                .count()
        };
        assert_eq!(allowed(0), 10);
        // Another identity makes no difference, and only a few ports of one host are dialed.
        let later = start + Duration::from_secs(10_000);
        assert!(dials.allow(&address.clone().with_p2p(PeerId::random()).unwrap(), later).is_ok());
        assert_eq!(
            dials.allow(&address.clone().with_p2p(PeerId::random()).unwrap(), later),
            Err(Undialed::Recent)
        );
        let ports = |ip: &str| {
            (1..100)
                .filter(|port| dials.allow(&parse(&format!("/ip4/{ip}/tcp/{port}")), later).is_ok())
                .count()
        };
        assert_eq!((ports("2.2.2.2"), ports("1.1.1.1")), (PER_IP_MAX, PER_IP_MAX - 1));
    }

    #[test]
    fn a_host_of_the_local_network_is_dialed_once_a_minute_too() {
        let (dials, now) = (Dials::new(Grouping::default()), Instant::now());
        let there = parse("/ip4/10.0.0.1/tcp/7700");
        assert_eq!(dials.allow(&there, now), Err(Undialed::Unfit));
        assert_eq!(dials.allow_local(&there, now), Ok(()));
        assert_eq!(dials.allow_local(&there, now), Err(Undialed::Recent));
        let name = parse("/dns4/node.example/tcp/7700");
        assert_eq!(dials.allow_local(&name, now), Err(Undialed::Unfit));
    }

    #[test]
    fn queries_leave_half_of_the_dials_to_the_node_itself() {
        let (dials, now) =
            (Dials::new(Grouping { private: true, groups_loopback: false }), Instant::now());
        let dial =
            |port: u16| dials.allow(&parse(&format!("/ip4/10.0.0.1/tcp/{port}")), now).is_ok();
        assert_eq!((1..3_000).filter(|port| dial(*port)).count(), 512);
        let own = |port: u16| dials.own(|| dial(port));
        assert_eq!((1..3_000).filter(|port| own(*port)).count(), 512);
    }
}
