//! Checks a node's answers: accounts and transactions under headers that a quorum of the chain's
//! validators signed.
//!
//! For an account, three things are checked. The certificate of the header must hold for the
//! validators of the pinned genesis. The account, or its absence, must follow from the header's
//! state root. And the header must not be lower than the highest one that this wallet has seen from
//! any node. A transaction is proved under the header of its own block, whatever its height. No
//! proof can show that there is no later block: a node that shows an old state is recognized only
//! by the state's age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::address::encode_address;
use ledger::api::{self, AccountInfo, AccountProofInfo, Status, TxProofInfo};
use ledger::block::{HEADER_BYTES, HEADER_VERSION, Header};
use ledger::certificate::{CERTIFICATE_BYTES_MAX, CertificateError};
use ledger::chain::Chain;
use ledger::codec::CodecError;
use ledger::genesis::MADE_BY_0_1;
use ledger::hash::TxId;
use ledger::light::{FinalHeader, LightError, MERKLE_PROOF_BYTES_MAX};
use ledger::signature::PublicKey;
use ledger::state::{Account, AccountProof};
use ledger::transaction::TRANSACTION_BYTES_MAX;
use ledger::units::{Height, Nonce, Timestamp};
use serde_json::json;

use crate::home::{Home, HomeError, Kept, Seen};
use crate::rpc::{Node, RpcError, clean};

/// How long the wallet waits for a node to reach a height that the wallet has seen elsewhere.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Pause between two requests to a node that is behind.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A head counts as old if its age exceeds this, in milliseconds, plus three times the interval
/// between empty blocks.
const OLD_MS: u64 = 60_000;

/// Why a node's answer is not believed, or why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The node serves another chain.
    #[error(
        "the node at {url} is on another chain: network {got_network:?} (chain {got}), \
         this wallet is for network {network:?} (chain {expected})\n\
         hint: name a node of that network by --rpc URL, or another wallet by --home DIR"
    )]
    OtherChain {
        /// The node's URL.
        url: String,
        /// Its network.
        got_network: String,
        /// Its chain.
        got: String,
        /// The wallet's network.
        network: String,
        /// The wallet's chain.
        expected: String,
    },
    /// The bytes do not decode.
    #[error("the node sent an invalid {what}: {reason}")]
    Bytes {
        /// What the bytes should encode.
        what: &'static str,
        /// Why they do not decode.
        reason: String,
    },
    /// The header has a version that this wallet does not know.
    #[error(
        "the node sent header version {got}, this wallet knows {HEADER_VERSION}: {hint}",
        got = .0,
        hint = what_to_do(.0)
    )]
    Version(u16),
    /// The certificate does not prove that the header is final.
    #[error("do not believe this node: its block {height} is not certified: {error}")]
    Certificate {
        /// Height that the header claims.
        height: Height,
        /// Why the certificate proves nothing.
        error: CertificateError,
    },
    /// The proof of an account does not hold.
    #[error("do not believe this node: its proof of {account} at height {height} fails: {error}")]
    Proof {
        /// Address of the account.
        account: String,
        /// Height of the header.
        height: Height,
        /// Why the proof does not hold.
        error: Box<LightError>,
    },
    /// The node shows a state that is older than the wallet requires: lower than a header that the
    /// wallet has seen, or than a height that the node itself called final.
    #[error(
        "the node is at height {got}, expected at least {least}, which is final: it is syncing, \
         stuck or hides blocks\n\
         hint: wait, or ask another node with --rpc URL"
    )]
    Behind {
        /// Height of the header shown.
        got: Height,
        /// Least height that the wallet accepts.
        least: Height,
    },
    /// The node claims that transfers of an account wait, and does not show them.
    #[error(
        "the node at {url} claims that the next nonce of {account} is {claimed}, but it is \
         {proved} by proof, and the node shows no waiting transfer of nonce {missing}; nothing was \
         sent\n\
         hint: if another wallet sends with this key, try again once its transfers are final; else \
         ask another node with --rpc URL"
    )]
    Unshown {
        /// The node's URL.
        url: String,
        /// Address of the account.
        account: String,
        /// Next nonce of the account, as the node claims.
        claimed: Nonce,
        /// Next nonce of the account, as it is proved.
        proved: Nonce,
        /// Lowest nonce for which the node shows no transfer.
        missing: Nonce,
    },
    /// Two blocks of one height are both certified.
    #[error(
        "THE CHAIN HAS FORKED: two different blocks of height {height} are both certified.\n\
         More than a third of the validators are dishonest or have lost control of their keys. \
         Accept no payment.\n\
         The proof is in {path}; show it to others"
    )]
    Fork {
        /// The height.
        height: Height,
        /// The file that has both.
        path: String,
    },
    /// The node calls a transaction final and cannot prove it.
    #[error(
        "the node says that {id} is final, but does not prove it: {reason}\n\
         hint: ask another node: cairn-wallet --rpc URL tx {id}"
    )]
    NotFinal {
        /// The transaction.
        id: String,
        /// What is missing or contradicts the claim.
        reason: String,
    },
    /// The node cannot be reached, answers with an error, or answers in a wrong form.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The wallet's own files cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// An account, proved as of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proven {
    /// The account; `None` if it does not exist in this block's state.
    pub(crate) account: Option<Account>,
    /// Height of the block; 0 for the genesis.
    pub(crate) height: Height,
    /// Time of the block.
    pub(crate) time: Timestamp,
    /// The next nonce after the transactions in the node's mempool, as the node claims. It is not
    /// proved: see `nonce`.
    pub(crate) pending_nonce: Nonce,
}

