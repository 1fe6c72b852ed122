#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::LazyLock;

use ledger::address::Coin;
use ledger::certificate::Certificate;
use ledger::chain::Chain;
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use ledger::signature::SigningKey;
use ledger::transaction::{Body, Output, Transfer, verify_transactions};
use ledger::units::VotingPower;
use proptest::prelude::*;

use super::*;

const START: u64 = 1_000_000;
const BALANCE: u64 = 100_000_000;
/// Bytes of a transfer with one output and no memo. `LEAST` is the least fee for them.
const SIZE: usize = 177;
const LEAST: u64 = 10 * SIZE as u64;
const VALIDATOR: u8 = 9;

fn key(seed: u8) -> PublicKey {
    static KEYS: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
        (0..=255).map(|seed| SigningKey::from_seed(&[seed; 32]).public()).collect()
    });
    KEYS[usize::from(seed)]
}

/// Accounts 1 to 6 with `BALANCE` each; 9 is the validator.
static CHAIN: LazyLock<Arc<Chain>> = LazyLock::new(|| {
    let account =
        |seed| GenesisAccount { name: String::new(), account: key(seed), balance: Amount(BALANCE) };
    let power = VotingPower(1);
    Chain::new(Genesis {
        format: FORMAT,
        network: LOCAL_NETWORK.to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(START),
        accounts: (1..=6).map(account).collect(),
        validators: vec![GenesisValidator {
            name: String::new(),
            key: key(VALIDATOR),
            payout: key(VALIDATOR),
            power,
        }],
        // Blocks as close together as a genesis allows: the rows below count in milliseconds.
        limits: Limits { block_interval_ms: 1, ..Limits::default() },
    })
});

/// A transfer to be signed. Rows of tables change the fields that they test.
#[derive(Clone, Copy, Debug)]
struct Pay {
    from: u8,
    nonce: u64,
    to: &'static [u8],
    amount: u64,
    fee: u64,
    expires_at: u64,
    memo: usize,
}

const fn pay(from: u8, nonce: u64, fee: u64) -> Pay {
    Pay { from, nonce, to: &[6], amount: 1_000, fee, expires_at: START + 10_000, memo: 0 }
}

impl Pay {
    fn signed(&self) -> Arc<VerifiedTransaction> {
        let output = |to: &u8| Output { account: key(*to), amount: Amount(self.amount) };
        let body = Body::Transfer(Transfer {
            sender: key(self.from),
            nonce: Nonce(self.nonce),
            outputs: self.to.iter().map(output).collect(),
            fee: Amount(self.fee),
            expires_at: Timestamp(self.expires_at),
            memo: vec![7; self.memo],
        });
        let transaction = body.sign(CHAIN.id(), &SigningKey::from_seed(&[self.from; 32]));
        verify_transactions(CHAIN.id(), vec![transaction]).remove(0).unwrap()
    }
}

/// A chain and the mempool of a node on it.
struct Fixture {
    chain: ChainState,
    mempool: Mempool,
    now: u64,
}

impl Fixture {
    /// Room for `transactions` of `SIZE` bytes, and 8 nonces per sender.
    fn new(transactions: usize) -> Self {
        let limits = MempoolLimits { bytes_max: transactions * SIZE, sender_transactions_max: 8 };
        Self {
            chain: ChainState::genesis(Arc::clone(&CHAIN)),
            mempool: Mempool::new(limits),
            now: START,
        }
    }

    fn holding(transactions: usize, held: &[Pay]) -> Self {
        let mut fixture = Self::new(transactions);
        for pay in held {
            assert_eq!(fixture.admit(pay), Ok(Admitted::New), "{pay:?}");
        }
        fixture
    }

    /// Admits a transaction, and checks the invariants that hold after every call.
    fn admit(&mut self, pay: &Pay) -> Result<Admitted, AdmitError> {
        let before = format!("{:?}", self.mempool);
        let result = self.mempool.admit(&self.chain, Timestamp(self.now), pay.signed());
        if !matches!(result, Ok(Admitted::New | Admitted::Replaced(_))) {
            assert_eq!(
                format!("{:?}", self.mempool),
                before,
                "nothing changes unless something was let in"
            );
        }
        self.check();
        result
    }

    /// Commits these transactions as one block; all of them must fit.
    fn commit(&mut self, transactions: Vec<Arc<VerifiedTransaction>>) {
        let parent = Certificate::genesis(CHAIN.id());
        let block =
            self.chain.propose(key(VALIDATOR), Timestamp(self.now), parent, transactions.clone());
        assert_eq!(block.block().transactions, transactions);
        self.chain.advance(&block);
        self.mempool.on_commit(&self.chain, &transactions);
        self.check();
    }

