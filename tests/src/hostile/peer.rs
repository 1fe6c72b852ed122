//! A peer that speaks as nodes do: the node's own network code, with something else behind it.

use node::network::{self, Inbox, Keypair, Network, NetworkConfig, PeerEvent, PeerId};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use super::{Field, Target};

/// One identity.
pub(super) struct Peer {
    pub(super) network: Network,
    pub(super) inbox: Inbox,
    /// Nodes that it is connected to.
    pub(super) connected: Vec<PeerId>,
    _task: JoinHandle<()>,
}

impl Peer {
    /// Starts a new identity that dials these nodes, and again whenever it has lost one.
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

    /// Takes in all events that wait, without waiting for more.
    pub(super) fn drain(&mut self) {
        while let Ok(event) = self.inbox.events.try_recv() {
            self.on_event(event);
        }
    }

    /// Keeps book of connections. Requests are dropped: others hear that it is busy.
    pub(super) fn on_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Connected(peer) => self.connected.push(peer),
            PeerEvent::Disconnected(peer) => self.connected.retain(|other| *other != peer),
            PeerEvent::Request { .. } | PeerEvent::Response { .. } => {}
        }
    }
}
