//! Processes that a story signals.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A running process, to which a story may send signals. Killed when dropped.
pub struct Process(testkit::process::Process);

impl Process {
    /// Starts it, with its output appended to a file.
    ///
    /// # Panics
    /// When it cannot start.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        Self(testkit::process::Process::spawn(command, log))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.ended()
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// When the process has ended and its exit status was read.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal.
    ///
    /// # Panics
    /// When the process has ended and its exit status was read.
    pub fn signal(&self, sent: Signal) {
        signal(self.id(), sent);
    }
}

impl Deref for Process {
    type Target = testkit::process::Process;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Sends a signal to a process that has not been waited for.
///
/// # Panics
/// When there is no such process.
pub(super) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a child has an id");
    kill_process(pid, signal).expect("a child that was not waited for can be signalled");
}

/// The same command, with the default handling of the signals that `nohup` and shells make programs
/// ignore. Without it a test that sends these signals fails under `nohup` or in the background. The
/// redirections and the working directory of the given command are not copied.
#[must_use]
pub fn with_default_signals(command: &Command) -> Command {
    let words = default_signals();
    let mut words = words.iter().map(AsRef::as_ref).chain([command.get_program()]);
    let mut new = Command::new(words.next().expect("the program itself is one"));
    new.args(words).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => new.env(name, value),
            None => new.env_remove(name),
        };
    }
    new
}

/// Number of rounds of a story that kills at random moments: the usual number, or the value of
/// `CAIRN_STORY_ROUNDS`.
///
/// # Panics
/// If the value is no number.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    let wanted = std::env::var("CAIRN_STORY_ROUNDS");
    wanted.map_or(usual, |rounds| rounds.parse().expect("CAIRN_STORY_ROUNDS is a number"))
}

/// Words before a command that reset the handling of these signals: `env` of GNU coreutils 8.31 or
/// later resets them, and then runs the command under the same process id. Empty on a machine
/// without such an `env`.
pub(super) fn default_signals() -> Vec<String> {
    const RESET: [&str; 2] = ["env", "--default-signal=HUP,INT,QUIT"];
    let tried = Command::new(RESET[0])
        .args([RESET[1], "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let works = tried.is_ok_and(|status| status.success());
    RESET.iter().filter(|_| works).map(|word| (*word).to_owned()).collect()
}
