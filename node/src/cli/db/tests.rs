#![allow(clippy::unwrap_used)]

use ledger::block::Block;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{ChainState, Committed};
use ledger::genesis::{Genesis, template_key};
use ledger::signature::SigningKey;
use ledger::transaction::{Body, Output, Transfer, verify_transactions};
use ledger::units::{Amount, Nonce, Round, Timestamp};

use super::*;
use crate::cli::archive::Reader;
use crate::home::lock_dir;

/// The validator of the chains here.
fn validator() -> SigningKey {
    SigningKey::from_seed(&[5; 32])
}

fn genesis(network_start: u64) -> Genesis {
    let mut genesis = Genesis::from_json(include_bytes!("../../../../genesis.json")).unwrap();
    genesis.start_time = Timestamp(network_start);
    genesis.validators[0].key = validator().public();
    genesis
}

fn new_home(root: &Path, genesis: &Genesis) -> Held {
    let db = root.join("db");
    std::fs::create_dir_all(root).unwrap();
    Store::create(&db, genesis).unwrap();
    let lock = Lock::ToWrite(lock_dir(root).unwrap());
    Held { chain: Chain::new(genesis.clone()), db, _copy: None, _lock: lock }
}

fn precommit(chain: &Chain, height: Height, block: ledger::hash::BlockHash) -> Certificate {
    let round = Round(0);
    let key = validator();
    let vote = Vote {
        kind: VoteKind::Precommit,
        height,
        round,
        block: Some(block),
        validator: key.public(),
    };
    let signature = key.sign(&vote.message(chain.id()));
    Certificate::new(height, round, block, chain.validators(height), [(key.public(), signature)])
}

/// Adds blocks, each with one transfer from alice to bob.
fn grow(held: &Held, blocks: u64) {
    let Opened { store, mut state, mut certificate } = held.open().unwrap();
    for committed in made(&mut state, &mut certificate, blocks) {
        store.commit(&[committed]).unwrap();
    }
}

/// The next blocks of a chain, each with one transfer from alice to bob.
fn made(state: &mut ChainState, certificate: &mut Certificate, blocks: u64) -> Vec<Committed> {
    let chain = Arc::clone(state.chain());
    let mut made = Vec::new();
    let (alice, bob) = (template_key("alice").unwrap(), template_key("bob").unwrap());
    for _ in 0..blocks {
        let time = Timestamp(state.tip().time.0 + 1_000);
        let transfer = Transfer {
            sender: alice.public(),
            nonce: Nonce(state.account(&alice.public()).nonce.0),
            outputs: vec![Output { account: bob.public(), amount: Amount(7) }],
            fee: Amount(10_000),
            expires_at: Timestamp(time.0 + 1_000),
            memo: Vec::new(),
        };
        let signed = vec![Body::Transfer(transfer).sign(chain.id(), &alice)];
        let candidates = verify_transactions(chain.id(), signed).into_iter().flatten();
        let block = state.propose(validator().public(), time, certificate.clone(), candidates);
        assert_eq!(block.block().transactions.len(), 1);
        *certificate = precommit(&chain, block.height(), block.hash());
        made.push(state.commit(block, certificate.clone()));
    }
    made
}

/// Makes the store begin with a snapshot of its chain, which has 16 blocks in a segment.
fn join(held: &Held, segments: u64) {
    let mut state = ChainState::genesis(Arc::clone(&held.chain));
    let mut certificate = Certificate::genesis(held.chain.id());
    let blocks = made(&mut state, &mut certificate, 16 * segments);
    let sealed: Vec<_> =
        blocks.iter().filter_map(|one| Some(one.sealed.as_ref()?.descriptor)).collect();
    let header = blocks[blocks.len() - 1].block.header();
    let store = held.open().unwrap().store;
    store.adopt(header, certificate, &sealed, state.state().clone()).unwrap();
}

