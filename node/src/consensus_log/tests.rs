#![allow(clippy::unwrap_used)]

use ledger::block::{Block, Header};
use ledger::certificate::Certificate;
use ledger::hash::{BlockHash, ChainId, Hash, HistoryRoot, StateRoot};
use ledger::signature::PublicKey;
use ledger::transaction::{Body, Transaction, Transfer};
use ledger::units::{Amount, Nonce, Round, Timestamp};
use protocol::Log;

use super::*;

fn entry(round: u32) -> LogEntry {
    LogEntry::Timeout(0, Round(round))
}

/// Height and entries; `None` if the log is lost.
fn reopen(path: &Path) -> Option<(u64, Vec<LogEntry>)> {
    match ConsensusLog::open(path).unwrap().1 {
        Log::Intact(height, entries) => Some((height.0, entries)),
        Log::Lost => None,
    }
}

fn written(path: &Path) {
    ConsensusLog::create(path).unwrap();
    let (mut log, _) = ConsensusLog::open(path).unwrap();
    log.append(entry(1));
    log.cut(Height(7)).unwrap();
    log.append(entry(2));
    log.append(entry(3));
    log.sync().unwrap();
    log.append(entry(4)); // never synced
}

#[test]
fn holds_what_was_synced_since_the_last_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    ConsensusLog::create(&path).unwrap();
    assert_eq!(reopen(&path), Some((1, vec![])));
    assert!(!ConsensusLog::was_used(&path).unwrap());
    assert!(!ConsensusLog::was_used(&dir.path().join("none")).unwrap());
    written(&path);
    assert!(ConsensusLog::was_used(&path).unwrap());
    assert_eq!(reopen(&path), Some((7, vec![entry(2), entry(3)])));
}

#[test]
fn a_torn_end_is_dropped_and_writing_goes_on_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path);
    let whole = std::fs::read(&path).unwrap();
    for cut in 1..16 {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(reopen(&path), Some((7, vec![entry(2)])), "{cut}");
        let (mut log, _) = ConsensusLog::open(&path).unwrap();
        log.append(entry(9));
        log.sync().unwrap();
        assert_eq!(reopen(&path), Some((7, vec![entry(2), entry(9)])), "{cut}");
    }
}

#[test]
fn broken_durable_bytes_and_a_missing_file_mean_a_lost_log_also_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    assert_eq!(reopen(&path), None);
    assert_eq!(reopen(&path), None);
    written(&path);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() / 2 {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        std::fs::write(&path, &broken).unwrap();
        assert_eq!(reopen(&path), None, "byte {at}");
    }
}

#[test]
fn a_long_log_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    written(&path);
    let (mut log, _) = ConsensusLog::open(&path).unwrap();
    log.length = COMPACT_BYTES + 1;
    log.cut(Height(8)).unwrap();
    log.append(entry(5));
    log.sync().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 200);
    assert_eq!(reopen(&path), Some((8, vec![entry(5)])));
}

#[test]
fn a_shortened_log_lacks_only_the_other_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let hash = |entry: &LogEntry| match entry {
        LogEntry::Body(block) => block.header.hash(),
        other => panic!("{other:?} is no body"),
    };
    let [mut kept, dropped] = [body(vec![1]), body(vec![0; 5_000])];
    if let LogEntry::Body(block) = &mut kept {
        block.header.time = Timestamp(2);
    }
    written(&path);
    let (mut log, _) = ConsensusLog::open(&path).unwrap();
    for entry in [dropped.clone(), kept.clone(), dropped.clone(), entry(4)] {
        log.append(entry);
    }
    log.sync().unwrap();
    log.append(entry(5)); // not synced before
    log.shorten(&BTreeSet::from([hash(&kept)])).unwrap();
    let expected = vec![entry(2), entry(3), kept.clone(), entry(4), entry(5)];
    assert_eq!(reopen(&path), Some((7, expected.clone())));
    assert!(std::fs::metadata(&path).unwrap().len() < 2_000);
    log.append(entry(6));
    log.sync().unwrap();
    assert_eq!(
        reopen(&path),
        Some((7, [expected, vec![entry(6)]].concat())),
        "writing goes on after it"
    );
    std::fs::write(&path, b"CRNLOG02 and other bytes").unwrap();
    let error = log.shorten(&BTreeSet::new()).unwrap_err().to_string();
    assert!(error.contains("bytes that were written"), "{error}");
}

