//! Eras that cannot be read whole.
//!
//! The rest of such an era may be the last copy. So it stays, served to nobody, until another node
//! has shown that it has the era. Then it is dropped, and fetched if it is to be here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::shelf::Presence;
use super::{Archive, Effect};
use crate::eras::Era;

impl Archive {
    /// An era cannot be read whole. If it was withdrawn already, it leaves the batch.
    pub(super) fn on_damaged(&mut self, era: Era) {
        let damaged = Presence::Damaged(self.now);
        if self.shelf.turn(era, Presence::Kept, damaged) {
            self.effects.push(Effect::Withdraw(vec![era]));
            self.announce_at_once();
        } else {
            self.shelf.turn(era, Presence::Leaving, damaged);
        }
    }

    /// Drops the damaged eras that another node has shown since they were withdrawn, and audits
    /// others for the rest.
    pub(super) fn drop_damaged(&mut self) {
        let damaged = |(era, presence)| match presence {
            Presence::Damaged(since) => Some((era, since)),
            _ => None,
        };
        let all = self.shelf.slots().map(|(era, slot)| (era, slot.presence));
        let all: Vec<(Era, Duration)> = all.filter_map(damaged).collect();
        for (era, since) in all {
            if self.peers.is_shown(era, since) {
                self.shelf.turn(era, Presence::Damaged(since), Presence::Absent);
                self.effects.push(Effect::Drop(vec![era]));
            } else {
                self.audit_for(era);
            }
        }
    }

    /// Audits a peer for an era that is not about to be dropped.
    pub(super) fn audit_for(&mut self, era: Era) {
        if self.audits.has_spare() {
            let candidates = self.peers.candidates(era, &BTreeMap::new());
            self.audit_more(era, 1, candidates);
        }
    }
}
