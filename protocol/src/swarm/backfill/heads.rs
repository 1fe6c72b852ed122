//! Requests for the heads of segments, to peers that have the whole segment.

use std::time::Duration;

use ledger::history::SegmentHead;
use ledger::units::SegmentIndex;

use super::{BACKFILL, Kind};
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::history::answers::HEAD_COST;
use crate::swarm::message::SyncMessage;

/// Most heads asked for at a time.
const HEADS_MAX: usize = 8;

impl Kind {
    pub(in crate::swarm) fn on_closed(&mut self, peer: PeerId) {
        self.heads.on_closed(peer);
    }

    /// Asks for the heads of the next segments.
    pub(super) fn ask(&mut self, engine: &mut Engine) {
        let now = engine.now;
        while let Some(index) = self.next_head(now) {
            let Some(peer) = self.least_asked(engine, index) else { return };
            self.heads.on_asked(index, peer, now);
            engine.send(peer, &SyncMessage::GetHead(index));
        }
    }

    /// The first segment whose head is neither here nor asked for, if one more may be asked for.
    fn next_head(&self, now: Duration) -> Option<SegmentIndex> {
        if let Some(index) = self.heads.late(now) {
            return Some(index);
        }
        let next = self.missing.iter().find(|(index, _)| !self.heads.is_asked(**index));
        let next = next.filter(|(_, descriptor)| self.has_room(descriptor));
        next.filter(|_| self.heads.count() < HEADS_MAX).map(|(index, _)| *index)
    }

    /// The peer to ask next for the head of a segment, of those that have the whole segment.
    fn least_asked(&self, engine: &Engine, index: SegmentIndex) -> Option<PeerId> {
        let all = engine.census.peers();
        let holding = all.filter(|(_, holder)| holder.is_complete(BACKFILL.segment(index)));
        holding.map(|(peer, _)| peer).min_by_key(|peer| self.heads.rank(*peer))
    }

    /// Whether the head of this segment belongs to backfill.
    pub(in crate::swarm) fn seeks(&self, index: SegmentIndex) -> bool {
        self.missing.contains_key(&index)
    }

    /// A peer gives the head of a segment. `is_head` says whether its chunk hashes match its
    /// descriptor and its last block is certified.
    pub(in crate::swarm) fn on_head(
        &mut self,
        engine: &mut Engine,
        from: PeerId,
        index: SegmentIndex,
        head: Option<SegmentHead>,
        is_head: impl Fn(&SegmentHead) -> bool,
    ) {
        // The peer refuses for now.
        let Some(head) = head else { return self.on_no_head(engine, from, index) };
        let Some(descriptor) = self.missing.get(&index).copied() else { return };
        // A head that was not requested may be of any segment, and would take a place that the next
        // ones need.
        if !self.heads.is_asked(index) {
            return;
        }
        if head.descriptor != descriptor || !is_head(&head) {
            return engine.ban(from, Offence::SegmentHead { segment: index });
        }
        self.heads.on_answered(index, from);
        engine.push(Effect::Begin(BACKFILL, head.clone()));
        self.begin(engine, head, &[]);
    }

    /// A peer does not give the head of a segment.
    pub(in crate::swarm) fn on_no_head(
        &mut self,
        engine: &Engine,
        from: PeerId,
        index: SegmentIndex,
    ) {
        self.heads.on_refused(index, from, engine.now);
    }

    /// Answers a peer that asks for the head of an open segment. `false` if this segment is not
    /// open here.
    pub(in crate::swarm) fn on_get_head(
        &self,
        engine: &mut Engine,
        from: PeerId,
        index: SegmentIndex,
    ) -> bool {
        let Some(head) = self.begun.get(&index) else { return false };
        let head = engine.may_ask(from, HEAD_COST).then(|| head.clone());
        engine.send(from, &SyncMessage::Head(index, head));
        true
    }
}
