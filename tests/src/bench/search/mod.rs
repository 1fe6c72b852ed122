//! What a search costs: the flood query and a look-up in the index, for the same object in the same
//! network. Networks are simulated, except those of `--real`.

mod flood;
mod index;
mod network;
mod plot;
mod real;

use std::fs;
use std::time::Duration;

use anyhow::Context;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use self::flood::Floods;
use self::network::{Network, mixed};
use super::options::Search;
use super::{print_line, say, stop};

/// What one search costs.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Queries of all nodes.
    queries: u64,
    /// Queries and answers of all nodes.
    messages: u64,
    /// Time until the asker heard of a holder.
    first: Option<Duration>,
    /// Hops to the first holder, for a flood query.
    hops: Option<u64>,
    /// Number of holders of which the asker heard.
    found: u64,
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Flood,
    Index,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Flood => "flood",
            Self::Index => "index",
        }
    }
}

/// The searches of one way in one network. Scripts read the names of its fields.
#[derive(Clone, Debug, Serialize)]
struct Row {
    nodes: usize,
    way: Way,
    /// Whether real nodes searched.
    real: bool,
    searches: usize,
    /// The part of the searches that found a holder.
    found: f64,
    /// Queries of all nodes, the mean of all searches.
    queries: f64,
    /// Queries and answers of all nodes, the mean of all searches.
    messages: f64,
    /// Time until the asker heard of a holder, the median of the searches that found one.
    ms: Option<f64>,
    /// The longest of these times.
    ms_max: Option<f64>,
    /// Hops to the first holder, the mean of these searches.
    hops: Option<f64>,
}

/// The result. Scripts read the names of its fields.
#[derive(Debug, Serialize)]
struct Report {
    holders: usize,
    seed: u64,
    rows: Vec<Row>,
}

/// Runs the command `search`.
pub(super) fn execute(options: &Search) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for nodes in &options.nodes {
        let nodes = usize::try_from(*nodes)?;
        say!("{nodes} simulated nodes");
        rows.extend(simulate(nodes, options));
    }
    if !options.real.is_empty() {
        stop::watch()?;
    }
    for nodes in &options.real {
        say!("{nodes} real nodes");
        rows.extend(real::measure(*nodes, options)?);
    }
    rows.sort_by_key(|row| (row.nodes, row.real));
    if let Some(path) = &options.plot {
        fs::write(path, plot::svg(&rows))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let report = Report { holders: usize::from(options.holders), seed: options.seed, rows };
    if options.json {
        return print_line(&report);
    }
    print!("{}{}", report.table(), report.comparison());
    Ok(())
}

/// The number, rounded, with commas between thousands.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Chooses this many different nodes.
fn some_of(
    count: usize,
    random: &mut ChaCha8Rng,
    choose: impl Fn(&mut ChaCha8Rng) -> Option<usize>,
) -> Vec<usize> {
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let one = choose(random);
        chosen.extend(one.filter(|one| !chosen.contains(one)));
    }
    chosen
}

/// Both ways in one simulated network, for the same objects.
fn simulate(nodes: usize, options: &Search) -> [Row; 2] {
    let network = Network::new(nodes, options.seed);
    let mut floods = Floods::new(&network);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed ^ mixed(nodes as u64));
    let (mut flood, mut index) = (Vec::new(), Vec::new());
    for _ in 0..options.searches {
        let asker = random.random_range(0..nodes);
        let most = usize::from(options.holders).min(nodes - 1);
        let holders = some_of(most, &mut random, |random| {
            Some(random.random_range(0..nodes)).filter(|holder| *holder != asker)
        });
        let key = random.random::<u64>();
        flood.push(floods.search(asker, &holders));
        // Each holder knows that it is one. Without a holder there is no record.
        let mut keepers = holders.clone();
        if !holders.is_empty() {
            keepers.extend(index::nearest(&network, key));
        }
        index.push(index::look_up(&network, asker, key, &keepers));
    }
    [Row::of(nodes, Way::Flood, false, &flood), Row::of(nodes, Way::Index, false, &index)]
}

impl Row {
    fn of(nodes: usize, way: Way, real: bool, costs: &[Cost]) -> Self {
        let mean = |values: Vec<u64>| {
            let count = values.len() as f64;
            (count > 0.0).then(|| values.into_iter().sum::<u64>() as f64 / count)
        };
        let mut times: Vec<Duration> = costs.iter().filter_map(|cost| cost.first).collect();
        times.sort_unstable();
        let ms = |time: &Duration| time.as_secs_f64() * 1_000.0;
        Self {
            nodes,
            way,
            real,
            searches: costs.len(),
            found: times.len() as f64 / costs.len() as f64,
            queries: mean(costs.iter().map(|cost| cost.queries).collect()).unwrap_or_default(),
            messages: mean(costs.iter().map(|cost| cost.messages).collect()).unwrap_or_default(),
            ms: times.get(times.len().saturating_sub(1) / 2).map(ms),
            ms_max: times.last().map(ms),
            hops: mean(costs.iter().filter_map(|cost| cost.hops).collect()),
        }
    }
}

