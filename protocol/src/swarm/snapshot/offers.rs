//! The snapshots that peers announce, and which of them is tried next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::hash::SnapshotId;
use ledger::snapshot::SnapshotRules;
use ledger::units::Height;

use crate::ids::PeerId;
use crate::swarm::history;

/// How often one snapshot is tried. It is left when it does not grow, and may be tried again after
/// the others.
const TRIES_MAX: u32 = 3;
/// The announcements of a peer are ignored once this many snapshots that it announced were left.
const WRONG_MAX: u32 = 3;
/// Joining fails once this many snapshots were left. A peer with a link costs at most [`WRONG_MAX`]
/// of them.
const LEFT_MAX: u32 = 64;
/// Joining does not fail by [`LEFT_MAX`] before this time. Otherwise a hostile peer that connects
/// again and again could use all of them up before an honest peer is connected.
const LEFT_PATIENCE: Duration = Duration::from_secs(60);

/// A snapshot as a peer announces it. The id depends on the height, so only one height is true. An
/// id with a false height counts as another snapshot, which only its announcers are asked for.
pub(super) type Announced = (Height, SnapshotId);

/// A snapshot that a peer with a link says it has whole, or that is being tried.
#[derive(Debug)]
struct Known {
    /// The peers that say so now.
    holders: BTreeSet<PeerId>,
    /// How often it was tried and did not grow.
    tries: u32,
    /// Its place in the queue: how many tries had ended when it was announced or tried last.
    turn: u64,
}

/// The snapshots that peers announce, and the experience with them.
///
/// They are tried in turn, so what a hostile peer announces later does not come before what is
/// known already.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// Each peer has at most [`SNAPSHOTS_MAX`](crate::swarm::message::SNAPSHOTS_MAX) of them.
    known: BTreeMap<Announced, Known>,
    /// The peers with a link that have said which snapshots they have.
    heard: BTreeSet<PeerId>,
    /// The snapshot that is being tried.
    current: Option<Announced>,
    /// The peers with a link that announced the current snapshot, even if they do not any more.
    announcers: BTreeSet<PeerId>,
    /// For each peer with a link, how many snapshots were left that it announced.
    wrong: BTreeMap<PeerId, u32>,
    /// How many tries have ended.
    turns: u64,
    left: u32,
    /// For each peer with a link, its unanswered requests in a row.
    unanswered: BTreeMap<PeerId, u32>,
}

impl Offers {
    pub(super) fn on_announced(&mut self, peer: PeerId, snapshots: Vec<Announced>) {
        self.heard.insert(peer);
        self.forget(peer);
        if self.wrong(peer) >= WRONG_MAX {
            return self.clean();
        }
        for one in snapshots {
            let new = Known { holders: BTreeSet::new(), tries: 0, turn: self.turns };
            self.known.entry(one).or_insert(new).holders.insert(peer);
            if self.current == Some(one) {
                self.announcers.insert(peer);
            }
        }
        self.clean();
    }

    pub(super) fn on_closed(&mut self, peer: PeerId) {
        self.forget(peer);
        self.clean();
        self.heard.remove(&peer);
        self.announcers.remove(&peer);
        self.wrong.remove(&peer);
        self.unanswered.remove(&peer);
    }

    /// Whether all of these peers, and at least one, have said that they have no snapshot.
    pub(super) fn are_none(&self, peers: impl Iterator<Item = PeerId>) -> bool {
        let mut peers = peers.peekable();
        let is_holder =
            |peer: &PeerId| self.known.values().any(|known| known.holders.contains(peer));
        let has_none = |peer| self.heard.contains(&peer) && !is_holder(&peer);
        peers.peek().is_some() && peers.all(has_none)
    }

    /// The peer announces nothing any more.
    fn forget(&mut self, peer: PeerId) {
        for known in self.known.values_mut() {
            known.holders.remove(&peer);
        }
    }

    /// Forgets what no peer announces.
    fn clean(&mut self) {
        let current = self.current;
        self.known.retain(|one, known| !known.holders.is_empty() || current == Some(*one));
    }

    /// Whether so many snapshots were left that joining fails, this long after it began.
    pub(super) fn is_over(&self, after: Duration) -> bool {
        self.left >= LEFT_MAX && after >= LEFT_PATIENCE
    }

    /// Whether any snapshot was left.
    pub(super) const fn was_any_left(&self) -> bool {
        self.left > 0
    }

