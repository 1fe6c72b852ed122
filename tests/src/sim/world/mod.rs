//! The world: all nodes, the network between them, and all events in their order.

mod byzantine;
mod happen;
mod perform;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ledger::chain::Chain;
use ledger::signature::SigningKey;
use ledger::units::{Height, Timestamp};
use protocol::{Input, RequestId, Ticket};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::byzantine::Byzantine;
use super::check::{Check, Rule, Violation};
use super::disk::Disk;
use super::load::Load;
use super::network::{Gossip, Network};
use super::node::{Clock, Node};
use super::plan::{Damage, Fault, Plan, milliseconds, validator_key};

/// A broken rule, and how to reproduce it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// Time since the run began.
    pub at: Duration,
    /// The broken rule.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, violation } = self;
        write!(f, "seed {seed}, at {at:.3?}: {violation}\n  see it again: make sim SEED={seed}")
    }
}

/// Totals of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Heights made final.
    pub heights: u64,
    /// Transfers made final.
    pub transactions: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Rounds that were not the first of their height, counted at each node.
    pub rounds: u64,
    /// Messages that byzantine validators sent.
    pub misdeeds: u64,
    /// Simulated time.
    pub time: Duration,
    /// Digest of all events in order.
    pub digest: u64,
}

/// An event that may come next.
enum Happening {
    Wake { node: usize, life: u64 },
    Gossip { from: usize, to: usize, gossip: Arc<Gossip>, bytes: Arc<Vec<u8>> },
    Request { from: usize, life: u64, to: usize, id: RequestId, bytes: Vec<u8> },
    Answer { to: usize, life: u64, id: RequestId, bytes: Option<Vec<u8>> },
    Meet { node: usize, peer: usize },
    Load,
    Act { node: usize },
    Fault(Fault),
    Join(u64),
    Restart { node: usize, life: u64 },
}

/// All nodes and the network between them.
pub struct World {
    /// Whether to print each event.
    pub told: bool,
    seed: u64,
    plan: Plan,
    rng: ChaCha8Rng,
    time: Duration,
    sequence: u64,
    agenda: BTreeMap<(Duration, u64), Happening>,
    chain: Arc<Chain>,
    network: Network,
    nodes: Vec<Node>,
    load: Load,
    loaded: bool,
    check: Check,
    broken: Option<Violation>,
    crashes: u64,
    rounds: u64,
    misdeeds: u64,
    digest: DefaultHasher,
}

