//! What this node knows of other nodes: what they claim, and what audits showed.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::hash::Hash;

use super::audits::Begun;
use super::places::place_hash;
use super::shelf::Shelf;
use crate::eras::{Announcement, Era};
use crate::ids::PeerId;

/// For how long a failed audit disproves a claim. A passed one proves a copy only to a node that
/// had withdrawn the era before.
pub const AUDIT_LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Most peers that are known, connected or gone. A node has at most 120 connections. When there is
/// no room, the peer that is gone longest is forgotten.
const PEERS_MAX: usize = 256;
/// Most audited eras of one peer that are remembered. One batch needs 64. The oldest is forgotten.
const AUDITED_MAX: usize = 4_096;
/// A peer that leaves this many audits in a row without an answer is doubted. A single one may hit
/// a busy peer.
const MISSED_MAX: u8 = 3;

/// Another node.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    id: Box<[u8]>,
    group: u64,
    /// When its connection ended; `None` while it is connected.
    left: Option<Duration>,
    said: Announcement,
    /// For each era, whether its place is before ours. Empty until it announces that it is an
    /// archive node. Takes one byte an era.
    is_before: Vec<bool>,
    /// When the last audit of an era began that passed or failed, and whether it passed.
    audited: BTreeMap<Era, (Duration, bool)>,
    /// Number of audits in a row without an answer.
    missed: u8,
    /// An era of which an audit failed, until the peer was asked whether it still claims it.
    accused: Option<Era>,
    /// No claim of it is believed until an audit passes.
    is_doubted: bool,
    /// When announcements are exchanged with it at the latest.
    pub(super) exchange_at: Duration,
}

impl Peer {
    pub(super) const fn is_connected(&self) -> bool {
        self.left.is_none()
    }

    /// Whether it claims to keep an era, and no audit speaks against the claim.
    pub(super) fn is_believed(&self, era: Era) -> bool {
        let is_disproved = matches!(self.audited.get(&era), Some((_, false)));
        !self.is_doubted && !is_disproved && self.said.eras.contains(era)
    }

    /// Whether it is connected, believed, and has passed an audit of the era that began after this
    /// time.
    fn proves(&self, era: Era, after: Duration) -> bool {
        let has_passed = matches!(self.audited.get(&era), Some((at, true)) if *at > after);
        self.is_connected() && has_passed && self.is_believed(era)
    }

    fn record(&mut self, era: Era, begun: Duration, has_passed: bool) {
        self.audited.insert(era, (begun, has_passed));
        if self.audited.len() > AUDITED_MAX
            && let Some((oldest, _)) = self.audited.iter().min_by_key(|(_, (at, _))| *at)
        {
            let oldest = *oldest;
            self.audited.remove(&oldest);
        }
    }
}

/// Copies and places, for each era.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// Believed copies of other nodes, of each address group one. Includes nodes that are gone and
    /// still count.
    pub(super) copies: Vec<usize>,
    /// The same for connected nodes only.
    pub(super) live: Vec<usize>,
    /// This node's place: the number of archive nodes before it.
    pub(super) places: Vec<usize>,
}

/// All known peers. A peer that comes back has a new number and keeps its record.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(BTreeMap<PeerId, Peer>);

impl Peers {
    pub(super) fn on_connected(
        &mut self,
        number: PeerId,
        id: Box<[u8]>,
        group: u64,
        now: Duration,
    ) {
        let earlier = self.0.iter().find(|(_, peer)| peer.id == id).map(|(number, _)| *number);
        let peer = match earlier.and_then(|number| self.0.remove(&number)) {
            Some(peer) => Peer { left: None, group, exchange_at: now, ..peer },
            None => Peer {
                id,
                group,
                left: None,
                said: Announcement::default(),
                is_before: Vec::new(),
                audited: BTreeMap::new(),
                missed: 0,
                accused: None,
                is_doubted: false,
                exchange_at: now,
            },
        };
        if self.0.len() >= PEERS_MAX {
            let longest = self.0.iter().filter(|(_, peer)| !peer.is_connected());
            let longest = longest.min_by_key(|(_, peer)| peer.left).map(|(number, _)| *number);
            let Some(longest) = longest else { return };
            self.0.remove(&longest);
        }
        self.0.insert(number, peer);
    }

    pub(super) fn on_disconnected(&mut self, number: PeerId, now: Duration) {
        if let Some(peer) = self.0.get_mut(&number) {
            peer.left = Some(now);
        }
    }

    /// Takes in what a peer announces. If it still claims, in an answer, an era that it could not
    /// show, it lies.
    pub(super) fn on_announced(&mut self, number: PeerId, said: Announcement, is_answer: bool) {
        let Some(peer) = self.0.get_mut(&number) else { return };
        if is_answer && let Some(era) = peer.accused.take() {
            let is_claimed = said.eras.contains(era);
            peer.is_doubted |= is_claimed;
            if !is_claimed {
                // It did not lie. When it claims the era again, it may have it.
                peer.audited.remove(&era);
            }
        }
        peer.said = said;
    }

    /// An announcement was not answered in time.
    pub(super) fn on_silent(&mut self, number: PeerId) {
        if let Some(peer) = self.0.get_mut(&number) {
            peer.is_doubted |= peer.accused.take().is_some();
        }
    }

    pub(super) fn on_passed(&mut self, Begun { peer, era, at }: Begun) {
        let Some(peer) = self.0.get_mut(&peer) else { return };
        peer.record(era, at, true);
        (peer.missed, peer.is_doubted) = (0, false);
    }

