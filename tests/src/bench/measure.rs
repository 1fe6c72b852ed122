//! The results of a run: times compared with the least possible, copies sent, bytes fetched more
//! than once, and memory.

use serde::Serialize;

use super::chain::Facts;
use super::nodes::Node;
use super::options::{Swarm, Tool};
use super::probe::Sample;

/// One leecher's results. Times are in milliseconds since 1970 unless stated otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct PerNode {
    pub(super) name: String,
    pub(super) started_at_ms: u64,
    pub(super) verified_at_ms: u64,
    pub(super) applied_at_ms: u64,
    /// Seconds from its own start until it had verified all chunks.
    pub(super) seconds: f64,
    /// Share of its time that its last hundredth of chunks took; `None` when it does not report
    /// chunks.
    pub(super) last_percent_share: Option<f64>,
    pub(super) duplicate_bytes: u64,
    /// Bytes of chunks and blocks that it sent to peers, as it reports them. Bytes of the last
    /// tenth of a second before a kill are missing.
    pub(super) uploaded_bytes: u64,
    pub(super) kills: u32,
    /// Bytes fetched again after kills or for another reason, as the node reports them. Bytes of
    /// the last tenth of a second before a kill are missing.
    pub(super) refetched_bytes: u64,
    /// Bytes received by its interface, in copies of the payload. They include bytes that were cut
    /// off by kills, packet headers and peers' requests.
    pub(super) received_copies: Option<f64>,
    /// Number of peers it has banned.
    pub(super) bans: u64,
    pub(super) peak_rss_mib: f64,
    pub(super) cpu_seconds: f64,
}

/// Numbers of bans. A peer that two nodes ban counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Bans {
    /// Bans of nodes that send nothing wrong, silent ones included. Each is a fault.
    pub(super) honest: usize,
    /// Bans of seeds that send wrong bytes.
    pub(super) poisoners: usize,
    /// How often such a seed began to send wrong bytes to a peer.
    pub(super) poisoned: usize,
}

/// The results of one run. Ratios and shares are of payload bytes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    /// From the start of the leechers to the last leecher's last verified chunk.
    pub(super) seconds: f64,
    /// The least possible time; `None` without shaped links.
    pub(super) bound_seconds: Option<f64>,
    pub(super) ratio: Option<f64>,
    /// From the start of the leechers to the last leecher's last applied block.
    pub(super) applied_seconds: f64,
    /// Bytes sent by the seeds' interfaces, in copies of the payload; without interfaces, bytes
    /// that the seeds report.
    pub(super) seed_copies: f64,
    /// Bytes that a leecher fetched although it had them, on average over all leechers, as a share
    /// of the payload.
    pub(super) waste: f64,
    /// Largest share of the payload that one leecher fetched again, after kills or for another
    /// reason.
    pub(super) refetched: f64,
    /// Largest share of its time that one leecher's last hundredth of chunks took.
    pub(super) last_percent_share: Option<f64>,
    pub(super) bans: Bans,
    /// Jain's fairness index of the bytes that the leechers sent, and the largest part of them that
    /// one leecher sent. Links should be equal, and nobody late. `None` if none sent anything.
    pub(super) jain_uploaded: Option<f64>,
    pub(super) largest_share: Option<f64>,
    pub(super) peak_rss_mib: f64,
    /// Processor seconds of all nodes together.
    pub(super) cpu_seconds: f64,
    pub(super) per_node: Vec<PerNode>,
}

/// The same transfer by another program.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OtherRun {
    pub(super) seconds: f64,
    pub(super) ratio: Option<f64>,
    pub(super) seed_copies: f64,
    pub(super) peak_rss_mib: f64,
    pub(super) per_node: Vec<PerNode>,
}

/// The printed result: the median run and its parameters.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    #[serde(flatten)]
    run: &'a Run,
    #[serde(skip_serializing_if = "Option::is_none")]
    vs: Option<Versus<'a>>,
    parameters: &'a Swarm,
    chain: Facts,
    /// A few results of each run.
    runs: Vec<Short>,
}

#[derive(Debug, Serialize)]
struct Versus<'a> {
    tool: Tool,
    #[serde(flatten)]
    run: &'a OtherRun,
    runs: Vec<Short>,
}

#[derive(Debug, Serialize)]
struct Short {
    seconds: f64,
    applied_seconds: Option<f64>,
    ratio: Option<f64>,
    seed_copies: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bans: Option<Bans>,
}

