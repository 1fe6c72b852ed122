//! Converts the ledger's types to those of the RPC interface.

use ledger::address::encode_address;
use ledger::api::{
    AccountInfo, BanInfo, BlockInfo, Faults, Head, OutputInfo, PeerCost, PeerInfo, QuorumInfo,
    Status, TransactionInfo, ValidatorInfo,
};
use ledger::block::Block;
use ledger::certificate::Certificate;
use ledger::chain::Chain;
use ledger::codec;
use ledger::hash::TxId;
use ledger::link::{Link, anchor, gives_key_away};
use ledger::signature::PublicKey;
use ledger::transaction::{Transaction, VerifiedTransaction};
use ledger::units::{Height, Nonce};
use protocol::Quorum;
use protocol::budget::{BudgetReport, Cost};

use super::error::RpcError;
use crate::clock::wall_ms;
use crate::network;
use crate::sync_status::history_info;
use crate::view::{Activity, TipView, View, block_summary, faults_info};

pub(super) fn block_info(
    chain: &Chain,
    block: &Block,
    certificate: &Certificate,
    bytes: usize,
) -> BlockInfo {
    let header = &block.header;
    let signers = certificate.signer_keys(chain.validators(header.height));
    BlockInfo {
        summary: block_summary(header, header.hash(), block.transactions.len(), bytes),
        parent: header.parent.to_string(),
        version: header.version,
        transactions_root: header.transactions_root.to_string(),
        state_root: header.state_root.to_string(),
        history_root: header.history_root.to_string(),
        round: certificate.round.0,
        signers: signers.iter().map(PublicKey::to_string).collect(),
        transaction_list: block
            .transactions
            .iter()
            .map(|transaction| stored_transaction(chain, transaction))
            .collect(),
        raw: None,
    }
}

/// A transaction of a block.
pub(super) fn stored_transaction(chain: &Chain, transaction: &Transaction) -> TransactionInfo {
    transaction_info(
        chain,
        transaction.body.id(chain.id()),
        transaction,
        codec::encode(transaction).len(),
    )
}

/// A transaction that waits for a block.
pub(super) fn waiting_transaction(
    chain: &Chain,
    transaction: &VerifiedTransaction,
) -> TransactionInfo {
    transaction_info(chain, transaction.id(), transaction.transaction(), transaction.bytes())
}

fn transaction_info(
    chain: &Chain,
    id: TxId,
    transaction: &Transaction,
    bytes: usize,
) -> TransactionInfo {
    let transfer = transaction.body.transfer();
    let output = |output: &ledger::transaction::Output| OutputInfo {
        address: address(chain, &output.account),
        amount: output.amount.0,
    };
    TransactionInfo {
        id: id.to_string(),
        kind: "transfer".to_owned(),
        sender: address(chain, &transfer.sender),
        nonce: transfer.nonce.0,
        outputs: transfer.outputs.iter().map(output).collect(),
        fee: transfer.fee.0,
        expires_at: transfer.expires_at.0,
        memo: hex::encode(&transfer.memo),
        anchor: anchor(&transfer.memo).map(|id| Link { id, key: None }.to_string()),
        bytes: count(bytes),
    }
}

/// The transaction of a submission.
pub(super) fn submitted(bytes: &[u8]) -> Result<Transaction, RpcError> {
    let transaction = Transaction::decode(bytes).map_err(RpcError::malformed_transaction)?;
    match gives_key_away(&transaction.body.transfer().memo) {
        true => Err(RpcError::key_in_memo()),
        false => Ok(transaction),
    }
}

/// Header and certificate of the tip; `None` before the first block.
pub(super) fn head(tip: &TipView) -> Option<Head> {
    let header = hex::encode(codec::encode(tip.header.as_ref()?));
    Some(Head { header, certificate: hex::encode(codec::encode(&tip.certificate)) })
}

pub(super) fn status(view: &View, tip: &TipView, activity: &Activity, peers: usize) -> Status {
    let (state_root, history_root) = tip.state.roots();
    let at = tip.state.tip();
    let (served_bytes, served_peers) = view.uploaded.total();
    let disk = *view.disk.borrow();
    Status {
        chain_id: view.chain.id().to_string(),
        network: view.chain.genesis().network.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        height: at.height.0,
        block_hash: at.hash.to_string(),
        state_root: state_root.to_string(),
        history_root: history_root.to_string(),
        time: at.time.0,
        peers: count(peers),
        syncing: activity.syncing,
        validator: view.validator.map(|key| key.to_string()),
        round: activity.round.0,
        mempool_transactions: count(activity.mempool_transactions),
        mempool_bytes: activity.mempool_bytes as u64,
        clock_offset_ms: activity.clock_offset_ms,
        quorum: quorum(view),
        last_block_age_ms: (at.height > Height(0)).then(|| wall_ms().saturating_sub(at.time.0)),
        uptime_ms: u64::try_from(view.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        disk_bytes: disk.used,
        disk_free_bytes: disk.free,
        served_bytes,
        served_peers: count(served_peers),
        history: history_info(view, at.height),
        faults: faults(view),
    }
}

fn faults(view: &View) -> Option<Faults> {
    let plan = view.faults.borrow();
    (!plan.is_empty()).then(|| faults_info(&plan))
}

fn quorum(view: &View) -> QuorumInfo {
    let Quorum { ok, missing, since_ms } = view.quorum.borrow().clone();
    QuorumInfo { ok, missing: view.validator_names(&missing), since_ms }
}

pub(super) fn account_info(tip: &TipView, key: &PublicKey, pending: Nonce) -> AccountInfo {
    let account = tip.state.account(key);
    AccountInfo {
        address: address(tip.state.chain(), key),
        balance: account.balance.0,
        nonce: account.nonce.0,
        pending_nonce: pending.max(account.nonce).0,
        height: tip.state.tip().height.0,
    }
}

/// The validators of a height, in the order of their set, with their names from the genesis.
pub(super) fn validators(chain: &Chain, height: Height) -> Vec<ValidatorInfo> {
    let named = &chain.genesis().validators;
    let validator = |validator: &ledger::validators::Validator| ValidatorInfo {
        name: named
            .iter()
            .find(|entry| entry.key == validator.key)
            .map_or_else(String::new, |entry| entry.name.clone()),
        key: validator.key.to_string(),
        payout: address(chain, &validator.payout),
        power: validator.power.0,
    };
    chain.validators(height).as_slice().iter().map(validator).collect()
}

pub(super) fn peer(
    peer: &network::PeerInfo,
    height: Option<Height>,
    account: BudgetReport,
) -> PeerInfo {
    let BudgetReport { left, spent, refused } = account;
    let Cost { decode, verify, look_up, answer, relay } = spent;
    PeerInfo {
        id: peer.id.to_string(),
        address: peer.address.to_string(),
        inbound: peer.inbound,
        agent: peer.agent.clone(),
        ping_us: peer.ping.map(|ping| u32::try_from(ping.as_micros()).unwrap_or(u32::MAX)),
        height: height.map(|height| height.0),
        sent_bytes: peer.traffic.sent_bytes(),
        received_bytes: peer.traffic.received_bytes(),
        cost: PeerCost { left, decode, verify, look_up, answer, relay, refused },
    }
}

pub(super) fn ban(ban: &network::BanInfo) -> BanInfo {
    BanInfo { peer: ban.peer.to_string(), offence: ban.offence.clone(), until_ms: ban.until_ms }
}

fn address(chain: &Chain, key: &PublicKey) -> String {
    encode_address(&chain.genesis().address_prefix, key)
}

/// Counts of objects in memory are far below 2^32.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
