//! Why a command failed, and its exit code for scripts.

use std::io;
use std::path::PathBuf;

use crate::home::HomeError;
use crate::keystore::KeystoreError;
use crate::mnemonic::MnemonicError;
use crate::rpc::RpcError;
use crate::terminal::TerminalError;
use crate::trust::TrustError;

/// Why a command failed. Its text goes to stderr.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalletError {
    /// The command line, or an answer to a question, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The keystore failed.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// There are no keys yet.
    #[error(
        "no keys in {} yet\n\
         hint: `cairn-wallet new NAME` makes one, `cairn-wallet import NAME` imports one",
        .0.display()
    )]
    NoKeys(PathBuf),
    /// The text is not a phrase.
    #[error(transparent)]
    Mnemonic(#[from] MnemonicError),
    /// The wallet's own files cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The node cannot be reached, answers with an error, or answers in a wrong form.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The node's answer is false or cannot be proved.
    #[error(transparent)]
    Trust(TrustError),
    /// The transfer was refused: by the node, or by this wallet because the chain's rules do not
    /// allow it.
    #[error("rejected: {reason}\nhint: {hint}")]
    Rejected {
        /// Why it was refused.
        reason: String,
        /// What the user can do.
        hint: String,
    },
    /// The node proves neither a statement nor its opposite.
    #[error("{0}")]
    Unproved(String),
    /// Something went wrong after a transfer was submitted. The transfer may still become final.
    #[error("{cause}\n{open}")]
    Open {
        /// What failed after the submission.
        cause: Box<WalletError>,
        /// What is known of the transfer.
        open: String,
    },
    /// The command has done its work, but the result cannot be written to stdout.
    #[error("{done}\nerror: the result cannot be written to stdout: {error}")]
    Unwritten {
        /// What the command did, with its result.
        done: String,
        /// What the operating system answered.
        error: io::Error,
    },
    /// The user answered the confirmation with no.
    #[error("nothing was sent")]
    Declined,
    /// The terminal cannot be used to ask or tell the user.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
}

impl From<TrustError> for WalletError {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Rpc(error) => Self::Rpc(error),
            TrustError::Home(error) => Self::Home(error),
            error => Self::Trust(error),
        }
    }
}

impl WalletError {
    /// The program's exit code. After Ctrl-C the program dies of the signal instead, which shells
    /// report as 130.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Terminal(TerminalError::Usage(_)) => 2,
            Self::Rpc(RpcError::Unreachable { .. }) => 3,
            Self::Rejected { .. } => 4,
            Self::Open { .. } => 5,
            Self::Keystore(KeystoreError::BadPassword)
            | Self::Home(HomeError::Keystore(KeystoreError::BadPassword)) => 6,
            Self::Unwritten { .. } => 7,
            _ => 1,
        }
    }

    /// Whether the reader of stdout has closed it, as `head -1` does. That is not a failure of this
    /// program.
    pub(crate) fn is_reader_gone(&self) -> bool {
        matches!(
            self,
            Self::Terminal(TerminalError::Output(error))
                if error.kind() == io::ErrorKind::BrokenPipe
        )
    }

    /// Turns a failure to write the result into `Unwritten`, for a command whose work is done even
    /// if stdout is broken. `done` says what the command did.
    pub(crate) fn after(self, done: String) -> Self {
        match self {
            Self::Terminal(TerminalError::Output(error)) => Self::Unwritten { done, error },
            other => other,
        }
    }
}

/// The table of exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 error, 2 usage, 3 node unreachable, 4 rejected, 5 submitted and not proved \
final (may still become final),
6 bad password, 7 done, but the result cannot be written to stdout (stderr has it), 130 \
interrupted. With 1, 2, 3, 4 and 6
no transfer was submitted, or the node refused it.
Results go to stdout, everything else to stderr. Secrets are never taken from the command line.";
