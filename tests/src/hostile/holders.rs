//! Peers that claim to have a file, and lie about it. They dial a node and wait until it fetches
//! the file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ledger::codec;
use ledger::file::{CHUNK_BYTES, FileHasher, FileHead, HashedFile, SEGMENT_CHUNKS};
use ledger::hash::{FileId, Hash};
use ledger::units::SegmentIndex;
use node::network::{LinkEvent, PeerId};
use protocol::swarm::message::{
    ChunkId, CollectionId, CollectionNumber, Holdings, SyncMessage, Update,
};
use protocol::swarm::{SegmentRange, SegmentRanges, file_chunk};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::peer::Peer;
use super::{Field, Target};

/// The number of the file in the messages of these peers.
const NUMBER: CollectionNumber = CollectionNumber(7);
/// The first of the segments that a file does not have and [`Lie::Beyond`] claims.
const BEYOND: SegmentIndex = SegmentIndex(1 << 30);

/// The kinds of false holders of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Claims segments that the file does not have, and says that their heads are not here.
    Beyond,
    /// Gives heads with a wrong hash.
    FalseHash,
    /// Gives heads that have too few hashes.
    ShortList,
    /// Gives the heads of a file that is a byte longer.
    FalseLength,
    /// Claims the whole file, and answers nothing.
    Silent,
    /// Gives the right heads, and never sends a chunk.
    Stalls,
    /// Gives the right heads, and sends chunks with a wrong bit.
    Poisons,
}

impl Lie {
    /// The kinds that claim the whole file. In this order a node asks each of them: false heads do
    /// not tell it what to ask the others for.
    pub const OF_ALL: [Self; 6] = [
        Self::FalseHash,
        Self::ShortList,
        Self::FalseLength,
        Self::Silent,
        Self::Stalls,
        Self::Poisons,
    ];

    /// The name of the offence for which such a peer is banned; `None` if it proves no lie.
    #[must_use]
    pub const fn offence(self) -> Option<&'static str> {
        match self {
            Self::Beyond | Self::Silent | Self::Stalls => None,
            Self::Poisons => Some("bad-chunk"),
            Self::FalseHash | Self::ShortList | Self::FalseLength => Some("bad-file-head"),
        }
    }
}

/// Peers that lie about one file, at work until this value is dropped.
pub struct Liars {
    /// The identity of each.
    pub ids: Vec<(Lie, String)>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Liars {
    /// Starts a peer of each of these kinds, one after the other. Returns once all of them have a
    /// link with the node.
    ///
    /// # Errors
    /// When the file is too long, or a peer cannot start.
    pub async fn dial(
        field: &Field,
        target: &Target,
        file: Vec<u8>,
        lies: &[Lie],
    ) -> anyhow::Result<Self> {
        let file = Arc::new(Content::new(file)?);
        let (mut ids, mut tasks) = (Vec::new(), JoinSet::new());
        for lie in lies.iter().copied() {
            let peer = Peer::dial(field, std::slice::from_ref(target))?;
            ids.push((lie, peer.network.local_peer().to_string()));
            let (linked, mut is_linked) = mpsc::channel(1);
            let file = Arc::clone(&file);
            let mut liar = Liar { lie, file, peer, linked, wanted: HashMap::new() };
            tasks.spawn(async move { liar.run().await });
            is_linked.recv().await;
        }
        Ok(Self { ids, _tasks: tasks })
    }
}

/// A file with its hashes.
struct Content {
    id: FileId,
    bytes: Vec<u8>,
    hashes: Vec<Hash>,
    hashed: HashedFile,
}

impl Content {
    fn new(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let mut hasher = FileHasher::new();
        hasher.push(&bytes);
        let hashed = hasher.finish()?;
        Ok(Self { id: hashed.descriptor.id(), bytes, hashes: hashed.hashes.clone(), hashed })
    }

