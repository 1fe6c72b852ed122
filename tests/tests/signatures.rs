//! Keys and signatures that libraries judge differently. Here each has one verdict.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ledger::certificate::Certificate;
use ledger::codec;
use ledger::hash::{BlockHash, ChainId, Hash};
use ledger::signature::{
    Item, PublicKey, Signature, SigningKey, ValidatorKey, verify, verify_batch, verify_strict,
};
use ledger::transaction::{Transaction, verify_transactions};
use ledger::units::{Height, VotingPower};
use ledger::validators::{Validator, ValidatorSet};
use protocol::live::consensus::Consensus;
use protocol::message::{ConsensusMessage, SignedProposal, SignedVote};

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// Source: "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko; SSR 2020, eprint 2020/1244),
/// test vectors of table 5.
///
/// 0 and 1 have a key of small order, which ZIP-215 admits and this chain refuses. 2 to 5 hold
/// under the cofactored equation. 6 and 7 have s at or above the group order. 8 and 9 have a
/// non-canonical R: the hash takes its bytes as they are, under which only 9 holds.
#[test]
fn published_edge_cases_get_one_verdict_alone_and_in_any_batch() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../vectors/ed25519-speccheck.json")).unwrap();
    let item = |case: &serde_json::Value| Item {
        key: PublicKey(bytes(case["pub_key"].as_str().unwrap())),
        message: hex::decode(case["message"].as_str().unwrap()).unwrap(),
        signature: Signature(bytes(case["signature"].as_str().unwrap())),
    };
    let items: Vec<Item> = cases.iter().map(item).collect();
    let alone: Vec<bool> =
        items.iter().map(|item| verify(&item.key, &item.message, &item.signature)).collect();
    assert_eq!(alone, [false, false, true, true, true, true, false, false, false, true]);
    assert_eq!(verify_batch(&items).0, alone);

    let key = SigningKey::from_seed(&[5; 32]);
    let good = Item { key: key.public(), message: b"good".to_vec(), signature: key.sign(b"good") };
    for (item, valid) in items.iter().zip(alone) {
        for place in 0..8 {
            let mut batch = vec![good.clone(); 8];
            batch[place] = item.clone();
            let mut expected = vec![true; 8];
            expected[place] = valid;
            assert_eq!(verify_batch(&batch).0, expected, "{item:?} at {place}");
        }
    }
}

/// The eight points of small order in every encoding, as keys. Each key is refused, and so is a
/// signature that anybody can make for it.
#[test]
fn keys_that_anybody_can_sign_for_are_refused() {
    let small = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for text in small {
        for sign in [0, 0x80] {
            let mut key = bytes::<32>(text);
            key[31] |= sign;
            assert!(PublicKey(key).check().is_err(), "{text}");
            let mut signature = [0; 64];
            signature[0] = 1;
            assert!(!verify(&PublicKey(key), b"any", &Signature(signature)));
        }
    }
    let below = "ebffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    assert!(PublicKey(bytes(below)).check().is_ok(), "p - 2 is canonical and not of small order");
}

/// The file of vectors, which other programs can read too. `tests/vectors/README.md` explains its
/// fields.
fn signatures() -> serde_json::Value {
    serde_json::from_str(include_str!("../vectors/signatures.json")).unwrap()
}

