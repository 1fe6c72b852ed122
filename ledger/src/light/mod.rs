//! The light client: verifies headers, accounts and transactions of a chain from its genesis alone.
//!
//! A [`FinalHeader`] exists only for a header that a quorum of the chain's validators signed. The
//! header commits to all accounts and to its block's transactions, so proofs under it show an
//! account or a transaction. The light client keeps no state and contacts no node: its callers
//! remember the headers that they have seen. No proof can show that there is no later block.
//!
//! The rules and the encoding are in `docs/protocol/bytes.md`.

use crate::block::{HEADER_BYTES, HEADER_VERSION, Header};
use crate::certificate::{CERTIFICATE_BYTES_MAX, Certificate, CertificateError};
use crate::chain::Chain;
use crate::codec::{self, CodecError, Decode};
use crate::hash::BlockHash;
use crate::merkle::{self, MerkleProof};
use crate::signature::PublicKey;
use crate::state::{self, Account, AccountProof, StateKey};
use crate::transaction::{
    TRANSACTION_BYTES_MAX, Transaction, VerifiedTransaction, verify_transactions,
};
use crate::units::Height;

/// Most bytes of an encoded [`MerkleProof`]: two numbers, a length and at most 64 hashes.
pub const MERKLE_PROOF_BYTES_MAX: usize = 2 * 8 + 8 + 64 * 32;

/// Why a proof fails. The sender of the bytes is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// The header follows rules that this code does not know.
    #[error("header version {0}, expected {HEADER_VERSION}")]
    Version(u16),
    /// Bytes that do not decode.
    #[error("the {what} is invalid: {error}")]
    Bytes {
        /// What the bytes should be.
        what: &'static str,
        /// Why they do not decode.
        error: CodecError,
    },
    /// The certificate does not prove that the header is final.
    #[error("block {height} is not certified: {error}")]
    Certificate {
        /// Height that the header claims.
        height: Height,
        /// Why the certificate proves nothing.
        error: CertificateError,
    },
    /// The account proof does not verify. For example, it is for another account or state root.
    #[error("the account proof does not hold: {0}")]
    Account(state::ProofError),
    /// The proof does not show that the transaction is in the block.
    #[error("the proof of inclusion does not hold: {0}")]
    Inclusion(merkle::ProofError),
    /// The transaction's signature does not hold. No final block has such a transaction.
    #[error("the transaction's signature does not hold")]
    Signature,
}

/// A header that more than two thirds of the voting power made final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalHeader {
    header: Header,
    hash: BlockHash,
}

impl FinalHeader {
    /// Checks a header against its certificate, both in their canonical bytes.
    ///
    /// # Errors
    /// `LightError`.
    pub fn verify(chain: &Chain, header: &[u8], certificate: &[u8]) -> Result<Self, LightError> {
        // The version is checked first. In a header of another version, the other bytes may mean
        // something else.
        if let Some(version) = header.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
            && version != HEADER_VERSION
        {
            return Err(LightError::Version(version));
        }
        let header: Header = decode("header", header, HEADER_BYTES)?;
        let certificate: Certificate = decode("certificate", certificate, CERTIFICATE_BYTES_MAX)?;
        let (height, hash) = (header.height, header.hash());
        certificate
            .verify(chain.id(), chain.validators(height), height, hash)
            .map_err(|error| LightError::Certificate { height, error })?;
        Ok(Self { header, hash })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The block's hash.
    #[must_use]
    pub const fn hash(&self) -> BlockHash {
        self.hash
    }

    /// The account after this block, given the canonical bytes of an [`AccountProof`]. `None` if
    /// the proof shows that there is no such account.
    ///
    /// # Errors
    /// `LightError`.
    pub fn account(
        &self,
        account: &PublicKey,
        proof: &[u8],
    ) -> Result<Option<Account>, LightError> {
        let proof: AccountProof = decode("account proof", proof, AccountProof::BYTES_MAX)?;
        proof
            .verify(&self.header.state_root, &StateKey::account(*account))
            .map_err(LightError::Account)
    }

    /// Verifies that a transaction is in this block, given its canonical bytes and those of a
    /// [`MerkleProof`] of its full hash under `transactions_root`. Returns the transaction with its
    /// id and hash.
    ///
    /// # Errors
    /// `LightError`.
    pub fn transaction(
        &self,
        chain: &Chain,
        transaction: &[u8],
        inclusion: &[u8],
    ) -> Result<std::sync::Arc<VerifiedTransaction>, LightError> {
        let transaction: Transaction = decode("transaction", transaction, TRANSACTION_BYTES_MAX)?;
        let inclusion: MerkleProof =
            decode("proof of inclusion", inclusion, MERKLE_PROOF_BYTES_MAX)?;
        let verified = verify_transactions(chain.id(), vec![transaction]).pop().flatten();
        let verified = verified.ok_or(LightError::Signature)?;
        inclusion
            .verify(self.header.transactions_root, verified.hash().0)
            .map_err(LightError::Inclusion)?;
        Ok(verified)
    }
}

fn decode<T: Decode<()>>(
    what: &'static str,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<T, LightError> {
    codec::decode(bytes, bytes_max).map_err(|error| LightError::Bytes { what, error })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
