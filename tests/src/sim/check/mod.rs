//! The rules that hold whatever happens. Every effect that other nodes could see, or that is kept
//! on disk, is checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ledger::certificate::VoteKind;
use ledger::chain::{Chain, ChainState, Committed};
use ledger::hash::{BlockHash, Hash, StateRoot, TxId};
use ledger::signature::PublicKey;
use ledger::units::{Height, Round};
use protocol::message::{
    CertifiedHeader, ConsensusMessage, Evidence, Proposal, SignedProposal, SignedVote,
};

/// The rules. Each says what must be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No two different final blocks of one height, on any two nodes, before or after any restart.
    NoFork,
    /// No honest validator signs two different votes or proposals for one height, round and kind.
    NoEquivocation,
    /// No own vote or proposal leaves before it is durable in the log.
    NothingUnlogged,
    /// No block becomes final without a certificate that verifies.
    NothingUncertified,
    /// No money created or destroyed.
    NoMoneyMade,
    /// No transaction applied twice.
    NothingTwice,
    /// No ban, rejection or evidence against an honest node, not even for messages that it passes
    /// on.
    NoSlander,
    /// No halt while less than a third is dishonest.
    NoHalt,
    /// No panic.
    NoPanic,
    /// No machine that asks to be woken at once for ever.
    NoSpin,
    /// No message passed on in vain: at most two different ones per signer, height, round and kind,
    /// each at most once in 500 ms, and no transaction list that its proposal does not commit to.
    /// A proposal that was passed on only without its list may follow with the list sooner, once.
    NoAmplification,
    /// No work without bound: at most three bodies of a round are executed or logged, at most nine
    /// bodies of a height are in memory, and one input makes a machine look up at most twice the
    /// transactions of a full block.
    NoUnpaidWork,
    /// No late vote on a proposal that was complete before its height began.
    NoIdling,
    /// No standstill once all faults are healed.
    NoStandstill,
}

/// A rule that was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The broken rule.
    pub rule: Rule,
    /// How it was broken.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// The place of one vote or proposal: a validator signs at most one message for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    by: PublicKey,
    height: Height,
    round: Round,
    /// `None` for a proposal.
    kind: Option<VoteKind>,
}

/// The message's content: a block or none; for a proposal also its valid round.
type Said = (Option<BlockHash>, Option<Round>);

/// Everything that was seen of all nodes, against which each effect is checked.
pub struct Check {
    chain: Arc<Chain>,
    supply: u128,
    blocks: BTreeMap<Height, (BlockHash, StateRoot)>,
    certificates: BTreeSet<Hash>,
    transactions: BTreeMap<TxId, Height>,
    said: BTreeMap<Slot, Said>,
    newest: ChainState,
    tip: Option<CertifiedHeader>,
    /// For each block the first height and round in which it was proposed.
    proposed: BTreeMap<BlockHash, (Height, Round)>,
    dishonest: BTreeSet<PublicKey>,
    evidence: Vec<Evidence>,
}

impl Check {
    pub(crate) fn new(chain: &Arc<Chain>, dishonest: BTreeSet<PublicKey>) -> Self {
        let newest = ChainState::genesis(Arc::clone(chain));
        Self {
            chain: Arc::clone(chain),
            supply: supply(&newest),
            blocks: BTreeMap::new(),
            certificates: BTreeSet::new(),
            transactions: BTreeMap::new(),
            said: BTreeMap::new(),
            newest,
            tip: None,
            proposed: BTreeMap::new(),
            dishonest,
            evidence: Vec::new(),
        }
    }

    /// The chain state of the furthest node.
    #[must_use]
    pub const fn newest(&self) -> &ChainState {
        &self.newest
    }

    /// The certified header of the newest tip; `None` before the first block.
    pub(crate) const fn tip(&self) -> Option<&CertifiedHeader> {
        self.tip.as_ref()
    }

    /// Whether this key belongs to a byzantine validator.
    pub(crate) fn is_dishonest(&self, key: &PublicKey) -> bool {
        self.dishonest.contains(key)
    }

    /// A signed proposal was sent, by its signer or by another node.
    pub(crate) fn on_proposed(&mut self, proposal: &Proposal) {
        let place = (proposal.height, proposal.round);
        let first = self.proposed.entry(proposal.block).or_insert(place);
        *first = place.min(*first);
    }

    /// The first round in which a block was proposed.
    pub(crate) fn round_of(&self, block: &BlockHash) -> Option<Round> {
        self.proposed.get(block).map(|(_, round)| *round)
    }

