//! `tcmu-rbd`: the command line of the daemon.

use clap::Parser;
use handler_rbd::cli::{Cli, Command};
use handler_rbd::service::supervisor;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => handler_rbd::serve::serve(&options).inspect_err(supervisor::failed),
        Command::Check { cfgstring } => handler_rbd::cfgstring::check(&format!("rbd/{cfgstring}"))
            .map(|()| println!("valid"))
            .map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcmu-rbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
