#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ledger::address::{Coin, encode_address};
use ledger::api::{self, BlockSummary};
use ledger::block::Header;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, TransactionError};
use ledger::codec;
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, LOCAL_NETWORK, Limits};
use ledger::hash::StateRoot;
use ledger::signature::SigningKey;
use ledger::state::{AccountProof, StateKey};
use ledger::store::Store;
use ledger::transaction::{Body, Output, Transaction, Transfer, VerifiedTransaction, verify_transactions};
use ledger::units::{Amount, Height, Nonce, Round, Timestamp, VotingPower};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::*;
use crate::network::PeerInfo;
use crate::view::{Activity, Journal, Query, SubmitError, SyncView, TipView};

const SOON: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_secs(20);
pub(super) const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A running server with a chain that the test drives, and a driver that answers as told.
pub(super) struct Fixture {
    chain: Arc<Chain>,
    store: Store,
    state: ChainState,
    certificate: Certificate,
    tip: watch::Sender<Arc<TipView>>,
    pub(super) activity: watch::Sender<Activity>,
    pub(super) sync: watch::Sender<Arc<SyncView>>,
    peers: watch::Sender<Arc<Vec<PeerInfo>>>,
    blocks: broadcast::Sender<BlockSummary>,
    mempool: Arc<std::sync::Mutex<Vec<Arc<VerifiedTransaction>>>>,
    queries: Option<mpsc::Receiver<Query>>,
    journal: Arc<Journal>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    _home: TempDir,
}

impl Fixture {
    /// With a driver that answers.
    pub(super) async fn start() -> Self {
        let mut fixture = Self::without_driver(1).await;
        let mut queries = fixture.queries.take().unwrap();
        let (mempool, chain) = (Arc::clone(&fixture.mempool), fixture.chain.id());
        tokio::spawn(async move {
            while let Some(query) = queries.recv().await {
                let waiting = mempool.lock().unwrap().clone();
                match query {
                    Query::Submit(transaction, answer) => {
                        let id = transaction.body.id(chain);
                        let verified = verify_transactions(chain, vec![*transaction]).remove(0);
                        if let Some(verified) = &verified {
                            mempool.lock().unwrap().push(Arc::clone(verified));
                        }
                        let refusal = SubmitError::Rejected(TransactionError::Signature);
                        answer.send(verified.map(|_| id).ok_or(refusal)).unwrap();
                    }
                    Query::Pending(id, answer) => {
                        let _ = answer.send(waiting.into_iter().find(|waiting| waiting.id() == id));
                    }
                    Query::PendingNonce(_, answer) => answer.send(Nonce(7)).unwrap(),
                    Query::Mempool(limit, answer) => answer.send(waiting.into_iter().take(limit).collect()).unwrap(),
                    Query::PeerHeights(answer) => {
                        answer.send(BTreeMap::from([(PEER.to_owned(), Height(3))])).unwrap();
                    }
                }
            }
        });
        fixture
    }

