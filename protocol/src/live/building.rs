//! Building blocks: when a proposer builds, and which block it proposes.

use std::time::Duration;

use ledger::chain::check_expiry;
use ledger::hash::BlockHash;
use ledger::units::Round;

use super::Machine;
use crate::live::consensus::Output;

/// Longest wait, in milliseconds, until this clock reaches the earliest time of the block. It
/// covers small differences between clocks. If this clock is further behind, the block is built at
/// once: a longer wait would use up the time for the proposal, which is one second in round 0.
const CLOCK_WAIT_MAX: u64 = 250;

impl Machine {
    /// It is this validator's turn. The block is built no earlier than the minimum interval allows,
    /// even if other validators began the height sooner.
    pub(super) fn on_turn(&mut self, round: Round) -> Vec<Output> {
        let at = self.build_at();
        if at > self.turn.now.elapsed {
            if let Some(proposals) = self.phase.proposals() {
                proposals.to_build = Some((round, at));
            }
            return Vec::new();
        }
        self.build_block(round)
    }

    fn build_at(&self) -> Duration {
        let earliest = self
            .chain
            .state
            .tip()
            .time
            .0
            .saturating_add(self.chain.state.chain().limits().block_interval_ms);
        let early = earliest.saturating_sub(self.turn.now.wall.0);
        let by_clock = match early {
            1..=CLOCK_WAIT_MAX => Duration::from_millis(early),
            _ => Duration::ZERO,
        };
        self.pace.build_from.max(self.turn.now.elapsed.saturating_add(by_clock))
    }

    /// Builds a block whose time has come, if its round is still the current one.
    pub(super) fn build_waiting(&mut self) {
        let now = self.turn.now.elapsed;
        let Some(proposals) = self.phase.proposals() else { return };
        let Some((round, _)) = proposals.to_build.take_if(|(_, at)| *at <= now) else { return };
        if self.consensus.is_proposing(round) {
            let outputs = self.build_block(round);
            self.perform(outputs);
        }
    }

    fn build_block(&mut self, round: Round) -> Vec<Output> {
        let Some(key) = &self.validator.key else {
            panic!("only validators are asked to build, and they have a key");
        };
        let room = usize::try_from(self.chain.state.chain().limits().block_bytes_max)
            .unwrap_or(usize::MAX);
        let candidates =
            self.transactions.mempool.candidates(&self.chain.state, self.turn.now.wall, room);
        if let Some(hash) = self.built_before(!candidates.is_empty()) {
            self.bodies.on_proposed(hash, round);
            return self.consensus.propose(round, hash, self.turn.now.elapsed);
        }
        let valid = self.chain.state.propose(
            key.public(),
            self.turn.now.wall,
            self.chain.certificate().clone(),
            candidates,
        );
        let hash = valid.hash();
        self.log_body(&valid);
        self.bodies.insert_built(valid, round);
        self.consensus.propose(round, hash, self.turn.now.elapsed)
    }

    /// The block that this validator built in an earlier round of the height, unless it would build
    /// a better one now. A block that is proposed again needs no new execution, and peers that have
    /// it fetch nothing.
    ///
    /// All its transactions must still be in the mempool and unexpired by the clock. Otherwise a
    /// transaction could become final that its sender has replaced or believes expired. An empty
    /// block is not proposed again once a transaction can go into a block.
    fn built_before(&self, has_candidate: bool) -> Option<BlockHash> {
        let built = self.bodies.built()?;
        let (block, chain) = (built.block(), &self.chain.state);
        let time = self.turn.now.wall.max(chain.next_time());
        let limits = chain.chain().limits();
        let is_current = block.transactions.iter().all(|transaction| {
            let is_waiting = self.transactions.mempool.get(&transaction.hash()).is_some();
            is_waiting && check_expiry(limits, transaction.transfer().expires_at, time).is_ok()
        });
        let is_outdone = block.transactions.is_empty() && has_candidate;
        // If this clock was ahead and has been set back, others would have to wait for the block's
        // time.
        (block.header.time <= time && is_current && !is_outdone).then(|| built.hash())
    }
}
