//! Progress of sync for people: a line of text for `sync --watch`, and a bar on the terminal of a
//! node in the foreground, which log lines do not garble.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use ledger::api::{HistoryInfo, HistoryPhase, SyncState, SyncStatus};

use crate::clock::wall_ms;
use crate::screen::SCREEN;
use crate::sync_status::{history_info, sync_status};
use crate::view::View;

/// Longest time between two redraws of the bar: the time left changes even if nothing arrives.
const REDRAW: Duration = Duration::from_millis(500);
/// The rate of older blocks is that of the last ten seconds, in milliseconds. A shorter time would
/// make the estimate jump, a longer one would make it late.
const MEASURED_MS: u64 = 10_000;

/// Shows a bar while history is fetched and applied, and then while older blocks are fetched and
/// executed, until the node stops. Shows nothing if stderr is not a terminal.
pub(crate) async fn run(view: View, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    if !crate::screen::is_drawable(&io::stderr()) {
        return stop.await;
    }
    let (mut bar, mut changes) = (Bar::default(), view.sync.clone());
    let mut older = Older::default();
    loop {
        let (now, tip) = (wall_ms(), view.tip.borrow().state.tip().height);
        let shown = older.look(&history_info(&view, tip), tip.0, now);
        let mut shown = sync(&sync_status(&view, now)).or(shown);
        if let (Some(shown), Some(seeking)) = (&mut shown, &*view.seeking.borrow()) {
            shown.line.push_str(&format!(", {seeking}"));
        }
        bar.show(shown);
        let changed = async {
            if changes.changed().await.is_err() {
                // The sync task has ended, so the node is stopping.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = &mut stop => return,
            () = changed => {}
            () = tokio::time::sleep(REDRAW) => {}
        }
    }
}

/// What the bar shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    done: u64,
    total: u64,
    line: String,
}

/// Progress of sync. `None` if nothing is fetched.
fn sync(status: &SyncStatus) -> Option<Shown> {
    let is_fetching = matches!(
        status.state,
        SyncState::Manifest | SyncState::Chunks | SyncState::Applying | SyncState::Snapshot
    );
    let (done, total) = (status.chunks_verified, status.chunks_total);
    is_fetching.then(|| Shown { done, total, line: line(status) })
}

/// How fast a node fetches or executes blocks below its tip.
#[derive(Default)]
struct Older {
    phase: HistoryPhase,
    /// Times in milliseconds, and how high the node had come then.
    heights: VecDeque<(u64, u64)>,
}

impl Older {
    /// Progress of the phase. `None` for a node that fetches a part of history, since that is no
    /// fixed amount.
    fn look(&mut self, history: &HistoryInfo, tip: u64, now_ms: u64) -> Option<Shown> {
        if history.phase != self.phase {
            *self = Self { phase: history.phase, ..Self::default() };
        }
        let (word, done) = match history.phase {
            HistoryPhase::Backfill if history.keep == "full" => {
                ("backfill", history.checked_by_hash_to)
            }
            HistoryPhase::Audit => ("audit", history.executed_to),
            HistoryPhase::Backfill | HistoryPhase::Done => return None,
        };
        self.heights.push_back((now_ms, done));
        let is_old = |(at, _): &(u64, u64)| now_ms.saturating_sub(*at) > MEASURED_MS;
        while self.heights.front().is_some_and(is_old) {
            self.heights.pop_front();
        }
        let percent = u128::from(done).saturating_mul(100).checked_div(u128::from(tip))?;
        let mut line = format!("{word}, height {done}/{tip} ({percent}%)");
        if let Some(ms) = self.left_ms(tip) {
            line.push_str(&format!(", {} left", time_left(ms)));
        }
        Some(Shown { done, total: tip, line })
    }

    /// Milliseconds until the tip, if the rate stays. `None` without a rate.
    fn left_ms(&self, tip: u64) -> Option<u64> {
        let ((began, from), (at, to)) = (self.heights.front()?, self.heights.back()?);
        let (ms, blocks) = (at.saturating_sub(*began), to.saturating_sub(*from));
        let left = u128::from(tip.saturating_sub(*to)).saturating_mul(u128::from(ms));
        u64::try_from(left.checked_div(u128::from(blocks))?).ok()
    }
}

