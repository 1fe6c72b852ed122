//! What proves Cairn: story by story on real processes, and seed by seed in a simulator.
//!
//! The library holds the tools; the targets in `tests/` tell the stories.

pub mod bench;
pub mod hostile;
pub mod sim;
pub mod story;
pub mod swarm;
