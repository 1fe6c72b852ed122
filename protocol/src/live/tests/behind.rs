//! Tests of messages about heights that are final already, and of how a node that is behind catches
//! up.

use super::*;

/// A node that decided these blocks itself, and heard of none of them by a header.
fn decided(blocks: &[(ValidBlock, Certificate)]) -> Node {
    let mut state = ChainState::genesis(chain());
    for (block, certificate) in blocks {
        state.commit(block.clone(), certificate.clone());
    }
    Node::start(state, None, Log::Intact(Height(blocks.len() as u64 + 1), Vec::new()))
}

/// A connected peer shows the certified header of its tip.
fn claim(node: &mut Node, peer: u64, tip: &(ValidBlock, Certificate)) -> Vec<Effect> {
    let status = Request::Tip(Some(header(tip)));
    node.give(Input::Request(PeerId(peer), Ticket(1), codec::encode(&status)))
}

#[test]
fn old_votes_and_headers_of_final_heights_cost_no_signature_and_no_question() {
    let blocks = blocks(4, 0);
    let mut node = decided(&blocks);
    for height in 1..=4 {
        let heard = node.gossip(Topic::Consensus, ConsensusMessage::Vote(nil_prevote(2, height)));
        assert_eq!(
            (verdict(&heard), node.machine.cost().verify),
            (Verdict::Ignore, 0),
            "vote of height {height}"
        );
        assert_eq!(asked_for_tip(&heard), [], "vote of height {height}");
    }
    for block in &blocks[..3] {
        let heard = node.gossip(Topic::Headers, header(block));
        assert_eq!(
            (verdict(&heard), node.machine.cost().verify),
            (Verdict::Ignore, 0),
            "{}",
            block.0.height()
        );
    }
    let next = node.gossip(Topic::Consensus, ConsensusMessage::Vote(nil_prevote(2, 5)));
    assert_eq!(
        (verdict(&next), node.machine.cost().verify),
        (Verdict::Accept, crate::budget::SIGNATURE)
    );
}

#[test]
fn a_true_vote_of_a_far_height_makes_a_node_ask_for_the_tip() {
    let mut node = Node::fresh(None);
    let (id, peer) = asked_for_tip(&node.give(Input::Connected(PEER)))[0];
    let nothing = Response::Tip { now: START, head: None };
    node.give(Input::Response(id, peer, Some(codec::encode(&nothing))));
    let mut forged = nil_prevote(2, 9);
    forged.signature.0[0] ^= 1;
    let heard = node.gossip(Topic::Consensus, ConsensusMessage::Vote(forged));
    assert_eq!((verdict(&heard), asked_for_tip(&heard).len()), (Verdict::Reject, 0));
    let heard = node.gossip(Topic::Consensus, ConsensusMessage::Vote(nil_prevote(2, 9)));
    assert_eq!(verdict(&heard), Verdict::Ignore, "there is no use for it here yet");
    let peers: Vec<PeerId> = asked_for_tip(&heard).into_iter().map(|(_, peer)| peer).collect();
    assert_eq!(peers, [PEER]);
}

#[test]
fn wrong_blocks_are_blamed_on_their_sender_and_stop_nobody() {
    let good = blocks(5, 0);
    let Response::Blocks(list, certificate) = response(&good) else { panic!("blocks") };
    let alice = template_key("alice").unwrap();
    let transfer = Transfer {
        sender: alice.public(),
        nonce: Nonce(0),
        outputs: vec![Output { account: alice.public(), amount: Amount(1) }],
        fee: Amount(100_000),
        expires_at: Timestamp(START + 3_600_000),
        memo: Vec::new(),
    };
    let transfer = Body::Transfer(transfer).sign(chain().id(), &alice);
    let mut unlinked = list.clone();
    unlinked[1].header.parent = good[3].0.hash();
    let (mut longer, mut other_parent) = (list.clone(), list.clone());
    longer[2].transactions.push(transfer);
    other_parent[0].parent_certificate = good[0].1.clone();
    let weak = certify(&chain(), &good[4].0, 1..=2);
    for (blocks, certificate, offence) in [
        (list[1..].to_vec(), &certificate, "unasked-blocks"),
        (unlinked, &certificate, "unlinked-block"),
        (list.clone(), &weak, "uncertified-block"),
        (longer, &certificate, "wrong-body"),
        (other_parent, &certificate, "wrong-body"),
    ] {
        let mut node = Node::fresh(None);
        node.give(Input::Connected(PEER));
        let effects = node.gossip(Topic::Headers, header(&good[4]));
        let effects = answer(&mut node, &effects, &Response::Blocks(blocks, certificate.clone()));
        let blamed = effects.iter().filter_map(|effect| match effect {
            Effect::Ban { peer, offence } => Some((*peer, offence.name())),
            Effect::Halt(reason) => panic!("{offence}: {reason}"),
            _ => None,
        });
        assert_eq!(blamed.collect::<Vec<_>>(), [(PEER, offence)]);
        assert_eq!(node.tip(), 0, "{offence}");
    }
}

#[test]
fn of_two_peers_with_the_next_block_the_one_that_answered_before_is_asked() {
    let blocks = blocks(6, 0);
    for seed in 0..16 {
        let mut node = Node::with_seed(seed);
        for peer in [1, 5, 9] {
            node.give(Input::Connected(PeerId(peer)));
        }
        let (id, peer) = asked_for_blocks(&claim(&mut node, 5, &blocks[2]))[0];
        node.give(Input::Response(id, peer, Some(codec::encode(&response(&blocks[..3])))));
        assert_eq!((peer, node.tip()), (PeerId(5), 3));
        // Peer 1 is the first to claim more blocks, and does not give them.
        let (id, peer) = asked_for_blocks(&claim(&mut node, 1, &blocks[5]))[0];
        assert_eq!(peer, PeerId(1));
        for peer in [9, 5] {
            assert_eq!(asked_for_blocks(&claim(&mut node, peer, &blocks[5])), []);
        }
        let next: Vec<PeerId> = asked_for_blocks(&node.give(Input::Response(id, peer, None)))
            .into_iter()
            .map(|(_, peer)| peer)
            .collect();
        assert_eq!(next, [PeerId(5)], "seed {seed}");
    }
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
        // The certified height stays known after the banned peer has gone.
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
