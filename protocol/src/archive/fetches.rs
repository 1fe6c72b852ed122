//! Which eras this node fetches: those of which too few copies are known, and those that its budget
//! has room for, in the order of its places.

use std::time::Duration;

use super::shelf::Presence;
use super::{Archive, COPIES, Effect, Keep, Plan};
use crate::eras::Era;

/// Most eras that are fetched at a time. An era is many chunks from many peers, so a few fill any
/// link.
const FETCHES_MAX: usize = 4;
/// An era with too few copies is fetched at once by as many nodes as copies are missing, the first
/// ones by place that lack it. Each next node waits this much longer, for the case that those
/// before it have no room.
const STEP: Duration = Duration::from_secs(5);
/// Most steps that a node waits, so that many idle nodes do not delay the repair.
const STEPS_MAX: u32 = 8;

impl Archive {
    /// Begins to fetch eras. If an era that this node should keep has no room, returns how many
    /// bytes are to be freed for it.
    pub(super) fn fetch(&mut self, plan: &Plan) -> u64 {
        let (limit, most) = self.limits();
        let repairs = self.repairs(plan);
        let is_repair = |era: &Era| repairs.contains(era);
        let regular = plan.order.iter().take(plan.fits).copied().filter(|era| !is_repair(era));
        let wanted: Vec<(Era, u64)> = repairs
            .iter()
            .map(|era| (*era, most))
            .chain(regular.map(|era| (era, limit)))
            .filter(|(era, _)| {
                let has_source = plan.counts.live.get(era.index()).is_some_and(|count| *count > 0);
                has_source
                    && self.shelf.is(*era, Presence::Absent)
                    && self.shelf.is_due(*era, self.now)
            })
            .collect();
        let mut free = FETCHES_MAX.saturating_sub(self.shelf.count(Presence::Fetching));
        let (mut used, mut lacks) = (self.shelf.used(), 0);
        for (era, most) in wanted {
            let with_it = used.saturating_add(self.shelf.bytes(era));
            if with_it <= most {
                if free == 0 {
                    break;
                }
                self.shelf.turn(era, Presence::Absent, Presence::Fetching);
                self.effects.push(Effect::Fetch(era));
                (used, free) = (with_it, free.saturating_sub(1));
            } else if lacks == 0 && (is_repair(&era) || self.is_first(plan, era)) {
                lacks = with_it.saturating_sub(limit);
            }
        }
        lacks
    }

    /// Whether this node is among the first [`COPIES`] nodes for an era.
    fn is_first(&self, plan: &Plan, era: Era) -> bool {
        plan.counts.places.get(era.index()).is_some_and(|place| *place < COPIES)
    }

    /// The eras with too few copies that are this node's turn to fetch, those with the fewest
    /// first.
    fn repairs(&mut self, plan: &Plan) -> Vec<Era> {
        let (now, takes_part) = (self.now, !matches!(self.shelf.keep, Keep::Recent(_)));
        let mut short = Vec::new();
        for era in &plan.order {
            let copies = plan.counts.copies.get(era.index()).copied().unwrap_or(0);
            let Some(slot) = self.shelf.slot_mut(*era) else { continue };
            if !takes_part || slot.presence != Presence::Absent || copies >= COPIES {
                slot.short_since = None;
                continue;
            }
            let since = *slot.short_since.get_or_insert(now);
            short.push((copies, *era, since));
        }
        short.sort_by_key(|(copies, ..)| *copies);
        short.retain(|(copies, era, since)| {
            let missing = COPIES.saturating_sub(*copies);
            let steps = self.peers.before_without(*era).saturating_add(1).saturating_sub(missing);
            let steps = u32::try_from(steps).unwrap_or(STEPS_MAX).min(STEPS_MAX);
            now >= since.saturating_add(STEP.saturating_mul(steps))
        });
        short.into_iter().map(|(_, era, _)| era).collect()
    }
}
