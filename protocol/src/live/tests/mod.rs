#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;

use ledger::address::Coin;
use ledger::certificate::{Vote, VoteKind};
use ledger::chain::{Chain, ValidBlock};
use ledger::codec;
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits, template_key};
use ledger::hash::{BlockHash, TxHash};
use ledger::transaction::{Body, Output, Transfer, verify_transactions};
use ledger::units::{Amount, Timestamp, VotingPower};

use super::*;
use crate::ids::{RequestId, Ticket};
use crate::message::{
    Attempt, ConsensusMessage, Evidence, LogEntry, Request, Response, SignedProposal, SignedVote,
};

mod behind;
mod headers;
mod lists;
mod peers;
mod rounds;
mod signing;
mod stalled;
mod transactions;

const START: u64 = 1_767_225_600_000;
const PEER: PeerId = PeerId(7);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn chain() -> Arc<Chain> {
    let validator = |seed: u8| GenesisValidator {
        name: String::new(),
        key: key(seed).public(),
        payout: key(seed).public(),
        power: VotingPower(1),
    };
    Chain::new(Genesis {
        format: FORMAT,
        network: "local".to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(START),
        accounts: vec![GenesisAccount {
            name: "alice".to_owned(),
            account: template_key("alice").unwrap().public(),
            balance: Amount(1_000_000_000),
        }],
        validators: (1..=4).map(validator).collect(),
        limits: Limits { clock_drift_ms: 1_000, ..Limits::default() },
    })
}

/// A machine and its clock.
struct Node {
    machine: Machine,
    elapsed: Duration,
}

impl Node {
    fn start(chain: ChainState, seed: Option<u8>, log: Log) -> Self {
        Self::start_by_lot(chain, seed, log, 1)
    }

    /// A full node with this seed of its random choices.
    fn with_seed(lot: u64) -> Self {
        Self::start_by_lot(
            ChainState::genesis(chain()),
            None,
            Log::Intact(Height(1), Vec::new()),
            lot,
        )
    }

    fn start_by_lot(chain: ChainState, seed: Option<u8>, log: Log, lot: u64) -> Self {
        let setup = Setup {
            certificate: Certificate::genesis(chain.chain().id()),
            chain,
            header: None,
            key: seed.map(key),
            log,
            sign_without_log: false,
            mempool: MempoolLimits::default(),
            seed: lot,
        };
        let now = Now { elapsed: Duration::ZERO, wall: Timestamp(START) };
        Self { machine: Machine::new(setup, now), elapsed: Duration::ZERO }
    }

    fn fresh(seed: Option<u8>) -> Self {
        Self::start(ChainState::genesis(chain()), seed, Log::Intact(Height(1), Vec::new()))
    }

    /// Gives an input, and confirms the commits that follow.
    fn give(&mut self, input: Input) -> Vec<Effect> {
        let wall = Timestamp(START + u64::try_from(self.elapsed.as_millis()).unwrap());
        let now = Now { elapsed: self.elapsed, wall };
        let mut effects = self.machine.handle(now, input);
        while matches!(self.machine.phase, Phase::Committing(_)) {
            effects.extend(self.machine.handle(now, Input::Committed));
        }
        effects
    }

    fn elapse(&mut self, time: Duration) -> Vec<Effect> {
        self.elapsed += time;
        self.give(Input::Time)
    }

    fn gossip<T: codec::Encode>(&mut self, topic: Topic, message: T) -> Vec<Effect> {
        let bytes = codec::encode(&Attempt { attempt: 1, message });
        self.give(Input::Gossip(topic, PEER, Ticket(1), bytes))
    }

    fn tip(&self) -> u64 {
        self.machine.chain().tip().height.0
    }
}

fn verdict(effects: &[Effect]) -> Verdict {
    let judged = effects.iter().find_map(|effect| match effect {
        Effect::Judge(_, verdict) => Some(*verdict),
        _ => None,
    });
    judged.unwrap()
}

