//! Measures real nodes: how fast a swarm of them takes over a chain on links of known rates.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::bench::main()
}
