#![allow(clippy::unwrap_used)]

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::swarm::SwarmEvent;
use prometheus_client::registry::Registry;

use super::*;
use crate::network::NetworkConfig;
use crate::network::behaviour::{Guards, swarm};
use crate::network::bootstrap::dial;
use crate::network::tests::{config, within};
use crate::network::wire::Names;

#[tokio::test]
async fn each_connection_is_counted_whoever_dials() {
    let make = || {
        // Private, so that loopback may be dialed.
        let config = NetworkConfig { private: true, ..config(&[]) };
        let guards = Guards::new(&config);
        let swarm = swarm(&config, &Names::new("aa"), &mut Registry::default(), &guards).unwrap();
        (swarm, guards.sockets)
    };
    let ((mut a, a_sockets), (mut b, b_sockets)) = (make(), make());
    a.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let (mut counts, mut is_listening) = (Vec::new(), false);
    while counts.len() < 2 {
        let (event, sockets) = tokio::select! {
            event = within("an event", a.select_next_some()) => (event, &a_sockets),
            event = within("an event", b.select_next_some()), if is_listening => {
                (event, &b_sockets)
            }
        };
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                let named: Multiaddr = address.with_p2p(*a.local_peer_id()).unwrap();
                b.dial(dial(&named)).unwrap();
                is_listening = true;
            }
            SwarmEvent::ConnectionEstablished { endpoint, .. } => {
                counts.push(*sockets.take(&endpoint).unwrap().taken.borrow());
                assert!(sockets.lock().is_empty());
            }
            _ => {}
        }
    }
    assert!(counts.iter().all(|count| *count > 100), "handshakes are longer: {counts:?}");
}

#[tokio::test]
async fn several_dials_to_one_address_at_a_time_are_not_counted_and_failures_are_forgotten() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = async || {
        TcpStream(tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap())
    };
    let to = |port: u16| ConnectedPoint::Listener {
        local_addr: "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
        send_back_addr: format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
    };
    let sockets = Sockets::default();
    let (first, second) =
        (sockets.wrap(connect().await, to(1)), sockets.wrap(connect().await, to(1)));
    assert!(sockets.take(&to(1)).is_none());
    let third = sockets.wrap(connect().await, to(1));
    assert!(sockets.take(&to(1)).is_none());
    drop((first, second));
    assert!(
        sockets.take(&to(1)).is_some_and(|hold| hold.taken.has_changed().is_ok()),
        "it is the only one left"
    );
    let failed = sockets.wrap(connect().await, to(2));
    drop((third, failed));
    let kept = sockets.wrap(connect().await, to(3));
    assert!(sockets.lock().keys().eq([&to(3)]));
    drop(kept);
}
