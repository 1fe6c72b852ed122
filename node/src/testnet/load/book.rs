//! The books of a load: which transfers are due, which wait until they are final, and which nonces
//! come next. No I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger::codec;
use ledger::genesis::Limits;
use ledger::hash::{ChainId, TxId};
use ledger::signature::{PublicKey, SigningKey};
use ledger::units::Amount;
use tokio::time::Instant;

use super::latencies::Latencies;
use super::pace::Pace;
use crate::testnet::payers::sign;

/// Most transfers of one account that wait. A node takes 4,096 of one sender.
const WAITING_MAX: usize = 4_000;
/// How long a transfer waits before the node is asked whether it still has it.
const OVERDUE: Duration = Duration::from_secs(5);

/// An account and a nonce: a transfer that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) payer: usize,
    pub(super) nonce: u64,
}

/// What a node says of an account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nonces {
    /// Nonce of the account's next transfer in a block.
    pub(super) committed: u64,
    /// Nonce after the account's transfers in blocks and in the node's mempool.
    pub(super) pending: u64,
    /// When the node was asked.
    pub(super) asked: Instant,
}

/// A transfer that is due and not signed.
struct Due {
    at: Instant,
    /// Whether it was signed before, with a nonce that another transfer took.
    is_again: bool,
}

/// A signed transfer.
struct Waiting {
    id: TxId,
    due: Instant,
    bytes: Vec<u8>,
    /// When it was last submitted; `None` while it is to be submitted.
    submitted: Option<Instant>,
}

struct Payer {
    key: SigningKey,
    to: PublicKey,
    /// `None` until the node tells it.
    nonce: Option<u64>,
    waiting: BTreeMap<u64, Waiting>,
}

impl Payer {
    /// The first nonce from this one on that no transfer here has.
    fn free(&self, from: u64) -> u64 {
        let taken = self.waiting.range(from..).map(|(nonce, _)| *nonce);
        taken.zip(from..).take_while(|(nonce, next)| nonce == next).count() as u64 + from
    }
}

/// Counts since the start of the load.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Transfers that were submitted.
    pub(super) sent: u64,
    /// Of these, the transfers that are final.
    pub(super) final_: u64,
    /// Transfers that were due while too many waited. They are never sent.
    pub(super) skipped: u64,
    pub(super) latencies: Latencies,
}

pub(super) struct Book {
    pub(super) pace: Pace,
    chain: ChainId,
    limits: Limits,
    payers: Vec<Payer>,
    /// The payer of the next transfer.
    turn: usize,
    due: VecDeque<Due>,
    /// Signed transfers that are to be submitted again.
    again: VecDeque<Place>,
    places: HashMap<TxId, Place>,
    pub(super) counts: Counts,
    /// Why transfers are not accepted, in the words of the node.
    pub(super) trouble: Option<String>,
}

impl Book {
    /// Each account pays the next one, and the last one pays the first.
    pub(super) fn new(pace: Pace, chain: ChainId, limits: Limits, keys: &[SigningKey]) -> Self {
        let recipients = keys.iter().cycle().skip(1).map(SigningKey::public);
        let payer = |(key, to): (&SigningKey, PublicKey)| Payer {
            key: key.clone(),
            to,
            nonce: None,
            waiting: BTreeMap::new(),
        };
        Self {
            pace,
            chain,
            limits,
            payers: keys.iter().zip(recipients).map(payer).collect(),
            turn: 0,
            due: VecDeque::new(),
            again: VecDeque::new(),
            places: HashMap::new(),
            counts: Counts::default(),
            trouble: None,
        }
    }

    /// Transfers that are due or submitted, and not final.
    pub(super) fn waiting(&self) -> usize {
        self.due.len() + self.places.len()
    }

    /// Whether no signed transfer waits.
    pub(super) fn is_settled(&self) -> bool {
        self.places.is_empty()
    }

    /// For each account whose nonce is known, a nonce: all its transfers with this nonce or a
    /// higher one are signed after this call.
    pub(super) fn next_nonces(&self) -> Vec<(PublicKey, u64)> {
        let next = |payer: &Payer| {
            let after = payer.waiting.last_key_value().map_or(0, |(nonce, _)| nonce + 1);
            Some((payer.key.public(), payer.nonce?.max(after)))
        };
        self.payers.iter().filter_map(next).collect()
    }

