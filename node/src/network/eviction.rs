//! Which inbound connection is closed when a newcomer needs its place.
//!
//! Bitcoin Core's rule is the model. An attacker can have as many identities and connections as it
//! likes, but it cannot easily be better than honest peers by several measures at once. So the best
//! few connections by each measure are protected. Of the others, the older half is protected. If
//! suspects are among those still left (peers of hosts that offended lately), only suspects are
//! considered. The youngest connection of the largest remaining group of addresses is closed. The
//! choice does not depend on the newcomer. The newcomer gets the place, and is the next to lose it
//! if its group is the largest.
//!
//! A group of addresses has few places. When they are taken, one of the group's own members leaves
//! for a newcomer of the group: see [`victim_in_group`]. So a host that holds all places of its
//! group keeps no other host of the group out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a peer may have done for us lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It passed on transactions that were new and valid.
    Transactions,
    /// It passed on votes, proposals or headers that were new and valid.
    Consensus,
    /// It sent a correct chunk of history, of a snapshot or of a file.
    History,
}

impl Service {
    pub(crate) const ALL: [Service; 3] =
        [Service::Transactions, Service::Consensus, Service::History];

    /// Place in [`Service::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// How many candidates are protected because their groups have the highest secret random keys. An
/// attacker cannot know which addresses it would need.
const BY_GROUP: usize = 4;

/// How many candidates are protected because their round trips are the shortest. An attacker would
/// have to be close to us.
const BY_PING: usize = 8;

/// How many candidates are protected for each kind of service: those that did it most recently. An
/// attacker would have to keep serving us.
const BY_SERVICE: usize = 4;

/// An inbound connection that may be closed.
#[derive(Clone, Debug)]
pub(crate) struct Candidate<Id, Group> {
    pub(crate) id: Id,
    pub(crate) group: Group,
    /// A secret random number of the group.
    pub(crate) group_key: u64,
    pub(crate) since: Instant,
    /// The shortest round trip so far.
    pub(crate) ping_min: Option<Duration>,
    /// When it last did each kind of service, in the order of [`Service::ALL`].
    pub(crate) served: [Option<Instant>; Service::ALL.len()],
    /// A peer of this host has offended lately.
    pub(crate) is_suspect: bool,
}

/// How many members of a full group are protected by each measure.
const IN_GROUP: usize = 1;

/// A member of a full group that may be closed for a newcomer of the group.
#[derive(Clone, Debug)]
pub(crate) struct Member<Id, Host> {
    pub(crate) host: Host,
    pub(crate) id: Id,
    pub(crate) since: Instant,
    /// The shortest round trip so far.
    pub(crate) ping_min: Option<Duration>,
    /// When it last did each kind of service, in the order of [`Service::ALL`].
    pub(crate) served: [Option<Instant>; Service::ALL.len()],
    /// A peer of this host has offended lately.
    pub(crate) is_suspect: bool,
}

/// Who leaves a full group for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaver<Id> {
    /// Nobody: no host has more places than the newcomer's, or all members are protected.
    Nobody,
    /// A member of a host that has at least two places more than the newcomer's host. It leaves at
    /// once. Afterwards its host still has at least as many places as the newcomer's.
    OfCrowd(Id),
    /// A member of a host that has one place more than the newcomer's host. Afterwards the
    /// newcomer's host has one more. The hosts only trade places, so the caller limits how often
    /// this happens.
    OfEqual(Id),
}

/// Chooses who leaves a full group for a newcomer. `newcomer` is the host of the newcomer.
///
/// A member of a host that holds the most places leaves. If the hosts would only trade places, the
/// best of these members by each measure is protected, and then the older half of the others. Of
/// those still left, suspects go first, then those that served least recently, then the youngest.
pub(crate) fn victim_in_group<Id: Copy + Ord, Host: Copy + Ord>(
    mut members: Vec<Member<Id, Host>>,
    newcomer: Host,
) -> Leaver<Id> {
    let mut counts: BTreeMap<Host, usize> = BTreeMap::new();
    members.iter().for_each(|member| *counts.entry(member.host).or_default() += 1);
    let own = counts.get(&newcomer).copied().unwrap_or(0);
    let most = counts.values().copied().max().unwrap_or(0);
    if most <= own {
        return Leaver::Nobody;
    }
    members.retain(|member| counts.get(&member.host) == Some(&most));
    let is_trade = most == own + 1;
    if is_trade {
        protect_members(&mut members);
    }
    let last_served = |member: &Member<Id, Host>| member.served.iter().flatten().max().copied();
    let order = |member: &&Member<Id, Host>| {
        (!member.is_suspect, last_served(member), std::cmp::Reverse(member.since), member.id)
    };
    match members.iter().min_by_key(order) {
        None => Leaver::Nobody,
        Some(member) if is_trade => Leaver::OfEqual(member.id),
        Some(member) => Leaver::OfCrowd(member.id),
    }
}

