//! Requests for the heads of segments, to peers that have the whole segment.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::history::SegmentHead;
use ledger::units::SegmentIndex;

use super::{BACKFILL, Kind};
use crate::ids::PeerId;
use crate::offence::Offence;
use crate::swarm::asked::Asked;
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;
use crate::swarm::history::answers::HEAD_COST;
use crate::swarm::message::SyncMessage;

/// Timeout of a request, after which another peer is asked. A late head still counts.
const PATIENCE: Duration = Duration::from_secs(3);
/// Delay until peers are asked again, once none of them had an answer.
const RETRY: Duration = Duration::from_millis(750);
/// Most heads asked for at a time.
const HEADS_MAX: usize = 8;

/// The requests for heads.
#[derive(Debug, Default)]
pub(super) struct Heads {
    asked: Asked,
    /// For each segment the peer that was asked for its head, and when another one is.
    in_flight: BTreeMap<SegmentIndex, (PeerId, Duration)>,
}

impl Heads {
    /// The segments whose heads were asked for.
    pub(super) fn asked(&self) -> impl Iterator<Item = SegmentIndex> {
        self.in_flight.keys().copied()
    }

    pub(super) fn keep_only(&mut self, keep: impl Fn(SegmentIndex) -> bool) {
        self.in_flight.retain(|index, _| keep(*index));
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let all = self.in_flight.values().map(|(_, deadline)| *deadline);
        // A deadline in the past is of a segment that no peer has.
        all.filter(|deadline| *deadline > now).min()
    }
}

impl Kind {
    pub(in crate::swarm) fn on_closed(&mut self, peer: PeerId) {
        self.heads.asked.forget(peer);
        self.heads.in_flight.retain(|_, (asked, _)| *asked != peer);
    }

    /// Asks for the heads of the next segments.
    pub(super) fn ask(&mut self, engine: &mut Engine) {
        let now = engine.now;
        while let Some(index) = self.next_head(now) {
            let Some(peer) = self.least_asked(engine, index) else { return };
            self.heads.in_flight.insert(index, (peer, now.saturating_add(PATIENCE)));
            self.heads.asked.note_asked(peer);
            engine.send(peer, &SyncMessage::GetHead(index));
        }
    }

    /// The first segment whose head is neither here nor asked for, if one more may be asked for.
    fn next_head(&self, now: Duration) -> Option<SegmentIndex> {
        let late = self.heads.in_flight.iter().find(|(_, (_, deadline))| *deadline <= now);
        if let Some((index, _)) = late {
            return Some(*index);
        }
        let is_asked = |index: &SegmentIndex| self.heads.in_flight.contains_key(index);
        let next = self.missing.iter().find(|(index, _)| !is_asked(index));
        let next = next.filter(|(_, descriptor)| self.has_room(descriptor));
        next.filter(|_| self.heads.in_flight.len() < HEADS_MAX).map(|(index, _)| *index)
    }

    /// The peer to ask next for the head of a segment, of those that have the whole segment.
    fn least_asked(&self, engine: &Engine, index: SegmentIndex) -> Option<PeerId> {
        let all = engine.census.peers();
        let holding = all.filter(|(_, holder)| holder.is_complete(BACKFILL.segment(index)));
        holding.map(|(peer, _)| peer).min_by_key(|peer| self.heads.asked.rank(*peer))
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
        if !self.heads.in_flight.contains_key(&index) {
            return;
        }
        if head.descriptor != descriptor || !is_head(&head) {
            return engine.ban(from, Offence::SegmentHead { segment: index });
        }
        self.heads.in_flight.remove(&index);
        self.heads.asked.note_answered(from);
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
        let retry_at = engine.now.saturating_add(RETRY);
        if let Some((asked, deadline)) = self.heads.in_flight.get_mut(&index)
            && *asked == from
        {
            *deadline = retry_at.min(*deadline);
        }
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
