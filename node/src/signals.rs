//! Which signals stop a program in an orderly way, and which it ignores.
//!
//! SIGTERM, SIGINT and SIGQUIT stop the program. SIGHUP, SIGUSR1 and SIGUSR2 would end it at once
//! by default. A node has no configuration to reload and no log file to reopen, so it ignores them.
//! A signal that the parent had ignored stays ignored, as `nohup` and shells that start programs in
//! the background expect.

use std::fs;
use std::future::{pending, poll_fn};
use std::task::Poll;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that stop a program.
const STOP: [(&str, SignalKind); 3] = [
    ("SIGTERM", SignalKind::terminate()),
    ("SIGINT", SignalKind::interrupt()),
    ("SIGQUIT", SignalKind::quit()),
];
/// Signals that a program ignores.
const BORNE: [(&str, SignalKind); 3] = [
    ("SIGHUP", SignalKind::hangup()),
    ("SIGUSR1", SignalKind::user_defined1()),
    ("SIGUSR2", SignalKind::user_defined2()),
];

/// The signals that stop this program.
pub(crate) struct StopSignals(Vec<(&'static str, Signal)>);

impl StopSignals {
    /// Installs handlers for all signals that this module names, except those that were ignored at
    /// the start.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let ignored = ignored();
        let taken = |(name, kind): (&'static str, SignalKind)| {
            (!ignored.holds(kind)).then(|| {
                signal(kind)
                    .map(|signal| (name, signal))
                    .with_context(|| format!("cannot listen for {name}"))
            })
        };
        // The handler stays installed when its stream is dropped.
        BORNE.into_iter().filter_map(taken).try_for_each(|listened| listened.map(drop))?;
        Ok(Self(STOP.into_iter().filter_map(taken).collect::<Result<_, _>>()?))
    }

    /// Waits for a signal that stops the program, and returns its name. Waits for ever if all of
    /// them were ignored.
    pub(crate) async fn next(&mut self) -> &'static str {
        if self.0.is_empty() {
            return pending().await;
        }
        poll_fn(|context| {
            let came = self
                .0
                .iter_mut()
                .find_map(|(name, signal)| signal.poll_recv(context).is_ready().then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// A set of signals: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn holds(self, kind: SignalKind) -> bool {
        let bit = u32::try_from(kind.as_raw_value() - 1).ok().and_then(|bit| 1u64.checked_shl(bit));
        bit.is_some_and(|bit| self.0 & bit != 0)
    }

    /// The set `SigIgn` of a status file (`proc_pid_status(5)`); `None` if the text has none.
    fn ignored_in(status: &str) -> Option<Self> {
        let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(digits.trim(), 16).ok().map(Self)
    }
}

/// The signals that this process ignores. Empty on systems without `/proc`.
fn ignored() -> Set {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| Set::ignored_in(&status))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status_of_a_process() {
        let status = |digits: &str| {
            format!("Name:\tx\nSigBlk:\t00000000ffffffff\nSigIgn:\t{digits}\nSigCgt:\t01\n")
        };
        for (digits, hangup, interrupt, terminate) in [
            ("0000000000000000", false, false, false),
            ("0000000000001001", true, false, false),
            ("0000000000000006", false, true, false),
            ("0000000000004000", false, false, true),
            ("ffffffffffffffff", true, true, true),
        ] {
            let set = Set::ignored_in(&status(digits)).unwrap_or_default();
            assert_eq!(set.holds(SignalKind::hangup()), hangup, "{digits}");
            assert_eq!(set.holds(SignalKind::interrupt()), interrupt, "{digits}");
            assert_eq!(set.holds(SignalKind::terminate()), terminate, "{digits}");
        }
        for text in ["", "SigIgn:\tx\n", "SigIgn:\n"] {
            assert_eq!(Set::ignored_in(text), None, "{text:?}");
        }
    }
}
