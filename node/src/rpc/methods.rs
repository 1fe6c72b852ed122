//! The methods: each reads its parameters, a snapshot or the store, and gives an answer. None of them changes the chain.

use std::sync::Arc;
use std::time::Duration;

use ledger::address::decode_address;
use ledger::api::{self, AccountProofInfo, MempoolInfo, Method, Submitted, TxInfo, TxStatus};
use ledger::chain::Chain;
use ledger::codec;
use ledger::hash::{BlockHash, Hash, TxId};
use ledger::signature::PublicKey;
use ledger::state::StateKey;
use ledger::store::{Store, StoreError};
use ledger::transaction::Transaction;
use ledger::units::{Height, Nonce};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::convert;
use super::error::RpcError;
use super::subscriptions::{SUBSCRIPTIONS_MAX, Subscriptions};
use crate::clock::wall_ms;
use crate::sync_status::sync_status;
use crate::view::{Query, Times, TipView, View};

/// Longest wait of a request, all calls of a batch together.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most transactions of one answer about the mempool.
const MEMPOOL_LIST_MAX: u32 = 1_000;
/// Most reads of the store at once; further ones wait. Each takes a thread, and at most a block and its answer in memory.
const READS_MAX: usize = 8;

type Answer = Result<Box<RawValue>, RpcError>;

/// What the methods work on.
pub(super) struct Methods {
    view: View,
    reads: Arc<Semaphore>,
    /// Becomes true when the server stops, so that nobody waits on.
    stopping: watch::Receiver<bool>,
}

/// Who asks: what calls of one request have in common.
pub(super) struct Caller<'a> {
    /// When to stop waiting.
    deadline: Instant,
    /// Those of the connection, if it is one that can be pushed to.
    subscriptions: Option<&'a Subscriptions>,
}

impl<'a> Caller<'a> {
    pub(super) fn new(subscriptions: Option<&'a Subscriptions>) -> Self {
        Self { deadline: Instant::now() + WAIT_MAX, subscriptions }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockParams {
    #[serde(default, with = "api::decimal_option")]
    height: Option<u64>,
    #[serde(default)]
    hash: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnsubscribeParams {
    subscription: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmitParams {
    transaction: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TxParams {
    id: String,
    #[serde(default)]
    wait_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MempoolParams {
    #[serde(default)]
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountParams {
    account: String,
}

/// A method that is called, with its parameters as they came.
struct Called<'a> {
    method: &'static Method,
    params: Option<&'a RawValue>,
}

impl Called<'_> {
    /// The parameters, by name or in order; none are as good as empty ones.
    fn params<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        let text = self.params.map_or("{}", RawValue::get);
        serde_json::from_str(text).map_err(|error| self.invalid(error))
    }

    fn invalid(&self, message: impl std::fmt::Display) -> RpcError {
        RpcError::invalid_params(self.method, message)
    }
}

fn reply<T: Serialize + ?Sized>(result: &T) -> Answer {
    to_raw_value(result).map_err(RpcError::internal)
}

impl Methods {
    pub(super) fn new(view: View, stopping: watch::Receiver<bool>) -> Self {
        Self { view, reads: Arc::new(Semaphore::new(READS_MAX)), stopping }
    }

    pub(super) async fn call(&self, caller: &Caller<'_>, name: &str, params: Option<&RawValue>) -> Answer {
        let method = api::METHODS.iter().find(|method| method.name == name);
        let called = Called { method: method.ok_or_else(|| RpcError::unknown_method(name))?, params };
        if called.method.params.is_empty() {
            called.params::<NoParams>()?;
        }
        match called.method.name {
            api::RPC_METHODS => reply(api::METHODS),
            api::CHAIN_STATUS => self.chain_status(),
            api::CHAIN_GENESIS => self.chain_genesis(),
            api::CHAIN_HEAD => reply(&convert::head(&self.tip()).ok_or_else(RpcError::no_block_yet)?),
            api::CHAIN_BLOCK => self.chain_block(&called).await,
            api::CHAIN_VALIDATORS => {
                reply(&convert::validators(&self.view.chain, self.tip().state.tip().height.next()))
            }
            api::CHAIN_SUBSCRIBE | api::CHAIN_UNSUBSCRIBE => subscription(&called, caller),
            api::TX_SUBMIT => self.tx_submit(&called).await,
            api::TX_GET => self.tx_get(&called, caller).await,
            api::TX_MEMPOOL => self.tx_mempool(&called).await,
            api::ACCOUNT_GET => self.account_get(&called).await,
            api::ACCOUNT_PROOF => self.account_proof(&called).await,
            api::SYNC_STATUS => reply(&sync_status(&self.view, wall_ms())),
            api::NET_PEERS => self.net_peers().await,
            api::NET_BANS => self.net_bans(),
            name => panic!("every method of the interface is implemented, {name} is not"),
        }
    }

    fn tip(&self) -> Arc<TipView> {
        Arc::clone(&self.view.tip.borrow())
    }

    /// Reads the store on a thread that may block.
    async fn read<T, F>(&self, read: F) -> Result<T, RpcError>
    where
        T: Send + 'static,
        F: FnOnce(&Store, &Chain) -> Result<T, RpcError> + Send + 'static,
    {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| RpcError::unavailable())?;
        let (store, chain) = (self.view.store.clone(), Arc::clone(&self.view.chain));
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&store, &chain)
        });
        reading.await.unwrap_or_else(|error| Err(RpcError::internal(error)))
    }

