//! The nonce of a new transfer: the first one that no waiting transfer of the account has.
//!
//! A transfer whose nonce is too high cannot become final before all lower nonces are used. So a
//! node could block an account if the wallet used whatever nonce the node names. Therefore only
//! evidence that a node cannot make up shows that a nonce is taken: the proved state, this wallet's
//! own unfinished transfers, and waiting transfers that another wallet with the same key signed and
//! submitted. The node's `pending_nonce` is only a hint that such waiting transfers exist.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ledger::api::{self, MempoolInfo, TxInfo};
use ledger::signature::PublicKey;
use ledger::transaction::{TRANSACTION_BYTES_MAX, Transaction, Transfer, verify_transactions};
use ledger::units::{Nonce, Timestamp};
use serde_json::json;

use crate::trust::{Proven, Trust};

/// Most waiting transactions that the RPC interface lets a node list.
const LIST_MAX: u32 = 1_000;
/// Most waiting transfers of the account that are fetched from a node, each in a call of its own.
/// Further transfers count as not shown, so the wallet waits until the fetched ones are final.
const FETCHED_MAX: usize = 64;
/// No further transfer is fetched after this long, so that a slow node cannot hold the wallet up.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// The nonce of a new transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// No transfer that the wallet knows and that may still become final has this nonce. All lower
    /// nonces are taken.
    Free(Nonce),
    /// The node claims that a transfer with this nonce waits, and does not show it.
    Unshown(Nonce),
}

/// Chooses the nonce of a new transfer of `sender`. `own` are this wallet's transfers that have not
/// expired and were not refused. The caller has submitted them again. Asks the node for other
/// waiting transfers only if the node claims that there are some.
pub(crate) fn choose<'o>(
    trust: &Trust<'_>,
    sender: &PublicKey,
    payer: &Proven,
    own: impl Iterator<Item = &'o Transfer>,
    now: Timestamp,
) -> Choice {
    let proved = payer.account.unwrap_or_default().nonce;
    let mut waiting: BTreeMap<Nonce, Timestamp> =
        own.map(|own| (own.nonce, own.expires_at)).collect();
    let nonce = first_free(proved, &waiting, now);
    if nonce >= payer.pending_nonce {
        return Choice::Free(nonce);
    }
    for other in shown(trust, sender, proved, &waiting) {
        waiting.insert(other.nonce, other.expires_at);
    }
    let nonce = first_free(proved, &waiting, now);
    // If a transfer with this nonce is known, it has expired, so the nonce is free.
    if nonce >= payer.pending_nonce || waiting.contains_key(&nonce) {
        Choice::Free(nonce)
    } else {
        Choice::Unshown(nonce)
    }
}

/// The first nonce from `proved` on without a transfer that may still become final. `waiting` maps
/// nonces to expiries.
fn first_free(proved: Nonce, waiting: &BTreeMap<Nonce, Timestamp>, now: Timestamp) -> Nonce {
    let mut nonce = proved;
    while waiting.get(&nonce).is_some_and(|expires_at| *expires_at >= now) {
        nonce.0 = nonce.0.saturating_add(1);
    }
    nonce
}

/// Transfers of the account in the node's mempool that its key signed, with nonces that are neither
/// used nor `known`. A failed call shows nothing.
fn shown(
    trust: &Trust<'_>,
    sender: &PublicKey,
    proved: Nonce,
    known: &BTreeMap<Nonce, Timestamp>,
) -> Vec<Transfer> {
    let (node, address) = (trust.node(), trust.address(sender));
    let Ok(list) = node.call::<MempoolInfo>(api::TX_MEMPOOL, json!({ "limit": LIST_MAX })) else {
        return Vec::new();
    };
    let is_asked = |nonce: Nonce| nonce >= proved && !known.contains_key(&nonce);
    let listed =
        list.list.iter().filter(|listed| listed.sender == address && is_asked(Nonce(listed.nonce)));
    let fetch = |id: &str| -> Option<Transaction> {
        let info: TxInfo = node.call(api::TX_GET, json!({ "id": id, "raw": true })).ok()?;
        let raw = info.raw.filter(|raw| raw.len() <= 2 * TRANSACTION_BYTES_MAX)?;
        Transaction::decode(&hex::decode(raw).ok()?).ok()
    };
    let end = Instant::now() + FETCH_TIME;
    let in_time = listed.take(FETCHED_MAX).take_while(|_| Instant::now() < end);
    let fetched: Vec<Transaction> = in_time.filter_map(|listed| fetch(&listed.id)).collect();
    let verified = verify_transactions(trust.chain().id(), fetched).into_iter().flatten();
    let transfers = verified.map(|transaction| transaction.transfer().clone());
    transfers.filter(|transfer| transfer.sender == *sender && is_asked(transfer.nonce)).collect()
}