/// The bar, while one is shown.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn show(&mut self, shown: Option<Shown>) {
        let Some(Shown { done, total, line }) = shown else { return self.hide() };
        let bar = self.0.get_or_insert_with(|| {
            let bar = SCREEN.add(ProgressBar::no_length());
            match ProgressStyle::with_template("{bar:10} {wide_msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        // The bar is empty until the number of chunks is known.
        bar.set_length(total.max(1));
        bar.set_position(done);
        bar.set_message(line);
    }

    fn hide(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
            SCREEN.remove(&bar);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.hide();
    }
}

/// The status in one line. The most important parts come first, because a terminal may cut the
/// line.
pub(crate) fn line(status: &SyncStatus) -> String {
    let is_over = matches!(status.state, SyncState::Idle | SyncState::Live);
    let counted = chunks(status).filter(|_| !is_over).map(|chunks| format!("chunks {chunks}"));
    let mut parts = match (status.state, counted) {
        (SyncState::Chunks, Some(counted)) => vec![counted],
        (state, counted) => std::iter::once(state.to_string()).chain(counted).collect(),
    };
    parts.extend(status.reason.clone());
    parts.extend(status.rate.map(rate));
    parts.extend(status.eta_ms.map(|ms| format!("{} left", time_left(ms))));
    parts.push(format!("height {}", heights(status)));
    parts.push(match status.peers.len() {
        1 => "1 peer".to_owned(),
        count => format!("{count} peers"),
    });
    parts.join(", ")
}

/// The applied height, and the target if it is higher.
pub(crate) fn heights(status: &SyncStatus) -> String {
    let (applied, target) = (status.applied_height, status.target_height);
    if applied < target { format!("{applied}/{target}") } else { applied.to_string() }
}

/// Verified and total chunks; `None` if there are none. The percentage is rounded down, so only all
/// chunks are 100%.
pub(crate) fn chunks(status: &SyncStatus) -> Option<String> {
    let (verified, total) = (status.chunks_verified, status.chunks_total);
    let percent = (u128::from(verified) * 100).checked_div(u128::from(total))?;
    Some(format!("{verified}/{total} ({percent}%)"))
}

pub(crate) fn rate(bytes: u64) -> String {
    format!("{}/s", DecimalBytes(bytes))
}

/// A duration in at most two numbers, with seconds rounded up, so that it is never 0 s.
pub(crate) fn time_left(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000).max(1);
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (1..48, minutes) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ledger::api::SyncPeer;

    use super::*;

    /// The status of a node at height 1,200 of 8,000 with 199 of 200 chunks.
    pub(crate) fn status(state: SyncState) -> SyncStatus {
        SyncStatus {
            state,
            target_height: 8_000,
            applied_height: 1_200,
            segments: 3,
            segments_total: 20,
            chunks_total: 200,
            chunks_verified: 199,
            bytes_total: 200_000,
            bytes_verified: 199_000,
            fetched_bytes: 199_000,
            ..SyncStatus::default()
        }
    }

    #[test]
    fn a_line_says_what_there_is_to_say() {
        let peer = SyncPeer {
            peer: "12D3".to_owned(),
            height: 8_000,
            segments: 20,
            partial_chunks: 0,
            in_flight: 4,
            fetched_bytes: 1,
            fetch_rate: 1,
            served_bytes: 1,
            serve_rate: 1,
        };
        let peers = vec![peer; 3];
        let reason = |text: &str| Some(text.to_owned());
        for (status, text) in [
            (
                SyncStatus {
                    rate: Some(4_810_000),
                    eta_ms: Some(12_001),
                    peers,
                    ..status(SyncState::Chunks)
                },
                "chunks 199/200 (99%), 4.81 MB/s, 13 s left, height 1200/8000, 3 peers",
            ),
            (
                SyncStatus {
                    reason: reason("no connected peer has the missing chunks of segment 17"),
                    ..status(SyncState::Chunks)
                },
                "chunks 199/200 (99%), no connected peer has the missing chunks of segment 17, \
                 height 1200/8000, 0 peers",
            ),
            (
                SyncStatus { chunks_verified: 200, ..status(SyncState::Applying) },
                "applying, chunks 200/200 (100%), height 1200/8000, 0 peers",
            ),
            (
                SyncStatus { chunks_verified: 0, chunks_total: 0, ..status(SyncState::Manifest) },
                "manifest, height 1200/8000, 0 peers",
            ),
            (
                SyncStatus { applied_height: 8_000, ..status(SyncState::Live) },
                "live, height 8000, 0 peers",
            ),
            (
                SyncStatus {
                    target_height: 1_200,
                    reason: reason("no peer is connected"),
                    ..status(SyncState::Idle)
                },
                "idle, no peer is connected, height 1200, 0 peers",
            ),
        ] {
            assert_eq!(line(&status), text);
        }
    }

    #[test]
    fn older_blocks_have_a_time_left_by_the_rate_of_the_last_seconds() {
        let mut older = Older::default();
        for (phase, keep, now_ms, height, text) in [
            (HistoryPhase::Done, "full", 0, 8_000, None),
            (HistoryPhase::Backfill, "20GiB", 500, 0, None),
            (
                HistoryPhase::Backfill,
                "full",
                1_000,
                1_000,
                Some("backfill, height 1000/8000 (12%)"),
            ),
            (
                HistoryPhase::Backfill,
                "full",
                2_000,
                2_000,
                Some("backfill, height 2000/8000 (25%), 6 s left"),
            ),
            // Ten seconds later only the last of them count.
            (
                HistoryPhase::Backfill,
                "full",
                12_000,
                4_000,
                Some("backfill, height 4000/8000 (50%), 20 s left"),
            ),
            // Nothing arrives.
            (
                HistoryPhase::Backfill,
                "full",
                30_000,
                4_000,
                Some("backfill, height 4000/8000 (50%)"),
            ),
            (HistoryPhase::Audit, "full", 31_000, 100, Some("audit, height 100/8000 (1%)")),
            (
                HistoryPhase::Audit,
                "full",
                32_000,
                200,
                Some("audit, height 200/8000 (2%), 1 min 18 s left"),
            ),
            (HistoryPhase::Done, "full", 33_000, 8_000, None),
        ] {
            let (executed_to, checked_by_hash_to) = match phase {
                HistoryPhase::Audit => (height, 8_000),
                _ => (0, height),
            };
            let keep = keep.to_owned();
            let history =
                HistoryInfo { keep, phase, executed_to, checked_by_hash_to, ..Default::default() };
            let shown = older.look(&history, 8_000, now_ms);
            assert_eq!(shown.as_ref().map(|shown| &*shown.line), text, "{now_ms}");
            assert!(shown.is_none_or(|shown| (shown.done, shown.total) == (height, 8_000)));
        }
    }

    #[test]
    fn times_left_are_short_and_never_nothing() {
        for (ms, text) in [
            (0, "1 s"),
            (59_000, "59 s"),
            (59_001, "1 min 0 s"),
            (3_599_000, "59 min 59 s"),
            (3_600_000, "1 h 0 min"),
            (172_799_000, "47 h 59 min"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(time_left(ms), text, "{ms}");
        }
    }

    #[test]
    fn the_bar_is_there_while_history_comes_and_gone_after() {
        let mut bar = Bar::default();
        for (state, is_there) in [
            (SyncState::Idle, false),
            (SyncState::Manifest, true),
            (SyncState::Chunks, true),
            (SyncState::Applying, true),
            (SyncState::Snapshot, true),
            (SyncState::Tail, false),
            (SyncState::Chunks, true),
            (SyncState::Live, false),
        ] {
            bar.show(sync(&status(state)));
            assert_eq!(bar.0.is_some(), is_there, "{state}");
            if let Some(bar) = &bar.0 {
                assert_eq!((bar.position(), bar.length()), (199, Some(200)));
                assert_eq!(bar.message(), line(&status(state)));
            }
        }
    }
}
