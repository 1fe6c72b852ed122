//! A bounded number of places for connections. When all are taken, the least useful connection is
//! closed for a new one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Most connections at once, if the process may open enough files.
pub(crate) const CONNECTIONS_MAX: usize = 512;
/// How many of the places serve only pages such as health, readiness and metrics, since calls may
/// fill all others with work. They are at most a quarter of all places. As many places again are
/// kept free for connections that were told to close but have not closed yet.
const PAGES_PLACES: usize = 16;
/// Most WebSockets among the connections. Each buffers a message of up to 1 MiB while it arrives,
/// so all of them buffer at most 128 MiB.
pub(super) const SOCKETS_MAX: usize = 128;
/// A WebSocket without calls or subscriptions for this long may be closed for a new one.
const SOCKET_IDLE: Duration = Duration::from_secs(10);

/// The owner of a connection, as far as its address tells: an IPv4 address, or the /64 of an IPv6
/// address, which providers give to one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Origin {
    /// This machine itself.
    Loopback,
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Origin {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// How useful a connection is, in ascending order. The least useful one is evicted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// No whole request has arrived since the last answer, at most a part of one.
    Idle,
    /// All its calls wait for a transaction to become final.
    Waiting,
    /// A WebSocket with a block subscription.
    Subscribed,
    /// A request is being processed. Such a connection is never evicted, since its time is bounded
    /// anyway.
    Working,
}

/// The places of all connections.
pub(super) struct Places {
    /// Number of places for calls.
    full: usize,
    /// Number of places for pages only.
    pages: usize,
    entries: Mutex<Entries>,
    freed: Notify,
}

#[derive(Default)]
struct Entries {
    next: u64,
    /// All connections, including those that were told to close, until they are closed.
    taken: BTreeMap<u64, Entry>,
    /// Numbers of connections that were not told to close: those with a place for calls, and those
    /// with a place for pages only.
    staying: [usize; 2],
    sockets: usize,
    by_origin: HashMap<Origin, usize>,
}

struct Entry {
    origin: Origin,
    /// When the connection was accepted or last answered.
    since: Instant,
    working: usize,
    waiting: usize,
    subscribed: bool,
    is_socket: bool,
    is_leaving: bool,
    pages_only: bool,
    cut: Arc<Notify>,
}

impl Entry {
    const fn usefulness(&self) -> Use {
        match self {
            Self { working, waiting, .. } if *working > *waiting => Use::Working,
            Self { subscribed: true, .. } => Use::Subscribed,
            Self { waiting: 1.., .. } => Use::Waiting,
            _ => Use::Idle,
        }
    }

    fn leave(&mut self) {
        self.is_leaving = true;
        self.cut.notify_one();
    }
}

