//! `join`: makes a home from a link, and runs its node.

mod ask;
mod fetch;
mod place;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use clap::builder::BoolishValueParser;
use ledger::genesis::Genesis;
use tokio::runtime::Runtime;

pub(super) use self::fetch::FetchError;
use self::place::{Place, Ports};
use super::HomeArg;
use super::config::Overrides;
use super::run::{foreground, runtime};
use crate::checkpoint::Checkpoint;
use crate::config::{Config, P2P_PORT, P2pAddress, RPC_PORT};
use crate::home::{Contents, Home, HomeError};
use crate::invitation::Invitation;
use crate::keys::Seed;
use crate::logging;
use crate::network::{Endpoint, Host, Reach};
use crate::parent::stdin_end;
use crate::run::Options;
use crate::screen::say;

/// How long a name may take to be resolved.
const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Join {
    /// The link that `invite` printed
    #[arg(value_name = "LINK")]
    link: Invitation,
    #[command(flatten)]
    home: HomeArg,
    #[command(flatten)]
    overrides: Overrides,
    /// Let other hosts reach the new node without asking: listen on all interfaces, unless the
    /// link's node is on this machine
    #[arg(long)]
    yes: bool,
    /// Stop at the end of stdin, which comes when the parent process has ended
    #[arg(long, env = "CAIRN_NODE_EXIT_WITH_PARENT", value_parser = BoolishValueParser::new())]
    exit_with_parent: bool,
    /// A block that the chain must contain, from a source that you trust
    #[arg(long, env = "CAIRN_NODE_CHECKPOINT", value_name = "HEIGHT:HASH")]
    checkpoint: Option<Checkpoint>,
}

impl Join {
    pub(super) fn execute(self, log: Option<String>) -> anyhow::Result<()> {
        let (root, runtime) = (self.home.root()?, runtime()?);
        let (home, is_new) = match Home::open(&root) {
            Ok(home) => (home, false),
            Err(HomeError::Missing { .. }) => {
                logging::start(log.as_deref().unwrap_or("info"))?;
                (self.make(&root, &runtime)?, true)
            }
            Err(error) => return Err(error.into()),
        };
        let Self { link, overrides, exit_with_parent, checkpoint, .. } = self;
        let chain = home.genesis()?.chain_id();
        ensure!(
            chain == link.chain,
            "{} is the home of a node of chain {chain}, and the link is of chain {}: give another \
             --home",
            root.display(),
            link.chain
        );
        let mut config = overrides.apply(&home, log)?;
        let peer = P2pAddress(link.endpoint.address());
        if !config.p2p.peers.contains(&peer) {
            config.p2p.peers.push(peer);
        }
        if !is_new {
            logging::start(&config.log.level)?;
            say(&format!("{} is a home of this chain already", root.display()));
        }
        let parent = exit_with_parent.then(stdin_end).transpose()?;
        let options = Options { parent, checkpoint, ..Options::default() };
        foreground(runtime, home, config, options)
    }

    /// Fetches the genesis and makes the home. Nothing is written before the genesis is checked.
    fn make(&self, root: &Path, runtime: &Runtime) -> anyhow::Result<Home> {
        let endpoint = &self.link.endpoint;
        let found = runtime.block_on(resolve(endpoint))?;
        let reach = found.iter().map(|ip| Reach::of(*ip)).max().unwrap_or(Reach::Nobody);
        ensure!(
            reach != Reach::Nobody,
            "{endpoint} is no address that can be dialed: ask for a link with the address of a host"
        );
        say(&format!("asking {endpoint} for the genesis of chain {}", self.link.chain));
        let genesis = runtime.block_on(self.genesis(&found))?;
        let config = self.config(&found, reach)?;
        let node_key = Seed::random()?;
        let contents = Contents {
            genesis: &genesis,
            config: &config,
            node_key: &node_key,
            validator_key: None,
        };
        let home = Home::create(root, &contents)?;
        say(&format!(
            "joining the network {:?} with a new home in {}",
            genesis.network,
            home.root().display()
        ));
        say(&format!(
            "listening for peers on {}, RPC on http://{}",
            config.p2p.listen, config.rpc.listen
        ));
        Ok(home)
    }

