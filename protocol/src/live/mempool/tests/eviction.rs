//! Tests of which transactions leave: the replaced, the uncovered, and the worst of a full mempool.

use super::*;

/// The same body under another signature must not replace the first one for the same fee, not even
/// if bytes are free.
#[test]
fn a_replacement_always_costs_more() {
    let free = Limits { fee_per_byte: Amount(0), ..Limits::default() };
    let rows = [
        (&free, 0, SIZE, 1),
        (&free, 0, 1, 1),
        (&free, 100, SIZE, 110),
        (&free, 101, SIZE, 112),
        (CHAIN.limits(), 0, SIZE, LEAST.into()),
        (CHAIN.limits(), u64::MAX, SIZE, (u128::from(u64::MAX) * 11).div_ceil(10)),
    ];
    for (limits, old_fee, bytes, least) in rows {
        assert_eq!(
            least_to_replace(limits, &pay(1, 0, old_fee).signed(), bytes),
            least,
            "{old_fee} for {bytes}"
        );
    }
}

#[test]
fn an_earlier_nonce_pushes_out_what_the_balance_no_longer_covers() {
    let third = BALANCE / 3 - 10_000;
    let pays: Vec<Pay> =
        (1..4).map(|nonce| Pay { amount: third, ..pay(1, nonce, 10_000) }).collect();
    let mut fixture = Fixture::holding(9, &pays);
    assert_eq!(fixture.admit(&Pay { amount: third, ..pay(1, 0, 10_000) }), Ok(Admitted::New));
    assert_eq!(fixture.held(), [(1, 0), (1, 1), (1, 2)]);
    let replacement = Pay { amount: 2 * third + 2, ..pay(1, 0, 20_000) };
    let old = fixture.mempool.candidates(&fixture.chain, Timestamp(fixture.now), SIZE).remove(0);
    assert_eq!(fixture.admit(&replacement), Ok(Admitted::Replaced(Arc::clone(&old))));
    assert_eq!(fixture.held(), [(1, 0)]);
    assert_eq!((fixture.mempool.get(&old.hash()), fixture.mempool.find(&old.id())), (None, None));
}

#[test]
fn when_full_who_is_worth_least_leaves() {
    let long = |from, nonce, fee| Pay { memo: 150, ..pay(from, nonce, fee) };
    let plain = [pay(1, 0, 20_000), pay(2, 0, 30_000), pay(3, 0, 40_000)];
    let chained = [pay(1, 0, 20_000), pay(1, 1, 50_000), pay(2, 0, 30_000)];
    let gapped = [pay(1, 1, 90_000), pay(2, 0, 30_000), pay(3, 0, 40_000)];
    let cheap_gapped = [pay(1, 1, 20_000), pay(2, 0, 30_000), pay(3, 0, 40_000)];
    let own = [pay(1, 0, 50_000), pay(1, 1, 20_000), pay(2, 0, 30_000)];
    type Row = (&'static str, [Pay; 3], Pay, Option<&'static [(u8, u64)]>);
    let rows: [Row; 18] = [
        ("lower rate leaves", plain, pay(4, 0, 20_001), Some(&[(2, 0), (3, 0), (4, 0)])),
        ("equal rate stays", plain, pay(4, 0, 20_000), None),
        ("two leave", plain, long(4, 0, 60_000), Some(&[(3, 0), (4, 0)])),
        ("two do not suffice for less", plain, long(4, 0, 50_000), None),
        (
            "only the last of a sender counts",
            chained,
            pay(4, 0, 30_001),
            Some(&[(1, 0), (1, 1), (4, 0)]),
        ),
        ("only the last of a sender counts", chained, pay(4, 0, 25_000), None),
        ("one sender's, from its end", own, pay(3, 0, 25_000), Some(&[(1, 0), (2, 0), (3, 0)])),
        ("one sender's, from its end", own, long(3, 0, 99_000), Some(&[(1, 0), (3, 0)])),
        ("own predecessor never leaves", plain, pay(1, 1, 25_000), None),
        ("own predecessor never leaves", plain, pay(1, 1, 30_001), Some(&[(1, 0), (1, 1), (3, 0)])),
        (
            "own successor may leave",
            cheap_gapped,
            pay(1, 0, 25_000),
            Some(&[(1, 0), (2, 0), (3, 0)]),
        ),
        (
            "own successor stays before one worth less",
            gapped,
            pay(1, 0, 35_000),
            Some(&[(1, 0), (1, 1), (3, 0)]),
        ),
        ("behind a gap leaves first", gapped, pay(4, 0, LEAST), Some(&[(2, 0), (3, 0), (4, 0)])),
        (
            "behind gaps, the lower rate leaves",
            gapped,
            pay(4, 1, 90_001),
            Some(&[(2, 0), (3, 0), (4, 1)]),
        ),
        ("behind gaps, equal rate stays", gapped, pay(4, 1, 90_000), None),
        ("behind a gap removes none that is in order", plain, pay(4, 1, 9_000_000), None),
        ("a longer replacement needs room", own, long(1, 1, 60_000), Some(&[(1, 0), (1, 1)])),
        ("a longer replacement needs room", plain, long(1, 0, 41_000), None),
    ];
    for (name, held, newcomer, expected) in rows {
        let mut fixture = Fixture::holding(3, &held);
        let result = fixture.admit(&newcomer);
        match expected {
            Some(expected) => {
                assert!(result.is_ok(), "{name}: {result:?}");
                assert_eq!(fixture.held(), expected, "{name}");
            }
            None => assert_eq!(result, Err(AdmitError::Full), "{name}"),
        }
    }
}
