#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::schema::prefix;
use super::*;
use crate::address::Coin;
use crate::certificate::{Vote, VoteKind};
use crate::chain::{Chain, ChainState};
use crate::genesis::{Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use crate::signature::{PublicKey, SigningKey};
use crate::transaction::{Body, Output, Transfer, VerifiedTransaction, verify_transactions};
use crate::units::{Amount, Nonce, Round, Timestamp, VotingPower};

fn key(seed: u64) -> SigningKey {
    SigningKey::from_seed(&Hash::of(crate::hash::Domain::Genesis, &[b"test", &seed.to_le_bytes()]).0)
}

/// Keys that only receive or are only counted need no point behind them, so a large genesis costs no curve arithmetic.
fn stranger(seed: u64) -> PublicKey {
    PublicKey(Hash::of(crate::hash::Domain::Genesis, &[b"stranger", &seed.to_le_bytes()]).0)
}

/// A chain with its keys and the state at its tip: everything that makes blocks but consensus.
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
    let owners = (0..SENDERS as u64).map(|seed| key(seed).public()).chain((0..accounts).map(stranger));
    let account = |account| GenesisAccount { name: String::new(), account, balance: Amount(1_000_000_000_000_000) };
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

    /// Signed transfers of the senders in turn, to the next sender and to strangers.
    fn transfers(&mut self, count: usize, strangers: u64) -> Vec<Arc<VerifiedTransaction>> {
        let height = self.state.tip().height.0;
        let transfer = |i: usize| {
            let sender = i % SENDERS;
            let nonce = self.nonces.entry(sender).or_default();
            let next = self.senders[(sender + 1) % SENDERS].public();
            let outputs = std::iter::once(next).chain((0..strangers).map(|s| stranger(height * 100 + s)));
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
        let now = Timestamp(self.state.tip().time.0 + 50);
        let block = self.state.propose(proposer, now, self.certificate.clone(), transactions);
        assert_eq!(block.block().transactions.len(), expected, "every transaction of the fixture applies");
        let vote = |key: &SigningKey| {
            let validator = key.public();
            let (kind, round, block) = (VoteKind::Precommit, Round(0), Some(block.hash()));
            (validator, key.sign(&Vote { kind, height, round, block, validator }.message(self.chain.id())))
        };
        // Three or four sign: certificates of different lengths follow each other.
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

/// What a crash leaves: the files as they are, copied while the store is open.
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

/// Everything readers give is what was committed, and nothing more.
fn check_readers(store: &Store, chain: &Chain, blocks: &[Committed]) {
    let tip = blocks.last().unwrap();
    assert_eq!(store.tip(), (tip.block.height(), tip.block.hash()));
    assert_eq!(store.certificate(Height(0)).unwrap(), Some(Certificate::genesis(chain.id())));
    let mut segments = 0;
    for committed in blocks {
        let (height, block) = (committed.block.height(), &committed.block);
        assert_eq!(store.block_bytes(height).unwrap().as_ref(), Some(&**block.bytes()));
        assert_eq!(store.block_length(height).unwrap(), Some(block.bytes().len()));
        assert_eq!(store.header(height).unwrap().as_ref(), Some(block.header()));
        assert_eq!(codec::encode(&store.block(height).unwrap().unwrap()), **block.bytes());
        assert_eq!(store.height_of(&block.hash()).unwrap(), Some(height));
        assert_eq!(store.certificate(height).unwrap().as_ref(), Some(&committed.certificate));
        for (index, transaction) in (0..).zip(&block.block().transactions) {
            assert_eq!(
                store.find_transaction(&transaction.id()).unwrap(),
                Some((height, index)),
                "{index} at {height}"
            );
        }
        if let Some(sealed) = &committed.sealed {
            assert_eq!(store.segment(segments).unwrap().as_ref(), Some(sealed));
            segments += 1;
        }
    }
    assert_eq!(store.segment(segments).unwrap(), None);
    let beyond = tip.block.height().next();
    for height in [Height(0), beyond, Height(u64::MAX)] {
        assert_eq!(store.block_bytes(height).unwrap(), None);
        assert_eq!(store.header(height).unwrap(), None);
    }
    assert_eq!(store.certificate(beyond).unwrap(), None);
    assert_eq!(store.height_of(&BlockHash(Hash::ZERO)).unwrap(), None);
    assert_eq!(store.find_transaction(&TxId(Hash::ZERO)).unwrap(), None);
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
    // Many at once.
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
    // A crash while creating leaves another directory, which is no obstacle.
    fs::create_dir(place.path.with_file_name("store.new")).unwrap();
    fs::create_dir(&place.path).unwrap();
    Store::create(&place.path, maker.chain.genesis()).unwrap();
    assert!(matches!(Store::create(&place.path, maker.chain.genesis()), Err(StoreError::Exists { .. })));

    let other = Chain::new(Genesis { start_time: Timestamp(1), ..genesis(0) });
    match Store::open(&place.path, &other).map(|opened| opened.store) {
        Err(StoreError::Chain { got, expected }) => assert_eq!((got, expected), (maker.chain.id(), other.id())),
        result => panic!("{result:?}"),
    }
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    assert!(matches!(Store::open(&place.path, &maker.chain), Err(StoreError::Io { .. })), "open twice");
    let meta = Key::Meta.bytes();
    let content = codec::encode(&(2u32, "whatever version 2 has"));
    opened.store.shared.disk.put_raw(&meta, &schema::seal(&meta, &content));
    drop(opened);
    assert!(matches!(
        Store::open(&place.path, &maker.chain),
        Err(StoreError::Schema { got: 2, expected: schema::SCHEMA_VERSION })
    ));
}

#[test]
#[should_panic(expected = "blocks are committed on the tip")]
fn a_block_that_does_not_follow_is_our_bug() {
    let mut maker = Maker::new(genesis(0));
    let (_place, opened) = created(&maker);
    maker.next(0);
    let _ = opened.store.commit(&[maker.next(0)]);
}

/// Several checkpoints in both slots, tiers of runs, accounts that come and pages that split; then each way to come back.
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
            // The other slot is unknown to the newly opened store, and rewritten.
            drop(store);
            store = Store::open(&place.path, &maker.chain).unwrap().store;
        }
    }
    assert_eq!(checkpoints, 10);
    let runs: Vec<u64> = store.read_view().index.runs().keys().copied().collect();
    assert_eq!(runs.len(), 3, "eight of ten runs are merged: {runs:?}");
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

/// A crash at every stage of a checkpoint leaves the one before it usable, and nothing of the half-written one in the way.
#[test]
fn a_crash_within_a_checkpoint_loses_nothing() {
    let mut maker = Maker::new(genesis(500));
    let (place, opened) = created(&maker);
    let store = opened.store;
    let mut blocks = Vec::new();
    for round in 0..4 {
        for _ in 0..20 {
            let transactions = maker.transfers(3, 20);
            blocks.push(maker.block(transactions));
        }
        store.commit(&blocks[blocks.len() - 20..]).unwrap();
        let disk = &store.shared.disk;
        let crash = |stage: &str| {
            let crash = crashed(&place.path);
            let report = verified(&crash.path, &maker.chain);
            assert_eq!(report.problems, [], "{stage} of checkpoint {round}");
            let opened = Store::open(&crash.path, &maker.chain).unwrap();
            same_state(&opened.state, &maker.state);
            check_readers(&opened.store, &maker.chain, &blocks);
            // The next checkpoint is made over what is left.
            opened.store.write(|writer| opened.store.checkpoint(writer)).unwrap();
            drop(opened);
            let report = verified(&crash.path, &maker.chain);
            assert_eq!(report.problems, [], "after {stage} of checkpoint {round}");
        };
        let mut writer = store.shared.writer.lock().unwrap();
        let state = writer.state.clone();
        writer.slots.write(disk, &state).unwrap();
        disk.sync().unwrap();
        crash("pages");
        store.read_view().index.write(disk).unwrap();
        disk.sync().unwrap();
        crash("index");
        store.checkpoint(&mut writer).unwrap();
        drop(writer);
        crash("marker");
    }
}

/// Of the bytes that a commit changed in the file, only the first so many reached the disk: the machine lost power before the
/// commit was acknowledged. What was acknowledged before is there.
#[test]
fn a_torn_commit_is_there_whole_or_not_at_all() {
    let mut maker = Maker::new(genesis(10));
    let (place, opened) = created(&maker);
    let mut blocks = Vec::new();
    for _ in 0..5 {
        let [before, witness] = ["db", "durable"].map(|name| fs::read(place.path.join(name)).unwrap());
        let known = blocks.len() as u64;
        blocks.push(maker.next(60));
        opened.store.commit(&blocks[blocks.len() - 1..]).unwrap();
        let after = fs::read(place.path.join("db")).unwrap();
        let changed: Vec<usize> = (0..after.len()).filter(|at| before.get(*at) != Some(&after[*at])).collect();
        assert!(changed.len() > 6_000);
        for part in 0..=16 {
            let cut = changed.get(changed.len() * part / 16).copied().unwrap_or(after.len());
            let torn = [&after[..cut], before.get(cut..).unwrap_or_default()].concat();
            let crash = crashed(&place.path);
            fs::write(crash.path.join("db"), torn).unwrap();
            fs::write(crash.path.join("durable"), &witness).unwrap();
            let opened = Store::open(&crash.path, &maker.chain).unwrap();
            let tip = opened.store.tip().0.0;
            assert!(tip == known || tip == known + 1, "{tip} at part {part} after {known}");
            assert!(part > 0 || tip == known);
            assert!(part < 16 || tip == known + 1);
            if tip > 0 {
                check_readers(&opened.store, &maker.chain, &blocks[..tip as usize]);
            }
        }
    }
}

/// Flips one bit of a stored value, as a bad disk would.
fn flip(store: &Store, key: Key, at: usize) {
    let key = key.bytes();
    let mut value = store.shared.disk.get_raw(&key).unwrap();
    let at = at % value.len();
    value[at] ^= 1;
    store.shared.disk.put_raw(&key, &value);
}

fn corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>, name: &str) {
    match result {
        Err(StoreError::Corrupt { what, .. }) => assert!(what.contains(name), "{what}, expected {name}"),
        other => panic!("{other:?}, expected damage of {name}"),
    }
}

