//! The command line: results on stdout, logs and progress on stderr.

pub mod archive;

mod address;
mod config;
mod db;
mod files;
mod find;
mod genesis;
mod init;
mod invite;
mod join;
mod nodes;
mod query;
mod run;
mod stop;
mod sync;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::join::FetchError;
use crate::client::ClientError;
use crate::control::ControlError;
use crate::home::Home;
use crate::output::{self, OutputError};
use crate::testnet;

/// Exit code of an error. The parser gives 2 for a wrong command line.
const EXIT_ERROR: u8 = 1;
/// Exit code if no node answers.
const EXIT_UNREACHABLE: u8 = 3;
/// Exit code if something did not come in time.
const EXIT_NOT_IN_TIME: u8 = 5;

/// A node of a Cairn payments ledger.
#[derive(Debug, Parser)]
#[command(name = "cairn-node", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 no node is there, 5 not in time.")]
pub struct Cli {
    /// Log level on stderr: error, warn, info, debug, trace, off, or directives such as
    /// info,node::network=debug
    #[arg(long, global = true, env = "CAIRN_NODE_LOG", value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the home of a new node
    Init(init::Init),
    /// Run the node of a home until SIGTERM or Ctrl-C
    Run(run::Run),
    /// Stop the node that runs in a home, and wait until it has ended
    Stop(stop::Stop),
    /// Print a link by which others join the network of a home
    Invite(invite::Invite),
    /// Join a network by a link: make a home, fetch the genesis from the node that the link names,
    /// and run
    Join(join::Join),
    /// Print the addresses at which other nodes reach the node of a home
    Address(address::Address),
    /// Start a network of nodes on this machine, with funded accounts, or command one that runs
    Testnet(testnet::Testnet),
    /// Show the status of a running node: chain, height, roots, peers
    Status(query::Query),
    /// Show the peers of a running node
    Peers(query::Query),
    /// Show all nodes that the node of a home knows: address, last seen, how the last dial ended,
    /// height, eras
    Nodes(nodes::Nodes),
    /// Show how much history a running node has fetched, from which peers and how fast, or why
    /// nothing arrives
    Sync(sync::Sync),
    /// Look for nodes that have an era of history, a block or a file
    Find(find::Find),
    /// Share a file with everybody who has its link, and print the link
    Share(files::Share),
    /// Fetch a file by its link from the nodes that have it
    Get(files::Get),
    /// Stop sharing or fetching a file, and remove it from the home
    Unshare(files::Unshare),
    /// Show the files that a running node shares and fetches
    Files(files::Files),
    /// Check, show or write genesis files
    #[command(subcommand)]
    Genesis(genesis::Genesis),
    /// Check, export or import the chain of a home whose node is stopped
    #[command(subcommand)]
    Db(db::Db),
    /// Show the configuration of a home
    #[command(subcommand)]
    Config(config::Config),
    /// Write shell completions to stdout
    Completions {
        /// Name of the shell
        shell: clap_complete::Shell,
    },
}

/// The option for the home.
#[derive(Debug, Args)]
struct HomeArg {
    /// Directory of the node; $XDG_DATA_HOME/cairn/node by default
    #[arg(long, env = "CAIRN_NODE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

impl HomeArg {
    fn root(&self) -> anyhow::Result<PathBuf> {
        let root = self.home.clone().or_else(Home::default_root);
        root.context(
            "there is no default home, as neither HOME nor XDG_DATA_HOME is set: give --home",
        )
    }

