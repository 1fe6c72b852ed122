//! Which value is stored under which key, and how. Any change of this needs a new `SCHEMA_VERSION`.
//!
//! There is one tree. A key is a tag byte, then hashes and big-endian numbers. So keys of one kind
//! lie together, in the order of their numbers. A value is a checksum over key and content, then
//! the content. Data that may be long is stored as a *record*: it is cut into pieces, and each
//! piece is a value. The first piece begins with the length of the record.

use std::fmt;

use crate::codec::{self, Decode, Encode};
use crate::hash::{BlockHash, ChainId, Domain, Hash};
use crate::state::PageId;
use crate::store::StoreError;
use crate::units::Height;

/// Version of keys and values.
pub(super) const SCHEMA_VERSION: u32 = 4;
/// Most bytes of a value, checksum included. While sled merges leaves of its tree, a leaf has up to
/// 20 values. A leaf above 128 KiB would become a file of its own, which sled never syncs.
pub(super) const VALUE_BYTES_MAX: usize = 6 << 10;
pub(super) const CHECKSUM_BYTES: usize = 8;
const LENGTH_BYTES: usize = 8;
/// Most bytes of a record in one piece.
pub(super) const PIECE_BYTES: usize = VALUE_BYTES_MAX - CHECKSUM_BYTES - LENGTH_BYTES;

/// Key of a value. A `u32` is the number of a piece, from 0. The comment of each variant says what
/// the value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// `Meta`: the schema version and the chain id.
    Meta,
    /// Record: the canonical genesis.
    Genesis(u32),
    /// `TipValue`; missing before the first block.
    Tip,
    /// Record: the certificate of the tip. The certificate of each other block is in its child.
    TipCertificate(u32),
    /// The last bytes of the open segment, which do not fill a page of its file yet.
    Tail,
    /// Which segments of an era are sealed and not kept, as a `u16` with a bit for each of them.
    /// The lowest bit is the first segment. Missing if all are kept.
    Gap(u64),
    /// `SegmentDescriptor` of a sealed segment.
    Segment(u64),
    /// `Marker` of the newest complete checkpoint; missing before the first one.
    Marker,
    /// Entries of a page of the state, in one of the two slots.
    Page(Slot, PageId),
    /// Record: header and certificate of the last block of a sealed segment that is, or was, not
    /// kept.
    End(u64, u32),
    /// `Joined`; missing if this node executed every block from the genesis on.
    Joined,
    /// Record: a piece of evidence (whom it is about, name, content), under the hash of its name.
    Evidence(Hash, u32),
}

/// One of the two places for checkpoints. While one is written, the other holds a whole checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) enum Slot {
    A,
    B,
}

impl Slot {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// Which schema and chain a store has.
#[derive(Debug, Encode, Decode)]
pub(super) struct Meta {
    /// It is the first field in every schema version, so that every version of the program can read
    /// it.
    pub(super) schema: u32,
    pub(super) chain: ChainId,
}

/// The last block, and where history ends after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct TipValue {
    pub(super) height: Height,
    pub(super) hash: BlockHash,
    /// Number of sealed segments, which is also the index of the open one.
    pub(super) segments: u64,
    /// Bytes of the blocks in the open segment.
    pub(super) bytes: u64,
}

impl fmt::Display for TipValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "block {} at height {} with {} sealed segments and {} bytes after them",
            self.hash, self.height, self.segments, self.bytes
        )
    }
}

/// The newest complete checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Marker {
    pub(super) slot: Slot,
    pub(super) height: Height,
    pub(super) hash: BlockHash,
}

/// The snapshot that a store began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Joined {
    /// Height of the snapshot's block.
    pub(super) height: Height,
    /// Of the blocks up to the snapshot, this node has executed those up to this height.
    pub(super) executed: Height,
}

/// Prefixes of keys, for scans.
pub(super) mod prefix {
    use super::Slot;

    pub(in crate::store) const GAPS: [u8; 1] = [6];
    pub(in crate::store) const EVIDENCE: [u8; 1] = [12];

    pub(in crate::store) const fn pages(slot: Slot) -> [u8; 2] {
        [9, slot.byte()]
    }
}