    /// Fetches the genesis from the first address at which a node of the chain sends it. One bad
    /// address of several keeps nobody from joining.
    async fn genesis(&self, addresses: &[IpAddr]) -> Result<Genesis, FetchError> {
        let mut last = None;
        for ip in addresses {
            let address = self.link.endpoint.at(*ip).address();
            match fetch::genesis(self.link.chain, &address, fetch::FETCH_MAX).await {
                Err(error) if error.is_of_address() => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| FetchError::Unreachable {
            address: self.link.endpoint.address(),
            reason: "it has no address".to_owned(),
        }))
    }

    /// The configuration of the new node. It depends on the addresses of the link's host, and
    /// perhaps on the answer of the person at the terminal.
    fn config(&self, found: &[IpAddr], reach: Reach) -> anyhow::Result<Config> {
        let mut place = Place::of(found, reach);
        if self.overrides.p2p_listen.is_none() && !place.ip.is_loopback() && !self.yes {
            place = ask::consent(place)?;
        }
        let (p2p, rpc) = (self.overrides.p2p_listen.as_ref(), self.overrides.rpc_listen);
        let usual = Ports { p2p: P2P_PORT, rpc: RPC_PORT };
        let ports = place
            .free_ports(usual, (p2p.is_none(), rpc.is_none()))
            .context("no free pair of ports found: give --p2p-listen and --rpc-listen")?;
        if ports != usual {
            say(&format!(
                "the usual ports, {P2P_PORT} for peers and {RPC_PORT} for RPC, are not both free: \
                 this node takes the next free pair"
            ));
        }
        let mut config = Config::default();
        let listen = || SocketAddr::new(place.ip, ports.p2p).into();
        config.p2p.listen = p2p.cloned().unwrap_or_else(listen);
        config.p2p.private = place.is_private;
        config.p2p.peers = vec![P2pAddress(self.link.endpoint.address())];
        config.rpc.listen = rpc.unwrap_or(SocketAddr::new(config.rpc.listen.ip(), ports.rpc));
        config.check()?;
        Ok(config)
    }
}

/// The IP addresses of the host of a link, at most [`ADDRESSES_MAX`].
async fn resolve(endpoint: &Endpoint) -> anyhow::Result<Vec<IpAddr>> {
    let (name, v4, v6) = match &endpoint.host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => (name, true, true),
        Host::Name4(name) => (name, true, false),
        Host::Name6(name) => (name, false, true),
    };
    let looking = tokio::net::lookup_host((name.as_str(), endpoint.port));
    let found = match tokio::time::timeout(RESOLVE_MAX, looking).await {
        Ok(found) => found.with_context(|| format!("the name {name:?} cannot be resolved"))?,
        Err(_) => bail!(FetchError::Unresolved { name: name.clone(), time: RESOLVE_MAX }),
    };
    let mut ips = Vec::new();
    for ip in found.map(|address| address.ip()) {
        if if ip.is_ipv4() { v4 } else { v6 } && !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips.truncate(ADDRESSES_MAX);
    let kind = if v4 { "IPv4" } else { "IPv6" };
    ensure!(!ips.is_empty(), "the name {name:?} has no {kind} address");
    Ok(ips)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_by_the_kind_of_the_address() {
        let ips = |text: &str| {
            let endpoint = Endpoint::of(&text.parse().unwrap()).unwrap();
            async move { resolve(&endpoint).await }
        };
        assert_eq!(
            ips("/ip4/10.0.0.1/tcp/1").await.unwrap(),
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        let v4 = ips("/dns4/localhost/tcp/1").await.unwrap();
        assert!(!v4.is_empty() && v4.iter().all(|ip| ip.is_ipv4() && ip.is_loopback()), "{v4:?}");
        // No host has a name of the domain `invalid` (RFC 6761).
        let error = ips("/dns4/node.invalid/tcp/1").await.unwrap_err();
        assert!(format!("{error:#}").contains("node.invalid"), "{error:#}");
    }
}
