//! Plans: who is in a swarm, on what links, and what goes wrong.

use std::time::Duration;

/// Bytes a second of so many Mbit/s.
#[must_use]
pub const fn mbit(rate: u64) -> u64 {
    rate * 125_000
}

/// How a node behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conduct {
    /// As it should.
    #[default]
    Honest,
    /// Takes all questions and never sends a chunk.
    Stalls,
    /// Sends chunks with other bytes than the manifest says.
    Poisons,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Holds the whole chain from the start.
    pub is_seed: bool,
    /// How it behaves.
    pub conduct: Conduct,
    /// Bytes a second from it.
    pub up: u64,
    /// Bytes a second to it.
    pub down: u64,
    /// When it starts.
    pub starts_at: Duration,
    /// It is killed so long after each start, and started again at once, until it has all chunks.
    pub killed_every: Option<Duration>,
    /// It leaves when it has sent so many percent of the chain.
    pub leaves_after: Option<u64>,
    /// The run ends when it has all chunks, if it is an honest leecher.
    pub is_awaited: bool,
}

/// A swarm.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides all chance.
    pub seed: u64,
    /// Bytes of the chain.
    pub bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Time from one node to the other.
    pub latency: Duration,
    /// Others that each node has a link with; none is all of them.
    pub degree: Option<usize>,
    /// All nodes.
    pub members: Vec<Member>,
    /// Nanoseconds of one core for each byte of a segment that is verified, and again for each that is applied.
    pub cpu_per_byte: u64,
    /// The run is given up after so long.
    pub patience: Duration,
}

impl Plan {
    /// 64 MiB in chunks of 128 KiB, from seeds to leechers of 40 Mbit/s up and 200 down, all linked with all, 20 ms apart.
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
            is_awaited: true,
        };
        let members = (0..seeds + leechers).map(|place| member(place < seeds)).collect();
        Self {
            seed: 1,
            bytes: 64 << 20,
            segment_bytes: 16 << 20,
            chunk_bytes: 128 << 10,
            latency: Duration::from_millis(20),
            degree: None,
            members,
            cpu_per_byte: 50,
            patience: Duration::from_secs(600),
        }
    }

    /// The same with another chance.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same with changed leechers; they are numbered from 0.
    #[must_use]
    pub fn with_leechers(mut self, change: impl Fn(usize, &mut Member)) -> Self {
        self.members
            .iter_mut()
            .filter(|member| !member.is_seed)
            .enumerate()
            .for_each(|(at, member)| change(at, member));
        self
    }

    /// The same with changed seeds; they are numbered from 0.
    #[must_use]
    pub fn with_seeds(mut self, change: impl Fn(usize, &mut Member)) -> Self {
        self.members.iter_mut().filter(|member| member.is_seed).enumerate().for_each(|(at, member)| change(at, member));
        self
    }

    /// The same with another number of bytes in the chain, in segments and in chunks.
    #[must_use]
    pub const fn with_bytes(mut self, bytes: u64, segment_bytes: u64, chunk_bytes: u64) -> Self {
        (self.bytes, self.segment_bytes, self.chunk_bytes) = (bytes, segment_bytes, chunk_bytes);
        self
    }

    /// Shortest time in which so many bytes can be with all leechers that are awaited, whatever is done (Kumar and Ross, 2006), given
    /// when they start. Liars give nothing.
    #[must_use]
    pub fn bound_seconds(&self, bytes: u64) -> f64 {
        let counts = |member: &&Member| member.conduct == Conduct::Honest && member.is_awaited;
        let (seeds, mut leechers): (Vec<&Member>, Vec<&Member>) =
            self.members.iter().filter(counts).partition(|member| member.is_seed);
        leechers.sort_by_key(|member| member.starts_at);
        let first = leechers.first().map_or(0.0, |member| member.starts_at.as_secs_f64());
        let from_seeds = seeds.iter().map(|member| member.up).sum::<u64>() as f64;
        let bytes = bytes as f64;
        let alone = |member: &&Member| member.starts_at.as_secs_f64() - first + bytes / member.down as f64;
        let slowest = leechers.iter().map(alone).fold(0.0, f64::max);
        // All that is to be sent, by all who can send by then.
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
