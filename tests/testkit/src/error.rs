//! Why a step of a test failed, in a form that explains the failure without a second run.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::tail;
use crate::rpc::Failure;

/// Why a step failed. `Debug` prints the same text as `Display`, so that `unwrap()` shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `cairn-node` to run.
    #[error(
        "no cairn-node found. Looked for it at the path given to Builder::program: {given}; at \
         the path in the environment variable CAIRN_NODE: {environment}; beside the test and in \
         the folders of PATH: {beside}"
    )]
    NoProgram {
        /// What the builder was given.
        given: String,
        /// What the environment says.
        environment: String,
        /// Where it was looked for otherwise.
        beside: String,
    },
    /// A file or program cannot be used.
    #[error("{what}: {error}")]
    System {
        /// The file or program.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// The parent of the network's nodes has ended.
    #[error("the network has ended ({status}) while the test waited for: {waited_for}{logs}")]
    Ended {
        /// How it ended.
        status: String,
        /// What the test waited for.
        waited_for: String,
        /// The ends of its logs.
        logs: Logs,
    },
    /// An event did not come.
    #[error("waited {within:.1?} in vain for: {waited_for}; last seen: {last}{logs}")]
    NotInTime {
        /// The event.
        waited_for: String,
        /// How long it was waited for.
        within: Duration,
        /// The last that was seen of it.
        last: String,
        /// The ends of all logs.
        logs: Logs,
    },
    /// A command to the network failed.
    #[error("`{command}` failed ({status}): {message}{logs}")]
    Command {
        /// The command.
        command: String,
        /// Its exit status: `exit code 1` and the like.
        status: String,
        /// Its stderr.
        message: String,
        /// The ends of all logs.
        logs: Logs,
    },
    /// A call to a node failed.
    #[error("{method} at {url}: {failure}")]
    Call {
        /// The node's URL.
        url: String,
        /// The method.
        method: String,
        /// Why it failed.
        failure: Failure,
    },
    /// A node's answer does not prove what the node says.
    #[error("{url} does not prove {what}: {reason}")]
    Unproved {
        /// The node's URL.
        url: String,
        /// What it should prove.
        what: String,
        /// Why the proof does not hold.
        reason: String,
    },
    /// Two nodes have different blocks at one height.
    #[error("the nodes disagree at height {height}: {what}{logs}")]
    Disagreement {
        /// The height.
        height: u64,
        /// What differs.
        what: String,
        /// The ends of all logs.
        logs: Logs,
    },
    /// The test itself asked for something that does not exist: a node, an account, an amount.
    #[error("{0}")]
    Input(String),
}

/// The ends of the logs of a network and its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs(Vec<(PathBuf, String)>);

impl Logs {
    /// Reads the ends of these logs.
    pub(crate) fn read<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let read = |path: P| (path.as_ref().to_owned(), tail(path.as_ref()));
        Self(paths.into_iter().map(read).collect())
    }

    /// Path and last lines of each log.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.0.iter().map(|(path, text)| (path.as_path(), text.as_str()))
    }
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(path, text)| write!(f, "\n--- {}\n{text}", path.display()))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An error of the system about a file or program.
    pub(crate) fn system(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what: what.to_string(), error }
    }

    /// A failed call of a method.
    pub(crate) fn call<'a>(url: &'a str, method: &'a str) -> impl FnOnce(Failure) -> Self + 'a {
        move |failure| Self::Call { url: url.to_owned(), method: method.to_owned(), failure }
    }
}