    fn chain_status(&self) -> Answer {
        let (activity, peers) = (*self.view.activity.borrow(), self.view.peers.borrow().len());
        reply(&convert::status(&self.view, &self.tip(), &activity, peers))
    }

    fn chain_genesis(&self) -> Answer {
        // Compact: the file is indented for people.
        let value: serde_json::Value =
            serde_json::from_str(&self.view.chain.genesis().to_json()).map_err(RpcError::internal)?;
        reply(&value)
    }

    async fn chain_block(&self, called: &Called<'_>) -> Answer {
        let BlockParams { height, hash } = called.params()?;
        let hash: Option<BlockHash> =
            hash.map(|hash| hash.parse()).transpose().map_err(|error| called.invalid(error))?;
        let tip = self.tip().state.tip().height;
        let height = match (height, hash) {
            (Some(_), Some(_)) => return Err(called.invalid("both height and hash are given, expected one of them")),
            (Some(0), None) => {
                return Err(RpcError::not_found("there is no block 0", "the first block has height 1"));
            }
            (None, None) if tip == Height(0) => return Err(RpcError::no_block_yet()),
            (height, None) => Some(height.map_or(tip, Height)),
            (None, Some(_)) => None,
        };
        self.read(move |store, chain| {
            let height = match (height, hash) {
                (None, Some(hash)) => store.height_of(&hash)?,
                (height, _) => height,
            };
            let found = height.map(|height| read_block(store, chain, height)).transpose()?.flatten();
            let name = hash.map_or_else(|| format!("{}", height.unwrap_or(tip)), |hash| hash.to_string());
            let hint = "chain_status tells the height of the last final block; this node may also be syncing";
            reply(&found.ok_or_else(|| RpcError::not_found(format!("block {name} is not known here"), hint))?)
        })
        .await
    }

    async fn tx_submit(&self, called: &Called<'_>) -> Answer {
        let SubmitParams { transaction } = called.params()?;
        let bytes = hex::decode(&transaction).map_err(|error| called.invalid(format!("transaction: {error}")))?;
        let transaction = Transaction::decode(&bytes).map_err(RpcError::malformed_transaction)?;
        reply(&Submitted { id: self.view.submit(transaction).await?.to_string() })
    }

    async fn tx_get(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let TxParams { id, wait_ms } = called.params()?;
        let id: TxId = id.parse().map_err(|error| called.invalid(error))?;
        let wait = Duration::from_millis(wait_ms.unwrap_or(0)).min(WAIT_MAX);
        let deadline = caller.deadline.min(Instant::now() + wait);
        let (mut tip, mut stopping) = (self.view.tip.clone(), self.stopping.clone());
        loop {
            // Marked as seen before the store is asked: a block that comes in between ends the wait below at once.
            tip.mark_unchanged();
            if let Some(found) = self.read(move |store, chain| read_transaction(store, chain, &id)).await? {
                let times = self.view.journal.get(&id);
                return reply(&TxInfo { accepted_at: times.accepted_at, final_at: times.final_at, ..found });
            }
            if Instant::now() >= deadline {
                let pending = self.ask(|sender| Query::Pending(id, sender)).await?;
                let just_final = pending.is_none() && tip.has_changed().unwrap_or(false);
                if !just_final {
                    let waiting = pending.map(|waiting| convert::waiting_transaction(&self.view.chain, &waiting));
                    return reply(&not_final(id, waiting, self.view.journal.get(&id)));
                }
            }
            let changed = async {
                tokio::select! {
                    changed = tip.changed() => changed.is_ok(),
                    _ = stopping.wait_for(|stopping| *stopping) => false,
                }
            };
            if !timeout_at(deadline, changed).await.unwrap_or(true) {
                return Err(RpcError::unavailable());
            }
        }
    }

    async fn tx_mempool(&self, called: &Called<'_>) -> Answer {
        let MempoolParams { limit } = called.params()?;
        let limit = limit.unwrap_or(100);
        if limit > MEMPOOL_LIST_MAX {
            return Err(called.invalid(format!("limit is {limit}, expected at most {MEMPOOL_LIST_MAX}")));
        }
        let waiting = self.ask(|sender| Query::Mempool(limit as usize, sender)).await?;
        let activity = *self.view.activity.borrow();
        reply(&MempoolInfo {
            transactions: convert::count(activity.mempool_transactions),
            bytes: activity.mempool_bytes as u64,
            list: waiting.iter().map(|waiting| convert::waiting_transaction(&self.view.chain, waiting)).collect(),
        })
    }

