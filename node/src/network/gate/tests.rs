//! The gate by itself: who gets a place, and who gives one up.
#![allow(clippy::unwrap_used)]

use std::iter;

use libp2p::swarm::behaviour::{DialFailure, FromSwarm};
use libp2p::swarm::{DialError, NetworkBehaviour};

use super::probe::{FETCH_IDLE, PROBE_TIME};
use super::*;

const LIMITS: Limits = Limits {
    inbound: 96,
    outbound: 4,
    pending: 8,
    per_peer: 2,
    per_group: 8,
    memory_bytes: None,
    groups_loopback: false,
};

/// A gate, the number of the last connection, and a clock.
struct World {
    gate: Gate,
    last: usize,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { gate: Gate::new(LIMITS, Grouping::default(), None), last: 0, now: Instant::now() }
    }

    fn id(&mut self) -> ConnectionId {
        self.last += 1;
        self.now += Duration::from_millis(10);
        ConnectionId::new_unchecked(self.last)
    }

    fn inbound(&mut self, peer: PeerId, ip: &str) -> Result<ConnectionId, Refusal> {
        let (id, address) = (self.id(), address(ip));
        self.gate.on_inbound(id, peer, &address, self.now, 0)?;
        Ok(id)
    }

    fn outbound(&mut self, peer: PeerId, ip: &str) -> Result<ConnectionId, Refusal> {
        let (id, address) = (self.id(), address(ip));
        self.gate.on_outbound(id, peer, &address, self.now, 0)?;
        Ok(id)
    }

    /// Closes the connections that the gate wants closed, and returns them.
    fn closes(&mut self) -> Vec<(ConnectionId, Reason)> {
        let closes: Vec<Close> = self.gate.closes.drain(..).collect();
        self.gate.open.retain(|id, _| closes.iter().all(|close| close.connection != *id));
        closes.into_iter().map(|close| (close.connection, close.reason)).collect()
    }

    /// Twelve hosts, each in a group of its own, hold all inbound places with eight identities
    /// each.
    fn crowd(&mut self) -> Vec<ConnectionId> {
        let ips = (0..96).map(|number| format!("1.2.{}.1", number / 8));
        ips.map(|ip| self.inbound(PeerId::random(), &ip).unwrap()).collect()
    }
}

fn address(ip: &str) -> Multiaddr {
    format!("/ip4/{ip}/tcp/7700").parse().unwrap()
}

#[test]
fn a_crowd_keeps_neither_named_peers_nor_newcomers_out() {
    let mut world = World::new();
    let crowd = world.crowd();
    assert_eq!(
        world.inbound(PeerId::random(), "1.2.3.1"),
        Err(Refusal::Crowded(8)),
        "a ninth of one host"
    );

    let named = PeerId::random();
    world.gate.name(named);
    world.inbound(named, "1.2.3.100").unwrap();
    world.outbound(named, "1.2.3.100").unwrap();
    assert_eq!(world.closes(), [], "named peers are beside the places, and the limits by group");

    let newcomer = world.inbound(PeerId::random(), "9.9.9.9").unwrap();
    let closes = world.closes();
    assert!(matches!(closes[..], [(left, Reason::Evicted)] if crowd.contains(&left)), "{closes:?}");
    // The attacker's next connections replace its own.
    for number in 0..200 {
        let _crowded =
            world.inbound(PeerId::random(), &format!("1.2.{}.{}", number % 12, 100 + number % 100));
        for (left, _) in world.closes() {
            assert_ne!(left, newcomer);
        }
    }
}

/// One host holds all places of its group, and tries again and again.
#[test]
fn a_hostile_host_keeps_no_neighbour_out() {
    let mut world = World::new();
    world.crowd();
    let mut hostile: HashSet<ConnectionId> =
        (0..8).map(|number| ConnectionId::new_unchecked(25 + number)).collect();
    assert!(hostile.iter().all(|id| world.gate.open[id].host == Some("1.2.3.1".parse().unwrap())));
    let mut honest = Vec::new();
    for number in 0..4 {
        honest.push(world.inbound(PeerId::random(), &format!("1.2.3.{}", 100 + number)).unwrap());
        let [(left, Reason::Evicted)] = world.closes()[..] else {
            panic!("one leaves for the newcomer")
        };
        assert!(hostile.remove(&left), "one of the crowd");
        for _ in 0..50 {
            assert!(matches!(world.inbound(PeerId::random(), "1.2.3.1"), Err(Refusal::Crowded(8))));
        }
        assert_eq!(world.closes(), []);
    }
    assert_eq!(world.gate.open.len(), 96, "no place of another group is taken for it");
}

