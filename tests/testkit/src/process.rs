//! Processes: one that runs until it is stopped or killed, and one that is waited for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait::{PATIENCE, poll_at_once, until};

/// Lines of a log that explain a failure.
const TAIL_LINES: usize = 40;

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Held open while the process shall run: a node that is started with `--exit-with-parent` ends
    /// when its stdin does.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts it, with its output appended to a file.
    ///
    /// # Errors
    /// When the log cannot be opened, or the program cannot start.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let errors = log.try_clone()?;
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        let mut child = command.spawn()?;
        Ok(Self { stdin: child.stdin.take(), child })
    }

    /// Starts it, with its output appended to a file.
    ///
    /// # Panics
    /// When it cannot start.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        Self::start(command, log)
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Kill -9. Returns before the process is gone; see [`Self::wait`].
    pub fn kill(&mut self) {
        // An error means that the process has already ended.
        let _ = self.child.kill();
    }

    /// Closes its stdin, as the end of its parent would.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended, and returns its exit status.
    ///
    /// # Panics
    /// When it has not ended after two minutes.
    pub fn wait(&mut self) -> ExitStatus {
        until("a process ends", || self.ended())
    }

    /// Waits until it has ended; `None` if it has not within this time.
    pub fn wait_for(&mut self, time: Duration) -> Option<ExitStatus> {
        poll_at_once(time, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Whether the process with this id has ended, even if it is still a zombie. `None` where the
/// system has no `/proc`.
#[must_use]
pub fn is_gone(pid: u32) -> Option<bool> {
    let is_over =
        |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    let stat = Path::new("/proc").join(pid.to_string()).join("stat");
    Path::new("/proc/self/stat").exists().then(|| fs::read_to_string(stat).map_or(true, is_over))
}

/// Whether the process with this id has ended, even if it is still a zombie. True where the system
/// has no `/proc`.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    is_gone(pid).unwrap_or(true)
}

/// Result of a process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not start, or does not end within two minutes.
pub fn finish(command: &mut Command) -> Finished {
    match finish_within(command, PATIENCE) {
        Ok(Some(finished)) => finished,
        Ok(None) => panic!("waited {PATIENCE:?} in vain: {command:?} ends"),
        Err(error) => panic!("{command:?} does not start: {error}"),
    }
}

/// Runs a command to its end. After this time it is killed, and the result is `None`.
///
/// # Errors
/// When it does not start, or its output cannot be read.
pub fn finish_within(command: &mut Command, time: Duration) -> io::Result<Option<Finished>> {
    // Files instead of pipes: a full pipe that no one reads would block the process.
    let (stdout, stderr) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    command.stdin(Stdio::null()).stdout(stdout.reopen()?).stderr(stderr.reopen()?);
    let mut process = Process { child: command.spawn()?, stdin: None };
    let Some(status) = process.wait_for(time) else { return Ok(None) };
    let text = |file: &tempfile::NamedTempFile| {
        fs::read(file.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Some(Finished { code: status.code(), stdout: text(&stdout)?, stderr: text(&stderr)? }))
}

/// The last lines of a log, or why there are none.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text =
        File::open(log).and_then(io::read_to_string).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Shows the end of a log on stderr, to explain a failed test.
pub fn show_tail(log: &Path) {
    eprintln!("--- {}\n{}", log.display(), tail(log));
}
