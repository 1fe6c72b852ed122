//! Compares the state with a `BTreeMap`, and with frozen vectors. Tests of other modules use the
//! helpers too.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::LazyLock;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::codec::encode;
use crate::hash::TxId;
use crate::signature::PublicKey;
use crate::units::{Amount, Height, Nonce};

pub(crate) fn key(i: u64) -> StateKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&i.to_le_bytes());
    StateKey::account(PublicKey(bytes))
}

pub(crate) fn account(i: u64) -> Account {
    let mut account = Account { balance: Amount(1_000 + i), nonce: Nonce(i), activity: Hash::ZERO };
    account.touch(Height(i), &TxId::default());
    account
}

pub(crate) fn entries(keys: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    keys.into_iter().map(|i| (key(i), account(i))).collect()
}

/// Keys to choose from. The paths of one half are spread over the tree. The paths of the other half
/// begin with the same twelve bits, so that trees get deep.
pub(crate) static KEYS: LazyLock<Vec<StateKey>> = LazyLock::new(|| {
    let crowded =
        (1_000..).map(key).filter(|key| key.path().0[0] == 0x5a && key.path().0[1] >> 4 == 0xf);
    (0..120).map(key).chain(crowded.take(120)).collect()
});

/// The map that gives each chosen key an account.
pub(crate) fn model(chosen: &BTreeMap<usize, u64>) -> BTreeMap<StateKey, Account> {
    chosen.iter().map(|(i, account_of)| (KEYS[*i], account(*account_of))).collect()
}

fn check(state: &State, model: &BTreeMap<StateKey, Account>) {
    assert_eq!((state.len(), state.is_empty()), (model.len(), model.is_empty()));
    for key in KEYS.iter() {
        assert_eq!(state.get(key), model.get(key));
    }
    let mut by_path: Vec<Entry> = model.iter().map(|(key, account)| (*key, *account)).collect();
    by_path.sort_by_key(|(key, _)| key.path());
    assert!(state.iter().eq(&by_path));
    // The root is the same if the state is built in another order.
    by_path.reverse();
    assert_eq!(State::from_entries(by_path).root(), state.root());
}

proptest! {
    /// After each batch the state has the content of the map, and each snapshot still has its own.
    #[test]
    fn a_state_is_a_map(
        batches in prop::collection::vec(
            (prop::collection::btree_map(0..KEYS.len(), 0u64..9, 0..80), any::<bool>()),
            0..6,
        ),
    ) {
        let (mut state, mut expected) = (State::default(), BTreeMap::new());
        let mut snapshots = Vec::new();
        for (batch, keep) in &batches {
            // A snapshot shares the nodes, so changes must copy them. Without a snapshot, nodes
            // change in place.
            if *keep {
                snapshots.push((state.clone(), expected.clone()));
            }
            let changes = model(batch);
            let beside = state.with(&changes).root();
            state.apply(&changes);
            expected.extend(changes);
            prop_assert_eq!(state.root(), beside);
            check(&state, &expected);
        }
        for (snapshot, held) in &snapshots {
            check(snapshot, held);
        }
    }

    /// One batch, or one change at a time in any order, gives the same root.
    #[test]
    fn the_root_depends_on_the_content_alone(
        order in prop::sample::subsequence((0..KEYS.len()).collect::<Vec<_>>(), 0..150)
            .prop_shuffle(),
    ) {
        let all: BTreeMap<usize, u64> = order.iter().map(|i| (*i, *i as u64)).collect();
        let mut state = State::default();
        for i in order {
            state.apply(&model(&[(i, i as u64)].into()));
        }
        prop_assert_eq!(state.root(), State::default().with(&model(&all)).root());
    }
}

#[test]
fn of_two_entries_with_one_key_the_first_counts() {
    let state =
        State::from_entries([(key(1), account(1)), (key(2), account(2)), (key(1), account(3))]);
    assert_eq!((state.len(), state.get(&key(1))), (2, Some(&account(1))));
}

/// Every single difference in content changes the root.
#[test]
fn the_root_commits_to_every_field() {
    let state = State::from_entries(entries(0..20));
    let [same, balance, nonce, activity] =
        [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)].map(|(balance, nonce, activity)| {
            let mut changed = account(4);
            changed.balance.0 += balance;
            changed.nonce.0 += nonce;
            changed.activity.0[31] ^= activity;
            state.with(&[(key(4), changed)].into()).root()
        });
    assert_eq!(same, state.root());
    let mut other_namespace = key(4);
    other_namespace.namespace = Namespace(1);
    let added = state.with(&[(other_namespace, account(4))].into());
    assert_eq!(added.len(), 21);
    let roots = [same, balance, nonce, activity, added.root()];
    assert!(roots.iter().enumerate().all(|(i, root)| !roots[..i].contains(root)));
}

/// Roots and proofs that every version must give. A program that shares no code with this one
/// computed them a second time.
#[test]
fn frozen_vectors() {
    for (accounts, root) in [
        (0, "8aa767b1cd967648d47e127cb8b71a7e733172cb9bc477d1427e8b6a5aab1224"),
        (1, "20fd92c748a72c7a5799efe0b41c03afc144c25b4118bf267408659b59101175"),
        (8, "b1fb05c5f7c59443f639ce6e6f5bdc19ca388928c08b7392be2a4a27290731b9"),
        (9, "62ee2ade2c0b73ae93b86cc789722c2c7b9b398329e780b8bc6799336dbce616"),
        (100, "2699c77717e5228e85924b8edd9bc85ec93c3ded284bac7759cfd63caf5b49fc"),
    ] {
        assert_eq!(
            State::from_entries(entries(0..accounts)).root().to_string(),
            root,
            "{accounts} accounts"
        );
    }
    let state = State::from_entries(entries(0..9));
    assert_eq!(hex::encode(encode(&state.prove(&key(3)))), PROOF_OF_ACCOUNT_3_OF_9);
    let state = State::from_entries(entries(0..100));
    for (asked, bytes, sha256) in [
        (3, 828, "73ca066f822c58035561f757b439c2b4114fee633f99e12edee9b20543113b95"),
        (1_000, 707, "af871e5014b7a4ce4567035b3c617a93eb022db7bff9645ad34bb7c835d92640"),
    ] {
        let proof = encode(&state.prove(&key(asked)));
        assert_eq!(
            (proof.len(), hex::encode(Sha256::digest(&proof))),
            (bytes, sha256.to_owned()),
            "{asked}"
        );
    }
}

const PROOF_OF_ACCOUNT_3_OF_9: &str = "\
    030000000000000002000000000000002ac693442900079afde4699d9dace6fa\
    6c8b3dea5a4b6340c3c40f41c6a50ef501000000040000000000000000040000\
    0000000000000000000000000000000000000000000000000000000000ec0300\
    00000000000400000000000000442adc735ec868c1de36e20a6b5ed4be8eff69\
    0e89c9b8750c82586565101d0c00030000000000000000000000000000000000\
    0000000000000000000000000000eb030000000000000300000000000000249d\
    3a1ca37c754983fe8d6604f18dbfc32035616a1e7ab014a1a39a303140b70007\
    00000000000000000000000000000000000000000000000000000000000000ef\
    03000000000000070000000000000089788b23dd331ead23d73529d045239dec\
    afa0be91b5b7e3b7589c10d8f6327d0001000000000000000000000000000000\
    00000000000000000000000000000000e9030000000000000100000000000000\
    59fdffd6852a9724ec5201cce74c4691c9296005ee7cc0448427cd40fdadcefb";
