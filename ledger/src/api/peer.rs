//! Connected peers, their cost, and bans.

use serde::{Deserialize, Serialize};

use super::{decimal, decimal_option};

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// libp2p peer id.
    pub id: String,
    /// Address of the connection.
    pub address: String,
    /// Whether the peer dialed this node.
    pub inbound: bool,
    /// Agent string that the peer gives.
    pub agent: String,
    /// Last round-trip time in microseconds.
    pub ping_us: Option<u32>,
    /// Highest height that the peer has announced with a header and its certificate, if any. They
    /// are verified if the height was news to this node.
    #[serde(with = "decimal_option")]
    pub height: Option<u64>,
    /// Bytes sent to the peer on its connections, counted after encryption.
    #[serde(with = "decimal")]
    pub sent_bytes: u64,
    /// Bytes received from the peer on its connections, counted before decryption.
    #[serde(with = "decimal")]
    pub received_bytes: u64,
    /// What its messages and requests have cost this node.
    pub cost: PeerCost,
}

/// Estimated cost of the work that a peer has caused, in microseconds, except for `refused`. Each
/// kind of work has a constant price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCost {
    /// Budget that is left; below zero while the peer is in debt.
    pub left: i64,
    /// Charged for decoding messages.
    pub decode: u64,
    /// Charged for verifying signatures.
    pub verify: u64,
    /// Charged for look-ups in memory and reads of the store.
    pub look_up: u64,
    /// Charged for sending answers.
    pub answer: u64,
    /// Charged for passing on messages that were passed on before.
    pub relay: u64,
    /// Number of messages ignored and requests refused because the budget was spent.
    pub refused: u64,
}

/// A peer that may not connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    /// libp2p peer id.
    pub peer: String,
    /// Name of the offence, for programs.
    pub offence: String,
    /// End of the ban, in milliseconds since 1970.
    #[serde(with = "decimal")]
    pub until_ms: u64,
}
