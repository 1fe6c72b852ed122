//! The archive machine decides which eras of history this node keeps, so that nodes with small
//! budgets together keep all of it.
//!
//! [`Archive::handle`] is the only entry point: it takes the time and an input and returns effects.
//! It moves no bytes. Rules: `docs/protocol/archive.md`.
//!
//! **Places.** For each era the archive nodes that a node knows are ordered by a hash of the era
//! and their peer ids ([`place_hash`]). A node keeps first the eras in which its place is below
//! [`COPIES`], then those of higher places, while its budget lasts. So nodes need not agree on
//! anything to share all eras evenly.
//!
//! **Repair** believes what peers claim, until an audit speaks against it. An era with too few
//! believed copies is fetched by the first node by place that does not have it, and a few seconds
//! later by the next one.
//!
//! **Dropping** believes nothing but audits. An era goes in two steps:
//!
//! 1. *Withdrawal.* This node announces that it does not keep the era, serves it to nobody, and
//!    waits for a random time.
//! 2. *Audits.* [`COPIES`] other nodes, each of another address group, show a chunk of it. Only
//!    audits that began after the withdrawal count. If too few show it within a minute, this node
//!    announces and serves the era again.
//!
//! Two nodes that drop an era at the same time cannot rely on each other: of all nodes that drop
//! it, take the one that withdrew last. When it began its audits, no other of them served the era.
//! So each chunk that it was shown came from a node that does not drop the era, even if those that
//! showed it only relayed it. No clock and no delay matters to this. The random wait only makes it
//! rare that both take the era back.
//!
//! An era of which too few copies are proved stays, even if the budget is exceeded by up to a
//! tenth. Beyond that, eras with fewer proved copies are dropped too, but never a last copy.

mod audits;
mod damage;
mod drops;
mod effect;
mod exchanges;
mod fetches;
mod input;
mod peers;
mod places;
mod shelf;

pub use audits::{AUDITS_A_SECOND, BACKGROUND};
pub use drops::{AUDITS_LAST, BATCH_MAX, WAIT_MAX};
pub use effect::{Effect, Notice};
pub use input::{Audit, Input, Keep, Setup, WholeEra};
pub use peers::AUDIT_LASTS;
pub use places::place_hash;

use std::time::Duration;

use crate::eras::{Announcement, Era, EraRanges};
use crate::ids::{PeerId, RequestId};
use crate::lots::Lots;
use audits::{Audits, Begun};
use drops::Drops;
use exchanges::Exchanges;
use peers::{Counts, Peers};
use shelf::{Presence, Shelf, Slot};

/// Copies of an era that the network needs, each at another node. With three, two nodes may vanish
/// at once.
pub const COPIES: usize = 3;
/// For how long the claims of a peer count after its connection ended: long enough for a restart.
/// If it were much shorter, each restart would move eras. If it were longer, an era would lack
/// copies for longer.
pub const GONE_COUNTS: Duration = Duration::from_secs(600);
/// Interval at which the machine decides what to do next.
const TICK: Duration = Duration::from_secs(1);
/// The budget may be exceeded by this part of it, for eras of which others have too few copies.
const OVER_PART: u64 = 10;

/// The part of a node that decides which eras it keeps.
#[derive(Debug)]
pub struct Archive {
    now: Duration,
    next_tick: Duration,
    gone_counts: Duration,
    shelf: Shelf,
    peers: Peers,
    /// Copies, places and the order that follows. `None`: they must be counted again.
    plan: Option<Plan>,
    audits: Audits,
    exchanges: Exchanges,
    drops: Drops,
    announcement: Announcement,
    unclaimed: EraRanges,
    /// The last number of a request.
    request: RequestId,
    lots: Lots,
    effects: Vec<Effect>,
}

/// What this node would keep, from all that it knows.
#[derive(Clone, Debug)]
struct Plan {
    counts: Counts,
    /// All eras, those to keep first at the front.
    order: Vec<Era>,
    /// How many eras at the front fit into the budget.
    fits: usize,
}

impl Archive {
    /// A machine that knows no peers yet.
    #[must_use]
    pub fn new(setup: Setup, now: Duration) -> Self {
        let Setup { id, keep, eras, gone_counts, seed } = setup;
        let shelf = Shelf::new(id, keep, eras);
        Self {
            now,
            next_tick: now,
            gone_counts,
            announcement: shelf.announcement(),
            shelf,
            peers: Peers::default(),
            plan: None,
            audits: Audits::new(now),
            exchanges: Exchanges::default(),
            drops: Drops::default(),
            unclaimed: EraRanges::default(),
            request: RequestId(0),
            lots: Lots::new(seed),
            effects: Vec::new(),
        }
    }

