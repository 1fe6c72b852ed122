//! SIGINT (Ctrl-C), SIGTERM and SIGHUP only set a flag. Each loop that waits checks the flag and
//! fails, and dropped values clean up on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

static STOP: AtomicBool = AtomicBool::new(false);

/// The user has interrupted the program.
#[derive(Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From now on these three signals no longer end the process by themselves.
pub(super) fn watch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("tokio cannot start")?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    drop(guard);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        STOP.store(true, Ordering::Relaxed);
        // The runtime stays, and with it the signal handlers: a second Ctrl-C must not interrupt
        // the cleanup.
        std::mem::forget(runtime);
    })?;
    Ok(())
}

/// Fails once a signal has come.
pub(super) fn check() -> anyhow::Result<()> {
    if STOP.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}

/// Sleeps between two polls; fails once a signal has come.
pub(super) fn pause(time: Duration) -> anyhow::Result<()> {
    check()?;
    thread::sleep(time);
    check()
}
