//! Calls back: does a connected peer answer at the addresses that it claims?
//!
//! A claim costs nothing. If nodes passed on claims as they come, a few liars could have a whole
//! network dial a stranger's host, or fill its nodes' memory with addresses where nobody is. So an
//! address is passed on only after this node has reached the peer there. A peer that made the
//! connection itself is called back: a second connection, from an identity that is used for nothing
//! else, ends as soon as the handshake shows who answers. The two nodes speak nothing else on it,
//! so their own connection is left alone.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, PortUse, Transport};
use libp2p::core::{Endpoint, transport::TransportError};
use libp2p::{Multiaddr, PeerId};
use prometheus_client::registry::Registry;

use super::address::ip_of;
use super::behaviour::{Guards, transport};
use super::dials::Dials;
use super::group::{Group, Grouping};
use super::transport::is_refusal;
use super::{Keypair, NetworkConfig, NetworkError};

const MINUTE: Duration = Duration::from_secs(60);

/// Most calls under way. A call to a silent host takes 10 s, so this many silent hosts delay other
/// calls by 10 s.
const RUNNING_MAX: usize = 8;

/// Most peers for which calls wait: about as many peers are connected. Further ones are not added:
/// their addresses are tried later, as every other address of the store.
const WAITING_MAX: usize = 128;

/// Most calls begun in a minute, a quarter of all dials of learned addresses that the node may make
/// in that time. So peers that claim many addresses leave most of these dials to others.
const A_MINUTE_MAX: usize = 256;

/// Whether a peer answered at an address that it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The peer itself answered.
    Reached,
    /// Nobody answered, or another peer did.
    Failed,
    /// Our own rules did not allow the dial, so nothing is known.
    Undialed,
}

/// The calls that wait, and those under way.
pub(crate) struct Callbacks {
    dials: Dials,
    grouping: Grouping,
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    waiting: VecDeque<Waiting>,
    /// When the calls of the last minute began, and for peers of which group.
    begun: VecDeque<(Instant, Group)>,
    running: FuturesUnordered<BoxFuture<'static, (PeerId, Multiaddr, Answer)>>,
}

/// The calls that wait for a connected peer, at least one.
struct Waiting {
    peer: PeerId,
    /// The group of its connection.
    group: Group,
    addresses: VecDeque<Multiaddr>,
}

impl Callbacks {
    /// The calls obey the same rules for learned addresses as all dials of the node.
    ///
    /// # Errors
    /// [`NetworkError::Transport`].
    pub(crate) fn new(config: &NetworkConfig, guards: &Guards) -> Result<Self, NetworkError> {
        let identity = Keypair::generate_ed25519();
        let config = NetworkConfig { identity, faults: false, ..config.clone() };
        let guards = Guards { dials: guards.dials.clone(), ..Guards::new(&config) };
        // The bytes of calls are not counted: there are few.
        let transport = transport(&config, &mut Registry::default(), &guards)?;
        Ok(Self {
            dials: guards.dials,
            grouping: config.grouping(),
            transport,
            waiting: VecDeque::new(),
            begun: VecDeque::new(),
            running: FuturesUnordered::new(),
        })
    }

    /// Calls a peer at these addresses soon, in place of those that wait for it already.
    /// `connection` is where its connection comes from.
    pub(crate) fn add(
        &mut self,
        peer: PeerId,
        connection: &Multiaddr,
        mut addresses: Vec<Multiaddr>,
        now: Instant,
    ) {
        // A claim of another host is more likely to be false.
        addresses.sort_by_key(|address| ip_of(address) != ip_of(connection));
        if addresses.is_empty() {
            self.forget(&peer);
        } else if let Some(waiting) = self.waiting.iter_mut().find(|it| it.peer == peer) {
            waiting.addresses = addresses.into();
        } else if self.waiting.len() < WAITING_MAX {
            let group = self.grouping.of(connection);
            self.waiting.push_back(Waiting { peer, group, addresses: addresses.into() });
        }
        self.begin(now);
    }

