//! Checks that the ports of a network are free.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

/// Fails if a port is taken. The error names all taken ports.
pub(super) fn check_free(ports: &[(u16, u16)], base_port: u16) -> anyhow::Result<()> {
    let all = ports.iter().flat_map(|(p2p, rpc)| [*p2p, *rpc]);
    let taken: Vec<String> =
        all.filter(|port| !is_free(*port)).map(|port| port.to_string()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let advice = match free_base(ports, base_port) {
        Some(free) => format!("give --base-port {free}, where all are free"),
        None => "give another --base-port".to_owned(),
    };
    let plural = if taken.len() == 1 { "port is" } else { "ports are" };
    bail!("these {plural} taken by other programs: {}; stop them or {advice}", taken.join(", "))
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
