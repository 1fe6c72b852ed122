//! Prints what simulated swarms take, against the least that is possible: `make swarm-sim`.

use std::time::{Duration, Instant};

use tests::swarm::{Conduct, Outcome, Plan, mbit, run};

fn main() {
    println!("| Swarm | {} |", Outcome::COLUMNS);
    println!("|{}", "---|".repeat(Outcome::COLUMNS.split('|').count() + 1));
    for (name, plan) in plans() {
        let started = Instant::now();
        println!("| {name} | {} |", run(plan));
        eprintln!("{name}: simulated in {:.1} s", started.elapsed().as_secs_f64());
    }
}

fn plans() -> Vec<(String, Plan)> {
    let mut plans = Vec::new();
    for leechers in [1, 4, 8, 15, 50] {
        plans.push((format!("1 seed, {leechers} leechers"), Plan::new(1, leechers)));
    }
    for kib in [64u64, 128] {
        let plan = Plan::new(1, 8).with_bytes(64 << 20, 16 << 20, kib << 10);
        plans.push((format!("1 seed, 8 leechers, chunks of {kib} KiB"), plan));
    }
    let slow = |rate| move |_: usize, member: &mut tests::swarm::Member| member.up = mbit(rate);
    plans.push(("1 seed, 8 leechers of 10 Mbit/s up".to_owned(), Plan::new(1, 8).with_leechers(slow(10))));
    for seeds in [1, 2, 4, 8] {
        plans.push((format!("{seeds} seeds of 20 Mbit/s, 1 leecher"), Plan::new(seeds, 1).with_seeds(slow(20))));
    }
    plans.push(("2 seeds, 16 leechers".to_owned(), Plan::new(2, 16)));
    let one_by_one = Plan::new(1, 8).with_leechers(|at, member| member.starts_at = Duration::from_secs(at as u64));
    plans.push(("1 seed, 8 leechers, one each second".to_owned(), one_by_one));
    let hostile = Plan::new(10, 1).with_seeds(|at, member| {
        member.up = mbit(20);
        member.conduct = match at {
            0 | 1 => Conduct::Stalls,
            2 | 3 => Conduct::Poisons,
            _ => Conduct::Honest,
        };
    });
    plans.push(("10 seeds of 20 Mbit/s, 2 stall, 2 poison, 1 leecher".to_owned(), hostile));
    let leaves = Plan::new(1, 8).with_seeds(|_, member| member.leaves_after = Some(110));
    plans.push(("1 seed that leaves after 1.1 copies, 8 leechers".to_owned(), leaves));
    let killed = Plan::new(1, 4).with_leechers(|_, member| member.killed_every = Some(Duration::from_secs(5)));
    plans.push(("1 seed, 4 leechers killed each 5 s".to_owned(), killed));
    plans
}
