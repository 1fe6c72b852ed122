//! Reads of blocks for peers: a few at a time, and the peers in turn.
//!
//! A read takes a thread, the disk, and the memory of up to 2 MiB of blocks. So only [`READS_MAX`]
//! run at once, and at most one for each peer. Other requests wait, each peer's in a queue of its
//! own, and the peers are served in turn. So a peer with many requests delays its own answers and
//! not those of others. Named peers have every second turn while any of them waits, so that a crowd
//! of strangers cannot delay them much.

use std::collections::VecDeque;

use ledger::certificate::Certificate;
use ledger::codec;
use ledger::store::{Kept, Store, StoreError};
use ledger::units::Height;
use protocol::budget::Cost;
use protocol::message::{BLOCKS_BYTES, BLOCKS_MAX, Response};
use tokio::task::{JoinError, JoinSet};

use crate::network::{Network, PeerId, ResponseTicket};

/// Most reads at once.
const READS_MAX: usize = 4;
/// Most requests of one peer that wait. An honest peer that catches up has four in flight. Further
/// requests are refused as busy.
const OF_PEER_MAX: usize = 4;
/// Most requests of all named peers together that wait, and the same for all other peers. It is
/// [`OF_PEER_MAX`] for each of about 128 connections, so that no honest peer has its first request
/// refused.
const WAITING_MAX: usize = 512;

/// The reads that run and the requests that wait.
pub(super) struct Reads {
    turns: Turns<PeerId, (ResponseTicket, Height)>,
    running: JoinSet<PeerId>,
}

impl Reads {
    pub(super) fn new() -> Self {
        Self { turns: Turns::new(), running: JoinSet::new() }
    }

    /// A peer asks for blocks from this height on. If too many requests of this peer wait, or too
    /// many of all peers of its kind (named or not), the ticket is dropped. The peer then hears
    /// that this node is busy.
    pub(super) fn ask(
        &mut self,
        store: &Store,
        network: &Network,
        peer: PeerId,
        ticket: ResponseTicket,
        from: Height,
    ) {
        self.turns.push(peer, network.accounts().is_named(&peer), (ticket, from));
        self.start(store, network);
    }

    /// Starts as many reads as may run. A request whose stream has ended is dropped.
    fn start(&mut self, store: &Store, network: &Network) {
        while let Some((peer, (ticket, from))) = self.turns.next() {
            if !ticket.is_open() {
                self.turns.done(&peer);
                continue;
            }
            let (store, network) = (store.clone(), network.clone());
            self.running.spawn_blocking(move || {
                answer(&store, &network, peer, ticket, from);
                peer
            });
        }
    }

    /// The next read that has ended; `None` if none runs. Cancel safe.
    pub(super) async fn ended(&mut self) -> Option<Result<PeerId, JoinError>> {
        self.running.join_next().await
    }

    /// A read has ended: the next ones begin.
    pub(super) fn on_ended(&mut self, store: &Store, network: &Network, peer: &PeerId) {
        self.turns.done(peer);
        self.start(store, network);
    }

    /// The peer is gone, so its requests that wait are dropped. A read that runs goes on.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.turns.forget(peer);
    }
}

fn answer(store: &Store, network: &Network, peer: PeerId, ticket: ResponseTicket, from: Height) {
    match read_blocks(store, from) {
        Ok((response, reads)) => {
            let bytes = codec::encode(&response);
            network
                .accounts()
                .charge(&peer, &Cost::look_ups(0, reads).and(Cost::answer(bytes.len())));
            if matches!(&response, Response::Blocks(blocks, _) if !blocks.is_empty()) {
                network.uploaded().count(peer, bytes.len());
            }
            network.respond(ticket, bytes);
        }
        Err(error) => tracing::error!(%error, "cannot read blocks for a peer"),
    }
}

