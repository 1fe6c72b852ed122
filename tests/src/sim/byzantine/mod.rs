//! Byzantine validators: they hold real keys and send real messages, but follow no protocol.
//!
//! They are one coalition: each knows the chain of the furthest node and can sign with the keys of
//! all. Each has the behaviours that the plan gives it. Each behaviour except silence and
//! favouritism has a file of its own. It hears messages, acts after each of them and every 100 ms,
//! and answers requests as it likes.

mod lists;
mod proposals;
mod replays;
mod talk;
mod votes;
mod withholding;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::certificate::{Certificate, Vote};
use ledger::chain::{ChainState, ValidBlock};
use ledger::codec;
use ledger::hash::{BlockHash, ChainId};
use ledger::signature::SigningKey;
use ledger::units::{Height, Round, Timestamp};
use protocol::Topic;
use protocol::message::{
    Attempt, CertifiedHeader, CompactBlock, ConsensusMessage, Proposal, Request, Response,
    SignedProposal, SignedVote,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use talk::Talk;

/// Bytes of the smallest transaction, which has one output and no memo.
pub(crate) const TRANSACTION_BYTES_MIN: u64 = 177;
/// How often a byzantine validator acts on its own.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// How many rounds beyond the current one a byzantine validator makes proposals for.
const ROUNDS_AHEAD: u32 = 3;

/// What a byzantine validator does instead of following the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Says nothing and answers nothing, unless another of its behaviours does.
    Silence,
    /// Proposes many valid and invalid blocks in each of its own rounds.
    ManyProposals,
    /// Votes in the same round for a block, for nil and for a block that does not exist.
    DoubleVotes,
    /// Helps a block to a quorum, keeps its own precommit and the block to itself, and then shows
    /// the certificate that only it can make.
    Withholding,
    /// Repeats others' messages, new and old, each time under a new attempt counter.
    Replays,
    /// Sends made-up lists of transactions in proposals, next to proposals and in answers to
    /// requests.
    MadeUpLists,
    /// Sends each message to some nodes and not to others, whatever its other behaviours.
    Favouritism,
}

impl Behaviour {
    /// All behaviours.
    pub const ALL: [Self; 7] = [
        Self::Silence,
        Self::ManyProposals,
        Self::DoubleVotes,
        Self::Withholding,
        Self::Replays,
        Self::MadeUpLists,
        Self::Favouritism,
    ];

    fn conduct(self) -> Option<Box<dyn Conduct>> {
        match self {
            Self::Silence | Self::Favouritism => None,
            Self::ManyProposals => Some(Box::<proposals::ManyProposals>::default()),
            Self::DoubleVotes => Some(Box::<votes::DoubleVotes>::default()),
            Self::Withholding => Some(Box::<withholding::Withholding>::default()),
            Self::Replays => Some(Box::<replays::Replays>::default()),
            Self::MadeUpLists => Some(Box::<lists::MadeUpLists>::default()),
        }
    }
}

/// One behaviour at work.
trait Conduct {
    /// A message arrived that this validator had not heard before.
    fn hear(&mut self, _scene: &mut Scene<'_>, _message: &ConsensusMessage) {}

    /// Called every [`PACE`], and after each message.
    fn act(&mut self, _scene: &mut Scene<'_>) {}

    /// The answer to a request; `None` leaves the peer waiting.
    fn answer(&mut self, _scene: &mut Scene<'_>, _request: &Request) -> Option<Response> {
        None
    }
}

/// What a byzantine validator does to others.
pub(crate) enum Act {
    /// Gossip, to these nodes or to all.
    Say(Topic, Vec<u8>, Option<BTreeSet<usize>>),
    /// A request whose answer is discarded.
    Ask(usize, Vec<u8>),
}

/// The world as the coalition knows it at one moment.
pub(crate) struct Surroundings<'a> {
    pub(crate) time: Duration,
    pub(crate) wall: Timestamp,
    pub(crate) chain: &'a ChainState,
    pub(crate) tip: Option<&'a CertifiedHeader>,
    /// All other nodes.
    pub(crate) peers: Vec<usize>,
    pub(crate) rng: &'a mut ChaCha8Rng,
}

/// What a behaviour works with: the world, this validator's knowledge, and its acts so far.
struct Scene<'a> {
    world: Surroundings<'a>,
    key: &'a SigningKey,
    coalition: &'a [SigningKey],
    talk: &'a Talk,
    /// Blocks of its own making, kept to answer requests.
    made: &'a mut BTreeMap<BlockHash, CompactBlock>,
    favours: bool,
    acts: Vec<Act>,
}

/// A validator that follows no protocol.
pub(crate) struct Byzantine {
    key: SigningKey,
    coalition: Vec<SigningKey>,
    conducts: Vec<Box<dyn Conduct>>,
    favours: bool,
    talk: Talk,
    seen: HashSet<Arc<Vec<u8>>>,
    made: BTreeMap<BlockHash, CompactBlock>,
}

impl Byzantine {
    pub(crate) fn new(
        key: SigningKey,
        coalition: Vec<SigningKey>,
        behaviours: &[Behaviour],
    ) -> Self {
        let distinct: BTreeSet<Behaviour> = behaviours.iter().copied().collect();
        Self {
            key,
            coalition,
            favours: distinct.contains(&Behaviour::Favouritism),
            conducts: distinct.into_iter().filter_map(Behaviour::conduct).collect(),
            talk: Talk::default(),
            seen: HashSet::new(),
            made: BTreeMap::new(),
        }
    }

