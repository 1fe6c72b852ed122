//! The handle by which the rest of the node talks to the network's task. Only `shutdown` waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot, watch};

use super::bans::{BanInfo, Charge};
use super::eviction::Service;
use super::faults::{FaultError, FaultPlan, Faults};
use super::inbox::{GossipTicket, ResponseTicket, Verdict};
use super::known::KnownAddress;
use super::links::Outlets;
use super::meters::Meters;
use super::peers::PeerInfo;
use super::requests::RequestId;
use super::wire::{Lane, RESPONSE_BYTES_MAX, Topic};
use crate::accounts::Accounts;
use crate::uploaded::Uploaded;

/// Most commands that wait for the task. The task itself waits for nobody, so a full queue means
/// that it gets no processor time.
const COMMANDS: usize = 4096;

/// Most own messages of a topic that wait to be published.
const fn outbox_queue(topic: Topic) -> usize {
    match topic {
        Topic::Consensus => 128,
        Topic::Headers => 64,
        Topic::Transactions => 256,
    }
}

/// Most providers that wait for the reader of a look-up. Beyond it they are dropped: an honest
/// index names 20.
const PROVIDERS: usize = 256;

/// Who says that a peer has an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A record that this node keeps: the peer itself has said so.
    Here,
    /// A peer of this address group, in its answer to the look-up.
    Group(u64),
}

/// What a look-up in the index tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderEvent {
    /// A peer that is said to have the object. It is told for each source that names it, and
    /// nothing proves it.
    Found {
        /// Who says so.
        source: Source,
        /// The peer.
        peer: PeerId,
        /// Up to four addresses at which it may be reached.
        addresses: Vec<Multiaddr>,
    },
    /// Nobody else is asked.
    Ended {
        /// How many peers were asked.
        requests: u32,
    },
}

/// A command for the task.
#[derive(Debug)]
pub(crate) enum Command {
    Verdict(GossipTicket, Verdict),
    Request { id: RequestId, peer: PeerId, bytes: Vec<u8>, answer_bytes_max: usize },
    Respond(ResponseTicket, Vec<u8>),
    Ban(PeerId, Charge),
    Served(PeerId, Service),
    Dial(Multiaddr),
    DialHolder(Multiaddr),
    Provide([u8; 32]),
    Withdraw([u8; 32]),
    LookUp([u8; 32], mpsc::Sender<ProviderEvent>),
    Known(oneshot::Sender<Vec<KnownAddress>>),
    Stop,
}

/// The network, as seen by the rest of the node. Clones are cheap and share one network.
#[derive(Clone)]
pub struct Network {
    local: PeerId,
    commands: mpsc::Sender<Command>,
    outbox: [mpsc::Sender<Vec<u8>>; 3],
    next_request: Arc<AtomicU64>,
    refused: Refused,
    outlets: Outlets,
    meters: Meters,
    peers: watch::Receiver<Arc<Vec<PeerInfo>>>,
    addresses: watch::Receiver<Arc<Vec<Multiaddr>>>,
    accounts: Accounts<PeerId>,
    uploaded: Uploaded<PeerId>,
    bans: watch::Receiver<Arc<Vec<BanInfo>>>,
    faults: Option<Faults>,
}

/// What the task shows to readers.
pub(crate) struct Readers {
    pub(crate) peers: watch::Receiver<Arc<Vec<PeerInfo>>>,
    pub(crate) addresses: watch::Receiver<Arc<Vec<Multiaddr>>>,
    pub(crate) bans: watch::Receiver<Arc<Vec<BanInfo>>>,
}

/// Requests that found the command queue full, without their bytes. The task answers them with
/// `Busy`.
pub(crate) type Refused = Arc<Mutex<Vec<(RequestId, PeerId)>>>;

/// The receiving ends of a handle's queues, for the task.
pub(crate) struct Commands {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) outbox: Outbox,
    pub(crate) refused: Refused,
}

/// Own messages that wait to be published.
pub(crate) struct Outbox([mpsc::Receiver<Vec<u8>>; 3]);

impl Outbox {
    /// The next message, consensus first. `None` when no handle is left. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<(Topic, Vec<u8>)> {
        let [consensus, headers, transactions] = &mut self.0;
        tokio::select! {
            biased;
            Some(bytes) = consensus.recv() => Some((Topic::Consensus, bytes)),
            Some(bytes) = headers.recv() => Some((Topic::Headers, bytes)),
            Some(bytes) = transactions.recv() => Some((Topic::Transactions, bytes)),
            else => None,
        }
    }
}

