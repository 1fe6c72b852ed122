#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use ledger::address::Coin;
use ledger::certificate::Certificate;
use ledger::chain::{Chain, ChainState};
use ledger::codec;
use ledger::genesis::{FORMAT, Genesis, GenesisValidator, Limits};
use ledger::hash::{BlockHash, Hash, SnapshotId};
use ledger::history::{HistoryRules, SegmentDescriptor, SegmentHead};
use ledger::signature::SigningKey;
use ledger::snapshot::{FRONTIER_PAGE_SUBTREES, SubtreeDescriptor};
use ledger::units::{Height, SegmentIndex, Timestamp, VotingPower};

use super::engine::{ANSWERED_ALL, ANSWERED_ALL_AT_ONCE, ANSWERED_EACH, ANSWERED_EACH_AT_ONCE};
use super::history::answers::HEAD_COST;
use super::message::{
    CollectionId, CollectionNumber, DESCRIPTORS_MAX, FrontierPage, Holdings, MANIFEST_SEGMENTS_MAX,
    Update, WANTS_MAX,
};
use super::*;
use crate::budget::{Cost, KEPT};
use crate::message::CertifiedHeader;

const START: u64 = 1_767_225_600_000;

pub(super) fn genesis_state() -> ChainState {
    let key = SigningKey::from_seed(&[1; 32]).public();
    ChainState::genesis(Chain::new(Genesis {
        format: FORMAT,
        network: "local".to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(START),
        accounts: Vec::new(),
        validators: vec![GenesisValidator {
            name: String::new(),
            key,
            payout: key,
            power: VotingPower(1),
        }],
        limits: Limits::default(),
    }))
}

pub(super) fn sync(state: &ChainState) -> Swarm {
    let setup = Setup {
        chain: Arc::clone(state.chain()),
        history: state.history(),
        kept: SegmentRanges::default(),
        staged: Vec::new(),
        manifest: None,
        nonce: 1,
        rates: Rates::default(),
        join: None,
    };
    Swarm::new(setup, Duration::ZERO).0
}

/// Valid descriptors, from the first segment on.
fn descriptors(rules: &HistoryRules, count: usize) -> Vec<SegmentDescriptor> {
    let descriptor = |index: u64| SegmentDescriptor {
        index,
        first: Height(1 + index * rules.segment_blocks),
        last: Height((1 + index) * rules.segment_blocks),
        bytes: rules.segment_blocks,
        chunks_root: Hash::ZERO,
        blocks_root: Hash::ZERO,
        last_block: BlockHash(Hash::ZERO),
    };
    (0..count as u64).map(descriptor).collect()
}

fn ask(sync: &mut Swarm, at: Duration, peer: PeerId, message: &SyncMessage) -> Vec<Effect> {
    sync.handle(at, Input::Message(peer, codec::encode(message)))
}

/// Ninety-six peers ask for the longest page of a manifest and for heads as often as they can.
#[test]
fn what_peers_have_read_from_the_store_is_bounded_for_each_and_for_all() {
    let state = genesis_state();
    let mut sync = sync(&state);
    let sealed = descriptors(state.history().rules(), DESCRIPTORS_MAX);
    let tip = sealed.last().unwrap().last;
    sync.handle(Duration::ZERO, Input::Tip(tip, sealed));
    let (page, pages) = (DESCRIPTORS_MAX as u64, |units: u64| units / DESCRIPTORS_MAX as u64);
    let (mut first, mut all) = (0, 0);
    for peer in (1..=96).map(PeerId) {
        sync.handle(Duration::ZERO, Input::Opened(peer));
    }
    for second in 0..10 {
        for peer in (1..=96).map(PeerId) {
            for _ in 0..40 {
                let question = SyncMessage::GetManifest(tip, SegmentIndex(0));
                let effects = ask(&mut sync, Duration::from_secs(second), peer, &question);
                let is_page = |effect: &Effect| matches!(effect, Effect::SendManifest { .. });
                let read = effects.iter().any(is_page);
                assert_eq!(effects.len(), 1, "each question has an answer");
                all += u64::from(read);
                first += u64::from(read && peer == PeerId(1));
            }
        }
    }
    assert!(first <= pages(ANSWERED_EACH_AT_ONCE + 10 * ANSWERED_EACH), "{first} pages for one");
    assert!(first >= pages(ANSWERED_EACH_AT_ONCE), "a whole manifest is read for a newcomer");
    assert!(all <= pages(ANSWERED_ALL_AT_ONCE + 10 * ANSWERED_ALL), "{all} pages");
    assert!(all * page >= 9 * ANSWERED_ALL, "and no fewer");
    let heads = (0..1_000).filter(|_| {
        let question = SyncMessage::GetHead(SegmentIndex(0));
        let effects = ask(&mut sync, Duration::from_secs(10), PeerId(50), &question);
        effects.iter().any(|effect| matches!(effect, Effect::SendHead(..)))
    });
    let heads = heads.count() as u64;
    assert!((1..=ANSWERED_EACH_AT_ONCE / HEAD_COST).contains(&heads), "{heads} heads");
}

