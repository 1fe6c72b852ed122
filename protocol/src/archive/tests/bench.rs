//! One machine, its peers and a clock, for tests that go input by input.

use std::time::Duration;

use super::super::{Archive, Audit, Effect, GONE_COUNTS, Input, Keep, Setup, WAIT_MAX, WholeEra};
use crate::eras::{Announcement, Era, EraRanges};
use crate::ids::{PeerId, RequestId};

/// A machine with eras of one byte, its peers, and a clock.
pub(super) struct Bench {
    pub(super) machine: Archive,
    pub(super) now: Duration,
}

impl Bench {
    /// A machine that has all of these eras.
    pub(super) fn new(eras: usize, keep: Keep) -> Self {
        Self::of(vec![WholeEra { bytes: 1, is_kept: true }; eras], keep)
    }

    /// A machine and all eras.
    pub(super) fn of(eras: Vec<WholeEra>, keep: Keep) -> Self {
        let setup = Setup { id: (*b"us").into(), keep, eras, gone_counts: GONE_COUNTS, seed: 1 };
        Self { machine: Archive::new(setup, Duration::ZERO), now: Duration::ZERO }
    }

    pub(super) fn give(&mut self, input: Input) -> Vec<Effect> {
        self.machine.handle(self.now, input)
    }

    /// Connects a peer of an address group that claims these eras.
    pub(super) fn meet(&mut self, peer: u64, group: u64, eras: &[u64]) -> Vec<Effect> {
        let id = peer.to_le_bytes().into();
        let mut effects = self.give(Input::Connected { peer: PeerId(peer), id, group });
        effects.extend(self.say(peer, eras, None));
        effects
    }

    pub(super) fn say(
        &mut self,
        peer: u64,
        eras: &[u64],
        answers: Option<RequestId>,
    ) -> Vec<Effect> {
        let eras = EraRanges::of(eras.iter().copied().map(Era));
        let announcement = Announcement { is_archive: true, eras };
        self.give(Input::Announced { peer: PeerId(peer), announcement, answers })
    }

    /// The copies that are counted in the next second.
    pub(super) fn copies(&mut self) -> Vec<usize> {
        self.second();
        self.machine.plan.as_ref().unwrap().counts.copies.clone()
    }

    /// Runs for this time, and lets peers pass all audits. Returns the other effects.
    pub(super) fn run(&mut self, seconds: u64) -> Vec<Effect> {
        let mut all = Vec::new();
        for _ in 0..seconds {
            let effects = self.second();
            self.pass(&effects);
            all.extend(effects);
        }
        all.retain(|effect| !matches!(effect, Effect::Audit { .. } | Effect::Exchange { .. }));
        all
    }

    /// The effects of the next second.
    pub(super) fn second(&mut self) -> Vec<Effect> {
        self.now += Duration::from_secs(1);
        self.give(Input::Time)
    }

    /// Lets peers pass the audits among these effects. Returns the audited peers.
    pub(super) fn pass(&mut self, effects: &[Effect]) -> Vec<u64> {
        let mut peers = Vec::new();
        for effect in effects {
            if let Effect::Audit { peer, request, .. } = effect {
                peers.push(peer.0);
                self.give(Input::Audited(*request, Audit::Passed));
            }
        }
        peers.sort_unstable();
        peers
    }

    /// Waits until an era is withdrawn and audited.
    pub(super) fn await_audits(&mut self) -> Vec<Effect> {
        for _ in 0..=WAIT_MAX.as_secs() + 1 {
            let effects = self.second();
            if effects.iter().any(|effect| matches!(effect, Effect::Audit { .. })) {
                return effects;
            }
        }
        panic!("no audit");
    }
}

pub(super) fn exchanges(effects: &[Effect]) -> Vec<(u64, RequestId)> {
    let exchange = |effect: &Effect| match effect {
        Effect::Exchange { peer, request } => Some((peer.0, *request)),
        _ => None,
    };
    effects.iter().filter_map(exchange).collect()
}

pub(super) fn audits(effects: &[Effect]) -> Vec<(u64, RequestId)> {
    let audit = |effect: &Effect| match effect {
        Effect::Audit { peer, request, .. } => Some((peer.0, *request)),
        _ => None,
    };
    let mut audits: Vec<_> = effects.iter().filter_map(audit).collect();
    audits.sort_unstable();
    audits
}
