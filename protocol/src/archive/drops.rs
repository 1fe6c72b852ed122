//! How eras are dropped: audits, withdrawal, second look. One batch at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::shelf::Presence;
use super::{Archive, COPIES, Effect, Notice, Plan};
use crate::eras::{Announcement, Era, EraRanges};
use crate::ids::{PeerId, RequestId};

/// Most eras that are dropped together.
pub const BATCH_MAX: usize = 64;
/// A withdrawn era waits for a random time up to this one before the second look. Of two nodes that
/// withdrew the same era, the one that looks first takes it back, and the other one sees it.
pub const LOOK_WAIT_MAX: Duration = Duration::from_secs(10);
/// For how long answers are awaited in the second look.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// The operator hears of an exceeded budget once it has lasted so long. After a start it takes a
/// while until copies are proved.
const NOTICE_AFTER: Duration = Duration::from_secs(60);
/// Interval of notices that the budget is exceeded.
const NOTICE_EVERY: Duration = Duration::from_secs(3_600);

/// Dropping eras.
#[derive(Debug, Default)]
pub(super) struct Drops {
    batch: Option<Batch>,
    /// Since when the budget is exceeded and nothing may be dropped.
    stuck_since: Option<Duration>,
    /// When the next notice of that is due.
    notice_at: Duration,
}

/// Eras that are being dropped.
#[derive(Debug)]
struct Batch {
    eras: Vec<Era>,
    /// Copies of each that others must have.
    needed: usize,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Others are audited.
    Audits,
    /// The eras are withdrawn, and the second look waits.
    Withdrawn(Duration),
    /// The others are asked what they keep, until all have answered, at the latest until a time.
    Look { asked: BTreeSet<RequestId>, answers: BTreeMap<PeerId, EraRanges>, until: Duration },
}

impl Drops {
    /// An answer to a question of the second look.
    pub(super) fn on_answer(&mut self, id: RequestId, peer: PeerId, said: &Announcement) {
        if let Some(Batch { step: Step::Look { asked, answers, .. }, .. }) = &mut self.batch
            && asked.remove(&id)
        {
            answers.insert(peer, said.eras.clone());
        }
    }
}

impl Archive {
    /// Goes on with the batch, or begins one if the budget is exceeded or an era lacks room.
    pub(super) fn drop_surplus(&mut self, plan: &Plan, lacks: u64) {
        let batch = self.drops.batch.take().or_else(|| self.choose(plan, lacks));
        self.drops.batch = batch.and_then(|batch| self.go_on(batch));
    }

    /// The budget has changed: withdrawn eras are kept.
    pub(super) fn give_up_batch(&mut self) {
        if let Some(batch) = self.drops.batch.take() {
            batch.eras.iter().for_each(|era| {
                self.shelf.turn(*era, Presence::Leaving, Presence::Kept);
            });
        }
        self.announce();
    }

    fn choose(&mut self, plan: &Plan, lacks: u64) -> Option<Batch> {
        let (used, (limit, most)) = (self.shelf.used(), self.limits());
        if used <= limit {
            self.drops.stuck_since = None;
            // Room is made only from eras that would not be kept otherwise.
            let surplus = plan.order.get(plan.fits..).unwrap_or_default();
            return self.batch(plan, surplus, lacks, COPIES);
        }
        let over = used.saturating_sub(limit);
        if let Some(batch) = self.batch(plan, &plan.order, over, COPIES) {
            self.drops.stuck_since = None;
            return Some(batch);
        }
        let stuck_since = *self.drops.stuck_since.get_or_insert(self.now);
        let notice_at = self.drops.notice_at.max(stuck_since.saturating_add(NOTICE_AFTER));
        if self.now >= notice_at {
            self.drops.notice_at = self.now.saturating_add(NOTICE_EVERY);
            self.effects.push(Effect::Notice(Notice::OverBudget { bytes: over }));
        }
        // The longer it lasts, the fewer copies are enough. Peers that were connected come back
        // within this time.
        let periods = self.now.saturating_sub(stuck_since).as_millis();
        let periods = periods.checked_div(self.gone_counts.as_millis()).unwrap_or(0);
        let lowest = COPIES.saturating_sub(usize::try_from(periods).unwrap_or(COPIES)).max(1);
        let over = used.saturating_sub(most);
        (lowest..COPIES).rev().find_map(|needed| self.batch(plan, &plan.order, over, needed))
    }

