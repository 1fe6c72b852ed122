//! The methods of a node's socket for its operator: stop, the faults of a local network, and files.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fd::OwnedFd;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::files;
use crate::control::{Answer, AnswerWithFile, Failure, Methods, read};
use crate::network::{FaultPlan, Network, PeerId};
use crate::shared_files::SharedFiles;
use crate::view::faults_info;

/// What the operator can do with a running node.
#[derive(Default)]
pub(super) struct Operator {
    asked: Notify,
    /// Set once the network runs.
    network: OnceLock<Network>,
    /// Set once the files are open: `None` if they are off.
    files: OnceLock<Option<SharedFiles>>,
}

/// The parameters of a method without any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The parameters of `node_set_faults`: all faults, in place of the former ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    #[serde(default)]
    cut: Vec<String>,
    #[serde(default)]
    latency_ms: BTreeMap<String, u64>,
}

impl Operator {
    /// The network runs: faults can be set.
    pub(super) fn on_network(&self, network: Network) {
        // The network is started once.
        let _first = self.network.set(network);
    }

    /// The files are open, or off.
    pub(super) fn on_files(&self, files: Option<SharedFiles>) {
        // The files are opened once.
        let _first = self.files.set(files);
    }

    /// Resolves when the operator asks the node to stop.
    pub(super) async fn asked_to_stop(&self) {
        self.asked.notified().await;
    }

    fn answer(&self, method: &str, params: Value) -> Result<Value, Failure> {
        match method {
            "node_stop" => {
                let Nothing {} = read(params)?;
                self.asked.notify_one();
                Ok(Value::Null)
            }
            "node_set_faults" => {
                let plan = plan(read(params)?)?;
                self.network()?.set_faults(plan).map_err(Failure::failed)?;
                Ok(Value::Null)
            }
            "node_faults" => {
                let Nothing {} = read(params)?;
                let plan = self.network()?.faults().borrow().clone();
                Ok(json!(faults_info(&plan)))
            }
            _ => Err(Failure::unknown_method(method)),
        }
    }

    fn network(&self) -> Result<&Network, Failure> {
        self.network.get().ok_or_else(|| Failure::failed("the node is still starting"))
    }
}

impl Methods for Operator {
    fn call(&self, method: &str, params: Value) -> Answer {
        let answer = self.answer(method, params);
        Box::pin(async { answer })
    }

    fn call_with_file(&self, method: &str, params: Value, file: Option<OwnedFd>) -> AnswerWithFile {
        let starting = || Some(Err(Failure::failed("the node is still starting")));
        let called = match self.files.get() {
            Some(store) => files::call(store.as_ref(), method, &params, file),
            None => method.strip_prefix("files_").and_then(|_| starting()),
        };
        match called {
            Some(Ok(answer)) => answer,
            Some(Err(failure)) => Box::pin(async { Err(failure) }),
            None => {
                let answer = self.call(method, params);
                Box::pin(async { answer.await.map(|value| (value, None)) })
            }
        }
    }
}

fn plan(faults: Faults) -> Result<FaultPlan, Failure> {
    let peer = |text: &String| {
        text.parse::<PeerId>()
            .map_err(|error| Failure::bad_params(format!("{text:?} is no peer id: {error}")))
    };
    let latency = |(id, ms): (&String, &u64)| peer(id).map(|id| (id, Duration::from_millis(*ms)));
    Ok(FaultPlan {
        cut: faults.cut.iter().map(peer).collect::<Result<_, _>>()?,
        latency: faults.latency_ms.iter().map(latency).collect::<Result<_, _>>()?,
    })
}

/// An operator, shared by the socket and the reasons to stop.
pub(super) fn new() -> Arc<Operator> {
    Arc::new(Operator::default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_request_to_stop_is_kept_until_somebody_waits_for_it() {
        let operator = new();
        assert!(operator.asked_to_stop().now_or_never().is_none());
        for _ in 0..2 {
            assert_eq!(operator.answer("node_stop", json!({})), Ok(Value::Null));
        }
        assert!(operator.asked_to_stop().now_or_never().is_some());
    }

    #[test]
    fn wrong_requests_say_what_is_wrong() {
        let operator = new();
        let peer = PeerId::random().to_string();
        for (method, params, part) in [
            ("node_start", json!({}), "no method \"node_start\""),
            ("node_stop", json!({"now": true}), "unknown field `now`"),
            ("node_set_faults", json!({"cut": ["x"]}), "\"x\" is no peer id"),
            ("node_set_faults", json!({"latency_ms": {"x": 1}}), "\"x\" is no peer id"),
            ("node_set_faults", json!({"cut": [], "latency": {}}), "unknown field `latency`"),
            ("node_set_faults", json!({"latency_ms": {peer: -1}}), "invalid value"),
            ("node_set_faults", json!({}), "still starting"),
            ("node_faults", json!({}), "still starting"),
        ] {
            let failure = operator.answer(method, params.clone()).unwrap_err();
            assert!(failure.message.contains(part), "{method} {params}: {failure}");
        }
    }
}
