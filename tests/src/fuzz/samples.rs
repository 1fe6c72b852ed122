//! The corpora: a few inputs for each target, from which a fuzzer starts. Some are right, and some
//! break one rule. A target refuses those whose name begins with `refused`.

use ledger::address::encode_address;
use ledger::certificate::{Certificate, VoteKind};
use ledger::codec;
use ledger::hash::Hash;
use ledger::state::StateKey;
use ledger::transaction::{Body, Transfer};
use ledger::units::{Amount, Height, Nonce, Round, SegmentIndex, Timestamp};
use protocol::eras::{Announcement, Era, EraRanges};
use protocol::holder::Holder;
use protocol::message::{
    Attempt, CertifiedHeader, ConsensusMessage, LogEntry, PolkaCertificate, Proposal, Request,
    Response, RoundCertificate, SignedProposal, SignedVote,
};
use protocol::search::{FloodMessage, Hops, QueryId, Wanted};
use protocol::swarm::message::{CollectionNumber, FrontierPage, Holdings, SyncMessage, Update};
use protocol::swarm::{Bits, SegmentRange, SegmentRanges};

use super::archive::whole;
use super::fixture::{ACCOUNTS, Fixture, START, compact, fixture, plain};
use super::sample::{Sample, named, noise, trailing};
use crate::swarm::MadeFile;

/// The corpus of a target, sorted by file name.
///
/// # Panics
/// If there is no such target.
#[must_use]
pub fn samples(target: &str) -> Vec<Sample> {
    let fixture = fixture();
    let mut samples = match target {
        "transaction" => transactions(fixture),
        "block" => blocks(fixture),
        "certificate" => certificates(fixture),
        "proof" => proofs(fixture),
        "exchange" => exchange(fixture),
        "consensus_gossip" => gossip(fixture),
        "sync_message" => sync_messages(),
        "archive" => archives(),
        "consensus_log" => logs(fixture),
        "genesis" => geneses(fixture),
        "snapshot" => snapshots(),
        "file" => super::file::samples(),
        "live_machine" => live(fixture),
        "swarm_machine" => swarm(),
        "file_machine" => super::file_machine::samples(),
        other => panic!("no target is called {other}"),
    };
    samples.sort();
    samples
}

fn transactions(fixture: &Fixture) -> Vec<Sample> {
    let transfer = fixture.transfer(Nonce(0), Amount(10_000));
    let mut forged = transfer.clone();
    forged.signature.0[0] ^= 1;
    let transfer = named("transfer", &transfer);
    let later = named("later", &fixture.transfer(Nonce(3), Amount(0)));
    let changed = |name: &str, change: fn(&mut Transfer)| {
        let Body::Transfer(mut body) = fixture.transfer(Nonce(0), Amount(0)).body;
        change(&mut body);
        named(name, &Body::Transfer(body).sign(fixture.chain.id(), &fixture.alice))
    };
    vec![
        trailing(&transfer),
        transfer,
        later,
        named("forged", &forged),
        changed("no_fee", |body| body.fee = Amount(0)),
        changed("expired", |body| body.expires_at = Timestamp(START)),
    ]
}

fn blocks(fixture: &Fixture) -> Vec<Sample> {
    let block = &fixture.blocks[1].0;
    let mut other_root = plain(block);
    other_root.header.state_root.0.0[0] ^= 1;
    let mut twice = plain(block);
    twice.transactions.extend_from_within(..);
    let mut other_list = compact(block);
    other_list.transactions.clear();
    let header = named("header", block.header());
    vec![
        trailing(&header),
        header,
        named("block", &plain(block)),
        named("empty", &plain(&fixture.blocks[2].0)),
        named("other_root", &other_root),
        named("transaction_twice", &twice),
        named("compact", &compact(block)),
        named("compact_other_list", &other_list),
    ]
}

