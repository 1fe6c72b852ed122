//! The target for blocks, headers, and blocks without their transactions.

use std::sync::Arc;

use ledger::block::{Block, HEADER_BYTES, Header};
use ledger::codec;
use ledger::light::FinalHeader;
use ledger::transaction::{Transaction, VerifiedTransaction, verify_transactions};
use protocol::message::{CONSENSUS_BYTES_MAX, CompactBlock};

use super::canonical;
use super::fixture::{compact as compacted, fixture};

/// Reads the bytes as a header, a block and a compact block. Checks that a certificate proves one
/// header only, that a block has one list of transactions only, that a valid block stays valid, and
/// that a block is valid that is built from the transactions of any block.
pub fn block(data: &[u8]) -> bool {
    let header = canonical::<Header>(data, HEADER_BYTES);
    if header.is_some() {
        assert_eq!(data.len(), HEADER_BYTES, "all headers are of one size");
    }
    on_header(data);
    let compact = canonical::<CompactBlock>(data, CONSENSUS_BYTES_MAX);
    if let Some(list) = &compact {
        for (block, _) in &fixture().blocks {
            let is_other = *list != compacted(block);
            assert!(!(is_other && list.is(block.hash())), "a block has one list of transactions");
        }
    }
    let block = canonical::<Block>(data, codec::VALUE_BYTES_MAX);
    let is_accepted = header.is_some() || compact.is_some() || block.is_some();
    if let Some(block) = block {
        on_block(data, block);
    }
    is_accepted
}

fn on_header(data: &[u8]) {
    let fixture = fixture();
    for (block, certificate) in &fixture.blocks {
        if let Ok(header) = FinalHeader::verify(&fixture.chain, data, &codec::encode(certificate)) {
            assert_eq!(header.hash(), block.hash(), "a certificate proves the one header it is of");
        }
    }
}

fn on_block(data: &[u8], block: Block) {
    let fixture = fixture();
    let below = block.header.height.previous().and_then(|height| usize::try_from(height.0).ok());
    let Some(state) = below.and_then(|below| fixture.states.get(below)) else { return };
    let candidates: Vec<_> = verified(&block.transactions).into_iter().flatten().collect();
    let certificate = fixture.parent_certificate(block.header.height);
    let proposer = fixture.validators[0].public();
    // A proposer's clock may show anything.
    let built = state.propose(proposer, block.header.time, certificate, candidates);
    let rebuilt = state
        .validate(built.block().clone())
        .unwrap_or_else(|error| panic!("a built block: {error}"));
    assert_eq!(rebuilt.bytes(), built.bytes());

    let Some(transactions) = verified(&block.transactions).into_iter().collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let block =
        Block { header: block.header, parent_certificate: block.parent_certificate, transactions };
    let Ok(valid) = state.validate(block) else { return };
    assert_eq!(valid.bytes().as_slice(), data, "a valid block has the bytes it came in");
    let again = state.validate(valid.block().clone());
    assert_eq!(again.map(|again| again.hash()), Ok(valid.hash()), "a valid block stays valid");
    let mut after = state.clone();
    after.advance(&valid);
    assert_eq!((after.tip().hash, after.roots().0), (valid.hash(), valid.header().state_root));
}

fn verified(transactions: &[Transaction]) -> Vec<Option<Arc<VerifiedTransaction>>> {
    verify_transactions(fixture().chain.id(), transactions.to_vec())
}
