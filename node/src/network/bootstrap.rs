//! The peers the operator named: dialed again for as long as they are not connected, for ever.

use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};

use super::address::peer_of;

const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// All bootstrap addresses and when to dial each.
pub(crate) struct Bootstrap {
    entries: Vec<Entry>,
}

struct Entry {
    address: Multiaddr,
    /// Named in the address, or learned when it first answered.
    peer: Option<PeerId>,
    /// The dial under way.
    dialing: Option<ConnectionId>,
    /// Dials that failed since a connection was up.
    failures: u64,
    /// Not before.
    next: Instant,
    delay: Duration,
}

impl Bootstrap {
    /// Our own address may be in the list, as one list serves all nodes of a network: it is skipped.
    pub(crate) fn new(addresses: &[Multiaddr], local: PeerId, now: Instant) -> Self {
        let entry = |address: &Multiaddr| Entry {
            address: address.clone(),
            peer: peer_of(address),
            dialing: None,
            failures: 0,
            next: now,
            delay: DELAY_MIN,
        };
        Self { entries: addresses.iter().map(entry).filter(|entry| entry.peer != Some(local)).collect() }
    }

    /// The dials due now. Each must end in one of the `on_` methods.
    pub(crate) fn due(&mut self, now: Instant, is_connected: impl Fn(&PeerId) -> bool) -> Vec<DialOpts> {
        let mut dials = Vec::new();
        for entry in &mut self.entries {
            let connected = entry.peer.as_ref().is_some_and(&is_connected);
            if connected || entry.dialing.is_some() || now < entry.next {
                continue;
            }
            let dial = dial(&entry.address);
            entry.dialing = Some(dial.connection_id());
            dials.push(dial);
        }
        dials
    }

    /// A connection is up. The delay stays as it is until the peer turns out to be one of ours.
    pub(crate) fn on_connected(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.dialing == Some(connection)) {
            entry.dialing = None;
            entry.peer = Some(peer);
            entry.failures = 0;
            entry.back_off(now, 0);
        }
    }

    /// A dial failed. `random` spreads the next ones of many nodes that lost the same peer. Gives the address when this is the third
    /// failure in a row, which somebody may want to know.
    pub(crate) fn on_failed(&mut self, connection: ConnectionId, now: Instant, random: u32) -> Option<&Multiaddr> {
        let entry = self.entries.iter_mut().find(|entry| entry.dialing == Some(connection))?;
        entry.dialing = None;
        entry.failures += 1;
        entry.back_off(now, random);
        (entry.failures == 3).then_some(&entry.address)
    }

    /// An address turned out to be our own.
    pub(crate) fn on_self(&mut self, connection: ConnectionId) {
        self.entries.retain(|entry| entry.dialing != Some(connection));
    }

    /// The peer is on our chain.
    pub(crate) fn on_admitted(&mut self, peer: &PeerId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.peer.as_ref() == Some(peer)) {
            entry.delay = DELAY_MIN;
        }
    }

    /// The last connection to the peer closed.
    pub(crate) fn on_disconnected(&mut self, peer: &PeerId, now: Instant, random: u32) {
        for entry in self.entries.iter_mut().filter(|entry| entry.peer.as_ref() == Some(peer)) {
            entry.next = entry.next.max(now + jittered(DELAY_MIN, random));
        }
    }
}

impl Entry {
    fn back_off(&mut self, now: Instant, random: u32) {
        self.next = now + jittered(self.delay, random);
        self.delay = (2 * self.delay).min(DELAY_MAX);
    }
}

/// The delay, or up to half of it less.
fn jittered(delay: Duration, random: u32) -> Duration {
    delay - delay / 2 * (random % 1000) / 1000
}

/// A dial to one address, from a port of its own: two nodes that dial each other from their listening ports at the same
/// moment would meet as one TCP connection with two dialers.
pub(crate) fn dial(address: &Multiaddr) -> DialOpts {
    match peer_of(address) {
        Some(peer) => DialOpts::peer_id(peer).addresses(vec![address.clone()]).allocate_new_port().build(),
        None => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bootstrap(addresses: &[&str], local: PeerId, now: Instant) -> Bootstrap {
        let addresses: Vec<Multiaddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Bootstrap::new(&addresses, local, now)
    }

    #[test]
    fn delays_double_up_to_half_a_minute_and_never_end() {
        let start = Instant::now();
        let mut peers = bootstrap(&["/ip4/1.1.1.1/tcp/1"], PeerId::random(), start);
        let mut now = start;
        for (failure, seconds) in (1..).zip([1, 2, 4, 8, 16, 30, 30, 30, 30]) {
            let dials = peers.due(now, |_| false);
            assert_eq!(dials.len(), 1, "before the wait of {seconds} s");
            assert!(peers.due(now + DELAY_MAX, |_| false).is_empty(), "one dial at a time");
            let told = peers.on_failed(dials[0].connection_id(), now, 0);
            assert_eq!(told.is_some(), failure == 3, "told of once: {failure}");
            now += Duration::from_secs(seconds);
            assert!(peers.due(now - Duration::from_millis(1), |_| false).is_empty(), "after {seconds} s");
        }
        assert_eq!(jittered(DELAY_MAX, 999).as_secs(), 15);
    }

    #[test]
    fn a_connected_peer_is_left_alone_until_it_goes() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut peers = bootstrap(&["/ip4/1.1.1.1/tcp/1"], PeerId::random(), start);
        let dials = peers.due(start, |_| false);
        peers.on_connected(dials[0].connection_id(), peer, start);
        peers.on_admitted(&peer);
        let later = start + Duration::from_secs(3600);
        assert!(peers.due(later, |other| *other == peer).is_empty());
        peers.on_disconnected(&peer, later, 0);
        assert!(peers.due(later, |_| false).is_empty());
        assert_eq!(peers.due(later + DELAY_MIN, |_| false).len(), 1);
    }

    /// A node of another chain accepts the connection, then is disconnected: that must not be tried each second.
    #[test]
    fn a_peer_that_is_never_admitted_is_dialed_ever_less() {
        let start = Instant::now();
        let mut peers = bootstrap(&["/ip4/1.1.1.1/tcp/1"], PeerId::random(), start);
        let (mut now, peer, mut dials) = (start, PeerId::random(), 0);
        while now < start + Duration::from_secs(300) {
            for dial in peers.due(now, |_| false) {
                dials += 1;
                peers.on_connected(dial.connection_id(), peer, now);
                peers.on_disconnected(&peer, now, 0);
            }
            now += Duration::from_millis(500);
        }
        assert!((10..=16).contains(&dials), "{dials} dials in five minutes");
    }

    #[test]
    fn our_own_address_is_skipped() {
        let (now, local) = (Instant::now(), PeerId::random());
        let named = format!("/ip4/1.1.1.1/tcp/1/p2p/{local}");
        let mut peers = bootstrap(&[&named, "/ip4/1.1.1.1/tcp/1"], local, now);
        let dials = peers.due(now, |_| false);
        assert_eq!(dials.len(), 1);
        peers.on_self(dials[0].connection_id());
        assert!(peers.entries.is_empty());
    }
}
