//! A peer that keeps to the protocol: the node's own network code, controlled by an attack.

use node::network::{self, Inbox, Keypair, Network, NetworkConfig, PeerEvent, PeerId};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use super::{Field, Target};

/// A peer with one identity.
pub(super) struct Peer {
    pub(super) network: Network,
    pub(super) inbox: Inbox,
    /// The nodes that it is connected to.
    pub(super) connected: Vec<PeerId>,
    _task: JoinHandle<()>,
}

impl Peer {
    /// Starts a peer with a new identity. It dials these nodes, and dials each again after a
    /// disconnect.
    pub(super) fn dial(field: &Field, targets: &[Target]) -> anyhow::Result<Self> {
        let config = NetworkConfig {
            identity: Keypair::generate_ed25519(),
            chain: field.chain().to_string(),
            listen: Vec::new(),
            bootstrap: targets.iter().map(Target::address).collect::<anyhow::Result<_>>()?,
            private: true,
            small_mesh: true,
            ..NetworkConfig::default()
        };
        let (network, inbox, task) = network::start(config, &mut Registry::default())?;
        Ok(Self { network, inbox, connected: Vec::new(), _task: task })
    }

    /// Waits until it is connected to at least one node.
    pub(super) async fn connect(&mut self) -> anyhow::Result<()> {
        while self.connected.is_empty() {
            let event = self.inbox.events.recv().await;
            self.on_event(event.ok_or_else(|| anyhow::anyhow!("the network has ended"))?);
        }
        Ok(())
    }

    /// Handles all events that wait, without waiting for more.
    pub(super) fn drain(&mut self) {
        while let Ok(event) = self.inbox.events.try_recv() {
            self.on_event(event);
        }
    }

    /// Keeps the list of connections. Requests are dropped, which the node sees as *busy*.
    pub(super) fn on_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected(peer) => self.connected.push(peer),
            PeerEvent::Disconnected(peer) => self.connected.retain(|other| *other != peer),
            PeerEvent::Request { .. } | PeerEvent::Response { .. } => {}
        }
    }
}
