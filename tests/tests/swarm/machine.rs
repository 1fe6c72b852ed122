//! Tests of one swarm machine and a few peers.

use std::collections::BTreeSet;
use std::time::Duration;

use ledger::codec;
use ledger::history::SegmentDescriptor;
use ledger::units::{Height, SegmentIndex};
use protocol::swarm::message::{
    ChunkId, CollectionNumber, DESCRIPTORS_MAX, Holdings, SyncMessage, Update,
};
use protocol::swarm::{
    Effect, HISTORY, Input, OPEN_SEGMENTS_MAX, Rates, SegmentRange, SegmentRanges, Setup, Stage,
    Swarm,
};
use protocol::{FetchPlan, PeerId};
use tests::swarm::Made;

use super::{FIRST, MIB};

/// A machine that has applied this many segments.
fn machine(made: &Made, segments: usize) -> Swarm {
    let history = made.history(segments);
    let setup = Setup {
        chain: made.chain.clone(),
        history: &history,
        kept: SegmentRanges::before(SegmentIndex(segments as u64)),
        staged: Vec::new(),
        manifest: None,
        nonce: 7,
        rates: Rates::default(),
        join: None,
    };
    Swarm::new(setup, Duration::ZERO).0
}

/// A machine that knows a chain to fetch.
fn fetching(made: &Made) -> Swarm {
    let mut sync = machine(made, 0);
    sync.handle(Duration::ZERO, Input::Certified(made.target.clone()));
    sync
}

fn say(message: &SyncMessage) -> Vec<u8> {
    codec::encode(message)
}

/// A peer's number for history. It differs from the machine's.
const NUMBER: CollectionNumber = CollectionNumber(7);

/// What a peer says first. It is at this height, and has this many segments and no chunk of any
/// other segment.
fn hello(made: &Made, height: Height, segments: u64, nonce: u64) -> [Vec<u8>; 3] {
    let whole = SegmentRanges::before(SegmentIndex(segments));
    let holdings = Holdings { whole, open: Vec::new(), nonce };
    [
        SyncMessage::Height(height),
        SyncMessage::Open(NUMBER, made.id()),
        SyncMessage::Holdings(NUMBER, holdings),
    ]
    .map(|message| say(&message))
}

/// Gives the machine messages of a peer, and returns all effects.
fn hear(
    sync: &mut Swarm,
    now: Duration,
    peer: PeerId,
    messages: impl IntoIterator<Item = Vec<u8>>,
) -> Vec<Effect> {
    let messages = messages.into_iter().map(|bytes| Input::Message(peer, bytes));
    messages.flat_map(|message| sync.handle(now, message)).collect()
}

/// A peer opens a link and sends its holdings: this many segments, up to this height.
fn greet(sync: &mut Swarm, made: &Made, peer: PeerId, height: Height, sealed: u64) -> Vec<Effect> {
    sync.handle(Duration::ZERO, Input::Opened(peer));
    hear(sync, Duration::ZERO, peer, hello(made, height, sealed, peer.0))
}

#[test]
fn a_bad_manifest_bans_the_peer_that_sent_it_and_the_next_is_asked() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let mut sync = fetching(&made);
    let (liar, honest) = (PeerId(1), PeerId(2));
    let height = made.target.header.height;
    let asks = |effects: &[Effect], peer: PeerId| {
        effects.iter().any(|effect| match effect {
            Effect::Send(to, bytes) => {
                *to == peer
                    && matches!(SyncMessage::decode(bytes), Ok(SyncMessage::GetManifest(..)))
            }
            _ => false,
        })
    };
    assert!(asks(&greet(&mut sync, &made, liar, height, 4), liar));
    greet(&mut sync, &made, honest, height, 4);
    let count = made.heads.len();
    let mut forged = made.descriptors(count);
    forged[0].last_block = forged[1].last_block;
    let answer = SyncMessage::Manifest(made.target.header.height, FIRST, Some(forged));
    let effects = sync.handle(Duration::ZERO, Input::Message(liar, say(&answer)));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Ban { peer, .. } if *peer == liar)),
        "{effects:?}"
    );
    assert!(asks(&effects, honest), "{effects:?}");
    let all = made.descriptors(count);
    let answer = SyncMessage::Manifest(made.target.header.height, FIRST, Some(all));
    let effects = sync.handle(Duration::ZERO, Input::Message(honest, say(&answer)));
    let has_segments = |effect: &Effect| matches!(effect, Effect::Plan(FetchPlan::Segments(_)));
    assert!(effects.iter().any(has_segments), "{effects:?}");
    assert_eq!(sync.report().stage, Stage::Chunks);
}

