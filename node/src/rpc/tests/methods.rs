use ledger::address::encode_address;
use ledger::api;
use ledger::block::Header;
use ledger::certificate::Certificate;
use ledger::chain::TransactionError;
use ledger::codec;
use ledger::genesis::Genesis;
use ledger::hash::StateRoot;
use ledger::merkle::MerkleProof;
use ledger::state::{AccountProof, StateKey};
use ledger::transaction::{Body, Transaction, transaction_hash};
use ledger::units::{Height, Nonce};
use protocol::live::mempool::AdmitError;
use serde_json::{Value, json};

use super::client::Socket;
use super::fixture::{Fixture, PEER, key};

/// A chain of one block with one transfer, and another transfer that is not submitted yet.
struct Asked {
    fixture: Fixture,
    socket: Socket,
    header: Header,
    /// The transfer in the block.
    id: String,
    /// The address that pays both transfers.
    address: String,
    waiting: Transaction,
}

impl Asked {
    async fn start() -> Self {
        let mut fixture = Fixture::start().await;
        let first = fixture.transfer(0);
        let id = first.body.id(fixture.chain.id()).to_string();
        let header = fixture.commit(vec![first]);
        let waiting = fixture.transfer(1);
        fixture.connect_peer();
        let address = encode_address("crn", &key(1).public());
        let socket = Socket::connect(&fixture).await;
        Self { fixture, socket, header, id, address, waiting }
    }

    /// Calls the methods about the chain and its blocks.
    async fn chain(&mut self, method: &str) {
        let Self { fixture, socket, header, id, .. } = self;
        let result = |params| fixture.call(method, params);
        let hash = header.hash().to_string();
        match method {
            api::CHAIN_STATUS => {
                let status: api::Status =
                    serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!((status.height, &status.block_hash, status.peers), (1, &hash, 1));
                assert_eq!(status.validator, Some(key(100).public().to_string()));
                assert_eq!(status.state_root, header.state_root.to_string());
                assert_eq!(status.faults.unwrap().cut, [PEER]);
            }
            api::CHAIN_GENESIS => {
                let text = result(json!({})).await.unwrap().to_string();
                assert_eq!(
                    Genesis::from_json(text.as_bytes()).unwrap().chain_id(),
                    fixture.chain.id()
                );
            }
            api::CHAIN_HEAD => {
                let head: api::Head =
                    serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                let read: Header =
                    codec::decode(&hex::decode(head.header).unwrap(), 4_096).unwrap();
                let proof: Certificate =
                    codec::decode(&hex::decode(head.certificate).unwrap(), 1 << 20).unwrap();
                assert_eq!(read, *header);
                let set = fixture.chain.validators(Height(1));
                assert_eq!(proof.verify(fixture.chain.id(), set, Height(1), header.hash()), Ok(()));
            }
            api::CHAIN_BLOCK => {
                let tip = result(json!({})).await.unwrap();
                for params in [
                    json!({"height": "1"}),
                    json!({"hash": hash}),
                    json!(["1"]),
                    json!([null, hash]),
                    json!([]),
                ] {
                    assert_eq!(result(params).await.unwrap(), tip);
                }
                let block: api::BlockInfo = serde_json::from_value(tip).unwrap();
                assert_eq!((block.summary.hash, block.summary.transactions), (hash.clone(), 1));
                assert_eq!(block.signers, [key(100).public().to_string()]);
                assert_eq!(block.transaction_list[0].id, *id);
                assert_eq!(block.transaction_list[0].memo, hex::encode("hello"));
                assert_eq!(block.transaction_list[0].anchor, None);
                assert_eq!(
                    block.summary.bytes,
                    fixture.store.block_bytes(Height(1)).unwrap().here().unwrap().len() as u64
                );
            }
            api::CHAIN_VALIDATORS => {
                let list: Vec<api::ValidatorInfo> =
                    serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!((list.len(), &*list[0].name, list[0].power), (1, "validator 0", 10));
            }
            api::CHAIN_SUBSCRIBE => assert_eq!(socket.call(method, json!([])).await, json!(1)),
            api::CHAIN_UNSUBSCRIBE => {
                assert_eq!(socket.call(method, json!([1])).await, json!(true));
                assert_eq!(socket.call(method, json!({"subscription": 1})).await, json!(false));
            }
            other => panic!("{other} has no test"),
        }
    }