    fn open(&self) -> anyhow::Result<Home> {
        Ok(Home::open(&self.root()?)?)
    }
}

impl Cli {
    /// Parses the command line and the environment. An empty variable counts as unset. Ends the
    /// process after `--help` or `--version`, and if the command line is wrong.
    #[must_use]
    pub fn read() -> Self {
        Self::from_words(env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn from_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from_mut(words)?;
        if let Some(("testnet", matches)) = matches.subcommand() {
            testnet::Testnet::check(matches)
                .map_err(|text| command.error(ErrorKind::ArgumentConflict, text))?;
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |arg: &clap::Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// Runs the command.
///
/// # Errors
/// The error of the command. [`exit_code`] gives its exit code, and [`show`] shows it with its
/// causes.
pub fn dispatch(cli: Cli) -> anyhow::Result<()> {
    // These two may take the level from the configuration, so they start the log themselves.
    match cli.command {
        Command::Run(run) => return run.execute(cli.log),
        Command::Join(join) => return join.execute(cli.log),
        _ => {}
    }
    crate::logging::start(cli.log.as_deref().unwrap_or("info"))?;
    match cli.command {
        Command::Run(_) | Command::Join(_) => unreachable!("handled above"),
        Command::Invite(invite) => invite.execute(),
        Command::Address(address) => address.execute(),
        Command::Init(init) => init.execute(),
        Command::Stop(stop) => stop.execute(),
        Command::Testnet(testnet) => testnet.execute(cli.log),
        Command::Status(query) => query.status(),
        Command::Peers(query) => query.peers(),
        Command::Nodes(nodes) => nodes.execute(),
        Command::Sync(sync) => sync.execute(),
        Command::Find(find) => find.execute(),
        Command::Share(share) => share.execute(),
        Command::Get(get) => get.execute(),
        Command::Unshare(unshare) => unshare.execute(),
        Command::Files(files) => files.execute(),
        Command::Genesis(genesis) => genesis.execute(),
        Command::Db(db) => db.execute(),
        Command::Config(config) => config.execute(cli.log),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cairn-node", &mut script);
            Ok(output::write(&script)?)
        }
    }
}

/// The exit code of an error.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<testnet::CommandError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<ControlError>() {
        return error.exit_code();
    }
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ClientError::Unreachable { .. }), _) | (_, Some(FetchError::Unreachable { .. })) => {
            EXIT_UNREACHABLE
        }
        (_, Some(FetchError::Slow { .. } | FetchError::Unresolved { .. })) => EXIT_NOT_IN_TIME,
        _ => EXIT_ERROR,
    }
}

/// An error and its causes in one line. A cause that the text already includes is left out.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the reader of stdout has closed it, as `head` does. That is not a failure of the
/// command.
#[must_use]
pub fn is_output_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(OutputError::is_closed)
}

