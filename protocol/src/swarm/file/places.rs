//! Which files have a collection on the links: those that are fetched, and those that peers ask
//! for.

use std::time::Duration;

use ledger::file::CHUNK_BYTES;
use ledger::hash::FileId;

use super::fetch::Fetch;
use super::{Kind, Place, chunks_max};
use crate::swarm::classes::Class;
use crate::swarm::engine::{Collection, Engine};
use crate::swarm::message::{CollectionId, CollectionNumber};

/// Most files that have a collection. Together with history, backfill and snapshots they are fewer
/// than a link may have.
pub(super) const OPEN_MAX: usize = 48;
/// Most files that are fetched at a time; further ones wait. So places are left for those that
/// peers ask for.
pub(super) const FETCHES_MAX: usize = 32;
/// A file that is only served keeps its place for this long after its last chunk was sent, if other
/// files wait for a place. So a peer that fetches nothing keeps no places.
const IDLE: Duration = Duration::from_secs(30);
/// How often files that wait for a place, and fetches that wait for their turn, are looked at.
const RETRY: Duration = Duration::from_secs(1);

impl Kind {
    /// Opens the files that are to be fetched. While more wait than there are places, they take
    /// turns with fetches that are stuck.
    pub(super) fn open_fetched(&mut self, engine: &mut Engine) {
        let is_closed = |id: &FileId| {
            let file = self.files.get(id);
            file.is_some_and(|file| matches!(file.place, Place::Closed(_)))
        };
        let fetched = self.files.iter().filter(|(_, file)| file.is_fetched());
        let (mut waiting, open): (Vec<FileId>, Vec<FileId>) =
            fetched.map(|(id, _)| *id).partition(is_closed);
        // Those that had no place yet come first, and then the one that lost it longest ago.
        waiting.sort_by_key(|id| self.fetch(id).and_then(|fetch| fetch.stopped_at));
        for id in open {
            if let Some(Place::Open(number)) = self.files.get(&id).map(|file| &file.place) {
                engine.set_announced(*number, true);
            }
        }
        let count = self.files.values().filter(|file| file.is_fetched()).count();
        let mut room = FETCHES_MAX.saturating_sub(count.saturating_sub(waiting.len()));
        self.turns_at = (waiting.len() > room).then(|| engine.now.saturating_add(RETRY));
        if self.turns_at.is_some() {
            let next = waiting.first().and_then(|id| self.fetch(id));
            if next.is_some_and(|next| next.is_next(engine.now)) && self.close_stuck(engine) {
                room = room.saturating_add(1);
            }
        }
        for id in waiting.into_iter().take(room) {
            if !self.has_room(engine) {
                self.places_at = Some(engine.now.saturating_add(RETRY));
                return;
            }
            self.open(engine, id, true);
        }
    }

    /// Opens the files that peers have asked for, as long as there are places.
    pub(super) fn open_asked(&mut self, engine: &mut Engine) {
        if self.places_at.take_if(|at| *at <= engine.now).is_none() {
            return;
        }
        let mut asked: Vec<FileId> = engine.asked().map(|id| FileId(id.0)).collect();
        asked.sort_unstable();
        asked.dedup();
        // Only files that are not being fetched. A fetch has turns of its own, so a peer that asks
        // for the parts that are here does not get it a place.
        let is_served = |id: &FileId| self.files.get(id).is_some_and(|file| !file.is_fetched());
        for id in asked.into_iter().filter(is_served).collect::<Vec<_>>() {
            if !self.has_room(engine) {
                self.places_at = Some(engine.now.saturating_add(RETRY));
                return;
            }
            self.open(engine, id, false);
        }
    }

    /// A peer has opened a collection, which may be a file that is here.
    pub(in crate::swarm) fn on_asked(&mut self, engine: &Engine, id: CollectionId) {
        let file = self.files.get(&FileId(id.0));
        if file.is_some_and(|file| matches!(file.place, Place::Closed(_))) {
            self.places_at.get_or_insert(engine.now);
        }
    }

    /// Closes the files that no peer can want more of. Two nodes that both have all of a file need
    /// no collection for it.
    pub(in crate::swarm) fn close_unused(&mut self, engine: &mut Engine) {
        let unused = self.open.iter().filter(|(number, id)| {
            let Some(file) = self.files.get(id) else { return false };
            let segments = file.descriptor.map_or(0, |descriptor| descriptor.segments());
            !file.is_fetched() && !engine.needs_holders(**number, segments)
        });
        for number in unused.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.close(engine, number);
        }
    }

    fn fetch(&self, id: &FileId) -> Option<&Fetch> {
        self.files.get(id)?.fetch.as_ref().filter(|fetch| !fetch.is_done)
    }

    /// Closes the fetch that is stuck for longest, if one is stuck.
    fn close_stuck(&mut self, engine: &mut Engine) -> bool {
        let since = |id| self.fetch(id)?.stuck_since(engine.now);
        let stuck = self.open.iter().filter_map(|(number, id)| Some((since(id)?, *number)));
        let Some((_, number)) = stuck.min() else { return false };
        self.close(engine, number);
        true
    }

    fn open(&mut self, engine: &mut Engine, id: FileId, is_announced: bool) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let Place::Closed(whole) = &mut file.place else { return };
        let number = engine.open(Collection {
            id: CollectionId(id.0),
            class: Class::File,
            chunk_bytes: CHUNK_BYTES,
            chunks_max: chunks_max(),
            whole: std::mem::take(whole),
            is_announced,
            paused_until: None,
        });
        file.place = Place::Open(number);
        self.open.insert(number, id);
    }

    fn close(&mut self, engine: &mut Engine, number: CollectionNumber) {
        let Some(id) = self.open.remove(&number) else { return };
        let Some(file) = self.files.get_mut(&id) else { return };
        if let Some(fetch) = &mut file.fetch {
            fetch.suspend(engine, number);
        }
        let sent = engine.uploads.sent(number).map_or(0, |(bytes, _)| bytes);
        file.served_bytes = file.served_bytes.saturating_add(sent);
        if let Some(descriptor) = file.descriptor {
            engine.note_sated(number, descriptor.segments());
        }
        let whole = engine.close(number).map(|collection| collection.whole).unwrap_or_default();
        file.place = Place::Closed(whole);
    }

    /// Whether there is a place. If all are taken, the served file whose last chunk was sent
    /// longest ago loses its place, if that was at least [`IDLE`] ago.
    fn has_room(&mut self, engine: &mut Engine) -> bool {
        if self.open.len() < OPEN_MAX {
            return true;
        }
        let served = self
            .open
            .iter()
            .filter(|(_, id)| self.files.get(id).is_some_and(|file| !file.is_fetched()));
        let sent_at = |number: CollectionNumber| engine.uploads.sent(number).map(|(_, at)| at);
        let idle = served.filter_map(|(number, _)| Some((sent_at(*number)?, *number))).min();
        let idle = idle.filter(|(at, _)| at.saturating_add(IDLE) <= engine.now);
        if let Some((_, number)) = idle {
            self.close(engine, number);
            // Its peers may still want it.
            self.places_at = Some(engine.now.saturating_add(RETRY));
        }
        idle.is_some()
    }
}
