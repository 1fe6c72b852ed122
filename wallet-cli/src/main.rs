//! The program `cairn-wallet`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wallet::run()
}