impl Report {
    /// The table of `docs/search.md`.
    fn table(&self) -> String {
        let mut text = "| Nodes | Way | Found | Queries | Messages | Median, ms | Slowest, ms | \
                        Hops |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for row in &self.rows {
            let Row { found, queries, messages, ms, ms_max, hops, .. } = row;
            let real = if row.real { ", real" } else { "" };
            let ms = [ms, ms_max].map(|ms| ms.map_or_else(String::new, whole));
            let hops = hops.map_or_else(String::new, |hops| format!(" {hops:.1}"));
            text += &format!(
                "| {}{real} | {} | {:.0}% | {} | {} | {} | {} |{hops} |\n",
                whole(row.nodes as f64),
                row.way.name(),
                found * 100.0,
                whole(*queries),
                whole(*messages),
                ms[0],
                ms[1],
            );
        }
        text
    }

    /// How well the model foretells the questions of real nodes: a line for each row of theirs.
    fn comparison(&self) -> String {
        let real = self.rows.iter().filter(|row| row.real);
        let lines = real.filter_map(|real| {
            let is_same = |row: &&Row| !row.real && (row.nodes, row.way) == (real.nodes, real.way);
            let model = self.rows.iter().find(is_same)?;
            let (nodes, way, part) = (real.nodes, real.way.name(), real.queries / model.queries);
            Some(format!("{nodes} nodes, {way}: real ones ask {part:.2} of the model's queries\n"))
        });
        lines.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::super::options::{Bench, Task};
    use super::*;

    fn options(more: &[&str]) -> Search {
        let words = ["bench", "search"].iter().chain(more);
        match Bench::try_parse_from(words).unwrap().task {
            Task::Search(search) => search,
            other => panic!("{other:?}"),
        }
    }

    /// The flood costs up to six queries for each node. The index costs fewer than 50, however
    /// large the network is. Both find what is there.
    #[test]
    fn a_flood_costs_messages_of_all_nodes_and_the_index_of_few() {
        let options = options(&["--searches", "5"]);
        // Nodes that the query reaches by its last hop do not pass it on.
        for (nodes, least) in [(10, 5.5), (300, 5.0), (3_000, 3.5)] {
            let [flood, index] = simulate(nodes, &options);
            assert_eq!((flood.found, index.found), (1.0, 1.0), "{nodes}");
            let each = flood.queries / nodes as f64;
            assert!((least..=6.0).contains(&each), "{nodes} nodes: {each} queries each");
            assert!(index.queries < 70.0, "{nodes} nodes: {index:?}");
            assert!(flood.hops.unwrap() <= 7.0 && flood.messages > flood.queries);
        }
    }

    #[test]
    fn numbers_are_rounded_and_have_commas() {
        for (number, text) in
            [(0.4, "0"), (7.0, "7"), (999.6, "1,000"), (12_345.0, "12,345"), (1e6, "1,000,000")]
        {
            assert_eq!(whole(number), text);
        }
    }

    #[test]
    fn real_nodes_stand_beside_the_model() {
        let row = |nodes, way, real, queries| {
            Row::of(nodes, way, real, &[Cost { queries, ..Cost::default() }])
        };
        let rows = vec![
            row(10, Way::Index, false, 10),
            row(10, Way::Index, true, 9),
            row(60, Way::Flood, true, 9),
        ];
        let report = Report { holders: 3, seed: 1, rows };
        assert!(report.table().contains("\n| 10, real | index | 0% | 9 |"), "{}", report.table());
        let text = "10 nodes, index: real ones ask 0.90 of the model's queries\n";
        assert_eq!(report.comparison(), text);
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let text = |seed| {
            let options = options(&["--searches", "3", "--seed", seed]);
            serde_json::to_string(&simulate(400, &options)).unwrap()
        };
        assert_eq!(text("7"), text("7"));
        assert_ne!(text("7"), text("8"));
    }

    #[test]
    fn without_a_holder_nothing_is_found() {
        let [flood, index] = simulate(50, &options(&["--searches", "2", "--holders", "0"]));
        assert_eq!((flood.found, flood.ms, flood.hops), (0.0, None, None));
        assert_eq!(flood.queries, flood.messages);
        assert!(index.queries >= 20.0 && index.found == 0.0);
    }
}