    /// The peer could not show an era. Perhaps it has dropped it meanwhile, so it is asked before
    /// all of its claims are doubted.
    pub(super) fn on_failed(&mut self, Begun { peer, era, at }: Begun, now: Duration) {
        let Some(peer) = self.0.get_mut(&peer) else { return };
        if peer.said.eras.contains(era) {
            peer.record(era, at, false);
            (peer.accused, peer.exchange_at) = (Some(era), now);
        }
    }

    pub(super) fn on_missed(&mut self, number: PeerId) {
        let Some(peer) = self.0.get_mut(&number) else { return };
        peer.missed = peer.missed.saturating_add(1);
        peer.is_doubted |= peer.missed >= MISSED_MAX;
    }

    /// Forgets peers that are gone for long enough, and old audits. Returns whether any peer was
    /// forgotten or any claim is believed again.
    pub(super) fn forget(&mut self, now: Duration, gone_counts: Duration) -> bool {
        let is_over = |since: Duration, lasts| now.saturating_sub(since) >= lasts;
        let known = self.0.len();
        self.0.retain(|_, peer| peer.left.is_none_or(|left| !is_over(left, gone_counts)));
        let mut has_changed = self.0.len() != known;
        for peer in self.0.values_mut() {
            let audits = peer.audited.len();
            peer.audited.retain(|_, (at, _)| !is_over(*at, AUDIT_LASTS));
            has_changed |= peer.audited.len() != audits;
        }
        has_changed
    }

    pub(super) fn connected_mut(&mut self) -> impl Iterator<Item = (PeerId, &mut Peer)> {
        let connected = self.0.iter_mut().filter(|(_, peer)| peer.is_connected());
        connected.map(|(number, peer)| (*number, peer))
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        let connected = self.0.iter().filter(|(_, peer)| peer.is_connected());
        connected.map(|(number, peer)| (*number, peer))
    }

    /// The claim of a connected peer that these two random numbers choose: a peer that claims
    /// anything, and one of its eras below `end`.
    pub(super) fn any_claim(&self, end: Era, lots: [u64; 2]) -> Option<(PeerId, Era)> {
        let claims = |peer: &Peer| peer.said.eras.below(end).count();
        let with_claims: Vec<(PeerId, &Peer)> =
            self.connected().filter(|(_, peer)| claims(peer) > 0).collect();
        let chosen = lots[0].checked_rem(with_claims.len() as u64)?;
        let (number, peer) = with_claims.get(usize::try_from(chosen).ok()?)?;
        let nth = usize::try_from(lots[1].checked_rem(claims(peer) as u64)?).ok()?;
        Some((*number, peer.said.eras.below(end).nth(nth)?))
    }

    /// Of each address group one connected peer that has proved an era in an audit that began after
    /// this time.
    pub(super) fn provers(&self, era: Era, after: Duration) -> BTreeMap<u64, PeerId> {
        let proved = self.connected().filter(|(_, peer)| peer.proves(era, after));
        proved.map(|(number, peer)| (peer.group, number)).collect()
    }

    /// Connected peers that could prove an era if they were audited. Those that left audits without
    /// an answer are the last, and otherwise the order is that of their places. None is in the
    /// group of one of these provers, and no two are in one group.
    pub(super) fn candidates(&self, era: Era, provers: &BTreeMap<u64, PeerId>) -> Vec<PeerId> {
        let open = self
            .connected()
            .filter(|(_, peer)| peer.is_believed(era) && !provers.contains_key(&peer.group));
        let mut open: Vec<(u8, Hash, u64, PeerId)> = open
            .map(|(number, peer)| (peer.missed, place_hash(era, &peer.id), peer.group, number))
            .collect();
        open.sort_unstable();
        let mut groups = Vec::new();
        open.retain(|(.., group, _)| {
            let is_new = !groups.contains(group);
            groups.push(*group);
            is_new
        });
        open.into_iter().map(|(.., number)| number).collect()
    }

    /// Number of connected archive nodes that are before this node for an era and do not have it.
    pub(super) fn before_without(&self, era: Era) -> usize {
        let lacks = |peer: &Peer| {
            let is_before = peer.is_before.get(era.index()).copied().unwrap_or(false);
            peer.said.is_archive && is_before && !peer.is_doubted && !peer.is_believed(era)
        };
        self.connected().filter(|(_, peer)| lacks(peer)).count()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Counts copies and places. Peers of one address group have one copy together.
    pub(super) fn count(&mut self, shelf: &Shelf) -> Counts {
        let end = Era::at(shelf.len());
        let mut places = vec![0usize; shelf.len()];
        for peer in self.0.values_mut().filter(|peer| peer.said.is_archive) {
            for era in (peer.is_before.len()..shelf.len()).map(Era::at) {
                peer.is_before.push(place_hash(era, &peer.id) < shelf.place_hash(era));
            }
            if !peer.is_doubted {
                let before = places.iter_mut().zip(&peer.is_before);
                before.for_each(|(place, is_before)| {
                    *place = place.saturating_add(usize::from(*is_before));
                });
            }
        }
        let mut by_group: Vec<&Peer> = self.0.values().collect();
        by_group.sort_by_key(|peer| peer.group);
        let count = |admits: fn(&Peer) -> bool| {
            let mut counted = vec![(0usize, None); shelf.len()];
            for peer in by_group.iter().filter(|peer| admits(peer)) {
                for era in peer.said.eras.below(end).filter(|era| peer.is_believed(*era)) {
                    if let Some((count, last)) = counted.get_mut(era.index())
                        && *last != Some(peer.group)
                    {
                        (*count, *last) = (count.saturating_add(1), Some(peer.group));
                    }
                }
            }
            counted.into_iter().map(|(count, _)| count).collect()
        };
        Counts { copies: count(|_| true), live: count(Peer::is_connected), places }
    }
}
