//! Links of known rates: a namespace for each host, all on one bridge in a namespace of its own, so
//! that this machine's own network stays untouched.
//!
//! Each host sends through a token bucket at its own end and receives through one at the bridge.
//! The buckets count the headers of each packet, even if the kernel splits a large packet only
//! later.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{panic, thread};

use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::Unfit;

/// Burst of each token bucket.
const BURST: &str = "32kb";
/// Longest time that a packet waits in a token bucket.
const LATENCY: &str = "50ms";
/// Port of each node, within its namespace.
const PORT: u16 = 7700;
/// Where `ip` keeps the names of namespaces (ip-netns(8)).
const NAMESPACES: &str = "/run/netns";
/// Address of the hub for all hosts.
pub(super) const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);
/// The private network of all hosts, a /16.
const PRIVATE: u32 = 0x0a4d_0000;
/// Rates of hosts whose links are not measured: more than nodes need.
const UNLIMITED: Rates = Rates { up: 1_000, down: 1_000 };
/// Ports for hosts on loopback: below the stories' ports and the ephemeral range.
const LOOPBACK_PORTS: Range<u16> = 10_000..20_000;
/// Ports are taken in blocks. A listener on the first port of a block reserves the others, so that
/// no two benches at a time share a port, even one that nothing listens on at the moment.
const BLOCK: u16 = 100;

/// Link rates of a host, Mbit/s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) up: u32,
    pub(super) down: u32,
}

/// Counters of an interface, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// The hosts and what connects them. All of it is removed when dropped.
pub(super) struct Topology {
    pub(super) hosts: Vec<Host>,
    hub: Option<Namespace>,
    /// Listeners that reserve the blocks of ports on loopback.
    _blocks: Vec<TcpListener>,
}

/// A machine of the bench: a network namespace, or only ports on loopback.
pub(super) struct Host {
    /// Its P2P address for the other hosts.
    pub(super) address: SocketAddrV4,
    /// Its RPC address, within its namespace.
    pub(super) rpc: SocketAddrV4,
    namespace: Option<Namespace>,
}

/// A namespace that is deleted when dropped.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("netns del {}", self.0)) {
            eprintln!("bench: namespace {} is left behind: {error:#}", self.0);
        }
    }
}

impl Namespace {
    fn add(name: &str) -> anyhow::Result<Self> {
        ip(&format!("netns add {name}"))?;
        let namespace = Self(name.to_owned());
        ip(&format!("-n {name} link set lo up"))?;
        Ok(namespace)
    }
}

/// Checks that this machine can shape links.
pub(super) fn check() -> anyhow::Result<()> {
    let unfit =
        |what: &str| Unfit(format!("{what}; with --loopback the bench runs without shaped links"));
    if !rustix::process::geteuid().is_root() {
        return Err(unfit("network namespaces need root").into());
    }
    for (program, package) in [("ip", "iproute2"), ("tc", "iproute2"), ("chrt", "util-linux")] {
        if run(program, "-V").is_err() {
            return Err(unfit(&format!("`{program}` does not run, it is part of {package}")).into());
        }
    }
    Ok(())
}

impl Topology {
    /// One host for each of these rates, all in one private network.
    pub(super) fn shaped(rates: &[Rates], offload: bool) -> anyhow::Result<Self> {
        Self::linked(rates, offload, |number| Some(Ipv4Addr::from(PRIVATE | u32::from(number))))
    }

    /// Hosts with public addresses, each in a /24 of its own, so that nodes' limits by groups of
    /// addresses apply. There are at most 254 hosts.
    pub(super) fn public(count: usize) -> anyhow::Result<Self> {
        let address =
            |number| u8::try_from(number).ok().filter(|third| *third < u8::MAX).map(public_address);
        Self::linked(&vec![UNLIMITED; count], true, address)
    }

