//! A machine with a clock of its own, and what other nodes send to it.

use super::*;

pub(super) const START: u64 = 1_767_225_600_000;
pub(super) const PEER: PeerId = PeerId(7);

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub(super) fn chain() -> Arc<Chain> {
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
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) elapsed: Duration,
}

impl Node {
    pub(super) fn start(chain: ChainState, seed: Option<u8>, log: Log) -> Self {
        Self::start_by_lot(chain, seed, log, 1)
    }

    /// A full node with this seed of its random choices.
    pub(super) fn with_seed(lot: u64) -> Self {
        Self::start_by_lot(
            ChainState::genesis(chain()),
            None,
            Log::Intact(Height(1), Vec::new()),
            lot,
        )
    }

    pub(super) fn start_by_lot(chain: ChainState, seed: Option<u8>, log: Log, lot: u64) -> Self {
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

    pub(super) fn fresh(seed: Option<u8>) -> Self {
        Self::start(ChainState::genesis(chain()), seed, Log::Intact(Height(1), Vec::new()))
    }

    /// Gives an input, and confirms the commits that follow.
    pub(super) fn give(&mut self, input: Input) -> Vec<Effect> {
        let wall = Timestamp(START + u64::try_from(self.elapsed.as_millis()).unwrap());
        let now = Now { elapsed: self.elapsed, wall };
        let mut effects = self.machine.handle(now, input);
        while matches!(self.machine.phase, Phase::Committing(_)) {
            effects.extend(self.machine.handle(now, Input::Committed));
        }
        effects
    }

    pub(super) fn elapse(&mut self, time: Duration) -> Vec<Effect> {
        self.elapsed += time;
        self.give(Input::Time)
    }

    pub(super) fn gossip<T: codec::Encode>(&mut self, topic: Topic, message: T) -> Vec<Effect> {
        let bytes = codec::encode(&Attempt { attempt: 1, message });
        self.give(Input::Gossip(topic, PEER, Ticket(1), bytes))
    }

    /// Gives a copy of a consensus message: its own counter makes it another gossip message.
    pub(super) fn copy(&mut self, attempt: u64, message: &ConsensusMessage) -> Vec<Effect> {
        let bytes = codec::encode(&Attempt { attempt, message: message.clone() });
        self.give(Input::Gossip(Topic::Consensus, PEER, Ticket(attempt), bytes))
    }

    pub(super) fn hear(&mut self, message: ConsensusMessage) -> Verdict {
        verdict(&self.gossip(Topic::Consensus, message))
    }

    pub(super) fn tip(&self) -> u64 {
        self.machine.chain().tip().height.0
    }
}

pub(super) fn verdict(effects: &[Effect]) -> Verdict {
    let judged = effects.iter().find_map(|effect| match effect {
        Effect::Judge(_, verdict) => Some(*verdict),
        _ => None,
    });
    judged.unwrap()
}

pub(super) fn bans(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Ban { .. })).count()
}

