//! Asks a node: JSON-RPC 2.0 over HTTP, one question per connection.
//!
//! What comes back is bounded in size and time and otherwise believed in nothing: see `trust`.

use std::io;
use std::time::Duration;

use ledger::api::{self, ErrorData};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use ureq::{Agent, Error, Timeout};

/// Longest time to find the node and connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for a whole question, beyond what the node is asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that is a genesis or a block: twice the most that a node answers.
const LARGE_ANSWER_BYTES_MAX: u64 = 32 << 20;
/// Most bytes of any other answer. The largest has a certificate of 256 signatures and a proof, less than 100 KB in all.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Most characters of a node's text that are shown.
const SHOWN_CHARS_MAX: usize = 300;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// Nobody answers, or not in time.
    #[error(
        "no answer from the node at {url}: {reason}\n\
         hint: is it running there? Another one is named by --rpc URL or CAIRN_WALLET_RPC"
    )]
    Unreachable {
        /// Who was asked.
        url: String,
        /// What happened.
        reason: String,
        /// Whether the question may have reached the node all the same.
        may_have_arrived: bool,
    },
    /// Something answers that is no node, or one of another version.
    #[error("{url} does not answer {method} as a node does: {reason}")]
    Malformed {
        /// Who was asked.
        url: String,
        /// What was asked.
        method: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The node answers with an error.
    #[error("the node refuses {method}: {message}{}", hint(data))]
    Answer {
        /// What was asked.
        method: &'static str,
        /// One of `ledger::api::code` or of JSON-RPC itself.
        code: i32,
        /// For people.
        message: String,
        /// Reason and hint, if it gave them.
        data: Option<ErrorData>,
    },
}

fn hint(data: &Option<ErrorData>) -> String {
    data.as_ref().map_or_else(String::new, |data| format!(" ({})\nhint: {}", data.reason, data.hint))
}

impl RpcError {
    /// The code of an error answer.
    pub(crate) const fn code(&self) -> Option<i32> {
        match self {
            Self::Answer { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A node, by its URL.
pub(crate) struct Node {
    url: String,
    agent: Agent,
}

/// The result stays text until its type is known: a tree of values would take ten times the memory.
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
    /// Connects to nobody yet.
    pub(crate) fn new(url: String) -> Self {
        let config = Agent::config_builder()
            // Errors are JSON too.
            .http_status_as_error(false)
            .max_redirects(0)
            // The node is usually on this machine: a proxy meant for the web must not see what is asked.
            .proxy(None)
            // A kept connection that the node closes meanwhile would look like an unreachable node.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Self { url, agent: config.into() }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Asks with parameters by name.
    ///
    /// # Errors
    /// `RpcError`.
    pub(crate) fn call<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, RpcError> {
        self.call_waiting(method, params, Duration::ZERO)
    }

    /// Asks a question that the node may take this long to answer.
    ///
    /// # Errors
    /// `RpcError`.
    pub(crate) fn call_waiting<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        wait: Duration,
    ) -> Result<T, RpcError> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let request =
            self.agent.post(&self.url).config().timeout_global(Some(ANSWER_TIMEOUT.saturating_add(wait))).build();
        let sent = request.header("content-type", "application/json").send(body);
        let mut response = sent.map_err(|error| self.failure(method, &error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(answer_bytes_max(method)).read_to_vec();
        let text = text.map_err(|error| self.failure(method, &error))?;
        let malformed = |reason: String| self.malformed(method, &reason);
        // A node that refuses a request before it reads it says why in plain text.
        let not_json = |_| match clean(String::from_utf8_lossy(&text).trim()) {
            said if said.is_empty() => malformed(format!("HTTP {status}, not JSON-RPC 2.0")),
            said => malformed(format!("HTTP {status}, not JSON-RPC 2.0: {said}")),
        };
        let answer: Answer<'_> = serde_json::from_slice(&text).map_err(not_json)?;
        match answer {
            Answer { error: Some(AnswerError { code, message, data }), .. } => {
                let data = data.and_then(|data| serde_json::from_value::<ErrorData>(data).ok());
                let data = data.map(|data| ErrorData { reason: clean(&data.reason), hint: clean(&data.hint), ..data });
                Err(RpcError::Answer { method, code, message: clean(&message), data })
            }
            Answer { result: Some(result), .. } => {
                serde_json::from_str(result.get()).map_err(|error| malformed(error.to_string()))
            }
            Answer { .. } => Err(malformed("neither result nor error".to_owned())),
        }
    }

    /// An answer of the wrong shape.
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
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => ("cannot connect in time".to_owned(), false),
            Error::Timeout(_) => ("it takes too long".to_owned(), true),
            Error::BodyExceedsLimit(max) => return self.malformed(method, &format!("longer than {max} bytes")),
            other => return self.malformed(method, &other.to_string()),
        };
        RpcError::Unreachable { url: self.url.clone(), reason, may_have_arrived }
    }
}

fn answer_bytes_max(method: &str) -> u64 {
    match method {
        api::CHAIN_GENESIS | api::CHAIN_BLOCK => LARGE_ANSWER_BYTES_MAX,
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

/// A stranger's text, fit for a terminal: no control characters, not too long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}
