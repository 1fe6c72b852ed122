//! Performs what the archive machine decides: tells peers which eras this node keeps, audits
//! theirs, has `swarm` fetch eras, and drops eras from the store.
//!
//! It runs on its own thread. Peers' questions and answers come through `live`, which reads the
//! events of the network. [`protocol::archive`] decides. Rules: `docs/protocol/archive.md`.

mod audits;
mod eras;
mod fetches;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ledger::chain::Chain;
use ledger::codec;
use ledger::history::{HistoryRules, SegmentDescriptor};
use ledger::store::{ERA_SEGMENTS, Kept, Store, StoreError};
use ledger::units::SegmentIndex;
use protocol::archive::{Archive, Audit, Effect, Input, Keep, Notice, Setup};
use protocol::budget::Cost;
use protocol::eras::{Announcement, Era, EraRanges};
use protocol::message::{Request, Response, answer_bytes_max};
use protocol::swarm::Limit;
use protocol::{Offence, PeerId, RequestId};
use tokio::sync::{mpsc, watch};

use self::audits::{answer_bytes, judge};
pub(crate) use self::eras::drop_parts;
use self::eras::{descriptors, whole_era, whole_eras};
use self::fetches::Progress;
use super::blame::charge;
use super::live::ToArchive;
use super::swarm::ToSwarm;
use crate::clock::Clock;
use crate::network::{self, Network, PeerInfo, RequestError, ResponseTicket, address_group};
use crate::view::{ArchiveView, ArchiveWork, Claims, SyncView, TipView};

/// A request without an answer is forgotten after this time. The network gives up sooner.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// How this node shares history with others.
#[derive(Clone, Copy)]
pub(crate) struct Sharing {
    pub(crate) keep: Keep,
    /// Whether all nodes are on one machine or private network, where each address and port counts
    /// as one group.
    pub(crate) is_private: bool,
    /// For how long a peer counts after its connection ended.
    pub(crate) gone_counts: Duration,
    /// Bytes per second of all chunks to peers; `None` means unlimited.
    pub(crate) upload_rate: Option<u64>,
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
    /// The chunk that the peer is to show. `None`: the peer was asked which eras it keeps.
    shows: Option<(SegmentDescriptor, u64)>,
}

/// A connected peer.
#[derive(Clone, Copy)]
struct Peer {
    number: PeerId,
    /// Its address group.
    group: u64,
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
    /// Answers to audits may take half of the rate of uploads, so that peers that audit cannot keep
    /// others from fetching.
    shown: Limit,
    /// Most bytes of an honest answer to any question of this thread.
    answer_bytes_max: usize,
    fetching: BTreeMap<Era, Progress>,
    /// Eras that the machine has dropped and that are still on the disk.
    dropping: VecDeque<Era>,
    work: ArchiveWork,
    /// Something has changed that the view does not show yet.
    is_unshown: bool,
}

