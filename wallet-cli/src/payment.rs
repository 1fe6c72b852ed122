//! Pays once, whatever nodes answer or withhold, and however often the same command is run.
//!
//! Of all transfers that were ever signed for one payment, at most one can become final. A transfer
//! is stored before it is submitted, and if the same payment is made again, the wallet resumes this
//! transfer. Another transfer is signed for the payment only under the same nonce, or once it is
//! proved that the first one can never become final: a certified header has a time after its
//! expiry, or another transfer used its nonce.

use std::time::{Duration, Instant};

use ledger::api::{self, Submitted};
use ledger::chain::Chain;
use ledger::codec;
use ledger::hash::TxId;
use ledger::signature::SigningKey;
use ledger::transaction::{Body, Transfer};
use ledger::units::{Amount, Height, Nonce, Timestamp};
use serde_json::json;

use crate::error::WalletError;
use crate::finality::{self, Fate};
use crate::home::Unfinished;
use crate::nonce::{self, Choice};
use crate::rpc::RpcError;
use crate::terminal::{note, utc};
use crate::trust::{Proven, Trust};
use crate::wallet::{Wallet, now};

/// Longest time until a transfer expires, unless the chain allows less.
const LIFETIME_MS: u64 = 10 * 60_000;
/// Pause before the next attempt of a transfer that lost a race for its nonce: about the time of a
/// block on a busy network.
const RACE_PAUSE: Duration = Duration::from_millis(100);
/// Pause before the next attempt if the node claims that transfers wait, but does not show them.
/// The wallet cannot wait for them by `tx_get`, which needs their ids. Each attempt fetches the
/// list of the mempool, which is long, so this pause is longer than [`RACE_PAUSE`].
const UNSHOWN_PAUSE: Duration = Duration::from_millis(500);

/// If this machine's clock differs from the time of the newest block by less than this, in
/// milliseconds, no clock is blamed for a refusal. The newest block of an idle network is some
/// seconds old.
const CLOCKS_APART_MS: u64 = 60_000;

/// A payment that is being made. The caller holds the sender's lock, [`crate::home::Home::turn`].
pub(crate) struct Payment<'a, 'b> {
    pub(crate) wallet: &'a Wallet,
    pub(crate) trust: &'a mut Trust<'b>,
    pub(crate) key: &'a SigningKey,
    /// The transfer to make. `Payment` chooses its nonce and expiry.
    pub(crate) wanted: Transfer,
    /// The fee that the user named, if any.
    pub(crate) fee: Option<Amount>,
    /// When to give up.
    pub(crate) deadline: Instant,
}

/// The transfer that makes the payment.
pub(crate) struct Paid {
    pub(crate) id: TxId,
    pub(crate) expires_at: Timestamp,
    /// Height of its block; `None` if the transfer is not proved final.
    pub(crate) height: Option<Height>,
    /// The error after the submission, if there was one.
    pub(crate) trouble: Option<WalletError>,
}

/// The next step, given the unfinished transfers of the sender.
enum Next {
    /// One of these transfers makes this payment, and is final.
    Final(TxId, Timestamp, Height),
    /// This transfer is to be submitted for this payment.
    Submit(Unfinished),
    /// The node claims that a transfer with this nonce waits, and does not show it. If no such
    /// transfer exists, a new transfer with a higher nonce would block the account until the new
    /// transfer expires.
    Unshown(Nonce),
}

/// The outcome of a submission.
enum Answer {
    /// The node has the transfer, or may have it.
    Taken,
    /// The node says that it refused the transfer, for this `reason` of the RPC interface.
    Refused(String, WalletError),
    /// The node was not reached.
    Unsent(RpcError),
}

