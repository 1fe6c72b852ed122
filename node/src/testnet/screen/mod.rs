//! The whole terminal as a view of a local network: nodes, links, blocks, history, accounts and
//! log, and keys that break and mend it. `docs/screen.md` has a picture.
//!
//! Drawing is a function of an [`Overview`] and of the user's [`Choices`], and a key changes only
//! the choices or asks for an action. This file has the input and output around it.

mod canvas;
mod choices;
mod draw;
mod filter;
mod help;
mod history;
mod layout;
mod ledger;
mod links;
mod log;
mod nodes;
mod prompt;
mod terminal;
mod text;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use std::env;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ratatui_crossterm::crossterm::event::{self, Event};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::action::Action;
use super::overview::Overview;
use crate::clock::wall_ms;
use choices::{Choices, Command};
use terminal::{Taken, give_back, is_lost};

/// Longest time until a new overview is drawn. Keys are drawn at once.
const TICK: Duration = Duration::from_millis(100);
/// The screen is drawn at least this often, so that ages and uptimes go on when nothing else is
/// new.
const REDRAW: Duration = Duration::from_secs(1);
/// Longest time that a dropped [`Screen`] waits for its thread to end. The thread takes longer only
/// if the terminal does not take what is written to it. Then the terminal is given back without the
/// thread.
const END_MAX: Duration = Duration::from_millis(500);

/// Longest time from the wish to suspend this process to its stop.
const SUSPEND_MAX: Duration = Duration::from_secs(2);

/// Shows the network on the whole terminal until the user quits, or until nobody updates the
/// overview. Stdin and stdout must be terminals.
///
/// Dropping the future gives the terminal back. While the screen is shown, lines for stderr are
/// kept for later. The screen has a thread of its own, so a slow terminal delays nobody. An action
/// that finds `actions` full is not sent, and the user is told.
///
/// # Errors
/// The terminal refuses, or is gone.
pub(super) async fn show(
    overview: watch::Receiver<Arc<Overview>>,
    actions: mpsc::Sender<Action>,
) -> anyhow::Result<()> {
    // Listening begins before the thread does, so that no signal is missed.
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let resumed = SignalKind::from_raw(Signal::CONT.as_raw());
    let mut resumed = signal(resumed).context("cannot listen for SIGCONT")?;
    let (screen, mut ended) = Screen::start(overview, actions)?;
    loop {
        tokio::select! {
            result = &mut ended => return result.context("the screen ended by a panic")?,
            _ = hangup.recv() => bail!("the terminal is gone"),
            _ = resumed.recv() => screen.tell_resumed(),
        }
    }
}

/// The screen's thread. Dropping this ends it.
struct Screen {
    /// Tells the thread that the process was stopped and goes on. Once this is gone, the thread
    /// ends.
    resumed: Option<Sender<()>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Screen {
    fn start(
        overview: watch::Receiver<Arc<Overview>>,
        actions: mpsc::Sender<Action>,
    ) -> anyhow::Result<(Self, oneshot::Receiver<anyhow::Result<()>>)> {
        let (resumes, resumed) = channel();
        let (result, results) = oneshot::channel();
        let (guard, ended): (Sender<()>, _) = channel();
        let choices = Choices::new(has_colours());
        let mut view = View { overview, actions, resumed, choices };
        let run = move || {
            let _guard = guard;
            // Nobody waits for the result if the future was dropped.
            let _unheard = result.send(view.run());
        };
        let thread = std::thread::Builder::new().name("screen".to_owned());
        thread.spawn(run).context("cannot start the thread of the screen")?;
        Ok((Self { resumed: Some(resumes), ended }, results))
    }

    fn tell_resumed(&self) {
        // An error means that the thread has ended.
        let _ = self.resumed.as_ref().map(|resumed| resumed.send(()));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.resumed = None;
        if self.ended.recv_timeout(END_MAX) == Err(RecvTimeoutError::Timeout) {
            give_back();
        }
    }
}

/// What the thread owns.
struct View {
    overview: watch::Receiver<Arc<Overview>>,
    actions: mpsc::Sender<Action>,
    /// Receives a message when the process was stopped and goes on, since the terminal may then be
    /// in another state. Once the sender is gone, the screen ends.
    resumed: Receiver<()>,
    choices: Choices,
}

impl View {
    /// Draws and takes keys until the end.
    fn run(&mut self) -> anyhow::Result<()> {
        let mut terminal = Taken::take().context("the terminal cannot be taken over")?;
        let mut drawn_at: Option<Instant> = None;
        loop {
            ensure!(!is_lost(), "a part of this program ended by a panic");
            match self.resumed.try_recv() {
                Ok(()) => {
                    terminal.take_again().context("the terminal is gone")?;
                    drawn_at = None;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            let has_news = match self.overview.has_changed() {
                Ok(has_changed) => has_changed,
                Err(_) => return Ok(()),
            };
            if has_news || drawn_at.is_none_or(|at| at.elapsed() >= REDRAW) {
                self.draw(&mut terminal)?;
                drawn_at = Some(Instant::now());
            }
            if event::poll(TICK).context("the terminal is gone")? {
                match event::read().context("the terminal is gone")? {
                    Event::Key(key) => {
                        let overview = Arc::clone(&self.overview.borrow());
                        if let Some(command) = self.choices.on_key(key, &overview) {
                            if command == Command::Quit {
                                return Ok(());
                            }
                            self.perform(command, &mut terminal)?;
                        }
                    }
                    Event::Resize(..) => {}
                    _ => continue,
                }
                drawn_at = None;
            }
        }
    }

    fn draw(&mut self, terminal: &mut Taken) -> anyhow::Result<()> {
        let overview = Arc::clone(&self.overview.borrow_and_update());
        self.choices.now_ms = wall_ms();
        let choices = &self.choices;
        let drawn = terminal.screen().draw(|frame| draw::draw(frame, &overview, choices));
        drawn.context("the terminal is gone")?;
        Ok(())
    }

    fn perform(&mut self, command: Command, terminal: &mut Taken) -> anyhow::Result<()> {
        match command {
            Command::Act(action) => {
                if self.actions.try_send(action).is_err() {
                    let note = "the network is busy and did not take this; try again";
                    self.choices.note = Some(note.to_owned());
                }
            }
            Command::Suspend => {
                give_back();
                // The nodes go on. This process stops here until the shell lets it go on.
                kill_process(getpid(), Signal::TSTP).context("this program cannot stop itself")?;
                // The system may stop the process a moment after it was told to. If no shell could
                // let the process go on, it is not stopped at all.
                let _in_time = self.resumed.recv_timeout(SUSPEND_MAX);
                terminal.take_again().context("the terminal is gone")?;
            }
            Command::Redraw => terminal.take_again().context("the terminal is gone")?,
            Command::Quit => {}
        }
        Ok(())
    }
}

/// Whether colours may be used (<https://no-color.org>).
fn has_colours() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The heading of a pane: brackets mark the chosen one, also without colours.
fn heading(name: &str, about: &str, is_chosen: bool) -> String {
    let name = if is_chosen { format!("[{name}]") } else { name.to_owned() };
    if about.is_empty() { name } else { format!("{name} {about}") }
}

/// The rows of a list that are in sight, such that the chosen one is among them.
fn window(count: usize, rows: usize, chosen: usize) -> Range<usize> {
    if count <= rows {
        return 0..count;
    }
    let start = (chosen + 1).saturating_sub(rows).min(count - rows);
    start..start + rows
}
