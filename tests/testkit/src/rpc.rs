//! A node's JSON-RPC and its other HTTP pages.

use std::time::Duration;

use ledger::api::{self, AccountInfo, BlockInfo, Status, Submitted, TxInfo, TxStatus};
use ledger::codec;
use ledger::transaction::Transaction;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Timeout of a call, beyond the time for which the call itself asks the node to wait.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that a node waits for the sake of a call, whatever the call asks for.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A client of one node.
#[derive(Clone, Debug)]
pub struct Rpc {
    url: String,
    agent: ureq::Agent,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer, or an incomplete one.
    #[error("no whole answer: {0}")]
    Silent(String),
    /// An answer that is not JSON-RPC, a result of another shape, or a page whose status is not
    /// 200. The fields are the HTTP status and the text.
    #[error("HTTP status {0}, and no JSON-RPC: {1}")]
    Http(u16, String),
    /// A JSON-RPC error: code, reason for programs, message for people.
    #[error("refused: {2} (code {0}, reason {1:?})")]
    Refused(i64, String, String),
}

impl Failure {
    /// The code of a JSON-RPC error.
    #[must_use]
    pub const fn code(&self) -> Option<i64> {
        match self {
            Self::Refused(code, ..) => Some(*code),
            Self::Silent(_) | Self::Http(..) => None,
        }
    }
}

impl Rpc {
    /// A client of the node at this URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
        Self { url: url.to_owned(), agent: config.build().new_agent() }
    }

    /// The node's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts any bytes as a request body. Returns the HTTP status and the text of the answer.
    ///
    /// # Errors
    /// `Failure::Silent`.
    pub fn post(&self, content_type: &str, body: &[u8]) -> Result<(u16, String), Failure> {
        self.post_within(content_type, body, TIMEOUT)
    }

    fn post_within(
        &self,
        content_type: &str,
        body: &[u8],
        time: Duration,
    ) -> Result<(u16, String), Failure> {
        let silent = |error: ureq::Error| Failure::Silent(error.to_string());
        let request = self.agent.post(&self.url).config().timeout_global(Some(time)).build();
        let mut answer = request.content_type(content_type).send(body).map_err(silent)?;
        let text =
            answer.body_mut().with_config().limit(32 << 20).read_to_string().map_err(silent)?;
        Ok((answer.status().as_u16(), text))
    }

    /// The text at a path, such as `/metrics`.
    ///
    /// # Errors
    /// `Failure::Silent`, and `Failure::Http` for any status but 200.
    pub fn get(&self, path: &str) -> Result<String, Failure> {
        let silent = |error: ureq::Error| Failure::Silent(error.to_string());
        let request = self.agent.get(format!("{}{path}", self.url));
        let request = request.config().timeout_global(Some(TIMEOUT)).build();
        let mut answer = request.call().map_err(silent)?;
        let text = answer.body_mut().read_to_string().map_err(silent)?;
        if answer.status() == 200 {
            Ok(text)
        } else {
            Err(Failure::Http(answer.status().as_u16(), text))
        }
    }

    /// Calls a method with parameters by name.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<T, Failure> {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (json, body) = ("application/json", call.to_string());
        let (status, text) = self.post_within(json, body.as_bytes(), timeout(params))?;
        let mut answer: Value =
            serde_json::from_str(&text).map_err(|_| Failure::Http(status, text.clone()))?;
        if let Some(error) = answer.get("error") {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let code = error["code"].as_i64().unwrap_or_default();
            return Err(Failure::Refused(
                code,
                word(&error["data"]["reason"]),
                word(&error["message"]),
            ));
        }
        serde_json::from_value(answer["result"].take())
            .map_err(|error| Failure::Http(status, format!("{error}: {text}")))
    }

    /// The node's status.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn status(&self) -> Result<Status, Failure> {
        self.call(api::CHAIN_STATUS, &json!({}))
    }

    /// A final block.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn block(&self, height: u64) -> Result<BlockInfo, Failure> {
        self.call(api::CHAIN_BLOCK, &json!({"height": height.to_string()}))
    }

    /// An account, by its address or key.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn account(&self, account: &str) -> Result<AccountInfo, Failure> {
        self.call(api::ACCOUNT_GET, &json!({"account": account}))
    }

    /// Submits bytes as a transaction, and returns the transaction's id.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn submit_bytes(&self, bytes: &[u8]) -> Result<String, Failure> {
        let params = json!({"transaction": hex::encode(bytes)});
        self.call::<Submitted>(api::TX_SUBMIT, &params).map(|submitted| submitted.id)
    }

    /// Submits a transaction, and returns its id.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn submit(&self, transaction: &Transaction) -> Result<String, Failure> {
        self.submit_bytes(&codec::encode(transaction))
    }

    /// The node's record of a transaction, once the transaction is final or this much time has
    /// passed. A node waits at most 30 s.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn transaction(&self, id: &str, wait: Duration) -> Result<TxInfo, Failure> {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.call(api::TX_GET, &json!({"id": id, "wait_ms": wait}))
    }

    /// Whether the node reports a transaction final, within this time and at most 30 s.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn is_final(&self, id: &str, wait: Duration) -> Result<bool, Failure> {
        self.transaction(id, wait).map(|info| info.status == TxStatus::Final)
    }

    /// A value of `/metrics` without labels.
    ///
    /// # Panics
    /// When the node does not answer or has no such metric.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let text =
            self.get("/metrics").unwrap_or_else(|failure| panic!("{}: {failure:?}", self.url));
        let number = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines()
            .find_map(number)
            .unwrap_or_else(|| panic!("no {name} in /metrics of {}", self.url))
    }
}

/// Timeout of a call with these parameters.
fn timeout(params: &Value) -> Duration {
    let asked = Duration::from_millis(params["wait_ms"].as_u64().unwrap_or(0));
    TIMEOUT + asked.min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_come_after_the_time_for_which_the_node_waits() {
        for (params, seconds) in [
            (json!({}), 30),
            (json!({"id": "7", "wait_ms": 0}), 30),
            (json!({"wait_ms": 10_000}), 40),
            (json!({"wait_ms": 30_000}), 60),
            (json!({"wait_ms": u64::MAX}), 60),
        ] {
            assert_eq!(timeout(&params), Duration::from_secs(seconds), "{params}");
        }
    }
}
