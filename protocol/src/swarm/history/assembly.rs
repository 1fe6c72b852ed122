//! How a complete segment gets into the chain: it is assembled, applied and released.

use ledger::units::SegmentIndex;

use crate::swarm::message::ChunkId;
use crate::swarm::segments::Segment;
use crate::swarm::{Effect, Swarm};

/// Most segments in memory as blocks: one being applied, and one being verified or waiting.
const IN_MEMORY_MAX: usize = 2;

/// How far a complete segment is on its way into the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::swarm) enum Step {
    Assembling,
    Assembled,
    Applying,
}

impl Swarm {
    /// Releases segments that are applied.
    pub(in crate::swarm) fn release(&mut self) {
        let indexes = self.downloads.segments().iter().map(Segment::index);
        let applied = indexes.take_while(|index| *index < self.sealed);
        for index in applied.collect::<Vec<_>>() {
            self.downloads.remove_segment(index);
            self.steps.remove(&index);
            self.effects.push(Effect::Release(index));
        }
        self.source.forget_below(self.sealed);
    }

    /// Has complete segments verified one at a time, in order, as many as memory may hold.
    pub(in crate::swarm) fn assemble(&mut self) {
        let complete = self.downloads.segments().iter().filter(|segment| segment.missing() == 0);
        let waiting = complete.map(Segment::index).filter(|index| !self.steps.contains_key(index));
        let waiting: Vec<_> = waiting.collect();
        let is_applying = self.steps.get(&self.sealed) == Some(&Step::Applying);
        let next = SegmentIndex(self.sealed.0.saturating_add(u64::from(is_applying)));
        for index in waiting {
            // The last place in memory stays free for the next segment to apply.
            let most = if index == next { IN_MEMORY_MAX } else { IN_MEMORY_MAX.saturating_sub(1) };
            let is_busy = self.steps.values().any(|step| *step == Step::Assembling);
            if self.steps.len() < most && !is_busy {
                self.steps.insert(index, Step::Assembling);
                self.effects.push(Effect::Assemble(index));
            }
        }
    }

    pub(in crate::swarm) fn on_assembled(&mut self, index: SegmentIndex, damaged: &[u32]) {
        if damaged.is_empty() {
            if let Some(step) = self.steps.get_mut(&index) {
                *step = Step::Assembled;
            }
            return;
        }
        // Each chunk was checked when it arrived. So the disk lost these, for example in a power
        // failure, and no peer is to blame.
        self.steps.remove(&index);
        for chunk in damaged {
            self.downloads.lose(ChunkId { segment: index, chunk: *chunk });
            self.progress.on_lost(self.rules.chunk_bytes);
        }
        self.unfilled.extend(self.links.keys());
    }

    pub(in crate::swarm) fn apply(&mut self) {
        let next = self.tip.next();
        let holds_next = |index: SegmentIndex| {
            let head = self.downloads.segments().head(index);
            let heights = head.map(|head| head.descriptor.first..=head.descriptor.last);
            heights.is_some_and(|heights| heights.contains(&next))
        };
        let mut steps = self.steps.iter();
        let ready = steps.find(|(index, step)| **step == Step::Assembled && holds_next(**index));
        if let Some(index) = ready.map(|(index, _)| *index) {
            self.steps.insert(index, Step::Applying);
            self.effects.push(Effect::Apply(index));
        }
    }
}
