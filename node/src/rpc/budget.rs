//! Budgets of callers: the work that a caller causes is charged to the account of its [`Origin`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::places::Origin;

/// Microseconds of work that an account gains per second: a tenth of one core.
pub(super) const REFILL: u64 = 100_000;
/// An account holds at most what it gains in this many seconds.
const KEPT_SECONDS: u64 = 5;
/// Programs on this machine get this many times as much: a whole core, which they could take
/// anyway.
const LOOPBACK: u64 = 10;
/// Most accounts. A full account need not be stored, so only callers that have not regained all
/// that they spent need one. Further callers share one account.
const ACCOUNTS_MAX: usize = 4_096;

/// Costs in microseconds, roughly as measured on one core of a small machine.
pub(super) mod cost {
    /// Reading and dispatching a call, and reading a snapshot in memory.
    pub(in crate::rpc) const CALL: u64 = 5;
    /// Verifying a signature.
    pub(in crate::rpc) const SIGNATURE: u64 = 60;
    /// The search for a bad signature in a batch of 64 submissions. It halves the batch again and
    /// again. In all it puts each signature into at most two more equations, on average, and
    /// verifies four alone.
    pub(in crate::rpc) const BAD_SIGNATURE: u64 = 2_800;
    /// A question to the driver. It takes a turn of the thread that also handles votes and blocks.
    pub(in crate::rpc) const QUESTION: u64 = 20;
    /// A look-up in the store, or a proof from the state.
    pub(in crate::rpc) const READ: u64 = 50;

    /// Reading, decoding and hashing a block of this many bytes.
    pub(in crate::rpc) const fn block(bytes: usize) -> u64 {
        READ + bytes as u64 / 1_024
    }

    /// Writing an answer of this many bytes as JSON.
    pub(in crate::rpc) const fn answer(bytes: usize) -> u64 {
        bytes as u64 / 512
    }

    /// Writing the metrics: files of the system are read, and about 60 KiB of text are written (an
    /// estimate).
    pub(in crate::rpc) const SCRAPE: u64 = 2_000;

    /// Preparing this many entries of a list in memory, such as peers: look-ups, locks and texts
    /// (an estimate).
    pub(in crate::rpc) const fn entries(count: usize) -> u64 {
        3 * count as u64
    }

    /// Searching a mempool of this many transactions.
    pub(in crate::rpc) const fn mempool(transactions: usize) -> u64 {
        QUESTION + READ + transactions as u64 / 8
    }
}

/// The accounts of all callers.
pub(super) struct Budgets {
    /// Microseconds per second that an account gains, unless it is this machine's.
    refill: u64,
    accounts: Mutex<Accounts>,
}

struct Accounts {
    known: HashMap<Origin, Account>,
    /// The account that further callers share once [`ACCOUNTS_MAX`] are known.
    others: Account,
    swept: Instant,
}

#[derive(Clone, Copy)]
struct Account {
    /// Microseconds left. Below zero after work whose cost was known only afterwards.
    left: i64,
    at: Instant,
}

/// Microseconds that an account gains per second.
#[derive(Clone, Copy)]
struct Rate(u64);

impl Rate {
    /// Most microseconds that an account holds. They are far below the bound of `i64`.
    const fn kept(self) -> i64 {
        (KEPT_SECONDS * self.0).cast_signed()
    }
}

impl Budgets {
    pub(super) fn new(refill: u64) -> Self {
        let now = Instant::now();
        let others = Account::full(Rate(refill), now);
        Self {
            refill,
            accounts: Mutex::new(Accounts { known: HashMap::new(), others, swept: now }),
        }
    }

    /// Charges work that is about to begin.
    ///
    /// # Errors
    /// The time until something is left, if nothing is left now.
    pub(super) fn spend(&self, origin: Origin, cost: u64) -> Result<(), Duration> {
        self.with(origin, |account, rate| {
            if account.left <= 0 {
                let micros =
                    (1 - account.left).unsigned_abs().saturating_mul(1_000_000).div_ceil(rate.0);
                return Err(Duration::from_micros(micros));
            }
            account.pay(cost);
            Ok(())
        })
    }

    /// Charges work that was done.
    pub(super) fn charge(&self, origin: Origin, cost: u64) {
        self.with(origin, |account, _| account.pay(cost));
    }

