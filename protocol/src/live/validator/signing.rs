//! When a validator may sign: never twice, whatever happened to its home.
//!
//! The log holds everything that was signed at its height. So after a restart signing goes on at
//! once at that height, and at the heights that consensus reaches from there. A log older than the
//! network may be that of a restored copy of a home, while the original has signed at later
//! heights. So the validator first listens for twice the clock drift. If the log is newer than the
//! store, the validator waits until the store has caught up. If the log is lost, the validator
//! waits for a final block whose time is later than the start of the process plus twice the drift.
//!
//! A log that was never written to, beside a chain that has blocks, counts as lost: a home made
//! again with a key that has signed before looks like that.
//!
//! A message with the validator's own key that this process did not sign shows a second signer,
//! such as a copy of the home. Then this process signs nothing for twice the clock drift, and never
//! at the heights at which the second signer may have signed.
//!
//! [`Signing::may_sign`] decides for the height after the tip. While the node is behind,
//! `Phase::CatchingUp` stops consensus, so nothing is signed either.

use std::time::Duration;

use ledger::chain::ChainState;
use ledger::units::{Height, Timestamp};

use crate::live::{Log, Machine, Notice, Now};

#[derive(Debug)]
pub(crate) struct Signing {
    is_validator: bool,
    /// The height up to which the log accounts for every signature. `None` if the log is lost.
    custody: Option<Height>,
    rule: Rule,
    /// The log is as it was created with the home: no signature was ever logged.
    is_unwritten: bool,
    /// A certified block later than this makes a lost log harmless.
    lost_until: Timestamp,
    /// How long to listen: twice the clock drift.
    wait: Duration,
    sign_without_log: bool,
    /// The highest height at which another process signs with our key (a copied or restored home),
    /// and until when this one listens for more.
    elsewhere: Option<(Height, Duration)>,
    /// The last reported answer to whether this validator signs.
    reported: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The log is intact, but may be older than the network: listen for this long, from the first
    /// peer on.
    Listen(Duration),
    /// Listening until this time.
    ListenUntil(Duration),
    /// The log is lost: wait for a certified block later than this.
    BlockAfter(Timestamp, Loss),
    /// Nothing prevents signing.
    Free,
}

/// Why the log does not tell what was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// It is missing, or cannot be read.
    Missing,
    /// It was never written to, although the chain has blocks.
    Unwritten,
}

impl Signing {
    pub(crate) fn new(
        is_validator: bool,
        log: &Log,
        tip: Height,
        sign_without_log: bool,
        drift: Duration,
        start: Timestamp,
    ) -> Self {
        let wait = drift.saturating_mul(2);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut signing = Self {
            is_validator,
            custody: None,
            rule: Rule::Listen(wait),
            is_unwritten: false,
            lost_until: Timestamp(start.0.saturating_add(wait_ms)),
            wait,
            sign_without_log,
            elsewhere: None,
            reported: None,
        };
        match log {
            Log::Intact(height, entries) => {
                signing.custody = Some(*height);
                signing.is_unwritten = *height == Height(1) && entries.is_empty();
                signing.on_caught_up(tip);
            }
            Log::Lost => signing.on_lost(Loss::Missing),
        }
        signing
    }

    fn on_lost(&mut self, loss: Loss) {
        self.custody = None;
        self.is_unwritten = false;
        self.rule = match self.sign_without_log {
            true => Rule::Free,
            false => Rule::BlockAfter(self.lost_until, loss),
        };
    }

    /// The tip has advanced. If the log was never written to, the blocks may contain votes of this
    /// key, so the log counts as lost.
    pub(crate) fn on_caught_up(&mut self, tip: Height) {
        if self.is_unwritten && tip > Height(0) {
            self.on_lost(Loss::Unwritten);
        }
    }

    /// A height begins that this node signs. From now on the log holds everything signed there.
    pub(crate) fn on_begun(&mut self, height: Height) {
        self.custody = Some(height);
        self.is_unwritten = false;
    }

    /// Whether this validator may sign the height after the tip.
    pub(crate) fn may_sign(&mut self, chain: &ChainState, now: Now) -> bool {
        let waited = match self.rule {
            Rule::Free => true,
            Rule::Listen(_) => false,
            Rule::ListenUntil(until) => now.elapsed >= until,
            Rule::BlockAfter(time, _) => chain.tip().time > time,
        };
        if waited {
            self.rule = Rule::Free;
        }
        let next = chain.tip().height.next();
        let is_free = !self.is_elsewhere(next, now);
        self.is_validator
            && is_free
            && !self.is_ahead(next)
            && (waited || self.custody == Some(next))
    }

