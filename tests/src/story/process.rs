//! Processes: one that runs until it is stopped or killed, and one that is waited for.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::until;

/// Lines of a log shown when a story fails.
const TAIL_LINES: usize = 40;

/// A running process. Killed when dropped.
pub struct Process {
    child: Child,
    /// Held open while the process shall run: a node ends when its stdin does.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts it, with its output appended to a file.
    ///
    /// # Panics
    /// When it cannot start.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let log =
            OpenOptions::new().create(true).append(true).open(log).expect("a log can be opened");
        let errors = log.try_clone().expect("a log has two writers");
        command.stdin(Stdio::piped()).stdout(log).stderr(errors);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { stdin: child.stdin.take(), child }
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

    /// SIGTERM.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Any signal.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(pid, signal).expect("a child that was not waited for can be signalled");
    }

    /// Closes its stdin, as the end of its parent would.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended, and returns its exit status.
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

/// Whether the process with this id has ended, even if it is still a zombie.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    let is_over =
        |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, is_over)
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
/// When it does not start, or does not end.
pub fn finish(command: &mut Command) -> Finished {
    // Files instead of pipes: a full pipe that no one reads would block the process.
    let [stdout, stderr] =
        [(), ()].map(|()| tempfile::NamedTempFile::new().expect("a temporary file"));
    let file =
        |file: &tempfile::NamedTempFile| file.reopen().expect("a temporary file opens again");
    command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
    let child =
        command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut process = Process { child, stdin: None };
    let status = until(&format!("{command:?} ends"), || process.ended());
    let text =
        |file: &tempfile::NamedTempFile| fs::read_to_string(file.path()).expect("output is text");
    Finished { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
}

/// The same command, with the default handling of the signals that `nohup` and shells make programs
/// ignore. Without it a test that sends these signals fails under `nohup` or in the background.
/// `env` of GNU coreutils 8.31 or later resets them, and then runs the command under the same
/// process id. On a machine without it, the command is unchanged. Redirections of the given command
/// are not copied.
#[must_use]
pub fn with_default_signals(command: &Command) -> Command {
    const RESET: &str = "--default-signal=HUP,INT,QUIT";
    let tried = Command::new("env")
        .args([RESET, "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let program = command.get_program();
    let mut new = Command::new(program);
    if tried.is_ok_and(|status| status.success()) {
        new = Command::new("env");
        new.arg(RESET).arg(program);
    }
    new.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => new.env(name, value),
            None => new.env_remove(name),
        };
    }
    new
}

/// Shows the end of a log, to explain a failed story.
pub(super) fn show_tail(log: &PathBuf) {
    let text =
        File::open(log).and_then(std::io::read_to_string).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- {}", log.display());
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| eprintln!("{line}"));
}
