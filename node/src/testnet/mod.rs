//! `testnet`: a network of real nodes on this machine, which can be broken on purpose. Each node is
//! a process. The keys of its funded accounts are public.

mod action;
mod children;
mod commands;
mod configs;
mod detach;
mod faucet;
mod faults;
mod history;
mod homes;
mod layout;
mod list;
mod load;
mod overview;
mod payers;
mod plan;
mod ports;
mod progress;
mod screen;
mod summary;
mod supervisor;
mod tail;
mod values;

use std::future::pending;
use std::io::{stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use ledger::genesis::Genesis;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::control::Listener;
use crate::home::{lock_dir, read_genesis};
use crate::parent::stdin_end;
use crate::run::STOP_MAX;
use crate::screen::{is_drawable, say};
use crate::signals::StopSignals;
use commands::{Command, Target};
use history::TRANSFERS_MAX;
use layout::Layout;
use plan::{NODES_MAX, Wanted};
use ports::BasePort;
use supervisor::{Options, Supervisor, Until};

pub(crate) use commands::CommandError;

/// The template of local networks: limits and accounts. Its validator is replaced.
const TEMPLATE: &str = include_str!("../../../genesis.json");
/// Most actions of the screen that wait for the supervisor: more keys than a user presses at once.
const ACTIONS_MAX: usize = 16;

/// How long nodes may take to stop before a user is told how to kill them.
const STOP_HINT: Duration = Duration::from_secs(3);

/// Command line of `testnet`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 no network in DIR, 5 not in time.")]
pub(crate) struct Testnet {
    #[command(subcommand)]
    command: Option<Command>,
    /// Directory of the network; an existing network is resumed
    #[arg(
        long,
        global = true,
        env = "CAIRN_NODE_TESTNET_DIR",
        value_name = "DIR",
        default_value = ".cairn-testnet"
    )]
    dir: PathBuf,
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    start: Start,
}

/// How a network is started.
#[derive(Debug, Args)]
struct Start {
    /// Validators; 4 in a new network
    #[arg(long, env = "CAIRN_NODE_TESTNET_NODES", value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u16>,
    /// Full nodes, which follow the chain and do not sign; 0 in a new network
    #[arg(long, env = "CAIRN_NODE_TESTNET_FULL_NODES", value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(0..=i64::from(NODES_MAX)))]
    full_nodes: Option<u16>,
    /// First port: node1 listens for peers on this port and for RPC on the next one, and the ports
    /// of each further node are 10 higher; 7700 in a new network. `auto` takes free ports
    #[arg(long, env = "CAIRN_NODE_TESTNET_BASE_PORT", value_name = "PORT|auto")]
    base_port: Option<BasePort>,
    /// Take accounts and limits of a new network from this genesis
    #[arg(long, env = "CAIRN_NODE_TESTNET_GENESIS", value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Make the same network each time: the keys and so the chain id follow from this number, and
    /// the start time is fixed. Everybody knows such keys
    #[arg(long, env = "CAIRN_NODE_TESTNET_SEED", value_name = "NUMBER")]
    seed: Option<u64>,
    /// Begin a new network with a made chain of this many transfers; about 3,000 of them make a
    /// segment of history
    #[arg(long, env = "CAIRN_NODE_TESTNET_HISTORY", value_name = "TRANSFERS",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(TRANSFERS_MAX)))]
    history: Option<u32>,
    /// Remove the network in the directory, with all keys in its wallet home, and start a new one
    #[arg(long)]
    reset: bool,
    /// Print plain lines instead of drawing on the whole screen
    #[arg(long)]
    plain: bool,
    /// Return once each node has a new final block, and leave the network running; its output goes
    /// to DIR/testnet.log
    #[arg(long, conflicts_with = "exit_with_parent")]
    detach: bool,
    /// End the network with an error when a node ends by itself
    #[arg(long)]
    fail_fast: bool,
    /// Stop at the end of stdin, which comes when the parent process has ended
    #[arg(long)]
    exit_with_parent: bool,
    /// This is the process that `--detach` leaves running
    #[arg(long, hide = true)]
    in_background: bool,
}

/// Options that only a start has, by their names in the parser.
const START_OPTIONS: [&str; 11] = [
    "nodes",
    "full_nodes",
    "base_port",
    "genesis",
    "seed",
    "history",
    "reset",
    "plain",
    "detach",
    "fail_fast",
    "exit_with_parent",
];

