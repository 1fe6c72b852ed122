//! The collections of this node: opened, closed, paused, and what is here of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::ids::PeerId;
use crate::swarm::classes::Class;
use crate::swarm::message::{
    COLLECTIONS_MAX, ChunkId, CollectionId, CollectionNumber, Holdings, SegmentId, SyncMessage,
};
use crate::swarm::ranges::{SegmentRange, SegmentRanges};
use crate::swarm::segments::{OPEN_SEGMENTS_MAX, Segments};

/// How long nothing of a collection is asked for after the disk refused one of its chunks. A full
/// disk stays full for a while, and each further attempt costs peers a chunk for nothing.
const PAUSE: Duration = Duration::from_secs(10);

/// A collection that this node has open.
#[derive(Debug)]
pub(in crate::swarm) struct Collection {
    pub(in crate::swarm) id: CollectionId,
    pub(in crate::swarm) class: Class,
    /// Most bytes of a chunk.
    pub(in crate::swarm) chunk_bytes: u64,
    /// Most chunks that one of its segments can have.
    pub(in crate::swarm) chunks_max: u32,
    /// The segments that are in their place here, with all chunks.
    pub(in crate::swarm) whole: SegmentRanges,
    /// Whether every peer hears that it is open here. Otherwise only those hear it that have
    /// opened it.
    pub(in crate::swarm) is_announced: bool,
    /// Until when nothing of it is asked for, since the disk refused a chunk.
    pub(in crate::swarm) paused_until: Option<Duration>,
}

impl Engine {
    /// Opens a collection, and tells all peers, or those that have it open. These hear what is here
    /// of it.
    ///
    /// Numbers go upwards and begin again at their end. So the number of a closed collection is not
    /// used again soon, and a chunk of it that arrives late is not taken for one of another
    /// collection.
    pub(in crate::swarm) fn open(&mut self, collection: Collection) -> CollectionNumber {
        assert!(self.collections.len() < COLLECTIONS_MAX, "more collections than a link has");
        while self.collections.contains_key(&self.next_number) {
            self.next_number = self.next_number.next();
        }
        let number = self.next_number;
        self.next_number = number.next();
        let Collection { id, class, chunk_bytes, is_announced, .. } = collection;
        self.downloads.open(number, class);
        self.uploads.open(number, class, chunk_bytes, self.now);
        self.collections.insert(number, collection);
        self.measure_chunks();
        for link in self.links.values_mut() {
            let theirs = link.theirs.values_mut().filter(|their| their.id == id);
            theirs.for_each(|their| their.ours = Some(number));
        }
        match is_announced {
            true => self.send_all(&SyncMessage::Open(number, id)),
            false => self.send_knowing(number, &SyncMessage::Open(number, id)),
        }
        self.send_holdings_to_all(number);
        number
    }

    /// From now on every peer hears that a collection is open here, or only those that open it.
    pub(in crate::swarm) fn set_announced(&mut self, number: CollectionNumber, is_announced: bool) {
        let Some(collection) = self.collections.get_mut(&number) else { return };
        let was_announced = std::mem::replace(&mut collection.is_announced, is_announced);
        if is_announced && !was_announced {
            self.open_again(number);
        }
    }

    /// Whether any peer has a collection of this node open too and does not claim all of its
    /// `segments`, so that it may want something of it.
    pub(in crate::swarm) fn needs_holders(&self, number: CollectionNumber, segments: u64) -> bool {
        let using = self.links.iter().filter(|(_, link)| link.number(number).is_some());
        let mut held = using.map(|(peer, _)| {
            self.census.get(*peer).map_or(0, |holder| holder.whole_segments(number))
        });
        held.any(|held| held < segments)
    }

    /// Tells the peers that do not have a collection open that it is open here, again: the first
    /// message may have been dropped.
    pub(in crate::swarm) fn open_again(&mut self, number: CollectionNumber) {
        let Some(collection) = self.collections.get(&number) else { return };
        let message = SyncMessage::Open(number, collection.id);
        let others = self.links.iter().filter(|(_, link)| link.number(number).is_none());
        let others: Vec<PeerId> = others.map(|(peer, _)| *peer).collect();
        others.into_iter().for_each(|peer| self.send(peer, &message));
    }

