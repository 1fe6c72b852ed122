//! One machine, input by input.

use std::time::Duration;

use super::super::{
    AUDIT_LASTS, Archive, Audit, Effect, GONE_COUNTS, Input, LOOK_WAIT_MAX, Setup, WholeEra,
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

    /// The questions of the second look.
    fn await_look(&mut self) -> Vec<(u64, RequestId)> {
        assert!(!self.machine.announcement().eras.contains(Era(0)), "not withdrawn");
        // The withdrawal is announced in the second in which it happens.
        for _ in 0..=LOOK_WAIT_MAX.as_secs() {
            let asked = exchanges(&self.second());
            if !asked.is_empty() {
                return asked;
            }
        }
        panic!("no second look");
    }
}

fn exchanges(effects: &[Effect]) -> Vec<(u64, RequestId)> {
    let exchange = |effect: &Effect| match effect {
        Effect::Exchange { peer, request } => Some((peer.0, *request)),
        _ => None,
    };
    effects.iter().filter_map(exchange).collect()
}

/// The era that this machine drops is audited at three others, withdrawn, looked for again, and
/// gone. `answer` is what each of the three says in the second look; `None` is no answer.
fn drop_with(answer: impl Fn(u64) -> Option<&'static [u64]>) -> (bool, Bench) {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.second();
    assert_eq!(bench.pass(&effects), [1, 2, 3]);
    assert!(bench.machine.announcement().eras.contains(Era(0)));
    assert_eq!(exchanges(&bench.second()).len(), 3, "the withdrawal is announced at once");
    for (peer, request) in bench.await_look() {
        if let Some(eras) = answer(peer) {
            bench.say(peer, eras, Some(request));
        }
    }
    let mut is_gone = false;
    for _ in 0..6 {
        is_gone |= bench.second().contains(&Effect::Drop(vec![Era(0)]));
    }
    assert_ne!(is_gone, bench.machine.announcement().eras.contains(Era(0)));
    (is_gone, bench)
}

#[test]
fn an_era_goes_only_if_all_answer_that_they_still_keep_it() {
    assert!(drop_with(|_| Some(&[0])).0);
    assert!(!drop_with(|peer| Some(if peer == 2 { &[] } else { &[0] })).0);
    assert!(!drop_with(|peer| (peer != 2).then_some(&[0u64][..])).0);
}

/// What a peer says of itself, unasked, does not prove that it kept the era after our withdrawal.
#[test]
fn only_answers_to_questions_after_the_withdrawal_count() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.second();
    bench.pass(&effects);
    let early = exchanges(&bench.second());
    bench.await_look();
    for (peer, request) in early {
        bench.say(peer, &[0], Some(request));
        bench.say(peer, &[0], None);
    }
    assert!((0..6).all(|_| !bench.second().contains(&Effect::Drop(vec![Era(0)]))));
}

#[test]
fn one_address_group_is_one_copy() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    for (peer, group) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        bench.meet(peer, group, &[0]);
    }
    assert_eq!(
        {
            let effects = bench.second();
            bench.pass(&effects)
        },
        [0; 0]
    );
    bench.meet(5, 3, &[0]);
    let effects = bench.second();
    let audited = bench.pass(&effects);
    assert!(audited.len() == 3 && audited.contains(&1) && audited.contains(&5), "{audited:?}");
}

#[test]
fn a_passed_audit_counts_for_a_day() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.second();
    let passed = bench.pass(&effects[..2]);
    assert_eq!(passed.len(), 2);
    // The audit of the third peer had no result.
    bench.now += AUDIT_LASTS / 2;
    let effects = bench.second();
    assert!(bench.pass(&effects).len() <= 2, "the third peer, and one in the background");
    bench.now += AUDIT_LASTS / 2;
    let effects = bench.second();
    let audited = bench.pass(&effects);
    assert!(passed.iter().all(|peer| audited.contains(peer)), "{passed:?} {audited:?}");
}

/// Two peers proved an era before they were of one group.
#[test]
fn proofs_of_one_address_group_are_one_proof() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.second();
    assert_eq!(bench.pass(&effects), [1, 2, 3]);
    bench.give(Input::Disconnected(PeerId(3)));
    bench.give(Input::Connected { peer: PeerId(4), id: 3u64.to_le_bytes().into(), group: 2 });
    (0..20).for_each(|_| drop(bench.second()));
    assert!(bench.machine.announcement().eras.contains(Era(0)));
}

/// The peer that has no chunk to show is replaced by another one, and is asked again what it keeps.
#[test]
fn a_failed_audit_costs_the_claim_and_a_repeated_claim_all_of_them() {
    let mut bench = Bench::new(2, Keep::Bytes(1));
    (1..=4).for_each(|peer| drop(bench.meet(peer, peer, &[0, 1])));
    let effects = bench.second();
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
