//! The kind of collection that is a file. The id of the collection is that of the file, so each
//! head proves itself: no manifest is needed, and no chain.
//!
//! A file that is being fetched is announced to all peers, since each of them may have it. A file
//! that is only served is announced to peers that ask for it. So nobody learns which files a node
//! serves without knowing their ids, and it may have more files than a link may have collections.

mod fetch;
mod places;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::file::{self, FileDescriptor, FileHead};
use ledger::hash::{FileId, Hash};
use ledger::units::SegmentIndex;

use super::effect::Effect;
use super::engine::Engine;
use super::expected::file_chunk;
use super::history::answers::HEAD_COST;
use super::input::{ByteRange, HeldFile};
use super::message::{ChunkId, CollectionNumber, SegmentId, SyncMessage};
use super::ranges::{SegmentRange, SegmentRanges};
use crate::ids::PeerId;
use crate::offence::Offence;
use fetch::Fetch;
pub use report::FileReport;

/// How long a segment is not served after a chunk of it could not be read.
const UNREAD: Duration = Duration::from_secs(30);

/// Who knows which segments of a file are here.
#[derive(Debug)]
enum Place {
    /// The file has no collection, and these segments are here.
    Closed(SegmentRanges),
    /// The engine, under the number of the file's collection.
    Open(CollectionNumber),
}

/// A file that is here or is to be fetched, whole or in parts.
#[derive(Debug)]
struct File {
    descriptor: Option<FileDescriptor>,
    place: Place,
    /// What is wanted of it, or was.
    fetch: Option<Fetch>,
    /// Whole segments that could not be read. They are here again in a while.
    unread: SegmentRanges,
    /// Bytes of its chunks that were sent before it was closed the last time.
    served_bytes: u64,
}

impl File {
    /// Whether a part of it is wanted and not here yet.
    fn is_fetched(&self) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| !fetch.is_done)
    }
}

/// Fetches and serves files.
#[derive(Debug, Default)]
pub(super) struct Kind {
    files: BTreeMap<FileId, File>,
    /// The files that have a collection.
    open: BTreeMap<CollectionNumber, FileId>,
    /// When files that have no place are looked at again.
    places_at: Option<Duration>,
    /// When fetches that wait for their turn are looked at again.
    turns_at: Option<Duration>,
    /// When the segments that could not be read count as here again.
    unread_until: Option<Duration>,
    /// Whether a file has become whole, so that nobody may need its collection any more. It is
    /// closed with the next input: the driver has yet to store the last chunk.
    has_news: bool,
    /// Bytes of missing chunks that have arrived.
    fetched_bytes: u64,
}

impl Kind {
    /// A file is on disk, whole or in parts.
    pub(super) fn on_held(&mut self, engine: &mut Engine, held: HeldFile) {
        let HeldFile { id, descriptor, whole, .. } = held;
        let file = self.files.entry(id).or_insert_with(|| File {
            descriptor,
            place: Place::Closed(SegmentRanges::default()),
            fetch: None,
            unread: SegmentRanges::default(),
            served_bytes: 0,
        });
        file.descriptor = file.descriptor.or(descriptor);
        match &mut file.place {
            Place::Closed(known) => whole.iter().for_each(|range| known.insert(range)),
            Place::Open(number) => {
                whole.iter().for_each(|range| engine.on_whole(*number, range));
            }
        }
        if let Some(fetch) = &mut file.fetch {
            fetch.on_found(&whole);
        }
        // A peer may have asked for it already.
        self.places_at = Some(engine.now);
    }

    /// A part of a file is to be fetched.
    pub(super) fn on_wanted(&mut self, engine: &mut Engine, held: HeldFile, range: ByteRange) {
        let (id, begun) = (held.id, held.begun.clone());
        self.on_held(engine, held);
        let Some(file) = self.files.get_mut(&id) else { return };
        let empty = FileDescriptor::empty();
        if id == empty.id() {
            file.descriptor = Some(empty);
        }
        let begun = begun.into_iter().filter(|(head, _)| head.verify(&id).is_ok()).collect();
        file.fetch.get_or_insert_default().want(range, begun);
    }

