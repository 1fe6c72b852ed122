//! Measures real nodes: how fast a swarm of them fetches a chain over links of known rates, and
//! more.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::bench::main()
}
