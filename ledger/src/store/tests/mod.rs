#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod archive;
mod audit;
mod crash;
mod damage;
mod damage_partial;
mod eras;
mod partial;
mod readers;
mod segments;
mod snapshots;
mod staging;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use readers::{check_partial, check_readers};
use tempfile::TempDir;

use super::schema::{Key, prefix};
use super::*;
use crate::address::Coin;
use crate::certificate::{Vote, VoteKind};
use crate::chain::{Chain, ChainState};
use crate::genesis::{Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use crate::hash::Hash;
use crate::signature::{PublicKey, SigningKey};
use crate::transaction::{Body, Output, Transfer, VerifiedTransaction, verify_transactions};
use crate::units::{Amount, Nonce, Round, Timestamp, VotingPower};

fn key(seed: u64) -> SigningKey {
    SigningKey::from_seed(
        &Hash::of(crate::hash::Domain::Genesis, &[b"test", &seed.to_le_bytes()]).0,
    )
}

/// The key of an account that only receives.
fn stranger(seed: u64) -> PublicKey {
    SigningKey::from_seed(
        &Hash::of(crate::hash::Domain::Genesis, &[b"stranger", &seed.to_le_bytes()]).0,
    )
    .public()
}

/// A chain with its keys and the state at its tip. It makes blocks without consensus.
struct Maker {
    chain: Arc<Chain>,
    state: ChainState,
    certificate: Certificate,
    validators: Vec<SigningKey>,
    senders: Vec<SigningKey>,
    nonces: BTreeMap<usize, u64>,
}

const SENDERS: usize = 20;

fn genesis(accounts: u64) -> Genesis {
    let owners =
        (0..SENDERS as u64).map(|seed| key(seed).public()).chain((0..accounts).map(stranger));
    let account = |account| GenesisAccount {
        name: String::new(),
        account,
        balance: Amount(1_000_000_000_000_000),
    };
    let validator = |seed: u64| GenesisValidator {
        name: format!("validator {seed}"),
        key: key(1_000 + seed).public(),
        payout: key(2_000 + seed).public(),
        power: VotingPower(10),
    };
    Genesis {
        accounts: owners.map(account).collect(),
        validators: (0..4).map(validator).collect(),
        limits: Limits {
            segment_bytes: 64 << 10,
            block_bytes_max: 64 << 10,
            chunk_bytes: 16 << 10,
            ..Limits::default()
        },
        format: crate::genesis::FORMAT,
        network: LOCAL_NETWORK.to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1_767_225_600_000),
    }
}

impl Maker {
    fn new(genesis: Genesis) -> Self {
        let chain = Chain::new(genesis);
        Self {
            state: ChainState::genesis(Arc::clone(&chain)),
            certificate: Certificate::genesis(chain.id()),
            chain,
            validators: (1_000..1_004).map(key).collect(),
            senders: (0..SENDERS as u64).map(key).collect(),
            nonces: BTreeMap::new(),
        }
    }

    /// Signed transfers by the senders in turn. Each pays the next sender, and this many accounts
    /// that only receive.
    fn transfers(&mut self, count: usize, strangers: u64) -> Vec<Arc<VerifiedTransaction>> {
        let height = self.state.tip().height.0;
        let strangers: Vec<PublicKey> =
            (0..strangers).map(|s| stranger(height * 100 + s)).collect();
        let transfer = |i: usize| {
            let sender = i % SENDERS;
            let nonce = self.nonces.entry(sender).or_default();
            let next = self.senders[(sender + 1) % SENDERS].public();
            let outputs = std::iter::once(next).chain(strangers.iter().copied());
            let body = Body::Transfer(Transfer {
                sender: self.senders[sender].public(),
                nonce: Nonce(*nonce),
                outputs: outputs.map(|account| Output { account, amount: Amount(1) }).collect(),
                fee: Amount(100_000_000),
                expires_at: Timestamp(self.state.tip().time.0 + 60_000),
                memo: Vec::new(),
            });
            *nonce += 1;
            body.sign(self.chain.id(), &self.senders[sender])
        };
        let signed = (0..count).map(transfer).collect();
        verify_transactions(self.chain.id(), signed).into_iter().map(Option::unwrap).collect()
    }

