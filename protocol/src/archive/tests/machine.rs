//! Withdrawals, audits and drops of one machine, input by input.

use std::time::Duration;

use super::super::{AUDITS_LAST, Audit, Effect, GONE_COUNTS, Input, Notice, WAIT_MAX, place_hash};
use super::bench::{Bench, audits, exchanges};
use super::*;
use crate::eras::Era;
use crate::ids::PeerId;

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

/// Peers that leave audits unanswered have better places than the three honest ones.
#[test]
fn silent_peers_do_not_keep_an_era_from_being_dropped() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    let place = |peer: &u64| place_hash(Era(0), &peer.to_le_bytes());
    let mut peers: Vec<u64> = (1..=12).collect();
    peers.sort_by_key(place);
    peers.iter().for_each(|peer| drop(bench.meet(*peer, *peer, &[0])));
    let honest = &peers[9..];
    for _ in 0..=(WAIT_MAX + AUDITS_LAST).as_secs() {
        let effects = bench.second();
        if effects.contains(&Effect::Drop(vec![Era(0)])) {
            return;
        }
        for (peer, request) in audits(&effects).into_iter().filter(|(p, _)| honest.contains(p)) {
            assert!(honest.contains(&peer));
            bench.give(Input::Audited(request, Audit::Passed));
        }
    }
    panic!("not dropped");
}

/// Fresh identities claim everything all the time, and show nothing.
#[test]
fn claims_alone_neither_keep_the_operator_uninformed_nor_fewer_copies_from_being_enough() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    bench.meet(1, 1, &[0]);
    let (mut told_at, mut dropped_at) = (None, None);
    for second in 0..60 * 60u64 {
        if second % 20 == 0 {
            (0..3).for_each(|group| drop(bench.meet(1_000 + second + group, 10 + group, &[0])));
        }
        let effects = bench.second();
        let is_over = |effect: &Effect| matches!(effect, Effect::Notice(Notice::OverBudget { .. }));
        if effects.iter().any(is_over) {
            told_at.get_or_insert(second);
        }
        if effects.contains(&Effect::Drop(vec![Era(0)])) {
            dropped_at = Some(Duration::from_secs(second));
            break;
        }
        for (_, request) in audits(&effects).into_iter().filter(|(peer, _)| *peer == 1) {
            bench.give(Input::Audited(request, Audit::Passed));
        }
        if second % 20 == 19 {
            let gone = second - 19;
            (0..3).for_each(|group| {
                drop(bench.give(Input::Disconnected(PeerId(1_000 + gone + group))))
            });
        }
    }
    assert!(told_at.is_some_and(|second| second < 70), "{told_at:?}");
    assert!(dropped_at.is_some_and(|at| at >= GONE_COUNTS * 2), "{dropped_at:?}");
}