    pub(super) fn account(&self, payer: usize) -> Option<PublicKey> {
        self.payers.get(payer).map(|payer| payer.key.public())
    }

    /// Payers whose next nonce is unknown.
    pub(super) fn unknown(&self) -> Vec<usize> {
        let unknown = self.payers.iter().enumerate().filter(|(_, payer)| payer.nonce.is_none());
        unknown.map(|(index, _)| index).collect()
    }

    /// Payers with a transfer that was submitted long ago and is not final.
    pub(super) fn overdue(&self, now: Instant) -> Vec<usize> {
        let is_overdue = |waiting: &Waiting| {
            waiting.submitted.is_some_and(|at| now.saturating_duration_since(at) >= OVERDUE)
        };
        let payers = self.payers.iter().enumerate();
        // The first in order holds up the others.
        let held =
            payers.filter(|(_, payer)| payer.waiting.values().next().is_some_and(is_overdue));
        held.map(|(index, _)| index).collect()
    }

    /// Takes all transfers that are due by now.
    pub(super) fn take_due(&mut self, now: Instant) {
        while let Some(due) = self.pace.take(now) {
            self.on_due(due);
        }
    }

    /// A transfer is due. It is skipped if too many wait.
    fn on_due(&mut self, at: Instant) {
        if self.waiting() >= WAITING_MAX * self.payers.len() {
            self.counts.skipped += 1;
        } else {
            self.due.push_back(Due { at, is_again: false });
        }
    }

    /// The next transfer to submit, with its bytes: one that is to be submitted again, or a new
    /// one.
    pub(super) fn next(&mut self, now: Instant, now_ms: u64) -> Option<(Place, &[u8])> {
        while let Some(place) = self.again.pop_front() {
            let waiting = self.payers[place.payer].waiting.get_mut(&place.nonce);
            // It may be final by now, or submitted already.
            if waiting.is_some_and(|waiting| waiting.submitted.is_none()) {
                return self.submit(place, now);
            }
        }
        let count = self.payers.len();
        let is_free = |index: &usize| {
            let payer = &self.payers[*index];
            payer.nonce.is_some() && payer.waiting.len() < WAITING_MAX
        };
        let index = (self.turn..self.turn + count).map(|turn| turn % count).find(is_free)?;
        let Due { at, is_again } = self.due.pop_front()?;
        self.turn = (index + 1) % count;
        let payer = &mut self.payers[index];
        let nonce = payer.nonce?;
        payer.nonce = Some(payer.free(nonce + 1));
        let rules = (self.chain, &self.limits);
        let signed = sign(rules, (&payer.key, nonce), (payer.to, Amount(1)), false, now_ms);
        let (id, bytes) = (signed.body.id(self.chain), codec::encode(&signed));
        payer.waiting.insert(nonce, Waiting { id, due: at, bytes, submitted: None });
        let place = Place { payer: index, nonce };
        self.places.insert(id, place);
        self.counts.sent += u64::from(!is_again);
        self.submit(place, now)
    }

    fn submit(&mut self, place: Place, now: Instant) -> Option<(Place, &[u8])> {
        let waiting = self.payers[place.payer].waiting.get_mut(&place.nonce)?;
        waiting.submitted = Some(now);
        Some((place, &waiting.bytes))
    }

    /// The node has no room for a transfer now. It is submitted again later.
    pub(super) fn on_busy(&mut self, place: Place) {
        if let Some(waiting) = self.payers[place.payer].waiting.get_mut(&place.nonce) {
            waiting.submitted = None;
            self.again.push_back(place);
        }
    }

    /// The node will never take this signed transfer: its nonce is taken, or it expires too soon.
    /// The transfer is signed again, and is still timed from when it was due.
    pub(super) fn on_refused(&mut self, place: Place) {
        let payer = &mut self.payers[place.payer];
        payer.nonce = None;
        if let Some(waiting) = payer.waiting.remove(&place.nonce) {
            self.places.remove(&waiting.id);
            self.due.push_front(Due { at: waiting.due, is_again: true });
        }
    }