/// Removes the protected members from the list: the best one by each measure, and the older half of
/// the others.
fn protect_members<Id: Copy + Ord, Host>(members: &mut Vec<Member<Id, Host>>) {
    members.sort_by_key(|one| {
        (
            std::cmp::Reverse(one.ping_min.unwrap_or(Duration::MAX)),
            std::cmp::Reverse(one.since),
            one.id,
        )
    });
    if members.last().is_some_and(|one| one.ping_min.is_some()) {
        members.truncate(members.len().saturating_sub(IN_GROUP));
    }
    for service in Service::ALL {
        members
            .sort_by_key(|one| (one.served[service.index()], std::cmp::Reverse(one.since), one.id));
        if members.last().is_some_and(|one| one.served[service.index()].is_some()) {
            members.truncate(members.len().saturating_sub(IN_GROUP));
        }
    }
    members.sort_by_key(|one| (std::cmp::Reverse(one.since), one.id));
    members.truncate(members.len().div_ceil(2));
}

/// Chooses the connection to close. `None` if all are protected, which happens only if there are
/// few.
pub(crate) fn victim<Id: Copy + Ord, Group: Copy + Ord>(
    mut candidates: Vec<Candidate<Id, Group>>,
) -> Option<Id> {
    // For each measure, the candidates are sorted so that the best are last, and the best are cut
    // off. On a tie the older connection is protected.
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
    // The candidates are sorted by age, so the first of each group is its youngest.
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

    /// A connection of this group, made this many seconds after [`start`].
    fn one(id: u32, group: u32, second: u64) -> Candidate<u32, u32> {
        Candidate {
            id,
            group,
            // Groups with low numbers are the last to be protected.
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
        // The key protects candidates of group 11 first. The newcomer is younger than all others.
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
            // The youngest of group 10, which is larger than all others.
            crowd.push(one(100, 10, 2_000));
            assert_eq!(victim(crowd.clone()), Some(100), "without {measure}");
            set(crowd.last_mut().unwrap());
            let chosen = victim(crowd).unwrap();
            assert_ne!(chosen, 100, "with {measure}");
        }
    }

    #[test]
    fn attackers_cannot_be_protected_by_more_than_each_measure_allows() {
        // All 96 have a short ping and were useful. One of them has to go all the same.
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

    /// A member of a full group, connected this many seconds after [`start`].
    fn member(id: u32, host: u32, second: u64) -> Member<u32, u32> {
        let since = start() + Duration::from_secs(second);
        Member {
            host,
            id,
            since,
            ping_min: None,
            served: [None; Service::ALL.len()],
            is_suspect: false,
        }
    }

    #[test]
    fn a_host_that_fills_its_group_gives_way_to_its_neighbours() {
        // Host 1 has all places, and all its members are useful.
        let mut members: Vec<_> = (0..8).map(|id| member(id, 1, u64::from(id))).collect();
        for it in &mut members {
            it.ping_min = Some(Duration::from_micros(1));
            it.served = [Some(start() + Duration::from_secs(u64::from(it.id))); 3];
        }
        assert_eq!(
            victim_in_group(members.clone(), 2),
            Leaver::OfCrowd(0),
            "the one that served least lately"
        );
        assert_eq!(
            victim_in_group(members.clone(), 1),
            Leaver::Nobody,
            "its own newcomers get nothing"
        );
        members[5].is_suspect = true;
        assert_eq!(victim_in_group(members.clone(), 2), Leaver::OfCrowd(5));
        members[0].served = [None; 3];
        members[5].is_suspect = false;
        members[1].served = [None; 3];
        assert_eq!(
            victim_in_group(members, 2),
            Leaver::OfCrowd(1),
            "the youngest of those that never served"
        );
    }

    #[test]
    fn places_of_a_group_are_shared_among_its_hosts() {
        let group = |hosts: [u32; 8]| {
            hosts.iter().zip(0..).map(|(host, id)| member(id, *host, id.into())).collect()
        };
        for (hosts, newcomer, expected) in [
            ([1, 1, 1, 1, 1, 2, 2, 2], 2, Leaver::OfCrowd(4)),
            ([1, 1, 1, 1, 2, 2, 2, 2], 2, Leaver::Nobody),
            ([1, 1, 1, 1, 2, 2, 2, 3], 2, Leaver::OfEqual(3)),
            ([1, 1, 1, 1, 2, 2, 2, 2], 3, Leaver::OfCrowd(7)),
            ([1, 2, 3, 4, 5, 6, 7, 8], 9, Leaver::OfEqual(7)),
            ([1, 2, 3, 4, 5, 6, 7, 8], 1, Leaver::Nobody),
        ] {
            assert_eq!(
                victim_in_group(group(hosts), newcomer),
                expected,
                "{hosts:?} and {newcomer}"
            );
        }
    }

    #[test]
    fn a_useful_member_stays_when_hosts_trade_places() {
        type Set = fn(&mut Member<u32, u32>);
        let set: [(&str, Set); 4] = [
            ("its ping", |it| it.ping_min = Some(Duration::from_micros(1))),
            ("transactions", |it| it.served[0] = Some(it.since)),
            ("consensus", |it| it.served[1] = Some(it.since)),
            ("history", |it| it.served[2] = Some(it.since)),
        ];
        for (measure, set) in set {
            // Member 7, of host 7, is the youngest.
            let mut members: Vec<_> = (0..8).map(|id| member(id, id, u64::from(id))).collect();
            assert_eq!(
                victim_in_group(members.clone(), 9),
                Leaver::OfEqual(7),
                "without {measure}"
            );
            set(&mut members[7]);
            assert_eq!(victim_in_group(members, 9), Leaver::OfEqual(6), "with {measure}");
        }
    }
}
