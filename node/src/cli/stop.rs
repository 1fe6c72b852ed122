//! `stop`: stops the node that runs in a home.

use anyhow::Context;
use clap::Args;

use super::HomeArg;
use crate::home::stop;
use crate::output::print;
use crate::run::STOP_MAX;

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
        runtime.block_on(stop(&root, "node_stop", STOP_MAX))?;
        Ok(print("stopped")?)
    }
}
