//! Shows the heights of the nodes: one live line on a terminal, or a plain line now and then.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::screen::{draw_target, say};

/// Least time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two frames of the live line.
const SPIN: Duration = Duration::from_millis(120);

/// Where heights are shown.
pub(super) enum Progress {
    /// On a terminal.
    Live(ProgressBar),
    /// Anywhere else.
    Plain {
        /// The last line shown, and when.
        last: Option<(String, Instant)>,
    },
}

impl Progress {
    pub(super) fn new(screen: bool) -> Self {
        if !screen {
            return Self::Plain { last: None };
        }
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(draw_target());
        bar.enable_steady_tick(SPIN);
        Self::Live(bar)
    }

    /// Shows the heights of all nodes; `None` for a node that does not answer.
    pub(super) fn show(&mut self, heights: &[Option<u64>], now: Instant) {
        let text = describe(heights);
        match self {
            Self::Live(bar) => bar.set_message(text),
            Self::Plain { last } => {
                let due = |(shown, at): &(String, Instant)| {
                    *shown != text && now.duration_since(*at) >= LINE_INTERVAL
                };
                if last.as_ref().is_none_or(due) {
                    // The reader of stdout may have gone. The network goes on.
                    let _ = crate::output::print(&text);
                    *last = Some((text, now));
                }
            }
        }
    }

    /// Writes a line that stays.
    pub(super) fn note(&self, text: &str) {
        match self {
            Self::Live(bar) => bar.suspend(|| say(text)),
            Self::Plain { .. } => say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Describes the height that two thirds of the answering nodes have reached, how many have reached
/// it, and which nodes are behind or do not answer.
fn describe(heights: &[Option<u64>]) -> String {
    let mut reached: Vec<u64> = heights.iter().flatten().copied().collect();
    reached.sort_unstable_by(|a, b| b.cmp(a));
    let Some(height) = reached.get((2 * reached.len()).div_ceil(3).saturating_sub(1)).copied()
    else {
        return "no node answers".to_owned();
    };
    let have = reached.iter().filter(|reached| **reached >= height).count();
    let mut text = format!("height {height} final on {have} of {} nodes", heights.len());
    for (index, other) in heights.iter().enumerate() {
        let number = index.saturating_add(1);
        match other {
            None => text += &format!(", node{number} does not answer"),
            Some(other) if *other < height => text += &format!(", node{number} at {other}"),
            Some(_) => {}
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_told_as_most_have_them() {
        for (heights, text) in [
            (&[Some(12); 4][..], "height 12 final on 4 of 4 nodes"),
            (&[Some(0)], "height 0 final on 1 of 1 nodes"),
            (&[Some(13), Some(12), Some(12), Some(12)], "height 12 final on 4 of 4 nodes"),
            (
                &[Some(13), Some(13), Some(13), Some(12)],
                "height 13 final on 3 of 4 nodes, node4 at 12",
            ),
            (
                &[Some(13), None, Some(13), Some(13)],
                "height 13 final on 3 of 4 nodes, node2 does not answer",
            ),
            (&[None, None], "no node answers"),
            (&[], "no node answers"),
        ] {
            assert_eq!(describe(heights), text);
        }
    }

    #[test]
    fn plain_lines_are_rare() {
        let mut progress = Progress::new(false);
        let start = Instant::now();
        let shown = |progress: &Progress| match progress {
            Progress::Plain { last } => last.clone().unwrap().0,
            Progress::Live(_) => panic!("asked for plain"),
        };
        for (ms, height, text) in [
            (0, 1, "height 1 final on 1 of 1 nodes"),
            (200, 2, "height 1 final on 1 of 1 nodes"),
            (1200, 3, "height 3 final on 1 of 1 nodes"),
        ] {
            progress.show(&[Some(height)], start + Duration::from_millis(ms));
            assert_eq!(shown(&progress), text);
        }
    }
}
