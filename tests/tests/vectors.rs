//! Frozen vectors: hash domains, and the bytes of every format.
//!
//! Changing an expected value here is a change of protocol: it splits the network from nodes of an
//! earlier version.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ledger::block::{Block, Header, genesis_parent, transactions_root};
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, ValidBlock};
use ledger::codec;
use ledger::file::{FileDescriptor, FileHead};
use ledger::genesis::{Genesis, template_key, template_seed};
use ledger::hash::{BlockHash, ChainId, Domain, FileId, Hash, SnapshotId};
use ledger::history::{SegmentDescriptor, SegmentHead};
use ledger::merkle::MerkleProof;
use ledger::signature::{PublicKey, SigningKey};
use ledger::snapshot::SubtreeDescriptor;
use ledger::state::{Account, StateKey};
use ledger::transaction::{
    Body, Output, Transaction, Transfer, VerifiedTransaction, verify_transactions,
};
use ledger::units::{Amount, Height, Nonce, Round, SegmentIndex, Timestamp};
use protocol::eras::{Announcement, Era, EraRanges};
use protocol::holder::Holder;
use protocol::message::{
    Attempt, CertifiedHeader, ConsensusMessage, LogEntry, Proposal, Request, Response,
    SignedProposal, SignedVote,
};
use protocol::search::{FloodMessage, Hops, QueryId, Wanted};
use protocol::swarm::message::{
    ChunkId, CollectionId, CollectionNumber, FrontierPage, Holdings, SyncMessage, Update,
};
use protocol::swarm::{Bits, SegmentRange, SegmentRanges};

fn chain() -> Arc<Chain> {
    Chain::new(Genesis::from_json(include_bytes!("../../genesis.json")).unwrap())
}

fn transaction(chain: &Chain) -> Transaction {
    let body = Body::Transfer(Transfer {
        sender: template_key("alice").unwrap().public(),
        nonce: Nonce(0),
        outputs: vec![Output {
            account: template_key("bob").unwrap().public(),
            amount: Amount(1_500_000_000),
        }],
        fee: Amount(10_000),
        expires_at: Timestamp(1_767_225_660_000),
        memo: b"memo".to_vec(),
    });
    body.sign(chain.id(), &template_key("alice").unwrap())
}

/// The length of an encoding and the first eight bytes of its hash: enough to notice any change.
fn print(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), &Hash::of(Domain::StoreValue, &[bytes]).to_string()[..16])
}

/// One value of each kind that a chain has, made from the genesis template.
struct Samples {
    chain: Arc<Chain>,
    verified: Arc<VerifiedTransaction>,
    valid: ValidBlock,
    block: Block,
    certificate: Certificate,
    vote: SignedVote,
    proposal: SignedProposal,
}

fn samples() -> Samples {
    let chain = chain();
    let id = chain.id();
    let validator = SigningKey::from_seed(&template_seed("validator"));
    let verified = verify_transactions(id, vec![transaction(&chain)]).remove(0).unwrap();
    let state = ChainState::genesis(Arc::clone(&chain));
    let valid = state.propose(
        validator.public(),
        Timestamp(1_767_225_601_000),
        Certificate::genesis(id),
        [Arc::clone(&verified)],
    );
    let block: Block = codec::decode(valid.bytes(), codec::VALUE_BYTES_MAX).unwrap();
    let vote = Vote {
        kind: VoteKind::Precommit,
        height: Height(1),
        round: Round(2),
        block: Some(valid.hash()),
        validator: validator.public(),
    };
    let signed_vote = SignedVote { signature: validator.sign(&vote.message(id)), vote };
    let certificate = Certificate::new(
        Height(1),
        Round(2),
        valid.hash(),
        chain.validators(Height(1)),
        [(validator.public(), signed_vote.signature)],
    );
    certificate.verify(id, chain.validators(Height(1)), Height(1), valid.hash()).unwrap();
    let proposal = Proposal {
        height: Height(1),
        round: Round(2),
        block: valid.hash(),
        valid_round: Some(Round(0)),
        proposer: validator.public(),
    };
    let signed_proposal =
        SignedProposal { signature: validator.sign(&proposal.message(id)), proposal };
    assert!(signed_proposal.verify(id) && signed_vote.verify(id));

    Samples {
        chain,
        verified,
        valid,
        block,
        certificate,
        vote: signed_vote,
        proposal: signed_proposal,
    }
}

