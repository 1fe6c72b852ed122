//! Shows that the encoding does not depend on bincode. For structs that mirror the ledger's types,
//! the crate wincode writes the same bytes and reads them back. So wincode could replace bincode
//! (`docs/adr/0004-crates.md`).
#![allow(clippy::unwrap_used)]

use ledger::block::{HEADER_BYTES, HEADER_VERSION, Header};
use ledger::certificate::Certificate;
use ledger::codec;
use ledger::hash::{BlockHash, Domain, Hash, HistoryRoot, StateRoot};
use ledger::signature::{PublicKey, Signature};
use ledger::transaction::{Body, Output, Transaction, Transfer};
use ledger::units::{Amount, Height, Nonce, Round, Timestamp};
use wincode::{ReadError, SchemaRead, SchemaWrite};

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct OutputMirror {
    account: [u8; 32],
    amount: u64,
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct TransferMirror {
    sender: [u8; 32],
    nonce: u64,
    outputs: Vec<OutputMirror>,
    fee: u64,
    expires_at: u64,
    memo: Vec<u8>,
}

/// The kind of a transaction is one byte.
#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
#[wincode(tag_encoding = "u8")]
enum BodyMirror {
    Transfer(TransferMirror),
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct TransactionMirror {
    body: BodyMirror,
    signature: [u8; 64],
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct HeaderMirror {
    version: u16,
    height: u64,
    time: u64,
    parent: [u8; 32],
    proposer: [u8; 32],
    transactions_root: [u8; 32],
    state_root: [u8; 32],
    history_root: [u8; 32],
    validators: [u8; 32],
    next_validators: [u8; 32],
    parent_certificate: [u8; 32],
}

#[derive(Debug, PartialEq, SchemaRead, SchemaWrite)]
struct CertificateMirror {
    height: u64,
    round: u32,
    block: [u8; 32],
    signers: Vec<u8>,
    signatures: Vec<[u8; 64]>,
}

/// A hash that differs for each name.
fn hash(name: &str) -> Hash {
    Hash::of(Domain::Block, &[name.as_bytes()])
}

#[test]
fn a_transfer_has_the_same_bytes() {
    let transfer = Transfer {
        sender: PublicKey([1; 32]),
        nonce: Nonce(2),
        outputs: vec![
            Output { account: PublicKey([3; 32]), amount: Amount(4) },
            Output { account: PublicKey([5; 32]), amount: Amount(u64::MAX) },
        ],
        fee: Amount(6),
        expires_at: Timestamp(1_767_225_660_000),
        memo: b"memo".to_vec(),
    };
    let mirror = TransferMirror {
        sender: [1; 32],
        nonce: 2,
        outputs: vec![
            OutputMirror { account: [3; 32], amount: 4 },
            OutputMirror { account: [5; 32], amount: u64::MAX },
        ],
        fee: 6,
        expires_at: 1_767_225_660_000,
        memo: b"memo".to_vec(),
    };
    let transaction = Transaction { body: Body::Transfer(transfer), signature: Signature([7; 64]) };
    let mirror = TransactionMirror { body: BodyMirror::Transfer(mirror), signature: [7; 64] };
    let bytes = codec::encode(&transaction);
    assert_eq!(wincode::serialize(&mirror).unwrap(), bytes);
    assert_eq!(wincode::deserialize_exact::<TransactionMirror>(&bytes).unwrap(), mirror);
    assert_eq!(Transaction::decode(&bytes).unwrap(), transaction);
}

#[test]
fn a_header_has_the_same_bytes() {
    let header = Header {
        version: HEADER_VERSION,
        height: Height(9),
        time: Timestamp(1_767_225_601_000),
        parent: BlockHash(hash("parent")),
        proposer: PublicKey([8; 32]),
        transactions_root: hash("transactions"),
        state_root: StateRoot(hash("state")),
        history_root: HistoryRoot(hash("history")),
        validators: hash("validators"),
        next_validators: hash("next validators"),
        parent_certificate: hash("certificate"),
    };
    let mirror = HeaderMirror {
        version: HEADER_VERSION,
        height: 9,
        time: 1_767_225_601_000,
        parent: hash("parent").0,
        proposer: [8; 32],
        transactions_root: hash("transactions").0,
        state_root: hash("state").0,
        history_root: hash("history").0,
        validators: hash("validators").0,
        next_validators: hash("next validators").0,
        parent_certificate: hash("certificate").0,
    };
    let bytes = codec::encode(&header);
    assert_eq!(wincode::serialize(&mirror).unwrap(), bytes);
    assert_eq!(wincode::deserialize_exact::<HeaderMirror>(&bytes).unwrap(), mirror);
    assert_eq!(codec::decode::<Header>(&bytes, HEADER_BYTES).unwrap(), header);
}

#[test]
fn a_certificate_has_the_same_bytes() {
    let certificate = Certificate {
        height: Height(9),
        round: Round(2),
        block: BlockHash(hash("block")),
        signers: vec![0b0000_0101],
        signatures: vec![Signature([1; 64]), Signature([2; 64])],
    };
    let mirror = CertificateMirror {
        height: 9,
        round: 2,
        block: hash("block").0,
        signers: vec![0b0000_0101],
        signatures: vec![[1; 64], [2; 64]],
    };
    let bytes = codec::encode(&certificate);
    assert_eq!(wincode::serialize(&mirror).unwrap(), bytes);
    assert_eq!(wincode::deserialize_exact::<CertificateMirror>(&bytes).unwrap(), mirror);
    assert_eq!(codec::decode::<Certificate>(&bytes, bytes.len()).unwrap(), certificate);
}

/// wincode too refuses what `codec` refuses: an unknown kind, bytes after a value, a value without
/// its end, and a length that the bytes do not hold.
#[test]
fn hostile_bytes_are_refused() {
    let mirror = CertificateMirror {
        height: 0,
        round: 0,
        block: [0; 32],
        signers: Vec::new(),
        signatures: Vec::new(),
    };
    let read = |bytes: &[u8]| wincode::deserialize_exact::<CertificateMirror>(bytes);
    let good = wincode::serialize(&mirror).unwrap();
    assert_eq!(read(&good).unwrap(), mirror);
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(read(&longer), Err(ReadError::TrailingBytes)));
    assert!(read(&good[..good.len() - 1]).is_err(), "a value without its end");
    let mut hostile = good.clone();
    hostile[44..52].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(read(&hostile).is_err(), "a list that is longer than the bytes");
    assert!(wincode::deserialize_exact::<BodyMirror>(&[1; 200]).is_err(), "an unknown kind");
}
