//! How a complete segment gets into the chain: it is assembled, applied and released.

use ledger::units::SegmentIndex;

use super::{HISTORY, Kind};
use crate::swarm::effect::Effect;
use crate::swarm::engine::Engine;

/// Most segments in memory as blocks: one being applied, and one being verified or waiting.
const IN_MEMORY_MAX: usize = 2;

/// How far a complete segment is on its way into the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::swarm) enum Step {
    Assembling,
    Assembled,
    Applying,
}

impl Kind {
    /// Releases segments that are applied.
    pub(super) fn release(&mut self, engine: &mut Engine) {
        while let Some(index) = self.begun.keys().next().copied().filter(|next| *next < self.sealed)
        {
            self.begun.remove(&index);
            engine.downloads.remove_segment(HISTORY.segment(index));
            self.steps.remove(&index);
            engine.push(Effect::Release(HISTORY.segment(index)));
        }
        self.source.forget_below(self.sealed);
    }

    /// Has complete segments verified one at a time, in order, as many as memory may hold.
    pub(super) fn assemble(&mut self, engine: &mut Engine) {
        let complete = engine.segments().of(HISTORY).filter(|segment| segment.missing() == 0);
        let complete = complete.map(|segment| segment.id().index);
        let waiting: Vec<_> = complete.filter(|index| !self.steps.contains_key(index)).collect();
        let is_applying = self.steps.get(&self.sealed) == Some(&Step::Applying);
        let next = SegmentIndex(self.sealed.0.saturating_add(u64::from(is_applying)));
        for index in waiting {
            // The last place in memory stays free for the next segment to apply.
            let most = if index == next { IN_MEMORY_MAX } else { IN_MEMORY_MAX.saturating_sub(1) };
            let is_busy = self.steps.values().any(|step| *step == Step::Assembling);
            if self.steps.len() < most && !is_busy {
                self.steps.insert(index, Step::Assembling);
                engine.push(Effect::Assemble(index));
            }
        }
    }

    pub(in crate::swarm) fn on_assembled(
        &mut self,
        engine: &mut Engine,
        index: SegmentIndex,
        damaged: &[u32],
    ) {
        if damaged.is_empty() {
            if let Some(step) = self.steps.get_mut(&index) {
                *step = Step::Assembled;
            }
            return;
        }
        // Each chunk was checked when it arrived. So the disk lost these, for example in a power
        // failure, and no peer is to blame.
        self.steps.remove(&index);
        let lost = engine.on_damaged(HISTORY.segment(index), damaged);
        self.on_lost(lost);
    }

    pub(super) fn apply(&mut self, engine: &mut Engine) {
        let next = self.tip.next();
        let holds_next = |index: SegmentIndex| {
            let descriptor = self.begun.get(&index).map(|head| head.descriptor);
            descriptor.is_some_and(|one| (one.first..=one.last).contains(&next))
        };
        let mut steps = self.steps.iter();
        let ready = steps.find(|(index, step)| **step == Step::Assembled && holds_next(**index));
        if let Some(index) = ready.map(|(index, _)| *index) {
            self.steps.insert(index, Step::Applying);
            engine.push(Effect::Apply(index));
        }
    }
}
