//! The operator's socket: a Unix socket in each home, and in the directory of a local network, by
//! which commands reach the process that runs there.
//!
//! It speaks JSON-RPC 2.0, one message a line. Whoever can write to the socket can stop the
//! process. So the socket is for its own user and for root: the folder has mode 0700, the socket
//! mode 0600, and the user of each connection is checked. An open file may go with a request and
//! with an answer.

mod client;
mod passing;
mod place;
mod server;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::fd::OwnedFd;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::client::Client;
pub(crate) use self::place::Listener;
pub(crate) use self::server::serve;

/// Most bytes of a request, without the end of its line.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Most bytes of an answer, without the end of its line. A longer one becomes an error.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Codes of failures, which are the exit codes of commands. Failures of JSON-RPC itself have the
/// codes of that standard.
pub(crate) mod code {
    /// The request was understood, and failed.
    pub(crate) const FAILED: i32 = 1;
    /// The request makes no sense: a name that does not exist, a number out of range.
    pub(crate) const USAGE: i32 = 2;
    /// No process runs in the directory.
    pub(crate) const ABSENT: i32 = 3;
    /// The awaited event did not come in time.
    pub(crate) const NOT_IN_TIME: i32 = 5;

    pub(super) const PARSE: i32 = -32_700;
    pub(super) const INVALID_REQUEST: i32 = -32_600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32_601;
    pub(super) const INVALID_PARAMS: i32 = -32_602;
    pub(super) const INTERNAL: i32 = -32_603;
    /// All connections are taken.
    pub(super) const BUSY: i32 = -32_000;
}

/// The result of a method, to come.
pub(crate) type Answer = BoxFuture<'static, Result<Value, Failure>>;

/// As [`Answer`], with the file that goes with the result.
pub(crate) type AnswerWithFile = BoxFuture<'static, Result<(Value, Option<OwnedFd>), Failure>>;

/// What a method answers instead of a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub(crate) struct Failure {
    /// A constant of [`code`].
    pub(crate) code: i32,
    /// What is wrong, for people.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: i32, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }

    /// The request was understood, and failed.
    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::new(code::FAILED, message)
    }

    /// There is no such method.
    pub(crate) fn unknown_method(method: &str) -> Self {
        let shown: String = method.chars().take(100).collect();
        Self::new(code::METHOD_NOT_FOUND, format!("there is no method {shown:?}"))
    }

    /// The parameters are not the method's.
    pub(crate) fn bad_params(error: impl ToString) -> Self {
        Self::new(code::INVALID_PARAMS, format!("wrong parameters: {}", error.to_string()))
    }
}

/// Reads the parameters of a method.
///
/// # Errors
/// They are not the method's.
pub(crate) fn read<T: DeserializeOwned>(params: Value) -> Result<T, Failure> {
    serde_json::from_value(params).map_err(Failure::bad_params)
}

/// The methods that a process serves.
pub(crate) trait Methods: Send + Sync + 'static {
    /// Begins a call. `params` is an object or an array; `{}` if the request has none.
    ///
    /// The answer is dropped when its client goes away or the server ends. A method whose work must
    /// be completed spawns a task for it.
    fn call(&self, method: &str, params: Value) -> Answer;

    /// As [`call`](Self::call), for methods that take an open file or answer with one. `file` is
    /// the one that came with the request. A process without such methods closes it.
    fn call_with_file(
        &self,
        method: &str,
        params: Value,
        _file: Option<OwnedFd>,
    ) -> AnswerWithFile {
        let answer = self.call(method, params);
        Box::pin(async { answer.await.map(|value| (value, None)) })
    }
}

/// Why the socket cannot be bound, or a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// No process runs in the directory.
    #[error("nothing runs in {}", root.display())]
    Absent {
        /// The home, or the network's directory.
        root: PathBuf,
    },
    /// The process answered with an error.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The process does not answer or does not end.
    #[error("the process in {} {what} after {} s", root.display(), time.as_secs())]
    Slow {
        /// The home, or the network's directory.
        root: PathBuf,
        /// What it does, such as `still runs`.
        what: &'static str,
        /// How long it was waited for.
        time: Duration,
    },
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// The answer is not that of an operator's socket.
    #[error("{} does not answer like a Cairn process: {reason}", path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A file or folder cannot be trusted.
    #[error("{}: {reason}", path.display())]
    Unsafe {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        reason: String,
    },
    /// No folder has a path that is short enough for a socket.
    #[error(
        "the path of a socket has at most {} bytes, and {} has more: set XDG_RUNTIME_DIR or TMPDIR \
         to a shorter path",
        place::PATH_BYTES_MAX,
        path.display()
    )]
    TooLong {
        /// The shortest path that was found.
        path: PathBuf,
    },
}

impl ControlError {
    /// The exit code of a command that failed with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        let own = [code::FAILED, code::USAGE, code::ABSENT, code::NOT_IN_TIME];
        let code = match self {
            Self::Absent { .. } => code::ABSENT,
            Self::Slow { .. } => code::NOT_IN_TIME,
            Self::Refused(failure) if own.contains(&failure.code) => failure.code,
            _ => code::FAILED,
        };
        u8::try_from(code).unwrap_or(1)
    }
}
