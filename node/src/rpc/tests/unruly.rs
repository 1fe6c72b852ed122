//! Clients that misbehave, by mistake or on purpose.

use ledger::api;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::{CLOSE, PING, PONG, Socket, TEXT};
use super::fixture::{Fixture, LATE, SOON};
use crate::rpc::Bounds;

#[tokio::test]
async fn many_connections_that_say_nothing_do_not_silence_the_server() {
    let fixture = Fixture::start().await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nx: ").await.unwrap();
        silent.push(stream);
    }
    for path in ["/health", "/ready", "/metrics"] {
        let answer =
            timeout(LATE, fixture.http("GET", path, &[], "")).await.expect("an answer in time");
        assert_eq!(answer.0, 200, "{path}");
    }
    assert!(timeout(LATE, fixture.call(api::CHAIN_STATUS, json!({}))).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_ping_is_answered_while_calls_wait() {
    let fixture = Fixture::start().await;
    let mut socket = Socket::connect(&fixture).await;
    for _ in 0..4 {
        socket.wait_for_nothing().await;
    }
    socket.send_frame(PING, b"still there?").await;
    let answer = timeout(SOON * 10, socket.frame()).await.expect("a pong at once");
    assert_eq!(answer, Some((PONG, b"still there?".to_vec())));
}

#[tokio::test]
async fn a_close_is_answered() {
    let fixture = Fixture::start().await;
    for waiting in [0, 4] {
        let mut socket = Socket::connect(&fixture).await;
        for _ in 0..waiting {
            socket.wait_for_nothing().await;
        }
        let reason = [&1000u16.to_be_bytes()[..], b"bye"].concat();
        socket.send_frame(CLOSE, &reason).await;
        assert_eq!(socket.frame().await, Some((CLOSE, reason)));
        assert_eq!(socket.0.read(&mut [0]).await.unwrap(), 0, "the server closes first");
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_of_websocket_is_named_by_its_code() {
    let fixture = Fixture::start().await;
    let large = vec![b' '; (1 << 20) + 1];
    let far_too_large = vec![b' '; 8 << 20];
    for (opcode, content, code) in [
        (1, &*large, 1009u16),
        (2, &*far_too_large, 1009),
        (1, &[0xff, 0xfe][..], 1007),
        (3, b"no such opcode", 1002),
        (0, b"continues nothing", 1002),
    ] {
        let mut socket = Socket::connect(&fixture).await;
        socket.send_frame(opcode, content).await;
        let (kind, told) =
            socket.frame().await.unwrap_or_else(|| panic!("closed without a word for {code}"));
        assert_eq!((kind, &told[..2]), (CLOSE, &code.to_be_bytes()[..]), "{opcode}");
    }
    let mut socket = Socket::connect(&fixture).await;
    socket.send_frame(1, &large[1..]).await;
    assert_eq!(
        socket.receive().await.unwrap()["error"]["code"],
        json!(-32_700),
        "1 MiB is not too large"
    );
}

#[tokio::test]
async fn the_body_of_a_request_may_be_too_large_or_packed() {
    let fixture = Fixture::start().await;
    let json = ("content-type", "application/json");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"rpc_methods"}"#;
    for (headers, expected, word) in [
        (vec![("content-type", "application/json-rpc")], 200, "chain_status"),
        (vec![("content-type", "application/jsonrequest")], 200, "chain_status"),
        (vec![("content-type", "application/json; charset=utf-8")], 200, "chain_status"),
        (vec![json, ("content-encoding", "identity")], 200, "chain_status"),
        (vec![json, ("content-encoding", "gzip")], 415, "gzip"),
        (vec![("content-type", "text/plain")], 415, "application/json"),
    ] {
        let (status, _, body) = fixture.http("POST", "/", &headers, call).await;
        assert_eq!(status, expected, "{headers:?} {body}");
        assert!(body.contains(word), "{headers:?} {body}");
    }
    // The whole body is sent before the answer is read, as Python's http.client does.
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let length = 4 << 20;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: \
         {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; length]).await.expect("the server takes all of it");
    let mut answer = [0; 64];
    let read = timeout(LATE, stream.read(&mut answer)).await.unwrap().unwrap();
    assert!(
        answer[..read].starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&answer[..read])
    );
}