/// Blocks from this height on: at most [`BLOCKS_MAX`], and at most [`BLOCKS_BYTES`] bytes unless
/// the first one is larger. `NotKept` if this node has a block of this height but cannot serve it,
/// no blocks if the height is above the tip. Also returns the number of reads from the store.
fn read_blocks(store: &Store, from: Height) -> Result<(Response, u64), StoreError> {
    let mut blocks = Vec::new();
    let mut bytes = 0;
    let mut height = from.max(Height(1));
    while blocks.len() as u64 != BLOCKS_MAX
        && let Kept::Here(length) = store.block_length(height)?
        && (blocks.is_empty() || bytes + length <= BLOCKS_BYTES)
        && let Kept::Here(block) = store.block(height)?
    {
        bytes += length;
        blocks.push(block);
        height = height.next();
    }
    let last = blocks.last().map(|block| block.header.height);
    let certificate = last.map(|last| store.certificate(last)).transpose()?.and_then(Kept::here);
    let reads = blocks.len() as u64 + 1;
    let response = match certificate {
        Some(certificate) => Response::Blocks(blocks, certificate),
        None if from <= store.tip().0 => Response::NotKept,
        None => {
            Response::Blocks(Vec::new(), Certificate::genesis(ledger::hash::ChainId::default()))
        }
    };
    Ok((response, reads))
}

/// Decides whose job runs next.
struct Turns<Peer, Job> {
    /// The peers with a job that runs, at most [`READS_MAX`].
    running: Vec<Peer>,
    named: Line<Peer, Job>,
    others: Line<Peer, Job>,
    /// Whether the last job was a named peer's.
    was_named: bool,
}

/// Peers with jobs that wait. The first peer is the next one; after its turn it is the last one.
struct Line<Peer, Job> {
    peers: VecDeque<(Peer, VecDeque<Job>)>,
}

impl<Peer: Copy + Eq, Job> Turns<Peer, Job> {
    const fn new() -> Self {
        Self { running: Vec::new(), named: Line::new(), others: Line::new(), was_named: false }
    }

    /// Queues a job. Without room it is dropped.
    fn push(&mut self, peer: Peer, is_named: bool, job: Job) {
        if is_named { &mut self.named } else { &mut self.others }.push(peer, job);
    }

    /// Takes out the job that runs next. `None` if [`READS_MAX`] jobs run, or if only peers with a
    /// running job wait.
    fn next(&mut self) -> Option<(Peer, Job)> {
        if self.running.len() >= READS_MAX {
            return None;
        }
        let mut lines = [(false, &mut self.others), (true, &mut self.named)];
        if !self.was_named {
            lines.reverse();
        }
        let found = lines
            .into_iter()
            .find_map(|(is_named, line)| Some((is_named, line.pop(&self.running)?)));
        let (is_named, (peer, job)) = found?;
        self.was_named = is_named;
        self.running.push(peer);
        Some((peer, job))
    }

    /// The peer's running job has ended.
    fn done(&mut self, peer: &Peer) {
        self.running.retain(|running| running != peer);
    }

    /// Drops the peer's jobs that wait.
    fn forget(&mut self, peer: &Peer) {
        self.named.forget(peer);
        self.others.forget(peer);
    }
}

impl<Peer: Copy + Eq, Job> Line<Peer, Job> {
    const fn new() -> Self {
        Self { peers: VecDeque::new() }
    }

    /// The number of jobs.
    fn waiting(&self) -> usize {
        self.peers.iter().map(|(_, jobs)| jobs.len()).sum()
    }

    fn push(&mut self, peer: Peer, job: Job) {
        if self.waiting() >= WAITING_MAX {
            return;
        }
        match self.peers.iter_mut().find(|(waiting, _)| *waiting == peer) {
            Some((_, jobs)) if jobs.len() >= OF_PEER_MAX => {}
            Some((_, jobs)) => jobs.push_back(job),
            None => self.peers.push_back((peer, VecDeque::from([job]))),
        }
    }

    /// A job of the first peer that has none running.
    fn pop(&mut self, running: &[Peer]) -> Option<(Peer, Job)> {
        let first = self.peers.iter().position(|(peer, _)| !running.contains(peer))?;
        let (peer, mut jobs) = self.peers.remove(first)?;
        let job = jobs.pop_front()?;
        if !jobs.is_empty() {
            self.peers.push_back((peer, jobs));
        }
        Some((peer, job))
    }

    fn forget(&mut self, peer: &Peer) {
        self.peers.retain(|(waiting, _)| waiting != peer);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use ledger::chain::{Chain, ChainState, Committed};
    use ledger::genesis::Genesis;

    use super::*;

    /// Takes out jobs until none may run.
    fn started(turns: &mut Turns<u32, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.next()).map(|(peer, _)| peer).collect()
    }

