//! Nodes of the index that answer every look-up of a file with holders that do not exist: at
//! addresses where nobody is, and at those of innocent nodes.

use std::num::NonZeroUsize;

use anyhow::Context;
use futures::StreamExt;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{self, ProviderRecord, RecordKey};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use node::network::protocol_names;
use protocol::find::Object;
use tokio::task::JoinSet;

use super::{Field, Target};

/// Holders that an answer names: the most that an answer may have.
const HOLDERS: u16 = 20;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

/// Lying nodes of the index, at work until this value is dropped.
pub struct FalseIndex {
    _tasks: JoinSet<()>,
}

impl FalseIndex {
    /// Starts this number of false nodes. Each dials all nodes of the field, listens on loopback,
    /// and names false holders of the field's file, half of them at the addresses of `innocent`.
    /// Returns once each has answered a query, so the nodes believe that it serves the index.
    ///
    /// # Errors
    /// When the field has no file, or one of them cannot start.
    pub async fn start(field: &Field, count: usize, innocent: &[Target]) -> anyhow::Result<Self> {
        let file = field.file.context("there is no file to lie about")?;
        let key = Object::File(file.0).key(field.chain());
        let mut tasks = JoinSet::new();
        let mut waiting = Vec::new();
        for _ in 0..count {
            let mut swarm = swarm(field)?;
            for number in 0..HOLDERS {
                let innocent = innocent.get(usize::from(number / 2)).filter(|_| number % 2 == 0);
                let address: Multiaddr = match innocent {
                    Some(Target { p2p, .. }) => format!("/ip4/{}/tcp/{}", p2p.ip(), p2p.port()),
                    None => format!("/ip4/127.0.0.1/tcp/{}", 1 + number),
                }
                .parse()?;
                let key = RecordKey::new(key.0.as_bytes());
                let record = ProviderRecord::new(key, PeerId::random(), vec![address]);
                swarm.behaviour_mut().kad.store_mut().add_provider(record)?;
            }
            for target in &field.targets {
                swarm.dial(target.address()?)?;
            }
            let (asked, is_asked) = tokio::sync::oneshot::channel();
            waiting.push(is_asked);
            tasks.spawn(async move {
                let mut asked = Some(asked);
                loop {
                    let event = swarm.select_next_some().await;
                    if let SwarmEvent::Behaviour(BehaviourEvent::Kad(
                        kad::Event::InboundRequest { .. },
                    )) = event
                    {
                        let _heard = asked.take().map(|asked| asked.send(()));
                    }
                }
            });
        }
        for is_asked in waiting {
            is_asked.await?;
        }
        Ok(Self { _tasks: tasks })
    }
}

/// A node of the index that listens on a free port.
fn swarm(field: &Field) -> anyhow::Result<Swarm<Behaviour>> {
    let names = protocol_names(&field.chain().to_string());
    let kad_name = StreamProtocol::try_from_owned(names.kad)?;
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| {
            let store = MemoryStore::with_config(
                key.public().to_peer_id(),
                MemoryStoreConfig {
                    max_providers_per_key: usize::from(HOLDERS),
                    ..MemoryStoreConfig::default()
                },
            );
            let mut config = kad::Config::new(kad_name);
            config.set_replication_factor(NonZeroUsize::MIN);
            let mut kad = kad::Behaviour::with_config(key.public().to_peer_id(), store, config);
            kad.set_mode(Some(kad::Mode::Server));
            let identify = identify::Config::new(names.version, key.public());
            Behaviour { identify: identify::Behaviour::new(identify), kad }
        })?
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(std::time::Duration::from_secs(600))
        })
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    Ok(swarm)
}
