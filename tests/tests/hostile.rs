//! Each attack, except those on a node that syncs, runs for a moment against real validators, while
//! transfers go on. `bench attack` measures what each attack costs. These tests check only that the
//! network goes on and bans no honest node.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ledger::api::PeerInfo;
use ledger::codec;
use ledger::genesis::{Genesis, template_key};
use ledger::hash::{Domain, Hash, TxHash};
use node::network::{self, Inbox, Keypair, NetworkConfig, PeerEvent, RequestError};
use prometheus_client::registry::Registry;
use protocol::message::{
    HEADER_MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTED_TRANSACTIONS_MAX, Request,
};
use serde_json::{Value, json};
use tests::hostile::{ATTACKS, Attack, Crowd, Field, Target};
use tests::story::{Network, Node, Payer, until};

/// How long each attack goes on.
const TIME: Duration = Duration::from_secs(2);
/// How long a transfer may take during an attack, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn target(p2p: &str, rpc: &str) -> Target {
    // The address has the form /ip4/127.0.0.1/tcp/PORT/p2p/PEER.
    let parts: Vec<&str> = p2p.split('/').collect();
    let [_, _, ip, _, port, _, peer] = parts[..] else {
        panic!("{p2p} is no address with a peer id")
    };
    let rpc = rpc.strip_prefix("http://").unwrap().parse().unwrap();
    Target { p2p: format!("{ip}:{port}").parse().unwrap(), peer: peer.to_owned(), rpc }
}

