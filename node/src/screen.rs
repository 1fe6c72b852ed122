//! stderr and stdout as screens: what may be drawn, and what happens when nobody looks.
//!
//! A log that is lost never ends a node: whoever reads a pipe may go away, a disk may be full, a terminal
//! may be closed. So all writing to stderr here swallows its errors.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use anstream::{AutoStream, ColorChoice};
use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// What is drawn on stderr. One for the process, as there is one stderr; empty but for the bar of `run`.
pub(crate) static SCREEN: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(draw_target()));

/// Redraws a second, at most.
const REDRAWS: u8 = 20;

/// Whether lines may be drawn over on a stream: a terminal that knows how to move its cursor.
pub(crate) fn is_drawable(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether the log on stderr has colours: on terminals, unless `NO_COLOR`, `CLICOLOR=0` or `TERM=dumb` say
/// otherwise; elsewhere with `CLICOLOR_FORCE=1`.
pub(crate) fn has_colours() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Where bars are drawn: on stderr if it can be drawn on, else nowhere.
pub(crate) fn draw_target() -> ProgressDrawTarget {
    match is_drawable(&io::stderr()) {
        true => ProgressDrawTarget::term_like_with_hz(Box::new(Bearing(Term::buffered_stderr())), REDRAWS),
        false => ProgressDrawTarget::hidden(),
    }
}

/// Says a line on stderr.
pub(crate) fn say(text: &str) {
    let mut line = text.trim_end_matches('\n').to_owned();
    line.push('\n');
    let _lost = Stderr.write(line.as_bytes());
}

/// stderr for the log: the bar gives way to each line and comes back below it.
pub(crate) struct Stderr;

impl Stderr {
    pub(crate) const fn new() -> Self {
        Self
    }
}

impl Write for Stderr {
    /// Never fails: whoever writes would report an error on stderr, and panic.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All of it, so that a line is not cut by the bar.
        let _lost = SCREEN.suspend(|| io::stderr().lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _lost = io::stderr().flush();
        Ok(())
    }
}

/// A terminal that may be gone. The drawing library panics on an error while a bar gives way.
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
