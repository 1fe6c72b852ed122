//! Reads secrets at the terminal without showing them, and leaves the terminal as it was, however
//! the program ends.
//!
//! Ctrl-C and other signals that end or stop a program would leave the shell without echo. From the
//! first secret on, a thread catches these signals, restores the terminal, and then lets the signal
//! have its default effect.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

/// The terminal and its modes before echo was switched off. `None` while echo is on.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);
/// Set once the signal thread runs. The thread lives as long as the process, since without it
/// nothing would act on these signals any more.
static HEARD: OnceLock<()> = OnceLock::new();

/// Switches echo off until dropped.
struct Hidden {
    tty: File,
    /// Whether unread input is discarded when the terminal is restored.
    unread: OptionalActions,
}

impl Hidden {
    fn new() -> io::Result<Self> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        if HEARD.get().is_none() {
            let signals = Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGTSTP])?;
            std::thread::Builder::new().name("signals".to_owned()).spawn(move || hear(signals))?;
            let _ = HEARD.set(());
        }
        *before() = Some((tty.try_clone()?, tcgetattr(&tty)?));
        let hidden = Self { tty, unread: OptionalActions::Flush };
        hide()?;
        Ok(hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        restore(self.unread);
        *before() = None;
    }
}

fn before() -> MutexGuard<'static, Option<(File, Termios)>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hide() -> io::Result<()> {
    if let Some((tty, before)) = &*before() {
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        tcsetattr(tty, OptionalActions::Now, &modes)?;
    }
    Ok(())
}

fn restore(unread: OptionalActions) {
    if let Some((tty, before)) = &*before() {
        let _ = tcsetattr(tty, unread, before);
    }
}

fn hear(mut signals: Signals) {
    for signal in signals.forever() {
        // Input that was typed but not read was meant to be secret, so the shell must not get it.
        restore(OptionalActions::Flush);
        // This returns only if the process was stopped (SIGTSTP) and continued. Then the program
        // still waits for the secret, so echo is switched off again.
        let _ = emulate_default_handler(signal);
        let _ = hide();
    }
}

/// Writes the prompt and reads lines until `is_enough` holds, or until the end of input. Echo is
/// off. With `linger`, the function then waits that long and discards further input. Such input is
/// the rest of a paste, which the shell would otherwise run and keep in its history. Without
/// `linger`, further input stays for the next question, unless there was an error.
///
/// # Errors
/// No terminal, an error of the terminal, text that is not UTF-8, or `bytes_max` bytes or more.
pub(crate) fn read_lines(
    prompt: &str,
    bytes_max: usize,
    linger: Option<Duration>,
    is_enough: impl Fn(&str) -> bool,
) -> io::Result<Zeroizing<String>> {
    let mut hidden = Hidden::new()?;
    let mut tty = &hidden.tty;
    tty.write_all(prompt.as_bytes())?;
    let mut bytes = Zeroizing::new(vec![0; bytes_max]);
    let mut length = 0;
    let text = loop {
        // The terminal delivers a line at a time, so no input for the next question is taken.
        let got = if length < bytes_max { tty.read(&mut bytes[length..]) } else { Ok(0) };
        length += got.as_ref().map_or(0, |got| *got);
        let text = std::str::from_utf8(&bytes[..length]).ok();
        match (got, text) {
            (Err(error), _) => break Err(error),
            (Ok(_), None) => break Err(io::Error::new(io::ErrorKind::InvalidData, "not UTF-8")),
            (Ok(_), Some(_)) if length == bytes_max => {
                break Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("more than {bytes_max} bytes"),
                ));
            }
            (Ok(got), Some(text)) if got == 0 || is_enough(text) => {
                break Ok(Zeroizing::new(text.to_owned()));
            }
            (Ok(_), Some(_)) => {}
        }
    };
    let _ = tty.write_all(b"\n");
    match linger {
        // Nothing marks the end of a paste, so only time can show that it is over.
        Some(linger) => std::thread::sleep(linger),
        None if text.is_ok() => hidden.unread = OptionalActions::Now,
        None => {}
    }
    text
}