    /// A transfer is final since the time `at`.
    pub(super) fn on_final(&mut self, place: Place, at: Instant) {
        if let Some(waiting) = self.payers[place.payer].waiting.remove(&place.nonce) {
            self.places.remove(&waiting.id);
            self.counts.final_ += 1;
            self.counts.latencies.add(at.saturating_duration_since(waiting.due));
        }
    }

    /// A block with these transactions is final since the time `at`.
    pub(super) fn on_block(&mut self, ids: impl IntoIterator<Item = TxId>, at: Instant) {
        for id in ids {
            if let Some(place) = self.places.get(&id) {
                self.on_final(*place, at);
            }
        }
    }

    /// The node tells the nonces of an account, and all blocks up to then were reported: transfers
    /// that it no longer has are submitted again, and those whose nonces other transfers took are
    /// signed again.
    pub(super) fn on_nonces(&mut self, payer: usize, nonces: Nonces) {
        let Nonces { committed, pending, asked } = nonces;
        let lost: Vec<u64> =
            self.payers[payer].waiting.range(..committed).map(|(nonce, _)| *nonce).collect();
        for nonce in lost.into_iter().rev() {
            self.on_refused(Place { payer, nonce });
        }
        let of = &mut self.payers[payer];
        for (nonce, waiting) in of.waiting.range_mut(pending..) {
            if waiting.submitted.is_some_and(|at| at <= asked) {
                waiting.submitted = None;
                self.again.push_back(Place { payer, nonce: *nonce });
            }
        }
        // A nonce that was taken and is free again must be filled, since it holds up the others.
        let free = of.free(pending.max(committed));
        of.nonce = Some(of.nonce.map_or(free, |nonce| nonce.max(free)));
    }

    /// The node is gone, perhaps with transfers that were submitted to it. Nothing is submitted
    /// again before a node tells the nonces.
    pub(super) fn on_disconnected(&mut self, now: Instant) {
        self.again.clear();
        for payer in &mut self.payers {
            payer.nonce = None;
            payer.waiting.values_mut().for_each(|waiting| {
                waiting.submitted.get_or_insert(now);
            });
        }
    }
}

