//! The searches of this node's operator that are under way.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::units::Height;
use protocol::find::HOLDERS_MAX;
use protocol::holder::Holder;
use protocol::search::{Hops, QueryId, Wanted};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::candidates::Candidates;
use crate::network::ProviderEvent;

/// How long answers are awaited. Those of a flood query come within a few round trips.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a look-up in the index may take.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(20);

/// What the operator searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Searched {
    /// What a query names.
    Wanted(Wanted),
    /// The era of the block at this height.
    Block(Height),
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// At most [`HOLDERS_MAX`] holders: for a flood query the first ones that were heard of, for a
    /// look-up some of each source.
    pub(crate) holders: Vec<Holder>,
    /// Number of hops to the first holder, for a flood query.
    pub(crate) hops: Option<u8>,
    /// Messages that this node sent and received for the search.
    pub(crate) messages: u64,
    /// Until the first holder was heard of, or until the end of the search if there is none.
    pub(crate) time: Duration,
}

/// Why there is no search.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    /// Flood queries are only for local networks.
    #[error("--flood is for local networks: a query costs all nodes of a network several messages")]
    NoFlood,
    /// The height is not in a sealed segment.
    #[error("block {0} is in no whole era yet: each node at the tip has it")]
    NotInAnEra(Height),
    /// The chain is shorter.
    #[error("era {era} does not exist: the chain has {eras} whole eras")]
    NoSuchEra {
        /// The era.
        era: u64,
        /// Number of whole eras.
        eras: u64,
    },
    /// Too many look-ups are under way.
    #[error("the node is busy with other searches")]
    Busy,
    /// The system gives no random numbers.
    #[error("no randomness from the system")]
    NoRandomness,
}

/// The way back to whoever searches.
pub(crate) type Reply = oneshot::Sender<Result<Found, FindError>>;

struct Search {
    began: Duration,
    found: Found,
    reply: Reply,
}

/// What a look-up in the index has told.
pub(super) struct LookedUp {
    pub(super) candidates: Candidates,
    messages: u64,
    time: Duration,
}

impl LookedUp {
    /// The result for the operator.
    pub(super) fn found(self) -> Found {
        let chosen = self.candidates.choose(HOLDERS_MAX, |_| true);
        let holders = chosen.into_iter().filter_map(|(peer, addresses)| {
            let addresses = addresses.iter().map(|address| address.to_vec().into_boxed_slice());
            Holder::new(&peer.to_bytes(), addresses)
        });
        let holders = holders.collect();
        Found { holders, hops: None, messages: self.messages, time: self.time }
    }
}

/// Follows a look-up in the index until its end. `candidates` are known without it.
pub(super) async fn look_up(
    mut candidates: Candidates,
    mut events: mpsc::Receiver<ProviderEvent>,
) -> LookedUp {
    let (began, mut messages) = (Instant::now(), 0);
    let mut first = (!candidates.is_empty()).then_some(Duration::ZERO);
    let end = began + LOOK_UP_PATIENCE;
    while let Ok(Some(event)) = timeout_at(end, events.recv()).await {
        match event {
            ProviderEvent::Found { source, peer, addresses } => {
                first.get_or_insert_with(|| began.elapsed());
                candidates.add(source, (peer, addresses));
            }
            // A request and its answer.
            ProviderEvent::Ended { requests } => messages = 2 * u64::from(requests),
        }
    }
    LookedUp { candidates, messages, time: first.unwrap_or_else(|| began.elapsed()) }
}

/// The searches under way, by the names of their queries.
#[derive(Default)]
pub(super) struct Searches(BTreeMap<QueryId, Search>);

impl Searches {
    pub(super) fn begin(&mut self, id: QueryId, now: Duration, reply: Reply) {
        self.0.insert(id, Search { began: now, found: Found::default(), reply });
    }

    /// A message was sent or received for a search.
    pub(super) fn on_message(&mut self, id: &QueryId) {
        if let Some(search) = self.0.get_mut(id) {
            search.found.messages += 1;
        }
    }

    pub(super) fn on_found(
        &mut self,
        id: QueryId,
        hops: Option<Hops>,
        holder: Holder,
        now: Duration,
    ) {
        let Some(Search { began, found, .. }) = self.0.get_mut(&id) else { return };
        if found.holders.is_empty() {
            (found.time, found.hops) = (now.saturating_sub(*began), hops.map(Hops::get));
        }
        found.holders.push(holder);
        if found.holders.len() >= HOLDERS_MAX {
            self.end(&id);
        }
    }

    /// When the next search ends.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.values().map(|search| search.began.saturating_add(PATIENCE)).min()
    }

    /// Ends the searches whose time is over.
    pub(super) fn end_late(&mut self, now: Duration) {
        let is_late = |search: &Search| search.began.saturating_add(PATIENCE) <= now;
        let late: Vec<QueryId> =
            self.0.iter().filter(|(_, search)| is_late(search)).map(|(id, _)| *id).collect();
        late.iter().for_each(|id| self.end(id));
    }

    fn end(&mut self, id: &QueryId) {
        let Some(Search { mut found, reply, .. }) = self.0.remove(id) else { return };
        if found.holders.is_empty() {
            found.time = PATIENCE;
        }
        // Whoever searched may have gone.
        let _gone = reply.send(Ok(found));
    }
}
