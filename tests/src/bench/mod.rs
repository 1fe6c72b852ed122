//! The bench runs real node processes on links of known rates, with a chain made for it, and
//! compares their times with the least possible.
//!
//! Its modules, in reading order: [`options`] is the command line. `chain` makes the chain that is
//! transferred, and `topology` the links. `nodes` runs the processes, and `probe` polls them from
//! within their namespaces. `folder` holds their files. `swarm` is one run, `links` computes the
//! least time for it, and `measure` evaluates its results, with the two numbers of `fairness`.
//! `join` measures how soon a fresh node is at the tip of a chain that `transfers` makes. `archive`
//! measures how nodes with budgets share history, and `budget` how a node follows its budget, both
//! with the nodes of `sharing`.
//! `search` compares what searches cost.
//! `file` measures how fast a file is fetched by the commands `share` and `get`, and `sparse` what
//! a long sparse file takes, also while the node that fetches it is killed again and again.
//! `finality` measures how soon transfers are final, by the payments of `pay`. `attack` measures
//! validators and a full node under attack. `places` measures whom attackers keep out, by the votes
//! that `votes` hears. `aria2` does the same work as `swarm` with another program, with the torrent
//! and tracker of `torrent`. `calibrate` measures the links alone. `stop` ends any of these at a
//! signal.

pub mod options;

mod stop;

mod chain;
mod topology;
mod transfers;

mod nodes;
mod probe;

mod archive;
mod budget;
mod fairness;
mod file;
mod folder;
mod join;
mod links;
mod measure;
mod search;
mod sharing;
mod sparse;
mod swarm;

mod attack;
mod finality;
mod pay;
mod places;
mod votes;

mod aria2;
mod torrent;

mod calibrate;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::hostile::chunks;
use options::{Bench, Task};

/// A requirement that the machine lacks, as opposed to a failure.
#[derive(Debug)]
struct Unfit(String);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// Runs the program. Exit codes: 0 done, 1 failed, 2 wrong use or an unfit machine, 130
/// interrupted.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Bench::parse().task {
        Task::Swarm(swarm) => stop::watch().and_then(|()| swarm::execute(&swarm)),
        Task::Join(join) => stop::watch().and_then(|()| join::execute(&join)),
        Task::Archive(archive) => stop::watch().and_then(|()| archive::execute(&archive)),
        Task::Budget(budget) => stop::watch().and_then(|()| budget::execute(&budget)),
        Task::File(file) if file.sparse.is_some() => {
            stop::watch().and_then(|()| sparse::execute(&file))
        }
        Task::File(file) => stop::watch().and_then(|()| file::execute(&file)),
        Task::Finality(finality) => stop::watch().and_then(|()| finality::execute(&finality)),
        Task::Pay(pay) => pay::execute(&pay),
        Task::Calibrate(calibrate) => stop::watch().and_then(|()| calibrate::execute(&calibrate)),
        Task::Copy(copy) => calibrate::copy(&copy),
        Task::Probe(probe) => probe::execute(&probe),
        Task::Tracker(tracker) => torrent::track(&tracker),
        Task::Hostile(hostile) => chunks::execute(hostile.kind, &hostile.home),
        Task::Attack(attack) => stop::watch().and_then(|()| attack::execute(&attack)),
        Task::Places(places) => stop::watch().and_then(|()| places::execute(&places)),
        Task::Search(search) => search::execute(&search),
        Task::Attacker(attacker) => attack::attack(&attacker),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.is::<stop::Interrupted>() {
        eprintln!("interrupted");
        return ExitCode::from(130);
    }
    eprintln!("error: {error:#}");
    ExitCode::from(if error.is::<Unfit>() { 2 } else { 1 })
}

/// Prints a value as JSON, as one line on stdout.
fn print_line(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints progress for people.
macro_rules! say {
    ($($text:tt)*) => { eprintln!("bench: {}", format_args!($($text)*)) };
}
use say;
