//! One machine, input by input.

use std::time::Duration;

use super::super::{
    AUDITS_LAST, Archive, Audit, Effect, GONE_COUNTS, Input, Setup, WAIT_MAX, WholeEra,
};
use super::*;
use crate::eras::{Announcement, Era, EraRanges};
use crate::ids::{PeerId, RequestId};

/// A machine with eras of one byte, its peers, and a clock.
struct Bench {
    machine: Archive,
    now: Duration,
}

impl Bench {
    /// A machine that has all of these eras.
    fn new(eras: usize, keep: Keep) -> Self {
        let eras = vec![WholeEra { bytes: 1, is_kept: true }; eras];
        let setup = Setup { id: (*b"us").into(), keep, eras, gone_counts: GONE_COUNTS, seed: 1 };
        Self { machine: Archive::new(setup, Duration::ZERO), now: Duration::ZERO }
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        self.machine.handle(self.now, input)
    }

    /// Connects a peer of an address group that claims these eras.
    fn meet(&mut self, peer: u64, group: u64, eras: &[u64]) -> Vec<Effect> {
        let id = peer.to_le_bytes().into();
        let mut effects = self.give(Input::Connected { peer: PeerId(peer), id, group });
        effects.extend(self.say(peer, eras, None));
        effects
    }

    fn say(&mut self, peer: u64, eras: &[u64], answers: Option<RequestId>) -> Vec<Effect> {
        let eras = EraRanges::of(eras.iter().copied().map(Era));
        let announcement = Announcement { is_archive: true, eras };
        self.give(Input::Announced { peer: PeerId(peer), announcement, answers })
    }

    /// The effects of the next second.
    fn second(&mut self) -> Vec<Effect> {
        self.now += Duration::from_secs(1);
        self.give(Input::Time)
    }

    /// Lets peers pass the audits among these effects. Returns the audited peers.
    fn pass(&mut self, effects: &[Effect]) -> Vec<u64> {
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
    fn await_audits(&mut self) -> Vec<Effect> {
        for _ in 0..=WAIT_MAX.as_secs() + 1 {
            let effects = self.second();
            if effects.iter().any(|effect| matches!(effect, Effect::Audit { .. })) {
                return effects;
            }
        }
        panic!("no audit");
    }
}

fn exchanges(effects: &[Effect]) -> Vec<(u64, RequestId)> {
    let exchange = |effect: &Effect| match effect {
        Effect::Exchange { peer, request } => Some((peer.0, *request)),
        _ => None,
    };
    effects.iter().filter_map(exchange).collect()
}

fn audits(effects: &[Effect]) -> Vec<(u64, RequestId)> {
    let audit = |effect: &Effect| match effect {
        Effect::Audit { peer, request, .. } => Some((peer.0, *request)),
        _ => None,
    };
    let mut audits: Vec<_> = effects.iter().filter_map(audit).collect();
    audits.sort_unstable();
    audits
}

/// The era that this machine drops is withdrawn, audited at three others, and gone or restored.
/// `result` is that of each audit; `None` is no answer.
fn drop_with(result: impl Fn(u64) -> Option<Audit>) -> (bool, Bench) {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.second();
    assert!(effects.contains(&Effect::Withdraw(vec![Era(0)])), "{effects:?}");
    assert_eq!(exchanges(&effects).len(), 3, "the withdrawal is announced at once");
    let effects = bench.await_audits();
    assert_eq!(audits(&effects).iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [1, 2, 3]);
    for (peer, request) in audits(&effects) {
        if let Some(result) = result(peer) {
            bench.give(Input::Audited(request, result));
        }
    }
    for _ in 0..=AUDITS_LAST.as_secs() {
        let effects = bench.second();
        let is_gone = effects.contains(&Effect::Drop(vec![Era(0)]));
        assert_eq!(bench.machine.announcement().eras.contains(Era(0)), {
            effects.contains(&Effect::Restore(vec![Era(0)]))
        });
        if is_gone || effects.contains(&Effect::Restore(vec![Era(0)])) {
            return (is_gone, bench);
        }
        // The silent peer is asked again, and says nothing.
    }
    panic!("neither gone nor restored");
}

#[test]
fn an_era_goes_only_if_three_show_it_after_the_withdrawal() {
    assert!(drop_with(|_| Some(Audit::Passed)).0);
    assert!(!drop_with(|peer| Some(if peer == 2 { Audit::Failed } else { Audit::Passed })).0);
    assert!(!drop_with(|peer| (peer != 2).then_some(Audit::Passed)).0);
}

/// Peers may have had the chunks that they showed before the withdrawal from this node.
#[test]
fn only_audits_that_began_after_the_withdrawal_count() {
    let mut bench = Bench::new(1, Keep::Full);
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let mut early = Vec::new();
    while early.len() < 3 {
        let effects = bench.second();
        for (peer, request) in audits(&effects) {
            early.push((peer, request));
            // Those of the last minute are answered after the withdrawal.
            if early.len() < 3 {
                bench.give(Input::Audited(request, Audit::Passed));
            }
        }
    }
    bench.give(Input::Keep(Keep::Bytes(0)));
    bench.second();
    bench.give(Input::Audited(early[2].1, Audit::Passed));
    let audited = audits(&bench.await_audits());
    assert_eq!(audited.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [1, 2, 3]);
    for (_, request) in &audited[..2] {
        bench.give(Input::Audited(*request, Audit::Passed));
        assert!(!bench.second().contains(&Effect::Drop(vec![Era(0)])));
    }
    bench.give(Input::Audited(audited[2].1, Audit::Passed));
    assert!(bench.second().contains(&Effect::Drop(vec![Era(0)])));
}

#[test]
fn one_address_group_is_one_copy() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    for (peer, group) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        bench.meet(peer, group, &[0]);
    }
    (0..20).for_each(|_| assert_eq!(audits(&bench.second()), []));
    bench.meet(5, 3, &[0]);
    let effects = bench.await_audits();
    let audited = bench.pass(&effects);
    assert!(audited.len() == 3 && audited.contains(&1) && audited.contains(&5), "{audited:?}");
}

