//! Plans: the setting of a run, and its faults with their times.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use ledger::genesis::{Genesis, GenesisValidator};
use ledger::signature::SigningKey;
use ledger::units::VotingPower;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::byzantine::Behaviour;
use super::check::Rule;

/// Block size limit in plans that are drawn from a seed, in bytes. It is small, so that oversized
/// lists are short and cost the simulator little.
const BLOCK_BYTES: u64 = 8 << 10;

/// What a restarted node remembers of its own signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Everything that its log holds.
    Log,
    /// Nothing, although it signed before: this shows what the log is for.
    None,
}

/// Damage by a crash, beyond the loss of unsynced writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// The log is unreadable.
    LogLost,
    /// The store is restored from an older copy; the log is not.
    StoreOld,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A node stops after this many more effects, possibly in the middle of a list, and starts
    /// again later.
    Crash {
        /// Which node.
        node: usize,
        /// Effects that it still performs.
        effects: u32,
        /// Time until it starts again.
        down: Duration,
        /// Damage to its disk.
        damage: Damage,
    },
    /// Nodes of one side hear nothing from the other side.
    Partition {
        /// One side; all other nodes are on the other.
        side: BTreeSet<usize>,
        /// Duration.
        lasts: Duration,
        /// Whether connections break; otherwise they stay open and silent.
        noticed: bool,
    },
}

/// The setting of a run. Nodes are numbered: validators first, in genesis order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Voting power of each validator.
    pub powers: Vec<u64>,
    /// Nodes without a key.
    pub full_nodes: usize,
    /// Time between blocks when there are no transactions.
    pub empty_interval: Duration,
    /// Largest difference between two clocks.
    pub clock_drift: Duration,
    /// Message delay, milliseconds.
    pub delay: RangeInclusive<u64>,
    /// Lost messages, percent.
    pub loss_percent: u32,
    /// Average time between two transfers.
    pub load_interval: Duration,
    /// Faults, each with its time.
    pub faults: Vec<(Duration, Fault)>,
    /// When all faults are healed.
    pub calm_at: Duration,
    /// What a restarted node remembers of its own signatures.
    pub memory: Memory,
    /// Block size limit, bytes.
    pub block_bytes: u64,
    /// Validators that do not follow the protocol, with their behaviours. Together they have less
    /// than a third of the voting power.
    pub byzantine: BTreeMap<usize, Vec<Behaviour>>,
    /// Rules whose violation does not end the run. A planted fault may break several rules; this
    /// shows whether another rule finds it too.
    pub overlooked: BTreeSet<Rule>,
}

impl Plan {
    /// This many equal validators on a good network, without faults.
    #[must_use]
    pub fn quiet(validators: usize) -> Self {
        Self {
            powers: vec![10; validators],
            full_nodes: 0,
            empty_interval: Duration::from_secs(1),
            clock_drift: Duration::from_secs(1),
            delay: 1..=20,
            loss_percent: 0,
            load_interval: Duration::from_millis(400),
            faults: Vec::new(),
            calm_at: Duration::ZERO,
            memory: Memory::Log,
            block_bytes: 1 << 20,
            byzantine: BTreeMap::new(),
            overlooked: BTreeSet::new(),
        }
    }

