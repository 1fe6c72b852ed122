//! Tests of the machine, by subject.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;

use ledger::address::Coin;
use ledger::certificate::{Vote, VoteKind};
use ledger::chain::{Chain, ValidBlock};
use ledger::codec;
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits, template_key};
use ledger::hash::{BlockHash, Domain, Hash, TxHash};
use ledger::transaction::{Body, Output, Transfer, verify_transactions};
use ledger::units::{Amount, Timestamp, VotingPower};

use super::*;
use crate::ids::{RequestId, Ticket};
use crate::live::bodies::{Bodies, transactions_max};
use crate::message::{
    Attempt, CompactBlock, ConsensusMessage, Evidence, LogEntry, Proposal, Request, Response,
    SignedProposal, SignedVote,
};
use fixture::*;

mod attendance;
mod behind;
mod bodies;
mod evidence;
mod fixture;
mod headers;
mod heights;
mod lists;
mod log;
mod peers;
mod relay;
mod signing;
mod stalled;
mod transactions;
