//! Whether a transfer is final: waits until a node says so, then has it proved.
//!
//! A transfer is final if a certified header commits to a block that holds it; one question brings the proof.
//!
//! That a transfer is *not* final, although its nonce is used up, follows from the sender's `activity`, which chains height and id
//! of everything that ever touched the account. The blocks since the sender was last proved tell what happened to it: a node may
//! say about them what it likes, but only the truth leads to the activity that the certified header commits to.

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

/// Has it proved that the transaction is in a certified block, and gives the block's height.
///
/// # Errors
/// `TrustError::NotFinal` when the node gives no proof; those of asking and of proofs that do not hold.
pub(crate) fn prove(trust: &mut Trust<'_>, id: TxId) -> Result<Height, WalletError> {
    let reason = || "it has no proof that a block holds it".to_owned();
    let proved = trust.transaction(&id)?;
    proved.ok_or_else(|| TrustError::NotFinal { id: id.to_string(), reason: reason() }.into())
}

/// What became of a transfer whose nonce is used up.
pub(crate) enum Fate {
    /// It is proved to be in the block of this height.
    Final(Height),
    /// It is proved to be in no block: everything that happened to the sender is known, and it is not among it.
    Never,
    /// The node proves neither, or time is up.
    Unknown,
}

/// Asks for what became of a transfer, given its sender as it was before, and as it is after the nonce was used up.
///
/// # Errors
/// Those of asking and of proofs.
pub(crate) fn fate(
    trust: &mut Trust<'_>,
    sender: &PublicKey,
    (height, before): (Height, Account),
    after: &Proven,
    id: TxId,
    deadline: Instant,
) -> Result<Fate, WalletError> {
    if let Some(height) = trust.transaction(&id)? {
        return Ok(Fate::Final(height));
    }
    let (mut account, mut at, mut is_named) = (before, height, false);
    while at < after.height {
        // The blocks between may be many: whoever waits decides how many are asked for.
        if Instant::now() >= deadline {
            return Ok(Fate::Unknown);
        }
        at = at.next();
        is_named |= replay(trust, sender, &mut account, at)?.contains(&id);
    }
    let is_all = account.activity == after.account.unwrap_or_default().activity;
    Ok(if is_all && !is_named { Fate::Never } else { Fate::Unknown })
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