fn certificates(fixture: &Fixture) -> Vec<Sample> {
    let (block, certificate) = &fixture.blocks[0];
    let (height, validators) = (block.height(), fixture.chain.validators(block.height()));
    let signers = certificate.signer_keys(validators);
    let votes = signers.into_iter().zip(certificate.signatures.iter().copied());
    let (round, hash) = (certificate.round, block.hash());
    let two = Certificate::new(height, round, hash, validators, votes.take(2));
    let mut swapped = certificate.clone();
    swapped.signatures.swap(0, 1);
    let mut other_block = certificate.clone();
    other_block.block = fixture.blocks[1].0.hash();
    let genesis = named("genesis", &Certificate::genesis(fixture.chain.id()));
    vec![
        trailing(&genesis),
        genesis,
        named("final", certificate),
        named("later", &fixture.blocks[4].1),
        named("two_signers", &two),
        named("swapped", &swapped),
        named("other_block", &other_block),
    ]
}

fn archives() -> Vec<Sample> {
    let sealed = ("sealed".to_owned(), whole());
    let unsealed = sealed.1[..sealed.1.len() - 32].to_vec();
    let cut = ("refused_cut".to_owned(), unsealed[..unsealed.len() - 1].to_vec());
    vec![trailing(&sealed), cut, ("unsealed".to_owned(), unsealed), sealed]
}

fn geneses(fixture: &Fixture) -> Vec<Sample> {
    let mut genesis = fixture.chain.genesis().clone();
    genesis.accounts.truncate(3);
    let mut twice = genesis.clone();
    twice.accounts[1].account = twice.accounts[0].account;
    let address = encode_address("crn", &fixture.alice.public());
    let last = if address.ends_with('q') { 'p' } else { 'q' };
    let mistyped = format!("{}{last}", &address[..address.len() - 1]);
    let text = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let binary = named("binary", &genesis);
    vec![
        trailing(&binary),
        binary,
        text("file.json", &genesis.to_json()),
        text("refused_account_twice.json", &twice.to_json()),
        text("address", &address),
        text("refused_address", &mistyped),
        text("refused_other_prefix", &encode_address("crm", &fixture.alice.public())),
        text("amount", "1.5 CRN"),
        text("pebbles", "1500 pebbles"),
        text("refused_amount", "1.0000000001 CRN"),
    ]
}

fn snapshots() -> Vec<Sample> {
    let mut all = super::snapshot::samples();
    all.push(trailing(&all[0]));
    all
}

fn proofs(fixture: &Fixture) -> Vec<Sample> {
    let state = fixture.states[1].state();
    let path =
        |choice: usize| StateKey::account(fixture.chain.genesis().accounts[choice].account).path();
    let account = StateKey::account(fixture.chain.genesis().accounts[5].account);
    let absent = StateKey::account(ledger::signature::PublicKey([200; 32]));
    let range = state.prove_range(&path(5).min(path(9)), &path(5).max(path(9)));
    let all = state.prove_range(&Hash::ZERO, &Hash([0xff; 32]));
    // The state after alice's first transfer.
    let later = fixture.states[2].state().prove(&StateKey::account(fixture.alice.public()));
    let chosen = |name: &str, choices: [u8; 2], proof: Vec<u8>| {
        (name.to_owned(), [&choices[..], &proof].concat())
    };
    let whole = chosen("account", [5, 5], codec::encode(&state.prove(&account)));
    vec![
        trailing(&whole),
        whole,
        chosen("later_state", [ACCOUNTS, 5], codec::encode(&later)),
        chosen("range_too_short", [0, 1], codec::encode(&range)),
        chosen("absent", [200, 5], codec::encode(&state.prove(&absent))),
        chosen("range", [5, 9], codec::encode(&range)),
        chosen("all", [0, 1], codec::encode(&all)),
    ]
}

