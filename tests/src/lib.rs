//! Tools that show whether Cairn works: stories on real processes, simulators that run seed by
//! seed, fuzz targets, attacks and a bench.
//!
//! The tests that use them are in `tests/`. Each module imports only modules that stand below it.

pub mod bench;

pub mod fuzz;
pub mod hostile;

pub mod sim;
pub mod source;
pub mod story;
pub mod swarm;
