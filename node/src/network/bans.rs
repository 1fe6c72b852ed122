//! Bans: which peers may not connect, why, and until when.
//!
//! A lie is an offence that the message's own bytes prove. It bans the peer at once. A mistake,
//! such as a message that does not decode, may come from an honest program of another version. The
//! first mistake costs the peer its connection. A mistake bans the peer if its last offence, or the
//! end of its last ban, is less than a day ago. A named peer is banned for lies only. Bans end by
//! themselves. The first lasts an hour, and each further one twice as long as the one before, up to
//! a day. A day without ban and offence is a new start.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId};

use super::group::Grouping;

/// Most records of offenders. More would keep no attacker out, since a banned one can take a new
/// identity for free.
pub(crate) const RECORDS_MAX: usize = 4096;

/// Length of the first ban, in milliseconds. Each further one is twice as long.
const FIRST_MS: u64 = 3_600_000;

/// Length of the longest ban, in milliseconds. A record is kept for this time after the end of its
/// ban, or after its offence if there was no ban.
const LONGEST_MS: u64 = 24 * FIRST_MS;

/// How grave an offence is. `protocol` has the same two degrees, but the network imports none of
/// its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Bytes that break a format. An honest peer of another version may send them.
    Mistake,
    /// A claim that is false, as the bytes themselves prove. No honest peer sends it.
    Lie,
}

/// What a peer is blamed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// For programs: the name of the offence, one of a fixed list.
    pub offence: String,
    /// For people: what was found and what was expected.
    pub detail: String,
    /// How grave it is.
    pub severity: Severity,
}

/// A ban, as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanInfo {
    /// Who may not connect.
    pub peer: PeerId,
    /// The name of the offence.
    pub offence: String,
    /// The end of the ban, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What an offence costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sentence {
    /// The connections with the peer are closed. It may come back.
    Closed,
    /// The peer may not connect before this time.
    Banned { until_ms: u64 },
}

/// What the node remembers of a peer that offended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offence: String,
    /// When it last offended, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// The end of its ban; 0 if the last offence did not ban it.
    pub(crate) until_ms: u64,
    /// How often it was banned.
    pub(crate) times: u32,
    /// The address of its connection when it last offended.
    pub(crate) address: Option<Multiaddr>,
}

/// All records, at most [`RECORDS_MAX`]. When there is no room, a new record replaces the oldest
/// one without a ban. If all have a ban, it replaces the one whose ban ends first.
#[derive(Default)]
pub(crate) struct Bans {
    records: HashMap<PeerId, Record>,
}

impl Bans {
    /// Decides about a peer that offended, and records it. A named peer is not banned for mistakes:
    /// the operator wants it connected.
    pub(crate) fn judge(
        &mut self,
        peer: PeerId,
        address: Option<Multiaddr>,
        charge: &Charge,
        is_named: bool,
        now_ms: u64,
    ) -> Sentence {
        self.forget_old(now_ms);
        let former = self.records.get(&peer);
        let bans = charge.severity == Severity::Lie || (former.is_some() && !is_named);
        let times = former.map_or(0, |record| record.times);
        let length = FIRST_MS.saturating_mul(1 << times.min(16)).min(LONGEST_MS);
        let (until_ms, times) = if bans {
            (now_ms.saturating_add(length), times.saturating_add(1))
        } else {
            (0, times)
        };
        if self.records.len() >= RECORDS_MAX && former.is_none() {
            let least = self
                .records
                .iter()
                .min_by_key(|(peer, record)| (record.until_ms, record.at_ms, **peer));
            if let Some(peer) = least.map(|(peer, _)| *peer) {
                self.records.remove(&peer);
            }
        }
        let offence = charge.offence.clone();
        self.records.insert(peer, Record { offence, at_ms: now_ms, until_ms, times, address });
        if bans { Sentence::Banned { until_ms } } else { Sentence::Closed }
    }

    /// The end of the peer's ban, if it is banned now.
    pub(crate) fn until(&self, peer: &PeerId, now_ms: u64) -> Option<u64> {
        self.records.get(peer).map(|record| record.until_ms).filter(|until_ms| *until_ms > now_ms)
    }

    /// The hosts from which peers offended lately. Other hosts of the same group of addresses are
    /// not suspected.
    pub(crate) fn suspects(&self, grouping: Grouping) -> HashSet<IpAddr> {
        let addresses = self.records.values().filter_map(|record| record.address.as_ref());
        addresses.filter_map(|address| grouping.host(address)).collect()
    }

    /// The bans that are in force now, in the order of their ends.
    pub(crate) fn list(&self, now_ms: u64) -> Vec<BanInfo> {
        let banned = self.records.iter().filter(|(_, record)| record.until_ms > now_ms);
        let info = |(peer, record): (&PeerId, &Record)| BanInfo {
            peer: *peer,
            offence: record.offence.clone(),
            until_ms: record.until_ms,
        };
        let mut bans: Vec<BanInfo> = banned.map(info).collect();
        bans.sort_by_key(|ban| (ban.until_ms, ban.peer));
        bans
    }

