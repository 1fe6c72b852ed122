//! Stories of real processes, from the outside.
//!
//! `CAIRN_STORY_ROUNDS=20` lengthens the stories that kill at random moments.
#![allow(clippy::unwrap_used)]

mod archives;
mod discovery;
mod files;
mod history;
mod joining;
mod kills;
mod liars;
mod local_network;
mod private_files;
mod requests;
mod scripts;
mod snapshots;
mod started;
mod testnet;

use std::time::Duration;

use serde_json::Value;
use tests::story::{Network, Payer, until};

/// How long a story watches for an event that must not happen.
const A_WHILE: Duration = Duration::from_secs(5);

/// How long it may take until something is final, in stories that are not about this time.
const SOON: Duration = Duration::from_secs(30);

/// Submits a transfer to one node, and waits until it is final there. All earlier transfers of this
/// payer are final.
fn pay(network: &mut Network, payer: &mut Payer, number: usize) -> String {
    let rpc = &network.node(number).rpc;
    let next = payer.nonce();
    until("the node knows what is final elsewhere", || {
        payer.catch_up(rpc).unwrap();
        (payer.nonce() >= next).then_some(())
    });
    let id = rpc.submit(&payer.transfer("")).unwrap();
    assert_eq!(rpc.is_final(&id, SOON), Ok(true), "{id}");
    id
}

/// Whether a network says in its log that it killed this node, which took too long to stop. On a
/// slow machine that is no fault.
fn was_killed(log: &str, node: &str) -> bool {
    log.lines().any(|line| line.contains(node) && line.contains("was killed"))
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}
