//! Transactions: what a sender signs, how a transaction is identified, and how its signature is
//! verified.

use std::sync::Arc;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::hash::{ChainId, Domain, Hash, TxHash, TxId};
use crate::signature::{self, Checks, Item, PublicKey, Signature, SigningKey};
use crate::units::{Amount, Nonce, Timestamp};

/// Most outputs a transfer may have.
pub const OUTPUTS_MAX: usize = 64;
/// Most bytes a memo may have.
pub const MEMO_BYTES_MAX: usize = 256;
/// Most bytes of an encoded transaction. The largest transfer, with 64 outputs and a full memo, has
/// 2,953.
pub const TRANSACTION_BYTES_MAX: usize = 3_072;

/// One payment within a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Output {
    /// Account that receives.
    pub account: PublicKey,
    /// Amount, above zero.
    pub amount: Amount,
}

/// Moves money from one account to up to [`OUTPUTS_MAX`] accounts under one signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transfer {
    /// Account that pays: an Ed25519 public key.
    pub sender: PublicKey,
    /// The sender's next nonce: how many transactions the sender has sent before this one.
    pub nonce: Nonce,
    /// Payments in the sender's order, 1 to [`OUTPUTS_MAX`].
    pub outputs: Vec<Output>,
    /// Paid to the payout account of the block's proposer.
    pub fee: Amount,
    /// Latest time of a block that may hold this transfer.
    pub expires_at: Timestamp,
    /// Free text or bytes, at most [`MEMO_BYTES_MAX`] bytes.
    pub memo: Vec<u8>,
}

/// What a transaction does. The first byte of the encoding is the kind. An unknown kind does not
/// decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Kind 0.
    Transfer(Transfer),
}

const KIND_TRANSFER: u8 = 0;

impl Encode for Body {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Self::Transfer(transfer) => {
                KIND_TRANSFER.encode(encoder)?;
                transfer.encode(encoder)
            }
        }
    }
}

impl<Context> Decode<Context> for Body {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match u8::decode(decoder)? {
            KIND_TRANSFER => Ok(Self::Transfer(Transfer::decode(decoder)?)),
            kind => Err(DecodeError::OtherString(format!(
                "unknown transaction kind {kind}, expected 0 (transfer)"
            ))),
        }
    }
}

bincode::impl_borrow_decode!(Body);

/// A body with the sender's signature over the chain id and the body.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transaction {
    /// What the transaction does. Its encoding begins with the kind.
    pub body: Body,
    /// The sender's signature over [`Body::message`].
    pub signature: Signature,
}

impl Body {
    /// The transfer, which is the only kind so far. Whoever adds a second kind should remove this
    /// function: then the compiler reports every place that knows transfers only.
    #[must_use]
    pub const fn transfer(&self) -> &Transfer {
        match self {
            Self::Transfer(transfer) => transfer,
        }
    }

    /// The bytes that the sender signs.
    #[must_use]
    pub fn message(&self, chain: ChainId) -> Vec<u8> {
        signature::message(Domain::SignTransaction, chain, &[&codec::encode(self)])
    }

    /// The id of a transaction with this body on this chain.
    #[must_use]
    pub fn id(&self, chain: ChainId) -> TxId {
        TxId(Hash::of(Domain::TxId, &[chain.as_bytes(), &codec::encode(self)]))
    }

    /// Signs with the sender's key.
    #[must_use]
    pub fn sign(self, chain: ChainId, key: &SigningKey) -> Transaction {
        let signature = key.sign(&self.message(chain));
        Transaction { body: self, signature }
    }
}

impl Transaction {
    /// Decodes one transaction from exactly these bytes.
    ///
    /// # Errors
    /// `CodecError` if there are too many bytes or they are not canonical.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, TRANSACTION_BYTES_MAX)
    }
}

/// A transaction whose signature was verified for one chain, with its id and hash. Code outside
/// this crate gets one only by verifying the signature.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifiedTransaction {
    transaction: Transaction,
    id: TxId,
    hash: TxHash,
    bytes: usize,
}

impl VerifiedTransaction {
    /// The transfer that was signed.
    #[must_use]
    pub const fn transfer(&self) -> &Transfer {
        self.transaction.body.transfer()
    }

    /// The whole transaction.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Its id, which does not cover the signature.
    #[must_use]
    pub const fn id(&self) -> TxId {
        self.id
    }

    /// Hash of the whole transaction, signature included.
    #[must_use]
    pub const fn hash(&self) -> TxHash {
        self.hash
    }

    /// Length of its encoding, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Encode for VerifiedTransaction {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.transaction.encode(encoder)
    }
}

/// Hash of a whole transaction, as blocks commit to it.
#[must_use]
pub fn transaction_hash(chain: ChainId, transaction: &Transaction) -> TxHash {
    TxHash(Hash::of(Domain::TxHash, &[chain.as_bytes(), &codec::encode(transaction)]))
}

/// Verifies the signatures of many transactions at once. The result is `None` for each transaction
/// whose signature does not hold, as if it had been verified alone.
#[must_use]
pub fn verify_transactions(
    chain: ChainId,
    transactions: Vec<Transaction>,
) -> Vec<Option<Arc<VerifiedTransaction>>> {
    verify_and_count(chain, transactions).0
}

/// Most signatures in one batch of [`verify_in_batches`]. Larger batches are not faster, and need
/// more memory for the signed messages.
const BATCH: usize = 256;

/// As [`verify_transactions`], for any number of transactions: 256 are verified at a time.
#[must_use]
pub fn verify_in_batches(
    chain: ChainId,
    transactions: Vec<Transaction>,
) -> Vec<Option<Arc<VerifiedTransaction>>> {
    let mut verified = Vec::with_capacity(transactions.len());
    let mut transactions = transactions.into_iter();
    while transactions.len() > 0 {
        verified.extend(verify_transactions(chain, transactions.by_ref().take(BATCH).collect()));
    }
    verified
}

/// As [`verify_transactions`], but also returns how many checks were made.
#[must_use]
pub fn verify_and_count(
    chain: ChainId,
    transactions: Vec<Transaction>,
) -> (Vec<Option<Arc<VerifiedTransaction>>>, Checks) {
    let items: Vec<Item> = transactions
        .iter()
        .map(|transaction| Item {
            key: transaction.body.transfer().sender,
            message: transaction.body.message(chain),
            signature: transaction.signature,
        })
        .collect();
    let (verdicts, checks) = signature::verify_batch(&items);
    let verified = transactions
        .into_iter()
        .zip(verdicts)
        .map(|(transaction, valid)| valid.then(|| Arc::new(assume_verified(chain, transaction))))
        .collect();
    (verified, checks)
}

/// Wraps a transaction without verifying its signature. The caller has just verified the signature,
/// or the transaction was verified before it was stored.
pub(crate) fn assume_verified(chain: ChainId, transaction: Transaction) -> VerifiedTransaction {
    let id = transaction.body.id(chain);
    let bytes = codec::encode(&transaction);
    let hash = TxHash(Hash::of(Domain::TxHash, &[chain.as_bytes(), &bytes]));
    VerifiedTransaction { id, hash, bytes: bytes.len(), transaction }
}
