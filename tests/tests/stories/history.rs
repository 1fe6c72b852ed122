//! Local networks that are the same each time, and begin with a history.

use ledger::api::{self, SyncStatus};
use serde_json::{Value, json};
use tests::story::{Folder, Rpc, finish, node_program, until};

use super::started::Started;

/// Transfers of the history: 33 blocks, of which 30 make two segments.
const TRANSFERS: &str = "6600";

/// What must be the same each time: the chain id, and the name, peer id and role of each node.
fn identity(network: &Started) -> Vec<Value> {
    let description = network.description();
    let nodes = description["nodes"].as_array().unwrap().iter().map(|node| {
        let peer_id = node["p2p"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        json!([node["name"], peer_id, node["validator"]])
    });
    [description["chain_id"].clone()].into_iter().chain(nodes).collect()
}

#[test]
fn a_seeded_network_is_the_same_each_time_and_a_new_node_fetches_its_history() {
    let folder = Folder::new();
    let options = ["--nodes", "2", "--seed", "7", "--history", TRANSFERS];
    let first = Started::new(&folder, "first", &options);
    let rpc = Rpc::new(&first.rpc()[0]);
    let last = rpc.block(33).unwrap();
    assert_eq!(last.transaction_list.len(), 200);
    assert!(
        rpc.block(34).unwrap().transaction_list.is_empty(),
        "what follows is made by the nodes"
    );

    // A node that is added fetches the history as segments.
    assert_eq!(first.json(&["add"])["node"], "node3");
    let added = Rpc::new(&first.rpc()[2]);
    let sync: SyncStatus = until("the segments are there", || {
        let sync: SyncStatus = added.call(api::SYNC_STATUS, &json!({})).ok()?;
        (sync.segments >= 2 && sync.applied_height > 33).then_some(sync)
    });
    assert!(sync.fetched_bytes > 2 << 20, "{sync:?}");
    assert_eq!(added.block(33).unwrap().summary, last.summary);
    let paid = first.json(&["load", "20/s", "--for", "1s"]);
    assert_eq!(paid["final"], 20, "transfers go on from the nonces of the history");
    let identity_of_first = identity(&first);
    drop(first);

    // A network cannot be resumed with other options than those it was made with.
    let resume = |options: &[&str]| {
        let dir = folder.join("first");
        let mut command = node_program();
        command.args(["testnet", "--plain", "--dir"]).arg(dir).args(options);
        finish(&mut command)
    };
    for (options, says) in [
        (&["--seed", "8"][..], "it has --seed 7, but the command line asks for 8"),
        (&["--history", "1"], "it has --history 6600, but the command line asks for 1"),
    ] {
        let refused = resume(options);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(says), "{refused:?}");
    }

    let second = Started::new(&folder, "second", &options);
    let identity_of_second = identity(&second);
    assert_eq!(identity_of_second[..], identity_of_first[..3]);
    let same = Rpc::new(&second.rpc()[0]).block(33).unwrap();
    assert_eq!(same.summary, last.summary, "the history too is the same");
}
