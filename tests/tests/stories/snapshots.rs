//! Nodes write snapshots of their chain while it grows.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::{Chain, ChainState};
use ledger::genesis::Genesis;
use ledger::snapshot::SnapshotRules;
use ledger::store::{Snapshots, Store};
use serde_json::json;
use tests::source::root;
use tests::story::{Folder, finish, node_program, until};

use super::json_of;
use super::started::Started;

#[test]
fn a_snapshot_that_a_node_wrote_is_the_state_after_its_block() {
    let folder = Folder::new();
    let mut genesis = json_of(&fs::read_to_string(root().join("genesis.json")).unwrap());
    genesis["limits"]["segment_blocks"] = json!("16");
    genesis["limits"]["empty_block_interval_ms"] = json!("200");
    let path = folder.join("genesis.json");
    fs::write(&path, genesis.to_string()).unwrap();
    let network =
        Started::new(&folder, "small", &["--nodes", "2", "--genesis", path.to_str().unwrap()]);
    network.json(&["load", "50/s", "--for", "1s"]);
    let homes: Vec<PathBuf> = network.description()["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["home"].as_str().unwrap().into())
        .collect();
    for home in &homes {
        until("a snapshot is written", || {
            let entries = fs::read_dir(home.join("snapshots")).ok()?;
            let names = entries.map(|entry| entry.unwrap().file_name());
            names
                .into_iter()
                .any(|name| name.to_str().unwrap().ends_with(".snapshot"))
                .then_some(())
        });
    }
    drop(network);

    for home in &homes {
        let genesis = Genesis::from_json(&fs::read(home.join("genesis.json")).unwrap()).unwrap();
        let chain = Chain::new(genesis);
        let (snapshots, problems) = Snapshots::open(&home.join("snapshots"), &chain).unwrap();
        assert_eq!(problems, []);
        let info = snapshots.list().pop().unwrap();
        let height = info.header.height;
        assert!(height.0 % 16 == 0, "block {height} seals no segment");

        // The blocks up to there give the same state.
        let store = Store::open(&home.join("db"), &chain).unwrap().store;
        let mut state = ChainState::genesis(Arc::clone(&chain));
        while state.tip().height < height {
            let block = store.block(state.tip().height.next()).unwrap().unwrap();
            let block = state.validate(block.verify(chain.id()).unwrap()).unwrap();
            state.advance(&block);
        }
        assert_eq!(store.header(height).unwrap().as_ref(), Some(&info.header));
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