/// Opens a shared book. It is consistent between calls, so a panic elsewhere does no harm.
pub(super) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::genesis::template_key;
    use ledger::hash::Hash;
    use ledger::transaction::Transaction;

    use super::*;

    fn book() -> Book {
        let keys = ["bob", "carol"].map(|name| template_key(name).unwrap());
        let pace = Pace::new(Instant::now(), 0);
        Book::new(pace, ChainId(Hash::ZERO), Limits::default(), &keys)
    }

    fn tell(book: &mut Book, payer: usize, committed: u64, pending: u64) {
        book.on_nonces(payer, Nonces { committed, pending, asked: Instant::now() });
    }

    /// Submits all that can be submitted. Returns the payer and the nonce of each.
    fn submit(book: &mut Book) -> Vec<(usize, u64)> {
        let next = |book: &mut Book| {
            let (place, bytes) = book.next(Instant::now(), 1_000)?;
            let transfer = Transaction::decode(bytes).unwrap().body.transfer().clone();
            assert_eq!(transfer.nonce.0, place.nonce);
            Some((place.payer, place.nonce))
        };
        std::iter::from_fn(|| next(book)).collect()
    }

    fn due(book: &mut Book, count: usize) {
        (0..count).for_each(|_| book.on_due(Instant::now()));
    }

    fn id(book: &Book, payer: usize, nonce: u64) -> TxId {
        book.payers[payer].waiting[&nonce].id
    }

    #[test]
    fn accounts_take_turns_and_what_is_final_is_timed_from_when_it_was_due() {
        let mut book = book();
        due(&mut book, 3);
        assert_eq!((submit(&mut book), book.unknown()), (vec![], vec![0, 1]));
        tell(&mut book, 0, 7, 7);
        tell(&mut book, 1, 0, 2);
        assert_eq!(submit(&mut book), [(0, 7), (1, 2), (0, 8)]);
        assert_eq!(book.next_nonces().iter().map(|(_, nonce)| *nonce).collect::<Vec<_>>(), [9, 3]);
        let ids = [id(&book, 1, 2), TxId(Hash::ZERO), id(&book, 0, 7)];
        book.on_block(ids, Instant::now() + Duration::from_secs(1));
        let Counts { sent, final_, skipped, latencies } = book.counts.clone();
        assert_eq!((sent, final_, skipped, book.waiting()), (3, 2, 0, 1));
        assert!((1_000..2_000).contains(&latencies.max().unwrap()));
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_beyond_is_counted() {
        let mut book = book();
        due(&mut book, 2 * WAITING_MAX + 5);
        assert_eq!((book.waiting(), book.counts.skipped), (2 * WAITING_MAX, 5));
        tell(&mut book, 0, 0, 0);
        assert_eq!(submit(&mut book).len(), WAITING_MAX, "a node takes few more of one sender");
        tell(&mut book, 1, 0, 0);
        assert_eq!(submit(&mut book).len(), WAITING_MAX);
        due(&mut book, 1);
        assert_eq!((book.waiting(), book.counts.skipped), (2 * WAITING_MAX, 6));
    }

    #[test]
    fn what_a_killed_node_lost_is_submitted_again() {
        let mut book = book();
        due(&mut book, 6);
        tell(&mut book, 0, 0, 0);
        assert_eq!(submit(&mut book).len(), 6);
        book.on_final(Place { payer: 0, nonce: 0 }, Instant::now());
        book.on_disconnected(Instant::now());
        due(&mut book, 1);
        assert_eq!((submit(&mut book), book.unknown()), (vec![], vec![0, 1]), "nobody is there");
        // The others had 1 and 2, which are in blocks; 3 is in the mempool again, the rest is lost.
        for nonce in [1, 2] {
            book.on_final(Place { payer: 0, nonce }, Instant::now());
        }
        tell(&mut book, 0, 3, 4);
        assert_eq!(submit(&mut book), [(0, 4), (0, 5), (0, 6)]);
        assert_eq!(book.counts.sent, 7, "what is submitted again counts once");
    }

    #[test]
    fn a_nonce_that_others_took_costs_a_new_signature() {
        let mut book = book();
        due(&mut book, 3);
        tell(&mut book, 0, 0, 0);
        assert_eq!(submit(&mut book), [(0, 0), (0, 1), (0, 2)]);
        book.on_refused(Place { payer: 0, nonce: 0 });
        assert_eq!((submit(&mut book), book.waiting()), (vec![], 3), "the nonce is asked for");
        tell(&mut book, 0, 1, 3);
        assert_eq!((submit(&mut book), book.counts.sent), (vec![(0, 3)], 3));
        // A block holds a transfer of somebody else at nonce 1.
        tell(&mut book, 0, 2, 4);
        assert_eq!(submit(&mut book), [(0, 4)]);
        // The transfer of somebody else that held nonce 5 is gone: the gap is filled.
        due(&mut book, 2);
        tell(&mut book, 0, 2, 6);
        assert_eq!(submit(&mut book), [(0, 6), (0, 7)]);
        book.on_disconnected(Instant::now());
        tell(&mut book, 0, 2, 5);
        due(&mut book, 1);
        assert_eq!(submit(&mut book), [(0, 6), (0, 7), (0, 5)]);
    }

    #[test]
    fn a_busy_node_gets_it_later_and_a_silent_one_is_asked() {
        let mut book = book();
        due(&mut book, 2);
        tell(&mut book, 0, 0, 0);
        assert_eq!(submit(&mut book), [(0, 0), (0, 1)]);
        book.on_busy(Place { payer: 0, nonce: 0 });
        assert_eq!(submit(&mut book), [(0, 0)]);
        assert!(book.overdue(Instant::now()).is_empty());
        let later = Instant::now() + OVERDUE;
        assert_eq!(book.overdue(later), [0]);
        // The node still has both.
        tell(&mut book, 0, 0, 2);
        assert!(submit(&mut book).is_empty());
        // The node has dropped both.
        tell(&mut book, 0, 0, 0);
        assert_eq!(submit(&mut book), [(0, 0), (0, 1)]);
    }
}
