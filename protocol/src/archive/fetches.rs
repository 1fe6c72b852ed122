//! Which eras this node fetches: those of which too few copies are known, and those that its budget
//! has room for, in the order of its places.

use std::collections::BTreeSet;
use std::time::Duration;

use super::shelf::Presence;
use super::{Archive, COPIES, Effect, Keep, Plan};
use crate::eras::{Era, EraRanges};

/// Most eras that are fetched at a time. An era is many chunks from many peers, so a few fill any
/// link.
const FETCHES_MAX: usize = 4;
/// Repair begins when an era has had too few copies for this time. Claims that are taken back and
/// made again within it move no era.
pub(super) const SHORT_FOR: Duration = Duration::from_secs(10);
/// Then as many nodes as copies are missing fetch the era, the first ones by place that lack it.
/// Each next node waits for the time of a fetch longer, at least this one, for the case that those
/// before it have no room.
const STEP_LEAST: Duration = Duration::from_secs(5);
/// Bytes a second of a fetch. If it were higher, slow nodes would not be done before the next one
/// begins.
const FETCH_RATE: u64 = 2 << 20;
/// Most steps that a node waits, so that many idle nodes do not delay the repair.
const STEPS_MAX: u32 = 8;
/// An era that was fetched is not dropped for this time, unless the budget is changed. So claims
/// that come and go do not make a node fetch and drop the same eras again and again.
const HELD_FOR: Duration = Duration::from_secs(3_600);
/// An era is fetched if a peer has shown a chunk of it within this time.
const SHOWN_LASTS: Duration = Duration::from_secs(600);
/// The wait after failed fetches of an era is doubled this often at most: it is below nine hours.
const DOUBLINGS_MAX: u32 = 10;

impl Archive {
    /// Begins to fetch eras. If an era that this node should keep has no room, returns how many
    /// bytes are to be freed for it.
    pub(super) fn fetch(&mut self, plan: &Plan) -> u64 {
        let (limit, most) = self.limits();
        let repairs = self.repairs(plan);
        let is_repair = |era: &Era| repairs.contains(era);
        let regular = plan.order.iter().take(plan.fits).copied().filter(|era| !is_repair(era));
        let due =
            repairs.iter().map(|era| (*era, most)).chain(regular.map(|era| (era, limit))).filter(
                |(era, _)| {
                    self.shelf.is(*era, Presence::Absent) && self.shelf.is_due(*era, self.now)
                },
            );
        let has_source = |(era, _): &(Era, u64)| {
            plan.counts.live.get(era.index()).is_some_and(|count| *count > 0)
        };
        let (wanted, unclaimed): (Vec<_>, Vec<_>) = due.partition(has_source);
        let all = self.shelf.used();
        let has_room =
            |(era, most): &(Era, u64)| all.saturating_add(self.shelf.bytes(*era)) <= *most;
        let unclaimed: BTreeSet<Era> =
            unclaimed.into_iter().filter(has_room).map(|(era, _)| era).collect();
        self.unclaimed = EraRanges::of(unclaimed);
        let mut free = FETCHES_MAX.saturating_sub(self.shelf.count(Presence::Fetching));
        let shown_after = self.now.saturating_sub(SHOWN_LASTS);
        let (mut used, mut lacks, mut unshown) = (all, 0, Vec::new());
        for (era, most) in wanted {
            let with_it = used.saturating_add(self.shelf.bytes(era));
            if with_it <= most {
                if free == 0 {
                    break;
                }
                // A claim that nobody can show takes no place of a fetch.
                if !self.peers.is_shown(era, shown_after) {
                    unshown.push(era);
                    continue;
                }
                self.shelf.turn(era, Presence::Absent, Presence::Fetching);
                self.effects.push(Effect::Fetch(era));
                (used, free) = (with_it, free.saturating_sub(1));
            } else if lacks == 0 && (is_repair(&era) || self.is_first(plan, era)) {
                lacks = with_it.saturating_sub(limit);
            }
        }
        // Peers that leave audits without an answer must not use up the audits.
        unshown.sort_by_key(|era| !self.peers.has_sound_claim(*era));
        unshown.into_iter().for_each(|era| self.audit_for(era));
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
            let step = Duration::from_secs(self.shelf.bytes(*era) / FETCH_RATE).max(STEP_LEAST);
            let wait = SHORT_FOR.saturating_add(step.saturating_mul(steps));
            now >= since.saturating_add(wait)
        });
        short.into_iter().map(|(_, era, _)| era).collect()
    }

    /// An era is here.
    pub(super) fn on_fetched(&mut self, era: Era, bytes: u64) {
        let before = [Presence::Fetching, Presence::Absent];
        if before.into_iter().any(|before| self.shelf.turn(era, before, Presence::Kept)) {
            let held_until = self.now.saturating_add(HELD_FOR);
            if let Some(slot) = self.shelf.slot_mut(era) {
                (slot.bytes, slot.failures, slot.held_until) = (bytes, 0, held_until);
            }
            self.announce();
        }
    }

    /// An era could not be fetched.
    pub(super) fn on_unfetched(&mut self, era: Era) {
        if self.shelf.turn(era, Presence::Fetching, Presence::Absent)
            && let Some(slot) = self.shelf.slot_mut(era)
        {
            let doublings = slot.failures.min(DOUBLINGS_MAX);
            slot.failures = slot.failures.saturating_add(1);
            self.put_off(era, doublings);
        }
    }
}