    #[test]
    fn a_peer_with_many_requests_keeps_no_other_from_its_answer() {
        let mut turns = Turns::new();
        for job in 0..100 {
            turns.push(1, false, job);
        }
        assert_eq!(turns.others.waiting(), OF_PEER_MAX, "further ones are refused as busy");
        turns.push(2, false, 0);
        assert_eq!(started(&mut turns), [1, 2], "one place a peer");

        // Hostile peers take all reads, and each asks again as soon as it has its answer.
        let crowd = 10..60;
        crowd
            .clone()
            .for_each(|peer| (0..OF_PEER_MAX as u32).for_each(|job| turns.push(peer, false, job)));
        assert_eq!(started(&mut turns), [10, 11]);
        turns.push(99, false, 0);
        let (mut ended, mut running) = (0, VecDeque::from([1, 2, 10, 11]));
        while !running.contains(&99) {
            let Some(peer) = running.pop_front() else { panic!("nothing runs") };
            turns.done(&peer);
            turns.push(peer, false, 0);
            running.extend(started(&mut turns));
            assert_eq!(running.len(), READS_MAX, "no place is left free");
            ended += 1;
            assert!(
                ended <= 2 * crowd.len(),
                "each of the others has a turn before the newcomer, and no more"
            );
        }
    }

    #[test]
    fn named_peers_have_every_second_turn() {
        let mut turns = Turns::new();
        (0..200).for_each(|peer| turns.push(peer, false, 0));
        (1_000..1_002).for_each(|peer| (0..2).for_each(|job| turns.push(peer, true, job)));
        let mut order = Vec::new();
        while let Some((peer, _)) = turns.next() {
            order.push(peer);
            turns.done(&peer);
            if order.len() == 9 {
                break;
            }
        }
        assert_eq!(order, [1_000, 0, 1_001, 1, 1_000, 2, 1_001, 3, 4]);
    }

    /// The first 16 blocks came as a snapshot.
    #[test]
    fn blocks_that_are_not_kept_are_an_answer_of_their_own() {
        let mut genesis = Genesis::from_json(include_bytes!("../../../../genesis.json")).unwrap();
        genesis.limits.segment_blocks = 16;
        let (chain, folder) = (Chain::new(genesis), tempfile::tempdir().unwrap());
        let path = folder.path().join("db");
        Store::create(&path, chain.genesis()).unwrap();
        let store = Store::open(&path, &chain).unwrap().store;
        let mut state = ChainState::genesis(Arc::clone(&chain));
        let mut certificate = Certificate::genesis(chain.id());
        let mut next = || {
            let proposer = chain.genesis().validators[0].key;
            let (time, parent) = (state.next_time(), certificate.clone());
            let block = state.propose(proposer, time, parent.clone(), Vec::new());
            certificate = Certificate { height: block.height(), block: block.hash(), ..parent };
            state.commit(block, certificate.clone())
        };
        let Committed { block, certificate, sealed } = (0..16).map(|_| next()).last().unwrap();
        let (sealed, accounts) = (sealed.unwrap().descriptor, block.state().clone());
        store.adopt(block.header(), certificate, &[sealed], accounts).unwrap();
        store.commit(&[next(), next()]).unwrap();
        for (from, expected) in [(1, None), (16, None), (17, Some(2)), (18, Some(1)), (19, Some(0))]
        {
            match read_blocks(&store, Height(from)).unwrap().0 {
                Response::NotKept => assert_eq!(expected, None, "{from}"),
                Response::Blocks(blocks, _) => assert_eq!(expected, Some(blocks.len()), "{from}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_waits_is_bounded_and_goes_with_its_peer() {
        let mut turns = Turns::new();
        (0..1_000).for_each(|peer| (0..10).for_each(|job| turns.push(peer, false, job)));
        assert_eq!(turns.others.waiting(), WAITING_MAX);
        turns.push(5_000, true, 0);
        assert_eq!(turns.named.waiting(), 1, "others leave named peers their room");
        (0..1_000).chain([5_000]).for_each(|peer| turns.forget(&peer));
        assert!(turns.others.peers.is_empty() && turns.named.peers.is_empty());
        assert_eq!((turns.others.waiting(), turns.named.waiting()), (0, 0));
    }
}
