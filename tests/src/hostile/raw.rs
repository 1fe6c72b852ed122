//! A peer that writes any bytes on any protocol: libp2p without the node's rules.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use node::network::protocol_names;
use tokio::time::sleep;

use super::{Field, Target};

/// The longest wait of a script: as long as the longest attack.
const FOREVER: Duration = Duration::from_secs(600);

/// What is written and read on one stream.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// Writes these bytes and ends its side. Reads the answer one byte at a time, with this pause
    /// after each.
    ReadSlowly(Vec<u8>, Duration),
    /// Writes these bytes, and leaves the stream open.
    WriteAndWait(Vec<u8>),
    /// Writes these bytes and ends its side. Reads the whole answer.
    Write(Vec<u8>),
}

/// Performs scripts. Each stream has its own clone of this, which remembers how fast to read.
#[derive(Clone, Default)]
pub(super) struct Scripts {
    pause: Option<Duration>,
}

impl request_response::Codec for Scripts {
    type Protocol = StreamProtocol;
    type Request = Script;
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Script> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<()> {
        let mut bytes = [0; 4_096];
        match self.pause {
            None => while io.read(&mut bytes).await? > 0 {},
            Some(pause) => {
                while io.read(&mut bytes[..1]).await? > 0 {
                    sleep(pause).await;
                }
            }
        }
        Ok(())
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        script: Script,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match script {
            Script::Write(bytes) => io.write_all(&bytes).await?,
            Script::ReadSlowly(bytes, pause) => {
                self.pause = Some(pause);
                io.write_all(&bytes).await?;
            }
            Script::WriteAndWait(bytes) => {
                io.write_all(&bytes).await?;
                io.flush().await?;
                sleep(FOREVER).await;
            }
        }
        io.flush().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The scripts for one protocol, and libp2p's identify protocol, by which nodes take this peer for
/// a node of the chain.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    identify: identify::Behaviour,
    scripts: request_response::Behaviour<Scripts>,
}

/// A peer with one identity.
pub(super) struct RawPeer {
    swarm: Swarm<Behaviour>,
    targets: Vec<PeerId>,
}

impl RawPeer {
    /// A peer with a new identity that dials these nodes. Its scripts run on this protocol.
    pub(super) fn dial(field: &Field, targets: &[Target], protocol: &str) -> anyhow::Result<Self> {
        let version = protocol_names(&field.chain().to_string()).version;
        let protocol = StreamProtocol::try_from_owned(protocol.to_owned())?;
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|key| Behaviour {
                identify: identify::Behaviour::new(identify::Config::new(version, key.public())),
                scripts: request_response::Behaviour::with_codec(
                    Scripts::default(),
                    [(protocol, ProtocolSupport::Outbound)],
                    request_response::Config::default()
                        .with_request_timeout(FOREVER)
                        .with_max_concurrent_streams(1_024),
                ),
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(FOREVER))
            .build();
        let mut ids = Vec::new();
        for target in targets {
            ids.push(target.peer.parse()?);
            swarm.dial(target.address()?)?;
        }
        Ok(Self { swarm, targets: ids })
    }

    /// Its identity.
    pub(super) fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    pub(super) fn is_connected(&self, target: &PeerId) -> bool {
        self.swarm.is_connected(target)
    }

    /// The nodes that it dialed.
    pub(super) fn targets(&self) -> &[PeerId] {
        &self.targets
    }

    /// Runs a script on a new stream to this node, which is dialed first if there is no connection.
    pub(super) fn play(&mut self, target: PeerId, script: Script) {
        self.swarm.behaviour_mut().scripts.send_request(&target, script);
    }

    /// Drives the swarm until the next connection is made.
    pub(super) async fn next_connection(&mut self) -> PeerId {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } =
                self.swarm.select_next_some().await
            {
                return peer_id;
            }
        }
    }

    /// Dials a node again.
    pub(super) fn redial(&mut self, target: &Target) {
        // An error means that the node is connected already, or that a dial is under way.
        let _ = target.address().map(|address| self.swarm.dial(address));
    }
}