    /// The next final block.
    fn block(&mut self, transactions: Vec<Arc<VerifiedTransaction>>) -> Committed {
        let height = self.state.tip().height.next();
        let validators = self.chain.validators(height);
        let proposer = validators.proposer(height, Round(0)).key;
        let expected = transactions.len();
        let block = self.state.propose(
            proposer,
            self.state.next_time(),
            self.certificate.clone(),
            transactions,
        );
        assert_eq!(
            block.block().transactions.len(),
            expected,
            "every transaction of the fixture applies"
        );
        let vote = |key: &SigningKey| {
            let validator = key.public();
            let (kind, round, block) = (VoteKind::Precommit, Round(0), Some(block.hash()));
            (
                validator,
                key.sign(&Vote { kind, height, round, block, validator }.message(self.chain.id())),
            )
        };
        // Three or four validators sign, so that certificates of different lengths follow each
        // other.
        let signers = self.validators.iter().take(3 + height.0 as usize % 2).map(vote);
        self.certificate = Certificate::new(height, Round(0), block.hash(), validators, signers);
        let sealed = self.state.advance(&block);
        Committed { block, certificate: self.certificate.clone(), sealed }
    }

    fn next(&mut self, transactions: usize) -> Committed {
        let transactions = self.transfers(transactions, 0);
        self.block(transactions)
    }
}

struct Place {
    _temporary: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let temporary = tempfile::tempdir().unwrap();
    Place { path: temporary.path().join("store"), _temporary: temporary }
}

fn created(maker: &Maker) -> (Place, Opened) {
    let place = place();
    Store::create(&place.path, maker.chain.genesis()).unwrap();
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    (place, opened)
}