/// Answers as `peer`, which has everything. `told` collects the wants and the applied segments.
fn answer(sync: &mut Swarm, made: &Made, peer: PeerId, effects: Vec<Effect>, told: &mut Told) {
    let mut effects = std::collections::VecDeque::from(effects);
    while let Some(effect) = effects.pop_front() {
        let input = match effect {
            Effect::Send(to, bytes) if to == peer => match SyncMessage::decode(&bytes) {
                Ok(SyncMessage::GetManifest(height, FIRST)) => {
                    let all = made.descriptors(made.heads.len());
                    Input::Message(peer, say(&SyncMessage::Manifest(height, FIRST, Some(all))))
                }
                Ok(SyncMessage::GetHead(index)) => {
                    let head = made.head(index).clone();
                    Input::Message(peer, say(&SyncMessage::Head(index, Some(head))))
                }
                Ok(SyncMessage::Update(update)) => {
                    told.wants.extend(update.add);
                    told.wants.retain(|id| !update.remove.contains(id));
                    continue;
                }
                _ => continue,
            },
            Effect::Assemble(index) => Input::Assembled(index, Vec::new()),
            Effect::Apply(index) => {
                told.applied.push(index.0);
                let descriptor = made.head(index).descriptor;
                Input::Tip(descriptor.last, vec![descriptor])
            }
            _ => continue,
        };
        effects.extend(sync.handle(told.now, input));
    }
}

#[derive(Default)]
struct Told {
    now: Duration,
    wants: BTreeSet<ChunkId>,
    applied: Vec<u64>,
}

#[test]
fn segments_that_complete_in_any_order_are_all_applied() {
    let made = Made::new(MIB / 4, 64 << 10, 64 << 10);
    let count = made.heads.len() as u64;
    assert!(count == 4 && made.chunks() == 4, "one chunk each");
    let orders = (0..256u64).map(|code| [code % 4, code / 4 % 4, code / 16 % 4, code / 64]);
    for order in orders.filter(|order| BTreeSet::from(*order).len() == 4) {
        let peer = PeerId(1);
        let (mut sync, mut told) = (fetching(&made), Told::default());
        let hello = hello(&made, made.target.header.height, count, 1);
        let hello = hello.map(|bytes| Input::Message(peer, bytes));
        for input in [Input::Opened(peer)].into_iter().chain(hello).chain([Input::Time]) {
            told.now += Duration::from_millis(100);
            let effects = sync.handle(told.now, input);
            answer(&mut sync, &made, peer, effects, &mut told);
        }
        for segment in order {
            let id = HISTORY.segment(SegmentIndex(segment)).chunk(0);
            assert!(told.wants.remove(&id), "{order:?}: {segment} is wanted");
            let (_, bytes) = made.chunk(id).unwrap();
            told.now += Duration::from_millis(100);
            let effects =
                sync.handle(told.now, Input::Chunk { from: peer, id, is_valid: true, bytes });
            answer(&mut sync, &made, peer, effects, &mut told);
        }
        assert_eq!(told.applied, [0, 1, 2, 3], "{order:?}");
    }
}

#[test]
fn who_claims_to_know_all_and_says_nothing_is_asked_once_in_a_while() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let (mut sync, mut told) = (fetching(&made), Told::default());
    let honest = PeerId(9);
    let silent: Vec<PeerId> = (1..=3).map(PeerId).collect();
    // The honest peer sent its holdings when its height was below that of the target.
    for (peer, height) in silent.iter().map(|peer| (*peer, u64::MAX)).chain([(honest, 1)]) {
        let sealed = if peer == honest { made.heads.len() as u64 } else { u64::MAX };
        let hello = hello(&made, Height(height), sealed, peer.0);
        let hello = hello.map(|bytes| Input::Message(peer, bytes));
        for input in [Input::Opened(peer)].into_iter().chain(hello) {
            let effects = sync.handle(told.now, input);
            answer(&mut sync, &made, honest, effects, &mut told);
        }
    }
    while told.wants.is_empty() && told.now < Duration::from_secs(30) {
        told.now =
            sync.deadline().expect("something is awaited").max(told.now + Duration::from_millis(1));
        let effects = sync.handle(told.now, Input::Time);
        answer(&mut sync, &made, honest, effects, &mut told);
    }
    assert!(!told.wants.is_empty(), "still waiting after {:?}", told.now);
}

