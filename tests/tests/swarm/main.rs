//! Invariants of swarms of sync machines and of one machine, in simulated time: no limit depends on
//! the test machine.
#![allow(clippy::unwrap_used)]

mod machine;
mod storm;
mod swarms;

use ledger::units::SegmentIndex;

const MIB: u64 = 1 << 20;
const FIRST: SegmentIndex = SegmentIndex(0);
