#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use super::*;
use crate::genesis::{GenesisAccount, GenesisValidator, template_key};
use crate::hash::{Domain, Hash};
use crate::signature::{KeyError, SigningKey};
use crate::transaction::{Body, Output, Transfer, verify_transactions};
use crate::units::{Amount, Nonce, Round, VotingPower};

const START: u64 = 1_767_225_600_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn chain() -> Arc<Chain> {
    let account = |name: &&str| GenesisAccount {
        name: (*name).to_owned(),
        account: template_key(name).unwrap().public(),
        balance: Amount(1_000_000_000),
    };
    Chain::new(Genesis {
        format: crate::genesis::FORMAT,
        network: "local".to_owned(),
        address_prefix: "crn".to_owned(),
        coin: crate::address::Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(START),
        accounts: ["alice", "bob"].iter().map(account).collect(),
        validators: (1..=4)
            .map(|seed| GenesisValidator {
                name: format!("v{seed}"),
                key: key(seed).public(),
                payout: key(seed + 10).public(),
                power: VotingPower(1),
            })
            .collect(),
        limits: Limits { segment_blocks: 16, ..Limits::default() },
    })
}

fn alice() -> SigningKey {
    template_key("alice").unwrap()
}

fn bob() -> PublicKey {
    template_key("bob").unwrap().public()
}

fn transfer() -> Transfer {
    Transfer {
        sender: alice().public(),
        nonce: Nonce(0),
        outputs: vec![Output { account: bob(), amount: Amount(5) }],
        fee: Amount(10_000),
        expires_at: Timestamp(START + 60_000),
        memo: Vec::new(),
    }
}

fn signed(chain: &Chain, transfer: Transfer) -> Arc<VerifiedTransaction> {
    let transaction = Body::Transfer(transfer).sign(chain.id(), &alice());
    verify_transactions(chain.id(), vec![transaction]).remove(0).unwrap()
}