fn exchange(fixture: &Fixture) -> Vec<Sample> {
    let block = &fixture.blocks[1].0;
    let transactions = &block.block().transactions;
    let head = fixture.certified(Height(2));
    let hashes = transactions.iter().map(|transaction| transaction.hash()).collect();
    let plain_transactions =
        transactions.iter().map(|transaction| transaction.transaction().clone()).collect();
    let not_kept = named("not_kept", &Response::NotKept);
    // Variant 3 is a list of hashes. Its length here is the largest number, but only one hash
    // follows.
    let endless = codec::encode(&(3u32, u64::MAX, [0u8; 32]));
    vec![
        trailing(&not_kept),
        ("refused_endless".to_owned(), endless),
        not_kept,
        named("request_tip", &Request::Tip(head.clone())),
        named("request_blocks", &Request::Blocks(Height(2))),
        named("request_proposed", &Request::Proposed(Height(2), block.hash())),
        named("request_transactions", &Request::Transactions(hashes)),
        named("request_genesis", &Request::Genesis(3)),
        named("request_eras", &Request::Eras(announcement())),
        named("request_query", &Request::Flood(query())),
        named("request_hit", &Request::Flood(hit())),
        named("taken", &Response::Taken),
        // The last byte is the number of hops.
        ("refused_far_query".to_owned(), {
            let mut bytes = codec::encode(&Request::Flood(query()));
            bytes.pop();
            bytes.push(8);
            bytes
        }),
        named("request_chunk", &Request::Chunk(SegmentIndex(3), 2)),
        named("chunk", &Response::Chunk { hashes: vec![Hash([7; 32])], bytes: vec![1, 2] }),
        named("eras", &Response::Eras(announcement())),
        // Ranges that touch each other. Variant 6 is an announcement.
        (
            "refused_touching_eras".to_owned(),
            codec::encode(&(6u32, true, vec![(3u64, 3u64), (4, 9)])),
        ),
        named("tip", &Response::Tip { now: START, head }),
        named("blocks", &Response::Blocks(vec![plain(block)], fixture.blocks[1].1.clone())),
        named("proposed", &Response::Proposed(Some(compact(block)))),
        named("transactions", &Response::Transactions(plain_transactions)),
        named("genesis", &Response::Genesis(Some(vec![7, 8]))),
    ]
}

fn query() -> FloodMessage {
    FloodMessage::Query { id: QueryId([7; 16]), wanted: Wanted::Era(Era(3)), left: Hops::MOST }
}

fn hit() -> FloodMessage {
    let addresses = [Box::from(*b"first"), Box::from(*b"second")];
    let holder = Holder::new(&[8; 38], addresses).expect("an id of usual length");
    FloodMessage::Hit { id: QueryId([7; 16]), crossed: Hops::ONE, holder }
}

fn announcement() -> Announcement {
    Announcement { is_archive: true, eras: EraRanges::of([0, 1, 2, 7, 9].map(Era)) }
}

/// A validator's signed prevote for the block of height 1.
fn vote(fixture: &Fixture, number: usize) -> SignedVote {
    let block = Some(fixture.blocks[0].0.hash());
    let vote = fixture.vote(number, VoteKind::Prevote, Height(1), fixture.round(Height(1)), block);
    SignedVote {
        signature: fixture.validators[number].sign(&vote.message(fixture.chain.id())),
        vote,
    }
}

fn proposal(fixture: &Fixture) -> SignedProposal {
    let (height, round, block) = (Height(1), Round(2), fixture.blocks[0].0.hash());
    let proposer = fixture.chain.validators(height).proposer(height, round).key;
    let key =
        fixture.validators.iter().find(|key| key.public() == proposer).expect("four validators");
    let proposal = Proposal { height, round, block, valid_round: Some(Round(0)), proposer };
    SignedProposal { signature: key.sign(&proposal.message(fixture.chain.id())), proposal }
}

fn polka(fixture: &Fixture) -> PolkaCertificate {
    let votes: Vec<SignedVote> = (0..3).map(|number| vote(fixture, number)).collect();
    PolkaCertificate {
        height: Height(1),
        round: fixture.round(Height(1)),
        block: fixture.blocks[0].0.hash(),
        signatures: votes.into_iter().map(|vote| (vote.vote.validator, vote.signature)).collect(),
    }
}

