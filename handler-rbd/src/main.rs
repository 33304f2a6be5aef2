//! `tcmu-rbd`: the command line of the daemon.

use clap::Parser;
use handler_rbd::cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => handler_rbd::serve::serve(&options),
        Command::Check { cfgstring } => handler_rbd::cfgstring::check(&format!("rbd/{cfgstring}"))
            .map(|()| println!("valid"))
            .map_err(Into::into),
        #[cfg(feature = "crash-points")]
        Command::CrashPoints => {
            handler_rbd::CRASH_POINTS
                .iter()
                .chain(&uio_ring::crash::POINTS)
                .for_each(|point| println!("{point}"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcmu-rbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
