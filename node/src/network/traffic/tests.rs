use super::*;

fn traffic() -> (Traffic, Instant) {
    let now = Instant::now();
    (Traffic::new(Written::default(), now), now)
}

/// Sixteen peers send the largest messages, or small ones, and no verdict comes.
#[test]
fn what_waits_for_a_verdict_is_bounded_in_bytes_and_shared() {
    for topic in Topic::ALL {
        for bytes in [topic.bytes_max(), 200] {
            let (mut traffic, now) = traffic();
            let mut places = Vec::new();
            for _ in 0..16 {
                let from = PeerId::random();
                let before = places.len();
                let placed = (0..gossip_queue(topic))
                    .map_while(|_| traffic.on_message(topic, from, bytes, now));
                places.extend(placed);
                assert!(places.len() > before, "each has a place");
            }
            let Share { all, floor } = waiting(topic);
            let held: usize = places.iter().map(Place::bytes).sum();
            assert!(held <= all + 16 * floor, "{topic:?}: {held} bytes");
            assert!(places.len() <= gossip_queue(topic) + 16 * floor / weight(topic, bytes));
            let total = lock(&traffic.waiting[topic.index()]).total;
            drop(places);
            let after = lock(&traffic.waiting[topic.index()]);
            assert!(total > all / 2 && after.total == 0 && after.peers.is_empty());
        }
    }
}

#[test]
fn only_so_much_is_passed_on_in_the_time_that_it_is_kept() {
    let (mut traffic, start) = traffic();
    let topic = Topic::Transactions;
    let mut relay = |bytes: usize, after: Duration| {
        let now = start + after;
        let place =
            traffic.on_message(topic, PeerId::random(), bytes, now).expect("nothing else waits");
        traffic.may_relay(&place, now)
    };
    let count = relayed_max(topic) / (64 << 10);
    for number in 0..count {
        assert!(relay(64 << 10, Duration::from_millis(900)), "{number}");
    }
    assert!(!relay(64 << 10, Duration::from_millis(900)));
    assert!(relay(SMALL_BYTES, Duration::from_millis(900)), "a small one");
    assert!(!relay(64 << 10, Duration::from_secs(4)));
    assert!(relay(64 << 10, Duration::from_secs(5)));
    assert!(relay(64 << 10, Duration::from_secs(1_000)));
}

#[test]
fn room_for_relaying_comes_back_second_by_second() {
    let (mut window, half) = (Window::default(), relayed_max(Topic::Transactions) / 2);
    for (second, added, expected) in
        [(0, half, half), (3, half, 2 * half), (4, 0, 2 * half), (5, 0, half), (8, 0, 0)]
    {
        let time = Duration::from_secs(second);
        window.add(added, time);
        assert_eq!(window.total(time), expected, "after {second} s");
    }
}

#[test]
fn whoever_does_not_read_is_owed_only_so_much() {
    let (mut traffic, start) = traffic();
    let stuck = PeerId::random();
    let largest = Topic::Consensus.bytes_max();
    let mut over = Vec::new();
    let mut pushed = 0;
    while over.is_empty() {
        over = traffic.on_pushed([stuck].into_iter(), largest, start);
        pushed += 1;
        assert!(pushed < 1_000, "{pushed} of the largest messages are owed");
    }
    assert_eq!((over, pushed), (vec![stuck], OWED_MAX as usize / largest + 1));
    assert_eq!((traffic.owed_all, traffic.owed.len()), (0, 0));

    // Many peers, none of which is owed much.
    let peers: Vec<PeerId> = (0..100).map(|_| PeerId::random()).collect();
    let mut cut = Vec::new();
    for _ in 0..10 {
        let rest: Vec<PeerId> = peers.iter().filter(|peer| !cut.contains(*peer)).copied().collect();
        cut.extend(traffic.on_pushed(rest.into_iter(), largest, start));
        assert!(traffic.owed_all <= OWED_ALL_MAX, "{}", traffic.owed_all);
    }
    assert!((50..100).contains(&cut.len()), "{} of 100", cut.len());
}

#[test]
fn what_is_written_or_was_dropped_is_no_longer_owed() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut owed = Owed::new(1_000, start);
    owed.push(5_000, at(0));
    owed.push(5_000, at(1));
    assert_eq!(owed.settle(7_000, at(1)), 6_000);
    assert_eq!(owed.total, 4_000);
    assert_eq!(owed.settle(50_000, at(2)), 4_000, "control messages are written too");
    let large = 10 * TRANSMIT_BYTES_MAX as u64;
    owed.push(large, at(3));
    assert_eq!(
        owed.settle(50_000 + TRANSMIT_BYTES_MAX as u64 / 2, at(20)),
        TRANSMIT_BYTES_MAX as u64 / 2
    );
    assert_eq!(
        owed.settle(50_000 + TRANSMIT_BYTES_MAX as u64, at(30)),
        TRANSMIT_BYTES_MAX as u64 / 2
    );
    assert!(owed.total > 0, "as far as is known it was all still in the queue at the mark");
    owed.push(10, at(35));
    owed.settle(50_000 + 2 * TRANSMIT_BYTES_MAX as u64, at(50));
    assert_eq!(
        owed.total, 10,
        "something was taken from the queue after 30 s, and what waited since 3 s is gone"
    );
}

#[test]
fn who_floods_with_what_is_of_no_use_is_found() {
    let (mut traffic, start) = traffic();
    let (honest, flooder) = (PeerId::random(), PeerId::random());
    for _ in 0..FRESH_MAX / 2 {
        if let Some(place) = traffic.on_message(Topic::Consensus, honest, 200, start) {
            traffic.may_relay(&place, start);
        }
    }
    for _ in 0..FRESH_MAX / 2 {
        traffic.on_message(Topic::Consensus, flooder, 200, start);
    }
    assert_eq!(traffic.flooder(start), None, "it is not too much yet");
    traffic.on_message(Topic::Consensus, honest, 200, start);
    assert_eq!(traffic.flooder(start), Some(flooder));
    assert_eq!(traffic.flooder(start + FRESH_PAUSE), None, "what is accepted is of use");
    let later = start + Duration::from_secs(120);
    for _ in 0..FRESH_MAX / 2 {
        traffic.on_message(Topic::Consensus, flooder, 200, later);
    }
    assert_eq!(traffic.flooder(later), None, "what was two minutes ago is forgotten");
}