impl Key {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (tag, parts): (u8, [&[u8]; 2]) = match self {
            Self::Meta => (1, [&[], &[]]),
            Self::Genesis(piece) => (2, [&piece.to_be_bytes(), &[]]),
            Self::Tip => (3, [&[], &[]]),
            Self::TipCertificate(piece) => (4, [&piece.to_be_bytes(), &[]]),
            Self::Tail => (5, [&[], &[]]),
            Self::Gap(era) => (6, [&era.to_be_bytes(), &[]]),
            Self::Segment(index) => (7, [&index.to_be_bytes(), &[]]),
            Self::Marker => (8, [&[], &[]]),
            Self::Page(slot, page) => {
                let [high, low] = page.depth.to_be_bytes();
                (9, [&[slot.byte(), high, low], page.prefix.as_bytes()])
            }
            Self::End(segment, piece) => (10, [&segment.to_be_bytes(), &piece.to_be_bytes()]),
            Self::Joined => (11, [&[], &[]]),
            Self::Evidence(hash, piece) => (12, [hash.as_bytes(), &piece.to_be_bytes()]),
        };
        [&[tag], parts[0], parts[1]].concat()
    }

    /// The inverse of `bytes`; `None` for a key that this schema does not have.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (tag, mut rest) = bytes.split_first()?;
        let rest = &mut rest;
        let key = match tag {
            1 => Self::Meta,
            2 => Self::Genesis(u32::from_be_bytes(take(rest)?)),
            3 => Self::Tip,
            4 => Self::TipCertificate(u32::from_be_bytes(take(rest)?)),
            5 => Self::Tail,
            6 => Self::Gap(u64::from_be_bytes(take(rest)?)),
            7 => Self::Segment(u64::from_be_bytes(take(rest)?)),
            8 => Self::Marker,
            9 => {
                let slot = match take(rest)? {
                    [0] => Slot::A,
                    [1] => Slot::B,
                    _ => return None,
                };
                Self::Page(
                    slot,
                    PageId { depth: u16::from_be_bytes(take(rest)?), prefix: Hash(take(rest)?) },
                )
            }
            10 => Self::End(u64::from_be_bytes(take(rest)?), u32::from_be_bytes(take(rest)?)),
            11 => Self::Joined,
            12 => Self::Evidence(Hash(take(rest)?), u32::from_be_bytes(take(rest)?)),
            _ => return None,
        };
        rest.is_empty().then_some(key)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => write!(f, "schema version and chain id"),
            Self::Genesis(piece) => write!(f, "genesis, piece {piece}"),
            Self::Tip => write!(f, "tip"),
            Self::TipCertificate(piece) => write!(f, "certificate of the tip, piece {piece}"),
            Self::Tail => write!(f, "end of the open segment"),
            Self::Gap(era) => write!(f, "segments of era {era} that are not kept"),
            Self::Segment(index) => write!(f, "descriptor of segment {index}"),
            Self::Marker => write!(f, "checkpoint marker"),
            Self::End(segment, piece) => {
                write!(f, "header and certificate at the end of segment {segment}, piece {piece}")
            }
            Self::Joined => write!(f, "snapshot that the store began with"),
            Self::Page(slot, page) => {
                write!(
                    f,
                    "checkpoint {slot:?}, state page {:?} at depth {}",
                    page.prefix, page.depth
                )
            }
            Self::Evidence(hash, piece) => write!(f, "evidence {hash:?}, piece {piece}"),
        }
    }
}

/// A value as it is stored: checksum, then content.
pub(super) fn seal(key: &[u8], content: &[u8]) -> Vec<u8> {
    [&checksum(key, content)[..], content].concat()
}

/// The content of a stored value, if the checksum matches.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let named = || {
        Key::parse(key)
            .map_or_else(|| format!("unknown key {}", hex::encode(key)), |key| key.to_string())
    };
    match value.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((sum, content)) if *sum == checksum(key, content) => Ok(content),
        _ => Err(StoreError::corrupt(named(), "checksum does not match")),
    }
}

/// The checksum covers the key, or the name if the value is in a file, so that a value in the wrong
/// place is noticed too. No key or name is the beginning of another one, so different pairs of key
/// and content never hash the same bytes.
pub(super) fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Hash::of(Domain::StoreValue, &[key, content]);
    hash.0.first_chunk().copied().unwrap_or_default()
}

