//! The task that owns the swarm. It handles commands and events, and never waits while it handles
//! one.

mod dialing;
mod discovery;
mod exchange;
mod faults;
mod finding;
mod gossip;
mod links;
mod peers;
mod saving;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::metrics::{Metrics, Recorder};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use self::dialing::Upkeep;
#[cfg(test)]
pub(super) use self::exchange::REFUSAL_DELAY;
use self::faults::FaultWatch;
use self::finding::Finding;
use self::saving::Saver;
use super::address::{check_free, is_dialable};
use super::bans::BanInfo;
use super::behaviour::{self, Behaviour, BehaviourEvent, Guards};
use super::bootstrap::Bootstrap;
use super::callbacks::Callbacks;
use super::eviction::Service;
use super::exchange::RequestError;
use super::group::Grouping;
use super::handle::{Command, Commands, Network, Readers};
use super::inbox::{Events, Gossip, Inbox, PeerEvent};
use super::links::Links;
use super::meters::{Meters, Throttle};
use super::peers::Peers;
use super::requests::Requests;
use super::seeds::Seeds;
use super::store::PeerStore;
use super::traffic::{Traffic, gossip_queue};
use super::wire::{Names, Topic};
use super::{NetworkConfig, NetworkError};
use crate::accounts::Accounts;
use crate::clock::wall_ms;

/// How often deadlines are checked.
const TICK: Duration = Duration::from_millis(500);

/// The network's task.
pub(crate) struct Task {
    swarm: Swarm<Behaviour>,
    guards: Guards,
    names: Names,
    private: bool,
    grouping: Grouping,
    commands: Commands,
    gossip: [mpsc::Sender<Gossip>; 3],
    events: Events,
    peers: Peers,
    requests: Requests,
    accounts: Accounts<PeerId>,
    links: Links,
    traffic: Traffic,
    bootstrap: Bootstrap,
    callbacks: Callbacks,
    seeds: Seeds,
    finding: Finding,
    store: PeerStore,
    saver: Saver,
    upkeep: Upkeep,
    faults: FaultWatch,
    bans: watch::Sender<Arc<Vec<BanInfo>>>,
    addresses: watch::Sender<Arc<Vec<Multiaddr>>>,
    metrics: Metrics,
    meters: Meters,
    losses_reported: u64,
    losses_throttle: Throttle,
    foreign_throttle: Throttle,
    ban_throttle: Throttle,
}

/// Listens on the configured addresses, and tells the swarm at which addresses others can reach us.
fn listen(swarm: &mut Swarm<Behaviour>, config: &NetworkConfig) -> Result<(), NetworkError> {
    let failed =
        |address: &Multiaddr, source| NetworkError::Listen { address: address.clone(), source };
    for address in &config.listen {
        check_free(address).map_err(|error| failed(address, error))?;
    }
    for address in &config.listen {
        swarm
            .listen_on(address.clone())
            .map_err(|error| failed(address, std::io::Error::other(error)))?;
    }
    let public = config.listen.iter().filter(|address| is_dialable(address, false));
    for address in config.external.iter().chain(public) {
        swarm.add_external_address(address.clone());
    }
    Ok(())
}

impl Task {
    /// Builds the swarm and listens.
    pub(crate) fn new(
        config: NetworkConfig,
        registry: &mut Registry,
    ) -> Result<(Self, Network, Inbox), NetworkError> {
        let names = Names::new(&config.chain);
        let guards = Guards::new(&config);
        let mut swarm = behaviour::swarm(&config, &names, registry, &guards)?;
        let callbacks = Callbacks::new(&config, &guards)?;
        listen(&mut swarm, &config)?;

        let local = *swarm.local_peer_id();
        let metrics = Metrics::new(registry);
        let meters = Meters::new(registry);
        let (peers, peers_reader) = Peers::new();
        let (addresses, addresses_reader) = watch::channel(Arc::default());
        let (bans, bans_reader) = watch::channel(Arc::default());
        let now = Instant::now();
        let store = PeerStore::open(config.store.clone(), config.grouping(), wall_ms());
        let upkeep = Upkeep::new(store.anchors.clone(), now);
        let (links, outlets, links_reader) = Links::new(meters.clone(), config.data_rate);
        let accounts = guards.accounts.clone();
        let readers =
            Readers { peers: peers_reader, addresses: addresses_reader, bans: bans_reader };
        let faults = guards.faults.clone();
        let (network, commands) =
            Network::new(local, meters.clone(), outlets, accounts.clone(), readers, faults);
        let [consensus, headers, transactions] =
            Topic::ALL.map(|topic| mpsc::channel(gossip_queue(topic)));
        let (events, events_reader) = Events::new();
        let inbox = Inbox {
            consensus: consensus.1,
            headers: headers.1,
            transactions: transactions.1,
            events: events_reader,
            links: links_reader,
        };
        let mut task = Self {
            swarm,
            faults: FaultWatch::new(guards.faults.as_ref(), now),
            traffic: Traffic::new(guards.written.clone(), now),
            guards,
            names,
            private: config.private,
            grouping: config.grouping(),
            commands,
            gossip: [consensus.0, headers.0, transactions.0],
            events,
            peers,
            requests: Requests::new(),
            accounts,
            links,
            bootstrap: Bootstrap::new(&config.bootstrap, &store.identities, local, now),
            callbacks,
            finding: Finding::default(),
            seeds: Seeds::new(&config, !store.addresses.all().is_empty(), now),
            store,
            saver: Saver::new(now),
            upkeep,
            bans,
            addresses,
            metrics,
            meters,
            losses_reported: 0,
            losses_throttle: Throttle::default(),
            foreign_throttle: Throttle::default(),
            ban_throttle: Throttle::default(),
        };
        task.name_peers(&config.bootstrap);
        task.publish_bans();
        Ok((task, network, inbox))
    }