impl Network {
    pub(crate) fn new(
        local: PeerId,
        meters: Meters,
        outlets: Outlets,
        accounts: Accounts<PeerId>,
        Readers { peers, addresses, bans }: Readers,
        faults: Option<Faults>,
    ) -> (Self, Commands) {
        let (commands, commands_receiver) = mpsc::channel(COMMANDS);
        let [consensus, headers, transactions] =
            Topic::ALL.map(|topic| mpsc::channel(outbox_queue(topic)));
        let refused = Refused::default();
        let network = Self {
            local,
            commands,
            outbox: [consensus.0, headers.0, transactions.0],
            next_request: Arc::new(AtomicU64::new(0)),
            refused: refused.clone(),
            outlets,
            meters,
            peers,
            addresses,
            accounts,
            uploaded: Uploaded::default(),
            bans,
            faults,
        };
        let outbox = Outbox([consensus.1, headers.1, transactions.1]);
        (network, Commands { commands: commands_receiver, outbox, refused })
    }

    /// The cost account of each peer. Work for a peer is charged here.
    pub(crate) fn accounts(&self) -> &Accounts<PeerId> {
        &self.accounts
    }

    /// The history that was sent to peers. Whoever sends some counts it here.
    pub(crate) fn uploaded(&self) -> &Uploaded<PeerId> {
        &self.uploaded
    }

    /// Our own identity.
    pub fn local_peer(&self) -> PeerId {
        self.local
    }

    /// Publishes to all peers on the topic. Delivery is not guaranteed. The payload is dropped if
    /// there are no peers, the queue is full, or the topic's size limit is exceeded. The loss is
    /// counted or logged. A payload that was published within the last minute is not sent again.
    pub fn publish(&self, topic: Topic, bytes: Vec<u8>) {
        if bytes.len() > topic.bytes_max() {
            let (topic, bytes, bytes_max) = (topic.name(), bytes.len(), topic.bytes_max());
            tracing::error!(
                topic,
                bytes,
                bytes_max,
                "a payload over its topic's limit was not published"
            );
        } else if self.outbox[topic.index()].try_send(bytes).is_err() {
            self.meters.gossip_lost(topic, "outbox_full");
        }
    }

    /// Reports the verdict on a received message. If the command queue is full, the verdict is
    /// lost, which counts as `Ignore`.
    pub fn verdict(&self, ticket: GossipTicket, verdict: Verdict) {
        self.command(Command::Verdict(ticket, verdict));
    }

    /// Sends a request to a connected peer. Each request has exactly one
    /// [`Response`](super::PeerEvent::Response) event. The request fails at once if it is larger
    /// than [`REQUEST_BYTES_MAX`](super::REQUEST_BYTES_MAX), if the peer is not connected, or if
    /// [`REQUESTS_PER_PEER_MAX`](super::REQUESTS_PER_PEER_MAX) requests to the peer are in flight.
    pub fn request(&self, peer: PeerId, bytes: Vec<u8>) -> RequestId {
        self.request_within(peer, bytes, RESPONSE_BYTES_MAX)
    }

    /// As [`request`](Self::request), for a request whose answer has at most `answer_bytes_max`
    /// bytes. If the peer announces a longer one, the request fails.
    pub fn request_within(
        &self,
        peer: PeerId,
        bytes: Vec<u8>,
        answer_bytes_max: usize,
    ) -> RequestId {
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let answer_bytes_max = answer_bytes_max.min(RESPONSE_BYTES_MAX);
        if !self.command(Command::Request { id, peer, bytes, answer_bytes_max }) {
            self.refused.lock().unwrap_or_else(PoisonError::into_inner).push((id, peer));
        }
        id
    }

    /// Answers a request. The answer is dropped if it is larger than
    /// [`RESPONSE_BYTES_MAX`](super::RESPONSE_BYTES_MAX) or finds no room, and the peer then sees
    /// `Busy`. The budget of answers that are being sent is 16 MiB for answers of up to 64 KiB, and
    /// 64 MiB for larger ones. One peer may have half of the budget that the others leave.
    pub fn respond(&self, ticket: ResponseTicket, bytes: Vec<u8>) {
        self.command(Command::Respond(ticket, bytes));
    }

    /// Queues a control frame of at most [`LINK_MESSAGE_BYTES_MAX`](super::LINK_MESSAGE_BYTES_MAX)
    /// bytes for the peer's link.
    ///
    /// A link exists only between [`LinkEvent::Opened`](super::LinkEvent) and `Closed`; otherwise
    /// the frame is dropped. If 1,024 frames or 8 MiB wait already, the peer does not read, and the
    /// link is closed.
    pub fn send_message(&self, peer: PeerId, bytes: Vec<u8>) {
        self.outlets.send(&peer, Lane::Control, bytes);
    }