fn verify_home(held: &Held) -> anyhow::Result<()> {
    verify(held, &held.db.with_file_name("snapshots"), true)
}

fn export_to(held: &Held, to: &Path) -> anyhow::Result<()> {
    export(held, Target::open(to)?, Range::default(), true)
}

fn import_from(held: &Held, from: &Path) -> anyhow::Result<()> {
    import(held, Source::open(from)?, true)
}

fn tip(held: &Held) -> (Height, ledger::hash::BlockHash) {
    held.open().unwrap().store.tip()
}

#[test]
fn a_chain_moves_by_file_and_an_import_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let genesis = genesis(1);
    let (from, to) = (new_home(&path("from"), &genesis), new_home(&path("to"), &genesis));
    assert!(export_to(&from, &path("empty")).unwrap_err().to_string().contains("no block yet"));

    grow(&from, 5);
    export_to(&from, &path("five")).unwrap();
    assert!(export_to(&from, &path("five")).unwrap_err().to_string().contains("exists"));
    grow(&from, 300);
    export_to(&from, &path("all")).unwrap();
    for file in ["five", "five", "all", "five"] {
        import_from(&to, &path(file)).unwrap();
    }
    assert_eq!(tip(&to), tip(&from));
    verify_home(&to).unwrap();
    assert!(!path("all.partial").exists());
}

/// The file has its name for good before the export says so.
#[cfg(unix)]
#[test]
fn the_name_of_an_export_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let from = new_home(&folder.path().join("from"), &genesis(1));
    grow(&from, 1);
    crate::files::SYNCED.take();
    export_to(&from, &folder.path().join("all")).unwrap();
    assert_eq!(crate::files::SYNCED.take(), [folder.path()]);
}

#[test]
fn a_chain_moves_by_a_pipe_that_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let genesis = genesis(1);
    let (from, to) = (new_home(&path("from"), &genesis), new_home(&path("to"), &genesis));
    grow(&from, 300);
    let pipe = path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| export_to(&from, &pipe));
        import_from(&to, &pipe).unwrap();
        writer.join().unwrap().unwrap();
    });
    assert_eq!(tip(&to), tip(&from));

    // An archive without its last byte: the blocks before are valid, and the last blocks are not
    // written.
    export_to(&from, &path("file")).unwrap();
    let bytes = std::fs::read(path("file")).unwrap();
    let other = new_home(&path("other"), &genesis);
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&pipe, &bytes[..bytes.len() - 1]).unwrap());
        let error = format!("{:#}", import_from(&other, &pipe).unwrap_err());
        assert!(error.contains("cut off"), "{error}");
    });
    assert!(tip(&other).0 < Height(300));
    assert!(verify_home(&other).is_ok());
}