    fn head(&self, segment: SegmentIndex) -> Option<FileHead> {
        let index = usize::try_from(segment.0).ok()?;
        let path = self.hashed.tree.prove(index)?;
        let chunks = self.hashes.chunks(SEGMENT_CHUNKS as usize).nth(index)?.to_vec();
        Some(FileHead { descriptor: self.hashed.descriptor, chunks, path })
    }

    fn chunk(&self, id: ChunkId) -> Option<Vec<u8>> {
        let index = usize::try_from(file_chunk(id)?).ok()?;
        Some(self.bytes.chunks(CHUNK_BYTES as usize).nth(index)?.to_vec())
    }
}

/// The chunks that a node wants, and the credit that it gave.
#[derive(Default)]
struct Wanted {
    chunks: BTreeSet<ChunkId>,
    allowed: u64,
    sent: u64,
}

struct Liar {
    lie: Lie,
    file: Arc<Content>,
    peer: Peer,
    /// Hears once of the first link.
    linked: mpsc::Sender<()>,
    wanted: HashMap<PeerId, Wanted>,
}

impl Liar {
    async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                Some(event) = self.peer.inbox.events.recv() => self.peer.on_event(event),
                Some(event) = self.peer.inbox.links.recv() => self.on_link(event)?,
                else => return Ok(()),
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> anyhow::Result<()> {
        match event {
            LinkEvent::Opened(peer) => {
                self.wanted.insert(peer, Wanted::default());
                // It is full after the first one.
                let _heard = self.linked.try_send(());
            }
            LinkEvent::Closed(peer) => drop(self.wanted.remove(&peer)),
            LinkEvent::Data(..) | LinkEvent::Written(_) => {}
            LinkEvent::Message(peer, bytes) => match SyncMessage::decode(&bytes)? {
                SyncMessage::Open(_, id) if id.0 == self.file.id.0 => self.claim(peer, id),
                SyncMessage::GetFileHead(id, segment) if self.lie != Lie::Silent => {
                    let head = self.head(segment);
                    self.say(peer, &SyncMessage::FileHead(id, segment, head));
                }
                SyncMessage::Update(update) => self.on_update(peer, update),
                _ => {}
            },
        }
        Ok(())
    }

    /// Claims all of the file, or what it does not have.
    fn claim(&self, peer: PeerId, id: CollectionId) {
        let mut whole = SegmentRanges::default();
        let last = SegmentIndex(self.file.hashed.descriptor.segments() - 1);
        whole.insert(match self.lie {
            Lie::Beyond => SegmentRange { first: BEYOND, last: SegmentIndex(BEYOND.0 + 99) },
            _ => SegmentRange { first: SegmentIndex(0), last },
        });
        let holdings = Holdings { whole, open: vec![], nonce: 1 };
        self.say(peer, &SyncMessage::Open(NUMBER, id));
        self.say(peer, &SyncMessage::Holdings(NUMBER, holdings));
    }

    fn head(&self, segment: SegmentIndex) -> Option<FileHead> {
        let mut head = self.file.head(segment)?;
        match self.lie {
            Lie::Beyond | Lie::Silent | Lie::Stalls | Lie::Poisons => {}
            Lie::FalseHash => head.chunks[0].0[0] ^= 1,
            Lie::ShortList => head.chunks.truncate(head.chunks.len() / 2),
            Lie::FalseLength => head.descriptor.length += 1,
        }
        Some(head)
    }

    fn on_update(&mut self, peer: PeerId, update: Update) {
        let Some(wanted) = self.wanted.get_mut(&peer) else { return };
        wanted.chunks.retain(|id| !update.remove.contains(id));
        wanted.chunks.extend(update.add);
        wanted.allowed = wanted.allowed.max(update.allowed);
        while self.lie == Lie::Poisons
            && wanted.sent < wanted.allowed
            && let Some(id) = wanted.chunks.pop_first()
        {
            let Some(mut bytes) = self.file.chunk(id) else { continue };
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            wanted.sent += 1;
            self.peer.network.send_data(peer, id.frame(&bytes));
        }
    }

    fn say(&self, peer: PeerId, message: &SyncMessage) {
        self.peer.network.send_message(peer, codec::encode(message));
    }
}
