//! The terminal: taken over as a whole, and given back in whatever way this program goes on or
//! ends.

use std::io::{self, Stdout, Write, stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::Show;
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::screen::{hold_stderr, release_stderr};

/// Whether the terminal is taken over. There is one terminal for the process.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal as a whole, until this is dropped.
pub(super) struct Taken(Terminal<CrosstermBackend<Stdout>>);

impl Taken {
    /// # Errors
    /// The terminal refuses.
    pub(super) fn take() -> io::Result<Self> {
        give_back_at_panic();
        Ok(Self(enter()?))
    }

    pub(super) const fn screen(&mut self) -> &mut Terminal<CrosstermBackend<Stdout>> {
        &mut self.0
    }

    /// Takes the terminal over again, after another program or the shell had it, and draws all of
    /// it at the next frame.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        self.0 = enter()?;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Takes the terminal over and clears it. Nothing is asked of the terminal, since some do not
/// answer.
fn enter() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    IS_TAKEN.store(true, Ordering::SeqCst);
    hold_stderr();
    // Raw mode is asked for anew even if it was on: a shell may have changed the terminal.
    let entered = disable_raw_mode()
        .and_then(|()| enable_raw_mode())
        .and_then(|()| execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All)))
        .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
    if entered.is_err() {
        give_back();
    }
    entered
}

/// Gives the terminal back, if it is taken over. Errors are ignored: the terminal may be gone.
pub(super) fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _lost = disable_raw_mode();
    let _lost = execute!(stdout(), LeaveAlternateScreen, Show);
    let _lost = stdout().flush();
    release_stderr();
}

/// Whether the terminal is not taken over. While the screen is drawn, this means that a panic has
/// given the terminal back.
pub(super) fn is_lost() -> bool {
    !IS_TAKEN.load(Ordering::SeqCst)
}

/// From now on, a panic of any thread first gives the terminal back, so that its message can be
/// read.
fn give_back_at_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            report(info);
        }));
    });
}
