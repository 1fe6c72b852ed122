//! The known addresses of peers, with the results of dialing them.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};

use super::group::{Group, Grouping};

/// Most addresses. Enough for every network that this program is made for, in less than a megabyte.
pub(crate) const ADDRESSES_MAX: usize = 4096;

/// Most addresses of one group, so that the addresses of one operator do not push out all others.
const PER_GROUP_MAX: usize = 32;

/// Most addresses of one peer, the same number that a peer may announce. Without this limit one
/// identity could fill the store.
const PER_PEER_MAX: usize = super::peers::ADDRESSES_MAX;

/// Failures in a row after which an address may be forgotten.
const FAILURES_MAX: u32 = 3;

/// Least time since an address was last known to work before it may be forgotten, in milliseconds.
/// A node that restarts is back sooner.
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
    /// When it was last known to work. If it never was, when it was first heard of.
    pub(crate) good_ms: u64,
    /// Whether a dial has ever succeeded.
    pub(crate) is_proved: bool,
    /// When it was last dialed; 0 if never.
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
    /// replaced. Addresses that no dial has proved are worth least, then those with more failures,
    /// then those that were last known to work longer ago.
    fn worth(&self) -> (bool, std::cmp::Reverse<u32>, u64, PeerId) {
        (self.is_proved, std::cmp::Reverse(self.failures), self.good_ms, self.peer)
    }

    /// Whether this address may be replaced by `new`. An address that a peer merely claims does not
    /// replace a proved one that works.
    fn gives_way_to(&self, new: &Known) -> bool {
        new.is_proved || !self.is_proved || self.failures > 0
    }
}

/// How many addresses of one group are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    all: usize,
    unproved: usize,
}

/// The addresses, at most [`ADDRESSES_MAX`], [`PER_GROUP_MAX`] of a group and [`PER_PEER_MAX`] of a
/// peer.
pub(crate) struct Addresses {
    grouping: Grouping,
    known: Vec<Known>,
    /// The counts of `known` by group. A group without an address has no entry.
    counts: HashMap<Group, Count>,
}

impl Addresses {
    pub(crate) fn new(grouping: Grouping) -> Self {
        Self { grouping, known: Vec::new(), counts: HashMap::new() }
    }

    pub(crate) fn all(&self) -> &[Known] {
        &self.known
    }

    /// A peer claims these addresses. They replace its earlier claims that no dial has proved.
    pub(crate) fn claimed(&mut self, peer: PeerId, addresses: &[Multiaddr], now_ms: u64) {
        self.retain(|known| {
            known.peer != peer || known.is_proved || addresses.contains(&known.address)
        });
        for address in addresses {
            self.insert(self.new_known(peer, address, false, now_ms));
        }
    }

    fn new_known(&self, peer: PeerId, address: &Multiaddr, is_proved: bool, now_ms: u64) -> Known {
        let group = self.grouping.of(address);
        Known {
            peer,
            address: address.clone(),
            group,
            good_ms: now_ms,
            is_proved,
            tried_ms: 0,
            failures: 0,
        }
    }

    /// Adds an address. An address that is known already is not changed. When there is no room, the
    /// new address replaces the least valuable one of its own peer if that has too many, of its own
    /// group if that is full, and else of the group with the most unproved addresses. If none of
    /// them gives way, the new address is not added.
    pub(crate) fn insert(&mut self, new: Known) {
        if self.known.iter().any(|known| known.peer == new.peer && known.address == new.address) {
            return;
        }
        let of_peer = self.known.iter().filter(|known| known.peer == new.peer).count();
        if of_peer >= PER_PEER_MAX && !self.make_room(&new, |known| known.peer == new.peer) {
            return;
        }
        let of_group = self.counts.get(&new.group).map_or(0, |count| count.all);
        if new.group.is_limited()
            && of_group >= PER_GROUP_MAX
            && !self.make_room(&new, |known| known.group == new.group)
        {
            return;
        }
        if self.known.len() >= ADDRESSES_MAX {
            let rivals = self.largest_group();
            if !self.make_room(&new, |known| rivals.is_none_or(|group| known.group == group)) {
                return;
            }
        }
        let count = self.counts.entry(new.group).or_default();
        count.all += 1;
        count.unproved += usize::from(!new.is_proved);
        self.known.push(new);
    }

