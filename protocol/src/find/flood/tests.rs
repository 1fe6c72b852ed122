#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]

use super::*;
use crate::eras::Era;

const WANTED: Wanted = Wanted::Era(Era(7));
const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> QueryId {
    QueryId(u128::from(number).to_le_bytes())
}

fn holder(number: u64) -> Holder {
    Holder::new(&number.to_le_bytes(), []).unwrap()
}

fn hops(number: u8) -> Hops {
    (1..number).fold(Hops::ONE, |hops, _| hops.more().unwrap())
}

/// A node with peers 1 to this number.
fn node(peers: u64) -> Flood {
    let mut flood = Flood::new(1);
    for peer in 1..=peers {
        flood.handle(SECOND, FloodInput::Connected(PeerId(peer)));
    }
    flood
}

fn query(from: u64, number: u64, left: u8, here: Option<Holder>) -> FloodInput {
    let message = FloodMessage::Query { id: id(number), wanted: WANTED, left: hops(left) };
    FloodInput::Message { from: PeerId(from), message, here }
}

fn hit(from: u64, number: u64, crossed: u8, of: u64) -> FloodInput {
    let message = FloodMessage::Hit { id: id(number), crossed: hops(crossed), holder: holder(of) };
    FloodInput::Message { from: PeerId(from), message, here: None }
}

/// To whom a query is sent, and with how many hops left.
fn sent(effects: &[FloodEffect]) -> Vec<(u64, u8)> {
    let queries = effects.iter().filter_map(|effect| match effect {
        FloodEffect::Send(to, FloodMessage::Query { left, .. }) => Some((to.0, left.get())),
        _ => None,
    });
    queries.collect()
}

#[test]
fn a_search_asks_six_peers_and_a_relay_six_others_with_one_hop_fewer() {
    let asked = sent(&node(20).handle(SECOND, FloodInput::Search(id(1), WANTED)));
    let peers: BTreeSet<u64> = asked.iter().map(|(peer, _)| *peer).collect();
    assert_eq!((asked.len(), peers.len()), (6, 6));
    assert!(asked.iter().all(|(_, left)| *left == 7));
    for (peers, left, expected) in [(20, 7, 6), (20, 2, 6), (20, 1, 0), (4, 7, 3), (1, 7, 0)] {
        let asked = sent(&node(peers).handle(SECOND, query(1, 1, left, None)));
        assert_eq!(asked.len(), expected, "{peers} peers, {left} left");
        assert!(asked.iter().all(|one| one.0 != 1 && one.1 == left - 1), "{asked:?}");
    }
    let mut left = node(3);
    left.handle(SECOND, FloodInput::Disconnected(PeerId(2)));
    assert_eq!(sent(&left.handle(SECOND, query(1, 1, 7, None))), [(3, 6)]);
    // Over many queries every peer is asked.
    let mut flood = node(20);
    let at = |number| SECOND * u32::try_from(number).unwrap();
    let asked =
        (1..40).flat_map(|number| sent(&flood.handle(at(number), query(1, number, 7, None))));
    assert_eq!(asked.map(|(peer, _)| peer).collect::<BTreeSet<_>>().len(), 19);
}

#[test]
fn an_answer_returns_the_way_the_query_came() {
    let mut flood = node(3);
    let effects = flood.handle(SECOND, query(1, 1, 7, Some(holder(9))));
    let back = |crossed, of| {
        let hit = FloodMessage::Hit { id: id(1), crossed: hops(crossed), holder: holder(of) };
        vec![FloodEffect::Send(PeerId(1), hit)]
    };
    assert_eq!(effects[2..], back(1, 9));
    assert_eq!(flood.handle(SECOND, hit(2, 1, 1, 10)), back(2, 10));
    assert_eq!(flood.handle(SECOND, hit(3, 1, 6, 11)), back(7, 11));
    for (what, input) in [
        ("it has crossed as many links as it may", hit(3, 1, 7, 12)),
        ("known already", hit(3, 1, 1, 10)),
        ("from a peer that was not asked", hit(1, 1, 1, 13)),
        ("of an unknown query", hit(2, 2, 1, 14)),
    ] {
        assert!(flood.handle(SECOND, input).is_empty(), "{what}");
    }
    let mut own = node(1);
    own.handle(SECOND, FloodInput::Search(id(1), WANTED));
    let found = FloodEffect::Found { id: id(1), hops: hops(7), holder: holder(5) };
    assert_eq!(own.handle(SECOND, hit(1, 1, 7, 5)), [found]);
    // The holder itself passes the query on, but does not answer a copy of it.
    assert!(flood.handle(SECOND * 9, query(2, 1, 7, Some(holder(9)))).is_empty());
}

