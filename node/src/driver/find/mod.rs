//! Searches for nodes that have an era of history or a file, and answers the searches of others.
//!
//! It runs as a task. Messages of peers come through `live`, which reads the events of the network.
//! [`protocol::find`] decides. Rules: `docs/protocol/network.md`.

mod announced;
mod candidates;
mod rounds;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::panic;
use std::time::Duration;

use ledger::codec;
use ledger::hash::Hash;
use ledger::store::ERA_SEGMENTS;
use ledger::units::Height;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use protocol::PeerId;
use protocol::budget::Cost;
use protocol::eras::Era;
use protocol::find::{EraGroup, Flood, FloodEffect, FloodInput, Object};
use protocol::holder::Holder;
use protocol::message::{Request, Response, answer_bytes_max};
use protocol::search::{FloodMessage, QueryId, Wanted};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::announced::Announced;
use self::candidates::Candidates;
use self::rounds::Rounds;
use self::search::Searches;
pub(crate) use self::search::{FindError, Found, Reply, Searched};
use crate::clock::Clock;
use crate::network::{self, Network, ResponseTicket, Source};
use crate::view::View;

/// Most messages and searches that wait for this task. Beyond it a peer hears that this node is
/// busy.
pub(crate) const TO_FIND: usize = 256;

/// Most look-ups at a time.
const LOOK_UPS_MAX: usize = 8;
/// How often the index hears which eras and files are here, if that has changed, and how often
/// holders of lacking eras are looked for. Each time all eras are gone through.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);
/// How often holders of files are looked for. The user who fetches a file waits for that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Most holders that are dialed after a look-up, with up to four addresses each. An honest index
/// names up to 20, and liars may name any number.
const DIALED_MAX: usize = 16;

/// A message to this task.
pub(crate) enum ToFind {
    /// A peer sent a message of the flood query.
    Flood { ticket: ResponseTicket, from: network::PeerId, message: FloodMessage },
    /// The operator searches: by a flood query, or by what is known and the index.
    Search { searched: Searched, floods: bool, reply: Reply },
}

/// Everything that this task starts with.
pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) network: Network,
    pub(crate) view: View,
    /// Whether this node takes part in flood queries: on local networks alone.
    pub(crate) floods: bool,
    /// What this node looks for on its own account, for the progress bar.
    pub(crate) seeking: watch::Sender<Option<String>>,
    pub(crate) meters: Meters,
    pub(crate) inbox: mpsc::Receiver<ToFind>,
    /// Becomes true when the node must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Counts messages of the flood query.
#[derive(Clone, Default)]
pub(crate) struct Meters {
    sent: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Meters {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let meters = Self::default();
        let registry = registry.sub_registry_with_prefix("cairn_flood");
        registry.register(
            "sent",
            "Messages of the flood query that were sent",
            meters.sent.clone(),
        );
        meters
    }

    fn on_sent(&self, message: &FloodMessage) {
        let kind = match message {
            FloodMessage::Query { .. } => "query",
            FloodMessage::Hit { .. } => "hit",
        };
        self.sent.get_or_create(&[("kind", kind)]).inc();
    }
}

struct Driver {
    parts: Parts,
    flood: Flood,
    searches: Searches,
    /// The peers with a link, and the numbers by which the machine knows them. A number is never
    /// used again.
    numbers: HashMap<network::PeerId, PeerId>,
    peers: BTreeMap<PeerId, network::PeerId>,
    last_number: u64,
    look_ups: JoinSet<()>,
    announced: Announced,
    rounds: Rounds,
}

fn name(wanted: Wanted) -> String {
    match wanted {
        Wanted::Era(era) => format!("era {}", era.0),
        Wanted::File(id) => format!("file {id}"),
    }
}

