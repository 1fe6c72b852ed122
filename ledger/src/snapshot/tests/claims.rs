//! Every claim of a frontier is attacked.

use super::*;

/// A false count cannot be seen in the frontier. It gives the snapshot another name, and a chunk
/// that nobody can send.
#[test]
fn false_counts_have_their_own_name_and_are_caught_by_a_chunk() {
    let (state, frontier, _) = made();
    let last = frontier.descriptors().len() - 1;
    let mut accepted = 0;
    for index in [0, 1, last / 2, last - 1, last] {
        for (what, change) in [("one less", -1), ("one more", 1), ("five more", 5)] {
            let forged = claim(&frontier, |descriptors| {
                let count = &mut descriptors[index].count;
                *count = count.saturating_add_signed(change);
            });
            if let Ok(forged) = forged {
                accepted += 1;
                check_false(&state, &frontier, &forged, &format!("subtree {index}: {what}"));
            }
        }
        // The sum stays the same, so only the place of the cut is false.
        let (one, other) = (index.min(last - 1), index.min(last - 1) + 1);
        let moved = claim(&frontier, |descriptors| {
            descriptors[one].count -= 1;
            descriptors[other].count += 1;
        });
        check_false(&state, &frontier, &moved.unwrap(), &format!("moved from {one} to {other}"));
    }
    assert!(accepted > 10, "{accepted}");
}

#[test]
fn counts_outside_the_bounds_are_refused() {
    let (_, frontier, _) = made();
    let most = frontier.descriptors().iter().map(|subtree| subtree.count).max().unwrap();
    assert!(most <= MAX);
    for count in [MAX + 1, u32::MAX] {
        let too_coarse = FrontierError::TooCoarse { index: 3, count, entries_max: MAX };
        let got = claim(&frontier, |descriptors| descriptors[3].count = count);
        assert_eq!(got, Err(too_coarse));
    }
    let empty = claim(&frontier, |descriptors| {
        descriptors.iter_mut().for_each(|subtree| subtree.count = 0);
    });
    assert!(matches!(empty, Err(FrontierError::TooFine { count: 0, .. })), "{empty:?}");
    // The two subtrees below one node, with exactly as many entries as one subtree may have, and
    // with one more.
    let pair = lowest_pair(&frontier);
    for (sum, is_accepted) in [(MAX, false), (MAX + 1, true)] {
        let got = claim(&frontier, |descriptors| {
            descriptors[pair].count = MAX / 2;
            descriptors[pair + 1].count = sum - MAX / 2;
        });
        let depth = frontier.descriptors()[pair].depth - 1;
        let too_fine = FrontierError::TooFine { depth, count: sum.into(), entries_max: MAX };
        assert_eq!(got.map(drop), if is_accepted { Ok(()) } else { Err(too_fine) });
    }
}

/// Index of the first of two neighbouring subtrees that are the halves of one node.
fn lowest_pair(frontier: &Frontier) -> usize {
    let descriptors = frontier.descriptors();
    let deepest = descriptors.iter().map(|subtree| subtree.depth).max();
    descriptors.iter().position(|subtree| Some(subtree.depth) == deepest).unwrap()
}

/// Two subtrees share a chunk if they fill it exactly, and do not if they have one entry more.
#[test]
fn a_chunk_may_be_full() {
    let (_, frontier, _) = made();
    for (sum, bytes) in [(MAX, 8 + 81 * u64::from(MAX)), (MAX + 1, 8 + 81 * 40)] {
        let claimed = claim(&frontier, |descriptors| {
            // Halves of different nodes, beside halves that are nearly full.
            for (index, count) in [(0, 60), (1, 40), (2, sum - 40), (3, 60)] {
                descriptors[index].count = count;
            }
        });
        let range = claimed.unwrap().chunk_range(1).unwrap();
        assert_eq!(range.end - range.start, bytes, "{sum}");
    }
}

#[test]
fn finer_and_coarser_cuts_are_refused_or_caught_by_a_chunk() {
    let (state, frontier, _) = made();
    let subtrees: Vec<Subtree> = state.subtrees(MAX as usize).collect();
    let finer = |counts: [u32; 2]| {
        claim(&frontier, |descriptors| {
            let SubtreeDescriptor { depth, .. } = descriptors.remove(0);
            let halves = subtrees[0].at().children().map(|at| {
                let entries: Vec<Entry> = subtrees[0]
                    .entries()
                    .filter(|(key, _)| at.meets(&key.path(), &key.path()))
                    .copied()
                    .collect();
                Subtree::build(at, &entries).unwrap()
            });
            for (half, count) in halves.iter().zip(counts).rev() {
                let hash = half.hash();
                descriptors.insert(0, SubtreeDescriptor { depth: depth + 1, count, hash });
            }
        })
    };
    let count = subtrees[0].len() as u32;
    let depth = subtrees[0].at().depth;
    assert_eq!(
        finer([count - 20, 20]),
        Err(FrontierError::TooFine { depth, count: count.into(), entries_max: MAX })
    );
    let forged = finer([MAX, 20]).unwrap();
    check_false(&state, &frontier, &forged, "finer, with a count that hides it");

    let pair = lowest_pair(&frontier);
    let coarser = |count: u32| {
        claim(&frontier, |descriptors| {
            let right = descriptors.remove(pair + 1);
            let left = &mut descriptors[pair];
            let hash = inner_hash(&left.hash, &right.hash);
            *left = SubtreeDescriptor { depth: left.depth - 1, count, hash };
        })
    };
    let count = frontier.descriptors()[pair..pair + 2].iter().map(|subtree| subtree.count).sum();
    assert_eq!(
        coarser(count).map(drop),
        Err(FrontierError::TooCoarse { index: pair, count, entries_max: MAX })
    );
    check_false(&state, &frontier, &coarser(MAX).unwrap(), "coarser, with a count that hides it");
}

