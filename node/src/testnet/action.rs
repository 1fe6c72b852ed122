//! A change that a user makes to a running network: by a key of the screen, from another terminal,
//! or in a script.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The prefix of each method of a network's socket.
const METHODS: &str = "testnet_";

/// An action. Names of nodes are those of `ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Action {
    /// Cuts all links between nodes of different groups. A node in no group keeps all its links.
    Partition { groups: Vec<Vec<String>> },
    /// Cuts all links of a node.
    Isolate { node: String },
    /// Takes away all cuts and latency.
    Heal,
    /// Delays messages between two nodes, each way. `None` is for all pairs; 0 takes it away.
    Latency { between: Option<(String, String)>, ms: u32 },
    /// Ends a node at once, as a crash would.
    Kill { node: String },
    /// Starts a node again. One that runs is stopped first.
    Restart { node: String, binary: Option<PathBuf> },
    /// Adds a full node.
    Add,
    /// Sends transfers. 0 ends the load.
    Load { per_second: u32, node: Option<String> },
    /// Pays an amount of coins to an address.
    Faucet { address: String, amount: String },
    /// Ends the network.
    Stop,
}

impl Action {
    /// The method of the network's socket and its parameters.
    pub(super) fn to_call(&self) -> serde_json::Result<(String, Value)> {
        Ok(match serde_json::to_value(self)? {
            Value::Object(fields) if fields.len() == 1 => {
                let (name, params) = fields.into_iter().next().unwrap_or_default();
                (format!("{METHODS}{name}"), params)
            }
            name => (format!("{METHODS}{}", name.as_str().unwrap_or_default()), json!({})),
        })
    }

    /// Reads a call. `None` if there is no such method.
    pub(super) fn from_call(method: &str, params: Value) -> Option<serde_json::Result<Self>> {
        let name = method.strip_prefix(METHODS)?;
        let is_empty = |params: &Value| params.as_object().is_none_or(serde_json::Map::is_empty);
        let value = match name {
            "heal" | "add" | "stop" if is_empty(&params) => json!(name),
            "heal" | "add" | "stop" | "partition" | "isolate" | "latency" | "kill" | "restart"
            | "load" | "faucet" => json!({ name: params }),
            _ => return None,
        };
        Some(serde_json::from_value(value))
    }
}

/// As the command line says it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition { groups } => {
                let groups: Vec<String> = groups.iter().map(|group| group.join(",")).collect();
                write!(f, "partition {}", groups.join("/"))
            }
            Self::Isolate { node } => write!(f, "isolate {node}"),
            Self::Heal => f.write_str("heal"),
            Self::Latency { between: Some((a, b)), ms } => write!(f, "latency {a}-{b} {ms}ms"),
            Self::Latency { between: None, ms } => write!(f, "latency all {ms}ms"),
            Self::Kill { node } => write!(f, "kill {node}"),
            Self::Restart { node, binary: None } => write!(f, "restart {node}"),
            Self::Restart { node, binary: Some(binary) } => {
                write!(f, "restart {node} --binary {}", binary.display())
            }
            Self::Add => f.write_str("add"),
            Self::Load { per_second, node: None } => write!(f, "load {per_second}/s"),
            Self::Load { per_second, node: Some(node) } => {
                write!(f, "load {per_second}/s --node {node}")
            }
            Self::Faucet { address, amount } => write!(f, "faucet {address} {amount:?}"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn actions_pass_the_socket() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let binary = Some(PathBuf::from("/b"));
        for (action, method, text) in [
            (
                Action::Partition { groups: vec![names(&["node1", "node2"]), names(&["node3"])] },
                "testnet_partition",
                "partition node1,node2/node3",
            ),
            (Action::Isolate { node: "a".into() }, "testnet_isolate", "isolate a"),
            (Action::Heal, "testnet_heal", "heal"),
            (Action::Latency { between: None, ms: 5 }, "testnet_latency", "latency all 5ms"),
            (
                Action::Latency { between: Some(("a".into(), "b".into())), ms: 5 },
                "testnet_latency",
                "latency a-b 5ms",
            ),
            (Action::Kill { node: "a".into() }, "testnet_kill", "kill a"),
            (
                Action::Restart { node: "a".into(), binary },
                "testnet_restart",
                "restart a --binary /b",
            ),
            (Action::Add, "testnet_add", "add"),
            (Action::Load { per_second: 9, node: None }, "testnet_load", "load 9/s"),
            (
                Action::Faucet { address: "crn1".into(), amount: "1 CRN".into() },
                "testnet_faucet",
                "faucet crn1 \"1 CRN\"",
            ),
            (Action::Stop, "testnet_stop", "stop"),
        ] {
            let (called, params) = action.to_call().unwrap();
            assert_eq!((called.as_str(), action.to_string().as_str()), (method, text));
            assert!(params.is_object(), "{params}");
            assert_eq!(Action::from_call(&called, params).unwrap().unwrap(), action);
        }
        for (method, params) in [
            ("testnet_kill", json!({})),
            ("testnet_kill", json!({"node": 1})),
            ("testnet_kill", json!({"node": "a", "other": 1})),
            ("testnet_heal", json!({"node": "a"})),
        ] {
            assert!(Action::from_call(method, params).unwrap().is_err(), "{method}");
        }
        assert!(Action::from_call("testnet_none", json!({})).is_none());
        assert!(Action::from_call("heal", json!({})).is_none());
    }
}
