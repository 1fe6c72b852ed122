//! Names and sizes of everything that is sent over a connection. All nodes of a chain must agree on
//! them.

use libp2p::StreamProtocol;
use libp2p::gossipsub::{IdentTopic, TopicHash};

/// Largest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Largest response, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// Largest control frame of a link, in bytes.
pub const LINK_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Largest data frame of a link, in bytes: the largest chunk that a genesis may ask for, and 64
/// bytes to identify it.
pub const LINK_DATA_BYTES_MAX: usize = (1 << 20) + 64;

/// Limit of one gossip frame, in bytes.
///
/// The decoder compares the size of its whole read buffer, a frame and the start of the next one,
/// with this limit. When the buffer is larger, the decoder stops reading the stream, silently and
/// for good. So the limit is twice the largest payload and 64 KiB more.
pub(crate) const TRANSMIT_BYTES_MAX: usize = 2 * Topic::Consensus.bytes_max() + (64 << 10);

/// Limit of the control part (IHAVE, IWANT, subscriptions) of one gossip frame, in bytes.
///
/// A peer that receives more stops reading that stream, silently. One IHAVE may hold 5,000 ids of
/// [`MESSAGE_ID_BYTES`] and 2 bytes of framing each: 110,000 bytes.
pub(crate) const CONTROL_BYTES_MAX: usize = 256 << 10;

/// Length of a gossip message id, in bytes: a truncated SHA-256 of topic and payload. An attacker
/// needs about 2^80 hashes to find two payloads with the same id. It could then only hide one
/// gossip message behind another.
pub(crate) const MESSAGE_ID_BYTES: usize = 20;

/// The kinds of gossip, each with its own topic, queue and size limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Votes and proposals. A proposal lists up to about 11,000 transaction hashes of 32 bytes.
    Consensus,
    /// New certified headers.
    Headers,
    /// Batches of transactions, made by the node that received them first.
    Transactions,
}

impl Topic {
    /// All topics, the most urgent first.
    pub const ALL: [Topic; 3] = [Topic::Consensus, Topic::Headers, Topic::Transactions];

    /// Largest payload of the topic, in bytes. A larger one is rejected and lowers its sender's
    /// score.
    pub const fn bytes_max(self) -> usize {
        match self {
            Topic::Consensus => 512 << 10,
            Topic::Headers => 128 << 10,
            Topic::Transactions => 64 << 10,
        }
    }

    /// Name in topic names, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::Consensus => "consensus",
            Topic::Headers => "headers",
            Topic::Transactions => "transactions",
        }
    }

    /// Place in [`Topic::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// The two streams of a link in each direction. With two, a short message need not wait until a
/// chunk is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Short, urgent messages.
    Control,
    /// Bulk data: chunks.
    Data,
}

impl Lane {
    pub(crate) const ALL: [Lane; 2] = [Lane::Control, Lane::Data];

    /// Largest frame, in bytes. A peer that announces a larger one loses its link.
    pub(crate) const fn bytes_max(self) -> usize {
        match self {
            Lane::Control => LINK_MESSAGE_BYTES_MAX,
            Lane::Data => LINK_DATA_BYTES_MAX,
        }
    }

    /// Name in metrics and logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Lane::Control => "control",
            Lane::Data => "data",
        }
    }

    /// Place in [`Lane::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Version of the protocols except those of links, at the end of each name. Nodes of different
/// versions have none of these names in common.
const VERSION: u32 = 2;

/// Version of the protocols of links. Nodes whose links have another version still share gossip and
/// requests.
const LINK_VERSION: u32 = 3;

/// The protocol names of a chain as text, for programs that speak libp2p themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolNames {
    /// Identify's protocol version.
    pub version: String,
    /// Kademlia.
    pub kad: String,
    /// Request/response.
    pub exchange: String,
    /// The two streams of a link: messages, chunks.
    pub links: [String; 2],
}

/// The protocol names of a chain, given its identifier in hex.
#[must_use]
pub fn protocol_names(chain: &str) -> ProtocolNames {
    let Names { version, kad, exchange, links, .. } = Names::new(chain);
    let [kad, exchange] = [kad, exchange].map(|name| name.to_string());
    ProtocolNames { version, kad, exchange, links: links.map(|name| name.to_string()) }
}

/// The names that one chain uses. Nodes of different chains have none in common.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Identify's protocol version: a peer with another one is on another chain.
    pub(crate) version: String,
    /// Of Kademlia.
    pub(crate) kad: StreamProtocol,
    /// Of request/response.
    pub(crate) exchange: StreamProtocol,
    /// Of links, in the order of [`Lane::ALL`].
    pub(crate) links: [StreamProtocol; 2],
    /// Of the topics, in the order of [`Topic::ALL`].
    pub(crate) topics: [IdentTopic; 3],
}

impl Names {
    pub(crate) fn new(chain: &str) -> Self {
        let protocol = |part: &str, version: u32| {
            StreamProtocol::try_from_owned(format!("/cairn/{chain}/{part}/{version}"))
                .expect("invariant: a protocol name that begins with a slash is valid")
        };
        Self {
            version: format!("/cairn/{chain}/{VERSION}"),
            kad: protocol("kad", VERSION),
            exchange: protocol("exchange", VERSION),
            links: ["sync", "chunks"].map(|lane| protocol(lane, LINK_VERSION)),
            topics: Topic::ALL
                .map(|topic| IdentTopic::new(format!("/cairn/{chain}/{}/{VERSION}", topic.name()))),
        }
    }

    /// The topic of a received message, if it is one of ours.
    pub(crate) fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| self.topics[topic.index()].hash() == *hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_the_chain_and_differ() {
        let (ours, theirs) = (Names::new("aa"), Names::new("bb"));
        assert_eq!(ours.exchange.as_ref(), "/cairn/aa/exchange/2");
        assert_eq!(ours.kad.as_ref(), "/cairn/aa/kad/2");
        assert_eq!(
            ours.links.each_ref().map(StreamProtocol::as_ref),
            ["/cairn/aa/sync/3", "/cairn/aa/chunks/3"]
        );
        assert_ne!(ours.version, theirs.version);
        for topic in Topic::ALL {
            assert_eq!(Topic::ALL[topic.index()], topic);
            let hash = ours.topics[topic.index()].hash();
            assert_eq!(ours.topic(&hash), Some(topic));
            assert_eq!(theirs.topic(&hash), None);
        }
    }

    /// Beyond these limits a peer stops reading without an error: see the constants.
    #[test]
    fn frame_limits_leave_room() {
        for topic in Topic::ALL {
            assert!(2 * topic.bytes_max() <= TRANSMIT_BYTES_MAX, "{topic:?}");
        }
        const IDS_MAX: usize = 5_000;
        const { assert!(IDS_MAX * (MESSAGE_ID_BYTES + 2) + 1_000 <= CONTROL_BYTES_MAX) };
        const { assert!(CONTROL_BYTES_MAX < TRANSMIT_BYTES_MAX) };
    }
}
