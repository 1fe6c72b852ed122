//! The swarm: transport and protocols, put together.

use std::time::Duration;

use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::metrics::BandwidthTransport;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, dns, identify, kad, mdns, memory_connection_limits, noise, ping, tcp};
use prometheus_client::registry::Registry;

use super::dials::Dials;
use super::discovery::Discovery;
use super::exchange::{self, Exchange};
use super::faults::Faults;
use super::gate::Gate;
use super::gossip::{self, Gossipsub, Mesh};
use super::handshakes::{HANDSHAKE_TIME, Handshakes};
use super::links;
use super::muxer::{Written, Yamux};
use super::providers::Providers;
use super::socket::Sockets;
use super::transport::Guarded;
use super::wire::Names;
use super::{NetworkConfig, NetworkError};
use crate::accounts::Accounts;

/// How long a dial may take: resolving a name, connecting, and the handshakes.
const DIAL_TIME: Duration = Duration::from_secs(10);

/// Connections stay open until one side closes them: sync and consensus both want to keep their
/// peers.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Part of the machine's memory that this process may use before it accepts and makes no more
/// connections, unless the configuration sets a limit. Each queue has its own bound. This limit
/// catches whatever those bounds miss.
const MEMORY_PART: f64 = 0.75;

/// How often the routing table is refreshed.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(60);

/// How long a gossip message may wait for a peer if faults can be set. It is longer than any cut of
/// a test.
const HELD_QUEUE_TIME: Duration = Duration::from_secs(3600);

/// All protocols. Those that may refuse a connection come first: see [`Gate`].
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gate: Gate,
    pub(crate) memory: Toggle<memory_connection_limits::Behaviour>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) discovery: Discovery,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) gossip: Gossipsub,
    pub(crate) exchange: Exchange,
    pub(crate) links: links::Behaviour,
}

/// Counts and limits that the transport, discovery and the network's task share.
#[derive(Clone)]
pub(crate) struct Guards {
    pub(crate) sockets: Sockets,
    pub(crate) written: Written,
    pub(crate) dials: Dials,
    pub(crate) handshakes: Handshakes,
    pub(crate) accounts: Accounts<PeerId>,
    /// `None` if no faults can be set. Then connections are not wrapped.
    pub(crate) faults: Option<Faults>,
}

impl Guards {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        let grouping = config.grouping();
        let pending = usize::try_from(config.limits.pending).unwrap_or(usize::MAX);
        let handshakes = Handshakes::new(grouping, pending);
        config.bootstrap.iter().for_each(|address| handshakes.name(address));
        Self {
            sockets: Sockets::default(),
            written: Written::default(),
            dials: Dials::new(grouping),
            handshakes,
            accounts: Accounts::default(),
            faults: config.faults.then(Faults::default),
        }
    }
}

/// Builds the swarm. It does not listen yet.
///
/// # Errors
/// [`NetworkError::Transport`] and [`NetworkError::Gossip`]. Neither depends on peers or the
/// machine.
pub(crate) fn swarm(
    config: &NetworkConfig,
    names: &Names,
    registry: &mut Registry,
    guards: &Guards,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let local = config.identity.public().to_peer_id();
    Ok(Swarm::new(
        transport(config, registry, guards)?,
        behaviour(config, names, local, guards)?,
        local,
        swarm_config(),
    ))
}

/// How a swarm treats its connections.
pub(crate) fn swarm_config() -> libp2p::swarm::Config {
    libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE)
}

