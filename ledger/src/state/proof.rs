//! Proofs of the content of a state, verified against its root alone.
//!
//! A proof lists the tree in pre-order, down to the leaves that meet a range of paths. A subtree
//! outside the range is given by its hash alone. So for one root and range exactly one list of
//! nodes verifies. It shows every entry in the range, so a key of the range that it does not show
//! has no account. The proof of an account is the proof of the range that consists of the account's
//! path alone.

use super::account::{Account, Entry, StateKey};
use super::page_id::{PATH_BITS, PageId};
use super::tree::{LEAF_ENTRIES_MAX, Node, inner_hash, leaf_hash};
use crate::codec::{Decode, Encode};
use crate::hash::{Hash, StateRoot};

/// A proof that does not show what it should show. Its sender is always at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The list ends before the tree does.
    #[error("the proof ends before the tree does")]
    Incomplete,
    /// Nodes follow the end of the tree.
    #[error("{extra} nodes after the end of the tree")]
    Trailing {
        /// Nodes left over.
        extra: usize,
    },
    /// An inner node is deeper than the last bit of a path.
    #[error("the tree is deeper than a path has bits")]
    TooDeep,
    /// A subtree that meets the range is given as a hash.
    #[error("the subtree at depth {depth} is hidden, expected to see it: it meets the range")]
    Hidden {
        /// Depth of the subtree.
        depth: u16,
    },
    /// A subtree outside the range is given in full.
    #[error("the subtree at depth {depth} is shown, expected its hash: it is beside the range")]
    Beside {
        /// Depth of the subtree.
        depth: u16,
    },
    /// A leaf has more entries than the tree allows.
    #[error("a leaf of {got} entries, expected at most {LEAF_ENTRIES_MAX}")]
    LeafTooLong {
        /// Entries of the leaf.
        got: usize,
    },
    /// The path of an entry does not begin with the bits of its leaf's place.
    #[error(
        "the leaf at depth {depth} has an entry with path {path}, which does not lead to this leaf"
    )]
    Misplaced {
        /// Path of the entry.
        path: Hash,
        /// Depth of the leaf.
        depth: u16,
    },
    /// The paths of a leaf's entries do not strictly increase.
    #[error("the entries of the leaf at depth {depth} are not sorted by path")]
    Unsorted {
        /// Depth of the leaf.
        depth: u16,
    },
    /// The proof is for another state.
    #[error("the proof gives the root {got}, expected {expected}")]
    OtherRoot {
        /// Root computed from the nodes.
        got: StateRoot,
        /// Root given by the verifier.
        expected: StateRoot,
    },
}

/// A node in the list of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Shown {
    /// The hash of a subtree outside the range.
    Hidden(Hash),
    /// The entries of a leaf.
    Leaf(Vec<Entry>),
    /// An inner node. Its two children follow, the child for bit 0 first.
    Inner,
}

/// Proves all entries in a range of paths. A proof takes about 80 bytes for each entry, and at each
/// end of the range about as much as an `AccountProof`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RangeProof {
    nodes: Vec<Shown>,
}

impl RangeProof {
    /// The proof for the range from `first` to `last`, both included.
    pub(super) fn new(root: &Node, first: &Hash, last: &Hash) -> Self {
        let mut nodes = Vec::new();
        show(&mut nodes, root, PageId::ROOT, first, last);
        Self { nodes }
    }

    /// Verifies the proof. Returns all entries of the state with this root from path `first` to
    /// path `last`, both included, in path order. There are none if `first` is above `last`.
    ///
    /// # Errors
    /// `ProofError`, unless this is the one proof that the state gives for this range.
    pub fn verify(
        &self,
        root: &StateRoot,
        first: &Hash,
        last: &Hash,
    ) -> Result<Vec<Entry>, ProofError> {
        let mut reader = Reader { nodes: self.nodes.iter(), first, last, held: Vec::new() };
        let got = StateRoot(reader.subtree(PageId::ROOT)?);
        match reader.nodes.len() {
            0 if got == *root => Ok(reader.held),
            0 => Err(ProofError::OtherRoot { got, expected: *root }),
            extra => Err(ProofError::Trailing { extra }),
        }
    }
}

fn show(nodes: &mut Vec<Shown>, node: &Node, at: PageId, first: &Hash, last: &Hash) {
    match node {
        _ if !at.meets(first, last) => nodes.push(Shown::Hidden(node.hash())),
        Node::Leaf { entries, .. } => nodes.push(Shown::Leaf(entries.clone())),
        Node::Inner { children, .. } => {
            nodes.push(Shown::Inner);
            for (child, at) in children.iter().zip(at.children()) {
                show(nodes, child, at, first, last);
            }
        }
    }
}

