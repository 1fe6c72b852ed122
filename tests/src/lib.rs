//! The proof of Cairn: stories on real processes, and a simulator that runs seed by seed.
//!
//! The library holds the tools; the targets in `tests/` tell the stories. Each module imports only
//! modules that stand below it.

pub mod bench;

pub mod fuzz;
pub mod hostile;

pub mod sim;
pub mod source;
pub mod story;
pub mod swarm;