#[tokio::test]
async fn calls_in_odd_shapes() {
    let fixture = Fixture::start().await;
    for body in [r#"[["2.0",1,"tx_mempool",{}]]"#, r#"[[1,["2.0",1,"tx_mempool",{}]]]"#] {
        let (_, answer) = fixture.post(body).await;
        assert_eq!(answer[0]["error"]["code"], json!(-32_600), "{body} {answer}");
    }
    for id in ["18446744073709551616", "1.0", "-0", "1e3", r#""\u0041""#, "null"] {
        for method in [r#""rpc_methods""#, "7", r#""nothing""#] {
            let body = format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":{method}}}"#);
            let (_, _, answer) =
                fixture.http("POST", "/", &[("content-type", "application/json")], &body).await;
            assert!(answer.contains(&format!(r#""id":{id},"#)), "{body} {answer}");
        }
    }
    for id in ["{}", "[]", "true"] {
        let (_, answer) =
            fixture.post(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"rpc_methods"}}"#)).await;
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&Value::Null, &json!(-32_600)),
            "{id}"
        );
    }
}

/// Messages of the JSON library do not help people.
#[tokio::test]
async fn errors_are_in_words_for_people() {
    let fixture = Fixture::start().await;
    let zeros = "0".repeat(64);
    for (method, params, words) in [
        (api::TX_GET, json!({}), "the parameter id is missing"),
        (api::TX_GET, json!([]), "the parameter id is missing"),
        (api::TX_GET, json!({"id": null}), "the parameter id is missing"),
        (api::TX_GET, json!([zeros, 1, 2, 3]), "4 parameters are given, expected at most"),
        (api::TX_GET, json!({"id": 5}), "id is 5, expected text"),
        (api::TX_GET, json!({"id": zeros, "wait_ms": "7"}), r#"wait_ms is "7", expected a number"#),
        (api::TX_GET, json!("x"), "parameters are an object or an array"),
        (api::CHAIN_BLOCK, json!({"height": 1}), "height is 1, expected a decimal number as text"),
        (api::CHAIN_BLOCK, json!({"heigth": "1"}), "there is no parameter heigth"),
        (api::CHAIN_BLOCK, json!({"hash": "abc"}), "hash is \"abc\", expected"),
        (
            api::TX_SUBMIT,
            json!({"transaction": "0g"}),
            "transaction is \"0g\", expected text of hexadecimal digits",
        ),
        (api::CHAIN_STATUS, json!([1]), "1 parameter is given, expected none"),
    ] {
        let error = fixture.call(method, params.clone()).await.unwrap_err();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{method} {params}: {message}");
    }
    let (_, answer) = fixture.post(r#"{"jsonrpc":"2.0","id":1}"#).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("method is missing"), "{answer}");
}

#[tokio::test]
async fn metrics_are_classic_text_unless_openmetrics_is_asked_for() {
    let fixture = Fixture::start().await;
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for (accept, open) in [
        (None, false),
        (Some("*/*"), false),
        (Some("text/plain"), false),
        (Some("application/openmetrics-text;q=0, */*"), false),
        (Some("application/openmetrics-text; version=1.0.0"), true),
        (Some(prometheus), true),
    ] {
        let headers: Vec<_> = accept.iter().map(|accept| ("accept", *accept)).collect();
        let (_, head, text) = fixture.http("GET", "/metrics", &headers, "").await;
        let kind = if open {
            "application/openmetrics-text; version=1.0.0"
        } else {
            "text/plain; version=0.0.4"
        };
        assert!(head.contains(kind), "{accept:?} {head}");
        for (line, in_open) in [
            ("# TYPE cairn_blocks counter", true),
            ("# TYPE cairn_blocks_total counter", false),
            ("# TYPE cairn_node info", true),
            ("# TYPE cairn_node_info gauge", false),
            ("# EOF", true),
        ] {
            assert_eq!(
                text.lines().any(|found| found == line),
                in_open == open,
                "{accept:?} {line}\n{text}"
            );
        }
        assert!(text.lines().any(|line| line == "cairn_blocks_total 0"), "{text}");
    }
}

/// Calls are charged to their address, so one address cannot keep the store busy.
#[tokio::test]
async fn a_caller_without_budget_is_told_when_to_come_back() {
    let fixture = Fixture::start_with(Bounds { refill: 100, ..Bounds::default() }).await;
    let zeros = "0".repeat(64);
    let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tx_proof","params":["{zeros}"]}}"#);
    let (_, answers) = fixture.post(&format!("[{}]", vec![call; 100].join(","))).await;
    let codes: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    // The budget of callers on this machine holds 5,000 microseconds of work when it is full: 100
    // a second, times 10 for loopback, for 5 seconds. A call with a read costs 55, and the budget
    // gains a little during the calls.
    let served =
        codes.iter().filter(|code| **code == Some(i64::from(api::code::NOT_FOUND))).count();
    assert!((90..100).contains(&served), "{codes:?}");
    let refused = &answers[99]["error"];
    assert_eq!(
        (&refused["code"], &refused["data"]["reason"]),
        (&json!(api::code::OVER_BUDGET), &json!("busy"))
    );
    assert!(refused["data"]["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
    assert_eq!(fixture.http("GET", "/health", &[], "").await.0, 200);
}

/// Large unread answers share one bound over all connections. Beyond it large answers are refused
/// and small ones are not.
#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_in_bytes() {
    let fixture = Fixture::start_with(Bounds { answers_bytes: 3 << 20, ..Bounds::default() }).await;
    fixture.fill_mempool(1_000);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tx_mempool","params":[1000]}"#;
    let large = fixture.post(call).await.1.to_string().len();
    // More than the system buffers for a client that does not read.
    let batch = format!("[{}]", vec![call; (2 << 20) / large].join(","));
    let mut silent = Socket::connect(&fixture).await;
    silent.send(&batch).await;
    silent.0.readable().await.unwrap();
    let (_, answers) = fixture.post(&batch).await;
    let reasons =
        answers.as_array().unwrap().iter().map(|answer| &answer["error"]["data"]["reason"]);
    let refused = reasons.filter(|reason| **reason == json!("busy")).count();
    assert!((1..(2 << 20) / large).contains(&refused), "{refused} were refused");
    assert!(fixture.call(api::RPC_METHODS, json!({})).await.is_ok());
}

/// A ping must be answered even behind a queue of calls that wait long.
#[tokio::test]
async fn a_ping_behind_many_calls_is_found() {
    let fixture = Fixture::start().await;
    let mut socket = Socket::connect(&fixture).await;
    for _ in 0..200 {
        socket.wait_for_nothing().await;
    }
    socket.send_frame(PING, b"?").await;
    let mut refused = 0;
    loop {
        match timeout(LATE, socket.frame()).await.expect("an answer in time").unwrap() {
            (PONG, _) => break,
            (_, answer) => {
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                assert_eq!(
                    (&answer["id"], &answer["error"]["data"]["reason"]),
                    (&json!(1), &json!("busy"))
                );
                refused += 1;
            }
        }
    }
    // Four calls are in flight, 64 wait, and a few refusals may come after the pong.
    assert!((1..=200 - 68).contains(&refused), "{refused}");
}

/// A long answer is sent in pieces, so that a pong need not wait until a slow client has read it
/// all.
#[tokio::test]
async fn a_pong_fits_between_the_pieces_of_a_long_answer() {
    let fixture = Fixture::start().await;
    fixture.fill_mempool(1_000);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tx_mempool","params":[1000]}"#;
    let mut socket = Socket::connect(&fixture).await;
    socket.send(&format!("[{}]", [call; 4].join(","))).await;
    // A part has arrived, and more than the system buffers is left.
    socket.0.readable().await.unwrap();
    socket.send_frame(PING, b"!").await;
    let mut frames = Vec::new();
    while !frames.contains(&(TEXT, true)) {
        let (kind, content) = socket.frame().await.unwrap();
        frames.push((kind, kind == TEXT && serde_json::from_slice::<Value>(&content).is_ok()));
    }
    assert_eq!(frames, [(PONG, false), (TEXT, true)]);
}
