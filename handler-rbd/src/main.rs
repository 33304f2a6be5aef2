//! `tcmu-rbd`: the command line of the daemon.

use clap::Parser;
use handler_rbd::cfgstring::{self, CfgError};
use handler_rbd::cli::{Cli, Command};
use handler_rbd::service::status::{self, AskError, Format};
use handler_rbd::service::supervisor;
use std::io::Write;
use std::process::ExitCode;

/// What init scripts' `status` ends with if the program is not running.
const NOT_RUNNING: u8 = 3;

fn check(dev_config: &str) -> Result<(), CfgError> {
    cfgstring::check(dev_config)?;
    for warning in cfgstring::warnings(dev_config)? {
        eprintln!("tcmu-rbd: warning: {warning}");
    }
    println!("valid");
    Ok(())
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => handler_rbd::serve::serve(&options).inspect_err(supervisor::failed),
        Command::Status { json, run_dir } => {
            match status::ask(&run_dir, if json { Format::Json } else { Format::Text }) {
                Ok(answer) => std::io::stdout().write_all(answer.as_bytes()).map_err(Into::into),
                Err(error @ AskError::NotRunning(_)) => {
                    eprintln!("tcmu-rbd: {error}");
                    return ExitCode::from(NOT_RUNNING);
                }
                Err(error) => Err(error.into()),
            }
        }
        Command::Check { cfgstring } => check(&format!("rbd/{cfgstring}")).map_err(Into::into),
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
