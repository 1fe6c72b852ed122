//! A place for the full screen.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::action::Action;
use super::overview::Overview;

/// Shows nothing yet.
pub(super) async fn show(
    _overview: watch::Receiver<Arc<Overview>>,
    _actions: mpsc::Sender<Action>,
) -> anyhow::Result<()> {
    pending().await
}
