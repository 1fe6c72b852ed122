//! Performs what the archive machine decides: tells peers which eras this node keeps, audits
//! theirs, has `swarm` fetch eras, and drops eras from the store.
//!
//! It runs on its own thread. Peers' questions and answers come through `live`, which reads the
//! events of the network. [`protocol::archive`] decides. Rules: `docs/protocol/archive.md`.

mod audits;
mod eras;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::chain::Chain;
use ledger::codec;
use ledger::history::{HistoryRules, SegmentDescriptor};
use ledger::store::{ERA_SEGMENTS, Kept, Store, StoreError};
use ledger::units::SegmentIndex;
use protocol::archive::{Archive, Effect, Input, Keep, Notice, Setup};
use protocol::budget::Cost;
use protocol::eras::{Announcement, Era, EraRanges};
use protocol::message::{Request, Response, answer_bytes_max};
use protocol::{Offence, PeerId, RequestId};
use tokio::sync::{mpsc, watch};

use self::audits::{answer_bytes, judge};
pub(crate) use self::eras::drop_parts;
use self::eras::{descriptors, segments, whole_era, whole_eras};
use super::blame::charge;
use super::live::ToArchive;
use super::swarm::ToSwarm;
use crate::clock::Clock;
use crate::network::{self, Network, PeerInfo, ResponseTicket, address_group};
use crate::view::{ArchiveView, SyncView, TipView};

/// A request without an answer is forgotten after this time. The network gives up sooner.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// Fetches are given up when no segment of their eras has arrived for this time. They are tried
/// again later.
const STALLED_AFTER: Duration = Duration::from_secs(600);

/// How this node shares history with others.
#[derive(Clone, Copy)]
pub(crate) struct Sharing {
    pub(crate) keep: Keep,
    /// Whether all nodes are on one machine or private network, where each address and port counts
    /// as one group.
    pub(crate) is_private: bool,
    /// For how long a peer counts after its connection ended.
    pub(crate) gone_counts: Duration,
}

/// Everything that the archive starts with.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) chain: Arc<Chain>,
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) sharing: Sharing,
    pub(crate) inbox: mpsc::Receiver<ToArchive>,
    pub(crate) swarm: mpsc::Sender<ToSwarm>,
    pub(crate) tip: watch::Receiver<Arc<TipView>>,
    /// The peers with a link.
    pub(crate) sync: watch::Receiver<Arc<SyncView>>,
    pub(crate) view: watch::Sender<Arc<ArchiveView>>,
    /// Becomes true when the node must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// A request in flight.
struct Asked {
    peer: PeerId,
    request: RequestId,
    at: Duration,
    /// The chunk that the peer is to show. `None` for a question what it keeps.
    shows: Option<(SegmentDescriptor, u64)>,
}

/// A connected peer.
struct Peer {
    number: PeerId,
    /// What it says that it keeps.
    claims: EraRanges,
}

struct Driver {
    parts: Parts,
    rules: HistoryRules,
    machine: Archive,
    /// Number of eras that the machine knows.
    eras: u64,
    peers: HashMap<network::PeerId, Peer>,
    /// The peers by the numbers that the machine knows. A number is never used again.
    ids: BTreeMap<PeerId, network::PeerId>,
    last_number: u64,
    asked: HashMap<network::RequestId, Asked>,
    /// Most bytes of an honest answer to any question of this thread.
    answer_bytes_max: usize,
    fetching: BTreeSet<Era>,
    /// Number of segments of these eras that are here, and since when it is the same.
    progress: (usize, Duration),
    is_unshown: bool,
}