#[test]
fn a_bad_file_is_named_and_imports_nothing_bad() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let from = new_home(&path("from"), &genesis(1));
    grow(&from, 3);
    export_to(&from, &path("good")).unwrap();
    let good = std::fs::read(path("good")).unwrap();
    let mut pieces = Vec::new();
    let mut reader = Reader::new(&good[..]).unwrap();
    let contents = reader.contents();
    for _ in 0..4 {
        pieces.push(reader.piece().unwrap());
    }

    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    // An archive with a correct checksum, as an attacker would write it.
    let rewritten = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut pieces = pieces.clone();
        change(&mut pieces);
        let mut writer = Writer::new(Vec::new(), contents).unwrap();
        for piece in &pieces {
            writer.piece(piece).unwrap();
        }
        writer.finish().unwrap().0
    };
    let forged = rewritten(&|pieces| {
        let mut block: Block = codec::decode(&pieces[1], 1 << 20).unwrap();
        let Body::Transfer(transfer) = &mut block.transactions[0].body;
        transfer.outputs[0].amount = Amount(1_000_000);
        pieces[1] = codec::encode(&block);
    });
    let empty = codec::encode(&Certificate::genesis(from.chain.id()));
    let uncertified = rewritten(&|pieces| pieces[3] = empty.clone());
    for (name, bytes, expected) in [
        ("cut", good[..good.len() - 1].to_vec(), "cut off"),
        ("flip", flipped(good.len() / 2), "damaged"),
        ("text", b"not an archive at all".to_vec(), "not an archive"),
        ("old", [&b"cairn archive 1\n"[..], &[0; 48]].concat(), "made by cairn 0.1"),
        ("forged", forged, "block 2 at byte"),
        ("swapped", rewritten(&|pieces| pieces.swap(0, 1)), "height 2, expected 1"),
        ("long", rewritten(&|pieces| pieces[0].push(0)), "after the end of the value"),
        ("uncertified", uncertified, "certificate of block 3"),
    ] {
        let held = new_home(&path(&format!("home-{name}")), &genesis(1));
        std::fs::write(path(name), bytes).unwrap();
        let error = format!("{:#}", import_from(&held, &path(name)).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.contains(&path(name).display().to_string()), "{name}: {error}");
        assert_eq!(tip(&held).0, Height(0), "{name}");
    }

    let foreign = new_home(&path("foreign"), &genesis(2));
    let error = import_from(&foreign, &path("good")).unwrap_err().to_string();
    assert!(error.contains("this home is of chain"), "{error}");
    grow(&foreign, 1);
    assert!(verify_home(&foreign).is_ok());
}

/// A home that began with the snapshot of block 32 exports and imports what comes after it.
#[test]
fn a_home_that_lacks_blocks_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut genesis = genesis(1);
    genesis.limits.segment_blocks = 16;
    let (full, partial) = (new_home(&path("full"), &genesis), new_home(&path("part"), &genesis));
    grow(&full, 50);
    join(&partial, 2);
    let range = |first, last| Range { first, last };
    let export = |held: &Held, name: &str, range: Range| {
        export(held, Target::open(&path(name))?, range, true)
    };
    let refusal = export(&partial, "none", Range::default()).unwrap_err().to_string();
    assert!(refusal.contains("it keeps no block;"), "{refusal}");

    for (name, first, last) in [("late", Some(40), None), ("early", Some(20), Some(45))] {
        export(&full, name, range(first, last)).unwrap();
    }
    let refusal = import_from(&partial, &path("late")).unwrap_err().to_string();
    assert!(refusal.contains("begins with block 40") && refusal.contains("is 33"), "{refusal}");
    for file in ["early", "late", "early"] {
        import_from(&partial, &path(file)).unwrap();
    }
    assert_eq!(tip(&partial), tip(&full));
    verify(&partial, &path("snapshots"), true).unwrap();
    verify(&partial, &path("snapshots"), false).unwrap();
    for (held, executed) in [(&partial, "0"), (&full, "50")] {
        let report = Store::verify(&held.db, &held.chain, &mut |_, _| {}).unwrap();
        let told = report_json(&report, 0);
        let heights = [&told["executed_to"], &told["checked_by_hash_to"]];
        assert_eq!(heights, [executed, executed], "{told}");
    }

    for (first, last) in [(None, None), (Some(32), None), (Some(1), Some(10)), (None, Some(33))] {
        let refusal = export(&partial, "x", range(first, last)).unwrap_err().to_string();
        assert!(refusal.contains("it keeps blocks 33 to 50;"), "{refusal}");
    }
    for (first, last) in [(Some(0), None), (Some(41), Some(40)), (None, Some(51))] {
        let refusal = export(&partial, "x", range(first, last)).unwrap_err().to_string();
        assert!(refusal.contains("blocks 1 to 50"), "{refusal}");
    }
    export(&partial, "rest", range(Some(33), None)).unwrap();
    export(&full, "same", range(Some(33), Some(50))).unwrap();
    let bytes = |name: &str| std::fs::read(path(name)).unwrap();
    assert!(bytes("rest") == bytes("same"));
}