    /// The collections that peers ask for: they have them open and this node has not. Some come
    /// several times.
    pub(in crate::swarm) fn asked(&self) -> impl Iterator<Item = CollectionId> {
        let all = self.links.values().flat_map(|link| link.theirs.values());
        all.filter(|their| their.ours.is_none() && !their.is_sated).map(|their| their.id)
    }

    /// A collection is about to be closed. Peers that claim all of its `segments` do not ask for it
    /// by having it open. Otherwise two nodes that both have all would open it for each other again
    /// and again.
    pub(in crate::swarm) fn note_sated(&mut self, number: CollectionNumber, segments: u64) {
        for (peer, link) in &mut self.links {
            let holder = self.census.get(*peer);
            let held = holder.map_or(0, |holder| holder.whole_segments(number));
            let theirs = link.theirs.values_mut().filter(|their| their.ours == Some(number));
            theirs.for_each(|their| their.is_sated = held >= segments);
        }
    }

    /// Closes a collection, and tells all peers. Nothing of it is asked for or sent any more.
    /// Returns what it was.
    pub(in crate::swarm) fn close(&mut self, number: CollectionNumber) -> Option<Collection> {
        let collection = self.collections.remove(&number)?;
        self.downloads.close(number);
        self.uploads.close(number);
        self.measure_chunks();
        for (peer, link) in &mut self.links {
            link.have.retain(|id| id.segment.collection != number);
            let theirs = link.theirs.values_mut().filter(|their| their.ours == Some(number));
            theirs.for_each(|their| their.ours = None);
            self.census.forget_collection(*peer, number);
        }
        self.send_all(&SyncMessage::Close(number));
        Some(collection)
    }

    pub(super) fn measure_chunks(&mut self) {
        let all = self.collections.values().map(|collection| collection.chunk_bytes);
        let most = all.max().unwrap_or(1);
        self.downloads.set_chunk_bytes(most);
        self.uploads.set_chunk_bytes(most);
    }

    /// A collection that this node has open.
    pub(in crate::swarm) fn collection(&self, number: CollectionNumber) -> Option<&Collection> {
        self.collections.get(&number)
    }

    /// Most chunks of a segment of a collection, and 0 if the collection is not open.
    pub(super) fn chunks_max(&self, number: CollectionNumber) -> u32 {
        self.collection(number).map_or(0, |collection| collection.chunks_max)
    }

    /// A collection has these segments in their place now, with all chunks.
    pub(in crate::swarm) fn on_whole(&mut self, number: CollectionNumber, range: SegmentRange) {
        let Some(collection) = self.collections.get_mut(&number) else { return };
        collection.whole.insert(range);
        self.send_knowing(number, &SyncMessage::Held(number, range));
    }

    /// These segments are not here any more. Peers hear what is left.
    pub(in crate::swarm) fn on_dropped(&mut self, number: CollectionNumber, range: SegmentRange) {
        let Some(collection) = self.collections.get_mut(&number) else { return };
        collection.whole.remove_range(range);
        self.uploads.withdraw(number.segment(range.first)..=number.segment(range.last));
        self.send_holdings_to_all(number);
    }

    /// The disk refused to store a chunk that has just arrived. So the chunk is not here, and
    /// nothing of its collection is asked for until the pause is over. Returns whether the chunk
    /// counted as here.
    pub(in crate::swarm) fn on_refused(&mut self, id: ChunkId) -> bool {
        let lost = self.on_damaged(id.segment, &[id.chunk]);
        self.pause(id.segment.collection);
        lost > 0
    }

    /// Asks for nothing of a collection for ten seconds.
    pub(in crate::swarm) fn pause(&mut self, number: CollectionNumber) {
        let until = self.now.saturating_add(PAUSE);
        if let Some(collection) = self.collections.get_mut(&number) {
            collection.paused_until = Some(until);
            self.downloads.pause(number);
        }
    }

    /// Until when nothing of a collection is asked for.
    pub(in crate::swarm) fn paused_until(&self, number: CollectionNumber) -> Option<Duration> {
        self.collection(number)?.paused_until
    }

    /// When the first pause is over.
    pub(super) fn resumes_at(&self) -> Option<Duration> {
        self.collections.values().filter_map(|collection| collection.paused_until).min()
    }

    /// Ends the pauses that are over.
    pub(super) fn resume(&mut self) {
        for (number, collection) in &mut self.collections {
            if collection.paused_until.take_if(|until| *until <= self.now).is_some() {
                self.downloads.resume(*number);
                self.unfilled.extend(self.links.keys());
            }
        }
    }

