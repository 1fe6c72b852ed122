//! The target for transactions: bytes, signatures, and the way from the mempool into a block.

use std::sync::Arc;

use ledger::block::Block;
use ledger::codec;
use ledger::transaction::{
    Body, TRANSACTION_BYTES_MAX, Transaction, VerifiedTransaction, transaction_hash,
    verify_transactions,
};
use ledger::units::Timestamp;
use protocol::live::mempool::{Mempool, MempoolLimits};

use super::canonical;
use super::fixture::{START, fixture};

/// The node's clock in this target.
const NOW: Timestamp = Timestamp(START + 10_000);

/// Reads a transaction as a user submits it. The same transfer, signed by alice, also goes through
/// the rules: if the mempool admits a transaction for the next block, it fits into a block that
/// every node finds valid.
pub fn transaction(data: &[u8]) -> bool {
    let Some(transaction) = canonical::<Transaction>(data, TRANSACTION_BYTES_MAX) else {
        return false;
    };
    let fixture = fixture();
    let id = fixture.chain.id();
    let Body::Transfer(mut transfer) = transaction.body.clone();
    transfer.sender = fixture.alice.public();
    let signed = Body::Transfer(transfer).sign(id, &fixture.alice);
    let alone = verify_transactions(id, vec![transaction.clone()]);
    let both = verify_transactions(id, vec![transaction, signed]);
    assert_eq!(alone[0], both[0], "a batch has the verdicts of its transactions alone");
    assert!(both[1].is_some(), "the signature of the sender holds");
    both.into_iter().flatten().for_each(|verified| follow(&verified));
    true
}

fn follow(verified: &Arc<VerifiedTransaction>) {
    let fixture = fixture();
    let (id, state) = (fixture.chain.id(), &fixture.states[0]);
    assert_eq!(codec::encode(verified.transaction()).len(), verified.bytes());
    assert_eq!(transaction_hash(id, verified.transaction()), verified.hash());
    assert_eq!(verified.transaction().body.id(id), verified.id());

    let mut mempool = Mempool::new(MempoolLimits::default());
    let is_admitted = mempool.admit(state, NOW, Arc::clone(verified)).is_ok();
    let is_next = is_admitted && mempool.is_executable(verified);
    let candidates = mempool.candidates(state, NOW, usize::MAX);
    assert_eq!(candidates.len(), usize::from(is_next));
    let certificate = fixture.parent_certificate(state.tip().height.next());
    let built =
        state.propose(fixture.validators[0].public(), NOW, certificate, [Arc::clone(verified)]);
    if is_next {
        assert_eq!(built.block().transactions.len(), 1, "the next block holds each candidate");
    }
    let Block { header, parent_certificate, transactions } =
        codec::decode(built.bytes(), codec::VALUE_BYTES_MAX)
            .expect("a built block has canonical bytes");
    let transactions =
        verify_transactions(id, transactions).into_iter().map(|one| one.expect("it was verified"));
    let block = Block { header, parent_certificate, transactions: transactions.collect() };
    let valid =
        state.validate(block).unwrap_or_else(|error| panic!("a built block is valid: {error}"));
    assert_eq!((valid.hash(), valid.bytes()), (built.hash(), built.bytes()));
}
