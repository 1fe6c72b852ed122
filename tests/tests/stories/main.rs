//! What happens to real processes, story by story.
//!
//! `CAIRN_STORY_ROUNDS=20` lengthens the stories that kill at random moments.
#![allow(clippy::unwrap_used)]

mod joining;
mod kills;
mod requests;
mod testnet;

use std::time::Duration;

use serde_json::Value;
use tests::story::{Network, Payer, until};

/// How long a story watches for an event that must not happen.
const A_WHILE: Duration = Duration::from_secs(5);

/// How long a node may take to call something final that is not what a story is about.
const SOON: Duration = Duration::from_secs(30);

/// A transfer by way of one node, final there. All transfers of this payer before are final.
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

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}