    /// Calls the methods about transactions, waiting and final.
    async fn transactions(&self, method: &str) {
        let result = |params| self.fixture.call(method, params);
        let Self { fixture, id, waiting, address, .. } = self;
        let hash = self.header.hash().to_string();
        match method {
            api::TX_SUBMIT => {
                let bytes = hex::encode(codec::encode(waiting));
                let submitted = result(json!({"transaction": bytes})).await.unwrap();
                let id = waiting.body.id(fixture.chain.id()).to_string();
                assert_eq!(submitted, json!({"id": id, "status": "pending", "height": null}));
            }
            api::TX_GET => {
                let info: api::TxInfo =
                    serde_json::from_value(result(json!({"id": id})).await.unwrap()).unwrap();
                let at = (info.status, info.height, info.index, info.block_hash.as_ref());
                assert_eq!(at, (api::TxStatus::Final, Some(1), Some(0), Some(&hash)));
                assert_eq!(info.transaction.unwrap().sender, *address);
            }
            api::TX_PROOF => {
                let proof: api::TxProofInfo =
                    serde_json::from_value(result(json!([id])).await.unwrap()).unwrap();
                assert_eq!((&proof.id, proof.height), (id, 1));
            }
            api::TX_MEMPOOL => {
                let pool: api::MempoolInfo =
                    serde_json::from_value(result(json!([10])).await.unwrap()).unwrap();
                assert_eq!(pool.list[0].nonce, 1, "submitted above");
                assert_eq!(result(json!({"limit": 0})).await.unwrap()["list"], json!([]));
            }
            other => panic!("{other} has no test"),
        }
    }

    /// Calls the methods about accounts and their proofs.
    async fn accounts(&self, method: &str) {
        let result = |params| self.fixture.call(method, params);
        let Self { header, address, .. } = self;
        match method {
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
                let proof: AccountProof =
                    codec::decode(&hex::decode(answer.proof).unwrap(), 1 << 20).unwrap();
                let root: StateRoot = header.state_root;
                let proved = proof.verify(&root, &StateKey::account(key(1).public())).unwrap();
                assert_eq!(proved.unwrap_or_default().nonce, Nonce(1));
            }
            other => panic!("{other} has no test"),
        }
    }

    /// Calls the methods about the node itself.
    async fn others(&self, method: &str) {
        let result = |params| self.fixture.call(method, params);
        match method {
            api::RPC_METHODS => {
                let methods = result(json!({})).await.unwrap();
                assert_eq!(methods.as_array().unwrap().len(), api::METHODS.len());
            }
            api::SYNC_STATUS => {
                let sync: api::SyncStatus =
                    serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!(
                    (sync.state, sync.applied_height, sync.target_height),
                    (api::SyncState::Live, 1, 1)
                );
            }
            api::NET_PEERS => {
                let peers: Vec<api::PeerInfo> =
                    serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                assert_eq!(
                    (&*peers[0].id, peers[0].ping_us, peers[0].height),
                    (PEER, Some(1_500), Some(3))
                );
                assert_eq!((peers[0].sent_bytes, peers[0].received_bytes), (0, 0));
                assert_eq!(
                    peers[0].cost,
                    api::PeerCost { left: 500_000, ..api::PeerCost::default() }
                );
            }
            api::NET_BANS => {
                let bans: Vec<api::BanInfo> =
                    serde_json::from_value(result(json!({})).await.unwrap()).unwrap();
                let [ban] = &bans[..] else { panic!("{bans:?}") };
                assert_eq!(
                    (&*ban.peer, &*ban.offence, ban.until_ms),
                    (PEER, "wrong_chunk", u64::MAX)
                );
            }
            other => panic!("{other} has no test"),
        }
    }
}

#[tokio::test]
async fn every_method_answers() {
    let mut asked = Asked::start().await;
    for api::Method { name, .. } in api::METHODS {
        match name.split('_').next() {
            Some("chain") => asked.chain(name).await,
            Some("tx") => asked.transactions(name).await,
            Some("account") => asked.accounts(name).await,
            _ => asked.others(name).await,
        }
    }
}