impl Testnet {
    /// Refuses options of a start that are given with a command to a running network.
    pub(crate) fn check(matches: &ArgMatches) -> Result<(), String> {
        let Some(command) = matches.subcommand_name() else { return Ok(()) };
        let is_given =
            |option: &&str| matches.value_source(option) == Some(ValueSource::CommandLine);
        match START_OPTIONS.iter().find(|option| is_given(option)) {
            Some(option) => {
                let option = option.replace('_', "-");
                Err(format!("--{option} starts a network, and `{command}` speaks to a running one"))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn execute(self, log: Option<String>) -> anyhow::Result<()> {
        if self.start.in_background {
            detach::leave_session()?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("tokio cannot start")?;
        let target = Target::new(&self.dir, self.json)?;
        let result = runtime.block_on(async {
            match self.command {
                Some(command) => command.execute(&target).await,
                None if self.start.detach => {
                    detach::start(&target, &mut StopSignals::listen()?).await
                }
                None => self.start.run(&target.dir, log).await,
            }
        });
        // A poll may still wait for its answer, which is no longer needed.
        runtime.shutdown_background();
        result
    }
}

impl Start {
    async fn run(self, dir: &Path, log: Option<String>) -> anyhow::Result<()> {
        // Listening begins before the first child starts, so that no signal is missed.
        let mut stop = StopSignals::listen()?;
        let parent = self.exit_with_parent.then(stdin_end).transpose()?;
        let template = match &self.genesis {
            Some(file) => Some(read_genesis(file)?),
            None => None,
        };
        let embedded =
            Genesis::from_json(TEMPLATE.as_bytes()).context("the template in this program")?;
        layout::refuse_foreign(dir)?;
        crate::files::create_private_dir(dir).with_context(|| dir.display().to_string())?;
        lock_dir(dir)?.hold_until_exit();
        layout::remove_stale(dir)?;
        let wanted = Wanted {
            nodes: self.nodes,
            full_nodes: self.full_nodes,
            base_port: self.base_port,
            seed: self.seed,
            history: self.history,
        };
        // Making a long history takes a while. If the user stops the program meanwhile, the next
        // start makes the network again from the beginning.
        let (to, reset) = (dir.to_owned(), self.reset);
        let preparing = tokio::task::spawn_blocking(move || {
            layout::await_free(&to, STOP_MAX)?;
            Layout::prepare(&to, &wanted, template.as_ref(), &embedded, reset)
        });
        let mut stopped = pin!(async {
            tokio::select! {
                _ = stop.next() => {}
                () = parent_end(parent) => {}
            }
        });
        let layout = tokio::select! {
            layout = preparing => layout.context("preparing the network")??,
            () = &mut stopped => return Ok(()),
        };
        let listener = Listener::bind(dir)?;

        let has_lines = is_drawable(&stdout()) && is_drawable(&stderr()) && !self.plain;
        let is_alone = !self.exit_with_parent && !self.in_background;
        let has_screen = has_lines && is_drawable(&stdin()) && is_alone;
        let options = Options {
            program: std::env::current_exe().context("this program's own path")?,
            log,
            fail_fast: self.fail_fast,
            is_watched: has_screen,
            is_detached: self.in_background,
        };
        let mut network = Supervisor::start(layout, options)?;
        let (ended, end) = oneshot::channel::<()>();
        let serving = tokio::spawn(supervisor::serve(listener, network.orders(), async {
            let _dropped = end.await;
        }));
        let result = watch(&mut network, has_lines, stopped).await;
        layout::remove_stale(dir)?;
        for name in network.stop(stop_time(StopSignals::listen()?)).await {
            say(&format!("{name} did not stop in time and was killed"));
        }
        drop(ended);
        serving.await.context("the network's socket")?;
        result
    }
}

/// Resolves when the parent process has ended, if that matters.
async fn parent_end(parent: Option<oneshot::Receiver<()>>) {
    match parent {
        // An error means that the thread that reads stdin has ended.
        Some(parent) => drop(parent.await),
        None => pending().await,
    }
}

/// The time that nodes have to stop: until a signal comes, and [`STOP_MAX`] at most.
async fn stop_time(mut again: StopSignals) {
    let limit = async {
        sleep(STOP_HINT).await;
        say("some nodes are still stopping; another Ctrl-C kills them");
        sleep(STOP_MAX.saturating_sub(STOP_HINT)).await;
    };
    tokio::select! {
        _ = again.next() => {}
        () = limit => {}
    }
}

/// Shows the network until it ends: on the whole screen if it is watched, else in lines.
async fn watch(
    network: &mut Supervisor,
    has_lines: bool,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stopped = pin!(stopped);
    if !network.run(stopped.as_mut(), Until::Started).await? {
        return Ok(());
    }
    let Some(overview) = network.overview() else {
        network.show_lines(has_lines);
        network.run(stopped, Until::Stopped).await?;
        return Ok(());
    };
    let (actions, received) = mpsc::channel(ACTIONS_MAX);
    let performing = tokio::spawn(supervisor::perform(received, network.orders()));
    let result = tokio::select! {
        result = network.run(stopped, Until::Stopped) => result.map(drop),
        result = screen::show(overview, actions) => result,
    };
    performing.abort();
    result
}
