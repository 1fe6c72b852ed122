//! Which validators are heard, and whether they are a quorum. It tells the operator why no block
//! becomes final.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::signature::PublicKey;
use ledger::units::Round;
use ledger::validators::ValidatorSet;

use crate::live::{Machine, Notice, Now};

/// A height without a quorum is reported after this time or [`ROUNDS`], whichever is first.
/// Ordinary rounds take less than two seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rounds after which a missing quorum is reported.
const ROUNDS: u32 = 3;
/// Interval of the checks after the first.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether enough validators are heard for blocks to become final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// False once a height has lasted ten seconds or three rounds without votes of a quorum.
    pub ok: bool,
    /// Validators of which no vote of the height was heard lately. Empty while `ok`.
    pub missing: Vec<PublicKey>,
    /// When the height without a quorum began, in milliseconds since 1970. `None` while `ok`.
    pub since_ms: Option<u64>,
}

impl Quorum {
    const OK: Self = Self { ok: true, missing: Vec::new(), since_ms: None };
}

/// Which validators vote at the height being decided.
#[derive(Debug)]
pub(crate) struct Attendance {
    /// When each validator's last vote of the height was heard. Votes are retransmitted while a
    /// height lasts.
    heard: BTreeMap<PublicKey, Duration>,
    /// Since when the height is being decided. `None` while no height is; then no votes are
    /// expected.
    begun: Option<Now>,
    look_at: Option<Duration>,
    quorum: Quorum,
}

impl Attendance {
    pub(crate) const fn new() -> Self {
        Self { heard: BTreeMap::new(), begun: None, look_at: None, quorum: Quorum::OK }
    }

    pub(crate) const fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// A verified vote of the height after the tip.
    pub(crate) fn on_vote(&mut self, validator: PublicKey, now: Duration) {
        self.heard.insert(validator, now);
    }

    /// The height is being decided.
    pub(crate) fn on_deciding(&mut self, now: Now) {
        if self.begun.is_none() {
            self.begun = Some(now);
            self.look_at = Some(now.elapsed.saturating_add(PATIENCE));
        }
    }

    /// No votes are expected, since the machine is deciding no height: it is between heights,
    /// fetches the body of a decided block, or catches up.
    pub(crate) const fn on_pause(&mut self) {
        self.begun = None;
        self.look_at = None;
    }

    /// A round began.
    pub(crate) fn on_round(&mut self, round: Round, now: Duration) {
        if round.0 >= ROUNDS && self.begun.is_some() {
            self.look_at = Some(now);
        }
    }

    /// A block is final, so there was a quorum. Returns whether that is news.
    pub(crate) fn on_commit(&mut self) -> bool {
        self.heard.clear();
        self.on_pause();
        let was_ok = std::mem::replace(&mut self.quorum, Quorum::OK).ok;
        !was_ok
    }

    pub(crate) const fn deadline(&self) -> Option<Duration> {
        self.look_at
    }

    /// Checks which validators are heard, when it is time. Returns whether they are a quorum, if
    /// that has changed.
    pub(crate) fn look(&mut self, now: Duration, round: Round, set: &ValidatorSet) -> Option<bool> {
        let begun = self.begun.filter(|_| self.look_at.is_some_and(|at| at <= now))?;
        self.look_at = Some(now.saturating_add(LOOK_EVERY));
        let oldest = now.saturating_sub(memory(round));
        let is_heard = |key: &PublicKey| self.heard.get(key).is_some_and(|at| *at >= oldest);
        let (mut power, mut missing) = (0u64, Vec::new());
        for validator in set.as_slice() {
            match is_heard(&validator.key) {
                true => power = power.saturating_add(validator.power.0),
                false => missing.push(validator.key),
            }
        }
        let ok = power >= set.quorum_power().0;
        let was_ok = self.quorum.ok;
        self.quorum = match ok {
            true => Quorum::OK,
            false => Quorum { ok, missing, since_ms: Some(begun.wall.0) },
        };
        (ok != was_ok).then_some(ok)
    }
}

/// How long a vote counts as heard: several retransmissions, whose interval grows with the rounds.
fn memory(round: Round) -> Duration {
    Duration::from_secs(u64::from(round.0)).max(PATIENCE).min(Duration::from_secs(60))
}

impl Machine {
    /// Gives a notice when a quorum is no longer heard, or is heard again.
    pub(crate) fn attend(&mut self) {
        if !self.phase.is_deciding() {
            return self.votes.attendance.on_pause();
        }
        self.votes.attendance.on_deciding(self.turn.now);
        let height = self.chain.next_height();
        let validators = self.chain.state.chain().validators(height);
        if let Some(ok) =
            self.votes.attendance.look(self.turn.now.elapsed, self.consensus.round(), validators)
        {
            self.turn.notice(match ok {
                true => Notice::Quorum(height),
                false => Notice::NoQuorum(height, self.votes.attendance.quorum().missing.clone()),
            });
        }
    }
}