impl Places {
    /// Places for this many connections in all.
    pub(super) fn new(connections_max: usize) -> Arc<Self> {
        let pages = PAGES_PLACES.min(connections_max / 4);
        Arc::new(Self {
            full: connections_max - 2 * pages,
            pages,
            entries: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes a place for a new connection. `None` if all places for calls are taken by connections
    /// at work, and all places for pages too.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let origin = Origin::of(address);
        let mut entries = self.entries();
        let pages_only = entries.staying[0] >= self.full && !entries.evict_idlest(false);
        if pages_only && entries.staying[1] >= self.pages && !entries.evict_idlest(true) {
            return None;
        }
        entries.staying[usize::from(pages_only)] += 1;
        entries.next += 1;
        let (id, cut) = (entries.next, Arc::new(Notify::new()));
        *entries.by_origin.entry(origin).or_default() += 1;
        let entry = Entry {
            origin,
            since: Instant::now(),
            working: 0,
            waiting: 0,
            subscribed: false,
            is_socket: false,
            is_leaving: false,
            pages_only,
            cut: Arc::clone(&cut),
        };
        entries.taken.insert(id, entry);
        Some(Place { places: Arc::clone(self), id, origin, pages_only, cut })
    }

    /// Waits until fewer connections are still closing than there are places for pages. This limits
    /// how many connections are open beyond the places.
    pub(super) async fn settled(&self) {
        loop {
            let freed = self.freed.notified();
            if self.entries().leaving() < self.pages.max(1) {
                return;
            }
            freed.await;
        }
    }

    /// Closes the least useful connection that has a place for calls, for example when the process
    /// cannot open another file. Returns whether one could be closed.
    pub(super) fn give_way(&self) -> bool {
        self.entries().evict_idlest(false)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Each change of a count is complete, so a panic elsewhere leaves the counts consistent.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Closes the least useful connection with a place for calls, or with a place for pages if
    /// `pages_only`. Among equally useful ones it is one of the origin with the most connections,
    /// and of these the one that was accepted or answered longest ago. So a crowd from one address
    /// evicts itself first. False if all are at work.
    fn evict_idlest(&mut self, pages_only: bool) -> bool {
        let by_origin = &self.by_origin;
        let may_go = |entry: &&mut Entry| {
            entry.pages_only == pages_only && !entry.is_leaving && entry.usefulness() < Use::Working
        };
        let rank = |entry: &&mut Entry| {
            let crowd = by_origin.get(&entry.origin).copied().unwrap_or_default();
            (entry.usefulness(), std::cmp::Reverse(crowd), entry.since)
        };
        let Some(entry) = self.taken.values_mut().filter(may_go).min_by_key(rank) else {
            return false;
        };
        self.staying[usize::from(pages_only)] -= 1;
        entry.leave();
        true
    }

    /// Closes the WebSocket that was idle longest, if that is more than [`SOCKET_IDLE`].
    fn evict_socket(&mut self) -> bool {
        let may_go = |entry: &&mut Entry| {
            entry.is_socket
                && !entry.is_leaving
                && entry.usefulness() == Use::Idle
                && entry.since.elapsed() > SOCKET_IDLE
        };
        let Some(entry) = self.taken.values_mut().filter(may_go).min_by_key(|entry| entry.since)
        else {
            return false;
        };
        self.staying[usize::from(entry.pages_only)] -= 1;
        // The connection no longer counts as a WebSocket, although it takes a moment to close.
        entry.is_socket = false;
        self.sockets -= 1;
        entry.leave();
        true
    }

    fn leaving(&self) -> usize {
        self.taken.len() - self.staying[0] - self.staying[1]
    }
}

/// The place of one connection. It is freed when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    pub(super) origin: Origin,
    /// Whether the place is for pages only, so that calls are refused.
    pub(super) pages_only: bool,
    cut: Arc<Notify>,
}

impl Place {
    /// Resolves once, when the connection must close.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// A handle that closes the connection.
    pub(super) fn cutter(&self) -> Arc<Notify> {
        Arc::clone(&self.cut)
    }

    /// Marks a request as being processed until the guard is dropped.
    pub(super) fn work(&self) -> Guard<'_> {
        self.change(|entry| entry.working += 1);
        Guard(self, |entry| {
            entry.working -= 1;
            entry.since = Instant::now();
        })
    }

    /// Marks a call as waiting until the guard is dropped.
    pub(super) fn wait(&self) -> Guard<'_> {
        self.change(|entry| entry.waiting += 1);
        Guard(self, |entry| entry.waiting -= 1)
    }

    pub(super) fn subscribed(&self, subscribed: bool) {
        self.change(|entry| entry.subscribed = subscribed);
    }

