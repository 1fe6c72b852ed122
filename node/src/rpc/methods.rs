//! The methods of RPC. Most answer from a snapshot, from the store or by a question to the driver.
//! `tx_submit` hands its transaction to the verifier. No method changes the chain itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ledger::address::decode_address;
use ledger::api::{self, AccountProofInfo, MempoolInfo, Submitted, TxInfo, TxStatus};
use ledger::chain::{Chain, TransactionError};
use ledger::codec;
use ledger::hash::{BlockHash, Hash, TxId};
use ledger::signature::PublicKey;
use ledger::state::StateKey;
use ledger::store::{Kept, Store, StoreError};
use ledger::transaction::VerifiedTransaction;
use ledger::units::{Height, Nonce};
use protocol::eras::{Era, EraRange};
use protocol::live::mempool::AdmitError;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, bytes_written, reply};
use super::budget::{Budgets, cost};
use super::convert;
use super::counts::Counts;
use super::error::RpcError;
use super::params::{Called, Decimal, HexBytes};
use super::places::Place;
use super::pool::Pool;
use super::subscriptions::{SUBSCRIPTIONS_MAX, Subscriptions};
use super::{Bounds, reads};
use crate::clock::wall_ms;
use crate::network::PeerInfo;
use crate::submission::SubmitError;
use crate::sync_status::sync_status;
use crate::view::{Query, Times, TipView, View};

/// Longest wait of a request, for all calls of a batch together.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most transactions in one answer of `tx_mempool`.
const MEMPOOL_LIST_MAX: u32 = 1_000;
/// Most reads of the store at once; further reads wait. Each takes a thread, and the memory of a
/// block and its answer.
const READS_MAX: usize = 8;

/// The methods' shared state.
pub(super) struct Methods {
    view: View,
    reads: Arc<Semaphore>,
    /// Becomes true when the server stops, which ends all waits.
    stopping: watch::Receiver<bool>,
    budgets: Budgets,
    /// Memory for answers until clients have read them.
    pub(super) answers: Arc<Pool>,
    counts: Counts,
    /// The genesis as JSON in one line.
    genesis: OnceLock<String>,
}

/// The context that all calls of one request share.
pub(super) struct Caller<'a> {
    pub(super) place: &'a Place,
    /// When to stop waiting.
    deadline: Instant,
    /// The connection's subscriptions, if it is a WebSocket.
    subscriptions: Option<&'a Subscriptions>,
}

impl<'a> Caller<'a> {
    pub(super) fn new(place: &'a Place, subscriptions: Option<&'a Subscriptions>) -> Self {
        Self { place, deadline: Instant::now() + WAIT_MAX, subscriptions }
    }
}

impl Methods {
    pub(super) fn new(
        view: View,
        stopping: watch::Receiver<bool>,
        counts: Counts,
        bounds: Bounds,
    ) -> Self {
        Self {
            view,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            stopping,
            budgets: Budgets::new(bounds.refill),
            answers: Pool::new(bounds.answers_bytes),
            counts,
            genesis: OnceLock::new(),
        }
    }

    /// Counts a call for the metrics.
    pub(super) fn count(&self, name: &str, error: Option<&RpcError>) {
        self.counts.count(name, error.map(|error| error.code));
    }

    pub(super) async fn call(
        &self,
        caller: &Caller<'_>,
        name: &str,
        params: Option<&RawValue>,
        room: usize,
    ) -> Answer {
        self.spend(caller, cost::CALL)?;
        let method = api::METHODS.iter().find(|method| method.name == name);
        let called =
            Called::new(method.ok_or_else(|| RpcError::unknown_method(name))?, params, room)?;
        let answer = self.dispatch(caller, &called).await;
        let answer = answer.map_err(|error| self.with_holders(error, &called));
        self.budgets.charge(caller.place.origin, cost::answer(bytes_written(&answer, room)));
        answer
    }

