//! Real nodes fetch a real chain in chunks, over loopback, by the bench program: what must come out whatever the machine's speed.

use std::process::Command;

use serde_json::Value;
use tests::story::node_program;

/// Runs `bench swarm` without shaped links, and gives its result.
fn swarm(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["swarm", "--loopback", "--json", "--mib", "8", "--segment-mib", "2", "--chunk-kib", "64"])
        .args(arguments)
        .arg("--node")
        .arg(node_program().get_program())
        .output()
        .expect("the bench program starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}\n{error}", output.status);
    let line = out.lines().last().unwrap_or_else(|| panic!("no result: {error}"));
    serde_json::from_str(line).unwrap_or_else(|reason| panic!("{reason}: {line}"))
}

#[test]
fn nodes_fetch_a_chain_from_each_other_and_nobody_is_banned() {
    let result = swarm(&["--seeds", "1", "--leechers", "3"]);
    assert_eq!(result["bans"]["honest"], 0, "{result}");
    let nodes = result["per_node"].as_array().expect("a list of nodes");
    assert_eq!(nodes.len(), 3, "{result}");
    for node in nodes {
        // It had all chunks before it had applied all blocks: they came as chunks.
        let at = |field: &str| node[field].as_u64().unwrap_or_else(|| panic!("no {field}: {node}"));
        assert!(at("started_at_ms") < at("verified_at_ms") && at("verified_at_ms") <= at("applied_at_ms"), "{node}");
    }
}

#[test]
fn a_poisoner_is_banned_and_a_staller_holds_up_nobody_for_long() {
    let result = swarm(&["--seeds", "1", "--leechers", "1", "--poison", "1", "--stall", "1"]);
    assert_eq!(result["bans"]["honest"], 0, "{result}");
    assert!(result["bans"]["poisoners"].as_u64() <= Some(1), "{result}");
    assert_eq!(result["per_node"].as_array().map(Vec::len), Some(1), "{result}");
}
