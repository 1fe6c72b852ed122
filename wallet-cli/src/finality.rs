//! Finds out whether a transfer is final: waits until a node says so, then asks the node for a
//! proof.
//!
//! A transfer is final if a certified header commits to a block that holds it. One request fetches
//! the proof.
//!
//! A transfer whose nonce is used up may also be proved *not* to be final. The sender's `activity`
//! is a hash chain over everything that ever touched the account: the height and id of each
//! transaction, and the height and amount of each block's fees that were paid to it. The wallet
//! replays all blocks from a proof of the account before the transfer was signed to a proof after
//! the nonce was used up. The node may lie about these blocks, but only the truth leads to the
//! activity that the certified header commits to.

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

/// Longest time that a node is asked to hold a request open.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two requests to a node that answers at once or not at all.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Waits until the node says that the transaction is final, and returns the height that it names;
/// `None` at the deadline.
///
/// # Errors
/// Those of the request. It is no error if the node is unreachable, unavailable or does not know
/// the transaction, since a submitted transfer may still become final.
pub(crate) fn wait(
    node: &Node,
    id: TxId,
    deadline: Instant,
) -> Result<Option<Height>, WalletError> {
    loop {
        let asked = Instant::now();
        let wait = deadline.saturating_duration_since(asked).min(WAIT_MAX);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let params = json!({ "id": id.to_string(), "wait_ms": wait_ms });
        match node.call_waiting::<TxInfo>(api::TX_GET, params, wait) {
            Ok(TxInfo { status: TxStatus::Final, height: Some(height), .. }) => {
                return Ok(Some(Height(height)));
            }
            Ok(TxInfo { status: TxStatus::Final, .. }) => {
                return Err(node
                    .malformed(api::TX_GET, "the status is final, but there is no height")
                    .into());
            }
            Ok(_) | Err(RpcError::Unreachable { .. }) => {}
            Err(error) if error.is_not_kept() => {}
            Err(error)
                if matches!(error.code(), Some(api::code::UNAVAILABLE | api::code::NOT_FOUND)) => {}
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

/// Asks the node to prove that the transaction is in a certified block, and returns the block's
/// height.
///
/// # Errors
/// `TrustError::NotFinal` if the node gives no proof; the errors of the request, and of a proof
/// that does not hold.
pub(crate) fn prove(trust: &mut Trust<'_>, id: TxId) -> Result<Height, WalletError> {
    let reason = || "it has no proof that a block holds the transaction".to_owned();
    let proved = trust.transaction(&id)?;
    proved.ok_or_else(|| TrustError::NotFinal { id: id.to_string(), reason: reason() }.into())
}

/// The fate of a transfer that an earlier run signed.
pub(crate) enum Fate {
    /// It is proved to be in the block of this height.
    Final(Height),
    /// It is proved that no block ever holds it: a certified block has a time after its expiry, or
    /// every transaction that touched the sender is known and the transfer is not among them.
    Never,
    /// The node proves neither, or the deadline has passed.
    Unknown,
}

/// Finds the fate of a transfer whose nonce is used up. `before` is the sender's account at
/// `height`, before the transfer was signed. `after` is the account once the nonce was used up.
///
/// # Errors
/// Those of the requests, and of a proof that does not hold.
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
        // There may be many blocks to replay. The deadline bounds how many are requested.
        if Instant::now() >= deadline {
            return Ok(Fate::Unknown);
        }
        at = at.next();
        let Some(ids) = replay(trust, sender, &mut account, at)? else { return Ok(Fate::Unknown) };
        is_named |= ids.contains(&id);
    }
    let is_all = account.activity == after.account.unwrap_or_default().activity;
    Ok(if is_all && !is_named { Fate::Never } else { Fate::Unknown })
}

/// Adds to the account's activity everything that touched the account in a block, according to the
/// node. Returns the ids of the transactions among it; `None` if the node does not keep the block.
fn replay(
    trust: &Trust<'_>,
    key: &PublicKey,
    account: &mut Account,
    height: Height,
) -> Result<Option<Vec<TxId>>, WalletError> {
    let params = json!({ "height": height.to_string() });
    let block: BlockInfo = match trust.node().call(api::CHAIN_BLOCK, params) {
        Err(error) if error.is_not_kept() => return Ok(None),
        answer => answer?,
    };
    let address = trust.address(key);
    let touches = |transaction: &&TransactionInfo| {
        transaction.sender == address
            || transaction.outputs.iter().any(|output| output.address == address)
    };
    let ids =
        block.transaction_list.iter().filter(touches).map(|transaction| parse_id(&transaction.id));
    let ids = ids.collect::<Result<Vec<TxId>, TrustError>>()?;
    ids.iter().for_each(|id| account.touch(height, id));
    // The fees of the block go to the proposer's payout account. They touch it after all
    // transactions, and no transaction names them.
    let fees = block
        .transaction_list
        .iter()
        .fold(0u64, |sum, transaction| sum.saturating_add(transaction.fee));
    let validators = trust.chain().validators(height).as_slice();
    let proposer =
        validators.iter().find(|validator| validator.key.to_string() == block.summary.proposer);
    if fees > 0 && proposer.is_some_and(|validator| validator.payout == *key) {
        account.touch_fees(height, Amount(fees));
    }
    Ok(Some(ids))
}

fn parse_id(text: &str) -> Result<TxId, TrustError> {
    text.parse().map_err(|error: ledger::hash::HashParseError| TrustError::Bytes {
        what: "transaction id",
        reason: crate::rpc::clean(&error.to_string()),
    })
}
