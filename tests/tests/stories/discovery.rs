//! Nodes that know one address find all others, and need it only once.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use tests::story::{Network, Node, finish, node_program, until};

/// Number of nodes besides the one that all of them know.
const NEWCOMERS: usize = 6;

/// What a node knows of others.
fn known(node: &Node) -> Vec<Value> {
    let shown = finish(node_program().args(["nodes", "--json", "--home"]).arg(&node.home));
    assert_eq!(shown.code, Some(0), "{shown:?}");
    serde_json::from_str(&shown.stdout).unwrap()
}

fn text<'a>(node: &'a Value, field: &str) -> &'a str {
    node[field].as_str().unwrap_or_default()
}

/// The addresses, with the peers' identities at their ends, for which `is_wanted` holds.
fn addresses(node: &Node, is_wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let known = known(node);
    let wanted = known.iter().filter(|it| is_wanted(it));
    wanted.map(|it| format!("{}/p2p/{}", text(it, "address"), text(it, "id"))).collect()
}

/// The address of a node, with its identity.
fn address(node: &Node) -> String {
    let shown = finish(node_program().args(["address", "--home"]).arg(&node.home));
    let peer = shown.stdout.trim().rsplit_once("/p2p/").unwrap().1.to_owned();
    let listen = node.p2p.split("/p2p/").next().unwrap();
    format!("{listen}/p2p/{peer}")
}

#[test]
fn nodes_find_each_other_and_rejoin_without_the_node_they_began_with() {
    let mut network = Network::start(1);
    let (genesis, first) = (network.genesis().clone(), network.node(1).p2p.clone());
    for _ in 0..NEWCOMERS {
        let node = network.add(&genesis, std::slice::from_ref(&first));
        let path = node.home.join("config.toml");
        let settings = fs::read_to_string(&path).unwrap();
        fs::write(&path, settings.replace("private = false", "private = true")).unwrap();
        node.start();
    }
    let all: BTreeSet<String> = network.nodes().iter().map(address).collect();
    assert_eq!(all.len(), NEWCOMERS + 1);
    for node in network.nodes() {
        let others: BTreeSet<String> =
            all.iter().filter(|other| **other != address(node)).cloned().collect();
        node.status();
        until("it knows all others", || {
            addresses(node, |_| true).is_superset(&others).then_some(())
        });
    }
    // Of a connected node it is known how high it is.
    let newcomer = network.node(NEWCOMERS + 1);
    until("the first node is seen with a height", || {
        let known = known(newcomer);
        let first = known.iter().find(|it| first.ends_with(text(it, "id")))?;
        (first["connected"] == true && first["height"].is_u64()).then_some(())
    });
    let store = newcomer.home.join("peers.json");
    until("it has saved all others", || {
        let saved = fs::read_to_string(&store).ok()?;
        let ids = all.iter().filter(|it| !it.starts_with(&newcomer.p2p));
        let mut ids = ids.filter_map(|it| it.rsplit_once('/')).map(|(_, id)| id);
        ids.all(|id| saved.contains(id)).then_some(())
    });
    network.crash(1).crash(NEWCOMERS + 1).restart(NEWCOMERS + 1);
    let newcomer = network.node(NEWCOMERS + 1);
    newcomer.status();
    until("it is connected to another node", || {
        let connected = addresses(newcomer, |it| it["connected"] == true);
        (!connected.is_empty() && !connected.contains(&first)).then_some(())
    });
}
