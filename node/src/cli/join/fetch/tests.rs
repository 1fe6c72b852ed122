#![allow(clippy::unwrap_used)]

use std::net::TcpListener;

use ledger::units::Timestamp;
use prometheus_client::registry::Registry;

use super::*;
use crate::network::{self, NetworkConfig, PeerEvent};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(100);
/// For a host that never answers.
const SHORT: Duration = Duration::from_secs(2);

fn template() -> Genesis {
    Genesis::from_json(include_bytes!("../../../../../genesis.json")).unwrap()
}

/// A genesis of three pieces.
fn large() -> Genesis {
    let mut genesis = template();
    for (index, account) in genesis.accounts.iter_mut().enumerate() {
        account.name = format!("{index}{}", "x".repeat(600_000));
    }
    genesis
}

/// The right answer to a question for a piece.
fn answer_of(genesis: &Genesis, number: u32) -> Response {
    let bytes = codec::encode(genesis);
    let mut pieces = bytes.chunks(GENESIS_PIECE_BYTES);
    Response::Genesis(pieces.nth(number as usize).map(<[u8]>::to_vec))
}

/// What a host does with a question.
enum Does {
    Answers(Vec<u8>),
    /// Closes the stream, which says that it is busy.
    Drops,
    /// Keeps the stream open.
    Waits,
}

/// A node of this chain that answers as a test wants. Returns its address.
async fn host(chain: ChainId, mut does: impl FnMut(u32) -> Does + Send + 'static) -> Multiaddr {
    let config = NetworkConfig {
        chain: chain.to_string(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        ..NetworkConfig::default()
    };
    let (network, mut inbox, _task) = network::start(config, &mut Registry::default()).unwrap();
    let mut addresses = network.addresses();
    let address =
        addresses.wait_for(|addresses| !addresses.is_empty()).await.unwrap().first().cloned();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(event) = inbox.events.recv().await {
            let PeerEvent::Request { bytes, ticket, .. } = event else { continue };
            let Ok(Request::Genesis(number)) = codec::decode(&bytes, 1_024) else {
                panic!("a visitor asks for the genesis alone");
            };
            match does(number) {
                Does::Answers(bytes) => network.respond(ticket, bytes),
                Does::Drops => drop(ticket),
                Does::Waits => open.push(ticket),
            }
        }
    });
    address.unwrap()
}

