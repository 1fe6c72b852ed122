//! The operator's socket of a running node.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::process::{Signal, Uid, geteuid};
use rustix::thread::set_thread_uid;
use serde_json::json;
use tests::story::{Rpc, call_operator, finish, node_program, until};

use super::homes::permit;
use super::{NOBODY, Running, folder, new_home, node, run};

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
        let answer = call_operator(&home, "node_set_faults", faults.clone());
        assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": null}));
    }
    assert_eq!(call_operator(&home, "node_faults", json!({}))["result"], faults);
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
        let error = call_operator(&home, "node_set_faults", faults);
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{error}");
    }
    call_operator(&home, "node_set_faults", json!({}));
    assert_eq!(Rpc::new(&url).status().unwrap().faults, None);
}

/// The socket asks who connects, so a mode that was widened by mistake opens it to nobody.
#[test]
fn another_user_is_refused() {
    if !geteuid().is_root() {
        println!("skipped: only root may become another user");
        return;
    }
    let folder = folder();
    let (home, log) = (new_home(&folder), folder.path().join("log"));
    let _running = Running::node(&mut run(&home), &log);
    let socket = home.join("run/control");
    permit(&socket, 0o666);
    for folder in [&home.join("run"), &home, folder.path()] {
        permit(folder, 0o755);
    }
    // Linux gives each thread its own user.
    let stranger = thread::spawn(move || {
        set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        let request = r#"{"jsonrpc":"2.0","id":1,"method":"node_faults"}"#;
        // The node may have closed the connection by then.
        let _closed = writeln!(stream, "{request}").and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = String::new();
        let _reset = stream.read_to_string(&mut answer);
        answer
    });
    assert_eq!(stranger.join().unwrap(), "");
    until("the log tells of the stranger", || {
        std::fs::read_to_string(&log).unwrap().contains("refused another user").then_some(())
    });
    assert!(call_operator(&home, "node_faults", json!({}))["result"].is_object());
}
