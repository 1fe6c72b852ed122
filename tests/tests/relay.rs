//! Blocks reach nodes that no validator is connected to.
//!
//! How soon they arrive is tested in virtual time, in `protocol/src/live/tests/headers.rs`. This
//! test prints the time and does not check it, since it depends on the machine: some 10 ms on two
//! idle cores.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ledger::api::TxStatus;
use tests::story::{Network, Payer, now_ms, until};

/// How long a node may take to call something final.
const SOON: Duration = Duration::from_secs(30);
/// Number of transfers, one in each block.
const BLOCKS: usize = 100;

fn connections(network: &mut Network, number: usize) -> usize {
    usize::try_from(network.node(number).status().peers).unwrap()
}

/// Number of certified headers that a node received by gossip.
fn headers(network: &mut Network, number: usize) -> f64 {
    let name = "cairn_network_gossip_messages_total{topic=\"headers\",outcome=\"received\"}";
    network.node(number).rpc.metric(name)
}

#[test]
fn a_full_node_behind_a_full_node_is_told_of_blocks() {
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
    let mut payer = Payer::new("alice", "bob", network.chain());
    let mut late = Vec::new();
    for _ in 0..BLOCKS {
        let heard = headers(&mut network, 6);
        let id = network.node(1).rpc.submit(&payer.transfer("")).unwrap();
        let found = network.node(6).rpc.transaction(&id, SOON).unwrap();
        assert_eq!(found.status, TxStatus::Final, "{id} at the last node");
        // A node that fetched two blocks together has recorded no time for this transfer, so the
        // present time counts.
        let here = found.final_at.unwrap_or_else(now_ms);
        let at = |number: usize| network.node(number).rpc.transaction(&id, SOON).unwrap().final_at;
        late.push(here.saturating_sub((1..=4).filter_map(at).max().unwrap_or(here)));
        until("gossip of a new block reaches the last node", || {
            (headers(&mut network, 6) > heard).then_some(())
        });
    }
    late.sort_unstable();
    println!(
        "behind the last validator: median {} ms, most {} ms",
        late[BLOCKS / 2],
        late[BLOCKS - 1]
    );
    assert_eq!(connections(&mut network, 6), 1, "nobody but the first full node");
    network.assert_one_history();
}
