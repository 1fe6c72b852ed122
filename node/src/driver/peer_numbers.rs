//! The numbers by which the state machines know peers. The drivers `live` and `swarm` use the same
//! number for a peer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::PeerId as Number;

use crate::network::PeerId;

/// Stands for a peer without a number: a peer that has left, or whose connection `live` has not
/// heard of yet. No request is ever sent to it.
pub(crate) const NOBODY: Number = Number(0);

/// Gives each connected peer one number, counted from 1 and never used again. Cheap to clone: all
/// clones share it.
///
/// `live` holds a peer's number while the peer is connected, and `swarm` while the peer's link is
/// open. A number is forgotten when neither holds it, so there are about as many numbers as
/// connected peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerNumbers(Arc<Mutex<Numbers>>);

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    /// The number, and how many times it is held.
    numbers: HashMap<PeerId, (Number, u32)>,
    ids: BTreeMap<Number, PeerId>,
}

impl PeerNumbers {
    /// The peer's number, held until [`Self::release`].
    pub(crate) fn hold(&self, id: PeerId) -> Number {
        let mut numbers = self.lock();
        if let Some((number, holders)) = numbers.numbers.get_mut(&id) {
            *holders += 1;
            return *number;
        }
        numbers.last += 1;
        let number = Number(numbers.last);
        numbers.numbers.insert(id, (number, 1));
        numbers.ids.insert(number, id);
        number
    }

    /// Ends one [`Self::hold`]. Returns the peer's number, if it had one.
    pub(crate) fn release(&self, id: &PeerId) -> Option<Number> {
        let mut numbers = self.lock();
        let (number, holders) = numbers.numbers.get_mut(id)?;
        let number = *number;
        *holders -= 1;
        if *holders == 0 {
            numbers.numbers.remove(id);
            numbers.ids.remove(&number);
        }
        Some(number)
    }

    /// The number of a peer that is held, else [`NOBODY`].
    pub(crate) fn number(&self, id: &PeerId) -> Number {
        self.lock().numbers.get(id).map_or(NOBODY, |(number, _)| *number)
    }

    /// The peer with this number, while it is held.
    pub(crate) fn id(&self, number: Number) -> Option<PeerId> {
        self.lock().ids.get(&number).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        // Each change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lasts_as_long_as_somebody_holds_it() {
        let numbers = PeerNumbers::default();
        let (driver, sync) = (numbers.clone(), numbers.clone());
        let [first, second] = [PeerId::random(), PeerId::random()];
        let number = driver.hold(first);
        assert_eq!(
            (sync.hold(first), sync.number(&first), sync.id(number)),
            (number, number, Some(first))
        );
        assert_ne!(driver.hold(second), number);
        assert_eq!(driver.release(&first), Some(number));
        assert_eq!(sync.id(number), Some(first), "sync still holds it");
        assert_eq!(sync.release(&first), Some(number));
        assert_eq!(
            (sync.number(&first), sync.id(number), sync.release(&first)),
            (NOBODY, None, None)
        );
        assert_ne!(driver.hold(first), number, "a number is never used again");
        driver.release(&first);
        driver.release(&second);
        let left = numbers.lock();
        assert!(left.numbers.is_empty() && left.ids.is_empty());
    }
}