/// A group of many hosts with one connection each: they trade places, but seldom.
#[test]
fn hosts_of_a_full_group_trade_places_at_a_bounded_rate() {
    let mut world = World::new();
    for number in 0..8 {
        world.inbound(PeerId::random(), &format!("1.2.3.{number}")).unwrap();
    }
    let (start, mut entered) = (world.now, 0);
    while world.now < start + 3 * TRADE_INTERVAL {
        let ip = format!("1.2.3.{}", 10 + world.last % 200);
        entered += usize::from(world.inbound(PeerId::random(), &ip).is_ok());
        world.closes();
    }
    assert_eq!(entered, 3);
    assert_eq!(world.gate.open.len(), 8);
}

/// An offender brings suspicion on its host, and not on its group.
#[test]
fn neighbours_of_an_offender_are_not_suspected() {
    let mut world = World::new();
    let crowd = world.crowd();
    let offender: IpAddr = "1.2.11.200".parse().unwrap();
    world.gate.set_bans(HashMap::new(), HashSet::from([offender]));
    assert!(crowd.iter().all(|id| !world.gate.is_suspect(&world.gate.open[id])));
    let suspect = world.inbound(PeerId::random(), "1.2.11.200").unwrap();
    assert!(world.gate.is_suspect(&world.gate.open[&suspect]));
}

#[test]
fn outbound_places_are_for_groups_and_probes_are_closed() {
    let mut world = World::new();
    world.crowd();
    let first = world.outbound(PeerId::random(), "5.5.1.1").unwrap();
    let same_group = world.outbound(PeerId::random(), "5.5.1.2").unwrap();
    for group in 2..5 {
        world.outbound(PeerId::random(), &format!("5.5.{group}.1")).unwrap();
    }
    assert_eq!(world.gate.outbound(), 4);
    let mut probes: Vec<_> = (10..15)
        .map(|g| world.outbound(PeerId::random(), &format!("5.5.{g}.1")).unwrap())
        .collect();
    assert_eq!(world.outbound(PeerId::random(), "5.5.99.1"), Err(Refusal::Full), "so many queries");
    let look = |world: &mut World, ip: &str| {
        world.gate.choose(ConnectionId::new_unchecked(world.last + 1), Choice::Chosen);
        world.outbound(PeerId::random(), ip)
    };
    assert_eq!(look(&mut world, "5.5.10.2"), Err(Refusal::Full), "one probe of a group");
    probes.extend([20, 21].map(|g| look(&mut world, &format!("5.5.{g}.1")).unwrap()));
    assert_eq!(look(&mut world, "5.5.99.1"), Err(Refusal::Full), "so many probes");
    assert_eq!(world.closes(), []);

    // When a place becomes free, the oldest probe of a group without a place gets it.
    world.gate.open.remove(&first);
    world.gate.on_tick(world.now);
    assert_eq!(world.gate.outbound(), 4);
    assert!(world.gate.open[&same_group].probe.is_none());
    world.now += PROBE_TIME;
    world.gate.on_tick(world.now);
    let closed: Vec<_> = world.closes();
    assert_eq!(closed, probes.into_iter().map(|id| (id, Reason::Probed)).collect::<Vec<_>>());
}

