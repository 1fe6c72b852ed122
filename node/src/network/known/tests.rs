//! What is remembered, replaced and forgotten.
#![allow(clippy::unwrap_used)]

use super::*;

const MINUTE: u64 = 60_000;

fn at(a: u16, b: u16) -> Multiaddr {
    format!("/ip4/{}.{}.{}.{}/tcp/7700", 1 + a / 256, a % 256, b / 256, b % 256).parse().unwrap()
}

/// The group of a source. The sources of different numbers are of different groups.
fn source(number: u16) -> Group {
    Grouping::default().of(&at(number, 0))
}

fn addresses() -> Addresses {
    Addresses::new(Grouping::default())
}

#[test]
fn a_peer_that_left_is_forgotten_within_half_an_hour() {
    let (mut addresses, peer) = (addresses(), PeerId::random());
    let left = 1_000_000_000_000;
    addresses.on_success(peer, &at(1, 1), left - 100 * MINUTE);
    addresses.on_left(&peer, left);
    let (mut now, mut dials, mut is_gone) = (left, 0, false);
    while !is_gone {
        assert!(now <= left + 30 * MINUTE, "not forgotten after {dials} dials");
        if addresses.pick(now, 0, |_, _| true).is_some() {
            dials += 1;
            is_gone = addresses.on_failure(&peer, &[at(1, 1)], now);
        }
        now += 1_000;
    }
    assert!(now >= left + 10 * MINUTE && (3..=6).contains(&dials), "{dials} dials");
    assert!(addresses.all().is_empty());
}

#[test]
fn a_peer_that_comes_back_is_kept() {
    let (mut addresses, peer) = (addresses(), PeerId::random());
    addresses.on_success(peer, &at(1, 1), 0);
    for minute in [1, 2, 3, 4] {
        assert!(!addresses.on_failure(&peer, &[at(1, 1)], minute * MINUTE));
    }
    addresses.on_success(peer, &at(1, 1), 15 * MINUTE);
    assert!(!addresses.on_failure(&peer, &[at(1, 1)], 16 * MINUTE));
    assert!(addresses.on_failure(&PeerId::random(), &[at(1, 1)], 0), "nothing is known of it");
    // This node was off for a day, so the address last worked long ago. Even so, it is
    // forgotten only after the third failure in a row, which comes a minute later.
    let day_later = 16 * MINUTE + 24 * 60 * MINUTE;
    for (minute, is_gone) in [(0, false), (1, true)] {
        assert_eq!(
            addresses.on_failure(&peer, &[at(1, 1)], day_later + minute * MINUTE),
            is_gone,
            "{minute}"
        );
    }
}

#[test]
fn one_group_cannot_push_out_the_others() {
    let mut addresses = addresses();
    let honest = PeerId::random();
    addresses.on_success(honest, &at(0, 1), 5);
    for number in 0..2_560 {
        addresses.claimed(PeerId::random(), &[at(1, number)], source(number), 10);
    }
    assert_eq!(addresses.all().len(), 10 * PER_GROUP_MAX + 1);
    for number in 0..5_000 {
        let claim = at(2 + number % 3_000, number / 3_000);
        addresses.claimed(PeerId::random(), &[claim], source(number), 10);
    }
    assert_eq!(addresses.all().len(), ADDRESSES_MAX);
    assert!(addresses.all().iter().any(|known| known.peer == honest));
}

#[test]
fn the_worst_of_a_full_group_gives_way() {
    let mut addresses = addresses();
    let peers: Vec<PeerId> = (0..PER_GROUP_MAX).map(|_| PeerId::random()).collect();
    for (number, peer) in (0..).zip(&peers) {
        addresses.on_success(*peer, &at(1, number), 1_000);
    }
    addresses.on_failure(&peers[7], &[at(1, 7)], 2_000);
    addresses.claimed(PeerId::random(), &[at(1, 99)], source(1), 3_000);
    assert_eq!(addresses.all().len(), PER_GROUP_MAX);
    assert!(!addresses.all().iter().any(|known| known.peer == peers[7]));
}

/// Checks the stored counts against a new count.
fn assert_counted(addresses: &Addresses) {
    let mut counts: HashMap<Group, Count> = HashMap::new();
    for known in addresses.all() {
        let count = counts.entry(known.group).or_default();
        count.all += 1;
        count.unproved += usize::from(!known.is_proved);
    }
    assert_eq!(addresses.counts, counts);
}