/// A block with one transaction, whose memo a stranger chose.
fn body(memo: Vec<u8>) -> LogEntry {
    let header = Header {
        version: 1,
        height: Height(7),
        time: Timestamp(1),
        parent: BlockHash(Hash::ZERO),
        proposer: PublicKey([1; 32]),
        transactions_root: Hash::ZERO,
        state_root: StateRoot(Hash::ZERO),
        history_root: HistoryRoot(Hash::ZERO),
        validators: Hash::ZERO,
        next_validators: Hash::ZERO,
        parent_certificate: Hash::ZERO,
    };
    let transfer = Transfer {
        sender: PublicKey([2; 32]),
        nonce: Nonce(0),
        outputs: Vec::new(),
        fee: Amount(0),
        expires_at: Timestamp(2),
        memo,
    };
    let transaction = Transaction {
        body: Body::Transfer(transfer),
        signature: ledger::signature::Signature([0; 64]),
    };
    let parent_certificate = Certificate::genesis(ChainId(Hash::ZERO));
    LogEntry::Body(Block { header, parent_certificate, transactions: vec![transaction] })
}

/// A log with a cut for height 7 and then a block with this memo, whose frame lost its last byte.
fn torn_behind(path: &Path, memo: Vec<u8>) {
    ConsensusLog::create(path).unwrap();
    let (mut log, _) = ConsensusLog::open(path).unwrap();
    log.cut(Height(7)).unwrap();
    log.append(body(memo));
    log.sync().unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(log.length - 1).unwrap();
}

#[test]
fn bytes_of_users_are_no_frames() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // Length, CRC and payload of a frame without its mark, at many offsets.
    let length_and_crc =
        [&1u32.to_le_bytes()[..], &crc32fast::hash(&[7]).to_le_bytes(), &[7]].concat();
    // A frame of another file, and frames whose marks assume that the secret is 0.
    let mut foreign = Vec::new();
    push_frame(&mut foreign, 1, 0, &Frame::Cut(Height(9)));
    let unmarked: Vec<u8> =
        (0..600).flat_map(|at: u64| [&at.to_le_bytes()[..], &length_and_crc].concat()).collect();
    for memo in [length_and_crc.repeat(20), foreign, unmarked] {
        torn_behind(&path, memo);
        assert_eq!(reopen(&path), Some((7, vec![])));
    }
}

#[test]
fn the_search_for_later_frames_is_linear() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // Read as lengths, these bytes claim that a frame of a MiB begins at every fourth byte.
    torn_behind(&path, [0, 0, 0x10, 0].repeat(1 << 19));
    let start = std::time::Instant::now();
    assert_eq!(reopen(&path), Some((7, vec![])));
    // This takes milliseconds. A checksum over a MiB at each offset would take minutes.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn frames_are_bound_to_their_file_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
    written(&one);
    written(&two);
    let [of_one, of_two] = [&one, &two].map(|path| std::fs::read(path).unwrap());
    // Two files: the last frame of one file behind the first frames of the other, and that frame
    // twice.
    let last = of_one.len() - FRAME_HEADER - codec::encode(&Frame::Entry(entry(3))).len();
    for bytes in [
        [&of_two[..last], &of_one[last..]].concat(),
        [&of_one[..last], &of_one[last..], &of_one[last..]].concat(),
    ] {
        std::fs::write(&one, bytes).unwrap();
        assert!(matches!(reopen(&one), Some((7, entries)) if entries.len() < 3));
    }
}

#[test]
fn the_file_has_the_documented_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    ConsensusLog::create(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let secret = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    let mark = (secret.wrapping_add(16)).to_le_bytes();
    let payload = hex::decode("000000000100000000000000").unwrap();
    let sum = crc32fast::hash(&[&mark[..], &12u32.to_le_bytes(), &payload].concat());
    let expected = [
        b"CRNLOG02",
        &secret.to_le_bytes()[..],
        &mark,
        &12u32.to_le_bytes(),
        &sum.to_le_bytes(),
        &payload,
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn a_log_of_the_first_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, b"CRNLOG01 and more").unwrap();
    let error = ConsensusLog::open(&path).unwrap_err().to_string();
    assert!(error.contains("made by cairn 0.1: use cairn 0.1 for this network"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"CRNLOG01 and more", "it is not touched");
}
