//! What nodes announce in the index, and the key under which its records are stored.

use bincode::{Decode, Encode};
use ledger::codec;
use ledger::hash::{ChainId, Domain, Hash};

use crate::eras::Era;

/// Most groups of eras of a chain. A node that keeps all eras renews at most this many records, so
/// renewal costs no more on a longer chain.
pub const GROUPS_MAX: u64 = 256;

/// A holder announces its eras for all lengths of the chain that differ from its own by less than
/// one part in this number. Of 256 eras that are 16: more than an hour of full blocks of 1 MiB a
/// second in segments of 16 MiB, and a record lives for an hour. A larger part would bring more
/// records than a holder may have.
const LENGTHS_PART: u64 = 16;

/// A group of eras: the `2^exponent` eras from `number * 2^exponent` on. Nodes announce groups, not
/// single eras.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct EraGroup {
    /// Binary logarithm of the number of eras.
    pub exponent: u32,
    /// Number of the group among those of its size, from 0.
    pub number: u64,
}

impl EraGroup {
    /// The group of an era in a chain with this many eras. Groups are as small as possible, such
    /// that the chain has at most [`GROUPS_MAX`] of them.
    #[must_use]
    pub fn of(era: Era, eras: u64) -> Self {
        /// Leading zero bits of the largest number of a group.
        const SPARE: u32 = (GROUPS_MAX - 1).leading_zeros();
        let exponent = SPARE.saturating_sub(eras.saturating_sub(1).leading_zeros());
        Self { exponent, number: era.0.checked_shr(exponent).unwrap_or(0) }
    }

    /// The groups under which the holder of an era announces it. Whoever searches uses the exponent
    /// of the chain as it knows it. So near a change of the exponent a holder announces both, for
    /// chains that are shorter or longer by a sixteenth. The old records stand until the new ones
    /// are stored and searchers behind the tip have come, and the new ones stand before anybody
    /// needs them.
    #[must_use]
    pub fn announced(era: Era, eras: u64) -> [Self; 2] {
        let part = eras / LENGTHS_PART;
        let shorter = eras.saturating_sub(part);
        [Self::of(era, shorter), Self::of(era, eras.saturating_add(part))]
    }
}

/// What a node may have and announce in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Object {
    /// At least one era of a group.
    Eras(EraGroup),
    /// A file, by its id.
    File(Hash),
}

impl Object {
    /// Its key in the index of this chain.
    #[must_use]
    pub fn key(self, chain: ChainId) -> Key {
        let object = codec::encode(&self);
        Key(Hash::of(Domain::Provide, &[chain.as_bytes(), &object]))
    }
}

/// A key of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Hash);

impl Key {
    /// The key with these bytes. `None` unless there are 32 of them.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Hash(bytes)))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_chain_has_at_most_256_groups_and_as_small_ones_as_possible() {
        // eras of the chain, exponent
        for (eras, exponent) in [
            (0, 0),
            (1, 0),
            (256, 0),
            (257, 1),
            (512, 1),
            (513, 2),
            (1 << 20, 12),
            ((1 << 20) + 1, 13),
            (u64::MAX, 56),
        ] {
            let last = EraGroup::of(Era(eras.saturating_sub(1)), eras);
            assert_eq!(last.exponent, exponent, "{eras} eras");
            assert!(last.number < GROUPS_MAX, "{eras} eras: {last:?}");
        }
        let groups: BTreeSet<EraGroup> = (0..700).map(|era| EraGroup::of(Era(era), 700)).collect();
        assert_eq!(groups.len(), 175);
        assert_eq!(EraGroup::of(Era(7), 700), EraGroup { exponent: 2, number: 1 });
    }

    /// The exponent changes after each of these lengths.
    #[test]
    fn at_a_change_of_the_exponent_an_era_is_found_by_both() {
        for change in [256, 512, 1 << 12] {
            let near = change / 20;
            for eras in [change - near, change, change + 1, change + near] {
                let all = (0..eras).flat_map(|era| EraGroup::announced(Era(era), eras));
                let all: BTreeSet<EraGroup> = all.collect();
                // A holder may have twice as many records as a chain has groups.
                let records = all.len() as u64;
                assert!(records <= 2 * GROUPS_MAX, "{eras} eras: {records} records");
                for seen in [change - near, change, change + 1, change + near] {
                    let lost = (0..seen.min(eras))
                        .find(|era| !all.contains(&EraGroup::of(Era(*era), seen)));
                    assert_eq!(lost, None, "a chain of {eras} eras, {seen} known");
                }
            }
        }
        let [one, other] = EraGroup::announced(Era(7), 200);
        assert!(one == other && one == EraGroup::of(Era(7), 200), "far from a change");
    }

    #[test]
    fn a_key_belongs_to_one_object_of_one_chain() {
        let chain = ChainId(Hash([7; 32]));
        let group = |exponent, number| Object::Eras(EraGroup { exponent, number });
        let objects = [
            group(0, 0),
            group(0, 1),
            group(1, 0),
            Object::File(Hash::ZERO),
            Object::File(Hash([1; 32])),
        ];
        let keys: BTreeSet<Key> = objects.iter().map(|object| object.key(chain)).collect();
        assert_eq!(keys.len(), objects.len());
        assert_ne!(group(0, 0).key(chain), group(0, 0).key(ChainId(Hash([8; 32]))));
        let key = group(0, 0).key(chain);
        assert_eq!(Key::parse(key.0.as_bytes()), Some(key));
        assert_eq!(Key::parse(&[1; 31]), None);
    }

    /// SHA-256 as another program computes it over the bytes that `docs/protocol/network.md` names.
    #[test]
    fn keys_are_frozen() {
        let key = |object: Object| object.key(ChainId(Hash([7; 32]))).0.to_string();
        assert_eq!(
            key(Object::Eras(EraGroup { exponent: 2, number: 5 })),
            "0530d587f1f02210c40b5740f29b7113d871c9df7f3e3c1a942f1b9bedbdc215"
        );
        assert_eq!(
            key(Object::File(Hash([9; 32]))),
            "cddcedb65d016d67a43b1c6516fb36079bdf46e3b2ef8c7ff6107970efeecd2f"
        );
    }
}
