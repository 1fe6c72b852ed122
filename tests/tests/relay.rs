//! How soon blocks reach nodes that no validator is connected to.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ledger::api::TxStatus;
use tests::story::{Network, Payer, now_ms, until};

/// How long a node may take to call something final.
const SOON: Duration = Duration::from_secs(30);
/// Number of transfers, one in each block.
const BLOCKS: usize = 100;
/// At a node whose only peer is a full node, half of the blocks come within this time of the first
/// validator's commit. The limit shows how the node hears of a block, not how fast the machine is.
/// A node that waits before it fetches takes 400 ms, one that only asks from time to time two
/// seconds, and one that is told 25 ms. The test prints the measured times.
const TYPICAL_MS: u64 = 200;
/// At that node every block comes within this time of the last validator's commit. A node that is
/// not told of a block asks for it up to 2 s later. The slowest block that was told came after 130
/// ms.
const LAST_MS: u64 = 1_000;

fn connections(network: &mut Network, number: usize) -> usize {
    usize::try_from(network.node(number).status().peers).unwrap()
}

fn headers(network: &mut Network, number: usize, outcome: &str) -> f64 {
    let name =
        format!("cairn_network_gossip_messages_total{{topic=\"headers\",outcome=\"{outcome}\"}}");
    network.node(number).rpc.metric(&name)
}

#[test]
fn a_full_node_behind_a_full_node_has_each_block_at_once() {
    let mut network = Network::start(4);
    let genesis = network.genesis().clone();
    // Homes that `init` makes are for public networks. Their nodes pass on no addresses of one
    // machine and dial none that they hear of, so these nodes stay in a line.
    let validators: Vec<String> = (1..=4).map(|number| network.node(number).p2p.clone()).collect();
    network.add(&genesis, &validators).start();
    let address = network.node(5).p2p.clone();
    network.node(5).status();
    network.add(&genesis, &[address]).start();
    network.await_blocks(2);
    assert_eq!(connections(&mut network, 6), 1, "nobody but the first full node");
    until("gossip reaches the last node", || {
        (headers(&mut network, 6, "received") > 0.0).then_some(())
    });
    let before = headers(&mut network, 6, "received");

    let mut payer = Payer::new("alice", "bob", network.chain());
    let (mut ids, mut told) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let id = network.node(1).rpc.submit(&payer.transfer("")).unwrap();
        assert_eq!(network.node(1).rpc.is_final(&id, SOON), Ok(true), "{id}");
        let found = network.node(6).rpc.transaction(&id, SOON).unwrap();
        assert_eq!(found.status, TxStatus::Final, "{id} at the last node");
        // A node that was two blocks behind for a moment has no time of its own, so now counts.
        told.push(found.final_at.unwrap_or_else(now_ms));
        ids.push(id);
    }
    let validators: Vec<Vec<Option<u64>>> = (1..=4)
        .map(|number| {
            let rpc = &network.node(number).rpc;
            ids.iter().map(|id| rpc.transaction(id, SOON).unwrap().final_at).collect()
        })
        .collect();
    // How much later the last node has each block than one validator, the first or the last one.
    let behind = |name: &str, one: fn(u64, u64) -> u64| {
        let after = |(block, at): (usize, &u64)| {
            at.saturating_sub(
                validators.iter().filter_map(|times| times[block]).reduce(one).unwrap(),
            )
        };
        let mut late: Vec<u64> = told.iter().enumerate().map(after).collect();
        late.sort_unstable();
        println!(
            "behind the {name} validator: median {} ms, most {} ms",
            late[BLOCKS / 2],
            late[BLOCKS - 1]
        );
        late
    };
    let (late, last) = (behind("first", u64::min), behind("last", u64::max));
    assert!(late[BLOCKS / 2] <= TYPICAL_MS, "{late:?}");
    assert!(last[BLOCKS - 1] <= LAST_MS, "{last:?}");
    assert!(
        headers(&mut network, 6, "received") - before >= BLOCKS as f64,
        "it hears of each block"
    );
    assert_eq!(connections(&mut network, 6), 1, "nobody but the first full node");
    network.assert_one_history();
}