#[test]
fn a_peers_next_claim_replaces_its_last_one() {
    let (mut addresses, liar, other) = (addresses(), PeerId::random(), PeerId::random());
    addresses.claimed(other, &[at(0, 1), at(1, 1)], source(0), 1);
    addresses.on_success(liar, &at(2, 1), 1);
    for round in 0..600 {
        let claim: Vec<Multiaddr> = (0..8).map(|number| at(3 + round, number << 8)).collect();
        addresses.claimed(liar, &claim, source(2), 2);
        let of_liar: Vec<&Known> =
            addresses.all().iter().filter(|known| known.peer == liar).collect();
        assert_eq!(of_liar.len(), PER_PEER_MAX);
        assert_eq!(
            of_liar.iter().filter(|known| claim.contains(&known.address)).count(),
            PER_PEER_MAX - 1
        );
        assert!(of_liar.iter().any(|known| known.is_proved), "a claim replaces no proved address");
    }
    assert_eq!(addresses.all().len(), PER_PEER_MAX + 2);
    assert_counted(&addresses);
    // A peer keeps at most eight addresses, even if all of them work.
    for number in 0..20 {
        addresses.on_success(liar, &at(4, number << 8), 3);
    }
    assert_eq!(addresses.all().iter().filter(|known| known.peer == liar).count(), PER_PEER_MAX);
    addresses.claimed(other, &[], source(0), 4);
    addresses.forget(&liar);
    assert!(addresses.all().is_empty());
    assert_counted(&addresses);
}

/// Each claim is alone in its group, so the honest peers have the largest group.
#[test]
fn claims_push_out_no_address_that_works() {
    let mut addresses = addresses();
    let honest: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
    for (number, peer) in (0..).zip(&honest) {
        addresses.on_success(*peer, &at(0, number), 5);
    }
    for number in 0..5_000 {
        addresses.claimed(PeerId::random(), &[at(1 + number, 0)], source(number), 10);
    }
    assert_eq!(addresses.all().len(), ADDRESSES_MAX);
    let kept =
        honest.iter().filter(|peer| addresses.all().iter().any(|known| known.peer == **peer));
    assert_eq!(kept.count(), honest.len());
    addresses.on_success(PeerId::random(), &at(6_000, 0), 11);
    assert_eq!(addresses.all().iter().filter(|known| known.is_proved).count(), honest.len() + 1);
    assert_eq!(addresses.all().len(), ADDRESSES_MAX);
    assert_counted(&addresses);
}

#[test]
fn only_who_may_be_dialed_is_picked() {
    let mut addresses = addresses();
    let (one, other) = (PeerId::random(), PeerId::random());
    addresses.claimed(one, &[at(1, 1)], source(1), 1);
    addresses.on_success(other, &at(2, 1), 1);
    for random in 0..20 {
        assert_eq!(addresses.pick(5, random, |peer, _| *peer == one).unwrap().peer, one);
        assert!(addresses.pick(5, random, |_, _| false).is_none());
    }
    let picked: Vec<PeerId> =
        (0..20).map(|random| addresses.pick(5, random, |_, _| true).unwrap().peer).collect();
    assert!(picked.contains(&one) && picked.contains(&other));
}

#[test]
fn nobody_replaces_what_a_peer_says_of_itself() {
    let (mut addresses, peer) = (addresses(), PeerId::random());
    addresses.claimed(peer, &[at(1, 1)], source(1), 1);
    addresses.heard(peer, &[at(2, 1)], source(2), 1);
    let of_peer = |addresses: &Addresses| -> Vec<Multiaddr> {
        addresses.all().iter().map(|known| known.address.clone()).collect()
    };
    assert_eq!(of_peer(&addresses), [at(1, 1)]);
    // A claim that fails leaves room for what others say.
    addresses.on_failure(&peer, &[at(1, 1)], 2);
    addresses.heard(peer, &[at(2, 1), at(3, 1), at(4, 1)], source(2), 3);
    assert_eq!(of_peer(&addresses), [at(1, 1), at(2, 1), at(3, 1)]);
    // What must not be dialed is not remembered, whoever says it.
    let (liar, private) = (PeerId::random(), "/ip4/10.0.0.1/tcp/1".parse().unwrap());
    addresses.heard(liar, &[private], source(2), 3);
    assert_eq!(addresses.all().len(), 3);
}

/// A source names a peer for each of thousands of groups, or comes with ever new identities that
/// claim addresses. Both replace only what the source said before.
#[test]
fn one_source_cannot_push_out_what_others_say() {
    let mut addresses = addresses();
    let honest: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
    for (number, peer) in (0..).zip(&honest) {
        addresses.heard(*peer, &[at(number, 0)], source(number % 2), 1);
    }
    let liar = source(7);
    for number in 0..5_000 {
        addresses.heard(PeerId::random(), &[at(100 + number, 0)], liar, 2);
        addresses.claimed(PeerId::random(), &[at(5_100 + number, 0)], liar, 2);
    }
    let of_liar = addresses.all().iter().filter(|known| !honest.contains(&known.peer)).count();
    assert_eq!((of_liar, addresses.all().len()), (PER_SOURCE_MAX, PER_SOURCE_MAX + honest.len()));
    // What has failed gives way first, and a proved address counts for no source.
    let (reached, failed) = (PeerId::random(), PeerId::random());
    addresses.heard(reached, &[at(1, 1)], liar, 2);
    addresses.on_success(reached, &at(1, 1), 3);
    addresses.heard(failed, &[at(2, 1)], liar, 4);
    addresses.on_failure(&failed, &[at(2, 1)], 5);
    for number in 0..100 {
        addresses.heard(PeerId::random(), &[at(11_000 + number, 0)], liar, 6);
    }
    let has = |peer| addresses.all().iter().any(|known| known.peer == peer);
    assert!(has(reached) && !has(failed));
    assert_counted(&addresses);
}

