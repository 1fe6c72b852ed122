//! Calls pay for the work that they cause, not only for their answers.

use ledger::api;
use ledger::codec;
use serde_json::{Value, json};

use super::client::Socket;
use super::fixture::Fixture;
use crate::network::PeerId;
use crate::rpc::Bounds;
use crate::rpc::answer::{bytes_written, reply};

/// A server at which the account of this machine holds 1,000 microseconds when it is full, and
/// gains 200 a second.
async fn poor() -> Fixture {
    Fixture::start_with(Bounds { refill: 20, ..Bounds::default() }).await
}

/// Whether an answer says that the account is empty.
fn is_refused(answer: &Value) -> bool {
    answer["error"]["code"] == json!(api::code::OVER_BUDGET)
}

/// How many of 100 equal calls are served.
async fn served(fixture: &Fixture, method: &str, params: Value) -> usize {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let (_, answers) = fixture.post(&json!(vec![call; 100]).to_string()).await;
    answers.as_array().unwrap().iter().filter(|answer| !is_refused(answer)).count()
}

/// How many calls a full account pays for, if each costs at least `cost` and the account gains for
/// two seconds meanwhile.
fn most(cost: usize) -> usize {
    1_400 / cost + 1
}

#[tokio::test]
async fn a_list_of_peers_is_paid_by_the_peer() {
    let fixture = poor().await;
    fixture.connect_peers((0..50).map(|_| PeerId::random()));
    let served = served(&fixture, api::NET_PEERS, json!({})).await;
    assert!((1..=most(175)).contains(&served), "{served} calls were served");
}

#[tokio::test]
async fn a_question_to_the_driver_is_paid() {
    let fixture = poor().await;
    let account = super::fixture::key(1).public().to_string();
    let served = served(&fixture, api::ACCOUNT_GET, json!({"account": account})).await;
    assert!((30..=most(25)).contains(&served), "{served} calls were served");
}

#[tokio::test]
async fn a_final_transaction_costs_the_reading_of_its_block() {
    let mut fixture = poor().await;
    let transactions: Vec<_> = (0..1_000).map(|nonce| fixture.transfer(nonce)).collect();
    let id = transactions[0].body.id(fixture.chain.id()).to_string();
    fixture.commit(transactions);
    let served = served(&fixture, api::TX_GET, json!({"id": id})).await;
    assert!((1..=most(200)).contains(&served), "{served} calls were served");
}

#[tokio::test]
async fn a_bad_signature_costs_the_search_for_it() {
    let fixture = poor().await;
    let mut forged = fixture.transfer(0);
    forged.signature.0[0] ^= 1;
    let bytes = hex::encode(codec::encode(&forged));
    assert_eq!(served(&fixture, api::TX_SUBMIT, json!([bytes])).await, 1);
}

/// A call that waits reads the store again after each block.
#[tokio::test]
async fn a_wait_is_paid_by_the_block() {
    let mut fixture = poor().await;
    let mut socket = Socket::connect(&fixture).await;
    let id = "0".repeat(64);
    socket
        .send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tx_get","params":["{id}",30000]}}"#))
        .await;
    for _ in 0..60 {
        fixture.commit(vec![]);
        // The call costs 5, and its answer 2.
        if is_refused(
            &fixture
                .call(api::CHAIN_STATUS, json!({}))
                .await
                .map_or_else(|e| json!({"error": e}), |_| json!({})),
        ) {
            return;
        }
    }
    panic!("60 reads of the store cost less than 1,000 microseconds");
}

#[test]
fn an_answer_that_does_not_fit_costs_its_room() {
    for (room, bytes) in [(100, 12), (12, 12), (11, 11), (0, 0)] {
        assert_eq!(bytes_written(&reply(room, "0123456789"), room), bytes, "within {room}");
    }
}

#[tokio::test]
async fn scrapes_are_paid_from_a_budget_of_their_own() {
    // A full account holds 5,000 microseconds.
    let fixture = Fixture::start_with(Bounds { refill: 100, ..Bounds::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(fixture.http("GET", "/metrics", &[], "").await);
    }
    let refused = statuses.iter().filter(|(status, _, _)| *status == 429).count();
    assert!(statuses[0].0 == 200 && refused > 0, "{refused} scrapes were refused");
    let (_, head, body) = statuses.iter().find(|(status, _, _)| *status == 429).unwrap();
    assert!(body.contains("too many scrapes"), "{body}");
    assert!(head.to_lowercase().contains("retry-after: "), "{head}");
    assert_eq!(fixture.http("GET", "/health", &[], "").await.0, 200);
    assert!(fixture.call(api::CHAIN_STATUS, json!({})).await.is_ok(), "calls have their own");
}
