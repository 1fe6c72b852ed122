//! `invite`: prints the link by which others join a network.

use std::net::IpAddr;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::HomeArg;
use super::run::runtime;
use crate::config::{P2P_PORT, P2pAddress};
use crate::invitation::Invitation;
use crate::network::{Endpoint, Host, Reach, own_addresses};
use crate::output::{print, print_json};
use crate::screen::say;

#[derive(Debug, Args)]
pub(super) struct Invite {
    #[command(flatten)]
    home: HomeArg,
    /// Where others reach the node: HOST:PORT, IP:PORT or a multiaddr. By default the address on
    /// which the home's node listens for peers
    #[arg(long, value_name = "ADDR", value_parser = endpoint)]
    address: Option<Endpoint>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Parses the address that the link will name.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let address: P2pAddress = text.parse().map_err(|error| format!("{error}"))?;
    let endpoint = Endpoint::of(&address.0)
        .ok_or_else(|| format!("{text:?} is more than a host and a TCP port"))?;
    // A name that was given as HOST:PORT becomes `/dns4`, the usual kind.
    Ok(match endpoint.host {
        Host::Name(name) if !text.contains("/tcp/") => {
            Endpoint { host: Host::Name4(name), ..endpoint }
        }
        host => Endpoint { host, ..endpoint },
    })
}

impl Invite {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let home = self.home.open()?;
        let chain = home.genesis()?.chain_id();
        let endpoint = match self.address {
            Some(endpoint) => endpoint,
            None => {
                let listen = home.config()?.p2p.listen;
                Endpoint::of(&listen.0).with_context(|| {
                    format!(
                        "p2p.listen is {listen}: give --address HOST:PORT, where others reach it"
                    )
                })?
            }
        };
        if let Err(reason) = check(&endpoint) {
            bail!("{endpoint} {reason}: give --address HOST:PORT{}", example(&endpoint)?);
        }
        if is_of_this_machine(&endpoint) {
            say("only this machine can use this link; for other hosts give --address HOST:PORT, \
                 and let the node listen there (p2p.listen)");
        }
        let link = Invitation { chain, endpoint };
        if self.json {
            return print_json(&json!({
                "link": link.to_string(),
                "chain_id": chain.to_string(),
                "address": link.endpoint.to_string(),
            }));
        }
        Ok(print(&link.to_string())?)
    }
}

/// Refuses an address that nobody could dial. The error says why.
fn check(endpoint: &Endpoint) -> Result<(), &'static str> {
    if endpoint.port == 0 {
        return Err("has no port that others could dial");
    }
    let Host::Ip(ip) = endpoint.host else { return Ok(()) };
    match Reach::of(ip) {
        Reach::Nobody if ip.is_unspecified() => {
            Err("is every interface of this machine, and no address that others could dial")
        }
        Reach::Nobody => Err("is no address that others could dial"),
        Reach::Link => Err("is an address of a single cable or radio cell, and others lack it"),
        Reach::Machine | Reach::Site | Reach::World => Ok(()),
    }
}

fn is_of_this_machine(endpoint: &Endpoint) -> bool {
    match &endpoint.host {
        Host::Ip(ip) => Reach::of(*ip) == Reach::Machine,
        Host::Name(name) | Host::Name4(name) | Host::Name6(name) => name == "localhost",
    }
}

/// The end of an error message: an example of an address to give, out of those that this machine
/// has. Empty if other hosts can dial none of them.
fn example(endpoint: &Endpoint) -> anyhow::Result<String> {
    let any = match endpoint.host {
        Host::Ip(ip @ IpAddr::V6(_)) if ip.is_unspecified() => ip,
        _ => std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    let found = runtime()?.block_on(own_addresses(any));
    let best = found.into_iter().max_by_key(|ip| Reach::of(*ip));
    let port = if endpoint.port == 0 { P2P_PORT } else { endpoint.port };
    Ok(match best.filter(|ip| Reach::of(*ip) > Reach::Link) {
        Some(ip) => format!(", such as {}", std::net::SocketAddr::new(ip, port)),
        None => String::new(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_could_dial_is_refused() {
        for (text, shown, is_fit, is_own) in [
            ("node.example:7700", "/dns4/node.example/tcp/7700", true, false),
            ("/dns/node.example/tcp/7700", "/dns/node.example/tcp/7700", true, false),
            ("localhost:7700", "/dns4/localhost/tcp/7700", true, true),
            ("127.0.0.1:7700", "/ip4/127.0.0.1/tcp/7700", true, true),
            ("[::1]:7700", "/ip6/::1/tcp/7700", true, true),
            ("192.168.1.5:1", "/ip4/192.168.1.5/tcp/1", true, false),
            ("1.1.1.1:7700", "/ip4/1.1.1.1/tcp/7700", true, false),
            ("0.0.0.0:7700", "/ip4/0.0.0.0/tcp/7700", false, false),
            ("[::]:7700", "/ip6/::/tcp/7700", false, false),
            ("169.254.1.1:7700", "/ip4/169.254.1.1/tcp/7700", false, false),
            ("[fe80::1]:7700", "/ip6/fe80::1/tcp/7700", false, false),
            ("224.0.0.1:7700", "/ip4/224.0.0.1/tcp/7700", false, false),
            ("10.0.0.1:0", "/ip4/10.0.0.1/tcp/0", false, false),
        ] {
            let endpoint = endpoint(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            let found = (check(&endpoint).is_ok(), is_of_this_machine(&endpoint));
            assert_eq!(found, (is_fit, is_own), "{text}");
        }
        for text in ["node.example", "/ip4/10.0.0.1/tcp/1/ws", "/ip4/10.0.0.1", ""] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