    pub(super) async fn without_driver(validators: u8) -> Self {
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
        let genesis = Genesis {
            format: FORMAT,
            network: LOCAL_NETWORK.to_owned(),
            address_prefix: "crn".to_owned(),
            coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
            start_time: Timestamp(1_767_225_600_000),
            accounts: vec![account(1), account(2)],
            validators: (0..validators).map(validator).collect(),
            limits: Limits::default(),
        };
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("store");
        Store::create(&directory, &genesis).unwrap();
        let chain = Chain::new(genesis);
        let opened = Store::open(&directory, &chain).unwrap();
        let tip = TipView { state: opened.state.clone(), certificate: opened.certificate.clone(), header: None };
        let (tip, tip_reader) = watch::channel(Arc::new(tip));
        let (activity, activity_reader) = watch::channel(Activity::default());
        let (sync, sync_reader) = watch::channel(Arc::new(SyncView::default()));
        let (peers, peers_reader) = watch::channel(Arc::new(Vec::new()));
        let (blocks, _) = broadcast::channel(4);
        let (query, queries) = mpsc::channel(64);
        let journal = Arc::new(Journal::default());
        let view = View {
            chain: Arc::clone(&chain),
            store: opened.store.clone(),
            validator: Some(key(100).public()),
            tip: tip_reader,
            activity: activity_reader,
            sync: sync_reader,
            peers: peers_reader,
            blocks: blocks.clone(),
            queries: query,
            journal: Arc::clone(&journal),
        };
        let config = RpcConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            allowed_hosts: vec!["node.example".to_owned()],
            allowed_origins: vec!["https://wallet.example".to_owned()],
        };
        let listener = bind(&config).await.unwrap();
        let address = listener.address();
        let mut registry = Registry::default();
        crate::metrics::register(&mut registry, view.clone());
        let (stop, stopped) = oneshot::channel();
        let server = serve(listener, view, Arc::new(registry), async {
            let _ = stopped.await;
        });
        Self {
            chain,
            store: opened.store,
            state: opened.state,
            certificate: opened.certificate,
            tip,
            activity,
            sync,
            peers,
            blocks,
            mempool: Arc::default(),
            queries: Some(queries),
            journal,
            address,
            stop: Some(stop),
            server,
            _home: home,
        }
    }

    /// A signed transfer of the first account.
    fn transfer(&self, nonce: u64) -> Transaction {
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

    /// Makes a block of these final, as the driver would.
    pub(super) fn commit(&mut self, transactions: Vec<Transaction>) -> Header {
        let count = transactions.len();
        let verified = verify_transactions(self.chain.id(), transactions).into_iter().map(Option::unwrap);
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
        let votes = (0..set.as_slice().len()).map(vote).map(|(public, message, key)| (public, key.sign(&message)));
        self.certificate = Certificate::new(height, round, block.hash(), set, votes);
        let header = block.header().clone();
        let summary = block_summary(&header, block.hash(), count, block.bytes().len());
        let committed = self.state.commit(block, self.certificate.clone());
        self.store.commit(&[committed]).unwrap();
        self.tip.send_replace(Arc::new(TipView {
            state: self.state.clone(),
            certificate: self.certificate.clone(),
            header: Some(header.clone()),
        }));
        let _ = self.blocks.send(summary);
        header
    }

    pub(super) fn connect_peer(&self) {
        self.peers.send_replace(Arc::new(vec![PeerInfo {
            id: PEER.parse().unwrap(),
            address: "/ip4/127.0.0.1/tcp/7700".parse().unwrap(),
            inbound: true,
            agent: "cairn-node/0".to_owned(),
            ping: Some(Duration::from_micros(1_500)),
            connected_since: SystemTime::UNIX_EPOCH,
        }]));
    }

    pub(super) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
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

    async fn post(&self, body: &str) -> (u16, Value) {
        let (status, _, body) = self.http("POST", "/", &[("content-type", "application/json")], body).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Result or error of a call.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let body = json!({"jsonrpc": "2.0", "id": "x", "method": method, "params": params}).to_string();
        let (status, mut answer) = self.post(&body).await;
        assert_eq!((status, &answer["id"], &answer["jsonrpc"]), (200, &json!("x"), &json!("2.0")));
        if answer.get("error").is_some() { Err(answer["error"].take()) } else { Ok(answer["result"].take()) }
    }

    async fn refusal(&self, method: &str, params: Value) -> (i64, String) {
        let error = self.call(method, params).await.unwrap_err();
        assert!(!error["message"].as_str().unwrap().is_empty() && !error["data"]["hint"].as_str().unwrap().is_empty());
        (error["code"].as_i64().unwrap(), error["data"]["reason"].as_str().unwrap().to_owned())
    }
}

/// A WebSocket connection, as far as the tests need one: short text frames.
struct Socket(TcpStream);