fn gossip(fixture: &Fixture) -> Vec<Sample> {
    let certificate = RoundCertificate {
        height: Height(1),
        round: fixture.round(Height(1)),
        is_precommit: false,
        votes: (0..2).map(|number| vote(fixture, number)).collect(),
    };
    let alone = RoundCertificate { votes: vec![vote(fixture, 0)], ..certificate.clone() };
    let mut stolen = vote(fixture, 0);
    stolen.vote.validator = fixture.validators[1].public();
    let mut other_turn = proposal(fixture);
    other_turn.proposal.round = Round(3);
    let signer = fixture.validators.iter().find(|key| key.public() == other_turn.proposal.proposer);
    let signer = signer.expect("four validators");
    other_turn.signature = signer.sign(&other_turn.proposal.message(fixture.chain.id()));
    let mut two = polka(fixture);
    two.signatures.truncate(2);
    let mut doubled = two.clone();
    doubled.signatures.push(doubled.signatures[0]);
    let list = compact(&fixture.blocks[0].0);
    let messages = [
        ("vote", ConsensusMessage::Vote(vote(fixture, 0))),
        ("vote_stolen", ConsensusMessage::Vote(stolen)),
        ("proposal_other_turn", ConsensusMessage::Proposal(other_turn, None)),
        ("round_alone", ConsensusMessage::Round(alone)),
        ("polka_of_two", ConsensusMessage::Polka(two)),
        ("polka_doubled", ConsensusMessage::Polka(doubled)),
        ("proposal", ConsensusMessage::Proposal(proposal(fixture), Some(list))),
        ("repeated", ConsensusMessage::Proposal(proposal(fixture), None)),
        ("round", ConsensusMessage::Round(certificate)),
        ("polka", ConsensusMessage::Polka(polka(fixture))),
    ];
    let mut samples: Vec<Sample> = messages
        .into_iter()
        .map(|(name, message)| named(name, &Attempt { attempt: 1, message }))
        .collect();
    let message = fixture.certified(Height(2)).expect("a final block");
    let mut other = message.clone();
    other.header.time.0 += 1;
    samples.push(named("header_other", &Attempt { attempt: 1, message: other }));
    samples.push(named("header", &Attempt { attempt: 1, message }));
    samples.push(trailing(&samples[0]));
    let message = vec![fixture.transfer(Nonce(0), Amount(10_000))];
    samples.push(named("transactions", &Attempt { attempt: 1, message }));
    samples
}

fn sync_messages() -> Vec<Sample> {
    let made = super::swarm_machine::made();
    let number = CollectionNumber(2);
    let segment = number.segment(SegmentIndex(3));
    let id = |chunk| segment.chunk(chunk);
    let mut bits = Bits::new(12);
    bits.set(1);
    bits.set(11);
    let mut whole = SegmentRanges::before(SegmentIndex(3));
    let held = SegmentRange { first: SegmentIndex(5), last: SegmentIndex(6) };
    whole.insert(held);
    let holdings = Holdings { whole, open: vec![(SegmentIndex(3), bits)], nonce: 5 };
    let update = Update {
        have: vec![id(1)],
        add: vec![id(2), id(300)],
        remove: vec![id(4)],
        received: 6,
        allowed: 8,
    };
    let height = named("height", &SyncMessage::Height(Height(70)));
    let offer = made.true_offer();
    let (header, certificate) = (offer.header.clone(), offer.certificate.clone());
    let block = Some(CertifiedHeader { header, certificate });
    let subtrees = offer.frontier.descriptors().to_vec();
    let page = FrontierPage { block, subtrees };
    let file = MadeFile::new((16 << 20) + 70_000, 1);
    vec![
        trailing(&height),
        height,
        named("open", &SyncMessage::Open(number, made.id())),
        named("close", &SyncMessage::Close(number)),
        named("holdings", &SyncMessage::Holdings(number, holdings)),
        named("held", &SyncMessage::Held(number, held)),
        named("not_kept", &SyncMessage::NotKept(segment)),
        named("update", &SyncMessage::Update(update)),
        named("busy", &SyncMessage::Busy(10_000)),
        named("get_manifest", &SyncMessage::GetManifest(Height(70), SegmentIndex(2))),
        named(
            "manifest",
            &SyncMessage::Manifest(Height(401), SegmentIndex(0), Some(made.descriptors(2))),
        ),
        named("no_manifest", &SyncMessage::Manifest(Height(401), SegmentIndex(0), None)),
        named("get_head", &SyncMessage::GetHead(SegmentIndex(3))),
        named("head", &SyncMessage::Head(SegmentIndex(3), made.heads.get(3).cloned())),
        named("snapshots", &SyncMessage::Snapshots(vec![(offer.height, offer.id)])),
        named("get_frontier", &SyncMessage::GetFrontier(offer.id, 1)),
        named("frontier", &SyncMessage::Frontier(offer.id, 0, Some(page))),
        named("no_frontier", &SyncMessage::Frontier(offer.id, 7, None)),
        named("get_block_proof", &SyncMessage::GetBlockProof(Height(70))),
        named("block_proof", &SyncMessage::BlockProof(Height(70), made.block_proof(Height(70)))),
        named("get_file_head", &SyncMessage::GetFileHead(file.id, SegmentIndex(0))),
        named(
            "file_head",
            &SyncMessage::FileHead(file.id, SegmentIndex(0), file.head(SegmentIndex(0))),
        ),
        named("no_file_head", &SyncMessage::FileHead(file.id, SegmentIndex(9), None)),
        ("refused_frame".to_owned(), id(7).frame(b"bytes of a chunk")),
    ]
}

