#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::cast_possible_truncation)]

use ledger::hash::Hash;

use super::*;

const START: Duration = Duration::from_secs(1_000);

fn key(number: u64) -> Key {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Key(Hash(bytes))
}

fn holder(id: u64) -> Holder {
    Holder::new(&id.to_be_bytes(), [Box::from(*b"address")]).unwrap()
}

/// The subnets of a key's holders, in order.
fn subnets(records: &Records, now: Duration, of: Key) -> Vec<u64> {
    let held = records.holders(now, of).map(|one| records.keys[&of][one.id()].subnet);
    let mut subnets: Vec<u64> = held.collect();
    subnets.sort_unstable();
    subnets
}

/// Checks all indexes against the records themselves.
fn assert_consistent(records: &Records) {
    let (mut holders, mut subnets) = (BTreeMap::new(), BTreeMap::<u64, usize>::new());
    let mut ends = BTreeSet::new();
    for (key, of_key) in &records.keys {
        assert!(!of_key.is_empty() && of_key.len() <= PER_KEY_MAX);
        for (id, record) in of_key {
            *holders.entry(Arc::clone(id)).or_insert(0) += 1;
            *subnets.entry(record.subnet).or_default() += 1;
            ends.insert((record.until, (*key, Arc::clone(id))));
        }
    }
    assert!(ends.len() <= RECORDS_MAX);
    assert!(holders.values().all(|count| *count <= PER_HOLDER_MAX));
    assert!(subnets.values().all(|count| *count <= PER_SUBNET_MAX));
    let sizes = subnets.iter().map(|(subnet, size)| (*size, *subnet)).collect();
    let counted = records.subnets.iter().map(|(subnet, names)| (*subnet, names.len()));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), subnets);
    assert_eq!((&records.sizes, &records.ends), (&sizes, &ends));
    assert_eq!(records.holders, holders);
}

#[test]
fn a_record_counts_until_its_lifetime_ends_and_is_renewed() {
    let mut records = Records::new(1);
    records.add(START, key(1), holder(1), 1).unwrap();
    records.add(START, key(1), holder(2), 1).unwrap();
    let later = START + RENEWED_EVERY;
    let moved = Holder::new(holder(1).id(), [Box::from(*b"moved")]).unwrap();
    records.add(later, key(1), moved.clone(), 2).unwrap();
    assert_eq!(subnets(&records, later, key(1)), [1, 2]);
    let end = START + LIFETIME;
    assert_eq!(records.holders(end, key(1)).collect::<Vec<_>>(), [&moved]);
    assert_eq!(records.len(), 2, "the other one is forgotten with the next change");
    records.add(end, key(2), holder(3), 1).unwrap();
    assert_eq!(records.len(), 2);
    records.remove(key(1), moved.id());
    records.remove(key(1), moved.id());
    assert!(records.holders(end, key(1)).next().is_none());
    assert_consistent(&records);
}

#[test]
fn one_holder_has_512_records_and_one_subnet_2048() {
    let mut records = Records::new(1);
    for number in 0..1_000 {
        let expected = if number < 512 { Ok(()) } else { Err(Refusal::ManyOfHolder) };
        assert_eq!(records.add(START, key(number), holder(1), 1), expected, "{number}");
    }
    for number in 0..3_000 {
        let is_room = number < 2_048 - 512;
        let expected = if is_room { Ok(()) } else { Err(Refusal::ManyOfSubnet) };
        let newcomer = holder(2 + number);
        assert_eq!(records.add(START, key(5_000 + number), newcomer, 1), expected, "{number}");
    }
    // What is here can be renewed, but not moved to a subnet that is full.
    records.add(START, key(0), holder(1), 1).unwrap();
    records.add(START, key(0), holder(9_999), 2).unwrap();
    assert_eq!(records.add(START, key(0), holder(9_999), 1), Err(Refusal::ManyOfSubnet));
    assert_eq!(subnets(&records, START, key(0)), [1, 2]);
    assert_eq!(records.len(), 2_049);
    assert_consistent(&records);
}

