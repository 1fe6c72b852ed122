//! The task's part about gossip.

use libp2p::gossipsub::{self, MessageAcceptance, PublishError};

use super::Task;
use crate::network::inbox::{Gossip, GossipTicket, Verdict};
use crate::network::wire::Topic;

impl Task {
    pub(super) fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let hash = self.names.topics[topic.index()].hash();
        match self.swarm.behaviour_mut().gossip.publish(hash, bytes) {
            Ok(_) => self.meters.gossip(topic, "published"),
            // Normal on a lone node: peers that come later ask for what they lack.
            Err(PublishError::NoPeersSubscribedToTopic) => self.meters.gossip(topic, "no_peers"),
            Err(PublishError::Duplicate) => self.meters.gossip(topic, "published_before"),
            // Marked as published all the same: another try would be a duplicate.
            Err(PublishError::AllQueuesFull(_)) => self.meters.gossip_lost(topic, "peers_full"),
            Err(error) => {
                self.meters.gossip_lost(topic, "unpublished");
                tracing::debug!(topic = topic.name(), %error, "could not publish");
            }
        }
    }

    pub(super) fn on_gossip_event(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source: from, message_id: id, message } => {
                // Bounds has refused all other topics already.
                let Some(topic) = self.names.topic(&message.topic) else { return };
                self.meters.gossip(topic, "received");
                let ticket = GossipTicket { topic, id, from };
                if !self.accounts.admits(&from) {
                    self.meters.gossip_lost(topic, "no_budget");
                    return self.report(&ticket, Verdict::Ignore);
                }
                let gossip = Gossip { topic, from, bytes: message.data, ticket };
                if let Err(full) = self.gossip[topic.index()].try_send(gossip) {
                    self.meters.gossip_lost(topic, "inbox_full");
                    self.report(&full.into_inner().ticket, Verdict::Ignore);
                }
            }
            gossipsub::Event::SlowPeer { peer_id: peer, failed_messages } => {
                let lost = failed_messages.priority + failed_messages.non_priority;
                tracing::debug!(%peer, lost, "a slow peer misses gossip");
                self.meters.lost(u64::try_from(lost).unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }

    pub(super) fn report(&mut self, ticket: &GossipTicket, verdict: Verdict) {
        let (acceptance, outcome) = match verdict {
            Verdict::Accept => (MessageAcceptance::Accept, "accepted"),
            Verdict::Ignore => (MessageAcceptance::Ignore, "ignored"),
            Verdict::Reject => (MessageAcceptance::Reject, "rejected"),
        };
        self.meters.gossip(ticket.topic, outcome);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if !gossip.report_message_validation_result(&ticket.id, &ticket.from, acceptance) {
            tracing::debug!(topic = ticket.topic.name(), "a verdict came too late");
        }
    }
}