    async fn account_get(&self, called: &Called<'_>) -> Answer {
        let (key, tip) = (self.account(called)?, self.tip());
        let pending = self.pending_nonce(key).await?;
        reply(&convert::account_info(&tip, &key, pending))
    }

    async fn account_proof(&self, called: &Called<'_>) -> Answer {
        let (key, tip) = (self.account(called)?, self.tip());
        let head = convert::head(&tip).ok_or_else(RpcError::no_block_yet)?;
        let pending = self.pending_nonce(key).await?;
        let proof = tip.state.state().prove(&StateKey::account(key));
        let pending_nonce = pending.max(tip.state.account(&key).nonce).0;
        reply(&AccountProofInfo { head, proof: hex::encode(codec::encode(&proof)), pending_nonce })
    }

    async fn net_peers(&self) -> Answer {
        let peers = Arc::clone(&self.view.peers.borrow());
        // A busy driver is no reason to hide who is connected.
        let heights = self.view.ask(Query::PeerHeights).await.unwrap_or_default();
        let peer = |peer| convert::peer(peer, heights.get(&peer.id.to_string()).copied());
        reply(&peers.iter().map(peer).collect::<Vec<_>>())
    }

    fn net_bans(&self) -> Answer {
        let (bans, now_ms) = (Arc::clone(&self.view.bans.borrow()), wall_ms());
        // Nothing tells of a ban's end.
        let bans = bans.iter().filter(|ban| ban.until_ms > now_ms);
        reply(&bans.map(convert::ban).collect::<Vec<_>>())
    }

    /// The account a caller names, by address or by key.
    fn account(&self, called: &Called<'_>) -> Result<PublicKey, RpcError> {
        let AccountParams { account } = called.params()?;
        if let Ok(Hash(bytes)) = account.parse() {
            let key = PublicKey(bytes);
            return key.check().map(|()| key).map_err(|error| called.invalid(error));
        }
        let prefix = &self.view.chain.genesis().address_prefix;
        decode_address(prefix, &account).map_err(|error| called.invalid(error))
    }

    async fn pending_nonce(&self, key: PublicKey) -> Result<Nonce, RpcError> {
        self.ask(|sender| Query::PendingNonce(key, sender)).await
    }

    /// Asks the driver, which may be too busy to answer.
    async fn ask<T>(&self, query: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Query) -> Result<T, RpcError> {
        self.view.ask(query).await.ok_or_else(RpcError::unavailable)
    }
}

fn subscription(called: &Called<'_>, caller: &Caller<'_>) -> Answer {
    let of_caller = caller.subscriptions.ok_or_else(|| RpcError::websocket_only(called.method.name))?;
    if called.method.name == api::CHAIN_SUBSCRIBE {
        return reply(&of_caller.add().ok_or_else(|| RpcError::too_many_subscriptions(SUBSCRIPTIONS_MAX))?);
    }
    let UnsubscribeParams { subscription } = called.params()?;
    reply(&of_caller.remove(subscription))
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

fn read_block(store: &Store, chain: &Chain, height: Height) -> Result<Option<api::BlockInfo>, RpcError> {
    let (Some(block), Some(certificate)) = (store.block(height)?, store.certificate(height)?) else { return Ok(None) };
    let bytes = codec::encode(&block).len();
    Ok(Some(convert::block_info(chain, &block, &certificate, bytes)))
}

fn read_transaction(store: &Store, chain: &Chain, id: &TxId) -> Result<Option<TxInfo>, RpcError> {
    let Some((height, index)) = store.find_transaction(id)? else { return Ok(None) };
    let block = store.block(height)?.ok_or_else(|| RpcError::internal(format!("block {height} of {id} is gone")))?;
    let place = usize::try_from(index).unwrap_or(usize::MAX);
    let transaction = block.transactions.get(place).map(|found| convert::stored_transaction(chain, found));
    Ok(Some(TxInfo {
        id: id.to_string(),
        status: TxStatus::Final,
        height: Some(height.0),
        block_hash: Some(block.header.hash().to_string()),
        index: Some(index),
        accepted_at: None,
        final_at: None,
        transaction,
    }))
}

fn not_final(id: TxId, waiting: Option<api::TransactionInfo>, times: Times) -> TxInfo {
    TxInfo {
        id: id.to_string(),
        status: if waiting.is_some() { TxStatus::Pending } else { TxStatus::Unknown },
        height: None,
        block_hash: None,
        index: None,
        accepted_at: times.accepted_at,
        final_at: None,
        transaction: waiting,
    }
}