#[test]
fn every_flipped_bit_is_named_and_never_served() {
    let mut maker = Maker::new(genesis(100));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(10)).collect();
    opened.store.commit(&blocks).unwrap();
    assert!(opened.store.maintain().unwrap());
    assert!(opened.store.segment(0).unwrap().is_some());
    assert!(opened.store.put_evidence(b"name", b"content").unwrap());
    drop(opened);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);

    type Read = fn(&Store, &[Committed]) -> Result<(), StoreError>;
    type Row<'a> = (&'a dyn Fn(&Store) -> Key, &'a str, bool, Read);
    let page = |store: &Store| store.shared.disk.scan_keys(&prefix::pages(schema::Slot::A)).next().unwrap().unwrap().0;
    let evidence = |store: &Store| store.shared.disk.scan_keys(&prefix::EVIDENCE).next().unwrap().unwrap().0;
    let hash = blocks[4].block.hash();
    let rows: [Row; 12] = [
        (&|_| Key::Body(Height(9), 0), "block 9, piece 0", false, |store, _| store.block(Height(9)).map(drop)),
        (&|_| Key::Body(Height(9), 0), "block 9, piece 0", false, |store, _| store.certificate(Height(8)).map(drop)),
        (&|_| Key::Body(Height(9), 0), "block 9, piece 0", false, |store, blocks| {
            store.find_transaction(&blocks[8].block.block().transactions[3].id()).map(drop)
        }),
        (&|_| Key::HeightOf(hash), "height of block", false, |store, blocks| {
            store.height_of(&blocks[4].block.hash()).map(drop)
        }),
        (&|_| Key::Segment(0, 0), "segment 0", true, |store, _| store.segment(0).map(drop)),
        (&|_| Key::RunPiece(0, 0), "run 0, piece 0", false, |store, blocks| {
            let mut all = blocks.iter().flat_map(|one| &one.block.block().transactions);
            all.try_for_each(|one| store.find_transaction(&one.id()).map(drop))
        }),
        (&evidence, "evidence", false, |store, _| store.evidence().map(drop)),
        (&|_| Key::Tip, "tip", true, |_, _| Ok(())),
        (&|_| Key::TipCertificate(0), "certificate of the tip", true, |_, _| Ok(())),
        (&|_| Key::Marker, "marker", true, |_, _| Ok(())),
        (&page, "state page", true, |_, _| Ok(())),
        (&|_| Key::Run(0, 0), "run 0, description", true, |_, _| Ok(())),
    ];
    for (row, (key, name, stops, read)) in rows.into_iter().enumerate() {
        for at in [row, 7, 8, 1_000_003] {
            let damaged = crashed(&place.path);
            let opened = Store::open(&damaged.path, &maker.chain).unwrap();
            let key = key(&opened.store);
            read(&opened.store, &blocks).unwrap();
            flip(&opened.store, key, at);
            if !stops || name.starts_with("segment") {
                corrupt(read(&opened.store, &blocks), name);
            }
            drop(opened);
            let report = verified(&damaged.path, &maker.chain);
            assert!(report.problems.iter().any(|problem| problem.what.contains(name)), "{name}: {:?}", report.problems);
            match Store::open(&damaged.path, &maker.chain) {
                Ok(_) => assert!(!stops, "{name} is needed to open"),
                Err(error) => {
                    assert!(stops, "{name}: {error}");
                    corrupt(Err::<(), _>(error), name);
                }
            }
        }
    }
}

