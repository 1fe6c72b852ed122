//! Gossipsub, configured so that it neither stalls nor penalizes honest peers.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, DataTransform, MaxCountSubscriptionFilter, Message,
    MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, PublishError, RawMessage,
    TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    score_parameter_decay,
};
use sha2::{Digest, Sha256};

use super::wire::{CONTROL_BYTES_MAX, MESSAGE_ID_BYTES, Names, TRANSMIT_BYTES_MAX, Topic};

/// Most messages that wait for one slow peer. [`Traffic`](super::traffic::Traffic) bounds their
/// bytes.
const QUEUE_MESSAGES: usize = 256;

/// How long a message may wait for a slow connection. Sending a proposal to six peers over 10
/// Mbit/s takes 2.5 s.
pub(crate) const QUEUE_TIME: Duration = Duration::from_secs(10);

/// How long a message is kept for peers that ask for it. Gossipsub counts this time in heartbeats
/// of one second.
pub(crate) const CACHE_TIME: Duration = Duration::from_secs(5);

/// How often one peer may ask for the same message and get it. Each answer puts one more copy into
/// our queue for that peer, which fills up if the peer does not read.
const ASKED_MAX: u32 = 1;

/// Most messages in a received frame. Gossipsub sends one at a time. Many tiny messages in a frame
/// would cost us more work than they cost the sender.
const FRAME_MESSAGES_MAX: usize = 16;

/// Our own messages about consensus go to all peers at once up to this size, not only to those of
/// the mesh.
///
/// Votes are among them. They must reach all validators within half a second, and strangers that
/// fill the mesh and forward nothing must not delay them. A vote has some 200 bytes, so 128 peers
/// cost 25 KiB. A proposal of 512 KiB would cost 64 MiB.
const FLOOD_BYTES_MAX: usize = 4 << 10;

/// The score of a named peer. All others have zero, or less after rejected messages.
pub(crate) const NAMED_SCORE: f64 = 1.0;

/// How often named peers are added to a mesh that has few of them, in heartbeats of a second.
const NAMED_TICKS: u64 = 5;

/// Gossipsub with our size check and only our topics.
pub(crate) type Gossipsub =
    Behaviour<Bounds, MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>>;

/// Sizes of the mesh of a topic: the peers to which each message is pushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mesh {
    pub(crate) target: usize,
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) outbound_min: usize,
}

impl Mesh {
    /// For networks of any size.
    pub(crate) const NORMAL: Mesh = Mesh { target: 6, low: 5, high: 12, outbound_min: 2 };
    /// For a handful of nodes.
    pub(crate) const SMALL: Mesh = Mesh { target: 3, low: 2, high: 4, outbound_min: 1 };
}

/// Refuses a message of an unknown topic or over its topic's size limit, before gossipsub caches
/// it, counts it as seen or queues it. The sender is penalized as for any invalid message.
pub(crate) struct Bounds {
    topics: Vec<(TopicHash, usize)>,
}

impl DataTransform for Bounds {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<Message> {
        let bytes_max =
            self.topics.iter().find_map(|(hash, max)| (*hash == raw.topic).then_some(*max));
        match bytes_max {
            Some(max) if raw.data.len() <= max => Ok(Message {
                source: raw.source,
                data: raw.data,
                sequence_number: raw.sequence_number,
                topic: raw.topic,
            }),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "payload is larger than its topic allows",
            )),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "unknown topic")),
        }
    }

    fn outbound_transform(&self, _topic: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

/// The id is a hash of the content. So the same payload from two peers is one message, and no
/// signature is needed.
fn message_id(message: &Message) -> MessageId {
    let mut hasher = Sha256::new();
    // A topic name holds no zero byte, so topic and payload cannot be confused.
    hasher.update(message.topic.as_str());
    hasher.update([0]);
    hasher.update(&message.data);
    MessageId::new(&hasher.finalize()[..MESSAGE_ID_BYTES])
}

/// Builds gossipsub for a chain, subscribed to all topics. A message waits for a slow connection at
/// most for `queue_time`.
pub(crate) fn behaviour(
    names: &Names,
    mesh: Mesh,
    private: bool,
    queue_time: Duration,
) -> Result<Gossipsub, String> {
    let hashes = Topic::ALL.map(|topic| names.topics[topic.index()].hash());
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        // [`publish`] itself sends small messages about consensus to all peers.
        .flood_publish(false)
        .history_length(usize::try_from(CACHE_TIME.as_secs()).unwrap_or(usize::MAX))
        .gossip_retransimission(ASKED_MAX)
        .max_publish_messages(FRAME_MESSAGES_MAX)
        .max_transmit_size(TRANSMIT_BYTES_MAX)
        .max_control_message_size(CONTROL_BYTES_MAX)
        .mesh_n(mesh.target)
        .mesh_n_low(mesh.low)
        .mesh_n_high(mesh.high)
        .mesh_outbound_min(mesh.outbound_min)
        // When a mesh is too large, the peers with the highest scores stay in it: the named ones.
        .retain_scores(mesh.target)
        .opportunistic_graft_ticks(NAMED_TICKS)
        .connection_handler_queue_len(QUEUE_MESSAGES)
        .publish_queue_duration(queue_time)
        .forward_queue_duration(queue_time)
        .heartbeat_initial_delay(Duration::from_secs(1))
        .build()
        .map_err(|error| error.to_string())?;
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(hashes.iter().cloned().collect()),
        max_subscribed_topics: Topic::ALL.len(),
        max_subscriptions_per_request: 4 * Topic::ALL.len(),
    };
    let bounds =
        Bounds { topics: hashes.iter().cloned().zip(Topic::ALL.map(Topic::bytes_max)).collect() };
    let mut gossip = Gossipsub::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Anonymous,
        config,
        filter,
        bounds,
    )?;
    gossip.with_peer_score(score_params(&hashes, private), score_thresholds())?;
    for topic in &names.topics {
        gossip.subscribe(topic).map_err(|error| error.to_string())?;
    }
    Ok(gossip)
}