#[test]
fn a_query_is_remembered_for_a_minute() {
    let mut flood = node(3);
    assert_eq!(sent(&flood.handle(SECOND, query(1, 1, 7, None))).len(), 2);
    let before = REMEMBERED_FOR + SECOND - Duration::from_nanos(1);
    assert!(flood.handle(before, query(2, 1, 7, None)).is_empty());
    assert!(!flood.handle(before, hit(2, 1, 1, 5)).is_empty());
    assert!(flood.handle(REMEMBERED_FOR + SECOND, hit(2, 1, 1, 6)).is_empty());
    assert_eq!(sent(&flood.handle(REMEMBERED_FOR + SECOND, query(1, 1, 7, None))).len(), 2);
}

#[test]
fn two_queries_of_others_are_taken_in_within_a_second_from_all_peers_together() {
    let mut flood = node(10);
    let mut taken = Vec::new();
    for number in 0..100 {
        let now = SECOND + Duration::from_millis(100) * u32::try_from(number).unwrap();
        let effects = flood.handle(now, query(1 + number % 10, number, 7, Some(holder(1))));
        if !effects.is_empty() {
            taken.push(number);
        }
    }
    assert_eq!(taken.len(), 20);
    assert_eq!(taken[..4], [0, 1, 10, 11]);
    let now = SECOND * 10 + Duration::from_millis(950);
    assert!(
        !flood.handle(now, FloodInput::Search(id(1_000), WANTED)).is_empty(),
        "own ones are free"
    );
}

#[test]
fn a_query_returns_eight_holders_and_4096_queries_are_remembered() {
    let mut flood = node(3);
    flood.handle(SECOND, query(1, 1, 7, None));
    let returned = (0..100).filter(|of| !flood.handle(SECOND, hit(2, 1, 1, *of)).is_empty());
    assert_eq!(returned.count(), 8);
    for number in 0..10_000 {
        flood.handle(SECOND, FloodInput::Search(id(2 + number), WANTED));
    }
    assert_eq!((flood.queries.len(), flood.ends.len()), (4_096, 4_096));
    assert!(flood.handle(SECOND * 3, query(1, 99_999, 7, Some(holder(1)))).is_empty());
    assert_eq!(sent(&flood.handle(SECOND * 100, query(1, 99_999, 7, None))).len(), 2);
    assert_eq!((flood.queries.len(), flood.ends.len()), (1, 1));
}

/// Every node that a query can reach is asked once, and the asker hears of the holder.
#[test]
fn a_query_crosses_a_line_of_seven_links() {
    // Node `at` has the peers `at - 1` and `at + 1`. Node 8 is one link too far.
    let mut nodes: Vec<Flood> = (0..9).map(|_| Flood::new(1)).collect();
    for at in 0..9_u64 {
        let peers = [at.wrapping_sub(1), at + 1].into_iter().filter(|peer| *peer < 9);
        let node = &mut nodes[usize::try_from(at).unwrap()];
        peers.for_each(|peer| drop(node.handle(SECOND, FloodInput::Connected(PeerId(peer)))));
    }
    let first = nodes[0].handle(SECOND, FloodInput::Search(id(1), WANTED));
    let mut inbox: VecDeque<(u64, FloodEffect)> = first.into_iter().map(|one| (0, one)).collect();
    let (mut found, mut messages) = (Vec::new(), 0);
    while let Some((from, effect)) = inbox.pop_front() {
        match effect {
            FloodEffect::Send(PeerId(to), message) => {
                messages += 1;
                let here = (to >= 6).then(|| holder(to));
                let input = FloodInput::Message { from: PeerId(from), message, here };
                let effects = nodes[usize::try_from(to).unwrap()].handle(SECOND, input);
                inbox.extend(effects.into_iter().map(|effect| (to, effect)));
            }
            FloodEffect::Found { hops, holder, .. } => found.push((hops.get(), holder)),
        }
    }
    assert_eq!(found, [(6, holder(6)), (7, holder(7))]);
    assert_eq!(messages, 7 + 6 + 7);
}