#[test]
fn the_first_head_is_asked_for_with_the_manifest() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let peer = PeerId(1);
    let height = made.target.header.height;
    let all = made.descriptors(made.heads.len());
    let manifest = say(&SyncMessage::Manifest(height, FIRST, Some(all)));
    let head = say(&SyncMessage::Head(FIRST, Some(made.heads[0].clone())));
    let asked = |effects: &[Effect]| -> Vec<SyncMessage> {
        let said = effects.iter().filter_map(|effect| match effect {
            Effect::Send(_, bytes) => SyncMessage::decode(bytes).ok(),
            _ => None,
        });
        let is_question = |message: &SyncMessage| match message {
            SyncMessage::GetManifest(..) => true,
            SyncMessage::GetHead(index) => *index == FIRST,
            _ => false,
        };
        said.filter(is_question).collect()
    };
    let begins =
        |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Begin(..)));
    for is_early in [false, true] {
        let mut sync = fetching(&made);
        let both = [SyncMessage::GetManifest(height, FIRST), SyncMessage::GetHead(FIRST)];
        assert_eq!(asked(&greet(&mut sync, &made, peer, height, 4)), both);
        let mut give =
            |bytes: &[u8]| sync.handle(Duration::ZERO, Input::Message(peer, bytes.to_vec()));
        if is_early {
            // A head that is not proved yet is dropped, and asked for again once it can be checked.
            assert!(!begins(&give(&head)));
            assert_eq!(asked(&give(&manifest)), [SyncMessage::GetHead(FIRST)]);
        } else {
            assert_eq!(asked(&give(&manifest)), []);
        }
        assert!(begins(&give(&head)));
        // A peer that sends its holdings now is asked for chunks at the same moment.
        let late = PeerId(2);
        let effects = greet(&mut sync, &made, late, height, 4);
        let is_asked = |effect: &Effect| match effect {
            Effect::Send(to, bytes) => {
                *to == late && matches!(SyncMessage::decode(bytes), Ok(SyncMessage::Update(_)))
            }
            _ => false,
        };
        assert!(effects.iter().any(is_asked), "{effects:?}");
    }
}

/// A full page of descriptors. Each follows the one before it by the rules. Those after the end of
/// the chain are made up.
fn page(made: &Made) -> Vec<SegmentDescriptor> {
    let mut page = made.descriptors(made.heads.len());
    while page.len() < DESCRIPTORS_MAX {
        let mut next = page[page.len() - 1];
        let blocks = next.last.0 - next.first.0;
        next.index += 1;
        next.first = next.last.next();
        next.last = Height(next.first.0 + blocks);
        page.push(next);
    }
    page
}

/// A peer that sends pages without end is not awaited for ever. After each timeout the next timeout
/// is twice as long, for slow links.
#[test]
fn a_manifest_that_takes_too_long_is_asked_of_another() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let mut sync = fetching(&made);
    let mut target = made.target.clone();
    target.header.height = Height(1 << 30);
    sync.handle(Duration::ZERO, Input::Certified(target.clone()));
    let height = target.header.height;
    let asked = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Send(to, bytes) => match SyncMessage::decode(bytes) {
                Ok(SyncMessage::GetManifest(_, from)) => Some((*to, from.0)),
                _ => None,
            },
            _ => None,
        })
    };
    let [first, second] = [PeerId(1), PeerId(2)];
    assert_eq!(asked(&greet(&mut sync, &made, first, height, 4)), Some((first, 0)));
    assert_eq!(asked(&greet(&mut sync, &made, second, height, 4)), None);
    let answer = say(&SyncMessage::Manifest(height, FIRST, Some(page(&made))));
    let mut at =
        |tenths: u64, input: Input| sync.handle(Duration::from_millis(100 * tenths), input);
    let next = DESCRIPTORS_MAX as u64;
    assert_eq!(asked(&at(29, Input::Message(first, answer.clone()))), Some((first, next)));
    assert_eq!(asked(&at(31, Input::Time)), Some((second, 0)));
    assert_eq!(asked(&at(80, Input::Message(second, answer.clone()))), Some((second, next)));
    assert_eq!(asked(&at(90, Input::Time)), None);
    assert_eq!(asked(&at(92, Input::Time)), Some((first, 0)));
    assert_eq!(asked(&at(110, Input::Message(first, answer))), Some((first, next)));
    assert_eq!(asked(&at(211, Input::Time)), None);
    assert_eq!(asked(&at(213, Input::Time)), Some((second, 0)));
}

