//! The operator's socket of a running node.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::story::{Rpc, finish, node_program, until};

use super::{Running, folder, new_home, node, run};

/// Calls a method of the node that runs in a home.
fn call(home: &Path, method: &str, params: Value) -> Value {
    let mut stream = UnixStream::connect(home.join("run/control")).unwrap();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    writeln!(stream, "{request}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn a_node_is_stopped_by_its_socket_and_the_next_takes_over_a_stale_one() {
    let folder = folder();
    let (home, log) = (new_home(&folder), folder.path().join("log"));
    let socket = home.join("run/control");
    let stop = |expected| {
        let stopped = finish(&mut node("stop", &home));
        assert_eq!(stopped.code, Some(expected), "{stopped:?}");
        stopped
    };
    assert!(stop(3).stderr.contains("nothing runs in"));

    let mut killed = Running::node(&mut run(&home), &log);
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(socket.exists());
    stop(3);

    let mut running = Running::node(&mut run(&home), &log);
    assert_eq!(stop(0).stdout, "stopped\n");
    assert!(!socket.exists());
    // The home is free although the process may still be ending.
    let mut next = Running::node(&mut run(&home), &log);
    assert!(running.wait().success());
    stop(0);
    assert!(next.wait().success());
}

#[test]
fn faults_are_set_on_a_local_network_and_shown() {
    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let folder = folder();
    let (home, log) = (new_home(&folder), folder.path().join("log"));
    let _running = Running::node(&mut run(&home), &log);
    let faults = json!({"cut": [PEER], "latency_ms": {PEER: 50}});
    for _ in 0..2 {
        let answer = call(&home, "node_set_faults", faults.clone());
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": null}));
    }
    assert_eq!(call(&home, "node_faults", json!({}))["result"], faults);
    let text = std::fs::read_to_string(&log).unwrap();
    let url = text.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
    let url = format!("http://{}", url.trim_end_matches(','));
    let shown = finish(node_program().args(["status", "--rpc", &url]));
    assert!(shown.stdout.contains(&format!("cut off from {PEER}")), "{shown:?}");
    until("the log tells of the faults", || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.contains(&format!("cut off from {PEER}; latency from {PEER} 50 ms")).then_some(())
    });
    for (faults, part) in [
        (json!({"latency_ms": {PEER: 10_001}}), "at most 10000 ms"),
        (json!({"cut": ["nobody"]}), "is no peer id"),
    ] {
        let error = call(&home, "node_set_faults", faults);
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{error}");
    }
    call(&home, "node_set_faults", json!({}));
    assert_eq!(Rpc::new(&url).status().unwrap().faults, None);
}
