//! Changes of a running network: cuts, latency, crashes, more nodes, load and money.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::control::LoadReport;
use crate::error::Error;
use crate::testnet::Testnet;

/// A payment by the network's faucet, final.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Paid {
    /// Id of the transfer.
    pub id: String,
    /// Height of its block.
    #[serde(deserialize_with = "height")]
    pub height: u64,
}

/// The answer of `add`.
#[derive(Deserialize)]
struct Added {
    node: String,
}

impl Testnet {
    /// Cuts all links between nodes of different groups. A node in no group keeps all its links.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn partition(&self, groups: &[&[&str]]) -> Result<&Self, Error> {
        let groups: Vec<String> = groups.iter().map(|group| group.join(",")).collect();
        self.tell(&["partition", &groups.join("/")])
    }

    /// Cuts all links of a node.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn isolate(&self, node: &str) -> Result<&Self, Error> {
        self.tell(&["isolate", node])
    }

    /// Takes away all cuts and latency.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn heal(&self) -> Result<&Self, Error> {
        self.tell(&["heal"])
    }

    /// Delays messages between all nodes by this time each way; zero takes the delay away.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn latency(&self, time: Duration) -> Result<&Self, Error> {
        self.tell(&["latency", "all", &format!("{}ms", time.as_millis())])
    }

    /// Delays messages between two nodes by this time each way; zero takes the delay away.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn latency_between(&self, a: &str, b: &str, time: Duration) -> Result<&Self, Error> {
        self.tell(&["latency", &format!("{a}-{b}"), &format!("{}ms", time.as_millis())])
    }

    /// Ends a node at once, as a crash would (kill -9).
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn kill(&self, node: &str) -> Result<&Self, Error> {
        self.tell(&["kill", node])
    }

    /// Starts a node again. One that runs is stopped first.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn restart(&self, node: &str) -> Result<&Self, Error> {
        self.tell(&["restart", node])
    }

    /// Starts a node again with another `cairn-node`, such as one of an older version.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn restart_with(&self, node: &str, program: &Path) -> Result<&Self, Error> {
        self.tell(&["restart", node, "--binary", &program.to_string_lossy()])
    }

    /// Adds a full node, and returns its name.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn add(&self) -> Result<String, Error> {
        self.control.read(&["add"], self.patience).map(|Added { node }| node)
    }

    /// Sends this many transfers a second until another call of this; 0 ends them.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn load(&self, per_second: u32) -> Result<&Self, Error> {
        self.tell(&["load", &format!("{per_second}/s")])
    }

    /// Sends this many transfers a second for this long, and measures how soon they are final.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn load_for(&self, per_second: u32, time: Duration) -> Result<LoadReport, Error> {
        let (rate, time_text) = (format!("{per_second}/s"), format!("{}ms", time.as_millis()));
        self.control.read(&["load", &rate, "--for", &time_text], time + self.patience)
    }

    /// Pays an amount such as `10 CRN` to an address from the network's own money. Returns once
    /// the transfer is final.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn faucet(&self, address: &str, amount: &str) -> Result<Paid, Error> {
        self.control.read(&["faucet", address, amount], self.patience)
    }
}

/// A height. The programs print it in JSON as text; a number is accepted too.
fn height<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(from)?;
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.ok_or_else(|| serde::de::Error::custom(format!("{} is no height", value)))
}
