//! The two drivers perform what the two state machines of [`protocol`] decide, each on its own
//! thread: `live` for [`protocol::live`], `swarm` for [`protocol::swarm`].
//!
//! The two meet at three places. `peer_numbers` gives each peer one number for both. `live` tells
//! `swarm` of its tip and of headers far ahead. `swarm` tells `live` how to fetch blocks, and hands
//! it whole segments of blocks. Only `live` changes the chain.
//! Before the machine of `live` is made, `joining` stands in its place: a node without blocks may
//! begin with a snapshot, which `swarm` loads.
//!
//! A third thread, `snapshots`, writes the states that `live` gives it. A fourth one, `archive`,
//! performs what the machine of [`protocol::archive`] decides. `live` hands it what peers ask and
//! answer, and it tells `swarm` which eras to fetch. A task, `find`, searches for nodes that have
//! something, and answers the searches of others, by the rules of [`protocol::find`].

pub(crate) mod archive;
pub(crate) mod audit;
pub(crate) mod find;
pub(crate) mod joining;
pub(crate) mod live;
pub(crate) mod snapshots;
pub(crate) mod swarm;

mod blame;
#[cfg(test)]
mod made;
pub(crate) mod peer_numbers;
mod priority;

use ledger::genesis::CHUNK_BYTES_MAX;
use protocol::message;
use protocol::swarm::message::{CHUNK_HEADER_BYTES, SYNC_MESSAGE_BYTES_MAX};

use crate::network::{self, Topic};

// The network and the protocol do not know each other, so both state these limits. If they
// differed, a valid message would not be delivered, or the network would carry one that no decoder
// accepts.
const _: () = {
    assert!(Topic::Consensus.bytes_max() == message::CONSENSUS_BYTES_MAX);
    assert!(Topic::Headers.bytes_max() == message::HEADER_MESSAGE_BYTES_MAX);
    assert!(Topic::Transactions.bytes_max() == message::TRANSACTIONS_BYTES_MAX);
    assert!(network::REQUEST_BYTES_MAX == message::REQUEST_BYTES_MAX);
    assert!(network::RESPONSE_BYTES_MAX == message::RESPONSE_BYTES_MAX);
    assert!(network::LINK_MESSAGE_BYTES_MAX == SYNC_MESSAGE_BYTES_MAX);
    // The network leaves room for a longer name of a chunk.
    assert!(CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX <= network::LINK_DATA_BYTES_MAX);
};
