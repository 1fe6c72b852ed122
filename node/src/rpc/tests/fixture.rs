use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ledger::address::Coin;
use ledger::api::BlockSummary;
use ledger::block::Header;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, Committed, TransactionError};
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use ledger::signature::SigningKey;
use ledger::store::Store;
use ledger::transaction::{
    Body, Output, Transaction, Transfer, VerifiedTransaction, verify_transactions,
};
use ledger::units::{Amount, Height, Nonce, Round, Timestamp, VotingPower};
use prometheus_client::registry::Registry;
use protocol::Quorum;
use protocol::eras::{Era, EraRanges};
use protocol::live::mempool::AdmitError;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::accounts::Accounts;
use crate::network::{BanInfo, FaultPlan, PeerId, PeerInfo, Traffic};
use crate::rpc::{Bounds, RpcConfig, bind, serve};
use crate::space::Disk;
use crate::submission::Submission;
use crate::uploaded::Uploaded;
use crate::view::{
    Activity, ArchiveView, Claims, Journal, Query, SyncView, TipView, View, block_summary,
};

pub(super) const SOON: Duration = Duration::from_millis(200);
pub(super) const LATE: Duration = Duration::from_secs(20);
pub(super) const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A running server with a chain that the test drives, and a fake driver.
pub(super) struct Fixture {
    pub(super) chain: Arc<Chain>,
    pub(super) store: Store,
    pub(super) state: ChainState,
    pub(super) certificate: Certificate,
    pub(super) tip: watch::Sender<Arc<TipView>>,
    pub(super) activity: watch::Sender<Activity>,
    pub(super) quorum: watch::Sender<Quorum>,
    pub(super) sync: watch::Sender<Arc<SyncView>>,
    pub(super) peers: watch::Sender<Arc<Vec<PeerInfo>>>,
    pub(super) archive: watch::Sender<Arc<ArchiveView>>,
    pub(super) blocks: broadcast::Sender<BlockSummary>,
    pub(super) mempool: Arc<std::sync::Mutex<Vec<Arc<VerifiedTransaction>>>>,
    pub(super) queries: Option<mpsc::Receiver<Query>>,
    pub(super) submissions: Option<mpsc::Receiver<Submission>>,
    pub(super) journal: Arc<Journal>,
    pub(super) uploaded: Uploaded<PeerId>,
    pub(super) address: SocketAddr,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) server: JoinHandle<()>,
    _home: TempDir,
}

/// One ban that has ended and one that lasts.
fn bans() -> Vec<BanInfo> {
    let ban = |until_ms| BanInfo {
        peer: PEER.parse().unwrap(),
        offence: "wrong_chunk".to_owned(),
        until_ms,
    };
    vec![ban(1), ban(u64::MAX)]
}

/// A peer that is cut off.
fn faults() -> FaultPlan {
    FaultPlan { cut: [PEER.parse().unwrap()].into(), ..FaultPlan::default() }
}

fn genesis(validators: u8) -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        name: format!("validator {seed}"),
        key: key(100 + seed).public(),
        payout: key(200 + seed).public(),
        power: VotingPower(10),
    };
    let account = |seed: u8| GenesisAccount {
        name: format!("account {seed}"),
        account: key(seed).public(),
        balance: Amount(u64::MAX / 4),
    };
    Genesis {
        format: FORMAT,
        network: LOCAL_NETWORK.to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1_767_225_600_000),
        accounts: vec![account(1), account(2)],
        validators: (0..validators).map(validator).collect(),
        limits: Limits { segment_blocks: 16, ..Limits::default() },
    }
}

const DISK: Disk = Disk { used: 12_345_678, history: 1_000_000, free: Some(1 << 40) };

impl Fixture {
    /// A server with a driver that answers.
    pub(super) async fn start() -> Self {
        Self::start_with(Bounds::default()).await
    }

    /// As [`Self::start`], with other bounds.
    pub(super) async fn start_with(bounds: Bounds) -> Self {
        let mut fixture = Self::bounded(1, bounds).await;
        let mut queries = fixture.queries.take().unwrap();
        let mut submissions = fixture.submissions.take().unwrap();
        let (mempool, chain) = (Arc::clone(&fixture.mempool), fixture.chain.id());
        tokio::spawn(async move {
            while let Some(Submission { transaction, reply }) = submissions.recv().await {
                let id = transaction.body.id(chain);
                let verified = verify_transactions(chain, vec![transaction]).remove(0);
                if let Some(verified) = &verified {
                    mempool.lock().unwrap().push(Arc::clone(verified));
                }
                let refusal = AdmitError::Rejected(TransactionError::Signature).into();
                let _gone = reply.send(verified.map(|_| id).ok_or(refusal));
            }
        });
        let mempool = Arc::clone(&fixture.mempool);
        tokio::spawn(async move {
            while let Some(query) = queries.recv().await {
                let waiting = mempool.lock().unwrap().clone();
                match query {
                    Query::Pending(id, answer) => {
                        let _ = answer.send(waiting.into_iter().find(|waiting| waiting.id() == id));
                    }
                    Query::PendingNonce(_, answer) => drop(answer.send(Nonce(7))),
                    Query::Mempool(limit, answer) => {
                        drop(answer.send(waiting.into_iter().take(limit).collect()))
                    }
                    Query::PeerHeights(answer) => {
                        answer.send(BTreeMap::from([(PEER.to_owned(), Height(3))])).unwrap();
                    }
                }
            }
        });
        fixture
    }

