//! Blocks and their headers. A header commits to the transactions, the state, all sealed history
//! and the parent's certificate.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use crate::codec;
use crate::hash::{BlockHash, ChainId, Domain, Hash, HistoryRoot, StateRoot, TxHash};
use crate::merkle;
use crate::signature::PublicKey;
use crate::transaction::{Transaction, VerifiedTransaction, transaction_hash, verify_transactions};
use crate::units::{Height, Timestamp};

/// The header version that this code writes, and the only one that it accepts.
pub const HEADER_VERSION: u16 = 2;
/// Exact size of a header of version 2, in bytes.
pub const HEADER_BYTES: usize = 2 + 8 + 8 + 8 * 32;
/// Most bytes of a block beyond its transactions: header, certificate, lengths.
pub const BLOCK_OVERHEAD_MAX: usize = HEADER_BYTES + CERTIFICATE_BYTES_MAX + 64;

/// The header of a block. Validators sign its hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// Version of the rules. It is the first field, so that a node can read it even if it does not
    /// know the other fields.
    pub version: u16,
    /// Height, from 1.
    pub height: Height,
    /// Time of the proposer's clock, or `block_interval_ms` after the parent's time if that is
    /// later.
    pub time: Timestamp,
    /// Hash of the parent; the chain id for height 1.
    pub parent: BlockHash,
    /// Consensus key of the validator that first proposed the block.
    pub proposer: PublicKey,
    /// Merkle root over the full hashes of the transactions.
    pub transactions_root: Hash,
    /// Root over all accounts after this block.
    pub state_root: StateRoot,
    /// Root over all segments sealed before this block.
    pub history_root: HistoryRoot,
    /// Hash of the validator set of this height.
    pub validators: Hash,
    /// Hash of the validator set of the next height.
    pub next_validators: Hash,
    /// Hash of the parent's certificate, which is part of this block.
    pub parent_certificate: Hash,
}

impl Header {
    /// The block's hash, which is its identity.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        BlockHash(Hash::of(Domain::Block, &[&codec::encode(self)]))
    }

    /// Checks that this header commits to the content of a block: the parent's certificate, and the
    /// transactions, given by their full hashes in order.
    ///
    /// # Errors
    /// `ContentError`: the first field that commits to other content.
    pub fn check_content(
        &self,
        parent_certificate: &Certificate,
        transactions: &[TxHash],
    ) -> Result<(), ContentError> {
        for (field, expected, got) in [
            ("transactions_root", self.transactions_root, transactions_root(transactions)),
            ("parent_certificate", self.parent_certificate, parent_certificate.hash()),
        ] {
            if got != expected {
                return Err(ContentError { field, expected, got });
            }
        }
        Ok(())
    }
}

/// A block whose content differs from a commitment in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {got}, expected {expected}")]
pub struct ContentError {
    /// Field of the header.
    pub field: &'static str,
    /// Value in the header.
    pub expected: Hash,
    /// Value computed from the content.
    pub got: Hash,
}

/// A header with the content that it commits to. `T` is [`Transaction`] in a decoded block, and
/// `Arc<VerifiedTransaction>` once all signatures are verified.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Block<T = Transaction> {
    /// The header.
    pub header: Header,
    /// Proves that the parent is final. At height 1 it is [`Certificate::genesis`]. Nodes may hold
    /// different certificates for one block. This one is part of the block, so the bytes of history
    /// are the same on every node.
    pub parent_certificate: Certificate,
    /// In the order in which they are applied.
    pub transactions: Vec<T>,
}

/// A block whose transactions have verified signatures.
pub type VerifiedBlock = Block<Arc<VerifiedTransaction>>;

/// The signature of a block's transaction does not hold for this chain and the transaction's
/// sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature of transaction {index} does not hold")]
pub struct SignatureError {
    /// Index of the transaction in the block, from 0.
    pub index: usize,
}

impl Block {
    /// Checks that the header commits to this content. Verifies no signature.
    ///
    /// # Errors
    /// `ContentError`: the first field that commits to other content.
    pub fn check_content(&self, chain: ChainId) -> Result<(), ContentError> {
        let hash = |transaction| transaction_hash(chain, transaction);
        let hashes: Vec<TxHash> = self.transactions.iter().map(hash).collect();
        self.header.check_content(&self.parent_certificate, &hashes)
    }

    /// Verifies the signatures of all transactions in one batch.
    ///
    /// # Errors
    /// `SignatureError`: the first transaction whose signature does not hold.
    pub fn verify(self, chain: ChainId) -> Result<VerifiedBlock, SignatureError> {
        let verified = verify_transactions(chain, self.transactions);
        verified_block(self.header, self.parent_certificate, verified)
    }
}

