//! `run`: runs the node of one home.

use std::io::{self, Read};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::sync::oneshot;

use super::HomeArg;
use super::config::Overrides;
use crate::logging;
use crate::memory;

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
}

impl Run {
    pub(super) fn execute(self, log: Option<String>) -> anyhow::Result<()> {
        let home = self.home.open()?;
        let config = self.overrides.apply(&home, log)?;
        logging::start(&config.log.level)?;
        memory::give_back()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("tokio cannot start")?;
        let options = crate::run::Options {
            parent: self.exit_with_parent.then(stdin_end).transpose()?,
            sign_without_log: self.sign_without_log,
        };
        let result = runtime.block_on(crate::run::run(home, config, options));
        runtime.shutdown_timeout(SHUTDOWN);
        result
    }
}

/// Resolves at the end of stdin. It uses its own thread, because a blocking read would hold up the
/// end of the runtime.
fn stdin_end() -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = [0; 256];
        loop {
            match stdin.read(&mut buffer) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        // The receiver is gone if the node is already stopping.
        let _ = sender.send(());
    })?;
    Ok(receiver)
}
