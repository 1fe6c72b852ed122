//! stderr as a screen: whether a bar may be drawn on it, and what happens when it is closed.
//!
//! A lost log never ends a node. The reader of a pipe may go away, a disk may be full, a terminal
//! may be closed. So all writes to stderr here ignore their errors.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// The progress bar of a node that `run` or `join` runs. There is one set of bars for the process,
/// since there is one stderr.
pub(crate) static SCREEN: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(draw_target()));

/// Most redraws per second.
const REDRAWS: u8 = 20;

/// Whether lines can be redrawn on a stream: it is a terminal that can move its cursor.
pub(crate) fn is_drawable(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether the log on stderr has colours: on terminals, unless `NO_COLOR`, `CLICOLOR=0` or
/// `TERM=dumb` say otherwise; elsewhere with `CLICOLOR_FORCE=1`.
pub(crate) fn has_colours() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Where bars are drawn: on stderr if it is drawable, else nowhere.
pub(crate) fn draw_target() -> ProgressDrawTarget {
    match is_drawable(&io::stderr()) {
        true => ProgressDrawTarget::term_like_with_hz(
            Box::new(Bearing(Term::buffered_stderr())),
            REDRAWS,
        ),
        false => ProgressDrawTarget::hidden(),
    }
}

/// Most bytes that are kept while stderr is held. Later writes are lost. Only the screen of
/// `testnet` holds stderr, and its nodes log to files of their own.
const HELD_MAX: usize = 64 << 10;

/// What was written while stderr is held; `None` while it is not.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Vec<u8>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what this process writes to stderr, since the whole terminal shows something else.
pub(crate) fn hold_stderr() {
    held().get_or_insert_default();
}

/// Writes what was kept, and lets stderr pass again.
pub(crate) fn release_stderr() {
    let kept = held().take().unwrap_or_default();
    let _lost = io::stderr().lock().write_all(&kept);
}

/// Keeps the bytes if stderr is held, and returns whether it is. Whole writes are kept or lost, so
/// that no line is cut.
fn keep(bytes: &[u8]) -> bool {
    let mut held = held();
    let Some(kept) = &mut *held else { return false };
    if kept.len() + bytes.len() <= HELD_MAX {
        kept.extend_from_slice(bytes);
    }
    true
}

/// Writes a line to stderr, above a bar.
pub(crate) fn say(text: &str) {
    let mut line = text.trim_end_matches('\n').to_owned();
    line.push('\n');
    let _lost = Stderr.write(line.as_bytes());
}

/// stderr for the log. A bar is cleared for each line and redrawn below it.
pub(crate) struct Stderr;

impl Stderr {
    pub(crate) const fn new() -> Self {
        Self
    }
}

impl Write for Stderr {
    /// Never fails: the caller would report the error on stderr, and panic.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if keep(bytes) {
            return Ok(bytes.len());
        }
        // All bytes are written at once, so that the bar does not cut a line.
        let _lost = SCREEN.suspend(|| io::stderr().lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _lost = io::stderr().flush();
        Ok(())
    }
}

/// A terminal that ignores errors, since it may be gone. The drawing library panics on an error
/// while it suspends a bar.
#[derive(Debug)]
struct Bearing(Term);

impl Bearing {
    #[expect(clippy::unnecessary_wraps, reason = "the trait's shape")]
    fn bear(result: io::Result<()>) -> io::Result<()> {
        let _lost = result;
        Ok(())
    }
}

impl TermLike for Bearing {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        Self::bear(self.0.move_cursor_up(lines))
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        Self::bear(self.0.move_cursor_down(lines))
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        Self::bear(self.0.move_cursor_right(columns))
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        Self::bear(self.0.move_cursor_left(columns))
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        Self::bear(self.0.write_line(text))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        Self::bear(self.0.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        Self::bear(self.0.clear_line())
    }

    fn flush(&self) -> io::Result<()> {
        Self::bear(self.0.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_kept_while_stderr_is_held_up_to_a_bound() {
        assert!(!keep(b"passes\n"));
        hold_stderr();
        assert!(keep(b"first\n"));
        hold_stderr();
        assert!(keep(&[b'x'; HELD_MAX]) && keep(b"last\n"), "held, even if there is no room");
        assert_eq!(held().take().as_deref(), Some(&b"first\nlast\n"[..]));
        release_stderr();
        assert!(!keep(b"passes\n"));
    }
}