impl Socket {
    async fn connect(fixture: &Fixture) -> Self {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\n", fixture.address);
        let more =
            "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        stream.write_all((head + more).as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(stream.read_u8().await.unwrap());
        }
        assert!(response.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    async fn send(&mut self, text: &str) {
        let length = match u8::try_from(text.len()) {
            Ok(length) if length < 126 => vec![0x80 | length],
            _ => [&[0x80 | 126], &u16::try_from(text.len()).unwrap().to_be_bytes()[..]].concat(),
        };
        // A mask of zeros is a mask.
        let frame = [&[0x81], &length[..], &[0; 4], text.as_bytes()].concat();
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next text frame; nothing once the server has closed.
    async fn receive(&mut self) -> Option<Value> {
        loop {
            let kind = timeout(LATE, self.0.read_u8()).await.unwrap().ok()? & 0x0f;
            let length = match self.0.read_u8().await.unwrap() {
                126 => self.0.read_u16().await.unwrap().into(),
                127 => self.0.read_u64().await.unwrap(),
                length => length.into(),
            };
            let mut content = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut content).await.unwrap();
            match kind {
                1 => return Some(serde_json::from_slice(&content).unwrap()),
                8 => return None,
                _ => {}
            }
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()).await;
        self.receive().await.unwrap()["result"].take()
    }
}

#[tokio::test]
async fn every_method_answers() {
    let mut fixture = Fixture::start().await;
    let first = fixture.transfer(0);
    let id = first.body.id(fixture.chain.id()).to_string();
    let header = fixture.commit(vec![first]);
    let waiting = fixture.transfer(1);
    fixture.connect_peer();
    let address = encode_address("crn", &key(1).public());
    let hash = header.hash().to_string();
    let mut socket = Socket::connect(&fixture).await;

    for method in api::METHODS {
        let result = |params| fixture.call(method.name, params);
        match method.name {
            api::RPC_METHODS => {
                let methods = result(json!({})).await.unwrap();
                assert_eq!(methods.as_array().unwrap().len(), api::METHODS.len());
            }
            api::CHAIN_STATUS => {
                let status: api::Status = serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!((status.height, &status.block_hash, status.peers), (1, &hash, 1));
                assert_eq!(status.validator, Some(key(100).public().to_string()));
                assert_eq!(status.state_root, header.state_root.to_string());
            }
            api::CHAIN_GENESIS => {
                let text = result(json!({})).await.unwrap().to_string();
                assert_eq!(Genesis::from_json(text.as_bytes()).unwrap().chain_id(), fixture.chain.id());
            }
            api::CHAIN_HEAD => {
                let head: api::Head = serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                let read: Header = codec::decode(&hex::decode(head.header).unwrap(), 4_096).unwrap();
                let proof: Certificate = codec::decode(&hex::decode(head.certificate).unwrap(), 1 << 20).unwrap();
                assert_eq!(read, header);
                let set = fixture.chain.validators(Height(1));
                assert_eq!(proof.verify(fixture.chain.id(), set, Height(1), header.hash()), Ok(()));
            }
            api::CHAIN_BLOCK => {
                let tip = result(json!({})).await.unwrap();
                for params in
                    [json!({"height": "1"}), json!({"hash": hash}), json!(["1"]), json!([null, hash]), json!([])]
                {
                    assert_eq!(result(params).await.unwrap(), tip);
                }
                let block: api::BlockInfo = serde_json::from_value(tip).unwrap();
                assert_eq!((block.summary.hash, block.summary.transactions), (hash.clone(), 1));
                assert_eq!(block.signers, [key(100).public().to_string()]);
                assert_eq!(block.transaction_list[0].id, id);
                assert_eq!(block.transaction_list[0].memo, hex::encode("hello"));
                assert_eq!(block.summary.bytes, fixture.store.block_bytes(Height(1)).unwrap().unwrap().len() as u64);
            }
            api::CHAIN_VALIDATORS => {
                let list: Vec<api::ValidatorInfo> = serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!((list.len(), &*list[0].name, list[0].power), (1, "validator 0", 10));
            }
            api::CHAIN_SUBSCRIBE => assert_eq!(socket.call(method.name, json!([])).await, json!(1)),
            api::CHAIN_UNSUBSCRIBE => {
                assert_eq!(socket.call(method.name, json!([1])).await, json!(true));
                assert_eq!(socket.call(method.name, json!({"subscription": 1})).await, json!(false));
            }
            api::TX_SUBMIT => {
                let bytes = hex::encode(codec::encode(&waiting));
                let submitted = result(json!({"transaction": bytes})).await.unwrap();
                assert_eq!(submitted, json!({"id": waiting.body.id(fixture.chain.id()).to_string()}));
            }
            api::TX_GET => {
                let info: api::TxInfo = serde_json::from_value(result(json!({"id": id})).await.unwrap()).unwrap();
                let at = (info.status, info.height, info.index, info.block_hash.as_ref());
                assert_eq!(at, (api::TxStatus::Final, Some(1), Some(0), Some(&hash)));
                assert_eq!(info.transaction.unwrap().sender, address);
            }
            api::TX_MEMPOOL => {
                let pool: api::MempoolInfo = serde_json::from_value(result(json!([10])).await.unwrap()).unwrap();
                assert_eq!(pool.list[0].nonce, 1, "submitted above");
                assert_eq!(result(json!({"limit": 0})).await.unwrap()["list"], json!([]));
            }
            api::ACCOUNT_GET => {
                let account = result(json!({"account": address})).await.unwrap();
                assert_eq!(result(json!([key(1).public().to_string()])).await.unwrap(), account);
                let account: api::AccountInfo = serde_json::from_value(account).unwrap();
                assert_eq!((account.nonce, account.pending_nonce, account.height), (1, 7, 1));
                assert_eq!(account.balance, u64::MAX / 4 - 10_005);
            }
            api::ACCOUNT_PROOF => {
                let answer = result(json!({"account": address})).await.unwrap();
                let answer: api::AccountProofInfo = serde_json::from_value(answer).unwrap();
                let proof: AccountProof = codec::decode(&hex::decode(answer.proof).unwrap(), 1 << 20).unwrap();
                let root: StateRoot = header.state_root;
                let proved = proof.verify(&root, &StateKey::account(key(1).public())).unwrap();
                assert_eq!(proved.unwrap_or_default().nonce, Nonce(1));
            }
            api::SYNC_STATUS => {
                let sync: api::SyncStatus = serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!((sync.state, sync.applied_height, sync.target_height), (api::SyncState::Live, 1, 1));
            }
            api::NET_PEERS => {
                let peers: Vec<api::PeerInfo> = serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!((&*peers[0].id, peers[0].ping_us, peers[0].height), (PEER, Some(1_500), Some(3)));
            }
            other => panic!("{other} has no test"),
        }
    }
}

#[tokio::test]
async fn refusals_say_what_was_expected() {
    let fixture = Fixture::start().await;
    let mut foreign = fixture.transfer(0);
    foreign.signature.0[0] ^= 1;
    let foreign = hex::encode(codec::encode(&foreign));
    let long = "00".repeat(4_000);
    let zeros = "0".repeat(64);
    for (method, params, code, reason) in [
        (api::CHAIN_STATUS, json!({"x": 1}), -32_602, "invalid_params"),
        (api::CHAIN_STATUS, json!([1]), -32_602, "invalid_params"),
        (api::CHAIN_STATUS, json!(5), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!({"height": 1}), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!({"height": "-1"}), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!({"heigth": "1"}), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!({"hash": "abc"}), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!({"height": "1", "hash": zeros}), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!(["1", null, 3]), -32_602, "invalid_params"),
        (api::CHAIN_BLOCK, json!({"height": "0"}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_BLOCK, json!({"height": "18446744073709551615"}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_BLOCK, json!({"hash": zeros}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_BLOCK, json!({}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_HEAD, json!({}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_SUBSCRIBE, json!({}), -32_600, "websocket_only"),
        (api::TX_SUBMIT, json!({}), -32_602, "invalid_params"),
        (api::TX_SUBMIT, json!({"transaction": "0g"}), -32_602, "invalid_params"),
        (api::TX_SUBMIT, json!({"transaction": ""}), api::code::REJECTED, "malformed"),
        (api::TX_SUBMIT, json!({"transaction": long}), api::code::REJECTED, "malformed"),
        (api::TX_SUBMIT, json!({"transaction": foreign}), api::code::REJECTED, "signature"),
        (api::TX_GET, json!({"id": 5}), -32_602, "invalid_params"),
        (api::TX_GET, json!({"id": "zz"}), -32_602, "invalid_params"),
        (api::TX_GET, json!({"id": zeros, "wait_ms": -1}), -32_602, "invalid_params"),
        (api::TX_MEMPOOL, json!({"limit": 1_001}), -32_602, "invalid_params"),
        (api::ACCOUNT_GET, json!({"account": "crn1xyz"}), -32_602, "invalid_params"),
        (api::ACCOUNT_GET, json!({"account": encode_address("other", &key(1).public())}), -32_602, "invalid_params"),
        (api::ACCOUNT_GET, json!({"account": zeros}), -32_602, "invalid_params"),
        (api::ACCOUNT_PROOF, json!({"account": key(1).public().to_string()}), api::code::NOT_FOUND, "not_found"),
        ("chain_nothing", json!({}), -32_601, "unknown_method"),
        ("", json!({}), -32_601, "unknown_method"),
    ] {
        let name = format!("{method} {params}");
        assert_eq!(fixture.refusal(method, params).await, (i64::from(code), reason.to_owned()), "{name}");
    }
    let error = fixture.call(api::CHAIN_BLOCK, json!({"heigth": "1"})).await.unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("heigth"), "{error}");
    assert!(error["data"]["hint"].as_str().unwrap().contains("height?: text"), "{error}");
}

#[tokio::test]
async fn requests_that_are_no_calls() {
    let fixture = Fixture::start().await;
    let batch =
        |count: usize| format!("[{}]", vec![r#"{"jsonrpc":"2.0","id":1,"method":"chain_status"}"#; count].join(","));
    let deep = "[".repeat(100_000);
    for (body, code, reason) in [
        ("", -32_700, "parse_error"),
        ("{", -32_700, "parse_error"),
        ("nonsense", -32_700, "parse_error"),
        ("[1,", -32_700, "parse_error"),
        (&*deep, -32_700, "parse_error"),
        ("5", -32_600, "invalid_request"),
        ("{}", -32_600, "invalid_request"),
        ("[]", -32_600, "invalid_request"),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32_600, "invalid_request"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"chain_status"}"#, -32_600, "invalid_request"),
        (r#"{"jsonrpc":"2.0","id":{},"method":"chain_status"}"#, -32_600, "invalid_request"),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32_600, "invalid_request"),
        (&*batch(101), -32_600, "batch_too_large"),
    ] {
        let (status, answer) = fixture.post(body).await;
        let start = &body[..body.len().min(60)];
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(code)), "{start} {answer}");
        assert_eq!(answer["error"]["data"]["reason"], json!(reason), "{start}");
    }
    let (_, answer) = fixture.post(r#"{"jsonrpc":"2.0","id":"mine","method":7}"#).await;
    assert_eq!(answer["id"], json!("mine"), "a faulty call is answered by its id");
    assert_eq!(fixture.post(&batch(100)).await.1.as_array().unwrap().len(), 100);

    let mixed = r#"[{"jsonrpc":"2.0","id":1,"method":"rpc_methods"}, {"jsonrpc":"2.0","method":"rpc_methods"}, 7,
        {"jsonrpc":"2.0","id":null,"method":"nothing"}]"#;
    let (_, answers) = fixture.post(mixed).await;
    let codes: Vec<_> = answers.as_array().unwrap().iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, Some(-32_600), Some(-32_601)]);
    assert_eq!(fixture.post(r#"{"jsonrpc":"2.0","method":"rpc_methods"}"#).await.0, 204, "a notification");

    let (status, answer) = fixture.post(&" ".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!((status, &answer["error"]["data"]["reason"]), (413, &json!("body_too_large")));
    let (status, _, body) = fixture.http("POST", "/", &[("content-type", "text/plain")], &batch(1)).await;
    assert!(status == 415 && body.contains("application/json"), "{body}");
}

#[tokio::test]
async fn foreign_pages_and_names_are_refused() {
    let fixture = Fixture::start().await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"chain_status"}"#;
    let json = ("content-type", "application/json");
    for (headers, expected) in [
        (vec![json], 200),
        (vec![json, ("host", "localhost:1")], 200),
        (vec![json, ("host", "node.example")], 200),
        (vec![json, ("host", "evil.example")], 403),
        (vec![json, ("origin", "https://evil.example")], 403),
        (vec![json, ("origin", "null")], 403),
        (vec![json, ("origin", "https://wallet.example")], 200),
    ] {
        let (status, head, body) = fixture.http("POST", "/", &headers, call).await;
        assert_eq!(status, expected, "{headers:?} {body}");
        let readable = head.contains("access-control-allow-origin: https://wallet.example");
        assert_eq!(readable, headers.contains(&("origin", "https://wallet.example")), "{head}");
    }
    for path in ["/", "/metrics", "/health", "/ready", "/nothing"] {
        assert_eq!(fixture.http("GET", path, &[("host", "evil.example")], "").await.0, 403, "{path}");
    }
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let key = ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    let headers = [&upgrade[..], &[key, ("origin", "https://evil.example")]].concat();
    assert_eq!(fixture.http("GET", "/", &headers, "").await.0, 403);
    let (status, head, _) = fixture.http("OPTIONS", "/", &[("origin", "https://wallet.example")], "").await;
    assert!(status == 204 && head.contains("access-control-allow-headers: content-type"), "{head}");
}

#[tokio::test]
async fn pages_for_operators() {
    let mut fixture = Fixture::start().await;
    fixture.commit(vec![]);
    fixture.activity.send_modify(|activity| activity.extra_rounds = 5);
    let (status, _, metrics) = fixture.http("GET", "/metrics", &[], "").await;
    assert_eq!(status, 200);
    for line in [
        "cairn_height 1",
        "cairn_peers 0",
        "cairn_syncing 0",
        "cairn_mempool_bytes 0",
        "cairn_extra_rounds_total 5",
        "cairn_block_time_seconds 1767225600.05",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("cairn_node_info{") && metrics.contains(&fixture.chain.id().to_string()));
    assert_eq!(fixture.http("GET", "/health", &[], "").await.0, 200);
    assert_eq!(fixture.http("GET", "/nothing", &[], "").await.0, 404);
    let (status, _, body) = fixture.http("GET", "/", &[], "").await;
    assert!(status == 200 && body.contains("JSON-RPC") && body.contains("rpc_methods"), "{body}");
}

#[tokio::test]
async fn ready_when_answers_can_be_trusted() {
    for (validators, peer, syncing, ready) in [
        (1, false, false, true),
        (4, false, false, false),
        (4, true, false, true),
        (4, true, true, false),
        (1, false, true, false),
    ] {
        let fixture = Fixture::without_driver(validators).await;
        fixture.activity.send_modify(|activity| activity.syncing = syncing);
        if peer {
            fixture.connect_peer();
        }
        let (status, _, body) = fixture.http("GET", "/ready", &[], "").await;
        assert_eq!(status, if ready { 200 } else { 503 }, "{validators} {peer} {syncing} {body}");
        assert_eq!(body.contains("reason"), !ready, "{body}");
    }
}

#[tokio::test]
async fn a_long_poll_ends_with_the_block_or_the_time() {
    let mut fixture = Fixture::start().await;
    let transaction = fixture.transfer(0);
    let id = transaction.body.id(fixture.chain.id());
    let get = |wait_ms: u64| json!({"id": id.to_string(), "wait_ms": wait_ms});

    assert_eq!(fixture.call(api::TX_GET, get(1)).await.unwrap()["status"], json!("unknown"));
    let bytes = hex::encode(codec::encode(&transaction));
    fixture.call(api::TX_SUBMIT, json!([bytes])).await.unwrap();
    fixture.journal.accepted(id, 17);
    let pending = fixture.call(api::TX_GET, get(1)).await.unwrap();
    assert_eq!((&pending["status"], &pending["accepted_at"]), (&json!("pending"), &json!("17")));
    assert_eq!(pending["transaction"]["fee"], json!("10000"));

    let mut socket = Socket::connect(&fixture).await;
    // An unknown number of milliseconds is cut to the longest wait.
    socket.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tx_get","params":["{id}",90000]}}"#)).await;
    fixture.commit(vec![]);
    assert!(timeout(SOON, socket.receive()).await.is_err(), "another block does not end the wait");
    fixture.journal.finalized(id, 18);
    fixture.commit(vec![transaction]);
    let found = socket.receive().await.unwrap()["result"].take();
    assert_eq!((&found["status"], &found["height"], &found["index"]), (&json!("final"), &json!("2"), &json!(0)));
    assert_eq!((&found["accepted_at"], &found["final_at"]), (&json!("17"), &json!("18")));
}

#[tokio::test]
async fn a_driver_that_does_not_answer_is_no_reason_to_hang() {
    let mut fixture = Fixture::without_driver(1).await;
    drop(fixture.queries.take());
    let account = json!([key(1).public().to_string()]);
    assert_eq!(fixture.refusal(api::ACCOUNT_GET, account).await, (api::code::UNAVAILABLE.into(), "busy".to_owned()));
    fixture.connect_peer();
    assert_eq!(fixture.call(api::NET_PEERS, json!({})).await.unwrap()[0]["height"], Value::Null);
}

#[tokio::test]
async fn subscribers_get_each_block_until_they_end_it() {
    let mut fixture = Fixture::start().await;
    let mut socket = Socket::connect(&fixture).await;
    let first = socket.call(api::CHAIN_SUBSCRIBE, json!({})).await;
    let second = socket.call(api::CHAIN_SUBSCRIBE, json!({})).await;
    assert_ne!(first, second);
    let header = fixture.commit(vec![]);
    for number in [&first, &second] {
        let pushed = socket.receive().await.unwrap();
        assert_eq!((&pushed["method"], &pushed["params"]["subscription"]), (&json!(api::CHAIN_SUBSCRIBE), number));
        let block: BlockSummary = serde_json::from_value(pushed["params"]["result"].clone()).unwrap();
        assert_eq!((block.height, block.hash), (1, header.hash().to_string()));
    }
    assert_eq!(socket.call(api::CHAIN_UNSUBSCRIBE, json!([first])).await, json!(true));
    fixture.commit(vec![]);
    let pushed = socket.receive().await.unwrap();
    assert_eq!((&pushed["params"]["subscription"], &pushed["params"]["result"]["height"]), (&second, &json!("2")));
    for _ in 0..7 {
        socket.call(api::CHAIN_SUBSCRIBE, json!({})).await;
    }
    socket.send(r#"{"jsonrpc":"2.0","id":1,"method":"chain_subscribeBlocks"}"#).await;
    assert_eq!(socket.receive().await.unwrap()["error"]["data"]["reason"], json!("too_many_subscriptions"));
}

#[tokio::test]
async fn a_subscriber_that_missed_blocks_is_told() {
    let mut fixture = Fixture::start().await;
    let mut socket = Socket::connect(&fixture).await;
    let number = socket.call(api::CHAIN_SUBSCRIBE, json!({})).await;
    let header = fixture.commit(vec![]);
    assert_eq!(socket.receive().await.unwrap()["params"]["result"]["height"], json!("1"));
    // More than the channel holds, before the connection's task has a turn.
    for _ in 0..9 {
        fixture.blocks.send(block_summary(&header, header.hash(), 0, 0)).unwrap();
    }
    let told = socket.receive().await.unwrap()["params"].take();
    assert_eq!((&told["subscription"], &told["error"]["data"]["reason"]), (&number, &json!("lagged")));
    assert_eq!(socket.call(api::CHAIN_UNSUBSCRIBE, json!([number])).await, json!(false), "it has ended");
}

/// A client that sends calls without end and reads no answer must not make them pile up in memory.
#[tokio::test]
async fn few_calls_of_a_connection_are_under_way() {
    let mut fixture = Fixture::without_driver(1).await;
    let mut queries = fixture.queries.take().unwrap();
    let mut socket = Socket::connect(&fixture).await;
    let account = key(1).public();
    for _ in 0..50 {
        socket.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"account_get","params":["{account}"]}}"#)).await;
    }
    let mut held = Vec::new();
    while let Ok(Some(query)) = timeout(SOON, queries.recv()).await {
        held.push(query);
    }
    assert_eq!(held.len(), 4);
    held.clear();
    assert_eq!(socket.receive().await.unwrap()["error"]["data"]["reason"], json!("busy"));
    assert!(matches!(timeout(LATE, queries.recv()).await, Ok(Some(_))), "an answer makes room for the next call");
}

#[tokio::test]
async fn stopping_tells_those_who_wait() {
    let mut fixture = Fixture::start().await;
    let [mut waiting, mut idle] = [Socket::connect(&fixture).await, Socket::connect(&fixture).await];
    let unknown = "0".repeat(64);
    waiting.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tx_get","params":["{unknown}",30000]}}"#)).await;
    let id = json!({"id": unknown, "wait_ms": 30_000});
    let stop = fixture.stop.take().unwrap();
    let (answer, ()) = tokio::join!(fixture.refusal(api::TX_GET, id), async {
        tokio::time::sleep(SOON).await;
        stop.send(()).unwrap();
    });
    assert_eq!(answer.1, "busy");
    assert!(idle.receive().await.is_none());
    // Either the answer or the close comes first.
    while waiting.receive().await.is_some() {}
    timeout(STOP_MAX * 2, fixture.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(fixture.address).await.is_err());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let config = |listen| RpcConfig { listen, allowed_hosts: Vec::new(), allowed_origins: Vec::new() };
    let first = bind(&config("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let Err(error) = bind(&config(first.address())).await else { panic!("two have one port") };
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
    assert!(error.to_string().contains("another node"), "{error}");
}
