//! The flood query of Gnutella: a search without an index. A node asks its peers, they ask theirs,
//! and answers return the way the query came.
//!
//! It exists to be compared with the index (`docs/search.md`), and is on only in local networks and
//! simulators: each query costs every node of the network several messages, and whoever sends two
//! queries a second uses up what all nodes do for the queries of others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::holder::Holder;
use crate::ids::PeerId;
use crate::lots::Lots;
use crate::search::{FloodMessage, Hops, QueryId, Wanted};

/// Most peers to which a node sends a query. More would hardly find more, and cost more messages.
pub const FLOOD_PEERS_MAX: usize = 6;
/// Most queries of others that a node accepts within a second, from all peers together. Further
/// ones are dropped.
pub const FOREIGN_A_SECOND: usize = 2;
/// Most queries that are remembered. Further ones are dropped.
pub const REMEMBERED_MAX: usize = 4_096;
/// How long a query is remembered. Meanwhile copies of it are dropped and answers passed back.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Most holders that are returned for one query.
pub const HOLDERS_MAX: usize = 8;

/// Everything that happens to the flood query.
#[derive(Clone, Debug)]
pub enum FloodInput {
    /// A peer is connected.
    Connected(PeerId),
    /// A peer is not connected any more.
    Disconnected(PeerId),
    /// This node searches.
    Search(QueryId, Wanted),
    /// A peer sent a message.
    Message {
        /// The peer.
        from: PeerId,
        /// The message.
        message: FloodMessage,
        /// This node as a holder, if the message is a query and this node has the object.
        here: Option<Holder>,
    },
}

/// Everything that the flood query asks its driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FloodEffect {
    /// Send a message to a peer.
    Send(PeerId, FloodMessage),
    /// A holder was found for a search of this node.
    Found {
        /// The search.
        id: QueryId,
        /// Number of hops to the holder.
        hops: Hops,
        /// The holder.
        holder: Holder,
    },
}

/// A query that was sent on.
#[derive(Clone, Debug)]
struct Query {
    /// Who sent it; `None` for a search of this node.
    from: Option<PeerId>,
    asked: Vec<PeerId>,
    /// The peer ids of the holders that were returned.
    returned: Vec<Arc<[u8]>>,
}

/// The flood query of one node.
#[derive(Clone, Debug)]
pub struct Flood {
    now: Duration,
    peers: BTreeSet<PeerId>,
    queries: BTreeMap<QueryId, Query>,
    /// The remembered queries in the order in which they came, and when each one is forgotten.
    ends: VecDeque<(Duration, QueryId)>,
    /// When the last queries of others came, at most [`FOREIGN_A_SECOND`].
    foreign: VecDeque<Duration>,
    lots: Lots,
    effects: Vec<FloodEffect>,
}

impl Flood {
    /// A node without peers. All random choices follow from the seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            peers: BTreeSet::new(),
            queries: BTreeMap::new(),
            ends: VecDeque::new(),
            foreign: VecDeque::new(),
            lots: Lots::new(seed),
            effects: Vec::new(),
        }
    }

    /// Takes in one input and returns its effects.
    pub fn handle(&mut self, now: Duration, input: FloodInput) -> Vec<FloodEffect> {
        self.now = now;
        self.forget();
        match input {
            FloodInput::Connected(peer) => drop(self.peers.insert(peer)),
            FloodInput::Disconnected(peer) => drop(self.peers.remove(&peer)),
            FloodInput::Search(id, wanted) => self.pass_on(None, id, wanted, Some(Hops::MOST)),
            FloodInput::Message { from, message, here } => match message {
                FloodMessage::Query { id, wanted, left } => {
                    self.on_query(from, (id, wanted, left), here);
                }
                FloodMessage::Hit { id, crossed, holder } => {
                    self.on_hit(from, id, crossed, holder);
                }
            },
        }
        std::mem::take(&mut self.effects)
    }

    fn on_query(
        &mut self,
        from: PeerId,
        (id, wanted, left): (QueryId, Wanted, Hops),
        here: Option<Holder>,
    ) {
        if self.queries.contains_key(&id) || !self.admits_foreign() {
            return;
        }
        self.pass_on(Some(from), id, wanted, left.fewer());
        if let Some(holder) = here {
            self.give_back(id, Hops::ONE, holder);
        }
    }

    /// Whether one more query of others is accepted now.
    fn admits_foreign(&mut self) -> bool {
        /// The time over which queries are counted.
        const SECOND: Duration = Duration::from_secs(1);
        while self.foreign.front().is_some_and(|at| self.now.saturating_sub(*at) >= SECOND) {
            self.foreign.pop_front();
        }
        let admits = self.foreign.len() < FOREIGN_A_SECOND;
        if admits {
            self.foreign.push_back(self.now);
        }
        admits
    }

    /// Remembers a query and sends it to peers chosen at random. `left`: the hops that it may still
    /// make.
    fn pass_on(&mut self, from: Option<PeerId>, id: QueryId, wanted: Wanted, left: Option<Hops>) {
        if self.queries.len() >= REMEMBERED_MAX || self.queries.contains_key(&id) {
            return;
        }
        let asked = if left.is_some() { self.choose(from) } else { Vec::new() };
        if let Some(left) = left {
            let query = FloodMessage::Query { id, wanted, left };
            let sent = asked.iter().map(|peer| FloodEffect::Send(*peer, query.clone()));
            self.effects.extend(sent);
        }
        self.queries.insert(id, Query { from, asked, returned: Vec::new() });
        self.ends.push_back((self.now.saturating_add(REMEMBERED_FOR), id));
    }

    fn choose(&mut self, except: Option<PeerId>) -> Vec<PeerId> {
        let mut open: Vec<PeerId> =
            self.peers.iter().filter(|peer| Some(**peer) != except).copied().collect();
        let mut chosen = Vec::new();
        while chosen.len() < FLOOD_PEERS_MAX && !open.is_empty() {
            let at = self.lots.below(open.len() as u64);
            chosen.push(open.swap_remove(usize::try_from(at).unwrap_or_default()));
        }
        chosen
    }

    /// An answer counts only from a peer that this node asked.
    fn on_hit(&mut self, from: PeerId, id: QueryId, crossed: Hops, holder: Holder) {
        let Some(query) = self.queries.get(&id).filter(|query| query.asked.contains(&from)) else {
            return;
        };
        match (query.from, crossed.more()) {
            (None, _) => self.give_back(id, crossed, holder),
            (Some(_), Some(crossed)) => self.give_back(id, crossed, holder),
            (Some(_), None) => {}
        }
    }

    /// Gives a holder to whoever sent the query.
    fn give_back(&mut self, id: QueryId, hops: Hops, holder: Holder) {
        let Some(query) = self.queries.get_mut(&id) else { return };
        if query.returned.len() >= HOLDERS_MAX || query.returned.contains(holder.id()) {
            return;
        }
        query.returned.push(Arc::clone(holder.id()));
        self.effects.push(match query.from {
            Some(peer) => FloodEffect::Send(peer, FloodMessage::Hit { id, crossed: hops, holder }),
            None => FloodEffect::Found { id, hops, holder },
        });
    }

    fn forget(&mut self) {
        while let Some((until, id)) = self.ends.front().copied()
            && until <= self.now
        {
            self.ends.pop_front();
            self.queries.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