    /// A file is not here any more, or not wanted.
    pub(super) fn on_gone(&mut self, engine: &mut Engine, id: FileId) {
        let Some(file) = self.files.remove(&id) else { return };
        if let Place::Open(number) = file.place {
            self.open.remove(&number);
            engine.close(number);
        }
        self.places_at = Some(engine.now);
    }

    pub(super) const fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// The file that a collection is.
    pub(super) fn id_of(&self, number: CollectionNumber) -> Option<FileId> {
        self.open.get(&number).copied()
    }

    fn file_mut(&mut self, number: CollectionNumber) -> Option<&mut File> {
        self.files.get_mut(self.open.get(&number)?)
    }

    fn fetch_mut(&mut self, number: CollectionNumber) -> Option<&mut Fetch> {
        self.file_mut(number)?.fetch.as_mut()
    }

    /// The hash of a chunk of an open segment.
    pub(super) fn chunk_hash(&self, id: ChunkId) -> Option<Hash> {
        let file = self.files.get(self.open.get(&id.segment.collection)?)?;
        file.fetch.as_ref()?.chunk_hash(id)
    }

    /// Whether a chunk is beyond the end of its file.
    pub(super) fn is_beyond(&self, id: ChunkId) -> bool {
        let file = self.open.get(&id.segment.collection).and_then(|open| self.files.get(open));
        let descriptor = file.and_then(|file| file.descriptor);
        let exists = |descriptor: FileDescriptor| {
            file_chunk(id).is_some_and(|chunk| chunk < descriptor.chunks())
        };
        descriptor.is_some_and(|descriptor| !exists(descriptor))
    }

    /// A missing chunk has arrived.
    pub(super) fn on_chunk(&mut self, engine: &Engine, from: PeerId, id: ChunkId, bytes: u64) {
        if let Some(fetch) = self.fetch_mut(id.segment.collection) {
            fetch.on_chunk(from, id, bytes, engine.now);
            self.fetched_bytes = self.fetched_bytes.saturating_add(bytes);
        }
    }

    /// A chunk is not on disk, or damaged there. One of an open segment is requested again by the
    /// engine. One of a segment that was whole is fetched again if it is wanted.
    pub(super) fn on_lost(&mut self, engine: &Engine, id: ChunkId) {
        if let Some(fetch) = self.fetch_mut(id.segment.collection) {
            fetch.on_lost(engine, id);
        }
    }

    /// A chunk for a peer could not be read this time. Returns whether its segment was whole. Then
    /// the segment is not served for a while: the disk may recover, and peers ask others meanwhile.
    pub(super) fn on_unread(&mut self, engine: &Engine, segment: SegmentId) -> bool {
        let SegmentId { collection, index } = segment;
        let whole = engine.collection(collection).map(|collection| &collection.whole);
        let is_whole = whole.is_some_and(|whole| whole.contains(index));
        let Some(file) = self.file_mut(collection).filter(|_| is_whole) else { return false };
        file.unread.insert(SegmentRange { first: index, last: index });
        self.unread_until.get_or_insert(engine.now.saturating_add(UNREAD));
        true
    }

    /// Serves what could not be read again, if its time is over.
    fn restore_unread(&mut self, engine: &mut Engine) {
        if self.unread_until.take_if(|at| *at <= engine.now).is_none() {
            return;
        }
        for file in self.files.values_mut() {
            let unread = std::mem::take(&mut file.unread);
            match &mut file.place {
                Place::Closed(known) => unread.iter().for_each(|range| known.insert(range)),
                Place::Open(number) => {
                    unread.iter().for_each(|range| engine.on_whole(*number, range));
                }
            }
        }
    }

    /// A peer says that it has more or less of a collection than before.
    pub(super) fn on_news(&mut self, engine: &mut Engine, from: PeerId, theirs: CollectionNumber) {
        let Some(number) = engine.ours(from, theirs) else { return };
        let Some(file) = self.file_mut(number) else { return };
        match &mut file.fetch {
            Some(fetch) if !fetch.is_done => fetch.is_due = true,
            _ => self.close_unused(engine),
        }
    }