    /// Whether a snapshot is not tried any more.
    pub(super) fn is_used_up(&self, snapshot: Announced) -> bool {
        self.tries(snapshot) >= TRIES_MAX
    }

    /// How often a snapshot was tried.
    pub(super) fn tries(&self, snapshot: Announced) -> u32 {
        self.known.get(&snapshot).map_or(0, |known| known.tries)
    }

    /// The peers that announce a snapshot, in order.
    pub(super) fn holders(&self, snapshot: Announced) -> impl Iterator<Item = PeerId> {
        let known = self.known.get(&snapshot).into_iter();
        known.flat_map(|known| known.holders.iter().copied())
    }

    /// The snapshots that may be tried.
    fn open(
        &self,
        history: &history::Kind,
        rules: &SnapshotRules,
    ) -> impl Iterator<Item = (Announced, &Known)> {
        let is_due = |(height, _): Announced| {
            let segment = history.source.manifest().segment_of(height);
            segment.is_some_and(|one| one.last == height && rules.is_candidate(one.index))
        };
        let all = self.known.iter().map(|(one, known)| (*one, known));
        let has_holders = |known: &Known| !known.holders.is_empty();
        all.filter(move |(one, known)| {
            has_holders(known) && known.tries < TRIES_MAX && is_due(*one)
        })
    }

    /// The snapshot to try next: one that has waited longest for its turn; of these one that was
    /// tried least often; of these one whose announcers were wrong least often; of these the
    /// highest one; and of several ids for one height the one that most peers announce.
    ///
    /// Only the machine's own links are counted. It knows neither the subnets of its peers nor
    /// which of them the operator named.
    pub(super) fn best(&self, history: &history::Kind, rules: &SnapshotRules) -> Option<Announced> {
        let best = self.open(history, rules).min_by_key(|(one, known)| {
            let wrong = known.holders.iter().map(|peer| self.wrong(*peer)).min();
            let holders = known.holders.len();
            (known.turn, known.tries, wrong, Reverse(one.0), Reverse(holders), one.1)
        });
        best.map(|(snapshot, _)| snapshot)
    }

    /// Whether another snapshot than this one may be tried.
    pub(super) fn has_other(
        &self,
        snapshot: Announced,
        history: &history::Kind,
        rules: &SnapshotRules,
    ) -> bool {
        self.open(history, rules).any(|(one, _)| one != snapshot)
    }

    /// A snapshot is tried from now on. Whoever announces it now or meanwhile answers for it.
    pub(super) fn on_chosen(&mut self, snapshot: Announced) {
        self.current = Some(snapshot);
        self.announcers = self.holders(snapshot).collect();
        self.clean();
    }

    /// A try of a snapshot has not succeeded. It may go on, if no other snapshot is better now.
    pub(super) fn on_stalled(&mut self, snapshot: Announced) {
        self.turns = self.turns.saturating_add(1);
        if let Some(known) = self.known.get_mut(&snapshot) {
            known.tries = known.tries.saturating_add(1);
            known.turn = self.turns;
        }
    }

    /// The current snapshot is left for another one. All who announced it are trusted less.
    pub(super) fn on_left(&mut self) {
        self.left = self.left.saturating_add(1);
        self.turns = self.turns.saturating_add(1);
        self.current = None;
        for peer in std::mem::take(&mut self.announcers) {
            let wrong = self.wrong.entry(peer).or_default();
            *wrong = wrong.saturating_add(1);
            if *wrong >= WRONG_MAX {
                self.forget(peer);
            }
        }
        self.clean();
    }

    fn wrong(&self, peer: PeerId) -> u32 {
        self.wrong.get(&peer).copied().unwrap_or(0)
    }

    /// The next peer to ask of those that fit: one with the fewest unanswered requests.
    pub(super) fn least_asked(&self, fit: impl Iterator<Item = PeerId>) -> Option<PeerId> {
        fit.min_by_key(|peer| self.unanswered.get(peer).copied().unwrap_or(0))
    }

    pub(super) fn note_asked(&mut self, peer: PeerId) {
        let unanswered = self.unanswered.entry(peer).or_default();
        *unanswered = unanswered.saturating_add(1);
    }

    pub(super) fn note_answered(&mut self, peer: PeerId) {
        self.unanswered.remove(&peer);
    }
}