/// Verifies the signatures of several blocks together. Yields for each block, in order, the
/// verified block or its first bad signature. `verify` gets the transactions of all blocks in one
/// list and returns a verdict for each, in order, as [`verify_transactions`] does.
pub fn verify_blocks(
    blocks: Vec<Block>,
    verify: impl FnOnce(Vec<Transaction>) -> Vec<Option<Arc<VerifiedTransaction>>>,
) -> impl Iterator<Item = Result<VerifiedBlock, SignatureError>> {
    let (heads, transactions): (Vec<_>, Vec<_>) = blocks
        .into_iter()
        .map(|block| {
            let count = block.transactions.len();
            ((block.header, block.parent_certificate, count), block.transactions)
        })
        .unzip();
    let mut verified = verify(transactions.into_iter().flatten().collect()).into_iter();
    heads.into_iter().map(move |(header, parent_certificate, count)| {
        let verified = verified.by_ref().take(count).collect();
        verified_block(header, parent_certificate, verified)
    })
}

fn verified_block(
    header: Header,
    parent_certificate: Certificate,
    verified: Vec<Option<Arc<VerifiedTransaction>>>,
) -> Result<VerifiedBlock, SignatureError> {
    let verified = verified.into_iter().enumerate();
    let transactions = verified.map(|(index, one)| one.ok_or(SignatureError { index }));
    Ok(Block { header, parent_certificate, transactions: transactions.collect::<Result<_, _>>()? })
}

/// Root over the full hashes of a block's transactions.
#[must_use]
pub fn transactions_root(hashes: &[TxHash]) -> Hash {
    merkle::root(&hashes.iter().map(|hash| hash.0).collect::<Vec<_>>())
}

/// The parent hash of the first block: the chain id.
#[must_use]
pub const fn genesis_parent(chain: ChainId) -> BlockHash {
    BlockHash(chain.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::signature::SigningKey;
    use crate::transaction::{Body, Output, Transfer};
    use crate::units::{Amount, Nonce};

    const CHAIN: ChainId = ChainId(Hash::ZERO);

    /// A block with this many transfers, whose header commits to its content.
    fn block(count: u64) -> Block {
        let key = SigningKey::from_seed(&[1; 32]);
        let transfer = |nonce: u64| {
            let transfer = Transfer {
                sender: key.public(),
                nonce: Nonce(nonce),
                outputs: vec![Output { account: key.public(), amount: Amount(1) }],
                fee: Amount(count),
                expires_at: Timestamp(1),
                memo: Vec::new(),
            };
            Body::Transfer(transfer).sign(CHAIN, &key)
        };
        let transactions: Vec<Transaction> = (0..count).map(transfer).collect();
        let hashes: Vec<TxHash> =
            transactions.iter().map(|transaction| transaction_hash(CHAIN, transaction)).collect();
        let parent_certificate = Certificate::genesis(CHAIN);
        let header = Header {
            version: HEADER_VERSION,
            height: Height(1),
            time: Timestamp(1),
            parent: genesis_parent(CHAIN),
            proposer: key.public(),
            transactions_root: transactions_root(&hashes),
            state_root: StateRoot(Hash::ZERO),
            history_root: HistoryRoot(Hash::ZERO),
            validators: Hash::ZERO,
            next_validators: Hash::ZERO,
            parent_certificate: parent_certificate.hash(),
        };
        Block { header, parent_certificate, transactions }
    }

    #[test]
    fn blocks_that_are_verified_together_keep_their_own_transactions() {
        let mut blocks = [2, 0, 3, 1].map(block);
        // Replaces a signature by one that was made for another transaction.
        blocks[2].transactions[1].signature = blocks[0].transactions[0].signature;
        let together = verify_blocks(blocks.to_vec(), |all| verify_transactions(CHAIN, all));
        let together: Vec<_> = together.collect();
        assert_eq!(together[2], Err(SignatureError { index: 1 }));
        for place in [0, 1, 3] {
            let verified = together[place].as_ref().unwrap();
            assert_eq!(codec::encode(verified), codec::encode(&blocks[place]), "block {place}");
        }
        assert_eq!(together, blocks.map(|block| block.verify(CHAIN)));
    }

    #[test]
    fn a_header_commits_to_all_content() {
        let good = block(3);
        assert_eq!(good.check_content(CHAIN), Ok(()));
        let field = |change: fn(&mut Block)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check_content(CHAIN).unwrap_err().field
        };
        assert_eq!(field(|block| block.transactions.swap(0, 1)), "transactions_root");
        assert_eq!(field(|block| drop(block.transactions.pop())), "transactions_root");
        let certificate = |block: &mut Block| block.parent_certificate.height = Height(1);
        assert_eq!(field(certificate), "parent_certificate");
    }
}
