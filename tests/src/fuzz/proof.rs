//! The target for proofs of accounts and of ranges of accounts.

use ledger::codec;
use ledger::hash::{Hash, StateRoot};
use ledger::light::FinalHeader;
use ledger::signature::PublicKey;
use ledger::state::{AccountProof, Entry, ProofError, RangeProof, State, StateKey};

use super::canonical;
use super::fixture::{Fixture, fixture};
use super::stream::Stream;

/// Reads two bytes that choose accounts, then a proof. A proof that holds under the root of a state
/// shows that state.
pub fn proof(data: &[u8]) -> bool {
    let mut stream = Stream(data);
    let (first, second) = (stream.byte(), stream.byte());
    let bytes = stream.0;
    let fixture = fixture();
    let state = fixture.states[1].state();
    let account = canonical::<AccountProof>(bytes, AccountProof::BYTES_MAX);
    if let Some(proof) = &account {
        on_account(state, &StateKey::account(key(fixture, first)), proof);
        on_light(fixture, key(fixture, first), bytes);
    }
    let range = canonical::<RangeProof>(bytes, codec::VALUE_BYTES_MAX);
    if let Some(proof) = &range {
        let [one, other] =
            [first, second].map(|choice| StateKey::account(key(fixture, choice)).path());
        on_range(state, one.min(other), one.max(other), proof);
        on_range(state, Hash::ZERO, Hash([0xff; 32]), proof);
    }
    account.is_some() || range.is_some()
}

/// The key of an account of the state. For high choices the state has no such account.
fn key(fixture: &Fixture, choice: u8) -> PublicKey {
    let accounts = &fixture.chain.genesis().accounts;
    accounts.get(usize::from(choice)).map_or(PublicKey([choice; 32]), |entry| entry.account)
}

fn on_account(state: &State, key: &StateKey, proof: &AccountProof) {
    if let Ok(shown) = proof.verify(&state.root(), key) {
        assert_eq!(shown, state.get(key).copied(), "a proof shows the account that the state has");
        assert_eq!(*proof, state.prove(key), "there is one proof");
    }
}

/// Checks the same proof as a wallet reads it.
fn on_light(fixture: &Fixture, account: PublicKey, bytes: &[u8]) {
    let (block, certificate) = &fixture.blocks[0];
    let header = FinalHeader::verify(
        &fixture.chain,
        &codec::encode(block.header()),
        &codec::encode(certificate),
    );
    let header = header.expect("the block is final");
    if let Ok(shown) = header.account(&account, bytes) {
        assert_eq!(shown, block.state().get(&StateKey::account(account)).copied());
    }
}

fn on_range(state: &State, first: Hash, last: Hash, proof: &RangeProof) {
    let within = |(key, _): &&Entry| (first..=last).contains(&key.path());
    if let Ok(shown) = proof.verify(&state.root(), &first, &last) {
        let expected: Vec<Entry> = state.iter().filter(within).copied().collect();
        assert_eq!(shown, expected, "a range is shown whole");
    }
    // A well-formed proof gives a root of its own, and under that root it shows sorted entries of
    // the range.
    let Err(ProofError::OtherRoot { got, .. }) =
        proof.verify(&StateRoot(Hash::ZERO), &first, &last)
    else {
        return;
    };
    let shown = proof
        .verify(&got, &first, &last)
        .unwrap_or_else(|error| panic!("{got} was its root: {error}"));
    assert!(shown.iter().all(|entry| within(&entry)), "no entry is beside the range");
    assert!(shown.is_sorted_by(|one, other| one.0.path() < other.0.path()), "entries are sorted");
}
