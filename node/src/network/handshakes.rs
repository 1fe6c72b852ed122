//! Inbound handshakes that are under way. Each holds one of a limited number of places.
//!
//! Before the handshake is over, only the address of a connection is known. A silent connection
//! must not keep others out. So one host has few places, and a handshake has little time. When all
//! places are taken, the oldest handshake of the group that has the most handshakes gives way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{AbortHandle, AbortRegistration};
use libp2p::Multiaddr;

use super::address::ip_of;
use super::group::{Group, Grouping, host_of};

/// Timeout of an inbound handshake, until the connection is encrypted and multiplexed, which takes
/// a few round trips. With a longer timeout silent connections would hold their places for longer.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Most handshakes of one host (an IPv4 address or an IPv6 /64) at a time. An honest host needs
/// one, and a second one if it dials again before we notice that its first connection is gone.
const PER_HOST_MAX: usize = 2;

/// Most handshakes that one host may begin within [`WINDOW`]. Each costs us half a millisecond.
const BEGUN_PER_HOST_MAX: u32 = 64;

/// The time over which begun handshakes are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Most hosts whose handshakes are counted in a window. Further hosts are not counted, and so not
/// limited, until the window ends.
const HOSTS_MAX: usize = 4096;

/// All handshakes under way, shared by the transport and the network's task.
#[derive(Clone)]
pub(crate) struct Handshakes(Arc<Mutex<Book>>);

struct Book {
    grouping: Grouping,
    max: usize,
    /// The IP addresses of named peers. Handshakes from these addresses give way only to handshakes
    /// from other addresses of the same IPv6 /64.
    named: HashSet<IpAddr>,
    next: u64,
    open: BTreeMap<u64, Open>,
    begun: HashMap<IpAddr, u32>,
    window: Option<Instant>,
}

struct Open {
    /// `None` if limits by address do not apply.
    host: Option<IpAddr>,
    group: Group,
    is_named: bool,
    stop: AbortHandle,
}

/// A place for one handshake. Dropping it frees the place.
pub(crate) struct Place {
    number: u64,
    book: Handshakes,
}

impl Handshakes {
    /// `max` is the number of places.
    pub(crate) fn new(grouping: Grouping, max: usize) -> Self {
        Self(Arc::new(Mutex::new(Book {
            grouping,
            max: max.max(1),
            named: HashSet::new(),
            next: 0,
            open: BTreeMap::new(),
            begun: HashMap::new(),
            window: None,
        })))
    }

    /// A named peer is at this address.
    pub(crate) fn name(&self, address: &Multiaddr) {
        if let Some(ip) = ip_of(address) {
            self.lock().named.insert(ip);
        }
    }

