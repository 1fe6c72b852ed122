//! How nodes with budgets share history: how many copies there are of each era, how evenly the
//! nodes are used, and how soon others make up for two that are gone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::chain::{MadeChain, Recipe};
use super::fairness::jain;
use super::folder::{folder, in_folder, take_turn};
use super::nodes::{Place, Programs, Role};
use super::options::Archive;
use super::sharing::{PATIENCE, Sharing, TICK};
use super::{Unfit, print_line, say, stop};

/// Copies of an era that a network needs.
const COPIES: u64 = protocol::archive::COPIES as u64;
/// Nodes that are killed at once.
const KILLED: u16 = 2;
/// For how long a node counts after its connection ended.
const GONE_COUNTS: Duration = Duration::from_secs(10);
/// The nodes are done with dropping and fetching once nothing has changed for so long. They try
/// again after at most 30 s what was in vain.
const STILL: Duration = Duration::from_secs(35);

/// The result. Scripts read the names of its fields.
#[derive(Debug, Serialize)]
struct Report {
    /// The fewest copies of any era on running nodes at any look, but for the time from the end of
    /// the two nodes until the others have made up for them.
    copies_min: u64,
    /// The median of all eras, once the nodes have dropped what exceeds their budgets. Of an even
    /// number, it is the lower of the two middle ones.
    copies_median: u64,
    /// Jain's index of the bytes of eras on the disk of each node, in proportion to its budget, at
    /// the same time.
    jain_kept: f64,
    /// Whether a node that began with nothing has replayed all of history, with two nodes gone.
    newcomer_ok: bool,
    /// From the moment from which the two do not count any more until each era has three copies on
    /// running nodes again.
    repaired_seconds: f64,
}

/// Runs the command `archive`.
pub(super) fn execute(options: &Archive) -> anyhow::Result<()> {
    if !can_hold(options) {
        let Archive { nodes, keep_share, eras, .. } = options;
        let text = format!(
            "{nodes} nodes that keep {keep_share} of {eras} eras do not hold {COPIES} copies of \
             each when {KILLED} are gone"
        );
        return Err(Unfit(text).into());
    }
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let turn = take_turn(&folder)?;
    let chain = MadeChain::obtain(&folder, &Recipe::of_eras(options.eras))?;
    drop(turn);
    let report = in_folder(&folder, options.common.keep, |home| {
        run(options, &chain, &programs, &folder, home)
    })?;
    if options.common.json {
        return print_line(&report);
    }
    println!("{}", report.text());
    Ok(())
}

/// Whether the nodes that are left can keep enough copies within their budgets.
fn can_hold(options: &Archive) -> bool {
    let each = (f64::from(options.eras) * options.keep_share) as u64;
    let left = u64::from(options.nodes.saturating_sub(KILLED));
    left * each >= COPIES * u64::from(options.eras)
}

