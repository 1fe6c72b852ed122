//! One cost account for each peer: work that a peer causes is paid from that peer's budget.
//!
//! The unit is a microsecond of this node's time. The costs come from a table of constants and are
//! not measured at run time, so equal inputs cost the same on every machine. A budget refills at
//! [`REFILL`] and keeps at most [`KEPT`]. A request is charged when it is received. All other work
//! is charged after it is done, so it may take a budget below zero, and the refill pays this debt
//! first. While a peer has no budget, its messages are ignored and its requests are answered with
//! *busy*. Only the chunks that it sends are still taken in. An empty budget is never a reason to
//! ban a peer or to close its connection: an honest peer on a fast link may empty its budget.
//!
//! If a batch of messages contains a bad signature, other signatures must be verified again to find
//! it. The senders of the bad signatures pay for this search, in equal parts for each bad
//! signature.
//!
//! A gossip message that was new, valid and passed on is free. Otherwise honest peers would pay for
//! the messages of an attacker that they relay. A message that was not new and is passed on again
//! costs only its bytes, by [`RELAY_BYTES`], since its sender may be an honest relay too.

use std::time::Duration;

/// Refill of a budget, in microseconds of work per second: a tenth of one core for each peer.
pub const REFILL: u64 = 100_000;
/// Most that a budget keeps, in microseconds: the refill of five seconds. It pays for a burst, such
/// as that of a peer that catches up.
pub const KEPT: u64 = 500_000;
/// A peer that the operator named has a budget that refills this many times as fast and keeps this
/// many times as much.
pub const NAMED_TIMES: u64 = 2;

/// Cost of one signature that is verified alone. Measured: 50 to 60 on one core without AVX-512.
pub const SIGNATURE: u64 = 60;
/// Cost of one signature that is verified in the equation of a large batch. Measured: a third of
/// [`SIGNATURE`].
pub const SIGNATURE_TOGETHER: u64 = 20;
/// Number of transaction hashes that a Merkle root takes in per microsecond (an estimate).
pub const HASHES: u64 = 4;
/// Cost of one look-up in an index in memory.
pub const LOOK_UP: u64 = 1;
/// Cost of one read of the store: a block, or a page of descriptors. The head of a segment takes
/// two reads. Reads of chunks are not charged.
pub const STORE_READ: u64 = 50;
/// Cost of receiving one message by gossip or over a link, without decoding its bytes (an
/// estimate).
pub const MESSAGE: u64 = 20;
/// Cost of receiving one request and returning its answer, which have a stream of their own
/// (measured: 110).
pub const REQUEST: u64 = 100;
/// Bytes decoded per microsecond. Measured: about 7 KiB for blocks, less for small messages.
pub const DECODE_BYTES: u64 = 4 << 10;
/// Bytes of a repeated message that are passed on per microsecond. The number is low, since each
/// message leaves several times. A vote costs one microsecond. A much higher price could use up the
/// [`REFILL`] of an honest peer, which relays repeated messages too while an attack lasts.
pub const RELAY_BYTES: u64 = 1 << 10;
/// Bytes of an answer that are sent per microsecond.
pub const ANSWER_BYTES: u64 = 4 << 10;

const SECOND_MICROS: u64 = 1_000_000;

/// Work by kind, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Receiving and decoding messages and requests.
    pub decode: u64,
    /// Verifying signatures and block lists.
    pub verify: u64,
    /// Look-ups in memory and reads of the store.
    pub look_up: u64,
    /// Sending answers.
    pub answer: u64,
    /// Passing on repeated messages.
    pub relay: u64,
}

impl Cost {
    /// The cost of receiving and decoding a message of this many bytes.
    #[must_use]
    pub const fn message(bytes: usize) -> Self {
        Self { decode: MESSAGE.saturating_add(units(bytes, DECODE_BYTES)), ..Self::NONE }
    }

