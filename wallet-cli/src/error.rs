//! Why a command failed, and the exit code that says so to scripts.

use std::io;
use std::path::PathBuf;

use crate::home::HomeError;
use crate::keystore::KeystoreError;
use crate::mnemonic::MnemonicError;
use crate::rpc::RpcError;
use crate::trust::TrustError;

/// Why a command failed. Its text goes to stderr.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalletError {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Keys.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// There are no keys yet.
    #[error("no keys in {} yet\nhint: `cairn-wallet new NAME` makes one, `cairn-wallet import NAME` brings one in", .0.display())]
    NoKeys(PathBuf),
    /// A phrase that is none.
    #[error(transparent)]
    Mnemonic(#[from] MnemonicError),
    /// The wallet's own files.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The node cannot be asked, or answers with an error.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The node says what cannot be true.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A transfer that the rules of the chain refuse, whether this wallet or the node found out.
    #[error("rejected: {reason}\nhint: {hint}")]
    Rejected {
        /// The rule.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// Not final in time. Not a failure of the transfer.
    #[error("{0}")]
    TimedOut(String),
    /// The question was answered with no.
    #[error("nothing was sent")]
    Declined,
    /// A file named on the command line.
    #[error("cannot read {}: {error}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// Nobody reads stdout.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
}

impl WalletError {
    /// The program's exit code. Interrupted by Ctrl-C it dies of the signal, which shells report as 130.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Rpc(RpcError::Unreachable { .. }) => 3,
            Self::Rejected { .. } => 4,
            Self::TimedOut(_) => 5,
            Self::Keystore(KeystoreError::BadPassword)
            | Self::Home(HomeError::Keystore(KeystoreError::BadPassword)) => 6,
            _ => 1,
        }
    }

    /// Whether asking again later, or another node, may well succeed.
    pub(crate) const fn is_for_now(&self) -> bool {
        match self {
            Self::Rpc(RpcError::Unreachable { .. }) | Self::Trust(TrustError::Behind { .. }) => true,
            Self::Rpc(RpcError::Answer { code, .. }) => *code == ledger::api::code::UNAVAILABLE,
            _ => false,
        }
    }
}

/// The table of exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 error, 2 usage, 3 node unreachable, 4 rejected, 5 timed out (may still land), 6 bad password, 130 interrupted.
Results go to stdout, everything else to stderr. Secrets are never taken from the command line.";
