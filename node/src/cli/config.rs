//! `config show`, and the flags that replace values of `config.toml`.

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use protocol::archive::Keep;

use super::HomeArg;
use crate::config::{
    Config as Settings, P2pAddress, SyncConfig, SyncMode, parse_keep, parse_rate,
    parse_socket_address,
};
use crate::home::Home;
use crate::output::{print, print_json};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Print the configuration in effect: the file, overridden by environment and flags
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    home: HomeArg,
    #[command(flatten)]
    overrides: Overrides,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Settings given on the command line.
#[derive(Debug, Args)]
pub(super) struct Overrides {
    /// Address on which the node listens for peers: a multiaddr or IP:PORT
    #[arg(long, env = "CAIRN_NODE_P2P_LISTEN", value_name = "ADDR")]
    pub(super) p2p_listen: Option<P2pAddress>,
    /// Address on which RPC listens: IP:PORT
    #[arg(
        long,
        env = "CAIRN_NODE_RPC_LISTEN",
        value_name = "ADDR",
        value_parser = parse_socket_address
    )]
    pub(super) rpc_listen: Option<SocketAddr>,
    /// A peer to stay connected to, besides those of the file: a multiaddr, HOST:PORT or IP:PORT;
    /// may be given again
    #[arg(long = "peer", env = "CAIRN_NODE_PEERS", value_name = "ADDR", value_delimiter = ',')]
    peers: Vec<P2pAddress>,
    /// How a node without blocks joins its chain
    #[arg(long, env = "CAIRN_NODE_SYNC", value_name = "MODE")]
    sync: Option<SyncMode>,
    /// How much of history to keep: "full", a size such as 20GiB, or "recent 64 eras"
    #[arg(long, env = "CAIRN_NODE_KEEP", value_name = "AMOUNT", value_parser = parse_keep)]
    keep: Option<Keep>,
    /// Most bytes of history a second sent to all peers together, such as 5000000 or "5 MB/s"; 0
    /// for unlimited
    #[arg(
        long,
        env = "CAIRN_NODE_SYNC_UPLOAD_RATE",
        value_name = "RATE",
        value_parser = parse_rate
    )]
    sync_upload_rate: Option<u64>,
    /// Most bytes of history a second received from all peers together; 0 for unlimited
    #[arg(
        long,
        env = "CAIRN_NODE_SYNC_DOWNLOAD_RATE",
        value_name = "RATE",
        value_parser = parse_rate
    )]
    sync_download_rate: Option<u64>,
}

impl Overrides {
    /// The configuration in effect, checked.
    pub(super) fn apply(self, home: &Home, log: Option<String>) -> anyhow::Result<Settings> {
        let mut settings = home.config()?;
        settings.p2p.listen = self.p2p_listen.unwrap_or(settings.p2p.listen);
        settings.rpc.listen = self.rpc_listen.unwrap_or(settings.rpc.listen);
        settings.log.level = log.unwrap_or(settings.log.level);
        let sync = &mut settings.sync;
        sync.mode = self.sync.unwrap_or(sync.mode);
        sync.upload_rate = self.sync_upload_rate.map_or(sync.upload_rate, SyncConfig::limit);
        sync.download_rate = self.sync_download_rate.map_or(sync.download_rate, SyncConfig::limit);
        settings.history.keep = self.keep.unwrap_or(settings.history.keep);
        for peer in self.peers {
            if !settings.p2p.peers.contains(&peer) {
                settings.p2p.peers.push(peer);
            }
        }
        settings.check()?;
        Ok(settings)
    }
}

impl Config {
    pub(super) fn execute(self, log: Option<String>) -> anyhow::Result<()> {
        let Self::Show(show) = self;
        let settings = show.overrides.apply(&show.home.open()?, log)?;
        if show.json { print_json(&settings) } else { Ok(print(&settings.to_toml())?) }
    }
}