#[test]
fn a_look_ends_when_the_peer_has_said_who_it_is() {
    let mut world = World::new();
    for group in 1..5 {
        world.outbound(PeerId::random(), &format!("5.5.{group}.1")).unwrap();
    }
    let [looked, asked, fetched] = [(); 3].map(|()| PeerId::random());
    let dial = ConnectionId::new_unchecked(world.last + 1);
    world.gate.choose(dial, Choice::Chosen);
    assert_eq!(world.outbound(looked, "5.5.10.1"), Ok(dial));
    world.outbound(asked, "5.5.11.1").unwrap();
    let holder = ConnectionId::new_unchecked(world.last + 1);
    world.gate.choose(holder, Choice::Holder);
    world.outbound(fetched, "5.5.12.1").unwrap();
    for peer in [looked, asked, fetched] {
        world.gate.on_identified(&peer, world.now);
    }
    world.gate.on_tick(world.now);
    assert_eq!(world.closes(), [(dial, Reason::Probed)], "others may be in use");
    // A query has ended by then, and a fetch goes on.
    world.now += PROBE_TIME;
    world.gate.on_tick(world.now);
    let closes = world.closes();
    assert!(closes.len() == 1 && closes[0].0 != holder, "{closes:?}");
}

#[test]
fn holders_that_send_nothing_keep_no_others_out() {
    let mut world = World::new();
    for group in 1..5 {
        world.outbound(PeerId::random(), &format!("5.5.{group}.1")).unwrap();
    }
    let fetch = |world: &mut World, peer, group| {
        let dial = ConnectionId::new_unchecked(world.last + 1);
        world.gate.choose(dial, Choice::Holder);
        world.outbound(peer, &format!("6.6.{group}.1"))
    };
    let peers = [(); 8].map(|()| PeerId::random());
    let ids: Vec<_> =
        (1..).zip(peers).map(|(group, peer)| fetch(&mut world, peer, group).unwrap()).collect();
    assert_eq!(fetch(&mut world, peers[0], 1), Err(Refusal::Connected), "once is enough");
    let newcomer = PeerId::random();
    assert_eq!(fetch(&mut world, newcomer, 10), Err(Refusal::Full), "they may still send");
    world.now += FETCH_IDLE - Duration::from_secs(1);
    world.gate.on_service(&peers[0], Service::History, world.now);
    world.now += Duration::from_secs(1);
    assert!(fetch(&mut world, newcomer, 10).is_ok());
    assert_eq!(world.closes(), [(ids[1], Reason::Probed)], "the first one has sent something");
    // Queries take no place of them.
    for group in 20..26 {
        world.outbound(PeerId::random(), &format!("6.6.{group}.1")).unwrap();
    }
    assert_eq!(world.outbound(PeerId::random(), "6.6.30.1"), Err(Refusal::Full));
    assert_eq!(world.closes(), []);
}

#[test]
fn of_one_peer_the_newest_connections_stay() {
    let mut world = World::new();
    for is_named in [false, true] {
        let peer = PeerId::random();
        if is_named {
            world.gate.name(peer);
        }
        let ids = [(); 4].map(|()| world.inbound(peer, "7.7.7.7").unwrap());
        assert_eq!(
            world.closes(),
            [(ids[0], Reason::Replaced), (ids[1], Reason::Replaced)],
            "named: {is_named}"
        );
    }
    // The same holds when all places are taken.
    world.crowd();
    world.closes();
    let peer = PeerId::random();
    let ids = [(); 3].map(|()| world.inbound(peer, "8.8.8.8").unwrap());
    assert!(world.closes().contains(&(ids[0], Reason::Replaced)));
}

#[test]
fn whoever_answers_at_a_configured_address_is_named() {
    let mut world = World::new();
    let (peer, former) = (PeerId::random(), PeerId::random());
    world.gate.name(former);
    let id = world.id();
    world.gate.choose(id, Choice::Named);
    assert_eq!(world.gate.on_dial(id, None, world.now, 0), Ok(()));
    world.gate.on_outbound(id, peer, &address("4.4.4.4"), world.now, 0).unwrap();
    assert!(world.gate.is_named(&peer));
    assert_eq!((world.gate.outbound(), world.gate.chosen.len()), (0, 0));
    world.gate.unname(&former);
    assert!(!world.gate.is_named(&former));
}