pub(super) fn votes(effects: &[Effect]) -> Vec<Vote> {
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

pub(super) fn certify(
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
pub(super) fn blocks(count: u64, first_time: u64) -> Vec<(ValidBlock, Certificate)> {
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

pub(super) fn header(block: &(ValidBlock, Certificate)) -> CertifiedHeader {
    CertifiedHeader { header: block.0.header().clone(), certificate: block.1.clone() }
}

pub(super) fn response(blocks: &[(ValidBlock, Certificate)]) -> Response {
    let decoded = blocks
        .iter()
        .map(|(block, _)| codec::decode(block.bytes(), codec::VALUE_BYTES_MAX).unwrap());
    Response::Blocks(decoded.collect(), blocks.last().unwrap().1.clone())
}

/// The requests of one kind among the effects, with the peers that are asked.
pub(super) fn requests(
    effects: &[Effect],
    is_wanted: fn(&Request) -> bool,
) -> Vec<(RequestId, PeerId)> {
    let request = |effect: &Effect| match effect {
        Effect::Request(id, peer, bytes) => codec::decode(bytes, 1 << 16)
            .is_ok_and(|request| is_wanted(&request))
            .then_some((*id, *peer)),
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

pub(super) fn asked_for_blocks(effects: &[Effect]) -> Vec<(RequestId, PeerId)> {
    requests(effects, |request| matches!(request, Request::Blocks(_)))
}

pub(super) fn asked_for_tip(effects: &[Effect]) -> Vec<(RequestId, PeerId)> {
    requests(effects, |request| matches!(request, Request::Tip(_)))
}

/// Answers the request for blocks among the effects.
pub(super) fn answer(node: &mut Node, effects: &[Effect], response: &Response) -> Vec<Effect> {
    let (id, _) = asked_for_blocks(effects)[0];
    node.give(Input::Response(id, PEER, Some(codec::encode(response))))
}

/// The prevote of a validator for no block, in the first round of a height.
pub(super) fn nil_prevote(seed: u8, height: u64) -> SignedVote {
    let vote = Vote {
        kind: VoteKind::Prevote,
        height: Height(height),
        round: Round(0),
        block: None,
        validator: key(seed).public(),
    };
    SignedVote { signature: key(seed).sign(&vote.message(chain().id())), vote }
}

/// The seed of the proposer of a height and round.
pub(super) fn proposer(height: u64, round: u32) -> u8 {
    let chain = chain();
    let turn = chain.validators(Height(height)).proposer(Height(height), Round(round)).key;
    (1..=4).find(|seed| key(*seed).public() == turn).unwrap()
}

/// The seed of a validator that does not propose in the first round of these heights.
pub(super) fn follower(heights: std::ops::RangeInclusive<u64>) -> u8 {
    (1..=4).find(|seed| heights.clone().all(|height| proposer(height, 0) != *seed)).unwrap()
}

pub(super) fn vote(
    seed: u8,
    kind: VoteKind,
    height: u64,
    round: u32,
    block: Option<BlockHash>,
) -> ConsensusMessage {
    let vote = Vote {
        kind,
        height: Height(height),
        round: Round(round),
        block,
        validator: key(seed).public(),
    };
    ConsensusMessage::Vote(SignedVote {
        signature: key(seed).sign(&vote.message(chain().id())),
        vote,
    })
}

pub(super) fn nil(seed: u8, height: u64) -> ConsensusMessage {
    vote(seed, VoteKind::Prevote, height, 0, None)
}

pub(super) fn propose(seed: u8, round: u32, block: &ValidBlock) -> SignedProposal {
    let proposal = Proposal {
        height: block.height(),
        round: Round(round),
        block: block.hash(),
        valid_round: None,
        proposer: key(seed).public(),
    };
    SignedProposal { signature: key(seed).sign(&proposal.message(chain().id())), proposal }
}

pub(super) fn list(block: &ValidBlock) -> CompactBlock {
    CompactBlock {
        header: block.header().clone(),
        parent_certificate: block.block().parent_certificate.clone(),
        transactions: block
            .block()
            .transactions
            .iter()
            .map(|transaction| transaction.hash())
            .collect(),
    }
}

/// A block of height 1 and its proposal in round 0.
pub(super) fn first(time: u64) -> (ValidBlock, SignedProposal) {
    let (seed, chain) = (proposer(1, 0), chain());
    let state = ChainState::genesis(Arc::clone(&chain));
    let block = state.propose(
        key(seed).public(),
        Timestamp(START + time),
        Certificate::genesis(chain.id()),
        [],
    );
    let signed = propose(seed, 0, &block);
    (block, signed)
}

pub(super) fn hashes(count: usize) -> Vec<TxHash> {
    (0..count).map(|number| TxHash(Hash::of(Domain::Chunk, &[&number.to_le_bytes()]))).collect()
}

pub(super) fn proposals(effects: &[Effect]) -> Vec<(SignedProposal, Option<CompactBlock>)> {
    let proposal = |effect: &Effect| match effect {
        Effect::Gossip(Topic::Consensus, bytes) => {
            match codec::decode::<Attempt<ConsensusMessage>>(bytes, 1 << 20).unwrap().message {
                ConsensusMessage::Proposal(signed, list) => Some((signed, list)),
                _ => None,
            }
        }
        _ => None,
    };
    effects.iter().filter_map(proposal).collect()
}

pub(super) fn others(seed: u8) -> Vec<u8> {
    (1..=4).filter(|other| *other != seed).collect()
}

/// Makes the other validators decide a block of height 1 at this node.
pub(super) fn decide(
    node: &mut Node,
    seeds: &[u8],
    block: &ValidBlock,
    signed: &SignedProposal,
) -> Vec<Effect> {
    let mut effects = node
        .gossip(Topic::Consensus, ConsensusMessage::Proposal(signed.clone(), Some(list(block))));
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        for seed in seeds {
            effects
                .extend(node.gossip(Topic::Consensus, vote(*seed, kind, 1, 0, Some(block.hash()))));
        }
    }
    assert_eq!(node.tip(), 1);
    effects
}