/// Copies the files of an open store, as a crash would leave them.
fn crashed(from: &Path) -> Place {
    let place = place();
    copy(from, &place.path);
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn same_state(got: &ChainState, expected: &ChainState) {
    assert_eq!(got.tip(), expected.tip());
    assert_eq!(got.roots(), expected.roots());
    assert!(got.history() == expected.history());
    assert!(got.state().iter().eq(expected.state().iter()));
}

fn verified(path: &Path, chain: &Arc<Chain>) -> VerifyReport {
    let mut calls = Vec::new();
    let report = Store::verify(path, chain, &mut |height, tip| calls.push((height, tip))).unwrap();
    assert_eq!(calls.len() as u64, report.height.0);
    report
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let mut maker = Maker::new(genesis(100));
    let (place, opened) = created(&maker);
    assert_eq!(
        (opened.store.tip(), &opened.certificate),
        ((Height(0), BlockHash(maker.chain.id().0)), &maker.certificate)
    );
    same_state(&opened.state, &maker.state);
    let mut blocks = Vec::new();
    let mut store = opened.store;
    for count in [0, 1, 300, 7, 300] {
        blocks.push(maker.next(count));
        store.commit(&blocks[blocks.len() - 1..]).unwrap();
        assert!(!store.maintain().unwrap());
        check_readers(&store, &maker.chain, &blocks);
        drop(store);
        let opened = Store::open(&place.path, &maker.chain).unwrap();
        same_state(&opened.state, &maker.state);
        assert_eq!(opened.certificate, maker.certificate);
        check_readers(&opened.store, &maker.chain, &blocks);
        store = opened.store;
    }
    // Many blocks in one commit.
    let more: Vec<_> = (0..10).map(|count| maker.next(count)).collect();
    store.commit(&more).unwrap();
    blocks.extend(more);
    store.commit(&[]).unwrap();
    check_readers(&store, &maker.chain, &blocks);
    drop(store);
    let report = verified(&place.path, &maker.chain);
    assert_eq!(report.problems, []);
    assert_eq!((report.height, report.transactions), (Height(15), 608 + 45));
    assert_eq!(Store::genesis(&place.path).unwrap(), *maker.chain.genesis());
}

#[test]
fn a_store_is_created_once_and_opened_for_its_chain_alone() {
    let maker = Maker::new(genesis(0));
    let place = place();
    assert!(matches!(Store::open(&place.path, &maker.chain), Err(StoreError::Missing { .. })));
    assert!(matches!(Store::genesis(&place.path), Err(StoreError::Missing { .. })));
    assert!(!place.path.exists(), "asking for a store does not make one");
    // A crash during creation leaves the directory `store.new`, which is no obstacle.
    fs::create_dir(place.path.with_file_name("store.new")).unwrap();
    fs::create_dir(&place.path).unwrap();
    Store::create(&place.path, maker.chain.genesis()).unwrap();
    assert!(matches!(
        Store::create(&place.path, maker.chain.genesis()),
        Err(StoreError::Exists { .. })
    ));

    let other = Chain::new(Genesis { start_time: Timestamp(1), ..genesis(0) });
    match Store::open(&place.path, &other).map(|opened| opened.store) {
        Err(StoreError::Chain { got, expected }) => {
            assert_eq!((got, expected), (maker.chain.id(), other.id()))
        }
        result => panic!("{result:?}"),
    }
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    assert!(
        matches!(Store::open(&place.path, &maker.chain), Err(StoreError::Io { .. })),
        "open twice"
    );
    drop(opened);
    for (version, hint) in
        [(1u32, "made by cairn 0.1"), (2, "made by cairn 0.1"), (3, "db export"), (5, "upgrade")]
    {
        let disk = Disk::open(&place.path).unwrap();
        let meta = Key::Meta.bytes();
        let content = codec::encode(&(version, "whatever this version has"));
        disk.put_raw(&meta, &schema::seal(&meta, &content));
        drop(disk);
        let error = Store::open(&place.path, &maker.chain).map(|opened| opened.store).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Schema { got, expected: schema::SCHEMA_VERSION } if got == version
        ));
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
#[should_panic(expected = "blocks are committed on the tip")]
fn a_block_that_does_not_follow_is_our_bug() {
    let mut maker = Maker::new(genesis(0));
    let (_place, opened) = created(&maker);
    maker.next(0);
    let _ = opened.store.commit(&[maker.next(0)]);
}

/// The chain is long enough for several checkpoints in both slots, new
/// accounts, and pages that split. The store is opened after crashes and after clean ends.
#[test]
fn a_long_chain_with_checkpoints_and_crashes() {
    let mut maker = Maker::new(genesis(2_000));
    let (place, opened) = created(&maker);
    let mut store = opened.store;
    let mut blocks = Vec::new();
    let mut checkpoints = 0;
    for height in 1..=700u64 {
        let transactions = maker.transfers(height as usize % 5, 3);
        blocks.push(maker.block(transactions));
        store.commit(&blocks[blocks.len() - 1..]).unwrap();
        checkpoints += u64::from(store.maintain().unwrap());
        if height % 97 == 0 {
            let crash = crashed(&place.path);
            let opened = Store::open(&crash.path, &maker.chain).unwrap();
            same_state(&opened.state, &maker.state);
            assert_eq!(opened.store.tip().0, Height(height));
        }
        if height == 300 {
            // A newly opened store does not know the content of the slot that is not marked, and
            // rewrites it.
            drop(store);
            store = Store::open(&place.path, &maker.chain).unwrap().store;
        }
    }
    assert_eq!(checkpoints, 10);
    check_readers(&store, &maker.chain, &blocks);
    drop(store);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    same_state(&opened.state, &maker.state);
    check_readers(&opened.store, &maker.chain, &blocks);
    drop(opened);
    let report = verified(&place.path, &maker.chain);
    assert_eq!(report.problems, []);
    assert_eq!(report.height, Height(700));
    assert!(report.segments >= 2, "{}", report.segments);
}

#[test]
fn evidence_is_kept_once_and_bounded() {
    let mut maker = Maker::new(genesis(0));
    let (place, opened) = created(&maker);
    let store = opened.store;
    assert_eq!(store.evidence().unwrap(), []);
    let long = vec![7; EVIDENCE_BYTES_MAX - 1];
    assert!(store.put_evidence(None, b"a", &long).unwrap());
    assert!(!store.put_evidence(None, b"a", b"other").unwrap());
    assert!(!store.put_evidence(None, b"bb", &long).unwrap());
    // However often one validator signs twice, evidence about the others is still kept.
    let about = |i: usize| Some(PublicKey([i as u8; 32]));
    for i in 0..10 {
        assert_eq!(
            store.put_evidence(about(0), &[1, i], b"x").unwrap(),
            usize::from(i) < EVIDENCE_ABOUT_ONE_MAX
        );
    }
    drop(store);
    // A store that is opened again knows which evidence it has.
    let store = Store::open(&place.path, &maker.chain).unwrap().store;
    assert!(!store.put_evidence(about(0), b"one more", b"x").unwrap());
    for i in EVIDENCE_ABOUT_ONE_MAX + 1..EVIDENCE_MAX {
        assert!(
            store.put_evidence(about(i / EVIDENCE_ABOUT_ONE_MAX), &i.to_le_bytes(), b"x").unwrap(),
            "{i}"
        );
    }
    assert!(!store.put_evidence(None, b"one more", b"x").unwrap(), "all places are taken");
    store.commit(&[maker.next(1)]).unwrap();
    drop(store);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    let kept = opened.store.evidence().unwrap();
    assert_eq!(kept.len(), EVIDENCE_MAX);
    assert!(kept.contains(&(b"a".to_vec(), long)));
    drop(opened);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);
}

