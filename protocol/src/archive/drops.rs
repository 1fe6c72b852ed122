//! How eras are dropped: withdrawal, then audits. One batch at a time.

use std::time::Duration;

use super::shelf::Presence;
use super::{Archive, COPIES, Effect, Notice, Plan};
use crate::eras::Era;
use crate::ids::PeerId;

/// Most eras that are dropped together. Three audits of each take 24 s.
pub const BATCH_MAX: usize = 64;
/// Longest random wait between the withdrawal of eras and the audits. If two nodes have withdrawn
/// the same era, the one that audits first finds too few copies and restores it. The other one then
/// finds that copy. Without the wait both would restore the era.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// For how long holders are audited. Eras that too few have proved by then are restored.
pub const AUDITS_LAST: Duration = Duration::from_secs(60);
/// The operator is warned when the budget has been exceeded for this time. A node that has just
/// started needs some time until others have proved their copies.
const NOTICE_AFTER: Duration = Duration::from_secs(60);
/// Interval of notices that the budget is exceeded.
const NOTICE_EVERY: Duration = Duration::from_secs(3_600);

/// Dropping eras.
#[derive(Debug, Default)]
pub(super) struct Drops {
    batch: Option<Batch>,
    /// Since when the budget is exceeded and no era of enough copies has been dropped.
    stuck_since: Option<Duration>,
    /// When the next notice of that is due.
    notice_at: Duration,
}

/// Withdrawn eras. Their holders are audited, and each era is dropped or restored by itself.
#[derive(Debug)]
struct Batch {
    eras: Vec<Era>,
    /// Copies that others must prove if no further proof can be had.
    enough: usize,
    /// Only audits that began after this time count.
    withdrawn_at: Duration,
    /// When the audits begin.
    audits_at: Duration,
}

impl Archive {
    /// Goes on with the batch, or begins one if the budget is exceeded or an era lacks room.
    pub(super) fn drop_surplus(&mut self, plan: &Plan, lacks: u64) {
        self.watch_budget();
        self.drops.batch = match self.drops.batch.take() {
            Some(batch) => self.go_on(batch),
            None => self.choose(plan, lacks).map(|(eras, enough)| self.withdraw(eras, enough)),
        };
    }

    /// The budget has changed: withdrawn eras are restored.
    pub(super) fn give_up_batch(&mut self) {
        if let Some(batch) = self.drops.batch.take() {
            self.restore(batch.eras);
        }
        // The announcement also says whether this is an archive node.
        self.announce();
    }

    /// Tells the operator if the budget has been exceeded for long.
    fn watch_budget(&mut self) {
        let over = self.shelf.used().saturating_sub(self.shelf.limit());
        if over == 0 {
            self.drops.stuck_since = None;
            return;
        }
        let stuck_since = *self.drops.stuck_since.get_or_insert(self.now);
        let notice_at = self.drops.notice_at.max(stuck_since.saturating_add(NOTICE_AFTER));
        if self.now >= notice_at {
            self.drops.notice_at = self.now.saturating_add(NOTICE_EVERY);
            self.effects.push(Effect::Notice(Notice::OverBudget { bytes: over }));
        }
    }

    /// Copies that are enough now. The longer the budget is exceeded, the fewer are enough. Peers
    /// that were connected come back within a period, and it has time for two attempts.
    fn enough(&self) -> usize {
        let Some(stuck_since) = self.drops.stuck_since else { return COPIES };
        let attempts = WAIT_MAX.saturating_add(AUDITS_LAST).saturating_mul(2);
        let periods = self.now.saturating_sub(stuck_since).as_millis();
        let period = self.gone_counts.max(attempts).as_millis();
        let periods = periods.checked_div(period).unwrap_or(0);
        COPIES.saturating_sub(usize::try_from(periods).unwrap_or(COPIES)).max(1)
    }

    /// The eras to withdraw, and how many proved copies of them are enough.
    fn choose(&self, plan: &Plan, lacks: u64) -> Option<(Vec<Era>, usize)> {
        let (used, (limit, most)) = (self.shelf.used(), self.limits());
        if used <= limit {
            // Room is made only from eras that would not be kept otherwise.
            let surplus = plan.order.get(plan.fits..).unwrap_or_default();
            return self.batch(plan, surplus, lacks, COPIES).map(|eras| (eras, COPIES));
        }
        let enough = if used > most { self.enough() } else { COPIES };
        let over = used.saturating_sub(limit);
        let of_copies = |copies| {
            let free = if copies < COPIES { used.saturating_sub(most) } else { over };
            self.batch(plan, &plan.order, free, copies)
        };
        (enough..=COPIES).rev().find_map(of_copies).map(|eras| (eras, enough))
    }

