//! The known addresses of peers, with the results of dialing them.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};

use super::address::is_dialable;
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

/// How long an address is passed on to others after it was last known to work, in milliseconds. A
/// look every 30 s checks the addresses of a few hundred peers in this time. With a longer time,
/// nodes would tell each other of peers that are gone.
const LATELY_MS: u64 = 3 * 3_600_000;

/// Most addresses of a peer that are taken from one source. A peer itself may name more.
const HEARD_MAX: usize = 2;

/// Most unproved addresses that one source may have in the store, the same number that the inbound
/// peers of one group may claim together. A larger share would let few sources push out what all
/// others say. A smaller one would leave a newcomer few addresses of its first peer's answers.
const PER_SOURCE_MAX: usize = 64;

/// How the last dial of an address ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was never dialed.
    Untried,
    /// The peer answered.
    Reached,
    /// Nobody answered, or another peer did.
    Failed,
}

impl Outcome {
    /// The outcome in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Reached => "reached",
            Self::Failed => "failed",
        }
    }
}

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
    /// When it was last dialed, or was to be dialed; 0 if never.
    pub(crate) tried_ms: u64,
    /// Dials that failed since the last success.
    pub(crate) failures: u32,
    /// Who named it. `None` once a dial has proved it.
    pub(crate) source: Option<Source>,
}

/// Who named an address that no dial has proved: a peer, known by the group of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The peer at the address.
    Itself(Group),
    /// Another peer. [`Group::Unknown`] after a restart.
    Other(Group),
}

impl Source {
    const fn group(self) -> Group {
        match self {
            Self::Itself(group) | Self::Other(group) => group,
        }
    }
}

/// An address of the store, as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAddress {
    /// The peer's identity.
    pub peer: PeerId,
    /// The address, without the identity.
    pub address: Multiaddr,
    /// When it was last known to work, in milliseconds since 1970: now for a connected peer. `None`
    /// if it never was.
    pub seen_ms: Option<u64>,
    /// How its last dial ended.
    pub outcome: Outcome,
    /// Dials that failed since the last success.
    pub failures: u32,
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

    /// Whether others may be told of this address.
    fn is_reached_lately(&self, now_ms: u64) -> bool {
        self.is_proved && self.failures == 0 && now_ms.saturating_sub(self.good_ms) < LATELY_MS
    }

    /// How the last dial ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match (self.tried_ms, self.failures) {
            // A dial that our own rules stop shows nothing.
            (_, 0) if !self.is_proved => Outcome::Untried,
            (0, _) => Outcome::Untried,
            (_, 0) => Outcome::Reached,
            _ => Outcome::Failed,
        }
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