    pub(super) async fn without_driver(validators: u8) -> Self {
        Self::bounded(validators, Bounds::default()).await
    }

    async fn bounded(validators: u8, bounds: Bounds) -> Self {
        let (genesis, home) = (genesis(validators), tempfile::tempdir().unwrap());
        let directory = home.path().join("store");
        Store::create(&directory, &genesis).unwrap();
        let chain = Chain::new(genesis);
        let opened = Store::open(&directory, &chain).unwrap();
        let (state, certificate) = (opened.state.clone(), opened.certificate.clone());
        let tip = TipView { state, certificate, header: None };
        let (tip, tip_reader) = watch::channel(Arc::new(tip));
        let (activity, activity_reader) = watch::channel(Activity::default());
        let (quorum, quorum_reader) =
            watch::channel(Quorum { ok: true, missing: Vec::new(), since_ms: None });
        let (sync, sync_reader) = watch::channel(Arc::new(SyncView::default()));
        let (peers, peers_reader) = watch::channel(Arc::new(Vec::new()));
        let (archive, archive_reader) = watch::channel(Arc::new(archive()));
        let (blocks, _) = broadcast::channel(4);
        let (query, queries) = mpsc::channel(64);
        let (submit, submissions) = mpsc::channel(64);
        let (journal, uploaded) = (Arc::new(Journal::default()), Uploaded::default());
        let view = View {
            chain: Arc::clone(&chain),
            store: opened.store.clone(),
            validator: Some(key(100).public()),
            tip: tip_reader,
            activity: activity_reader,
            quorum: quorum_reader,
            sync: sync_reader,
            peers: peers_reader,
            accounts: Accounts::default(),
            bans: watch::channel(Arc::new(bans())).1,
            faults: watch::channel(Arc::new(faults())).1,
            blocks: blocks.clone(),
            queries: query,
            submissions: submit,
            journal: Arc::clone(&journal),
            uploaded: uploaded.clone(),
            executed: watch::channel(Height(0)).1,
            archive: archive_reader,
            seeking: watch::channel(None).1,
            disk: watch::channel(DISK).1,
            started: Instant::now(),
        };
        let mut listener = bind(&config()).await.unwrap();
        listener.bounds = bounds;
        let address = listener.address();
        let mut registry = Registry::default();
        crate::metrics::register(&mut registry, view.clone(), vec![("store", directory.clone())]);
        let (stop, stopped) = oneshot::channel();
        let server = serve(listener, view, registry, async {
            let _ = stopped.await;
        });
        Self {
            chain,
            store: opened.store,
            state: opened.state,
            certificate: opened.certificate,
            tip,
            activity,
            quorum,
            sync,
            peers,
            archive,
            blocks,
            mempool: Arc::default(),
            queries: Some(queries),
            submissions: Some(submissions),
            journal,
            uploaded,
            address,
            stop: Some(stop),
            server,
            _home: home,
        }
    }

