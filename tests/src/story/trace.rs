//! A process's system calls by strace: which thread wrote, sent and synced what, in which order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// System calls in the order of strace's output.
#[derive(Debug)]
pub struct Trace(Vec<Event>);

/// The beginning or the end of a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    thread: u32,
    /// Name of the call, such as `write`.
    call: String,
    /// The text between the parentheses, with the paths of files; complete when the call begins.
    arguments: String,
    /// `None` for the beginning; the call's result for its end.
    result: Option<String>,
}

/// Calls that send or write, and calls that make writes durable. The names of the rename calls
/// differ between machines, so a pattern selects them.
const CALLS: &str =
    "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,sendmmsg,fdatasync,fsync,/^rename";

impl Trace {
    /// A command that runs strace and writes the trace to this file. The caller adds the program to
    /// trace. `None` where strace does not work.
    #[must_use]
    pub fn command(to: &Path) -> Option<Command> {
        let works = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status();
        works.is_ok_and(|status| status.success()).then(|| {
            let mut command = Command::new("strace");
            command
                .args(["-f", "-qq", "-y", "-s", "2000000", "-e", CALLS, "-e", "signal=none", "-o"])
                .arg(to);
            command
        })
    }

    /// Reads the trace in a file.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        Self::parse(&String::from_utf8_lossy(&fs::read(path).expect("strace has written its file")))
    }

    /// strace writes a call that is interrupted by other threads in two lines, any other call in
    /// one.
    fn parse(text: &str) -> Self {
        let mut events = Vec::new();
        let mut begun: BTreeMap<u32, Event> = BTreeMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
            let (Ok(thread), rest) = (thread.parse(), rest.trim_start()) else { continue };
            let (begin, result) = if let Some(resumed) = rest.strip_prefix("<... ") {
                let Some(begin) = begun.remove(&thread) else { continue };
                (begin, resumed.rsplit_once(" = ").map(|(_, result)| result))
            } else {
                let Some((call, arguments)) = rest.split_once('(') else { continue };
                let (arguments, result) = match arguments.rsplit_once(" = ") {
                    Some((arguments, result)) if !arguments.ends_with("<unfinished ...>") => {
                        (arguments, Some(result))
                    }
                    _ => (arguments, None),
                };
                let begin = Event {
                    thread,
                    call: call.to_owned(),
                    arguments: arguments.trim_end().to_owned(),
                    result: None,
                };
                events.push(begin.clone());
                if result.is_none() {
                    begun.insert(thread, begin);
                    continue;
                }
                (begin, result)
            };
            events.push(Event {
                result: Some(result.unwrap_or_default().trim().to_owned()),
                ..begin
            });
        }
        Self(events)
    }

    /// Returns two numbers. The first counts the calls on other files that a thread made after its
    /// write to this file and before its successful sync of it. The second counts the successful
    /// syncs after a write.
    #[must_use]
    pub fn writes_not_followed_by_sync(&self, file: &str) -> (usize, usize) {
        let mut unsynced: BTreeMap<u32, bool> = BTreeMap::new();
        let (mut bad, mut good) = (0, 0);
        for event in &self.0 {
            let is_dirty = unsynced.entry(event.thread).or_default();
            match (&event.result, event.is_on(file), event.is_sync()) {
                (None, true, false) => *is_dirty = true,
                (Some(result), true, true) if result == "0" => {
                    (good, *is_dirty) = (good + usize::from(*is_dirty), false)
                }
                (None, false, _) if *is_dirty => bad += 1,
                _ => {}
            }
        }
        (bad, good)
    }

    /// The new paths of renamed files, each with whether its folder was synced afterwards.
    #[must_use]
    pub fn renamed(&self) -> Vec<(PathBuf, bool)> {
        let to = |(place, event): (usize, &Event)| {
            let is_done = event.call.starts_with("rename") && event.result.as_deref() == Some("0");
            // The last quoted argument.
            let path = Path::new(event.arguments.rsplit('"').nth(1).filter(|_| is_done)?);
            let folder = path.parent()?.to_str()?;
            let is_synced = |later: &Event| {
                let handle =
                    later.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                later.is_sync()
                    && later.result.as_deref() == Some("0")
                    && handle.is_some_and(|(path, _)| path == folder)
            };
            Some((path.to_owned(), self.0[place..].iter().any(is_synced)))
        };
        self.0.iter().enumerate().filter_map(to).collect()
    }

    /// Finds the first call that sends or writes all these words. Checks that before this call
    /// `token`, which stands for the words in the file, was written to the file, and that the file
    /// was synced after that write. Fails if no call has the words.
    ///
    /// # Errors
    /// The missing step.
    pub fn is_durable_before(&self, file: &str, token: &str, words: &[&str]) -> Result<(), String> {
        let said = self.0.iter().position(|event| {
            event.result.is_none()
                && !event.is_sync()
                && words.iter().all(|word| event.arguments.contains(word))
        });
        let before = &self.0[..said.ok_or_else(|| format!("never said: {words:?}"))?];
        let is_written = |event: &Event| {
            event.result.is_some() && event.is_on(file) && event.arguments.contains(token)
        };
        let written = before
            .iter()
            .position(is_written)
            .ok_or_else(|| format!("{token} is not in {file} before"))?;
        // A sync that began before the write may have missed it.
        let synced = before[written..]
            .iter()
            .position(|event| event.is_on(file) && event.is_sync() && event.result.is_none());
        let begun =
            written + synced.ok_or_else(|| format!("{file} is not synced after {token}"))?;
        let is_done = |event: &Event| {
            event.thread == before[begun].thread && event.result.as_deref() == Some("0")
        };
        before[begun..]
            .iter()
            .any(is_done)
            .then_some(())
            .ok_or_else(|| format!("{words:?} is said before {file} is synced"))
    }
}

