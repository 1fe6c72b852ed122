//! Listens to the votes of one validator, as one of its peers.

use std::time::Instant;

use anyhow::Context;
use ledger::codec;
use ledger::hash::ChainId;
use ledger::signature::PublicKey;
use ledger::units::Height;
use node::config::P2pAddress;
use node::network::{self, NetworkConfig, Verdict};
use prometheus_client::registry::Registry;
use protocol::message::{Attempt, CONSENSUS_BYTES_MAX, ConsensusMessage};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::topology::Host;

/// The votes to wait for.
pub(super) struct Wanted {
    pub(super) chain: ChainId,
    /// The validator's key and address.
    pub(super) key: PublicKey,
    pub(super) address: P2pAddress,
    /// Votes of this height and lower ones do not count.
    pub(super) above: Height,
}

/// A peer of the validator, which listens. It stops when dropped.
pub(super) struct Listener {
    runtime: Runtime,
    heard: JoinHandle<anyhow::Result<Instant>>,
}

impl Listener {
    /// Starts to listen from a host.
    pub(super) fn start(host: &Host, wanted: Wanted) -> anyhow::Result<Self> {
        // The runtime's threads start in the host's namespace and stay there, and so do the sockets
        // that they open.
        let runtime =
            host.inside(|| Builder::new_multi_thread().worker_threads(1).enable_all().build())??;
        let heard = runtime.spawn(first_vote(wanted));
        Ok(Self { runtime, heard })
    }

    /// When the first vote was heard; `None` if none was yet.
    pub(super) fn heard(&mut self) -> Option<anyhow::Result<Instant>> {
        let Self { runtime, heard } = self;
        heard.is_finished().then(|| runtime.block_on(heard).context("the listener has failed")?)
    }
}

async fn first_vote(wanted: Wanted) -> anyhow::Result<Instant> {
    let config = NetworkConfig {
        chain: wanted.chain.to_string(),
        bootstrap: vec![wanted.address.0],
        ..NetworkConfig::default()
    };
    let (network, mut inbox, _task) = network::start(config, &mut Registry::default())?;
    loop {
        let gossip = inbox.consensus.recv().await.context("the network has ended")?;
        let decoded =
            codec::decode::<Attempt<ConsensusMessage>>(&gossip.bytes, CONSENSUS_BYTES_MAX);
        if let Ok(Attempt { message: ConsensusMessage::Vote(signed), .. }) = decoded
            && signed.vote.validator == wanted.key
            && signed.vote.height > wanted.above
            && signed.verify(wanted.chain)
        {
            return Ok(Instant::now());
        }
        network.verdict(gossip.ticket, Verdict::Ignore);
    }
}