    /// All records, for the store.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&PeerId, &Record)> {
        self.records.iter()
    }

    /// Takes over a record of an earlier run. If the clock was ahead in that run, the ban would end
    /// too late, so it is cut to [`LONGEST_MS`] from now.
    pub(crate) fn restore(&mut self, peer: PeerId, mut record: Record, now_ms: u64) {
        record.at_ms = record.at_ms.min(now_ms);
        record.until_ms = record.until_ms.min(now_ms.saturating_add(LONGEST_MS));
        if self.records.len() < RECORDS_MAX {
            self.records.insert(peer, record);
        }
        self.forget_old(now_ms);
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.records.retain(|_, record| {
            record.until_ms.max(record.at_ms).saturating_add(LONGEST_MS) > now_ms
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: u64 = FIRST_MS;

    fn charge(severity: Severity) -> Charge {
        Charge { offence: "wrong_chunk".into(), detail: String::new(), severity }
    }

    #[test]
    fn bans_double_up_to_a_day_and_end() {
        let (mut bans, peer) = (Bans::default(), PeerId::random());
        let mut now = 1_000_000_000_000;
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            let sentence = bans.judge(peer, None, &charge(Severity::Lie), false, now);
            assert_eq!(sentence, Sentence::Banned { until_ms: now + hours * HOUR });
            assert_eq!(bans.until(&peer, now + hours * HOUR - 1), Some(now + hours * HOUR));
            assert_eq!(bans.until(&peer, now + hours * HOUR), None);
            assert_eq!(bans.list(now).len(), 1);
            now += hours * HOUR;
            assert!(bans.list(now).is_empty());
        }
        now += 25 * HOUR;
        let sentence = bans.judge(peer, None, &charge(Severity::Lie), false, now);
        assert_eq!(
            sentence,
            Sentence::Banned { until_ms: now + HOUR },
            "a day without offence is a new start"
        );
    }

    #[test]
    fn a_first_mistake_costs_the_connection_and_a_second_one_bans() {
        let (mut bans, peer, named) = (Bans::default(), PeerId::random(), PeerId::random());
        let mistake = charge(Severity::Mistake);
        assert_eq!(bans.judge(peer, None, &mistake, false, 10), Sentence::Closed);
        assert_eq!(bans.until(&peer, 10), None);
        assert_eq!(
            bans.judge(peer, None, &mistake, false, 20),
            Sentence::Banned { until_ms: 20 + HOUR }
        );
        let day_later = 20 + 26 * HOUR;
        assert_eq!(
            bans.judge(peer, None, &mistake, false, day_later),
            Sentence::Closed,
            "it is forgotten"
        );
        for now in 0..9 {
            assert_eq!(
                bans.judge(named, None, &mistake, true, now),
                Sentence::Closed,
                "a named peer"
            );
        }
        assert!(matches!(
            bans.judge(named, None, &charge(Severity::Lie), true, 9),
            Sentence::Banned { .. }
        ));
    }

    #[test]
    fn records_are_bounded_and_mistakes_give_way_first() {
        let (mut bans, first, mistaken) = (Bans::default(), PeerId::random(), PeerId::random());
        bans.judge(first, None, &charge(Severity::Lie), false, 1_000);
        bans.judge(mistaken, None, &charge(Severity::Mistake), false, 1_001);
        for number in 2..RECORDS_MAX as u64 {
            bans.judge(PeerId::random(), None, &charge(Severity::Lie), false, 1_000 + number);
        }
        bans.judge(PeerId::random(), None, &charge(Severity::Lie), false, 9_000);
        assert_eq!(bans.records.len(), RECORDS_MAX);
        assert!(bans.until(&first, 9_000).is_some() && !bans.records.contains_key(&mistaken));
        bans.judge(PeerId::random(), None, &charge(Severity::Lie), false, 9_001);
        assert!(bans.until(&first, 9_001).is_none(), "then the ban that ends first");
    }

    #[test]
    fn a_clock_that_was_ahead_makes_no_ban_longer() {
        let (mut bans, peer, now) = (Bans::default(), PeerId::random(), 1_000_000_000_000);
        let record = Record {
            offence: "x".into(),
            at_ms: u64::MAX,
            until_ms: u64::MAX,
            times: 9,
            address: None,
        };
        bans.restore(peer, record, now);
        assert_eq!(bans.until(&peer, now), Some(now + LONGEST_MS));
    }

    #[test]
    fn hosts_of_offenders_are_known() {
        let (mut bans, grouping) = (Bans::default(), Grouping::default());
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        bans.judge(PeerId::random(), Some(address), &charge(Severity::Mistake), false, 1);
        bans.judge(
            PeerId::random(),
            Some("/ip4/127.0.0.1/tcp/5".parse().unwrap()),
            &charge(Severity::Lie),
            false,
            1,
        );
        bans.judge(
            PeerId::random(),
            Some("/ip6/2606:4700:1:2:3::4/tcp/5".parse().unwrap()),
            &charge(Severity::Lie),
            false,
            1,
        );
        let hosts = ["1.2.3.4", "2606:4700:1:2::"].map(|host| host.parse::<IpAddr>().unwrap());
        assert_eq!(bans.suspects(grouping), HashSet::from(hosts));
    }
}