/// Pieces of a record, each with its number.
pub(super) fn pieces(record: &[u8]) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let length = record.len() as u64;
    let rest = record.chunks(PIECE_BYTES).skip(1).map(<[u8]>::to_vec);
    let first = [&length.to_le_bytes(), &record[..record.len().min(PIECE_BYTES)]].concat();
    (0..).zip(std::iter::once(first).chain(rest))
}

/// The length of a record and the first bytes of its content, from its first piece.
pub(super) fn first_piece(key: Key, piece: &[u8]) -> Result<(usize, &[u8]), StoreError> {
    let split = piece.split_first_chunk::<LENGTH_BYTES>();
    let length = split.and_then(|(length, _)| usize::try_from(u64::from_le_bytes(*length)).ok());
    match (length.filter(|length| *length <= codec::VALUE_BYTES_MAX), split) {
        (Some(length), Some((_, rest))) => Ok((length, rest)),
        _ => Err(StoreError::corrupt(key, "no plausible length")),
    }
}

/// Decodes the content of a value.
pub(super) fn decode<T: Decode<()>>(
    what: impl fmt::Display,
    content: &[u8],
) -> Result<T, StoreError> {
    codec::decode(content, codec::VALUE_BYTES_MAX).map_err(|error| StoreError::corrupt(what, error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys() -> Vec<Key> {
        let hash = Hash([7; 32]);
        vec![
            Key::Meta,
            Key::Genesis(1),
            Key::Tip,
            Key::TipCertificate(2),
            Key::Tail,
            Key::Gap(3),
            Key::Segment(258),
            Key::Marker,
            Key::Page(Slot::A, PageId { depth: 3, prefix: hash }),
            Key::Page(Slot::B, PageId { depth: 3, prefix: hash }),
            Key::End(5, 1),
            Key::Joined,
            Key::Evidence(hash, 8),
        ]
    }

    #[test]
    fn keys_are_read_back_sort_by_meaning_and_no_other_bytes_are_keys() {
        let all = keys();
        assert!(all.is_sorted_by(|a, b| a.bytes() < b.bytes()));
        assert!(Key::Segment(255).bytes() < Key::Segment(256).bytes());
        for key in all {
            let bytes = key.bytes();
            assert_eq!(Key::parse(&bytes), Some(key));
            assert_eq!(Key::parse(&bytes[..bytes.len() - 1]), None, "{key}");
            assert_eq!(Key::parse(&[&bytes[..], &[0]].concat()), None, "{key}");
        }
        assert_eq!(Key::parse(&[13]), None);
        for (prefix, key) in [
            (&prefix::GAPS[..], keys()[5]),
            (&prefix::pages(Slot::B), keys()[9]),
            (&prefix::EVIDENCE, keys()[12]),
        ] {
            assert!(key.bytes().starts_with(prefix), "{key}");
        }
    }

    #[test]
    fn a_flipped_bit_and_a_value_under_another_key_are_noticed() {
        let [one, other] = [Key::Genesis(0).bytes(), Key::Genesis(1).bytes()];
        let value = seal(&one, b"content");
        assert_eq!(unseal(&one, &value).unwrap(), b"content");
        assert!(unseal(&other, &value).is_err());
        assert!(unseal(&one, &value[..7]).is_err());
        for at in 0..value.len() {
            let mut flipped = value.clone();
            flipped[at] ^= 1;
            assert!(unseal(&one, &flipped).is_err(), "{at}");
        }
    }

    #[test]
    fn pieces_are_short_and_make_the_record() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let record = vec![5; length];
            let pieces: Vec<_> = pieces(&record).collect();
            assert_eq!(pieces.len(), length.div_ceil(PIECE_BYTES).max(1));
            assert!(
                pieces.iter().all(|(_, piece)| piece.len() + CHECKSUM_BYTES <= VALUE_BYTES_MAX)
            );
            let (got, first) = first_piece(Key::Meta, &pieces[0].1).unwrap();
            assert_eq!((got, first.len()), (length, length.min(PIECE_BYTES)));
        }
    }
}