/// The rows of one list of the file whose stated verdict differs from the one of this code.
fn wrong(
    list: &str,
    verdicts: impl Fn(&serde_json::Value) -> Vec<(&'static str, bool)>,
) -> Vec<String> {
    let file = signatures();
    let rows = file[list].as_array().unwrap();
    assert!(rows.len() > 8, "{list}");
    let differs = |row: &serde_json::Value| {
        let wrong =
            verdicts(row).into_iter().filter(|(field, got)| row[*field].as_bool().unwrap() != *got);
        wrong
            .map(|(field, got)| format!("{list}: {}: {field} is {got}", row["name"]))
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(differs).collect()
}

fn blob(row: &serde_json::Value, field: &str) -> Vec<u8> {
    hex::decode(row[field].as_str().unwrap()).unwrap()
}

/// Keys and signatures that libraries disagree on, with the one verdict for transfers and the one
/// for validators.
#[test]
fn every_crafted_key_and_signature_has_its_verdict() {
    let key = |row: &serde_json::Value| PublicKey(bytes(row["key"].as_str().unwrap()));
    let keys = wrong("keys", |row| {
        vec![
            ("account", key(row).check_account().is_ok()),
            ("validator", ValidatorKey::new(&key(row)).is_ok()),
        ]
    });
    let alone = wrong("signatures", |row| {
        let (message, signature) =
            (blob(row, "message"), Signature(bytes(row["signature"].as_str().unwrap())));
        let validator =
            ValidatorKey::new(&key(row)).is_ok_and(|key| key.verify(&message, &signature));
        if validator {
            assert!(verify_strict(&key(row), &message, &signature));
        }
        let item = Item { key: key(row), message: message.clone(), signature };
        let transfer = verify(&key(row), &message, &signature);
        let good = SigningKey::from_seed(&[5; 32]);
        let good =
            Item { key: good.public(), message: b"good".to_vec(), signature: good.sign(b"good") };
        assert_eq!(verify_batch(&[good.clone(), item, good]).0, [true, transfer, true], "{row}");
        vec![("transfer", transfer), ("validator", validator)]
    });
    assert_eq!([keys, alone].concat(), Vec::<String>::new());
}

/// The same signatures in messages of the protocol. Each kind of message is verified by its own
/// rule.
#[test]
fn every_crafted_vote_proposal_certificate_and_transfer_has_its_verdict() {
    let file = signatures();
    let chain = ChainId(Hash(bytes(file["chain_id"].as_str().unwrap())));
    let validator = |row: &serde_json::Value| Validator {
        key: PublicKey(bytes(row["key"].as_str().unwrap())),
        payout: PublicKey(bytes(row["payout"].as_str().unwrap())),
        power: VotingPower(row["power"].as_str().unwrap().parse().unwrap()),
    };
    let set =
        ValidatorSet::new(file["validators"].as_array().unwrap().iter().map(validator).collect())
            .unwrap();
    // Each vote and proposal is verified in two ways: by its own `verify`, and as consensus
    // verifies a message that arrives by gossip.
    let set = Arc::new(set);
    let votes = wrong("votes", |row| {
        let vote: SignedVote = codec::decode(&blob(row, "bytes"), 1 << 10).unwrap();
        let gossip =
            Consensus::new(chain, None, &set).verify(&ConsensusMessage::Vote(vote.clone()), &set);
        vec![("valid", vote.verify(chain)), ("valid", gossip)]
    });
    let proposals = wrong("proposals", |row| {
        let signed: SignedProposal = codec::decode(&blob(row, "bytes"), 1 << 10).unwrap();
        let alone = Validator {
            key: signed.proposal.proposer,
            payout: signed.proposal.proposer,
            power: VotingPower(1),
        };
        let alone = Arc::new(ValidatorSet::new(vec![alone]).unwrap());
        let message = ConsensusMessage::Proposal(signed.clone(), None);
        let gossip = Consensus::new(chain, None, &alone).verify(&message, &alone);
        vec![("valid", signed.verify(chain)), ("valid", gossip)]
    });
    let certificates = wrong("certificates", |row| {
        let certificate: Certificate = codec::decode(&blob(row, "bytes"), 1 << 10).unwrap();
        let height = Height(row["height"].as_str().unwrap().parse().unwrap());
        let block = BlockHash(Hash(bytes(row["block"].as_str().unwrap())));
        vec![("valid", certificate.verify(chain, &set, height, block).is_ok())]
    });
    let transfers = wrong("transfers", |row| {
        let transaction = Transaction::decode(&blob(row, "bytes")).unwrap();
        vec![("valid", verify_transactions(chain, vec![transaction]).remove(0).is_some())]
    });
    assert_eq!([votes, proposals, certificates, transfers].concat(), Vec::<String>::new());
}