fn certificate(chain: &Chain, block: &ValidBlock) -> Certificate {
    let vote = |seed: u8| {
        let vote = crate::certificate::Vote {
            kind: crate::certificate::VoteKind::Precommit,
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
        (1..=3).map(vote),
    )
}

/// Changes a valid transfer, applies it and compares the verdict.
fn check(change: impl Fn(&mut Transfer), expected: Result<(), TransactionError>) {
    let chain = chain();
    let state = ChainState::genesis(Arc::clone(&chain));
    let mut transfer = transfer();
    change(&mut transfer);
    let mut overlay = Overlay::new(&state, Timestamp(START + 1));
    assert_eq!(
        overlay.apply_transaction(&signed(&chain, transfer.clone())),
        expected,
        "{transfer:?}"
    );
    assert_eq!(
        overlay.changes.is_empty(),
        expected.is_err(),
        "a refused transaction changes nothing"
    );
}

#[test]
fn each_rule_of_a_transfer_holds_up_to_its_limit() {
    use TransactionError as E;
    check(|_| {}, Ok(()));
    check(|t| t.outputs.clear(), Err(E::Outputs(0)));
    check(
        |t| t.outputs = vec![t.outputs[0].clone(); 64],
        Err(E::Fee { got: Amount(10_000), least: Amount(26_970) }),
    );
    check(|t| (t.outputs, t.fee) = (vec![t.outputs[0].clone(); 64], Amount(100_000)), Ok(()));
    check(|t| t.outputs = vec![t.outputs[0].clone(); 65], Err(E::Outputs(65)));
    check(|t| t.memo = vec![0; 256], Ok(()));
    check(|t| t.memo = vec![0; 257], Err(E::Memo(257)));
    check(|t| t.outputs[0].amount = Amount(0), Err(E::ZeroAmount(0)));
    check(|t| t.outputs[0].amount = Amount(u64::MAX), Err(E::Overflow));
    check(|t| t.nonce = Nonce(1), Err(E::NonceAhead { got: Nonce(1), next: Nonce(0) }));
    check(|t| t.outputs[0].amount = Amount(999_990_000), Ok(()));
    let needed = Amount(1_000_000_001);
    check(
        |t| t.outputs[0].amount = Amount(999_990_001),
        Err(E::Balance { balance: Amount(1_000_000_000), needed }),
    );
    check(|t| t.expires_at = Timestamp(START + 1), Ok(()));
    let (expires_at, time) = (Timestamp(START), Timestamp(START + 1));
    check(|t| t.expires_at = Timestamp(START), Err(E::Expired { expires_at, time }));
    let latest = Timestamp(START + 1 + 24 * 3_600_000);
    check(|t| t.expires_at = latest, Ok(()));
    let expires_at = Timestamp(latest.0 + 1);
    check(|t| t.expires_at = expires_at, Err(E::ExpiryTooFar { expires_at, latest }));
    check(|t| (t.outputs[0].account, t.fee) = (key(99).public(), Amount(1_001_770)), Ok(()));
    check(
        |t| (t.outputs[0].account, t.fee) = (key(99).public(), Amount(1_001_769)),
        Err(E::Fee { got: Amount(1_001_769), least: Amount(1_001_770) }),
    );
    let identity = PublicKey([0; 32]);
    check(|t| t.outputs[0].account = identity, Err(E::Recipient(KeyError::SmallOrder(identity))));
    check(|t| t.outputs[0].account = t.sender, Ok(()));
}

/// Money paid to a key that is no point of the curve is lost, since nobody can sign for it.
#[test]
fn an_account_comes_into_being_only_for_a_point_of_the_curve() {
    let mut y = [0; 32];
    y[0] = 2;
    let no_point = PublicKey(y);
    assert_eq!(no_point.check(), Ok(()), "its bytes alone look well");
    let refused = TransactionError::Recipient(KeyError::NoPoint(no_point));
    assert_eq!(refused.blame(), Blame::Sender);
    let pay = |account: PublicKey, first: bool| {
        move |t: &mut Transfer| {
            t.fee = Amount(2_100_000);
            let output = Output { account, amount: Amount(1) };
            t.outputs.insert(if first { 0 } else { t.outputs.len() }, output);
        }
    };
    check(pay(no_point, true), Err(refused));
    check(pay(no_point, false), Err(refused));
    // A torsion component is harmless in an account's key, since all nodes get the same verdict on
    // its signatures by ZIP-215.
    let torsion =
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d".parse::<Hash>().unwrap();
    check(pay(PublicKey(torsion.0), true), Ok(()));
}

/// Block times are at least the block interval apart, even if the proposer's clock is behind.
#[test]
fn a_block_sooner_than_the_interval_is_invalid_and_nobody_proposes_one() {
    let chain = chain();
    let interval = chain.limits().block_interval_ms;
    let mut state = ChainState::genesis(Arc::clone(&chain));
    let mut parent = Certificate::genesis(chain.id());
    for height in 1..=3u64 {
        assert_eq!(state.next_time(), Timestamp(START + height * interval));
        let proposer = chain.validators(Height(height)).proposer(Height(height), Round(0)).key;
        let now = Timestamp(START + (height - 1) * interval + 1);
        let block = state.propose(proposer, now, parent.clone(), []);
        assert_eq!(block.header().time, state.next_time(), "at a clock that is behind");
        let mut early = block.block().clone();
        early.header.time = Timestamp(state.next_time().0 - 1);
        let earliest = state.next_time();
        assert_eq!(
            state.validate(early.clone()).unwrap_err(),
            BlockError::Time { got: early.header.time, earliest }
        );
        let later = state.propose(proposer, Timestamp(earliest.0 + 1), parent.clone(), []);
        assert_eq!(later.header().time, Timestamp(earliest.0 + 1), "at a clock that is ahead");
        assert!(state.validate(later.block().clone()).is_ok());
        parent = certificate(&chain, &block);
        state.advance(&block);
    }
}

#[test]
fn a_signature_holds_for_one_chain_and_body_only() {
    let chain = chain();
    let good = Body::Transfer(transfer()).sign(chain.id(), &alice());
    let other = Body::Transfer(transfer()).sign(ChainId(Hash([1; 32])), &alice());
    let mut changed = good.clone();
    let Body::Transfer(body) = &mut changed.body;
    body.outputs[0].amount = Amount(6);
    let verdicts = verify_transactions(chain.id(), vec![good, other, changed]);
    assert_eq!(verdicts.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn blocks_follow_each_other_and_every_commitment_is_checked() {
    let chain = chain();
    let mut state = ChainState::genesis(Arc::clone(&chain));
    let mut parent = Certificate::genesis(chain.id());
    for height in 1..=40u64 {
        let proposer = chain.validators(Height(height)).proposer(Height(height), Round(0)).key;
        let transaction = signed(&chain, Transfer { nonce: Nonce(height - 1), ..transfer() });
        let block =
            state.propose(proposer, Timestamp(START + height), parent.clone(), [transaction]);
        assert_eq!(block.block().transactions.len(), 1);
        assert_eq!(state.validate(block.block().clone()).unwrap().bytes(), block.bytes());
        let decoded: Block = codec::decode(block.bytes(), codec::VALUE_BYTES_MAX).unwrap();
        assert_eq!(state.replay(decoded).unwrap().hash(), block.hash());
        if height == 20 {
            each_tampering_is_refused(&state, block.block());
        }
        parent = certificate(&chain, &block);
        let sealed = state.advance(&block);
        assert_eq!(sealed.is_some(), height % 16 == 0);
    }
    assert_eq!(state.account(&bob()).balance, Amount(1_000_000_000 + 40 * 5));
    each_payout_proves_its_income(&chain, &state);
    let total: u64 = state.state().iter().map(|(_, account)| account.balance.0).sum();
    assert_eq!(total, 2_000_000_000, "fees and payments move money");
}

/// Checks that anyone who knows the fees of each block that a validator proposed can compute the
/// activity of its payout account.
fn each_payout_proves_its_income(chain: &Chain, state: &ChainState) {
    for validator in chain.validators(Height(1)).as_slice() {
        let mut expected = Account::default();
        for height in (1..=40)
            .map(Height)
            .filter(|height| chain.validators(*height).proposer(*height, Round(0)) == validator)
        {
            let cause = Hash::of(Domain::Fees, &[&10_000u64.to_le_bytes()]);
            let parts: [&[u8]; 3] =
                [expected.activity.as_bytes(), &height.0.to_le_bytes(), cause.as_bytes()];
            expected.activity = Hash::of(Domain::Activity, &parts);
            expected.balance.0 += 10_000;
        }
        assert_eq!(state.account(&validator.payout), expected);
    }
}

fn each_tampering_is_refused(state: &ChainState, good: &VerifiedBlock) {
    let refused = |change: &dyn Fn(&mut VerifiedBlock), name: &str| {
        let mut block = good.clone();
        change(&mut block);
        let error = state.validate(block).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
    };
    let bad = Hash::of(Domain::Block, &[]);
    refused(&|b| b.header.version = 3, "upgrade");
    refused(&|b| b.header.version = 1, "made by cairn 0.1");
    refused(&|b| b.header.height = Height(21), "height");
    refused(&|b| b.header.parent = BlockHash(bad), "parent");
    refused(&|b| b.header.time = Timestamp(START + 20 * 50 - 1), "time");
    refused(&|b| b.header.proposer = bob(), "is not a validator");
    refused(&|b| b.header.transactions_root = bad, "transactions_root");
    refused(&|b| b.header.state_root = StateRoot(bad), "state_root");
    refused(&|b| b.header.history_root = HistoryRoot(bad), "history_root");
    refused(&|b| b.header.validators = bad, "validators");
    refused(&|b| b.header.next_validators = bad, "next_validators");
    refused(&|b| b.header.parent_certificate = bad, "parent_certificate");
    refused(&|b| b.parent_certificate.signatures[0].0[3] ^= 1, "certificate");
    refused(&|b| b.transactions.clear(), "transactions_root");
    refused(&|b| b.transactions.push(Arc::clone(&b.transactions[0])), "transaction 1");
}