fn bans(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Ban { .. })).count()
}

fn votes(effects: &[Effect]) -> Vec<Vote> {
    let message = |effect: &Effect| match effect {
        Effect::Gossip(Topic::Consensus, bytes) => {
            codec::decode::<Attempt<ConsensusMessage>>(bytes, 1 << 20)
                .ok()
                .map(|attempt| attempt.message)
        }
        _ => None,
    };
    let vote = |message| match message {
        ConsensusMessage::Vote(signed) => Some(signed.vote),
        _ => None,
    };
    effects.iter().filter_map(message).filter_map(vote).collect()
}

fn certify(
    chain: &Chain,
    block: &ValidBlock,
    signers: std::ops::RangeInclusive<u8>,
) -> Certificate {
    let vote = |seed: u8| {
        let vote = Vote {
            kind: VoteKind::Precommit,
            height: block.height(),
            round: Round(0),
            block: Some(block.hash()),
            validator: key(seed).public(),
        };
        (vote.validator, key(seed).sign(&vote.message(chain.id())))
    };
    Certificate::new(
        block.height(),
        Round(0),
        block.hash(),
        chain.validators(block.height()),
        signers.map(vote),
    )
}

/// A chain of `count` blocks, each with its certificate. Block times begin after `first_time`
/// milliseconds.
fn blocks(count: u64, first_time: u64) -> Vec<(ValidBlock, Certificate)> {
    let chain = chain();
    let mut state = ChainState::genesis(Arc::clone(&chain));
    let mut parent = Certificate::genesis(chain.id());
    let mut blocks = Vec::new();
    for height in 1..=count {
        let proposer = chain.validators(Height(height)).proposer(Height(height), Round(0)).key;
        let block = state.propose(proposer, Timestamp(START + first_time + height), parent, []);
        parent = certify(&chain, &block, 1..=3);
        state.commit(block.clone(), parent.clone());
        blocks.push((block, parent.clone()));
    }
    blocks
}

fn header(block: &(ValidBlock, Certificate)) -> CertifiedHeader {
    CertifiedHeader { header: block.0.header().clone(), certificate: block.1.clone() }
}

fn response(blocks: &[(ValidBlock, Certificate)]) -> Response {
    let decoded = blocks
        .iter()
        .map(|(block, _)| codec::decode(block.bytes(), codec::VALUE_BYTES_MAX).unwrap());
    Response::Blocks(decoded.collect(), blocks.last().unwrap().1.clone())
}

/// The requests of one kind among the effects, with the peers that are asked.
fn requests(effects: &[Effect], is_wanted: fn(&Request) -> bool) -> Vec<(RequestId, PeerId)> {
    let request = |effect: &Effect| match effect {
        Effect::Request(id, peer, bytes) => codec::decode(bytes, 1 << 16)
            .is_ok_and(|request| is_wanted(&request))
            .then_some((*id, *peer)),
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

fn asked_for_blocks(effects: &[Effect]) -> Vec<(RequestId, PeerId)> {
    requests(effects, |request| matches!(request, Request::Blocks(_)))
}

fn asked_for_tip(effects: &[Effect]) -> Vec<(RequestId, PeerId)> {
    requests(effects, |request| matches!(request, Request::Tip(_)))
}

/// Answers the request for blocks among the effects.
fn answer(node: &mut Node, effects: &[Effect], response: &Response) -> Vec<Effect> {
    let (id, _) = asked_for_blocks(effects)[0];
    node.give(Input::Response(id, PEER, Some(codec::encode(response))))
}

/// The prevote of a validator for no block, in the first round of a height.
fn nil_prevote(seed: u8, height: u64) -> SignedVote {
    let vote = Vote {
        kind: VoteKind::Prevote,
        height: Height(height),
        round: Round(0),
        block: None,
        validator: key(seed).public(),
    };
    SignedVote { signature: key(seed).sign(&vote.message(chain().id())), vote }
}

#[test]
fn votes_of_a_third_begin_the_height_and_a_forged_one_is_rejected() {
    let vote = nil_prevote;
    let mut node = Node::fresh(Some(1));
    let mut forged = vote(2, 1);
    forged.signature.0[0] ^= 1;
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(forged))),
        Verdict::Reject
    );
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(9, 1)))),
        Verdict::Reject
    );
    assert!(matches!(node.machine.phase, Phase::Waiting));
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(2, 1)))),
        Verdict::Accept
    );
    assert!(matches!(node.machine.phase, Phase::Waiting), "one validator must not set the pace");
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(3, 1)))),
        Verdict::Accept
    );
    assert!(node.machine.phase.is_deciding());
    assert_eq!(
        verdict(&node.gossip(Topic::Consensus, ConsensusMessage::Vote(vote(2, 9)))),
        Verdict::Ignore
    );
    let garbage = node.give(Input::Gossip(Topic::Consensus, PEER, Ticket(1), vec![9; 100]));
    assert_eq!(verdict(&garbage), Verdict::Reject);
}

