#![allow(clippy::unwrap_used)]

use ledger::certificate::{Certificate, Vote};
use ledger::units::Timestamp;

use super::super::plan::{Plan, validator_key};
use super::*;

fn vote(chain: &Chain, by: usize, round: u32, block: Option<BlockHash>) -> SignedVote {
    let key = validator_key(by);
    let (kind, height, round) = (VoteKind::Precommit, Height(1), Round(round));
    let vote = Vote { kind, height, round, block, validator: key.public() };
    SignedVote { signature: key.sign(&vote.message(chain.id())), vote }
}

/// A block of height 1 that this many of four validators certify. Another `time` makes another
/// block.
fn block(chain: &Arc<Chain>, time: u64, signers: usize) -> Committed {
    let mut state = ChainState::genesis(Arc::clone(chain));
    let time = Timestamp(state.next_time().0 + time);
    let block = state.propose(
        validator_key(0).public(),
        time,
        Certificate::genesis(chain.id()),
        Vec::new(),
    );
    let votes = (0..signers).map(|by| vote(chain, by, 0, Some(block.hash())));
    let signatures = votes.map(|signed| (signed.vote.validator, signed.signature));
    let set = chain.validators(Height(1));
    let certificate = Certificate::new(Height(1), Round(0), block.hash(), set, signatures);
    state.commit(block, certificate)
}

#[test]
fn each_rule_can_be_broken() {
    let chain = Chain::new(Plan::quiet(4).genesis());
    let fresh = || Check::new(&chain, BTreeSet::from([validator_key(3).public()]));
    let rule = |result: Result<(), Violation>| result.err().map(|violation| violation.rule);

    let mut check = fresh();
    let first = block(&chain, 1, 3);
    assert_eq!(rule(check.on_commit(&first)), None);
    assert_eq!(rule(check.on_commit(&first)), None, "another node may commit it too");
    assert_eq!(rule(check.on_commit(&block(&chain, 2, 3))), Some(Rule::NoFork));
    assert_eq!(rule(fresh().on_commit(&block(&chain, 1, 2))), Some(Rule::NothingUncertified));
    let mut poor = fresh();
    poor.supply += 1;
    assert_eq!(rule(poor.on_commit(&first)), Some(Rule::NoMoneyMade));

    let said = |by, round, block| ConsensusMessage::Vote(vote(&chain, by, round, block));
    let hash = Some(first.block.hash());
    for (message, broken) in [
        (said(0, 0, hash), None),
        (said(0, 0, hash), None),
        (said(0, 1, None), None),
        (said(1, 0, None), None),
        (said(0, 0, None), Some(Rule::NoEquivocation)),
        (said(3, 0, hash), None),
        // A dishonest validator may contradict itself.
        (said(3, 0, None), None),
    ] {
        assert_eq!(rule(check.on_message(&message)), broken, "{message:?}");
    }
    let proof = |by, other| Evidence::Votes(vote(&chain, by, 0, hash), vote(&chain, by, 0, other));
    assert_eq!(rule(check.on_evidence(proof(3, None))), None);
    assert_eq!(rule(check.on_evidence(proof(3, hash))), Some(Rule::NoSlander), "proves nothing");
    assert_eq!(
        rule(check.on_evidence(proof(0, None))),
        Some(Rule::NoSlander),
        "against the honest"
    );
}