/// Runs until the node must stop.
pub(crate) async fn run(parts: Parts, seed: u64) {
    let mut stop = parts.stop.clone();
    let driver = Driver {
        flood: Flood::new(seed),
        searches: Searches::default(),
        numbers: HashMap::new(),
        peers: BTreeMap::new(),
        last_number: 0,
        look_ups: JoinSet::new(),
        announced: Announced::default(),
        rounds: Rounds::default(),
        parts,
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = driver.work() => {}
    }
}

impl Driver {
    async fn work(mut self) {
        let mut announce = tokio::time::interval(ANNOUNCE_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let now = self.now();
            let wait = self.searches.deadline().map(|at| at.saturating_sub(now));
            tokio::select! {
                message = self.parts.inbox.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
                _ = announce.tick() => {
                    self.announce();
                    self.seek();
                }
                _ = look.tick() => {
                    if self.lacks_a_file() {
                        self.seek();
                    }
                }
                Some(ended) = self.look_ups.join_next() => {
                    if let Err(error) = ended
                        && let Ok(reason) = error.try_into_panic()
                    {
                        panic::resume_unwind(reason);
                    }
                }
                // The time at which the next search has an end.
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    self.searches.end_late(self.now());
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.parts.clock.now().elapsed
    }

    fn on_message(&mut self, message: ToFind) {
        // It takes some time, and no other network needs it.
        if self.parts.floods {
            self.look_at_peers();
        }
        match message {
            ToFind::Flood { ticket, from, message } => self.on_flood(ticket, from, message),
            ToFind::Search { searched, floods, reply } => match self.wanted(searched) {
                Ok(wanted) if floods => self.flood(wanted, reply),
                Ok(wanted) => self.look_up(wanted, reply),
                // Whoever searched may have gone.
                Err(error) => drop(reply.send(Err(error))),
            },
        }
    }

    /// Tells the machine which peers have come and gone. Only those with a link count: others may
    /// be of a version that does not know the messages.
    fn look_at_peers(&mut self) {
        let linked: HashSet<String> =
            self.parts.view.sync.borrow().peers.values().cloned().collect();
        let gone: Vec<network::PeerId> =
            self.numbers.keys().filter(|id| !linked.contains(&id.to_string())).copied().collect();
        for id in gone {
            if let Some(number) = self.numbers.remove(&id) {
                self.peers.remove(&number);
                self.give(FloodInput::Disconnected(number));
            }
        }
        let all = self.parts.view.peers.borrow().clone();
        for info in all.iter().filter(|info| linked.contains(&info.id.to_string())) {
            if !self.numbers.contains_key(&info.id) {
                self.last_number += 1;
                let number = PeerId(self.last_number);
                self.numbers.insert(info.id, number);
                self.peers.insert(number, info.id);
                self.give(FloodInput::Connected(number));
            }
        }
    }

    /// A peer sent a message of the flood query. A node that takes part in none, or does not know
    /// the peer yet, drops the ticket, which tells the peer that it is busy.
    fn on_flood(&mut self, ticket: ResponseTicket, from: network::PeerId, message: FloodMessage) {
        let Some(number) = self.numbers.get(&from).copied().filter(|_| self.parts.floods) else {
            return;
        };
        let here = match &message {
            FloodMessage::Query { wanted, .. } => self.this_node(*wanted),
            FloodMessage::Hit { id, .. } => {
                self.searches.on_message(id);
                None
            }
        };
        let answer = codec::encode(&Response::Taken);
        let sent = self.give(FloodInput::Message { from: number, message, here });
        let cost = Cost::look_ups(2, 0).and(Cost::answer(answer.len().saturating_add(sent)));
        self.parts.network.accounts().charge(&from, &cost);
        self.parts.network.respond(ticket, answer);
    }

    /// The connected peers that announce this.
    fn known(&self, wanted: Wanted) -> Candidates {
        let mut known = Candidates::default();
        let Wanted::Era(era) = wanted else { return known };
        let claims = self.parts.view.archive.borrow().clone();
        let peers = self.parts.view.peers.borrow().clone();
        let claims =
            |id: &str| claims.claims.iter().any(|one| one.peer == id && one.eras.contains(era));
        for info in peers.iter().filter(|info| claims(&info.id.to_string())) {
            known.add(Source::Here, (info.id, vec![info.address.clone()]));
        }
        known
    }

    /// Begins a look-up in the index.
    fn look_up(&mut self, wanted: Wanted, reply: Reply) {
        if self.look_ups.len() >= LOOK_UPS_MAX {
            // Whoever searched may have gone.
            return drop(reply.send(Err(FindError::Busy)));
        }
        let known = self.known(wanted);
        let answers = self.parts.network.find_providers(self.key(self.object(wanted)));
        let look_up = search::look_up(known, answers);
        self.look_ups.spawn(async move {
            let _gone = reply.send(Ok(look_up.await.found()));
        });
    }

    /// What this node fetches, or would fetch, and no connected peer gives: files that none of them
    /// sends, and an era of each group of which none claims some. Audits end claims that are false.
    fn lacking(&self) -> Vec<Wanted> {
        let sync = self.parts.view.sync.borrow();
        let files = sync.report.files.iter().filter(|file| file.needs_holders);
        let archive = self.parts.view.archive.borrow();
        let is_claimed = |era: &Era| archive.claims.iter().any(|one| one.eras.contains(*era));
        let missing = archive.missing.below(Era(self.eras()));
        let mut eras: Vec<Wanted> =
            missing.filter(|era| !is_claimed(era)).map(Wanted::Era).collect();
        eras.dedup_by_key(|wanted| self.object(*wanted));
        files.map(|file| Wanted::File(file.id.0)).chain(eras).collect()
    }

    fn lacks_a_file(&self) -> bool {
        self.parts.view.sync.borrow().report.files.iter().any(|file| file.needs_holders)
    }

    /// Looks for holders of one thing that no connected peer gives, and dials them.
    fn seek(&mut self) {
        let lacking = self.lacking();
        if lacking.is_empty() {
            self.parts.seeking.send_if_modified(|seeking| seeking.take().is_some());
        }
        if self.look_ups.len() >= LOOK_UPS_MAX {
            return;
        }
        let Some(wanted) = self.rounds.next(&lacking, self.now()) else { return };
        let text = format!("no connected peer gives {}: looking for others", name(wanted));
        tracing::info!("{text}");
        self.parts.seeking.send_replace(Some(text));
        let answers = self.parts.network.find_providers(self.key(self.object(wanted)));
        let (network, seeking) = (self.parts.network.clone(), self.parts.seeking.clone());
        let look_up = search::look_up(Candidates::default(), answers);
        self.look_ups.spawn(async move {
            let candidates = look_up.await.candidates;
            let connected = network.peers().borrow().clone();
            let is_new = |peer: &network::PeerId| connected.iter().all(|info| info.id != *peer);
            let count = candidates.count();
            let new = candidates.choose(DIALED_MAX, is_new);
            let (dialed, name) = (new.len(), name(wanted));
            new.into_iter()
                .flat_map(|(_, addresses)| addresses)
                .for_each(|address| network.dial_holder(address));
            let text = format!("{name}: {count} holders found, {dialed} dialed");
            tracing::info!("{text}");
            seeking.send_replace(Some(text));
        });
    }

    fn object(&self, wanted: Wanted) -> Object {
        match wanted {
            Wanted::Era(era) => Object::Eras(EraGroup::of(era, self.eras())),
            Wanted::File(id) => Object::File(id),
        }
    }

    fn key(&self, object: Object) -> [u8; 32] {
        *object.key(self.parts.view.chain.id()).0.as_bytes()
    }

    /// Number of whole eras of the chain.
    fn eras(&self) -> u64 {
        self.parts.view.tip.borrow().state.history().segments() / ERA_SEGMENTS
    }

    /// Tells the index which groups of eras and which files are here.
    fn announce(&mut self) {
        let (own, eras) = (self.parts.view.archive.borrow().own.clone(), self.eras());
        let kept = own.below(Era(eras));
        let mut here: BTreeSet<Object> =
            kept.flat_map(|era| EraGroup::announced(era, eras)).map(Object::Eras).collect();
        here.extend(self.files().into_iter().map(Object::File));
        let chain = self.parts.view.chain.id();
        let network = &self.parts.network;
        self.announced.update(&here, |object, is_here| {
            let key = *object.key(chain).0.as_bytes();
            if is_here { network.provide(key) } else { network.withdraw(key) }
        });
    }

    /// Begins a flood query.
    fn flood(&mut self, wanted: Wanted, reply: Reply) {
        let mut id = [0; 16];
        let begun = match getrandom::fill(&mut id) {
            _ if !self.parts.floods => Err(FindError::NoFlood),
            Err(_) => Err(FindError::NoRandomness),
            Ok(()) => Ok(QueryId(id)),
        };
        match begun {
            Ok(id) => {
                self.searches.begin(id, self.now(), reply);
                self.give(FloodInput::Search(id, wanted));
            }
            // Whoever searched may have gone.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Gives the machine one input and performs its effects. Returns the number of bytes that were
    /// sent.
    fn give(&mut self, input: FloodInput) -> usize {
        let now = self.now();
        let mut sent = 0;
        for effect in self.flood.handle(now, input) {
            match effect {
                FloodEffect::Send(to, message) => {
                    let Some(to) = self.peers.get(&to).copied() else { continue };
                    if let FloodMessage::Query { id, .. } = &message {
                        self.searches.on_message(id);
                    }
                    self.parts.meters.on_sent(&message);
                    let bytes = codec::encode(&Request::Flood(message));
                    sent += bytes.len();
                    let most = answer_bytes_max(&bytes);
                    self.parts.network.request_within(to, bytes, most);
                }
                FloodEffect::Found { id, hops, holder } => {
                    self.searches.on_found(id, Some(hops), holder, now);
                }
            }
        }
        sent
    }

    /// The files of which a part is here and served.
    fn files(&self) -> Vec<Hash> {
        let sync = self.parts.view.sync.borrow();
        sync.report.files.iter().filter(|file| file.is_here()).map(|file| file.id.0).collect()
    }

    /// This node as a holder, if it has this.
    fn this_node(&self, wanted: Wanted) -> Option<Holder> {
        let has = match wanted {
            Wanted::Era(era) => self.parts.view.archive.borrow().own.contains(era),
            Wanted::File(id) => self.files().contains(&id),
        };
        let addresses = self.parts.network.addresses().borrow().clone();
        let addresses = addresses.iter().map(|address| address.to_vec().into_boxed_slice());
        has.then(|| Holder::new(&self.parts.network.local_peer().to_bytes(), addresses)).flatten()
    }

    /// What a query for this names.
    fn wanted(&self, searched: Searched) -> Result<Wanted, FindError> {
        let eras = self.eras();
        let era = match searched {
            Searched::Wanted(Wanted::Era(era)) => era,
            Searched::Wanted(wanted) => return Ok(wanted),
            Searched::Block(height) => {
                return match self.era_of(height).filter(|era| era.0 < eras) {
                    Some(era) => Ok(Wanted::Era(era)),
                    None => Err(FindError::NotInAnEra(height)),
                };
            }
        };
        match era.0 < eras {
            true => Ok(Wanted::Era(era)),
            false => Err(FindError::NoSuchEra { era: era.0, eras }),
        }
    }

    /// The era of the segment with this block. `None` if the segment is not sealed.
    fn era_of(&self, height: Height) -> Option<Era> {
        /// Descriptors that are looked through at a time.
        const PAGE: usize = 4_096;
        let mut first = 0;
        loop {
            let page = self.parts.view.store.descriptors(first, Height(u64::MAX), PAGE);
            if let Some(one) = page.iter().find(|one| one.last >= height) {
                return Some(Era(one.index / ERA_SEGMENTS));
            }
            first = page.last()?.index + 1;
        }
    }
}