    /// Consensus gossip arrives.
    pub(crate) fn hear(&mut self, world: Surroundings<'_>, bytes: &Arc<Vec<u8>>) -> Vec<Act> {
        if self.conducts.is_empty() || !self.seen.insert(Arc::clone(bytes)) {
            return Vec::new();
        }
        let attempt = codec::decode::<Attempt<ConsensusMessage>>(
            bytes,
            protocol::message::CONSENSUS_BYTES_MAX,
        );
        let message = attempt
            .unwrap_or_else(|error| panic!("what is passed on can be read: {error}"))
            .message;
        self.talk.note(&message, &self.coalition);
        self.perform(world, |conduct, scene| {
            conduct.hear(scene, &message);
            conduct.act(scene);
        })
    }

    /// Called every [`PACE`].
    pub(crate) fn act(&mut self, world: Surroundings<'_>) -> Vec<Act> {
        let next = world.chain.tip().height.next();
        self.talk.forget_before(next);
        self.made.retain(|_, compact| compact.header.height >= next);
        self.perform(world, |conduct, scene| conduct.act(scene))
    }

    /// The answer to a request, if any.
    pub(crate) fn answer(
        &mut self,
        world: Surroundings<'_>,
        request: &Request,
    ) -> Option<Response> {
        let made = match request {
            Request::Proposed(_, block) => self.made.get(block).cloned(),
            _ => None,
        };
        let mut answer = made.map(|compact| Response::Proposed(Some(compact)));
        self.perform(world, |conduct, scene| {
            if answer.is_none() {
                answer = conduct.answer(scene, request);
            }
        });
        answer
    }

    fn perform(
        &mut self,
        world: Surroundings<'_>,
        mut each: impl FnMut(&mut dyn Conduct, &mut Scene<'_>),
    ) -> Vec<Act> {
        let mut scene = Scene {
            world,
            key: &self.key,
            coalition: &self.coalition,
            talk: &self.talk,
            made: &mut self.made,
            favours: self.favours,
            acts: Vec::new(),
        };
        for conduct in &mut self.conducts {
            each(conduct.as_mut(), &mut scene);
        }
        let acts = scene.acts;
        // Its own messages come back from nodes that pass them on, so they count as seen.
        self.seen.extend(acts.iter().filter_map(|act| match act {
            Act::Say(_, bytes, _) => Some(Arc::new(bytes.clone())),
            Act::Ask(..) => None,
        }));
        acts
    }
}

impl Scene<'_> {
    fn id(&self) -> ChainId {
        self.world.chain.chain().id()
    }

    /// The height being decided.
    fn height(&self) -> Height {
        self.world.chain.tip().height.next()
    }

    /// Number of transactions that fit a full block.
    fn full(&self) -> usize {
        let full = self.world.chain.chain().limits().block_bytes_max / TRANSACTION_BYTES_MIN;
        usize::try_from(full).unwrap_or(usize::MAX)
    }

    /// Rounds of the height, from the current one on, in which this validator is the proposer.
    fn turns(&self) -> Vec<Round> {
        let (height, round) = (self.height(), self.talk.round(self.height()));
        let validators = self.world.chain.chain().validators(height);
        let rounds = (round.0..=round.0 + ROUNDS_AHEAD).map(Round);
        rounds
            .filter(|round| validators.proposer(height, *round).key == self.key.public())
            .collect()
    }

    /// A valid block on top of the tip, without transactions. Each number gives another block.
    fn block(&self, number: u64) -> ValidBlock {
        let chain = self.world.chain;
        let certificate = match self.world.tip {
            Some(tip) => tip.certificate.clone(),
            None => Certificate::genesis(self.id()),
        };
        let time = Timestamp(self.world.wall.max(chain.next_time()).0 + number);
        chain.propose(self.key.public(), time, certificate, Vec::new())
    }

    fn sign_proposal(&self, round: Round, block: BlockHash) -> SignedProposal {
        let (height, proposer) = (self.height(), self.key.public());
        let proposal = Proposal { height, round, block, valid_round: None, proposer };
        SignedProposal { signature: self.key.sign(&proposal.message(self.id())), proposal }
    }

    fn sign_vote(&self, key: &SigningKey, vote: Vote) -> SignedVote {
        SignedVote { signature: key.sign(&vote.message(self.id())), vote }
    }

    /// Gossips a message of consensus under a new attempt counter.
    fn say(&mut self, message: ConsensusMessage) {
        let attempt = self.world.rng.random();
        let bytes = codec::encode(&Attempt { attempt, message });
        let listeners = self.listeners();
        self.acts.push(Act::Say(Topic::Consensus, bytes, listeners));
    }

    fn show(&mut self, message: CertifiedHeader) {
        let attempt = self.world.rng.random();
        let bytes = codec::encode(&Attempt { attempt, message });
        let listeners = self.listeners();
        self.acts.push(Act::Say(Topic::Headers, bytes, listeners));
    }

    fn listeners(&mut self) -> Option<BTreeSet<usize>> {
        let Surroundings { peers, rng, .. } = &mut self.world;
        self.favours.then(|| peers.iter().copied().filter(|_| rng.random()).collect())
    }
}

/// The block without its transactions, as it is sent.
fn compact(block: &ValidBlock) -> CompactBlock {
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
