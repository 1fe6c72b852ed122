//! What this node knows of other nodes: what they claim, and what audits showed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ledger::hash::Hash;

use super::audits::Begun;
use super::input::Audit;
use super::places::place_hash;
use super::shelf::Shelf;
use crate::eras::{Announcement, Era, EraRanges};
use crate::ids::{PeerId, RequestId};

/// For how long a failed audit disproves a claim. A passed one proves a copy only to a node that
/// had withdrawn the era before.
pub const AUDIT_LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Most peers that are known, connected or gone. A node has at most 120 connections. When there is
/// no room, the peer that is gone longest is forgotten.
const PEERS_MAX: usize = 256;
/// Most audited eras of one peer that are remembered. One batch needs 64. The oldest is forgotten.
const AUDITED_MAX: usize = 4_096;
/// A peer that passes none of this many audits in a row is doubted. A single one may hit a peer in
/// trouble.
const MISSED_MAX: u8 = 3;
/// Of the audits without an answer within this time one counts, so that a short trouble of the
/// peer, or of this node, counts once.
const MISSED_EVERY: Duration = Duration::from_secs(30);
/// The same for audits that a busy peer refused, since a crowd can keep it busy, and for failed
/// ones that were chosen at random. Honest peers fail others, when they try to drop the same eras
/// as this node.
const REFUSED_EVERY: Duration = Duration::from_secs(600);

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
    /// Number of audits in a row that it did not pass and that count.
    missed: u8,
    /// When the last of them counted.
    missed_at: Duration,
    /// An era that it could not show.
    accused: Option<Accusation>,
    /// No claim of it is believed until an audit passes.
    is_doubted: bool,
    /// When announcements are exchanged with it at the latest.
    pub(super) exchange_at: Duration,
}

/// An era that a peer claims and could not show. It may have withdrawn the era for a moment. So it
/// is asked what it keeps, and if it still claims the era, it is audited once more.
#[derive(Clone, Copy, Debug)]
struct Accusation {
    era: Era,
    /// The last number of a request when the audit failed. Only the answer to a later question says
    /// what the peer keeps now.
    after: RequestId,
    /// It claimed the era again, and is audited again.
    is_repeated: bool,
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

