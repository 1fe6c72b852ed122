//! Whether a transfer is final: waits until a node says so, then has it proved.
//!
//! An account's `activity` chains height and id of everything that ever touched it. Before a transfer is sent the wallet has the
//! sender proved, and afterwards again; so the transfer is in the chain exactly if its link leads from the one to the other. When
//! more has happened to the account, the blocks between tell what: a node may say about them what it likes, but only the truth
//! leads to the activity that the certified header commits to.

use std::time::{Duration, Instant};

use ledger::api::{self, BlockInfo, TransactionInfo, TxInfo, TxStatus};
use ledger::hash::TxId;
use ledger::signature::PublicKey;
use ledger::state::Account;
use ledger::units::{Amount, Height};
use serde_json::json;

use crate::error::WalletError;
use crate::rpc::{Node, RpcError};
use crate::trust::{Proven, Trust, TrustError};

/// Longest time to ask a node to wait before it answers.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two questions to a node that does not wait or does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Waits until the node says that the transaction is final, and gives the height it names; nothing at the deadline.
///
/// # Errors
/// Those of the node, except that it may be unreachable until the deadline: what was submitted may land all the same.
pub(crate) fn wait(node: &Node, id: TxId, deadline: Instant) -> Result<Option<Height>, WalletError> {
    loop {
        let asked = Instant::now();
        let wait = deadline.saturating_duration_since(asked).min(WAIT_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let params = json!({ "id": id.to_string(), "wait_ms": wait_ms });
        match node.call_waiting::<TxInfo>(api::TX_GET, params, wait) {
            Ok(TxInfo { status: TxStatus::Final, height: Some(height), .. }) => return Ok(Some(Height(height))),
            Ok(TxInfo { status: TxStatus::Final, .. }) => {
                return Err(node.malformed(api::TX_GET, "final without a height").into());
            }
            Ok(_) | Err(RpcError::Unreachable { .. }) => {}
            Err(error) if matches!(error.code(), Some(api::code::UNAVAILABLE | api::code::NOT_FOUND)) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(None);
        }
        if now.duration_since(asked) < ASK_AGAIN {
            std::thread::sleep(ASK_AGAIN.min(deadline.saturating_duration_since(now)));
        }
    }
}

/// Has it proved that the transaction is in the block of this height, given its sender as it was before.
///
/// # Errors
/// `TrustError::NotFinal` when it is not so; those of asking and of proofs.
pub(crate) fn prove(
    trust: &mut Trust<'_>,
    sender: &PublicKey,
    before: &Proven,
    id: TxId,
    height: Height,
) -> Result<(), WalletError> {
    let after = trust.account(sender, height)?;
    let not_final = |reason: &str| TrustError::NotFinal { id: id.to_string(), reason: reason.to_owned() };
    if height <= before.height {
        return Err(not_final("its height is one at which the sender had not used the nonce").into());
    }
    let expected = after.account.unwrap_or_default().activity;
    let mut account = before.account.unwrap_or_default();
    account.touch(height, &id);
    if account.activity == expected {
        return Ok(());
    }
    // More has touched the account meanwhile.
    let mut account = before.account.unwrap_or_default();
    let mut found = false;
    let mut at = before.height;
    while at < after.height {
        at = at.next();
        found |= replay(trust, sender, &mut account, at)?.contains(&id) && at == height;
    }
    match (account.activity == expected, found) {
        (true, true) => Ok(()),
        (true, false) => Err(not_final("all that happened to the sender is proved, and it is not among it").into()),
        (false, _) => Err(not_final("its blocks are not those that the proof of the sender commits to").into()),
    }
}

/// Touches the account with all that the node says happened to it in a block, and gives the ids.
fn replay(trust: &Trust<'_>, key: &PublicKey, account: &mut Account, height: Height) -> Result<Vec<TxId>, WalletError> {
    let block: BlockInfo = trust.node().call(api::CHAIN_BLOCK, json!({ "height": height.to_string() }))?;
    let address = trust.address(key);
    let touches = |transaction: &&TransactionInfo| {
        transaction.sender == address || transaction.outputs.iter().any(|output| output.address == address)
    };
    let ids = block.transaction_list.iter().filter(touches).map(|transaction| parse_id(&transaction.id));
    let ids = ids.collect::<Result<Vec<TxId>, TrustError>>()?;
    ids.iter().for_each(|id| account.touch(height, id));
    // The proposer's fees come last and have no transaction.
    let fees = block.transaction_list.iter().fold(0u64, |sum, transaction| sum.saturating_add(transaction.fee));
    let validators = trust.chain().validators(height).as_slice();
    let proposer = validators.iter().find(|validator| validator.key.to_string() == block.summary.proposer);
    if fees > 0 && proposer.is_some_and(|validator| validator.payout == *key) {
        account.touch_fees(height, Amount(fees));
    }
    Ok(ids)
}

fn parse_id(text: &str) -> Result<TxId, TrustError> {
    text.parse().map_err(|error: ledger::hash::HashParseError| TrustError::Bytes {
        what: "transaction id",
        reason: crate::rpc::clean(&error.to_string()),
    })
}
