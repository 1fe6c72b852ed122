//! What a machine believes of its peers.

use std::time::Duration;

use super::super::{Audit, Effect, GONE_COUNTS, Input};
use super::bench::{Bench, audits, exchanges};
use super::*;
use crate::ids::PeerId;

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
    let other = 1 - era.index();
    assert_eq!((bench.copies()[era.index()], bench.copies()[other]), (3, 4));
    let (_, question) = exchanges(&effects)[0];
    assert_eq!(exchanges(&effects), [(liar, question)]);
    let effects = bench.say(liar, &[0, 1], Some(question));
    let repeated = self::audits(&effects);
    assert_eq!(repeated.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [liar]);
    assert_eq!(bench.copies()[other], 4, "it may have withdrawn the era for a moment");
    bench.give(Input::Audited(repeated[0].1, Audit::Failed));
    assert_eq!(bench.copies(), [3, 3], "it claims what it could not show twice");
    let (peer, request, _) = audits[1];
    assert_ne!(peer, liar);
    bench.give(Input::Audited(request, Audit::Passed));
}

/// An honest node that has withdrawn an era answers *not kept*, and may serve it again soon.
#[test]
fn an_era_that_is_not_claimed_any_more_was_no_lie() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let effects = bench.await_audits();
    bench.give(Input::Audited(audits(&effects)[0].1, Audit::Failed));
    let asked = exchanges(&bench.second());
    let (_, question) = asked.into_iter().find(|(peer, _)| *peer == 1).unwrap();
    bench.say(1, &[], Some(question));
    assert_eq!(bench.copies(), [2]);
    bench.say(1, &[0], None);
    assert_eq!(bench.copies(), [3]);
}

/// A flood makes a peer busy, or its answers are late, for a few seconds.
#[test]
fn a_short_trouble_costs_no_claim() {
    for result in [Audit::Busy, Audit::Unanswered] {
        let mut bench = Bench::new(8, Keep::Bytes(0));
        (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0, 1, 2, 3, 4, 5, 6, 7])));
        let start = bench.now;
        while bench.now - start < Duration::from_secs(25) {
            for (_, request) in audits(&bench.second()) {
                bench.give(Input::Audited(request, result));
            }
        }
        assert_eq!(bench.copies(), [3; 8]);
    }
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

/// An honest node withdraws an era and takes it back. The answer that claims the era was given
/// before.
#[test]
fn only_an_answer_to_a_later_question_repeats_a_claim() {
    let mut bench = Bench::new(1, Keep::Bytes(0));
    (1..=3).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    let (_, early) = exchanges(&bench.second())[0];
    let effects = bench.await_audits();
    bench.give(Input::Audited(audits(&effects)[0].1, Audit::Failed));
    assert_eq!(audits(&bench.say(1, &[0], Some(early))), []);
    let (_, late) = exchanges(&bench.second())[0];
    let again = audits(&bench.say(1, &[0], Some(late)));
    assert_eq!(again.len(), 1, "it claims the era still");
    bench.give(Input::Audited(again[0].1, Audit::Passed));
    assert_eq!(bench.copies(), [3]);
}

/// It takes a claim back whenever an audit has failed, and makes it again.
#[test]
fn a_peer_that_never_shows_what_it_claims_is_doubted_in_the_end() {
    let mut bench = Bench::new(2, Keep::Full);
    bench.meet(1, 1, &[0, 1]);
    for _ in 0..60 * 60 {
        let effects = bench.second();
        for (_, question) in exchanges(&effects) {
            bench.say(1, &[], Some(question));
            bench.say(1, &[0, 1], None);
        }
        for (_, request) in audits(&effects) {
            bench.give(Input::Audited(request, Audit::Failed));
        }
    }
    assert_eq!(bench.copies(), [0, 0]);
}

#[test]
fn another_identity_of_the_same_address_group_is_doubted_too() {
    let mut bench = Bench::new(1, Keep::Full);
    bench.meet(1, 7, &[0]);
    for _ in 0..120 {
        let mut effects = bench.second();
        for (_, question) in exchanges(&effects) {
            effects.extend(bench.say(1, &[0], Some(question)));
        }
        for (_, request) in audits(&effects) {
            bench.give(Input::Audited(request, Audit::Failed));
        }
    }
    assert_eq!(bench.copies(), [0]);
    bench.give(Input::Disconnected(PeerId(1)));
    bench.meet(2, 7, &[0]);
    bench.meet(3, 8, &[0]);
    let believed =
        |bench: &Bench| [2, 3].map(|peer| bench.machine.believed(PeerId(peer)).ranges().count());
    assert_eq!((bench.copies(), believed(&bench)), (vec![1], [0, 1]), "the other group");
    bench.run(10 * 60);
    assert_eq!((bench.copies(), believed(&bench)), (vec![2], [1, 1]), "it has passed an audit");
}

/// Many identities come and go, and claim an era or nothing.
#[test]
fn a_crowd_does_not_make_this_node_forget_who_is_gone_for_a_moment() {
    let mut bench = Bench::new(1, Keep::Full);
    (1..=2).for_each(|peer| drop(bench.meet(peer, peer, &[0])));
    bench.run(1);
    (1..=2).for_each(|peer| drop(bench.give(Input::Disconnected(PeerId(peer)))));
    for peer in 1_000..2_000 {
        bench.meet(peer, 7, &[0]);
        bench.give(Input::Disconnected(PeerId(peer)));
        bench.meet(10_000 + peer, peer, &[]);
        bench.give(Input::Disconnected(PeerId(10_000 + peer)));
    }
    assert_eq!(bench.copies(), [3]);
}
