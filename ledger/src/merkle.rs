//! Binary Merkle trees: a root that commits to a list of hashes, and a short proof that a hash is
//! in the list.
//!
//! The shape is that of RFC 6962, section 2.1: a tree splits at the largest power of two below its
//! leaf count. Seen level by level, nodes pair up from the left, and an odd last node moves up
//! unchanged. Leaves and inner nodes are hashed under different domains, so an inner node never
//! passes for a leaf. No node is ever paired with itself, and the root commits to the leaf count,
//! so no two lists share a root (compare CVE-2012-2459).

use crate::codec::{Decode, Encode};
use crate::hash::{Domain, Hash};

/// A proof that does not show what it should show. Its sender is always at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no such leaf.
    #[error("leaf {index} does not exist among {count} leaves")]
    Index {
        /// Leaf claimed, from 0.
        index: u64,
        /// Leaves claimed.
        count: u64,
    },
    /// The proof has too few or too many hashes for the place of the leaf.
    #[error("{got} hashes do not make a path from leaf {index} of {count}")]
    Length {
        /// Leaf claimed, from 0.
        index: u64,
        /// Leaves claimed.
        count: u64,
        /// Hashes given.
        got: usize,
    },
    /// The path ends at another root: the leaf, its place, the count or a hash on the way is wrong.
    #[error("the path leads to root {got}, expected {expected}")]
    Root {
        /// Root given by the verifier.
        expected: Hash,
        /// Root at which the path ends.
        got: Hash,
    },
}

/// Root over a list of hashes; a constant for the empty list.
///
/// Each item is itself a hash, made under a domain that the tree does not use. The cost is two hash
/// operations for each leaf.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    let mut level: Vec<Hash> = leaves.iter().map(leaf_node).collect();
    while level.len() > 1 {
        level = parents(&level);
    }
    root_node(leaves.len() as u64, level.first())
}

/// Proof that `leaves[index]` is at its place under `root(leaves)`; `None` if there is no such
/// leaf.
///
/// It costs about as many hash operations as [`root`]. A [`MerkleTree`] proves many leaves.
#[must_use]
pub fn prove(leaves: &[Hash], index: usize) -> Option<MerkleProof> {
    leaves.get(index)?;
    MerkleTree::new(leaves).prove(index)
}

/// All nodes of a tree, so that proofs of many leaves cost no hash operation. Takes about 64 bytes
/// of memory for each leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleTree {
    /// The nodes of each level, from the leaves up to the one top node. The empty tree has one
    /// empty level.
    levels: Vec<Vec<Hash>>,
}

impl MerkleTree {
    /// The tree over a list of hashes.
    #[must_use]
    pub fn new(leaves: &[Hash]) -> Self {
        let mut level: Vec<Hash> = leaves.iter().map(leaf_node).collect();
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = parents(&level);
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self { levels }
    }

    /// Number of leaves.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.levels.first().map_or(0, Vec::len) as u64
    }

    /// The root, as by [`root`].
    #[must_use]
    pub fn root(&self) -> Hash {
        root_node(self.count(), self.levels.last().and_then(|top| top.first()))
    }

    /// Proof of a leaf, as by [`prove`]; `None` if there is no such leaf.
    #[must_use]
    pub fn prove(&self, index: usize) -> Option<MerkleProof> {
        self.levels.first()?.get(index)?;
        let mut at = index;
        let mut siblings = Vec::new();
        for level in &self.levels {
            siblings.extend(level.get(at ^ 1));
            at >>= 1;
        }
        Some(MerkleProof { index: index as u64, count: self.count(), siblings })
    }
}

/// Proves that a hash has a certain index in a list whose root is known.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MerkleProof {
    /// Index of the leaf, from 0.
    pub index: u64,
    /// Number of leaves in the list.
    pub count: u64,
    /// The siblings on the way from the leaf to the top, lowest first; at most 64.
    pub siblings: Vec<Hash>,
}

impl MerkleProof {
    /// Verifies that `leaf` is item `index` of exactly `count` items under `root`.
    ///
    /// # Errors
    /// `ProofError`. A valid proof has exactly one form: no hash may be missing or left over.
    pub fn verify(&self, root: Hash, leaf: Hash) -> Result<(), ProofError> {
        let Self { index, count, siblings } = self;
        let (index, count) = (*index, *count);
        if index >= count {
            return Err(ProofError::Index { index, count });
        }
        let length = ProofError::Length { index, count, got: siblings.len() };

        let mut siblings = siblings.iter();
        let mut node = leaf_node(&leaf);
        let (mut at, mut width) = (index, count);
        while width > 1 {
            // An odd last node has no sibling and moves up as it is.
            if at ^ 1 < width {
                let Some(sibling) = siblings.next() else { return Err(length) };
                node = if at & 1 == 0 {
                    inner_node(&node, sibling)
                } else {
                    inner_node(sibling, &node)
                };
            }
            at >>= 1;
            width = width.div_ceil(2);
        }
        if siblings.next().is_some() {
            return Err(length);
        }

        let got = root_node(count, Some(&node));
        if got == root { Ok(()) } else { Err(ProofError::Root { expected: root, got }) }
    }
}

fn parents(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .map(|pair| if let [left, right] = pair { inner_node(left, right) } else { pair[0] })
        .collect()
}

fn leaf_node(item: &Hash) -> Hash {
    Hash::of(Domain::MerkleLeaf, &[item.as_bytes()])
}

fn inner_node(left: &Hash, right: &Hash) -> Hash {
    Hash::of(Domain::MerkleInner, &[left.as_bytes(), right.as_bytes()])
}

