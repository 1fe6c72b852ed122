//! The nodes that a node knows: where they are, how dialing them went, and what the connected ones
//! have.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::network::{KnownAddress, Network, Outcome, PeerInfo};
use crate::view::{Query, View};

/// One address of a known node. A node has an entry for each of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownNode {
    /// Its peer id.
    pub(crate) id: String,
    /// Where it is reached. `None` for a connected node that has no address where others reach it.
    pub(crate) address: Option<String>,
    /// When the address was last known to work, in milliseconds since 1970. `None` if it never was.
    pub(crate) last_seen_ms: Option<u64>,
    /// How the last dial ended: `untried`, `reached` or `failed`.
    pub(crate) outcome: String,
    /// Dials that failed since the last success.
    pub(crate) failures: u32,
    /// Whether the node is connected.
    pub(crate) connected: bool,
    /// The height that it has proved. `None` if it is not connected or has proved none.
    pub(crate) height: Option<u64>,
    /// The eras of history that it announces, as ranges of their numbers, first and last. `None` if
    /// it is not connected or announces none.
    pub(crate) eras: Option<Vec<[u64; 2]>>,
}

/// All nodes that this one knows, ordered by peer id and address. Without a view nothing is known
/// of what they have.
pub(crate) async fn known_nodes(network: &Network, view: Option<&View>) -> Vec<KnownNode> {
    let known = network.known().await;
    let connected = network.peers().borrow().clone();
    let (mut heights, mut eras) = (BTreeMap::new(), BTreeMap::new());
    if let Some(view) = view {
        // If the driver is busy, nodes are shown without heights.
        heights = view.ask(Query::PeerHeights).await.unwrap_or_default();
        eras = ranges(view);
    }
    let height = |id: &str| heights.get(id).map(|height| height.0);
    let mut nodes = merge(known, &connected);
    for node in nodes.iter_mut().filter(|node| node.connected) {
        node.height = height(&node.id);
        node.eras = eras.get(&node.id).cloned();
    }
    nodes
}

/// What the connected nodes announce, if they announce any era.
fn ranges(view: &View) -> BTreeMap<String, Vec<[u64; 2]>> {
    let archive = view.archive.borrow();
    let claims = archive.claims.iter().map(|claims| {
        let ranges = claims.eras.ranges().map(|range| [range.first.0, range.last.0]);
        (claims.peer.clone(), ranges.collect::<Vec<_>>())
    });
    claims.filter(|(_, ranges)| !ranges.is_empty()).collect()
}

fn merge(known: Vec<KnownAddress>, connected: &[PeerInfo]) -> Vec<KnownNode> {
    let connected: BTreeSet<_> = connected.iter().map(|peer| peer.id).collect();
    let addressed: BTreeSet<_> = known.iter().map(|known| known.peer).collect();
    let hidden = connected.difference(&addressed).map(|peer| KnownNode {
        id: peer.to_string(),
        address: None,
        last_seen_ms: None,
        outcome: Outcome::Untried.as_str().to_owned(),
        failures: 0,
        connected: true,
        height: None,
        eras: None,
    });
    let shown = known.iter().map(|known| KnownNode {
        id: known.peer.to_string(),
        address: Some(known.address.to_string()),
        last_seen_ms: known.seen_ms,
        outcome: known.outcome.as_str().to_owned(),
        failures: known.failures,
        connected: connected.contains(&known.peer),
        height: None,
        eras: None,
    });
    let mut nodes: Vec<KnownNode> = shown.chain(hidden).collect();
    nodes.sort_by(|one, other| (&one.id, &one.address).cmp(&(&other.id, &other.address)));
    nodes
}