    fn check(&self) {
        let (mempool, chain) = (&self.mempool, &self.chain);
        mempool.index.check();
        assert!(mempool.bytes() <= mempool.limits.bytes_max);
        assert_eq!(
            mempool.bytes(),
            mempool.best(usize::MAX).iter().map(|held| held.bytes()).sum::<usize>()
        );
        for held in mempool.best(usize::MAX) {
            assert!(held.transfer().expires_at >= chain.next_time());
            let (queue, account) = (
                mempool.index.queue(&held.transfer().sender).unwrap(),
                chain.account(&held.transfer().sender),
            );
            assert!(queue.next() == account.nonce && queue.needed() <= account.balance.0.into());
        }
        for now in [0, self.now] {
            let candidates = mempool.candidates(chain, Timestamp(now), usize::MAX);
            let parent = Certificate::genesis(CHAIN.id());
            let block = chain.propose(key(VALIDATOR), Timestamp(now), parent, candidates.clone());
            assert_eq!(block.block().transactions, candidates, "all of them can be applied");
            assert!(mempool.has_candidate() || candidates.is_empty());
        }
    }

    /// Sender and nonce of each held transaction, sorted.
    fn held(&self) -> Vec<(u8, u64)> {
        let mut held = names(&self.mempool.best(usize::MAX));
        held.sort_unstable();
        held
    }
}

fn names(transactions: &[Arc<VerifiedTransaction>]) -> Vec<(u8, u64)> {
    let seed = |account| (0..=255).find(|seed| key(*seed) == account).unwrap();
    let name = |t: &Arc<VerifiedTransaction>| (seed(t.transfer().sender), t.transfer().nonce.0);
    transactions.iter().map(name).collect()
}