/// A peer sends page after page of a manifest that no certificate proves.
#[test]
fn a_manifest_without_end_is_given_up() {
    let state = genesis_state();
    let mut sync = sync(&state);
    let block = state.propose(
        SigningKey::from_seed(&[1; 32]).public(),
        Timestamp(START + 1),
        Certificate::genesis(state.chain().id()),
        Vec::new(),
    );
    let mut header = block.block().header.clone();
    let pages = descriptors(state.history().rules(), MANIFEST_SEGMENTS_MAX + DESCRIPTORS_MAX);
    header.height = Height(pages.last().unwrap().last.0 + 1_000_000);
    let height = header.height;
    let liar = PeerId(1);
    sync.handle(Duration::ZERO, Input::Opened(liar));
    let number = CollectionNumber(7);
    let whole = SegmentRanges::before(SegmentIndex(u64::MAX));
    let holdings = Holdings { whole, ..Holdings::default() };
    for message in [
        SyncMessage::Height(height),
        SyncMessage::Open(number, CollectionId(state.chain().id().0)),
        SyncMessage::Holdings(number, holdings),
    ] {
        ask(&mut sync, Duration::ZERO, liar, &message);
    }
    let certificate = Certificate::genesis(state.chain().id());
    sync.handle(Duration::ZERO, Input::Certified(CertifiedHeader { header, certificate }));
    let is_banned =
        |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Ban { .. }));
    let mut banned_after = None;
    for (at, page) in pages.chunks(DESCRIPTORS_MAX).enumerate() {
        let first = SegmentIndex(page[0].index);
        let message = SyncMessage::Manifest(height, first, Some(page.to_vec()));
        if is_banned(&ask(&mut sync, Duration::from_millis(at as u64), liar, &message)) {
            banned_after = Some(at);
            break;
        }
    }
    assert_eq!(banned_after, Some(MANIFEST_SEGMENTS_MAX / DESCRIPTORS_MAX));
}

/// Questions for heights that nobody knows cost nothing. Cheap questions use up what all peers
/// share, but a dear one of another peer is answered as soon as anything is left.
#[test]
fn nobody_is_kept_from_asking_by_the_questions_of_others() {
    let state = genesis_state();
    let mut sync = sync(&state);
    let sealed = descriptors(state.history().rules(), DESCRIPTORS_MAX);
    let tip = sealed.last().unwrap().last;
    sync.handle(Duration::ZERO, Input::Tip(tip, sealed));
    for peer in (1..=96).map(PeerId) {
        sync.handle(Duration::ZERO, Input::Opened(peer));
    }
    let is_work = |effect: &Effect| !matches!(effect, Effect::Send(..));
    let mut works = |at, peer, question: &SyncMessage| {
        ask(&mut sync, at, PeerId(peer), question).iter().any(is_work)
    };
    let unknown = SyncMessage::GetManifest(tip.next(), SegmentIndex(0));
    let proof = SyncMessage::GetBlockProof(Height(7));
    for _ in 0..1_000 {
        assert!(!works(Duration::ZERO, 1, &unknown));
        assert!(!works(Duration::ZERO, 1, &SyncMessage::GetBlockProof(tip.next())));
    }
    assert!(works(Duration::ZERO, 1, &proof), "unknown heights have cost it nothing");
    let mut peers = 2..95;
    // Heads use up what is left, and what comes in a millisecond, which is less than one proof.
    let head = SyncMessage::GetHead(SegmentIndex(0));
    let mut peer = peers.next().unwrap();
    for _ in 0..2 * ANSWERED_ALL_AT_ONCE / HEAD_COST {
        if !works(Duration::ZERO, peer, &head) {
            peer = peers.next().unwrap_or(94);
        }
    }
    assert!(!works(Duration::ZERO, 96, &head) && !works(Duration::ZERO, 96, &proof));
    assert!(works(Duration::from_millis(1), 96, &proof));
    assert!(!works(Duration::from_millis(2), 95, &head), "its cost is paid all the same");
}

#[test]
fn a_message_costs_what_its_bytes_are() {
    let hash = Hash([7; 32]);
    let cost = |message: &SyncMessage| SyncMessage::cost(&codec::encode(message));
    let state = genesis_state();
    let descriptors = descriptors(state.history().rules(), DESCRIPTORS_MAX);
    let subtree = SubtreeDescriptor { depth: 20, count: 1, hash };
    let page = FrontierPage { block: None, subtrees: vec![subtree; FRONTIER_PAGE_SUBTREES] };
    let chunks = vec![hash; 1_000];
    let certificate = Certificate::genesis(state.chain().id());
    let head = SegmentHead { descriptor: descriptors[0], chunks, certificate };
    let segment = SegmentIndex(0);
    // Hashes at least, and at most a half more.
    for (message, hashes) in [
        (SyncMessage::Frontier(SnapshotId(hash), 1, Some(page)), FRONTIER_PAGE_SUBTREES as u64),
        (SyncMessage::Manifest(Height(9), segment, Some(descriptors)), 4 * 4_096),
        (SyncMessage::Head(segment, Some(head)), 1_000),
    ] {
        let (got, least) = (cost(&message), Cost::hashes(hashes).verify);
        assert!((least..=least + least / 2).contains(&got.verify), "{got:?}");
        assert!(got.look_up == 0 && got.total() * 27 < KEPT, "a whole frontier: {got:?}");
    }
    let add = vec![HISTORY.segment(segment).chunk(7); WANTS_MAX];
    let names = cost(&SyncMessage::Update(Update { add, ..Update::default() }));
    assert!((512..600).contains(&names.look_up) && names.verify == 0, "{names:?}");
    let range = SegmentRange { first: segment, last: segment };
    let held = cost(&SyncMessage::Held(HISTORY, range));
    assert!(held.total() < 30, "{held:?}");
    assert_eq!(SyncMessage::cost(&[]), Cost::message(0));
}
