//! The known addresses of peers, with the results of dialing them.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};

use super::group::{Group, Grouping};

/// Most addresses. Enough for every network that this program is made for, in less than a megabyte.
pub(crate) const ADDRESSES_MAX: usize = 4096;

/// Most addresses of one group, so that those of one operator do not push out all others.
const PER_GROUP_MAX: usize = 32;

/// Failures in a row after which an address may be forgotten.
const FAILURES_MAX: u32 = 3;

/// How long an address must have failed before it is forgotten, in milliseconds. A node that
/// restarts is back sooner.
const FAILING_MS: u64 = 600_000;

/// The wait after a failed dial, in milliseconds. It doubles with each failure.
const RETRY_MS: u64 = 60_000;

/// The longest wait after a failed dial, in milliseconds.
const RETRY_MAX_MS: u64 = 3_600_000;

/// What is known of one address. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) peer: PeerId,
    /// Without the identity at its end.
    pub(crate) address: Multiaddr,
    pub(crate) group: Group,
    /// When it was last known to work, or else first heard of.
    pub(crate) good_ms: u64,
    /// Whether a dial has ever succeeded.
    pub(crate) is_proved: bool,
    /// The last dial.
    pub(crate) tried_ms: u64,
    /// Dials that failed since the last success.
    pub(crate) failures: u32,
}

impl Known {
    fn may_try(&self, now_ms: u64) -> bool {
        let wait = match self.failures {
            0 => 0,
            failures => (RETRY_MS << (failures - 1).min(16)).min(RETRY_MAX_MS),
        };
        // If the clock was set back, every address may be tried.
        now_ms < self.tried_ms || now_ms - self.tried_ms >= wait
    }

    fn is_gone(&self, now_ms: u64) -> bool {
        self.failures >= FAILURES_MAX && now_ms.saturating_sub(self.good_ms) >= FAILING_MS
    }

    /// The value of an address. When there is no room, the address with the smallest value is
    /// replaced: the one with the most failures, then an unproved one, then the one not known to
    /// work for longest.
    fn worth(&self) -> (std::cmp::Reverse<u32>, bool, u64, PeerId) {
        (std::cmp::Reverse(self.failures), self.is_proved, self.good_ms, self.peer)
    }
}

/// The addresses, at most [`ADDRESSES_MAX`] and [`PER_GROUP_MAX`] of a group.
pub(crate) struct Addresses {
    grouping: Grouping,
    known: Vec<Known>,
}

impl Addresses {
    pub(crate) fn new(grouping: Grouping) -> Self {
        Self { grouping, known: Vec::new() }
    }

    pub(crate) fn all(&self) -> &[Known] {
        &self.known
    }

    /// A peer claims this address, or was dialed there.
    pub(crate) fn heard(&mut self, peer: PeerId, address: Multiaddr, now_ms: u64) {
        let group = self.grouping.of(&address);
        self.insert(Known { peer, address, group, good_ms: now_ms, is_proved: false, tried_ms: 0, failures: 0 });
    }

    /// Adds an address. An address that is known already is not changed. When there is no room, the
    /// new address replaces the least valuable one of its own group if that is full, else of the
    /// group with the most addresses.
    pub(crate) fn insert(&mut self, new: Known) {
        if self.known.iter().any(|known| known.peer == new.peer && known.address == new.address) {
            return;
        }
        let group = new.group;
        let of_group = self.known.iter().filter(|known| known.group == group).count();
        let crowded = group.is_limited() && of_group >= PER_GROUP_MAX;
        let rivals: Option<Group> = if crowded {
            Some(group)
        } else if self.known.len() >= ADDRESSES_MAX {
            self.largest_group()
        } else {
            self.known.push(new);
            return;
        };
        let of_rivals = |known: &Known| rivals.is_none_or(|group| known.group == group);
        let least = self.known.iter().enumerate().filter(|(_, known)| of_rivals(known));
        if let Some((place, _)) = least.min_by_key(|(_, known)| known.worth()) {
            self.known[place] = new;
        }
    }

    /// The group with the most addresses. `None` if no group has several; then any address may be
    /// replaced.
    fn largest_group(&self) -> Option<Group> {
        let mut counts: HashMap<Group, usize> = HashMap::new();
        for known in &self.known {
            *counts.entry(known.group).or_default() += 1;
        }
        let (group, count) = counts.into_iter().max_by_key(|(group, count)| (*count, *group))?;
        (count > 1).then_some(group)
    }

    /// A dial of the peer at this address succeeded.
    pub(crate) fn on_success(&mut self, peer: PeerId, address: &Multiaddr, now_ms: u64) {
        self.heard(peer, address.clone(), now_ms);
        for known in self.known.iter_mut().filter(|known| known.peer == peer && known.address == *address) {
            known.good_ms = now_ms;
            known.is_proved = true;
            known.failures = 0;
            known.tried_ms = now_ms;
        }
    }

    /// The peer was connected until now, so its addresses without failures count as working until
    /// now.
    pub(crate) fn on_left(&mut self, peer: &PeerId, now_ms: u64) {
        for known in self.known.iter_mut().filter(|known| known.peer == *peer && known.failures == 0) {
            known.good_ms = now_ms;
        }
    }

