//! Tests of whole swarms of sync machines and of one machine, in simulated time. So no limit
//! depends on the machine that runs the tests.
#![allow(clippy::unwrap_used)]

mod backfill;
mod files;
mod machine;
mod snapshot;
mod storm;
mod swarms;

use ledger::units::SegmentIndex;

const MIB: u64 = 1 << 20;
const FIRST: SegmentIndex = SegmentIndex(0);
