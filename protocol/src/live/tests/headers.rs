//! Tests of certified headers: which nodes hear of a block, which pass it on, and what a
//! certificate does to consensus.

use super::*;

type Blocks = Vec<(ValidBlock, Certificate)>;

/// The header of this height with a certificate of these signers.
fn signed_by(
    blocks: &Blocks,
    height: usize,
    signers: std::ops::RangeInclusive<u8>,
) -> CertifiedHeader {
    let block = &blocks[height - 1].0;
    CertifiedHeader {
        header: block.header().clone(),
        certificate: certify(&chain(), block, signers),
    }
}

fn published_headers(effects: &[Effect]) -> Vec<u64> {
    let height = |effect: &Effect| match effect {
        Effect::Gossip(Topic::Headers, bytes) => {
            codec::decode::<Attempt<CertifiedHeader>>(bytes, 1 << 17)
                .ok()
                .map(|attempt| attempt.message.header.height.0)
        }
        _ => None,
    };
    effects.iter().filter_map(height).collect()
}

/// The requests for blocks: id, peer and first height.
fn asked(effects: &[Effect]) -> Vec<(RequestId, PeerId, u64)> {
    let request = |effect: &Effect| match effect {
        Effect::Request(id, peer, bytes) => match codec::decode(bytes, 1 << 16) {
            Ok(Request::Blocks(from)) => Some((*id, *peer, from.0)),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

/// The proposal of a block, as its proposer sends it.
fn proposal(block: &ValidBlock) -> ConsensusMessage {
    let chain = chain();
    let seed = (1..=4).find(|seed| key(*seed).public() == block.header().proposer).unwrap();
    let proposal = Proposal {
        height: block.height(),
        round: Round(0),
        block: block.hash(),
        valid_round: None,
        proposer: block.header().proposer,
    };
    let signed =
        SignedProposal { signature: key(seed).sign(&proposal.message(chain.id())), proposal };
    let compact = CompactBlock {
        header: block.header().clone(),
        parent_certificate: block.block().parent_certificate.clone(),
        transactions: Vec::new(),
    };
    ConsensusMessage::Proposal(signed, Some(compact))
}

fn vote(block: &ValidBlock, kind: VoteKind, seed: u8) -> ConsensusMessage {
    let vote = Vote {
        kind,
        height: block.height(),
        round: Round(0),
        block: Some(block.hash()),
        validator: key(seed).public(),
    };
    ConsensusMessage::Vote(SignedVote {
        signature: key(seed).sign(&vote.message(chain().id())),
        vote,
    })
}

/// Makes a node decide a block by consensus, and returns all effects.
fn decide(node: &mut Node, block: &ValidBlock) -> Vec<Effect> {
    let mut effects = node.gossip(Topic::Consensus, proposal(block));
    for kind in [VoteKind::Prevote, VoteKind::Precommit] {
        for seed in 1..=3 {
            effects.extend(node.gossip(Topic::Consensus, vote(block, kind, seed)));
        }
    }
    effects
}

/// Places of nodes and heights of blocks count from 1.
fn index_of(number: u64) -> usize {
    usize::try_from(number).unwrap() - 1
}

/// A line of nodes behind a validator, which is peer 0 of the first node. Each node is connected
/// only to its neighbours.
struct Line {
    nodes: Vec<Node>,
    blocks: Blocks,
    /// Heights of the headers that each node sent.
    sent: Vec<Vec<u64>>,
}

impl Line {
    fn new(length: u64, blocks: Blocks) -> Self {
        let nodes = (1..=length).map(|place| {
            let mut node = Node::fresh(None);
            node.give(Input::Connected(PeerId(place - 1)));
            if place < length {
                node.give(Input::Connected(PeerId(place + 1)));
            }
            node
        });
        let nodes: Vec<_> = nodes.collect();
        Self { sent: vec![Vec::new(); nodes.len()], nodes, blocks }
    }

    /// Gives a node an input, and performs everything that follows from it at all nodes, in no
    /// time.
    fn give(&mut self, place: u64, from: u64, input: Input) {
        let mut inputs = std::collections::VecDeque::from([(place, from, input)]);
        while let Some((place, from, input)) = inputs.pop_front() {
            let index = index_of(place);
            let passed = match &input {
                Input::Gossip(Topic::Headers, _, _, bytes) => Some(bytes.clone()),
                _ => None,
            };
            for effect in self.nodes[index].give(input) {
                let said = match effect {
                    Effect::Judge(_, Verdict::Accept) => passed.clone(),
                    Effect::Judge(_, Verdict::Reject) | Effect::Ban { .. } => {
                        panic!("nobody is to blame")
                    }
                    Effect::Gossip(Topic::Headers, bytes) => Some(bytes),
                    Effect::Request(id, peer, bytes) => {
                        if let Ok(Request::Blocks(height)) = codec::decode(&bytes, 1 << 16) {
                            let known = if peer.0 == 0 {
                                u64::MAX
                            } else {
                                self.nodes[index_of(peer.0)].tip()
                            };
                            let there =
                                self.blocks.iter().filter(|(block, _)| block.height().0 <= known);
                            let blocks: Blocks =
                                there.skip(index_of(height.0)).take(1).cloned().collect();
                            assert!(!blocks.is_empty(), "whoever passes a header on has its block");
                            let answer = Some(codec::encode(&response(&blocks)));
                            inputs.push_back((place, peer.0, Input::Response(id, peer, answer)));
                        }
                        None
                    }
                    _ => None,
                };
                let Some(bytes) = said else { continue };
                self.sent[index].push(self.nodes[index].tip());
                for to in [place - 1, place + 1] {
                    if to != from && to >= 1 && to <= self.nodes.len() as u64 {
                        inputs.push_back((
                            to,
                            place,
                            Input::Gossip(Topic::Headers, PeerId(place), Ticket(9), bytes.clone()),
                        ));
                    }
                }
            }
        }
    }
}

#[test]
fn a_node_that_nobody_but_a_follower_is_connected_to_has_each_block_at_once() {
    let blocks = blocks(100, 0);
    let mut line = Line::new(4, blocks.clone());
    for (place, block) in blocks.iter().enumerate() {
        let message = Attempt { attempt: place as u64, message: header(block) };
        line.give(
            1,
            0,
            Input::Gossip(Topic::Headers, PeerId(0), Ticket(1), codec::encode(&message)),
        );
        let tips: Vec<_> = line.nodes.iter().map(Node::tip).collect();
        assert_eq!(tips, [place as u64 + 1; 4], "no time has passed");
    }
    for sent in &line.sent {
        assert_eq!(*sent, (1..=100).collect::<Vec<_>>(), "one header of each height");
    }
}

#[test]
fn of_each_final_block_the_first_header_is_passed_on_and_no_other() {
    let blocks = blocks(12, 0);
    let mut node = Node::fresh(None);
    decide(&mut node, &blocks[0].0);
    assert_eq!(node.tip(), 1);
    let mut forged = signed_by(&blocks, 1, 2..=4);
    forged.certificate.signatures[0].0[0] ^= 1;
    assert_eq!(verdict(&node.gossip(Topic::Headers, forged)), Verdict::Reject);
    for (signers, expected) in
        [(1..=3, Verdict::Accept), (2..=4, Verdict::Ignore), (1..=3, Verdict::Ignore)]
    {
        assert_eq!(verdict(&node.gossip(Topic::Headers, signed_by(&blocks, 1, signers))), expected);
    }
    let later: Vec<_> = (0..40).flat_map(|_| node.elapse(Duration::from_millis(50))).collect();
    assert_eq!(published_headers(&later), [0; 0], "it was passed on already");

    // The same holds for a block far ahead: once it is known, other headers prove nothing more.
    let mut node = Node::fresh(None);
    node.give(Input::Connected(PEER));
    assert_eq!(verdict(&node.gossip(Topic::Headers, header(&blocks[11]))), Verdict::Accept);
    for height in [12, 11, 10] {
        assert_eq!(
            verdict(&node.gossip(Topic::Headers, signed_by(&blocks, height, 2..=4))),
            Verdict::Ignore
        );
    }
}

#[test]
fn a_proposer_announces_at_once_and_the_others_only_if_it_does_not() {
    let blocks = blocks(1, 0);
    for seed in [None, Some(1), Some(2), Some(3), Some(4)] {
        let mut node = Node::fresh(seed);
        let effects = decide(&mut node, &blocks[0].0);
        assert_eq!(node.tip(), 1);
        let is_proposer =
            seed.is_some_and(|seed| key(seed).public() == blocks[0].0.header().proposer);
        assert_eq!(published_headers(&effects), vec![1; usize::from(is_proposer)]);
        let later: Vec<_> = (0..60).flat_map(|_| node.elapse(Duration::from_millis(10))).collect();
        assert_eq!(published_headers(&later), vec![1; usize::from(!is_proposer)]);
    }
}

#[test]
fn a_certificate_of_a_block_that_is_here_commits_it_at_once() {
    let blocks = blocks(1, 0);
    for seed in [None, Some(2), Some(3)] {
        let mut node = Node::fresh(seed);
        node.gossip(Topic::Consensus, proposal(&blocks[0].0));
        assert_eq!(node.tip(), 0);
        let effects = node.gossip(Topic::Headers, header(&blocks[0]));
        assert_eq!((node.tip(), verdict(&effects)), (1, Verdict::Accept));
        assert!(!node.machine.is_syncing());
        assert_eq!(published_headers(&effects), [0; 0]);
    }
    // In the other order, the certificate comes before the block.
    let mut node = Node::fresh(Some(2));
    assert_eq!(verdict(&node.gossip(Topic::Headers, header(&blocks[0]))), Verdict::Ignore);
    let effects = node.gossip(Topic::Consensus, proposal(&blocks[0].0));
    assert_eq!(
        (node.tip(), published_headers(&effects)),
        (1, vec![1]),
        "said anew, now that it is here"
    );
}

#[test]
fn whoever_keeps_a_certified_block_to_itself_does_not_stop_consensus() {
    let blocks = blocks(1, 0);
    let block = &blocks[0].0;
    // The node is not the proposer, so the block must come from another validator.
    let seed = (1..=4).rev().find(|seed| key(*seed).public() != block.header().proposer).unwrap();
    let mut node = Node::fresh(Some(seed));
    node.give(Input::Connected(PEER));
    node.gossip(Topic::Headers, header(&blocks[0]));
    for _ in 0..100 {
        node.elapse(Duration::from_millis(50));
        assert!(!node.machine.is_syncing(), "one certificate ahead, and its block does not come");
    }
    node.elapse(Duration::from_secs(1));
    assert_eq!(node.machine.best_peer_height(), Height(0), "it did not give what it said to have");
    assert_eq!(node.tip(), 0);
    for seed in 1..=4 {
        let nil = Vote {
            kind: VoteKind::Prevote,
            height: Height(1),
            round: Round(0),
            block: None,
            validator: key(seed).public(),
        };
        let signed =
            SignedVote { signature: key(seed).sign(&nil.message(chain().id())), vote: nil };
        node.gossip(Topic::Consensus, ConsensusMessage::Vote(signed));
    }
    assert!(node.machine.phase.is_deciding(), "it hears the votes of others");
    assert!(node.machine.round() > Round(0) || node.machine.deadline() > node.elapsed);
    node.gossip(Topic::Consensus, proposal(block));
    assert_eq!(node.tip(), 1);
}

#[test]
fn a_second_peer_is_asked_soon_and_the_first_answer_counts() {
    let blocks = blocks(3, 0);
    let peers = [PEER, PeerId(8), PeerId(9)];
    let mut seconds = std::collections::BTreeSet::new();
    for seed in 0..24 {
        let mut node = Node::with_seed(seed);
        let mut effects = Vec::new();
        for peer in peers {
            node.give(Input::Connected(peer));
            let status = Request::Tip(Some(header(&blocks[2])));
            effects.extend(node.give(Input::Request(peer, Ticket(peer.0), codec::encode(&status))));
        }
        let first = asked(&effects);
        assert_eq!(first.len(), 1, "a range that one peer can give is asked of one");
        assert_eq!(asked(&node.elapse(Duration::from_millis(399))), []);
        let second = asked(&node.elapse(Duration::from_millis(1)));
        assert_eq!(second.len(), 1);
        assert!(second[0].1 != first[0].1 && second[0].2 == 1);
        seconds.insert(second[0].1);
        assert_eq!(asked(&node.elapse(Duration::from_millis(500))), [], "two at most");
        let (id, peer, _) = if seed % 2 == 0 { first[0] } else { second[0] };
        node.give(Input::Response(id, peer, Some(codec::encode(&response(&blocks)))));
        assert_eq!(node.tip(), 3);
    }
    assert_eq!(seconds.len(), peers.len() - 1, "nobody is asked sooner for having come sooner");
}

#[test]
fn a_peer_that_has_no_block_rests_and_one_that_answered_is_asked_first() {
    let blocks = blocks(6, 0);
    let mut node = Node::fresh(None);
    let claim = |node: &mut Node, peer: u64, height: usize| {
        let status = Request::Tip(Some(header(&blocks[height - 1])));
        node.give(Input::Request(PeerId(peer), Ticket(1), codec::encode(&status)))
    };
    for peer in 1..=9 {
        node.give(Input::Connected(PeerId(peer)));
    }
    let mut effects = claim(&mut node, 1, 3);
    let mut tried = Vec::new();
    // No peer has the block: each is asked once and then rests.
    while let Some((id, peer, _)) = asked(&effects).first().copied() {
        tried.push(peer.0);
        effects = node.give(Input::Response(id, peer, None));
    }
    assert_eq!(tried[0], 1, "it said to have it");
    tried.sort_unstable();
    assert_eq!(tried, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // A peer with a higher claim is asked again at once. It answers, so from now on it is
    // preferred.
    let (id, peer, _) = asked(&claim(&mut node, 5, 4))[0];
    assert_eq!(peer, PeerId(5));
    node.give(Input::Response(id, peer, Some(codec::encode(&response(&blocks[..4])))));
    assert_eq!(node.tip(), 4);
    let effects: Vec<_> =
        [2, 9, 5].into_iter().flat_map(|peer| claim(&mut node, peer, 6)).collect();
    let first = asked(&effects)[0];
    assert_eq!(first.1, PeerId(2), "nobody else has said so yet");
    node.give(Input::Response(first.0, first.1, None));
    node.elapse(Duration::from_millis(1));
    assert_eq!(node.machine.peer_heights()[&PeerId(5)], Height(6));
}

#[test]
fn a_body_is_asked_of_a_second_peer_soon_and_the_first_answer_counts() {
    let blocks = blocks(1, 0);
    let block = &blocks[0].0;
    let ConsensusMessage::Proposal(signed, Some(compact)) = proposal(block) else {
        panic!("a proposal with its list")
    };
    let asked = |effects: &[Effect]| -> Vec<(RequestId, PeerId)> {
        let request = |effect: &Effect| match effect {
            Effect::Request(id, peer, bytes) => {
                matches!(codec::decode(bytes, 1 << 16), Ok(Request::Proposed(..)))
                    .then_some((*id, *peer))
            }
            _ => None,
        };
        effects.iter().filter_map(request).collect()
    };
    let (mut firsts, mut seconds) =
        (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for seed in 0..24 {
        let mut node = Node::with_seed(seed);
        for peer in [PEER, PeerId(1), PeerId(2), PeerId(9)] {
            node.give(Input::Connected(peer));
        }
        let first =
            asked(&node.gossip(Topic::Consensus, ConsensusMessage::Proposal(signed.clone(), None)));
        assert_eq!(first.len(), 1);
        firsts.insert(first[0].1);
        let second = asked(&node.elapse(Duration::from_millis(400)));
        assert!(second.len() == 1 && second[0].1 != first[0].1);
        seconds.insert(second[0].1);
        let (id, peer) = if seed % 2 == 0 { first[0] } else { second[0] };
        let answer = codec::encode(&Response::Proposed(Some(compact.clone())));
        node.give(Input::Response(id, peer, Some(answer)));
        assert!(matches!(
            node.machine.bodies.verdict(&block.hash()),
            Some(crate::live::bodies::Verdict::Valid(_))
        ));
    }
    assert_eq!(
        (firsts.len(), seconds.len()),
        (4, 4),
        "nobody is asked sooner for having come or spoken sooner"
    );
}