#[test]
fn hashes_and_depths_are_covered_by_the_root() {
    let (_, frontier, _) = made();
    let last = frontier.descriptors().len() - 1;
    let root = frontier.root();
    let other_root = |result: Result<Frontier, FrontierError>| {
        let Err(FrontierError::OtherRoot { expected, .. }) = result else { return false };
        expected == root
    };
    for index in 0..last {
        assert!(other_root(claim(&frontier, |descriptors| {
            let hash = descriptors[index].hash;
            descriptors[index].hash = descriptors[index + 1].hash;
            descriptors[index + 1].hash = hash;
        })));
        assert!(other_root(claim(&frontier, |descriptors| descriptors[index].hash.0[31] ^= 1)));
        for change in [-1, 1] {
            let moved = claim(&frontier, |descriptors| {
                let depth = &mut descriptors[index].depth;
                *depth = depth.saturating_add_signed(change);
            });
            assert!(moved.is_err(), "subtree {index}: {change}");
        }
        let removed = claim(&frontier, |descriptors| {
            descriptors.remove(index);
        });
        assert!(removed.is_err(), "without subtree {index}");
    }
    let got = last + 1;
    for (result, expected) in [
        (claim(&frontier, Vec::clear), FrontierError::Incomplete { got: 0 }),
        (
            claim(&frontier, |descriptors| descriptors.truncate(last)),
            FrontierError::Incomplete { got: last },
        ),
        (
            claim(&frontier, |descriptors| descriptors.push(descriptors[0])),
            FrontierError::Depth { index: got, depth: frontier.descriptors()[0].depth },
        ),
        (
            claim(&frontier, |descriptors| descriptors[0].depth = 257),
            FrontierError::Depth { index: 0, depth: 257 },
        ),
    ] {
        assert_eq!(result, Err(expected));
    }
    let of_other_state = Frontier::verify(
        frontier.descriptors().to_vec(),
        StateRoot(Hash::ZERO),
        &rules(MAX.into()),
    );
    assert!(matches!(of_other_state, Err(FrontierError::OtherRoot { got, .. }) if got == root));
}

#[test]
fn a_frontier_is_bounded_and_has_one_encoding() {
    let (_, frontier, _) = made();
    let (bytes, root, rules) = (frontier.bytes(), frontier.root(), rules(MAX.into()));
    let descriptors = frontier.descriptors();
    assert_eq!(bytes.len(), 8 + 38 * descriptors.len());
    let long = [&bytes[..], &[0]].concat();
    assert_eq!(
        Frontier::decode(&long, root, &rules),
        Err(FrontierError::Bytes(CodecError::Trailing { extra: 1 }))
    );
    let cut = Frontier::decode(&bytes[..bytes.len() - 1], root, &rules);
    assert!(matches!(cut, Err(FrontierError::Bytes(CodecError::Malformed { .. }))));
    let huge = vec![0; FRONTIER_BYTES_MAX + 1];
    let too_long = CodecError::TooLong { got: huge.len(), max: FRONTIER_BYTES_MAX };
    assert_eq!(Frontier::decode(&huge, root, &rules), Err(FrontierError::Bytes(too_long)));

    // The most subtrees that fit into the bytes are looked at, one more is not.
    let subtree = SubtreeDescriptor { depth: 256, count: 0, hash: Hash::ZERO };
    let most = (FRONTIER_BYTES_MAX - 8) / 38;
    let verify = |count| Frontier::verify(vec![subtree; count], root, &rules);
    assert!(matches!(verify(most), Err(FrontierError::TooFine { depth: 255, .. })));
    assert_eq!(verify(most + 1), Err(FrontierError::TooMany { got: most + 1 }));

    let pages: Vec<&[SubtreeDescriptor]> = frontier.pages().collect();
    assert_eq!(pages, [descriptors]);
}

/// The deepest frontier: a chain of nodes down to a single path.
#[test]
fn a_frontier_is_followed_to_the_last_bit() {
    let hash = |i: u16| Hash::of(Domain::StatePage, &[&i.to_le_bytes()]);
    let depths = (1..=256u16).chain([256]);
    let mut descriptors: Vec<SubtreeDescriptor> = (0..)
        .zip(depths)
        .map(|(i, depth)| SubtreeDescriptor { depth, count: MAX, hash: hash(i) })
        .collect();
    let root = (0..256u16).rev().fold(hash(256), |below, i| inner_hash(&hash(i), &below));
    let verify = |descriptors| Frontier::verify(descriptors, StateRoot(root), &rules(MAX.into()));
    assert_eq!(verify(descriptors.clone()).map(|frontier| frontier.chunk_count()), Ok(257));
    descriptors[256].depth = 257;
    assert_eq!(verify(descriptors), Err(FrontierError::Depth { index: 256, depth: 257 }));
}
