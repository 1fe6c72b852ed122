//! Tests of whole networks on loopback.
#![allow(clippy::unwrap_used)]

mod discovery;
mod faults;
mod gossip;
mod peers;
mod requests;

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::*;

/// Long enough for a loaded machine, short enough to notice that something hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

pub(super) fn config(bootstrap: &[&Node]) -> NetworkConfig {
    NetworkConfig {
        identity: Keypair::generate_ed25519(),
        chain: "aa".into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        external: vec![],
        bootstrap: bootstrap.iter().map(|node| node.address()).collect(),
        name_server: None,
        store: None,
        mdns: false,
        private: false,
        small_mesh: true,
        limits: Limits::default(),
        data_rate: None,
        faults: false,
    }
}

pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().take(2).collect()
}

pub(super) struct Node {
    pub(super) network: Network,
    pub(super) inbox: Inbox,
    pub(super) task: JoinHandle<()>,
    pub(super) config: NetworkConfig,
    registry: Registry,
}

impl Node {
    pub(super) async fn start(config: NetworkConfig) -> Self {
        let mut registry = Registry::default();
        let (network, inbox, task) = start(config.clone(), &mut registry).unwrap();
        let mut addresses = network.addresses();
        within("listening", addresses.wait_for(|addresses| !addresses.is_empty())).await.unwrap();
        Self { network, inbox, task, config, registry }
    }

    pub(super) fn id(&self) -> PeerId {
        self.network.local_peer()
    }

    pub(super) fn address(&self) -> Multiaddr {
        self.network.addresses().borrow()[0].clone()
    }

    /// Waits for an event from which `wanted` returns something, and drops all events before it.
    async fn event<T>(&mut self, what: &str, mut wanted: impl FnMut(PeerEvent) -> Option<T>) -> T {
        let find = async {
            loop {
                if let Some(found) = wanted(self.inbox.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        within(what, find).await
    }

    pub(super) async fn connected(&mut self, peer: PeerId) {
        self.event("connected", |event| {
            matches!(event, PeerEvent::Connected(other) if other == peer).then_some(())
        })
        .await;
    }

    pub(super) async fn disconnected(&mut self, peer: PeerId) {
        self.event("disconnected", |event| {
            matches!(event, PeerEvent::Disconnected(other) if other == peer).then_some(())
        })
        .await;
    }

    pub(super) async fn response(&mut self, id: RequestId) -> Result<Vec<u8>, RequestError> {
        self.event("a response", |event| match event {
            PeerEvent::Response { id: other, result, .. } if other == id => Some(result),
            _ => None,
        })
        .await
    }

    pub(super) async fn request(&mut self) -> (Vec<u8>, ResponseTicket) {
        self.event("a request", |event| match event {
            PeerEvent::Request { bytes, ticket, .. } => Some((bytes, ticket)),
            _ => None,
        })
        .await
    }

    fn queue(&mut self, topic: Topic) -> &mut tokio::sync::mpsc::Receiver<Gossip> {
        match topic {
            Topic::Consensus => &mut self.inbox.consensus,
            Topic::Headers => &mut self.inbox.headers,
            Topic::Transactions => &mut self.inbox.transactions,
        }
    }

    async fn gossip(&mut self, topic: Topic) -> Gossip {
        within("gossip", self.queue(topic).recv()).await.unwrap()
    }

    pub(super) async fn accept(&mut self, topic: Topic) -> Vec<u8> {
        let gossip = self.gossip(topic).await;
        self.network.verdict(gossip.ticket, Verdict::Accept);
        gossip.bytes
    }

    pub(super) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until a metric exists, which it does once it has counted something. No event reports a
    /// counter, so it is polled.
    pub(super) async fn counted(&self, name: &str) {
        let count = async {
            while !self.metrics().lines().any(|line| line.starts_with(name)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(name, count).await;
    }
}

/// Two connected nodes, each of which knows that the other listens to gossip.
pub(super) async fn pair() -> (Node, Node) {
    let mut a = Node::start(config(&[])).await;
    let mut b = Node::start(config(&[&a])).await;
    meet(&mut a, &mut b).await;
    (a, b)
}

pub(super) async fn meet(a: &mut Node, b: &mut Node) {
    let (a_id, b_id) = (a.id(), b.id());
    tokio::join!(a.connected(b_id), b.connected(a_id));
    probe(a, b).await;
    probe(b, a).await;
}

/// Subscriptions are sent only after the connection is up, so this publishes until a message
/// arrives.
async fn probe(from: &Node, to: &mut Node) {
    let heard = async {
        for number in 0u64.. {
            from.network.publish(
                Topic::Headers,
                [from.id().to_bytes(), number.to_be_bytes().to_vec()].concat(),
            );
            if timeout(Duration::from_millis(50), to.inbox.headers.recv()).await.is_ok() {
                break;
            }
        }
        // Several messages may be in flight.
        while timeout(Duration::from_millis(50), to.inbox.headers.recv()).await.is_ok() {}
    };
    within("the first gossip", heard).await;
}

pub(super) fn charge(severity: Severity) -> Charge {
    Charge { offence: "wrong_chunk".into(), detail: "a test".into(), severity }
}

pub(super) fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, 7);
    bytes
}

#[tokio::test]
async fn shutdown_ends_the_task_and_so_does_a_dropped_inbox() {
    let a = Node::start(config(&[])).await;
    let other = a.network.clone();
    a.network.shutdown().await;
    within("the end", a.task).await.unwrap();
    other.publish(Topic::Consensus, vec![1]);
    within("a second shutdown", other.shutdown()).await;

    let b = Node::start(config(&[])).await;
    drop(b.inbox);
    within("the end", b.task).await.unwrap();
}