#[test]
fn a_newcomer_replaces_one_of_the_subnet_that_has_most_of_a_full_key() {
    // subnets of the 20 that are here, of the newcomer, of the 20 that are here then
    let two = |one: u64, other: u64, ones: usize| {
        let subnet = move |at| if at < ones { one } else { other };
        (0..PER_KEY_MAX).map(subnet).collect::<Vec<u64>>()
    };
    for (before, newcomer, after) in [
        (two(1, 2, 12), 2, two(1, 2, 11)),
        (two(1, 2, 10), 1, two(1, 2, 10)),
        (two(1, 2, 10), 2, two(1, 2, 10)),
        (two(1, 2, 20), 1, two(1, 2, 20)),
        (two(1, 2, 1), 1, two(1, 2, 2)),
    ] {
        let mut records = Records::new(3);
        for (id, subnet) in (0..).zip(&before) {
            records.add(START, key(1), holder(id), *subnet).unwrap();
        }
        records.add(START, key(1), holder(99), newcomer).unwrap();
        assert_eq!(subnets(&records, START, key(1)), after, "{before:?} and {newcomer}");
        assert!(records.holders(START, key(1)).any(|one| *one == holder(99)), "the newcomer stays");
        assert_consistent(&records);
    }
    // All 20 are of different subnets, so each one of them may go.
    let gone = |seed| {
        let mut records = Records::new(seed);
        (0..20).for_each(|id| records.add(START, key(1), holder(id), id).unwrap());
        records.add(START, key(1), holder(99), 99).unwrap();
        (0..20).find(|id| !subnets(&records, START, key(1)).contains(id)).unwrap()
    };
    assert_eq!((0..300).map(gone).collect::<BTreeSet<u64>>().len(), 20);
}

#[test]
fn thousands_of_identities_of_one_subnet_displace_no_other_holder_of_a_key() {
    let mut records = Records::new(5);
    (0..5).for_each(|id| records.add(START, key(1), holder(id), id).unwrap());
    for id in 100..5_000 {
        records.add(START, key(1), holder(id), 66).unwrap();
    }
    let expected: Vec<u64> = (0..5).chain([66; 15]).collect();
    assert_eq!(subnets(&records, START, key(1)), expected);
    // An honest newcomer still finds a place.
    records.add(START, key(1), holder(7), 7).unwrap();
    assert!(subnets(&records, START, key(1)).contains(&7));
    assert_consistent(&records);
}

/// An attacker fills the store from many subnets, with other keys than those of the honest nodes.
#[test]
fn a_full_store_still_takes_in_and_keeps_the_records_of_others() {
    let mut records = Records::new(7);
    let add = |records: &mut Records, number| {
        records.add(START, key(number), holder(number), number).unwrap();
    };
    (0..50).for_each(|number| add(&mut records, number));
    let attack = |records: &mut Records, subnets: std::ops::Range<u64>| {
        for number in 0..2_048 {
            for subnet in subnets.clone() {
                let at = (1 + subnet) << 32 | number;
                let _refused = records.add(START, key(at), holder(at / 512), 1_000 + subnet);
            }
        }
    };
    attack(&mut records, 0..40);
    assert_eq!(records.len(), RECORDS_MAX);
    (50..100).for_each(|number| add(&mut records, number));
    attack(&mut records, 40..80);
    assert_eq!(records.len(), RECORDS_MAX);
    for number in 0..100 {
        let kept: Vec<&Holder> = records.holders(START, key(number)).collect();
        assert_eq!(kept, [&holder(number)], "{number}");
    }
    assert_consistent(&records);
}

#[test]
fn own_records_are_outside_all_limits_and_due_every_20_minutes() {
    let mut records = Records::new(1);
    let all = 3_000;
    (0..all).for_each(|number| records.provide(START, key(number)));
    records.withdraw(key(7));
    assert!(records.is_own(key(6)) && !records.is_own(key(7)) && records.is_empty());
    let due = |records: &mut Records, now| {
        std::iter::from_fn(|| records.take_due(now)).collect::<BTreeSet<Key>>().len() as u64
    };
    assert_eq!(due(&mut records, START), all - 1);
    records.provide(START + RENEWED_EVERY / 2, key(0));
    assert_eq!(due(&mut records, START + RENEWED_EVERY - Duration::from_nanos(1)), 0);
    assert_eq!(due(&mut records, START + RENEWED_EVERY), all - 1);
    records.provide(START + RENEWED_EVERY, key(7));
    assert_eq!(records.take_due(START + RENEWED_EVERY), Some(key(7)));
    for id in 0..30 {
        records.add(START, key(0), holder(id), id).unwrap();
    }
    assert!(records.is_own(key(0)));
}

#[test]
fn the_indexes_agree_after_any_changes() {
    let (mut records, mut lots, mut now) = (Records::new(11), Lots::new(12), START);
    for _ in 0..20_000 {
        now += Duration::from_secs(lots.below(60));
        let (key, id) = (key(lots.below(30)), lots.below(100));
        match lots.below(4) {
            0 => records.remove(key, holder(id).id()),
            _ => records.add(now, key, holder(id), lots.below(8)).unwrap(),
        }
    }
    assert!(!records.is_empty());
    assert_consistent(&records);
}
