//! Named peers: those that the operator configured. While one is not connected, it is dialed again,
//! without end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId};

use super::address::{ip_of, peer_of};
use super::seeds::seed_name;

const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// All bootstrap addresses and when to dial each.
pub(crate) struct Bootstrap {
    entries: Vec<Entry>,
}

struct Entry {
    address: Multiaddr,
    /// The peer's identity, if it is known: from the address, or from the peer's last answer, which
    /// may have come in an earlier run.
    peer: Option<PeerId>,
    /// When it was last dialed.
    last: Option<Instant>,
    /// The dial under way.
    dialing: Option<ConnectionId>,
    /// Dials that failed since the last connection, or since a cut was healed.
    failures: u64,
    /// The earliest time of the next dial.
    next: Instant,
    delay: Duration,
}

impl Bootstrap {
    /// One list may serve all nodes of a network, so our own address may be in it. It is skipped,
    /// and so are [seeds](super::seeds).
    /// `identities` holds the peers that answered in earlier runs at addresses without an identity.
    pub(crate) fn new(
        addresses: &[Multiaddr],
        identities: &BTreeMap<Multiaddr, PeerId>,
        local: PeerId,
        now: Instant,
    ) -> Self {
        let entry = |address: &Multiaddr| Entry {
            address: address.clone(),
            peer: peer_of(address).or_else(|| identities.get(address).copied()),
            last: None,
            dialing: None,
            failures: 0,
            next: now,
            delay: DELAY_MIN,
        };
        Self {
            entries: addresses
                .iter()
                .filter(|address| seed_name(address).is_none())
                .map(entry)
                .filter(|entry| entry.peer != Some(local))
                .collect(),
        }
    }

