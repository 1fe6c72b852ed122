//! Processes: one that goes on until it is told or killed, and one that is waited for.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::until;

/// Lines of a log that are shown when a story fails.
const TAIL_LINES: usize = 40;

/// A process that goes on. Killed when dropped.
pub struct Process {
    child: Child,
    /// Open for as long as it shall run: nodes end with it.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts it, with what it says appended to a file.
    ///
    /// # Panics
    /// When it cannot start.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(log).expect("a log can be opened");
        let errors = log.try_clone().expect("a log has two writers");
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { stdin: child.stdin.take(), child }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Kill -9. Returns before it is gone; see [`Self::wait`].
    pub fn kill(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
    }

    /// SIGTERM.
    ///
    /// # Panics
    /// When it has ended before.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Any signal.
    ///
    /// # Panics
    /// When it has ended before.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(pid, signal).expect("a child that was not waited for can be signalled");
    }

    /// Ends its stdin, as the end of its parent would.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        until("a process ends", || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Whether the process with this id has ended, also if nobody has waited for it yet.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    let is_over = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, is_over)
}

/// What a process that was waited for has left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// When it does not start, or does not end.
pub fn finish(command: &mut Command) -> Finished {
    // Files, as a pipe that nobody reads would hold it up.
    let [stdout, stderr] = [(), ()].map(|()| tempfile::NamedTempFile::new().expect("a temporary file"));
    let file = |file: &tempfile::NamedTempFile| file.reopen().expect("a temporary file opens again");
    command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut process = Process { child, stdin: None };
    let status = until(&format!("{command:?} ends"), || process.ended());
    let text = |file: &tempfile::NamedTempFile| fs::read_to_string(file.path()).expect("output is text");
    Finished { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
}

/// Shows the end of a log, for whoever looks into a story that failed.
pub(super) fn show_tail(log: &PathBuf) {
    let text = File::open(log).and_then(std::io::read_to_string).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- {}", log.display());
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| eprintln!("{line}"));
}
