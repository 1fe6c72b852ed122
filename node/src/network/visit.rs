//! A visit: one connection to one node, to ask it questions before this machine has a node of the
//! chain.
//!
//! It uses the transport, the handshakes and the limits of a node, but speaks only two protocols:
//! identify, which says of which chain the other node is, and requests.

use std::slice;
use std::time::Duration;

use futures::StreamExt;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use super::behaviour::{self, Guards};
use super::bootstrap::dial;
use super::dials::reason;
use super::exchange::{self, Exchange, Request, RequestError};
use super::wire::Names;
use super::{NetworkConfig, NetworkError};

/// How long the node may take to be reached and to say of which chain it is: the time of a dial,
/// and five seconds more. With a longer time a silent host would keep a person waiting. With a
/// shorter one a slow link would be given up.
const MEETING: Duration = Duration::from_secs(15);
/// Most characters shown of a node's claim about its chain.
const CLAIM_CHARS_MAX: usize = 100;

/// Why there was no visit.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// No connection was made.
    #[error("nobody answers there: {0}")]
    Unreachable(String),
    /// The node that answered has another identity than the address names.
    #[error("the node there is {0}")]
    OtherPeer(PeerId),
    /// The host there is a node of another chain, or another program that speaks libp2p.
    #[error("the node there speaks {0:?}")]
    OtherChain(String),
    /// The node closed the connection before it said of which chain it is. A node does that to
    /// nodes of other chains, and when it has no place free.
    #[error("the node there closed the connection at once")]
    Closed,
    /// The node did not say of which chain it is.
    #[error("whoever listens there did not name its chain within {} s", MEETING.as_secs())]
    Silent,
    /// This machine cannot use the network.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// The two protocols of a visit.
#[derive(NetworkBehaviour)]
struct Visitor {
    identify: identify::Behaviour,
    exchange: Exchange,
}

/// A connection to a node that says it is of our chain. Closed when dropped.
pub struct Visit {
    swarm: Swarm<Visitor>,
    peer: PeerId,
}

impl Visit {
    /// Connects to the node at an IP address, as an unknown peer with a new identity, and waits
    /// until it says that it is of this chain. The chain is an identifier in hex.
    ///
    /// # Errors
    /// [`VisitError`]. It takes at most 15 s.
    pub async fn begin(chain: &str, address: &Multiaddr) -> Result<Self, VisitError> {
        let config = NetworkConfig { chain: chain.to_owned(), ..NetworkConfig::default() };
        let (names, guards) = (Names::new(chain), Guards::new(&config));
        let visitor = Visitor {
            identify: behaviour::identify(&config, &names),
            exchange: exchange::behaviour(names.exchange.clone()),
        };
        let mut swarm = Swarm::new(
            behaviour::transport(&config, &mut Registry::default(), &guards)?,
            visitor,
            config.identity.public().to_peer_id(),
            behaviour::swarm_config(),
        );
        guards
            .dials
            .choose(slice::from_ref(address), || swarm.dial(dial(address)))
            .map_err(|error| VisitError::Unreachable(reason(&error)))?;
        let met = timeout(MEETING, meet(&mut swarm, &names.version)).await;
        let peer = met.unwrap_or(Err(VisitError::Silent))?;
        Ok(Self { swarm, peer })
    }

    /// Asks one question. The answer must come within the limits of every request, and may have at
    /// most `answer_bytes_max` bytes.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn ask(
        &mut self,
        bytes: Vec<u8>,
        answer_bytes_max: usize,
    ) -> Result<Vec<u8>, RequestError> {
        let request = Request::new(bytes, answer_bytes_max);
        let asked = self.swarm.behaviour_mut().exchange.send_request(&self.peer, request);
        loop {
            // Requests of the node are not answered: it sees that this end is busy.
            let SwarmEvent::Behaviour(VisitorEvent::Exchange(event)) =
                self.swarm.select_next_some().await
            else {
                continue;
            };
            match event {
                Event::Message { message: Message::Response { request_id, response }, .. }
                    if request_id == asked =>
                {
                    return Ok(response.bytes);
                }
                Event::OutboundFailure { request_id, error, .. } if request_id == asked => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
    }
}

/// Waits until the dialed node has said of which chain it is.
async fn meet(swarm: &mut Swarm<Visitor>, version: &str) -> Result<PeerId, VisitError> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::OutgoingConnectionError { error, .. } => {
                return Err(match &error {
                    DialError::WrongPeerId { obtained, .. } => VisitError::OtherPeer(*obtained),
                    error => VisitError::Unreachable(reason(error)),
                });
            }
            SwarmEvent::ConnectionClosed { .. } => return Err(VisitError::Closed),
            SwarmEvent::Behaviour(VisitorEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                if info.protocol_version == version {
                    return Ok(peer_id);
                }
                let claim = info.protocol_version.chars().filter(|char| !char.is_control());
                return Err(VisitError::OtherChain(claim.take(CLAIM_CHARS_MAX).collect()));
            }
            _ => {}
        }
    }
}
