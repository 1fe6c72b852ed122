use ledger::api::{self, BlockSummary};
use ledger::codec;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::Socket;
use super::fixture::{Fixture, LATE, SOON, key};
use crate::rpc::STOP_MAX;
use crate::view::block_summary;

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
    // The node shortens a wait that is longer than it allows.
    socket
        .send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tx_get","params":["{id}",90000]}}"#))
        .await;
    fixture.commit(vec![]);
    assert!(timeout(SOON, socket.receive()).await.is_err(), "another block does not end the wait");
    fixture.journal.finalized(id, 18);
    fixture.commit(vec![transaction]);
    let found = socket.receive().await.unwrap()["result"].take();
    assert_eq!(
        (&found["status"], &found["height"], &found["index"]),
        (&json!("final"), &json!("2"), &json!(0))
    );
    assert_eq!((&found["accepted_at"], &found["final_at"]), (&json!("17"), &json!("18")));
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
        assert_eq!(
            (&pushed["method"], &pushed["params"]["subscription"]),
            (&json!(api::CHAIN_SUBSCRIBE), number)
        );
        let block: BlockSummary =
            serde_json::from_value(pushed["params"]["result"].clone()).unwrap();
        assert_eq!((block.height, block.hash), (1, header.hash().to_string()));
    }
    assert_eq!(socket.call(api::CHAIN_UNSUBSCRIBE, json!([first])).await, json!(true));
    fixture.commit(vec![]);
    let pushed = socket.receive().await.unwrap();
    assert_eq!(
        (&pushed["params"]["subscription"], &pushed["params"]["result"]["height"]),
        (&second, &json!("2"))
    );
    for _ in 0..7 {
        socket.call(api::CHAIN_SUBSCRIBE, json!({})).await;
    }
    socket.send(r#"{"jsonrpc":"2.0","id":1,"method":"chain_subscribeBlocks"}"#).await;
    assert_eq!(
        socket.receive().await.unwrap()["error"]["data"]["reason"],
        json!("too_many_subscriptions")
    );
}

#[tokio::test]
async fn a_subscriber_that_missed_blocks_is_told() {
    let mut fixture = Fixture::start().await;
    let mut socket = Socket::connect(&fixture).await;
    let number = socket.call(api::CHAIN_SUBSCRIBE, json!({})).await;
    let header = fixture.commit(vec![]);
    assert_eq!(socket.receive().await.unwrap()["params"]["result"]["height"], json!("1"));
    // More blocks than the channel holds, before the connection's task runs.
    for _ in 0..9 {
        fixture.blocks.send(block_summary(&header, header.hash(), 0, 0)).unwrap();
    }
    let told = socket.receive().await.unwrap()["params"].take();
    assert_eq!(
        (&told["subscription"], &told["error"]["data"]["reason"]),
        (&number, &json!("lagged"))
    );
    assert_eq!(
        socket.call(api::CHAIN_UNSUBSCRIBE, json!([number])).await,
        json!(false),
        "it has ended"
    );
}

/// The calls of a client that sends without end and reads no answer must not pile up in memory.
#[tokio::test]
async fn few_calls_of_a_connection_are_under_way() {
    let mut fixture = Fixture::without_driver(1).await;
    let mut queries = fixture.queries.take().unwrap();
    let mut socket = Socket::connect(&fixture).await;
    let account = key(1).public();
    for _ in 0..50 {
        socket
            .send(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"account_get","params":["{account}"]}}"#
            ))
            .await;
    }
    let mut held = Vec::new();
    while let Ok(Some(query)) = timeout(SOON, queries.recv()).await {
        held.push(query);
    }
    assert_eq!(held.len(), 4);
    held.clear();
    assert_eq!(socket.receive().await.unwrap()["error"]["data"]["reason"], json!("busy"));
    assert!(
        matches!(timeout(LATE, queries.recv()).await, Ok(Some(_))),
        "an answer makes room for the next call"
    );
}

#[tokio::test]
async fn stopping_tells_those_who_wait() {
    let mut fixture = Fixture::start().await;
    let [mut waiting, mut idle] =
        [Socket::connect(&fixture).await, Socket::connect(&fixture).await];
    let unknown = "0".repeat(64);
    waiting
        .send(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tx_get","params":["{unknown}",30000]}}"#
        ))
        .await;
    let id = json!({"id": unknown, "wait_ms": 30_000});
    let stop = fixture.stop.take().unwrap();
    let (answer, ()) = tokio::join!(fixture.refusal(api::TX_GET, id), async {
        // No event shows that a call has begun to wait. If the stop came first, the call would find
        // no server, and the test would fail.
        tokio::time::sleep(SOON).await;
        stop.send(()).unwrap();
    });
    assert_eq!(answer.1, "busy");
    assert!(idle.receive().await.is_none());
    // The answer and the close frame may come in either order.
    while waiting.receive().await.is_some() {}
    timeout(STOP_MAX * 2, fixture.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(fixture.address).await.is_err());
}