    /// Eras to drop, taken from the end of `order` until they free `free` bytes. At least `copies`
    /// other nodes claim each of them. Fetches never exceed the budget by more than a tenth. So
    /// within the tenth, nothing goes that was fetched not long ago.
    fn batch(&self, plan: &Plan, order: &[Era], free: u64, copies: usize) -> Option<Vec<Era>> {
        let (_, most) = self.limits();
        let holds = self.shelf.used() <= most;
        let mut freed = 0u64;
        let mut eras = Vec::new();
        for era in order.iter().rev() {
            if freed >= free || eras.len() >= BATCH_MAX {
                break;
            }
            let live = plan.counts.live.get(era.index()).copied().unwrap_or(0);
            let is_held = holds && self.shelf.is_held(*era, self.now);
            let may_go = live >= copies && self.shelf.is_due(*era, self.now) && !is_held;
            if may_go && self.shelf.is(*era, Presence::Kept) {
                freed = freed.saturating_add(self.shelf.bytes(*era));
                eras.push(*era);
            }
        }
        (!eras.is_empty()).then_some(eras)
    }

    /// Nobody is shown these eras any more. Audits that begin later cannot be answered with this
    /// node's own copies.
    fn withdraw(&mut self, eras: Vec<Era>, enough: usize) -> Batch {
        for era in &eras {
            self.shelf.turn(*era, Presence::Kept, Presence::Leaving);
        }
        self.effects.push(Effect::Withdraw(eras.clone()));
        self.announce_at_once();
        let most = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(self.lots.below(most));
        let audits_at = self.now.saturating_add(wait);
        Batch { eras, enough, withdrawn_at: self.now, audits_at }
    }

    /// Restores eras of the batch.
    fn restore(&mut self, mut eras: Vec<Era>) {
        eras.retain(|era| self.shelf.turn(*era, Presence::Leaving, Presence::Kept));
        if !eras.is_empty() {
            self.effects.push(Effect::Restore(eras));
            self.announce();
        }
    }

    /// Audits holders. Drops the eras that enough of them have proved, and restores those that
    /// cannot be proved.
    fn go_on(&mut self, mut batch: Batch) -> Option<Batch> {
        if self.now < batch.audits_at {
            return Some(batch);
        }
        let is_late = self.now >= batch.audits_at.saturating_add(AUDITS_LAST);
        let (_, most) = self.limits();
        let (mut used, mut fewest) = (self.shelf.used(), COPIES);
        let (mut gone, mut back, mut open) = (Vec::new(), Vec::new(), Vec::new());
        batch.eras.retain(|era| self.shelf.is(*era, Presence::Leaving));
        for era in batch.eras {
            let provers = self.peers.provers(era, batch.withdrawn_at);
            let candidates = self.peers.candidates(era, &provers);
            let proved = provers.len();
            let hopes = proved.saturating_add(candidates.len()) >= batch.enough;
            if proved < COPIES && hopes && !candidates.is_empty() && !is_late {
                self.audit_more(era, COPIES.saturating_sub(proved), candidates);
                open.push(era);
            } else if proved >= COPIES || (proved >= batch.enough && used > most) {
                used = used.saturating_sub(self.shelf.bytes(era));
                fewest = fewest.min(proved);
                gone.push(era);
            } else {
                back.push(era);
            }
        }
        back.iter().for_each(|era| self.put_off(*era, 0));
        self.restore(back);
        self.drop_all(gone, fewest);
        (!open.is_empty()).then_some(Batch { eras: open, ..batch })
    }

    /// Begins audits of an era at the first of these peers, so that as many as are missing are in
    /// flight. One that takes long is no longer waited for.
    pub(super) fn audit_more(&mut self, era: Era, missing: usize, candidates: Vec<PeerId>) {
        let begun: Vec<(PeerId, bool)> = self.audits.of(era, self.now).collect();
        let awaited = |peer: &PeerId| begun.contains(&(*peer, false));
        let more = missing.saturating_sub(candidates.iter().filter(|peer| awaited(peer)).count());
        let is_new = |peer: &PeerId| begun.iter().all(|(audited, _)| audited != peer);
        for peer in candidates.into_iter().filter(is_new).take(more) {
            if self.audits.has_room() {
                self.audit(peer, era, false);
            }
        }
    }

    /// Drops eras. Others have proved `copies` copies of each, or more.
    fn drop_all(&mut self, mut eras: Vec<Era>, copies: usize) {
        eras.retain(|era| self.shelf.turn(*era, Presence::Leaving, Presence::Absent));
        if eras.is_empty() {
            return;
        }
        if copies < COPIES {
            self.effects.push(Effect::Notice(Notice::FewCopies { eras: eras.len(), copies }));
        } else {
            self.drops.stuck_since = None;
        }
        self.effects.push(Effect::Drop(eras));
    }
}