    /// The cost of receiving and decoding a request of this many bytes. The answer has a cost of
    /// its own, [`Cost::answer`].
    #[must_use]
    pub const fn request(bytes: usize) -> Self {
        Self { decode: REQUEST.saturating_add(units(bytes, DECODE_BYTES)), ..Self::NONE }
    }

    /// The cost of sending an answer of this many bytes.
    #[must_use]
    pub const fn answer(bytes: usize) -> Self {
        Self { answer: units(bytes, ANSWER_BYTES), ..Self::NONE }
    }

    /// The cost of passing on a repeated message of this many bytes.
    #[must_use]
    pub const fn relay(bytes: usize) -> Self {
        Self { relay: units(bytes, RELAY_BYTES), ..Self::NONE }
    }

    /// The cost of verifying this many signatures.
    #[must_use]
    pub const fn signatures(count: u64) -> Self {
        Self { verify: count.saturating_mul(SIGNATURE), ..Self::NONE }
    }

    /// The cost of verifying this many signatures in the equations of batches.
    #[must_use]
    pub const fn signatures_together(count: u64) -> Self {
        Self { verify: count.saturating_mul(SIGNATURE_TOGETHER), ..Self::NONE }
    }

    /// The cost of computing the Merkle root of this many hashes.
    #[must_use]
    pub const fn hashes(count: u64) -> Self {
        Self { verify: count.div_ceil(HASHES), ..Self::NONE }
    }

    /// The cost of this many look-ups in memory and this many reads of the store.
    #[must_use]
    pub const fn look_ups(in_memory: u64, store_reads: u64) -> Self {
        let read = store_reads.saturating_mul(STORE_READ);
        Self { look_up: in_memory.saturating_mul(LOOK_UP).saturating_add(read), ..Self::NONE }
    }

    /// The part of this cost that the sender pays when its message is passed on: `relay` alone.
    #[must_use]
    pub const fn of_relay(self) -> Self {
        Self { relay: self.relay, ..Self::NONE }
    }

    /// No work.
    pub const NONE: Self = Self { decode: 0, verify: 0, look_up: 0, answer: 0, relay: 0 };

    /// The sum of two costs, kind by kind.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            decode: self.decode.saturating_add(other.decode),
            verify: self.verify.saturating_add(other.verify),
            look_up: self.look_up.saturating_add(other.look_up),
            answer: self.answer.saturating_add(other.answer),
            relay: self.relay.saturating_add(other.relay),
        }
    }

    /// The sum of all kinds, in microseconds.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let paid = self.decode.saturating_add(self.verify).saturating_add(self.look_up);
        paid.saturating_add(self.answer).saturating_add(self.relay)
    }
}

/// Microseconds that this many bytes cost, rounded up and at least one.
const fn units(bytes: usize, bytes_per_unit: u64) -> u64 {
    let units = (bytes as u64).div_ceil(bytes_per_unit);
    if units == 0 { 1 } else { units }
}

/// The account of one peer.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Microseconds left. Below zero while the peer is in debt.
    left: i64,
    refill: u64,
    kept: u64,
    /// When `left` was last brought up to date.
    at: Duration,
    spent: Cost,
    refused: u64,
}

/// The figures of a budget, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetReport {
    /// Microseconds left; below zero while the peer is in debt.
    pub left: i64,
    /// All work that was charged, by kind.
    pub spent: Cost,
    /// Messages ignored and requests refused for want of budget.
    pub refused: u64,
}

impl Budget {
    /// A full budget. Peers that the operator named have twice as much.
    #[must_use]
    pub const fn new(now: Duration, is_named: bool) -> Self {
        let times = if is_named { NAMED_TIMES } else { 1 };
        let kept = KEPT.saturating_mul(times);
        Self {
            left: kept.cast_signed(),
            refill: REFILL.saturating_mul(times),
            kept,
            at: now,
            spent: Cost::NONE,
            refused: 0,
        }
    }

