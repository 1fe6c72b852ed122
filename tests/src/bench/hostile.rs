//! Peers that say they have everything, as a seed would prove it, and then send wrong bytes or nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use ledger::chain::Chain;
use ledger::codec;
use ledger::history::SegmentHead;
use ledger::store::{Opened, Store};
use node::home::Home;
use node::network::{self, Inbox, LinkEvent, Network, NetworkConfig, PeerEvent, PeerId};
use prometheus_client::registry::Registry;
use protocol::message::{CertifiedHeader, Request, Response};
use protocol::sync::message::{ChunkId, DESCRIPTORS_MAX, Status, SyncMessage, Update};

use super::options::{self, Kind};

/// Printed once peers can connect, and before the first wrong chunk to each peer.
pub(super) const READY: &str = "ready";
pub(super) const LIED: &str = "lied to ";

/// The process: goes on until its stdin ends.
pub(super) fn execute(options: &options::Hostile) -> anyhow::Result<()> {
    let home = Home::open(&options.home)?;
    let config = home.config()?;
    let chain = Chain::new(home.genesis()?);
    let Opened { store, state, certificate } = Store::open(&home.db_path(), &chain)?;
    let header = store.header(state.tip().height)?;
    let network_config = NetworkConfig {
        identity: home.node_key()?.identity(),
        chain: chain.id().to_string(),
        listen: vec![config.p2p.listen.0.clone()],
        external: Vec::new(),
        bootstrap: Vec::new(),
        mdns: false,
        private: true,
        small_mesh: config.p2p.small,
        limits: network::Limits::default(),
        data_rate: None,
    };
    // Ends with its parent, which holds the other end of stdin.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (network, inbox, _task) = network::start(network_config, &mut Registry::default())?;
        println!("{READY}");
        let tip = header.map(|header| CertifiedHeader { header, certificate });
        let mut peer = Hostile { kind: options.kind, chain, store, tip, network, wanted: HashMap::new() };
        peer.run(inbox).await
    })
}

struct Hostile {
    kind: Kind,
    chain: std::sync::Arc<Chain>,
    store: Store,
    tip: Option<CertifiedHeader>,
    network: Network,
    wanted: HashMap<PeerId, Wanted>,
}

/// What a peer wants of us.
#[derive(Default)]
struct Wanted {
    chunks: BTreeSet<ChunkId>,
    allowed: u64,
    sent: u64,
}

impl Hostile {
    async fn run(&mut self, mut inbox: Inbox) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                Some(event) = inbox.events.recv() => self.on_event(event),
                Some(event) = inbox.links.recv() => self.on_link(event)?,
                else => return Ok(()),
            }
        }
    }

    /// Tells the tip, which is what makes others want it; all other requests find it busy.
    fn on_event(&self, event: PeerEvent) {
        if let PeerEvent::Request { bytes, ticket, .. } = event
            && matches!(codec::decode(&bytes, network::REQUEST_BYTES_MAX), Ok(Request::Status(_)))
        {
            self.network.respond(ticket, codec::encode(&Response::Status(self.tip.clone())));
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> anyhow::Result<()> {
        match event {
            LinkEvent::Opened(peer) => {
                self.wanted.insert(peer, Wanted::default());
                let sealed = self.store.descriptors(0, self.store.tip().0.next(), usize::MAX)?.len() as u64;
                let nonce = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into();
                let height = self.store.tip().0;
                self.say(
                    peer,
                    &SyncMessage::Status(Status { height, pruned_below: 0, sealed, partial: vec![], nonce }),
                );
            }
            LinkEvent::Closed(peer) => drop(self.wanted.remove(&peer)),
            LinkEvent::Data(..) | LinkEvent::Written(_) => {}
            LinkEvent::Message(peer, bytes) => match SyncMessage::decode(&bytes)? {
                SyncMessage::Update(update) => self.on_update(peer, update)?,
                SyncMessage::GetManifest(height, from) => {
                    let descriptors = self.store.descriptors(from, height, DESCRIPTORS_MAX)?;
                    self.say(peer, &SyncMessage::Manifest(height, from, Some(descriptors)));
                }
                SyncMessage::GetHead(index) => {
                    let head = self.head(index)?;
                    self.say(peer, &SyncMessage::Head(index, head));
                }
                _ => {}
            },
        }
        Ok(())
    }

    fn say(&self, peer: PeerId, message: &SyncMessage) {
        self.network.send_message(peer, codec::encode(message));
    }

    fn head(&self, index: u64) -> anyhow::Result<Option<SegmentHead>> {
        let Some(segment) = self.store.segment(index)? else { return Ok(None) };
        let certificate = self.store.certificate(segment.descriptor.last)?;
        let (descriptor, chunks) = (segment.descriptor, segment.chunks);
        Ok(certificate.map(|certificate| SegmentHead { descriptor, chunks, certificate }))
    }

    fn on_update(&mut self, peer: PeerId, update: Update) -> anyhow::Result<()> {
        let Some(wanted) = self.wanted.get_mut(&peer) else { return Ok(()) };
        wanted.chunks.retain(|id| !update.remove.contains(id));
        wanted.chunks.extend(update.add);
        wanted.allowed = wanted.allowed.max(update.allowed);
        if self.kind == Kind::Stall {
            return Ok(());
        }
        while wanted.sent < wanted.allowed
            && let Some(id) = wanted.chunks.pop_first()
        {
            let chunk = self.store.chunk(id.segment, id.chunk.into(), &self.chain.history_rules())?;
            let Some(mut bytes) = chunk else { continue };
            // One bit of a true chunk.
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            if wanted.sent == 0 {
                println!("{LIED}{peer}");
            }
            wanted.sent += 1;
            self.network.send_data(peer, id.frame(&bytes));
        }
        Ok(())
    }
}