    /// 4 to 7 nodes, at least four of them validators, and up to 20 s of faults of all kinds. In
    /// every second plan some validators are byzantine.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(4..=7usize);
        let validators = rng.random_range(4..=nodes);
        let powers = match rng.random_ratio(1, 3) {
            true => (0..validators).map(|_| rng.random_range(5..=15)).collect(),
            false => vec![10; validators],
        };
        let slowest = *pick(&mut rng, &[3, 20, 100, 300]);
        let calm_at = Duration::from_millis(rng.random_range(8_000..=20_000));
        let mut plan = Self {
            powers,
            full_nodes: nodes - validators,
            empty_interval: Duration::from_millis(rng.random_range(300..=3_000)),
            clock_drift: Duration::from_millis(rng.random_range(100..=1_000)),
            delay: 1..=slowest,
            loss_percent: *pick(&mut rng, &[0, 0, 2, 5, 10, 20]),
            load_interval: Duration::from_millis(rng.random_range(50..=600)),
            faults: Vec::new(),
            calm_at,
            block_bytes: BLOCK_BYTES,
            ..Self::quiet(0)
        };
        if seed % 2 == 1 {
            plan.draw_byzantine(seed);
        }
        // At most one disk is damaged, and the other validators have a quorum without it. A
        // validator whose disk is damaged may never sign again if the chain stands still.
        let total: u64 = plan.powers.iter().sum();
        let careless = plan
            .powers
            .iter()
            .position(|power| power * 3 < total)
            .filter(|_| rng.random_ratio(1, 4));
        let careless = careless.filter(|_| plan.byzantine.is_empty());
        let pace = *pick(&mut rng, &[1_000, 3_000, 8_000]);
        let mut at = Duration::from_millis(rng.random_range(0..=2_000));
        while at < calm_at {
            plan.add_fault(&mut rng, at, nodes, careless);
            at += Duration::from_millis(rng.random_range(50..=pace));
        }
        plan
    }

    /// Draws byzantine validators, at least one. Together they hold less than a third of the power.
    /// Each gets one to three behaviours.
    fn draw_byzantine(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2);
        let total: u64 = self.powers.iter().sum();
        let first = rng.random_range(0..self.powers.len());
        let several = rng.random_ratio(2, 3);
        let mut power = 0;
        for place in (0..self.powers.len()).map(|step| (first + step) % self.powers.len()) {
            if (power + self.powers[place]) * 3 < total && (several || self.byzantine.is_empty()) {
                power += self.powers[place];
                let count = rng.random_range(1..=3);
                let behaviours = (0..count).map(|_| *pick(&mut rng, &Behaviour::ALL)).collect();
                self.byzantine.insert(place, behaviours);
            }
        }
    }

    fn add_fault(
        &mut self,
        rng: &mut ChaCha8Rng,
        at: Duration,
        nodes: usize,
        careless: Option<usize>,
    ) {
        let down = *pick(rng, &[20, 300, 3_000]);
        match rng.random_range(0..10) {
            0..=4 => {
                let node = rng.random_range(0..nodes);
                self.add_crash(rng, at, node, down, careless);
            }
            // All nodes crash at once, so that none remembers what the others signed.
            5 => (0..nodes).for_each(|node| self.add_crash(rng, at, node, down, careless)),
            6 => {
                let some: Vec<usize> = (0..nodes).filter(|_| rng.random()).collect();
                some.into_iter().for_each(|node| self.add_crash(rng, at, node, down, careless));
            }
            _ => {
                let side = (0..nodes).filter(|_| rng.random()).collect();
                let lasts = Duration::from_millis(rng.random_range(100..=6_000));
                self.faults.push((at, Fault::Partition { side, lasts, noticed: rng.random() }));
            }
        }
    }

    fn add_crash(
        &mut self,
        rng: &mut ChaCha8Rng,
        at: Duration,
        node: usize,
        down_max: u64,
        careless: Option<usize>,
    ) {
        let effects = if rng.random_ratio(1, 4) { 0 } else { rng.random_range(1..=30) };
        let down = Duration::from_millis(rng.random_range(0..=down_max));
        let damage = match careless == Some(node) {
            true => *pick(rng, &[Damage::None, Damage::LogLost, Damage::StoreOld]),
            false => Damage::None,
        };
        self.faults.push((at, Fault::Crash { node, effects, down, damage }));
    }

    /// The genesis template with the plan's validators and limits. Segments are as short as
    /// allowed, so that some get sealed.
    ///
    /// # Panics
    /// When the plan breaks a rule of the genesis.
    #[must_use]
    pub fn genesis(&self) -> Genesis {
        let template = Genesis::from_json(include_bytes!("../../../genesis.json"));
        let mut genesis =
            template.unwrap_or_else(|error| panic!("the template is a valid genesis: {error}"));
        let payout = genesis.validators[0].payout;
        let validator = |(place, power): (usize, &u64)| GenesisValidator {
            name: format!("validator-{place}"),
            key: validator_key(place).public(),
            payout,
            power: VotingPower(*power),
        };
        genesis.validators = self.powers.iter().enumerate().map(validator).collect();
        genesis.limits.empty_block_interval_ms = milliseconds(self.empty_interval);
        genesis.limits.clock_drift_ms = milliseconds(self.clock_drift);
        genesis.limits.segment_blocks = 16;
        genesis.limits.block_bytes_max = self.block_bytes;
        let problems = genesis.problems();
        assert!(problems.is_empty(), "a plan keeps the rules of the genesis: {problems:?}");
        genesis
    }

    /// Number of nodes.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.powers.len() + self.full_nodes
    }
}

/// The consensus key of the validator with this number.
pub(crate) fn validator_key(place: usize) -> SigningKey {
    let mut seed = [0x5a; 32];
    seed[..8].copy_from_slice(&(place as u64).to_le_bytes());
    SigningKey::from_seed(&seed)
}

/// Whole milliseconds; plans contain no finer times.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn pick<'a, T>(rng: &mut ChaCha8Rng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}