    /// A batch from the end of this part of the order, that frees so many bytes.
    fn batch(&self, plan: &Plan, order: &[Era], free: u64, needed: usize) -> Option<Batch> {
        let mut freed = 0u64;
        let mut eras = Vec::new();
        for era in order.iter().rev() {
            if freed >= free || eras.len() >= BATCH_MAX {
                break;
            }
            let live = plan.counts.live.get(era.index()).copied().unwrap_or(0);
            let may_go = live >= needed && self.shelf.is_due(*era, self.now);
            if may_go && self.shelf.is(*era, Presence::Kept) {
                freed = freed.saturating_add(self.shelf.bytes(*era));
                eras.push(*era);
            }
        }
        (!eras.is_empty()).then_some(Batch { eras, needed, step: Step::Audits })
    }

    fn go_on(&mut self, mut batch: Batch) -> Option<Batch> {
        match batch.step {
            Step::Audits => {
                if self.audit_holders(&mut batch) {
                    for era in &batch.eras {
                        self.shelf.turn(*era, Presence::Kept, Presence::Leaving);
                    }
                    self.announce_at_once();
                    let most = u64::try_from(LOOK_WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
                    let wait = Duration::from_millis(self.lots.below(most));
                    batch.step = Step::Withdrawn(self.now.saturating_add(wait));
                }
                (!batch.eras.is_empty()).then_some(batch)
            }
            Step::Withdrawn(until) if self.now < until => Some(batch),
            Step::Withdrawn(_) => {
                let holders: BTreeSet<PeerId> = batch
                    .eras
                    .iter()
                    .flat_map(|era| self.peers.provers(*era, |_| true).into_values())
                    .collect();
                let asked = holders.into_iter().map(|peer| self.ask(peer)).collect();
                let until = self.now.saturating_add(LOOK_PATIENCE);
                batch.step = Step::Look { asked, answers: BTreeMap::new(), until };
                Some(batch)
            }
            Step::Look { ref asked, until, .. } if !asked.is_empty() && self.now < until => {
                Some(batch)
            }
            Step::Look { ref answers, .. } => {
                self.decide(&batch.eras, batch.needed, answers);
                None
            }
        }
    }

    /// Audits others until enough of them have proved each era. Eras that too few can prove leave
    /// the batch. Returns whether all eras that are left are proved.
    fn audit_holders(&mut self, batch: &mut Batch) -> bool {
        let mut is_proved = true;
        let (mut audits, mut hopeless) = (Vec::new(), Vec::new());
        for era in &batch.eras {
            if !self.shelf.is(*era, Presence::Kept) {
                hopeless.push(*era);
                continue;
            }
            let provers = self.peers.provers(*era, |_| true);
            let missing = batch.needed.saturating_sub(provers.len());
            let candidates = self.peers.candidates(*era, &provers);
            if candidates.len() < missing {
                hopeless.push(*era);
                continue;
            }
            is_proved &= missing == 0;
            let under_way: Vec<PeerId> = self.audits.of(*era).collect();
            let begun = candidates.iter().filter(|peer| under_way.contains(peer)).count();
            let next = candidates.iter().filter(|peer| !under_way.contains(peer));
            audits.extend(next.take(missing.saturating_sub(begun)).map(|peer| (*peer, *era)));
        }
        for (peer, era) in audits {
            if self.audits.has_room() {
                self.audit(peer, era);
            }
        }
        batch.eras.retain(|era| !hopeless.contains(era));
        hopeless.into_iter().for_each(|era| self.put_off(era));
        is_proved && !batch.eras.is_empty()
    }

    /// Drops the eras that enough others still keep, by their answers, and keeps the others.
    fn decide(&mut self, eras: &[Era], needed: usize, answers: &BTreeMap<PeerId, EraRanges>) {
        let mut gone = Vec::new();
        for era in eras {
            let keeps = |peer| answers.get(&peer).is_some_and(|eras| eras.contains(*era));
            if self.peers.provers(*era, keeps).len() >= needed {
                if self.shelf.turn(*era, Presence::Leaving, Presence::Absent) {
                    gone.push(*era);
                }
            } else {
                self.shelf.turn(*era, Presence::Leaving, Presence::Kept);
                self.put_off(*era);
            }
        }
        if gone.len() < eras.len() {
            self.announce();
        }
        if needed < COPIES && !gone.is_empty() {
            let notice = Notice::FewCopies { eras: gone.len(), copies: needed };
            self.effects.push(Effect::Notice(notice));
        }
        if !gone.is_empty() {
            self.effects.push(Effect::Drop(gone));
        }
    }
}
