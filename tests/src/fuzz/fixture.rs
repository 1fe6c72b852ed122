//! The chain that all targets share: four validators and twelve final blocks.

use std::sync::{Arc, LazyLock};

use ledger::address::Coin;
use ledger::block::Block;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, ValidBlock};
use ledger::codec;
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits, template_key};
use ledger::hash::BlockHash;
use ledger::history::SegmentDescriptor;
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::{
    Body, Output, Transaction, Transfer, VerifiedTransaction, verify_transactions,
};
use ledger::units::{Amount, Height, Nonce, Round, Timestamp, VotingPower};
use protocol::message::{CertifiedHeader, CompactBlock};

/// Time of the genesis, milliseconds since 1970.
pub(super) const START: u64 = 1_767_225_600_000;
/// Number of final blocks: more than a node may lack without asking for segments.
pub(super) const HEIGHTS: u64 = 12;
/// Accounts of the genesis besides alice's.
pub(super) const ACCOUNTS: u8 = 40;

/// A chain and the keys behind it.
pub(super) struct Fixture {
    pub(super) chain: Arc<Chain>,
    /// Keys of the validators, by number from 0.
    pub(super) validators: Vec<SigningKey>,
    pub(super) alice: SigningKey,
    /// The state after each height, from 0 on.
    pub(super) states: Vec<ChainState>,
    /// The final blocks with their certificates, from height 1 on.
    pub(super) blocks: Vec<(ValidBlock, Certificate)>,
    /// The segments that these blocks sealed.
    pub(super) sealed: Vec<SegmentDescriptor>,
}

/// The validator that the machine under test is; its key signs no certificate.
pub(super) const OWN: usize = 3;
/// The validator that may sign anything.
pub(super) const BYZANTINE: usize = 2;

/// The chain, made at the first call.
pub(super) fn fixture() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| Fixture::new(Limits::default(), HEIGHTS));
    &FIXTURE
}

impl Fixture {
    /// A chain with these limits and this many blocks.
    pub(super) fn new(limits: Limits, heights: u64) -> Self {
        let key = |seed: u8| SigningKey::from_seed(&[seed; 32]);
        let validators: Vec<SigningKey> = (1..=4).map(key).collect();
        let alice = template_key("alice").expect("the template has alice");
        let account = |name: String, account: PublicKey| GenesisAccount {
            name,
            account,
            balance: Amount(1 << 40),
        };
        let others =
            (0..ACCOUNTS).map(|seed| account(format!("account{seed}"), key(100 + seed).public()));
        let genesis = Genesis {
            format: FORMAT,
            network: "local".to_owned(),
            address_prefix: "crn".to_owned(),
            coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
            start_time: Timestamp(START),
            accounts: others.chain([account("alice".to_owned(), alice.public())]).collect(),
            validators: (1..)
                .zip(&validators)
                .map(|(number, key)| GenesisValidator {
                    name: format!("validator{number}"),
                    key: key.public(),
                    payout: key.public(),
                    power: VotingPower(1),
                })
                .collect(),
            limits,
        };
        assert!(
            genesis.problems().is_empty(),
            "the genesis of the targets: {:?}",
            genesis.problems()
        );
        let chain = Chain::new(genesis);
        let states = vec![ChainState::genesis(Arc::clone(&chain))];
        let (blocks, sealed) = (Vec::new(), Vec::new());
        let mut fixture = Self { chain, validators, alice, states, blocks, sealed };
        for height in (1..=heights).map(Height) {
            let block = fixture.propose(height, Timestamp(START));
            let certificate = fixture.certify(&block);
            let mut after = fixture.states[fixture.blocks.len()].clone();
            let committed = after.commit(block.clone(), certificate.clone());
            fixture.sealed.extend(committed.sealed.map(|segment| segment.descriptor));
            fixture.states.push(after);
            fixture.blocks.push((block, certificate));
        }
        fixture
    }