#[test]
fn each_rule_lets_in_up_to_its_limit_and_nothing_past_it() {
    const EXPIRY_MAX: u64 = 24 * 3_600_000;
    const LIFE: u64 = LIFE_MIN_MS;
    // A tenth more per byte than 100,000 for `SIZE` bytes, for 100 bytes more.
    const LONGER: u64 = (100_000 * 110 * (SIZE as u64 + 100)).div_ceil(SIZE as u64 * 100);
    let rejected = |error| Err(AdmitError::Rejected(error));
    let fee =
        |got, least| rejected(TransactionError::Fee { got: Amount(got), least: Amount(least) });
    let short = |balance, needed| {
        rejected(TransactionError::Balance { balance: Amount(balance), needed: Amount(needed) })
    };
    let ahead =
        |got, next| rejected(TransactionError::NonceAhead { got: Nonce(got), next: Nonce(next) });
    let used = rejected(TransactionError::NonceUsed { got: Nonce(0), next: Nonce(1) });
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
    let base = pay(1, 0, 10_000);
    let expires = |expires_at| Pay { expires_at, ..base };
    let amount = |amount| Pay { amount, ..base };
    let to = |to, fee| Pay { to, fee, ..base };
    let first = Pay { amount: 60_000_000, ..base };
    let second = Pay { amount: 39_980_000, ..pay(1, 1, 10_000) };
    let dear = pay(1, 0, 100_000);
    let ok = || Ok(());

    // The tip's time is START + 1, and account 5 has sent one transaction of 1,000 for a fee of
    // 10,000.
    type Row = (&'static str, Vec<Pay>, u64, Pay, Result<(), AdmitError>);
    let rows: Vec<Row> = vec![
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
    ];
    for (name, held, now, newcomer, expected) in rows {
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

/// No block can come sooner than the interval, so a transaction that expires before it can go into
/// none.
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

/// The same body under another signature must not replace the first for the same fee, not even
/// where bytes are free.
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
    // Equal rates: by hash, whatever the order of arrival.
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
/// others.
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
fn what_is_let_in_lives_for_two_seconds_or_a_quarter_of_the_longest_life() {
    for (expiry_ms_max, least) in
        [(24 * 3_600_000, 2_000), (8_000, 2_000), (4_000, 1_000), (1_000, 250)]
    {
        assert_eq!(life_min(&Limits { expiry_ms_max, ..Limits::default() }), least);
    }
    let error = AdmitError::ExpiresSoon { expires_at: Timestamp(5), least: Timestamp(7) };
    assert!(error.to_string().contains("expires at 5, expected at least 7"), "{error}");
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

#[test]
fn what_is_held_is_found() {
    let pays = [pay(1, 0, 10_000), pay(1, 1, 30_000), pay(1, 3, 50_000), pay(2, 1, 40_000)];
    let mut fixture = Fixture::holding(9, &pays);
    let (mempool, chain) = (&fixture.mempool, &fixture.chain);
    assert_eq!((mempool.len(), mempool.bytes(), mempool.is_empty()), (4, 4 * SIZE, false));
    for pay in &pays {
        let transaction = pay.signed();
        assert_eq!(mempool.get(&transaction.hash()), Some(Arc::clone(&transaction)));
        assert_eq!(mempool.find(&transaction.id()), Some(transaction));
    }
    let absent = pay(3, 0, 10_000).signed();
    assert_eq!((mempool.get(&absent.hash()), mempool.find(&absent.id())), (None, None));

    let best: [(u8, u64); 4] = [(1, 3), (2, 1), (1, 1), (1, 0)];
    for limit in [0, 1, 3, 4, 5, usize::MAX] {
        assert_eq!(names(&mempool.best(limit)), best[..limit.min(4)], "{limit}");
    }
    for (account, next) in [(1, 2), (2, 0), (3, 0), (100, 0)] {
        assert_eq!(mempool.next_nonce(chain, &key(account)), Nonce(next), "account {account}");
    }
    assert_eq!(fixture.admit(&pay(1, 2, 10_000)), Ok(Admitted::New));
    assert_eq!(fixture.mempool.next_nonce(&fixture.chain, &key(1)), Nonce(4));
    fixture.commit(vec![pays[0].signed()]);
    assert_eq!(fixture.mempool.next_nonce(&fixture.chain, &key(1)), Nonce(4));
}

#[derive(Clone, Debug)]
enum Step {
    /// Admits a transaction whose nonce counts from the account's next one.
    Admit(Pay),
    /// Commits a block of the candidates, with room for this many transactions.
    Commit(usize),
    /// Commits another proposer's block, of this transaction at its account's next nonce.
    Foreign(Pay),
    /// Lets time pass, in milliseconds.
    Wait(u64),
}

fn pays() -> impl Strategy<Value = Pay> {
    let amount = prop_oneof![4 => 1u64..10_000, 1 => 1_000_000u64..BALANCE];
    let to =
        prop_oneof![4 => Just(&[1u8, 2][..]), 1 => Just(&[3u8][..]), 1 => Just(&[100u8, 2][..])];
    let fee = prop_oneof![6 => LEAST..6 * LEAST, 1 => 1_000_000u64..1_100_000];
    (
        1u8..=4,
        0u64..6,
        amount,
        to,
        fee,
        1_900u64..2_400,
        prop_oneof![3 => Just(0usize), 1 => 0usize..=256],
    )
        .prop_map(|(from, nonce, amount, to, fee, expires_at, memo)| Pay {
            from,
            nonce,
            to,
            amount,
            fee,
            expires_at,
            memo,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => pays().prop_map(Step::Admit),
        2 => (0usize..6).prop_map(Step::Commit),
        2 => pays().prop_map(Step::Foreign),
        1 => (1u64..900).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Checks `Fixture::check` after every step.
    #[test]
    fn whatever_happens_what_is_held_can_be_applied(steps in steps()) {
        let mut fixture = Fixture::new(8);
        for step in steps {
            let place = |pay: Pay, fixture: &Fixture| {
                let nonce = fixture.chain.account(&key(pay.from)).nonce.0 + pay.nonce;
                Pay { nonce, expires_at: fixture.now + pay.expires_at, ..pay }
            };
            match step {
                Step::Admit(pay) => drop(fixture.admit(&place(pay, &fixture))),
                Step::Wait(time) => fixture.now += time,
                Step::Commit(room) => {
                    let candidates = fixture.mempool.candidates(&fixture.chain, Timestamp(fixture.now), room * SIZE);
                    let parent = Certificate::genesis(CHAIN.id());
                    let block = fixture.chain.propose(key(VALIDATOR), Timestamp(fixture.now), parent, candidates);
                    fixture.commit(block.block().transactions.clone());
                }
                Step::Foreign(pay) => {
                    let foreign = place(Pay { nonce: 0, ..pay }, &fixture).signed();
                    let parent = Certificate::genesis(CHAIN.id());
                    let block = fixture.chain.propose(key(VALIDATOR), Timestamp(fixture.now), parent, [foreign]);
                    fixture.commit(block.block().transactions.clone());
                }
            }
        }
    }
}