/// Each row has a name, the value now, and the value as it always was. Names the rows that differ.
fn check(rows: &[(&str, String, &str)]) {
    let changed: Vec<_> = rows.iter().filter(|(_, got, expected)| got != expected).collect();
    assert!(changed.is_empty(), "{changed:#?}");
}

#[test]
fn every_format_has_the_bytes_it_always_had() {
    let Samples { chain, verified, valid, block, certificate, .. } = samples();
    check(&[
        (
            "transaction id",
            verified.id().to_string(),
            "0c9965cfca68bafae06543d123162167e521cb0c6e21a7e6f70964dce7f2492c",
        ),
        (
            "transaction hash",
            verified.hash().to_string(),
            "1c25044e9388579d2d967d18aa5d242e64c8ad2993f611dafe0661ea7fb12c7c",
        ),
        (
            "block hash",
            valid.hash().to_string(),
            "6c5bb939c7633431f4c2f6eb45eccf22bfff1bf9ef39e3c1a534f901581d38d0",
        ),
        (
            "state root",
            valid.state().root().to_string(),
            "5b27203e8e2a4c05ba69d56635ff0eb27fe936773b02123625b4f87719c9a9de",
        ),
        ("transaction", print(&codec::encode(verified.transaction())), "181 bab5f434ce35af27"),
        ("header", print(&codec::encode(&block.header)), "274 819bfbb14d28801c"),
        ("block", print(valid.bytes()), "523 91501f223de40720"),
        ("certificate", print(&codec::encode(&certificate)), "125 5f6fb7f660a9d336"),
        (
            "validators",
            chain.validators(Height(1)).hash().to_string(),
            "61f1235f7e5ead234933fc668921f762f939fd3ab5a67bb7890f98c1aea0739d",
        ),
        ("genesis", print(&codec::encode(chain.genesis())), "449 6e0a8aa09d157da9"),
        (
            "empty transactions root",
            transactions_root(&[]).to_string(),
            "3d6a6f171129d1592ab43454e37be8f058be5b74803a1c815669546944192154",
        ),
    ]);
    assert_eq!(block.header.parent, genesis_parent(chain.id()));
    assert_eq!(block.header.hash(), BlockHash(valid.hash().0));
}

#[test]
fn every_message_of_the_live_chain_has_the_bytes_it_always_had() {
    let Samples { block, certificate, vote, proposal, .. } = samples();
    const QUERY: &str = "07000000000000000707070707070707070707070707070701000000\
                         090909090909090909090909090909090909090909090909090909090909090907";
    const HIT: &str = "070000000100000007070707070707070707070707070707010300000000000000\
                       010203010000000000000002000000000000000405";
    const QUESTION: &str = "0500000001020000000000000000000000000000000200000000000000\
                            07000000000000000700000000000000";
    const ERAS: &str = "0600000001020000000000000000000000000000000200000000000000\
                        07000000000000000700000000000000";
    let certified = CertifiedHeader { header: block.header, certificate };
    let eras = Announcement { is_archive: true, eras: EraRanges::of([0, 1, 2, 7].map(Era)) };
    check(&[
        (
            "vote message",
            print(&codec::encode(&Attempt {
                attempt: 7,
                message: ConsensusMessage::Vote(vote.clone()),
            })),
            "157 1a8f8fdf44c02439",
        ),
        (
            "proposal message",
            print(&codec::encode(&Attempt {
                attempt: 7,
                message: ConsensusMessage::Proposal(proposal, None),
            })),
            "158 fcc9b106239ec6de",
        ),
        ("request", print(&codec::encode(&Request::Blocks(Height(9)))), "12 66e031aab1296d44"),
        (
            "request for a piece of the genesis",
            hex::encode(codec::encode(&Request::Genesis(3))),
            "0400000003000000",
        ),
        (
            "status without a block",
            hex::encode(codec::encode(&Response::Tip { now: 5, head: None })),
            "00000000050000000000000000",
        ),
        (
            "status",
            print(&codec::encode(&Response::Tip { now: 1_767_225_602_000, head: Some(certified) })),
            "412 6962f9a04fdbb5ad",
        ),
        (
            "no blocks",
            print(&codec::encode(&Response::Blocks(
                Vec::new(),
                Certificate::genesis(ChainId::default()),
            ))),
            "72 98de957348b94acf",
        ),
        ("blocks that are not kept", hex::encode(codec::encode(&Response::NotKept)), "05000000"),
        (
            "a piece of the genesis",
            hex::encode(codec::encode(&Response::Genesis(Some(vec![7, 8])))),
            "040000000102000000000000000708",
        ),
        ("no such piece", hex::encode(codec::encode(&Response::Genesis(None))), "0400000000"),
        ("question for eras", hex::encode(codec::encode(&Request::Eras(eras.clone()))), QUESTION),
        (
            "question for a chunk",
            hex::encode(codec::encode(&Request::Chunk(SegmentIndex(3), 2))),
            "0600000003000000000000000200000000000000",
        ),
        (
            "a chunk",
            hex::encode(codec::encode(&Response::Chunk { hashes: Vec::new(), bytes: vec![7, 8] })),
            "07000000000000000000000002000000000000000708",
        ),
        ("eras", hex::encode(codec::encode(&Response::Eras(eras))), ERAS),
        ("query", hex::encode(codec::encode(&Request::Flood(flood_query()))), QUERY),
        ("answer to a query", hex::encode(codec::encode(&Request::Flood(flood_hit()))), HIT),
        ("taken", hex::encode(codec::encode(&Response::Taken)), "08000000"),
        ("log entry", print(&codec::encode(&LogEntry::Vote(vote))), "149 1fca3df6407f61ca"),
    ]);
}