/// Publishes a message. A small message about consensus goes to all peers. Returns peers to which
/// the message was pushed, perhaps not all of them.
///
/// Gossipsub can flood either all messages or none, but it always sends a published message to its
/// *explicit* peers. So all peers are made explicit while a small message is published, and at no
/// other time.
///
/// # Errors
/// [`PublishError`], from gossipsub.
pub(crate) fn publish(
    gossip: &mut Gossipsub,
    topic: TopicHash,
    bytes: Vec<u8>,
    is_flooded: bool,
) -> Result<Vec<PeerId>, PublishError> {
    if !is_flooded || bytes.len() > FLOOD_BYTES_MAX {
        let mesh = gossip.mesh_peers(&topic).copied().collect();
        return gossip.publish(topic, bytes).map(|_| mesh);
    }
    let is_heard =
        |peer: &PeerId| gossip.peer_score(peer).is_none_or(|score| score >= PUBLISH_THRESHOLD);
    let all: Vec<PeerId> = gossip.all_peers().map(|(peer, _)| *peer).filter(is_heard).collect();
    all.iter().for_each(|peer| gossip.add_explicit_peer(peer));
    let published = gossip.publish(topic, bytes);
    all.iter().for_each(|peer| gossip.remove_explicit_peer(peer));
    published.map(|_| all)
}

/// Only certain misbehaviour counts: messages that we rejected, and many identities from one
/// address.
///
/// Everything that measures a rate or a delay has weight zero (deliveries per second, unkept IWANT
/// promises, slow readers): on a loaded or quiet network these penalize honest peers. No peer can
/// earn a positive score: it could be saved up to pay for later misbehaviour. Only named peers have
/// a positive score, [`NAMED_SCORE`]. It is a tenth of the penalty for one rejected message.
fn score_params(topics: &[TopicHash], private: bool) -> PeerScoreParams {
    let topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // Gossipsub squares the count of rejected messages. One rejected message keeps a peer out
        // of the mesh for two minutes, until the count has decayed. Three of one topic within four
        // seconds make us drop all messages of the peer.
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: score_parameter_decay(Duration::from_secs(120)),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: topics.iter().map(|hash| (hash.clone(), topic.clone())).collect::<HashMap<_, _>>(),
        topic_score_cap: 0.0,
        // The score of named peers counts as it is.
        app_specific_weight: 1.0,
        // Peers of a private network may well share a machine.
        ip_colocation_factor_weight: if private { 0.0 } else { -5.0 },
        ip_colocation_factor_threshold: 10.0,
        ip_colocation_factor_whitelist: HashSet::from([
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]),
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        retain_score: Duration::from_secs(600),
        ..PeerScoreParams::default()
    }
}

/// The score below which a peer gets none of our messages.
const PUBLISH_THRESHOLD: f64 = -50.0;

/// Below -10 a peer gets no IHAVE from us, below -50 none of our messages, and below -80 we ignore
/// everything that it sends.
///
/// A mesh in which fewer than half of the peers are named takes in two more named peers at a time,
/// as long as there are any. Gossipsub's explicit peers are not used for this: both ends would have
/// to name each other, or the named end would push nothing to the other.
fn score_thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -10.0,
        publish_threshold: PUBLISH_THRESHOLD,
        graylist_threshold: -80.0,
        // No peer has such a score, so we never connect to peers that another peer proposes.
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: NAMED_SCORE / 2.0,
    }
}

#[cfg(test)]
mod tests;
