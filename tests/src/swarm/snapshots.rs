//! The state of a made-up chain, its true snapshot, and false ones.

use std::sync::Arc;

use ledger::codec;
use ledger::genesis::Limits;
use ledger::hash::{Domain, Hash};
use ledger::signature::PublicKey;
use ledger::snapshot::{Frontier, SnapshotRules, SubtreeDescriptor};
use ledger::state::{Account, Entry, State, StateKey};
use ledger::units::Amount;

/// A frontier with false counts, which no check of the frontier itself notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// One entry more in the first subtree, and one less in the second.
    Moved,
    /// Subtrees of half the size, with counts that hide it.
    Finer,
    /// Subtrees of twice the size, with counts that hide it.
    Coarser,
}

/// A state, which is the same after each segment of the chain.
#[derive(Debug)]
pub struct MadeState {
    /// The accounts.
    pub state: State,
    /// How it is cut into chunks.
    pub frontier: Arc<Frontier>,
    rules: SnapshotRules,
}

impl MadeState {
    pub(super) fn new(accounts: u64, limits: &Limits) -> Self {
        let entry = |number: u64| -> Entry {
            let key = Hash::of(Domain::StoreValue, &[&number.to_le_bytes()]);
            let account = Account { balance: Amount(number), ..Account::default() };
            (StateKey::account(PublicKey(key.0)), account)
        };
        let state = State::from_entries((0..accounts).map(entry));
        let rules = SnapshotRules::new(limits);
        let frontier = Arc::new(Frontier::of(&state, &rules).expect("a small state"));
        Self { state, frontier, rules }
    }

    /// A frontier of the same state with false counts.
    ///
    /// # Panics
    /// When the state has only a few chunks.
    #[must_use]
    pub fn forge(&self, forgery: Forgery) -> Arc<Frontier> {
        let most = self.rules.entries_max();
        let cut = |entries: u32| -> Vec<SubtreeDescriptor> {
            let chunk_bytes = 8 + 81 * u64::from(entries);
            let rules = SnapshotRules::new(&Limits { chunk_bytes, ..Limits::default() });
            let frontier = Frontier::of(&self.state, &rules).expect("a small state");
            frontier.descriptors().to_vec()
        };
        let mut subtrees = cut(most);
        match forgery {
            Forgery::Moved => {
                let at = subtrees.iter().position(|one| one.count > 0).expect("accounts");
                let other = subtrees.iter().rposition(|one| one.count < most).expect("room");
                assert_ne!(at, other, "several subtrees");
                subtrees[at].count -= 1;
                subtrees[other].count += 1;
            }
            Forgery::Finer => {
                subtrees = cut(most / 2);
                subtrees.iter_mut().for_each(|one| one.count = most);
            }
            Forgery::Coarser => {
                subtrees = cut(most * 2);
                subtrees.iter_mut().for_each(|one| one.count = one.count.min(most));
            }
        }
        let forged = Frontier::verify(subtrees, self.state.root(), &self.rules);
        let forged = forged.expect("false counts are not noticed");
        assert!(forged != *self.frontier, "{forgery:?} changes something");
        Arc::new(forged)
    }

    /// The best that anybody can send for a chunk of a frontier: as many entries as it counts, from
    /// where the chunk would begin.
    #[must_use]
    pub fn chunk(&self, frontier: &Frontier, index: u64) -> Option<Vec<u8>> {
        let range = frontier.chunk_range(index)?;
        let count = |bytes: u64| (bytes / 81) as usize;
        let first = count(range.start - 8 * index);
        let entries = self.state.iter().skip(first).take(count(range.end - range.start - 8));
        Some(codec::encode(&entries.copied().collect::<Vec<Entry>>()))
    }
}
