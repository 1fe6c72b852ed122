#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::LazyLock;

use ledger::address::Coin;
use ledger::certificate::Certificate;
use ledger::chain::Chain;
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use ledger::signature::SigningKey;
use ledger::transaction::{Body, Output, Transfer, verify_transactions};
use ledger::units::VotingPower;

use super::*;

mod admission;
mod candidates;
mod eviction;
mod random;

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
        // The shortest interval that a genesis allows, since the tests below count milliseconds.
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