    pub(super) fn on_closed(&mut self, engine: &mut Engine, peer: PeerId) {
        for file in self.files.values_mut() {
            if let Some(fetch) = &mut file.fetch {
                fetch.on_closed(peer);
            }
        }
        self.close_unused(engine);
    }

    /// Fetches what is wanted, and gives collections to the files that need one.
    pub(super) fn settle(&mut self, engine: &mut Engine) {
        if std::mem::take(&mut self.has_news) {
            self.close_unused(engine);
        }
        self.restore_unread(engine);
        self.open_fetched(engine);
        self.open_asked(engine);
        let open: Vec<(CollectionNumber, FileId)> =
            self.open.iter().map(|(number, id)| (*number, *id)).collect();
        for (number, id) in open {
            let Some(file) = self.files.get_mut(&id) else { continue };
            let Some(fetch) = file.fetch.as_mut().filter(|fetch| !fetch.is_done) else { continue };
            fetch.advance(engine, number, id, &mut file.descriptor);
            if fetch.is_done {
                engine.set_announced(number, false);
                engine.push(Effect::FileDone(id));
                self.places_at = Some(engine.now);
                self.has_news = true;
            }
        }
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let fetched = self.files.values().filter(|file| matches!(file.place, Place::Open(_)));
        let fetches = fetched.filter_map(|file| file.fetch.as_ref());
        let heads = fetches.filter_map(|fetch| fetch.deadline(now)).min();
        let times = [heads, self.places_at, self.turns_at, self.unread_until];
        times.into_iter().flatten().min()
    }

    /// A peer asks for the head of a segment.
    pub(super) fn on_get_head(
        &self,
        engine: &mut Engine,
        peer: PeerId,
        id: FileId,
        segment: SegmentIndex,
    ) {
        let file = self.files.get(&id);
        let number = file.and_then(|file| match file.place {
            Place::Open(number) => Some(number),
            Place::Closed(_) => None,
        });
        let has_any = number.is_some_and(|number| engine.has_any(number.segment(segment)));
        if !has_any || !engine.may_ask(peer, HEAD_COST) {
            return engine.send(peer, &SyncMessage::FileHead(id, segment, None));
        }
        match file.and_then(|file| file.fetch.as_ref()?.begun(segment)) {
            Some(head) => {
                let head = Some(head.clone());
                engine.answer(peer, &SyncMessage::FileHead(id, segment, head));
            }
            None => engine.push(Effect::SendFileHead { peer, id, segment }),
        }
    }

    /// A peer gives the head of a segment.
    pub(super) fn on_head(
        &mut self,
        engine: &mut Engine,
        from: PeerId,
        id: FileId,
        segment: SegmentIndex,
        head: Option<FileHead>,
    ) {
        let Some(File { descriptor, place: Place::Open(number), fetch: Some(fetch), .. }) =
            self.files.get_mut(&id)
        else {
            return;
        };
        // A head that was not requested may be of any segment. It would take the place of a segment
        // that is next.
        if !fetch.heads.is_asked(segment) {
            return;
        }
        fetch.is_due = true;
        let Some(head) = head else { return fetch.heads.on_refused(segment, from, engine.now) };
        if head.index() != segment.0 || head.verify(&id).is_err() {
            return engine.ban(from, Offence::FileHead { segment });
        }
        fetch.heads.on_answered(segment, from);
        *descriptor = Some(head.descriptor);
        fetch.resolve(engine, *number, &head.descriptor);
        if fetch.is_missing(segment) {
            engine.push(Effect::BeginFileSegment(id, head.clone()));
            fetch.begin(engine, *number, head, &[]);
        }
    }
}

/// Most chunks of a segment.
fn chunks_max() -> u32 {
    u32::try_from(file::SEGMENT_CHUNKS).unwrap_or(u32::MAX)
}
