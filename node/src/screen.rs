//! stderr, shared by the log and the progress bar.

use std::io::{self, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;

/// What is drawn on stderr. One for the process, as there is one stderr; empty but for the bar of `run`.
pub(crate) static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// stderr for the log: the bar gives way to each line and comes back below it.
pub(crate) struct Stderr;

impl Stderr {
    pub(crate) const fn new() -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All of it, so that a line is not cut by the bar.
        SCREEN.suspend(|| io::stderr().lock().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