fn flood_query() -> FloodMessage {
    let wanted = Wanted::File(Hash([9; 32]));
    FloodMessage::Query { id: QueryId([7; 16]), wanted, left: Hops::MOST }
}

fn flood_hit() -> FloodMessage {
    let holder = Holder::new(&[1, 2, 3], [Box::from([4, 5])]).unwrap();
    FloodMessage::Hit { id: QueryId([7; 16]), crossed: Hops::ONE, holder }
}

/// Messages of each kind, each with [`print`] of its encoding.
fn sync_messages(chain: &Chain) -> Vec<(SyncMessage, &'static str)> {
    let (number, index) = (CollectionNumber(2), SegmentIndex(3));
    let segment = number.segment(index);
    let id = |chunk| segment.chunk(chunk);
    let mut bits = Bits::new(12);
    bits.set(1);
    bits.set(11);
    let mut whole = SegmentRanges::before(index);
    let held = SegmentRange { first: SegmentIndex(5), last: SegmentIndex(6) };
    whole.insert(held);
    let holdings = Holdings { whole, open: vec![(index, bits)], nonce: 5 };
    let update = Update {
        have: vec![id(1)],
        add: vec![id(2), id(300)],
        remove: vec![id(4)],
        received: 6,
        allowed: 8,
    };
    let descriptor = descriptor();
    let chunks = vec![hash(4), hash(5)];
    let head = SegmentHead { descriptor, chunks, certificate: Certificate::genesis(chain.id()) };
    let page = Some(vec![descriptor]);
    let Samples { block, certificate, .. } = samples();
    let (snapshot, other) = (SnapshotId(hash(6)), SnapshotId(hash(7)));
    let subtree = |depth, count, seed| SubtreeDescriptor { depth, count, hash: hash(seed) };
    let block = Some(CertifiedHeader { header: block.header, certificate });
    let first = FrontierPage { block, subtrees: vec![subtree(1, 1_618, 8), subtree(1, 7, 9)] };
    let last = FrontierPage { block: None, subtrees: vec![subtree(3, 300, 10)] };
    let proof = MerkleProof { index: 10, count: 21, siblings: vec![hash(11), hash(12)] };
    let proved = Some((BlockHash(hash(13)), proof));
    let file = FileId(hash(14));
    vec![
        (SyncMessage::Open(number, CollectionId(chain.id().0)), "38 08e639903a39ea4c"),
        (SyncMessage::Close(number), "6 20aee86b77a31031"),
        (SyncMessage::Holdings(number, holdings), "80 dbf7d3e07333e0a2"),
        (SyncMessage::Held(number, held), "22 fb8bcda65c2bd149"),
        (SyncMessage::NotKept(segment), "10 de2a4c9845e40bfb"),
        (SyncMessage::Update(update), "84 3584e491919a5c9f"),
        (SyncMessage::Busy(10_000), "8 16f2f3e0062a0052"),
        (SyncMessage::Height(Height(70)), "12 54bda3db3a4549dd"),
        (SyncMessage::GetManifest(Height(70), SegmentIndex(2)), "20 0d43df65a472223e"),
        (SyncMessage::Manifest(Height(70), index, page), "157 8bd3b2557394e19e"),
        (SyncMessage::Manifest(Height(70), index, None), "21 327ea758ed75f85a"),
        (SyncMessage::GetHead(index), "12 c827430743bbe4bc"),
        (SyncMessage::Head(index, Some(head)), "273 1af9d97eac46ae3d"),
        (SyncMessage::Head(index, None), "13 5288e0824cdd9e05"),
        (
            SyncMessage::Snapshots(vec![(Height(60), snapshot), (Height(40), other)]),
            "92 4720fc14eda7763c",
        ),
        (SyncMessage::GetFrontier(snapshot, 1), "40 6ea1c0b8735cea7f"),
        (SyncMessage::Frontier(snapshot, 0, Some(first)), "525 aab9f52f15b805a6"),
        (SyncMessage::Frontier(snapshot, 1, Some(last)), "88 81825c16c28548ca"),
        (SyncMessage::Frontier(snapshot, 1, None), "41 adbbd6823d1adadb"),
        (SyncMessage::GetBlockProof(Height(50)), "12 bf6a5d146fbe24b8"),
        (SyncMessage::BlockProof(Height(50), proved), "133 1d0fcf075f2d683f"),
        (SyncMessage::BlockProof(Height(50), None), "13 963c2e93b7a8be10"),
        (SyncMessage::GetFileHead(file, index), "44 b44776057eb79f95"),
        (SyncMessage::FileHead(file, index, Some(file_head())), "245 29739a0f173bf163"),
        (SyncMessage::FileHead(file, index, None), "45 83193640b7c6ecad"),
    ]
}

