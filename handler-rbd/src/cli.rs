//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Serves LIO user:rbd backstores from RBD images.
#[derive(Debug, Parser)]
#[command(name = "tcmu-rbd", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the user:rbd devices of this host until SIGTERM.
    Serve(Serve),
    /// Say what each LUN is doing. Ends with 3 if no daemon runs.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
        /// The run directory that the daemon was started with.
        #[arg(long, value_name = "DIR", default_value = crate::records::DEFAULT_DIR)]
        run_dir: PathBuf,
    },
    /// Say whether a configuration string (as given to targetcli, POOL/IMAGE[;OPTION=VALUE]...) is valid.
    Check {
        /// The configuration string.
        cfgstring: String,
    },
    /// Name the places where a test can have this program die (TCMU_RBD_CRASH_AT=POINT:COUNT).
    #[cfg(feature = "crash-points")]
    CrashPoints,
}

/// Options of `serve`.
#[derive(Debug, Parser)]
pub struct Serve {
    /// Refuse a new device whose image is not open after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub open_timeout: Duration,
    /// Wait at most this many seconds for commands in progress when stopping.
    #[arg(long, value_name = "SECONDS", default_value = "45", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Write the log to tcmu-runner.log in this directory too (SIGHUP reopens it).
    #[arg(long, value_name = "DIR", default_value = "/var/log")]
    pub log_dir: PathBuf,
    /// Log this and what is worse.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Level,
    /// Only one process may hold this file.
    #[arg(long, value_name = "FILE", default_value = crate::lock_file::DEFAULT_PATH)]
    pub lock_file: PathBuf,
    /// Keep what a successor needs after a crash here; must not outlive the host's uptime.
    #[arg(long, value_name = "DIR", default_value = crate::records::DEFAULT_DIR)]
    pub run_dir: PathBuf,
    /// Have librbd send writes from the ring's pages without copying them. Not safe where clients get
    /// fenced: librbd 16 then never completes a write, and its initiator waits for ever.
    #[arg(long)]
    pub zero_copy_writes: bool,
    /// Where images are kept. With "memory" contents die with the process: for benchmarks only.
    #[arg(long, value_name = "KIND", default_value = "rbd")]
    pub storage: Storage,
}

/// How much to log.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// Where images are kept.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Storage {
    Rbd,
    Memory,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds.into())),
        _ => Err("a whole number of seconds, at least 1".into()),
    }
}
