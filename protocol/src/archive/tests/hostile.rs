//! Networks with liars: none makes an honest node drop an era that too few others have.

use std::time::Duration;

use super::world::{Conduct, GONE_COUNTS, MINUTE, World};
use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn nodes_that_announce_everything_and_keep_nothing_count_for_nothing() {
    for seed in 0..5 {
        let mut world = full(seed, 64);
        for number in 0..40 {
            let conduct = [Conduct::Boasts, Conduct::Silent][number % 2];
            world.join(conduct, Keep::Full, false, None);
        }
        world.run(MINUTE);
        lower(&mut world, share(64, 34));
        assert!(world.fewest() >= COPIES && world.fewest_after_drops() >= COPIES);
        // Repair believes them at first, and a node finds one of them a minute.
        world.vanish(0);
        world.vanish(1);
        world.run_until(HOUR * 2, |world| world.fewest() >= COPIES);
    }
}

/// One operator keeps everything with many identities, for more than a day, and is gone.
#[test]
fn many_identities_of_one_address_group_are_one_copy() {
    for seed in 0..3 {
        let mut world = full(seed, 64);
        (0..30).for_each(|_| world.join(Conduct::Hoards, Keep::Full, true, Some(7)));
        world.run(MINUTE);
        lower(&mut world, share(64, 34));
        world.run(HOUR);
        (NODES..world.len()).for_each(|node| world.vanish(node));
        assert!(world.fewest() >= COPIES - 1, "{:?}", world.copies());
        world.run(GONE_COUNTS);
        world.run_until(MINUTE, |world| world.fewest() >= COPIES);
    }
}

/// It passes audits, others rely on it, then it loses its disk and claims everything as before.
#[test]
fn a_liar_that_kept_its_eras_for_a_while_is_found() {
    let mut longest = Duration::ZERO;
    for seed in 0..5 {
        let mut world = full(seed, 64);
        world.join(Conduct::Hoards, Keep::Full, true, None);
        world.run(MINUTE);
        lower(&mut world, share(64, 28));
        assert!(world.fewest() >= COPIES - 1);
        world.lose_disk(NODES);
        // Each node audits one of twelve others a minute.
        longest = longest.max(world.run_until(HOUR * 2, |world| world.fewest() >= COPIES));
    }
    assert!(longest > MINUTE, "nobody relied on the liar");
}

/// They show chunks that they get from honest nodes, also from the one that audits them.
#[test]
fn nodes_that_relay_chunks_of_others_do_not_make_a_last_copy_go() {
    for seed in 0..5 {
        let mut world = World::new(seed, 64);
        world.join(Conduct::Honest, Keep::Full, true, None);
        world.join(Conduct::Honest, Keep::Full, true, None);
        (0..40).for_each(|_| world.join(Conduct::Relays, Keep::Full, false, None));
        world.run(MINUTE);
        (0..2).for_each(|node| world.keep(node, share(64, 20)));
        // Long enough that one proved copy would be enough.
        world.run(GONE_COUNTS * 60);
        assert!(world.fewest() >= 1, "seed {seed}: {:?}", world.copies());
        assert!(!world.drops.is_empty(), "no copy of the two went");
    }
}
