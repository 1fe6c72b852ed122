//! The network: bytes in, bytes out. It knows peers, topics and requests, and no rule of the
//! ledger.
//!
//! One task owns the swarm. It verifies nothing and never waits for room in a queue, so it always
//! answers pings and keeps all connections moving. The rest of the node sends through a [`Network`]
//! and receives from an [`Inbox`].

mod address;
mod bans;
mod behaviour;
mod bootstrap;
mod callbacks;
mod dials;
mod discovery;
mod endpoint;
mod eviction;
mod exchange;
mod faults;
mod frame;
mod gate;
mod gossip;
mod group;
mod handle;
mod handshakes;
mod inbox;
mod intake;
mod interfaces;
mod known;
mod line;
mod links;
mod meters;
mod muxer;
mod peers;
mod providers;
mod requests;
mod seeds;
mod share;
mod socket;
mod store;
mod task;
mod traffic;
mod transport;
mod visit;
mod wire;

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

pub use self::bans::{BanInfo, Charge, Severity};
pub(crate) use self::dials::without_peer;
pub use self::endpoint::{Endpoint, Host, Reach, is_host_name};
pub use self::eviction::Service;
pub use self::exchange::RequestError;
pub use self::faults::{FAULTY_PEERS_MAX, FaultError, FaultPlan, LATENCY_MAX};
use self::group::Grouping;
pub(crate) use self::group::address_group;
pub use self::handle::{Network, ProviderEvent, Source};
pub use self::inbox::{Gossip, GossipTicket, Inbox, PeerEvent, ResponseTicket, Verdict};
pub use self::interfaces::own_addresses;
pub use self::known::{KnownAddress, Outcome};
pub use self::links::LinkEvent;
pub use self::peers::{PeerInfo, Traffic};
pub use self::requests::{REQUESTS_PER_PEER_MAX, RequestId};
pub use self::visit::{Visit, VisitError};
pub use self::wire::{
    LINK_DATA_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, ProtocolNames, REQUEST_BYTES_MAX,
    RESPONSE_BYTES_MAX, Topic, protocol_names,
};

/// Part of a log filter that silences libp2p. Most lines of libp2p are meant for its authors, and
/// some are logged for every message.
pub const LOG_FILTER: &str = "\
    libp2p=warn,libp2p_gossipsub=error,libp2p_request_response=error,libp2p_kad=error,\
    libp2p_identify=error,libp2p_mdns=error,libp2p_swarm=warn,libp2p_tcp=warn,\
    libp2p_core=warn,yamux=error,multistream_select=warn,hickory_resolver=error,\
    hickory_proto=error,hickory_net=error,netlink_proto=warn";

/// Settings of the network. All but `chain` are local to a node.
#[derive(Clone)]
pub struct NetworkConfig {
    /// Our identity to peers.
    pub identity: Keypair,
    /// The chain's identifier, in hex. It is part of every protocol name, so nodes of different
    /// chains cannot talk.
    pub chain: String,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Addresses, given by the operator, at which others can reach us. With at least one of these,
    /// or with a public listening address, a node of a public network helps others to find peers.
    pub external: Vec<Multiaddr>,
    /// Addresses of named peers, to which the node stays connected. An address may end with `/p2p/`
    /// and the peer's identity. Of the limits on connections only `per_peer` and `memory_bytes`
    /// apply to named peers, in either direction. `/dnsaddr/NAME` is no peer but a name with
    /// addresses of peers, which are dialed while no peer is connected.
    pub bootstrap: Vec<Multiaddr>,
    /// The name server that is asked for `/dnsaddr/NAME`; `None` for those of the system.
    pub name_server: Option<SocketAddr>,
    /// The file in which peers are remembered from one run to the next. `None` remembers nothing.
    pub store: Option<PathBuf>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Whether this is a private network. Then private addresses are dialed, all nodes serve
    /// discovery, and many nodes may share one address.
    pub private: bool,
    /// Whether the network has only a handful of nodes.
    pub small_mesh: bool,
    /// Limits on connections.
    pub limits: Limits,
    /// The rate at which a data frame of a link is written, in bytes a second; `None` is as fast as
    /// the connection takes it. At a limited rate little of a frame is queued ahead of other
    /// messages. Each frame is written an eighth faster than this rate, to make up for the pauses
    /// between frames. However low the rate is, it spreads a frame over at most 150 ms. The caller
    /// decides how many frames are written at a time.
    pub data_rate: Option<NonZeroU64>,
    /// Whether faults can be set: peers cut off, latency. For local networks.
    pub faults: bool,
}

