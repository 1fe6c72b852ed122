//! The ports of a network: checks that they are free, or takes free ones.

use std::net::{Ipv4Addr, TcpListener};
use std::str::FromStr;

use anyhow::{Context, bail};

/// The ports of the node at position i, counted from 0, begin at base + 10 * i.
pub(super) const PORT_STEP: u16 = 10;

/// The first port of a network, as the command line gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BasePort {
    /// Any block of free ports.
    Auto,
    Fixed(u16),
}

impl FromStr for BasePort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            port => port.parse().map(Self::Fixed).map_err(|_| "expected a port, or auto"),
        }
    }
}

/// Free ports are taken in blocks, from this port up: above the ports of services, below the
/// ephemeral range, from which the system gives ports to other programs.
const FIRST: u16 = 20_000;
/// Ports of a block.
const BLOCK: u16 = 100;
const BLOCKS: u16 = 60;

/// Ports that this process keeps from other programs.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// One port of each block. Held while the network runs, so that no other network takes the
    /// block while its nodes do not listen.
    _guards: Vec<TcpListener>,
    /// The ports of each node, by its position. They are released when the node starts.
    ports: Vec<(usize, TcpListener)>,
}

impl Held {
    /// Lets a node listen on its ports.
    pub(super) fn release(&mut self, node: usize) {
        self.ports.retain(|(owner, _)| *owner != node);
    }
}

/// Takes the ports of this many nodes, at a base where all are free. Two networks that start at the
/// same time get different ones.
pub(super) fn take(nodes: usize) -> anyhow::Result<(u16, Held)> {
    // Networks that start at the same time begin to search at different places.
    let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
    (0..BLOCKS)
        .map(|step| FIRST + BLOCK * ((start + step) % BLOCKS))
        .find_map(|base| Some((base, hold(base, nodes)?)))
        .with_context(|| {
            format!("no free ports for {nodes} nodes from {FIRST} on: give --base-port")
        })
}

/// Takes the ports of this many nodes from a base on. `None` if one of them is taken.
pub(super) fn hold(base: u16, nodes: usize) -> Option<Held> {
    let listen = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    let blocks = u16::try_from(nodes.div_ceil(usize::from(BLOCK / PORT_STEP))).ok()?;
    // The last port of a block is no node's.
    let guard = |block: u16| base.checked_add(BLOCK.checked_mul(block)?)?.checked_add(BLOCK - 1);
    let guards = (0..blocks).map(|block| listen(guard(block)?)).collect::<Option<Vec<_>>>()?;
    let first = |node: usize| base.checked_add(PORT_STEP.checked_mul(u16::try_from(node).ok()?)?);
    let mut ports = Vec::new();
    for node in 0..nodes {
        let first = first(node)?;
        for port in [first, first.checked_add(1)?] {
            ports.push((node, listen(port)?));
        }
    }
    Some(Held { _guards: guards, ports })
}

/// Fails if a port is taken. The error names all taken ports, and another base at which all are
/// free. `base_port` is `None` for a network that runs. It cannot move, so the error names no other
/// base.
pub(super) fn check_free(ports: &[(u16, u16)], base_port: Option<u16>) -> anyhow::Result<()> {
    let all = ports.iter().flat_map(|(p2p, rpc)| [*p2p, *rpc]);
    let taken: Vec<String> =
        all.filter(|port| !is_free(*port)).map(|port| port.to_string()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let advice = match base_port.map(|base_port| free_base(ports, base_port)) {
        Some(Some(free)) => format!(" or give --base-port {free}, where all are free"),
        Some(None) => " or give --base-port auto".to_owned(),
        None => String::new(),
    };
    let plural = if taken.len() == 1 { "port is" } else { "ports are" };
    bail!("these {plural} taken by other programs: {}; stop them{advice}", taken.join(", "))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The next base, in steps of 100, at which all ports with the same offsets are free.
fn free_base(ports: &[(u16, u16)], base_port: u16) -> Option<u16> {
    let fits = |base: u16| {
        let moved = |port: u16| base.checked_add(port.checked_sub(base_port)?);
        ports
            .iter()
            .flat_map(|(p2p, rpc)| [*p2p, *rpc])
            .all(|port| moved(port).is_some_and(is_free))
    };
    (1..=50u16)
        .filter_map(|step| base_port.checked_add(step.checked_mul(100)?))
        .find(|base| fits(*base))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_start_together_get_other_ports() {
        let (first, mut held) = take(4).unwrap();
        let (second, _other) = take(11).unwrap();
        assert_ne!(first, second);
        assert!(hold(first, 1).is_none());
        // Also while no node listens.
        (0..4).for_each(|node| held.release(node));
        assert!(is_free(first) && hold(first, 1).is_none());
    }

    #[test]
    fn a_base_is_a_port_or_auto() {
        for (text, base) in [
            ("auto", Some(BasePort::Auto)),
            ("7700", Some(BasePort::Fixed(7700))),
            ("0", Some(BasePort::Fixed(0))),
            ("70000", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), base, "{text:?}");
        }
    }
}
