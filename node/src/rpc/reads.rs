//! Reads from the store, in the types of the RPC interface.

use std::fmt::Display;

use ledger::api::{BlockInfo, Head, TxInfo, TxProofInfo, TxStatus};
use ledger::chain::Chain;
use ledger::codec;
use ledger::hash::{Hash, TxId};
use ledger::merkle;
use ledger::store::{Kept, Store};
use ledger::transaction::transaction_hash;
use ledger::units::Height;

use super::convert;
use super::error::RpcError;

/// Header and certificate of a final block.
pub(super) fn head(store: &Store, height: Height) -> Result<Kept<Head>, RpcError> {
    let (header, certificate) = (store.header(height)?, store.certificate(height)?);
    let head = both(header, certificate).map(|(header, certificate)| {
        let [header, certificate] =
            [codec::encode(&header), codec::encode(&certificate)].map(hex::encode);
        Head { header, certificate }
    });
    Ok(head)
}

/// Two reads about one block as one.
fn both<A, B>(a: Kept<A>, b: Kept<B>) -> Kept<(A, B)> {
    match (a, b) {
        (Kept::Here(a), Kept::Here(b)) => Kept::Here((a, b)),
        (Kept::NotKept, _) | (_, Kept::NotKept) => Kept::NotKept,
        _ => Kept::Never,
    }
}

/// What is kept, or the error that names it: `NotKept` is an answer of its own, and what never was
/// is `missing`.
pub(super) fn kept<T>(
    found: Kept<T>,
    what: impl Display,
    missing: impl FnOnce() -> RpcError,
) -> Result<T, RpcError> {
    match found {
        Kept::Here(found) => Ok(found),
        Kept::Never => Err(missing()),
        Kept::NotKept => Err(RpcError::not_kept(what)),
    }
}

/// A final block, with its canonical bytes if `raw`.
pub(super) fn block(
    store: &Store,
    chain: &Chain,
    height: Height,
    raw: bool,
) -> Result<Kept<BlockInfo>, RpcError> {
    let found = both(store.block(height)?, store.certificate(height)?);
    Ok(found.map(|(block, certificate)| {
        let bytes = codec::encode(&block);
        let info = convert::block_info(chain, &block, &certificate, bytes.len());
        BlockInfo { raw: raw.then(|| hex::encode(bytes)), ..info }
    }))
}

/// A final transaction, with its canonical bytes if `raw`. Also returns the length of its block in
/// bytes, since the whole block is read.
pub(super) fn transaction(
    store: &Store,
    chain: &Chain,
    id: &TxId,
    raw: bool,
) -> Result<Kept<(TxInfo, usize)>, RpcError> {
    store.find_transaction(id)?.try_map(|(height, index)| {
        let block = kept(store.block(height)?, transaction_name(id), || gone(height, id))?;
        let found = block.transactions.get(place(index));
        let info = TxInfo {
            id: id.to_string(),
            status: TxStatus::Final,
            height: Some(height.0),
            block_hash: Some(block.header.hash().to_string()),
            index: Some(index),
            accepted_at: None,
            final_at: None,
            transaction: found.map(|found| convert::stored_transaction(chain, found)),
            raw: found.filter(|_| raw).map(|found| hex::encode(codec::encode(found))),
        };
        Ok((info, store.block_length(height)?.here().unwrap_or(0)))
    })
}

/// A final transaction with the proof that its block's certified header commits to it. Also returns
/// the length of the block in bytes.
pub(super) fn proof(
    store: &Store,
    chain: &Chain,
    id: &TxId,
) -> Result<Kept<(TxProofInfo, usize)>, RpcError> {
    store.find_transaction(id)?.try_map(|(height, index)| {
        let found = both(store.block(height)?, store.certificate(height)?);
        let (block, certificate) = kept(found, transaction_name(id), || gone(height, id))?;
        let place = place(index);
        let hashes: Vec<Hash> =
            block.transactions.iter().map(|found| transaction_hash(chain.id(), found).0).collect();
        let (Some(found), Some(inclusion)) =
            (block.transactions.get(place), merkle::prove(&hashes, place))
        else {
            return Err(gone(height, id));
        };
        let info = TxProofInfo {
            id: id.to_string(),
            height: height.0,
            raw: hex::encode(codec::encode(found)),
            inclusion: hex::encode(codec::encode(&inclusion)),
            header: hex::encode(codec::encode(&block.header)),
            certificate: hex::encode(codec::encode(&certificate)),
        };
        Ok((info, codec::encode(&block).len()))
    })
}

/// A transaction as errors name it.
pub(super) fn transaction_name(id: &TxId) -> String {
    format!("transaction {id}")
}

fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The error if the index names a block that is missing or does not hold the transaction. Our disk
/// is at fault.
fn gone(height: Height, id: &TxId) -> RpcError {
    RpcError::internal(format!("transaction {id} is not in block {height}, as the index says"))
}
