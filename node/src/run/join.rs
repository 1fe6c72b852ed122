//! The third step: waits for a reason to stop, and ends the parts in order.

use std::time::Duration;

use tokio::sync::watch;

use super::Stop;
use crate::network::Network;
use crate::tasks::Tasks;

/// How long the threads that write may take to end: a write that has begun is made durable first.
const END_MAX: Duration = Duration::from_secs(60);
/// How long other processes wait for a node to end. It is longer than a node waits for its own
/// parts.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(90);
/// How long all other parts may take to end once these threads and the network have ended. They
/// write nothing to disk.
const REST_MAX: Duration = Duration::from_millis(500);
/// Names of the parts that get [`END_MAX`].
pub(super) const DRIVER: &str = "the driver";
pub(super) const SYNC: &str = "sync";
pub(super) const SNAPSHOTS: &str = "snapshots";
pub(super) const ARCHIVE: &str = "the archive";

/// A node whose parts run.
pub(super) struct Running {
    pub(super) tasks: Tasks,
    /// Tells all parts but the network to stop.
    pub(super) stop: watch::Sender<bool>,
    pub(super) network: Network,
}

impl Running {
    /// Waits for a reason to stop or for the end of any part. Then ends the threads that write,
    /// the network, and the rest.
    ///
    /// # Errors
    /// A part failed, or ended although nobody asked the node to stop.
    pub(super) async fn join(self, mut stop: Stop) -> anyhow::Result<()> {
        let Self { mut tasks, stop: stop_sender, network } = self;
        let was_asked = tokio::select! {
            reason = stop.next() => {
                tracing::info!("stopping: {reason}");
                true
            }
            () = tasks.any_end() => false,
        };
        let _none_left = stop_sender.send(true);
        if tokio::time::timeout(END_MAX, tasks.await_ends(&[DRIVER, SYNC, SNAPSHOTS, ARCHIVE]))
            .await
            .is_err()
        {
            tracing::error!("a thread that writes has not ended after {} s", END_MAX.as_secs());
        }
        network.shutdown().await;
        let result = tasks.outcome(was_asked, REST_MAX).await;
        tracing::info!("stopped");
        result
    }
}
