//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ledger::hash::TxId;

use crate::commands;
use crate::error::{EXIT_CODES, WalletError};
use crate::home::Home;
use crate::rpc::Node;
use crate::terminal::{note, print};
use crate::wallet::Wallet;

/// Holds your keys, signs with them, and believes nothing that a node does not prove.
#[derive(Parser)]
#[command(name = "cairn-wallet", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Options {
    /// Directory of the wallet [default: $XDG_DATA_HOME/cairn/wallet]
    #[arg(long, global = true, value_name = "DIR", env = "CAIRN_WALLET_HOME")]
    home: Option<PathBuf>,
    /// RPC address of the node to ask
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "CAIRN_WALLET_RPC",
        default_value = "http://127.0.0.1:7701",
        value_parser = rpc_url
    )]
    rpc: String,
    /// File with the keystore's password, so that you are not asked for it
    #[arg(long, global = true, value_name = "FILE", env = "CAIRN_WALLET_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key; the first one also makes the keystore and its 24 words
    New(commands::keys::NewArgs),
    /// Import a key: 24 words, or a seed of 64 hex digits, from the terminal or stdin
    Import(commands::keys::ImportArgs),
    /// List the keys
    List,
    /// Print the address of a key
    Address {
        /// Name of the key
        name: String,
    },
    /// Print the 24 words of the keystore
    Phrase,
    /// Print a new address and its 24 words, for a network that does not exist yet; `import` takes
    /// the words later
    Generate {
        /// Prefix of the network's addresses
        #[arg(long, value_name = "PREFIX", default_value = "crn", value_parser = address_prefix)]
        address_prefix: String,
    },
    /// Print the proved balance of an account, or of all keys
    Balance {
        /// Name of a key, or any address
        account: Option<String>,
    },
    /// Pay, and wait until the transfer is final
    Send(commands::send::SendArgs),
    /// Show what the node knows of a transaction
    Tx {
        /// Id of the transaction
        id: TxId,
    },
    /// Print a completion script
    Completions {
        /// Name of the shell
        shell: Shell,
    },
}

/// Runs the program: parses the command line, runs the command, and returns its exit code (the
/// table is in `--help`).
#[must_use]
pub fn run() -> ExitCode {
    // `parse` ends the process itself for --help and --version (exit code 0) and for usage errors
    // (2).
    let Cli { options, command } = Cli::parse();
    match dispatch(options, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_reader_gone() => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(options: Options, command: Command) -> Result<(), WalletError> {
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "cairn-wallet", &mut script);
        return Ok(print(String::from_utf8_lossy(&script).trim_end())?);
    }
    if let Command::Generate { address_prefix } = command {
        return commands::keys::generate(&address_prefix, options.json);
    }
    let no_home =
        || WalletError::Usage("neither --home nor HOME says where the wallet is".to_owned());
    let home = options.home.or_else(Home::default_dir).ok_or_else(no_home)?;
    let wallet =
        Wallet::new(Home::new(home), Node::new(options.rpc), options.json, options.password_file);
    match command {
        Command::New(args) => commands::keys::new(&wallet, args),
        Command::Import(args) => commands::keys::import(&wallet, args),
        Command::List => commands::keys::list(&wallet),
        Command::Address { name } => commands::keys::address(&wallet, &name),
        Command::Phrase => commands::keys::phrase(&wallet),
        Command::Balance { account } => commands::balance::run(&wallet, account.as_deref()),
        Command::Send(args) => commands::send::run(&wallet, &args),
        Command::Tx { id } => commands::tx::run(&wallet, id),
        Command::Generate { .. } | Command::Completions { .. } => Ok(()),
    }
}

fn rpc_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("expected http://HOST:PORT (for a node elsewhere, use a tunnel: its answers are \
                  proved, not private)"
            .to_owned()),
    }
}

fn address_prefix(text: &str) -> Result<String, String> {
    ledger::genesis::check_address_prefix(text).map(|()| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_plain_http_urls() {
        assert!(rpc_url("http://127.0.0.1:7701").is_ok());
        for bad in ["", "http://", "https://node", "127.0.0.1:7701", "file:///etc/passwd"] {
            assert!(rpc_url(bad).is_err(), "{bad}");
        }
    }
}