    /// Takes in one input and returns its effects.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        self.now = now;
        match input {
            Input::Time => {}
            Input::Connected { peer, id, group } => {
                self.peers.on_connected(peer, id, group, now);
                self.plan = None;
            }
            Input::Disconnected(peer) => {
                self.peers.on_disconnected(peer, now);
                self.audits.on_disconnected(peer);
                self.plan = None;
            }
            Input::Announced { peer, announcement, answers } => {
                self.on_announced(peer, announcement, answers);
            }
            Input::Audited(id, audit) => self.on_audited(id, audit),
            Input::Whole(era) => {
                self.shelf.push(era);
                self.plan = None;
                self.announce();
            }
            Input::Fetched { era, bytes } => self.on_fetched(era, bytes),
            Input::Unfetched(era) => self.on_unfetched(era),
            Input::Damaged(era) => self.on_damaged(era),
            Input::Keep(keep) => {
                self.shelf.keep = keep;
                self.shelf.release();
                self.plan = None;
                self.give_up_batch();
            }
        }
        if now >= self.next_tick {
            self.next_tick = now.saturating_add(TICK);
            self.tick();
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Input::Time`] is due at the latest.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.next_tick
    }

    /// What this node keeps, as it answers each question of a peer.
    #[must_use]
    pub const fn announcement(&self) -> &Announcement {
        &self.announcement
    }

    /// The eras that are not here, or not yet.
    pub fn absent(&self) -> impl Iterator<Item = Era> {
        let is_absent =
            |slot: &Slot| matches!(slot.presence, Presence::Absent | Presence::Fetching);
        self.shelf.slots().filter(move |(_, slot)| is_absent(slot)).map(|(era, _)| era)
    }

    /// The eras that this node would fetch now and that no connected peer claims: holders of them
    /// are to be looked for.
    #[must_use]
    pub const fn unclaimed(&self) -> &EraRanges {
        &self.unclaimed
    }

    /// The eras that a connected peer claims and that no audit speaks against.
    #[must_use]
    pub fn believed(&self, peer: PeerId) -> EraRanges {
        self.peers.believed(peer, Era::at(self.shelf.len()))
    }

    fn tick(&mut self) {
        self.audits.on_tick();
        self.take_late();
        if self.peers.forget(self.now, self.gone_counts) {
            self.plan = None;
        }
        let plan = self.plan.take().unwrap_or_else(|| self.plan());
        self.drop_damaged();
        let lacks = self.fetch(&plan);
        self.drop_surplus(&plan, lacks);
        self.audit_in_background();
        self.exchange();
        self.plan = Some(plan);
    }

    fn plan(&mut self) -> Plan {
        let counts = self.peers.count(&self.shelf);
        let order = self.shelf.order(&counts.places);
        let fits = self.shelf.fits(&order);
        Plan { counts, order, fits }
    }

    fn on_announced(&mut self, peer: PeerId, said: Announcement, answers: Option<RequestId>) {
        let answers = answers.filter(|id| self.exchanges.end(*id, peer));
        if let Some(era) = self.peers.on_announced(peer, said, answers) {
            self.audit(peer, era, false);
        }
        self.plan = None;
    }

    fn on_audited(&mut self, id: RequestId, audit: Audit) {
        let Some(begun) = self.audits.end(id, audit) else { return };
        if audit == Audit::Passed {
            self.peers.on_passed(begun);
        } else {
            self.peers.on_failed(begun, self.request, self.now);
        }
        self.plan = None;
    }

    fn take_late(&mut self) {
        for begun in self.audits.take_late(self.now) {
            self.peers.on_missed(begun, self.now);
            self.plan = None;
        }
        for (peer, question) in self.exchanges.take_late(self.now) {
            self.peers.on_silent(peer, question);
            self.plan = None;
        }
    }

    /// Nothing is begun with an era for a while. The wait is random, so that two nodes that got
    /// into each other's way do not do so again. It is doubled this many times.
    fn put_off(&mut self, era: Era, doublings: u32) {
        /// Shortest wait, and how much longer it may be.
        const WAIT: (u64, u64) = (10_000, 20_000);
        let wait = Duration::from_millis(WAIT.0.saturating_add(self.lots.below(WAIT.1)));
        let times = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let until = self.now.saturating_add(wait.saturating_mul(times));
        if let Some(slot) = self.shelf.slot_mut(era) {
            slot.retry_at = until;
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.request = RequestId(self.request.0.wrapping_add(1));
        self.request
    }

    fn audit(&mut self, peer: PeerId, era: Era, is_random: bool) {
        let (request, lot) = (self.next_request(), self.lots.draw());
        let begun = Begun { peer, era, at: self.now, is_random, ended: None };
        self.audits.begin(request, begun);
        self.effects.push(Effect::Audit { peer, request, era, lot });
    }

    fn audit_in_background(&mut self) {
        if self.now < self.audits.background_at {
            return;
        }
        self.audits.background_at = self.now.saturating_add(BACKGROUND);
        // An honest peer that is doubted is soon believed again.
        for is_doubted in [false, true] {
            let lots = [self.lots.draw(), self.lots.draw()];
            let end = Era::at(self.shelf.len());
            if let Some((peer, era)) = self.peers.any_claim(end, is_doubted, lots) {
                self.audit(peer, era, true);
            }
        }
    }

    /// The budget and the part by which it may be exceeded, in bytes.
    fn limits(&self) -> (u64, u64) {
        let limit = self.shelf.limit();
        (limit, limit.saturating_add(limit / OVER_PART))
    }
}

#[cfg(test)]
mod tests;
