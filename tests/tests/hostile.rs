//! Each hostile behaviour for a moment, against real validators, while transfers go on. What each costs is measured by
//! `bench attack`; here it is only seen that the network goes on and blames nobody honest.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ledger::genesis::{Genesis, template_key};
use serde_json::{Value, json};
use tests::hostile::{ATTACKS, Attack, Field, IDENTITIES, Target};
use tests::story::{Network, Payer};

/// How long each behaviour goes on.
const TIME: Duration = Duration::from_secs(2);
/// How long a transfer may take beside it, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

fn target(p2p: &str, rpc: &str) -> Target {
    // /ip4/127.0.0.1/tcp/PORT/p2p/PEER
    let parts: Vec<&str> = p2p.split('/').collect();
    let [_, _, ip, _, port, _, peer] = parts[..] else { panic!("{p2p} is no address with a peer id") };
    let rpc = rpc.strip_prefix("http://").unwrap().parse().unwrap();
    Target { p2p: format!("{ip}:{port}").parse().unwrap(), peer: peer.to_owned(), rpc }
}

#[test]
fn attacks_neither_stop_finality_nor_get_honest_nodes_banned() {
    let mut network = Network::start(4);
    network.await_height(1);
    let genesis = Genesis::from_json(&std::fs::read(network.genesis()).unwrap()).unwrap();
    let targets: Vec<Target> = network.nodes().iter().map(|node| target(&node.p2p, node.rpc.url())).collect();
    let peers: Vec<String> = targets.iter().map(|target| target.peer.clone()).collect();
    let (targets, key) = (targets[..3].to_vec(), template_key("dave"));
    let field = Field { genesis, targets, home: None, key, identities: IDENTITIES };
    let chain = network.chain();
    let rpc = &network.node(4).rpc;
    let mut payer = Payer::new("alice", "bob", chain);
    payer.catch_up(rpc).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Those on sync need a node that is far behind; stories of sync have liars of their own.
    let attacks: Vec<Attack> = ATTACKS.into_iter().filter(|attack| !attack.is_at_sync).collect();
    for attack in attacks {
        let attacked = field.clone();
        let run = runtime.spawn(async move { attack.run(&attacked, TIME).await });
        while !run.is_finished() {
            let id = rpc.submit(&payer.transfer(attack.name)).unwrap();
            assert_eq!(rpc.is_final(&id, PATIENCE), Ok(true), "beside {}", attack.name);
        }
        let reached = runtime.block_on(run).unwrap().unwrap_or_else(|error| panic!("{}: {error:#}", attack.name));
        assert!(reached > 0.0, "{} attacked nobody", attack.name);
    }
    runtime.shutdown_background();
    for node in network.nodes() {
        let bans: Vec<Value> = node.rpc.call("net_bans", &json!({})).unwrap();
        let honest = |ban: &&Value| peers.iter().any(|peer| ban["peer"] == **peer);
        assert_eq!(bans.iter().filter(honest).count(), 0, "{}: {bans:?}", node.name);
    }
    network.assert_no_equivocation().await_blocks(2).assert_one_history();
}