    /// Gives back the cost of work that turned out to be useful to all.
    pub(super) fn refund(&self, origin: Origin, cost: u64) {
        self.with(origin, |account, rate| account.gain(cost, rate));
    }

    fn rate(&self, origin: Origin) -> Rate {
        Rate(if origin == Origin::Loopback { self.refill * LOOPBACK } else { self.refill })
    }

    fn with<T>(&self, origin: Origin, change: impl FnOnce(&mut Account, Rate) -> T) -> T {
        // Accounts are plain numbers, so a panic elsewhere leaves them consistent.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, rate) = (Instant::now(), self.rate(origin));
        if accounts.is_full_for(origin)
            && now.duration_since(accounts.swept) >= Duration::from_secs(1)
        {
            accounts.swept = now;
            accounts.known.retain(|origin, account| {
                let rate = self.rate(*origin);
                account.refill(rate, now);
                account.left < rate.kept()
            });
        }
        let account = match accounts.is_full_for(origin) {
            true => &mut accounts.others,
            false => accounts.known.entry(origin).or_insert_with(|| Account::full(rate, now)),
        };
        account.refill(rate, now);
        change(account, rate)
    }
}

impl Accounts {
    fn is_full_for(&self, origin: Origin) -> bool {
        self.known.len() >= ACCOUNTS_MAX && !self.known.contains_key(&origin)
    }
}

impl Account {
    const fn full(rate: Rate, now: Instant) -> Self {
        Self { left: rate.kept(), at: now }
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let micros = now.saturating_duration_since(self.at).as_micros().min(3_600_000_000);
        let gained = u64::try_from(micros).unwrap_or(u64::MAX).saturating_mul(rate.0) / 1_000_000;
        // A gain of less than a microsecond accumulates until the next call.
        if gained > 0 {
            self.at = now;
            self.gain(gained, rate);
        }
    }

    fn gain(&mut self, gained: u64, rate: Rate) {
        self.left = self.left.saturating_add_unsigned(gained).min(rate.kept());
    }

    fn pay(&mut self, cost: u64) {
        self.left = self.left.saturating_sub_unsigned(cost);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEPT_MAX: u64 = KEPT_SECONDS * REFILL;

    #[tokio::test]
    async fn an_account_is_spent_and_refilled() {
        tokio::time::pause();
        let budgets = Budgets::new(REFILL);
        let (near, far, other) =
            (Origin::Loopback, Origin::V4([10, 0, 0, 1]), Origin::V4([10, 0, 0, 2]));
        assert_eq!(budgets.spend(far, KEPT_MAX), Ok(()));
        assert!(budgets.spend(far, 1).is_err());
        assert_eq!([budgets.spend(near, KEPT_MAX), budgets.spend(near, 1)], [Ok(()), Ok(())]);
        assert_eq!(budgets.spend(other, 1), Ok(()), "one caller does not pay for another");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(budgets.spend(far, REFILL), Ok(()));
        // A cost that is known only afterwards makes a debt, which is paid first.
        budgets.charge(far, 2 * REFILL);
        let wait = budgets.spend(far, 1).unwrap_err();
        assert_eq!(wait.as_secs(), 2);
        tokio::time::advance(wait).await;
        assert_eq!(budgets.spend(far, 1), Ok(()));
        budgets.refund(far, 100 * KEPT_MAX);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            (budgets.spend(far, KEPT_MAX), budgets.spend(far, 1).is_err()),
            (Ok(()), true),
            "no more is kept"
        );
    }

    #[tokio::test]
    async fn callers_beyond_the_bound_share_an_account() {
        tokio::time::pause();
        let budgets = Budgets::new(REFILL);
        let origin = |number: usize| Origin::V6((number as u64).to_be_bytes());
        (0..ACCOUNTS_MAX).for_each(|number| budgets.spend(origin(number), KEPT_MAX).unwrap());
        assert_eq!(budgets.spend(origin(ACCOUNTS_MAX), KEPT_MAX), Ok(()));
        assert!(budgets.spend(origin(ACCOUNTS_MAX + 1), 1).is_err());
        assert_eq!(budgets.accounts.lock().unwrap().known.len(), ACCOUNTS_MAX);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(budgets.spend(origin(ACCOUNTS_MAX + 1), 1), Ok(()));
        assert_eq!(budgets.accounts.lock().unwrap().known.len(), 1, "full accounts are forgotten");
    }
}
