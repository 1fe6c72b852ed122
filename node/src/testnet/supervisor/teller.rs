//! Tells a node the faults of its links, over the socket in its home.
//!
//! A node is told its whole state, again after each start. So a message that is lost or comes twice
//! does no harm, and only the last state counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::control::Client;

/// Longest time that a node may take to answer: far more than it needs, as machines are busy.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Time after which a node that did not answer is told again. It doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(25);
const RETRY_MAX: Duration = Duration::from_millis(400);
/// Longest time until a node has confirmed its faults.
const CONFIRM_MAX: Duration = Duration::from_secs(30);

/// The task that tells one node. It ends when this is dropped.
pub(super) struct Teller {
    wanted: watch::Sender<Wanted>,
    told: watch::Receiver<Told>,
}

/// What the node must know.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// Counts the states that were wanted.
    number: u64,
    /// Parameters of `node_set_faults`; `None` while the node does not run.
    faults: Option<Value>,
}

/// What the node has confirmed.
#[derive(Clone, Debug, Default)]
struct Told {
    number: u64,
    /// Why the last attempt failed.
    error: Option<String>,
}

/// Faults that a node has yet to confirm.
#[derive(Clone)]
pub(super) struct Unconfirmed {
    number: u64,
    told: watch::Receiver<Told>,
}

impl Teller {
    pub(super) fn start(home: &Path) -> Self {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (sender, told) = watch::channel(Told::default());
        tokio::spawn(tell(home.to_owned(), receiver, sender));
        Self { wanted, told }
    }

    /// Tells the node these faults, in place of all before.
    pub(super) fn tell(&self, cut: &[&str], latency_ms: &[(&str, u32)]) -> Unconfirmed {
        let latency_ms: serde_json::Map<String, Value> =
            latency_ms.iter().map(|(peer, ms)| ((*peer).to_owned(), json!(ms))).collect();
        let number = self.want(Some(json!({ "cut": cut, "latency_ms": latency_ms })));
        Unconfirmed { number, told: self.told.clone() }
    }

    /// The node does not run, so there is nobody to tell.
    pub(super) fn pause(&self) {
        self.want(None);
    }

    fn want(&self, faults: Option<Value>) -> u64 {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            wanted.number += 1;
            wanted.faults = faults;
            number = wanted.number;
        });
        number
    }
}

impl Unconfirmed {
    /// Waits until the node has confirmed these faults or later ones. If the node has ended, there
    /// is nobody to confirm them, and the wait is over.
    ///
    /// # Errors
    /// Why the node has not confirmed them within [`CONFIRM_MAX`].
    pub(super) async fn confirmed(mut self) -> Result<(), String> {
        let number = self.number;
        let confirmed = self.told.wait_for(|told| told.number >= number);
        match timeout(CONFIRM_MAX, confirmed).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => return Err("the network stops".to_owned()),
            Err(_) => {}
        }
        let error = self.told.borrow().error.clone();
        Err(error.unwrap_or_else(|| "it does not answer".to_owned()))
    }
}

async fn tell(home: PathBuf, mut wanted: watch::Receiver<Wanted>, told: watch::Sender<Told>) {
    let mut pause = RETRY;
    loop {
        let Wanted { number, faults } = wanted.borrow_and_update().clone();
        let error = match faults {
            Some(faults) => match timeout(ANSWER_MAX, set(&home, faults)).await {
                Ok(answer) => answer.err(),
                Err(_) => Some("it does not answer".to_owned()),
            },
            None => None,
        };
        let is_done = error.is_none();
        told.send_modify(|told| {
            told.error = error;
            if is_done {
                told.number = number;
            }
        });
        // A node that did not answer may be about to start, so it is told again.
        let changed = match is_done {
            true => Some(wanted.changed().await),
            false => timeout(pause, wanted.changed()).await.ok(),
        };
        pause = if changed.is_some() { RETRY } else { RETRY_MAX.min(pause * 2) };
        if matches!(changed, Some(Err(_))) {
            return;
        }
    }
}

async fn set(home: &Path, faults: Value) -> Result<(), String> {
    let told = async {
        let mut client = Client::connect(home).await?;
        client.call::<Value>("node_set_faults", faults).await
    };
    told.await.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    use futures::FutureExt;

    use super::*;
    use crate::control::{Answer, Listener, Methods, serve};

    /// A node that confirms everything.
    #[derive(Default)]
    struct Node(Mutex<Vec<Value>>);

    impl Methods for Node {
        fn call(&self, method: &str, params: Value) -> Answer {
            assert_eq!(method, "node_set_faults");
            self.0.lock().unwrap().push(params);
            async { Ok(Value::Null) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_node_is_told_the_last_state_as_soon_as_it_is_there() {
        let home = tempfile::tempdir().unwrap();
        let teller = Teller::start(home.path());
        teller.tell(&["a"], &[]);
        tokio::task::yield_now().await;
        let last = teller.tell(&["b"], &[("c", 5)]);
        // The first attempt finds nobody.
        tokio::task::yield_now().await;
        let node = Arc::new(Node::default());
        let listener = Listener::bind(home.path()).unwrap();
        let serving = tokio::spawn(serve(listener, Arc::clone(&node) as _, pending()));
        last.clone().confirmed().await.unwrap();
        let told = node.0.lock().unwrap().last().cloned();
        assert_eq!(told, Some(json!({ "cut": ["b"], "latency_ms": { "c": 5 } })));
        serving.abort();
        last.confirmed().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_confirm_is_said_with_the_reason() {
        let home = tempfile::tempdir().unwrap();
        let teller = Teller::start(home.path());
        let waiting = teller.tell(&["a"], &[]);
        let error = waiting.clone().confirmed().await.unwrap_err();
        assert!(error.contains("nothing runs in"), "{error}");
        // There is nobody to tell once the node has ended.
        teller.pause();
        waiting.confirmed().await.unwrap();
    }
}