    /// A signed transfer of the first account.
    pub(super) fn transfer(&self, nonce: u64) -> Transaction {
        let body = Body::Transfer(Transfer {
            sender: key(1).public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: key(2).public(), amount: Amount(5) }],
            fee: Amount(10_000),
            expires_at: Timestamp(self.state.tip().time.0 + 60_000),
            memo: b"hello".to_vec(),
        });
        body.sign(self.chain.id(), &key(1))
    }

    /// Makes a block of these transactions final, as the driver would.
    pub(super) fn commit(&mut self, transactions: Vec<Transaction>) -> Header {
        let committed = self.finalize(transactions);
        let (header, hash) = (committed.block.header().clone(), committed.block.hash());
        let count = committed.block.block().transactions.len();
        let summary = block_summary(&header, hash, count, committed.block.bytes().len());
        self.store.commit(&[committed]).unwrap();
        self.show(&header);
        let _ = self.blocks.send(summary);
        header
    }

    /// Makes the store begin with the snapshot after blocks of these transactions. The last block
    /// must seal a segment.
    pub(super) fn begin_with_snapshot(&mut self, blocks: Vec<Vec<Transaction>>) -> Vec<Committed> {
        let blocks: Vec<_> = blocks.into_iter().map(|block| self.finalize(block)).collect();
        let sealed = blocks.iter().filter_map(|one| Some(one.sealed.as_ref()?.descriptor));
        let (sealed, last) = (sealed.collect::<Vec<_>>(), blocks[blocks.len() - 1].block.header());
        let (certificate, state) = (self.certificate.clone(), self.state.state().clone());
        self.store.adopt(last, certificate, &sealed, state).unwrap();
        self.show(last);
        blocks
    }

    fn show(&self, header: &Header) {
        self.tip.send_replace(Arc::new(TipView {
            state: self.state.clone(),
            certificate: self.certificate.clone(),
            header: Some(header.clone()),
        }));
    }

    /// The next final block, which is not stored.
    fn finalize(&mut self, transactions: Vec<Transaction>) -> Committed {
        let count = transactions.len();
        let verified =
            verify_transactions(self.chain.id(), transactions).into_iter().map(Option::unwrap);
        let now = Timestamp(self.state.tip().time.0 + 50);
        let block = self.state.propose(key(100).public(), now, self.certificate.clone(), verified);
        assert_eq!(block.block().transactions.len(), count);
        let (height, round) = (block.height(), Round(0));
        let vote = |seed: usize| {
            let validator = key(100 + u8::try_from(seed).unwrap());
            let vote = Vote {
                kind: VoteKind::Precommit,
                height,
                round,
                block: Some(block.hash()),
                validator: validator.public(),
            };
            (validator.public(), vote.message(self.chain.id()), validator)
        };
        let set = self.chain.validators(height);
        let votes = (0..set.as_slice().len())
            .map(vote)
            .map(|(public, message, key)| (public, key.sign(&message)));
        self.certificate = Certificate::new(height, round, block.hash(), set, votes);
        self.state.commit(block, self.certificate.clone())
    }

    /// Puts this many transactions into the mempool.
    pub(super) fn fill_mempool(&self, count: u64) {
        let transactions = (0..count).map(|nonce| self.transfer(nonce)).collect();
        self.mempool
            .lock()
            .unwrap()
            .extend(verify_transactions(self.chain.id(), transactions).into_iter().flatten());
    }

    pub(super) fn connect_peer(&self) {
        self.connect_peers([PEER.parse().unwrap()]);
    }

    pub(super) fn connect_peers(&self, ids: impl IntoIterator<Item = PeerId>) {
        let peer = |id| PeerInfo {
            id,
            address: "/ip4/127.0.0.1/tcp/7700".parse().unwrap(),
            inbound: true,
            agent: "cairn-node/0".to_owned(),
            ping: Some(Duration::from_micros(1_500)),
            connected_since: SystemTime::UNIX_EPOCH,
            traffic: Traffic::default(),
        };
        self.peers.send_replace(Arc::new(ids.into_iter().map(peer).collect()));
    }

    pub(super) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        let host = ("host", &*self.address.to_string());
        let default = (!headers.iter().any(|(name, _)| *name == "host")).then_some(host);
        for (name, value) in headers.iter().copied().chain(default) {
            request += &format!("{name}: {value}\r\n");
        }
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(format!("{request}\r\n{body}").as_bytes()).await;
        let mut response = Vec::new();
        let _ = timeout(LATE, stream.read_to_end(&mut response)).await.unwrap();
        let response = String::from_utf8(response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    pub(super) async fn post(&self, body: &str) -> (u16, Value) {
        let (status, _, body) =
            self.http("POST", "/", &[("content-type", "application/json")], body).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Result or error of a call.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let body =
            json!({"jsonrpc": "2.0", "id": "x", "method": method, "params": params}).to_string();
        let (status, mut answer) = self.post(&body).await;
        assert_eq!((status, &answer["id"], &answer["jsonrpc"]), (200, &json!("x"), &json!("2.0")));
        if answer.get("error").is_some() {
            Err(answer["error"].take())
        } else {
            Ok(answer["result"].take())
        }
    }

    pub(super) async fn refusal(&self, method: &str, params: Value) -> (i64, String) {
        let error = self.call(method, params).await.unwrap_err();
        assert!(
            !error["message"].as_str().unwrap().is_empty()
                && !error["data"]["hint"].as_str().unwrap().is_empty()
        );
        (error["code"].as_i64().unwrap(), error["data"]["reason"].as_str().unwrap().to_owned())
    }
}

/// Three peers, which announce era 0, a later one, and nothing.
fn archive() -> ArchiveView {
    let claims = [("first", vec![Era(0)]), ("later", vec![Era(5)]), ("nothing", Vec::new())];
    let claims = claims.map(|(id, eras)| Claims {
        peer: id.to_owned(),
        group: 0,
        eras: EraRanges::of(eras),
    });
    ArchiveView { claims: claims.into(), ..ArchiveView::default() }
}

fn config() -> RpcConfig {
    RpcConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        allowed_hosts: vec!["node.example".to_owned()],
        allowed_origins: vec!["https://wallet.example".to_owned()],
        connections_max: super::super::CONNECTIONS_MAX,
    }
}