/// Shows an error on stderr. It may quote a file or an answer of a stranger, so control characters
/// other than the end of a line are replaced.
pub fn show(error: &anyhow::Error) {
    let is_plain = |char: char| char == '\n' || !char.is_control();
    let text: String =
        told(error).chars().map(|char| if is_plain(char) { char } else { '\u{fffd}' }).collect();
    crate::screen::say(&format!("error: {text}"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_have_the_exit_codes_that_the_help_names() {
        let (address, time) = ("/ip4/127.0.0.1/tcp/1".parse().unwrap(), Duration::from_secs(1));
        let (name, root) = ("node.example".to_owned(), PathBuf::from("/h"));
        for (error, code) in [
            (anyhow::anyhow!("no"), 1),
            (ControlError::Absent { root: root.clone() }.into(), 3),
            (ControlError::Slow { root, what: "still runs", time }.into(), 5),
            (FetchError::Slow { address, time }.into(), 5),
            (FetchError::Unresolved { name, time }.into(), 5),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let full = || io::Error::other("disk full");
        for (error, expected) in [
            (anyhow::Error::new(full()).context("cannot write"), "cannot write: disk full"),
            (
                anyhow::Error::new(full()).context("cannot write: disk full").context("db"),
                "db: cannot write: disk full",
            ),
        ] {
            assert_eq!(told(&error), expected);
        }
    }

    #[test]
    fn what_scripts_rely_on_parses_and_mistakes_do_not() {
        let join = format!("join cairn-net:{}@/ip4/127.0.0.1/tcp/7700", "0".repeat(64));
        for (line, valid) in [
            ("init --home /h --genesis /g", true),
            ("init --home /h --genesis /g --validator", true),
            ("init --home /h --genesis /g --validator-key /k", true),
            ("init --home /h --genesis /g --validator --validator-key /k", false),
            ("init --home /h", false),
            ("run --home /h --p2p-listen 127.0.0.1:7700 --rpc-listen 127.0.0.1:7701", true),
            ("run --home /h --peer /ip4/10.0.0.1/tcp/1 --peer 10.0.0.2:1 --exit-with-parent", true),
            ("run --home /h --rpc-listen 7701", false),
            ("stop --home /h", true),
            ("stop /h", false),
            ("run --home /h --peer nowhere", false),
            ("run --home /h --peer node.example:7700", true),
            (
                "init --home /h --genesis /g --p2p-listen 0.0.0.0:7700 --rpc-listen 127.0.0.1:7701",
                true,
            ),
            ("init --home /h --genesis /g --rpc-listen localhost", false),
            ("run --home /h --sync-upload-rate 1000000 --sync-download-rate 0", true),
            ("run --home /h --sync-upload-rate 1MB", false),
            ("run --home /h --sync-upload-rate 1MB/s --sync-download-rate 800KiB/s", true),
            ("run --home /h --sync-upload-rate -1", false),
            ("invite --home /h --json", true),
            ("invite --address node.example:7700", true),
            ("invite --address /dns4/node.example/tcp/7700", true),
            ("invite --address node.example", false),
            ("join --home /h", false),
            ("join cairn-net:00@/ip4/127.0.0.1/tcp/7700", false),
            (&join, true),
            (&format!("{join} --home /h --yes --exit-with-parent"), true),
            (&format!("{join} --checkpoint 7:{}", "0".repeat(64)), true),
            (&format!("{join} --checkpoint 7"), false),
            (&format!("{join} --p2p-listen 127.0.0.1:1 --rpc-listen 127.0.0.1:2"), true),
            ("address --home /h --json", true),
            ("testnet --nodes 4 --full-nodes 0 --dir /d --base-port 7700 --plain", true),
            ("testnet --nodes 0", false),
            ("testnet --reset", true),
            ("testnet --base-port auto --detach --fail-fast --json", true),
            ("testnet --base-port any", false),
            ("testnet --detach --exit-with-parent", false),
            ("testnet --dir /d ls --json", true),
            ("testnet ls --dir /d", true),
            ("testnet --json wait --final --height 9 --timeout 10s", true),
            ("testnet wait --timeout 10", false),
            ("testnet logs node1 -f", true),
            ("testnet logs", true),
            ("testnet partition node1,node2/node3,node4", true),
            ("testnet partition node1", false),
            ("testnet partition node1/node1", false),
            ("testnet isolate node1", true),
            ("testnet isolate", false),
            ("testnet heal", true),
            ("testnet latency node1-node2 100ms", true),
            ("testnet latency all 1.5s", true),
            ("testnet latency all 100", false),
            ("testnet kill node1", true),
            ("testnet restart node1 --binary /b", true),
            ("testnet add", true),
            ("testnet stop", true),
            ("testnet --nodes 4 stop", false),
            ("testnet stop --nodes 4", false),
            ("status --rpc http://127.0.0.1:7701 --json", true),
            ("peers", true),
            ("sync", true),
            ("sync --watch --json --rpc http://127.0.0.1:7701", true),
            ("sync --watch 5", false),
            ("genesis check /g", true),
            ("genesis id /g", true),
            ("db export --home /h --to /f", true),
            ("db export --home /h --to -", true),
            ("db import --home /h --from -", true),
            ("db import --home /h", false),
            ("config show --json", true),
            ("completions bash", true),
        ] {
            check(line, valid);
        }
    }

    fn check(line: &str, valid: bool) {
        let words = std::iter::once("cairn-node").chain(line.split_whitespace());
        let parsed = Cli::from_words(words.map(OsString::from));
        assert_eq!(parsed.is_ok(), valid, "{line}");
    }

    #[test]
    fn commands_for_files_parse_and_mistakes_do_not() {
        for (line, valid) in [
            ("share --home /h /f --private --json", true),
            ("share --home /h", false),
            ("get --home /h - -o /f --force --json", true),
            ("get --home /h cairn:00 --range 0-9 --range 99-", true),
            ("get --home /h cairn:00 --range 9", false),
            ("get --home /h", false),
            ("unshare --home /h cairn:00", true),
            ("files --home /h --json", true),
        ] {
            check(line, valid);
        }
    }

    #[test]
    fn known_nodes_are_asked_for_by_home() {
        for (line, valid) in [("nodes --home /h --json", true), ("nodes --rpc http://h:1", false)] {
            let words = std::iter::once("cairn-node").chain(line.split_whitespace());
            assert_eq!(Cli::from_words(words.map(OsString::from)).is_ok(), valid, "{line}");
        }
    }
}
