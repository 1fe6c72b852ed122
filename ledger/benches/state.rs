//! Measures the state with a million accounts. An iteration changes 3,000 accounts, as one block
//! might, lists the pages that such a block changes, or reads, proves or verifies one account.
//!
//! Also measures snapshots of 100,000 accounts: making and accepting the frontier, and making,
//! verifying and loading all chunks.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ledger::codec::encode;
use ledger::genesis::Limits;
use ledger::signature::PublicKey;
use ledger::snapshot::{Frontier, SnapshotRules};
use ledger::state::{Account, AccountProof, State, StateKey};
use ledger::units::{Amount, Nonce};

const ACCOUNTS: u64 = 1_000_000;
const CHANGES: u64 = 3_000;
/// Coprime to `ACCOUNTS`, so that its multiples visit every account before one repeats.
const STEP: u64 = 7_919;

fn key(i: u64) -> StateKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&i.to_le_bytes());
    StateKey::account(PublicKey(bytes))
}

fn account(i: u64) -> Account {
    Account { balance: Amount(i), nonce: Nonce(1), ..Account::default() }
}

/// Changes to `CHANGES` accounts. `start` selects them, and each is `STEP` numbers after the one
/// before. If `offset` is `ACCOUNTS`, the accounts are new.
fn changes(start: u64, offset: u64) -> BTreeMap<StateKey, Account> {
    (start..start + CHANGES).map(|i| (key(i * STEP % ACCOUNTS + offset), account(i))).collect()
}

fn blocks(c: &mut Criterion) {
    let state = State::from_entries((0..ACCOUNTS).map(|i| (key(i), account(i))));
    let mut group = c.benchmark_group("block of 3,000 at 1M accounts");
    group.sample_size(30);

    let mut block = 0;
    let mut next = |offset| {
        block += 1;
        changes(block * CHANGES, offset)
    };
    group.bench_function("update, beside the final state", |b| {
        b.iter_batched(|| next(0), |changes| state.with(&changes), BatchSize::PerIteration);
    });
    group.bench_function("create, beside the final state", |b| {
        b.iter_batched(|| next(ACCOUNTS), |changes| state.with(&changes), BatchSize::PerIteration);
    });
    let mut alone = State::from_entries(state.iter().copied());
    group.bench_function("update in place", |b| {
        b.iter_batched(|| next(0), |changes| alone.apply(&changes), BatchSize::PerIteration);
    });
    drop(alone);
    let after = state.with(&next(0));
    group.bench_function("changed pages", |b| b.iter(|| after.changed_pages(&state).written.len()));
    group.finish();

    let mut group = c.benchmark_group("account of 1M");
    let mut i = 0;
    let mut next = || {
        i += 1;
        key(i * STEP % ACCOUNTS)
    };
    group.bench_function("get", |b| {
        b.iter_batched(&mut next, |key| state.get(&key).copied(), BatchSize::SmallInput)
    });
    group.bench_function("prove", |b| {
        b.iter_batched(&mut next, |key| state.prove(&key), BatchSize::SmallInput)
    });
    let proved = |key: StateKey| (key, state.prove(&key));
    group.bench_function("verify", |b| {
        let verify =
            |(key, proof): (StateKey, AccountProof)| proof.verify(&state.root(), &key).is_ok();
        b.iter_batched(|| proved(next()), verify, BatchSize::SmallInput);
    });
    group.finish();

    // Half of these keys have no account, so half of the proofs are proofs of absence.
    let longest = (0..ACCOUNTS / 10).map(|i| encode(&state.prove(&key(i * 20))).len()).max();
    println!(
        "longest of {} account proofs: {} bytes",
        ACCOUNTS / 10,
        black_box(longest).unwrap_or(0)
    );
    assert!(
        longest <= Some(2_048),
        "an account's proof stays under 2,048 bytes at a million accounts"
    );
}

fn snapshots(c: &mut Criterion) {
    const ACCOUNTS: u64 = 100_000;
    let state = State::from_entries((0..ACCOUNTS).map(|i| (key(i), account(i))));
    let rules = SnapshotRules::new(&Limits::default());
    let make = || Frontier::of(&state, &rules).expect("a small state");
    let frontier = make();
    let bytes = frontier.bytes();
    let chunks: Vec<Vec<u8>> = frontier.chunks(&state).collect();
    let mut group = c.benchmark_group("snapshot of 100,000 accounts");
    group.sample_size(20);
    group.bench_function("make the frontier", |b| b.iter(make));
    group.bench_function("accept the frontier", |b| {
        b.iter(|| Frontier::decode(&bytes, state.root(), &rules).is_ok())
    });
    group.bench_function("make all chunks", |b| {
        b.iter(|| frontier.chunks(&state).map(|chunk| chunk.len()).sum::<usize>());
    });
    group.bench_function("verify all chunks and load them", |b| {
        let verify = |(index, bytes): (u64, &Vec<u8>)| frontier.verify_chunk(index, bytes);
        b.iter(|| frontier.assemble((0..).zip(&chunks).flat_map(verify)).is_some());
    });
    group.finish();
    println!(
        "{} subtrees in a frontier of {} bytes, {} chunks",
        frontier.descriptors().len(),
        bytes.len(),
        chunks.len()
    );
}

criterion_group!(benches, blocks, snapshots);
criterion_main!(benches);
