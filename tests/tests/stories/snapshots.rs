//! Nodes write snapshots of their chain while it grows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledger::api::HistoryPhase;
use ledger::chain::{Chain, ChainState};
use ledger::genesis::Genesis;
use ledger::snapshot::SnapshotRules;
use ledger::store::{Snapshots, Store};
use serde_json::json;
use tests::source::root;
use tests::story::{Folder, Rpc, finish, free_ports, node_program, until};

use super::json_of;
use super::started::Started;

/// A network of two validators whose segments end every 16 blocks, with a snapshot at each node.
fn network_with_snapshots(folder: &Folder) -> Started {
    let mut genesis = json_of(&fs::read_to_string(root().join("genesis.json")).unwrap());
    genesis["limits"]["segment_blocks"] = json!("16");
    genesis["limits"]["empty_block_interval_ms"] = json!("200");
    let path = folder.join("genesis.json");
    fs::write(&path, genesis.to_string()).unwrap();
    let network =
        Started::new(folder, "small", &["--nodes", "2", "--genesis", path.to_str().unwrap()]);
    network.json(&["load", "50/s", "--for", "1s"]);
    for home in homes(&network) {
        until("a snapshot is written", || heights(&home).first().map(drop));
    }
    network
}

/// The homes of all nodes.
fn homes(network: &Started) -> Vec<PathBuf> {
    let description = network.description();
    let nodes = description["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["home"].as_str().unwrap().into()).collect()
}

/// Heights of the whole snapshots of a home.
fn heights(home: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(home.join("snapshots")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let whole = names.filter(|name| name.ends_with(".snapshot"));
    whole.map(|name| name.split_once('-').unwrap().0.parse().unwrap()).collect()
}

/// A node that joins goes on from a snapshot, and has and checks all blocks in the end.
#[test]
fn a_node_joins_by_a_snapshot() {
    let folder = Folder::new();
    let network = network_with_snapshots(&folder);
    let first = Rpc::new(&network.rpc()[0]);
    network.json(&["add"]);
    let added = Rpc::new(&network.rpc()[2]);
    let target = first.status().unwrap().height;
    let status =
        until("the node is live", || added.status().ok().filter(|status| status.height >= target));
    let home = homes(&network).pop().unwrap();
    let log = fs::read_to_string(home.join("node.log")).unwrap();
    let began = log.lines().find_map(|line| line.split_once("begins with the snapshot of block "));
    let snapshot: u64 = began.unwrap_or_else(|| panic!("{log}")).1.trim().parse().unwrap();
    assert!(snapshot.is_multiple_of(16) && snapshot <= status.height, "{snapshot}: {status:?}");
    assert_eq!(heights(&home)[..], [snapshot], "it offers the snapshot that it has loaded");

    // It takes part: what is paid through it becomes final everywhere.
    let paid = network.json(&["load", "20/s", "--for", "1s"]);
    assert_eq!(paid["final"], 20);

    // Older blocks come later, also after a kill.
    network.run(&["kill", "node3"]);
    network.json(&["restart", "node3"]);
    until("all blocks are here and executed", || {
        let status = added.status().ok()?;
        let history = status.history;
        (history.phase == HistoryPhase::Done && history.executed_to >= target).then_some(())
    });
    let block = |rpc: &Rpc, height| rpc.block(height).unwrap();
    for height in 1..=target {
        assert_eq!(block(&added, height).summary, block(&first, height).summary);
    }
    drop(network);
    let verify = finish(node_program().args(["db", "verify", "--json", "--home"]).arg(&home));
    assert_eq!(verify.code, Some(0), "{verify:?}");
    let report = json_of(&verify.stdout);
    assert_eq!(report["executed_to"], report["height"], "{report}");
}

/// The operator of a new node knows a block. A chain with another block there is refused.
#[test]
fn a_chain_that_contradicts_the_checkpoint_is_refused() {
    let folder = Folder::new();
    let network = network_with_snapshots(&folder);
    let first = Rpc::new(&network.rpc()[0]);
    let description = network.description();
    let (genesis, peer) = (&description["genesis"], &description["nodes"][0]["p2p"]);
    let hash = |height| first.block(height).unwrap().summary.hash;
    // Block 16 ends a segment, block 5 is inside one.
    for (number, (height, hash)) in [(16, hash(15)), (5, hash(4))].into_iter().enumerate() {
        let home = folder.join(&format!("refusing{number}"));
        let port = free_ports();
        let [p2p, rpc] = [port, port + 1].map(|port| format!("127.0.0.1:{port}"));
        let mut init = node_program();
        init.args(["init", "--p2p-listen", &p2p, "--rpc-listen", &rpc, "--genesis"]);
        init.arg(genesis.as_str().unwrap()).arg("--home").arg(&home);
        assert_eq!(finish(&mut init).code, Some(0));
        let mut run = node_program();
        let checkpoint = format!("{height}:{hash}");
        run.args(["run", "--checkpoint", &checkpoint, "--peer", peer.as_str().unwrap(), "--home"]);
        let refused = finish(run.arg(&home));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let says =
            format!("block {} at height {height}", first.block(height).unwrap().summary.hash);
        assert!(refused.stderr.contains(&says), "{says}: {refused:?}");
        assert_eq!(heights(&home)[..], [0; 0], "nothing of that chain is kept");
    }
}

#[test]
fn a_snapshot_that_a_node_wrote_is_the_state_after_its_block() {
    let folder = Folder::new();
    let network = network_with_snapshots(&folder);
    let homes = homes(&network);
    drop(network);

    for home in &homes {
        let genesis = Genesis::from_json(&fs::read(home.join("genesis.json")).unwrap()).unwrap();
        let chain = Chain::new(genesis);
        let (snapshots, problems) = Snapshots::open(&home.join("snapshots"), &chain);
        assert_eq!(problems, []);
        let info = snapshots.list().pop().unwrap();
        let height = info.header.height;
        assert!(height.0 % 16 == 0, "block {height} seals no segment");

        // The blocks up to there give the same state.
        let store = Store::open(&home.join("db"), &chain).unwrap().store;
        let mut state = ChainState::genesis(Arc::clone(&chain));
        while state.tip().height < height {
            let block = store.block(state.tip().height.next()).unwrap().here().unwrap();
            let block = state.validate(block.verify(chain.id()).unwrap()).unwrap();
            state.advance(&block);
        }
        assert_eq!(store.header(height).unwrap().here().as_ref(), Some(&info.header));
        let certificate = &info.certificate;
        let validators = chain.validators(height);
        certificate.verify(chain.id(), validators, height, info.header.hash()).unwrap();
        let rules = SnapshotRules::new(chain.limits());
        assert!(rules.is_candidate(state.history().segments() - 1));
        let chunks = (0..info.frontier.chunk_count()).map(|index| {
            let bytes = snapshots.chunk(&info.id, index, Duration::ZERO).unwrap().unwrap();
            info.frontier.verify_chunk(index, &bytes).unwrap()
        });
        let loaded = info.frontier.assemble(chunks).unwrap();
        assert!(loaded.iter().eq(state.state().iter()));
        drop(store);

        let verify = finish(node_program().args(["db", "verify", "--json", "--home"]).arg(home));
        assert_eq!(verify.code, Some(0), "{verify:?}");
        let report = json_of(&verify.stdout);
        assert_eq!(report["snapshots"], json!(snapshots.list().len().to_string()));
    }
}
