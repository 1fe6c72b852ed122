//! Measures the CPU time of all threads for a durable commit of a block with 2,000 transfers: with
//! a checkpoint every 64 blocks, and without calls of `maintain`, when a commit makes one only
//! every 256 blocks.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ledger::address::Coin;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, Committed};
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use ledger::hash::{Domain, Hash};
use ledger::signature::{PublicKey, SigningKey};
use ledger::store::Store;
use ledger::transaction::{Body, Output, Transfer, verify_transactions};
use ledger::units::{Amount, Nonce, Round, Timestamp, VotingPower};

const TRANSFERS: u64 = 2_000;
const ACCOUNTS: u64 = 100_000;

fn seed(name: &str, number: u64) -> [u8; 32] {
    Hash::of(Domain::Genesis, &[name.as_bytes(), &number.to_le_bytes()]).0
}

/// The account of receiver `number`.
fn other(number: u64) -> PublicKey {
    SigningKey::from_seed(&seed("other", number)).public()
}

struct Maker {
    senders: Vec<SigningKey>,
    validator: SigningKey,
    state: ChainState,
    certificate: Certificate,
}

impl Maker {
    fn new() -> Self {
        let senders: Vec<SigningKey> =
            (0..TRANSFERS).map(|number| SigningKey::from_seed(&seed("sender", number))).collect();
        let validator = SigningKey::from_seed(&seed("validator", 0));
        let owners = senders.iter().map(SigningKey::public).chain((0..ACCOUNTS).map(other));
        let account = |account| GenesisAccount {
            name: String::new(),
            account,
            balance: Amount(1_000_000_000_000),
        };
        let genesis = Genesis {
            format: FORMAT,
            network: LOCAL_NETWORK.to_owned(),
            address_prefix: "crn".to_owned(),
            coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
            start_time: Timestamp(1),
            accounts: owners.map(account).collect(),
            validators: vec![GenesisValidator {
                name: String::new(),
                key: validator.public(),
                payout: validator.public(),
                power: VotingPower(1),
            }],
            limits: Limits::default(),
        };
        let chain = Chain::new(genesis);
        let certificate = Certificate::genesis(chain.id());
        Self { senders, validator, state: ChainState::genesis(chain), certificate }
    }

    fn block(&mut self) -> Committed {
        let chain = Arc::clone(self.state.chain());
        let height = self.state.tip().height.next();
        let transfer = |(number, sender): (u64, &SigningKey)| {
            let receiver = (height.0 * 7_919 + number * 31) % ACCOUNTS;
            let body = Transfer {
                sender: sender.public(),
                nonce: Nonce(height.0 - 1),
                outputs: vec![Output { account: other(receiver), amount: Amount(1) }],
                fee: Amount(10_000),
                expires_at: Timestamp(self.state.tip().time.0 + 60_000),
                memo: Vec::new(),
            };
            Body::Transfer(body).sign(chain.id(), sender)
        };
        let signed = (0..).zip(&self.senders).map(transfer).collect();
        let transactions = verify_transactions(chain.id(), signed).into_iter().map(Option::unwrap);
        let block = self.state.propose(
            self.validator.public(),
            Timestamp(1),
            self.certificate.clone(),
            transactions,
        );
        assert_eq!(block.block().transactions.len(), self.senders.len());
        let (kind, round, validator) = (VoteKind::Precommit, Round(0), self.validator.public());
        let vote = Vote { kind, height, round, block: Some(block.hash()), validator };
        let signature = self.validator.sign(&vote.message(chain.id()));
        let validators = chain.validators(height);
        self.certificate =
            Certificate::new(height, round, block.hash(), validators, [(validator, signature)]);
        let sealed = self.state.advance(&block);
        Committed { block, certificate: self.certificate.clone(), sealed }
    }
}

/// CPU time of all threads on Linux; elsewhere the elapsed time.
fn cpu(start: Instant) -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return start.elapsed() };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    for (name, maintain) in [
        ("commit 2,000 transfers", false),
        ("commit 2,000 transfers, checkpoint each 64 blocks", true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let mut maker = Maker::new();
        let chain = Arc::clone(maker.state.chain());
        Store::create(&path, chain.genesis()).unwrap();
        let store = Store::open(&path, &chain).unwrap().store;
        let start = Instant::now();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                // With checkpoints, the number of blocks is a multiple of 64. Otherwise the average
                // would depend on the number of iterations.
                let blocks = if maintain { count.next_multiple_of(64) } else { count };
                for _ in 0..blocks {
                    let committed = [maker.block()];
                    let before = cpu(start);
                    store.commit(&committed).unwrap();
                    if maintain {
                        store.maintain().unwrap();
                    }
                    spent += cpu(start) - before;
                }
                spent.mul_f64(count as f64 / blocks as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