impl World {
    /// A network at its first start, with all nodes running.
    #[must_use]
    pub fn new(seed: u64, plan: Plan) -> Self {
        let chain = Chain::new(plan.genesis());
        // A stream of its own, so that these choices are independent of the plan's.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let start = Timestamp(chain.genesis().start_time.0 + 86_400_000);
        let drift = milliseconds(plan.clock_drift);
        let coalition: Vec<SigningKey> =
            plan.byzantine.keys().map(|place| validator_key(*place)).collect();
        let dishonest = coalition.iter().map(SigningKey::public).collect();
        let byzantine = |place: usize| {
            let behaviours = plan.byzantine.get(&place)?;
            Some(Byzantine::new(validator_key(place), coalition.clone(), behaviours))
        };
        let nodes = (0..plan.nodes()).map(|place| Node {
            key: (place < plan.powers.len()).then(|| validator_key(place)),
            clock: Clock { start: Timestamp(start.0 + rng.random_range(0..=drift)) },
            disk: Disk::new(&chain),
            running: None,
            byzantine: byzantine(place),
            life: 0,
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut world = Self {
            told: false,
            seed,
            rng,
            time: Duration::ZERO,
            sequence: 0,
            agenda: BTreeMap::new(),
            network: Network::new(plan.delay.clone(), plan.loss_percent),
            nodes,
            load: Load::new(),
            loaded: true,
            check: Check::new(&chain, dishonest),
            broken: None,
            crashes: 0,
            rounds: 0,
            misdeeds: 0,
            digest: DefaultHasher::new(),
            chain,
            plan,
        };
        for (at, fault) in std::mem::take(&mut world.plan.faults) {
            world.plan_at(at, Happening::Fault(fault));
        }
        world.plan_at(Duration::ZERO, Happening::Load);
        for node in 0..world.nodes.len() {
            match world.nodes[node].is_honest() {
                true => world.start(node),
                false => world.plan_at(Duration::ZERO, Happening::Act { node }),
            }
        }
        world
    }

    /// Runs for this much simulated time.
    ///
    /// # Errors
    /// `Failure` at the first broken rule.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.run_until(time, |_| false).map(|_| ())
    }

    /// Runs until the condition holds, at most for `bound`. Returns whether it holds.
    ///
    /// # Errors
    /// `Failure` at the first broken rule.
    pub fn run_until(
        &mut self,
        bound: Duration,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<bool, Failure> {
        let end = self.time + bound;
        while !is_so(self) {
            let next =
                self.agenda.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            if next.is_none() {
                self.time = end;
                return Ok(false);
            }
            if let Some(((at, _), happening)) = self.agenda.pop_first() {
                self.time = at;
                self.happen(happening);
            }
            if let Some(violation) = self.broken.take() {
                return Err(self.failure(violation));
            }
        }
        Ok(true)
    }

    /// Ends all faults: every node runs and hears every other, and no new transfers come. Byzantine
    /// validators stay as they are.
    pub fn calm(&mut self) {
        self.tell(None, || "all is healed".to_owned());
        self.agenda.retain(|_, happening| !matches!(happening, Happening::Fault(_)));
        self.network.heal();
        self.loaded = false;
        for node in self.honest() {
            match &mut self.nodes[node].running {
                Some(running) => running.fuse = None,
                None => self.start(node),
            }
            self.meet_all(node);
        }
        let honest = self.honest();
        for (place, transaction) in self.load.again(self.check.newest()).into_iter().enumerate() {
            self.give(honest[place % honest.len()], Input::Submit(Ticket(0), transaction));
        }
    }

    /// Every honest node must reach this many heights beyond the highest one now. After
    /// [`Self::calm`], every submitted transfer must also become final.
    ///
    /// # Errors
    /// `Failure` when they do not within this time.
    pub fn progress(&mut self, heights: u64, patience: Duration) -> Result<(), Failure> {
        let target = Height(self.check.newest().tip().height.0 + heights);
        let is_there = |world: &Self| {
            world
                .nodes
                .iter()
                .filter(|node| node.is_honest())
                .all(|node| node.disk.height() >= target)
                && (world.loaded || world.load.waiting(world.check.newest()) == 0)
        };
        if self.run_until(patience, is_there)? {
            return Ok(());
        }
        let (heights, waiting) = (self.heights(), self.load.waiting(self.check.newest()));
        let what = format!(
            "heights {heights:?} after {patience:?}, expected {target}; {waiting} transfers wait"
        );
        Err(self.failure(Violation::new(Rule::NoStandstill, what)))
    }

    /// Stops a node at once.
    pub fn crash(&mut self, node: usize) {
        self.stop(node, Damage::None);
    }

    /// Starts a node from its disk.
    pub fn restart(&mut self, node: usize) {
        assert!(self.nodes[node].running.is_none(), "a node is started once");
        self.start(node);
    }

    fn honest(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].is_honest()).collect()
    }

    /// Height of each node's store, whether it runs or not.
    #[must_use]
    pub fn heights(&self) -> Vec<Height> {
        self.nodes.iter().map(|node| node.disk.height()).collect()
    }

    /// Everything seen of all nodes.
    #[must_use]
    pub const fn check(&self) -> &Check {
        &self.check
    }

    /// Totals so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            heights: self.check.newest().tip().height.0,
            transactions: self.check.transactions() as u64,
            crashes: self.crashes,
            rounds: self.rounds,
            misdeeds: self.misdeeds,
            time: self.time,
            digest: self.digest.finish(),
        }
    }

    pub(crate) const fn failure(&self, violation: Violation) -> Failure {
        Failure { seed: self.seed, at: self.time, violation }
    }

    fn plan_at(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), happening);
    }

    fn plan_in(&mut self, delay: Duration, happening: Happening) {
        self.plan_at(self.time + delay, happening);
    }

    fn tell(&self, node: Option<usize>, what: impl FnOnce() -> String) {
        if self.told {
            let who = node.map_or_else(|| "world".to_owned(), |node| format!("node {node}"));
            println!("{:>12.6} {who}: {}", self.time.as_secs_f64(), what());
        }
    }

    fn note(&mut self, node: usize, what: u8, bytes: &[u8]) {
        self.digest.write_u128(self.time.as_nanos());
        self.digest.write_usize(node);
        self.digest.write_u8(what);
        self.digest.write(bytes);
    }

    fn require(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            if self.plan.overlooked.contains(&violation.rule) {
                return;
            }
            self.broken.get_or_insert(violation);
        }
    }

    fn forbid(&mut self, rule: Rule, what: String) {
        self.require(Err(Violation::new(rule, what)));
    }
}
