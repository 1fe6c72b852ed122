//! Runs a node in three steps: opens its files and ports, starts its parts, and waits until one of
//! them ends or the node must stop.

mod files;
mod join;
mod open;
mod operator;
mod start;

use std::future::pending;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use self::join::STOP_MAX;
use self::open::open;
use self::operator::Operator;
use self::start::start;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::control::{self, Listener};
use crate::driver::audit::refuse_failed;
use crate::home::Home;
use crate::signals::StopSignals;

/// Options that are not in the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Resolves when the parent process has gone.
    pub parent: Option<oneshot::Receiver<()>>,
    /// Sign although the consensus log is lost. Unsafe if the key may have signed above the tip.
    pub sign_without_log: bool,
    /// A block that the chain must contain.
    pub checkpoint: Option<Checkpoint>,
    /// For how long a peer counts as a keeper of history after its connection ended; `None` is the
    /// usual time.
    pub gone_counts: Option<Duration>,
}

/// Runs the node of a home until a signal or its operator stops it, its parent ends, or it cannot
/// continue. The home stays locked until this process ends.
///
/// # Errors
/// A part cannot be opened or started, the disk refuses, or consensus must stop.
pub async fn run(home: Home, config: Config, mut options: Options) -> anyhow::Result<()> {
    home.lock()?.hold_until_exit();
    refuse_failed(&home.audit_failed_path())?;
    let operator = operator::new();
    let mut stop = Stop {
        signals: StopSignals::listen()?,
        parent: options.parent.take(),
        operator: Arc::clone(&operator),
    };
    let socket = Socket::open(&home, Arc::clone(&operator));
    let result = match open(home, config, &options, &mut stop).await {
        Ok(Some(opened)) => match start(opened, &operator) {
            Ok(running) => running.join(stop).await,
            Err(error) => Err(error),
        },
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // The operator sees by the end of its connection that all else has ended.
    socket.close().await;
    result
}

/// The operator's socket, while it is served.
struct Socket {
    /// Dropping it ends the server.
    open: oneshot::Sender<()>,
    server: Option<JoinHandle<()>>,
}

impl Socket {
    /// Binds the socket of a locked home and serves it. A node runs without a socket where the
    /// system refuses one, such as on a file system without sockets.
    fn open(home: &Home, operator: Arc<Operator>) -> Self {
        let (open, closed) = oneshot::channel();
        let server = match Listener::bind(home.root()) {
            Ok(listener) => Some(tokio::spawn(control::serve(listener, operator, async {
                let _dropped = closed.await;
            }))),
            Err(error) => {
                tracing::warn!("there is no operator's socket: {error}");
                None
            }
        };
        Self { open, server }
    }

    async fn close(self) {
        drop(self.open);
        let Some(server) = self.server else { return };
        if let Err(error) = server.await
            && let Ok(reason) = error.try_into_panic()
        {
            panic::resume_unwind(reason);
        }
    }
}

/// The reasons to stop a healthy node.
struct Stop {
    signals: StopSignals,
    parent: Option<oneshot::Receiver<()>>,
    operator: Arc<Operator>,
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
            () = self.operator.asked_to_stop() => "the operator asked for it",
        }
    }
}