    /// A chunk for a peer is not on disk, or damaged there. No peer is blamed. Returns whether the
    /// chunk was counted as here in an open segment, so that it is fetched again.
    pub(in crate::swarm) fn on_unsent(&mut self, to: PeerId, id: ChunkId) -> bool {
        self.uploads.on_unsent(to, id);
        self.on_damaged(id.segment, &[id.chunk]) > 0
    }

    /// Chunks of a segment are damaged. Those of an open segment are fetched again. All peers hear
    /// that the segment is not what they were told. Returns the number of chunks that are fetched
    /// again.
    pub(in crate::swarm) fn on_damaged(&mut self, segment: SegmentId, chunks: &[u32]) -> u64 {
        let lost = chunks.iter().filter(|chunk| self.downloads.lose(segment.chunk(**chunk)));
        let lost = lost.count() as u64;
        self.withdraw(segment);
        self.unfilled.extend(self.links.keys());
        lost
    }

    /// Takes back what peers were told of a segment. They hear again of the chunks that are here,
    /// if it is open.
    fn withdraw(&mut self, segment: SegmentId) {
        let Some(collection) = self.collections.get_mut(&segment.collection) else { return };
        collection.whole.remove(segment.index);
        let open = self.downloads.segments().get(segment);
        let here: Vec<ChunkId> = open.map_or_else(Vec::new, |open| {
            open.here().ones().map(|chunk| segment.chunk(chunk)).collect()
        });
        if open.is_none() {
            self.uploads.withdraw(segment..=segment);
        }
        for link in self.links.values_mut() {
            link.have.retain(|id| id.segment != segment);
            if link.number(segment.collection).is_some() {
                link.have.extend(&here);
            }
        }
        self.send_knowing(segment.collection, &SyncMessage::NotKept(segment));
    }

    /// An open segment is not fetched any more for now. Peers that heard of its chunks hear that
    /// none of it is here.
    pub(in crate::swarm) fn close_segment(&mut self, segment: SegmentId) {
        let open = self.downloads.segments().get(segment);
        let is_told = open.is_some_and(|open| open.missing() < open.chunks());
        self.downloads.remove_segment(segment);
        if is_told {
            self.withdraw(segment);
        }
    }

    /// Whether any chunk of a segment may be here.
    pub(in crate::swarm) fn has_any(&self, segment: SegmentId) -> bool {
        let collection = self.collection(segment.collection);
        collection.is_some_and(|collection| collection.whole.contains(segment.index))
            || self.segments().get(segment).is_some()
    }

    pub(super) fn send_holdings(&mut self, to: PeerId, number: CollectionNumber) {
        let Some(collection) = self.collections.get(&number) else { return };
        let mut whole = collection.whole.clone();
        whole.truncate();
        let begun =
            self.segments().of(number).filter(|segment| segment.missing() < segment.chunks());
        let open = begun.map(|segment| (segment.id().index, segment.here().clone()));
        let open = open.filter(|(index, _)| !whole.contains(*index)).take(OPEN_SEGMENTS_MAX);
        let holdings = Holdings { open: open.collect(), whole, nonce: self.nonce };
        self.send(to, &SyncMessage::Holdings(number, holdings));
    }

    /// Tells the peers that have a collection open what is here of it.
    pub(in crate::swarm) fn send_holdings_to_all(&mut self, number: CollectionNumber) {
        self.knowing(number).into_iter().for_each(|peer| self.send_holdings(peer, number));
    }

    /// Sends a message about a collection to the peers that have it open. Others would ignore it.
    fn send_knowing(&mut self, number: CollectionNumber, message: &SyncMessage) {
        self.knowing(number).into_iter().for_each(|peer| self.send(peer, message));
    }

    /// The peers that have a collection of this node open too.
    fn knowing(&self, number: CollectionNumber) -> Vec<PeerId> {
        let knowing = self.links.iter().filter(|(_, link)| link.number(number).is_some());
        knowing.map(|(peer, _)| *peer).collect()
    }
}

/// Whether a chunk is here.
pub(super) fn has(
    collections: &BTreeMap<CollectionNumber, Collection>,
    segments: &Segments,
    id: ChunkId,
) -> bool {
    let collection = collections.get(&id.segment.collection);
    collection.is_some_and(|collection| collection.whole.contains(id.segment.index))
        || segments.has(id)
}
