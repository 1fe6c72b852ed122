//! `address`: prints where other nodes reach the node of a home.

use std::net::IpAddr;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::HomeArg;
use super::run::runtime;
use crate::network::{Endpoint, Host, Reach, own_addresses};
use crate::output::{print, print_json};

#[derive(Debug, Args)]
pub(super) struct Address {
    #[command(flatten)]
    home: HomeArg,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Address {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let home = self.home.open()?;
        let listen = home.config()?.p2p.listen;
        let peer = home.node_key()?.identity().public().to_peer_id();
        let endpoint = Endpoint::of(&listen.0)
            .with_context(|| format!("p2p.listen is {listen}, expected IP:PORT"))?;
        let endpoint = Endpoint { peer: Some(peer), ..endpoint };
        let shown: Vec<String> = match endpoint.host {
            Host::Ip(any) if any.is_unspecified() => {
                let found = reachable(runtime()?.block_on(own_addresses(any)));
                found.into_iter().map(|ip| endpoint.at(ip).to_string()).collect()
            }
            _ => vec![endpoint.to_string()],
        };
        if self.json {
            return print_json(&json!({ "peer_id": peer.to_string(), "addresses": shown }));
        }
        Ok(print(&shown.join("\n"))?)
    }
}

/// The addresses that hosts elsewhere can dial, the one that reaches furthest first. If there is
/// none, all addresses found.
fn reachable(mut found: Vec<IpAddr>) -> Vec<IpAddr> {
    found.sort_by_key(|ip| std::cmp::Reverse(Reach::of(*ip)));
    let others: Vec<IpAddr> =
        found.iter().copied().filter(|ip| Reach::of(*ip) > Reach::Link).collect();
    if others.is_empty() { found } else { others }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_other_machines_come_before_loopback() {
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = ips(&["127.0.0.1", "10.0.0.1", "169.254.3.3", "1.1.1.1"]);
        assert_eq!(reachable(found), ips(&["1.1.1.1", "10.0.0.1"]));
        assert_eq!(reachable(ips(&["127.0.0.1"])), ips(&["127.0.0.1"]));
    }
}
