//! `tcmu-rbd serve`: start in the order the kernel and the tools rely on, run, end in order.

use crate::cli::{Level, Serve, Storage};
use crate::daemon::{Daemon, Settings, StorageKind, status};
use crate::kernel::Sys;
use crate::kernel::module::Module;
use crate::kernel::netlink::TcmuNetlink;
use crate::kernel::netlink_thread::NetlinkThread;
use crate::lock_file::LockFile;
use crate::log::{self, Chain, LogFile};
use crate::records::Records;
use crate::service::dbus::Bus;
use crate::service::keeper::Keeper;
use crate::service::status::{Format, StatusServer};
use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Log file in the log directory: the incumbent's name, which logrotate and operators know.
const LOG_FILE: &str = "tcmu-runner.log";

/// How often the name on the bus is looked at, and tried for if it is not ours.
const BUS_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop.
pub fn serve(options: &Serve) -> anyhow::Result<()> {
    // Before any thread exists, librados' among them: they inherit the mask, so only we see these.
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>();
    signals.thread_block().context("cannot block signals")?;
    let signals =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("cannot listen to signals")?;

    let log_file = start_log(options);
    let _lock = LockFile::acquire(&options.lock_file)?;
    let sys = Sys::host();
    let module = Module::new(&sys);
    module.load()?;

    // First of all the name, so that targetcli finds an answer whatever the images do.
    let _service = Keeper::start(Bus::System, BUS_INTERVAL, |why| {
        let why = why.map_or("the bus is gone".to_owned(), |error| Chain(error).to_string());
        tracing::warn!("serving without D-Bus until it is there, so targetcli does not list user:rbd: {why}");
    })
    .context("cannot start the D-Bus thread")?;
    let records = Records::load(&options.run_dir).with_context(|| {
        format!("cannot read in {} which clients are to be fenced (--run-dir)", options.run_dir.display())
    })?;
    let settings = Settings {
        sys,
        open_timeout: options.open_timeout,
        drain_timeout: options.drain_timeout,
        zero_copy_writes: options.zero_copy_writes,
        storage: match options.storage {
            Storage::Rbd => StorageKind::Rbd,
            Storage::Memory => StorageKind::Memory,
        },
    };
    let daemon = Daemon::new(settings, records);
    let _status = start_status(&options.run_dir, &daemon);
    let netlink = start_netlink(&module, &daemon)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving user:rbd");

    run(&signals, log_file.as_ref())?;

    daemon.shut_down();
    netlink.stop();
    let released = release_waiters(&module);
    tracing::info!("stopped");
    released.context("whoever waits for an answer about a device waits until the next start")
}

/// Whoever waits for an answer that we cannot give any more gets an error, and later creations do not wait.
fn release_waiters(module: &Module) -> anyhow::Result<()> {
    module.block_netlink(true)?;
    let reset = module.reset_netlink();
    let features = TcmuNetlink::connect().and_then(|link| link.set_features(false));
    module.block_netlink(false)?;
    reset?;
    Ok(features?)
}

/// Answers `tcmu-rbd status`. Nothing depends on it, so a failure is only logged.
fn start_status(dir: &Path, daemon: &Arc<Daemon>) -> Option<StatusServer> {
    let daemon = daemon.clone();
    let answer = move |format| match format {
        Format::Text => status::table(&daemon.luns()),
        Format::Json => status::json(&daemon.luns()),
    };
    StatusServer::start(dir, answer)
        .inspect_err(|error| {
            tracing::warn!("'tcmu-rbd status' gets no answer: no socket in {}: {error}", dir.display());
        })
        .ok()
}

fn start_log(options: &Serve) -> Option<LogFile> {
    let level = match options.log_level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let path = options.log_dir.join(LOG_FILE);
    let file = LogFile::open(&path);
    log::init(level, file.as_ref().ok().cloned());
    match file {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!("logging to standard error only, cannot open {}: {error}", path.display());
            None
        }
    }
}

/// Releases whoever waits for a predecessor's answer, then listens, then takes on what exists; while that
/// is being found out the kernel refuses changes with EAGAIN.
fn start_netlink(module: &Module, daemon: &Arc<Daemon>) -> anyhow::Result<NetlinkThread> {
    module.block_netlink(true)?;
    let started = module.reset_netlink().map_err(anyhow::Error::from).and_then(|()| {
        let link = TcmuNetlink::connect()?;
        link.set_features(true)?;
        let (handler, scanner) = (daemon.clone(), daemon.clone());
        let thread = NetlinkThread::spawn(
            link,
            module.clone(),
            move |event, responder| handler.handle(event, responder),
            // Events were lost. Devices that vanished notice it themselves.
            move || scanner.adopt_all(),
        )?;
        daemon.adopt_all();
        Ok(thread)
    });
    module.block_netlink(false)?;
    started
}

/// Waits for signals; returns on the one that ends us.
fn run(signals: &SignalFd, log_file: Option<&LogFile>) -> anyhow::Result<()> {
    loop {
        let Some(signal) = signals.read_signal().context("cannot read signals")? else { continue };
        if signal.ssi_signo != Signal::SIGHUP as u32 {
            tracing::info!(signal = signal.ssi_signo, "stopping");
            return Ok(());
        }
        if let Some(file) = log_file {
            match file.reopen() {
                Ok(()) => tracing::info!("log file reopened"),
                Err(error) => tracing::error!(%error, "cannot reopen the log file; the old one stays in use"),
            }
        }
    }
}