/// A header with a certificate that holds.
struct Certified {
    header: FinalHeader,
    head: api::Head,
}

/// A node whose answers are checked.
pub(crate) struct Trust<'a> {
    chain: Arc<Chain>,
    home: &'a Home,
    node: &'a Node,
    /// Highest head seen.
    seen: Option<Certified>,
    /// Whether the node said that there is no block yet.
    no_block_yet: bool,
}

impl<'a> Trust<'a> {
    /// Asks a node which chain it serves, and reads the highest head seen.
    ///
    /// # Errors
    /// `OtherChain`; those of the request and of reading the wallet's own files.
    pub(crate) fn connect(
        chain: Arc<Chain>,
        home: &'a Home,
        node: &'a Node,
    ) -> Result<Self, TrustError> {
        let status: Status = node.call(api::CHAIN_STATUS, json!({}))?;
        let expected = chain.id().to_string();
        if status.chain_id != expected {
            let (got_network, got) = (clean(&status.network), clean(&status.chain_id));
            let (url, network) = (node.url().to_owned(), chain.genesis().network.clone());
            return Err(TrustError::OtherChain { url, got_network, got, network, expected });
        }
        let seen = home.head()?.map(|head| reread(&chain, home, head)).transpose()?;
        Ok(Self { chain, home, node, seen, no_block_yet: status.height == 0 })
    }

    /// The chain.
    pub(crate) const fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The node, for requests whose answers are not checked here.
    pub(crate) const fn node(&self) -> &Node {
        self.node
    }

    /// The address of an account.
    pub(crate) fn address(&self, account: &PublicKey) -> String {
        encode_address(&self.chain.genesis().address_prefix, account)
    }