#[test]
fn a_node_behind_fetches_what_certificates_prove() {
    let blocks = blocks(5, 0);
    let mut node = Node::fresh(None);
    node.give(Input::Connected(PEER));
    let effects = node.gossip(Topic::Headers, header(&blocks[4]));
    assert_eq!(verdict(&effects), Verdict::Ignore, "said anew once its block is here");
    assert!(node.machine.is_syncing());
    answer(&mut node, &effects, &response(&blocks));
    assert_eq!(node.tip(), 5);
    assert!(!node.machine.is_syncing());
}

#[test]
fn who_sends_blocks_that_no_certificate_names_is_banned_and_another_is_asked() {
    let (good, other) = (blocks(5, 0), blocks(5, 77));
    let chain = chain();
    let weak = certify(&chain, &good[4].0, 1..=2);
    let mut unsigned = good.clone();
    unsigned[4].1 = weak.clone();
    let mut swapped = good.clone();
    swapped[2] = other[2].clone();
    for bad in [response(&unsigned), response(&swapped), response(&good[1..])] {
        let mut node = Node::fresh(None);
        node.give(Input::Connected(PEER));
        let effects = node.gossip(Topic::Headers, header(&good[4]));
        assert_eq!(bans(&answer(&mut node, &effects, &bad)), 1);
        assert_eq!(node.tip(), 0, "nothing of a bad answer is believed");
        // A height that a certificate proved stays known after the peer has gone.
        let effects = node.give(Input::Connected(PeerId(8)));
        answer(&mut node, &effects, &response(&good));
        assert_eq!(node.tip(), 5);
    }
    let mut node = Node::fresh(None);
    let claim = CertifiedHeader { header: good[4].0.header().clone(), certificate: weak };
    assert_eq!(verdict(&node.gossip(Topic::Headers, claim)), Verdict::Reject);
    assert!(!node.machine.is_syncing(), "a height counts only with its certificate");
}

#[test]
fn two_certificates_for_one_height_halt_the_node_with_the_proof_kept() {
    let (ours, theirs) = (blocks(3, 0), blocks(3, 50));
    let mut node = Node::fresh(None);
    node.give(Input::Connected(PEER));
    let effects = node.gossip(Topic::Headers, header(&ours[2]));
    answer(&mut node, &effects, &response(&ours));
    assert_eq!(node.tip(), 3);
    let effects = node.gossip(Topic::Headers, header(&theirs[2]));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Evidence(Evidence::Fork(..)))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Halt(_))));
    assert!(node.elapse(Duration::from_secs(60)).is_empty(), "a halted node does nothing more");
}

/// A log of height 1 with an entry.
fn written() -> Log {
    Log::Intact(Height(1), vec![LogEntry::Timeout(0, Round(0))])
}