    /// The peer is not connected any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.waiting.retain(|waiting| waiting.peer != *peer);
    }

    /// Takes out the call whose turn it is: of the group for whose peers the fewest calls began in
    /// the last minute, the peer that waits longest.
    fn take(&mut self, now: Instant) -> Option<(PeerId, Multiaddr)> {
        let begun = |group| self.begun.iter().filter(|(_, of)| *of == group).count();
        let waiting = self.waiting.iter().enumerate();
        let (place, _) = waiting.min_by_key(|(_, waiting)| begun(waiting.group))?;
        let mut next = self.waiting.remove(place)?;
        let (peer, address) = (next.peer, next.addresses.pop_front()?);
        self.begun.push_back((now, next.group));
        if !next.addresses.is_empty() {
            self.waiting.push_back(next);
        }
        Some((peer, address))
    }

    /// Begins the calls for which there is room.
    pub(crate) fn begin(&mut self, now: Instant) {
        while self.begun.front().is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE) {
            self.begun.pop_front();
        }
        while self.running.len() < RUNNING_MAX
            && self.begun.len() < A_MINUTE_MAX
            && let Some((peer, address)) = self.take(now)
        {
            let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
            let dial = self.dials.own(|| self.transport.dial(address.clone(), options));
            let call = match dial {
                // The muxer is dropped, which closes the connection.
                Ok(dial) => async move {
                    match dial.await {
                        Ok((found, _)) if found == peer => (peer, address, Answer::Reached),
                        _ => (peer, address, Answer::Failed),
                    }
                }
                .boxed(),
                Err(error) => {
                    let is_refused = is_refusal(&error);
                    let is_unfit = matches!(error, TransportError::MultiaddrNotSupported(_));
                    let answer =
                        if is_refused || is_unfit { Answer::Undialed } else { Answer::Failed };
                    async move { (peer, address, answer) }.boxed()
                }
            };
            self.running.push(call);
        }
    }

    /// The next call that has ended. Never resolves while there is none. Cancel safe.
    pub(crate) async fn ended(&mut self) -> (PeerId, Multiaddr, Answer) {
        match self.running.next().await {
            Some(ended) => {
                self.begin(Instant::now());
                ended
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::network::tests::{Node, config, within, without_peer};

    #[tokio::test]
    async fn a_call_tells_who_answers() {
        let node = Node::start(config(&[])).await;
        let there = without_peer(&node.address());
        let private = NetworkConfig { private: true, ..config(&[]) };
        for (peer, address, answer) in [
            (node.id(), there.clone(), Answer::Reached),
            (PeerId::random(), there.clone(), Answer::Failed),
            (node.id(), "/ip4/127.0.0.1/tcp/1".parse().unwrap(), Answer::Failed),
            (node.id(), "/dns4/localhost/tcp/1".parse().unwrap(), Answer::Undialed),
        ] {
            let mut calls = Callbacks::new(&private, &Guards::new(&private)).unwrap();
            let now = Instant::now();
            calls.add(peer, &there, vec![address.clone()], now);
            let ended = within("an answer", calls.ended()).await;
            assert_eq!(ended, (peer, address.clone(), answer));
            if answer != Answer::Undialed {
                calls.add(peer, &there, vec![address.clone()], now);
                let again = within("an answer", calls.ended()).await;
                assert_eq!(again.2, Answer::Undialed, "not twice in a minute: {address}");
            }
        }
    }

    #[tokio::test]
    async fn claims_cause_only_so_many_calls_a_minute() {
        let private = NetworkConfig { private: true, ..config(&[]) };
        let (mut calls, start) =
            (Callbacks::new(&private, &Guards::new(&private)).unwrap(), Instant::now());
        let mut begun = 0;
        for number in 0..4 * A_MINUTE_MAX {
            // These are refused at once.
            let name: Multiaddr = format!("/dns4/n{number}/tcp/1").parse().unwrap();
            calls.add(PeerId::random(), &name, vec![name.clone()], start);
            begun += calls.running.len();
            calls.running.clear();
        }
        assert_eq!((begun, calls.waiting.len()), (A_MINUTE_MAX, WAITING_MAX));
        calls.begin(start + MINUTE);
        assert_eq!(calls.running.len(), RUNNING_MAX);
    }

    #[tokio::test]
    async fn groups_and_peers_take_turns_and_their_own_hosts_come_first() {
        let public = config(&[]);
        let (mut calls, now) =
            (Callbacks::new(&public, &Guards::new(&public)).unwrap(), Instant::now());
        for _ in 0..RUNNING_MAX {
            calls.running.push(std::future::pending().boxed());
        }
        let at = |ip: &str| -> Multiaddr { format!("/ip4/{ip}/tcp/7700").parse().unwrap() };
        let peers = [(); 3].map(|()| PeerId::random());
        let [first, second, honest] = peers;
        // Two peers of one group claim eight addresses each, again and again.
        for _ in 0..100 {
            for peer in [first, second] {
                let claims = (0..8).map(|number| at(&format!("9.{number}.1.1"))).collect();
                calls.add(peer, &at("7.7.7.7"), claims, now);
            }
        }
        calls.add(honest, &at("8.8.8.8"), vec![at("9.9.9.9"), at("8.8.8.8")], now);
        let turns: Vec<(PeerId, Multiaddr)> = (0..5).map(|_| calls.take(now).unwrap()).collect();
        let of = |peer| turns.iter().filter(move |turn| turn.0 == peer).map(|turn| &turn.1);
        assert_eq!((turns[0].0, turns[1].0), (first, honest), "a group has its turn");
        assert!(of(honest).eq(&[at("8.8.8.8"), at("9.9.9.9")]), "{turns:?}");
        assert_eq!((of(first).count(), of(second).count()), (2, 1), "{turns:?}");
        calls.forget(&first);
        assert!(std::iter::from_fn(|| calls.take(now)).all(|(peer, _)| peer == second));
        assert_eq!(calls.begun.len(), 5 + 7);
    }
}