#[test]
fn attacks_neither_stop_finality_nor_get_honest_nodes_banned() {
    let mut network = Network::start(4);
    network.await_height(1);
    let genesis = Genesis::from_json(&std::fs::read(network.genesis()).unwrap()).unwrap();
    let targets: Vec<Target> =
        network.nodes().iter().map(|node| target(&node.p2p, node.rpc.url())).collect();
    let peers: Vec<String> = targets.iter().map(|target| target.peer.clone()).collect();
    let (targets, key) = (targets[..3].to_vec(), template_key("dave"));
    let field = Field { genesis, targets, home: None, key, file: None, crowd: Crowd::default() };
    let chain = network.chain();
    let rpc = &network.node(4).rpc;
    let mut payer = Payer::new("alice", "bob", chain);
    payer.catch_up(rpc).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Attacks on sync need a node that is far behind. Other tests have hostile seeds for sync.
    let attacks: Vec<Attack> = ATTACKS.into_iter().filter(|attack| !attack.is_at_sync).collect();
    for attack in attacks {
        let attacked = field.clone();
        // On a slow machine the first moments may pass before anybody is attacked.
        let run = runtime.spawn(async move {
            let start = Instant::now();
            loop {
                let reached = attack.run(&attacked, TIME).await?;
                if reached > 0.0 || start.elapsed() > PATIENCE {
                    return anyhow::Ok(reached);
                }
            }
        });
        while !run.is_finished() {
            let id = rpc.submit(&payer.transfer(attack.name)).unwrap();
            assert_eq!(rpc.is_final(&id, PATIENCE), Ok(true), "beside {}", attack.name);
        }
        let reached = runtime
            .block_on(run)
            .unwrap()
            .unwrap_or_else(|error| panic!("{}: {error:#}", attack.name));
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

/// Requests of one peer that are in flight at a time. They are fewer than either side allows, so
/// only the peer's budget can stop it.
const UNDER_WAY: usize = 16;
/// If this many requests are served, no budget limits the peer. A request costs 1 ms of work: 1,000
/// look-ups of 1 µs. A budget holds at most 500 ms and gains 100 ms a second. So it pays for 500
/// requests at once and for 100 a second after that.
const SERVED_MAX: u64 = 10_000;
/// How often the peer hears *busy* before the test looks at the peer's budget.
const BUSY: usize = 50;

fn peers(node: &Node) -> Vec<PeerInfo> {
    node.rpc.call("net_peers", &json!({})).unwrap()
}

/// A peer that dials the first node of the network.
fn join(network: &mut Network) -> (network::Network, Inbox) {
    let chain = network.chain().to_string();
    let node = network.node(1);
    let bootstrap = vec![target(&node.p2p, node.rpc.url()).address().unwrap()];
    let identity = Keypair::generate_ed25519();
    let config =
        NetworkConfig { identity, chain, bootstrap, private: true, ..NetworkConfig::default() };
    let (peer, inbox, _task) = network::start(config, &mut Registry::default()).unwrap();
    (peer, inbox)
}

async fn event(inbox: &mut Inbox) -> PeerEvent {
    tokio::time::timeout(PATIENCE, inbox.events.recv())
        .await
        .expect("an event")
        .expect("the network goes on")
}

/// Waits for the next answer. Returns whether the request was served; if not, the node was busy.
async fn is_served(inbox: &mut Inbox) -> bool {
    loop {
        match event(inbox).await {
            PeerEvent::Response { result: Ok(_), .. } => return true,
            PeerEvent::Response { result: Err(RequestError::Busy), .. } => return false,
            PeerEvent::Response { result: Err(error), .. } => panic!("{error}"),
            PeerEvent::Disconnected(_) => panic!("an empty budget costs no connection"),
            PeerEvent::Connected(_) | PeerEvent::Request { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_peer_without_budget_hears_busy_and_is_neither_disconnected_nor_banned() {
    let mut network = Network::start(1);
    let (peer, mut inbox) = join(&mut network);
    let node = network.node(1);
    let to = loop {
        if let PeerEvent::Connected(to) = event(&mut inbox).await {
            break to;
        }
    };
    // Nobody has these transactions, so each costs a look-up that finds nothing.
    let unknown = |number: usize| TxHash(Hash::of(Domain::Chunk, &[&number.to_be_bytes()]));
    let request = codec::encode(&Request::Transactions(
        (0..REQUESTED_TRANSACTIONS_MAX).map(unknown).collect(),
    ));
    let ask = || peer.request(to, request.clone());
    for _ in 0..UNDER_WAY {
        ask();
    }
    let (mut served, mut busy) = (0, 0);
    while busy < BUSY {
        assert!(served < SERVED_MAX, "{served} requests were served and {busy} were not");
        match is_served(&mut inbox).await {
            true => served += 1,
            false => busy += 1,
        }
        ask();
    }
    let shown =
        peers(node).into_iter().find(|shown| shown.id == peer.local_peer().to_string()).unwrap();
    assert!(shown.cost.refused >= BUSY as u64, "{shown:?}");
    // The last request is charged a moment after its answer.
    assert!(
        shown.cost.look_up >= (served - 1) * REQUESTED_TRANSACTIONS_MAX as u64,
        "{served} served: {shown:?}"
    );
    let bans: Vec<Value> = node.rpc.call("net_bans", &json!({})).unwrap();
    assert_eq!(bans, Vec::<Value>::new());
    // The requests in flight end. Once the budget has refilled, the same connection is served
    // again.
    for _ in 0..UNDER_WAY {
        is_served(&mut inbox).await;
    }
    loop {
        ask();
        if is_served(&mut inbox).await {
            break;
        }
    }
}

/// An answer to a request for the tip has at most 128 KiB. This longer one does not decode, so it
/// would cost the peer its connection if the node read it.
#[tokio::test]
async fn an_answer_longer_than_its_request_allows_is_not_read() {
    let mut network = Network::start(1);
    let (peer, mut inbox) = join(&mut network);
    let mut asked = 0;
    while asked < 3 {
        match event(&mut inbox).await {
            PeerEvent::Request { bytes, ticket, .. } => {
                match codec::decode(&bytes, REQUEST_BYTES_MAX).unwrap() {
                    Request::Tip(_) => asked += 1,
                    // Asked once of each peer with a link.
                    Request::Eras(_) => {}
                    other => panic!("{other:?}"),
                }
                peer.respond(ticket, vec![0xff; HEADER_MESSAGE_BYTES_MAX + 1]);
            }
            PeerEvent::Disconnected(_) => panic!("the answer was read"),
            _ => {}
        }
    }
}

/// Two of four validators decide nothing, so each of them repeats its votes, and the other one
/// passes each repeated vote on.
#[test]
fn passing_on_a_vote_that_is_said_again_is_charged() {
    let mut network = Network::start(4);
    network.await_height(1).crash(3).crash(4);
    until("each node has charged the other one for repeats", || {
        [1, 2]
            .iter()
            .all(|number| peers(network.node(*number)).iter().any(|peer| peer.cost.relay > 0))
            .then_some(())
    });
}