    /// Links hosts by one bridge. `address` gives each host's address by its number, from 1 on.
    fn linked(
        rates: &[Rates],
        offload: bool,
        address: impl Fn(u16) -> Option<Ipv4Addr>,
    ) -> anyhow::Result<Self> {
        let prefix = format!("cairn-{}", std::process::id());
        let hub = Namespace::add(&format!("{prefix}-hub"))?;
        let in_hub = format!("-n {}", hub.0);
        ip(&format!("{in_hub} link add name hub0 type bridge"))?;
        ip(&format!("{in_hub} addr add {HUB}/16 dev hub0"))?;
        ip(&format!("{in_hub} link set hub0 up"))?;
        // Keeps firewalls away from bridged packets. If the kernel module is missing, this fails,
        // and no firewall sees the packets anyway.
        let _none = run(
            "ip",
            &format!("netns exec {} sysctl -qw net.bridge.bridge-nf-call-iptables=0", hub.0),
        );
        let mut topology = Self { hosts: Vec::new(), hub: Some(hub), _blocks: Vec::new() };
        for (index, Rates { up, down }) in rates.iter().enumerate() {
            let namespace = Namespace::add(&format!("{prefix}-{index}"))?;
            let in_host = format!("-n {}", namespace.0);
            let number = u16::try_from(index + 1).ok();
            let address = number.and_then(&address).context("too many hosts")?;
            ip(&format!(
                "{in_hub} link add p{index} type veth peer name eth0 netns {}",
                namespace.0
            ))?;
            ip(&format!("{in_hub} link set p{index} master hub0 up"))?;
            ip(&format!("{in_host} addr add {address}/16 dev eth0"))?;
            ip(&format!("{in_host} link set eth0 up"))?;
            for (place, device, rate) in
                [(&in_host, "eth0".to_owned(), up), (&in_hub, format!("p{index}"), down)]
            {
                let bucket = format!("rate {rate}mbit burst {BURST} latency {LATENCY}");
                run("tc", &format!("{place} qdisc add dev {device} root tbf {bucket}"))?;
                let most = if offload { "gso_max_size 16384" } else { "gso_max_segs 1" };
                ip(&format!("{place} link set {device} {most}"))?;
            }
            topology.hosts.push(Host {
                address: SocketAddrV4::new(address, PORT),
                rpc: SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT + 1),
                namespace: Some(namespace),
            });
        }
        Ok(topology)
    }

    /// Hosts that are only ports on loopback. No other bench gets these ports until this is
    /// dropped.
    pub(super) fn loopback(count: usize) -> anyhow::Result<Self> {
        let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let (mut blocks, mut ports) = (Vec::new(), Vec::new());
        for first in LOOPBACK_PORTS.step_by(BLOCK.into()) {
            if ports.len() >= count * 2 {
                break;
            }
            let Some(block) = listen(first) else { continue };
            blocks.push(block);
            ports.extend((first + 1..first + BLOCK).filter(|port| listen(*port).is_some()));
        }
        if ports.len() < count * 2 {
            bail!("no {} free ports in {LOOPBACK_PORTS:?}", count * 2);
        }
        let address = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let host = |pair: &[u16]| Host {
            address: address(pair[0]),
            rpc: address(pair[1]),
            namespace: None,
        };
        let hosts = ports.chunks_exact(2).take(count).map(host).collect();
        Ok(Self { hosts, hub: None, _blocks: blocks })
    }

    /// Bytes that these hosts have sent; `None` without interfaces.
    pub(super) fn sent_by(
        &self,
        hosts: impl IntoIterator<Item = usize>,
    ) -> anyhow::Result<Option<u64>> {
        hosts.into_iter().map(|host| Ok(self.hosts[host].moved()?.map(|moved| moved.sent))).sum()
    }

    /// Like [`Host::inside`], at the hub, where no rate limit applies.
    pub(super) fn inside_hub<T: Send>(
        &self,
        start: impl FnOnce() -> T + Send,
    ) -> anyhow::Result<T> {
        inside(self.hub.as_ref(), start)
    }
}

impl Host {
    /// Runs `start` on a thread in the host's namespace. Programs that it starts are there too.
    pub(super) fn inside<T: Send>(&self, start: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        inside(self.namespace.as_ref(), start)
    }

    /// Bytes that its interface has sent and received. Headers are counted once for each packet
    /// that the kernel moves, however large. `None` without an interface.
    pub(super) fn moved(&self) -> anyhow::Result<Option<Moved>> {
        let Some(namespace) = &self.namespace else { return Ok(None) };
        let text = ip(&format!("-n {} -s -j link show dev eth0", namespace.0))?;
        let links: Vec<Value> = serde_json::from_str(&text).context("ip answers with JSON")?;
        // `ip` prints an empty object for each link that does not match.
        let bytes =
            |way: &str| links.iter().find_map(|link| link["stats64"][way]["bytes"].as_u64());
        let (sent, received) = (bytes("tx"), bytes("rx"));
        sent.zip(received)
            .map(|(sent, received)| Some(Moved { sent, received }))
            .context("ip tells no counters")
    }
}

/// Runs `start` on a thread in the namespace. Unlike `ip netns exec` this starts no extra program,
/// which would cost processor time just when nodes start.
fn inside<T: Send>(
    namespace: Option<&Namespace>,
    start: impl FnOnce() -> T + Send,
) -> anyhow::Result<T> {
    let Some(Namespace(name)) = namespace else { return Ok(start()) };
    let namespace = File::open(Path::new(NAMESPACES).join(name))
        .with_context(|| format!("no namespace {name}"))?;
    let work = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(start())
    };
    let done = thread::scope(|scope| scope.spawn(work).join());
    done.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// The public address of a host. All hosts are in one /16, and no packet leaves the bridge.
const fn public_address(third: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 200, third, 1)
}

fn ip(arguments: &str) -> anyhow::Result<String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{program} does not run"))?;
    if !output.status.success() {
        bail!("`{program} {arguments}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn benches_at_a_time_have_ports_of_their_own() {
        // Nothing listens on these ports yet. The last topology needs two blocks.
        let topologies = [1, 3, 60].map(|count| Topology::loopback(count).unwrap());
        let hosts: Vec<&Host> = topologies.iter().flat_map(|topology| &topology.hosts).collect();
        let addresses: BTreeSet<SocketAddrV4> =
            hosts.iter().flat_map(|host| [host.address, host.rpc]).collect();
        assert_eq!((hosts.len(), addresses.len()), (64, 128));
        for address in addresses {
            TcpListener::bind(address).unwrap();
        }
    }
}