/// Values that are whole, under the right key, and yet not what follows from the blocks.
#[test]
fn verify_finds_values_that_do_not_belong() {
    let mut maker = Maker::new(genesis(300));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(10)).collect();
    opened.store.commit(&blocks).unwrap();
    opened.store.maintain().unwrap();
    drop(opened);

    type Damage = fn(&Disk);
    fn put(disk: &Disk, key: Key, content: &[u8]) {
        let key = key.bytes();
        disk.put_raw(&key, &schema::seal(&key, content));
    }
    fn first(disk: &Disk, prefix: &[u8]) -> (Key, Vec<u8>) {
        disk.scan_keys(prefix).next().unwrap().unwrap()
    }
    let rows: [(&str, Damage); 11] = [
        ("unknown", |disk| disk.put_raw(&[99, 1], &schema::seal(&[99, 1], b"x"))),
        ("beyond the tip", |disk| put(disk, Key::Body(Height(71), 0), b"x")),
        ("beyond the tip", |disk| put(disk, Key::Segment(9, 0), b"x")),
        ("heights by hash: 71, expected 70", |disk| {
            put(disk, Key::HeightOf(BlockHash(Hash::ZERO)), &codec::encode(&Height(3)))
        }),
        ("height of block", |disk| {
            let (key, _) = first(disk, &[6]);
            put(disk, key, &codec::encode(&Height(3_000)));
        }),
        ("not the one that its blocks make", |disk| {
            let mut other = segment(disk, 0).unwrap();
            other.chunks[0] = Hash::ZERO;
            let record = codec::encode(&(other.descriptor, other.chunks, other.blocks));
            for (piece, content) in schema::pieces(&record) {
                put(disk, Key::Segment(0, piece), &content);
            }
        }),
        ("other entries", |disk| {
            let (key, content) = first(disk, &prefix::pages(schema::Slot::A));
            let mut entries: Vec<crate::state::Entry> = codec::decode(&content, 10_000).unwrap();
            entries[0].1.balance = Amount(1);
            put(disk, key, &codec::encode(&entries));
        }),
        ("pages, expected", |disk| {
            let (Key::Page(slot, mut page), content) = first(disk, &prefix::pages(schema::Slot::A)) else { panic!() };
            page.depth += 1;
            put(disk, Key::Page(slot, page), &content);
        }),
        ("transaction index", |disk| {
            let mut entries: Vec<index::Entry> = disk.value(Key::RunPiece(0, 0)).unwrap().unwrap();
            entries[5].index += 1;
            put(disk, Key::RunPiece(0, 0), &codec::encode(&entries));
        }),
        ("not in order", |disk| {
            let mut entries: Vec<index::Entry> = disk.value(Key::RunPiece(0, 1)).unwrap().unwrap();
            entries.swap(3, 4);
            put(disk, Key::RunPiece(0, 1), &codec::encode(&entries));
        }),
        ("signature of transaction 9 does not hold", |disk| {
            let mut bytes = block_bytes(disk, Height(5)).unwrap();
            let last = bytes.len() - 1;
            bytes[last - 40] ^= 1;
            for (piece, content) in schema::pieces(&bytes) {
                put(disk, Key::Body(Height(5), piece), &content);
            }
        }),
    ];
    for (name, damage) in rows {
        let damaged = crashed(&place.path);
        let disk = Disk::open(&damaged.path).unwrap();
        damage(&disk);
        disk.sync().unwrap();
        drop(disk);
        let report = verified(&damaged.path, &maker.chain);
        assert!(!report.is_clean());
        let named = report.problems.iter().any(|problem| problem.to_string().contains(name));
        assert!(named, "{name}: {:?}", report.problems);
    }
    fs::write(place.path.join("blobs/123"), b"").unwrap();
    let report = verified(&place.path, &maker.chain);
    assert!(matches!(&report.problems[..], [problem] if problem.what.contains("blobs")), "{:?}", report.problems);
}