    /// Looks at the addresses that `of_rivals` selects and that give way to `new`, and removes the
    /// least valuable one. Returns whether there was one.
    fn make_room(&mut self, new: &Known, of_rivals: impl Fn(&Known) -> bool) -> bool {
        let rivals = self
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| of_rivals(known) && known.gives_way_to(new));
        let Some((place, _)) = rivals.min_by_key(|(_, known)| known.worth()) else { return false };
        let gone = self.known.swap_remove(place);
        uncount(&mut self.counts, &gone);
        true
    }

    fn retain(&mut self, keep: impl Fn(&Known) -> bool) {
        let counts = &mut self.counts;
        self.known.retain(|known| {
            let is_kept = keep(known);
            if !is_kept {
                uncount(counts, known);
            }
            is_kept
        });
    }

    /// The group with the most unproved addresses, or with the most addresses if all are proved.
    /// `None` if no group has several of them; then any address may be replaced.
    fn largest_group(&self) -> Option<Group> {
        let largest =
            self.counts.iter().max_by_key(|(group, count)| (count.unproved, count.all, **group));
        let (group, count) = largest?;
        let several = if count.unproved == 0 { count.all } else { count.unproved } > 1;
        several.then_some(*group)
    }

    /// A dial of the peer at this address succeeded.
    pub(crate) fn on_success(&mut self, peer: PeerId, address: &Multiaddr, now_ms: u64) {
        self.insert(self.new_known(peer, address, true, now_ms));
        for known in
            self.known.iter_mut().filter(|known| known.peer == peer && known.address == *address)
        {
            if !known.is_proved
                && let Some(count) = self.counts.get_mut(&known.group)
            {
                count.unproved -= 1;
            }
            known.good_ms = now_ms;
            known.is_proved = true;
            known.failures = 0;
            known.tried_ms = now_ms;
        }
    }

    /// The peer was connected until now, so its addresses without failures count as working until
    /// now.
    pub(crate) fn on_left(&mut self, peer: &PeerId, now_ms: u64) {
        for known in
            self.known.iter_mut().filter(|known| known.peer == *peer && known.failures == 0)
        {
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
        self.retain(|known| known.peer != *peer || !known.is_gone(now_ms));
        !self.known.iter().any(|known| known.peer == *peer)
    }

    /// Forgets all addresses of a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.retain(|known| known.peer != *peer);
    }

    /// An address to dial, chosen by `random` among those that are due and that `may` allows.
    pub(crate) fn pick(
        &self,
        now_ms: u64,
        random: u32,
        may: impl Fn(&PeerId, Group) -> bool,
    ) -> Option<&Known> {
        let due = |known: &&Known| known.may_try(now_ms) && may(&known.peer, known.group);
        let due: Vec<&Known> = self.known.iter().filter(due).collect();
        // Half of the time an address that has worked before is chosen, if there is one.
        let proved: Vec<&Known> = due.iter().copied().filter(|known| known.is_proved).collect();
        let pool = if random.is_multiple_of(2) && !proved.is_empty() { proved } else { due };
        let place = usize::try_from(random / 2).unwrap_or(0) % pool.len().max(1);
        pool.get(place).copied()
    }
}