/// If a machine took heads that it did not ask for, they could use up the number of heads that it
/// may stage.
#[test]
fn a_head_that_was_not_asked_for_is_not_taken() {
    let made = Made::new(5 * MIB, MIB / 4, 64 << 10);
    let mut sync = fetching(&made);
    let (height, count) = (made.target.header.height, made.heads.len());
    assert!(count > 17, "{count}");
    let peer = PeerId(1);
    greet(&mut sync, &made, peer, height, count as u64);
    let mut give =
        |message: &SyncMessage| sync.handle(Duration::ZERO, Input::Message(peer, say(message)));
    give(&SyncMessage::Manifest(height, FIRST, Some(made.descriptors(count))));
    let begun =
        |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Begin(..)));
    for (index, is_asked) in [(count - 1, false), (15, true), (0, true)] {
        let head = Some(made.heads[index].clone());
        let effects = give(&SyncMessage::Head(SegmentIndex(index as u64), head));
        assert_eq!(begun(&effects), is_asked, "{index}");
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Ban { .. })),
            "it is true all the same"
        );
    }
}

/// One peer keeps the first segments, and another one all others.
#[test]
fn who_does_not_have_a_segment_is_not_asked_for_its_head() {
    const KEPT: u64 = 3;
    let made = Made::new(5 * MIB, MIB / 4, 64 << 10);
    let mut sync = fetching(&made);
    let (height, count) = (made.target.header.height, made.heads.len());
    let (few, most) = (PeerId(1), PeerId(2));
    greet(&mut sync, &made, few, height, KEPT);
    greet(&mut sync, &made, most, height, 0);
    let (first, last) = (SegmentIndex(KEPT), SegmentIndex(count as u64 - 1));
    let held = say(&SyncMessage::Held(NUMBER, SegmentRange { first, last }));
    hear(&mut sync, Duration::ZERO, most, [held]);
    let manifest = SyncMessage::Manifest(height, FIRST, Some(made.descriptors(count)));
    let effects = hear(&mut sync, Duration::ZERO, few, [say(&manifest)]);
    let asked = effects.iter().filter_map(|effect| {
        let Effect::Send(to, bytes) = effect else { return None };
        let Ok(SyncMessage::GetHead(index)) = SyncMessage::decode(bytes) else { return None };
        Some((index.0, *to))
    });
    let asked: Vec<_> = asked.collect();
    assert!(asked.len() > 2 * KEPT as usize, "{asked:?}");
    let holder = |index| if index < KEPT { few } else { most };
    assert!(asked.iter().all(|(index, to)| *to == holder(*index)), "{asked:?}");
}

/// A requested head counts as staged, so staged and requested heads together keep to the limit.
#[test]
fn no_more_heads_are_asked_for_than_may_be_staged() {
    let made = Made::new(5 * MIB, MIB / 16, 16 << 10);
    let mut sync = fetching(&made);
    let (height, count) = (made.target.header.height, made.heads.len());
    let peer = PeerId(1);
    greet(&mut sync, &made, peer, height, count as u64);
    let mut give =
        |message: &SyncMessage| sync.handle(Duration::ZERO, Input::Message(peer, say(message)));
    let (mut asked, mut begun) = (BTreeSet::from([FIRST]), 0);
    let mut effects = give(&SyncMessage::Manifest(height, FIRST, Some(made.descriptors(count))));
    loop {
        for effect in &effects {
            match effect {
                Effect::Begin(..) => begun += 1,
                Effect::Send(_, bytes) => {
                    if let Ok(SyncMessage::GetHead(index)) = SyncMessage::decode(bytes) {
                        asked.insert(index);
                    }
                }
                _ => {}
            }
        }
        assert!(begun + asked.len() <= OPEN_SEGMENTS_MAX, "{begun} and {}", asked.len());
        let Some(index) = asked.pop_first() else { break };
        effects = give(&SyncMessage::Head(index, Some(made.head(index).clone())));
    }
    assert!(begun == OPEN_SEGMENTS_MAX && count > begun, "{begun} of {count}");
}

