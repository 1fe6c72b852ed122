//! When a validator may sign: never twice, whatever happened to its home.
//!
//! The log holds all that was signed at its height, so signing there goes on at once after a restart, and at the heights that
//! consensus reaches from there. A log that is older than the network may belong to a home put back from a copy whose original
//! signed further: then the validator listens for twice the clock drift before it signs. With a log that is newer than the store it
//! waits until the store is there. With a lost log it waits for a block that was certified later than its start by twice the drift.

use std::time::Duration;

use ledger::chain::ChainState;
use ledger::units::{Height, Timestamp};

use super::{Log, Now};

#[derive(Debug)]
pub(super) struct Signing {
    is_validator: bool,
    /// The height up to which the log accounts for everything signed.
    custody: Option<Height>,
    rule: Rule,
    /// Up to this height somebody signs with our key who is not this process: a home that was copied, or put back from a copy.
    elsewhere: Option<Height>,
    reported: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The log is there: listen for so long from the first peer on.
    Listen(Duration),
    /// Listening, until then.
    ListenUntil(Duration),
    /// The log is lost: wait for a certified block later than this.
    BlockAfter(Timestamp),
    /// Nothing stands in the way.
    Free,
}

impl Signing {
    pub(super) fn new(
        is_validator: bool,
        log: &Log,
        sign_without_log: bool,
        drift: Duration,
        start: Timestamp,
    ) -> Self {
        let wait = drift.saturating_mul(2);
        let (custody, rule) = match log {
            Log::Intact(height, _) => (Some(*height), Rule::Listen(wait)),
            Log::Lost if sign_without_log => (None, Rule::Free),
            Log::Lost => {
                let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                (None, Rule::BlockAfter(Timestamp(start.0.saturating_add(wait))))
            }
        };
        Self { is_validator, custody, rule, elsewhere: None, reported: None }
    }

    /// Whether the height after the tip may be signed.
    pub(super) fn may_sign(&mut self, chain: &ChainState, now: Now) -> bool {
        let waited = match self.rule {
            Rule::Free => true,
            Rule::Listen(_) => false,
            Rule::ListenUntil(until) => now.elapsed >= until,
            Rule::BlockAfter(time) => chain.tip().time > time,
        };
        if waited {
            self.rule = Rule::Free;
        }
        let next = chain.tip().height.next();
        let is_free = self.elsewhere.is_none_or(|height| height < next);
        self.is_validator && is_free && !self.is_ahead(next) && (waited || self.custody == Some(next))
    }

    /// Whether the log is newer than the store: what was signed at the heights between them is not known any more.
    fn is_ahead(&self, next: Height) -> bool {
        self.custody.is_some_and(|custody| custody > next)
    }

    /// Whether signing became possible since the height was begun without it.
    pub(super) fn resumes(&mut self, chain: &ChainState, now: Now, signs: bool) -> bool {
        // Asked either way: it also ends the wait, and with it the deadline.
        self.may_sign(chain, now) && !signs
    }

    pub(super) const fn deadline(&self) -> Option<Duration> {
        match self.rule {
            Rule::ListenUntil(until) if self.is_validator => Some(until),
            _ => None,
        }
    }

    /// A peer is there to listen to.
    pub(super) fn on_connected(&mut self, now: Now) {
        if let Rule::Listen(wait) = self.rule {
            self.rule = Rule::ListenUntil(now.elapsed.saturating_add(wait));
        }
    }

    /// Whether the log holds all that was signed at this height.
    pub(super) fn accounts_for(&self, height: Height) -> bool {
        self.custody == Some(height)
    }

    /// A message of a height that this process does not sign carries its key.
    pub(super) fn on_signed_elsewhere(&mut self, height: Height) {
        self.elsewhere = self.elsewhere.max(Some(height));
    }

    /// A height that consensus decided here, from the log on, extends what the log accounts for.
    pub(super) fn on_decided(&mut self, decided: Height) {
        if self.custody == Some(decided) {
            self.custody = Some(decided.next());
        }
    }

    /// Whether signing changed since it was last reported, and why it does not sign.
    pub(super) fn report(&mut self, chain: &ChainState, now: Now) -> Option<Option<String>> {
        if !self.is_validator {
            return None;
        }
        let signs = self.may_sign(chain, now);
        // Signing from the start is the ordinary case and not worth a word.
        if self.reported.replace(signs).unwrap_or(true) == signs {
            return None;
        }
        Some(match self.rule {
            _ if signs => None,
            _ if self.is_ahead(chain.tip().height.next()) => {
                Some("its log is newer than its store; it catches up with what it signed first".to_owned())
            }
            _ if self.elsewhere.is_some() => Some(
                "somebody else signs with its key: another copy of this home runs, or ran after this one was copied"
                    .to_owned(),
            ),
            Rule::Listen(_) | Rule::ListenUntil(_) => {
                Some("its log is older than the network; it listens for twice the clock drift first".to_owned())
            }
            Rule::BlockAfter(time) => Some(format!(
                "its log is lost; it waits for a certified block later than {time} (milliseconds since 1970), or \
                 --sign-without-log if nothing else ever ran with this key"
            )),
            Rule::Free => None,
        })
    }
}