/// A client with only the genesis can verify every proof and recompute all roots in headers.
#[tokio::test]
async fn final_blocks_and_transactions_can_be_proved() {
    let mut fixture = Fixture::start().await;
    let transactions: Vec<_> = (0..5).map(|nonce| fixture.transfer(nonce)).collect();
    let header = fixture.commit(transactions.clone());
    fixture.commit(vec![]);

    let head: api::Head = serde_json::from_value(
        fixture.call(api::CHAIN_HEAD, json!({"height": "1"})).await.unwrap(),
    )
    .unwrap();
    assert_eq!(head.header, hex::encode(codec::encode(&header)));
    let tip = fixture.call(api::CHAIN_HEAD, json!({})).await.unwrap();
    assert_eq!(fixture.call(api::CHAIN_HEAD, json!(["2"])).await.unwrap(), tip);
    for params in [
        json!({"height": "1", "raw": true}),
        json!({"hash": header.hash().to_string(), "raw": true}),
    ] {
        let block = fixture.call(api::CHAIN_BLOCK, params).await.unwrap();
        let bytes = hex::decode(block["raw"].as_str().unwrap()).unwrap();
        assert_eq!(bytes, fixture.store.block_bytes(Height(1)).unwrap().here().unwrap());
    }
    let plain = fixture.call(api::CHAIN_BLOCK, json!({"height": "1", "raw": false})).await.unwrap();
    assert_eq!(plain.get("raw"), None);

    for transaction in &transactions {
        let id = transaction.body.id(fixture.chain.id()).to_string();
        let raw = hex::encode(codec::encode(transaction));
        assert_eq!(
            fixture.call(api::TX_GET, json!([id, 0, true])).await.unwrap()["raw"],
            json!(raw)
        );
        let proof: api::TxProofInfo =
            serde_json::from_value(fixture.call(api::TX_PROOF, json!({"id": id})).await.unwrap())
                .unwrap();
        assert_eq!(
            (&proof.raw, &proof.header, &proof.certificate),
            (&raw, &head.header, &head.certificate)
        );
        let inclusion: MerkleProof =
            codec::decode(&hex::decode(proof.inclusion).unwrap(), 4_096).unwrap();
        let leaf = transaction_hash(fixture.chain.id(), transaction);
        assert_eq!(inclusion.verify(header.transactions_root, leaf.0), Ok(()));
    }
    let waiting = fixture.transfer(5);
    fixture.call(api::TX_SUBMIT, json!([hex::encode(codec::encode(&waiting))])).await.unwrap();
    let id = waiting.body.id(fixture.chain.id()).to_string();
    let pending = fixture.call(api::TX_GET, json!({"id": id, "raw": true})).await.unwrap();
    assert_eq!(pending["raw"], json!(hex::encode(codec::encode(&waiting))));
    assert_eq!(fixture.refusal(api::TX_PROOF, json!([id])).await.1, "not_found", "it is not final");
}

/// A client that lost the first answer submits again. The answer must be that its transaction is
/// final, not that the nonce is used. Otherwise the client would believe that another transaction
/// used the nonce, and would pay a second time with the next one.
#[tokio::test]
async fn a_final_transaction_that_is_submitted_again_is_final() {
    let mut fixture = Fixture::without_driver(1).await;
    let mut submissions = fixture.submissions.take().unwrap();
    let transaction = fixture.transfer(0);
    let other = fixture.transfer(0);
    let id = transaction.body.id(fixture.chain.id()).to_string();
    fixture.commit(vec![transaction.clone()]);
    let answers = tokio::spawn(async move {
        while let Some(submission) = submissions.recv().await {
            let (got, next) = (submission.transaction.body.transfer().nonce, Nonce(1));
            let error = match submission.transaction.signature.0[0] {
                0 => TransactionError::Signature,
                _ => TransactionError::NonceUsed { got, next },
            };
            submission.reply.send(Err(AdmitError::Rejected(error).into())).unwrap();
        }
    });
    let mut forged = transaction.clone();
    forged.signature.0[0] = 0;
    for again in [&transaction, &forged] {
        let answer =
            fixture.call(api::TX_SUBMIT, json!([hex::encode(codec::encode(again))])).await.unwrap();
        assert_eq!(answer, json!({"id": id, "status": "final", "height": "1"}));
    }
    let mut other = other;
    match &mut other.body {
        Body::Transfer(transfer) => transfer.memo = b"another".to_vec(),
    }
    let refusal =
        fixture.refusal(api::TX_SUBMIT, json!([hex::encode(codec::encode(&other))])).await;
    assert!(["nonce_used", "signature"].contains(&&*refusal.1), "{refusal:?}");
    answers.abort();
}