    /// A dial of the peer failed at these addresses. Returns whether no address of the peer is
    /// known any more.
    pub(crate) fn on_failure(&mut self, peer: &PeerId, failed: &[Multiaddr], now_ms: u64) -> bool {
        let is_one = |known: &&mut Known| known.peer == *peer && failed.contains(&known.address);
        for known in self.known.iter_mut().filter(is_one) {
            known.tried_ms = now_ms;
            known.failures = known.failures.saturating_add(1);
        }
        self.known.retain(|known| known.peer != *peer || !known.is_gone(now_ms));
        !self.known.iter().any(|known| known.peer == *peer)
    }

    /// Forgets all addresses of a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.known.retain(|known| known.peer != *peer);
    }

    /// An address to dial, chosen by `random` among those that are due and that `may` allows.
    pub(crate) fn pick(&self, now_ms: u64, random: u32, may: impl Fn(&PeerId, Group) -> bool) -> Option<&Known> {
        let due = |known: &&Known| known.may_try(now_ms) && may(&known.peer, known.group);
        let due: Vec<&Known> = self.known.iter().filter(due).collect();
        // Half of the time an address that has worked before is chosen, if there is one.
        let proved: Vec<&Known> = due.iter().copied().filter(|known| known.is_proved).collect();
        let pool = if random.is_multiple_of(2) && !proved.is_empty() { proved } else { due };
        let place = usize::try_from(random / 2).unwrap_or(0) % pool.len().max(1);
        pool.get(place).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn at(a: u16, b: u16) -> Multiaddr {
        format!("/ip4/{}.{}.{}.{}/tcp/7700", 1 + a / 256, a % 256, b / 256, b % 256).parse().unwrap()
    }

    fn addresses() -> Addresses {
        Addresses::new(Grouping::default())
    }

    #[test]
    fn a_peer_that_left_is_forgotten_within_half_an_hour() {
        let (mut addresses, peer) = (addresses(), PeerId::random());
        let left = 1_000_000_000_000;
        addresses.on_success(peer, &at(1, 1), left - 100 * MINUTE);
        addresses.on_left(&peer, left);
        let (mut now, mut dials, mut is_gone) = (left, 0, false);
        while !is_gone {
            assert!(now <= left + 30 * MINUTE, "not forgotten after {dials} dials");
            if addresses.pick(now, 0, |_, _| true).is_some() {
                dials += 1;
                is_gone = addresses.on_failure(&peer, &[at(1, 1)], now);
            }
            now += 1_000;
        }
        assert!(now >= left + 10 * MINUTE && (3..=6).contains(&dials), "{dials} dials");
        assert!(addresses.all().is_empty());
    }

    #[test]
    fn a_peer_that_comes_back_is_kept() {
        let (mut addresses, peer) = (addresses(), PeerId::random());
        addresses.on_success(peer, &at(1, 1), 0);
        for minute in [1, 2, 3, 4] {
            assert!(!addresses.on_failure(&peer, &[at(1, 1)], minute * MINUTE));
        }
        addresses.on_success(peer, &at(1, 1), 15 * MINUTE);
        assert!(!addresses.on_failure(&peer, &[at(1, 1)], 16 * MINUTE));
        assert!(addresses.on_failure(&PeerId::random(), &[at(1, 1)], 0), "nothing is known of it");
        // This node was off for a day: what it knows is old, and one dial in vain says little.
        let day_later = 16 * MINUTE + 24 * 60 * MINUTE;
        for (minute, is_gone) in [(0, false), (1, true)] {
            assert_eq!(addresses.on_failure(&peer, &[at(1, 1)], day_later + minute * MINUTE), is_gone, "{minute}");
        }
    }

    #[test]
    fn one_group_cannot_push_out_the_others() {
        let mut addresses = addresses();
        let honest = PeerId::random();
        addresses.on_success(honest, &at(0, 1), 5);
        for number in 0..2_560 {
            addresses.heard(PeerId::random(), at(1, number), 10);
        }
        assert_eq!(addresses.all().len(), 10 * PER_GROUP_MAX + 1);
        for number in 0..5_000 {
            addresses.heard(PeerId::random(), at(2 + number % 3_000, number / 3_000), 10);
        }
        assert_eq!(addresses.all().len(), ADDRESSES_MAX);
        assert!(addresses.all().iter().any(|known| known.peer == honest));
    }

    #[test]
    fn the_worst_of_a_full_group_gives_way() {
        let mut addresses = addresses();
        let peers: Vec<PeerId> = (0..PER_GROUP_MAX).map(|_| PeerId::random()).collect();
        for (number, peer) in (0..).zip(&peers) {
            addresses.on_success(*peer, &at(1, number), 1_000);
        }
        addresses.on_failure(&peers[7], &[at(1, 7)], 2_000);
        addresses.heard(PeerId::random(), at(1, 99), 3_000);
        assert_eq!(addresses.all().len(), PER_GROUP_MAX);
        assert!(!addresses.all().iter().any(|known| known.peer == peers[7]));
    }

    #[test]
    fn only_who_may_be_dialed_is_picked() {
        let mut addresses = addresses();
        let (one, other) = (PeerId::random(), PeerId::random());
        addresses.heard(one, at(1, 1), 1);
        addresses.on_success(other, &at(2, 1), 1);
        for random in 0..20 {
            assert_eq!(addresses.pick(5, random, |peer, _| *peer == one).unwrap().peer, one);
            assert!(addresses.pick(5, random, |_, _| false).is_none());
        }
        let picked: Vec<PeerId> = (0..20).map(|random| addresses.pick(5, random, |_, _| true).unwrap().peer).collect();
        assert!(picked.contains(&one) && picked.contains(&other));
    }
}
