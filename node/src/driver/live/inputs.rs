//! Chooses what the driver does next: the most urgent input goes first, within a bound for each
//! input.
//!
//! Urgent inputs go first. An urgent input without end would starve the others, so each has a
//! *quantum*: the number of its turns in a cycle. In a turn the driver handles one message. An
//! input that has used its quantum rests until every other one has had its turns or has nothing to
//! do. Then a new cycle begins. So each input is served within two cycles, however much the others
//! have.

use std::collections::BTreeSet;
use std::future::ready;
use std::time::Duration;

use ledger::block::VerifiedBlock;
use ledger::certificate::Certificate;
use protocol::FetchPlan;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, unconstrained};
use tokio::time::sleep;

use super::reads::Reads;
use crate::network::{Gossip, PeerEvent, PeerId};
use crate::verifier::Verified;
use crate::view::{Query, TipView};

/// After this time without other work the driver calls `Store::maintain`, which writes a checkpoint
/// if one is due. Without such a call `Store::commit` writes one every 256 blocks.
pub(super) const IDLE: Duration = Duration::from_millis(20);

/// Turns of each input in a cycle, in the order of [`Kind`]. A turn takes microseconds to a
/// millisecond, but a turn of history (the last two kinds) up to a tenth of a second. Larger quanta
/// would let one input delay the others for longer. Smaller ones would split the burst of votes
/// that ends a round of a large network.
const QUANTA: [u32; 8] = [64, 16, 32, 16, 32, 8, 1, 1];

/// The inputs that have a quantum, the most urgent first.
#[derive(Clone, Copy)]
enum Kind {
    Consensus,
    Headers,
    Events,
    Verified,
    Queries,
    Reads,
    Past,
    Sync,
}

/// Output of sync for the driver.
#[derive(Debug)]
pub(crate) enum ToDriver {
    /// How the blocks above the tip are fetched.
    Plan(FetchPlan),
    /// The verified blocks of a segment, and the certificate of the last one.
    Segment(Vec<VerifiedBlock>, Certificate),
    /// The node has joined: the store has the tip of a snapshot, or there is no snapshot to load.
    Joined(Option<Box<TipView>>),
}

/// What the driver begins with after the node has joined its chain.
#[derive(Default)]
pub(crate) struct Joined {
    /// The tip of the snapshot. `None` if none was loaded: then the chain begins at the genesis.
    pub(crate) tip: Option<TipView>,
    /// The peers that are connected. Each is held in the peer numbers.
    pub(crate) connected: BTreeSet<PeerId>,
    /// How blocks are fetched, if sync has said so.
    pub(crate) plan: Option<FetchPlan>,
}

/// The inputs, except time.
pub(crate) struct Inputs {
    pub(crate) consensus: mpsc::Receiver<Gossip>,
    pub(crate) headers: mpsc::Receiver<Gossip>,
    pub(crate) events: mpsc::Receiver<PeerEvent>,
    pub(crate) verified: mpsc::Receiver<Verified>,
    pub(crate) queries: mpsc::Receiver<Query>,
    /// Blocks of history, and the plan of how blocks are fetched.
    pub(crate) sync: mpsc::Receiver<ToDriver>,
    /// Becomes true when the node must stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// What the driver does next.
pub(super) enum Next {
    /// The node must stop, or a part has ended. The part that ended first reports the cause.
    Stop,
    Consensus(Gossip),
    /// A timer is due.
    Timer,
    Headers(Gossip),
    Event(PeerEvent),
    Verified(Verified),
    Query(Query),
    /// A read of blocks for a peer has ended.
    Read(Result<PeerId, JoinError>),
    /// Blocks of history are durable, and the machine is to be told. It may then commit more of
    /// them.
    Past,
    Sync(ToDriver),
    /// There has been no other work for [`IDLE`].
    Idle,
}

/// The work that comes from the driver itself and not from an input.
#[derive(Clone, Copy, Default)]
pub(super) struct Due {
    /// Time until the next timer.
    pub(super) timer: Duration,
    /// Whether blocks of history are durable and the machine has not been told.
    pub(super) past: bool,
    /// Whether `Store::maintain` is to be called when there is nothing else to do.
    pub(super) checkpoint: bool,
}

/// The turns that each input has left in this cycle.
pub(super) struct Cycle {
    left: [u32; QUANTA.len()],
    /// Whether the last turn was a timer's.
    was_timer: bool,
}

impl Cycle {
    pub(super) const fn new() -> Self {
        Self { left: QUANTA, was_timer: false }
    }