/// sled puts large leaves into files that it never syncs. No such file may appear, whatever is
/// stored or removed.
#[test]
fn no_file_beside_the_log_with_large_blocks_and_many_accounts() {
    let mut maker = Maker::new(Genesis { limits: Limits::default(), ..genesis(10_000) });
    let (place, opened) = created(&maker);
    for _ in 0..5 {
        let transactions = maker.transfers(770, 63);
        let committed = maker.block(transactions);
        assert!(committed.block.bytes().len() > 2_050_000, "{}", committed.block.bytes().len());
        opened.store.commit(&[committed]).unwrap();
        opened.store.write(|writer| opened.store.checkpoint(writer)).unwrap();
        assert_eq!(disk::blobs(&place.path).unwrap(), 0);
    }
    for _ in 0..130 {
        opened.store.commit(&[maker.next(3)]).unwrap();
        opened.store.maintain().unwrap();
    }
    drop(opened);
    assert_eq!(disk::blobs(&place.path).unwrap(), 0);
    same_state(&Store::open(&place.path, &maker.chain).unwrap().state, &maker.state);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);
}

/// Readers that run beside a writer see only durable blocks, and each of them whole.
#[test]
fn readers_and_the_writer_work_side_by_side() {
    let mut maker = Maker::new(genesis(50));
    let (_place, opened) = created(&maker);
    let store = opened.store;
    let blocks: Vec<_> = (0..300).map(|_| maker.next(4)).collect();
    std::thread::scope(|scope| {
        let reader = || {
            while store.tip().0 < Height(300) {
                let (height, hash) = store.tip();
                if height > Height(0) {
                    assert_eq!(store.height_of(&hash).unwrap(), Kept::Here(height));
                    let certificate = store.certificate(height).unwrap().here().unwrap();
                    assert_eq!(certificate.block, hash);
                    let transaction =
                        blocks[height.0 as usize / 2].block.block().transactions[1].id();
                    assert_eq!(
                        store.find_transaction(&transaction).unwrap(),
                        Kept::Here((Height(height.0 / 2 + 1), 1))
                    );
                }
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for committed in &blocks {
            store.commit(std::slice::from_ref(committed)).unwrap();
            store.maintain().unwrap();
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
