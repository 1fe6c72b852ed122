//! Tests of how the operator is told that a quorum is missing.

use super::*;

#[test]
fn a_missing_quorum_is_told_with_the_names_of_the_missing_and_so_is_its_return() {
    for seed in [None, Some(1)] {
        let mut node = Node::fresh(seed);
        let mut notices = Vec::new();
        let mut run = |node: &mut Node, seconds: u64| {
            for _ in 0..seconds * 20 {
                let effects = node.elapse(Duration::from_millis(50));
                notices.extend(effects.into_iter().filter_map(|effect| match effect {
                    Effect::Notice(notice @ (Notice::Quorum(_) | Notice::NoQuorum(..))) => {
                        Some(notice)
                    }
                    _ => None,
                }));
            }
        };
        run(&mut node, 10);
        assert!(node.machine.quorum().ok);
        run(&mut node, 2);
        let mut missing: Vec<PublicKey> =
            (1..=4).filter(|other| Some(*other) != seed).map(|s| key(s).public()).collect();
        missing.sort();
        let mut quorum = node.machine.quorum().clone();
        quorum.missing.sort();
        assert_eq!((quorum.ok, &quorum.missing), (false, &missing));
        assert_eq!(quorum.since_ms, Some(START + 300), "since the height began");
        for other in 2..=4 {
            node.hear(nil(other, 1));
        }
        run(&mut node, 2);
        assert!(node.machine.quorum().ok);
        assert!(
            matches!(&notices[..], [Notice::NoQuorum(Height(1), _), Notice::Quorum(Height(1))]),
            "{notices:?}"
        );
    }
}

#[test]
fn an_idle_pause_lacks_no_quorum() {
    let ours = follower(1..=1);
    let (block, signed) = first(100);
    let mut node = Node::fresh(Some(ours));
    node.elapse(Duration::from_millis(300));
    decide(&mut node, &others(ours), &block, &signed);
    for _ in 0..14 * 20 {
        node.elapse(Duration::from_millis(50));
        assert!(node.machine.quorum().ok);
    }
}