impl<'a> Report<'a> {
    /// `None` if there were no runs.
    pub(super) fn new(
        parameters: &'a Swarm,
        chain: Facts,
        ours: &'a [Run],
        others: &'a [OtherRun],
    ) -> Option<Self> {
        let runs = ours.iter().map(|run| Short {
            seconds: run.seconds,
            applied_seconds: Some(run.applied_seconds),
            ratio: run.ratio,
            seed_copies: run.seed_copies,
            bans: Some(run.bans),
        });
        let other_runs = others.iter().map(|run| Short {
            seconds: run.seconds,
            applied_seconds: None,
            ratio: run.ratio,
            seed_copies: run.seed_copies,
            bans: None,
        });
        let other_runs = other_runs.collect();
        let other = median(others, |run| run.seconds).zip(parameters.vs);
        Some(Self {
            run: median(ours, |run| run.seconds)?,
            vs: other.map(|(run, tool)| Versus { tool, run, runs: other_runs }),
            parameters,
            chain,
            runs: runs.collect(),
        })
    }

    /// The report as text for people.
    pub(super) fn text(&self) -> String {
        let Run { seconds, applied_seconds, seed_copies, waste, refetched, peak_rss_mib, .. } =
            self.run;
        let bound = self
            .run
            .bound_seconds
            .map_or(String::new(), |bound| format!(", least possible {bound:.2} s"));
        let ratio = self.run.ratio.map_or(String::new(), |ratio| format!(", ratio {ratio:.3}"));
        let mut text = format!(
            "all verified after {seconds:.2} s{bound}{ratio}; all applied after \
             {applied_seconds:.2} s\n\
             the seeds sent {seed_copies:.3} copies; {:.2}% fetched in vain, {:.2}% again; at most \
             {peak_rss_mib:.0} MiB",
            waste * 100.0,
            refetched * 100.0,
        );
        if let Some((jain, share)) = self.run.jain_uploaded.zip(self.run.largest_share) {
            text += &format!(
                "\nof what the leechers sent, one sent at most {:.1}%; Jain's index {jain:.3}",
                share * 100.0
            );
        }
        if let Some(vs) = &self.vs {
            let OtherRun { seconds, seed_copies, .. } = vs.run;
            let ratio = vs.run.ratio.map_or(String::new(), |ratio| format!(", ratio {ratio:.3}"));
            text += &format!("\n{:?}: {seconds:.2} s{ratio}, {seed_copies:.3} copies", vs.tool);
        }
        text
    }
}

/// The median run. Of an even number, it is the slower of the two middle ones.
fn median<T>(runs: &[T], seconds: impl Fn(&T) -> f64) -> Option<&T> {
    let mut sorted: Vec<&T> = runs.iter().collect();
    sorted.sort_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    sorted.get(runs.len() / 2).copied()
}

/// A leecher's link, as [`bound`] takes it. `start` is in seconds from the start of the first
/// leecher, and rates are in bytes per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) start: f64,
    pub(super) up: f64,
    pub(super) down: f64,
}

/// Converts Mbit/s to bytes per second.
pub(super) fn rate(mbit: u32) -> f64 {
    f64::from(mbit) * 125_000.0
}

/// Least seconds in which all leechers can have `bytes`, if data flows like a fluid (Kumar and
/// Ross, 2006). The slowest of these decides: the seeds send every byte once, each leecher receives
/// every byte, and all nodes together send all copies. If the seeds leave after they have sent
/// `copies` copies, the leechers alone send the rest.
pub(super) fn bound(bytes: f64, seeds_up: f64, copies: Option<f64>, leechers: &[Link]) -> f64 {
    let all_up: f64 = leechers.iter().map(|link| link.up).sum();
    // Bytes that late leechers could not send before they started.
    let missed: f64 = leechers.iter().map(|link| link.up * link.start).sum();
    let wanted = leechers.len() as f64 * bytes;
    let receive = leechers.iter().map(|link| link.start + bytes / link.down);
    let alone = copies.map(|copies| ((wanted - copies * bytes) + missed) / all_up);
    receive
        .chain([bytes / seeds_up, (wanted + missed) / (seeds_up + all_up)])
        .chain(alone)
        .fold(0.0, f64::max)
}

/// Share of the time from `start` to `end` that the last hundredth of `total` chunks took, from the
/// observed progress.
fn last_percent_share(progress: &[(u64, u64)], start: u64, end: u64, total: u64) -> Option<f64> {
    let wanted = total as f64 * 0.99;
    let after = progress.iter().position(|(_, chunks)| *chunks as f64 >= wanted && total > 0)?;
    let (time, chunks) = progress[after];
    let (time, chunks) = (time.min(end) as f64, chunks as f64);
    // Progress between two observations is taken as even.
    let (time_before, chunks_before) =
        match after.checked_sub(1).and_then(|before| progress.get(before)) {
            Some((time, chunks)) => (*time as f64, *chunks as f64),
            None => (start as f64, 0.0),
        };
    let reached =
        time_before + (time - time_before) * (wanted - chunks_before) / (chunks - chunks_before);
    let (start, end) = (start as f64, end as f64);
    (end > start).then(|| ((end - reached) / (end - start)).max(0.0))
}

