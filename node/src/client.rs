//! A blocking RPC client for a running node, for commands such as `cairn-node status`.

use std::io;
use std::time::Duration;

use ledger::api::{self, ErrorData, PeerInfo, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Most bytes of an answer: the largest that a node sends, and room for the JSON around it.
const ANSWER_BYTES_MAX: u64 = 17 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be that of a node.
    #[error("not the URL of a node: {url:?}; expected something like http://127.0.0.1:7701")]
    Url {
        /// The URL given.
        url: String,
    },
    /// No answer arrived.
    #[error("cannot reach a node at {url}: {reason}")]
    Unreachable {
        /// The node's URL.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The answer is not a node's.
    #[error("{url} does not answer like a Cairn node: {reason}")]
    NotANode {
        /// The URL.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The node answered with an error.
    #[error(
        "{message}{}",
        data.as_ref().map(|data| format!(" ({})", data.hint)).unwrap_or_default()
    )]
    Answer {
        /// A code of JSON-RPC or of `ledger::api::code`.
        code: i32,
        /// What is wrong, for people.
        message: String,
        /// Reason for programs and hint for people.
        data: Option<ErrorData>,
    },
}

impl ClientError {
    /// Whether no answer arrived. A retry may help.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A client of one node. Its calls block the thread, so the node itself must not use it.
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: i32,
    message: String,
    #[serde(default)]
    data: Option<Value>,
}

impl Client {
    /// A client of the node at this URL, such as `http://127.0.0.1:7701`. Connects with the first
    /// call. A call fails after `timeout`.
    ///
    /// # Errors
    /// `ClientError::Url` unless the URL is `http://`, a host and perhaps a port.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, ClientError> {
        let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])) {
            return Err(ClientError::Url { url: url.to_owned() });
        }
        // No proxy: the environment variables that name one are meant for the web, and the node is
        // usually on this machine.
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_MAX.min(timeout)))
            .timeout_global(Some(timeout))
            .build();
        Ok(Self { agent: config.new_agent(), url: url.to_owned() })
    }

    /// The node's status.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        self.call(api::CHAIN_STATUS, json!({}))
    }

    /// The node's connected peers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn peers(&self) -> Result<Vec<PeerInfo>, ClientError> {
        self.call(api::NET_PEERS, json!({}))
    }

    /// Calls a method with named parameters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<T, ClientError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": json!(params)});
        let call =
            self.agent.post(&self.url).content_type("application/json").send(request.to_string());
        let mut response = call.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.unreachable(error))?;
        let envelope: Envelope =
            serde_json::from_str(&text).map_err(|_| self.not_a_node(status.as_u16(), &text))?;
        match envelope {
            Envelope { error: Some(failure), .. } => {
                let data = failure.data.and_then(|data| serde_json::from_value(data).ok());
                Err(ClientError::Answer { code: failure.code, message: failure.message, data })
            }
            Envelope { result: Some(result), .. } => {
                serde_json::from_value(result).map_err(|error| {
                    let reason = format!("{method}: {error}; is the node of another version?");
                    ClientError::NotANode { url: self.url.clone(), reason }
                })
            }
            Envelope { .. } => Err(self.not_a_node(status.as_u16(), &text)),
        }
    }

    fn unreachable(&self, error: ureq::Error) -> ClientError {
        let reason = match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection refused; is it running?".to_owned()
            }
            ureq::Error::HostNotFound => "there is no host of this name".to_owned(),
            ureq::Error::Timeout(_) => "no answer in time".to_owned(),
            error => error.to_string(),
        };
        ClientError::Unreachable { url: self.url.clone(), reason }
    }

    fn not_a_node(&self, status: u16, text: &str) -> ClientError {
        let start: String = text.trim().chars().take(200).collect();
        ClientError::NotANode { url: self.url.clone(), reason: format!("status {status}: {start}") }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn urls() {
        for (url, valid) in [
            ("http://127.0.0.1:7701", true),
            ("http://[::1]:7701/", true),
            ("http://node.example", true),
            ("https://node.example", false),
            ("127.0.0.1:7701", false),
            ("http://", false),
            ("http://host/path", false),
            ("", false),
        ] {
            assert_eq!(Client::new(url, TIMEOUT).is_ok(), valid, "{url}");
        }
    }

    /// The outcome of a call to a server that answers with this status and body.
    fn ask(status: &str, body: &str) -> Result<Vec<PeerInfo>, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(br#""params":{}}"#) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let outcome = Client::new(&url, TIMEOUT).unwrap().peers();
        server.join().unwrap();
        outcome
    }

    #[test]
    fn tells_apart_who_answers_and_how() {
        assert_eq!(ask("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":[]}"#).unwrap(), Vec::new());
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32003,"message":"busy",
            "data":{"reason":"r","hint":"wait"}}}"#;
        let error = ask("200 OK", error).unwrap_err();
        assert!(matches!(error, ClientError::Answer { code: -32_003, .. }));
        assert_eq!(error.to_string(), "busy (wait)");
        for (status, body) in [
            ("404 Not Found", "nothing here"),
            ("403 Forbidden", "host is not allowed"),
            ("302 Found", ""),
            ("200 OK", r#"{"jsonrpc":"2.0","id":1}"#),
            ("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":{"unexpected":true}}"#),
        ] {
            assert!(
                matches!(ask(status, body), Err(ClientError::NotANode { .. })),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Client::new(&format!("http://{port}"), TIMEOUT).unwrap().status().unwrap_err();
        assert!(error.is_unreachable());
        assert!(error.to_string().contains("is it running?"), "{error}");
    }
}