    /// Names peers that may have what is not kept here: those that announce the era of the height
    /// that was asked for. A hash is in any era, so for it those that announce an era that this
    /// node lacks.
    fn with_holders(&self, mut error: RpcError, called: &Called<'_>) -> RpcError {
        if let Some(holders) = &mut error.data.holders {
            let height = called.optional("height").ok().flatten();
            let store = &self.view.store;
            let era = height.and_then(|Decimal(height)| store.era_of(Height(height)));
            let archive = self.view.archive.borrow().clone();
            *holders = match era {
                Some(era) => archive.holders(|claims| claims.contains(Era(era))),
                None => {
                    let kept = store.kept_eras();
                    let is_kept = |range: EraRange| {
                        let (first, last) = (range.first.0, range.last.0);
                        kept.iter().any(|kept| *kept.start() <= first && last <= *kept.end())
                    };
                    archive.holders(|claims| !claims.ranges().all(is_kept))
                }
            };
        }
        error
    }

    async fn dispatch(&self, caller: &Caller<'_>, called: &Called<'_>) -> Answer {
        let room = called.room;
        match called.method.name {
            api::RPC_METHODS => reply(room, api::METHODS),
            api::CHAIN_STATUS => self.chain_status(caller, room),
            api::CHAIN_GENESIS => self.chain_genesis(room),
            api::CHAIN_HEAD => self.chain_head(called, caller).await,
            api::CHAIN_BLOCK => self.chain_block(called, caller).await,
            api::CHAIN_VALIDATORS => {
                let height = self.tip().state.tip().height.next();
                self.spend(
                    caller,
                    cost::entries(self.view.chain.validators(height).as_slice().len()),
                )?;
                reply(room, &convert::validators(&self.view.chain, height))
            }
            api::CHAIN_SUBSCRIBE | api::CHAIN_UNSUBSCRIBE => subscription(called, caller),
            api::TX_SUBMIT => self.tx_submit(called, caller).await,
            api::TX_GET => self.tx_get(called, caller).await,
            api::TX_PROOF => self.tx_proof(called, caller).await,
            api::TX_MEMPOOL => self.tx_mempool(called, caller).await,
            api::ACCOUNT_GET => self.account_get(called, caller).await,
            api::ACCOUNT_PROOF => self.account_proof(called, caller).await,
            api::SYNC_STATUS => {
                let entries = {
                    let sync = self.view.sync.borrow();
                    sync.report.peers.len() + sync.report.segments.len() + sync.suppliers.len()
                };
                self.spend(caller, cost::entries(entries))?;
                reply(room, &sync_status(&self.view, wall_ms()))
            }
            api::NET_PEERS => self.net_peers(caller, room).await,
            api::NET_BANS => self.net_bans(caller, room),
            name => panic!("every method of the interface is implemented, {name} is not"),
        }
    }

    fn spend(&self, caller: &Caller<'_>, cost: u64) -> Result<(), RpcError> {
        self.budgets.spend(caller.place.origin, cost).map_err(RpcError::over_budget)
    }

    fn tip(&self) -> Arc<TipView> {
        Arc::clone(&self.view.tip.borrow())
    }

