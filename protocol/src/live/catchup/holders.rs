//! Which peers may have the next blocks, and which of them is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::units::Height;

use crate::ids::PeerId;
use crate::lots::Lots;

/// A peer is not asked for this time after a failed request. The time doubles with each failure in
/// a row. It is short, since an honest peer may just not have the block yet.
const REST: Duration = Duration::from_millis(500);
/// Longest time for which a peer is not asked, so that a node with a single peer asks it again.
const REST_MAX: Duration = Duration::from_secs(30);

/// One connected peer.
#[derive(Clone, Copy, Debug, Default)]
struct Holder {
    /// The highest block that the peer claims to have.
    claim: Height,
    has_answered: bool,
    /// Failed requests in a row.
    failures: u32,
    rests_until: Duration,
}

/// All connected peers.
#[derive(Debug)]
pub(super) struct Holders {
    lots: Lots,
    peers: BTreeMap<PeerId, Holder>,
}

impl Holders {
    pub(super) const fn new(seed: u64) -> Self {
        Self { lots: Lots::new(seed), peers: BTreeMap::new() }
    }

    pub(super) fn on_connected(&mut self, peer: PeerId) {
        self.peers.entry(peer).or_default();
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// A higher claim ends a peer's rest, since the peer may have just got the block.
    pub(super) fn on_claim(&mut self, peer: PeerId, height: Height) {
        if let Some(holder) = self.peers.get_mut(&peer)
            && height > holder.claim
        {
            holder.claim = height;
            holder.rests_until = Duration::ZERO;
        }
    }

    pub(super) fn on_answer(&mut self, peer: PeerId) {
        if let Some(holder) = self.peers.get_mut(&peer) {
            *holder =
                Holder { has_answered: true, failures: 0, rests_until: Duration::ZERO, ..*holder };
        }
    }

    pub(super) fn on_failure(&mut self, peer: PeerId, now: Duration) {
        if let Some(holder) = self.peers.get_mut(&peer) {
            let rest = REST
                .saturating_mul(1u32.checked_shl(holder.failures).unwrap_or(u32::MAX))
                .min(REST_MAX);
            holder.failures = holder.failures.saturating_add(1);
            holder.rests_until = now.saturating_add(rest);
            holder.has_answered = false;
        }
    }

    pub(super) fn has_answered(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|holder| holder.has_answered)
    }

    pub(super) fn claim(&self, peer: PeerId) -> Height {
        self.peers.get(&peer).map(|holder| holder.claim).unwrap_or_default()
    }

    /// The highest claim among peers whose last request did not fail.
    pub(super) fn best(&self) -> Height {
        let kept = self.peers.values().filter(|holder| holder.failures == 0);
        kept.map(|holder| holder.claim).max().unwrap_or_default()
    }

    pub(super) fn claims(&self) -> BTreeMap<PeerId, Height> {
        let claims = self.peers.iter().filter(|(_, holder)| holder.claim > Height(0));
        claims.map(|(peer, holder)| (*peer, holder.claim)).collect()
    }

    /// When the next resting peer may be asked again.
    pub(super) fn next_rested(&self, now: Duration) -> Option<Duration> {
        self.peers.values().map(|holder| holder.rests_until).filter(|at| *at > now).min()
    }

    /// The peer to ask for the blocks from this height on. Peers that claim to have the block of
    /// this height go first. Among these the least busy go first, then peers that answered their
    /// last request. A peer without the claim is asked only if no other is left: it may have got
    /// the block meanwhile. `busy` is a peer's number of requests in flight; `None` excludes the
    /// peer.
    ///
    /// Between equal peers the choice is random, since peers could influence any other order: the
    /// first to connect, the lowest number, the fastest answer.
    pub(super) fn choose(
        &mut self,
        from: Height,
        now: Duration,
        busy: impl Fn(&PeerId) -> Option<usize>,
    ) -> Option<PeerId> {
        let lots = &mut self.lots;
        let rested = self.peers.iter().filter(|(_, holder)| holder.rests_until <= now);
        let ranked = rested.filter_map(|(peer, holder)| {
            let rank = (holder.claim < from, busy(peer)?, !holder.has_answered, lots.draw());
            Some((rank, *peer))
        });
        ranked.min().map(|(_, peer)| peer)
    }
}
