//! The bench program lets real nodes fetch a real chain in chunks, on loopback. These tests check
//! what must come out whatever the machine's speed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::story::node_program;

/// A chain of four segments of 33 chunks each.
const CHAIN: [&str; 6] = ["--mib", "8", "--segment-mib", "2", "--chunk-kib", "64"];

fn bench(node: &Path, arguments: &[&str]) -> Output {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(["swarm", "--loopback", "--json", "--node"]).arg(node).args(CHAIN).args(arguments);
    bench.output().expect("the bench program starts")
}

/// Runs the bench. All chunks must be fetched and all blocks applied by this many leechers, and
/// none of them may ban an honest peer.
fn complete(leechers: usize, arguments: &[&str]) -> Value {
    let output = bench(node_program().get_program().as_ref(), arguments);
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {error}", output.status);
    let result: Value =
        serde_json::from_str(&out).unwrap_or_else(|reason| panic!("{reason}: {out}"));
    assert_eq!(result["per_node"].as_array().map(Vec::len), Some(leechers), "{result}");
    assert_eq!(result["bans"]["honest"], 0, "{result}");
    result
}

fn number(result: &Value, field: &str) -> f64 {
    result[field].as_f64().unwrap_or_else(|| panic!("no {field}: {result}"))
}

#[test]
fn nodes_fetch_a_chain_and_hardly_anything_twice() {
    let result = complete(2, &["--seeds", "1", "--leechers", "2"]);
    let (copies, waste) = (number(&result, "seed_copies"), number(&result, "waste"));
    // The seed sends each chunk at least once, and hardly more than once to each of the two
    // leechers.
    assert!((1.0..2.5).contains(&copies), "{result}");
    assert!(waste < 0.4, "{result}");
    for node in result["per_node"].as_array().expect("a list of nodes") {
        // The blocks came as chunks, so all chunks were there before all blocks were applied.
        let at = |field: &str| node[field].as_u64().unwrap_or_else(|| panic!("no {field}: {node}"));
        assert!(
            at("started_at_ms") < at("verified_at_ms")
                && at("verified_at_ms") < at("applied_at_ms"),
            "{node}"
        );
    }
}

#[test]
fn nodes_that_are_killed_again_and_again_go_on_where_they_were() {
    complete(2, &["--seeds", "1", "--leechers", "2", "--kill-every", "0.7"]);
}

#[test]
fn a_poisoner_is_banned_and_a_staller_holds_up_nobody_for_long() {
    let result = complete(2, &["--seeds", "2", "--leechers", "2", "--poison", "1", "--stall", "1"]);
    let banned = result["bans"]["poisoners"].as_u64();
    assert!((Some(1)..=Some(2)).contains(&banned), "{result}");
}

#[test]
fn a_node_that_does_not_start_ends_the_bench() {
    // The bench program takes the place of the node here, and refuses a node's arguments.
    let output = bench(env!("CARGO_BIN_EXE_bench").as_ref(), &["--seeds", "1", "--leechers", "1"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: seed1 has ended with exit status: 2"), "{error}");
    let kept = error.lines().find_map(|line| line.strip_prefix("bench: homes and logs are in "));
    fs::remove_dir_all(kept.expect("homes and logs of a run that failed are kept"))
        .expect("they are there");
}