    /// The identities of the peers, as far as they are known.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.entries.iter().filter_map(|entry| entry.peer)
    }

    /// The dials that are due now, with their addresses. The caller reports how each one ended with
    /// `on_connected`, `on_failed` or `on_self`.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        is_connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<(Multiaddr, DialOpts)> {
        let mut dials = Vec::new();
        for entry in &mut self.entries {
            let connected = entry.peer.as_ref().is_some_and(&is_connected);
            if connected || entry.dialing.is_some() || now < entry.next {
                continue;
            }
            let dial = dial(&entry.address);
            entry.dialing = Some(dial.connection_id());
            entry.last = Some(now);
            dials.push((entry.address.clone(), dial));
        }
        dials
    }

    /// A dial led to a connection. The delay keeps growing until [`Self::on_admitted`] tells that
    /// the peer is on our chain. If a different identity answered at this address before, and no
    /// other entry has that identity, it is returned.
    pub(crate) fn on_connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        now: Instant,
    ) -> Option<PeerId> {
        let entry = self.entries.iter_mut().find(|entry| entry.dialing == Some(connection))?;
        entry.dialing = None;
        entry.failures = 0;
        entry.back_off(now, 0);
        let former = entry.peer.replace(peer).filter(|former| *former != peer)?;
        (!self.peers().any(|other| other == former)).then_some(former)
    }

    /// A peer connected from this address. If a named peer has the same IP address, it may be back
    /// with an identity that we do not know yet. So the named peer is dialed at once, but not twice
    /// within [`DELAY_MIN`].
    pub(crate) fn on_heard(&mut self, from: &Multiaddr, now: Instant) {
        let ip: Option<IpAddr> = ip_of(from);
        for entry in
            self.entries.iter_mut().filter(|entry| ip.is_some() && ip_of(&entry.address) == ip)
        {
            let soonest = entry.last.map_or(now, |last| now.max(last + DELAY_MIN));
            entry.next = entry.next.min(soonest);
        }
    }

    /// A dial failed. `random` spreads the next dials of many nodes that lost the same peer.
    /// Returns the address at the third failure in a row, so that the caller can warn.
    pub(crate) fn on_failed(
        &mut self,
        connection: ConnectionId,
        now: Instant,
        random: u32,
    ) -> Option<&Multiaddr> {
        let entry = self.entries.iter_mut().find(|entry| entry.dialing == Some(connection))?;
        entry.dialing = None;
        entry.failures += 1;
        entry.back_off(now, random);
        (entry.failures == 3).then_some(&entry.address)
    }

    /// A dial reached this node itself. Its address is removed.
    pub(crate) fn on_self(&mut self, connection: ConnectionId) {
        self.entries.retain(|entry| entry.dialing != Some(connection));
    }

    /// The peer turned out to be on our chain. Returns its configured addresses that do not name
    /// its identity.
    pub(crate) fn on_admitted(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut unnamed = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.peer.as_ref() == Some(peer)) {
            entry.delay = DELAY_MIN;
            if peer_of(&entry.address).is_none() {
                unnamed.push(entry.address.clone());
            }
        }
        unnamed
    }

    /// Some peers are no longer cut off. Each of them is dialed at once, and so is each address
    /// whose peer is not known.
    pub(crate) fn on_healed(&mut self, is_healed: impl Fn(&PeerId) -> bool, now: Instant) {
        for entry in self.entries.iter_mut().filter(|it| it.peer.as_ref().is_none_or(&is_healed)) {
            (entry.next, entry.delay, entry.failures) = (now, DELAY_MIN, 0);
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

/// The delay, shortened at random by up to half.
fn jittered(delay: Duration, random: u32) -> Duration {
    delay - delay / 2 * (random % 1000) / 1000
}

/// A dial to one address, from a new port. If two nodes dialed each other from their listening
/// ports at the same moment, TCP would make one connection of both dials. Then both nodes would
/// take the dialer's part on it, and the handshake would fail.
pub(crate) fn dial(address: &Multiaddr) -> DialOpts {
    match peer_of(address) {
        Some(peer) => {
            DialOpts::peer_id(peer).addresses(vec![address.clone()]).allocate_new_port().build()
        }
        None => DialOpts::unknown_peer_id().address(address.clone()).allocate_new_port().build(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bootstrap(addresses: &[&str], local: PeerId, now: Instant) -> Bootstrap {
        let addresses: Vec<Multiaddr> =
            addresses.iter().map(|text| text.parse().unwrap()).collect();
        Bootstrap::new(&addresses, &BTreeMap::new(), local, now)
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
            let told = peers.on_failed(dials[0].1.connection_id(), now, 0);
            assert_eq!(told.is_some(), failure == 3, "told of once: {failure}");
            now += Duration::from_secs(seconds);
            assert!(
                peers.due(now - Duration::from_millis(1), |_| false).is_empty(),
                "after {seconds} s"
            );
        }
        assert_eq!(jittered(DELAY_MAX, 999).as_secs(), 15);
    }

    #[test]
    fn a_connected_peer_is_left_alone_until_it_goes() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut peers = bootstrap(&["/ip4/1.1.1.1/tcp/1"], PeerId::random(), start);
        let dials = peers.due(start, |_| false);
        peers.on_connected(dials[0].1.connection_id(), peer, start);
        peers.on_admitted(&peer);
        let later = start + Duration::from_secs(3600);
        assert!(peers.due(later, |other| *other == peer).is_empty());
        peers.on_disconnected(&peer, later, 0);
        assert!(peers.due(later, |_| false).is_empty());
        assert_eq!(peers.due(later + DELAY_MIN, |_| false).len(), 1);
    }

    /// A node of another chain accepts the connection and is then disconnected. It must not be
    /// dialed every second.
    #[test]
    fn a_peer_that_is_never_admitted_is_dialed_ever_less() {
        let start = Instant::now();
        let mut peers = bootstrap(&["/ip4/1.1.1.1/tcp/1"], PeerId::random(), start);
        let (mut now, peer, mut dials) = (start, PeerId::random(), 0);
        while now < start + Duration::from_secs(300) {
            for (_, dial) in peers.due(now, |_| false) {
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
        peers.on_self(dials[0].1.connection_id());
        assert!(peers.entries.is_empty());
    }

    #[test]
    fn an_identity_is_learned_kept_and_replaced() {
        let (now, old, new) = (Instant::now(), PeerId::random(), PeerId::random());
        let address: Multiaddr = "/ip4/1.1.1.1/tcp/1".parse().unwrap();
        let identities = BTreeMap::from([(address.clone(), old)]);
        let mut peers =
            Bootstrap::new(std::slice::from_ref(&address), &identities, PeerId::random(), now);
        assert!(peers.peers().eq([old]));
        assert!(peers.due(now, |peer| *peer == old).is_empty(), "it is connected");
        let dials = peers.due(now, |_| false);
        assert_eq!(peers.on_connected(dials[0].1.connection_id(), new, now), Some(old));
        assert_eq!(peers.on_admitted(&new), [address]);
        assert!(peers.on_admitted(&old).is_empty());
        assert!(peers.peers().eq([new]));
    }

    #[test]
    fn a_peer_that_shows_itself_is_dialed_at_once() {
        let start = Instant::now();
        let mut peers = bootstrap(&["/ip4/1.1.1.1/tcp/1"], PeerId::random(), start);
        let mut now = start;
        for _ in 0..8 {
            let dials = peers.due(now, |_| false);
            peers.on_failed(dials[0].1.connection_id(), now, 0);
            now += DELAY_MAX;
        }
        let dials = peers.due(now, |_| false);
        peers.on_failed(dials[0].1.connection_id(), now, 0);
        peers.on_heard(&"/ip4/1.1.1.2/tcp/9".parse().unwrap(), now);
        assert!(peers.due(now + DELAY_MIN, |_| false).is_empty());
        peers.on_heard(&"/ip4/1.1.1.1/tcp/9".parse().unwrap(), now);
        assert!(peers.due(now, |_| false).is_empty(), "not twice within a second");
        assert_eq!(peers.due(now + DELAY_MIN, |_| false).len(), 1);
    }

    #[test]
    fn a_healed_peer_is_dialed_at_once() {
        let start = Instant::now();
        let (healed, other) = (PeerId::random(), PeerId::random());
        let named = [healed, other].map(|peer| format!("/ip4/1.1.1.1/tcp/1/p2p/{peer}"));
        let addresses = [&*named[0], &*named[1], "/ip4/1.1.1.2/tcp/1"];
        let mut peers = bootstrap(&addresses, PeerId::random(), start);
        let mut now = start;
        for _ in 0..8 {
            now += DELAY_MAX;
            for (_, dial) in peers.due(now, |_| false) {
                peers.on_failed(dial.connection_id(), now, 0);
            }
        }
        assert!(peers.due(now + DELAY_MAX / 2, |_| false).is_empty());
        peers.on_healed(|peer| *peer == healed, now);
        let dials: Vec<String> =
            peers.due(now, |_| false).iter().map(|(address, _)| address.to_string()).collect();
        assert_eq!(dials, [&*named[0], "/ip4/1.1.1.2/tcp/1"], "who is unknown may be healed");
    }
}
