//! Seeders that prove that they know the whole chain, as honest ones do. Then they send wrong
//! chunks, none, or wrong lists of segments and chunks.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::ValueEnum;
use ledger::chain::Chain;
use ledger::codec;
use ledger::history::SegmentHead;
use ledger::store::{Kept, Opened, Store};
use ledger::units::SegmentIndex;
use node::home::Home;
use node::network::{self, Inbox, LinkEvent, Multiaddr, Network, NetworkConfig, PeerEvent, PeerId};
use prometheus_client::registry::Registry;
use protocol::message::{CertifiedHeader, Request, Response};
use protocol::swarm::SegmentRanges;
use protocol::swarm::message::{
    ChunkId, CollectionId, CollectionNumber, DESCRIPTORS_MAX, Holdings, SyncMessage, Update,
};
use tokio::time::{Instant, timeout_at};

use super::Field;

/// Printed once peers can connect.
pub const READY: &str = "ready";
/// Printed before the first wrong chunk to each peer, and followed by the peer's id.
pub const LIED: &str = "lied to ";

/// The kinds of hostile seeders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Sends chunks with a wrong bit.
    Poison,
    /// Claims to have chunks and sends none.
    Stall,
    /// Sends manifests with a wrong bit.
    WrongManifest,
    /// Sends heads of segments with a wrong bit.
    WrongHead,
}

/// Runs a seeder of each kind. They dial the full node and share one copy of the chain. Returns how
/// many of them had a link.
pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let home = field.home.as_deref().context("seeders need a home with a chain")?;
    let target = field.full_node()?.address()?;
    let opened = Opening::new(home)?;
    let mut runs = tokio::task::JoinSet::new();
    for kind in Kind::value_variants().iter().copied() {
        let config = NetworkConfig {
            identity: network::Keypair::generate_ed25519(),
            chain: field.chain().to_string(),
            bootstrap: vec![target.clone()],
            private: true,
            small_mesh: true,
            ..NetworkConfig::default()
        };
        let opened = opened.clone();
        runs.spawn(async move {
            let (network, inbox, _task) = network::start(config, &mut Registry::default())?;
            let mut seeder = opened.seeder(kind, network);
            // An error means that the time is over.
            timeout_at(until, seeder.run(inbox)).await.unwrap_or(Ok(()))?;
            anyhow::Ok(!seeder.wanted.is_empty() || seeder.was_linked)
        });
    }
    let mut reached = 0;
    while let Some(was_linked) = runs.join_next().await {
        reached += usize::from(was_linked??);
    }
    Ok(reached as f64)
}

/// Runs one seeder as a process of its own. It listens at the address of its home, and ends when
/// its stdin ends.
///
/// # Errors
/// When its home cannot be opened, or the port is taken.
pub fn execute(kind: Kind, home: &Path) -> anyhow::Result<()> {
    let opened = Opening::new(home)?;
    let home = Home::open(home)?;
    let config = home.config()?;
    let network_config = NetworkConfig {
        identity: home.node_key()?.identity(),
        chain: opened.chain.id().to_string(),
        listen: vec![Multiaddr::clone(&config.p2p.listen.0)],
        private: true,
        small_mesh: config.p2p.small,
        ..NetworkConfig::default()
    };
    // This process ends with its parent, which holds the other end of stdin.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (network, inbox, _task) = network::start(network_config, &mut Registry::default())?;
        println!("{READY}");
        opened.seeder(kind, network).run(inbox).await
    })
}

/// A chain on disk, opened once for all hostile seeders.
#[derive(Clone)]
struct Opening {
    chain: Arc<Chain>,
    store: Store,
    tip: Option<CertifiedHeader>,
}

impl Opening {
    fn new(home: &Path) -> anyhow::Result<Self> {
        let home = Home::open(home)?;
        let chain = Chain::new(home.genesis()?);
        let Opened { store, state, certificate } = Store::open(&home.db_path(), &chain)?;
        let header = store.header(state.tip().height)?.here();
        Ok(Self { chain, store, tip: header.map(|header| CertifiedHeader { header, certificate }) })
    }

