//! How the history on the disk of a node follows its budget: from everything down to a part, and
//! back. Three other nodes keep everything.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::Serialize;

use super::chain::{MadeChain, Recipe};
use super::folder::{folder, in_folder, take_turn};
use super::nodes::{Place, Programs, Role};
use super::options::Budget;
use super::sharing::Sharing;
use super::{print_line, say};

/// Nodes that keep everything.
const OTHERS: usize = 3;

/// The result. Scripts read the names of its fields. Bytes are those of whole eras on the disk, and
/// seconds are from the start with the new budget.
#[derive(Debug, Serialize)]
struct Report {
    full_bytes: u64,
    budget_bytes: u64,
    /// Bytes of a whole era, on average.
    era_bytes: u64,
    lowered_bytes: u64,
    lowered_seconds: f64,
    raised_bytes: u64,
    raised_seconds: f64,
}

/// Runs the command `budget`.
pub(super) fn execute(options: &Budget) -> anyhow::Result<()> {
    let programs = Programs::find(options.common.node.as_deref())?;
    let folder = folder(&programs.bench)?;
    let turn = take_turn(&folder)?;
    let chain = MadeChain::obtain(&folder, &Recipe::of_eras(options.eras))?;
    drop(turn);
    let report = in_folder(&folder, options.common.keep, |home| {
        let places: Vec<Place> = (0..=OTHERS)
            .map(|number| Place::new(format!("node{number}"), Role::Seed))
            .collect::<Result<_, _>>()?;
        let turn = take_turn(&folder)?;
        let chain = (&chain, options.eras);
        let network = Sharing::new(&places, chain, &options.common, &programs, home)?;
        drop(turn);
        run(options, network, &programs)
    })?;
    if options.common.json {
        return print_line(&report);
    }
    println!("{}", report.text());
    Ok(())
}

fn run(options: &Budget, mut network: Sharing, programs: &Programs) -> anyhow::Result<Report> {
    network.start()?;
    let full_bytes = network.sizes.eras;
    let budget_bytes = network.sizes.part(options.keep_share);
    let (lowered_bytes, lowered_seconds) =
        change(&mut network, &format!("{budget_bytes}B"), |bytes| bytes <= budget_bytes)?;
    let (raised_bytes, raised_seconds) = change(&mut network, "full", |bytes| bytes >= full_bytes)?;
    let node = &mut network.nodes[0];
    node.kill();
    let verify =
        Command::new(&programs.node).args(["db", "verify", "--home"]).arg(&node.home).output();
    let verify = verify.context("the node's program does not start")?;
    ensure!(verify.status.success(), "`db verify` found something: {verify:?}");
    Ok(Report {
        full_bytes,
        budget_bytes,
        era_bytes: full_bytes / u64::from(options.eras),
        lowered_bytes,
        lowered_seconds,
        raised_bytes,
        raised_seconds,
    })
}

/// Restarts the first node with another budget, and waits until the bytes of its eras satisfy the
/// condition and it fetches none. Returns the bytes and the seconds.
fn change(
    network: &mut Sharing,
    keep: &str,
    is_enough: impl Fn(u64) -> bool,
) -> anyhow::Result<(u64, f64)> {
    network.kill_to_keep(0, keep);
    let start = Instant::now();
    network.start()?;
    network.until(&format!("keep {keep}"), |network, look| {
        look.at_rest().is_some() && is_enough(network.kept()[0])
    })?;
    let (bytes, seconds) = (network.kept()[0], start.elapsed().as_secs_f64());
    say!("keep {keep}: {bytes} bytes after {seconds:.1} s");
    Ok((bytes, seconds))
}

impl Report {
    /// The report as text for people.
    fn text(&self) -> String {
        let Self { full_bytes, budget_bytes, era_bytes, .. } = self;
        let Self { lowered_bytes, lowered_seconds, raised_bytes, raised_seconds, .. } = self;
        format!(
            "{full_bytes} bytes in eras of {era_bytes}; the budget was lowered to {budget_bytes}\n\
             {lowered_bytes} bytes after {lowered_seconds:.1} s; with everything allowed again \
             {raised_bytes} after {raised_seconds:.1} s"
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
    fn the_usual_chain_has_256_eras_and_a_third_is_kept() {
        let parse = |more: &[&str]| {
            let words = ["bench", "budget"].iter().chain(more);
            let Task::Budget(budget) = Bench::try_parse_from(words).ok()?.task else { return None };
            Some((budget.eras, budget.keep_share))
        };
        assert_eq!(parse(&[]), Some((256, 1.0 / 3.0)));
        assert_eq!(parse(&["--eras", "6", "--keep-share", "0.5"]), Some((6, 0.5)));
        for wrong in [["--eras", "0"], ["--keep-share", "-1"]] {
            assert_eq!(parse(&wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn scripts_find_these_fields() {
        let report = Report {
            full_bytes: 1,
            budget_bytes: 2,
            era_bytes: 3,
            lowered_bytes: 4,
            lowered_seconds: 5.5,
            raised_bytes: 6,
            raised_seconds: 7.5,
        };
        let expected = json!({
            "full_bytes": 1, "budget_bytes": 2, "era_bytes": 3, "lowered_bytes": 4,
            "lowered_seconds": 5.5, "raised_bytes": 6, "raised_seconds": 7.5,
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
    }
}
