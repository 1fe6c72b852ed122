//! Swarms of real sync machines on simulated links: what must hold whatever happens. Time is simulated, so these are exact.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::sync::message::{ChunkId, Status, SyncMessage, Update};
use protocol::sync::{Bits, Effect, IN_FLIGHT_BYTES_MAX, Input, Rates, Setup, Sync};
use protocol::{PeerId, sync};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tests::swarm::{Conduct, Made, Outcome, Plan, mbit, run};

/// A small chain, so that many runs take little time: 64 chunks.
fn small(seeds: usize, leechers: usize) -> Plan {
    Plan::new(seeds, leechers).with_bytes(8 << 20, 2 << 20, 128 << 10)
}

fn check(name: &str, plan: Plan) -> Outcome {
    let seed = plan.seed;
    let outcome = run(plan);
    assert!(outcome.is_complete, "{name}, seed {seed}: {outcome}");
    assert!(outcome.in_flight_max <= IN_FLIGHT_BYTES_MAX, "{name}, seed {seed}: {}", outcome.in_flight_max);
    outcome
}

#[test]
fn a_swarm_needs_little_more_than_the_links_do() {
    for (seeds, leechers, most) in [(1, 1, 1.15), (1, 4, 1.30), (1, 8, 1.40), (4, 1, 1.25)] {
        let name = format!("{seeds} seeds, {leechers} leechers");
        let outcome = check(&name, Plan::new(seeds, leechers).with_bytes(32 << 20, 8 << 20, 128 << 10));
        assert!(outcome.ratio() <= most, "{name}: {outcome}");
        assert!(outcome.duplicates <= 0.03, "{name}: {outcome}");
        assert!(outcome.bans.is_empty(), "{name}: {:?}", outcome.bans);
    }
}

#[test]
fn poisoners_are_banned_and_nobody_else_is() {
    for seed in 0..50 {
        let plan = small(10, 1).with_seed(seed).with_seeds(|at, member| {
            member.conduct = match at {
                0 | 1 => Conduct::Stalls,
                2 | 3 => Conduct::Poisons,
                _ => Conduct::Honest,
            };
        });
        let outcome = check("hostile seeds", plan);
        let banned: BTreeSet<usize> = outcome.bans.iter().map(|(_, who, _)| *who).collect();
        assert!(banned.is_subset(&BTreeSet::from([2, 3])), "seed {seed}: {:?}", outcome.bans);
        assert_eq!(banned.len(), outcome.bans.len(), "seed {seed}, one bad chunk is enough: {:?}", outcome.bans);
    }
}

#[test]
fn a_swarm_goes_on_without_its_seed() {
    for seed in 0..4 {
        let leaves = |_: usize, member: &mut tests::swarm::Member| member.leaves_after = Some(110);
        // What is on its way goes with it: of a longer chain that is less than the tenth that it may send twice.
        let plan = Plan::new(1, 6).with_bytes(32 << 20, 8 << 20, 128 << 10);
        check("the seed leaves", plan.with_seed(seed).with_seeds(leaves));
    }
}

