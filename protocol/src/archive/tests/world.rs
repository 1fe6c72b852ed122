//! A simulator: archive machines in one thread, each connected to all others. Messages take random
//! times and overtake each other. All chance follows from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::archive::{Archive, Audit, COPIES, Effect, Input, Keep, Notice, Setup, WholeEra};
use crate::eras::{Announcement, Era, EraRanges};
use crate::ids::{PeerId, RequestId};
use crate::lots::Lots;

/// For how long nodes that are gone count here, as in the benches.
pub(super) const GONE_COUNTS: Duration = Duration::from_secs(10);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Bytes of an era.
pub(super) const BYTES: u64 = 1 << 20;

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    /// Runs an archive machine.
    Honest,
    /// Announces all eras, keeps none, and has no chunk to show.
    Boasts,
    /// As above, and leaves audits without an answer.
    Silent,
    /// Announces all eras and has those on its disk.
    Hoards,
    /// Announces all eras and keeps none. When it is audited, it gets the chunk from a node that
    /// serves the era, even from the auditor itself, and passes it on.
    Relays,
}

struct Node {
    conduct: Conduct,
    /// `None` if it is not honest.
    machine: Option<Archive>,
    is_up: bool,
    group: u64,
    disk: BTreeSet<Era>,
    /// Eras on the disk that it serves to nobody.
    withdrawn: BTreeSet<Era>,
    /// Number of its starts, so that each has numbers of its own.
    starts: u64,
}

enum Event {
    Time(usize),
    Ask { from: usize, to: usize, request: RequestId, said: Announcement },
    Answer { from: usize, to: usize, request: RequestId, said: Announcement },
    Audit { from: usize, to: usize, request: RequestId, era: Era },
    Audited { to: usize, request: RequestId, audit: Audit },
    Fetched(usize, Era),
}

/// Everything that is simulated.
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) eras: usize,
    /// Number of eras that were fetched.
    pub(super) fetches: usize,
    pub(super) notices: Vec<Notice>,
    /// Each drop of an era, with the number of copies that were left.
    pub(super) drops: Vec<(Era, usize)>,
    nodes: Vec<Node>,
    events: BTreeMap<(Duration, u64), Event>,
    next: u64,
    lots: Lots,
}

impl World {
    pub(super) fn new(seed: u64, eras: usize) -> Self {
        Self {
            now: Duration::ZERO,
            eras,
            fetches: 0,
            notices: Vec::new(),
            drops: Vec::new(),
            nodes: Vec::new(),
            events: BTreeMap::new(),
            next: 0,
            lots: Lots::new(seed),
        }
    }

    /// Adds a node and connects it to all others. `group` is its address group; `None` is one of
    /// its own.
    pub(super) fn join(&mut self, conduct: Conduct, keep: Keep, kept: bool, group: Option<u64>) {
        let index = self.nodes.len();
        let eras = vec![WholeEra { bytes: BYTES, is_kept: kept }; self.eras];
        let setup =
            Setup { id: id(index), keep, eras, gone_counts: GONE_COUNTS, seed: self.lots.draw() };
        let disk = if kept { (0..self.eras as u64).map(Era).collect() } else { BTreeSet::new() };
        self.nodes.push(Node {
            conduct,
            machine: (conduct == Conduct::Honest).then(|| Archive::new(setup, self.now)),
            is_up: false,
            group: group.unwrap_or(1_000 + index as u64),
            disk,
            withdrawn: BTreeSet::new(),
            starts: 0,
        });
        self.start(index);
    }