    /// The account as of a block whose height is at least `least`, and at least that of every
    /// header that this wallet has seen. Waits up to [`CATCH_UP`] for a node that is behind.
    ///
    /// # Errors
    /// `TrustError` for an answer that does not hold; those of the request.
    pub(crate) fn account(
        &mut self,
        account: &PublicKey,
        least: Height,
    ) -> Result<Proven, TrustError> {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            match self.prove(account, least) {
                Err(TrustError::Behind { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                result => return result,
            }
        }
    }

    fn prove(&mut self, account: &PublicKey, least: Height) -> Result<Proven, TrustError> {
        let address = self.address(account);
        let params = json!({ "account": address });
        let answer: AccountProofInfo = match self.node.call(api::ACCOUNT_PROOF, params) {
            // Before the first block there is no header that could prove an account. The account is
            // then as the genesis says.
            Err(error)
                if self.no_block_yet
                    && self.seen.is_none()
                    && matches!(
                        error.code(),
                        Some(api::code::NOT_FOUND | api::code::UNAVAILABLE)
                    ) =>
            {
                return self.at_genesis(account, least);
            }
            answer => answer?,
        };
        let certified = verify_head(&self.chain, answer.head)?;
        let Header { height, time, .. } = *certified.header.header();
        let least = self.seen.as_ref().map_or(least, |seen| least.max(seen.header.header().height));
        if height < least {
            return Err(TrustError::Behind { got: height, least });
        }
        let proof = unhex("account proof", &answer.proof, AccountProof::BYTES_MAX)?;
        let held = certified.header.account(account, &proof);
        let held = held.map_err(|error| TrustError::Proof {
            account: address,
            height,
            error: Box::new(error),
        })?;
        self.keep(certified)?;
        Ok(Proven { account: held, height, time, pending_nonce: Nonce(answer.pending_nonce) })
    }

    /// The error for a node that claims waiting transfers of an account, and shows none with the
    /// nonce `missing`.
    pub(crate) fn unshown(
        &self,
        account: &PublicKey,
        payer: &Proven,
        missing: Nonce,
    ) -> TrustError {
        let (claimed, proved) = (payer.pending_nonce, payer.account.unwrap_or_default().nonce);
        TrustError::Unshown {
            url: self.node.url().to_owned(),
            account: self.address(account),
            claimed,
            proved,
            missing,
        }
    }

    /// Height of the certified block that holds this transaction; `None` if the node gives no
    /// proof.
    ///
    /// # Errors
    /// `TrustError` for a proof that does not hold; those of the request.
    pub(crate) fn transaction(&mut self, id: &TxId) -> Result<Option<Height>, TrustError> {
        let proof: TxProofInfo =
            match self.node.call(api::TX_PROOF, json!({ "id": id.to_string() })) {
                Err(error) if error.code() == Some(api::code::NOT_FOUND) || error.is_not_kept() => {
                    return Ok(None);
                }
                answer => answer?,
            };
        let certified = verify_head(
            &self.chain,
            api::Head { header: proof.header, certificate: proof.certificate },
        )?;
        let raw = unhex("transaction", &proof.raw, TRANSACTION_BYTES_MAX)?;
        let inclusion = unhex("proof of inclusion", &proof.inclusion, MERKLE_PROOF_BYTES_MAX)?;
        let held = certified.header.transaction(&self.chain, &raw, &inclusion);
        let not_final = |reason: String| TrustError::NotFinal { id: id.to_string(), reason };
        let held = held.map_err(|error| not_final(error.to_string()))?;
        if held.id() != *id {
            return Err(not_final("its proof is for another transaction".to_owned()));
        }
        let height = certified.header.header().height;
        if self.seen.as_ref().is_none_or(|seen| seen.header.header().height <= height) {
            self.keep(certified)?;
        }
        Ok(Some(height))
    }

    fn at_genesis(&self, account: &PublicKey, least: Height) -> Result<Proven, TrustError> {
        if least > Height(0) {
            return Err(TrustError::Behind { got: Height(0), least });
        }
        let genesis = self.chain.genesis();
        let entry = genesis.accounts.iter().find(|entry| entry.account == *account);
        let held = entry.map(|entry| Account { balance: entry.balance, ..Account::default() });
        let info: AccountInfo =
            self.node.call(api::ACCOUNT_GET, json!({ "account": self.address(account) }))?;
        let pending_nonce = Nonce(info.pending_nonce);
        Ok(Proven { account: held, height: Height(0), time: genesis.start_time, pending_nonce })
    }

    /// Stores a head. From now on no node may show an older state.
    fn keep(&mut self, new: Certified) -> Result<(), TrustError> {
        let height = new.header.header().height;
        if self.seen.as_ref().is_some_and(|seen| seen.header.hash() == new.header.hash()) {
            return Ok(());
        }
        let read = |head| reread(&self.chain, self.home, head).map(|certified| certified.seen());
        match self.home.keep(&new.seen(), read)? {
            Kept::Known => {}
            Kept::Fork(path) => {
                return Err(TrustError::Fork { height, path: path.display().to_string() });
            }
        }
        self.seen = Some(new);
        Ok(())
    }

    /// A note for the user if the newest block is old, since no proof can show that there is no
    /// newer one.
    pub(crate) fn age_note(&self, now: Timestamp) -> Option<String> {
        let (height, time) = match &self.seen {
            Some(seen) => (seen.header.header().height, seen.header.header().time),
            None => (Height(0), self.chain.genesis().start_time),
        };
        let age = now.0.saturating_sub(time.0);
        let old =
            OLD_MS.saturating_add(self.chain.limits().empty_block_interval_ms.saturating_mul(3));
        (age > old).then(|| {
            let minutes = age / 60_000;
            format!(
                "note: the newest block, height {height}, is {minutes} min old by this machine's \
                 clock: the network stands still, this node is behind, or the clock is ahead"
            )
        })
    }
}

impl Certified {
    fn seen(&self) -> Seen {
        let (height, hash) = (self.header.header().height.0, self.header.hash().to_string());
        Seen { height, hash, head: self.head.clone() }
    }
}

/// Verifies a head from the wallet's own file. It was verified before it was written, so a failure
/// means that the file was changed.
fn reread(chain: &Chain, home: &Home, head: api::Head) -> Result<Certified, HomeError> {
    verify_head(chain, head).map_err(|error| home.damaged_head(error.to_string()))
}

const fn what_to_do(version: &u16) -> &'static str {
    if *version < HEADER_VERSION { MADE_BY_0_1 } else { "upgrade this wallet" }
}

/// Verifies that the validators of the chain made this header final.
fn verify_head(chain: &Chain, head: api::Head) -> Result<Certified, TrustError> {
    let header = unhex("header", &head.header, HEADER_BYTES)?;
    let certificate = unhex("certificate", &head.certificate, CERTIFICATE_BYTES_MAX)?;
    let header = FinalHeader::verify(chain, &header, &certificate)?;
    Ok(Certified { header, head })
}

impl From<LightError> for TrustError {
    fn from(error: LightError) -> Self {
        match error {
            LightError::Version(version) => Self::Version(version),
            LightError::Bytes { what, error } => Self::Bytes { what, reason: error.to_string() },
            LightError::Certificate { height, error } => Self::Certificate { height, error },
            other => Self::Bytes { what: "proof", reason: other.to_string() },
        }
    }
}

fn unhex(what: &'static str, text: &str, max: usize) -> Result<Vec<u8>, TrustError> {
    let fail = |reason: String| TrustError::Bytes { what, reason };
    if text.len() / 2 > max {
        return Err(fail(CodecError::TooLong { got: text.len() / 2, max }.to_string()));
    }
    hex::decode(text).map_err(|error| fail(error.to_string()))
}
