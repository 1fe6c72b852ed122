//! The scenarios of the table in `docs/measurements/swarm-simulation.md`.

use std::time::Duration;

use super::plan::{Conduct, Plan, mbit};

const MIB: u64 = 1 << 20;

/// All scenarios with their names.
#[must_use]
pub fn scenarios() -> Vec<(String, Plan)> {
    let mut all = Vec::new();
    let mut add = |name: &str, plan: Plan| all.push((name.to_owned(), plan));
    for leechers in [1, 4, 8, 15, 50] {
        add(&format!("1 seed, {leechers} leechers"), Plan::new(1, leechers));
    }
    for kib in [256, 64] {
        for leechers in [1, 8, 15, 50] {
            let plan = Plan::new(1, leechers).with_bytes(64 * MIB, 16 * MIB, kib << 10);
            add(&format!("1 seed, {leechers} leechers, chunks of {kib} KiB"), plan);
        }
    }
    add("1 seed, 8 leechers, 512 MiB", Plan::new(1, 8).with_bytes(512 * MIB, 16 * MIB, 256 << 10));
    add(
        "1 seed, 8 leechers of 10 Mbit/s up",
        Plan::new(1, 8).with_leechers(|_, member| member.up = mbit(10)),
    );
    for seeds in [1, 2, 4, 8] {
        let plan = Plan::new(seeds, 1).with_seeds(|_, member| member.up = mbit(20));
        add(&format!("{seeds} seeds of 20 Mbit/s, 1 leecher"), plan);
    }
    add("2 seeds, 16 leechers", Plan::new(2, 16));
    let far = Plan { latency: Duration::from_millis(100), ..Plan::new(1, 8) };
    add("1 seed, 8 leechers, 100 ms apart", far);
    let server = Plan::new(1, 20).with_seeds(|_, member| member.up = mbit(1_000));
    let server = server.with_leechers(|_, member| (member.up, member.down) = (mbit(1), mbit(50)));
    add("1 seed of 1 Gbit/s, 20 leechers of 1 up, 50 down", server);
    let homes = Plan::new(1, 15).with_seeds(|_, member| member.up = mbit(100));
    let homes = homes.with_leechers(|_, member| (member.up, member.down) = (mbit(2), mbit(10)));
    add("1 seed of 100 Mbit/s, 15 leechers of 2 up, 10 down", homes);
    let crowd = Plan::new(1, 50)
        .with_leechers(|at, member| member.starts_at = Duration::from_millis(200 * at as u64));
    add("flash crowd: 50 leechers within 10 s", crowd);
    let late = |at: usize| Duration::from_secs(if at < 8 { 0 } else { 7 });
    add(
        "8 leechers, 8 more after 7 s",
        Plan::new(1, 16).with_leechers(|at, member| member.starts_at = late(at)),
    );
    add("10 seeds of 20 Mbit/s, 2 stall, 2 poison, 1 leecher", hostile());
    let leaving = Plan::new(1, 8).with_seeds(|_, member| member.leaves_after = Some(110));
    add("8 leechers, the seed leaves after 1.1 copies", leaving);
    add("4 seeds of 20 Mbit/s, 1 leecher killed every 5 s", killed(4, 1));
    add("8 leechers, each killed every 5 s", killed(1, 8));
    let slow = Plan::new(1, 12).with_leechers(|at, member| {
        if at >= 8 {
            (member.down, member.is_awaited) = (mbit(5), false);
        }
    });
    add("8 leechers, and 4 of 5 Mbit/s down that nobody waits for", slow);
    add("200 leechers, links with 20 each", Plan { degree: Some(20), ..Plan::new(1, 200) });
    all
}

/// One leecher and ten seeds, four of them hostile.
#[must_use]
pub fn hostile() -> Plan {
    Plan::new(10, 1).with_seeds(|at, member| {
        member.up = mbit(20);
        member.conduct = match at % 5 {
            0 => Conduct::Stalls,
            1 => Conduct::Poisons,
            _ => Conduct::Honest,
        };
    })
}

/// Leechers that are killed every five seconds, at different moments.
#[must_use]
pub fn killed(seeds: usize, leechers: usize) -> Plan {
    let up = if seeds > 1 { mbit(20) } else { mbit(40) };
    Plan::new(seeds, leechers).with_seeds(|_, member| member.up = up).with_leechers(|at, member| {
        member.killed_every = Some(Duration::from_millis(5_000 + 37 * at as u64));
    })
}