/// The count determines whether a top node follows, so the parts need no separator.
fn root_node(count: u64, top: Option<&Hash>) -> Hash {
    let top: &[u8] = top.map_or(&[], |top| top.as_bytes());
    Hash::of(Domain::MerkleRoot, &[&count.to_le_bytes(), top])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    const COUNT_MAX: usize = 70;

    fn items(count: usize) -> Vec<Hash> {
        (0..count as u64).map(|i| Hash::of(Domain::Chunk, &[&i.to_le_bytes()])).collect()
    }

    /// The recursive definition of RFC 6962.
    fn top_by_split(items: &[Hash]) -> Hash {
        match items {
            [item] => leaf_node(item),
            _ => {
                let split = items.len().next_power_of_two() / 2;
                inner_node(&top_by_split(&items[..split]), &top_by_split(&items[split..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_recursive_split() {
        for count in 1..=COUNT_MAX {
            let items = items(count);
            assert_eq!(
                root(&items),
                root_node(count as u64, Some(&top_by_split(&items))),
                "{count}"
            );
        }
    }

    #[test]
    fn every_leaf_is_proved_and_no_changed_proof_holds() {
        for count in 1..=COUNT_MAX {
            let items = items(count);
            let root = root(&items);
            let tree = MerkleTree::new(&items);
            assert_eq!((tree.root(), tree.count()), (root, count as u64));
            for (index, item) in items.iter().enumerate() {
                let proof = prove(&items, index).unwrap();
                assert_eq!(tree.prove(index).as_ref(), Some(&proof), "{index} of {count}");
                assert_eq!(proof.verify(root, *item), Ok(()), "{index} of {count}");

                let refuse = |what: &str, proof: &MerkleProof, root, leaf| {
                    assert!(proof.verify(root, leaf).is_err(), "{what}: {index} of {count}");
                };
                refuse("root", &proof, Hash::ZERO, *item);
                refuse("leaf", &proof, root, Hash::ZERO);
                refuse("leaf node for leaf", &proof, root, leaf_node(item));
                for other in (0..COUNT_MAX as u64 + 2).chain([u64::MAX]) {
                    if other != proof.index {
                        refuse(
                            "index",
                            &MerkleProof { index: other, ..proof.clone() },
                            root,
                            *item,
                        );
                    }
                    if other != proof.count {
                        refuse(
                            "count",
                            &MerkleProof { count: other, ..proof.clone() },
                            root,
                            *item,
                        );
                    }
                }
                for at in 0..proof.siblings.len() {
                    let mut changed = proof.clone();
                    changed.siblings[at].0[31] ^= 1;
                    refuse("sibling", &changed, root, *item);
                    changed.siblings.remove(at);
                    refuse("missing sibling", &changed, root, *item);
                }
                let mut longer = proof.clone();
                longer.siblings.push(Hash::ZERO);
                refuse("extra sibling", &longer, root, *item);
            }
            assert_eq!((prove(&items, count), tree.prove(count)), (None, None));
        }
        let empty = MerkleTree::new(&[]);
        assert_eq!((empty.root(), empty.count(), empty.prove(0)), (root(&[]), 0, None));
    }

    #[test]
    fn no_two_lists_share_a_root() {
        let all = items(4);
        let (a, b, c) = (all[0], all[1], all[2]);
        let ab = inner_node(&leaf_node(&a), &leaf_node(&b));
        let lists: [&[Hash]; 10] = [
            &[],
            &[Hash::ZERO],
            &[a],
            &[a, a],
            &[a, b],
            &[b, a],
            &[a, b, c],
            &[a, b, c, c], // CVE-2012-2459: duplicated odd leaf
            &[ab],         // second preimage: inner node as leaf
            &[ab, c],
        ];
        for (i, list) in lists.iter().enumerate() {
            for other in &lists[..i] {
                assert_ne!(root(list), root(other), "{list:?} and {other:?}");
            }
        }
    }

    #[test]
    fn absurd_proofs_are_refused_without_work() {
        let proof = |index, count, siblings| MerkleProof {
            index,
            count,
            siblings: vec![Hash::ZERO; siblings],
        };
        let verdict = |proof: &MerkleProof| proof.verify(Hash::ZERO, Hash::ZERO).unwrap_err();
        for (index, count) in [(0, 0), (1, 1), (u64::MAX, u64::MAX)] {
            assert_eq!(verdict(&proof(index, count, 0)), ProofError::Index { index, count });
        }
        for (index, count, fitting) in
            [(0, 1, 0), (0, u64::MAX, 64), (u64::MAX - 1, u64::MAX, 63), (1 << 63, 1 << 63 | 1, 1)]
        {
            assert!(
                matches!(verdict(&proof(index, count, fitting)), ProofError::Root { .. }),
                "{index} of {count}"
            );
            for got in [fitting + 1, fitting.wrapping_sub(1).min(100_000)] {
                assert_eq!(
                    verdict(&proof(index, count, got)),
                    ProofError::Length { index, count, got }
                );
            }
        }
    }

    /// If one of these roots changes, the protocol has changed.
    #[test]
    fn frozen_roots() {
        let frozen = [
            (0, "3d6a6f171129d1592ab43454e37be8f058be5b74803a1c815669546944192154"),
            (1, "e3f4e04212e438e9a5689340b7c9ee18a74437e620ee45394de37dde411a7ad9"),
            (2, "b3533d29e4a9b7693a4dd96e18427c80485ddf89442ad9dcf3eb2d253194514a"),
            (3, "751cf73fcae3cd0a9ff4b09556287f6539e70f11200710f62528179186ed17d4"),
            (7, "c3db1f1b2aefeb4237932a03929b2060fcc8a61d092c8c6d6918445b4ef68368"),
        ];
        for (count, text) in frozen {
            assert_eq!(root(&items(count)).to_string(), text, "{count}");
        }
    }
}