impl Default for NetworkConfig {
    /// A new identity on no chain, which listens nowhere and dials nobody.
    fn default() -> Self {
        Self {
            identity: Keypair::generate_ed25519(),
            chain: String::new(),
            listen: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            name_server: None,
            store: None,
            mdns: false,
            private: false,
            small_mesh: false,
            limits: Limits::default(),
            data_rate: None,
            faults: false,
        }
    }
}

impl NetworkConfig {
    pub(crate) fn grouping(&self) -> Grouping {
        Grouping { private: self.private, groups_loopback: self.limits.groups_loopback }
    }
}

/// Limits on connections. Of these only `per_peer` and `memory_bytes` apply to named peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that peers made with us. When all places are taken, a newcomer replaces the
    /// least useful connection.
    pub inbound: u32,
    /// Connections that we made and keep, at most one for each group of addresses.
    pub outbound: u32,
    /// Inbound handshakes under way. The same number of outbound dials may be under way to
    /// addresses that Kademlia chose; dials that this node chose itself have no limit.
    pub pending: u32,
    /// Connections with one peer; the newest stay. Must be at least 2, since otherwise two nodes
    /// that dial each other at once would both hang up.
    pub per_peer: u32,
    /// Inbound connections from one IPv4 /24 or IPv6 /48. On private networks and loopback each
    /// address and port is a group of its own.
    pub per_group: u32,
    /// Memory of the process, in bytes, above which no connection is accepted or made. `None` means
    /// three quarters of the machine's memory.
    pub memory_bytes: Option<usize>,
    /// Whether loopback addresses are grouped as public ones are. For tests.
    pub groups_loopback: bool,
}

impl Limits {
    /// Connections in all: `inbound`, `outbound`, and as many again as `outbound` for named peers
    /// and probes.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.inbound.saturating_add(self.outbound.saturating_mul(2))
    }

    /// The same limits, scaled to this number of connections in all.
    #[must_use]
    pub fn with_connections(self, connections: u32) -> Self {
        let outbound = self.outbound.min(connections / 8);
        Self { inbound: connections - 2 * outbound, outbound, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inbound: 96,
            outbound: 16,
            pending: 64,
            per_peer: 2,
            per_group: 8,
            memory_bytes: None,
            groups_loopback: false,
        }
    }
}

/// Why the network does not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node cannot listen on an address, usually because another process has the port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: Multiaddr,
        /// The system's error.
        source: io::Error,
    },
    /// The identity cannot be used to encrypt.
    #[error("cannot set up the transport: {0}")]
    Transport(String),
    /// Our gossip parameters contradict each other.
    #[error("cannot set up gossip: {0}")]
    Gossip(String),
}

/// Listens and starts the network's task. Must be called within a tokio runtime.
///
/// The task ends after [`Network::shutdown`], or when the [`Inbox`] or all handles are dropped.
///
/// # Errors
/// See [`NetworkError`]. Nothing runs then.
pub fn start(
    config: NetworkConfig,
    registry: &mut Registry,
) -> Result<(Network, Inbox, JoinHandle<()>), NetworkError> {
    let (task, network, inbox) = task::Task::new(config, registry)?;
    Ok((network, inbox, tokio::spawn(task.run())))
}
