//! Answers of a node that does not keep the whole chain.

use std::sync::Arc;

use ledger::api;
use ledger::codec;
use ledger::history::SegmentHead;
use protocol::archive::Keep;
use serde_json::json;

use super::fixture::Fixture;
use crate::view::ArchiveView;

/// The first 16 blocks came as a snapshot. Of the last of them the header is known.
#[tokio::test]
async fn what_is_not_kept_is_an_answer_of_its_own() {
    let mut fixture = Fixture::start().await;
    let [lost, kept, waiting] = [0, 1, 2].map(|nonce| fixture.transfer(nonce));
    let blocks = [vec![lost.clone()]].into_iter().chain(vec![vec![]; 15]).collect();
    let blocks = fixture.begin_with_snapshot(blocks);
    let headers: Vec<_> = blocks.iter().map(|one| one.block.header().clone()).collect();
    let tip = fixture.call(api::CHAIN_HEAD, json!({})).await.unwrap();
    assert_eq!(tip["header"], json!(hex::encode(codec::encode(&headers[15]))));
    fixture.commit(vec![kept.clone()]);
    fixture.call(api::TX_SUBMIT, json!([hex::encode(codec::encode(&waiting))])).await.unwrap();

    let id = |transaction: &ledger::transaction::Transaction| {
        transaction.body.id(fixture.chain.id()).to_string()
    };
    let zeros = "0".repeat(64);
    for (method, params) in [
        (api::CHAIN_BLOCK, json!({"height": "1"})),
        (api::CHAIN_BLOCK, json!({"height": "16"})),
        (api::CHAIN_BLOCK, json!({"hash": headers[0].hash().to_string()})),
        (api::CHAIN_BLOCK, json!({"hash": zeros})),
        (api::CHAIN_HEAD, json!({"height": "1"})),
        (api::TX_GET, json!({"id": id(&lost)})),
        (api::TX_GET, json!({"id": zeros, "wait_ms": 10})),
        (api::TX_PROOF, json!({"id": id(&lost)})),
        (api::TX_PROOF, json!({"id": id(&waiting)})),
    ] {
        let error = fixture.call(method, params.clone()).await.unwrap_err();
        let (code, reason) = (&error["code"], &error["data"]["reason"]);
        assert_eq!((code, reason), (&json!(-32_004), &json!("not_kept")), "{method} {params}");
        // A hash may be in any era that is not here.
        let holders = if params.get("height").is_some() {
            json!(["first"])
        } else {
            json!(["first", "later"])
        };
        assert_eq!(error["data"]["holders"], holders, "{method} {params}");
    }
    for (method, params) in [
        (api::CHAIN_HEAD, json!({"height": "16"})),
        (api::CHAIN_BLOCK, json!({"height": "17"})),
        (api::TX_PROOF, json!({"id": id(&kept)})),
    ] {
        assert!(fixture.call(method, params.clone()).await.is_ok(), "{method} {params}");
    }
    let found = fixture.call(api::TX_GET, json!({"id": id(&kept)})).await.unwrap();
    assert_eq!(found["status"], json!("final"));
    let found = fixture.call(api::TX_GET, json!({"id": id(&waiting)})).await.unwrap();
    assert_eq!(found["status"], json!("pending"), "what waits is known");
    for (method, params) in
        [(api::CHAIN_BLOCK, json!({"height": "18"})), (api::CHAIN_HEAD, json!({"height": "18"}))]
    {
        assert_eq!(fixture.refusal(method, params).await.1, "not_found");
    }
}

/// The first 16 blocks are one sealed segment, which came as a snapshot. Only a node that keeps
/// everything goes on to the audit.
#[tokio::test]
async fn a_phase_is_over_when_what_is_to_be_kept_is_here() {
    let mut fixture = Fixture::start().await;
    let blocks = fixture.begin_with_snapshot(vec![Vec::new(); 16]);
    let last = &blocks[15];
    let sealed = last.sealed.as_ref().unwrap();
    let head = SegmentHead {
        descriptor: sealed.descriptor,
        chunks: sealed.chunks.clone(),
        certificate: last.certificate.clone(),
    };
    let bytes: Vec<u8> = blocks.iter().flat_map(|one| one.block.bytes().iter().copied()).collect();
    let phase = async |fixture: &Fixture, keep| {
        fixture.archive.send_replace(Arc::new(ArchiveView { keep, ..ArchiveView::default() }));
        let status = fixture.call(api::CHAIN_STATUS, json!({})).await.unwrap();
        let history = status["history"].clone();
        assert_eq!(history["executed_to"], json!("0"));
        [history["phase"].clone(), history["checked_by_hash_to"].clone()]
    };
    let budgets = [Keep::Bytes(1), Keep::Recent(1)];
    for keep in [Keep::Full, budgets[0], budgets[1]] {
        assert_eq!(phase(&fixture, keep).await, ["backfill", "0"], "{keep:?}");
    }
    fixture.store.keep_segment(&head, &bytes).unwrap();
    assert_eq!(phase(&fixture, Keep::Full).await, ["audit", "16"]);
    for keep in budgets {
        assert_eq!(phase(&fixture, keep).await, ["done", "16"], "{keep:?}");
    }
}