    /// Number of final transactions.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.transactions.len()
    }

    /// Proofs of double signing found by nodes.
    #[must_use]
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    pub(crate) fn on_commit(&mut self, committed: &Committed) -> Result<(), Violation> {
        let header = committed.block.header();
        let (height, hash, root) =
            (header.height, committed.block.hash(), committed.block.state().root());
        self.check_certificate(committed)?;
        if root != header.state_root {
            return Err(Violation::new(
                Rule::NoFork,
                format!("height {height}: the state is not the header's"),
            ));
        }
        if let Some(known) = self.blocks.get(&height) {
            return match *known == (hash, root) {
                true => Ok(()),
                false => Err(Violation::new(
                    Rule::NoFork,
                    format!("height {height}: block {hash} beside {}", known.0),
                )),
            };
        }
        let expected = self.newest.tip();
        if height != expected.height.next() || header.parent != expected.hash {
            return Err(Violation::new(
                Rule::NoFork,
                format!("block {hash} of height {height} follows another tip"),
            ));
        }
        for transaction in &committed.block.block().transactions {
            if let Some(first) = self.transactions.insert(transaction.id(), height) {
                let what =
                    format!("transaction {} at heights {first} and {height}", transaction.id());
                return Err(Violation::new(Rule::NothingTwice, what));
            }
        }
        self.newest.advance(&committed.block);
        self.tip = Some(CertifiedHeader {
            header: header.clone(),
            certificate: committed.certificate.clone(),
        });
        self.proposed.retain(|_, (proposed, _)| *proposed > height);
        let supply = supply(&self.newest);
        if supply != self.supply {
            let what = format!("height {height}: {supply} pebbles in all, {} before", self.supply);
            return Err(Violation::new(Rule::NoMoneyMade, what));
        }
        self.blocks.insert(height, (hash, root));
        Ok(())
    }

    fn check_certificate(&mut self, committed: &Committed) -> Result<(), Violation> {
        let (height, hash) = (committed.block.height(), committed.block.hash());
        if self.certificates.insert(committed.certificate.hash()) {
            let verified = committed.certificate.verify(
                self.chain.id(),
                self.chain.validators(height),
                height,
                hash,
            );
            verified.map_err(|error| {
                Violation::new(Rule::NothingUncertified, format!("height {height}: {error}"))
            })?;
        }
        Ok(())
    }

    /// Checks a message that an honest node sends or passes on. Honest nodes pass on only messages
    /// whose signatures hold, so the message counts as its signer's.
    pub(crate) fn on_message(&mut self, message: &ConsensusMessage) -> Result<(), Violation> {
        match message {
            ConsensusMessage::Vote(vote) => self.on_vote(vote),
            ConsensusMessage::Proposal(SignedProposal { proposal, .. }, _) => {
                let slot = Slot {
                    by: proposal.proposer,
                    height: proposal.height,
                    round: proposal.round,
                    kind: None,
                };
                self.on_said(slot, (Some(proposal.block), proposal.valid_round))
            }
            ConsensusMessage::Round(certificate) => {
                certificate.votes.iter().try_for_each(|vote| self.on_vote(vote))
            }
            ConsensusMessage::Polka(polka) => polka.signatures.iter().try_for_each(|(by, _)| {
                let kind = Some(VoteKind::Prevote);
                let slot = Slot { by: *by, height: polka.height, round: polka.round, kind };
                self.on_said(slot, (Some(polka.block), None))
            }),
        }
    }

    fn on_vote(&mut self, SignedVote { vote, .. }: &SignedVote) -> Result<(), Violation> {
        let slot = Slot {
            by: vote.validator,
            height: vote.height,
            round: vote.round,
            kind: Some(vote.kind),
        };
        self.on_said(slot, (vote.block, None))
    }

    fn on_said(&mut self, slot: Slot, said: Said) -> Result<(), Violation> {
        let first = *self.said.entry(slot).or_insert(said);
        if first == said || self.dishonest.contains(&slot.by) {
            return Ok(());
        }
        Err(Violation::new(
            Rule::NoEquivocation,
            format!("{slot:?}: first {first:?}, then {said:?}"),
        ))
    }

    /// Evidence must prove its offence, and never accuse an honest validator.
    pub(crate) fn on_evidence(&mut self, evidence: Evidence) -> Result<(), Violation> {
        let id = self.chain.id();
        let (offender, proves) = match &evidence {
            Evidence::Votes(a, b) => {
                let (one, two) = (&a.vote, &b.vote);
                let same = (one.kind, one.height, one.round, one.validator)
                    == (two.kind, two.height, two.round, two.validator);
                (one.validator, same && one.block != two.block && a.verify(id) && b.verify(id))
            }
            Evidence::Fork(known, other) => {
                let (height, other) = (other.header.height, other.header.hash());
                return Err(Violation::new(
                    Rule::NoFork,
                    format!("height {height}: {known} and {other} certified"),
                ));
            }
            Evidence::Proposals(a, b) => {
                let (one, two) = (&a.proposal, &b.proposal);
                let same =
                    (one.height, one.round, one.proposer) == (two.height, two.round, two.proposer);
                (one.proposer, same && one != two && a.verify(id) && b.verify(id))
            }
        };
        if !proves || !self.dishonest.contains(&offender) {
            return Err(Violation::new(
                Rule::NoSlander,
                format!("evidence against {offender}: {evidence:?}"),
            ));
        }
        self.evidence.push(evidence);
        Ok(())
    }
}

fn supply(state: &ChainState) -> u128 {
    state.state().iter().map(|(_, account)| u128::from(account.balance.0)).sum()
}

#[cfg(test)]
mod tests;
