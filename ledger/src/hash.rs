//! Hashes: SHA-256 over a domain tag and the bytes, and one newtype for each meaning of a hash.

use std::fmt;

use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};

/// The purpose of a hash or signature. Two domains never share a preimage, since each preimage
/// begins with the tag's length and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The canonical encoding of a genesis; gives the `ChainId`. Also the texts from which local
    /// test networks derive the seeds of their public keys.
    Genesis,
    /// The chain id, and a transaction's kind and body; gives the `TxId`.
    TxId,
    /// The chain id, and a whole transaction with its signature; gives the `TxHash`.
    TxHash,
    /// A block header; gives the `BlockHash`.
    Block,
    /// A certificate, as a header commits to it.
    Certificate,
    /// A validator set, as a header commits to it.
    Validators,
    /// Leaf of a binary Merkle tree.
    MerkleLeaf,
    /// Inner node of a binary Merkle tree.
    MerkleInner,
    /// Root of a binary Merkle tree: its leaf count and top node.
    MerkleRoot,
    /// A chunk of a history segment or of a file.
    Chunk,
    /// A segment descriptor.
    Segment,
    /// Inner node of a tree in the history's Merkle mountain range.
    HistoryInner,
    /// Root of the history's Merkle mountain range: its leaf count and peaks.
    HistoryRoot,
    /// Path of an account in the state tree.
    StatePath,
    /// A leaf of the state tree.
    StatePage,
    /// Inner node of the state tree.
    StateInner,
    /// One link of an account's activity chain.
    Activity,
    /// The sum of a block's fees. In the payout account's activity it takes the place of a
    /// transaction.
    Fees,
    /// A snapshot: its height, state root and frontier.
    Snapshot,
    /// The collection of a chain's history that nodes fetch only to keep it.
    Backfill,
    /// An era of history and a peer id: the order in which nodes keep the era.
    Era,
    /// The chain id, and an era group or a file: its key in the index of who has what.
    Provide,
    /// A file: its version, length and segments; gives the `FileId`.
    File,
    /// A segment of a file: the Merkle root over its chunks.
    FileSegment,
    /// Bytes that a sender signs.
    SignTransaction,
    /// Bytes that a validator signs for a proposal.
    SignProposal,
    /// Bytes that a validator signs for a vote.
    SignVote,
    /// Checksum of a stored value, key of a piece of evidence, and fingerprint of an index entry.
    StoreValue,
}

impl Domain {
    /// The text of the tag. To change one is to change the protocol.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Genesis => "cairn/genesis",
            Self::TxId => "cairn/tx-id",
            Self::TxHash => "cairn/tx-hash",
            Self::Block => "cairn/block",
            Self::Certificate => "cairn/certificate",
            Self::Validators => "cairn/validators",
            Self::MerkleLeaf => "cairn/leaf",
            Self::MerkleInner => "cairn/inner",
            Self::MerkleRoot => "cairn/root",
            Self::Chunk => "cairn/chunk",
            Self::Segment => "cairn/segment",
            Self::HistoryInner => "cairn/h-inner",
            Self::HistoryRoot => "cairn/h-root",
            Self::StatePath => "cairn/path",
            Self::StatePage => "cairn/page",
            Self::StateInner => "cairn/s-inner",
            Self::Activity => "cairn/activity",
            Self::Fees => "cairn/fees",
            Self::Snapshot => "cairn/snapshot",
            Self::Backfill => "cairn/backfill",
            Self::Era => "cairn/era",
            Self::Provide => "cairn/provide",
            Self::File => "cairn/file",
            Self::FileSegment => "cairn/file-segment",
            Self::SignTransaction => "cairn/sign-tx",
            Self::SignProposal => "cairn/sign-proposal",
            Self::SignVote => "cairn/sign-vote",
            Self::StoreValue => "cairn/value",
        }
    }

    /// Every domain, for the test of frozen vectors.
    pub const ALL: [Self; 28] = [
        Self::Genesis,
        Self::TxId,
        Self::TxHash,
        Self::Block,
        Self::Certificate,
        Self::Validators,
        Self::MerkleLeaf,
        Self::MerkleInner,
        Self::MerkleRoot,
        Self::Chunk,
        Self::Segment,
        Self::HistoryInner,
        Self::HistoryRoot,
        Self::StatePath,
        Self::StatePage,
        Self::StateInner,
        Self::Activity,
        Self::Fees,
        Self::Snapshot,
        Self::Backfill,
        Self::Era,
        Self::Provide,
        Self::File,
        Self::FileSegment,
        Self::SignTransaction,
        Self::SignProposal,
        Self::SignVote,
        Self::StoreValue,
    ];
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// All zero bytes, such as the activity of an account before its first transaction or credit of
    /// fees.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 of the tag's length as one byte, the tag, and the parts one after the other.
    ///
    /// The parts are not separated. If more than one part has a variable length, the caller must
    /// make sure that different parts never give the same bytes in sequence.
    #[must_use]
    pub fn of(domain: Domain, parts: &[&[u8]]) -> Self {
        let tag = domain.tag().as_bytes();
        let mut hasher = Sha256::new();
        // Every tag is shorter than 256 bytes.
        #[allow(clippy::cast_possible_truncation)]
        hasher.update([tag.len() as u8]);
        hasher.update(tag);
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", hex::encode(&self.0[..4]))
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits, got {got:?}")]
pub struct HashParseError {
    /// The text that was given, cut at 80 characters.
    pub got: String,
}

impl std::str::FromStr for Hash {
    type Err = HashParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| HashParseError { got: text.chars().take(80).collect() })?;
        Ok(Self(bytes))
    }
}

macro_rules! hash_newtype {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
        pub struct $name(pub Hash);

        impl $name {
            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = HashParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

hash_newtype!(
    /// Identity of a chain: the hash of its genesis. It is part of every signed message, so no
    /// signature is valid on another chain.
    ChainId,
    /// Id of a transaction: hash of chain id, kind and body. The signature is not part of it, so
    /// nobody can change the id by changing the signature.
    TxId,
    /// Hash of a whole transaction, signature included. Blocks commit to this hash, and nodes
    /// request transactions by it.
    TxHash,
    /// Hash of a block header.
    BlockHash,
    /// Commitment to all accounts.
    StateRoot,
    /// Commitment to all sealed history segments.
    HistoryRoot,
    /// Name of a snapshot: hash of its height, state root and frontier.
    SnapshotId,
    /// Name of a file's content: hash of its length and of all its chunks. The same bytes have the
    /// same id on every chain.
    FileId,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_distinct_and_short() {
        for (i, a) in Domain::ALL.iter().enumerate() {
            assert!(a.tag().len() < 256);
            for b in &Domain::ALL[..i] {
                assert_ne!(a.tag(), b.tag());
                assert_ne!(Hash::of(*a, &[b"x"]), Hash::of(*b, &[b"x"]));
            }
        }
    }

    #[test]
    fn text_form_round_trips_and_refuses_other_text() {
        let hash = Hash::of(Domain::Block, &[b"abc"]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "00", &hash.to_string()[1..], &format!("{hash}00"), &"g".repeat(64)] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }
}