#[test]
fn a_liar_that_names_a_peer_first_keeps_no_other_source_out() {
    let (mut addresses, peer) = (addresses(), PeerId::random());
    addresses.heard(peer, &[at(1, 1)], source(1), 1);
    addresses.heard(peer, &[at(2, 1), at(3, 1), at(4, 1)], source(1), 1);
    let known = |addresses: &Addresses| -> Vec<Multiaddr> {
        addresses.all().iter().map(|known| known.address.clone()).collect()
    };
    assert_eq!(known(&addresses), [at(1, 1), at(2, 1)], "two of a source");
    addresses.heard(peer, &[at(5, 1)], source(2), 2);
    assert_eq!(known(&addresses), [at(1, 1), at(2, 1), at(5, 1)]);
    // What the peer says of itself replaces all that.
    addresses.claimed(peer, &[at(5, 1)], source(3), 3);
    addresses.heard(peer, &[at(6, 1)], source(4), 4);
    assert_eq!(known(&addresses), [at(5, 1)]);
}

#[test]
fn only_who_was_reached_lately_is_passed_on() {
    let (mut addresses, peer) = (addresses(), PeerId::random());
    addresses.claimed(peer, &[at(1, 1), at(2, 1), at(3, 1)], source(1), 1);
    assert!(addresses.reached_lately(&peer, 1).is_empty());
    assert_eq!(addresses.unreached(&peer, 1), [at(1, 1), at(2, 1), at(3, 1)]);
    assert!(addresses.on_success(peer, &at(1, 1), 2));
    assert!(!addresses.on_success(peer, &at(1, 1), 3), "that was known");
    assert_eq!(addresses.reached_lately(&peer, 2 + LATELY_MS), [at(1, 1)]);
    assert!(addresses.reached_lately(&peer, 3 + LATELY_MS).is_empty());
    addresses.on_failure(&peer, &[at(2, 1)], 3);
    assert_eq!(addresses.unreached(&peer, 4), [at(3, 1)], "neither who was reached nor who failed");
    addresses.on_failure(&peer, &[at(1, 1)], 5);
    assert!(addresses.reached_lately(&peer, 5).is_empty());
}

/// A source names ever new peers, and nothing comes of a look at any of them. Ground identities do
/// not come first.
#[test]
fn new_addresses_keep_no_older_one_from_being_looked_at() {
    let mut addresses = addresses();
    let mut peers: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
    peers.sort();
    let (honest, liars) = (peers.pop().unwrap(), peers);
    for (number, liar) in (0..).zip(&liars) {
        addresses.heard(*liar, &[at(1 + number, 0)], source(1), 1);
    }
    addresses.heard(honest, &[at(0, 1)], source(2), 2);
    for now in 3.. {
        assert!(now < 100, "the honest peer is never looked at");
        let look = addresses.stalest(false, now, |_| true).unwrap();
        let (peer, address) = (look.peer, look.address.clone());
        if peer == honest {
            break;
        }
        addresses.on_dial(&peer, &address, now);
        assert!(addresses.all().iter().all(|known| known.outcome() == Outcome::Untried));
        addresses.forget(&liars[usize::try_from(now).unwrap() % liars.len()]);
        addresses.heard(peer, &[at(100 + u16::try_from(now).unwrap(), 0)], source(1), now);
    }
}

#[test]
fn a_look_is_at_who_waits_longest() {
    let mut addresses = addresses();
    let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
    for (number, peer) in (0..).zip(&peers) {
        addresses.claimed(*peer, &[at(1, number)], source(1), 1);
    }
    addresses.on_failure(&peers[0], &[at(1, 0)], 2);
    addresses.on_success(peers[1], &at(1, 1), 4);
    addresses.on_success(peers[2], &at(1, 2), 3);
    let now = 3 + RETRY_MS;
    let look = |is_proved, not: &[PeerId]| {
        addresses.stalest(is_proved, now, |peer| !not.contains(peer)).map(|known| known.peer)
    };
    assert_eq!(look(false, &[]), Some(peers[3]), "who was never tried");
    assert_eq!(look(false, &[peers[3]]), Some(peers[0]));
    assert_eq!(look(false, &[peers[3], peers[0]]), None);
    assert_eq!((look(true, &[]), look(true, &[peers[2]])), (Some(peers[2]), Some(peers[1])));
    assert!(addresses.stalest(false, 3, |peer| *peer == peers[0]).is_none(), "not due yet");
}