/// Whether a validator with this log votes within `limit` milliseconds of its first peer.
fn votes_within(state: ChainState, log: Log, limit: u64) -> bool {
    let mut node = Node::start(state, Some(1), log);
    node.give(Input::Connected(PEER));
    (0..limit / 50).any(|_| !votes(&node.elapse(Duration::from_millis(50))).is_empty())
}

#[test]
fn a_validator_signs_at_its_logs_height_at_once_and_elsewhere_after_listening() {
    let fresh = || ChainState::genesis(chain());
    let mut later = fresh();
    later.advance(&blocks(1, 0)[0].0);
    // Within 1.9 s: the first height begins at 0.3 s, and if another validator proposes, the
    // propose timeout of 1 s makes this one vote nil.
    assert!(votes_within(fresh(), Log::Intact(Height(1), Vec::new()), 1_900));
    assert!(!votes_within(later.clone(), written(), 1_900));
    assert!(votes_within(later, written(), 4_000));
    assert!(!votes_within(fresh(), Log::Lost, 60_000));
}

#[test]
fn a_validator_whose_key_signs_elsewhere_does_not_sign_that_height() {
    let chain = chain();
    let mut later = ChainState::genesis(Arc::clone(&chain));
    later.advance(&blocks(1, 0)[0].0);
    for signer in [1, 2] {
        let mut node = Node::start(later.clone(), Some(1), written());
        node.give(Input::Connected(PEER));
        let vote = Vote {
            kind: VoteKind::Prevote,
            height: Height(2),
            round: Round(0),
            block: None,
            validator: key(signer).public(),
        };
        let signed = SignedVote { signature: key(signer).sign(&vote.message(chain.id())), vote };
        node.gossip(Topic::Consensus, ConsensusMessage::Vote(signed));
        let votes = (0..400).any(|_| !votes(&node.elapse(Duration::from_millis(50))).is_empty());
        assert_eq!(votes, signer != 1);
    }
}

#[test]
fn a_late_answer_counts_and_a_slow_peer_is_asked_last() {
    let blocks = blocks(5, 0);
    let mut node = Node::fresh(None);
    let asked = asked_for_blocks;
    let mut effects = Vec::new();
    for peer in [PEER, PeerId(8)] {
        node.give(Input::Connected(peer));
        let bytes = codec::encode(&Attempt { attempt: peer.0, message: header(&blocks[4]) });
        effects.extend(node.give(Input::Gossip(Topic::Headers, peer, Ticket(peer.0), bytes)));
    }
    let first = asked(&effects)[0];
    let second = asked(&node.elapse(Duration::from_secs(6)))[0];
    assert_ne!(first.1, second.1, "another peer is asked when the first is late");
    node.give(Input::Response(first.0, first.1, Some(codec::encode(&response(&blocks)))));
    assert_eq!(node.tip(), 5);
}

#[test]
fn an_idle_machine_never_asks_for_a_time_that_has_passed() {
    for seed in [None, Some(1)] {
        let mut node = Node::fresh(seed);
        for _ in 0..400 {
            node.elapse(Duration::from_millis(50));
            assert!(node.machine.deadline() > node.elapsed, "a driver would spin");
        }
    }
    let mut behind = Node::fresh(None);
    behind.give(Input::Connected(PEER));
    behind.gossip(Topic::Headers, header(&blocks(5, 0)[4]));
    for _ in 0..400 {
        behind.elapse(Duration::from_millis(50));
        assert!(behind.machine.is_syncing());
        assert!(
            behind.machine.deadline() > behind.elapsed,
            "a driver would spin while nobody answers"
        );
    }
}

