//! Networks of honest nodes: shares, losses, and budgets that change.

use super::super::Notice;
use super::world::{BYTES, Conduct, GONE_COUNTS, MINUTE, SECOND, World};
use super::*;
use crate::eras::Era;

/// Jain's fairness index in thousandths: 1,000 if all values are equal, 1,000/n if one of n is
/// everything.
fn jain(values: &[u64]) -> u64 {
    let sum: u64 = values.iter().sum();
    let squares: u64 = values.iter().map(|value| value * value).sum();
    1_000 * sum * sum / (values.len() as u64 * squares)
}

#[test]
fn twelve_nodes_of_a_third_keep_every_era_three_times_in_equal_shares() {
    for (eras, seeds) in [(64, 10), (1_000, 1)] {
        for seed in 0..seeds {
            let mut world = thirds(seed, eras);
            world.run(MINUTE * 10);
            assert!(world.fewest() >= COPIES && world.fewest_after_drops() >= COPIES);
            let kept: Vec<u64> = (0..NODES).map(|node| world.bytes(node) / BYTES).collect();
            assert!(jain(&kept) >= 990, "{kept:?}");
        }
    }
}

#[test]
fn two_that_vanish_at_once_are_made_up_for_within_a_minute() {
    for seed in 0..10 {
        let mut world = thirds(seed, 64);
        let gone = [seed as usize % NODES, (seed as usize + 5) % NODES];
        gone.into_iter().for_each(|node| world.vanish(node));
        world.run(GONE_COUNTS);
        assert!(world.fewest() < COPIES, "seed {seed}: nothing was lost");
        world.run_until(MINUTE, |world| world.fewest() >= COPIES);
        world.run(MINUTE * 10);
        assert!(world.fewest() >= COPIES && world.fewest_after_drops() >= COPIES);
        for node in (0..NODES).filter(|node| !gone.contains(node)) {
            assert!(world.bytes(node) <= limit(share(64, 34)), "seed {seed}: {node}");
        }
    }
}

/// A restart is shorter than the time for which a node that is gone counts.
#[test]
fn a_restart_moves_no_era() {
    let mut world = thirds(1, 64);
    world.run(MINUTE * 5);
    let before = world.fetches;
    world.vanish(3);
    world.run(GONE_COUNTS / 2);
    world.start(3);
    world.run(MINUTE * 5);
    assert_eq!((world.fetches, world.fewest_after_drops()), (before, COPIES));
}

#[test]
fn budgets_of_many_sizes_are_used_in_proportion_and_raised_ones_are_filled() {
    for seed in 0..5 {
        let mut world = full(seed, 200);
        let percent = |node: usize| 10 + 5 * node as u64;
        (0..NODES).for_each(|node| world.keep(node, share(200, percent(node))));
        world.run(MINUTE * 30);
        // Thousandths of the budgets.
        let parts: Vec<u64> = (0..NODES)
            .map(|node| 1_000 * world.bytes(node) / limit(share(200, percent(node))))
            .collect();
        assert!(jain(&parts) >= 990 && parts.iter().all(|part| *part <= 1_000), "{parts:?}");
        assert!(world.fewest() >= COPIES && world.fewest_after_drops() >= COPIES);
        world.keep(0, share(200, 50));
        world.keep(1, Keep::Full);
        let filled = |world: &World| world.bytes(0) == 100 * BYTES && world.bytes(1) == 200 * BYTES;
        world.run_until(MINUTE * 5, filled);
        world.keep(1, share(200, 20));
        world.run_until(MINUTE * 10, |world| world.bytes(1) <= 40 * BYTES);
        assert!(world.fewest_after_drops() >= COPIES);
    }
}

#[test]
fn nodes_that_join_late_take_their_share() {
    let mut world = thirds(2, 64);
    for _ in 0..4 {
        world.join(Conduct::Honest, share(64, 34), false, None);
        world.run_until(MINUTE * 3, |world| world.bytes(world.len() - 1) >= 21 * BYTES);
    }
    world.run(MINUTE * 10);
    // Those that were there first may go now: the others have room.
    (0..4).for_each(|node| {
        world.vanish(node);
        world.run(GONE_COUNTS);
        world.run_until(MINUTE, |world| world.fewest() >= COPIES);
    });
    assert!(world.fewest_after_drops() >= COPIES);
}

#[test]
fn a_growing_chain_stays_three_times_everywhere_and_within_the_budgets() {
    let mut world = thirds(3, 64);
    for _ in 0..15 {
        world.grow();
        world.run(MINUTE * 2);
        assert!(world.fewest_after_drops() >= COPIES);
    }
    assert!((0..NODES).all(|node| world.bytes(node) <= limit(share(64, 34))));
    // 79 eras need 237 places, and there are 252.
    assert!(world.fewest() >= COPIES, "{:?}", world.copies());
}

#[test]
fn nodes_of_the_newest_eras_drop_only_what_others_have() {
    let mut world = full(4, 64);
    (0..4).for_each(|node| world.keep(node, Keep::Recent(8)));
    world.run_until(MINUTE * 10, |world| (0..4).all(|node| world.bytes(node) == 8 * BYTES));
    world.grow();
    world.run_until(MINUTE * 2, |world| (0..4).all(|node| world.bytes(node) == 8 * BYTES));
    assert!(world.serves(0, Era(64)) && world.serves(0, Era(57)) && !world.serves(0, Era(56)));
    assert!(world.fewest_after_drops() >= COPIES);
}

/// The budgets together hold each era only once and a little more.
#[test]
fn too_small_budgets_are_exceeded_by_a_tenth_and_no_last_copy_goes() {
    for seed in 0..5 {
        let mut world = full(seed, 120);
        let keep = share(120, 20);
        (0..NODES).for_each(|node| world.keep(node, keep));
        world.run(MINUTE * 5);
        assert!(world.fewest() >= COPIES - 1 && world.fewest_after_drops() >= COPIES - 1);
        let keep = share(120, 10);
        (0..NODES).for_each(|node| world.keep(node, keep));
        world.run(MINUTE * 30);
        assert!(world.fewest() >= 1 && world.fewest_after_drops() >= 1);
        let most = limit(keep) + limit(keep) / 10;
        // A node may have nothing but last copies, while all others have used the tenth.
        let has_last_copies = |node: usize| {
            let here = |era: &Era| world.serves(node, *era);
            (0..120).map(Era).filter(here).all(|era| world.honest_copies(era) == 1)
        };
        let is_within = |node: usize| world.bytes(node) <= most || has_last_copies(node);
        assert!((0..NODES).all(is_within), "{:?}", world.copies());
        let over = |notice: &Notice| matches!(notice, Notice::OverBudget { .. });
        let few = |notice: &Notice| matches!(notice, Notice::FewCopies { copies: 1, .. });
        assert!(world.notices.iter().any(over) && world.notices.iter().any(few));
        // Nobody can keep to this budget without losing history for good.
        let keep = share(120, 2);
        (0..NODES).for_each(|node| world.keep(node, keep));
        world.run(MINUTE * 30);
        assert!(world.fewest() >= 1 && world.fewest_after_drops() >= 1);
    }
}

/// At first no copy is proved, so an exceeded budget says little.
#[test]
fn the_operator_hears_of_an_exceeded_budget_after_a_minute() {
    let mut world = full(0, 120);
    let keep = share(120, 2);
    (0..NODES).for_each(|node| world.keep(node, keep));
    world.run(SECOND * 50);
    assert_eq!(world.notices, []);
    world.run(MINUTE * 10);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::OverBudget { .. })));
}
