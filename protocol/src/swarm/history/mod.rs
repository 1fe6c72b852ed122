//! What the swarm knows about history: the manifest, the heads of segments, and the way of complete
//! segments into the chain. The rest of the swarm knows chunks only.

pub(super) mod answers;
pub(super) mod assembly;
pub(super) mod manifest;
