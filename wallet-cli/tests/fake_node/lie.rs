//! The lies of a fake node.

/// How the node misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The node is honest.
    None,
    /// Shows certificates with only two signatures of four.
    FewSignatures,
    /// Shows certificates whose signatures are over another message.
    ForeignSignatures,
    /// Shows a header with another state root.
    OtherHeader,
    /// Flips one bit of the account proof.
    TamperedProof,
    /// Shows an account proof for the state one block before the header.
    StaleProof,
    /// Names another chain id and network in its status.
    OtherChain,
    /// Shows the state as of this earlier height.
    Old(u64),
    /// Shows a header of a later version.
    Version,
    /// Calls a waiting transaction final, without any block that holds it.
    FinalAtOnce,
    /// Calls a waiting transaction final in a block that is empty.
    FinalInEmpty,
    /// As `FinalInEmpty`, but shows and proves the block as if it held the transaction.
    FinalInForged,
    /// Shows a transaction with another amount.
    OtherDetails,
    /// Refuses transactions.
    Rejects,
    /// Takes transactions and never finalizes them.
    Stalls,
    /// Drops the transaction and hangs up instead of answering.
    Drops,
    /// Takes the transaction, finalizes it, and denies that: it answers that it does not know the
    /// transaction, and shows blocks without transactions.
    Withholds,
    /// Honest, but keeps no block: takes the transaction, finalizes it, and says that neither it
    /// nor any block is in the part of the chain that the node keeps.
    KeepsNoBlock,
    /// Has no proof of any transaction.
    NoProof,
    /// Takes the transaction, finalizes it, and hangs up instead of answering.
    HangsUp,
    /// Takes the transaction, finalizes it, and answers no more requests for proofs.
    Vanishes,
    /// Answers in HTML instead of JSON.
    Html,
    /// Answers as a node that refuses a request before it reads it: HTTP status 403 and plain text.
    Forbids,
    /// Answers with a status that is longer than 2 MiB.
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
