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
    /// A node proves neither that something is so nor that it is not.
    #[error("{0}")]
    Unproved(String),
    /// Something went wrong after a transfer was submitted. It may be final all the same.
    #[error("{cause}\n{open}")]
    Open {
        /// What went wrong.
        cause: Box<WalletError>,
        /// What is known of the transfer.
        open: String,
    },
    /// The command has done its work, and its result cannot be written to stdout.
    #[error("{done}\nerror: the result cannot be written to stdout: {error}")]
    Unwritten {
        /// The work and its result.
        done: String,
        /// What the operating system answered.
        error: io::Error,
    },
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
    /// The result of a command that changes nothing cannot be written to stdout.
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
            Self::Open { .. } => 5,
            Self::Keystore(KeystoreError::BadPassword)
            | Self::Home(HomeError::Keystore(KeystoreError::BadPassword)) => 6,
            Self::Unwritten { .. } => 7,
            _ => 1,
        }
    }

    /// Whether whoever reads the result has read enough of it, as `head -1` does. That is no failure of this program.
    pub(crate) fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// For a command that has changed something: it did, also if nobody can be told on stdout.
    pub(crate) fn after(self, done: String) -> Self {
        match self {
            Self::Output(error) => Self::Unwritten { done, error },
            other => other,
        }
    }
}

/// The table of exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 error, 2 usage, 3 node unreachable, 4 rejected, 5 submitted and not proved final (may still land),
6 bad password, 7 done, but the result cannot be written to stdout (stderr has it), 130 interrupted. With 1, 2, 3, 4 and 6
no transfer was submitted, or the node refused it.
Results go to stdout, everything else to stderr. Secrets are never taken from the command line.";