#[test]
fn every_message_about_history_has_the_bytes_it_always_had() {
    let messages = sync_messages(&chain());
    let told = messages
        .iter()
        .map(|(message, expected)| (message, print(&codec::encode(message)), *expected));
    let changed: Vec<_> = told.filter(|(_, got, expected)| got != expected).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    let id = CollectionNumber(2).segment(SegmentIndex(3)).chunk(300);
    assert_eq!(hex::encode(id.frame(b"chunk")), "0200030000002c0100006368756e6b");
    assert_eq!(ChunkId::parse(&id.frame(b"chunk")), Some((id, &b"chunk"[..])));
    assert_eq!(ChunkId::parse(&[0; 9]), None);
}

fn hash(seed: u8) -> Hash {
    Hash::of(Domain::Chunk, &[&[seed]])
}

/// The head of a segment with two chunks. It proves nothing.
fn file_head() -> FileHead {
    FileHead {
        descriptor: FileDescriptor { length: 3 * (16 << 20) + 200_000, root: hash(15) },
        chunks: vec![hash(16), hash(17)],
        path: MerkleProof { index: 3, count: 4, siblings: vec![hash(18), hash(19)] },
    }
}

fn descriptor() -> SegmentDescriptor {
    SegmentDescriptor {
        index: 3,
        first: Height(40),
        last: Height(60),
        bytes: 200_000,
        chunks_root: hash(1),
        blocks_root: hash(2),
        last_block: BlockHash(hash(3)),
    }
}

#[test]
fn every_format_of_a_snapshot_has_the_bytes_it_always_had() {
    let subtree = |depth, count, seed| SubtreeDescriptor { depth, count, hash: hash(seed) };
    let entry = |seed: u8| {
        let (balance, nonce) = (Amount(1_000 + u64::from(seed)), Nonce(seed.into()));
        let account = Account { balance, nonce, activity: hash(seed) };
        (StateKey::account(PublicKey([seed; 32])), account)
    };
    let subtrees = vec![subtree(1, 40, 1), subtree(2, 0, 2), subtree(2, 300, 3)];
    check(&[
        ("frontier", print(&codec::encode(&subtrees)), "122 2c10bd16429e7b25"),
        ("chunk", print(&codec::encode(&vec![entry(1), entry(2)])), "170 c89b820b99ca02eb"),
    ]);
}

#[test]
fn every_hash_domain_has_the_tag_it_always_had() {
    let tags: Vec<&str> = Domain::ALL.iter().map(|domain| domain.tag()).collect();
    assert_eq!(
        Hash::of(Domain::Genesis, &[tags.join(" ").as_bytes()]).to_string(),
        "725fa443659c2a688b44c1ea6c4897c019bfeddca4bec8ba576f147d21a2eb08"
    );
}

