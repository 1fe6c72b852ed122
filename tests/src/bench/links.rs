//! The links of a run, and the least time in which they can carry a chain.

use std::time::Duration;

use super::measure::{Link, bound, rate};
use super::options::Swarm;
use super::topology::Rates;

/// The rates of all hosts: seeds, leechers, late leechers, hostile seeds.
pub(super) fn rates(options: &Swarm) -> Vec<Rates> {
    let host = |up| Rates { up, down: options.down };
    let seeds = (0..options.seeds).map(|_| host(options.seed_up));
    let leechers = (0..options.leechers + options.late).map(|_| host(options.leech_up));
    seeds
        .chain(leechers)
        .chain((0..options.poison + options.stall).map(|_| host(options.seed_up)))
        .collect()
}

/// Longest time that a run may take.
pub(super) fn patience(options: &Swarm, bytes: u64) -> Duration {
    let least = bound(
        bytes as f64,
        rate(options.seed_up) * f64::from(options.seeds),
        None,
        &links(options, &[]),
    );
    options
        .timeout
        .map_or_else(|| Duration::from_secs_f64(120.0 + 12.0 * least), Duration::from_secs)
}

/// The leechers' links for [`bound`]. `late` has the start of each late leecher, in seconds.
fn links(options: &Swarm, late: &[f64]) -> Vec<Link> {
    let link = |start| Link { start, up: rate(options.leech_up), down: rate(options.down) };
    (0..options.leechers).map(|_| 0.0).chain(late.iter().copied()).map(link).collect()
}

/// The least possible time for these options, in seconds; `None` when links are not shaped.
pub(super) fn bound_of(options: &Swarm, bytes: u64, late: &[f64]) -> Option<f64> {
    let seeds_up = rate(options.seed_up) * f64::from(options.seeds);
    let least = || bound(bytes as f64, seeds_up, options.seed_leaves_after, &links(options, late));
    (!options.loopback).then(least)
}