/// The message of the error.
async fn refused(chain: ChainId, address: &Multiaddr, time: Duration) -> String {
    genesis(chain, address, time).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_genesis_comes_in_pieces_and_is_checked() {
    for genesis in [template(), large()] {
        let (chain, sent) = (genesis.chain_id(), genesis.clone());
        let does = move |number| Does::Answers(codec::encode(&answer_of(&sent, number)));
        let address = host(chain, does).await;
        assert_eq!(super::genesis(chain, &address, PATIENCE).await.unwrap(), genesis);
    }
    assert!(codec::encode(&large()).len() > 2 * GENESIS_PIECE_BYTES);
}

#[tokio::test]
async fn a_busy_node_is_asked_again() {
    let genesis = template();
    let (chain, sent) = (genesis.chain_id(), genesis.clone());
    let mut refusals = 2;
    let address = host(chain, move |number| {
        if refusals > 0 {
            refusals -= 1;
            return Does::Drops;
        }
        Does::Answers(codec::encode(&answer_of(&sent, number)))
    });
    let address = address.await;
    assert_eq!(super::genesis(chain, &address, PATIENCE).await.unwrap(), genesis);
}

/// One digit of a link is wrong, so that the node there is of another chain.
#[tokio::test]
async fn a_node_of_another_chain_is_named() {
    let chain = template().chain_id();
    let mut wrong = chain;
    wrong.0.0[7] ^= 1;
    let address = host(chain, |_| panic!("a node of another chain is asked nothing")).await;
    let error = refused(wrong, &address, PATIENCE).await;
    let start = format!("nobody at {address} is of chain {wrong}: the node there ");
    assert!(error.starts_with(&start), "{error}");
}

#[tokio::test]
async fn a_hostile_node_is_refused_with_the_reason() {
    let right = template();
    let chain = right.chain_id();
    let other = Genesis { start_time: Timestamp(right.start_time.0 + 1), ..right.clone() };
    let full = || Response::Genesis(Some(vec![7; GENESIS_PIECE_BYTES]));
    let sent = other.clone();
    type Answers = Box<dyn FnMut(u32) -> Response + Send>;
    let cases: [(Answers, String); 5] = [
        (
            Box::new(move |number| answer_of(&sent, number)),
            format!("it sent a genesis of chain {}, expected {chain}", other.chain_id()),
        ),
        (Box::new(|_| Response::Genesis(None)), "it sent a genesis of chain".to_owned()),
        (Box::new(|_| Response::NotKept), "the answer to another question".to_owned()),
        // It never ends.
        (Box::new(move |_| full()), "more than 16777216 bytes".to_owned()),
        (
            Box::new(|_| Response::Genesis(Some(vec![7; GENESIS_PIECE_BYTES + 1]))),
            "a piece that is too long".to_owned(),
        ),
    ];
    for (mut answers, expected) in cases {
        let address =
            host(chain, move |number| Does::Answers(codec::encode(&answers(number)))).await;
        let error = refused(chain, &address, PATIENCE).await;
        assert!(error.contains(&expected), "{expected:?} is not in {error:?}");
        assert!(error.contains(&address.to_string()) && error.len() < 500, "{error}");
    }
    for (bytes, expected) in [
        (vec![9, 9], "cannot be read"),
        (Vec::new(), "cannot be read"),
        // More than the question allows: it is not read.
        (vec![9; GENESIS_PIECE_BYTES + 100], "asked for the genesis: "),
    ] {
        let address = host(chain, move |_| Does::Answers(bytes.clone())).await;
        let error = refused(chain, &address, PATIENCE).await;
        assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    }
}

/// The chain id of the link is that of the bytes, and still no node runs them.
#[tokio::test]
async fn a_genesis_that_breaks_the_rules_is_refused() {
    let mut broken = template();
    broken.accounts[1].name = broken.accounts[0].name.clone();
    let (chain, sent) = (broken.chain_id(), broken.clone());
    let does = move |number| Does::Answers(codec::encode(&answer_of(&sent, number)));
    let address = host(chain, does).await;
    let error = refused(chain, &address, PATIENCE).await;
    assert!(error.contains("breaks the rules") && error.contains("accounts[1].name"), "{error}");

    let noise = vec![7; 1_000];
    let chain = ChainId(Hash::of(Domain::Genesis, &[&noise]));
    let answer = codec::encode(&Response::Genesis(Some(noise)));
    let address = host(chain, move |_| Does::Answers(answer.clone())).await;
    let error = refused(chain, &address, PATIENCE).await;
    assert!(error.contains("cannot be used by any node: it cannot be read"), "{error}");
    assert!(!error.contains(&address.to_string()), "the node there is not to blame: {error}");
}

#[tokio::test]
async fn whoever_does_not_answer_is_given_up() {
    let chain = template().chain_id();
    // It says that it is of the chain, and never answers.
    let address = host(chain, |_| Does::Waits).await;
    let error = refused(chain, &address, SHORT).await;
    assert!(error.contains("did not come from") && error.contains("within 2 s"), "{error}");

    // It accepts connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let error = refused(chain, &address, SHORT).await;
    assert!(error.contains("within 2 s"), "{error}");

    // Nobody listens there any more.
    drop(mute);
    let error = genesis(chain, &address, PATIENCE).await.unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn another_identity_than_the_link_names_is_refused() {
    let chain = template().chain_id();
    let address = host(chain, |_| panic!("another peer is asked nothing")).await;
    let text = address.to_string();
    let (place, _) = text.split_once("/p2p/").unwrap();
    let named = format!("{place}/p2p/{}", network::PeerId::random()).parse().unwrap();
    let error = refused(chain, &named, PATIENCE).await;
    assert!(error.contains("the node there is 12D3"), "{error}");
}