#[test]
fn what_was_stored_before_a_kill_is_not_fetched_again() {
    let killed = |_: usize, member: &mut tests::swarm::Member| {
        member.up = mbit(10);
        member.killed_every = Some(Duration::from_secs(2));
    };
    let outcome = check(
        "killed again and again",
        small(1, 2).with_leechers(killed).with_seeds(|_, member| {
            member.up = mbit(10);
        }),
    );
    assert!(outcome.stored_twice == 0.0, "{outcome}, {}", outcome.stored_twice);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let runs: Vec<u64> = [1, 1, 2].into_iter().map(|seed| run(small(2, 5).with_seed(seed)).digest).collect();
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

/// A machine that knows a chain to fetch, and how it was told of it.
fn fetching(made: &Made) -> Sync {
    let history = made.history(0);
    let setup = Setup {
        chain: made.chain.clone(),
        history: &history,
        staged: Vec::new(),
        manifest: None,
        nonce: 7,
        rates: Rates::default(),
    };
    let (mut sync, _) = Sync::new(setup, Duration::ZERO);
    sync.handle(Duration::ZERO, Input::Certified(made.target.clone()));
    sync
}

fn say(message: &SyncMessage) -> Vec<u8> {
    ledger::codec::encode(message)
}

/// Whatever peers send, in whatever order: nothing panics, no chunk is stored twice, bans are for misdeeds.
#[test]
fn anything_may_come_from_peers() {
    let made = Made::new(2 << 20, 512 << 10, 64 << 10);
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sync = fetching(&made);
        let mut stored = BTreeSet::new();
        let mut now = Duration::ZERO;
        for _ in 0..400 {
            now += Duration::from_millis(rng.random_range(0..400));
            let peer = PeerId(rng.random_range(0..4));
            let id = ChunkId { segment: rng.random_range(0..6), chunk: rng.random_range(0..10) };
            let input = match rng.random_range(0..12) {
                0 => Input::Opened(peer),
                1 if rng.random_range(0..4) == 0 => Input::Closed(peer),
                2 => Input::Message(peer, (0..rng.random_range(0..60)).map(|_| rng.random()).collect()),
                3 => {
                    let mut bits = Bits::default();
                    bits.set(rng.random_range(0..12));
                    let status = Status {
                        height: ledger::units::Height(rng.random_range(0..100)),
                        pruned_below: rng.random_range(0..2),
                        sealed: rng.random_range(0..6),
                        partial: vec![(id.segment, bits)],
                        nonce: rng.random(),
                    };
                    Input::Message(peer, say(&SyncMessage::Status(status)))
                }
                4 => {
                    let update = Update {
                        have: vec![id],
                        add: vec![id],
                        remove: Vec::new(),
                        received: 0,
                        allowed: rng.random(),
                    };
                    Input::Message(peer, say(&SyncMessage::Update(update)))
                }
                5 => Input::Message(peer, say(&SyncMessage::Busy(rng.random()))),
                6 => {
                    let all = Some(made.descriptors(made.heads.len()));
                    Input::Message(peer, say(&SyncMessage::Manifest(made.target.header.height, 0, all)))
                }
                7 => {
                    let head = made.heads.get(id.segment as usize).cloned();
                    Input::Message(peer, say(&SyncMessage::Head(id.segment, head)))
                }
                8 | 9 => match made.chunk(id.segment, id.chunk) {
                    Some((hash, bytes)) => Input::Chunk(peer, id, hash, bytes),
                    None => Input::Time,
                },
                10 => Input::Message(peer, say(&SyncMessage::GetHead(rng.random_range(0..9)))),
                _ => Input::Time,
            };
            for effect in sync.handle(now, input) {
                if let Effect::Store(id) = effect {
                    assert!(stored.insert(id), "seed {seed}: {id:?} is stored twice");
                }
            }
            let report = sync.report();
            assert!(report.chunks_verified <= report.chunks_total, "seed {seed}: {report:?}");
        }
    }
}

#[test]
fn a_bad_manifest_bans_the_peer_that_sent_it_and_the_next_is_asked() {
    let made = Made::new(2 << 20, 512 << 10, 64 << 10);
    let mut sync = fetching(&made);
    let (liar, honest) = (PeerId(1), PeerId(2));
    let hello = |sealed| {
        let status =
            Status { height: made.target.header.height, pruned_below: 0, sealed, partial: Vec::new(), nonce: 1 };
        say(&SyncMessage::Status(status))
    };
    let asks = |effects: &[Effect], peer: PeerId| {
        effects.iter().any(|effect| match effect {
            Effect::Send(to, bytes) => {
                *to == peer && matches!(SyncMessage::decode(bytes), Ok(SyncMessage::GetManifest(..)))
            }
            _ => false,
        })
    };
    sync.handle(Duration::ZERO, Input::Opened(liar));
    assert!(asks(&sync.handle(Duration::ZERO, Input::Message(liar, hello(4))), liar));
    sync.handle(Duration::ZERO, Input::Opened(honest));
    sync.handle(Duration::ZERO, Input::Message(honest, hello(4)));
    let count = made.heads.len();
    let mut forged = made.descriptors(count);
    forged[0].last_block = forged[1].last_block;
    let answer = SyncMessage::Manifest(made.target.header.height, 0, Some(forged));
    let effects = sync.handle(Duration::ZERO, Input::Message(liar, say(&answer)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Ban(peer, _) if *peer == liar)), "{effects:?}");
    assert!(asks(&effects, honest), "{effects:?}");
    let answer = SyncMessage::Manifest(made.target.header.height, 0, Some(made.descriptors(count)));
    let effects = sync.handle(Duration::ZERO, Input::Message(honest, say(&answer)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Plan(Some(_)))), "{effects:?}");
    assert_eq!(sync.report().stage, sync::Stage::Chunks);
}
