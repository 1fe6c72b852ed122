//! `stop`: stops the node that runs in a home.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::HomeArg;
use crate::control::Client;
use crate::home::{HomeError, lock_dir};
use crate::output::print;

/// How long a node may take to end: what it makes durable at its end has a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often the home's lock is tried once the node has said that it ends.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    home: HomeArg,
}

impl Stop {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let root = self.home.root()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("tokio cannot start")?;
        let stopped = runtime.block_on(async { timeout(PATIENCE, stop(&root)).await });
        let Ok(stopped) = stopped else {
            bail!("the node has not ended after {} s; its log says why", PATIENCE.as_secs());
        };
        stopped?;
        Ok(print("stopped")?)
    }
}

/// Asks the node to stop, and waits until its home is free.
async fn stop(root: &Path) -> anyhow::Result<()> {
    let mut client = Client::connect(root).await?;
    let holder = holder(root)?;
    client.call::<()>("node_stop", json!({})).await?;
    client.closed().await;
    // Another process may have started in the home by then.
    while holder.is_some() && self::holder(root)? == holder {
        sleep(LOCK_INTERVAL).await;
    }
    Ok(())
}

/// The pid of the process that holds the home's lock, `None` if it is free.
fn holder(root: &Path) -> anyhow::Result<Option<u32>> {
    match lock_dir(root) {
        Ok(_) => Ok(None),
        Err(HomeError::Locked { pid, .. }) => Ok(pid),
        Err(error) => Err(error.into()),
    }
}