    const fn may(&self, kind: Kind) -> bool {
        self.left[kind as usize] > 0
    }

    const fn take(&mut self, kind: Kind) {
        self.left[kind as usize] -= 1;
    }

    fn is_used_up(&self) -> bool {
        self.left.contains(&0)
    }
}

impl Inputs {
    /// Waits for the next thing to do.
    pub(super) async fn next(&mut self, cycle: &mut Cycle, reads: &mut Reads, due: Due) -> Next {
        // The driver has a thread of its own and need not yield. With tokio's cooperative budget
        // all channels would look empty after 128 messages, and the last branches would go first.
        unconstrained(self.choose(cycle, reads, due)).await
    }

    async fn choose(&mut self, cycle: &mut Cycle, reads: &mut Reads, due: Due) -> Next {
        let is_due = due.timer.is_zero() && !cycle.was_timer;
        cycle.was_timer = false;
        loop {
            let (kind, next) = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return Next::Stop,
                // Votes and proposals go before certified headers, headers before requests of
                // peers, and requests before transactions.
                Some(gossip) = self.consensus.recv(), if cycle.may(Kind::Consensus) => {
                    (Kind::Consensus, Next::Consensus(gossip))
                }
                // A due timer goes before the branches below. After a timer's turn this branch is
                // off for one turn, so that timers never starve the others. The last branch then
                // serves a timer only if there is no other work. `ready` is used since even a
                // `sleep` of no time is not ready at once.
                () = ready(()), if is_due => {
                    cycle.was_timer = true;
                    return Next::Timer;
                }
                Some(gossip) = self.headers.recv(), if cycle.may(Kind::Headers) => {
                    (Kind::Headers, Next::Headers(gossip))
                }
                event = self.events.recv(), if cycle.may(Kind::Events) => match event {
                    Some(event) => (Kind::Events, Next::Event(event)),
                    None => return Next::Stop,
                },
                verified = self.verified.recv(), if cycle.may(Kind::Verified) => match verified {
                    Some(verified) => (Kind::Verified, Next::Verified(verified)),
                    None => return Next::Stop,
                },
                Some(query) = self.queries.recv(), if cycle.may(Kind::Queries) => {
                    (Kind::Queries, Next::Query(query))
                }
                Some(read) = reads.ended(), if cycle.may(Kind::Reads) => {
                    (Kind::Reads, Next::Read(read))
                }
                // Blocks of history come after all work that somebody waits for, a few at a time.
                () = ready(()), if due.past && cycle.may(Kind::Past) => (Kind::Past, Next::Past),
                Some(news) = self.sync.recv(), if cycle.may(Kind::Sync) => {
                    (Kind::Sync, Next::Sync(news))
                }
                // All inputs have had their turns or have nothing to do: a new cycle.
                () = ready(()), if cycle.is_used_up() => {
                    cycle.left = QUANTA;
                    continue;
                }
                () = sleep(IDLE), if due.checkpoint => return Next::Idle,
                () = sleep(due.timer) => {
                    cycle.was_timer = true;
                    return Next::Timer;
                }
            };
            cycle.take(kind);
            return next;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CYCLE: u32 = {
        let (mut sum, mut kind) = (0, 0);
        while kind < QUANTA.len() {
            sum += QUANTA[kind];
            kind += 1;
        }
        sum
    };

    /// The inputs, their sending ends, and what else [`Inputs::next`] needs.
    struct World {
        consensus: mpsc::Sender<Gossip>,
        headers: mpsc::Sender<Gossip>,
        events: mpsc::Sender<PeerEvent>,
        _verified: mpsc::Sender<Verified>,
        _queries: mpsc::Sender<Query>,
        sync: mpsc::Sender<ToDriver>,
        _stop: watch::Sender<bool>,
        inputs: Inputs,
        cycle: Cycle,
        reads: Reads,
    }

    impl World {
        fn new() -> Self {
            let (consensus, headers, events) =
                (mpsc::channel(512), mpsc::channel(256), mpsc::channel(256));
            let (verified, queries, sync) = (mpsc::channel(1), mpsc::channel(1), mpsc::channel(1));
            let (stop, stopped) = watch::channel(false);
            let inputs = Inputs {
                consensus: consensus.1,
                headers: headers.1,
                events: events.1,
                verified: verified.1,
                queries: queries.1,
                sync: sync.1,
                stop: stopped,
            };
            Self {
                consensus: consensus.0,
                headers: headers.0,
                events: events.0,
                _verified: verified.0,
                _queries: queries.0,
                sync: sync.0,
                _stop: stop,
                inputs,
                cycle: Cycle::new(),
                reads: Reads::new(),
            }
        }

        /// Fills the queues of the three most urgent inputs.
        fn flood(&self) {
            let fill =
                |sender: &mpsc::Sender<Gossip>| while sender.try_send(Gossip::made_up()).is_ok() {};
            fill(&self.consensus);
            fill(&self.headers);
            while self.events.try_send(PeerEvent::Connected(PeerId::random())).is_ok() {}
        }

        async fn next(&mut self, due: Due) -> Next {
            self.inputs.next(&mut self.cycle, &mut self.reads, due).await
        }
    }

    const LATER: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_flood_in_the_first_input_keeps_no_other_from_its_turn() {
        let mut world = World::new();
        // The first turns of a cycle are those of the first input.
        world.flood();
        for _ in 0..QUANTA[0] {
            assert!(matches!(
                world.next(Due { timer: LATER, ..Due::default() }).await,
                Next::Consensus(_)
            ));
        }
        let (mut past, mut plans, mut headers) = (0, 0, 0);
        for _ in 0..10 * CYCLE {
            world.flood();
            let _full = world.sync.try_send(ToDriver::Plan(FetchPlan::Blocks));
            match world.next(Due { timer: LATER, past: true, checkpoint: false }).await {
                Next::Past => past += 1,
                Next::Sync(_) => plans += 1,
                Next::Headers(_) => headers += 1,
                _ => {}
            }
        }
        assert!(
            past >= 10 && plans >= 10 && headers >= 10 * QUANTA[1],
            "{past}, {plans} and {headers} turns"
        );
    }

    #[tokio::test]
    async fn a_due_timer_is_served_in_a_flood_and_stops_nothing() {
        let mut world = World::new();
        let (mut timers, mut in_a_row, mut was_timer) = (0, false, false);
        for _ in 0..CYCLE {
            world.flood();
            let is_timer = matches!(world.next(Due::default()).await, Next::Timer);
            timers += u32::from(is_timer);
            in_a_row |= is_timer && was_timer;
            was_timer = is_timer;
        }
        assert!(timers > 0 && !in_a_row, "{timers} cycle, two in a row: {in_a_row}");
    }

    #[tokio::test]
    async fn an_input_alone_has_all_turns() {
        let mut world = World::new();
        for _ in 0..4 * QUANTA[0] {
            world.consensus.try_send(Gossip::made_up()).unwrap();
            assert!(matches!(
                world.next(Due { timer: LATER, ..Due::default() }).await,
                Next::Consensus(_)
            ));
        }
    }
}