    /// Connects a node to all others that are up.
    pub(super) fn start(&mut self, index: usize) {
        self.nodes[index].is_up = true;
        self.nodes[index].starts += 1;
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            if self.nodes[other].is_up {
                self.connect(index, other);
                self.connect(other, index);
            }
        }
        let wait = self.lots.below(1_000);
        self.after(wait, Event::Time(index));
    }

    fn connect(&mut self, at: usize, to: usize) {
        let (peer, group) = (self.number(to), self.nodes[to].group);
        self.give(at, Input::Connected { peer, id: id(to), group });
    }

    /// The node is gone.
    pub(super) fn vanish(&mut self, index: usize) {
        self.nodes[index].is_up = false;
        let peer = self.number(index);
        for other in 0..self.nodes.len() {
            self.give(other, Input::Disconnected(peer));
        }
    }

    /// The node loses all eras, and knows nothing of it.
    pub(super) fn lose_disk(&mut self, index: usize) {
        self.nodes[index].disk.clear();
    }

    pub(super) fn keep(&mut self, index: usize, keep: Keep) {
        self.give(index, Input::Keep(keep));
    }

    /// One more era is whole, and all nodes have it.
    pub(super) fn grow(&mut self) {
        let era = Era(self.eras as u64);
        self.eras += 1;
        for index in 0..self.nodes.len() {
            self.nodes[index].disk.insert(era);
            self.give(index, Input::Whole(WholeEra { bytes: BYTES, is_kept: true }));
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// Number of nodes, whether they are up or not.
    pub(super) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Runs until this is true, and panics if it takes longer than this. Returns the time.
    pub(super) fn run_until(
        &mut self,
        most: Duration,
        is_done: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !is_done(self) {
            assert!(self.now - start < most, "not done: {:?}", self.copies());
            self.run(SECOND);
        }
        self.now - start
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Time(index) => {
                self.give(index, Input::Time);
                let deadline = self.nodes[index].machine.as_ref().map(Archive::deadline);
                if let Some(deadline) = deadline.filter(|_| self.nodes[index].is_up) {
                    let wait = deadline.saturating_sub(self.now).as_millis();
                    self.after(u64::try_from(wait).unwrap(), Event::Time(index));
                }
            }
            Event::Ask { from, to, request, said } => {
                let (peer, answers) = (self.number(from), None);
                self.give(to, Input::Announced { peer, announcement: said, answers });
                if let Some(said) = self.announcement(to) {
                    self.send(Event::Answer { from: to, to: from, request, said });
                }
            }
            Event::Answer { from, to, request, said } => {
                let (peer, answers) = (self.number(from), Some(request));
                self.give(to, Input::Announced { peer, announcement: said, answers });
            }
            Event::Audit { from, to, request, era } => {
                let audit = match self.nodes[to].conduct {
                    Conduct::Silent => return,
                    Conduct::Relays if self.is_served(era) => Audit::Passed,
                    _ if self.serves(to, era) => Audit::Passed,
                    _ if self.nodes[to].is_up => Audit::Failed,
                    _ => return,
                };
                self.send(Event::Audited { to: from, request, audit });
            }
            Event::Audited { to, request, audit } => self.give(to, Input::Audited(request, audit)),
            Event::Fetched(index, era) => {
                let mut others = (0..self.nodes.len()).filter(|other| *other != index);
                if others.any(|other| self.serves(other, era)) {
                    self.nodes[index].disk.insert(era);
                    self.give(index, Input::Fetched { era, bytes: BYTES });
                } else {
                    self.give(index, Input::Unfetched(era));
                }
            }
        }
    }

    fn give(&mut self, index: usize, input: Input) {
        let node = &mut self.nodes[index];
        let Some(machine) = node.machine.as_mut().filter(|_| node.is_up) else { return };
        for effect in machine.handle(self.now, input) {
            match effect {
                Effect::Exchange { peer, request } => {
                    let to = self.index(peer);
                    if let Some((to, said)) = to.zip(self.announcement(index)) {
                        self.send(Event::Ask { from: index, to, request, said });
                    }
                }
                Effect::Audit { peer, request, era, .. } => {
                    if let Some(to) = self.index(peer) {
                        self.send(Event::Audit { from: index, to, request, era });
                    }
                }
                Effect::Fetch(era) => {
                    self.fetches += 1;
                    let wait = 200 + self.lots.below(1_000);
                    self.after(wait, Event::Fetched(index, era));
                }
                Effect::Withdraw(eras) => {
                    for era in eras {
                        assert!(self.nodes[index].withdrawn.insert(era), "withdrawn twice");
                    }
                }
                Effect::Restore(eras) => {
                    for era in eras {
                        assert!(self.nodes[index].withdrawn.remove(&era), "not withdrawn");
                    }
                }
                Effect::Drop(eras) => {
                    for era in eras {
                        assert!(self.nodes[index].withdrawn.remove(&era));
                        assert!(self.nodes[index].disk.remove(&era));
                        self.drops.push((era, self.honest_copies(era)));
                    }
                }
                Effect::Notice(notice) => self.notices.push(notice),
            }
        }
    }

    /// What the node says of itself, if it is up.
    fn announcement(&self, index: usize) -> Option<Announcement> {
        let node = &self.nodes[index];
        let all = || EraRanges::of((0..self.eras as u64).map(Era));
        let boast = || Announcement { is_archive: true, eras: all() };
        let said = node.machine.as_ref().map_or_else(boast, |one| one.announcement().clone());
        node.is_up.then_some(said)
    }

    /// Whether a node would give an era to others.
    pub(super) fn serves(&self, index: usize, era: Era) -> bool {
        let Node { disk, withdrawn, is_up, .. } = &self.nodes[index];
        *is_up && disk.contains(&era) && !withdrawn.contains(&era)
    }

    /// Whether any node would give an era to others.
    fn is_served(&self, era: Era) -> bool {
        (0..self.nodes.len()).any(|node| self.serves(node, era))
    }

    /// Number of honest nodes that are up and have an era.
    pub(super) fn honest_copies(&self, era: Era) -> usize {
        let honest = |node: &&Node| node.conduct == Conduct::Honest && node.is_up;
        self.nodes.iter().filter(honest).filter(|node| node.disk.contains(&era)).count()
    }

    /// The same for all eras.
    pub(super) fn copies(&self) -> Vec<usize> {
        (0..self.eras as u64).map(|era| self.honest_copies(Era(era))).collect()
    }

    /// Fewest copies of any era.
    pub(super) fn fewest(&self) -> usize {
        self.copies().into_iter().min().unwrap()
    }

    /// Fewest copies that any drop has left since the last call.
    pub(super) fn fewest_after_drops(&mut self) -> usize {
        self.drops.drain(..).map(|(_, left)| left).min().unwrap_or(COPIES)
    }

    /// Bytes on the disk of a node.
    pub(super) fn bytes(&self, index: usize) -> u64 {
        self.nodes[index].disk.len() as u64 * BYTES
    }

    fn send(&mut self, event: Event) {
        // Most messages take some milliseconds, and one of ten up to 2 s.
        let most = if self.lots.below(10) == 0 { 2_000 } else { 50 };
        let wait = 1 + self.lots.below(most);
        self.after(wait, event);
    }

    fn after(&mut self, milliseconds: u64, event: Event) {
        self.next += 1;
        self.events.insert((self.now + Duration::from_millis(milliseconds), self.next), event);
    }

    fn number(&self, index: usize) -> PeerId {
        PeerId(1 + index as u64 + 1_000 * self.nodes[index].starts)
    }

    /// The node with this number, if it is up.
    fn index(&self, peer: PeerId) -> Option<usize> {
        (0..self.nodes.len()).find(|index| self.nodes[*index].is_up && self.number(*index) == peer)
    }
}

fn id(index: usize) -> Box<[u8]> {
    format!("node {index}").into_bytes().into()
}
