//! The program: parses the command line, runs the command, and ends with its exit code.

use std::process::ExitCode;

use node::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::dispatch(Cli::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if cli::is_output_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::show(&error);
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