/// Subtracts a removed address from the counts.
fn uncount(counts: &mut HashMap<Group, Count>, gone: &Known) {
    if let Some(count) = counts.get_mut(&gone.group) {
        count.all -= 1;
        count.unproved -= usize::from(!gone.is_proved);
        if count.all == 0 {
            counts.remove(&gone.group);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn at(a: u16, b: u16) -> Multiaddr {
        format!("/ip4/{}.{}.{}.{}/tcp/7700", 1 + a / 256, a % 256, b / 256, b % 256)
            .parse()
            .unwrap()
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
        // This node was off for a day, so the address last worked long ago. Even so, it is
        // forgotten only after the third failure in a row, which comes a minute later.
        let day_later = 16 * MINUTE + 24 * 60 * MINUTE;
        for (minute, is_gone) in [(0, false), (1, true)] {
            assert_eq!(
                addresses.on_failure(&peer, &[at(1, 1)], day_later + minute * MINUTE),
                is_gone,
                "{minute}"
            );
        }
    }

    #[test]
    fn one_group_cannot_push_out_the_others() {
        let mut addresses = addresses();
        let honest = PeerId::random();
        addresses.on_success(honest, &at(0, 1), 5);
        for number in 0..2_560 {
            addresses.claimed(PeerId::random(), &[at(1, number)], 10);
        }
        assert_eq!(addresses.all().len(), 10 * PER_GROUP_MAX + 1);
        for number in 0..5_000 {
            addresses.claimed(PeerId::random(), &[at(2 + number % 3_000, number / 3_000)], 10);
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
        addresses.claimed(PeerId::random(), &[at(1, 99)], 3_000);
        assert_eq!(addresses.all().len(), PER_GROUP_MAX);
        assert!(!addresses.all().iter().any(|known| known.peer == peers[7]));
    }

    /// Checks the stored counts against a new count.
    fn assert_counted(addresses: &Addresses) {
        let mut counts: HashMap<Group, Count> = HashMap::new();
        for known in addresses.all() {
            let count = counts.entry(known.group).or_default();
            count.all += 1;
            count.unproved += usize::from(!known.is_proved);
        }
        assert_eq!(addresses.counts, counts);
    }

    #[test]
    fn a_peers_next_claim_replaces_its_last_one() {
        let (mut addresses, liar, other) = (addresses(), PeerId::random(), PeerId::random());
        addresses.claimed(other, &[at(0, 1), at(1, 1)], 1);
        addresses.on_success(liar, &at(2, 1), 1);
        for round in 0..600 {
            let claim: Vec<Multiaddr> = (0..8).map(|number| at(3 + round, number << 8)).collect();
            addresses.claimed(liar, &claim, 2);
            let of_liar: Vec<&Known> =
                addresses.all().iter().filter(|known| known.peer == liar).collect();
            assert_eq!(of_liar.len(), PER_PEER_MAX);
            assert_eq!(
                of_liar.iter().filter(|known| claim.contains(&known.address)).count(),
                PER_PEER_MAX - 1
            );
            assert!(
                of_liar.iter().any(|known| known.is_proved),
                "a claim replaces no proved address"
            );
        }
        assert_eq!(addresses.all().len(), PER_PEER_MAX + 2);
        assert_counted(&addresses);
        // A peer keeps at most eight addresses, even if all of them work.
        (0..20).for_each(|number| addresses.on_success(liar, &at(4, number << 8), 3));
        assert_eq!(addresses.all().iter().filter(|known| known.peer == liar).count(), PER_PEER_MAX);
        addresses.claimed(other, &[], 4);
        addresses.forget(&liar);
        assert!(addresses.all().is_empty());
        assert_counted(&addresses);
    }

    /// Each claim is alone in its group, so the honest peers have the largest group.
    #[test]
    fn claims_push_out_no_address_that_works() {
        let mut addresses = addresses();
        let honest: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
        for (number, peer) in (0..).zip(&honest) {
            addresses.on_success(*peer, &at(0, number), 5);
        }
        for number in 0..5_000 {
            addresses.claimed(PeerId::random(), &[at(1 + number, 0)], 10);
        }
        assert_eq!(addresses.all().len(), ADDRESSES_MAX);
        let kept =
            honest.iter().filter(|peer| addresses.all().iter().any(|known| known.peer == **peer));
        assert_eq!(kept.count(), honest.len());
        addresses.on_success(PeerId::random(), &at(6_000, 0), 11);
        assert_eq!(
            addresses.all().iter().filter(|known| known.is_proved).count(),
            honest.len() + 1
        );
        assert_eq!(addresses.all().len(), ADDRESSES_MAX);
        assert_counted(&addresses);
    }

    #[test]
    fn only_who_may_be_dialed_is_picked() {
        let mut addresses = addresses();
        let (one, other) = (PeerId::random(), PeerId::random());
        addresses.claimed(one, &[at(1, 1)], 1);
        addresses.on_success(other, &at(2, 1), 1);
        for random in 0..20 {
            assert_eq!(addresses.pick(5, random, |peer, _| *peer == one).unwrap().peer, one);
            assert!(addresses.pick(5, random, |_, _| false).is_none());
        }
        let picked: Vec<PeerId> =
            (0..20).map(|random| addresses.pick(5, random, |_, _| true).unwrap().peer).collect();
        assert!(picked.contains(&one) && picked.contains(&other));
    }
}
