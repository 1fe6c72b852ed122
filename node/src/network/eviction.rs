//! Which inbound connection is closed when a newcomer needs its place.
//!
//! Bitcoin Core's rule is the model. An attacker can have as many identities and connections as it
//! likes, but it cannot easily be better than honest peers by several measures at once. So the best
//! few by each measure are protected, half of the others by age, and of the rest the youngest in
//! the network group that holds the most places leaves. Nothing here depends on who the newcomer
//! is: it always finds a place, and it is the first to go if it turns out to be one of many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a peer may have done for us lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It passed on transactions that were new and valid.
    Transactions,
    /// It passed on votes, proposals or headers that were new and valid.
    Consensus,
    /// It sent a chunk of history that is right.
    History,
}

impl Service {
    pub(crate) const ALL: [Service; 3] = [Service::Transactions, Service::Consensus, Service::History];

    /// Place in [`Service::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Candidates protected by the (secret, random) order of their groups: an attacker cannot know
/// which addresses it would need.
const BY_GROUP: usize = 4;

/// Candidates protected by their shortest round trip: an attacker would have to be close to us.
const BY_PING: usize = 8;

/// Candidates protected by each kind of service: an attacker would have to be useful.
const BY_SERVICE: usize = 4;

/// An inbound connection that may be closed.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<Id, Group> {
    pub(crate) id: Id,
    pub(crate) group: Group,
    /// The group's place in an order that nobody outside can know.
    pub(crate) group_key: u64,
    pub(crate) since: Instant,
    /// The shortest round trip so far.
    pub(crate) ping_min: Option<Duration>,
    /// When it last did what, in the order of [`Service::ALL`].
    pub(crate) served: [Option<Instant>; Service::ALL.len()],
    /// A peer of this group has offended lately.
    pub(crate) is_suspect: bool,
}

/// Chooses the connection to close. `None` if all are protected, that is, if there are few.
pub(crate) fn victim<Id: Copy + Ord, Group: Copy + Ord>(mut candidates: Vec<Candidate<Id, Group>>) -> Option<Id> {
    // Sorted so that the best are last, then cut off. Ties go to the older connection.
    let protect = |candidates: &mut Vec<Candidate<Id, Group>>, count: usize| {
        candidates.truncate(candidates.len().saturating_sub(count));
    };
    candidates.sort_by_key(|one| (one.group_key, std::cmp::Reverse(one.since), one.id));
    protect(&mut candidates, BY_GROUP);
    candidates.sort_by_key(|one| {
        let ping = one.ping_min.unwrap_or(Duration::MAX);
        (std::cmp::Reverse(ping), std::cmp::Reverse(one.since), one.id)
    });
    let pinged = candidates.iter().filter(|one| one.ping_min.is_some()).count();
    protect(&mut candidates, BY_PING.min(pinged));
    for service in Service::ALL {
        let at = |one: &Candidate<Id, Group>| one.served[service.index()];
        candidates.sort_by_key(|one| (at(one), std::cmp::Reverse(one.since), one.id));
        let useful = candidates.iter().filter(|one| at(one).is_some()).count();
        protect(&mut candidates, BY_SERVICE.min(useful));
    }
    candidates.sort_by_key(|one| (std::cmp::Reverse(one.since), one.id));
    let half = candidates.len() / 2;
    protect(&mut candidates, half);

    if candidates.iter().any(|one| one.is_suspect) {
        candidates.retain(|one| one.is_suspect);
    }
    // The youngest of each group comes first, as all are sorted so.
    let mut groups: BTreeMap<Group, (usize, Instant, Id)> = BTreeMap::new();
    for one in &candidates {
        groups.entry(one.group).or_insert((0, one.since, one.id)).0 += 1;
    }
    groups.into_values().max().map(|(_, _, youngest)| youngest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A connection of a group, made so many seconds after the first.
    fn one(id: u32, group: u32, second: u64) -> Candidate<u32, u32> {
        Candidate {
            id,
            group,
            // Of the groups here those with low numbers are the last ones to be protected.
            group_key: u64::from(group),
            since: start() + Duration::from_secs(second),
            ping_min: None,
            served: [None; Service::ALL.len()],
            is_suspect: false,
        }
    }

    fn start() -> Instant {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    /// Twelve groups of eight, one after the other: group 0 is the oldest.
    fn crowd() -> Vec<Candidate<u32, u32>> {
        (0..96).map(|id| one(id, id / 8, u64::from(id))).collect()
    }

    #[test]
    fn few_are_all_protected() {
        assert_eq!(victim::<u32, u32>(vec![]), None);
        assert_eq!(victim((0..4).map(|id| one(id, id, 0)).collect()), None);
        assert!(victim((0..6).map(|id| one(id, id, 0)).collect()).is_some());
    }

    #[test]
    fn the_youngest_of_the_largest_group_leaves() {
        let mut crowd = crowd();
        // Groups 11, 10 and so on are protected by their key, one at a time; a lone newcomer is younger than all.
        crowd.push(one(100, 5_000, 1_000));
        crowd.last_mut().unwrap().group_key = 0;
        let chosen = victim(crowd).unwrap();
        assert!(chosen < 96, "the newcomer's group is the smallest: {chosen}");
    }

    #[test]
    fn whoever_is_best_by_one_measure_stays() {
        type Set = fn(&mut Candidate<u32, u32>);
        let set: [(&str, Set); 6] = [
            ("its group's key", |it| it.group_key = u64::MAX),
            ("its ping", |it| it.ping_min = Some(Duration::from_micros(1))),
            ("transactions", |it| it.served[0] = Some(it.since)),
            ("consensus", |it| it.served[1] = Some(it.since)),
            ("history", |it| it.served[2] = Some(it.since)),
            ("its age", |it| it.since = start()),
        ];
        for (measure, set) in set {
            let mut crowd = crowd();
            // The youngest of the one group that is larger than all others.
            crowd.push(one(100, 10, 2_000));
            assert_eq!(victim(crowd.clone()), Some(100), "without {measure}");
            set(crowd.last_mut().unwrap());
            let chosen = victim(crowd).unwrap();
            assert_ne!(chosen, 100, "with {measure}");
        }
    }

    #[test]
    fn attackers_cannot_be_protected_by_more_than_each_measure_allows() {
        // All 96 are close, useful and old by now: still one has to go.
        let mut crowd = crowd();
        for it in &mut crowd {
            it.ping_min = Some(Duration::from_micros(u64::from(it.id)));
            it.served = [Some(it.since); 3];
        }
        assert!(victim(crowd).is_some());
    }

    #[test]
    fn suspects_go_first() {
        let mut crowd = crowd();
        crowd.push(one(100, 50, 2_000));
        crowd.push(one(101, 50, 2_001));
        crowd.iter_mut().filter(|it| it.group == 50).for_each(|it| {
            it.is_suspect = true;
            it.group_key = 0;
        });
        assert_eq!(victim(crowd), Some(101), "although other groups are larger");
    }
}
