//! pgferry: carries a live PostgreSQL database to another server, and back when asked.
//!
//! This file parses the command line and hands over; it decides nothing. A mistake in the command
//! line ends with 64, because 2, which clap would use, means that a migration is blocked.

mod args;
mod client;
mod commands;
mod config_file;
mod render;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::commands::Exit;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // When even the message cannot be written there is nobody left to tell.
            let _ = error.print();
            return exit.into();
        }
    };
    match args.command {
        Command::Serve { config } => serve::serve(&config),
        Command::CheckConfig { file } => commands::check_config(&file).into(),
        Command::Client(command) => commands::run(&args.remote, command).into(),
    }
}
