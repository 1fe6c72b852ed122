//! Progress of sync for people: a line of text for `sync --watch`, and a bar on the terminal of a
//! node in the foreground, which log lines do not garble.

use std::future::Future;
use std::io;
use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use ledger::api::{SyncState, SyncStatus};

use crate::clock::wall_ms;
use crate::screen::SCREEN;
use crate::sync_status::sync_status;
use crate::view::View;

/// Longest time between two redraws of the bar: the time left changes even if nothing arrives.
const REDRAW: Duration = Duration::from_millis(500);

/// Shows a bar while history is fetched and applied, until the node stops. Shows nothing if stderr
/// is not a terminal.
pub(crate) async fn run(view: View, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    if !crate::screen::is_drawable(&io::stderr()) {
        return stop.await;
    }
    let (mut bar, mut changes) = (Bar::default(), view.sync.clone());
    loop {
        bar.show(&sync_status(&view, wall_ms()));
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

/// The bar, while one is shown.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn show(&mut self, status: &SyncStatus) {
        let is_fetching = matches!(
            status.state,
            SyncState::Manifest | SyncState::Chunks | SyncState::Applying | SyncState::Snapshot
        );
        if !is_fetching {
            return self.hide();
        }
        let bar = self.0.get_or_insert_with(|| {
            let bar = SCREEN.add(ProgressBar::no_length());
            match ProgressStyle::with_template("{bar:10} {wide_msg}") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        // The bar is empty until the number of chunks is known.
        bar.set_length(status.chunks_total.max(1));
        bar.set_position(status.chunks_verified);
        bar.set_message(line(status));
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
            bar.show(&status(state));
            assert_eq!(bar.0.is_some(), is_there, "{state}");
            if let Some(bar) = &bar.0 {
                assert_eq!((bar.position(), bar.length()), (199, Some(200)));
                assert_eq!(bar.message(), line(&status(state)));
            }
        }
    }
}