/// Reads the nodes of a proof, one subtree after the other.
struct Reader<'a> {
    nodes: std::slice::Iter<'a, Shown>,
    first: &'a Hash,
    last: &'a Hash,
    held: Vec<Entry>,
}

impl Reader<'_> {
    /// Takes one subtree off the list, keeps its entries in the range, and returns its hash.
    /// Recurses at most `PATH_BITS` deep.
    fn subtree(&mut self, at: PageId) -> Result<Hash, ProofError> {
        let depth = at.depth;
        match (self.nodes.next().ok_or(ProofError::Incomplete)?, at.meets(self.first, self.last)) {
            (Shown::Hidden(hash), false) => Ok(*hash),
            (Shown::Hidden(_), true) => Err(ProofError::Hidden { depth }),
            (_, false) => Err(ProofError::Beside { depth }),
            (Shown::Inner, true) if depth >= PATH_BITS => Err(ProofError::TooDeep),
            (Shown::Inner, true) => {
                let [left, right] = at.children();
                Ok(inner_hash(&self.subtree(left)?, &self.subtree(right)?))
            }
            (Shown::Leaf(entries), true) => self.leaf(entries, at),
        }
    }

    fn leaf(&mut self, entries: &[Entry], at: PageId) -> Result<Hash, ProofError> {
        let depth = at.depth;
        if entries.len() > LEAF_ENTRIES_MAX {
            return Err(ProofError::LeafTooLong { got: entries.len() });
        }
        let mut previous = None;
        for entry in entries {
            let path = entry.0.path();
            if !at.meets(&path, &path) {
                return Err(ProofError::Misplaced { path, depth });
            }
            if previous >= Some(path) {
                return Err(ProofError::Unsorted { depth });
            }
            previous = Some(path);
            if (self.first..=self.last).contains(&&path) {
                self.held.push(*entry);
            }
        }
        Ok(leaf_hash(entries))
    }
}

/// Proves the account of a key, or that there is none.
///
/// With a million accounts a proof has at most 2,048 bytes: 668 for the list and a full leaf, and
/// 40 for each of the inner nodes above the leaf, of which there are at most 34. A leaf deeper than
/// 34 would need nine paths whose first 34 bits are equal. Among n random paths the probability of
/// this is below n^9 / 9! / 2^272, which is below 10^-33 for a million. An attacker who deepens the
/// leaf of one account pays for eight new accounts, and has to do twice the work for each further
/// level. `BYTES_MAX` is enough even then.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AccountProof(RangeProof);

impl AccountProof {
    /// Most bytes of a proof that verifies: a full leaf below 256 inner nodes.
    pub const BYTES_MAX: usize = 8 + 256 * 40 + 12 + LEAF_ENTRIES_MAX * 81;

    /// The proof for one key.
    pub(super) fn new(root: &Node, key: &StateKey) -> Self {
        let path = key.path();
        Self(RangeProof::new(root, &path, &path))
    }

