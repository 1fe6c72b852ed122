//! The snapshots that peers announce, and which of them is tried next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ledger::hash::SnapshotId;
use ledger::snapshot::SnapshotRules;
use ledger::units::Height;

use crate::ids::PeerId;
use crate::swarm::history;

/// How often one snapshot is tried. It is left when it does not grow, and may be tried again when
/// no other one is left.
const TRIES_MAX: u32 = 3;
/// How many snapshots are left, until joining fails. Each one costs its announcers their rank, so
/// only many peers that work together get so far.
const LEFT_MAX: u32 = 64;

/// A snapshot as a peer announces it. The id depends on the height, so only one height is true. A
/// peer that announces a false one is asked for it alone.
pub(super) type Announced = (Height, SnapshotId);

/// The snapshots that peers announce, and the experience with them.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// What each peer with a link says that it has whole. At most
    /// [`SNAPSHOTS_MAX`](crate::swarm::message::SNAPSHOTS_MAX) each.
    announced: BTreeMap<PeerId, BTreeSet<Announced>>,
    /// For each snapshot that was left, how often.
    tries: BTreeMap<Announced, u32>,
    /// For each peer with a link, how many snapshots were left that it announced.
    left_of: BTreeMap<PeerId, u32>,
    left: u32,
    /// For each peer with a link, its unanswered requests in a row.
    unanswered: BTreeMap<PeerId, u32>,
}

impl Offers {
    pub(super) fn on_announced(&mut self, peer: PeerId, snapshots: Vec<Announced>) {
        self.announced.insert(peer, snapshots.into_iter().collect());
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.announced.remove(&peer);
        self.left_of.remove(&peer);
        self.unanswered.remove(&peer);
    }

    /// Whether all of these peers, and at least one, have said that they have no snapshot.
    pub(super) fn are_none(&self, peers: impl Iterator<Item = PeerId>) -> bool {
        let mut peers = peers.peekable();
        let has_none = |peer| self.announced.get(&peer).is_some_and(BTreeSet::is_empty);
        peers.peek().is_some() && peers.all(has_none)
    }

    /// Whether so many snapshots were left that joining fails.
    pub(super) const fn is_over(&self) -> bool {
        self.left >= LEFT_MAX
    }

    /// Whether any snapshot was left.
    pub(super) const fn was_any_left(&self) -> bool {
        self.left > 0
    }

    /// Whether a snapshot is not tried any more.
    pub(super) fn is_used_up(&self, snapshot: Announced) -> bool {
        self.tries(snapshot) >= TRIES_MAX
    }

    fn tries(&self, snapshot: Announced) -> u32 {
        self.tries.get(&snapshot).copied().unwrap_or(0)
    }

    /// The peers that announce a snapshot, in order.
    pub(super) fn holders(&self, snapshot: Announced) -> impl Iterator<Item = PeerId> {
        let announced = self.announced.iter();
        announced.filter(move |(_, all)| all.contains(&snapshot)).map(|(peer, _)| *peer)
    }

    /// The snapshot to try next: one that was left least often; of these one whose announcers were
    /// wrong least often; of these the highest one; and of several ids for one height the one that
    /// most peers announce.
    ///
    /// Only the machine's own links are counted. It knows neither the subnets of its peers nor
    /// which of them the operator named.
    pub(super) fn best(&self, history: &history::Kind, rules: &SnapshotRules) -> Option<Announced> {
        // For each snapshot, the number of its holders, and how often the best of them was wrong.
        let mut all: BTreeMap<Announced, (u32, u32)> = BTreeMap::new();
        for (peer, announced) in &self.announced {
            let wrong = self.left_of.get(peer).copied().unwrap_or(0);
            for one in announced {
                let (holders, least_wrong) = all.entry(*one).or_insert((0, u32::MAX));
                *holders = holders.saturating_add(1);
                *least_wrong = wrong.min(*least_wrong);
            }
        }
        let is_due = |(height, _): Announced| {
            let segment = history.source.manifest().segment_of(height);
            segment.is_some_and(|one| one.last == height && rules.is_candidate(one.index))
        };
        let open = all.into_iter().filter(|(one, _)| !self.is_used_up(*one) && is_due(*one));
        let best = open.min_by_key(|(one, (holders, wrong))| {
            (self.tries(*one), *wrong, Reverse(one.0), Reverse(*holders), one.1)
        });
        best.map(|(snapshot, _)| snapshot)
    }

    /// A try of a snapshot has not succeeded. It may go on, if no other snapshot is better now.
    pub(super) fn on_stalled(&mut self, snapshot: Announced) {
        let tries = self.tries.entry(snapshot).or_default();
        *tries = tries.saturating_add(1);
    }

    /// A snapshot is left for another one.
    pub(super) fn on_left(&mut self, snapshot: Announced) {
        self.left = self.left.saturating_add(1);
        for peer in self.holders(snapshot).collect::<Vec<_>>() {
            let left = self.left_of.entry(peer).or_default();
            *left = left.saturating_add(1);
        }
    }

    /// The next peer to ask of those that fit: one with the fewest unanswered requests.
    pub(super) fn least_asked(&self, fit: impl Iterator<Item = PeerId>) -> Option<PeerId> {
        fit.min_by_key(|peer| self.unanswered(*peer))
    }

    fn unanswered(&self, peer: PeerId) -> u32 {
        self.unanswered.get(&peer).copied().unwrap_or(0)
    }

    /// Whether one of these peers has no unanswered request.
    pub(super) fn is_any_fresh(&self, mut peers: impl Iterator<Item = PeerId>) -> bool {
        peers.any(|peer| self.unanswered(peer) == 0)
    }

    pub(super) fn note_asked(&mut self, peer: PeerId) {
        let unanswered = self.unanswered.entry(peer).or_default();
        *unanswered = unanswered.saturating_add(1);
    }

    pub(super) fn note_answered(&mut self, peer: PeerId) {
        self.unanswered.remove(&peer);
    }
}
