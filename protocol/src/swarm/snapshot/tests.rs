#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use ledger::address::Coin;
use ledger::block::Header;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::genesis::{FORMAT, Genesis, GenesisValidator, Limits};
use ledger::hash::{Hash, HistoryRoot, StateRoot};
use ledger::history::SegmentDescriptor;
use ledger::signature::SigningKey;
use ledger::snapshot::{
    FRONTIER_PAGE_SUBTREES, FRONTIER_SUBTREES_MAX, FrontierError, SubtreeDescriptor,
};
use ledger::units::{Round, Timestamp, VotingPower};

use super::frontier::Request;
use super::*;
use crate::message::CertifiedHeader;
use crate::offence::Offence;
use crate::swarm::message::FrontierPage;

fn chain(key: &SigningKey) -> Arc<Chain> {
    Chain::new(Genesis {
        format: FORMAT,
        network: "local".to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1),
        accounts: Vec::new(),
        validators: vec![GenesisValidator {
            name: String::new(),
            key: key.public(),
            payout: key.public(),
            power: VotingPower(1),
        }],
        limits: Limits::default(),
    })
}

/// The block of a snapshot with this root, and the segment that it ends.
fn block(chain: &Chain, key: &SigningKey, root: StateRoot) -> (CertifiedHeader, SegmentDescriptor) {
    let height = Height(64);
    let header = Header {
        version: 2,
        height,
        time: Timestamp(5),
        parent: ledger::hash::BlockHash(Hash::ZERO),
        proposer: key.public(),
        transactions_root: Hash::ZERO,
        state_root: root,
        history_root: HistoryRoot(Hash::ZERO),
        validators: chain.validators(height).hash(),
        next_validators: chain.validators(height).hash(),
        parent_certificate: Hash::ZERO,
    };
    let hash = header.hash();
    let vote = Vote {
        kind: VoteKind::Precommit,
        height,
        round: Round(0),
        block: Some(hash),
        validator: key.public(),
    };
    let signature = key.sign(&vote.message(chain.id()));
    let precommits = [(key.public(), signature)];
    let certificate =
        Certificate::new(height, Round(0), hash, chain.validators(height), precommits);
    let segment = SegmentDescriptor {
        index: 0,
        first: Height(1),
        last: height,
        bytes: 64,
        chunks_root: Hash::ZERO,
        blocks_root: Hash::ZERO,
        last_block: hash,
    };
    (CertifiedHeader { header, certificate }, segment)
}

/// Frontiers of one page, of two, and of two of which the second is empty. One subtree more than
/// may be is refused when it comes.
#[test]
fn a_frontier_is_collected_page_by_page_and_has_an_end() {
    let key = SigningKey::from_seed(&[1; 32]);
    let chain = chain(&key);
    let rules = SnapshotRules::new(chain.limits());
    let page = FRONTIER_PAGE_SUBTREES;
    for (count, pages) in [(page / 2, 1), (page, 2), (2 * page, 3)] {
        let depth = u16::try_from(count.ilog2()).unwrap();
        let subtree = SubtreeDescriptor { depth, count: rules.entries_max(), hash: Hash::ZERO };
        let subtrees = vec![subtree; count];
        let root = match Frontier::verify(subtrees.clone(), StateRoot(Hash::ZERO), &rules) {
            Err(FrontierError::OtherRoot { got, .. }) => got,
            other => panic!("{other:?}"),
        };
        let frontier = Frontier::verify(subtrees.clone(), root, &rules).unwrap();
        let (block, segment) = block(&chain, &key, root);
        let id = frontier.id(Height(64));
        let now = Duration::ZERO;
        let mut fetch = Request::new((Height(64), id), PeerId(1), 0, &rules, now);
        for at in 0..pages {
            assert_eq!(fetch.page, at);
            let first = (at as usize * page).min(count);
            let some = subtrees[first..(first + page).min(count)].to_vec();
            let block = (at == 0).then(|| block.clone());
            let got = fetch.on_page(
                FrontierPage { block, subtrees: some },
                &chain,
                &rules,
                &segment,
                now,
            );
            match got.unwrap() {
                Some(offer) => {
                    assert_eq!((at + 1, offer.id, &*offer.frontier), (pages, id, &frontier));
                }
                None => assert!(at + 1 < pages),
            }
        }
    }

    let (block, segment) = block(&chain, &key, StateRoot(Hash::ZERO));
    let now = Duration::ZERO;
    let rules = SnapshotRules::new(chain.limits());
    let request = || Request::new((Height(64), SnapshotId(Hash::ZERO)), PeerId(1), 0, &rules, now);
    let mut fetch = request();
    let subtree = SubtreeDescriptor { depth: 20, count: rules.entries_max(), hash: Hash::ZERO };
    let mut collected = 0;
    let error = loop {
        let (block, subtrees) = (Some(block.clone()), vec![subtree; page]);
        match fetch.on_page(FrontierPage { block, subtrees }, &chain, &rules, &segment, now) {
            Ok(None) => collected += page,
            Ok(Some(_)) => panic!("a frontier without end"),
            Err(error) => break error,
        }
    };
    assert!(collected <= FRONTIER_SUBTREES_MAX && collected + page > FRONTIER_SUBTREES_MAX);
    let got = collected + page;
    assert_eq!(error, Offence::Frontier(FrontierError::TooMany { got }));

    // A page that does not fit is refused when it comes, whatever would follow.
    let mut fetch = request();
    let subtrees = vec![SubtreeDescriptor { depth: 3, ..subtree }; page];
    let page = FrontierPage { block: Some(block.clone()), subtrees };
    let error = fetch.on_page(page, &chain, &rules, &segment, now).unwrap_err();
    assert_eq!(error, Offence::Frontier(FrontierError::Depth { index: 8, depth: 3 }));
}

/// A peer that gives each page just in time has the time of a whole frontier, and no more.
#[test]
fn a_frontier_that_comes_in_drips_has_one_deadline() {
    let key = SigningKey::from_seed(&[1; 32]);
    let chain = chain(&key);
    let rules = SnapshotRules::new(chain.limits());
    let subtree = SubtreeDescriptor { depth: 20, count: rules.entries_max(), hash: Hash::ZERO };
    let (block, segment) = block(&chain, &key, StateRoot(Hash::ZERO));
    for (tries, expected) in [(0, 20), (1, 40), (2, 80)] {
        let mut now = Duration::ZERO;
        let snapshot = (Height(64), SnapshotId(Hash::ZERO));
        let mut fetch = Request::new(snapshot, PeerId(1), tries, &rules, now);
        for _ in 0..FRONTIER_SUBTREES_MAX / FRONTIER_PAGE_SUBTREES {
            now = fetch.deadline;
            let subtrees = vec![subtree; FRONTIER_PAGE_SUBTREES];
            let page = FrontierPage { block: Some(block.clone()), subtrees };
            assert_eq!(fetch.on_page(page, &chain, &rules, &segment, now).map(drop), Ok(()));
        }
        assert_eq!(fetch.deadline, Duration::from_secs(expected));
    }
}