    /// Whether the peer may cause more work now. A refusal is counted.
    pub fn admits(&mut self, now: Duration) -> bool {
        self.refill(now);
        if self.left <= 0 {
            self.refused = self.refused.saturating_add(1);
        }
        self.left > 0
    }

    /// Takes work that was done for the peer from its budget.
    pub fn charge(&mut self, now: Duration, cost: &Cost) {
        self.refill(now);
        self.left = self.left.saturating_sub(i64::try_from(cost.total()).unwrap_or(i64::MAX));
        self.spent = self.spent.and(*cost);
    }

    /// Whether the budget is full. A full budget may be dropped, since a new one allows as much.
    #[must_use]
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.left.cast_unsigned() == self.kept
    }

    /// The account as of now.
    #[must_use]
    pub fn report(&mut self, now: Duration) -> BudgetReport {
        self.refill(now);
        BudgetReport { left: self.left, spent: self.spent, refused: self.refused }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let gained =
            micros.saturating_mul(self.refill).checked_div(SECOND_MICROS).unwrap_or_default();
        // `at` moves on only by the time that the whole microseconds took, so no remainder is lost.
        let used =
            gained.saturating_mul(SECOND_MICROS).checked_div(self.refill).unwrap_or_default();
        self.at = self.at.saturating_add(Duration::from_micros(used));
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(gained).min(self.kept.cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn work_is_paid_refills_and_is_never_kept_beyond_the_bound() {
        let mut budget = Budget::new(Duration::ZERO, false);
        assert!(budget.admits(Duration::ZERO) && budget.is_full(Duration::ZERO));
        budget.charge(Duration::ZERO, &Cost::look_ups(1_000, 2));
        assert_eq!(budget.report(Duration::ZERO).left, 500_000 - 1_100);
        assert!(!budget.is_full(Duration::ZERO));
        assert!(
            budget.is_full(SECOND) && budget.is_full(SECOND * 1_000),
            "it keeps no more than its bound"
        );
        // 10,000 signatures at once leave a debt of 100,000.
        budget.charge(SECOND * 1_000, &Cost::signatures(10_000));
        assert_eq!(budget.report(SECOND * 1_000).left, -100_000);
        assert!(!budget.admits(SECOND * 1_001), "the debt refills first");
        assert!(budget.admits(SECOND * 1_001 + Duration::from_millis(1)));
        let report = budget.report(SECOND * 1_002);
        assert_eq!(
            (report.refused, report.spent.verify, report.spent.look_up),
            (1, 600_000, 1_100)
        );
    }

    #[test]
    fn a_named_peer_has_twice_as_much() {
        let mut budget = Budget::new(Duration::ZERO, true);
        budget.charge(Duration::ZERO, &Cost { answer: 1_200_000, ..Cost::NONE });
        assert_eq!(budget.report(SECOND).left, 0);
        assert_eq!(budget.report(SECOND * 2).left, 200_000);
    }

    #[test]
    fn small_steps_refill_as_much_as_large_ones() {
        let mut budget = Budget::new(Duration::ZERO, false);
        budget.charge(Duration::ZERO, &Cost { decode: KEPT, ..Cost::NONE });
        let mut now = Duration::ZERO;
        while now < SECOND {
            now += Duration::from_micros(7);
            let _ = budget.report(now);
        }
        let left = budget.report(now).left;
        assert!((99_000..=100_001).contains(&left), "{left}");
    }

    #[test]
    fn costs_follow_the_table() {
        for (cost, total) in [
            (Cost::message(0), 21),
            (Cost::message(4_096), 21),
            (Cost::message(4_097), 22),
            (Cost::request(9), 101),
            (Cost::answer(4 << 20), 1_024),
            (Cost::relay(512 << 10), 512),
            (Cost::signatures(256), 15_360),
            (Cost::signatures_together(256), 5_120),
            (Cost::look_ups(4_096, 1), 4_146),
        ] {
            assert_eq!(cost.total(), total, "{cost:?}");
        }
    }
}