#[test]
fn banned_peers_are_refused_until_the_end_of_the_ban() {
    let mut world = World::new();
    let (peer, named) = (PeerId::random(), PeerId::random());
    world.gate.name(named);
    world.gate.set_bans(HashMap::from([(peer, 1_000), (named, 1_000)]), HashSet::new());
    let (id, address) = (world.id(), address("4.4.4.4"));
    for peer in [peer, named] {
        for (now_ms, is_banned) in [(999, true), (1_000, false)] {
            assert_eq!(world.gate.on_dial(id, Some(&peer), world.now, now_ms).is_err(), is_banned);
            assert_eq!(
                world.gate.on_inbound(id, peer, &address, world.now, now_ms).is_err(),
                is_banned
            );
            assert_eq!(
                world.gate.on_outbound(id, peer, &address, world.now, now_ms).is_err(),
                is_banned
            );
            world.gate.open.clear();
        }
    }
}

#[test]
fn a_learned_peer_is_dialed_once_a_minute_and_less_when_places_are_full() {
    let mut world = World::new();
    let peer = PeerId::random();
    let dials = |world: &mut World, minutes: u64| {
        let mut dials = 0;
        for _ in 0..minutes * 60 {
            let id = world.id();
            dials += usize::from(world.gate.on_dial(id, Some(&peer), world.now, 0).is_ok());
            world.gate.on_dial_over(id);
            world.now += Duration::from_secs(1);
        }
        dials
    };
    assert_eq!(dials(&mut world, 30), 30);
    for group in 1..5 {
        world.outbound(PeerId::random(), &format!("5.5.{group}.1")).unwrap();
    }
    assert_eq!(dials(&mut world, 30), 3);

    let ids: Vec<_> = (0..9).map(|_| world.id()).collect();
    let allowed =
        ids.iter().map(|id| world.gate.on_dial(*id, Some(&PeerId::random()), world.now, 0).is_ok());
    assert_eq!(allowed.filter(|is| *is).count(), LIMITS.pending as usize);
    let chosen = world.id();
    world.gate.choose(chosen, Choice::Chosen);
    assert_eq!(world.gate.on_dial(chosen, Some(&peer), world.now, 0), Ok(()));
}

#[test]
fn made_up_peers_keep_no_other_from_being_dialed() {
    let mut world = World::new();
    let dial = |world: &mut World, peer: PeerId| {
        let id = world.id();
        world.gate.on_dial(id, Some(&peer), world.now, 0)?;
        Ok(id)
    };
    for _ in 0..2 * DIALED_MAX {
        let peer = PeerId::random();
        let id = dial(&mut world, peer).unwrap();
        world.gate.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: Some(peer),
            error: &DialError::NoAddresses,
            connection_id: id,
        }));
    }
    assert!(world.gate.dialed.is_empty(), "nobody was dialed");
    let first = PeerId::random();
    for peer in iter::once(first).chain((0..DIALED_MAX).map(|_| PeerId::random())) {
        let id = dial(&mut world, peer).unwrap();
        world.gate.on_dial_over(id);
        assert_eq!(dial(&mut world, peer), Err(Refusal::Recent));
    }
    assert_eq!(world.gate.dialed.len(), DIALED_MAX);
    assert!(!world.gate.dialed.contains_key(&first), "the oldest record is forgotten");
}

#[test]
fn a_peer_that_is_cut_off_gets_no_place_and_gives_none_up() {
    use crate::network::faults::FaultPlan;

    let faults = Faults::default();
    let cut = |peers: &[PeerId]| {
        faults.set(FaultPlan { cut: peers.iter().copied().collect(), ..FaultPlan::default() });
    };
    let gate = Gate::new(LIMITS, Grouping::default(), Some(faults.clone()));
    let mut world = World { gate, ..World::new() };
    let peer = PeerId::random();
    cut(&[peer]);
    assert_eq!(world.inbound(peer, "1.2.3.1"), Err(Refusal::Cut));
    assert_eq!(world.outbound(peer, "1.2.3.1"), Err(Refusal::Cut));
    cut(&[]);
    let _crowd = world.crowd();
    let crowd: Vec<PeerId> = world.gate.open.values().map(|open| open.peer).collect();
    cut(&crowd);
    assert_eq!(world.inbound(peer, "9.9.9.9"), Err(Refusal::Full), "nobody else could leave");
    cut(&[]);
    world.inbound(peer, "9.9.9.9").unwrap();
    assert_eq!(world.closes().len(), 1);
}