    /// A block of this height on the final blocks below it. Every second height has one transfer.
    pub(super) fn propose(&self, height: Height, time: Timestamp) -> ValidBlock {
        let below = usize::try_from(height.0 - 1).expect("a small height");
        let state = &self.states[below];
        let transfers = height.0 / 2;
        let transfer = height
            .0
            .is_multiple_of(2)
            .then(|| self.verified(self.transfer(Nonce(transfers - 1), Amount(10_000))));
        let proposer = self.chain.validators(height).proposer(height, self.round(height)).key;
        state.propose(proposer, time, self.parent_certificate(height), transfer)
    }

    /// The certificate of the block below a height.
    pub(super) fn parent_certificate(&self, height: Height) -> Certificate {
        match height
            .0
            .checked_sub(2)
            .and_then(|below| self.blocks.get(usize::try_from(below).ok()?))
        {
            Some((_, certificate)) => certificate.clone(),
            None => Certificate::genesis(self.chain.id()),
        }
    }

    /// The round in which a height was decided: the first round whose proposer is not the machine
    /// under test.
    pub(super) fn round(&self, height: Height) -> Round {
        let own = self.validators[OWN].public();
        let is_others = self.chain.validators(height).proposer(height, Round(0)).key != own;
        if is_others { Round(0) } else { Round(1) }
    }

    /// A certificate signed by all validators except the machine under test.
    pub(super) fn certify(&self, block: &ValidBlock) -> Certificate {
        let (height, round, hash) = (block.height(), self.round(block.height()), block.hash());
        let signers = (0..self.validators.len()).filter(|number| *number != OWN);
        let votes = signers.map(|number| {
            let vote = self.vote(number, VoteKind::Precommit, height, round, Some(hash));
            (vote.validator, self.validators[number].sign(&vote.message(self.chain.id())))
        });
        Certificate::new(height, round, hash, self.chain.validators(height), votes)
    }

    pub(super) fn vote(
        &self,
        number: usize,
        kind: VoteKind,
        height: Height,
        round: Round,
        block: Option<BlockHash>,
    ) -> Vote {
        Vote { kind, height, round, block, validator: self.validators[number].public() }
    }

    /// The final block of a height.
    pub(super) fn block(&self, height: Height) -> Option<&(ValidBlock, Certificate)> {
        self.blocks.get(usize::try_from(height.0.checked_sub(1)?).ok()?)
    }

    pub(super) fn certified(&self, height: Height) -> Option<CertifiedHeader> {
        let (block, certificate) = self.block(height)?;
        Some(CertifiedHeader { header: block.header().clone(), certificate: certificate.clone() })
    }

    /// A transfer of alice whose fee is 1,000,000 above `fee`.
    pub(super) fn transfer(&self, nonce: Nonce, fee: Amount) -> Transaction {
        let body = Body::Transfer(Transfer {
            sender: self.alice.public(),
            nonce,
            outputs: vec![Output { account: self.validators[0].public(), amount: Amount(7) }],
            fee: Amount(fee.0 + 1_000_000),
            expires_at: Timestamp(START + 3_600_000),
            memo: b"memo".to_vec(),
        });
        body.sign(self.chain.id(), &self.alice)
    }

    /// A transaction whose signature holds.
    pub(super) fn verified(&self, transaction: Transaction) -> Arc<VerifiedTransaction> {
        let verified = verify_transactions(self.chain.id(), vec![transaction]).pop().flatten();
        verified.expect("the sender signed it")
    }
}

/// A block as it is sent.
pub(super) fn plain(block: &ValidBlock) -> Block {
    codec::decode(block.bytes(), codec::VALUE_BYTES_MAX).expect("a valid block has canonical bytes")
}

/// A block with hashes in place of its transactions.
pub(super) fn compact(block: &ValidBlock) -> CompactBlock {
    let Block { header, parent_certificate, transactions } = block.block().clone();
    let transactions = transactions.iter().map(|transaction| transaction.hash()).collect();
    CompactBlock { header, parent_certificate, transactions }
}