/// A home may hold more staged segments than may be open, for example from an earlier version.
#[test]
fn of_what_an_earlier_run_staged_the_first_segments_stay_open() {
    let made = Made::new(5 * MIB, MIB / 16, 16 << 10);
    let (height, count) = (made.target.header.height, made.heads.len());
    let mut sync = fetching(&made);
    greet(&mut sync, &made, PeerId(1), height, count as u64);
    let answer = SyncMessage::Manifest(height, FIRST, Some(made.descriptors(count)));
    let effects = hear(&mut sync, Duration::ZERO, PeerId(1), [say(&answer)]);
    let manifest = effects.into_iter().find_map(|effect| match effect {
        Effect::SaveManifest(bytes) => Some(bytes),
        _ => None,
    });
    assert!(manifest.is_some() && count > OPEN_SEGMENTS_MAX);
    let staged = made.heads.iter().map(|head| (head.clone(), vec![true; head.chunks.len()]));
    let setup = Setup {
        chain: made.chain.clone(),
        history: &made.history(0),
        kept: SegmentRanges::default(),
        staged: staged.collect(),
        manifest,
        nonce: 7,
        rates: Rates::default(),
        join: None,
    };
    let (sync, effects) = Swarm::new(setup, Duration::ZERO);
    let released = |effect: &Effect| match effect {
        Effect::Release(segment) => Some(segment.index.0 as usize),
        _ => None,
    };
    let released: Vec<usize> = effects.iter().filter_map(released).collect();
    assert_eq!(released, (OPEN_SEGMENTS_MAX..count).collect::<Vec<_>>());
    assert_eq!(sync.report().segments.len(), OPEN_SEGMENTS_MAX);
}

#[test]
fn who_wants_what_cannot_be_is_banned_and_keeps_nobody_waiting() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let mut sync = fetching(&made);
    let peer = PeerId(1);
    greet(&mut sync, &made, peer, Height(0), 0);
    let sealed = made.descriptors(1);
    sync.handle(Duration::ZERO, Input::Tip(sealed[0].last, sealed));
    let chunks = 1_000..1_100;
    let add: Vec<ChunkId> = chunks.map(|chunk| NUMBER.segment(FIRST).chunk(chunk)).collect();
    let update = Update {
        have: Vec::new(),
        add: add.clone(),
        remove: Vec::new(),
        received: 0,
        allowed: 100,
    };
    let effects =
        sync.handle(Duration::ZERO, Input::Message(peer, say(&SyncMessage::Update(update))));
    let sent = |effects: &[Effect]| {
        effects.iter().any(|effect| matches!(effect, Effect::SendChunk { .. }))
    };
    assert!(sent(&effects), "{effects:?}");
    let effects =
        sync.handle(Duration::ZERO, Input::Impossible(peer, HISTORY.segment(FIRST).chunk(1_000)));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ban { peer: who, .. } if *who == peer)),
        "{effects:?}"
    );
    assert!(!sent(&effects), "{effects:?}");
}

/// Each answer reads the store. A newcomer may ask for 4,096 heads at once, and then for 32 a
/// second.
#[test]
fn a_peer_has_few_questions_answered_in_a_second() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let mut sync = machine(&made, made.heads.len());
    let peer = PeerId(1);
    greet(&mut sync, &made, peer, Height(0), 0);
    let question = say(&SyncMessage::GetHead(FIRST));
    for (second, asked, count) in [(0, 4_100, 4_096), (1, 40, 32), (2, 40, 32)] {
        let now = Duration::from_secs(second);
        for at in 0..asked {
            let effects = sync.handle(now, Input::Message(peer, question.clone()));
            let is_answered = effects.iter().any(|effect| matches!(effect, Effect::SendHead(..)));
            assert_eq!(is_answered, at < count, "question {at} in second {second}");
            assert!(
                effects.iter().any(|effect| matches!(effect, Effect::Send(..))) || at < count,
                "it is told so"
            );
        }
    }
}

#[test]
fn a_manifest_that_has_no_end_bans_its_peer() {
    let made = Made::new(2 * MIB, MIB / 2, 64 << 10);
    let mut sync = fetching(&made);
    let peer = PeerId(1);
    greet(&mut sync, &made, peer, made.target.header.height, 4);
    // The descriptors reach beyond the header that is to prove them.
    let answer = SyncMessage::Manifest(made.target.header.height, FIRST, Some(page(&made)));
    let effects = sync.handle(Duration::ZERO, Input::Message(peer, say(&answer)));
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Ban { peer: who, .. } if *who == peer)),
        "{effects:?}"
    );
}