/// Runs until the node must stop.
///
/// # Errors
/// There is no randomness.
pub(crate) async fn run(mut parts: Parts) -> anyhow::Result<()> {
    let mut stop = parts.stop.clone();
    let work = async move {
        // A node that joins by a snapshot has no answers before `live` has begun.
        while let Some(message) = parts.inbox.recv().await {
            if matches!(message, ToArchive::Began) {
                Driver::new(parts)?.work().await;
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        result = work => result,
    }
}

impl Driver {
    fn new(parts: Parts) -> anyhow::Result<Self> {
        let rules = parts.chain.history_rules();
        let count = whole_eras(&parts.tip.borrow());
        let eras = (0..count).map(|era| whole_era(&parts.store, era)).collect();
        let setup = Setup {
            id: parts.network.local_peer().to_bytes().into(),
            keep: parts.sharing.keep,
            eras,
            gone_counts: parts.sharing.gone_counts,
            seed: getrandom::u64().context("no randomness from the system")?,
        };
        let now = parts.clock.now().elapsed;
        Ok(Self {
            rules,
            machine: Archive::new(setup, now),
            eras: count,
            peers: HashMap::new(),
            ids: BTreeMap::new(),
            last_number: 0,
            asked: HashMap::new(),
            answer_bytes_max: answer_bytes(&rules),
            fetching: BTreeSet::new(),
            progress: (0, now),
            is_unshown: true,
            parts,
        })
    }

    async fn work(mut self) -> ! {
        loop {
            let wait = self.machine.deadline().saturating_sub(self.parts.clock.now().elapsed);
            if wait.is_zero() {
                self.tick().await;
                continue;
            }
            tokio::select! {
                biased;
                Some(message) = self.parts.inbox.recv() => self.on_message(message).await,
                // The machine has something to do at its deadline, without any event.
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn tick(&mut self) {
        let now = self.parts.clock.now().elapsed;
        self.asked.retain(|_, asked| now.saturating_sub(asked.at) < FORGOTTEN_AFTER);
        let count = whole_eras(&self.parts.tip.borrow());
        while self.eras < count {
            let whole = whole_era(&self.parts.store, self.eras);
            self.eras += 1;
            if !whole.is_kept {
                self.drop_part(Era(self.eras - 1)).await;
            }
            self.give(Input::Whole(whole)).await;
        }
        self.look_at_peers().await;
        self.look_at_fetches(now).await;
        self.give(Input::Time).await;
        self.is_unshown |= self.parts.view.borrow().own != self.machine.announcement().eras;
        if std::mem::take(&mut self.is_unshown) {
            self.show();
        }
    }

    /// Tells the machine which eras have come, and which do not come.
    async fn look_at_fetches(&mut self, now: Duration) {
        if self.fetching.is_empty() {
            return;
        }
        let kept = self.parts.store.kept();
        let here = |era: Era| {
            let segments = segments(era.0);
            segments.filter(|one| kept.iter().any(|range| range.contains(one))).count()
        };
        let eras: Vec<(Era, usize)> = self.fetching.iter().map(|era| (*era, here(*era))).collect();
        let sum = eras.iter().map(|(_, count)| count).sum();
        if self.progress.0 != sum {
            self.progress = (sum, now);
        }
        let is_stalled = now.saturating_sub(self.progress.1) >= STALLED_AFTER;
        let (come, missing): (Vec<_>, Vec<_>) =
            eras.into_iter().partition(|(_, count)| *count as u64 == ERA_SEGMENTS);
        let given_up = if is_stalled { missing } else { Vec::new() };
        for (era, _) in come.iter().chain(&given_up) {
            self.fetching.remove(era);
        }
        if !come.is_empty() || !given_up.is_empty() {
            self.tell_fetches().await;
        }
        for (era, _) in come {
            self.give(Input::Fetched(era)).await;
        }
        for (era, _) in given_up {
            self.drop_part(era).await;
            self.give(Input::Unfetched(era)).await;
        }
    }

    /// Tells the machine which peers have come and gone. Only those with a link count: others may
    /// be of a version that does not know the requests.
    async fn look_at_peers(&mut self) {
        let linked: HashSet<String> = self.parts.sync.borrow().peers.values().cloned().collect();
        let all = self.parts.network.peers().borrow().clone();
        let is_linked = |info: &&PeerInfo| linked.contains(&info.id.to_string());
        let here: HashMap<_, _> = all.iter().filter(is_linked).map(|one| (one.id, one)).collect();
        let gone = |id: &&network::PeerId| !here.contains_key(id);
        for id in self.peers.keys().filter(gone).copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.remove(&id) {
                self.ids.remove(&peer.number);
                self.is_unshown = true;
                self.give(Input::Disconnected(peer.number)).await;
            }
        }
        for info in here.into_values() {
            self.meet(info).await;
        }
    }

    async fn meet(&mut self, info: &PeerInfo) {
        if self.peers.contains_key(&info.id) {
            return;
        }
        self.last_number += 1;
        let number = PeerId(self.last_number);
        self.peers.insert(info.id, Peer { number, claims: EraRanges::default() });
        self.ids.insert(number, info.id);
        let group = address_group(&info.address, self.parts.sharing.is_private);
        let id = info.id.to_bytes().into();
        self.give(Input::Connected { peer: number, id, group }).await;
    }

    async fn on_message(&mut self, message: ToArchive) {
        match message {
            ToArchive::Began => {}
            ToArchive::Eras { ticket, from, said } => {
                let answer = Response::Eras(self.machine.announcement().clone());
                self.respond(ticket, from, &answer);
                let all = self.parts.network.peers().borrow().clone();
                if let Some(info) = all.iter().find(|info| info.id == from) {
                    self.meet(info).await;
                }
                self.on_said(from, said, None).await;
            }
            ToArchive::Chunk { ticket, from, segment, chunk } => {
                let cost = Cost::look_ups(0, 2);
                self.parts.network.accounts().charge(&from, &cost);
                let answer = self.chunk(segment, chunk);
                self.respond(ticket, from, &answer);
            }
            ToArchive::Response { id, bytes } => {
                if let Some(asked) = self.asked.remove(&id) {
                    self.on_answer(asked, bytes).await;
                }
            }
        }
    }

    fn respond(&self, ticket: ResponseTicket, to: network::PeerId, answer: &Response) {
        let bytes = codec::encode(answer);
        self.parts.network.accounts().charge(&to, &Cost::answer(bytes.len()));
        self.parts.network.respond(ticket, bytes);
    }

    /// A chunk of an era that this node announces.
    fn chunk(&self, segment: SegmentIndex, chunk: u64) -> Response {
        let era = Era(segment.0 / ERA_SEGMENTS);
        if !self.machine.announcement().eras.contains(era) {
            return Response::NotKept;
        }
        let store = &self.parts.store;
        let read = || -> Result<Option<Response>, StoreError> {
            let hashes = store.chunk_hashes(segment.0)?;
            let bytes = store.chunk(segment.0, chunk, &self.rules)?;
            Ok(match (hashes, bytes) {
                (Kept::Here((_, hashes)), Kept::Here(bytes)) => {
                    Some(Response::Chunk { hashes, bytes })
                }
                _ => None,
            })
        };
        let read = read().inspect_err(|error| {
            tracing::error!(%error, "history cannot be read for a peer");
        });
        read.ok().flatten().unwrap_or(Response::NotKept)
    }

    /// A peer said what it keeps.
    async fn on_said(
        &mut self,
        from: network::PeerId,
        said: Announcement,
        answers: Option<RequestId>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.claims.clone_from(&said.eras);
        let peer = peer.number;
        self.is_unshown = true;
        self.give(Input::Announced { peer, announcement: said, answers }).await;
    }

    async fn on_answer(&mut self, asked: Asked, bytes: Option<Vec<u8>>) {
        let Some(from) = self.ids.get(&asked.peer).copied() else { return };
        let answer = bytes.map(|bytes| Response::decode(&bytes));
        if let Some(Err(error)) = &answer {
            self.parts.network.ban(from, charge(&Offence::Response(error.clone())));
        }
        match asked.shows {
            Some((descriptor, chunk)) => {
                let result = judge(answer, &descriptor, chunk, &self.rules);
                self.give(Input::Audited(asked.request, result)).await;
            }
            None => {
                if let Some(Ok(Response::Eras(said))) = answer {
                    self.on_said(from, said, Some(asked.request)).await;
                }
            }
        }
    }

    /// Gives the machine one input and performs its effects.
    async fn give(&mut self, input: Input) {
        let now = self.parts.clock.now().elapsed;
        for effect in self.machine.handle(now, input) {
            match effect {
                Effect::Exchange { peer, request } => {
                    let question = Request::Eras(self.machine.announcement().clone());
                    self.ask(&question, Asked { peer, request, at: now, shows: None });
                }
                Effect::Audit { peer, request, era, lot } => {
                    let Some((descriptor, chunk)) = self.choose(era, lot) else { continue };
                    let question = Request::Chunk(SegmentIndex(descriptor.index), chunk);
                    let shows = Some((descriptor, chunk));
                    self.ask(&question, Asked { peer, request, at: now, shows });
                }
                Effect::Fetch(era) => {
                    self.fetching.insert(era);
                    self.progress.1 = now;
                    self.tell_fetches().await;
                }
                Effect::Withdraw(eras) => {
                    for Era(era) in eras {
                        self.parts.store.withdraw_era(era);
                        let _gone = self.parts.swarm.send(ToSwarm::Dropped(era)).await;
                    }
                }
                Effect::Restore(eras) => {
                    for Era(era) in eras {
                        self.parts.store.restore_era(era);
                        let _gone = self.parts.swarm.send(ToSwarm::Restored(era)).await;
                    }
                }
                Effect::Drop(eras) => {
                    tracing::info!("dropping {} eras of history, which others keep", eras.len());
                    eras.into_iter().for_each(|era| self.drop_era(era));
                }
                Effect::Notice(notice) => report(notice),
            }
        }
    }

    fn ask(&mut self, question: &Request, asked: Asked) {
        let Some(to) = self.ids.get(&asked.peer).copied() else { return };
        let bytes = codec::encode(question);
        let most = answer_bytes_max(&bytes).min(self.answer_bytes_max);
        let id = self.parts.network.request_within(to, bytes, most);
        self.asked.insert(id, asked);
    }

    /// The chunk of an era that a lot chooses. Each one has the same chance.
    fn choose(&self, era: Era, lot: u64) -> Option<(SegmentDescriptor, u64)> {
        let descriptors = descriptors(&self.parts.store, era.0);
        let chunks = |descriptor: &SegmentDescriptor| descriptor.chunk_count(&self.rules);
        let mut at = lot.checked_rem(descriptors.iter().map(chunks).sum())?;
        for descriptor in descriptors {
            match at.checked_sub(chunks(&descriptor)) {
                Some(rest) => at = rest,
                None => return Some((descriptor, at)),
            }
        }
        None
    }

    /// Tells `swarm` which eras to fetch.
    async fn tell_fetches(&mut self) {
        self.is_unshown = true;
        let eras = self.fetching.iter().map(|era| era.0).collect();
        // If `swarm` has gone, the node is stopping.
        let _gone = self.parts.swarm.send(ToSwarm::Fetch(eras)).await;
    }

    /// Drops an era of which a part is here. A node that keeps everything still fetches the rest.
    async fn drop_part(&mut self, era: Era) {
        if self.parts.sharing.keep != Keep::Full {
            self.drop_era(era);
            let _gone = self.parts.swarm.send(ToSwarm::Dropped(era.0)).await;
        }
    }

    fn drop_era(&self, Era(era): Era) {
        if let Err(error) = self.parts.store.drop_era(era) {
            tracing::error!("era {era} of history was not dropped whole: {error}");
        }
    }

    /// The eras that are to be here and are not.
    fn missing(&self) -> EraRanges {
        let own = &self.machine.announcement().eras;
        match self.parts.sharing.keep {
            Keep::Full => EraRanges::of((0..self.eras).map(Era).filter(|era| !own.contains(*era))),
            Keep::Bytes(_) | Keep::Recent(_) => EraRanges::of(self.fetching.iter().copied()),
        }
    }

    /// Updates the view.
    fn show(&self) {
        let claims = self.peers.iter().map(|(id, peer)| (id.to_string(), peer.claims.clone()));
        let shown = ArchiveView {
            keep: self.parts.sharing.keep,
            is_fetching: !self.fetching.is_empty(),
            own: self.machine.announcement().eras.clone(),
            missing: self.missing(),
            claims: claims.collect(),
        };
        self.parts.view.send_replace(Arc::new(shown));
    }
}

fn report(notice: Notice) {
    match notice {
        Notice::OverBudget { bytes } => tracing::warn!(
            "{bytes} bytes of history more than [history] keep allows stay here: too few other \
             nodes keep them"
        ),
        Notice::FewCopies { eras, copies } => tracing::warn!(
            "{eras} eras of history were dropped that only {copies} other nodes keep, since \
             [history] keep was exceeded by more than a tenth"
        ),
    }
}