fn logs(fixture: &Fixture) -> Vec<Sample> {
    // Variant 0 is a cut, variant 1 an entry.
    let cut = |height: u64| codec::encode(&(0u32, Height(height)));
    let entry = |entry: LogEntry| codec::encode(&(1u32, entry));
    let known = LogEntry::Known {
        round: Round(0),
        valid_round: None,
        proposer: fixture.validators[0].public(),
        block: fixture.blocks[0].0.hash(),
        valid: true,
    };
    let entries = [
        LogEntry::Body(plain(&fixture.blocks[0].0)),
        known,
        LogEntry::Vote(vote(fixture, 0)),
        LogEntry::Proposal(proposal(fixture)),
        LogEntry::Polka(polka(fixture)),
        LogEntry::Timeout(1, Round(0)),
    ];
    let payloads = |payloads: Vec<Vec<u8>>| {
        let one = |payload: Vec<u8>| [&(payload.len() as u16).to_le_bytes()[..], &payload].concat();
        [vec![1], payloads.into_iter().flat_map(one).collect()].concat()
    };
    let all = [cut(1), cut(7)].into_iter().chain(entries.into_iter().map(entry)).collect();
    let file = super::consensus_log::file(&[&cut(3), &cut(4)]);
    let of_file = |bytes: &[u8]| [&[0], bytes].concat();
    // A bit is flipped in the last byte of the second frame, and a third frame follows.
    let mut broken = super::consensus_log::file(&[&cut(3), &cut(4), &cut(5)]);
    broken[16 + 2 * (16 + cut(3).len()) - 1] ^= 1;
    vec![
        ("refused_payload".to_owned(), payloads(vec![[&cut(1)[..], &[0]].concat()])),
        ("refused_broken".to_owned(), of_file(&broken)),
        ("torn".to_owned(), of_file(&file[..file.len() - 1])),
        ("file".to_owned(), of_file(&file)),
        ("new".to_owned(), payloads(vec![cut(1)])),
        ("refused_lost".to_owned(), payloads(vec![cut(0), entry(LogEntry::Timeout(0, Round(1)))])),
        ("entries".to_owned(), payloads(all)),
    ]
}