/// A transfer with this memo.
fn with_memo(fixture: &Fixture, memo: &str) -> Transaction {
    let Body::Transfer(mut transfer) = fixture.transfer(0).body;
    transfer.memo = memo.as_bytes().to_vec();
    Body::Transfer(transfer).sign(fixture.chain.id(), &key(1))
}

#[tokio::test]
async fn a_memo_that_is_a_link_is_shown_as_one_and_one_with_a_key_is_refused() {
    let mut fixture = Fixture::start().await;
    let link = format!("cairn:{}", "0a".repeat(32));
    let private = with_memo(&fixture, &format!("{link}#{}", "0b".repeat(32)));
    let raw = hex::encode(codec::encode(&private));
    let refusal = fixture.refusal(api::TX_SUBMIT, json!([raw])).await;
    assert_eq!((refusal.0, &*refusal.1), (-32_000, "key_in_memo"));
    // By the rules of the chain the transaction is valid.
    let anchor = with_memo(&fixture, &link);
    fixture.commit(vec![anchor]);
    let block = fixture.call(api::CHAIN_BLOCK, json!({"height": "1"})).await.unwrap();
    let block: api::BlockInfo = serde_json::from_value(block).unwrap();
    assert_eq!(block.transaction_list[0].memo, hex::encode(&link));
    assert_eq!(block.transaction_list[0].anchor, Some(link));
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
        (
            api::CHAIN_BLOCK,
            json!({"height": "18446744073709551615"}),
            api::code::NOT_FOUND,
            "not_found",
        ),
        (api::CHAIN_BLOCK, json!({"hash": zeros}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_BLOCK, json!({}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_HEAD, json!({"height": "7"}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_HEAD, json!({"height": "0"}), api::code::NOT_FOUND, "not_found"),
        (api::CHAIN_BLOCK, json!({"raw": "yes"}), -32_602, "invalid_params"),
        (api::TX_PROOF, json!({"id": zeros}), api::code::NOT_FOUND, "not_found"),
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
        (
            api::ACCOUNT_GET,
            json!({"account": encode_address("other", &key(1).public())}),
            -32_602,
            "invalid_params",
        ),
        (api::ACCOUNT_GET, json!({"account": zeros}), -32_602, "invalid_params"),
        (
            api::ACCOUNT_PROOF,
            json!({"account": key(1).public().to_string()}),
            api::code::NOT_FOUND,
            "not_found",
        ),
        ("chain_nothing", json!({}), -32_601, "unknown_method"),
        ("", json!({}), -32_601, "unknown_method"),
    ] {
        let name = format!("{method} {params}");
        assert_eq!(
            fixture.refusal(method, params).await,
            (i64::from(code), reason.to_owned()),
            "{name}"
        );
    }
    let error = fixture.call(api::CHAIN_BLOCK, json!({"heigth": "1"})).await.unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("heigth"), "{error}");
    assert!(error["data"]["hint"].as_str().unwrap().contains("height?: text"), "{error}");
}

#[tokio::test]
async fn a_driver_that_does_not_answer_is_no_reason_to_hang() {
    let mut fixture = Fixture::without_driver(1).await;
    drop(fixture.queries.take());
    let account = json!([key(1).public().to_string()]);
    assert_eq!(
        fixture.refusal(api::ACCOUNT_GET, account).await,
        (api::code::UNAVAILABLE.into(), "busy".to_owned())
    );
    fixture.connect_peer();
    assert_eq!(fixture.call(api::NET_PEERS, json!({})).await.unwrap()[0]["height"], Value::Null);
}