    /// A place for a new connection, and a registration by which the handshake is aborted when its
    /// place is needed. `None` if the connection must be closed at once.
    pub(crate) fn enter(
        &self,
        remote: &Multiaddr,
        now: Instant,
    ) -> Option<(Place, AbortRegistration)> {
        let (stop, registration) = AbortHandle::new_pair();
        let number = self.lock().enter(remote, stop, now)?;
        Some((Place { number, book: self.clone() }, registration))
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn enter(&mut self, remote: &Multiaddr, stop: AbortHandle, now: Instant) -> Option<u64> {
        let ip = ip_of(remote);
        let is_named = ip.is_some_and(|ip| self.named.contains(&ip));
        let host = ip.filter(|ip| !self.grouping.is_free(*ip)).map(host_of);
        if let Some(host) = host
            && !is_named
        {
            if !self.may_begin(host, now) {
                return None;
            }
            if self.open.values().filter(|open| open.host == Some(host)).count() >= PER_HOST_MAX {
                // The host's oldest handshake gives way, so an honest peer that shares its address
                // with silent connections still gets in.
                let oldest = self
                    .open
                    .iter()
                    .find(|(_, open)| open.host == Some(host))
                    .map(|(number, _)| *number);
                self.give_way(oldest?);
            }
        }
        while self.open.len() >= self.max {
            self.give_way(self.least()?);
        }
        self.next += 1;
        let group = self.grouping.of(remote);
        self.open.insert(self.next, Open { host, group, is_named, stop });
        Some(self.next)
    }

    /// The handshake that gives way: the oldest of the group that has the most handshakes. `None`
    /// if all handshakes are from named peers.
    fn least(&self) -> Option<u64> {
        let mut groups: HashMap<Group, (usize, u64)> = HashMap::new();
        for (number, open) in self.open.iter().filter(|(_, open)| !open.is_named) {
            groups.entry(open.group).or_insert((0, *number)).0 += 1;
        }
        let most =
            groups.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
        most.map(|(_, oldest)| oldest)
    }

    fn give_way(&mut self, number: u64) {
        if let Some(open) = self.open.remove(&number) {
            open.stop.abort();
        }
    }

    fn may_begin(&mut self, host: IpAddr, now: Instant) -> bool {
        if self.window.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            self.window = Some(now);
            self.begun.clear();
        }
        let counts = self.begun.len();
        match self.begun.get_mut(&host) {
            Some(count) => {
                *count += 1;
                *count <= BEGUN_PER_HOST_MAX
            }
            None => {
                if counts < HOSTS_MAX {
                    self.begun.insert(host, 1);
                }
                true
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.book.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Visit {
        _place: Place,
        registration: AbortRegistration,
    }

    impl Visit {
        fn is_over(&self) -> bool {
            self.registration.handle().is_aborted()
        }
    }

    fn enter(book: &Handshakes, address: &str, now: Instant) -> Option<Visit> {
        let address = format!("{address}/tcp/1").parse().unwrap();
        book.enter(&address, now).map(|(_place, registration)| Visit { _place, registration })
    }

    fn open(book: &Handshakes) -> usize {
        book.lock().open.len()
    }

    #[test]
    fn a_host_has_two_places_and_its_oldest_gives_way() {
        let (book, now) = (Handshakes::new(Grouping::default(), 64), Instant::now());
        for (hosts, free) in [
            (["/ip4/1.1.1.1"; 3], false),
            (["/ip6/2606:4700::1", "/ip6/2606:4700::2", "/ip6/2606:4700::3"], false),
            (["/ip4/127.0.0.1"; 3], true),
            (["/ip4/1.1.2.1", "/ip4/1.1.2.2", "/ip4/1.1.2.3"], true),
        ] {
            let visits = hosts.map(|host| enter(&book, host, now).unwrap());
            assert_eq!(visits.each_ref().map(Visit::is_over), [!free, false, false], "{hosts:?}");
            drop(visits);
            assert_eq!(open(&book), 0, "places are free again");
        }
    }

    /// Silent connections come from many hosts. A newcomer gets a place, and some silent ones lose
    /// theirs.
    #[test]
    fn when_all_places_are_taken_the_largest_group_gives_way() {
        let (book, now) = (Handshakes::new(Grouping::default(), 64), Instant::now());
        let honest = enter(&book, "/ip4/9.9.9.9", now).unwrap();
        let mut silent = Vec::new();
        for number in 0..500 {
            // Half of the hosts are in one /24.
            let host = format!("/ip4/1.{}.1.{}", number % 2 * (number % 20), number % 250);
            silent.extend(enter(&book, &host, now));
        }
        assert!(open(&book) <= 64);
        assert!(!honest.is_over());
        let newcomer = enter(&book, "/ip4/8.8.8.8", now).unwrap();
        assert!(!newcomer.is_over() && open(&book) <= 64);
    }

    #[test]
    fn named_peers_do_not_give_way() {
        let (book, now) = (Handshakes::new(Grouping::default(), 4), Instant::now());
        book.name(&"/ip4/1.1.1.1/tcp/7700".parse().unwrap());
        let named: Vec<Visit> =
            (0..3).map(|_| enter(&book, "/ip4/1.1.1.1", now).unwrap()).collect();
        let others: Vec<Visit> =
            (0..9).map(|n| enter(&book, &format!("/ip4/2.2.{n}.2"), now).unwrap()).collect();
        assert!(named.iter().all(|visit| !visit.is_over()));
        assert_eq!(others.iter().filter(|visit| !visit.is_over()).count(), 1);
        // The named peer's address holds all places, so a stranger must wait until one is free.
        drop(others);
        let last = enter(&book, "/ip4/1.1.1.1", now).unwrap();
        assert!(enter(&book, "/ip4/3.3.3.3", now).is_none());
        drop(last);
        assert!(enter(&book, "/ip4/3.3.3.3", now).is_some());
    }

    #[test]
    fn a_host_begins_only_so_many() {
        let (book, now) = (Handshakes::new(Grouping::default(), 64), Instant::now());
        let begun = |now: Instant| {
            (0..1_000).filter(|_| enter(&book, "/ip4/1.1.1.1", now).is_some()).count()
        };
        assert_eq!(begun(now), BEGUN_PER_HOST_MAX as usize);
        assert!(enter(&book, "/ip4/1.1.1.2", now).is_some());
        assert_eq!(begun(now + WINDOW), BEGUN_PER_HOST_MAX as usize);
    }
}