    /// Verifies the proof. Returns the account of the key in the state with this root; `None` if
    /// there is no such account.
    ///
    /// # Errors
    /// `ProofError`, unless this is the canonical proof for this key in that state.
    pub fn verify(&self, root: &StateRoot, key: &StateKey) -> Result<Option<Account>, ProofError> {
        let path = key.path();
        let held = self.0.verify(root, &path, &path)?;
        Ok(held.first().map(|(_, account)| *account))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{decode, encode};
    use crate::hash::Domain;
    use crate::state::State;
    use crate::state::tests::{KEYS, account, entries, key, model};

    const ALL: (Hash, Hash) = (Hash::ZERO, Hash([0xff; 32]));

    /// The root of a list of nodes, computed without checks, as a hostile prover would want it.
    fn root_of(nodes: &[Shown]) -> StateRoot {
        fn fold(nodes: &mut std::slice::Iter<'_, Shown>) -> Hash {
            match nodes.next().unwrap() {
                Shown::Hidden(hash) => *hash,
                Shown::Leaf(entries) => leaf_hash(entries),
                Shown::Inner => {
                    let left = fold(nodes);
                    inner_hash(&left, &fold(nodes))
                }
            }
        }
        StateRoot(fold(&mut nodes.iter()))
    }

    fn sorted(keys: impl IntoIterator<Item = u64>) -> Vec<Entry> {
        State::from_entries(entries(keys)).iter().copied().collect()
    }

    /// Each list is verified under the root that it gives itself. So a wrong list fails for its own
    /// defect, not for its root.
    #[test]
    fn a_wrong_list_is_refused_even_under_its_own_root() {
        let leaf = |keys: &[Entry]| Shown::Leaf(keys.to_vec());
        let hidden = Shown::Hidden(Hash([3; 32]));
        let all = sorted(0..30);
        let half = all.partition_point(|(key, _)| key.path() < PageId::ROOT.children()[1].prefix);
        let (left, right) = all.split_at(half);
        let swapped = [left[1], left[0]];
        let repeated = [left[0], left[0]];
        let lowest = (Hash::ZERO, Hash::ZERO);
        let deep = vec![Shown::Inner; 257].into_iter().chain(vec![leaf(&[]); 258]).collect();

        for (nodes, (first, last), expected) in [
            (vec![leaf(&left[..8])], ALL, Ok(left[..8].to_vec())),
            (vec![leaf(&all[..9])], ALL, Err(ProofError::LeafTooLong { got: 9 })),
            (vec![leaf(&swapped)], ALL, Err(ProofError::Unsorted { depth: 0 })),
            (vec![leaf(&repeated)], ALL, Err(ProofError::Unsorted { depth: 0 })),
            (
                vec![Shown::Inner, leaf(&left[..1]), leaf(&right[..1])],
                ALL,
                Ok(vec![left[0], right[0]]),
            ),
            (
                vec![Shown::Inner, leaf(&right[..1]), leaf(&[])],
                ALL,
                Err(ProofError::Misplaced { path: right[0].0.path(), depth: 1 }),
            ),
            (
                vec![Shown::Inner, leaf(&[]), leaf(&left[..1])],
                ALL,
                Err(ProofError::Misplaced { path: left[0].0.path(), depth: 1 }),
            ),
            (vec![Shown::Inner, leaf(&[]), hidden.clone()], lowest, Ok(vec![])),
            (vec![hidden.clone()], lowest, Err(ProofError::Hidden { depth: 0 })),
            (
                vec![Shown::Inner, hidden.clone(), leaf(&[])],
                ALL,
                Err(ProofError::Hidden { depth: 1 }),
            ),
            (
                vec![Shown::Inner, leaf(&[]), leaf(&[])],
                lowest,
                Err(ProofError::Beside { depth: 1 }),
            ),
            (
                vec![Shown::Inner, leaf(&[]), Shown::Inner, hidden.clone(), hidden],
                lowest,
                Err(ProofError::Beside { depth: 1 }),
            ),
            (vec![leaf(&[]), leaf(&[])], ALL, Err(ProofError::Trailing { extra: 1 })),
            (deep, ALL, Err(ProofError::TooDeep)),
        ] {
            let root = root_of(&nodes);
            assert_eq!(RangeProof { nodes }.verify(&root, &first, &last), expected);
        }
        assert_eq!(
            RangeProof { nodes: vec![] }.verify(&StateRoot(ALL.0), &ALL.0, &ALL.1),
            Err(ProofError::Incomplete)
        );
        let endless = RangeProof { nodes: vec![Shown::Inner; 1_000_000] };
        assert_eq!(endless.verify(&StateRoot(ALL.0), &ALL.0, &ALL.1), Err(ProofError::TooDeep));
    }

    /// An inner node and a leaf of the same bytes have different hashes.
    #[test]
    fn no_leaf_is_an_inner_node() {
        let entries = sorted(0..3);
        let bytes = encode(&entries);
        assert_eq!(leaf_hash(&entries), Hash::of(Domain::StatePage, &[&bytes]));
        let halves: [Hash; 2] = [Hash([1; 32]), Hash([2; 32])];
        assert_eq!(
            inner_hash(&halves[0], &halves[1]),
            Hash::of(Domain::StateInner, &[&[1; 32], &[2; 32]])
        );
        assert_ne!(inner_hash(&halves[0], &halves[1]), inner_hash(&halves[1], &halves[0]));
    }

    /// The deepest leaf, at depth 256. Its proof verifies, and `BYTES_MAX` admits it.
    #[test]
    fn a_path_is_followed_to_its_last_bit() {
        let path = key(5).path();
        let mut nodes = vec![Shown::Leaf(vec![(key(5), account(5))])];
        for depth in (0..PATH_BITS).rev() {
            let beside = Shown::Hidden(Hash([9; 32]));
            if crate::state::page_id::bit(&path, depth) {
                nodes.insert(0, beside);
            } else {
                nodes.push(beside);
            }
            nodes.insert(0, Shown::Inner);
        }
        let root = root_of(&nodes);
        let proof = AccountProof(RangeProof { nodes });
        assert_eq!(proof.verify(&root, &key(5)), Ok(Some(account(5))));
        assert_eq!(encode(&proof).len(), AccountProof::BYTES_MAX - 7 * 81);
        assert_eq!(decode(&encode(&proof), AccountProof::BYTES_MAX), Ok(proof));
    }

    /// Exactly one encoding passes for a root and key: no byte can differ, and no node can be
    /// missing, repeated or moved.
    #[test]
    fn a_changed_proof_shows_nothing() {
        let state = State::from_entries(entries(0..100));
        for asked in [key(42), key(1_000)] {
            let proof = state.prove(&asked);
            let verify = |nodes: Vec<Shown>| {
                AccountProof(RangeProof { nodes }).verify(&state.root(), &asked)
            };
            let nodes = || proof.0.nodes.clone();
            assert_eq!(verify(nodes()), Ok(state.get(&asked).copied()));

            for i in 0..nodes().len() {
                let (mut without, mut twice) = (nodes(), nodes());
                without.remove(i);
                twice.insert(i, twice[i].clone());
                assert!(verify(without).is_err(), "node {i} removed");
                assert!(verify(twice).is_err(), "node {i} repeated");
                for other in (0..i).filter(|other| nodes()[i] != nodes()[*other]) {
                    let mut swapped = nodes();
                    swapped.swap(i, other);
                    assert!(verify(swapped).is_err(), "nodes {i} and {other} swapped");
                }
            }
            let bytes = encode(&proof);
            for (i, bit) in (0..bytes.len()).flat_map(|i| (0..8).map(move |bit| (i, bit))) {
                let mut changed = bytes.clone();
                changed[i] ^= 1 << bit;
                let shown = decode::<AccountProof>(&changed, bytes.len())
                    .map(|proof| proof.verify(&state.root(), &asked));
                assert!(!matches!(shown, Ok(Ok(_))), "bit {bit} of byte {i}");
            }
        }
    }

    #[test]
    fn proofs_are_short() {
        let state = State::from_entries(entries(0..20_000));
        let bytes_max = (0..40_000).map(|i| encode(&state.prove(&key(i))).len()).max().unwrap();
        // A leaf at depth 19 would need nine paths whose first 18 bits are equal. The probability
        // of this is at most 20,000^9 / 9! / 2^144, which is below 10^-10.
        assert!((668..=668 + 18 * 40).contains(&bytes_max), "{bytes_max}");
    }

    proptest! {
        /// The proof of every key shows what the map holds, under this root and no other.
        #[test]
        fn each_key_is_proved_present_or_absent(
            chosen in prop::collection::btree_map(0..KEYS.len(), 0u64..9, 0..200),
            asked in 0..KEYS.len(),
        ) {
            let model = model(&chosen);
            let state = State::default().with(&model);
            let proof = state.prove(&KEYS[asked]);
            let expected = model.get(&KEYS[asked]).copied();
            prop_assert_eq!(proof.verify(&state.root(), &KEYS[asked]), Ok(expected));
            let other = state.with(&[(KEYS[asked], account(77))].into());
            prop_assert!(proof.verify(&other.root(), &KEYS[asked]).is_err());
        }

        /// The proof of a range shows exactly that range. If it is verified for another range, it
        /// either shows exactly that other range or fails.
        #[test]
        fn ranges_are_shown_whole(
            chosen in prop::collection::btree_map(0..KEYS.len(), 0u64..9, 0..200),
            [a, b, c, d] in prop::array::uniform4((0..KEYS.len(), -1i8..=1)),
        ) {
            let model = model(&chosen);
            let state = State::default().with(&model);
            // The path of a key, or the path just before or after it.
            let path = |(i, step): (usize, i8)| {
                let mut path = KEYS[i].path();
                path.0[31] = path.0[31].saturating_add_signed(step);
                path
            };
            let within = |first: &Hash, last: &Hash| -> Vec<Entry> {
                let inside = state.iter().filter(|(key, _)| (first..=last).contains(&&key.path()));
                inside.copied().collect()
            };
            let (first, last) = (path(a), path(b));
            let bytes = encode(&state.prove_range(&first, &last));
            let proof: RangeProof = decode(&bytes, bytes.len()).unwrap();
            prop_assert_eq!(proof.verify(&state.root(), &first, &last), Ok(within(&first, &last)));
            if let Ok(shown) = proof.verify(&state.root(), &path(c), &path(d)) {
                prop_assert_eq!(shown, within(&path(c), &path(d)));
            }
            let whole = state.prove_range(&ALL.0, &ALL.1).verify(&state.root(), &ALL.0, &ALL.1);
            prop_assert_eq!(whole, Ok(state.iter().copied().collect::<Vec<_>>()));
        }
    }
}