/// A bit of the file itself. sled answers with an error, a panic, or by ending its log there, which would take back final blocks:
/// none of it is served as the chain.
#[test]
fn damage_to_the_file_is_an_error_and_no_panic() {
    let mut maker = Maker::new(genesis(100));
    let (place, opened) = created(&maker);
    let blocks: Vec<_> = (0..70).map(|_| maker.next(40)).collect();
    opened.store.commit(&blocks[..60]).unwrap();
    opened.store.commit(&blocks[60..]).unwrap();
    opened.store.maintain().unwrap();
    drop(opened);
    let mut found = 0;
    for reopened in [false, true] {
        if reopened {
            // Now sled has a snapshot and reads what is before it only when asked.
            drop(Store::open(&place.path, &maker.chain).unwrap());
        }
        let good = fs::read(place.path.join("db")).unwrap();
        for part in 0..48 {
            let damaged = crashed(&place.path);
            let mut bytes = good.clone();
            bytes[good.len() * part / 48 + 100] ^= 0x10;
            fs::write(damaged.path.join("db"), &bytes).unwrap();
            let opened = match Store::open(&damaged.path, &maker.chain) {
                Ok(opened) => opened,
                Err(StoreError::Corrupt { .. }) => {
                    found += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(opened.store.tip().0, Height(70));
            for committed in &blocks {
                match opened.store.block_bytes(committed.block.height()) {
                    Ok(bytes) => assert_eq!(bytes.as_ref(), Some(&**committed.block.bytes())),
                    Err(StoreError::Corrupt { .. }) => found += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(found > 48, "{found}");
}

/// The witness is small and has two copies: damage to one is no loss, to both is named.
#[test]
fn the_witness_stands_for_the_tip() {
    let mut maker = Maker::new(genesis(0));
    let (place, opened) = created(&maker);
    opened.store.commit(&[maker.next(1), maker.next(1)]).unwrap();
    opened.store.commit(&[maker.next(1), maker.next(1)]).unwrap();
    drop(opened);
    let good = fs::read(place.path.join("durable")).unwrap();
    for (damage, opens) in [(&[3][..], true), (&[515], true), (&[3, 515], false)] {
        let mut bytes = good.clone();
        damage.iter().for_each(|at: &usize| bytes[*at] ^= 1);
        fs::write(place.path.join("durable"), bytes).unwrap();
        let result = Store::open(&place.path, &maker.chain).map(drop);
        if opens {
            result.unwrap();
        } else {
            corrupt(result, "durable");
        }
    }
    let other = schema::seal(b"durable", &codec::encode(&(Height(5), BlockHash(Hash::ZERO))));
    fs::write(place.path.join("durable"), &other).unwrap();
    corrupt(Store::open(&place.path, &maker.chain).map(drop), "database");
    assert!(!verified(&place.path, &maker.chain).is_clean());
}

#[test]
fn a_refused_write_is_invisible_and_the_last() {
    let mut maker = Maker::new(genesis(10));
    let (place, opened) = created(&maker);
    let store = opened.store;
    let first = maker.next(5);
    store.commit(std::slice::from_ref(&first)).unwrap();
    store.shared.disk.refuse_writes(true);
    let second = maker.next(5);
    assert!(matches!(store.commit(std::slice::from_ref(&second)), Err(StoreError::Io { .. })));
    check_readers(&store, &maker.chain, std::slice::from_ref(&first));
    assert_eq!(store.find_transaction(&second.block.block().transactions[0].id()).unwrap(), None);
    store.shared.disk.refuse_writes(false);
    assert!(matches!(store.commit(&[second]), Err(StoreError::Failed { .. })));
    assert!(matches!(store.maintain(), Err(StoreError::Failed { .. })));
    assert!(matches!(store.put_evidence(b"a", b"b"), Err(StoreError::Failed { .. })));
    drop(store);
    assert!(Store::open(&place.path, &maker.chain).unwrap().store.tip().0 >= Height(1));
}

/// Fills the disk for real. Wants a small file system: `TMPDIR=/mnt/small cargo test -p cairn-ledger full -- --ignored`.
#[test]
#[ignore = "fills the file system of TMPDIR"]
fn a_full_disk_loses_nothing() {
    let mut maker = Maker::new(genesis(1_000));
    let (place, opened) = created(&maker);
    let mut blocks = Vec::new();
    let error = loop {
        blocks.push(maker.next(150));
        let result = opened.store.commit(&blocks[blocks.len() - 1..]).and_then(|()| opened.store.maintain());
        if let Err(error) = result {
            break error;
        }
    };
    eprintln!("after {} blocks: {error}", blocks.len());
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let tip = opened.store.tip().0.0 as usize;
    match opened.store.block_bytes(Height(1)) {
        Ok(bytes) => assert_eq!(bytes.as_ref(), Some(&**blocks[0].block.bytes())),
        Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
    }
    drop(opened);
    let roomy = PathBuf::from("/dev/shm/cairn-full-disk-test");
    let _ = fs::remove_dir_all(&roomy);
    copy(&place.path, &roomy);
    let opened = Store::open(&roomy, &maker.chain).unwrap();
    let found = opened.store.tip().0.0 as usize;
    assert!(found >= tip, "{found} of {tip} acknowledged");
    check_readers(&opened.store, &maker.chain, &blocks[..found]);
    drop(opened);
    let report = verified(&roomy, &maker.chain);
    fs::remove_dir_all(&roomy).unwrap();
    assert_eq!(report.problems, []);
}

#[test]
fn evidence_is_kept_once_and_bounded() {
    let mut maker = Maker::new(genesis(0));
    let (place, opened) = created(&maker);
    let store = opened.store;
    assert_eq!(store.evidence().unwrap(), []);
    let long = vec![7; EVIDENCE_BYTES_MAX - 1];
    assert!(store.put_evidence(b"a", &long).unwrap());
    assert!(!store.put_evidence(b"a", b"other").unwrap());
    assert!(!store.put_evidence(b"bb", &long).unwrap());
    for i in 1..EVIDENCE_MAX as u32 {
        assert!(store.put_evidence(&i.to_le_bytes(), b"x").unwrap());
    }
    assert!(!store.put_evidence(b"one more", b"x").unwrap());
    store.commit(&[maker.next(1)]).unwrap();
    drop(store);
    let opened = Store::open(&place.path, &maker.chain).unwrap();
    let kept = opened.store.evidence().unwrap();
    assert_eq!(kept.len(), EVIDENCE_MAX);
    assert!(kept.contains(&(b"a".to_vec(), long)));
    drop(opened);
    assert_eq!(verified(&place.path, &maker.chain).problems, []);
}

/// sled puts large leaves into files that it never syncs. None may come about, whatever is stored, grows and goes.
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

/// Readers beside a writer: each sees only blocks that are durable, and all of each.
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
                    assert_eq!(store.height_of(&hash).unwrap(), Some(height));
                    assert_eq!(store.certificate(height).unwrap().unwrap().block, hash);
                    let transaction = blocks[height.0 as usize / 2].block.block().transactions[1].id();
                    assert_eq!(store.find_transaction(&transaction).unwrap(), Some((Height(height.0 / 2 + 1), 1)));
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
