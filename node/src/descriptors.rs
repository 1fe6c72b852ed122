//! Divides the file descriptors of this process among the node's own files, peers and RPC.
//!
//! A node that has no descriptor left cannot open its store or its consensus log. Connections of
//! strangers take descriptors too. So the limit of the process is raised at the start and divided:
//! first the node's own files, then peers, then RPC, which gets the rest and at least [`RPC_MIN`].
//! Peers and RPC each limit their connections to their part.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::network;

/// Descriptors to ask the system for. All limits of this node together need fewer.
const WANTED: u64 = 8_192;
/// Descriptors that every process has: standard streams, the runtime's pollers and pipes, name
/// look-ups, and those that the parent left open.
const PROCESS: u64 = 40;
/// Descriptors for the store, the consensus log, staged segments and temporary files.
const STORE: u64 = 56;
/// Least descriptors for peers. With fewer, a node may not hear enough validators.
const PEERS_MIN: u64 = 48;
/// Least descriptors for RPC, so that an operator can still query a busy node.
const RPC_MIN: u64 = 16;

/// How the descriptors of this process are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    limit: u64,
    /// For peers: connections and handshakes.
    peers: u64,
    /// For RPC: connections.
    rpc: u64,
}

impl Descriptors {
    /// Raises the limit of this process, up to [`WANTED`], and divides it. The parts are for the
    /// node's own files and so many `shared` ones, for the `named` peers, to which the limits on
    /// connections do not apply, for all other peers, and for `rpc_wanted` connections to RPC.
    /// Warns if not all of these fit.
    ///
    /// # Errors
    /// The limit is too low for a node to work.
    pub(crate) fn prepare(
        limits: network::Limits,
        named: usize,
        shared: usize,
        rpc_wanted: usize,
    ) -> anyhow::Result<Self> {
        let kept = kept(named) + shared as u64;
        let shares = Self::share(raise(), kept, peers_wanted(limits), rpc_wanted as u64)?;
        if shares.peers < peers_wanted(limits) || shares.rpc < rpc_wanted as u64 {
            tracing::warn!(
                "this process may open {} files, which leaves room for {} peers and {} RPC \
                 connections; raise the limit (`ulimit -n`, LimitNOFILE in systemd) to {}",
                shares.limit,
                shares.limits(limits).connections(),
                shares.rpc,
                kept + peers_wanted(limits) + rpc_wanted as u64,
            );
        }
        Ok(shares)
    }

    fn share(limit: u64, kept: u64, peers_wanted: u64, rpc_wanted: u64) -> anyhow::Result<Self> {
        let least = kept + PEERS_MIN + RPC_MIN;
        ensure!(
            limit >= least,
            "this process may open {limit} files, a node needs at least {least}: \
             raise the limit (`ulimit -n`, LimitNOFILE in systemd)"
        );
        let room = limit - kept;
        let peers = peers_wanted.min(room - RPC_MIN);
        Ok(Self { limit, peers, rpc: rpc_wanted.min(room - peers) })
    }

    /// Connections to RPC that may be open at the same time.
    pub(crate) fn rpc_connections(&self) -> usize {
        usize::try_from(self.rpc).unwrap_or(usize::MAX)
    }

    /// The limits on connections with peers, lowered to fit the share.
    pub(crate) fn limits(&self, wanted: network::Limits) -> network::Limits {
        if self.peers >= peers_wanted(wanted) {
            return wanted;
        }
        // At most a quarter is for handshakes: an eighth for each direction.
        let pending = (self.peers / 8).min(wanted.pending.into());
        let connections = (self.peers - 2 * pending).min(wanted.connections().into());
        let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        network::Limits { pending: number(pending), ..wanted.with_connections(number(connections)) }
    }
}

/// Descriptors reserved for the node itself and for its named peers, each of which may have two
/// connections.
fn kept(named: usize) -> u64 {
    PROCESS + STORE + 2 * named as u64
}

/// Descriptors for all connections, and for handshakes in both directions.
fn peers_wanted(limits: network::Limits) -> u64 {
    u64::from(limits.connections()) + 2 * u64::from(limits.pending)
}

/// Raises the soft limit, and returns the new one.
fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` means unlimited.
    let (current, maximum) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    let wanted = WANTED.min(maximum);
    if current >= wanted {
        return current;
    }
    let hard = (maximum < u64::MAX).then_some(maximum);
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: hard }) {
        Ok(()) => wanted,
        // Not fatal: the node divides what it has.
        Err(_) => current,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rpc_gives_way_first_then_peers_and_never_the_store() {
        let wanted = network::Limits::default();
        for (limit, shares, connections) in [
            (8_192, Some((256, 512)), 128),
            (864, Some((256, 512)), 128),
            (863, Some((256, 511)), 128),
            (368, Some((256, 16)), 128),
            (367, Some((255, 16)), 128),
            (256, Some((144, 16)), 108),
            (160, Some((48, 16)), 36),
            (159, None, 0),
            (0, None, 0),
        ] {
            let shared = Descriptors::share(limit, kept(0), peers_wanted(wanted), 512).ok();
            assert_eq!(shared.map(|shared| (shared.peers, shared.rpc)), shares, "{limit}");
            let Some(shared) = shared else { continue };
            let limits = shared.limits(wanted);
            assert_eq!(limits.connections(), connections, "{limit}");
            let all = kept(0) + peers_wanted(limits) + shared.rpc_connections() as u64;
            assert!(all <= limit, "{limit}: {all} in all");
        }
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let maximum = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert!(raise() >= WANTED.min(maximum));
        assert!(
            getrlimit(Resource::Nofile)
                .current
                .is_none_or(|current| current >= WANTED.min(maximum))
        );
    }
}
