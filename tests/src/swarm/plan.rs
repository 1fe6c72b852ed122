//! Plans: the nodes of a swarm, their links, and their faults.

use std::time::Duration;

use ledger::units::SegmentIndex;
use protocol::swarm::ByteRange;

use super::snapshots::Forgery;

/// Bytes a second for a rate in Mbit/s.
#[must_use]
pub const fn mbit(rate: u64) -> u64 {
    rate * 125_000
}

/// How a node behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// Follows the protocol.
    #[default]
    Honest,
    /// Accepts every request and never sends a chunk.
    Stalls,
    /// Sends chunks whose bytes do not match the manifest.
    Poisons,
    /// Follows the protocol, with some chunks damaged on its disk.
    Rots,
    /// Offers a snapshot with false counts, and sends what is most like its chunks.
    Forges(Forgery),
    /// Offers a snapshot with false counts, and sends only the chunks that are true.
    Withholds(Forgery),
    /// Offers the true snapshot with another block.
    Misplaces,
    /// Shares files, and sends heads that do not fit their ids.
    FalseHeads,
    /// Claims whole files, of lengths that they do not have, and answers no request for a head.
    Boasts,
    /// Shares files, which change after it has sent this many chunks of them. Then it notices.
    Changes(u64),
}

/// One node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Whether it holds the whole chain from the start.
    pub is_seed: bool,
    /// How it behaves.
    pub conduct: Conduct,
    /// Upload rate, bytes a second.
    pub up: u64,
    /// Download rate, bytes a second.
    pub down: u64,
    /// When it starts.
    pub starts_at: Duration,
    /// How long after each start it is killed and started again at once, until it has all chunks.
    pub killed_every: Option<Duration>,
    /// It leaves once it has sent this share of the chain, in percent.
    pub leaves_after: Option<u64>,
    /// Whether it begins with a snapshot.
    pub joins: bool,
    /// The part that it fetches of each file, unless it shares them.
    pub wants: Option<ByteRange>,
    /// Whether it shares all files from the start.
    pub shares: bool,
    /// Whether the run waits until it has all chunks, if it is an honest leecher.
    pub is_awaited: bool,
}

/// A swarm.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of all random choices.
    pub seed: u64,
    /// Length of the chain, bytes.
    pub bytes: u64,
    /// Length of a segment, bytes.
    pub segment_bytes: u64,
    /// Length of a chunk, bytes.
    pub chunk_bytes: u64,
    /// The seeds have the snapshot after this segment.
    pub snapshot: Option<SegmentIndex>,
    /// Accounts of the state.
    pub accounts: u64,
    /// Lengths of files, in bytes.
    pub files: Vec<u64>,
    /// Time from one node to another.
    pub latency: Duration,
    /// Number of other nodes that each node chooses to link with; `None` links all with all. A link
    /// that another node chose comes on top.
    pub degree: Option<usize>,
    /// All nodes.
    pub members: Vec<Member>,
    /// Processor time to verify one byte of a segment, and again to apply it, nanoseconds on one
    /// core.
    pub cpu_per_byte: u64,
    /// Time after which the run is given up.
    pub patience: Duration,
}

impl Plan {
    /// 64 MiB in chunks of 128 KiB, from seeds to leechers. All nodes upload at 40 Mbit/s and
    /// download at 200, all are linked with all, and the latency is 20 ms.
    #[must_use]
    pub fn new(seeds: usize, leechers: usize) -> Self {
        let member = |is_seed| Member {
            is_seed,
            conduct: Conduct::Honest,
            up: mbit(40),
            down: mbit(200),
            starts_at: Duration::ZERO,
            killed_every: None,
            leaves_after: None,
            joins: false,
            wants: None,
            shares: false,
            is_awaited: true,
        };
        let members = (0..seeds + leechers).map(|place| member(place < seeds)).collect();
        Self {
            seed: 1,
            bytes: 64 << 20,
            segment_bytes: 16 << 20,
            chunk_bytes: 128 << 10,
            snapshot: None,
            accounts: 0,
            files: Vec::new(),
            latency: Duration::from_millis(20),
            degree: None,
            members,
            cpu_per_byte: 50,
            patience: Duration::from_secs(600),
        }
    }

    /// The same plan with a snapshot of this many accounts after a segment.
    #[must_use]
    pub const fn with_snapshot(mut self, segment: u64, accounts: u64) -> Self {
        (self.snapshot, self.accounts) = (Some(SegmentIndex(segment)), accounts);
        self
    }

    /// The same plan with files of these lengths, which the seeds share and the leechers fetch.
    #[must_use]
    pub fn with_files(mut self, lengths: &[u64]) -> Self {
        self.files = lengths.to_vec();
        for member in &mut self.members {
            member.shares = member.is_seed;
            member.wants = (!member.is_seed).then_some(ByteRange::ALL);
        }
        self
    }

    /// The same plan with another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same plan with changed leechers, numbered from 0.
    #[must_use]
    pub fn with_leechers(mut self, change: impl Fn(usize, &mut Member)) -> Self {
        self.members
            .iter_mut()
            .filter(|member| !member.is_seed)
            .enumerate()
            .for_each(|(at, member)| change(at, member));
        self
    }

    /// The same plan with changed seeds, numbered from 0.
    #[must_use]
    pub fn with_seeds(mut self, change: impl Fn(usize, &mut Member)) -> Self {
        self.members
            .iter_mut()
            .filter(|member| member.is_seed)
            .enumerate()
            .for_each(|(at, member)| change(at, member));
        self
    }

    /// The same plan with other lengths of the chain, its segments and its chunks.
    #[must_use]
    pub const fn with_bytes(mut self, bytes: u64, segment_bytes: u64, chunk_bytes: u64) -> Self {
        (self.bytes, self.segment_bytes, self.chunk_bytes) = (bytes, segment_bytes, chunk_bytes);
        self
    }

    /// Shortest time, in seconds, in which all awaited leechers can have this many bytes, given
    /// their starts (Kumar and Ross, 2006). Hostile nodes and leechers that are not awaited
    /// contribute nothing.
    #[must_use]
    pub fn bound_seconds(&self, bytes: u64) -> f64 {
        let counts = |member: &&Member| member.conduct == Conduct::Honest && member.is_awaited;
        let (seeds, mut leechers): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().filter(counts).partition(|member| member.is_seed);
        leechers.sort_by_key(|member| member.starts_at);
        let first = leechers.first().map_or(0.0, |member| member.starts_at.as_secs_f64());
        let from_seeds = seeds.iter().map(|member| member.up).sum::<u64>() as f64;
        let bytes = bytes as f64;
        let alone =
            |member: &&Member| member.starts_at.as_secs_f64() - first + bytes / member.down as f64;
        let slowest = leechers.iter().map(alone).fold(0.0, f64::max);
        // `left` has the bytes of all copies to be sent. `rate` is that of all nodes that can send
        // at `time`.
        let (mut left, mut rate, mut time) = (bytes * leechers.len() as f64, from_seeds, 0.0);
        if leechers.len() > 1 {
            for member in &leechers {
                let next = member.starts_at.as_secs_f64() - first;
                left -= (rate * (next - time)).min(left);
                (rate, time) = (rate + member.up as f64, next);
            }
        }
        (bytes / from_seeds).max(slowest).max(time + left / rate)
    }
}