/// The transport: TCP and names, encrypted, multiplexed, counted and guarded.
pub(crate) fn transport(
    config: &NetworkConfig,
    registry: &mut Registry,
    guards: &Guards,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetworkError> {
    let noise = noise::Config::new(&config.identity)
        .map_err(|error| NetworkError::Transport(error.to_string()))?;
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default());
    let dns = dns::tokio::Transport::system(tcp()).unwrap_or_else(|error| {
        tracing::warn!(%error, "no DNS configuration: host names cannot be resolved");
        dns::tokio::Transport::custom(
            tcp(),
            dns::ResolverConfig::default(),
            dns::ResolverOpts::default(),
        )
    });
    let (sockets, written) = (guards.sockets.clone(), guards.written.clone());
    let counted = dns.map(move |stream, endpoint| sockets.wrap(stream, endpoint));
    let secured = counted.upgrade(Version::V1Lazy).authenticate(noise).multiplex(Yamux::default());
    let secured = TransportTimeout::with_ingoing_timeout(secured, HANDSHAKE_TIME);
    let secured = TransportTimeout::with_outgoing_timeout(secured, DIAL_TIME);
    let booked = secured.map(move |(peer, mut muxer), _| {
        written.count(peer, &mut muxer);
        (peer, muxer)
    });
    let metered = BandwidthTransport::new(booked, registry);
    let faults = guards.faults.clone();
    let boxed = metered.map(move |(peer, muxer), _| {
        let muxer = StreamMuxerBox::new(muxer);
        match &faults {
            Some(faults) => (peer, faults.wrap(peer, muxer)),
            None => (peer, muxer),
        }
    });
    let boxed = boxed.boxed();
    Ok(Guarded::new(boxed, guards.dials.clone(), guards.handshakes.clone()).boxed())
}

fn behaviour(
    config: &NetworkConfig,
    names: &Names,
    local: PeerId,
    guards: &Guards,
) -> Result<Behaviour, NetworkError> {
    let discovery =
        Discovery::new(kad(config, names, local), config.private, guards.accounts.clone());
    let mesh = if config.small_mesh { Mesh::SMALL } else { Mesh::NORMAL };
    // A message for a peer that is cut off waits until the cut ends.
    let queue_time = if guards.faults.is_some() { HELD_QUEUE_TIME } else { gossip::QUEUE_TIME };
    Ok(Behaviour {
        gate: Gate::new(config.limits, config.grouping(), guards.faults.clone()),
        memory: Some(match config.limits.memory_bytes {
            Some(bytes) => memory_connection_limits::Behaviour::with_max_bytes(bytes),
            None => memory_connection_limits::Behaviour::with_max_percentage(MEMORY_PART),
        })
        .into(),
        ping: ping::Behaviour::new(ping::Config::new().with_timeout(Duration::from_secs(30))),
        identify: identify(config, names),
        discovery,
        mdns: mdns(config, local).into(),
        gossip: gossip::behaviour(names, mesh, config.private, queue_time)
            .map_err(NetworkError::Gossip)?,
        exchange: exchange::behaviour(names.exchange.clone()),
        links: links::Behaviour::new(names.links.clone()),
    })
}

pub(crate) fn identify(config: &NetworkConfig, names: &Names) -> identify::Behaviour {
    let identify = identify::Config::new(names.version.clone(), config.identity.public())
        .with_agent_version(format!("cairn-node/{}", env!("CARGO_PKG_VERSION")))
        // No cache: an address that a peer claims is not used before the network's task has checked
        // it.
        .with_cache_size(0)
        // On a public network the addresses of our own interfaces stay private.
        .with_hide_listen_addrs(!config.private)
        .with_push_listen_addr_updates(true);
    identify::Behaviour::new(identify)
}

/// Kademlia, to find peers and who has what. The task decides which records are stored, and renews
/// those of this node.
fn kad(config: &NetworkConfig, names: &Names, local: PeerId) -> kad::Behaviour<Providers> {
    let mut kad = kad::Config::new(names.kad.clone());
    kad.set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(Some(DISCOVERY_INTERVAL));
    let seed = getrandom::u64().unwrap_or(0);
    let mut kad = kad::Behaviour::with_config(local, Providers::new(local, seed), kad);
    if config.private {
        // Without this, Kademlia would serve others only if this node has an external address. On a
        // private network a node has one only if the operator configures it.
        kad.set_mode(Some(kad::Mode::Server));
    }
    kad
}

/// mDNS, if it is configured and can start. If it cannot, for example on a machine without a
/// network interface, the node runs without it.
fn mdns(config: &NetworkConfig, local: PeerId) -> Option<mdns::tokio::Behaviour> {
    if !config.mdns {
        return None;
    }
    mdns::tokio::Behaviour::new(mdns::Config::default(), local)
        .inspect_err(|error| tracing::warn!(%error, "no discovery on the local network"))
        .ok()
}