    fn seeder(self, kind: Kind, network: Network) -> Hostile {
        let Self { chain, store, tip } = self;
        Hostile { kind, chain, store, tip, network, wanted: HashMap::new(), was_linked: false }
    }
}

struct Hostile {
    kind: Kind,
    chain: Arc<Chain>,
    store: Store,
    tip: Option<CertifiedHeader>,
    network: Network,
    wanted: HashMap<PeerId, Wanted>,
    /// Whether a node has ever opened a link with this seeder.
    was_linked: bool,
}

/// The chunks that a peer wants, and the credit that it gave.
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

    /// Answers requests for the tip, so that nodes want chunks. All other requests are answered
    /// with *busy*.
    fn on_event(&self, event: PeerEvent) {
        if let PeerEvent::Request { bytes, ticket, .. } = event
            && matches!(codec::decode(&bytes, network::REQUEST_BYTES_MAX), Ok(Request::Tip(_)))
        {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            self.network
                .respond(ticket, codec::encode(&Response::Tip { now, head: self.tip.clone() }));
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> anyhow::Result<()> {
        match event {
            LinkEvent::Opened(peer) => {
                self.was_linked = true;
                self.wanted.insert(peer, Wanted::default());
                let descriptors = self.store.descriptors(0, self.store.tip().0.next(), usize::MAX);
                let whole = SegmentRanges::before(SegmentIndex(descriptors.len() as u64));
                let nonce = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into();
                let holdings = Holdings { whole, open: vec![], nonce };
                let number = CollectionNumber(0);
                self.say(peer, &SyncMessage::Height(self.store.tip().0));
                let id = CollectionId(self.chain.id().0);
                self.say(peer, &SyncMessage::Open(number, id));
                self.say(peer, &SyncMessage::Holdings(number, holdings));
            }
            LinkEvent::Closed(peer) => drop(self.wanted.remove(&peer)),
            LinkEvent::Data(..) | LinkEvent::Written(_) => {}
            LinkEvent::Message(peer, bytes) => match SyncMessage::decode(&bytes)? {
                SyncMessage::Update(update) => self.on_update(peer, update)?,
                SyncMessage::GetManifest(height, from) => {
                    let mut descriptors = self.store.descriptors(from.0, height, DESCRIPTORS_MAX);
                    if self.kind == Kind::WrongManifest
                        && let Some(last) = descriptors.last_mut()
                    {
                        last.chunks_root.0[0] ^= 1;
                    }
                    self.say(peer, &SyncMessage::Manifest(height, from, Some(descriptors)));
                }
                SyncMessage::GetHead(index) => {
                    let mut head = self.head(index)?;
                    if self.kind == Kind::WrongHead
                        && let Some(first) = head.as_mut().and_then(|head| head.chunks.first_mut())
                    {
                        first.0[0] ^= 1;
                    }
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

    fn head(&self, index: SegmentIndex) -> anyhow::Result<Option<SegmentHead>> {
        let Kept::Here(segment) = self.store.segment(index.0)? else { return Ok(None) };
        let certificate = self.store.certificate(segment.descriptor.last)?.here();
        let (descriptor, chunks) = (segment.descriptor, segment.chunks);
        Ok(certificate.map(|certificate| SegmentHead { descriptor, chunks, certificate }))
    }

    fn on_update(&mut self, peer: PeerId, update: Update) -> anyhow::Result<()> {
        let Some(wanted) = self.wanted.get_mut(&peer) else { return Ok(()) };
        wanted.chunks.retain(|id| !update.remove.contains(id));
        wanted.chunks.extend(update.add);
        wanted.allowed = wanted.allowed.max(update.allowed);
        if self.kind != Kind::Poison {
            return Ok(());
        }
        while wanted.sent < wanted.allowed
            && let Some(id) = wanted.chunks.pop_first()
        {
            let rules = self.chain.history_rules();
            let chunk = self.store.chunk(id.segment.index.0, id.chunk.into(), &rules)?;
            let Kept::Here(mut bytes) = chunk else { continue };
            // One bit of a correct chunk is changed.
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
