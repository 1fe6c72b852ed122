//! The task's part about requests and responses.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::{self, OutboundRequestId};
use tokio::time::sleep;

use super::Task;
use crate::network::exchange::{Request, RequestError, Response};
use crate::network::inbox::{PeerEvent, ResponseTicket};
use crate::network::requests::RequestId;
use crate::network::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

pub(super) type ExchangeEvent = request_response::Event<Request, Response>;

/// Delay after which a peer without budget hears that this node is busy.
pub(in crate::network) const REFUSAL_DELAY: Duration = Duration::from_millis(250);

impl Task {
    pub(super) fn request(
        &mut self,
        id: RequestId,
        peer: PeerId,
        bytes: Vec<u8>,
        answer_bytes_max: usize,
    ) {
        let refusal = if bytes.len() > REQUEST_BYTES_MAX {
            let reason = format!(
                "a request of {} bytes, at most {REQUEST_BYTES_MAX} are allowed",
                bytes.len()
            );
            Some(RequestError::Other(reason))
        } else if !self.peers.is_admitted(&peer) {
            Some(RequestError::Disconnected)
        } else if !self.requests.may_ask(&peer) {
            Some(RequestError::Busy)
        } else {
            None
        };
        match refusal {
            Some(error) => {
                self.events.push(PeerEvent::Response { id, from: peer, result: Err(error) })
            }
            None => {
                let outbound = self
                    .swarm
                    .behaviour_mut()
                    .exchange
                    .send_request(&peer, Request::new(bytes, answer_bytes_max));
                self.requests.on_asked(outbound, id, peer);
                self.meters.request("sent");
            }
        }
    }

    pub(super) fn respond(&mut self, ticket: ResponseTicket, bytes: Vec<u8>) {
        if bytes.len() > RESPONSE_BYTES_MAX {
            tracing::error!(bytes = bytes.len(), "a response over the limit was not sent");
            return;
        }
        match self.requests.may_respond(ticket.id, bytes.len(), Instant::now()) {
            Some(sending) => {
                let response = Response::new(bytes, Some(sending));
                // An error means that the peer is gone, which also comes as an event.
                let _ = self.swarm.behaviour_mut().exchange.send_response(ticket.channel, response);
            }
            None => self.meters.request("not_served"),
        }
    }

    pub(super) fn on_exchange_event(&mut self, event: ExchangeEvent) {
        use request_response::{Event, Message};
        match event {
            Event::Message {
                peer,
                message: Message::Request { request_id, request, channel },
                ..
            } => {
                self.on_request(peer, request, ResponseTicket { id: request_id, channel });
            }
            Event::Message {
                peer, message: Message::Response { request_id, response }, ..
            } => {
                self.meters.request("answered");
                self.on_answer(request_id, peer, Ok(response.bytes));
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "request failed");
                self.meters.request("failed");
                self.on_answer(request_id, peer, Err(error.into()));
            }
            Event::ResponseSent { request_id, .. } => {
                self.meters.request("served");
                self.requests.on_served(request_id);
            }
            Event::InboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "could not answer a request");
                self.requests.on_served(request_id);
            }
        }
    }

    /// A peer sent a request. All work of answering it is charged to this peer.
    fn on_request(&mut self, from: PeerId, request: Request, ticket: ResponseTicket) {
        let Request { bytes, .. } = request;
        if !self.accounts.admits(&from) {
            self.meters.request("refused");
            // Until the delay is over the request counts among those that the peer may have in
            // flight, so a peer without budget cannot keep this node busy with refusals.
            tokio::spawn(async move {
                sleep(REFUSAL_DELAY).await;
                drop(ticket);
            });
            return;
        }
        self.accounts.charge_request(&from, bytes.len());
        if self.requests.on_request(ticket.id, from, bytes.len()) {
            self.meters.request("received");
            self.admit(from);
            self.events.push(PeerEvent::Request { from, bytes, ticket });
        } else {
            // The dropped channel closes the stream: the peer sees that we are busy.
            self.meters.request("refused");
        }
    }

    pub(super) fn on_answer(
        &mut self,
        id: OutboundRequestId,
        from: PeerId,
        result: Result<Vec<u8>, RequestError>,
    ) {
        if let Some(id) = self.requests.on_answered(id) {
            self.events.push(PeerEvent::Response { id, from, result });
        }
    }
}
