//! A node with a budget for history drops eras that others keep, and gets them back. So does a node
//! that has a damaged file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ledger::api::{self, HistoryPhase};
use serde_json::json;
use tests::source::root;
use tests::story::{Folder, Rpc, finish, node_program, until};

use super::json_of;
use super::started::Started;

/// Transfers of the history that the network begins with: 40 blocks, two whole eras and a part.
const TRANSFERS: &str = "8000";
const BLOCKS: u64 = 40;
/// These eras are whole.
const ERAS: u64 = 2;

#[test]
fn a_node_drops_eras_that_three_others_keep_and_gets_them_back() {
    let folder = Folder::new();
    let mut genesis = json_of(&fs::read_to_string(root().join("genesis.json")).unwrap());
    for (limit, bytes) in
        [("segment_bytes", "65536"), ("block_bytes_max", "65536"), ("chunk_bytes", "16384")]
    {
        genesis["limits"][limit] = json!(bytes);
    }
    let path = folder.join("genesis.json");
    fs::write(&path, genesis.to_string()).unwrap();
    let options = ["--nodes", "4", "--history", TRANSFERS, "--genesis", path.to_str().unwrap()];
    let network = Started::new(&folder, "shared", &options);
    let [rpc, other] = [3, 0].map(|node: usize| Rpc::new(&network.rpc()[node]));
    let has = |eras: &[[u64; 2]], era: u64| eras.iter().any(|[a, b]| (*a..=*b).contains(&era));

    // Not a single era fits into the budget.
    restart(&network, "full", "1kB");
    until("all eras that were whole are dropped", || {
        let history = rpc.status().ok()?.history;
        (history.keep == "1000B" && !(0..ERAS).any(|era| has(&history.eras, era))).then_some(())
    });
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": api::CHAIN_BLOCK,
                      "params": {"height": "1"}});
    let (_, answer) = rpc.post("application/json", call.to_string().as_bytes()).unwrap();
    let holders = json_of(&answer)["error"]["data"]["holders"].clone();
    let description = network.description();
    let mut others = BTreeSet::new();
    for node in &description["nodes"].as_array().unwrap()[..3] {
        let peer = node["p2p"].as_str().unwrap().rsplit('/').next().unwrap();
        others.insert(peer);
        let is_named = holders.as_array().unwrap().contains(&json!(peer));
        assert!(is_named, "{peer} keeps the block: {answer}");
    }
    assert!(other.block(1).is_ok(), "the others keep it");
    let home = home(&description);
    for way in [&["--era", "0"][..], &["--block", "1"], &["--era", "0", "--flood"]] {
        until("the three others are found", || {
            let find =
                finish(node_program().args(["find", "--json", "--home"]).arg(&home).args(way));
            assert_eq!(find.code, Some(0), "{find:?}");
            let found = json_of(&find.stdout);
            let peers = found["holders"].as_array().unwrap().iter();
            let peers: BTreeSet<&str> = peers.map(|one| one["peer"].as_str().unwrap()).collect();
            let hops = if way.contains(&"--flood") { json!(1) } else { json!(null) };
            let is_asked = found["messages"].as_u64().unwrap() >= 6;
            (peers == others && is_asked && found["hops"] == hops).then_some(())
        });
    }
    let far = finish(node_program().args(["find", "--era", "99", "--home"]).arg(&home));
    assert!(far.stderr.contains("era 99 does not exist"), "{far:?}");

    restart(&network, "1kB", "1GiB");
    until("the eras are back", || {
        let history = rpc.status().ok()?.history;
        let are_back = (0..ERAS).all(|era| has(&history.eras, era));
        (are_back && history.phase == HistoryPhase::Done).then_some(())
    });
    // A damaged era is served to nobody, and comes from the others again.
    let damaged = home.join("db/history/0/0.blocks");
    let good = fs::read(&damaged).unwrap();
    fs::write(&damaged, vec![0; good.len()]).unwrap();
    until("the damaged era is back", || {
        let _whoever_reads_finds_it = rpc.block(1);
        (fs::read(&damaged).ok()? == good).then_some(())
    });
    until("its blocks are here", || rpc.block(1).ok().map(drop));
    for height in 1..=BLOCKS {
        assert_eq!(rpc.block(height).unwrap().summary, other.block(height).unwrap().summary);
    }
    drop(network);
    let verify = finish(node_program().args(["db", "verify", "--json", "--home"]).arg(home));
    assert_eq!(verify.code, Some(0), "{verify:?}");
}

/// The home of the fourth node.
fn home(description: &serde_json::Value) -> PathBuf {
    description["nodes"][3]["home"].as_str().unwrap().into()
}

/// Restarts the fourth node with another budget.
fn restart(network: &Started, from: &str, to: &str) {
    network.run(&["kill", "node4"]);
    let path = home(&network.description()).join("config.toml");
    replace(&path, &format!("keep = \"{from}\""), &format!("keep = \"{to}\""));
    network.json(&["restart", "node4"]);
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}