    /// Runs until a command stops it, or until all handles or the reader of events are dropped.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.commands.recv() => match command {
                    None | Some(Command::Stop) => break,
                    Some(command) => self.on_command(command),
                },
                Some((topic, bytes)) = self.commands.outbox.next() => self.publish(topic, bytes),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                delivered = self.events.deliver() => if delivered.is_err() { break },
                () = self.faults.changed() => self.on_faults(Instant::now()),
                found = self.seeds.found() => self.on_seed(found),
                called = self.callbacks.ended() => self.on_called(called),
                Some(ended) = self.links.ended() => self.links.on_ended(ended, Instant::now()),
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
        }
        self.links.shutdown().await;
        self.save_last().await;
        tracing::debug!("the network has stopped");
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Verdict(ticket, verdict) => self.report(&ticket, verdict),
            Command::Request { id, peer, bytes, answer_bytes_max } => {
                self.request(id, peer, bytes, answer_bytes_max);
            }
            Command::Respond(ticket, bytes) => self.respond(ticket, bytes),
            Command::Ban(peer, charge) => self.ban(peer, &charge),
            Command::Served(peer, service) => self.on_service(&peer, service),
            Command::Dial(address) => self.dial_once(&address),
            Command::DialHolder(address) => self.dial_holder(&address),
            Command::Provide(key) => self.index().provide(Instant::now(), key),
            Command::Withdraw(key) => self.index().withdraw(key),
            Command::LookUp(key, found) => self.look_up(key, found),
            // An error means that nobody waits any more.
            Command::Known(answer) => drop(answer.send(self.known_addresses())),
            Command::Stop => {}
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.keep_peers(now);
        self.save_if_due(now);
        self.swarm.behaviour_mut().gate.on_tick(now);
        self.peers.cut_stuck(now);
        for peer in self.peers.unidentified(now) {
            tracing::debug!(%peer, "disconnecting a peer that has not said which chain it is on");
            self.disconnect(peer);
        }
        for (peer, info) in self.peers.due_claims(now) {
            self.on_identified(peer, info);
        }
        self.open_links(now);
        self.store_records(now);
        self.callbacks.begin(now);
        self.check_floods(now);
        self.faults.remind(now);
        let refused = std::mem::take(
            &mut *self.commands.refused.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for (id, from) in refused {
            self.events.push(PeerEvent::Response { id, from, result: Err(RequestError::Busy) });
        }
        let lost = self.meters.lost_total();
        if lost > self.losses_reported && self.losses_throttle.allows(now) {
            tracing::warn!(
                lost = lost - self.losses_reported,
                "queues of this node or to slow peers were full: gossip or commands were dropped"
            );
            self.losses_reported = lost;
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let now = Instant::now();
                let inbound = matches!(endpoint, ConnectedPoint::Listener { .. });
                let address = endpoint.get_remote_address().clone();
                let hold = self.guards.sockets.take(&endpoint);
                if let Some(former) = self.bootstrap.on_connected(connection_id, peer_id, now) {
                    self.swarm.behaviour_mut().gate.unname(&former);
                }
                if inbound && !self.swarm.behaviour().gate.is_named(&peer_id) {
                    self.bootstrap.on_heard(&address, now);
                }
                self.peers.on_connected(peer_id, connection_id, address, inbound, hold, now);
            }
            SwarmEvent::ConnectionClosed {
                peer_id, connection_id, num_established, cause, ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                if self.peers.on_closed(&peer_id, connection_id) {
                    self.events.push(PeerEvent::Disconnected(peer_id));
                }
                self.links.on_connection_closed(&peer_id, connection_id, Instant::now());
                if num_established == 0 {
                    self.store.addresses.on_left(&peer_id, wall_ms());
                    self.callbacks.forget(&peer_id);
                    self.links.on_disconnected(&peer_id);
                    self.traffic.on_disconnected(&peer_id);
                    self.bootstrap.on_disconnected(&peer_id, Instant::now(), random());
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "inbound connection failed")
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening for peers");
                // Peers call back, and pass the address on only if they reach this node there.
                if !self.private && is_dialable(&address, false) {
                    self.swarm.add_external_address(address);
                }
                self.publish_addresses();
            }
            SwarmEvent::ExpiredListenAddr { .. } | SwarmEvent::ExternalAddrConfirmed { .. } => {
                self.publish_addresses();
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "no longer listening");
                self.publish_addresses();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener error"),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => {
                self.metrics.record(&event);
                self.on_gossip_event(event);
            }
            BehaviourEvent::Exchange(event) => self.on_exchange_event(event),
            BehaviourEvent::Links(event) => self.on_link_stream(event),
            BehaviourEvent::Identify(event) => {
                self.metrics.record(&event);
                if let identify::Event::Received { connection_id, peer_id, info } = event {
                    self.on_identify(peer_id, connection_id, info);
                }
            }
            BehaviourEvent::Ping(event) => {
                self.metrics.record(&event);
                self.on_ping(&event);
            }
            BehaviourEvent::Discovery(event) => self.on_discovery(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                found.into_iter().for_each(|(peer, address)| self.on_neighbour(peer, &address));
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
            BehaviourEvent::Gate(close) => self.on_close(close),
            BehaviourEvent::Memory(never) => match never {},
        }
    }

    /// A peer was useful.
    fn on_service(&mut self, peer: &PeerId, service: Service) {
        self.swarm.behaviour_mut().gate.on_service(peer, service, Instant::now());
    }
}

/// A random number for jitter, 0 if the system gives none.
fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}