    /// Whether the log is of a later height than the store needs next. The log holds the signatures
    /// of its own height only, so it does not tell what was signed at the heights before.
    fn is_ahead(&self, next: Height) -> bool {
        self.custody.is_some_and(|custody| custody > next)
    }

    fn is_elsewhere(&self, next: Height, now: Now) -> bool {
        self.elsewhere.is_some_and(|(height, until)| height >= next || now.elapsed < until)
    }

    /// Whether this node may sign now, but began the height without signing.
    pub(crate) fn resumes(&mut self, chain: &ChainState, now: Now, signs: bool) -> bool {
        // `may_sign` is called even if this node signs, since it also ends the wait and the
        // deadline.
        self.may_sign(chain, now) && !signs
    }

    /// When the current wait ends, if it ends by time alone.
    pub(crate) fn deadline(&self, now: Now) -> Option<Duration> {
        let rule = match self.rule {
            Rule::ListenUntil(until) => Some(until),
            _ => None,
        };
        let elsewhere = self.elsewhere.map(|(_, until)| until).filter(|until| *until > now.elapsed);
        rule.into_iter().chain(elsewhere).min().filter(|_| self.is_validator)
    }

    /// A peer connected, so listening begins.
    pub(crate) fn on_connected(&mut self, now: Now) {
        if let Rule::Listen(wait) = self.rule {
            self.rule = Rule::ListenUntil(now.elapsed.saturating_add(wait));
        }
    }

    /// Whether the log accounts for any signature of this key at this height.
    pub(crate) fn accounts_for(&self, height: Height) -> bool {
        self.custody.is_some_and(|custody| height <= custody)
    }

    /// A message with this validator's key is of a height that this process does not sign: a second
    /// signer is at work, so listen again.
    pub(crate) fn on_signed_elsewhere(&mut self, height: Height, now: Now) {
        let highest = self.elsewhere.map_or(height, |(known, _)| known.max(height));
        self.elsewhere = Some((highest, now.elapsed.saturating_add(self.wait)));
    }

    /// A decided height extends what the log accounts for, if the log accounted for that height.
    pub(crate) fn on_decided(&mut self, decided: Height) {
        if self.custody == Some(decided) {
            self.custody = Some(decided.next());
        }
    }

    /// A change since the last report: the reason why this validator does not sign, or `Some(None)`
    /// if it signs now. `None` if nothing has changed. Signing from the start is not reported.
    pub(crate) fn report(&mut self, chain: &ChainState, now: Now) -> Option<Option<String>> {
        if !self.is_validator {
            return None;
        }
        let signs = self.may_sign(chain, now);
        if self.reported.replace(signs).unwrap_or(true) == signs {
            return None;
        }
        Some(match self.rule {
            _ if signs => None,
            _ if self.is_ahead(chain.tip().height.next()) => Some(
                "its consensus log is newer than its store; it first fetches the blocks up to \
                 the height that it last signed"
                    .to_owned(),
            ),
            _ if self.is_elsewhere(chain.tip().height.next(), now) => Some(
                "another process signs with its key: another copy of this home runs, or ran after \
                 this one was copied. It listens for twice the clock drift after each such message"
                    .to_owned(),
            ),
            Rule::Listen(_) | Rule::ListenUntil(_) => Some(
                "its consensus log is older than the chain; for twice the clock drift it first \
                 listens for messages signed with its key"
                    .to_owned(),
            ),
            Rule::BlockAfter(time, loss) => {
                let loss = match loss {
                    Loss::Missing => "its consensus log is lost",
                    Loss::Unwritten => {
                        "its consensus log is empty, although the chain has blocks: this home was \
                         made again"
                    }
                };
                Some(format!(
                    "{loss}, so it does not know which votes its key has signed. It waits for a \
                     certified block later than {time} (milliseconds since 1970). \
                     --sign-without-log lets it sign at once: give it only if nothing else ever \
                     ran with this key, because two votes of one round can undo final blocks"
                ))
            }
            Rule::Free => None,
        })
    }
}

impl Machine {
    pub(crate) fn report_signing(&mut self) {
        if let Some(report) = self.validator.signing.report(&self.chain.state, self.turn.now) {
            self.turn.notice(match report {
                Some(reason) => Notice::NotSigning(reason),
                None => Notice::Signing(self.chain.next_height()),
            });
        }
    }
}
