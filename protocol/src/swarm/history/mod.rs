//! What the swarm machine knows about history: the manifest, the heads of segments, and how
//! complete segments get into the chain. The other modules of `swarm` know chunks only.

pub(super) mod answers;
pub(super) mod assembly;
pub(super) mod manifest;