fn run(
    options: &Archive,
    chain: &MadeChain,
    programs: &Programs,
    chains: &Path,
    home: &Path,
) -> anyhow::Result<Report> {
    let eras = options.eras;
    let archives = (1..=options.nodes).map(|number| (format!("node{number}"), Role::Seed));
    let named = archives.chain([("newcomer".to_owned(), Role::Leecher)]);
    let places: Vec<Place> =
        named.map(|(name, role)| Place::new(name, role)).collect::<Result<_, _>>()?;
    let turn = take_turn(chains)?;
    let mut network = Sharing::new(&places, (chain, eras), &options.common, programs, home)?;
    drop(turn);
    for node in &mut network.nodes {
        node.options.insert("--gone-counts", GONE_COUNTS.as_secs().to_string());
    }
    let newcomer = network.nodes.pop().context("the newcomer has a place")?;
    network.start()?;

    let budget = network.sizes.part(options.keep_share);
    say!("the budget of each node is lowered to {budget} of {} bytes", network.sizes.eras);
    let keep = format!("{budget}B");
    (0..network.nodes.len()).for_each(|number| network.kill_to_keep(number, &keep));
    network.start()?;
    let (lowered, mut before) = (Instant::now(), None);
    let look =
        network.until("all nodes are within their budgets and at rest", |network, look| {
            let Some(eras) = look.at_rest() else {
                before = None;
                return false;
            };
            let eras: Vec<Vec<[u64; 2]>> = eras.into_iter().map(<[_]>::to_vec).collect();
            let are_within = network.kept().iter().all(|bytes| *bytes <= budget);
            match &before {
                Some((since, same)) if are_within && *same == eras => {
                    look.at.saturating_duration_since(*since) >= STILL
                }
                _ => {
                    before = Some((look.at, eras));
                    false
                }
            }
        })?;
    let rested = look.at.saturating_duration_since(lowered).saturating_sub(STILL);
    say!("all nodes are within their budgets and at rest after {:.1} s", rested.as_secs_f64());
    let mut copies = look.copies(eras);
    copies.sort_unstable();
    let copies_median = copies[(copies.len() - 1) / 2];
    let parts = network.kept().into_iter().map(|bytes| bytes as f64 / budget as f64);
    let jain_kept = jain(&parts.collect::<Vec<_>>()).context("nothing is kept")?;

    let fewest = network.fewest;
    network.nodes.drain(..usize::from(KILLED)).for_each(drop);
    let gone = Instant::now() + GONE_COUNTS;
    let look = network.until("each era has three copies again", |_, look| {
        look.at >= gone && look.all().is_some() && look.fewest(eras) >= COPIES
    })?;
    let repaired_seconds = look.at.saturating_duration_since(gone).as_secs_f64();
    say!("repaired {repaired_seconds:.1} s after the two do not count any more");
    network.fewest = fewest;

    network.nodes.push(newcomer);
    network.start()?;
    let newcomer_ok = has_replayed(&mut network, chain, eras)?;
    Ok(Report {
        copies_min: network.fewest,
        copies_median,
        jain_kept,
        newcomer_ok,
        repaired_seconds,
    })
}

/// Waits until the last node has replayed the chain. Returns whether it has, in time.
fn has_replayed(network: &mut Sharing, chain: &MadeChain, eras: u16) -> anyhow::Result<bool> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let look = network.look()?;
        if let Some(all) = look.all()
            && let Some(newcomer) = all.last()
            && newcomer.block_hash == all[0].block_hash
            && newcomer.history.executed_to == chain.facts.height
            && matches!(newcomer.history.eras[..], [[0, last]] if last + 1 >= u64::from(eras))
        {
            say!("the newcomer has replayed the chain in {:.1} s", start.elapsed().as_secs_f64());
            return Ok(true);
        }
        stop::pause(TICK)?;
    }
    Ok(false)
}

impl Report {
    /// The report as text for people.
    fn text(&self) -> String {
        let Self { copies_min, copies_median, jain_kept, newcomer_ok, repaired_seconds } = self;
        let newcomer = if *newcomer_ok { "has" } else { "has not" };
        format!(
            "at least {copies_min} copies of each era, {copies_median} in the median; Jain's index \
             of the bytes kept {jain_kept:.3}\n\
             two nodes were made up for in {repaired_seconds:.1} s; a newcomer {newcomer} replayed \
             all of history"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::options::{Bench, Task};
    use super::*;

    #[test]
    fn those_that_are_left_must_be_able_to_keep_three_copies() {
        let parse = |more: &[&str]| {
            let words = ["bench", "archive"].iter().chain(more);
            let Task::Archive(archive) = Bench::try_parse_from(words).ok()?.task else {
                return None;
            };
            Some((can_hold(&archive), archive.nodes, archive.eras))
        };
        assert_eq!(parse(&[]), Some((true, 12, 64)));
        for (share, can_hold) in [("0.29", false), ("0.32", true), ("1", true)] {
            assert_eq!(parse(&["--keep-share", share]), Some((can_hold, 12, 64)), "{share}");
        }
        let few = ["--nodes", "5", "--eras", "6", "--keep-share"];
        assert_eq!(parse(&[&few[..], &["0.9"]].concat()), Some((false, 5, 6)));
        assert_eq!(parse(&[&few[..], &["1"]].concat()), Some((true, 5, 6)));
        for wrong in [["--keep-share", "0"], ["--keep-share", "1.1"], ["--nodes", "4"]] {
            assert_eq!(parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn scripts_find_these_fields() {
        let report = Report {
            copies_min: 3,
            copies_median: 4,
            jain_kept: 0.5,
            newcomer_ok: true,
            repaired_seconds: 7.5,
        };
        let expected = json!({
            "copies_min": 3, "copies_median": 4, "jain_kept": 0.5, "newcomer_ok": true,
            "repaired_seconds": 7.5,
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
    }
}