/// Checks that good bytes decode within their limit only, and that changed bytes that still decode
/// are encoded to the same bytes again.
fn canonical<T: codec::Encode + codec::Decode<()>>(good: &[u8], max: usize) {
    let check = |bytes: &[u8]| match codec::decode::<T>(bytes, max) {
        Ok(value) => assert_eq!(codec::encode(&value), bytes, "one value has one encoding"),
        Err(error) => assert!(!error.to_string().is_empty()),
    };
    assert!(codec::decode::<T>(good, max).is_ok());
    assert!(codec::decode::<T>(good, good.len() - 1).is_err(), "too long");
    for length in 0..good.len() {
        check(&good[..length]);
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(codec::decode::<T>(&longer, max).is_err(), "trailing byte");
    for place in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[place] ^= flip;
            check(&bytes);
        }
    }
}

#[test]
fn decoders_survive_truncated_long_and_flipped_bytes_of_every_format() {
    let chain = chain();
    let transaction = transaction(&chain);
    let state = ChainState::genesis(Arc::clone(&chain));
    let verified = verify_transactions(chain.id(), vec![transaction.clone()]).remove(0).unwrap();
    let validator = SigningKey::from_seed(&template_seed("validator"));
    let valid = state.propose(
        validator.public(),
        Timestamp(0),
        Certificate::genesis(chain.id()),
        [verified],
    );
    let vote = Vote {
        kind: VoteKind::Prevote,
        height: Height(1),
        round: Round(0),
        block: None,
        validator: validator.public(),
    };
    let vote = SignedVote { signature: validator.sign(&vote.message(chain.id())), vote };
    let gossip = Attempt { attempt: 1, message: ConsensusMessage::Vote(vote.clone()) };
    canonical::<Transaction>(
        &codec::encode(&transaction),
        ledger::transaction::TRANSACTION_BYTES_MAX,
    );
    canonical::<Block>(valid.bytes(), codec::VALUE_BYTES_MAX);
    canonical::<Header>(&codec::encode(valid.header()), ledger::block::HEADER_BYTES);
    canonical::<Genesis>(&codec::encode(chain.genesis()), codec::VALUE_BYTES_MAX);
    canonical::<Attempt<ConsensusMessage>>(
        &codec::encode(&gossip),
        protocol::message::CONSENSUS_BYTES_MAX,
    );
    canonical::<Attempt<Vec<Transaction>>>(
        &codec::encode(&Attempt { attempt: 1, message: vec![transaction.clone()] }),
        protocol::message::TRANSACTIONS_BYTES_MAX,
    );
    canonical::<LogEntry>(&codec::encode(&LogEntry::Vote(vote)), codec::VALUE_BYTES_MAX);
    canonical::<Request>(&codec::encode(&Request::Tip(None)), protocol::message::REQUEST_BYTES_MAX);
    for request in [
        Request::Genesis(3),
        Request::Transactions(vec![Default::default()]),
        Request::Blocks(Height(9)),
        Request::Chunk(SegmentIndex(3), 2),
        Request::Flood(flood_query()),
        Request::Flood(flood_hit()),
        Request::Eras(Announcement { is_archive: true, eras: EraRanges::of([1, 2, 7].map(Era)) }),
    ] {
        canonical::<Request>(&codec::encode(&request), protocol::message::REQUEST_BYTES_MAX);
    }
    for response in [
        Response::Tip { now: 5, head: None },
        Response::Genesis(Some(vec![7, 8])),
        Response::Transactions(vec![transaction.clone()]),
        Response::NotKept,
        Response::Chunk { hashes: vec![Default::default()], bytes: vec![7, 8] },
    ] {
        canonical::<Response>(&codec::encode(&response), protocol::message::RESPONSE_BYTES_MAX);
    }
    let proof = state
        .state()
        .prove(&ledger::state::StateKey::account(template_key("bob").unwrap().public()));
    canonical::<ledger::state::AccountProof>(
        &codec::encode(&proof),
        ledger::state::AccountProof::BYTES_MAX,
    );
    for (message, _) in sync_messages(&chain) {
        canonical::<SyncMessage>(
            &codec::encode(&message),
            protocol::swarm::message::SYNC_MESSAGE_BYTES_MAX,
        );
    }
}
