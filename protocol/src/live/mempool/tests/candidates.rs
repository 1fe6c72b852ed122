//! Tests of what goes into a block, and of what a block leaves behind.

use super::*;

#[test]
fn candidates_go_by_nonce_within_a_sender_and_by_rate_among_senders() {
    type Row = (&'static [Pay], usize, &'static [(u8, u64)]);
    const ROWS: [Row; 7] = [
        (&[], 9, &[]),
        (&[pay(1, 1, 90_000)], 9, &[]),
        (&[pay(1, 1, 90_000), pay(1, 0, 10_000), pay(2, 0, 20_000)], 9, &[(2, 0), (1, 0), (1, 1)]),
        (
            &[pay(1, 0, 30_000), pay(1, 1, 10_000), pay(1, 2, 90_000), pay(2, 0, 20_000)],
            9,
            &[(1, 0), (2, 0), (1, 1), (1, 2)],
        ),
        (&[pay(1, 0, 30_000), pay(1, 2, 90_000), pay(2, 0, 20_000)], 9, &[(1, 0), (2, 0)]),
        (&[pay(1, 0, 30_000), pay(2, 0, 20_000), pay(3, 0, 10_000)], 2, &[(1, 0), (2, 0)]),
        // Candidates go by fee per byte, not by fee.
        (&[Pay { memo: 256, ..pay(1, 0, 20_000) }, pay(2, 0, 15_000)], 9, &[(2, 0), (1, 0)]),
    ];
    for (held, room, expected) in ROWS {
        let fixture = Fixture::holding(20, held);
        let names_in = |bytes_max| {
            names(&fixture.mempool.candidates(&fixture.chain, Timestamp(fixture.now), bytes_max))
        };
        assert_eq!(names_in(room * SIZE), expected, "{held:?}");
        if room < held.len() {
            assert_eq!(names_in(room * SIZE - 1), expected[..room - 1], "one byte less: {held:?}");
        }
    }
    // Transactions of equal rates go by hash, whatever the order of arrival.
    let pays = [1, 2, 3, 4].map(|from| pay(from, 0, 20_000));
    let mut hashes = pays.map(|pay| pay.signed().hash());
    hashes.sort_unstable();
    for turn in 0..4 {
        let mut arrival = pays;
        arrival.rotate_left(turn);
        let fixture = Fixture::holding(9, &arrival);
        let candidates =
            fixture.mempool.candidates(&fixture.chain, Timestamp(fixture.now), usize::MAX);
        assert_eq!(candidates.iter().map(|candidate| candidate.hash()).collect::<Vec<_>>(), hashes);
    }
}

/// The successors of an expired transaction cannot be applied, so they must not take room from
/// other transactions.
#[test]
fn an_expired_head_does_not_keep_others_out_of_a_block() {
    let chain = ChainState::genesis(Arc::clone(&CHAIN));
    let mut mempool = Mempool::new(MempoolLimits::default());
    let mut admit = |pay: &Pay| mempool.admit(&chain, Timestamp(START), pay.signed()).unwrap();
    admit(&Pay { expires_at: START + 2_001, ..pay(1, 0, 40 * SIZE as u64) });
    for nonce in 1..=720 {
        admit(&Pay { to: &[6; 64], amount: 1, memo: 256, ..pay(1, nonce, 100_000) });
    }
    admit(&pay(2, 0, 3 * LEAST));
    for (now, expected) in [(START + 2_001, 1), (START + 2_002, 2)] {
        let candidates = mempool.candidates(&chain, Timestamp(now), 2 << 20);
        let block = chain.propose(
            key(VALIDATOR),
            Timestamp(now),
            Certificate::genesis(CHAIN.id()),
            candidates,
        );
        let payers: BTreeSet<_> =
            block.block().transactions.iter().map(|paid| paid.transfer().sender).collect();
        assert!(payers.contains(&key(expected)) && payers.len() == 1, "at {now}: {payers:?}");
    }
}

#[test]
fn candidates_fit_a_block_whatever_is_asked_for() {
    let limits = Limits { block_bytes_max: 4 << 10, ..Limits::default() };
    let chain = ChainState::genesis(Chain::new(Genesis { limits, ..CHAIN.genesis().clone() }));
    let mut mempool = Mempool::new(MempoolLimits::default());
    for nonce in 0..30 {
        mempool.admit(&chain, Timestamp(START), pay(1, nonce, 10_000).signed()).unwrap();
    }
    assert_eq!(mempool.candidates(&chain, Timestamp(START), usize::MAX).len(), (4 << 10) / SIZE);
}

#[test]
fn a_commit_drops_what_can_no_longer_be_applied() {
    let held = [
        pay(1, 0, 10_000),
        pay(1, 1, 10_000),
        pay(1, 2, 10_000),
        pay(2, 0, 10_000),
        pay(2, 1, 10_000),
    ];
    // After a block at START + 2,001 the next block's time is START + 2,002.
    let soon = |expires_at| Pay { expires_at, ..pay(3, 0, 10_000) };
    let spends = |amount| Pay { amount, memo: 1, ..pay(1, 0, 50_000) };
    let all_three = BALANCE - 50_000 - 2 * 11_000;
    type Row<'a> = (&'static str, &'a [Pay], &'a [Pay], &'a [(u8, u64)]);
    let rows: [Row; 8] = [
        ("nothing happened", &held, &[], &[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]),
        ("its own", &held, &held[..2], &[(1, 2), (2, 0), (2, 1)]),
        ("all of it", &held, &held, &[]),
        ("another one of a nonce", &held, &[spends(1)], &[(1, 1), (1, 2), (2, 0), (2, 1)]),
        ("the rest is covered", &held, &[spends(all_three)], &[(1, 1), (1, 2), (2, 0), (2, 1)]),
        ("the last is not covered", &held, &[spends(all_three + 1)], &[(1, 1), (2, 0), (2, 1)]),
        ("not yet expired", &[soon(START + 2_002)], &[], &[(3, 0)]),
        ("expired", &[soon(START + 2_001), pay(3, 1, 10_000)], &[], &[(3, 1)]),
    ];
    for (name, held, block, expected) in rows {
        let mut fixture = Fixture::holding(9, held);
        fixture.now = START + 2_001;
        fixture.commit(block.iter().map(Pay::signed).collect());
        assert_eq!(fixture.held(), expected, "{name}");
    }
    // The remaining transactions stay usable: a gap can close, and the nonce of an expired
    // transaction is free again.
    let mut fixture = Fixture::holding(9, &[soon(START + 2_001), pay(3, 1, 10_000)]);
    fixture.now = START + 2_001;
    fixture.commit(vec![]);
    assert!(!fixture.mempool.has_candidate());
    assert_eq!(fixture.admit(&pay(3, 0, LEAST)), Ok(Admitted::New));
    assert_eq!(
        names(&fixture.mempool.candidates(&fixture.chain, Timestamp(fixture.now), usize::MAX)),
        [(3, 0), (3, 1)]
    );
}

#[test]
#[should_panic(expected = "the mempool hears of every block")]
fn a_block_kept_from_the_mempool_is_a_bug() {
    let mut fixture = Fixture::holding(9, &[pay(1, 0, 10_000), pay(1, 1, 10_000)]);
    let mempool = std::mem::replace(&mut fixture.mempool, Mempool::new(MempoolLimits::default()));
    fixture.commit(vec![pay(1, 0, 10_000).signed()]);
    fixture.mempool = mempool;
    let _ = fixture.mempool.admit(&fixture.chain, Timestamp(START), pay(1, 2, 10_000).signed());
}
