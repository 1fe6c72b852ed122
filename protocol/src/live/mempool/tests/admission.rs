//! Tests of which transactions are let in: each rule up to its limit, and nothing past it.

use super::*;

/// The name of a rule, the transactions held before, the time, the newcomer, and the result. The
/// tip's time is START + 1, and account 5 has sent one transaction of 1,000 for a fee of 10,000.
type Row = (&'static str, Vec<Pay>, u64, Pay, Result<(), AdmitError>);

const EXPIRY_MAX: u64 = 24 * 3_600_000;
const LIFE: u64 = LIFE_MIN_MS;
/// The least fee to replace, with 100 bytes more, a transaction of `SIZE` bytes that pays 100,000.
const LONGER: u64 = (100_000 * 110 * (SIZE as u64 + 100)).div_ceil(SIZE as u64 * 100);

const fn rejected(error: TransactionError) -> Result<(), AdmitError> {
    Err(AdmitError::Rejected(error))
}

const fn ok() -> Result<(), AdmitError> {
    Ok(())
}

/// The form of a transaction, and its expiry.
fn expiry() -> Vec<Row> {
    let base = pay(1, 0, 10_000);
    let expires = |expires_at| Pay { expires_at, ..base };
    let amount = |amount| Pay { amount, ..base };
    let expired = |expires_at: u64, time: u64| {
        rejected(TransactionError::Expired {
            expires_at: Timestamp(expires_at),
            time: Timestamp(time),
        })
    };
    let soon = |expires_at| {
        Err(AdmitError::ExpiresSoon {
            expires_at: Timestamp(expires_at),
            least: Timestamp(START + 2 + LIFE),
        })
    };
    let too_far = rejected(TransactionError::ExpiryTooFar {
        expires_at: Timestamp(START + 2 + EXPIRY_MAX + 1),
        latest: Timestamp(START + 2 + EXPIRY_MAX),
    });
    vec![
        ("form", vec![], START, amount(1), ok()),
        ("form", vec![], START, amount(0), rejected(TransactionError::ZeroAmount(0))),
        ("expiry at the tip", vec![], START, expires(START + 2 + LIFE), ok()),
        ("expiry at the tip", vec![], START, expires(START + 1 + LIFE), soon(START + 1 + LIFE)),
        ("expiry at the tip", vec![], START, expires(START + 2), soon(START + 2)),
        ("expiry at the tip", vec![], START, expires(START + 1), expired(START + 1, START + 2)),
        ("expiry now", vec![], START + 50, expires(START + 50 + LIFE), ok()),
        ("expiry now", vec![], START + 2, expires(START + 1 + LIFE), soon(START + 1 + LIFE)),
        ("expiry now", vec![], START + 50, expires(START + 49), expired(START + 49, START + 50)),
        ("longest expiry", vec![], START, expires(START + 2 + EXPIRY_MAX), ok()),
        ("longest expiry", vec![], START, expires(START + 2 + EXPIRY_MAX + 1), too_far),
        ("longest expiry now", vec![], START + 3, expires(START + 2 + EXPIRY_MAX + 1), ok()),
    ]
}

/// Nonces and fees.
fn nonces_and_fees() -> Vec<Row> {
    let base = pay(1, 0, 10_000);
    let to = |to, fee| Pay { to, fee, ..base };
    let fee =
        |got, least| rejected(TransactionError::Fee { got: Amount(got), least: Amount(least) });
    let ahead =
        |got, next| rejected(TransactionError::NonceAhead { got: Nonce(got), next: Nonce(next) });
    let used = rejected(TransactionError::NonceUsed { got: Nonce(0), next: Nonce(1) });
    vec![
        ("next nonce", vec![], START, pay(5, 1, 10_000), ok()),
        ("used nonce", vec![], START, pay(5, 0, 10_000), used),
        ("nonce ahead", vec![], START, pay(1, 7, 10_000), ok()),
        ("nonce ahead", vec![], START, pay(1, 8, 10_000), ahead(8, 0)),
        ("nonce ahead", vec![], START, pay(5, 8, 10_000), ok()),
        ("nonce ahead", vec![], START, pay(5, 9, 10_000), ahead(9, 1)),
        ("nonce ahead", vec![], START, pay(1, u64::MAX, 10_000), ahead(u64::MAX, 0)),
        ("fee", vec![], START, pay(1, 0, LEAST), ok()),
        ("fee", vec![], START, pay(1, 0, LEAST - 1), fee(LEAST - 1, LEAST)),
        ("new account", vec![], START, to(&[100], LEAST + 1_000_000), ok()),
        (
            "new account",
            vec![],
            START,
            to(&[100], LEAST + 999_999),
            fee(LEAST + 999_999, LEAST + 1_000_000),
        ),
        ("new once", vec![], START, to(&[100, 100], LEAST + 1_000_400), ok()),
        ("two new", vec![], START, to(&[100, 101], LEAST + 2_000_400), ok()),
        (
            "two new",
            vec![],
            START,
            to(&[100, 101], LEAST + 2_000_399),
            fee(LEAST + 2_000_399, LEAST + 2_000_400),
        ),
        ("to itself", vec![], START, to(&[1], LEAST), ok()),
    ]
}

/// Whether the balance covers a transaction, alone and together with those that wait.
fn balances() -> Vec<Row> {
    let base = pay(1, 0, 10_000);
    let amount = |amount| Pay { amount, ..base };
    let first = Pay { amount: 60_000_000, ..base };
    let second = Pay { amount: 39_980_000, ..pay(1, 1, 10_000) };
    let short = |balance, needed| {
        rejected(TransactionError::Balance { balance: Amount(balance), needed: Amount(needed) })
    };
    vec![
        ("balance", vec![], START, amount(BALANCE - 10_000), ok()),
        ("balance", vec![], START, amount(BALANCE - 9_999), short(BALANCE, BALANCE + 1)),
        ("no account", vec![], START, pay(100, 0, 10_000), short(0, 11_000)),
        ("summed balance", vec![first], START, second, ok()),
        (
            "summed balance",
            vec![first],
            START,
            Pay { amount: 39_980_001, ..second },
            short(BALANCE, BALANCE + 1),
        ),
        (
            "sum over a gap",
            vec![first],
            START,
            Pay { nonce: 4, amount: 39_980_001, ..second },
            short(BALANCE, BALANCE + 1),
        ),
        ("sum before it", vec![second], START, amount(BALANCE - 10_000), ok()),
        (
            "sum without the replaced",
            vec![first],
            START,
            Pay { fee: 20_000, amount: BALANCE - 20_000, ..base },
            ok(),
        ),
    ]
}

/// What a replacement costs.
fn replacements() -> Vec<Row> {
    let base = pay(1, 0, 10_000);
    let dear = pay(1, 0, 100_000);
    vec![
        ("replacing, old fee and bytes", vec![base], START, pay(1, 0, 10_000 + LEAST), ok()),
        (
            "replacing, old fee and bytes",
            vec![base],
            START,
            pay(1, 0, 10_000 + LEAST - 1),
            Err(AdmitError::Underpriced { least: 10_000 + LEAST }),
        ),
        ("replacing, a tenth", vec![dear], START, pay(1, 0, 110_000), ok()),
        (
            "replacing, a tenth",
            vec![dear],
            START,
            pay(1, 0, 109_999),
            Err(AdmitError::Underpriced { least: 110_000 }),
        ),
        (
            "replacing, a tenth per byte",
            vec![dear],
            START,
            Pay { memo: 100, ..pay(1, 0, LONGER) },
            ok(),
        ),
        (
            "replacing, a tenth per byte",
            vec![dear],
            START,
            Pay { memo: 100, ..pay(1, 0, LONGER - 1) },
            Err(AdmitError::Underpriced { least: LONGER }),
        ),
        (
            "another body for the same fee",
            vec![dear],
            START,
            Pay { amount: 1_001, ..dear },
            Err(AdmitError::Underpriced { least: 110_000 }),
        ),
        (
            "replacing what expired",
            vec![dear],
            START + 10_001,
            Pay { expires_at: START + 20_000, ..base },
            ok(),
        ),
        (
            "replacing what is about to",
            vec![dear],
            START + 10_000,
            Pay { expires_at: START + 20_000, ..base },
            Err(AdmitError::Underpriced { least: 110_000 }),
        ),
    ]
}

#[test]
fn each_rule_lets_in_up_to_its_limit_and_nothing_past_it() {
    let rows = [expiry(), nonces_and_fees(), balances(), replacements()];
    for (name, held, now, newcomer, expected) in rows.into_iter().flatten() {
        assert_eq!(pay(1, 0, 0).signed().bytes(), SIZE);
        let mut fixture = Fixture::new(100);
        fixture.commit(vec![pay(5, 0, 10_000).signed()]);
        for pay in &held {
            assert_eq!(fixture.admit(pay), Ok(Admitted::New), "{name}");
        }
        fixture.now = now;
        let old = fixture
            .mempool
            .index
            .queue(&key(newcomer.from))
            .and_then(|queue| queue.get(Nonce(newcomer.nonce)));
        let old = old.map(|old| Arc::clone(&old.transaction));
        let expected = expected.map(|()| old.map_or(Admitted::New, Admitted::Replaced));
        let is_in = expected.is_ok();
        assert_eq!(fixture.admit(&newcomer), expected, "{name}: {newcomer:?}");
        if is_in {
            assert_eq!(fixture.admit(&newcomer), Ok(Admitted::Known), "{name}");
        }
    }
}

/// The chain refuses such an account, so the transaction must not wait for a block.
#[test]
fn a_recipient_that_is_no_point_of_the_curve_is_refused() {
    let no_point =
        (1..).map(|low| PublicKey([low; 32])).find(|key| key.check_account().is_err()).unwrap();
    let pay = |account| {
        let body = Body::Transfer(Transfer {
            sender: key(1),
            nonce: Nonce(0),
            outputs: vec![
                Output { account: key(2), amount: Amount(1) },
                Output { account, amount: Amount(1) },
            ],
            fee: Amount(2_000_000),
            expires_at: Timestamp(START + 10_000),
            memo: Vec::new(),
        });
        let transaction = body.sign(CHAIN.id(), &SigningKey::from_seed(&[1; 32]));
        let mut fixture = Fixture::new(9);
        let verified = verify_transactions(CHAIN.id(), vec![transaction]).remove(0).unwrap();
        fixture.mempool.admit(&fixture.chain, Timestamp(START), verified)
    };
    let refused = TransactionError::Recipient(ledger::signature::KeyError::NoPoint(no_point));
    assert_eq!(pay(no_point), Err(AdmitError::Rejected(refused)));
    assert_eq!(pay(key(100)), Ok(Admitted::New));
}

/// No block can come before the interval is over. A transaction that expires earlier can go into no
/// block.
#[test]
fn what_expires_within_the_interval_is_refused() {
    let limits = Limits { block_interval_ms: 50, ..CHAIN.limits().clone() };
    let chain = Chain::new(Genesis { limits, ..CHAIN.genesis().clone() });
    let state = ChainState::genesis(Arc::clone(&chain));
    let admit = |expires_at| {
        let transfer = pay(1, 0, 10_000).signed().transfer().clone();
        let body = Body::Transfer(Transfer { expires_at: Timestamp(expires_at), ..transfer });
        let transaction = body.sign(chain.id(), &SigningKey::from_seed(&[1; 32]));
        let verified = verify_transactions(chain.id(), vec![transaction]).remove(0).unwrap();
        Mempool::new(MempoolLimits::default()).admit(&state, Timestamp(START), verified)
    };
    let (expires_at, time) = (Timestamp(START + 49), Timestamp(START + 50));
    assert_eq!(
        admit(START + 49),
        Err(AdmitError::Rejected(TransactionError::Expired { expires_at, time }))
    );
    let soon = |expires_at| {
        Err(AdmitError::ExpiresSoon {
            expires_at: Timestamp(expires_at),
            least: Timestamp(START + 2_050),
        })
    };
    for expires_at in [START + 50, START + 2_049] {
        assert_eq!(admit(expires_at), soon(expires_at));
    }
    assert_eq!(admit(START + 2_050), Ok(Admitted::New));
}

#[test]
fn blame_is_the_rules_own_and_nobodys_for_price_and_room() {
    let rows = [
        (AdmitError::Rejected(TransactionError::ZeroAmount(0)), Blame::Sender),
        (
            AdmitError::Rejected(TransactionError::Fee { got: Amount(0), least: Amount(1) }),
            Blame::Nobody,
        ),
        (AdmitError::Underpriced { least: 1 }, Blame::Nobody),
        (AdmitError::Full, Blame::Nobody),
        (AdmitError::ExpiresSoon { expires_at: Timestamp(1), least: Timestamp(2) }, Blame::Nobody),
    ];
    for (error, blame) in rows {
        assert_eq!(error.blame(), blame, "{error}");
    }
}

#[test]
fn what_is_let_in_lives_for_two_seconds_or_a_quarter_of_the_longest_life() {
    for (expiry_ms_max, least) in
        [(24 * 3_600_000, 2_000), (8_000, 2_000), (4_000, 1_000), (1_000, 250)]
    {
        assert_eq!(life_min(&Limits { expiry_ms_max, ..Limits::default() }), least);
    }
    let error = AdmitError::ExpiresSoon { expires_at: Timestamp(5), least: Timestamp(7) };
    assert!(error.to_string().contains("expires at 5, expected at least 7"), "{error}");
}
