//! The task's part about gossip.

use std::time::Instant;

use libp2p::PeerId;
use libp2p::gossipsub::{self, Message, MessageAcceptance, MessageId, PublishError};

use super::Task;
use crate::network::eviction::Service;
use crate::network::gossip;
use crate::network::inbox::{Gossip, GossipTicket, Verdict};
use crate::network::wire::Topic;

impl Task {
    pub(super) fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let (hash, length) = (self.names.topics[topic.index()].hash(), bytes.len());
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match gossip::publish(gossip, hash, bytes, topic == Topic::Consensus) {
            Ok(peers) => {
                self.meters.gossip(topic, "published");
                self.on_pushed(peers, length);
            }
            // Normal on a lone node. Peers that come later ask for the messages that they lack.
            Err(PublishError::NoPeersSubscribedToTopic) => self.meters.gossip(topic, "no_peers"),
            Err(PublishError::Duplicate) => self.meters.gossip(topic, "published_before"),
            // Gossipsub counts the message as published anyway: another attempt would be a
            // duplicate.
            Err(PublishError::AllQueuesFull(_)) => self.meters.gossip_lost(topic, "peers_full"),
            Err(error) => {
                self.meters.gossip(topic, "unpublished");
                tracing::debug!(topic = topic.name(), %error, "could not publish");
            }
        }
    }

    pub(super) fn on_gossip_event(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(propagation_source, message_id, message);
            }
            gossipsub::Event::SlowPeer { peer_id: peer, failed_messages } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                tracing::debug!(%peer, lost, "a slow peer misses gossip");
                self.meters.lost(u64::try_from(lost).unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }

    /// A message arrived that was not seen before. It is ignored unjudged if this peer has no
    /// budget left, or if no place is free for the message.
    fn on_message(&mut self, from: PeerId, id: MessageId, message: Message) {
        // `Bounds` has refused all other topics already.
        let Some(topic) = self.names.topic(&message.topic) else { return };
        self.meters.gossip(topic, "received");
        let bytes = message.data;
        let place = self.traffic.on_message(topic, from, bytes.len(), Instant::now());
        if !self.accounts.admits(&from) {
            self.meters.gossip(topic, "no_budget");
            return self.judge(topic, &id, &from, Verdict::Ignore);
        }
        let is_placed = match place {
            Some(place) => {
                let ticket = GossipTicket { topic, id: id.clone(), from, place: Box::new(place) };
                self.gossip[topic.index()].try_send(Gossip { topic, from, bytes, ticket }).is_ok()
            }
            None => false,
        };
        if !is_placed {
            self.meters.gossip_lost(topic, "inbox_full");
            self.judge(topic, &id, &from, Verdict::Ignore);
        }
    }

    /// A message has its verdict. An accepted one is forwarded, unless too many bytes were
    /// forwarded lately.
    pub(super) fn report(&mut self, ticket: &GossipTicket, verdict: Verdict) {
        let GossipTicket { topic, id, from, place } = ticket;
        if verdict != Verdict::Accept {
            return self.judge(*topic, id, from, verdict);
        }
        if !self.traffic.may_relay(place, Instant::now()) {
            self.meters.gossip_lost(*topic, "relay_full");
            return self.judge(*topic, id, from, Verdict::Ignore);
        }
        self.judge(*topic, id, from, Verdict::Accept);
        let hash = self.names.topics[topic.index()].hash();
        let mesh = self.swarm.behaviour().gossip.mesh_peers(&hash);
        let peers = mesh.filter(|peer| *peer != from).copied().collect();
        self.on_pushed(peers, place.bytes());
    }

    /// A message went into the queues of these peers. A peer that does not take its messages is
    /// disconnected, which frees its queue.
    fn on_pushed(&mut self, mut peers: Vec<PeerId>, bytes: usize) {
        // A peer that is cut off cannot take its messages. Its queue is bounded in messages.
        peers.retain(|peer| !self.faults.is_cut(peer));
        for peer in self.traffic.on_pushed(peers.into_iter(), bytes, Instant::now()) {
            tracing::debug!(%peer, "disconnecting a peer that does not read its gossip");
            self.meters.lost(1);
            self.disconnect(peer);
        }
    }

    /// Disconnects a peer whose useless messages fill memory.
    pub(super) fn check_floods(&mut self, now: Instant) {
        if let Some(peer) = self.traffic.flooder(now) {
            tracing::debug!(
                %peer,
                "disconnecting a peer that sends more gossip than the network can produce"
            );
            self.disconnect(peer);
        }
    }

    fn judge(&mut self, topic: Topic, id: &MessageId, from: &PeerId, verdict: Verdict) {
        let (acceptance, outcome) = match verdict {
            Verdict::Accept => (MessageAcceptance::Accept, "accepted"),
            Verdict::Ignore => (MessageAcceptance::Ignore, "ignored"),
            Verdict::Reject => (MessageAcceptance::Reject, "rejected"),
        };
        self.meters.gossip(topic, outcome);
        if verdict == Verdict::Accept {
            let service = match topic {
                Topic::Consensus | Topic::Headers => Service::Consensus,
                Topic::Transactions => Service::Transactions,
            };
            self.on_service(from, service);
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if !gossip.report_message_validation_result(id, from, acceptance) {
            tracing::debug!(
                topic = topic.name(),
                "the verdict on a gossip message came too late to pass the message on"
            );
        }
    }
}