/// The addresses, at most [`ADDRESSES_MAX`], [`PER_GROUP_MAX`] of a group, [`PER_PEER_MAX`] of a
/// peer, and [`PER_SOURCE_MAX`] unproved ones of a source.
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

    /// A peer whose connection is of group `from` claims these addresses. They replace its earlier
    /// claims that no dial has proved.
    pub(crate) fn claimed(
        &mut self,
        peer: PeerId,
        addresses: &[Multiaddr],
        from: Group,
        now_ms: u64,
    ) {
        self.retain(|known| {
            known.peer != peer || known.is_proved || addresses.contains(&known.address)
        });
        let source = Some(Source::Itself(from));
        for known in self.known.iter_mut().filter(|known| known.peer == peer && !known.is_proved) {
            known.source = source;
        }
        for address in addresses {
            self.insert(self.new_known(peer, address, source, now_ms));
        }
    }

    /// A peer whose connection is of group `from` names addresses of another peer. They are not
    /// taken in if the peer itself named one that has not failed, or if one is proved. So nobody
    /// replaces what a peer says of itself, and no source keeps out what others say.
    pub(crate) fn heard(
        &mut self,
        peer: PeerId,
        addresses: &[Multiaddr],
        from: Group,
        now_ms: u64,
    ) {
        let source = Source::Other(from);
        let mut named = 0;
        for known in self.known.iter().filter(|known| known.peer == peer && known.failures == 0) {
            match known.source {
                Some(Source::Other(_)) => named += usize::from(known.source == Some(source)),
                _ => return,
            }
        }
        for address in addresses.iter().take(HEARD_MAX.saturating_sub(named)) {
            self.insert(self.new_known(peer, address, Some(source), now_ms));
        }
    }

    /// `source` is `None` for a proved address.
    fn new_known(
        &self,
        peer: PeerId,
        address: &Multiaddr,
        source: Option<Source>,
        now_ms: u64,
    ) -> Known {
        let group = self.grouping.of(address);
        Known {
            peer,
            address: address.clone(),
            group,
            good_ms: now_ms,
            is_proved: source.is_none(),
            tried_ms: 0,
            failures: 0,
            source,
        }
    }

    /// Adds an address. One that must not be dialed is left out, and one that is known already is
    /// not changed. When there is no room, the new address replaces the least valuable one of its
    /// own peer, source or group if that has too many, and else of the group with the most unproved
    /// addresses. If none of them gives way, the new address is not added.
    pub(crate) fn insert(&mut self, new: Known) {
        if !is_dialable(&new.address, self.grouping.private)
            || self.known.iter().any(|it| it.peer == new.peer && it.address == new.address)
        {
            return;
        }
        let of_peer = self.known.iter().filter(|known| known.peer == new.peer).count();
        if of_peer >= PER_PEER_MAX && !self.make_room(&new, |known| known.peer == new.peer) {
            return;
        }
        let source = new.source.map(Source::group).filter(|group| group.is_limited());
        let is_of_source =
            |known: &Known| source.is_some() && known.source.map(Source::group) == source;
        let of_source = self.known.iter().filter(|known| is_of_source(known)).count();
        if of_source >= PER_SOURCE_MAX && !self.make_room(&new, is_of_source) {
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

    /// A dial of the peer at this address succeeded. Returns whether no dial had before.
    pub(crate) fn on_success(&mut self, peer: PeerId, address: &Multiaddr, now_ms: u64) -> bool {
        let mut is_news = false;
        self.insert(self.new_known(peer, address, None, now_ms));
        for known in
            self.known.iter_mut().filter(|known| known.peer == peer && known.address == *address)
        {
            if !known.is_proved
                && let Some(count) = self.counts.get_mut(&known.group)
            {
                count.unproved -= 1;
            }
            is_news = !known.is_proved || known.tried_ms == 0;
            known.good_ms = now_ms;
            known.is_proved = true;
            known.source = None;
            known.failures = 0;
            known.tried_ms = now_ms;
        }
        is_news
    }

    /// A dial of the peer at this address begins. However it ends, other addresses are looked at
    /// before it is this one's turn again.
    pub(crate) fn on_dial(&mut self, peer: &PeerId, address: &Multiaddr, now_ms: u64) {
        let is_one = |known: &&mut Known| known.peer == *peer && known.address == *address;
        for known in self.known.iter_mut().filter(is_one) {
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

    /// Forgets an address of a peer.
    pub(crate) fn forget_address(&mut self, peer: &PeerId, address: &Multiaddr) {
        self.retain(|known| known.peer != *peer || known.address != *address);
    }

    /// Forgets all addresses of a peer.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.retain(|known| known.peer != *peer);
    }

    /// The addresses of a peer that were not reached lately and are due.
    pub(crate) fn unreached(&self, peer: &PeerId, now_ms: u64) -> Vec<Multiaddr> {
        let known = self.known.iter().filter(|known| known.peer == *peer);
        let due = known.filter(|it| !it.is_reached_lately(now_ms) && it.may_try(now_ms));
        due.map(|known| known.address.clone()).collect()
    }

    /// The addresses of a peer that others may be told of.
    pub(crate) fn reached_lately(&self, peer: &PeerId, now_ms: u64) -> Vec<Multiaddr> {
        let known = self.known.iter();
        let lately = known.filter(|it| it.peer == *peer && it.is_reached_lately(now_ms));
        lately.map(|known| known.address.clone()).collect()
    }

    /// The address to look at next, among those that are due and that `may` allows: one that a dial
    /// has proved, or else one that none has. It is the one that waits longest since it was last
    /// known to work, first heard of or dialed. So newer ones cannot keep it waiting, however many
    /// there are.
    pub(crate) fn stalest(
        &self,
        is_proved: bool,
        now_ms: u64,
        may: impl Fn(&PeerId) -> bool,
    ) -> Option<&Known> {
        let due = self.known.iter().filter(|known| {
            known.is_proved == is_proved && known.may_try(now_ms) && may(&known.peer)
        });
        due.min_by_key(|known| known.good_ms.max(known.tried_ms))
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
mod tests;