/// Two peers proved an era before they were of one group.
#[test]
fn proofs_of_one_address_group_are_one_proof() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.await_audits();
    for (_, request) in audits(&effects) {
        bench.give(Input::Audited(request, Audit::Passed));
        bench.give(Input::Disconnected(PeerId(3)));
        bench.give(Input::Connected { peer: PeerId(4), id: 3u64.to_le_bytes().into(), group: 2 });
    }
    assert!(bench.second().contains(&Effect::Restore(vec![Era(0)])));
}

/// The peer that has no chunk to show is replaced by another one, and is asked again what it keeps.
#[test]
fn a_failed_audit_costs_the_claim_and_a_repeated_claim_all_of_them() {
    let mut bench = Bench::new(2, Keep::Bytes(1));
    (1..=4).for_each(|peer| drop(bench.meet(peer, peer, &[0, 1])));
    let effects = bench.await_audits();
    let audits: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Audit { peer, request, era, .. } => Some((peer.0, *request, *era)),
            _ => None,
        })
        .collect();
    assert_eq!(audits.len(), COPIES);
    let (liar, request, era) = audits[0];
    bench.give(Input::Audited(request, Audit::Failed));
    let effects = bench.second();
    let replaced = |effect: &Effect| {
        matches!(effect, Effect::Audit { peer, era: of, .. }
            if audits.iter().all(|audit| audit.0 != peer.0) && *of == era)
    };
    assert!(effects.iter().any(replaced), "{effects:?}");
    let copies = |bench: &mut Bench| {
        bench.second();
        bench.machine.plan.clone().unwrap().counts.copies
    };
    let other = 1 - era.index();
    assert_eq!((copies(&mut bench)[era.index()], copies(&mut bench)[other]), (3, 4));
    let (_, question) = exchanges(&effects)[0];
    assert_eq!(exchanges(&effects), [(liar, question)]);
    bench.say(liar, &[0, 1], Some(question));
    assert_eq!(copies(&mut bench), [3, 3], "it claims what it could not show");
    let (peer, request, _) = audits[1];
    assert_ne!(peer, liar);
    bench.give(Input::Audited(request, Audit::Passed));
}

#[test]
fn peers_and_what_is_known_of_them_are_bounded() {
    let mut bench = Bench::new(1, Keep::Full);
    for peer in 1..=1_000 {
        bench.meet(peer, peer, &[0]);
        if peer > 100 {
            bench.give(Input::Disconnected(PeerId(peer)));
        }
    }
    assert_eq!(bench.machine.peers.len(), 256);
    bench.now += GONE_COUNTS;
    bench.second();
    assert_eq!(bench.machine.peers.len(), 100, "those that are gone are forgotten");
    // A peer that comes back in time keeps its record under its new number.
    bench.give(Input::Disconnected(PeerId(7)));
    let id = 7u64.to_le_bytes().into();
    bench.give(Input::Connected { peer: PeerId(5_000), id, group: 7 });
    bench.second();
    assert_eq!(bench.machine.peers.len(), 100);
    assert_eq!(bench.machine.plan.as_ref().unwrap().counts.live, [100]);
}

#[test]
fn a_damaged_era_is_fetched_again_and_failed_fetches_are_put_off() {
    let mut bench = Bench::new(3, Keep::Full);
    bench.meet(1, 1, &[0, 1, 2]);
    bench.give(Input::Lost(Era(1)));
    assert!(!bench.machine.announcement().eras.contains(Era(1)));
    assert!(bench.second().contains(&Effect::Fetch(Era(1))));
    bench.give(Input::Unfetched(Era(1)));
    assert!(!bench.second().contains(&Effect::Fetch(Era(1))));
    bench.now += Duration::from_secs(30);
    assert!(bench.second().contains(&Effect::Fetch(Era(1))));
    bench.give(Input::Fetched(Era(1)));
    assert!(bench.machine.announcement().eras.contains(Era(1)));
}
