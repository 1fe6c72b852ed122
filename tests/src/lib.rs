//! Tools that show whether Cairn works: stories (tests that run real processes), simulators that
//! repeat a run exactly from its seed, fuzz targets, attacks, a bench, and a reader of this source
//! code.
//!
//! The tests that use them are in this crate's folder `tests/`. Each module imports only modules
//! that stand below it in this file.

pub mod bench;

pub mod fuzz;
pub mod hostile;

pub mod sim;
pub mod source;
pub mod story;
pub mod swarm;