/// Runs until the node must stop.
///
/// # Errors
/// The system has no randomness.
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
            shown: Limit::new(parts.sharing.upload_rate.map(|rate| rate / 2)),
            answer_bytes_max: answer_bytes(&rules),
            fetching: BTreeMap::new(),
            dropping: VecDeque::new(),
            work: ArchiveWork::default(),
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
            if let Some(era) = self.dropping.pop_front() {
                self.drop_one(era).await;
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

    /// Drops one era, which takes the disk for a while. Then it reads what came meanwhile, so that
    /// peers wait for one era and not for all.
    async fn drop_one(&mut self, era: Era) {
        self.drop_era(era);
        for _ in 0..self.parts.inbox.len() {
            let Ok(message) = self.parts.inbox.try_recv() else { break };
            self.on_message(message).await;
        }
        // The node may have to stop.
        tokio::task::yield_now().await;
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
        for era in self.parts.store.take_damaged_eras() {
            tracing::error!("era {era} of history is damaged, and is served to nobody");
            self.give(Input::Damaged(Era(era))).await;
        }
        self.give(Input::Time).await;
        self.is_unshown |= {
            let view = self.parts.view.borrow();
            view.own != self.machine.announcement().eras || view.missing != self.missing()
        };
        if std::mem::take(&mut self.is_unshown) {
            self.show();
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
        let group = address_group(&info.address, self.parts.sharing.is_private);
        self.peers.insert(info.id, Peer { number, group });
        self.ids.insert(number, info.id);
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
                // Without an answer the peer hears that this node is busy.
                if self.shown.opens_at(self.parts.clock.now().elapsed).is_none() {
                    self.show_chunk(ticket, from, segment, chunk).await;
                }
            }
            ToArchive::Response { id, result } => {
                if let Some(asked) = self.asked.remove(&id) {
                    self.on_answer(asked, result).await;
                }
            }
        }
    }

    /// Answers a peer. Returns the number of bytes.
    fn respond(&self, ticket: ResponseTicket, to: network::PeerId, answer: &Response) -> u64 {
        let bytes = codec::encode(answer);
        let length = bytes.len();
        self.parts.network.accounts().charge(&to, &Cost::answer(length));
        self.parts.network.respond(ticket, bytes);
        length as u64
    }

    /// Answers an audit. The bytes count as uploads.
    async fn show_chunk(
        &mut self,
        ticket: ResponseTicket,
        from: network::PeerId,
        segment: SegmentIndex,
        chunk: u64,
    ) {
        self.parts.network.accounts().charge(&from, &Cost::look_ups(0, 2));
        let bytes = self.respond(ticket, from, &self.chunk(segment, chunk));
        if self.parts.sharing.upload_rate.is_some() {
            self.shown.take(bytes);
            let _gone = self.parts.swarm.send(ToSwarm::Uploaded(bytes)).await;
        }
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
        let Some(Peer { number: peer, .. }) = self.peers.get(&from).copied() else { return };
        self.is_unshown = true;
        self.give(Input::Announced { peer, announcement: said, answers }).await;
    }

    async fn on_answer(&mut self, asked: Asked, result: Result<Vec<u8>, RequestError>) {
        let Some(from) = self.ids.get(&asked.peer).copied() else { return };
        let answer = result.map(|bytes| Response::decode(&bytes));
        if let Ok(Err(error)) = &answer {
            self.parts.network.ban(from, charge(&Offence::Response(error.clone())));
        }
        match asked.shows {
            Some((descriptor, chunk)) => {
                let result = judge(answer, &descriptor, chunk, &self.rules);
                self.count(result);
                self.give(Input::Audited(asked.request, result)).await;
            }
            None => {
                if let Ok(Ok(Response::Eras(said))) = answer {
                    self.on_said(from, said, Some(asked.request)).await;
                }
            }
        }
    }

    fn count(&mut self, result: Audit) {
        let count = match result {
            Audit::Passed => &mut self.work.audits_passed,
            Audit::Failed => &mut self.work.audits_failed,
            Audit::Unanswered | Audit::Busy => &mut self.work.audits_unanswered,
        };
        *count = count.saturating_add(1);
        self.is_unshown = true;
    }

    /// Gives the machine one input and performs its effects.
    async fn give(&mut self, input: Input) {
        let effects = self.machine.handle(self.parts.clock.now().elapsed, input);
        self.perform(effects).await;
    }

    async fn perform(&mut self, effects: Vec<Effect>) {
        let now = self.parts.clock.now().elapsed;
        for effect in effects {
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
                    self.begin_fetch(era, now).await;
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
                    let count = eras.len() as u64;
                    self.work.eras_dropped = self.work.eras_dropped.saturating_add(count);
                    self.dropping.extend(eras);
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

    /// The eras that are to be here and are not. For a node with a budget these are those that it
    /// fetches, and those that it would fetch if a connected peer had them.
    fn missing(&self) -> EraRanges {
        let own = &self.machine.announcement().eras;
        match self.parts.sharing.keep {
            Keep::Full => EraRanges::of((0..self.eras).map(Era).filter(|era| !own.contains(*era))),
            Keep::Bytes(_) | Keep::Recent(_) => {
                let unclaimed = self.machine.unclaimed().below(Era(self.eras));
                let fetching = self.fetching.keys().copied();
                EraRanges::of(fetching.chain(unclaimed).collect::<BTreeSet<Era>>())
            }
        }
    }

    /// Updates the view.
    fn show(&self) {
        let claims = self.peers.iter().map(|(id, peer)| Claims {
            peer: id.to_string(),
            group: peer.group,
            eras: self.machine.believed(peer.number),
        });
        let shown = ArchiveView {
            keep: self.parts.sharing.keep,
            is_fetching: !self.fetching.is_empty(),
            own: self.machine.announcement().eras.clone(),
            missing: self.missing(),
            claims: claims.collect(),
            work: self.work,
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

#[cfg(test)]
mod tests;