    /// It did not pass an audit. Of such audits one counts in this time.
    fn miss(&mut self, every: Duration, now: Duration) {
        if self.missed > 0 && now.saturating_sub(self.missed_at) < every {
            return;
        }
        (self.missed, self.missed_at) = (self.missed.saturating_add(1), now);
        self.is_doubted |= self.missed >= MISSED_MAX;
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
                missed_at: Duration::ZERO,
                accused: None,
                // Another identity costs nothing.
                is_doubted: self.0.values().any(|peer| peer.group == group && peer.is_doubted),
                exchange_at: now,
            },
        };
        if self.0.len() >= PEERS_MAX {
            let Some(least) = self.least() else { return };
            self.0.remove(&least);
        }
        self.0.insert(number, peer);
    }

    /// The peer that is forgotten first when there is no room: of the address group with the most
    /// peers that are gone, the one that is gone longest. So one group cannot make the others be
    /// forgotten.
    fn least(&self) -> Option<PeerId> {
        let gone = || self.0.iter().filter(|(_, peer)| !peer.is_connected());
        let mut of_group = BTreeMap::<u64, usize>::new();
        for (_, peer) in gone() {
            let count = of_group.entry(peer.group).or_default();
            *count = count.saturating_add(1);
        }
        let least = gone().max_by_key(|(_, peer)| (of_group.get(&peer.group), Reverse(peer.left)));
        least.map(|(number, _)| *number)
    }

    /// A peer that has claimed nothing and was not caught is forgotten at once.
    pub(super) fn on_disconnected(&mut self, number: PeerId, now: Duration) {
        let Some(peer) = self.0.get_mut(&number) else { return };
        (peer.left, peer.accused) = (Some(now), None);
        if !peer.is_doubted && peer.audited.is_empty() && peer.said.eras == EraRanges::default() {
            self.0.remove(&number);
        }
    }

    /// Takes in what a peer announces. `answers` is the question that it answers. Returns an era
    /// that it could not show and claims again: it is to be audited once more.
    pub(super) fn on_announced(
        &mut self,
        number: PeerId,
        said: Announcement,
        answers: Option<RequestId>,
    ) -> Option<Era> {
        let peer = self.0.get_mut(&number)?;
        peer.said = said;
        // What it does not claim any more was no lie. When it claims the era again, it may have it.
        peer.audited.retain(|era, (_, has_passed)| *has_passed || peer.said.eras.contains(*era));
        peer.accused.take_if(|accused| !peer.said.eras.contains(accused.era));
        let accused = peer.accused.as_mut().filter(|accused| !accused.is_repeated)?;
        answers.filter(|answers| *answers > accused.after)?;
        accused.is_repeated = true;
        Some(accused.era)
    }

    /// A question what it keeps was not answered in time.
    pub(super) fn on_silent(&mut self, number: PeerId, question: RequestId) {
        if let Some(peer) = self.0.get_mut(&number)
            && peer.accused.take_if(|accused| question > accused.after).is_some()
        {
            peer.is_doubted = true;
        }
    }

    pub(super) fn on_passed(&mut self, Begun { peer, era, at, .. }: Begun) {
        let Some(peer) = self.0.get_mut(&peer) else { return };
        peer.record(era, at, true);
        peer.accused.take_if(|accused| accused.era == era);
        (peer.missed, peer.is_doubted) = (0, false);
    }

    /// The peer could not show an era. `last` is the last number of a request.
    pub(super) fn on_failed(&mut self, begun: Begun, last: RequestId, now: Duration) {
        let Begun { peer, era, at, is_random, .. } = begun;
        let Some(peer) = self.0.get_mut(&peer).filter(|peer| peer.said.eras.contains(era)) else {
            return;
        };
        peer.record(era, at, false);
        if is_random {
            peer.miss(REFUSED_EVERY, now);
        }
        match peer.accused {
            None => {
                peer.accused = Some(Accusation { era, after: last, is_repeated: false });
                peer.exchange_at = now;
            }
            Some(accused) if accused.is_repeated && accused.era == era => {
                (peer.accused, peer.is_doubted) = (None, true);
            }
            Some(_) => {}
        }
    }

    /// An audit has no answer.
    pub(super) fn on_missed(&mut self, begun: Begun, now: Duration) {
        let Some(peer) = self.0.get_mut(&begun.peer) else { return };
        peer.accused.take_if(|accused| accused.is_repeated && accused.era == begun.era);
        peer.miss(if begun.ended == Some(Audit::Busy) { REFUSED_EVERY } else { MISSED_EVERY }, now);
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

    /// The eras below `end` that a peer claims and that are believed.
    pub(super) fn believed(&self, number: PeerId, end: Era) -> EraRanges {
        let peer = self.0.get(&number);
        let claims = peer.into_iter().flat_map(|peer| {
            let claims = peer.said.eras.below(end);
            claims.filter(|era| peer.is_believed(*era))
        });
        EraRanges::of(claims)
    }

    /// The claim of a connected peer that these two random numbers choose: a peer that claims
    /// anything and is doubted or not, and one of its eras below `end`.
    pub(super) fn any_claim(
        &self,
        end: Era,
        is_doubted: bool,
        lots: [u64; 2],
    ) -> Option<(PeerId, Era)> {
        let claims = |peer: &Peer| peer.said.eras.below(end).count();
        let open = self.connected().filter(|(_, peer)| peer.is_doubted == is_doubted);
        let open: Vec<(PeerId, &Peer)> = open.filter(|(_, peer)| claims(peer) > 0).collect();
        let chosen = lots[0].checked_rem(open.len() as u64)?;
        let (number, peer) = open.get(usize::try_from(chosen).ok()?)?;
        let nth = usize::try_from(lots[1].checked_rem(claims(peer) as u64)?).ok()?;
        Some((*number, peer.said.eras.below(end).nth(nth)?))
    }

    /// Whether a connected peer claims an era, is believed, and passed its last audit.
    pub(super) fn has_sound_claim(&self, era: Era) -> bool {
        self.connected().any(|(_, peer)| peer.missed == 0 && peer.is_believed(era))
    }

    /// Of each address group one connected peer that has proved an era in an audit that began after
    /// this time.
    pub(super) fn provers(&self, era: Era, after: Duration) -> BTreeMap<u64, PeerId> {
        let proved = self.connected().filter(|(_, peer)| peer.proves(era, after));
        proved.map(|(number, peer)| (peer.group, number)).collect()
    }

    /// Whether a connected peer has proved an era in an audit that began after this time.
    pub(super) fn is_shown(&self, era: Era, after: Duration) -> bool {
        self.connected().any(|(_, peer)| peer.proves(era, after))
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

    /// Number of address groups of connected archive nodes that are before this node for an era and
    /// do not have it.
    pub(super) fn before_without(&self, era: Era) -> usize {
        let lacks = |peer: &Peer| {
            let is_before = peer.is_before.get(era.index()).copied().unwrap_or(false);
            peer.said.is_archive && is_before && !peer.is_doubted && !peer.is_believed(era)
        };
        let groups = self.connected().filter(|(_, peer)| lacks(peer)).map(|(_, peer)| peer.group);
        groups.collect::<BTreeSet<_>>().len()
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
