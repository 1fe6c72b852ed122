//! The methods of a node's socket for its operator: stop, the known nodes, searches, files, and the
//! faults of a local network.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ledger::hash::Hash;
use ledger::units::Height;
use protocol::eras::Era;
use protocol::holder::Holder;
use protocol::search::Wanted;
use rustix::fd::OwnedFd;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};

use super::files;
use crate::control::{Answer, AnswerWithFile, Failure, Methods, read};
use crate::driver::find::{FindError, Found, Searched, ToFind};
use crate::network::{FaultPlan, Multiaddr, Network, PeerId, without_peer};
use crate::nodes::known_nodes;
use crate::shared_files::SharedFiles;
use crate::view::{View, faults_info};

/// What the operator can do with a running node.
#[derive(Default)]
pub(super) struct Operator {
    asked: Notify,
    /// Set once the network runs.
    network: OnceLock<Network>,
    /// Set once the node's parts run.
    view: OnceLock<View>,
    /// Set once searches are served.
    find: OnceLock<mpsc::Sender<ToFind>>,
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

/// The parameters of `node_find`: one of the first three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    era: Option<u64>,
    block: Option<u64>,
    file: Option<String>,
    #[serde(default)]
    flood: bool,
}

impl Search {
    fn searched(self) -> Result<Searched, Failure> {
        match (self.era, self.block, self.file) {
            (Some(era), None, None) => Ok(Searched::Wanted(Wanted::Era(Era(era)))),
            (None, Some(height), None) => Ok(Searched::Block(Height(height))),
            (None, None, Some(id)) => id
                .parse::<Hash>()
                .map(|id| Searched::Wanted(Wanted::File(id)))
                .map_err(|error| Failure::bad_params(format!("{id:?} is no id: {error}"))),
            _ => Err(Failure::bad_params("one of era, block and file is expected")),
        }
    }
}

impl Operator {
    /// Searches are served.
    pub(super) fn on_find(&self, find: mpsc::Sender<ToFind>) {
        // It is started once.
        let _first = self.find.set(find);
    }

    /// Begins a search. Returns the way of its result.
    fn search(&self, params: Value) -> Result<SearchResult, Failure> {
        let search = read::<Search>(params)?;
        let (floods, searched) = (search.flood, search.searched()?);
        let find = self.find.get().ok_or_else(|| Failure::failed("the node is still starting"))?;
        let (reply, result) = oneshot::channel();
        find.try_send(ToFind::Search { searched, floods, reply })
            .map_err(|_| Failure::failed("the node is busy with other searches"))?;
        Ok(result)
    }

    /// The network runs: faults can be set.
    pub(super) fn on_network(&self, network: Network) {
        // The network is started once.
        let _first = self.network.set(network);
    }

    /// The node's parts run: it can be asked what it knows.
    pub(super) fn on_view(&self, view: View) {
        // They are started once.
        let _first = self.view.set(view);
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
        match method {
            "node_nodes" => {
                let asked = read(params).and_then(|Nothing {}| self.network().cloned());
                let view = self.view.get().cloned();
                Box::pin(async move { Ok(json!(known_nodes(&asked?, view.as_ref()).await)) })
            }
            "node_find" => {
                let search = self.search(params);
                Box::pin(async move { found(search?).await })
            }
            _ => {
                let answer = self.answer(method, params);
                Box::pin(async { answer })
            }
        }
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

/// The way of a search's result.
type SearchResult = oneshot::Receiver<Result<Found, FindError>>;

async fn found(result: SearchResult) -> Result<Value, Failure> {
    let found = result.await.map_err(|_| Failure::failed("the node is stopping"))?;
    let Found { holders, hops, messages, time } = found.map_err(Failure::failed)?;
    let holders: Vec<Value> = holders.iter().map(holder).collect();
    Ok(json!({"holders": holders, "hops": hops, "messages": messages, "ms": time.as_millis()}))
}

/// A holder for people: its addresses are without its id. What does not decode is left out.
fn holder(holder: &Holder) -> Value {
    let addresses = holder.addresses().iter();
    let addresses = addresses.filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
    let addresses: Vec<String> =
        addresses.map(|address| without_peer(&address).to_string()).collect();
    let peer = PeerId::from_bytes(holder.id()).ok().map(|id| id.to_string());
    json!({"peer": peer, "addresses": addresses})
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
            ("node_find", json!({"era": 1}), "still starting"),
            ("node_find", json!({}), "one of era, block and file"),
            ("node_find", json!({"era": 1, "block": 2}), "one of era, block and file"),
            ("node_find", json!({"file": "abc"}), "\"abc\" is no id"),
            ("node_find", json!({"name": "x"}), "unknown field `name`"),
        ] {
            let answer = operator.call(method, params.clone()).now_or_never().unwrap();
            let failure = answer.unwrap_err();
            assert!(failure.message.contains(part), "{method} {params}: {failure}");
        }
    }
}
