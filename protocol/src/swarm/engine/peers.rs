//! What peers say of collections and chunks.
//!
//! A message of a peer that has used up its budget is dropped, and it may be an `Open` or a
//! `Close`. So a number that stands for no collection, or for another one than before, is no
//! offence.

use std::collections::BTreeSet;
use std::time::Duration;

use super::collections::has;
use super::{Engine, Their};
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::swarm::census::Absurd;
use crate::swarm::message::{
    COLLECTIONS_MAX, ChunkId, CollectionId, CollectionNumber, Holdings, SegmentId, SyncMessage,
    Update,
};
use crate::swarm::ranges::SegmentRange;
use crate::swarm::segments::OPEN_SEGMENTS_MAX;
use crate::swarm::uploads::Misuse;

impl Engine {
    /// A peer opens a collection. If it is open here too, the peer hears what is here of it.
    pub(in crate::swarm) fn on_open(
        &mut self,
        from: PeerId,
        number: CollectionNumber,
        id: CollectionId,
    ) {
        let ours = self.collections.iter().find(|(_, collection)| collection.id == id);
        let ours = ours.map(|(number, _)| *number);
        let now = self.now;
        let Some(link) = self.links.get_mut(&from) else { return };
        if !link.may_describe(now) {
            return;
        }
        let is_former =
            |(known, their): (&CollectionNumber, &Their)| *known == number || their.id == id;
        let former = link.theirs.iter().filter(|known| is_former(*known));
        let former: Vec<CollectionNumber> = former.map(|(known, _)| *known).collect();
        former.into_iter().for_each(|known| self.on_close(from, known));
        let Some(link) = self.links.get_mut(&from) else { return };
        if link.theirs.len() >= COLLECTIONS_MAX {
            return;
        }
        link.theirs.insert(number, Their { id, ours, is_sated: false });
        if let Some(ours) = ours {
            if self.collection(ours).is_some_and(|collection| !collection.is_announced) {
                self.send(from, &SyncMessage::Open(ours, id));
            }
            self.send_holdings(from, ours);
        }
    }

    /// A peer closes a collection.
    pub(in crate::swarm) fn on_close(&mut self, from: PeerId, number: CollectionNumber) {
        let Some(link) = self.links.get_mut(&from) else { return };
        let Some(ours) = link.theirs.remove(&number).and_then(|their| their.ours) else { return };
        link.have.retain(|id| id.segment.collection != ours);
        self.census.forget_collection(from, ours);
        self.downloads.on_less(from, &self.census);
        self.uploads.forget_collection(from, ours);
    }

    pub(in crate::swarm) fn on_holdings(
        &mut self,
        from: PeerId,
        number: CollectionNumber,
        holdings: Holdings,
    ) {
        let Some((ours, chunks_max)) = self.known(from, number) else { return };
        let now = self.now;
        let Some(link) = self.links.get_mut(&from) else { return };
        if !link.may_describe(now) {
            return;
        }
        // The peer's chunks are requested at once, not in the next batch.
        self.urgent.insert(from);
        let result = self.census.on_holdings(from, ours, holdings, chunks_max);
        self.downloads.on_less(from, &self.census);
        self.on_census(from, result);
    }

    pub(in crate::swarm) fn on_held(
        &mut self,
        from: PeerId,
        number: CollectionNumber,
        range: SegmentRange,
    ) {
        let Some((ours, _)) = self.known(from, number) else { return };
        if range.first > range.last {
            return self.ban(from, Offence::AbsurdHoldings);
        }
        self.census.on_held(from, ours, range);
        self.uploads.on_held(from, ours.segment(range.first)..=ours.segment(range.last));
        self.unfilled.insert(from);
    }

    /// A peer has no chunk of a segment. At the next review others are asked for what it was asked
    /// for. Returns the segment by our number.
    pub(in crate::swarm) fn on_not_kept(
        &mut self,
        from: PeerId,
        segment: SegmentId,
    ) -> Option<SegmentId> {
        let (ours, _) = self.known(from, segment.collection)?;
        let segment = ours.segment(segment.index);
        self.census.on_not_kept(from, segment);
        self.downloads.on_less(from, &self.census);
        // It may want again what it was sent.
        self.uploads.on_held(from, segment..=segment);
        Some(segment)
    }

    pub(in crate::swarm) fn on_busy(&mut self, from: PeerId, milliseconds: u32) {
        let wait = Duration::from_millis(u64::from(milliseconds.min(60_000)));
        // Other peers take over its requests at the next review.
        self.downloads.on_busy(from, self.now.saturating_add(wait));
    }

    pub(in crate::swarm) fn on_update(&mut self, from: PeerId, mut update: Update) {
        self.rename(from, &mut update);
        let (collections, segments) = (&self.collections, self.downloads.segments());
        let has = |id: ChunkId| has(collections, segments, id);
        match self.uploads.on_update(from, &update, has, self.now) {
            Ok(()) => {}
            Err(Misuse::Wants) => return self.ban(from, Offence::TooManyWants),
            Err(Misuse::Received) => return self.ban(from, Offence::FalseReceipt),
        }
        let wanted = update.add.iter().map(|id| id.segment);
        let not_kept: BTreeSet<SegmentId> =
            wanted.filter(|segment| !self.has_any(*segment)).collect();
        for segment in not_kept.into_iter().take(OPEN_SEGMENTS_MAX) {
            self.send(from, &SyncMessage::NotKept(segment));
        }
        for id in &update.have {
            let chunks_max = self.chunks_max(id.segment.collection);
            if let Err(absurd) = self.census.on_have(from, *id, chunks_max) {
                return self.on_census(from, Err(absurd));
            }
            self.uploads.on_have(from, *id, self.now);
            self.unfilled.extend(self.downloads.on_have(from, *id, &self.census));
        }
    }

    /// Our number for a collection of a peer, and most chunks of its segments. `None` if one of the
    /// two does not have it open.
    fn known(&self, from: PeerId, number: CollectionNumber) -> Option<(CollectionNumber, u32)> {
        let ours = self.ours(from, number)?;
        Some((ours, self.chunks_max(ours)))
    }

    /// Our number for a collection of a peer, if both have it open.
    pub(in crate::swarm) fn ours(
        &self,
        from: PeerId,
        number: CollectionNumber,
    ) -> Option<CollectionNumber> {
        self.links.get(&from)?.theirs.get(&number)?.ours
    }

    /// Puts our numbers in place of the peer's, and drops what is of collections that one of the
    /// two does not have open.
    fn rename(&self, from: PeerId, update: &mut Update) {
        let Some(link) = self.links.get(&from) else { return };
        for ids in [&mut update.have, &mut update.add, &mut update.remove] {
            ids.retain_mut(|id| {
                let their = link.theirs.get(&id.segment.collection);
                let Some(ours) = their.and_then(|their| their.ours) else { return false };
                id.segment.collection = ours;
                true
            });
        }
    }

    fn on_census(&mut self, from: PeerId, result: Result<(), Absurd>) {
        match result {
            Ok(()) => drop(self.unfilled.insert(from)),
            Err(Absurd) => self.ban(from, Offence::AbsurdHoldings),
        }
    }
}