    /// As [`send_message`](Self::send_message), for a data frame of at most
    /// [`LINK_DATA_BYTES_MAX`](super::LINK_DATA_BYTES_MAX) bytes. At most 64 frames or 32 MiB may
    /// wait for one peer, so the caller must limit what it sends.
    pub fn send_data(&self, peer: PeerId, bytes: Vec<u8>) {
        self.outlets.send(&peer, Lane::Data, bytes);
    }

    /// Blames a peer. Its connections are closed. For a lie, or for a mistake within a day after
    /// another offence or after a ban, it is banned: for an hour at first, then twice as long each
    /// time, up to a day. A named peer is banned for lies only. Bans outlive a restart.
    pub fn ban(&self, peer: PeerId, charge: Charge) {
        self.command(Command::Ban(peer, charge));
    }

    /// Records that the peer was useful. This helps to protect its connection when one must be
    /// closed for a newcomer.
    pub fn served(&self, peer: PeerId, service: Service) {
        self.command(Command::Served(peer, service));
    }

    /// The bans. The value changes with each new ban, but not when one ends.
    pub fn bans(&self) -> watch::Receiver<Arc<Vec<BanInfo>>> {
        self.bans.clone()
    }

    /// Replaces all faults. On a local network only.
    ///
    /// # Errors
    /// See [`FaultError`]. Nothing has changed then.
    pub fn set_faults(&self, plan: FaultPlan) -> Result<(), FaultError> {
        let faults = self.faults.as_ref().ok_or(FaultError::Unarmed)?;
        faults.set(plan.checked(self.local)?);
        Ok(())
    }

    /// The faults that are set, kept up to date. Always none on a network that is not local.
    pub fn faults(&self) -> watch::Receiver<Arc<FaultPlan>> {
        self.faults.as_ref().map_or_else(|| watch::channel(Arc::default()).1, Faults::plan)
    }

    /// Dials an address once.
    pub fn dial(&self, address: Multiaddr) {
        self.command(Command::Dial(address));
    }

    /// Dials an address at which others say that a peer has what this node fetches. It must be fit
    /// for it, and is dialed once a minute. Whoever answers is welcome. If no place is free, the
    /// connection lasts 10 min, or gives way once it has brought nothing for 30 s.
    pub fn dial_holder(&self, address: Multiaddr) {
        self.command(Command::DialHolder(address));
    }

    /// The connected peers of our chain, ordered by identity, kept up to date.
    pub fn peers(&self) -> watch::Receiver<Arc<Vec<PeerInfo>>> {
        self.peers.clone()
    }

    /// This node has the object of this key: others that look it up hear of this node, until
    /// [`withdraw`](Self::withdraw). Returns whether the command queue had room.
    pub fn provide(&self, key: [u8; 32]) -> bool {
        self.command(Command::Provide(key))
    }

    /// This node does not have the object of this key any more. Others forget it within an hour.
    /// Returns whether the command queue had room.
    pub fn withdraw(&self, key: [u8; 32]) -> bool {
        self.command(Command::Withdraw(key))
    }

    /// Looks up in the index who has the object of a key. The channel closes after
    /// [`ProviderEvent::Ended`], or at once if too many look-ups are under way.
    pub fn find_providers(&self, key: [u8; 32]) -> mpsc::Receiver<ProviderEvent> {
        let (sender, found) = mpsc::channel(PROVIDERS);
        self.command(Command::LookUp(key, sender));
        found
    }

    /// The addresses of peers that this node knows, and how dialing them went. Empty if the network
    /// is stopping.
    pub async fn known(&self) -> Vec<KnownAddress> {
        let (sender, answer) = oneshot::channel();
        self.command(Command::Known(sender));
        answer.await.unwrap_or_default()
    }

    /// The addresses that we listen on and those that the operator configured as external, each
    /// with `/p2p/` and our identity.
    pub fn addresses(&self) -> watch::Receiver<Arc<Vec<Multiaddr>>> {
        self.addresses.clone()
    }

    /// Stops the task, for all handles, and waits until it has ended.
    pub async fn shutdown(self) {
        // An error means that the task is gone already.
        let _ = self.commands.send(Command::Stop).await;
        self.commands.closed().await;
    }

    /// Queues a command. Returns whether there was room.
    fn command(&self, command: Command) -> bool {
        let sent = self.commands.try_send(command).is_ok();
        if !sent {
            self.meters.lost(1);
        }
        sent
    }
}
