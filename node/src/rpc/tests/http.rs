use ledger::api;
use protocol::Quorum;
use serde_json::json;

use super::fixture::{Fixture, key};
use crate::network::PeerId;
use crate::rpc::{BODY_BYTES_MAX, RpcConfig, bind};

#[tokio::test]
async fn requests_that_are_no_calls() {
    let fixture = Fixture::start().await;
    let batch = |count: usize| {
        format!(
            "[{}]",
            vec![r#"{"jsonrpc":"2.0","id":1,"method":"chain_status"}"#; count].join(",")
        )
    };
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

    let mixed = r#"[{"jsonrpc":"2.0","id":1,"method":"rpc_methods"},
        {"jsonrpc":"2.0","method":"rpc_methods"}, 7,
        {"jsonrpc":"2.0","id":null,"method":"nothing"}]"#;
    let (_, answers) = fixture.post(mixed).await;
    let codes: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, Some(-32_600), Some(-32_601)]);
    assert_eq!(
        fixture.post(r#"{"jsonrpc":"2.0","method":"rpc_methods"}"#).await.0,
        204,
        "a notification"
    );

    let (status, answer) = fixture.post(&" ".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!((status, &answer["error"]["data"]["reason"]), (413, &json!("body_too_large")));
    let (status, _, body) =
        fixture.http("POST", "/", &[("content-type", "text/plain")], &batch(1)).await;
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
        assert_eq!(
            fixture.http("GET", path, &[("host", "evil.example")], "").await.0,
            403,
            "{path}"
        );
    }
    let upgrade =
        [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let key = ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    let headers = [&upgrade[..], &[key, ("origin", "https://evil.example")]].concat();
    assert_eq!(fixture.http("GET", "/", &headers, "").await.0, 403);
    let (status, head, _) =
        fixture.http("OPTIONS", "/", &[("origin", "https://wallet.example")], "").await;
    assert!(status == 204 && head.contains("access-control-allow-headers: content-type"), "{head}");
}

#[tokio::test]
async fn pages_for_operators() {
    let mut fixture = Fixture::start().await;
    fixture.commit(vec![]);
    fixture.activity.send_modify(|activity| activity.extra_rounds = 5);
    fixture.call(api::RPC_METHODS, json!({})).await.unwrap();
    fixture.refusal(api::CHAIN_BLOCK, json!({"height": 1})).await;
    fixture.refusal("made_up", json!({})).await;
    fixture.refusal("made_up_too", json!({})).await;
    let (status, _, metrics) = fixture.http("GET", "/metrics", &[], "").await;
    assert_eq!(status, 200);
    for line in [
        "cairn_height 1",
        "cairn_peers 0",
        "cairn_syncing 0",
        "cairn_mempool_bytes 0",
        "cairn_extra_rounds_total 5",
        "cairn_block_time_seconds 1767225600.05",
        "cairn_finality_seconds_count 0",
        r#"cairn_rpc_requests_total{method="rpc_methods",code="ok"} 1"#,
        r#"cairn_rpc_requests_total{method="chain_block",code="-32602"} 1"#,
        r#"cairn_rpc_requests_total{method="none",code="-32601"} 2"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "cairn_disk_store_bytes",
    ] {
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{name} is not in\n{metrics}");
    }
    assert!(
        metrics.contains("cairn_node_info{") && metrics.contains(&fixture.chain.id().to_string())
    );
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
async fn a_status_tells_age_uptime_disk_and_what_was_served() {
    let mut fixture = Fixture::start().await;
    let before = fixture.call(api::CHAIN_STATUS, json!({})).await.unwrap();
    assert_eq!(before["last_block_age_ms"], json!(null), "there is no block");
    assert_eq!((&before["served_bytes"], &before["served_peers"]), (&json!("0"), &json!(0)));
    let (first, second) = (PeerId::random(), PeerId::random());
    for (peer, bytes) in [(first, 1_000), (second, 200), (first, 30)] {
        fixture.uploaded.count(peer, bytes);
    }
    let header = fixture.commit(Vec::new());
    let status = fixture.call(api::CHAIN_STATUS, json!({})).await.unwrap();
    let number = |name: &str| status[name].as_str().unwrap().parse::<u64>().unwrap();
    let age = crate::clock::wall_ms() - header.time.0;
    assert!((age - 60_000..=age).contains(&number("last_block_age_ms")), "{status}");
    assert!(number("uptime_ms") < 60_000, "{status}");
    assert_eq!((number("disk_bytes"), number("disk_free_bytes")), (12_345_678, 1 << 40));
    assert_eq!((number("served_bytes"), &status["served_peers"]), (1_230, &json!(2)));
    let history = json!({
        "keep": "full", "eras": [[0, 0]], "phase": "done", "executed_to": "1",
        "checked_by_hash_to": "1", "bytes": "1000000",
    });
    assert_eq!(status["history"], history);
}

/// No block becomes final any more, and the operator learns which validators are missing.
#[tokio::test]
async fn a_missing_quorum_is_a_reason_not_to_be_ready() {
    let fixture = Fixture::without_driver(4).await;
    fixture.connect_peer();
    let status = fixture.call(api::CHAIN_STATUS, json!({})).await.unwrap();
    assert_eq!(status["quorum"], json!({"ok": true, "missing": [], "since_ms": null}));
    let (stranger, since_ms) = (key(7).public(), 1_795_401_276_082);
    let missing = vec![key(101).public(), stranger];
    fixture.quorum.send_replace(Quorum { ok: false, missing, since_ms: Some(since_ms) });
    let status = fixture.call(api::CHAIN_STATUS, json!({})).await.unwrap();
    let missing = json!(["validator 1", stranger.to_string()]);
    assert_eq!(
        status["quorum"],
        json!({"ok": false, "missing": missing, "since_ms": since_ms.to_string()})
    );
    let (code, _, body) = fixture.http("GET", "/ready", &[], "").await;
    assert!(code == 503 && body.contains("no quorum") && body.contains("validator 1"), "{body}");
    let (_, _, metrics) = fixture.http("GET", "/metrics", &[], "").await;
    for line in ["cairn_quorum 0", "cairn_validators_missing 2"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

/// A wrong clock makes a validator's votes useless, and its operator learns of it.
#[tokio::test]
async fn a_wrong_clock_is_a_reason_not_to_be_ready() {
    let fixture = Fixture::without_driver(4).await;
    fixture.connect_peer();
    let limit = i64::try_from(fixture.chain.limits().clock_drift_ms / 2).unwrap();
    for (offset, words) in [
        (None, None),
        (Some(0), None),
        (Some(limit), None),
        (Some(-limit), None),
        (Some(limit + 1), Some("ms ahead of")),
        (Some(-limit - 1), Some("ms behind")),
    ] {
        fixture.activity.send_modify(|activity| activity.clock_offset_ms = offset);
        let (status, _, body) = fixture.http("GET", "/ready", &[], "").await;
        assert_eq!(status, if words.is_some() { 503 } else { 200 }, "{offset:?} {body}");
        assert!(body.contains(words.unwrap_or("ready")), "{body}");
        assert_eq!(
            fixture.call(api::CHAIN_STATUS, json!({})).await.unwrap()["clock_offset_ms"],
            json!(offset)
        );
        let (_, _, metrics) = fixture.http("GET", "/metrics", &[], "").await;
        let shown = metrics
            .lines()
            .find_map(|line| line.strip_prefix("cairn_clock_offset_seconds ")?.parse().ok());
        assert_eq!(shown, offset.map(|offset| offset as f64 / 1_000.0), "{metrics}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let config = |listen| RpcConfig {
        listen,
        allowed_hosts: Vec::new(),
        allowed_origins: Vec::new(),
        connections_max: 8,
    };
    let first = bind(&config("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let Err(error) = bind(&config(first.address())).await else { panic!("two have one port") };
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
    assert!(error.to_string().contains("another node"), "{error}");
}
