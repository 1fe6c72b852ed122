//! The processes of a local network. Each ends when its stdin does, so they end with us in whatever
//! way we end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use futures::FutureExt;
use futures::future::{join_all, pending, select_all};
use tokio::process::{ChildStdin, Command};

use super::layout::Node;
use super::plan::NODE_LOG;

/// Bytes at the end of a log that are searched for its last lines.
const TAIL_BYTES: u64 = 4096;
/// How many of the last lines are shown.
const TAIL_LINES: usize = 3;

/// A node that we started.
pub(super) struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
    /// Held open while the node must run.
    stdin: Option<ChildStdin>,
    log: PathBuf,
    /// Length of the log file at the start of this run. The bytes before are from earlier runs.
    log_start: u64,
}

impl Child {
    /// Starts a program as a node. The node ends when our process does.
    pub(super) fn spawn(
        node: &Node,
        program: &Path,
        log_level: Option<&str>,
    ) -> anyhow::Result<Self> {
        let path = node.home.join(NODE_LOG);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let log_start = log.metadata()?.len();
        let mut command = Command::new(program);
        command.arg("run").arg("--home").arg(&node.home).arg("--exit-with-parent");
        // A variable that is meant for one node must not reach all of them.
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CAIRN_NODE_") && name != "CAIRN_NODE_LOG")
            {
                command.env_remove(name);
            }
        }
        if let Some(level) = log_level {
            command.env("CAIRN_NODE_LOG", level);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // Ctrl-C in a terminal reaches only us, and we stop the nodes.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().with_context(|| {
            format!("{} cannot start: {} does not run", node.name, program.display())
        })?;
        let pid = process.id().with_context(|| format!("{} ended at once", node.name))?;
        // `wait` would close stdin.
        let stdin = process.stdin.take();
        Ok(Self { name: node.name.clone(), pid, process, stdin, log: path, log_start })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks the node to stop: it ends in order.
    pub(super) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Ends the node at once, as a crash would.
    pub(super) fn kill(&mut self) {
        // An error means that the node has ended by now.
        let _ended = self.process.start_kill();
    }

    /// Waits until the node has ended, and says how. May be cancelled.
    pub(super) async fn end(&mut self) -> String {
        let status = self.process.wait().await;
        status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string())
    }

    /// A line that says how the node ended, with the end of its log.
    pub(super) fn epitaph(&self, how: &str) -> String {
        let lines = last_lines(&self.log, self.log_start).unwrap_or_default();
        let said = if lines.is_empty() {
            "its log is empty".to_owned()
        } else {
            format!("last in its log: {lines}")
        };
        format!("{} ended ({how}); {said}", self.name)
    }
}

/// Waits until the first of these nodes ends, and says which and how; for ever if there are none.
pub(super) async fn first_end<'a>(
    children: impl Iterator<Item = (usize, &'a mut Child)>,
) -> (usize, String) {
    let ends: Vec<_> = children
        .map(|(index, child)| Box::pin(async move { (index, child.end().await) }))
        .collect();
    if ends.is_empty() {
        return pending().await;
    }
    select_all(ends).await.0
}

/// Stops these nodes, and kills those that have not ended when the time is up. Returns the names of
/// the killed ones.
pub(super) async fn stop(mut children: Vec<Child>, time: impl Future<Output = ()>) -> Vec<String> {
    children.iter_mut().for_each(Child::ask_to_stop);
    let time = time.shared();
    let stops = children.into_iter().map(|mut child| {
        let is_up = time.clone();
        async move {
            tokio::select! {
                _ = child.end() => return None,
                () = is_up => {}
            }
            child.kill();
            child.end().await;
            Some(child.name)
        }
    });
    join_all(stops).await.into_iter().flatten().collect()
}

/// The last lines of a file after the offset `from`, joined into one.
fn last_lines(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES).max(from);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(TAIL_LINES).collect();
    lines.reverse();
    Ok(lines.join(" | "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        for (text, expected) in [
            ("", ""),
            ("one\n", "one"),
            ("one\ntwo\n\nthree\nfour", "two | three | four"),
            ("\u{1}\n", "\u{1}"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_lines(&path, 0).unwrap(), expected);
        }
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert_eq!(last_lines(&path, 0).unwrap().len(), 4096);
        assert_eq!(last_lines(&path, 99_990).unwrap(), "x".repeat(10));
    }
}