    /// Counts the connection as a WebSocket. False if there are too many.
    pub(super) fn become_socket(&self) -> bool {
        let mut entries = self.places.entries();
        if entries.sockets >= SOCKETS_MAX && !entries.evict_socket() {
            return false;
        }
        entries.sockets += 1;
        if let Some(entry) = entries.taken.get_mut(&self.id) {
            entry.is_socket = true;
        }
        true
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.places.entries().taken.get_mut(&self.id) {
            change(entry);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut entries = self.places.entries();
        let Some(entry) = entries.taken.remove(&self.id) else { return };
        entries.staying[usize::from(entry.pages_only)] -= usize::from(!entry.is_leaving);
        entries.sockets -= usize::from(entry.is_socket);
        if let Some(count) = entries.by_origin.get_mut(&entry.origin) {
            *count -= 1;
            if *count == 0 {
                entries.by_origin.remove(&entry.origin);
            }
        }
        drop(entries);
        self.places.freed.notify_one();
    }
}

/// Undoes a change of a place's use when it is dropped.
pub(super) struct Guard<'a>(&'a Place, fn(&mut Entry));

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.change(self.1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn take(places: &Arc<Places>, last: u8) -> Place {
        places.take([10, 0, 0, last].into()).unwrap()
    }

    fn is_cut(place: &Place) -> bool {
        place.cut().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_idlest_of_the_largest_crowd_gives_way() {
        let places = Places::new(8);
        let alone = take(&places, 1);
        let crowd = [(); 3].map(|()| take(&places, 2));
        let newcomer = take(&places, 3);
        assert_eq!(
            [&alone, &crowd[0], &crowd[1], &crowd[2], &newcomer].map(is_cut),
            [false, true, false, false, false]
        );
        // Connections that wait or have a subscription are evicted after idle ones, even if the
        // idle ones are no crowd.
        drop(crowd);
        drop(newcomer);
        let (busy, waiting, subscriber) = (take(&places, 2), take(&places, 2), take(&places, 2));
        let _work = [busy.work(), waiting.work()];
        let _wait = waiting.wait();
        subscriber.subscribed(true);
        let mut later = Vec::new();
        for expected in
            [[true, false, false, false], [false, true, false, false], [false, false, true, false]]
        {
            let place = take(&places, 4);
            place.change(|entry| entry.working += 1);
            later.push(place);
            assert_eq!([&alone, &waiting, &subscriber, &busy].map(is_cut), expected);
        }
        assert!(!later.iter().any(|place| place.pages_only));
        assert!(take(&places, 4).pages_only, "all that stay are at work");
    }

    #[tokio::test]
    async fn places_for_pages_remain_when_all_others_are_at_work() {
        let places = Places::new(4);
        let busy = [take(&places, 1), take(&places, 2)];
        let work = [busy[0].work(), busy[1].work()];
        let pages: Vec<Place> = (0..4).map(|_| take(&places, 3)).collect();
        assert!(pages.iter().all(|place| place.pages_only));
        let cut: Vec<bool> = pages.iter().map(is_cut).collect();
        assert_eq!(cut, [true, true, true, false], "one is for pages");
        let page_work: Vec<_> = pages.iter().map(Place::work).collect();
        assert!(places.take([10, 0, 0, 4].into()).is_none());
        drop((work, page_work));
        assert!(!take(&places, 4).pages_only);
        assert_eq!(busy.iter().filter(|place| is_cut(place)).count(), 1);
    }

    #[tokio::test]
    async fn an_idle_socket_gives_way_to_a_new_one() {
        tokio::time::pause();
        let places = Places::new(CONNECTIONS_MAX);
        let sockets: Vec<Place> = (0..SOCKETS_MAX).map(|_| take(&places, 1)).collect();
        assert!(sockets.iter().all(Place::become_socket));
        let newcomer = take(&places, 2);
        assert!(!newcomer.become_socket());
        tokio::time::advance(SOCKET_IDLE * 2).await;
        sockets[0].subscribed(true);
        assert!(newcomer.become_socket());
        assert_eq!(sockets.iter().position(is_cut), Some(1));
    }

    #[test]
    fn addresses_of_one_customer_are_one_origin() {
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("127.0.0.1", "::1", true),
            ("127.0.0.1", "127.3.2.1", true),
        ] {
            let [first, second] = [one, other].map(|text| Origin::of(text.parse().unwrap()));
            assert_eq!(first == second, same, "{one} {other}");
        }
    }
}
