//! Runs a node in three steps: opens its files and ports, starts its parts, and waits until one of
//! them ends or the node must stop.

mod join;
mod open;
mod start;

use std::future::pending;

use tokio::sync::oneshot;

use self::open::open;
use self::start::start;
use crate::config::Config;
use crate::home::Home;
use crate::signals::StopSignals;

/// Options that are not in the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Resolves when the parent process has gone.
    pub parent: Option<oneshot::Receiver<()>>,
    /// Sign although the consensus log is lost. Unsafe if the key may have signed above the tip.
    pub sign_without_log: bool,
}

/// Runs the node of a home until a signal stops it, its parent ends, or it cannot go on.
///
/// # Errors
/// A part cannot be opened or started, the disk refuses, or consensus must stop.
pub async fn run(home: Home, config: Config, options: Options) -> anyhow::Result<()> {
    let _lock = home.lock()?;
    let mut stop = Stop { signals: StopSignals::listen()?, parent: options.parent };
    match open(home, config, options.sign_without_log, &mut stop).await? {
        Some(opened) => start(opened)?.join(stop).await,
        None => Ok(()),
    }
}

/// The reasons to stop a healthy node.
struct Stop {
    signals: StopSignals,
    parent: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Waits for a reason to stop, and returns its name.
    async fn next(&mut self) -> &'static str {
        let parent = async {
            match &mut self.parent {
                Some(parent) => drop(parent.await),
                None => pending().await,
            }
        };
        tokio::select! {
            name = self.signals.next() => name,
            () = parent => "the parent process has ended",
        }
    }
}
