//! Eras that are being fetched, and eras that go from the disk.

use std::time::Duration;

use ledger::store::ERA_SEGMENTS;
use protocol::archive::{Input, Keep};
use protocol::eras::Era;

use super::Driver;
use super::eras::{era_bytes, segments};
use crate::driver::swarm::ToSwarm;

/// A fetch of an era is given up when no segment of it has arrived for this time. It is tried again
/// later.
const STALLED_AFTER: Duration = Duration::from_secs(600);

/// How far a fetch has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Number of segments that are here.
    count: u64,
    /// When it last became larger. `swarm` fetches older segments first, so the time that it takes
    /// for an older era does not count.
    since: Duration,
}

/// What has become of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fetched,
    Stalled,
}

/// The fetches that have ended. `count` is the number of segments of an era that are here.
fn ended<'a>(
    fetching: impl Iterator<Item = (&'a Era, &'a mut Progress)>,
    count: impl Fn(Era) -> u64,
    now: Duration,
) -> Vec<(Era, End)> {
    let (mut ended, mut latest) = (Vec::new(), Duration::ZERO);
    for (era, progress) in fetching {
        let count = count(*era);
        let since = if count > progress.count { now } else { progress.since };
        latest = latest.max(since);
        *progress = Progress { count, since: latest };
        if count == ERA_SEGMENTS {
            ended.push((*era, End::Fetched));
        } else if now.saturating_sub(progress.since) >= STALLED_AFTER {
            ended.push((*era, End::Stalled));
        }
    }
    ended
}

impl Driver {
    pub(super) async fn begin_fetch(&mut self, era: Era, now: Duration) {
        // The machine dropped it a moment ago.
        if let Some(at) = self.dropping.iter().position(|dropping| *dropping == era) {
            self.dropping.remove(at);
            self.drop_era(era);
        }
        self.fetching.insert(era, Progress { count: 0, since: now });
        self.tell_fetches().await;
    }

    /// Tells the machine which eras have come, and which do not come.
    pub(super) async fn look_at_fetches(&mut self, now: Duration) {
        let kept = self.parts.store.kept();
        let is_here = |one: &u64| kept.iter().any(|range| range.contains(one));
        let count = |era: Era| segments(era.0).filter(is_here).count() as u64;
        let mut ended = ended(self.fetching.iter_mut(), count, now);
        if !ended.is_empty() {
            self.fetching.retain(|era, _| ended.iter().all(|(ended, _)| ended != era));
            self.tell_fetches().await;
        }
        if self.parts.sharing.keep == Keep::Full {
            // `swarm` fetches all eras, the oldest first, whatever the machine has it fetch.
            let come = self.machine.absent().filter(|era| count(*era) == ERA_SEGMENTS);
            let come = come.filter(|era| !self.dropping.contains(era));
            ended.extend(come.map(|era| (era, End::Fetched)));
        }
        for (era, end) in ended {
            if end == End::Fetched {
                self.fetching.remove(&era);
                self.work.eras_fetched = self.work.eras_fetched.saturating_add(1);
                self.is_unshown = true;
                let bytes = era_bytes(&self.parts.store, era.0);
                self.give(Input::Fetched { era, bytes }).await;
            } else {
                self.drop_part(era).await;
                self.give(Input::Unfetched(era)).await;
            }
        }
    }

    /// Tells `swarm` which eras to fetch.
    async fn tell_fetches(&mut self) {
        self.is_unshown = true;
        let eras = self.fetching.keys().map(|era| era.0).collect();
        // If `swarm` has gone, the node is stopping.
        let _gone = self.parts.swarm.send(ToSwarm::Fetch(eras)).await;
    }

    /// Drops an era of which a part is here. A node that keeps everything still fetches the rest.
    pub(super) async fn drop_part(&mut self, era: Era) {
        if self.parts.sharing.keep != Keep::Full {
            self.drop_era(era);
            let _gone = self.parts.swarm.send(ToSwarm::Dropped(era.0)).await;
        }
    }

    pub(super) fn drop_era(&self, Era(era): Era) {
        if let Err(error) = self.parts.store.drop_era(era) {
            tracing::error!("era {era} of history was not dropped whole: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Three eras are fetched. Nobody gives anything of the second one.
    #[test]
    fn each_fetch_stalls_alone_and_waits_for_older_ones() {
        let begun = Progress { count: 0, since: Duration::ZERO };
        let mut fetching: BTreeMap<Era, Progress> = (0..3).map(|era| (Era(era), begun)).collect();
        let mut look = |minute: u64, counts: [u64; 3]| {
            let count = |era: Era| usize::try_from(era.0).map_or(0, |era| counts[era]);
            let ended = ended(fetching.iter_mut(), count, Duration::from_secs(60 * minute));
            fetching.retain(|era, _| ended.iter().all(|(ended, _)| ended != era));
            ended
        };
        for minute in 1..16 {
            assert_eq!(look(minute, [minute, 0, 0]), []);
        }
        assert_eq!(look(16, [16, 0, 0]), [(Era(0), End::Fetched)]);
        for minute in 17..26 {
            assert_eq!(look(minute, [16, 0, minute - 16]), []);
        }
        // What arrives of the third one does not help the second one.
        assert_eq!(look(26, [16, 0, 9]), [(Era(1), End::Stalled)]);
        assert_eq!(look(34, [16, 0, 9]), []);
        assert_eq!(look(35, [16, 0, 9]), [(Era(2), End::Stalled)]);
    }
}
