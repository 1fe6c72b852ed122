//! The program: reads the command line, does what it says, and ends with an exit code.

use std::process::ExitCode;

use clap::Parser;
use node::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", cli::told(&error));
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
