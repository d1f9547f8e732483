//! The command `millpond`: a store of the embedded queue from a shell.
//!
//! What a command does is in `commands`, one file for each subject; how it is shown in `output`. Never here: a decision about messages.
//!
//! Exit codes: 0 done; 1 the store refused or something failed; 2 the command line is wrong; 3 the store is in use by another process;
//! 4 there is no such store, topic, group or message; 5 the store is damaged.

mod args;
mod commands;
mod output;
#[cfg(test)]
#[path = "../tests/life/pty.rs"]
mod pty;
mod text;

use args::Args;
use clap::Parser;
use output::Failure;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read this has seen enough.
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where this cannot be written there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "millpond: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