/// A node's answers, evaluated for a run.
impl Node {
    /// Its latest answer.
    pub(super) fn sample(&self) -> Option<Sample> {
        // An answer from an earlier life of the process does not count.
        self.probe.as_ref()?.latest().filter(|sample| sample.asked >= self.restarted)
    }

    /// Records when it has verified all chunks and applied all blocks. The times are those of its
    /// own clock if it reports them, otherwise those of the observation.
    pub(super) fn look(&mut self, facts: &Facts) {
        let Some(sample) = self.sample() else { return };
        // After a kill, the new process does not count chunks of blocks that were applied before.
        let has_chunks = sample.segments_total >= facts.segments
            && sample.chunks_verified >= sample.chunks_total;
        if has_chunks || sample.height >= if sample.tells { facts.sealed } else { facts.height } {
            self.verified_at.get_or_insert(sample.verified_at.unwrap_or(sample.answered));
        }
        if sample.height >= facts.height {
            self.applied_at.get_or_insert(sample.applied_at.unwrap_or(sample.answered));
        }
    }

    /// The share of the chain that it has, from 0 to 1.
    pub(super) fn share(&self, facts: &Facts) -> f64 {
        let Some(sample) = self.sample() else { return 0.0 };
        if sample.segments_total >= facts.segments {
            return 1.0
                - sample.bytes_total.saturating_sub(sample.bytes_verified) as f64
                    / facts.bytes as f64;
        }
        sample.height as f64 / facts.height as f64
    }

    /// Its results in the run; `None` before it is done.
    pub(super) fn result(&self, facts: &Facts) -> Option<PerNode> {
        let (sample, started) = (self.sample()?, self.started?);
        let (verified, applied) = (self.verified_at?, self.applied_at?);
        let progress = &self.probe.as_ref()?.samples().progress;
        let share = || last_percent_share(progress, started, verified, facts.chunks);
        let fetched = self.fetched_before + sample.fetched_bytes;
        Some(PerNode {
            name: self.name.clone(),
            started_at_ms: started,
            verified_at_ms: verified,
            applied_at_ms: applied,
            seconds: verified.saturating_sub(started) as f64 / 1_000.0,
            last_percent_share: if sample.tells && self.kills == 0 { share() } else { None },
            duplicate_bytes: sample.duplicate_bytes,
            uploaded_bytes: self.uploaded_before + sample.served_bytes,
            kills: self.kills,
            refetched_bytes: fetched.saturating_sub(facts.bytes),
            received_copies: None,
            bans: sample.bans,
            peak_rss_mib: self.peak_rss_kib as f64 / 1_024.0,
            cpu_seconds: self.cpu_seconds(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_its_tightest_link() {
        let link = |up, down| Link { start: 0.0, up: rate(up), down: rate(down) };
        let mib = f64::from(1 << 20);
        // Upload rate of all seeds together in Mbit/s, the leechers' links, and the seconds for 64
        // MiB.
        for (seeds, leechers, expected) in [
            (40, vec![link(40, 200); 8], 13.42),
            (40, vec![link(10, 200); 8], 35.79),
            (160, vec![link(40, 200)], 3.36),
            (400, vec![link(40, 200)], 2.68),
            (400, vec![link(40, 200), link(40, 20)], 26.84),
        ] {
            let got = bound(64.0 * mib, rate(seeds), None, &leechers);
            assert!((got - expected).abs() < 0.01, "{seeds}, {leechers:?}: {got}");
        }
        let late = [link(40, 200), Link { start: 20.0, ..link(40, 200) }];
        assert!((bound(64.0 * mib, rate(40), None, &late) - 22.68).abs() < 0.01);
        let left = bound(64.0 * mib, rate(40), Some(1.1), &[link(10, 200); 8]);
        assert!((left - 6.9 * 64.0 * mib / 10e6).abs() < 0.01, "{left}");
    }

    #[test]
    fn the_end_is_timed_between_looks() {
        let share = |progress: &[(u64, u64)], end| last_percent_share(progress, 1_000, end, 200);
        assert_eq!(share(&[(1_000, 0), (1_500, 100)], 2_000), None);
        // 198 of 200 chunks are here at 1,990, or at 1,500 in the second case. The end is at 2,000.
        assert_eq!(share(&[(1_000, 0), (2_000, 200)], 2_000), Some(0.01));
        assert_eq!(share(&[(1_000, 0), (1_500, 198), (2_000, 200)], 2_000), Some(0.5));
        assert_eq!(share(&[(1_000, 0), (2_100, 200)], 2_000), Some(0.01));
    }

    #[test]
    fn the_median_is_the_slower_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0], |x| *x), Some(&2.0));
        assert_eq!(median(&[1.0, 2.0], |x| *x), Some(&2.0));
        assert_eq!(median(&[], |x: &f64| *x), None);
    }
}
