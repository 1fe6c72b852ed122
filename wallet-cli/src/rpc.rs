//! Asks a node: JSON-RPC 2.0 over HTTP, one request per connection.
//!
//! An answer is bounded in size and time. Its content is verified in `trust`, not here.

use std::io;
use std::time::Duration;

use ledger::api::{self, ErrorData};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use ureq::{Agent, Error, Timeout};

/// Longest time to resolve the node's name and connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for a whole request, beyond the time that the node is asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer with a genesis, a block or a mempool: twice the most that a node sends.
const LARGE_ANSWER_BYTES_MAX: u64 = 32 << 20;
/// Most bytes of any other answer. The largest has a certificate of 256 signatures and a proof:
/// less than 100 KB in all.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Most characters shown of a text from a node.
const SHOWN_CHARS_MAX: usize = 300;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// No answer arrived, or not in time.
    #[error(
        "no answer from the node at {url}: {reason}\n\
         hint: does a node run there? Name another node by --rpc URL or CAIRN_WALLET_RPC"
    )]
    Unreachable {
        /// The node's URL.
        url: String,
        /// What failed.
        reason: String,
        /// Whether the request may have reached the node although no answer came.
        may_have_arrived: bool,
    },
    /// The answer does not have the form that a node of this version gives it.
    #[error("{url} does not answer {method} as a Cairn node does: {reason}")]
    Malformed {
        /// Who was asked.
        url: String,
        /// The method called.
        method: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The node answers with an error.
    #[error("the node refuses {method}: {message}{}", hint(data))]
    Answer {
        /// The method called.
        method: &'static str,
        /// The error code: one of `ledger::api::code`, or one that JSON-RPC defines.
        code: i32,
        /// A text for people.
        message: String,
        /// The node's reason and hint, if it gave them.
        data: Option<Box<ErrorData>>,
    },
}

fn hint(data: &Option<Box<ErrorData>>) -> String {
    data.as_ref()
        .map_or_else(String::new, |data| format!(" ({})\nhint: {}", data.reason, data.hint))
}

impl RpcError {
    /// The error code, if the node answered with an error.
    pub(crate) const fn code(&self) -> Option<i32> {
        match self {
            Self::Answer { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the node answered that it does not keep the part of the chain that was asked for.
    pub(crate) fn is_not_kept(&self) -> bool {
        matches!(self, Self::Answer { code: api::code::NOT_KEPT, data: Some(data), .. }
            if data.reason == api::REASON_NOT_KEPT)
    }
}

/// A node, by its URL.
pub(crate) struct Node {
    url: String,
    agent: Agent,
}

/// A JSON-RPC response. The result stays text until its type is known: a tree of values would take
/// ten times the memory.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: i32,
    message: String,
    data: Option<Value>,
}

impl Node {
    /// Makes no connection yet.
    pub(crate) fn new(url: String) -> Self {
        let config = Agent::config_builder()
            // An answer with an error status is JSON too.
            .http_status_as_error(false)
            .max_redirects(0)
            // The node is usually on this machine: a proxy meant for the web must not see the
            // requests.
            .proxy(None)
            // A node may close an idle connection. A request on it would then look as if the node
            // were unreachable.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Self { url, agent: config.into() }
    }

    /// The node's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Calls a method with named parameters.
    ///
    /// # Errors
    /// `RpcError`.
    pub(crate) fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, RpcError> {
        self.call_waiting(method, params, Duration::ZERO)
    }

    /// Calls a method that the node may hold open for `wait` before it answers.
    ///
    /// # Errors
    /// `RpcError`.
    pub(crate) fn call_waiting<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        wait: Duration,
    ) -> Result<T, RpcError> {
        let body =
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(ANSWER_TIMEOUT.saturating_add(wait)))
            .build();
        let sent = request.header("content-type", "application/json").send(body);
        let mut response = sent.map_err(|error| self.failure(method, &error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(answer_bytes_max(method)).read_to_vec();
        let text = text.map_err(|error| self.failure(method, &error))?;
        let malformed = |reason: String| self.malformed(method, &reason);
        // A node that refuses a request before reading it answers in plain text.
        let not_json = |_| match clean(String::from_utf8_lossy(&text).trim()) {
            said if said.is_empty() => malformed(format!("HTTP {status}, not JSON-RPC 2.0")),
            said => malformed(format!("HTTP {status}, not JSON-RPC 2.0: {said}")),
        };
        let answer: Answer<'_> = serde_json::from_slice(&text).map_err(not_json)?;
        match answer {
            Answer { error: Some(AnswerError { code, message, data }), .. } => {
                let data = data.and_then(|data| serde_json::from_value::<ErrorData>(data).ok());
                let data = data.map(|data| {
                    let (reason, hint) = (clean(&data.reason), clean(&data.hint));
                    Box::new(ErrorData { reason, hint, ..data })
                });
                Err(RpcError::Answer { method, code, message: clean(&message), data })
            }
            Answer { result: Some(result), .. } => {
                serde_json::from_str(result.get()).map_err(|error| malformed(error.to_string()))
            }
            Answer { .. } => Err(malformed("neither result nor error".to_owned())),
        }
    }

    /// The error for an answer of the wrong shape.
    pub(crate) fn malformed(&self, method: &'static str, reason: &str) -> RpcError {
        RpcError::Malformed { url: self.url.clone(), method, reason: clean(reason) }
    }

    /// The genesis file that the node serves.
    ///
    /// # Errors
    /// `RpcError`.
    pub(crate) fn genesis(&self) -> Result<Value, RpcError> {
        self.call(api::CHAIN_GENESIS, json!({}))
    }

    fn failure(&self, method: &'static str, error: &Error) -> RpcError {
        let (reason, may_have_arrived) = match error {
            Error::Io(io) if not_connected(io) => (io.to_string(), false),
            Error::Io(io) => (io.to_string(), true),
            Error::HostNotFound => ("no such host".to_owned(), false),
            Error::ConnectionFailed => ("cannot connect".to_owned(), false),
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                ("cannot connect in time".to_owned(), false)
            }
            Error::Timeout(_) => ("no answer in time".to_owned(), true),
            Error::BodyExceedsLimit(max) => {
                return self.malformed(method, &format!("longer than {max} bytes"));
            }
            other => return self.malformed(method, &other.to_string()),
        };
        RpcError::Unreachable { url: self.url.clone(), reason, may_have_arrived }
    }
}

fn answer_bytes_max(method: &str) -> u64 {
    match method {
        api::CHAIN_GENESIS | api::CHAIN_BLOCK | api::TX_MEMPOOL => LARGE_ANSWER_BYTES_MAX,
        _ => ANSWER_BYTES_MAX,
    }
}

fn not_connected(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied
    )
}

/// A text from a node, made safe for a terminal: without control characters, and at most
/// [`SHOWN_CHARS_MAX`] long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}
