//! `run`: runs the node of one home.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::runtime::Runtime;

use super::HomeArg;
use super::config::Overrides;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::home::Home;
use crate::logging;
use crate::memory;
use crate::parent::stdin_end;
use crate::run::Options;

/// How long work on other threads may go on once the node has stopped. Everything that must be
/// durable is durable by then.
const SHUTDOWN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    home: HomeArg,
    #[command(flatten)]
    overrides: Overrides,
    /// Stop at the end of stdin, which comes when the parent process has ended
    #[arg(long, env = "CAIRN_NODE_EXIT_WITH_PARENT", value_parser = BoolishValueParser::new())]
    exit_with_parent: bool,
    /// Sign although the consensus log is lost. Safe only if nothing else ever signed with this
    /// validator's key beyond the tip
    #[arg(long, env = "CAIRN_NODE_SIGN_WITHOUT_LOG", value_parser = BoolishValueParser::new())]
    sign_without_log: bool,
    /// A block that the chain must contain, from a source that you trust
    #[arg(long, env = "CAIRN_NODE_CHECKPOINT", value_name = "HEIGHT:HASH")]
    checkpoint: Option<Checkpoint>,
    /// For how many seconds a peer counts as a keeper of history after its connection ended; for
    /// measurements on a private network
    #[arg(long, hide = true, value_name = "SECONDS")]
    gone_counts: Option<u64>,
}

impl Run {
    pub(super) fn execute(self, log: Option<String>) -> anyhow::Result<()> {
        let home = self.home.open()?;
        let config = self.overrides.apply(&home, log)?;
        ensure!(
            self.gone_counts.is_none() || config.p2p.private,
            "--gone-counts is for private networks only (p2p.private)"
        );
        logging::start(&config.log.level)?;
        let options = Options {
            parent: self.exit_with_parent.then(stdin_end).transpose()?,
            sign_without_log: self.sign_without_log,
            checkpoint: self.checkpoint,
            gone_counts: self.gone_counts.map(Duration::from_secs),
        };
        foreground(runtime()?, home, config, options)
    }
}

/// The runtime of a node.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("tokio cannot start")
}

/// Runs a node until it is told to stop or cannot continue. The log must have started.
pub(super) fn foreground(
    runtime: Runtime,
    home: Home,
    config: Config,
    options: Options,
) -> anyhow::Result<()> {
    memory::give_back()?;
    let result = runtime.block_on(crate::run::run(home, config, options));
    runtime.shutdown_timeout(SHUTDOWN);
    result
}