#[test]
fn saying_a_proposal_again_does_not_make_the_log_grow() {
    let chain = chain();
    let state = ChainState::genesis(Arc::clone(&chain));
    let proposer = (1..=4).find(|seed| {
        key(*seed).public() == chain.validators(Height(1)).proposer(Height(1), Round(0)).key
    });
    let proposer = key(proposer.unwrap());
    let block = state.propose(
        proposer.public(),
        Timestamp(START + 1),
        Certificate::genesis(chain.id()),
        [],
    );
    let proposal = crate::message::Proposal {
        height: Height(1),
        round: Round(0),
        block: block.hash(),
        valid_round: None,
        proposer: proposer.public(),
    };
    let signed =
        SignedProposal { signature: proposer.sign(&proposal.message(chain.id())), proposal };
    let compact = crate::message::CompactBlock {
        header: block.header().clone(),
        parent_certificate: Certificate::genesis(chain.id()),
        transactions: Vec::new(),
    };
    let other = (1..=4).find(|seed| key(*seed).public() != proposer.public());
    let mut node = Node::fresh(other);
    let logged = |effects: &[Effect]| {
        effects.iter().filter(|effect| matches!(effect, Effect::Log(_))).count()
    };
    let message = ConsensusMessage::Proposal(signed, Some(compact));
    assert!(
        logged(&node.gossip(Topic::Consensus, message.clone())) >= 3,
        "proposal, block and vote are logged"
    );
    for _ in 0..20 {
        assert_eq!(logged(&node.gossip(Topic::Consensus, message.clone())), 0);
    }
}

#[test]
fn nothing_is_said_before_the_log_has_it() {
    let mut node = Node::fresh(Some(1));
    let (mut unsynced, mut said) = (false, 0);
    for _ in 0..200 {
        for effect in node.elapse(Duration::from_millis(50)) {
            match effect {
                Effect::Log(_) | Effect::CutLog(_) => unsynced = true,
                Effect::SyncLog => unsynced = false,
                Effect::Gossip(Topic::Consensus, _) | Effect::Commit(_) => {
                    assert!(!unsynced, "durable before audible");
                    said += 1;
                }
                _ => {}
            }
        }
    }
    assert!(said > 0);
}

#[test]
fn own_transactions_leave_in_batches_and_are_said_again_until_final() {
    let chain = chain();
    let alice = template_key("alice").unwrap();
    let transfer = |nonce| {
        Body::Transfer(Transfer {
            sender: alice.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: key(1).public(), amount: Amount(1) }],
            fee: Amount(1_100_000),
            expires_at: Timestamp(START + 3_600_000),
            memo: Vec::new(),
        })
        .sign(chain.id(), &alice)
    };
    let verified = verify_transactions(chain.id(), (0..3).map(transfer).collect());
    let mut node = Node::fresh(None);
    let batches = |effects: &[Effect]| -> Vec<usize> {
        let decode = |effect: &Effect| match effect {
            Effect::Gossip(Topic::Transactions, bytes) => {
                codec::decode::<Attempt<Vec<ledger::transaction::Transaction>>>(bytes, 1 << 16).ok()
            }
            _ => None,
        };
        effects.iter().filter_map(decode).map(|attempt| attempt.message.len()).collect()
    };
    for transaction in verified {
        let effects = node.give(Input::Submit(Ticket(1), transaction.unwrap()));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Submitted(_, Ok(())))));
        assert_eq!(batches(&effects), [0; 0], "a batch waits a little for company");
    }
    assert_eq!(batches(&node.elapse(Duration::from_millis(5))), [3]);
    let mut again = Vec::new();
    for _ in 0..110 {
        again.extend(batches(&node.elapse(Duration::from_millis(50))));
    }
    assert_eq!(again, [3]);
    node.give(Input::Connected(PEER));
    assert_eq!(batches(&node.elapse(Duration::from_millis(400))), [0; 0]);
    node.elapse(Duration::from_millis(100));
    assert_eq!(batches(&node.elapse(Duration::from_millis(5))), [3], "a new peer hears them soon");
}