impl Event {
    fn is_sync(&self) -> bool {
        self.call == "fdatasync" || self.call == "fsync"
    }

    /// Whether the first argument is a file descriptor whose path ends with `file`.
    fn is_on(&self, file: &str) -> bool {
        self.arguments
            .split('>')
            .next()
            .is_some_and(|handle| handle.contains('<') && handle.ends_with(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
7 write(3</h/consensus.log>, \"vote\", 4) = 4
8 sendto(9<socket:[1]>, \"ping\", 4, 0, NULL, 0) = 4
7 fdatasync(3</h/consensus.log> <unfinished ...>
8 pwrite64(4</h/db/db>, \"memo-1\", 6, 0) = 6
7 <... fdatasync resumed>)         = 0
7 write(5<anon_inode:[eventfd]>, \"\\1\", 8) = 8
8 fdatasync(4</h/db/db>)  = 0
8 sendto(9<socket:[1]>, \"{\\\"id\\\":\\\"ab\\\",\\\"status\\\":\\\"final\\\"}\", 4, 0, NULL, 0) = 4
";

    #[test]
    fn a_log_is_synced_before_its_thread_goes_on() {
        for (text, expected) in [
            (GOOD.to_owned(), (0, 1)),
            (GOOD.replace("7 fdatasync(3</h/consensus.log>", "7 write(6</h/other>"), (2, 0)),
            (GOOD.replace("resumed>)         = 0", "resumed>) = -1 EIO"), (1, 0)),
        ] {
            assert_eq!(
                Trace::parse(&text).writes_not_followed_by_sync("/consensus.log"),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_rename_is_durable_once_its_folder_is_synced() {
        let text = "7 rename(\"/h/.a.new\", \"/h/a\") = 0\n7 fsync(3</h>)  = 0\n";
        for (text, is_synced) in [
            (text.to_owned(), true),
            (text.replace("fsync(3</h>)", "fsync(3</h/a>)"), false),
            (text.replace("fsync(3</h>)", "fsync(3</other/h>)"), false),
            (text.replace("fsync(3</h>)  = 0", "fsync(3</h>)  = -1 EIO"), false),
            (text.lines().rev().map(|line| format!("{line}\n")).collect(), false),
        ] {
            assert_eq!(Trace::parse(&text).renamed(), [("/h/a".into(), is_synced)], "{text}");
        }
        assert_eq!(
            Trace::parse("7 rename(\"/h/a\", \"/h/b\") = -1 ENOENT (No such file)\n").renamed(),
            []
        );
    }

    #[test]
    fn words_are_said_after_the_sync() {
        let sync = "8 fdatasync(4</h/db/db>)  = 0\n";
        for (text, valid) in [
            (GOOD.to_owned(), true),
            (GOOD.replace(sync, ""), false),
            (GOOD.replace(sync, "") + sync, false),
            (GOOD.replace(sync, "8 fdatasync(4</h/db/db>)  = -1 EIO\n"), false),
            (format!("{sync}{}", GOOD.replace(sync, "")), false),
            (GOOD.replace("memo-1", "other"), false),
            (GOOD.replace("final", "pending"), false),
        ] {
            let verdict =
                Trace::parse(&text).is_durable_before("/db/db", "memo-1", &["ab", "final"]);
            assert_eq!(verdict.is_ok(), valid, "{text}");
        }
    }
}