    /// Reads the store on a blocking thread.
    async fn read<T, F>(&self, read: F) -> Result<T, RpcError>
    where
        T: Send + 'static,
        F: FnOnce(&Store, &Chain) -> Result<T, RpcError> + Send + 'static,
    {
        let permit =
            Arc::clone(&self.reads).acquire_owned().await.map_err(|_| RpcError::unavailable())?;
        let (store, chain) = (self.view.store.clone(), Arc::clone(&self.view.chain));
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&store, &chain)
        });
        reading.await.unwrap_or_else(|error| Err(RpcError::internal(error)))
    }

    fn chain_status(&self, caller: &Caller<'_>, room: usize) -> Answer {
        let missing = self.view.quorum.borrow().missing.len();
        let faults = self.view.faults.borrow().len();
        self.spend(caller, cost::entries(missing + faults))?;
        let (activity, peers) = (*self.view.activity.borrow(), self.view.peers.borrow().len());
        reply(room, &convert::status(&self.view, &self.tip(), &activity, peers))
    }

    fn chain_genesis(&self, room: usize) -> Answer {
        // Without the indentation that the file has for people.
        let compact = || {
            let file = self.view.chain.genesis().to_json();
            serde_json::from_str(&file).map_or(file, |value: serde_json::Value| value.to_string())
        };
        let genesis = self.genesis.get_or_init(compact);
        if genesis.len() <= room {
            Ok(genesis.clone())
        } else {
            Err(RpcError::response_too_large(room))
        }
    }

    async fn chain_head(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let height = called.optional("height")?.map(|Decimal(height)| Height(height));
        let tip = self.tip();
        let Some(height) = height.filter(|height| *height != tip.state.tip().height) else {
            return reply(called.room, &convert::head(&tip).ok_or_else(RpcError::no_block_yet)?);
        };
        self.spend(caller, cost::READ)?;
        let found = self.read(move |store, _| reads::head(store, height)).await?;
        let name = format_args!("block {height}");
        reply(called.room, &reads::kept(found, name, || RpcError::no_block(height))?)
    }

    async fn chain_block(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let height = called.optional("height")?.map(|Decimal(height)| height);
        let hash: Option<BlockHash> = called.optional("hash")?;
        let raw = called.optional("raw")?.unwrap_or(false);
        let tip = self.tip().state.tip().height;
        let height = match (height, hash) {
            (Some(_), Some(_)) => {
                return Err(called.invalid("both height and hash are given, expected one of them"));
            }
            (Some(0), None) => {
                return Err(RpcError::not_found(
                    "there is no block 0",
                    "the first block has height 1",
                ));
            }
            (None, None) if tip == Height(0) => return Err(RpcError::no_block_yet()),
            (height, None) => Some(height.map_or(tip, Height)),
            (None, Some(_)) => None,
        };
        self.spend(caller, cost::READ)?;
        let room = called.room;
        let (answer, bytes) = self
            .read(move |store, chain| {
                let asked =
                    hash.map_or_else(|| height.unwrap_or(tip).to_string(), |hash| hash.to_string());
                let (name, missing) = (format!("block {asked}"), || RpcError::no_block(&asked));
                let height = match (height, hash) {
                    (None, Some(hash)) => reads::kept(store.height_of(&hash)?, &name, missing)?,
                    (height, _) => height.unwrap_or(tip),
                };
                let found = reads::block(store, chain, height, raw)?;
                let block = reads::kept(found, &name, missing)?;
                // The answer is written here, so that at most [`READS_MAX`] blocks are in memory.
                Ok((reply(room, &block), block.summary.bytes))
            })
            .await?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.budgets.charge(caller.place.origin, cost::block(bytes) - cost::READ);
        answer
    }

    async fn tx_submit(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let HexBytes(bytes) = called.required("transaction")?;
        let transaction = convert::submitted(&bytes)?;
        let id = transaction.body.id(self.view.chain.id());
        self.spend(caller, cost::SIGNATURE)?;
        let refusal = match self.view.submit(transaction).await {
            Ok(id) => {
                // A new and valid transaction pays a fee to the validators, so its sender need not
                // pay this node.
                self.budgets.refund(caller.place.origin, cost::SIGNATURE);
                return reply(
                    called.room,
                    &Submitted { id: id.to_string(), status: TxStatus::Pending, height: None },
                );
            }
            // Nobody has verified the transaction, so nothing is known of it.
            Err(SubmitError::Unavailable) => return Err(RpcError::unavailable()),
            Err(refusal) => refusal,
        };
        if matches!(
            refusal,
            SubmitError::Refused(AdmitError::Rejected(TransactionError::Signature))
        ) {
            self.budgets.charge(caller.place.origin, cost::BAD_SIGNATURE);
        }
        // A client that lost the first answer submits again. It must learn that the transaction is
        // final, not that its nonce is used.
        self.budgets.charge(caller.place.origin, cost::READ);
        match self.read(move |store, _| Ok(store.find_transaction(&id)?)).await?.here() {
            Some((height, _)) => {
                let submitted = Submitted {
                    id: id.to_string(),
                    status: TxStatus::Final,
                    height: Some(height.0),
                };
                reply(called.room, &submitted)
            }
            None => Err(refusal.into()),
        }
    }

    async fn tx_get(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let id: TxId = called.required("id")?;
        let wait = Duration::from_millis(called.optional("wait_ms")?.unwrap_or(0)).min(WAIT_MAX);
        let raw = called.optional("raw")?.unwrap_or(false);
        let deadline = caller.deadline.min(Instant::now() + wait);
        self.spend(caller, cost::READ)?;
        let (mut tip, mut stopping) = (self.view.tip.clone(), self.stopping.clone());
        loop {
            // This comes before the read, so that a block that arrives during the read ends the
            // wait below at once.
            tip.mark_unchanged();
            let found =
                self.read(move |store, chain| reads::transaction(store, chain, &id, raw)).await?;
            let is_not_kept = matches!(found, Kept::NotKept);
            if let Kept::Here((found, block_bytes)) = found {
                self.budgets.charge(caller.place.origin, cost::block(block_bytes) - cost::READ);
                let times = self.view.journal.get(&id);
                let found =
                    TxInfo { accepted_at: times.accepted_at, final_at: times.final_at, ..found };
                return reply(called.room, &found);
            }
            if Instant::now() >= deadline {
                self.budgets.charge(caller.place.origin, cost::QUESTION);
                let pending = self.ask(|sender| Query::Pending(id, sender)).await?;
                let just_final = pending.is_none() && tip.has_changed().unwrap_or(false);
                if is_not_kept && pending.is_none() && !just_final {
                    return Err(RpcError::not_kept(reads::transaction_name(&id)));
                }
                if !just_final {
                    return reply(called.room, &self.not_final(id, pending.as_deref(), raw));
                }
            }
            let changed = async {
                tokio::select! {
                    changed = tip.changed() => changed.is_ok(),
                    _ = stopping.wait_for(|stopping| *stopping) => false,
                }
            };
            let _waiting = caller.place.wait();
            if !timeout_at(deadline, changed).await.unwrap_or(true) {
                return Err(RpcError::unavailable());
            }
            // The store is read again after each block.
            self.budgets.charge(caller.place.origin, cost::READ);
        }
    }

    fn not_final(&self, id: TxId, waiting: Option<&VerifiedTransaction>, raw: bool) -> TxInfo {
        let Times { accepted_at, .. } = self.view.journal.get(&id);
        TxInfo {
            id: id.to_string(),
            status: if waiting.is_some() { TxStatus::Pending } else { TxStatus::Unknown },
            height: None,
            block_hash: None,
            index: None,
            accepted_at,
            final_at: None,
            transaction: waiting
                .map(|waiting| convert::waiting_transaction(&self.view.chain, waiting)),
            raw: waiting
                .filter(|_| raw)
                .map(|waiting| hex::encode(codec::encode(waiting.transaction()))),
        }
    }

    async fn tx_proof(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let id: TxId = called.required("id")?;
        self.spend(caller, cost::READ)?;
        let found = self.read(move |store, chain| reads::proof(store, chain, &id)).await?;
        let hint = "tx_get tells whether it is waiting; only what is final can be proved";
        let missing = || RpcError::not_found(format!("transaction {id} is not final here"), hint);
        let (proof, block_bytes) = reads::kept(found, reads::transaction_name(&id), missing)?;
        // Building the proof hashes a leaf and a node for each transaction of the block.
        self.budgets.charge(caller.place.origin, 2 * cost::block(block_bytes));
        reply(called.room, &proof)
    }

    async fn tx_mempool(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let limit: u32 = called.optional("limit")?.unwrap_or(100);
        if limit > MEMPOOL_LIST_MAX {
            return Err(
                called.invalid(format!("limit is {limit}, expected at most {MEMPOOL_LIST_MAX}"))
            );
        }
        self.spend(caller, cost::mempool(self.view.activity.borrow().mempool_transactions))?;
        let waiting = self.ask(|sender| Query::Mempool(limit as usize, sender)).await?;
        let activity = *self.view.activity.borrow();
        let list = MempoolInfo {
            transactions: convert::count(activity.mempool_transactions),
            bytes: activity.mempool_bytes as u64,
            list: waiting
                .iter()
                .map(|waiting| convert::waiting_transaction(&self.view.chain, waiting))
                .collect(),
        };
        reply(called.room, &list)
    }

    async fn account_get(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let (key, tip) = (self.account(called)?, self.tip());
        self.spend(caller, cost::QUESTION)?;
        let pending = self.pending_nonce(key).await?;
        reply(called.room, &convert::account_info(&tip, &key, pending))
    }

    async fn account_proof(&self, called: &Called<'_>, caller: &Caller<'_>) -> Answer {
        let (key, tip) = (self.account(called)?, self.tip());
        let head = convert::head(&tip).ok_or_else(RpcError::no_block_yet)?;
        self.spend(caller, cost::QUESTION + cost::READ)?;
        let pending = self.pending_nonce(key).await?;
        let proof = tip.state.state().prove(&StateKey::account(key));
        let pending_nonce = pending.max(tip.state.account(&key).nonce).0;
        reply(
            called.room,
            &AccountProofInfo { head, proof: hex::encode(codec::encode(&proof)), pending_nonce },
        )
    }

    async fn net_peers(&self, caller: &Caller<'_>, room: usize) -> Answer {
        let peers = Arc::clone(&self.view.peers.borrow());
        // The driver lists the heights of all peers, and the account of each is looked up.
        self.spend(caller, cost::QUESTION + cost::entries(peers.len()))?;
        // If the driver is busy, the peers are shown without heights.
        let heights = self.view.ask(Query::PeerHeights).await.unwrap_or_default();
        let peer = |peer: &PeerInfo| {
            let height = heights.get(&peer.id.to_string()).copied();
            convert::peer(peer, height, self.view.accounts.report(&peer.id))
        };
        reply(room, &peers.iter().map(peer).collect::<Vec<_>>())
    }

    fn net_bans(&self, caller: &Caller<'_>, room: usize) -> Answer {
        let (bans, now_ms) = (Arc::clone(&self.view.bans.borrow()), wall_ms());
        self.spend(caller, cost::entries(bans.len()))?;
        // The list may still hold bans that have ended.
        let bans = bans.iter().filter(|ban| ban.until_ms > now_ms);
        reply(room, &bans.map(convert::ban).collect::<Vec<_>>())
    }

    /// The account that a caller names, by address or by public key.
    fn account(&self, called: &Called<'_>) -> Result<PublicKey, RpcError> {
        let account: String = called.required("account")?;
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
    async fn ask<T>(
        &self,
        query: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Query,
    ) -> Result<T, RpcError> {
        self.view.ask(query).await.ok_or_else(RpcError::unavailable)
    }
}

fn subscription(called: &Called<'_>, caller: &Caller<'_>) -> Answer {
    let of_caller =
        caller.subscriptions.ok_or_else(|| RpcError::websocket_only(called.method.name))?;
    if called.method.name == api::CHAIN_SUBSCRIBE {
        let number =
            of_caller.add().ok_or_else(|| RpcError::too_many_subscriptions(SUBSCRIPTIONS_MAX))?;
        return reply(called.room, &number);
    }
    reply(called.room, &of_caller.remove(called.required("subscription")?))
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}
