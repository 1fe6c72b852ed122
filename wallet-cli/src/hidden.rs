//! Reads secrets at the terminal without showing them, and leaves the terminal as it was, however the program ends.
//!
//! Ctrl-C and the other signals that end or stop a program would leave a shell without echo. A thread hears them from the first
//! secret on, restores the terminal, and then lets the signal do what it does by default.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use zeroize::Zeroizing;

/// The terminal as it was, while it shows nothing.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);
/// Whether signals are heard. Once they are, it is for the life of the process: nobody else would act on them.
static HEARD: OnceLock<()> = OnceLock::new();

/// Shows nothing of what is typed, until dropped.
struct Hidden {
    tty: File,
    /// What becomes of input that nobody has read when the terminal is restored.
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
        // What was typed and not read was meant to be secret, so the shell must not get it.
        restore(OptionalActions::Flush);
        // Does not return, except for a stop, after which the secret is still asked for.
        let _ = emulate_default_handler(signal);
        let _ = hide();
    }
}

/// Asks and reads lines until there are enough, or until the end of input. None of it is shown. Of text that is pasted, what comes
/// within `linger` after that, or after an error, is dropped: the shell would run it and keep it. Without `linger` it stays for
/// the next question.
///
/// # Errors
/// When there is no terminal, or more than so many bytes are typed.
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
        // The terminal gives a line at a time, so nothing that belongs to the next question is taken.
        let got = if length < bytes_max { tty.read(&mut bytes[length..]) } else { Ok(0) };
        length += got.as_ref().map_or(0, |got| *got);
        let text = std::str::from_utf8(&bytes[..length]).ok();
        match (got, text) {
            (Err(error), _) => break Err(error),
            (Ok(_), None) => break Err(io::Error::new(io::ErrorKind::InvalidData, "not UTF-8")),
            (Ok(_), Some(_)) if length == bytes_max => {
                break Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {bytes_max} bytes")));
            }
            (Ok(got), Some(text)) if got == 0 || is_enough(text) => break Ok(Zeroizing::new(text.to_owned())),
            (Ok(_), Some(_)) => {}
        }
    };
    let _ = tty.write_all(b"\n");
    match linger {
        // The rest of a paste comes without a mark at its end, so only time can tell that it is over.
        Some(linger) => std::thread::sleep(linger),
        None if text.is_ok() => hidden.unread = OptionalActions::Now,
        None => {}
    }
    text
}
