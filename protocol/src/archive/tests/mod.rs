//! Tests of the archive machine: networks of many machines, and one machine input by input.
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::unwrap_used)]

mod bench;
mod fetching;
mod hostile;
mod machine;
mod sharing;
mod trust;
mod world;

use world::{BYTES, Conduct, MINUTE, World};

use super::{COPIES, Keep};

/// Honest nodes of a network.
const NODES: usize = 12;

/// A budget of this share of the chain, in percent.
fn share(eras: usize, percent: u64) -> Keep {
    Keep::Bytes(eras as u64 * BYTES * percent / 100)
}

/// The bytes that a budget allows.
fn limit(keep: Keep) -> u64 {
    let Keep::Bytes(bytes) = keep else { panic!("{keep:?}") };
    bytes
}

/// Twelve nodes that have all eras.
fn full(seed: u64, eras: usize) -> World {
    let mut world = World::new(seed, eras);
    (0..NODES).for_each(|_| world.join(Conduct::Honest, Keep::Full, true, None));
    world.run(MINUTE);
    world
}

/// Lowers the budgets of all twelve at once, and waits until each of them keeps to it.
fn lower(world: &mut World, keep: Keep) {
    (0..NODES).for_each(|node| world.keep(node, keep));
    world.run_until(MINUTE * 90, |world| (0..NODES).all(|node| world.bytes(node) <= limit(keep)));
}

/// Twelve nodes whose budgets were lowered to a third.
fn thirds(seed: u64, eras: usize) -> World {
    let mut world = full(seed, eras);
    lower(&mut world, share(eras, 34));
    assert!(world.fewest_after_drops() >= COPIES, "{:?}", world.copies());
    world
}
