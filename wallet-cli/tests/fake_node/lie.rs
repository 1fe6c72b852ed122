//! The lies of a fake node.

/// How the node misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The node is honest.
    None,
    /// Certificates with two signatures of four.
    FewSignatures,
    /// Certificates by keys that are not validators.
    ForeignSignatures,
    /// Another state root in the header.
    OtherHeader,
    /// One bit of the proof is flipped.
    TamperedProof,
    /// A proof as of the block before the header's.
    StaleProof,
    /// Another chain id and network.
    OtherChain,
    /// State as of an earlier height.
    Old(u64),
    /// A header of a later version.
    Version,
    /// "Final" without any block.
    FinalAtOnce,
    /// "Final" in a block that is empty.
    FinalInEmpty,
    /// The same, and the block is shown with the transaction in it.
    FinalInForged,
    /// Details of another amount.
    OtherDetails,
    /// Refuses transactions.
    Rejects,
    /// Takes transactions and never finalizes.
    Stalls,
    /// Drops the transaction and hangs up instead of answering.
    Drops,
    /// Takes the transaction, finalizes it, and denies that: it answers that it does not know the
    /// transaction, and shows blocks without transactions.
    Withholds,
    /// Has no proof of a transaction.
    NoProof,
    /// Takes the transaction, finalizes it, and hangs up instead of answering.
    HangsUp,
    /// Takes the transaction, finalizes it, and answers no more requests for proofs.
    Vanishes,
    /// HTML instead of JSON.
    Html,
    /// Refuses the request before it reads it.
    Forbids,
    /// A status of two megabytes.
    Long,
    /// Claims that three more transfers of each account wait.
    NonceAhead,
    /// Claims that none of an account's transfers is final or waits.
    NonceBehind,
    /// Shows waiting transfers with signatures that do not hold.
    ForgedPending,
    /// Does not list its mempool.
    NoList,
}
