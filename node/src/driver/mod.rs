//! The two drivers perform what the two state machines of [`protocol`] decide, each on its own
//! thread: `live` for [`protocol::live`], `swarm` for [`protocol::swarm`].
//!
//! The two meet at three places. `peer_numbers` gives each peer one number for both. `live` tells
//! `swarm` of its tip and of headers far ahead. `swarm` hands whole segments of blocks to `live`,
//! which alone changes the chain.

pub(crate) mod live;
pub(crate) mod swarm;

mod blame;
pub(crate) mod peer_numbers;
mod priority;