impl Payment<'_, '_> {
    /// Submits a transfer and waits until it is proved final or the deadline has passed.
    ///
    /// # Errors
    /// An error means that nothing was submitted, or that the node says it refused all that was
    /// submitted. The error is `Open` if an earlier run submitted this payment and its outcome
    /// cannot be proved.
    pub(crate) fn run(&mut self) -> Result<Paid, WalletError> {
        let mut is_waiting = false;
        loop {
            let payer = self.trust.account(&self.wanted.sender, Height(0))?;
            let mut next = match self.settle(&payer)? {
                Next::Final(id, expires_at, height) => {
                    return Ok(Paid { id, expires_at, height: Some(height), trouble: None });
                }
                Next::Submit(next) => next,
                Next::Unshown(nonce) if Instant::now() >= self.deadline => {
                    return Err(self.trust.unshown(&self.wanted.sender, &payer, nonce).into());
                }
                Next::Unshown(_) => {
                    if !is_waiting {
                        note(
                            "note: the node claims that other transfers from this account wait, \
                             but does not show them; waiting until they are final",
                        );
                        is_waiting = true;
                    }
                    std::thread::sleep(
                        UNSHOWN_PAUSE.min(self.deadline.saturating_duration_since(Instant::now())),
                    );
                    continue;
                }
            };
            let (id, expires_at) = (next.id(self.chain().id()), next.transfer().expires_at);
            let known = self
                .wallet
                .home
                .unfinished()?
                .into_iter()
                .find(|old| old.transaction == next.transaction);
            let was_taken = known.is_some_and(|old| !old.refused);
            // The transfer counts as taken until a node refuses it, also if this process is killed
            // from here on.
            next.refused = false;
            self.wallet.home.remember(&next)?;
            match self.submit(&next) {
                Answer::Taken => {
                    note(&format!("submitted {id}, waiting until it is final"));
                    return Ok(self.follow(id, expires_at));
                }
                Answer::Unsent(error) if was_taken => {
                    return Err(open(error.into(), id, expires_at));
                }
                Answer::Unsent(error) => {
                    self.wallet.home.forget(self.chain().id(), &id)?;
                    return Err(error.into());
                }
                Answer::Refused(word, error) => {
                    let error = match word.as_str() {
                        "expired" | "expires_soon" | "expiry_too_far" => {
                            wrong_clock(error, payer.time, now())
                        }
                        _ => error,
                    };
                    if !was_taken {
                        next.refused = true;
                        self.wallet.home.remember(&next)?;
                    }
                    // These reasons mean that another wallet sends with the same key: it has
                    // submitted a transfer with this nonce, or is about to submit one with a lower
                    // nonce.
                    let is_race =
                        matches!(word.as_str(), "nonce_used" | "nonce_ahead" | "underpriced");
                    if is_race && Instant::now() < self.deadline {
                        std::thread::sleep(RACE_PAUSE);
                        continue;
                    }
                    return Err(if was_taken { open(error, id, expires_at) } else { error });
                }
            }
        }
    }

    fn chain(&self) -> &Chain {
        self.trust.chain()
    }

    /// Forgets the sender's transfers that are proved never to become final, and those for other
    /// payments that are proved final. Decides what to submit.
    fn settle(&mut self, payer: &Proven) -> Result<Next, WalletError> {
        let account = payer.account.unwrap_or_default();
        let chain = self.chain().id();
        let mut waiting: Vec<Unfinished> = Vec::new();
        for old in self.wallet.home.unfinished()? {
            if old.transfer().sender != self.wanted.sender {
                continue;
            }
            let (id, expires_at) = (old.id(chain), old.transfer().expires_at);
            let is_this = is_same(old.transfer(), &self.wanted);
            let fate = if old.transfer().nonce < account.nonce {
                let before = (old.height, old.sender);
                finality::fate(self.trust, &self.wanted.sender, before, payer, id, self.deadline)?
            } else if expires_at < payer.time {
                // Later blocks have later times, so none of them can hold this transfer.
                Fate::Never
            } else {
                waiting.push(old);
                continue;
            };
            match fate {
                Fate::Final(height) if is_this => {
                    note(&format!(
                        "note: an earlier run submitted this very payment as {id}; it is not sent \
                         again"
                    ));
                    return Ok(Next::Final(id, expires_at, height));
                }
                Fate::Final(height) => {
                    note(&format!("note: the earlier transfer {id} is final at height {height}"));
                    self.wallet.home.forget(chain, &id)?;
                }
                Fate::Never => {
                    if !old.refused {
                        note(&format!(
                            "note: the earlier transfer {id} is proved to have never become final"
                        ));
                    }
                    self.wallet.home.forget(chain, &id)?;
                }
                Fate::Unknown if is_this => {
                    let text = "an earlier run submitted this very payment. Its nonce is used up, \
                                and the node does not prove which transaction used it: ask another \
                                node with --rpc URL";
                    return Err(open(WalletError::Unproved(text.to_owned()), id, expires_at));
                }
                // This transfer is another payment. It stays in the file until its outcome is
                // proved.
                Fate::Unknown => {}
            }
        }
        Ok(self.choose(payer, &waiting))
    }

    /// The transfer to submit, given the sender's transfers that may still become final.
    fn choose(&self, payer: &Proven, waiting: &[Unfinished]) -> Next {
        let (account, now) = (payer.account.unwrap_or_default(), now());
        let mut transfer = self.wanted.clone();
        let live = |old: &&Unfinished| !old.refused && old.transfer().expires_at >= now;
        if let Some(old) = waiting.iter().rfind(|old| is_same(old.transfer(), &self.wanted)) {
            let wants_this_fee = self.fee.is_none_or(|fee| fee == old.transfer().fee);
            if wants_this_fee && old.transfer().expires_at >= now {
                if !old.refused {
                    note(
                        "note: an earlier run submitted this very payment; it is resumed, not sent \
                         a second time",
                    );
                }
                return Next::Submit(old.clone());
            }
            // With the same nonce, only one of the two transfers can ever become final.
            transfer.nonce = old.transfer().nonce;
        } else {
            // Earlier transfers that were not refused and have not expired go first. They are
            // submitted again, because this node may not have them.
            for old in waiting.iter().filter(live) {
                let _ = self.submit(old);
            }
            let own = waiting.iter().filter(live).map(Unfinished::transfer);
            transfer.nonce = match nonce::choose(self.trust, &transfer.sender, payer, own, now) {
                Choice::Free(nonce) => nonce,
                Choice::Unshown(nonce) => return Next::Unshown(nonce),
            };
        }
        transfer.expires_at = expires_at(self.chain(), payer.time, now);
        let transaction = Body::Transfer(transfer).sign(self.chain().id(), self.key);
        Next::Submit(Unfinished {
            transaction,
            refused: false,
            sender: account,
            height: payer.height,
        })
    }

