#![allow(clippy::unwrap_used)]

use super::*;
use crate::home::Home;

/// Ports that no other test binds.
const BASE_PORT: u16 = 38_700;

const ANY: Wanted = Wanted { nodes: None, full_nodes: None, base_port: None };

fn embedded() -> Genesis {
    Genesis::from_json(super::super::TEMPLATE.as_bytes()).unwrap()
}

fn prepare(dir: &Path, wanted: &Wanted, reset: bool) -> anyhow::Result<Layout> {
    refuse_foreign(dir)?;
    Layout::prepare(dir, wanted, None, &embedded(), reset)
}

fn wanted(nodes: u16, full_nodes: u16) -> Wanted {
    Wanted { nodes: Some(nodes), full_nodes: Some(full_nodes), base_port: Some(BASE_PORT) }
}

#[test]
fn a_network_is_made_resumed_and_reset() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let made = prepare(dir, &wanted(2, 1), false).unwrap();
    assert_eq!(made.nodes.iter().map(|node| node.validator).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(made.genesis.accounts, embedded().accounts);
    assert_eq!(made.genesis.limits, embedded().limits);
    assert_eq!(made.genesis.validators.len(), 2);
    let config = Home::open(&made.nodes[1].home).unwrap().config().unwrap();
    assert_eq!(config.rpc.listen.port(), BASE_PORT + 11);
    assert_eq!(config.p2p.peers, [made.nodes[0].p2p.clone(), made.nodes[2].p2p.clone()]);
    assert!(Home::open(&made.nodes[2].home).unwrap().validator_key().unwrap().is_none());
    let names = fs::read_to_string(dir.join("wallet/template-accounts.json")).unwrap();
    assert_eq!(names, "{\"accounts\":[\"alice\",\"bob\",\"carol\",\"dave\"]}\n");

    let resumed = prepare(dir, &ANY, false).unwrap();
    assert_eq!(resumed.genesis, made.genesis);
    assert_eq!(resumed.nodes.len(), 3);
    let error = prepare(dir, &wanted(4, 1), false).err().unwrap().to_string();
    assert!(error.contains("--nodes 2, asked for is 4") && error.contains("--reset"), "{error}");

    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let anew = prepare(dir, &wanted(1, 0), true).unwrap();
    assert_ne!(anew.genesis.chain_id(), made.genesis.chain_id());
    assert!(!dir.join("node2").exists() && dir.join("notes.txt").exists());
}

#[test]
fn a_network_moves_to_other_ports() {
    let folder = tempfile::tempdir().unwrap();
    let made = prepare(folder.path(), &Wanted { base_port: Some(BASE_PORT + 100), ..wanted(2, 0) }, false).unwrap();
    let moved = prepare(folder.path(), &Wanted { base_port: Some(BASE_PORT + 200), ..ANY }, false).unwrap();
    assert_eq!(moved.genesis, made.genesis);
    assert_eq!(moved.nodes[1].rpc.port(), BASE_PORT + 211);
    let config = Home::open(&moved.nodes[0].home).unwrap().config().unwrap();
    assert_eq!(config.p2p.peers, [moved.nodes[1].p2p.clone()]);
}

#[test]
fn an_unfinished_network_is_made_anew_and_a_foreign_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let wanted = Wanted { base_port: Some(BASE_PORT + 300), ..wanted(1, 0) };
    let made = prepare(dir, &wanted, false).unwrap();
    let plan = Plan { complete: false, ..Plan::read(dir).unwrap().unwrap() };
    plan.write(dir).unwrap();
    assert_ne!(prepare(dir, &wanted, false).unwrap().genesis.chain_id(), made.genesis.chain_id());

    fs::remove_file(dir.join(MARKER)).unwrap();
    for reset in [false, true] {
        let error = prepare(dir, &wanted, reset).err().unwrap().to_string();
        assert!(error.contains("not empty and no test network"), "{error}");
    }
}

#[test]
fn taken_ports_are_all_named_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let base_port = BASE_PORT + 400;
    let _taken = [base_port, base_port + 11].map(|port| std::net::TcpListener::bind(loopback(port)).unwrap());
    let error = prepare(folder.path(), &Wanted { base_port: Some(base_port), ..wanted(2, 0) }, false);
    let error = error.err().unwrap().to_string();
    assert!(error.contains(&format!("{base_port}, {}", base_port + 11)), "{error}");
    assert!(error.contains("--base-port"), "{error}");
    assert!(!folder.path().join("node1").exists());
    for (base_port, nodes) in [(0, 1), (65_535, 1), (65_530, 2)] {
        assert!(prepare(folder.path(), &Wanted { base_port: Some(base_port), ..wanted(nodes, 0) }, false).is_err());
    }
}
