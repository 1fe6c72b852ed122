//! Prints the table of `docs/measurements/swarm-simulation.md`: all scenarios, or those with a
//! given name. With `--told` each event is printed as it happens.

use std::env::args;

use tests::swarm::{Outcome, World, scenarios};

fn main() {
    let (options, names): (Vec<String>, Vec<String>) =
        args().skip(1).partition(|arg| arg.starts_with("--"));
    println!("| scenario | {} |", Outcome::COLUMNS);
    println!("|---|{}", "---|".repeat(Outcome::COLUMNS.matches('|').count() + 1));
    for (name, plan) in scenarios() {
        if names.is_empty() || names.contains(&name) {
            let mut world = World::new(plan);
            world.told = options.iter().any(|option| option == "--told");
            world.run();
            println!("| {name} | {} |", world.outcome());
        }
    }
}