    fn submit(&self, what: &Unfinished) -> Answer {
        let (node, id) = (&self.wallet.node, what.id(self.chain().id()));
        let params = json!({ "transaction": hex::encode(codec::encode(&what.transaction)) });
        let error = match node.call::<Submitted>(api::TX_SUBMIT, params) {
            Ok(Submitted { id: got, .. }) if got == id.to_string() => return Answer::Taken,
            Ok(_) => node.malformed(
                api::TX_SUBMIT,
                "the answer names another transaction than the submitted one",
            ),
            Err(error @ RpcError::Unreachable { may_have_arrived: false, .. }) => {
                return Answer::Unsent(error);
            }
            Err(RpcError::Answer { message, data, .. }) => {
                let (word, hint) =
                    data.map_or_else(Default::default, |data| (data.reason, data.hint));
                let reason = if word.is_empty() { message } else { format!("{message} ({word})") };
                let hint = if hint.is_empty() { "nothing was sent".to_owned() } else { hint };
                return Answer::Refused(word, WalletError::Rejected { reason, hint });
            }
            Err(error) => error,
        };
        // The node may have taken the transfer before its answer was lost, so it counts as taken.
        note(&format!("note: the submission got no answer, but it may have arrived: {error}"));
        Answer::Taken
    }

    /// Waits until the submitted transfer is proved final. The money may have moved by now, so an
    /// error is returned as part of `Paid`, never as if nothing had been sent.
    fn follow(&mut self, id: TxId, expires_at: Timestamp) -> Paid {
        let followed = finality::wait(&self.wallet.node, id, self.deadline)
            .and_then(|said| said.map(|_| finality::prove(self.trust, id)).transpose());
        let (height, trouble) = match followed {
            Ok(height) => (height, None),
            Err(error) => (None, Some(error)),
        };
        Paid { id, expires_at, height, trouble }
    }
}

/// Whether two transfers are one payment: the same sender, outputs and memo. The fee may differ.
fn is_same(one: &Transfer, other: &Transfer) -> bool {
    (one.sender, &one.outputs, &one.memo) == (other.sender, &other.outputs, &other.memo)
}

/// The expiry of a new transfer: a lifetime after this machine's time, or after the newest block if
/// that is later, in case this machine's clock is behind. The lifetime is at most [`LIFETIME_MS`],
/// and at most half of what the chain allows: the other half is room for a clock that is ahead. Up
/// to an eighth is taken off at random. Otherwise two wallets with one key that make the same
/// payment at once could sign the same transaction, and both would report that they have paid.
fn expires_at(chain: &Chain, head: Timestamp, now: Timestamp) -> Timestamp {
    let longest = LIFETIME_MS.min(chain.limits().expiry_ms_max / 2);
    // Without randomness, the expiries that two wallets choose differ only as their clocks do.
    let chance = getrandom::u64().unwrap_or_default() % (longest / 8 + 1);
    Timestamp(now.max(head).0.saturating_add(longest - chance))
}

/// The error for a transfer that the node refuses because of its expiry. The wallet chose the
/// expiry by this machine's clock and the newest block. If these two differ much, a clock is wrong,
/// and signing again would not help.
fn wrong_clock(error: WalletError, head: Timestamp, now: Timestamp) -> WalletError {
    let apart = now.0.abs_diff(head.0);
    let WalletError::Rejected { reason, hint } = error else { return error };
    if apart < CLOCKS_APART_MS {
        return WalletError::Rejected { reason, hint };
    }
    let side = if now > head { "ahead of" } else { "behind" };
    let (hours, minutes) = (apart / 3_600_000, apart / 60_000 % 60);
    let hint = format!(
        "this machine's clock is {hours} h {minutes} min {side} the newest block: the clock says \
         {}, the block {}. Set the clock; if it is right, the network stands still or this node is \
         behind",
        utc(now.0),
        utc(head.0)
    );
    WalletError::Rejected { reason, hint }
}

/// The error for a transfer that was submitted and is not proved final.
pub(crate) fn open(cause: WalletError, id: TxId, expires_at: Timestamp) -> WalletError {
    let open = format!(
        "It may still become final, in a block with a time up to {}\n\
         hint: the same command again resumes this transfer and pays only once; `cairn-wallet tx \
         {id}` shows its status",
        utc(expires_at.0)
    );
    WalletError::Open { cause: Box::new(cause), open }
}