/// Choices of [`live_machine`](super::live_machine): catching up by a segment, and deciding three
/// heights by votes, as a validator and as a full node.
fn live(fixture: &Fixture) -> Vec<Sample> {
    let caught_up = [&[0][..], &[2, 0, 9, 0, 19, 1, 1, 9, 0, 1]].concat();
    let decided = |start: u8| {
        let mut choices = vec![start, 2, 0, 3, 0];
        for height in 1..=3u8 {
            let round = fixture.round(Height(height.into())).0 as u8;
            let vote = |number: u8, kind: u8| [13, 0, number, height - 1, kind, round, 2];
            let byzantine = |kind: u8| [15, 0, height, round, 1, 0, kind];
            choices.extend([0, 255, 0, 255, 1]);
            if round > 0 {
                for kind in [0, 1] {
                    choices.extend(
                        [0, 1].iter().flat_map(|number| [13, 0, *number, height - 1, kind, 0, 2]),
                    );
                    choices.extend([15, 0, height, 0, 0, 0, kind]);
                }
                choices.extend([1, 1, 1]);
            }
            choices.extend([14, 0, height - 1, 0]);
            for kind in [0, 1] {
                choices.extend([vote(0, kind), vote(1, kind), byzantine(kind)].concat());
            }
            choices.extend([17, 2, 0, 1, 2, 0, 18, 2, 0, 3, 0]);
        }
        choices
    };
    vec![
        ("caught_up".to_owned(), caught_up),
        ("decided".to_owned(), decided(0)),
        ("decided_full_node".to_owned(), decided(1)),
        ("forked".to_owned(), [&decided(0)[..], &[19, 0, 0, 1, 0, 255, 2, 1]].concat()),
        noise("noise_one"),
        noise("noise_two"),
    ]
}

/// Choices of [`swarm_machine`](super::swarm_machine): fetching and giving, with a restart.
fn swarm() -> Vec<Sample> {
    let start = [13, 1, 0, 7, 0, 8, 0, 8, 0, 8, 0].to_vec();
    let fetch = [8, 0, 9, 0, 0, 9, 0, 1, 0, 5, 9, 0, 2, 14, 0, 15].repeat(16);
    let give = [1, 1, 7, 1, 16, 1, 0, 0, 11, 0, 16, 1, 9, 1, 12, 0, 0, 50].repeat(3);
    // A hostile peer opens history and says that it has all segments, and the honest one leaves.
    let alone = [2, 0, 6, 0, 9, 0, 0, 0, 6, 0, 0, 0, 0, 1, 4, 0, 3, 0, 0, 8, 0, 8];
    let no_credit = (0..4).flat_map(|chunk| [16, 1, chunk, 4, 11, 0, 0, 8]).collect::<Vec<u8>>();
    let lies = (0..12)
        .flat_map(|kind| [2, kind, 6, kind, 9, 0, 0, 0, 6, kind, kind, 3, 1, 2, 3, 1, 9, 9, 250, 1])
        .collect::<Vec<u8>>();
    let part = [8, 0, 9, 0, 0, 0, 5].repeat(30);
    let false_snapshots = (0..6)
        .flat_map(|kind| [2, kind, 230, kind, kind, 1, 2, 3, 3, 0, 249, kind, 0, kind % 2, 0, 20])
        .collect::<Vec<u8>>();
    vec![
        ("fetched".to_owned(), [&start[..], &fetch].concat()),
        ("given".to_owned(), [&start[..], &fetch[..128], &give].concat()),
        (
            "restarted".to_owned(),
            [&start[..], &fetch[..96], &[17, 201, 1, 0, 7, 0], &fetch[..128]].concat(),
        ),
        ("wrong_chunk".to_owned(), [&start[..], &alone, &[10, 0, 0, 1]].concat()),
        ("no_credit".to_owned(), [&start[..], &fetch[..128], &[1, 1], &no_credit].concat()),
        ("lied_to".to_owned(), [&start[..], &lies, &fetch[..64], &lies].concat()),
        ("joined".to_owned(), [&[255, 0][..], &start, &part, &[238, 0], &fetch[..96]].concat()),
        (
            "joined_among_liars".to_owned(),
            [&[255, 0][..], &false_snapshots, &start, &part[..70], &false_snapshots].concat(),
        ),
        ("offered".to_owned(), [&start[..], &[244], &false_snapshots, &[245]].concat()),
        noise("noise_one"),
        noise("noise_two"),
    ]
}
